//! The group-commit: while one entry is on its way, the proposals that queue become the next one.
//!
//! Only the leader has something to do here. It stamps the time of each entry, so that cluster time
//! is one clock's, and that one's steps are not believed (docs/adr/0004).

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::impls::ProgressResponder;
use openraft::vote::leader_id_adv::LeaderId;
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::machine::Machine;
use super::space::Space;
use super::store::ProposeError;
use super::types::{Batch, Outcomes, Raft, TypeConfig};
use super::vigil::Vigil;
use crate::domain::{Format, RaftId, RequestId, Revision, Timestamp};
use crate::env::{Env, Instant, Point, Proposed};
use crate::state::{Change, Command, Object, Rejection};
use crate::wire::types;

/// Proposals that may wait for the entry before them.
pub(super) const QUEUE: usize = 4_096;
/// An entry that has this many bytes takes no further command.
const ENTRY_SOFT: usize = 100 << 10;
/// The most commands of an entry.
const COMMANDS_MAX: usize = 512;
/// The most bytes of one command: a secret or config of 1 MB fits.
pub(super) const COMMAND_MAX: usize = 2 << 20;
/// A step of the wall clock beyond this is not believed.
const STEP_MAX: Duration = Duration::from_secs(1);

/// A command that waits for its entry.
#[derive(Debug)]
pub(super) struct Proposal {
    /// What recognises a retry.
    pub(super) request: Option<RequestId>,
    /// What to do.
    pub(super) changes: Vec<Change>,
    /// The length of the changes, encoded.
    pub(super) size: usize,
    /// Only in this term.
    pub(super) term: Option<u64>,
    /// For the outcome.
    pub(super) answer: oneshot::Sender<Result<Revision, ProposeError>>,
}

/// The length of changes on the log.
///
/// Refuses what no entry can hold.
pub(super) fn measure(changes: &[Change]) -> Result<usize, ProposeError> {
    let size = changes.iter().map(|change| types::Change::from(change).encoded_len()).sum();
    if size > COMMAND_MAX {
        let rule = format!(
            "the request is too large: it would take {size} bytes of the raft log, and \
             {COMMAND_MAX} is the most"
        );
        return Err(ProposeError::Rejected(Rejection::Broken { rule }));
    }
    Ok(size)
}

type Leader = LeaderId<u64, u64>;

/// Forms entries and proposes them.
pub(super) struct Proposer {
    pub(super) me: RaftId,
    pub(super) raft: Raft,
    pub(super) machine: Machine,
    pub(super) env: Env,
    pub(super) space: Arc<Space>,
    pub(super) queue: mpsc::Receiver<Proposal>,
    pub(super) time: Stamps,
    pub(super) vigil: Arc<Vigil>,
}

impl Proposer {
    /// Runs until all handles to the queue are gone.
    pub(super) async fn run(mut self) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(proposal) => proposal,
                None => match self.queue.recv().await {
                    Some(proposal) => proposal,
                    None => return,
                },
            };
            let group = self.gather(first, &mut held);
            self.propose(group).await;
        }
    }

    /// The proposals of the next entry; one that does not fit is held for the entry after it.
    fn gather(&mut self, first: Proposal, held: &mut Option<Proposal>) -> Vec<Proposal> {
        let mut size = first.size;
        let mut is_full = stands_alone(&first);
        let mut group = vec![first];
        while !is_full && size < ENTRY_SOFT && group.len() < COMMANDS_MAX {
            let Ok(next) = self.queue.try_recv() else { break };
            let fits = next.term == group[0].term && !stands_alone(&next);
            if !fits || size + next.size > COMMAND_MAX {
                *held = Some(next);
                break;
            }
            size += next.size;
            is_full = false;
            group.push(next);
        }
        // Who has stopped waiting has been told that the outcome is unknown: none is simplest.
        group.retain(|proposal| !proposal.answer.is_closed());
        group
    }

    async fn propose(&mut self, group: Vec<Proposal>) {
        let Some(first) = group.first() else { return };
        if let Some(reason) = self.space.lack() {
            return self.refuse(group, &ProposeError::NoSpace(reason));
        }
        let term = first.term;
        let current = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.current_leader == Some(self.me.0)).then_some(metrics.current_term)
        };
        let Some(current) = current.filter(|current| term.is_none_or(|term| term == *current))
        else {
            return self.refuse(group, &ProposeError::NotLeader);
        };
        let proposed_at = self.time.stamp(&self.env, current, self.machine.clock());
        if self.time.is_alarmed {
            self.vigil.clock_is_wrong();
        } else {
            self.vigil.clock_is_right();
        }
        let mut answers = Vec::with_capacity(group.len());
        let commands = group.into_iter().map(|proposal| {
            answers.push(proposal.answer);
            Command { proposed_at, request: proposal.request, changes: proposal.changes }
        });
        let commands: Vec<Command> = commands.collect();
        let batch = Batch { format: self.format(&commands), commands: Arc::new(commands) };
        // The term that stamped the time, and that the plans were made for, must be the entry's.
        let leader = Leader { term: current, node_id: self.me.0 };
        let Env { faults, clock, meters, .. } = &self.env;
        faults.pass(Point::ProposerBefore, &**clock).await;
        let began = clock.instant();
        let written = self.write(batch, leader).await;
        meters.raft_commit.took(clock.instant().since(began));
        let outcomes = match written {
            Ok(outcomes) => {
                faults.pass(Point::ProposerAfter, &**clock).await;
                outcomes.0.into_iter().map(|it| it.map_err(ProposeError::from)).collect()
            }
            Err(error) => vec![Err(error); answers.len()],
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            meters.raft_proposals.of(fate(&outcome)).up();
            answer.send(outcome).ok();
        }
    }

    fn refuse(&self, group: Vec<Proposal>, error: &ProposeError) {
        for proposal in group {
            self.env.meters.raft_proposals.of(Proposed::Refused).up();
            proposal.answer.send(Err(error.clone())).ok();
        }
    }

    /// The format in force once these commands are applied.
    fn format(&self, commands: &[Command]) -> Format {
        let changes = commands.iter().flat_map(|command| &command.changes);
        let raised = changes.filter_map(|change| match change {
            Change::Put { object: Object::Cluster(cluster), .. } => Some(cluster.format),
            _ => None,
        });
        raised.fold(self.machine.format(), Format::max)
    }

    async fn write(&self, batch: Batch, leader: Leader) -> Result<Outcomes, ProposeError> {
        let (responder, completed) = ProgressResponder::complete_only();
        let request = self.raft.write(batch).with_leader(leader).responder(responder);
        let stopped = |error: Fatal<TypeConfig>| ProposeError::Unavailable(error.to_string());
        request.await.map_err(stopped)?;
        match completed.await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(error)) => Err(propose_error(&error)),
            Err(_) => Err(ProposeError::Unknown), // openraft has ended
        }
    }
}

