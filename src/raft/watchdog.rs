//! Carries out what `fitness` finds: hands leadership over, and keeps this member from standing for
//! election meanwhile. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;

use super::fitness::{Facts, Fitness, Judgement, Seat};
use super::space::Space;
use super::store::Leadership;
use super::types::{Raft, TypeConfig};
use super::vigil::Vigil;
use super::watcher::Members;
use crate::domain::RaftId;
use crate::env::{Env, Instant, Turn};

/// openraft may be busy with the very disk that does not answer.
const ASK_LIMIT: Duration = Duration::from_secs(1);

/// Looks after a member.
pub(super) struct Watchdog {
    raft: Raft,
    env: Env,
    vigil: Arc<Vigil>,
    space: Arc<Space>,
    fitness: Fitness,
    /// The last entry applied, and since when it was that one although more was committed.
    behind: Option<(u64, Instant)>,
    /// Read by those who stand for election on evidence.
    may_stand: Arc<AtomicBool>,
}

impl Watchdog {
    pub(super) fn new(raft: Raft, env: Env, vigil: Arc<Vigil>, space: Arc<Space>) -> Self {
        let fitness = Fitness::new(env.faults);
        let may_stand = Arc::new(AtomicBool::new(true));
        Self { raft, env, vigil, space, fitness, behind: None, may_stand }
    }

    /// Whether this member may stand for election now.
    pub(super) fn may_stand(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.may_stand)
    }

    /// Looks, and does what follows.
    pub(super) async fn attend(
        &mut self,
        metrics: &RaftMetrics<TypeConfig>,
        leadership: Leadership,
        members: &Members,
    ) {
        let heir = heir(metrics, members);
        let facts = Facts {
            now: self.env.clock.instant(),
            seat: match leadership.leader {
                _ if metrics.current_leader == Some(metrics.id) => Seat::Leads,
                Some(_) => Seat::Follows,
                None => Seat::Orphan,
            },
            has_heir: heir.is_some(),
            writing: self.vigil.writing(),
            behind: self.behind(metrics),
            planning: self.vigil.planning(),
            lacks_room: self.space.lack().is_some(),
        };
        let Judgement { may_stand, resigns, ailments } = self.fitness.judge(&facts);
        if ailments != self.vigil.ailments() {
            let words: Vec<&str> = ailments.iter().map(|ailment| ailment.as_str()).collect();
            let words = words.join("; ");
            if ailments.is_empty() {
                tracing::info!("this manager is fit to lead again");
            } else {
                tracing::error!(reason = words, "this manager is not fit to lead");
            }
            self.vigil.found(&ailments);
        }
        if self.may_stand.swap(may_stand, Ordering::Relaxed) != may_stand {
            self.raft.runtime_config().elect(may_stand);
        }
        if let Some(heir) = heir.filter(|_| resigns) {
            tracing::warn!(to = %heir, "handing leadership over");
            self.env.meters.raft_tenures.of(Turn::Resigned).up();
            let trigger = self.raft.trigger();
            let asked = self.env.clock.timeout(ASK_LIMIT, trigger.transfer_leader(heir.0)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::debug!("leadership was not handed over yet");
            }
        }
    }

    /// For how long nothing was applied although something is committed.
    fn behind(&mut self, metrics: &RaftMetrics<TypeConfig>) -> Duration {
        let now = self.env.clock.instant();
        let applied = metrics.last_applied.map_or(0, |id| id.index);
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        self.behind = match self.behind {
            _ if committed <= applied => None,
            Some((last, since)) if last == applied => Some((last, since)),
            Some(_) | None => Some((applied, now)),
        };
        self.behind.map_or(Duration::ZERO, |(_, since)| now.since(since))
    }
}

/// The voter that is furthest of those that are heard from; only a leader knows one.
fn heir(metrics: &RaftMetrics<TypeConfig>, members: &Members) -> Option<RaftId> {
    let matched = metrics.replication.as_ref()?;
    members
        .voters
        .iter()
        .filter(|id| id.0 != metrics.id && !members.silent.contains(id))
        .max_by_key(|id| matched.get(&id.0).copied().flatten().map(|matched| matched.index))
        .copied()
}
