//! Alarms as they come and go: looked at every few seconds and whenever somebody asks, told as
//! events.
//!
//! Which conditions are alarms is `health`'s business. Each daemon looks for itself, so that what a
//! node tells does not depend on a leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::context::Ctx;
use super::control::Vitals;
use super::events::News;
use crate::domain::Timestamp;
use crate::health::{self, Change, Facts, Raised, Report, Tracker};
use crate::raft::Store;
use crate::state::View;

/// Between two looks: soon enough for people, and nothing to a processor.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// The type of alarms among Docker's events.
const KIND: &str = "alarm";

/// The alarms of this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarms {
    tracker: Arc<Mutex<Tracker>>,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) vitals: Vitals,
    pub(super) view: Option<View>,
    pub(super) raised: Vec<Raised>,
    now: Timestamp,
}

impl Look {
    /// How things stand. It counts all tasks, so only for who asks.
    pub(super) fn report(&self) -> Report {
        let facts = Facts { now: self.now, local: &self.vitals.local, state: self.view.as_deref() };
        health::report(&facts, &self.raised)
    }
}

/// Looks for as long as the API serves.
pub(super) async fn run(ctx: Ctx) {
    loop {
        ctx.deps.env.clock.sleep(LOOK_EVERY).await;
        look(&ctx);
    }
}

/// Looks now, and tells what is news.
pub(super) fn look(ctx: &Ctx) -> Look {
    let now = ctx.deps.env.clock.now();
    let mut vitals = ctx.deps.control.vitals();
    let store = ctx.deps.store.borrow().clone();
    if let Some(store) = &store {
        vitals.local.is_led = Some(store.leadership().borrow().leader.is_some());
    }
    let view = store.as_ref().map(Store::view);
    let facts = Facts { now, local: &vitals.local, state: view.as_deref() };
    let mut tracker = ctx.alarms.tracker.lock().unwrap_or_else(PoisonError::into_inner);
    let news = tracker.look(now, health::alarms(&facts));
    let raised = tracker.raised();
    // Told under the lock, so that two looks at a time do not swap their news.
    news.iter().for_each(|change| ctx.events.publish(Arc::new(event(change, now))));
    drop(tracker);
    Look { vitals, view, raised, now }
}

/// An alarm as an event of Docker's kind.
fn event(change: &Change, at: Timestamp) -> News {
    let (action, Raised { alarm, since }) = match change {
        Change::Raised(raised) => ("raise", raised),
        Change::Cleared(raised) => ("clear", raised),
    };
    let id = match alarm.subject.as_str() {
        "" => alarm.name.as_str().to_owned(),
        subject => format!("{}/{subject}", alarm.name.as_str()),
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut attributes = BTreeMap::from([
        pair("name", alarm.name.as_str()),
        pair("severity", alarm.name.severity().as_str()),
        pair("since", &since.to_string()),
        pair("text", &alarm.text),
    ]);
    if !alarm.subject.is_empty() {
        attributes.extend([pair("subject", &alarm.subject)]);
    }
    News { kind: KIND, action, id, attributes, at }
}
