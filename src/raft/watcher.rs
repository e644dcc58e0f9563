//! Who leads and who is in the group, as this manager sees it; and the election that does not wait.
//!
//! openraft elects after silence: the leader's lease must run out first, which takes seconds. But
//! when the leader's *process* dies, its host says so at once: connections close and new ones are
//! refused. On such evidence a voter starts an election marked as a transfer of leadership, which the
//! others grant within the lease. Nothing here relies on leases for safety (reads ask a quorum), so
//! wrong evidence costs a disturbance and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;

use super::inbound::Heard;
use super::machine::Machine;
use super::peer::{Peer, PeerLink};
use super::store::Leadership;
use super::types::{Raft, TypeConfig};
use super::watchdog::Watchdog;
use crate::domain::timing::Timing;
use crate::domain::{NodeId, RaftId};
use crate::env::{Canary, Env, Instant, Turn};

/// Between two looks while anything is unsettled, where nothing else wakes us.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks once all is in place: what is left to be found shows after seconds (`fitness`), but for
/// the leader's silence, which has a look of its own.
const LOOK_SELDOM: Duration = Duration::from_millis(500);
/// So long after a limit it has been passed.
const PAST: Duration = Duration::from_millis(1);
/// Between the candidacies of two members, so that one of them is elected before the next one tries.
const RANK_PAUSE: Duration = Duration::from_millis(150);
/// Between two candidacies of one member.
const CANDIDACY_PAUSE: Duration = Duration::from_millis(300);
/// Candidacies on one piece of evidence; then silence decides.
const CANDIDACIES: usize = 4;

/// The Raft group, as the leader sees it; as a follower does but for lag and silence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// This manager.
    pub me: Option<RaftId>,
    /// Those who vote.
    pub voters: BTreeSet<RaftId>,
    /// Those who only receive the log, with the number of entries they are behind.
    pub learners: BTreeMap<RaftId, u64>,
    /// Where each member is.
    pub addrs: BTreeMap<RaftId, (NodeId, SocketAddr)>,
    /// Voters that have not been heard from for longer than an election takes; on the leader.
    pub silent: BTreeSet<RaftId>,
}

type Metrics = RaftMetrics<TypeConfig>;
type Group = RaftServerMetrics<TypeConfig>;

/// Watches openraft and publishes what others need to know of it.
pub(super) struct Watcher {
    pub(super) me: RaftId,
    pub(super) raft: Raft,
    pub(super) machine: Machine,
    pub(super) env: Env,
    pub(super) timing: Timing,
    pub(super) heard: Arc<Heard>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) members: watch::Sender<Members>,
    pub(super) watchdog: Watchdog,
}

impl Watcher {
    /// Runs until openraft has ended.
    pub(super) async fn run(mut self) {
        let mut metrics = self.raft.metrics();
        let mut group = self.raft.server_metrics();
        let mut leading: Option<(u64, Instant)> = None;
        loop {
            let roles = group.borrow_and_update().clone();
            let now = metrics.borrow_and_update().clone();
            if let Err(error) = &now.running_state {
                self.end(error);
                break;
            }
            let is_leader = now.current_leader == Some(self.me.0);
            leading = match leading {
                _ if !is_leader => None,
                Some((term, since)) if term == now.current_term => Some((term, since)),
                Some(_) | None => Some((now.current_term, self.env.clock.instant())),
            };
            let silence = self.silence(&now, leading.map(|(_, since)| since));
            let leadership = self.leadership(&now, silence);
            self.count(leadership);
            replace(&self.leadership, leadership);
            let members = self.members(&now, leading.map(|(_, since)| since));
            self.watchdog.attend(&now, leadership, &members).await;
            let is_settled = is_settled(&roles, &now, leadership, &members);
            replace(&self.members, members);
            // Every answer to a heartbeat changes the numbers, and says nothing new once all is in place.
            let woken = if is_settled {
                let too_long = self.timing.leaderless_max.saturating_sub(silence) + PAST;
                self.env.clock.timeout(too_long.min(LOOK_SELDOM), group.changed()).await
            } else {
                self.env.clock.timeout(LOOK_EVERY, metrics.changed()).await
            };
            if matches!(woken, Ok(Err(_))) {
                if let Err(error) = &metrics.borrow_watched().running_state {
                    self.end(error);
                }
                break;
            }
        }
        replace(&self.leadership, Leadership::default());
    }

    fn end(&self, why: &Fatal<TypeConfig>) {
        match why {
            Fatal::Stopped => {}
            // The disk, as a rule. Half a manager is worse than none.
            error => self.env.device.give_up("raft has failed", error),
        }
    }

    fn count(&self, next: Leadership) {
        let (before, meters) = (*self.leadership.borrow(), &self.env.meters);
        match (before.is_self, next.is_self) {
            (false, true) => meters.raft_tenures.of(Turn::Won).up(),
            (true, false) => meters.raft_tenures.of(Turn::Lost).up(),
            _ => {}
        }
        let led = |now: Leadership| now.leader.map(|(leader, _)| (now.term, leader));
        if led(next).is_some() && led(next) != led(before) {
            meters.raft_leader_changes.up();
        }
    }

    /// How long the leader has not been heard from; if it is this manager, how long a quorum has not.
    fn silence(&self, metrics: &Metrics, leading_since: Option<Instant>) -> Duration {
        let membership = metrics.membership_config.membership();
        match leading_since {
            None => self.heard.silence(&self.env),
            Some(_) if membership.voter_ids().count() <= 1 => Duration::ZERO,
            Some(since) => {
                let leads_for = self.env.clock.instant().since(since);
                let acked = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
                acked.map_or(leads_for, |acked| acked.min(leads_for))
            }
        }
    }

