//! A group made anew of one member: what a folder holds, read without the others, and a folder in
//! which a member that is alone begins with a state.
//!
//! ```text
//!   salvage:  snapshot + log (every entry, also those whose fate only the others knew) ─▶ state
//!   plant:    state ─▶ snapshot at (epoch, index + a gap), a log that begins there, a vote of that term
//! ```
//!
//! The new member's raft id and first term are the **epoch**: larger than any term that the old group
//! can have reached. So agents take what it says as newer than all they were ever told, and what the
//! old members send (to raft ids that nobody has any more, at lower terms) is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::Membership;
use openraft::storage::RaftLogStorage;

use super::codec::{self, Stamp};
use super::handle::Settings;
use super::log::Log;
use super::snapshots::Snapshots;
use super::start::{open_log, open_machine};
use super::types::{LogId, RaftNode, SnapshotMeta, StoredMembership, Vote};
use super::{Error, ProposeError};
use crate::domain::{Position, Timestamp};
use crate::env::{Env, Scope};
use crate::state::{self, Change, Command, State, View};

/// Epochs are a million apart, so that no group reaches the next one by elections.
const EPOCH_STEP: u64 = 1 << 20;
/// Indexes that are left out, so that no revision or raft id of entries that were lost is used again.
const GAP: u64 = 1 << 16;
/// Entries that are replayed at once.
const REPLAYED: u64 = 256;
/// How long the disk may take to be let go of.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What a member's folder holds.
#[derive(Debug)]
pub struct Salvaged {
    /// The state after the last entry.
    pub view: View,
    /// Up to here this member knew entries to be agreed on; what follows may or may not be known
    /// to others.
    pub committed: u64,
    /// The last entry.
    pub last: Position,
    /// Highest term that this member has heard of.
    pub term: u64,
}

/// The epoch of a group that begins `now`, after one that had come to `term`.
#[must_use]
pub fn epoch(now: Timestamp, term: u64) -> u64 {
    let by_clock = (now.0 / 1_000_000_000).saturating_mul(EPOCH_STEP);
    let by_term = (term / EPOCH_STEP + 1).saturating_mul(EPOCH_STEP);
    by_clock.max(by_term)
}

/// Reads what a member's folder holds. Nobody else may use it meanwhile; its content is not changed.
///
/// # Errors
/// [`Error`]: what is damaged cannot be salvaged.
pub async fn salvage(settings: &Settings, env: &Env, scope: &Scope) -> Result<Salvaged, Error> {
    let (log, closed) = open_log(settings, env, scope).await?;
    let read = replay(settings, env, scope, log).await;
    if env.clock.timeout(CLOSE_LIMIT, closed).await.is_err() {
        tracing::warn!("the raft log was not closed in time");
    }
    read
}

async fn replay(
    settings: &Settings,
    env: &Env,
    scope: &Scope,
    mut log: Log,
) -> Result<Salvaged, Error> {
    let failed = |error| Error::io("the raft log", error);
    let machine = open_machine(settings, env, scope, &log)?;
    let committed = log.read_committed().await.map_err(failed)?;
    let vote = openraft::RaftLogReader::read_vote(&mut log).await.map_err(failed)?;
    let end = log.get_log_state().await.map_err(failed)?.last_log_id;
    let end = end.map_or(0, |last| last.index.saturating_add(1));
    let mut next = machine.last().map_or(0, |last| last.index.saturating_add(1));
    let snapshot = machine.last().map_or(0, |last| last.index);
    while next < end {
        let until = end.min(next.saturating_add(REPLAYED));
        let mut reader = log.clone();
        let entries = openraft::RaftLogReader::try_get_log_entries(&mut reader, next..until);
        for entry in entries.await.map_err(failed)? {
            machine.apply_entry(entry);
        }
        next = until;
    }
    let view = machine.views().borrow().clone();
    let last = machine.last().map(|last| codec::position(&last)).unwrap_or_default();
    let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.term);
    let committed = committed.map_or(0, |committed| committed.index).max(snapshot);
    Ok(Salvaged { view, committed: committed.min(last.index), last, term })
}

/// Makes the folder of a member that begins alone, with a state and changes to it. Its raft id must
/// be an [`epoch`]. What a crash left of an earlier attempt is removed.
///
/// # Errors
/// When the changes do not fit the state, or the disk refuses.
pub async fn plant(
    settings: &Settings,
    env: &Env,
    scope: &Scope,
    state: &State,
    changes: Vec<Change>,
) -> Result<(), Error> {
    let stored = |error| Error::io("the folder of the raft log", error);
    match std::fs::remove_dir_all(&settings.dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(stored(error)),
        Ok(()) | Err(_) => env.device.private_dir(&settings.dir).map_err(stored)?,
    }
    let (meta, content) = first_snapshot(settings, state, changes, env.clock.now())?;
    let Some(first) = meta.last_log_id else { return Ok(()) };
    let dir = settings.dir.join("snapshots");
    let snapshots = Snapshots::open(dir, &settings.key, env)?;
    snapshots.write(first.index, &content).map_err(stored)?;
    let (mut log, closed) = open_log(settings, env, scope).await?;
    let epoch = settings.raft_id.0;
    let written = async {
        log.save_vote(&Vote::new(epoch, epoch)).await?;
        log.purge(first).await
    };
    let written = written.await.map_err(|error| Error::io("the raft log", error));
    drop(log);
    if env.clock.timeout(CLOSE_LIMIT, closed).await.is_err() {
        tracing::warn!("the raft log was not closed in time");
    }
    written
}

fn first_snapshot(
    settings: &Settings,
    state: &State,
    changes: Vec<Change>,
    now: Timestamp,
) -> Result<(SnapshotMeta, bytes::Bytes), Error> {
    let epoch = settings.raft_id.0;
    let index = state.position.index.saturating_add(GAP);
    let id = LogId::from(Stamp { term: epoch, leader: epoch, index });
    let mut state = state.clone();
    let command = Command { proposed_at: now.max(state.clock), request: None, changes };
    let (outcome, _) = state::apply(&mut state, &command, codec::position(&id));
    outcome.map_err(|rejection| Error::Propose(ProposeError::Rejected(rejection)))?;
    let node = RaftNode { node: settings.node, addr: settings.addr };
    let membership =
        Membership::new(vec![BTreeSet::from([epoch])], BTreeMap::from([(epoch, node)]))
            .map_err(|error| Error::Membership(error.to_string()))?;
    let last_membership = StoredMembership::new(Some(id), membership);
    let meta = SnapshotMeta { last_log_id: Some(id), last_membership };
    let content = codec::encode_snapshot(&meta, &state)
        .map_err(|error| Error::Membership(error.to_string()))?;
    Ok((meta, content))
}
