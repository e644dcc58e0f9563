//! The writing side of the log: what its thread does with the jobs, and what is checked when the log
//! is opened.
//!
//! The order within a group of jobs is what everything rests on: (1) the disk's writes, in the order
//! of the jobs; a cut of the log is preceded by lowering the floor, a purge by a barrier on the purge
//! point; (2) one barrier; (3) the floor; (4) the answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::IOFlushed;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Error;
use super::codec::{self, CodecError, Stamp};
use super::floor::{Floor, FloorFile};
use super::log::{Place, Shared};
use super::record::{self, Broken, Chain, Sealer};
use super::types::{LogId, TypeConfig, Vote};
use crate::env::disk::LogDisk;
use crate::env::{Canary, Env, Point};

/// What the log asks of its thread.
pub(super) enum Job {
    /// Adds encoded entries.
    Append { entries: Vec<(Stamp, Vec<u8>)>, done: IOFlushed<TypeConfig> },
    /// Remembers a vote.
    Vote { vote: Vote, done: oneshot::Sender<()> },
    /// Removes what is above an entry.
    Truncate { last: Option<LogId>, done: oneshot::Sender<()> },
    /// Removes what is up to an entry.
    Purge { upto: LogId, done: oneshot::Sender<()> },
    /// Remembers, some time, what is committed.
    Committed(Option<LogId>),
}

/// The purge point: the last entry that is gone, and what stands for all up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purged {
    pub(super) stamp: Stamp,
    chain: Chain,
}

/// What a log was found to hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<Purged>,
    pub(super) last: Option<LogId>,
    /// Sizes of the entries, by index.
    pub(super) sizes: BTreeMap<u64, usize>,
    chain: Chain,
    /// The chain at the floor's last entry, where that is still there.
    at_floor: Option<Chain>,
}

/// The thread's belongings.
pub(super) struct Scribe {
    disk: Arc<dyn LogDisk>,
    sealer: Sealer,
    floor: Floor,
    file: FloorFile,
    chain: Chain,
    purged: Option<Purged>,
    shared: Arc<Shared>,
    env: Env,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { entries, .. } => write!(f, "Append({} entries)", entries.len()),
            Self::Vote { vote, .. } => write!(f, "Vote({vote})"),
            Self::Truncate { last, .. } => write!(f, "Truncate({last:?})"),
            Self::Purge { upto, .. } => write!(f, "Purge({upto})"),
            Self::Committed(committed) => write!(f, "Committed({committed:?})"),
        }
    }
}

enum Answer {
    Appended(IOFlushed<TypeConfig>),
    Done(oneshot::Sender<()>),
}

impl Scribe {
    pub(super) fn new(opened: Opened, shared: Arc<Shared>, env: &Env) -> Self {
        let Opened { disk, sealer, floor, file, found } = opened;
        let (chain, purged) = (found.chain, found.purged);
        Self { disk, sealer, floor, file, chain, purged, shared, env: env.clone() }
    }

