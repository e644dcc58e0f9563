//! What runs only during a tenure, and the way to reach it.
//!
//! ```text
//! elected ─▶ observe ─▶ control::plan ─▶ propose (this term only) ─▶ effect ─▶ wait ─┐
//!               ▲                                                                    │
//!               └──────── an event, a lease, a member, a due timer ◀─────────────────┘
//! ```
//!
//! One plan is in flight at a time: the next pass starts when the last proposal is applied here, or
//! the leadership is lost. A proposal whose outcome is unknown is followed by an empty one in the
//! same term: once that is applied, the first one is decided, too.
//!
//! Leader memory (`observations`) is lost with the tenure; the only consequence is delay.

mod lease_link;
mod leases;
mod observations;

pub use lease_link::{Dial, GrpcLeases, LeaseError, LeaseLink, LeaseRpc, Leases};
pub use leases::{LeaseTable, Renewal};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::control::{self, Dirty, Effect, Plan};
use crate::domain::service::UpdateState;
use crate::domain::timing::Timing;
use crate::domain::{Task, TaskState, Timestamp};
use crate::env::{Canary, Env, Instant, Scope};
use crate::raft::{self, Leadership, ProposeError, Store};
use crate::state::{Change, Expect, Object, ObjectKey, View};
use observations::Observations;

/// How long a plan may take to be applied before its outcome is asked for.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an effect on the Raft group may take before the pass goes on without it.
const EFFECT_DEADLINE: Duration = Duration::from_secs(10);
/// After a tenure that ended although nobody else leads yet: a leader that hands leadership over
/// takes no entries any more while it still is the leader, and must not run in circles meanwhile.
const DEPOSED_PAUSE: Duration = Duration::from_millis(50);
/// Plans in a row that users' and agents' changes may overtake before the next one waits a moment.
const REFUSALS_IN_A_ROW: u32 = 8;
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// An idle leader looks at everything this often, so that a missed hint costs delay, never a stop.
const FULL_PASS_PERIOD: Duration = Duration::from_secs(30);

/// What a tenure needs.
#[derive(Clone, Debug)]
pub struct Leader {
    env: Env,
    timing: Timing,
    raft: raft::Handle,
    store: Store,
    leases: LeaseTable,
}

/// Starts to wait for leadership and to act on it. The table receives what agents renew.
pub fn start(env: Env, timing: Timing, raft: raft::Handle, leases: LeaseTable, scope: &Scope) {
    let store = raft.store();
    let leader = Leader { env, timing, raft, store, leases };
    scope.spawn("leader", leader.run());
}

/// Why a tenure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Somebody else leads, or nobody does.
    Deposed,
    /// The store is gone.
    Stopped,
}

impl Leader {
    async fn run(self) {
        let mut leadership = self.store.leadership();
        loop {
            let Ok(elected) = leadership.wait_for(|now| now.is_self).await.map(|now| *now) else {
                return;
            };
            let started = self.env.clock.instant();
            tracing::info!(term = elected.term, "this manager leads");
            self.leases.open();
            let ended = self.tenure(elected.term, started).await;
            self.leases.close();
            tracing::info!(term = elected.term, ?ended, "this manager leads no more");
            if ended == Ended::Stopped {
                return;
            }
            self.env.clock.timeout(DEPOSED_PAUSE, leadership.changed()).await.ok();
        }
    }

    /// One uninterrupted leadership.
    async fn tenure(&self, term: u64, started: Instant) -> Ended {
        let mut leadership = self.store.leadership();
        let mut events = self.store.events();
        let mut members = self.raft.members();
        let base = self.env.clock.now().max(self.store.view().clock);
        let observations = Observations::new(base, started, self.timing());
        let mut timers = Timers::default();
        let mut dirty = Dirty::All;
        let mut full_pass_due = started.after(FULL_PASS_PERIOD);
        let mut refusals = 0;
        loop {
            let leads = |now: &Leadership| now.is_self && now.term == term;
            if !leads(&leadership.borrow_and_update()) {
                return Ended::Deposed;
            }
            let plan = self.pass(&observations, &dirty, members.borrow_and_update().clone());
            timers.renew(&plan.timers);
            let carried = self.carry_out(term, plan).await;
            match carried {
                Carried::Refused => self.raft.plan_refused(),
                Carried::Out | Carried::LookAgain | Carried::Deposed => self.raft.plan_taken(),
            }
            refusals = if carried == Carried::Refused { refusals + 1 } else { 0 };
            if refusals > REFUSALS_IN_A_ROW {
                self.env.clock.sleep(REFUSED_PAUSE).await;
            }
            dirty = match carried {
                Carried::Out => Dirty::none(),
                Carried::LookAgain | Carried::Refused => Dirty::All,
                Carried::Deposed => return Ended::Deposed,
            };
            // Whatever queued while the plan was carried out is the next pass's batch.
            if drain(&mut events, &self.store, &mut dirty) == Woken::Events || dirty == Dirty::All {
                continue;
            }
            let wake = timers.first().map_or(full_pass_due, |at| observations.instant_of(at));
            let pause = wake.min(full_pass_due).since(self.env.clock.instant());
            tokio::select! {
                biased;
                changed = leadership.changed() => if changed.is_err() { return Ended::Stopped },
                event = events.recv() => match event {
                    Ok(batch) => dirty.merge(Dirty::from_events(&self.store.view(), &batch)),
                    Err(RecvError::Lagged(_)) => dirty = Dirty::All,
                    Err(RecvError::Closed) => return Ended::Stopped,
                },
                () = self.leases.changed() => {}
                changed = members.changed() => if changed.is_err() { return Ended::Stopped },
                () = self.env.clock.sleep(pause) => {
                    let now = self.env.clock.instant();
                    dirty.merge(timers.due(observations.time_of(now)));
                    if now >= full_pass_due {
                        full_pass_due = now.after(FULL_PASS_PERIOD);
                        dirty = Dirty::All;
                    }
                }
            }
        }
    }