/// A joining manager's raft id is the index of its entry, so no other may have the same entry.
fn stands_alone(proposal: &Proposal) -> bool {
    proposal.changes.iter().any(|change| matches!(change, Change::JoinManager { .. }))
}

/// An outcome as it is counted.
const fn fate(outcome: &Result<Revision, ProposeError>) -> Proposed {
    match outcome {
        Ok(_) => Proposed::Taken,
        Err(ProposeError::Rejected(_)) => Proposed::Rejected,
        Err(ProposeError::Unknown) => Proposed::Unknown,
        Err(
            ProposeError::NoLeader
            | ProposeError::NotLeader
            | ProposeError::NoSpace(_)
            | ProposeError::Unavailable(_),
        ) => Proposed::Refused,
    }
}

fn propose_error(error: &ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::NotLeader
        }
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::Unknown,
        ClientWriteError::ChangeMembershipError(_) => ProposeError::Unavailable(error.to_string()),
    }
}

/// Cluster time as one leader tells it: never back, and never further ahead than time really passed.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    term: u64,
    wall: Timestamp,
    at: Instant,
    is_alarmed: bool,
}

impl Stamps {
    /// The time of the next entry of a term, given the time of the newest one that was applied.
    pub(super) fn stamp(&mut self, env: &Env, term: u64, applied: Timestamp) -> Timestamp {
        let (wall, at) = (env.clock.now(), env.clock.instant());
        if self.term != term {
            *self = Self { term, wall: wall.max(applied), at, is_alarmed: false };
            return self.wall;
        }
        let expected = self.wall.after(at.since(self.at));
        let step = wall.since(expected).max(expected.since(wall));
        if step <= STEP_MAX {
            if self.is_alarmed {
                tracing::info!("the clock of this machine agrees with cluster time again");
            }
            self.is_alarmed = false;
            self.wall = wall.max(self.wall).max(applied);
        } else {
            if !self.is_alarmed {
                tracing::error!(
                    ?step,
                    "the clock of this machine was set; cluster time goes on without the step. \
                     Check its time synchronisation"
                );
            }
            self.is_alarmed = true;
            self.wall = expected.max(applied);
        }
        self.at = at;
        self.wall
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Mutex;

    use super::*;
    use crate::env::Clock;

    #[derive(Debug, Default)]
    struct Dials {
        seconds: Mutex<(u64, u64)>,
    }

    impl Clock for Dials {
        fn now(&self) -> Timestamp {
            Timestamp(self.seconds.lock().unwrap().0 * 1_000_000_000)
        }

        fn instant(&self) -> Instant {
            Instant(Duration::from_secs(self.seconds.lock().unwrap().1))
        }

        fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn steps_of_the_clock_are_not_believed() {
        let dials = Arc::new(Dials::default());
        let env = Env { clock: Arc::clone(&dials) as Arc<dyn Clock>, ..Env::system() };
        let mut stamps = Stamps::default();
        let mut seconds = |wall, monotonic, term, applied: u64| {
            *dials.seconds.lock().unwrap() = (wall, monotonic);
            let applied = Timestamp(applied * 1_000_000_000);
            stamps.stamp(&env, term, applied).0 / 1_000_000_000
        };
        assert_eq!(seconds(100, 0, 1, 0), 100);
        assert_eq!(seconds(105, 5, 1, 100), 105);
        assert_eq!(seconds(9_999, 6, 1, 105), 106, "a step ahead");
        assert_eq!(seconds(50, 8, 1, 106), 108, "a step back");
        assert_eq!(seconds(109, 9, 1, 108), 109, "the clock was put right");
        assert_eq!(seconds(50, 9, 2, 109), 109, "the next leader's clock is behind");
        assert_eq!(seconds(60, 19, 2, 109), 119);
    }
}
