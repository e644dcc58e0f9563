//! The API's source of task output: the dispatcher's broker, in the API's words.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::api::{LogError, LogItem, LogOptions, LogSource, LogStream};
use crate::dispatcher::{Dispatcher, LogSelection};
use crate::domain::{TaskId, Timestamp};
use crate::env::Scope;
use crate::wire::node as wire;

/// Lines that wait for one client.
const QUEUE: usize = 256;

/// Output by way of this manager's dispatcher, while there is one.
#[derive(Debug)]
pub(super) struct Broker {
    dispatcher: watch::Receiver<Option<Dispatcher>>,
    scope: Scope,
}

impl Broker {
    pub(super) fn new(dispatcher: watch::Receiver<Option<Dispatcher>>, scope: &Scope) -> Arc<Self> {
        Arc::new(Self { dispatcher, scope: scope.child("logs") })
    }
}

#[async_trait]
impl LogSource for Broker {
    async fn subscribe(
        &self,
        tasks: Vec<TaskId>,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogItem>, LogError> {
        let dispatcher = self.dispatcher.borrow().clone();
        let dispatcher = dispatcher
            .ok_or_else(|| LogError("this node is not a manager that is running".to_owned()))?;
        let selection = LogSelection { tasks, options: to_wire(options) };
        let mut from = dispatcher.logs().subscribe(selection);
        let (items, receiver) = mpsc::channel(QUEUE);
        self.scope.spawn("log-client", async move {
            loop {
                tokio::select! {
                    biased;
                    () = items.closed() => return,
                    item = from.recv() => {
                        let Some(item) = item else { return };
                        let Some(line) = to_line(item) else { continue };
                        if items.send(line).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(receiver)
    }
}

fn to_wire(options: LogOptions) -> wire::LogOptions {
    wire::LogOptions {
        follow: options.follow,
        tail_set: options.tail.is_some(),
        tail: options.tail.unwrap_or_default(),
        since: options.since.map_or(0, |since| since.0),
        streams: match options.only {
            None | Some(LogStream::Warning) => 0,
            Some(LogStream::Stdout) => 1,
            Some(LogStream::Stderr) => 2,
        },
    }
}

/// A line for the client; `None` for a mere end.
fn to_line(item: crate::dispatcher::LogItem) -> Option<LogItem> {
    let message = item.message;
    let (stream, data) = if message.error.is_empty() {
        let stream = if message.stderr { LogStream::Stderr } else { LogStream::Stdout };
        (stream, message.data)
    } else {
        (LogStream::Warning, format!("{}\n", message.error).into())
    };
    let at = Timestamp(message.at);
    (!data.is_empty()).then_some(LogItem { task: item.task, node: item.node, stream, at, data })
}
