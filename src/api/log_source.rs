//! Where the output of tasks comes from: the seam to the dispatcher.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::domain::{NodeId, TaskId, Timestamp};

/// Which output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Stay and send what comes.
    pub follow: bool,
    /// The last lines of each task only.
    pub tail: Option<u64>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// One stream only; both if absent.
    pub only: Option<LogStream>,
}

/// What a piece of output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Not output of the task: why (some of) it cannot be had. Shown as standard error.
    Warning,
}

/// A piece of output: one line, or what a terminal sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogItem {
    /// Whose output.
    pub task: TaskId,
    /// Where it runs.
    pub node: NodeId,
    /// Which stream.
    pub stream: LogStream,
    /// When it was written; zero if unknown.
    pub at: Timestamp,
    /// The bytes, with the newline if there was one.
    pub data: Bytes,
}

/// Why there is no output at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// Where the output of tasks comes from.
#[async_trait]
pub trait LogSource: Send + Sync + Debug {
    /// Output of tasks on any node. The channel closes when all is sent and `follow` is not asked,
    /// or when all tasks have ended; dropping the receiver ends the subscription. A node that
    /// cannot be reached gives a `Warning` for each of its tasks; the others' output goes on.
    async fn subscribe(
        &self,
        tasks: Vec<TaskId>,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogItem>, LogError>;
}