    /// Works on a group of jobs with one barrier. A disk that fails ends the process.
    pub(super) fn work(&mut self, group: Vec<Job>) {
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            match self.write(job) {
                Ok(answer) => answers.extend(answer),
                Err(error) => self.env.device.give_up("the raft log could not be written", &error),
            }
        }
        if answers.is_empty() {
            return; // nobody waits: the next group's barrier is soon enough
        }
        if let Err(error) = self.make_durable(&answers) {
            self.env.device.give_up("the raft log could not be made durable", &error);
        }
        self.shared.is_durable_to(self.floor.last.map_or(0, |stamp| stamp.index));
        for answer in answers {
            match answer {
                Answer::Appended(done) => done.io_completed(Ok(())),
                Answer::Done(done) => done.send(()).unwrap_or_default(),
            }
        }
    }

    fn make_durable(&mut self, answers: &[Answer]) -> io::Result<()> {
        let is_append = |answer: &Answer| matches!(answer, Answer::Appended(_));
        if self.env.faults.has(Canary::AckBeforeBarrier) && answers.iter().all(is_append) {
            return Ok(());
        }
        let Env { faults, clock, meters, .. } = &self.env;
        let began = clock.instant();
        faults.hit(Point::RaftBeforeBarrier);
        self.disk.barrier()?;
        faults.hit(Point::RaftBeforeFloor);
        self.file.write(&mut self.floor)?;
        faults.hit(Point::RaftAfterFloor);
        meters.raft_sync.took(clock.instant().since(began));
        Ok(())
    }

    fn write(&mut self, job: Job) -> io::Result<Option<Answer>> {
        match job {
            Job::Vote { done, .. } if self.env.faults.has(Canary::VoteNotWritten) => {
                Ok(Some(Answer::Done(done)))
            }
            Job::Truncate { done, .. } if self.env.faults.has(Canary::TruncateLost) => {
                Ok(Some(Answer::Done(done)))
            }
            Job::Append { entries, done } => {
                self.env.faults.hit(Point::RaftBeforeAppend);
                let mut records = Vec::new();
                for (stamp, encoded) in entries {
                    let (cut, chain) = self.sealer.write(&self.chain, stamp, &encoded);
                    records.extend(cut);
                    self.chain = chain;
                    self.floor.last = Some(stamp);
                    self.floor.chain = chain;
                }
                let began = self.env.clock.instant();
                self.disk.append(records)?;
                self.env.faults.hit(Point::RaftAfterAppend);
                self.env.meters.raft_append.took(self.env.clock.instant().since(began));
                Ok(Some(Answer::Appended(done)))
            }
            Job::Vote { vote, done } => {
                self.disk.put_meta(VOTE, encode(&vote)?)?;
                self.env.faults.hit(Point::RaftVote);
                self.floor.vote = Some(parts(&vote));
                Ok(Some(Answer::Done(done)))
            }
            Job::Truncate { last, done } => {
                self.chain = self.chain_at(last)?;
                self.floor.last = last.map(Stamp::from);
                self.floor.chain = self.chain;
                self.file.write(&mut self.floor)?;
                self.env.faults.hit(Point::RaftTruncate);
                self.disk.truncate_after(last.map(|id| id.index))?;
                Ok(Some(Answer::Done(done)))
            }
            Job::Purge { upto, done } => {
                self.purge(upto)?;
                Ok(Some(Answer::Done(done)))
            }
            Job::Committed(committed) => {
                self.disk.put_meta(COMMITTED, encode(&committed)?)?;
                Ok(None)
            }
        }
    }

    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let stamp = Stamp::from(upto);
        let is_all = self.floor.last.is_none_or(|last| last.index <= upto.index);
        let chain = match self.floor.last {
            Some(last) if last == stamp => self.chain,
            // A snapshot took the place of everything: a new chain begins.
            Some(_) | None if is_all => stamp_chain(stamp),
            Some(_) | None => self.chain_at(Some(upto))?,
        };
        let purged = Purged { stamp, chain };
        if is_all {
            self.chain = chain;
            self.floor.last = Some(stamp);
            self.floor.chain = chain;
        }
        self.purged = Some(purged);
        self.disk.put_meta(PURGED, encode(&purged)?)?;
        self.disk.barrier()?;
        self.env.faults.hit(Point::RaftPurge);
        self.disk.purge_to(upto.index)
    }

    fn chain_at(&self, id: Option<LogId>) -> io::Result<Chain> {
        let Some(id) = id else { return Ok(Chain::default()) };
        if let Some(purged) = self.purged
            && purged.stamp == Stamp::from(id)
        {
            return Ok(purged.chain);
        }
        let mut chain = None;
        record::scan(&*self.disk, id.index..=id.index.saturating_add(1), &mut |raw| {
            chain = Some(if raw.stamp.index == id.index { raw.chain } else { raw.before });
            Ok(())
        })?;
        chain.ok_or_else(|| Broken::damaged(id.index, "is not there").into())
    }
}

