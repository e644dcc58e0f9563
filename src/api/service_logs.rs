//! `/services/{id}/logs` and `/tasks/{id}/logs`: output of tasks, wherever they run.
//!
//! Framed as Docker does: `[1|2, 0, 0, 0][length, big endian][payload]`, one line per frame;
//! without frames where the tasks have a terminal. A follower of a service follows new tasks, too.

use std::collections::BTreeSet;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::SelectAll;
use http::{StatusCode, header};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

use super::ask::{Ask, Params};
use super::context::Ctx;
use super::error::Error;
use super::events::timestamp;
use super::log_source::{LogItem, LogOptions, LogStream};
use super::lookup;
use crate::domain::{Service, ServiceId, TaskId, Timestamp};
use crate::state::View;

/// How the output is written.
#[derive(Clone, Copy, Debug)]
struct Format {
    terminal: bool,
    timestamps: bool,
    details: bool,
}

/// `GET /services/{id}/logs`.
pub(super) async fn of_service(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let options = options(&ask.params)?;
    let read = ctx.read(&ask).await?;
    let service = lookup::service(&read.view, &text)?;
    let format = format(&ask.params, &read.view, service);
    let tasks = started(&read.view, service.id);
    let follow = options.follow.then(|| (service.id, read.store.watch()));
    stream(ctx, Output::new(tasks, follow, options, format)).await
}

/// `GET /tasks/{id}/logs`.
pub(super) async fn of_task(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let options = options(&ask.params)?;
    let read = ctx.read(&ask).await?;
    let task = lookup::task(&read.view, &text)?;
    let service = read.view.service(task.service);
    let format = service
        .map_or(Format { terminal: false, timestamps: false, details: false }, |service| {
            format(&ask.params, &read.view, service)
        });
    stream(ctx, Output::new(BTreeSet::from([task.id]), None, options, format)).await
}

fn options(params: &Params) -> Result<LogOptions, Error> {
    let only = match (params.flag("stdout"), params.flag("stderr")) {
        (true, true) => None,
        (true, false) => Some(LogStream::Stdout),
        (false, true) => Some(LogStream::Stderr),
        (false, false) => {
            let text = "Bad parameters: you must choose at least one stream";
            return Err(Error::internal(text));
        }
    };
    let since = params.get("since").filter(|text| !matches!(*text, "" | "0"));
    let since = since.map(timestamp).transpose()?;
    let tail = match params.get("tail") {
        None | Some("" | "all") => None,
        Some(text) => text.parse().ok(),
    };
    Ok(LogOptions { follow: params.flag("follow"), tail, since, only })
}

fn format(params: &Params, view: &View, service: &Service) -> Format {
    let spec = view.current_spec(service);
    Format {
        terminal: spec.is_some_and(|spec| spec.task_template.container_spec.tty),
        timestamps: params.flag("timestamps"),
        details: params.flag("details"),
    }
}

/// The tasks of a service that were ever given to a node.
fn started(view: &View, service: ServiceId) -> BTreeSet<TaskId> {
    view.tasks_of(service).filter(|task| task.node.is_some()).map(|task| task.id).collect()
}

/// Output on its way to a client.
struct Output {
    /// What is subscribed.
    items: SelectAll<ReceiverStream<LogItem>>,
    /// To be subscribed.
    wanted: BTreeSet<TaskId>,
    /// Subscribed once.
    known: BTreeSet<TaskId>,
    /// Whose new tasks are followed.
    follow: Option<(ServiceId, watch::Receiver<View>)>,
    options: LogOptions,
    format: Format,
}

impl Output {
    fn new(
        wanted: BTreeSet<TaskId>,
        follow: Option<(ServiceId, watch::Receiver<View>)>,
        options: LogOptions,
        format: Format,
    ) -> Self {
        let known = BTreeSet::new();
        Self { items: SelectAll::new(), wanted, known, follow, options, format }
    }

    async fn subscribe(&mut self, ctx: &Ctx) -> Result<(), Error> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let tasks = std::mem::take(&mut self.wanted);
        self.known.extend(&tasks);
        let tasks = tasks.into_iter().collect();
        let items = ctx.deps.logs.subscribe(tasks, self.options).await?;
        self.items.push(ReceiverStream::new(items));
        // What starts from now on is wanted from its beginning.
        self.options.tail = None;
        Ok(())
    }

    /// The next item; `None` when there will be none.
    async fn next(&mut self, ctx: &Ctx) -> Option<LogItem> {
        loop {
            if let Err(error) = self.subscribe(ctx).await {
                tracing::warn!(%error, "the output of new tasks cannot be followed");
            }
            let Some((service, views)) = &mut self.follow else {
                return self.items.next().await;
            };
            let service = *service;
            let has_items = !self.items.is_empty();
            tokio::select! {
                item = self.items.next(), if has_items => if let Some(item) = item {
                    return Some(item);
                },
                changed = views.changed() => {
                    changed.ok()?;
                    let now = views.borrow_and_update().clone();
                    if now.service(service).is_none() && self.items.is_empty() {
                        return None;
                    }
                    self.wanted = &started(&now, service) - &self.known;
                }
            }
        }
    }
}

async fn stream(ctx: Ctx, mut output: Output) -> Result<Response, Error> {
    output.subscribe(&ctx).await?;
    let format = output.format;
    let view_of = ctx.clone();
    let lines = futures::stream::unfold((ctx, output), |(ctx, mut output)| async move {
        let item = output.next(&ctx).await?;
        Some((item, (ctx, output)))
    });
    let body = lines.map(move |item| {
        let service = service_of(&view_of, item.task);
        Ok::<_, Infallible>(written(&item, service, format))
    });
    let kind = if format.terminal { "raw" } else { "multiplexed" };
    let kind = format!("application/vnd.docker.{kind}-stream");
    let headers = [(header::CONTENT_TYPE, kind)];
    Ok((StatusCode::OK, headers, Body::from_stream(body)).into_response())
}

fn service_of(ctx: &Ctx, task: TaskId) -> Option<ServiceId> {
    let store = ctx.deps.store.borrow();
    store.as_ref()?.view().task(task).map(|task| task.service)
}

/// An item as it goes over the wire.
fn written(item: &LogItem, service: Option<ServiceId>, format: Format) -> Bytes {
    let mut line = Vec::with_capacity(item.data.len() + 160);
    if format.timestamps {
        let at = if item.at > Timestamp(0) { item.at } else { Timestamp(0) };
        line.extend_from_slice(at.to_string().as_bytes());
        line.push(b' ');
    }
    if format.details {
        let service = service.map(|service| service.to_string()).unwrap_or_default();
        let details = format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={service},com.docker.swarm.task.id={} ",
            item.node, item.task
        );
        line.extend_from_slice(details.as_bytes());
    }
    if item.stream == LogStream::Warning {
        line.extend_from_slice(b"warning: ");
    }
    line.extend_from_slice(&item.data);
    if format.terminal {
        return line.into();
    }
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    let stream = match item.stream {
        LogStream::Stdout => 1,
        LogStream::Stderr | LogStream::Warning => 2,
    };
    let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(line.len() + 8);
    frame.extend_from_slice(&[stream, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&line);
    frame.into()
}
