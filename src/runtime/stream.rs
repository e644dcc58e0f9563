//! What the engine tells over time: events as hints, and output of containers. Bounded, and ended by
//! whoever holds the receiver.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::EventMessage;
use bollard::query_parameters as query;
use bytes::Bytes;
use futures::StreamExt as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use super::docker::DockerRuntime;
use super::{Hint, LogLine, LogOptions, spec};
use crate::domain::Timestamp;
use crate::env::Scope;

/// Hints that may wait. When more come, the reader is behind anyway and the engine waits.
const HINTS: usize = 256;
/// Lines of output that may wait; then the engine waits.
const LINES: usize = 256;
/// The first wait after the engine went away; it doubles up to the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// Events of containers that matter; whoever starts one looks by itself. Health checks make three
/// `exec_*` events each, which are left to the engine to drop.
const EVENTS: [&str; 4] = ["die", "oom", "destroy", "health_status"];

/// Hints for as long as the receiver lives.
pub(super) fn watch(runtime: Arc<DockerRuntime>) -> mpsc::Receiver<Hint> {
    let (hints, receiver) = mpsc::channel(HINTS);
    let scope = runtime.scope.clone();
    scope.spawn("engine events", async move { follow(&runtime, &hints).await });
    receiver
}

async fn follow(runtime: &DockerRuntime, hints: &mpsc::Sender<Hint>) {
    let mut wait = BACK_OFF_MIN;
    while !hints.is_closed() {
        match runtime.client().await {
            Ok(docker) => {
                wait = BACK_OFF_MIN;
                // From a moment before now, so that nothing falls between the look at everything
                // (`None`) and the first event.
                let since = runtime.env.clock.now().0 / 1_000_000_000;
                let events = events(&docker, runtime, since.saturating_sub(1));
                futures::pin_mut!(events);
                if hints.send(None).await.is_err() {
                    return;
                }
                while let Some(Ok(event)) = events.next().await {
                    if let Some(hint) = hint(&event)
                        && hints.send(Some(hint)).await.is_err()
                    {
                        return;
                    }
                }
                runtime.disconnect();
                tracing::warn!("the container engine closed its events");
                // That it is gone is to be known at once, not only when it is back.
                if hints.send(None).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "no container engine"),
        }
        runtime.env.clock.sleep(runtime.env.entropy.jitter(wait)).await;
        wait = (wait * 2).min(BACK_OFF_MAX);
    }
}

fn events(
    docker: &Docker,
    runtime: &DockerRuntime,
    since: u64,
) -> impl futures::Stream<Item = Result<EventMessage, bollard::errors::Error>> + use<> {
    let own = format!("{}={}", spec::LABEL_NODE, runtime.settings.node);
    let filters = [
        ("type", vec!["container".to_owned()]),
        ("event", EVENTS.map(ToOwned::to_owned).to_vec()),
        ("label", vec![own]),
    ];
    let options = query::EventsOptionsBuilder::default()
        .since(&since.to_string())
        .filters(&filters.into_iter().collect())
        .build();
    docker.events(Some(options))
}

pub(super) fn hint(event: &EventMessage) -> Option<crate::domain::TaskId> {
    let labels = event.actor.as_ref()?.attributes.as_ref()?;
    spec::task_of(labels.iter())
}

/// Output of a container, line by line.
pub(super) fn logs(
    scope: &Scope,
    docker: &Docker,
    id: &str,
    options: LogOptions,
) -> mpsc::Receiver<LogLine> {
    let (lines, receiver) = mpsc::channel(LINES);
    let since = options.since.map_or(0, |since| since.0 / 1_000_000_000);
    let query = query::LogsOptionsBuilder::default()
        .follow(options.follow)
        .stdout(options.stderr_only != Some(true))
        .stderr(options.stderr_only != Some(false))
        .since(i32::try_from(since).unwrap_or(i32::MAX))
        .timestamps(true)
        .tail(&options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()))
        .build();
    let output = docker.logs(id, Some(query));
    scope.spawn("logs", async move {
        futures::pin_mut!(output);
        loop {
            let next = tokio::select! {
                biased;
                () = lines.closed() => return,
                next = output.next() => next,
            };
            let Some(Ok(output)) = next else { return };
            let line = line(output);
            let early = line.at.zip(options.since).is_some_and(|(at, since)| at < since);
            if !early && lines.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Takes the engine's time stamp off a line.
fn line(output: LogOutput) -> LogLine {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    let data = output.into_bytes();
    match data.iter().position(|byte| *byte == b' ') {
        Some(space) => match parse_time(&data[..space]) {
            Some(at) => LogLine { stderr, at: Some(at), data: data.slice(space + 1..) },
            None => LogLine { stderr, at: None, data },
        },
        None => LogLine { stderr, at: None, data: Bytes::clone(&data) },
    }
}

pub(super) fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamp_is_taken_off_a_line() {
        let message = Bytes::from_static(b"2024-02-29T12:34:56.789000001Z hello world\n");
        let line = line(LogOutput::StdErr { message });
        assert!(line.stderr);
        assert_eq!(line.at, Some(Timestamp(1_709_210_096_789_000_001)));
        assert_eq!(&line.data[..], b"hello world\n");
    }

    #[test]
    fn line_without_time_stamp_stays_whole() {
        let line = line(LogOutput::Console { message: Bytes::from_static(b"hello world\r\n") });
        assert_eq!((line.at, &line.data[..]), (None, &b"hello world\r\n"[..]));
    }
}