/// A log that was opened and checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Arc<dyn LogDisk>,
    pub(super) sealer: Sealer,
    pub(super) found: Found,
    floor: Floor,
    file: FloorFile,
}

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// Opens a log and checks it against its floor, or begins one.
pub(super) fn open(env: &Env, disk: Arc<dyn LogDisk>, place: &Place<'_>) -> Result<Opened, Error> {
    let Place { dir, raft_id, .. } = *place;
    let sealer = Sealer::new(place.key, Arc::clone(&env.entropy));
    let (device, floor_path) = (&*env.device, dir.join("floor"));
    let key_check = sealer.check;
    let floor = match FloorFile::open(device, &floor_path) {
        Ok(floor) => floor,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(corrupt(dir, format!("its floor file: {error}")));
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return Err(newer(dir, format!("its floor file: {error}")));
        }
        Err(error) => return Err(Error::io("the floor of the raft log", error)),
    };
    let Some((file, mut floor)) = floor else {
        let found = read(&*disk, dir)?;
        if found.last.is_some() || found.vote.is_some() {
            return Err(corrupt(dir, "its floor file is gone".to_owned()));
        }
        let floor = Floor { raft_id, key_check, ..Floor::default() };
        let file = FloorFile::create(device, &floor_path, &floor)
            .map_err(|error| Error::io("the floor of the raft log", error))?;
        return Ok(Opened { disk, sealer, found, floor, file });
    };
    if floor.key_check != key_check {
        return Err(Error::Key);
    }
    if floor.raft_id != raft_id {
        return Err(Error::Foreign { expected: raft_id, found: floor.raft_id });
    }
    let found = recover(&disk, dir, &floor)?;
    if !env.faults.has(Canary::FloorIgnored) {
        check(&found, &floor).map_err(|what| corrupt(dir, what))?;
    }
    let settled = settle(&*disk, &file, &mut floor, &found);
    settled.map_err(|error| Error::io("the raft log", error))?;
    Ok(Opened { disk, sealer, found, floor, file })
}

/// Makes durable what was found: a process that was killed leaves in the page cache what it had not
/// synced, and what is in the log may be acknowledged from now on without being written again.
fn settle(
    disk: &dyn LogDisk,
    file: &FloorFile,
    floor: &mut Floor,
    found: &Found,
) -> io::Result<()> {
    disk.barrier()?;
    let vote = found.vote.as_ref().map(parts);
    let last = found.last.map(Stamp::from);
    if (floor.vote, floor.last) == (vote, last) {
        return Ok(());
    }
    *floor = Floor { vote, last, chain: found.chain, ..*floor };
    file.write(floor)
}

/// Reads the log and drops an end that was never acknowledged if it is torn.
fn recover(disk: &Arc<dyn LogDisk>, path: &Path, floor: &Floor) -> Result<Found, Error> {
    let mut found = read_meta(&**disk, path)?;
    match walk(&**disk, &mut found, floor) {
        Ok(()) => Ok(found),
        Err(broken) if broken.is_newer() => Err(unreadable(path, &broken)),
        Err(broken) if floor.last.is_none_or(|last| broken.index > last.index) => {
            tracing::warn!(%broken, "dropped an end of the raft log that was never acknowledged");
            let last = found.last.map(|id| id.index);
            disk.truncate_after(last)
                .and_then(|()| disk.barrier())
                .map_err(|error| Error::io("the raft log", error))?;
            Ok(found)
        }
        Err(broken) => Err(unreadable(path, &broken)),
    }
}

fn read(disk: &dyn LogDisk, path: &Path) -> Result<Found, Error> {
    let mut found = read_meta(disk, path)?;
    walk(disk, &mut found, &Floor::default()).map_err(|broken| unreadable(path, &broken))?;
    Ok(found)
}

fn read_meta(disk: &dyn LogDisk, path: &Path) -> Result<Found, Error> {
    let purged: Option<Purged> = meta(disk, PURGED, path)?;
    Ok(Found {
        vote: meta(disk, VOTE, path)?,
        committed: meta::<Option<LogId>>(disk, COMMITTED, path)?.flatten(),
        purged,
        last: purged.map(|purged| purged.stamp.into()),
        sizes: BTreeMap::new(),
        chain: purged.map(|purged| purged.chain).unwrap_or_default(),
        at_floor: None,
    })
}