    /// The cluster's times, with the bugs that a test wants.
    fn timing(&self) -> Timing {
        let faults = self.env.faults;
        let mut timing = self.timing;
        if faults.has(Canary::TenureWithoutGrace) {
            timing.tenure_grace = Duration::ZERO;
        }
        if faults.has(Canary::AddressFreedEarly) {
            timing.address_rest = Duration::ZERO;
        }
        timing
    }

    /// One pass of the pure steps.
    fn pass(&self, observations: &Observations, dirty: &Dirty, members: raft::Members) -> Plan {
        let view = self.store.view();
        let leases = self.leases.snapshot();
        let now = self.env.clock.instant();
        let seed = self.env.entropy.key();
        let observed = observations.observed(now, seed, &leases, members);
        let observed = control::Observed { now: observed.now.max(view.clock), ..observed };
        self.raft.pass_begins();
        let mut plan = control::plan(&view, &observed, dirty);
        self.raft.pass_ends();
        if self.env.faults.has(Canary::UpdateAtOnce) {
            plan.changes.extend(Some(at_once(&view)).filter(|batch| !batch.is_empty()));
        }
        let took = self.env.clock.instant().since(now);
        self.env.meters.plan_pass.took(took);
        let raised = plan.changes.iter().flatten().find_map(|change| match change {
            Change::Put { object: Object::Cluster(cluster), .. } => Some(cluster.format),
            _ => None,
        });
        if let Some(format) = raised.filter(|format| *format > view.format()) {
            tracing::info!(%format, "all managers know a newer format: it is used from now on");
        }
        for (object, note) in &plan.notes {
            tracing::debug!(?object, note, "not decided");
        }
        plan
    }

    async fn carry_out(&self, term: u64, plan: Plan) -> Carried {
        let mut carried = Carried::Out;
        let meters = &self.env.meters;
        for batch in plan.changes {
            let changes = batch.len();
            match self.propose(term, batch).await {
                Ok(()) => meters.plan_changes.add(u64::try_from(changes).unwrap_or_default()),
                Err(ProposeError::Rejected(rejection)) => {
                    // Users and agents change objects between our view and our proposal.
                    tracing::debug!(%rejection, "a plan was overtaken; planning again");
                    meters.plan_overtaken.up();
                    return Carried::Refused;
                }
                Err(ProposeError::NoSpace(why)) => {
                    tracing::error!(why, "the plan cannot be written");
                    self.env.clock.sleep(Duration::from_secs(1)).await;
                    return Carried::LookAgain;
                }
                Err(error) => {
                    tracing::debug!(%error, "the plan was not accepted");
                    return Carried::Deposed;
                }
            }
        }
        if let Some(effect) = plan.effect {
            carried = carried.and(self.perform(effect).await);
        }
        carried
    }

    /// Proposes a batch and waits until it is decided.
    async fn propose(&self, term: u64, batch: Vec<Change>) -> Result<(), ProposeError> {
        let mut outcome = self.store.propose_in_term(term, batch, PROPOSE_DEADLINE).await;
        while outcome == Err(ProposeError::Unknown) {
            tracing::warn!(term, "a proposal takes long; waiting for its outcome");
            outcome = self.store.propose_in_term(term, Vec::new(), PROPOSE_DEADLINE).await;
        }
        outcome.map(|_| ())
    }

