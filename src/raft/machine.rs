//! The state machine as openraft drives it: applies entries, publishes views, makes and takes
//! snapshots.
//!
//! The state lives in memory; a restart builds it from the newest snapshot and the log. What an
//! entry means is `state::apply`'s business.

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{broadcast, watch};

use super::Error;
use super::codec::{self, position};
use super::snapshots::Snapshots;
use super::store::EVENTS_KEPT;
use super::types::{Entry, LogId, Outcomes, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::domain::{Format, Timestamp};
use crate::env::{Canary, Env, Point, Scope};
use crate::state::{self, Command, Event, EventKind, Object, State, View};

/// The state machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    snapshots: Snapshots,
    scope: Scope,
    env: Env,
    applied: Mutex<Applied>,
    views: watch::Sender<View>,
    events: broadcast::Sender<Arc<Vec<Event>>>,
}

#[derive(Clone, Debug, Default)]
struct Applied {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The machine as the newest snapshot left it, or as it was in the beginning.
    pub(super) fn open(snapshots: Snapshots, scope: Scope, env: Env) -> Result<Self, Error> {
        let applied = match snapshots.newest()? {
            Some(loaded) => Applied {
                state: loaded.state,
                last: loaded.meta.last_log_id,
                membership: loaded.meta.last_membership,
            },
            None => Applied::default(),
        };
        let views = watch::Sender::new(View::new(applied.state.clone()));
        let events = broadcast::Sender::new(EVENTS_KEPT);
        let applied = Mutex::new(applied);
        Ok(Self { inner: Arc::new(Inner { snapshots, scope, env, applied, views, events }) })
    }

    pub(super) fn views(&self) -> watch::Receiver<View> {
        self.inner.views.subscribe()
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Arc<Vec<Event>>> {
        self.inner.events.subscribe()
    }

    /// Cluster time of the last command applied.
    pub(super) fn clock(&self) -> Timestamp {
        self.applied().state.clock
    }

    /// The format that is in force.
    pub(super) fn format(&self) -> Format {
        self.applied().state.format()
    }

    /// The last entry applied.
    pub(super) fn last(&self) -> Option<LogId> {
        self.applied().last
    }

    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.inner.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply_entry(&self, entry: Entry) -> Outcomes {
        let (env, id) = (&self.inner.env, entry.log_id());
        let began = env.clock.instant();
        let position = position(&id);
        let mut outcomes = Outcomes::default();
        let mut events = Vec::new();
        let view = {
            let mut applied = self.applied();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => {
                    for command in batch.commands.iter() {
                        let command = &self.as_proposed(command);
                        let (outcome, caused) = state::apply(&mut applied.state, command, position);
                        outcomes.0.push(outcome);
                        events.extend(caused);
                    }
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(id), membership);
                }
            }
            applied.state.position = position;
            applied.last = Some(id);
            View::new(applied.state.clone())
        };
        self.publish(view, events);
        env.meters.raft_apply.took(env.clock.instant().since(began));
        outcomes
    }

    fn as_proposed<'a>(&self, command: &'a Command) -> Cow<'a, Command> {
        if self.inner.env.faults.has(Canary::ApplyDiverges) {
            let proposed_at = self.inner.env.clock.now();
            return Cow::Owned(Command { proposed_at, ..command.clone() });
        }
        Cow::Borrowed(command)
    }

    /// View first, so that who hears of an event finds it in the view.
    fn publish(&self, view: View, events: Vec<Event>) {
        let index = view.position.index;
        self.inner.views.send_replace(view);
        let is_lost = self.inner.env.faults.has(Canary::EventLost) && index.is_multiple_of(16);
        if !events.is_empty() && !is_lost {
            self.inner.events.send(Arc::new(events)).ok(); // nobody may be listening
        }
    }

    async fn save(&self, index: u64, content: Bytes) -> Result<(), io::Error> {
        if self.inner.env.faults.has(Canary::SnapshotNotWritten) {
            return Ok(());
        }
        let snapshots = self.inner.snapshots.clone();
        self.blocking(move || snapshots.write(index, &content)).await
    }

    async fn pass(&self, point: Point) {
        let Env { faults, clock, .. } = &self.inner.env;
        faults.pass(point, &**clock).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let done = self.inner.scope.blocking(work).await;
        done.unwrap_or_else(|| Err(io::Error::other("the work on a snapshot panicked")))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let applied = self.applied().clone();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
        let (state, head) = (applied.state, meta.clone());
        let content = self
            .blocking(move || codec::encode_snapshot(&head, &state).map_err(io::Error::other))
            .await?;
        self.pass(Point::RaftSnapshot).await;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.save(index, content.clone()).await?;
        Ok(Snapshot { meta, snapshot: content })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: futures::Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>>
            + Unpin
            + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let outcomes = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let content = snapshot.clone();
        let (found, state) = self
            .blocking(move || codec::decode_snapshot(&content).map_err(io::Error::other))
            .await?;
        if found != *meta {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another snapshot was sent"));
        }
        self.save(meta.last_log_id.map_or(0, |id| id.index), snapshot).await?;
        self.pass(Point::RaftInstall).await;
        let (view, before) = {
            let mut applied = self.applied();
            let before = std::mem::replace(
                &mut *applied,
                Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() },
            );
            (View::new(applied.state.clone()), before)
        };
        let events = difference(&before.state, &view);
        self.publish(view, events);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.inner.snapshots.clone();
        let newest = self.blocking(move || snapshots.newest().map_err(io::Error::other)).await?;
        Ok(newest.map(|loaded| Snapshot { meta: loaded.meta, snapshot: loaded.bytes }))
    }
}

/// What changed between two states, as events, for those who follow while a snapshot takes the place
/// of many entries. Several changes of an object are one event.
fn difference(before: &State, after: &State) -> Vec<Event> {
    let event = |kind, object: Object, before: Option<Object>| Event {
        kind,
        before,
        revision: object.meta().map(|meta| meta.revision).unwrap_or_default(),
        object,
        at: after.clock,
    };
    let mut events = Vec::new();
    for object in after.objects() {
        match before.object(&object.key()) {
            None => events.push(event(EventKind::Created, object, None)),
            Some(old) if old != object => {
                events.push(event(EventKind::Updated, object, Some(old)));
            }
            Some(_) => {}
        }
    }
    for object in before.objects() {
        if after.object(&object.key()).is_none() {
            events.push(event(EventKind::Removed, object.clone(), Some(object)));
        }
    }
    events
}
