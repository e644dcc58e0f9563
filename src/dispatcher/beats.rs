//! Which agents this manager hears from, told to the leader several times per lease.
//!
//! A batch is the whole table. One is in flight; the next supersedes it. A session that opens or
//! closes is told at once. [`Beats::led`] says whether a leader took a batch lately: a manager that
//! cannot say so must not keep agents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::domain::timing::Timing;
use crate::domain::{Format, NodeId, Revision, SessionId};
use crate::env::{Ended, Env, Instant, Scope};
use crate::leader::{Leases, Renewal};

/// A closed session is told for this many lease times, so that a new leader hears of it, too.
const CLOSED_KEPT_LEASES: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Beat {
    session: SessionId,
    heard_at: Instant,
    applied: Revision,
    closed: bool,
    format: Format,
}

/// The table of this manager's sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Beats {
    inner: Arc<Inner>,
    led: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    /// Held for map operations only.
    table: Mutex<BTreeMap<NodeId, Beat>>,
    news: Notify,
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, Beat>> {
        // The map is whole after every operation, so a panic of another holder does no harm.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, table: &BTreeMap<NodeId, Beat>) {
        self.env.meters.sessions.set(table.values().filter(|beat| !beat.closed).count());
    }
}

impl Beats {
    /// A session begins, of a program that knows a format; it replaces an older one of the same
    /// node.
    pub(crate) fn open(&self, node: NodeId, session: SessionId, format: Format) {
        let heard_at = self.inner.env.clock.instant();
        let beat = Beat { session, heard_at, applied: Revision(0), closed: false, format };
        let mut table = self.inner.table();
        table.insert(node, beat);
        self.inner.env.meters.sessions_opened.up();
        self.inner.count(&table);
        drop(table);
        self.inner.news.notify_one();
    }

    /// A session was heard from.
    pub(crate) fn renew(&self, node: NodeId, session: SessionId, applied: Option<Revision>) {
        let now = self.inner.env.clock.instant();
        if let Some(beat) = self.inner.table().get_mut(&node).filter(|beat| beat.session == session)
        {
            beat.heard_at = now;
            beat.applied = applied.unwrap_or(beat.applied).max(beat.applied);
        }
    }

    /// A session has ended.
    pub(crate) fn close(&self, node: NodeId, session: SessionId) {
        let mut table = self.inner.table();
        if let Some(beat) = table.get_mut(&node).filter(|beat| beat.session == session) {
            beat.closed = true;
            self.inner.count(&table);
            self.inner.news.notify_one();
        }
    }

    /// A session has fallen silent: there is nothing more to say of it, and its lease runs out.
    pub(crate) fn forget(&self, node: NodeId, session: SessionId) {
        let mut table = self.inner.table();
        if table.get(&node).is_some_and(|beat| beat.session == session) {
            table.remove(&node);
            self.inner.count(&table);
        }
    }

    /// Whether a session is the newest of its node here.
    pub(crate) fn is_current(&self, node: NodeId, session: SessionId) -> bool {
        self.inner.table().get(&node).is_some_and(|beat| beat.session == session)
    }

    /// Whether a leader took this manager's leases lately.
    pub(crate) fn led(&self) -> watch::Receiver<bool> {
        self.led.clone()
    }

    pub(super) fn batch(&self, now: Instant) -> Vec<Renewal> {
        let table = self.inner.table();
        let renewal = |(node, beat): (&NodeId, &Beat)| Renewal {
            node: *node,
            session: beat.session,
            age: now.since(beat.heard_at),
            applied: beat.applied,
            closed: beat.closed,
            format: beat.format,
        };
        table.iter().map(renewal).collect()
    }
}

/// Starts to tell the leader.
pub(crate) fn start(env: &Env, timing: Timing, leases: Leases, scope: &Scope) -> Beats {
    let (led, led_reader) = watch::channel(true);
    let inner = Inner { env: env.clone(), table: Mutex::new(BTreeMap::new()), news: Notify::new() };
    let beats = Beats { inner: Arc::new(inner), led: led_reader };
    scope.spawn("beats", tell(env.clone(), timing, leases, beats.clone(), led));
    beats
}

async fn tell(env: Env, timing: Timing, leases: Leases, beats: Beats, led: watch::Sender<bool>) {
    let mut taken_at = env.clock.instant();
    loop {
        let now = env.clock.instant();
        let kept = timing.lease * CLOSED_KEPT_LEASES;
        beats.inner.table().retain(|_, beat| !beat.closed || now.since(beat.heard_at) < kept);
        match leases.send(&beats.batch(now)).await {
            Ok(()) => {
                env.meters.lease_batches.of(Ended::Well).up();
                taken_at = env.clock.instant();
            }
            Err(error) => {
                env.meters.lease_batches.of(Ended::Badly).up();
                tracing::debug!(%error, "leases not taken");
            }
        }
        let is_led = env.clock.instant().since(taken_at) < timing.leaderless_max;
        led.send_if_modified(|was| std::mem::replace(was, is_led) != is_led);
        tokio::select! {
            biased;
            () = beats.inner.news.notified() => {}
            () = env.clock.sleep(timing.agent_heartbeat) => {}
        }
    }
}
