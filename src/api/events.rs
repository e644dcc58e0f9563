//! `GET /events`: what happens to the cluster's objects, merged with the local engine's events.
//!
//! One routine turns the store's events into Docker's and keeps the last ones, as dockerd does, so
//! that `since` finds a little of the past. Events are news, not a log: a slow reader misses some.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};

use super::Deps;
use super::ask::{Ask, Params};
use super::context::Ctx;
use super::convert::event;
use super::error::Error;
use super::filter::Filters;
use crate::domain::Timestamp;
use crate::env::{Canary, Faults, Scope};
use crate::raft::Store;

/// Events kept for `since` (dockerd keeps 256) and queued for a slow reader.
const KEPT: usize = 256;
/// Lines of the engine queued for a slow reader; the engine waits then.
const ENGINE_QUEUE: usize = 64;

/// A cluster event in Docker's words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct News {
    pub(super) kind: &'static str,
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) at: Timestamp,
}

impl News {
    fn line(&self) -> Bytes {
        let value = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "swarm",
            "time": self.at.0 / 1_000_000_000,
            "timeNano": self.at.0,
        });
        format!("{value}\n").into()
    }
}

/// Where events come together.
#[derive(Clone, Debug)]
pub(super) struct EventHub {
    sender: broadcast::Sender<Arc<News>>,
    kept: Arc<Mutex<VecDeque<Arc<News>>>>,
}

impl EventHub {
    /// Starts following the store, whenever there is one.
    pub(super) fn start(deps: &Deps, scope: &Scope) -> Self {
        let hub = Self { sender: broadcast::Sender::new(KEPT), kept: Arc::default() };
        scope.spawn("events", hub.clone().follow(deps.store.clone(), deps.env.faults));
        hub
    }

    async fn follow(self, mut stores: watch::Receiver<Option<Store>>, faults: Faults) {
        loop {
            let store = stores.borrow_and_update().clone();
            let Some(store) = store else {
                if stores.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                changed = stores.changed() => if changed.is_err() { return },
                () = self.follow_one(&store, faults) => {
                    // The store is closing; the next one will be announced.
                    if stores.changed().await.is_err() { return }
                }
            }
        }
    }