    /// Acts on the Raft group. Idempotent; a failure is tried again by a later pass.
    async fn perform(&self, effect: Effect) -> Carried {
        tracing::info!(?effect, "changing the raft group");
        let raft = &self.raft;
        let act = async {
            match effect {
                Effect::AddLearner { raft_id, addr, node } => {
                    raft.add_learner(raft_id, node, addr).await
                }
                Effect::Promote { raft_id } => raft.promote(raft_id).await,
                Effect::Remove { raft_id } => raft.remove(raft_id).await,
                Effect::TransferLeader { to } => raft.transfer(to).await,
            }
        };
        match self.env.clock.timeout(EFFECT_DEADLINE, act).await {
            Ok(Ok(())) => Carried::LookAgain,
            Ok(Err(error)) => {
                tracing::warn!(%error, ?effect, "the raft group did not change");
                self.env.clock.sleep(self.env.entropy.jitter(Duration::from_millis(500))).await;
                Carried::LookAgain
            }
            Err(_) => {
                tracing::warn!(?effect, "changing the raft group takes long");
                Carried::LookAgain
            }
        }
    }
}

/// A bug that a test wants: whatever updates are to replace in turn is withdrawn at once.
fn at_once(view: &View) -> Vec<Change> {
    let services = view.services.values().filter(|service| {
        let state = service.update.as_ref().map(|update| update.state);
        state == Some(UpdateState::Updating)
    });
    let old = services.flat_map(|service| {
        view.tasks_of(service.id).filter(|task| task.spec < service.current && task.is_live())
    });
    old.map(|task| {
        let expect = Expect::At(task.meta.revision);
        let task = Task { desired: TaskState::Shutdown, ..(**task).clone() };
        Change::Put { object: Object::Task(Arc::new(task)), expect }
    })
    .collect()
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// All of it is applied.
    Out,
    /// The Raft group changed, or did not: plan from everything.
    LookAgain,
    /// Something stood in its way: plan from everything.
    Refused,
    /// This manager leads no more.
    Deposed,
}

impl Carried {
    const fn and(self, next: Self) -> Self {
        match self {
            Self::Out => next,
            Self::LookAgain | Self::Refused | Self::Deposed => self,
        }
    }
}

/// When to look at which object again. Memory of the leader only: the full pass that opens a tenure
/// finds every timer anew in the state.
#[derive(Debug, Default)]
struct Timers {
    by_object: BTreeMap<ObjectKey, BTreeSet<Timestamp>>,
}

impl Timers {
    /// Takes the timers of a pass: an object it looked at has these and no others.
    fn renew(&mut self, timers: &[(Timestamp, ObjectKey)]) {
        for (_, object) in timers {
            self.by_object.remove(object);
        }
        for (at, object) in timers {
            self.by_object.entry(*object).or_default().insert(*at);
        }
    }

    /// The next time that something is due.
    fn first(&self) -> Option<Timestamp> {
        self.by_object.values().filter_map(BTreeSet::first).min().copied()
    }

    /// Takes out what is due.
    fn due(&mut self, now: Timestamp) -> Dirty {
        let mut dirty = Dirty::none();
        self.by_object.retain(|object, times| {
            if times.first().is_some_and(|at| *at <= now) {
                dirty.mark(*object);
                *times = times.split_off(&Timestamp(now.0.saturating_add(1)));
            }
            !times.is_empty()
        });
        dirty
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Nothing,
    Events,
}

/// Marks what all queued events touched.
fn drain(
    events: &mut tokio::sync::broadcast::Receiver<std::sync::Arc<Vec<crate::state::Event>>>,
    store: &Store,
    dirty: &mut Dirty,
) -> Woken {
    use tokio::sync::broadcast::error::TryRecvError;
    let mut woken = Woken::Nothing;
    loop {
        match events.try_recv() {
            Ok(batch) => {
                dirty.merge(Dirty::from_events(&store.view(), &batch));
                woken = Woken::Events;
            }
            Err(TryRecvError::Lagged(_)) => {
                *dirty = Dirty::All;
                woken = Woken::Events;
            }
            Err(TryRecvError::Empty | TryRecvError::Closed) => return woken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NodeId, ServiceId};

    #[test]
    fn a_timer_is_due_once_and_a_new_pass_replaces_it() {
        let service = ObjectKey::Service(ServiceId::from_bytes([1; 16]));
        let node = ObjectKey::Node(NodeId::from_bytes([2; 16]));
        let mut timers = Timers::default();
        timers.renew(&[(Timestamp(5), service), (Timestamp(9), service), (Timestamp(7), node)]);
        assert_eq!(timers.first(), Some(Timestamp(5)));
        let mut expected = Dirty::none();
        expected.mark(service);
        assert_eq!(timers.due(Timestamp(6)), expected);
        assert_eq!(timers.first(), Some(Timestamp(7)));
        timers.renew(&[(Timestamp(20), node)]);
        assert_eq!(timers.first(), Some(Timestamp(9)));
        assert_eq!(timers.due(Timestamp(30)), {
            expected.mark(node);
            expected
        });
        assert_eq!(timers.first(), None);
    }
}