    fn leadership(&self, metrics: &Metrics, silence: Duration) -> Leadership {
        let term = metrics.current_term;
        let nobody = Leadership { term, leader: None, is_self: false };
        let membership = metrics.membership_config.membership();
        let Some(leader) = metrics.current_leader else { return nobody };
        let Some(node) = membership.get_node(&leader) else { return nobody };
        let known = Leadership { term, leader: Some((RaftId(leader), node.addr)), is_self: false };
        if silence > self.timing.leaderless_max {
            return nobody;
        }
        // Complete is the view that has an entry of the own term: all before it is applied, too.
        let own = self
            .machine
            .last()
            .is_some_and(|last| last.leader_id.term == term && last.leader_id.node_id == self.me.0);
        // Until a quorum has confirmed it, there may be another one.
        let is_alone = membership.voter_ids().count() <= 1;
        let confirmed = is_alone || metrics.last_quorum_acked.is_some();
        let is_ready = own && confirmed || self.env.faults.has(Canary::LeaderTooEarly);
        Leadership { is_self: leader == self.me.0 && is_ready, ..known }
    }

    fn members(&self, metrics: &Metrics, leading_since: Option<Instant>) -> Members {
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.unwrap_or_default();
        let lag = |id: u64| {
            let matched = metrics.replication.as_ref().and_then(|all| all.get(&id)).copied();
            let matched = matched.flatten().map_or(0, |matched| matched.index);
            last.saturating_sub(matched)
        };
        let leads_for = leading_since.map(|since| self.env.clock.instant().since(since));
        let is_silent = |id: &u64| {
            let Some(leads_for) = leads_for else { return false };
            let at = metrics.heartbeat.as_ref().and_then(|all| all.get(id));
            let silence = at.and_then(Option::as_ref).map(|at| at.elapsed());
            silence.map_or(leads_for, |silence| silence.min(leads_for)) > self.timing.election_max
        };
        Members {
            me: Some(self.me),
            voters: membership.voter_ids().map(RaftId).collect(),
            learners: membership.learner_ids().map(|id| (RaftId(id), lag(id))).collect(),
            addrs: membership
                .nodes()
                .map(|(id, node)| (RaftId(*id), (node.node, node.addr)))
                .collect(),
            silent: membership
                .voter_ids()
                .filter(|id| *id != self.me.0 && is_silent(id))
                .map(RaftId)
                .collect(),
        }
    }
}

/// Elects on evidence.
pub(super) struct Successor {
    pub(super) me: RaftId,
    pub(super) raft: Raft,
    pub(super) env: Env,
    pub(super) link: Arc<dyn PeerLink>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) may_stand: Arc<AtomicBool>,
}

impl Successor {
    /// Runs until nothing is published any more.
    pub(super) async fn run(mut self) {
        loop {
            let leader = self.leadership.borrow_and_update().leader;
            let Some((id, addr)) = leader.filter(|(id, _)| *id != self.me) else {
                if self.leadership.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let other = |now: &Leadership| now.leader.is_some_and(|now| now != (id, addr));
            let is_dead = tokio::select! {
                biased;
                changed = self.leadership.wait_for(other) => {
                    if changed.is_err() {
                        return;
                    }
                    false
                }
                () = self.link.closed(Peer { id, addr }) => true,
            };
            if is_dead {
                self.succeed(id).await;
            }
        }
    }

    /// The leader's process has ended: whoever is first in rank stands for election first.
    async fn succeed(&self, dead: RaftId) {
        let Some(rank) = self.rank(dead) else { return };
        tracing::warn!(leader = %dead, rank, "the leader's process has ended");
        self.env.clock.sleep(RANK_PAUSE.saturating_mul(rank)).await;
        for _ in 0..CANDIDACIES {
            let (vote, leader) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (metrics.vote, metrics.current_leader)
            };
            // Somebody else is a candidate already: let it have its chance.
            if !self.may_stand.load(Ordering::Relaxed) {
                return;
            }
            let is_open = leader == Some(dead.0) || vote.leader_id.node_id == self.me.0;
            if leader.is_some_and(|leader| leader != dead.0) {
                return;
            }
            if is_open {
                let request = TransferLeaderRequest::new(vote, self.me.0, None);
                match self.raft.handle_transfer_leader(request).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "no candidacy now"),
                    Err(error) => {
                        tracing::warn!(%error, "no candidacy");
                        return;
                    }
                }
            }
            self.env.clock.sleep(self.env.entropy.jitter(CANDIDACY_PAUSE)).await;
        }
    }

    /// The place of this member among those who may follow; `None` for learners.
    fn rank(&self, dead: RaftId) -> Option<u32> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let mut voters: Vec<u64> = membership.voter_ids().filter(|id| *id != dead.0).collect();
        voters.sort_unstable();
        let place = voters.iter().position(|id| *id == self.me.0)?;
        u32::try_from(place).ok()
    }
}

/// Whether only a change of roles, or silence, can alter what is published: there is a leader, which has
/// applied an entry of its own term if this member is it, and nobody has to catch up. The numbers are
/// published after the roles; until they agree, they are about to change.
fn is_settled(roles: &Group, numbers: &Metrics, leadership: Leadership, members: &Members) -> bool {
    let agree = roles.vote == numbers.vote
        && roles.state == numbers.state
        && roles.current_leader == numbers.current_leader
        && roles.membership_config == numbers.membership_config;
    let is_ready = leadership.is_self == (numbers.current_leader == Some(numbers.id));
    agree && leadership.leader.is_some() && is_ready && members.learners.is_empty()
}

fn replace<T: PartialEq>(published: &watch::Sender<T>, next: T) {
    published.send_if_modified(|now| {
        let changes = *now != next;
        if changes {
            *now = next;
        }
        changes
    });
}