    async fn follow_one(&self, store: &Store, faults: Faults) {
        let mut events = store.events();
        loop {
            match events.recv().await {
                Ok(batch) => {
                    let view = store.view();
                    let is_lost = view.position.index.is_multiple_of(32);
                    if is_lost && faults.has(Canary::NewsLost) {
                        continue;
                    }
                    batch.iter().filter_map(|one| event::news(one, &view)).for_each(|news| {
                        self.publish(Arc::new(news));
                    });
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "the event stream missed changes");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Tells all who listen, and those who ask for a little of the past.
    pub(super) fn publish(&self, news: Arc<News>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&news));
        // No receivers is no failure: nobody is listening.
        drop(self.sender.send(news));
    }

    /// The kept events from a time on, and what comes from now on, without a gap.
    fn subscribe(
        &self,
        since: Option<Timestamp>,
    ) -> (Vec<Arc<News>>, broadcast::Receiver<Arc<News>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.sender.subscribe();
        let past = since.map_or_else(Vec::new, |since| {
            kept.iter().filter(|news| news.at >= since).cloned().collect()
        });
        (past, receiver)
    }
}

/// Which events a client wants.
struct Wanted {
    filters: Filters,
    until: Option<Timestamp>,
}

impl Wanted {
    fn matches(&self, news: &News) -> bool {
        let named = |text: &str| {
            text == news.id || news.attributes.get("name").is_some_and(|name| name == text)
        };
        self.filters.any("type", |kind| kind == news.kind)
            && self.filters.any("scope", |scope| scope == "swarm")
            && self.filters.any("event", |action| action == news.action)
            && self.filters.any("label", |_| false)
            && ["service", "node", "secret", "config", "network"]
                .iter()
                .all(|kind| self.filters.any(kind, |text| news.kind == *kind && named(text)))
            && ["container", "image", "volume", "plugin", "daemon"]
                .iter()
                .all(|kind| self.filters.any(kind, |_| false))
            && self.until.is_none_or(|until| news.at <= until)
    }
}

/// `GET /events`.
pub(super) async fn stream(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let time = |name| ask.params.get(name).filter(|text| !text.is_empty()).map(timestamp);
    let (since, until) = (time("since").transpose()?, time("until").transpose()?);
    let filters = Filters::parse(&ask.params)?;
    let engine = engine_lines(&ctx, &ask.params).await;
    let (past, receiver) = ctx.events.subscribe(since);
    let wanted = Wanted { filters, until };
    let now = ctx.deps.env.clock.now();
    let left = until.map(|until| until.since(now));
    let past: Vec<Bytes> =
        past.iter().filter(|news| wanted.matches(news)).map(|news| news.line()).collect();
    let merged = Merged { ctx, wanted, receiver, engine, left };
    let body = futures::stream::iter(past).chain(futures::stream::unfold(merged, Merged::next));
    let body = Body::from_stream(body.map(Ok::<_, std::convert::Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

struct Merged {
    ctx: Ctx,
    wanted: Wanted,
    receiver: broadcast::Receiver<Arc<News>>,
    engine: Option<mpsc::Receiver<Bytes>>,
    left: Option<Duration>,
}

impl Merged {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let clock = Arc::clone(&self.ctx.deps.env.clock);
        let started = clock.instant();
        let limit = self.left;
        let end = async {
            match limit {
                Some(left) => clock.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let engine = async {
                match &mut self.engine {
                    Some(lines) => lines.recv().await,
                    None => std::future::pending().await,
                }
            };
            let line = tokio::select! {
                biased;
                line = engine => match line {
                    Some(line) => Some(line),
                    None => { self.engine = None; None }
                },
                news = self.receiver.recv() => match news {
                    Ok(news) => self.wanted.matches(&news).then(|| news.line()),
                    Err(broadcast::error::RecvError::Lagged(_)) => None,
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = &mut end => return None,
            };
            if let Some(line) = line {
                let passed = clock.instant().since(started);
                self.left = limit.map(|left| left.saturating_sub(passed));
                return Some((line, self));
            }
        }
    }
}

/// The engine's events, line by line; `None` without an engine.
async fn engine_lines(ctx: &Ctx, params: &Params) -> Option<mpsc::Receiver<Bytes>> {
    let mut query = Vec::new();
    for name in ["since", "until", "filters"] {
        if let Some(value) = params.get(name) {
            query.push(format!("{name}={}", escape(value)));
        }
    }
    let response = ctx.engine.stream(&format!("/events?{}", query.join("&"))).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    let (sender, receiver) = mpsc::channel(ENGINE_QUEUE);
    ctx.scope.spawn("engine events", async move {
        let mut chunks = response.into_body().into_data_stream();
        let mut rest = Vec::new();
        loop {
            let chunk = tokio::select! {
                () = sender.closed() => return,
                chunk = chunks.next() => chunk,
            };
            let Some(Ok(chunk)) = chunk else { return };
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if is_ours(&line) {
                    continue;
                }
                if sender.send(line.into()).await.is_err() {
                    return;
                }
            }
        }
    });
    Some(receiver)
}

/// Whether the engine tells of swarm objects of its own, which are none of this cluster's.
fn is_ours(line: &[u8]) -> bool {
    let value: Option<Value> = serde_json::from_slice(line).ok();
    value.is_some_and(|value| value.get("scope").is_some_and(|scope| scope == "swarm"))
}

/// A text as the value of a query parameter.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Unix seconds with an optional fraction, as clients send times.
///
/// # Errors
/// 400 for anything else.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, Error> {
    let wrong = || Error::bad_request(format!("failed to parse {text:?} as a Unix time"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(timestamp("1795242985").unwrap(), Timestamp(1_795_242_985_000_000_000));
        assert_eq!(timestamp("5.25").unwrap(), Timestamp(5_250_000_000));
        assert_eq!(timestamp("5.000000001").unwrap(), Timestamp(5_000_000_001));
        assert!(timestamp("yesterday").is_err());
    }
}