/// Follows the chain from the purge point to the end, or to where it breaks.
fn walk(disk: &dyn LogDisk, found: &mut Found, floor: &Floor) -> Result<(), Broken> {
    let first = found.purged.map_or(0, |purged| purged.stamp.index.saturating_add(1));
    let walked = record::scan(disk, first..=u64::MAX, &mut |raw| {
        let index = raw.stamp.index;
        let expected = found.last.map_or(first, |last| last.index + 1);
        if index != expected {
            return Err(Broken::damaged(expected, "is not there").into());
        }
        if raw.before != found.chain {
            return Err(Broken::damaged(index, "does not continue what was before it").into());
        }
        found.chain = raw.chain;
        found.last = Some(raw.log_id());
        if floor.last == Some(raw.stamp) {
            found.at_floor = Some(raw.chain);
        }
        found.sizes.insert(index, raw.size());
        Ok(())
    });
    walked.map_err(|error| {
        let index = found.last.map_or(first, |last| last.index + 1);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Broken>()).cloned();
        inner.unwrap_or_else(|| Broken::damaged(index, format!("cannot be read: {error}")))
    })
}

fn check(found: &Found, floor: &Floor) -> Result<(), String> {
    let vote = found.vote.as_ref().map(parts);
    if vote < floor.vote {
        return Err("it has forgotten a vote".to_owned());
    }
    let Some(least) = floor.last else { return Ok(()) };
    let last = found.last.map(Stamp::from);
    let reached = last.is_some_and(|last| last.index >= least.index);
    if !reached {
        let end = last.map_or(0, |last| last.index);
        return Err(format!("it ends at entry {end} and had reached {}", least.index));
    }
    let purged = found.purged.map(|purged| (purged.stamp, purged.chain));
    let is_same = match purged {
        Some((purged, _)) if purged.index > least.index => true,
        Some((purged, chain)) if purged.index == least.index => {
            purged == least && chain == floor.chain
        }
        Some(_) | None => found.at_floor == Some(floor.chain),
    };
    if is_same {
        Ok(())
    } else {
        Err(format!("its entry {} is another one than was written", least.index))
    }
}

fn meta<T: serde::de::DeserializeOwned>(
    disk: &dyn LogDisk,
    name: &'static str,
    path: &Path,
) -> Result<Option<T>, Error> {
    let bytes = disk.meta(name).map_err(|error| Error::io("the raft log", error))?;
    let value = bytes.map(|bytes| codec::decode_message(&bytes)).transpose();
    value.map_err(|error| {
        let what = format!("its {name}: {error}");
        match error {
            CodecError::Format { .. } => newer(path, what),
            CodecError::Damaged { .. } => corrupt(path, what),
        }
    })
}

fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    codec::encode_message(value).map(Vec::from).map_err(io::Error::other)
}

fn parts(vote: &Vote) -> (u64, u64, bool) {
    (vote.leader_id.term, vote.leader_id.node_id, vote.committed)
}

fn stamp_chain(stamp: Stamp) -> Chain {
    let mut hasher = crate::env::seal::Hasher::new();
    hasher.update(b"purged");
    hasher.update(&stamp.term.to_le_bytes());
    hasher.update(&stamp.leader.to_le_bytes());
    hasher.update(&stamp.index.to_le_bytes());
    hasher.finish()
}

fn corrupt(dir: &Path, what: String) -> Error {
    Error::Corrupt { dir: dir.to_owned(), what }
}

fn newer(dir: &Path, what: String) -> Error {
    Error::Newer { dir: dir.to_owned(), what }
}

fn unreadable(dir: &Path, broken: &Broken) -> Error {
    let say = if broken.is_newer() { newer } else { corrupt };
    say(dir, broken.to_string())
}
