//! Raft's log as openraft wants it, on a [`LogDisk`].
//!
//! The newest entries stay in memory, decoded, as the leader reads each of them once per peer;
//! older ones come from the disk. Nothing leaves the memory before it is durable, so reading never
//! waits for writing. What the disk holds and how it is checked is `record`, `floor` and `scribe`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::Error;
use super::codec::{self, Stamp};
use super::record::{self, Sealer};
use super::scribe::{self, Job, Scribe};
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::vigil::Vigil;
use crate::env::disk::{Closed, LogDisk, Writer};
use crate::env::{Env, Scope};

/// Entries kept in memory, in bytes of their encoding.
const CACHED_BYTES: usize = 16 << 20;
/// Most bytes of entries in one message to a peer; one entry may be larger.
const MESSAGE_BYTES: usize = 1 << 20;
/// Jobs that may queue for the log's thread.
const QUEUE: usize = 1_024;

/// The log. Cheap to clone; the thread that writes ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Log {
    shared: Arc<Shared>,
    writer: Writer<Job>,
}

/// Where a log is, and whose.
pub(super) struct Place<'a> {
    /// The folder of its floor.
    pub(super) dir: &'a Path,
    /// Seals what is on the disk.
    pub(super) key: &'a [u8; 32],
    /// The member that it belongs to.
    pub(super) raft_id: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    disk: Arc<dyn LogDisk>,
    sealer: Sealer,
    memory: Mutex<Memory>,
    vigil: Arc<Vigil>,
}

#[derive(Debug)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The newest entries, without a gap up to the last one.
    cached: BTreeMap<u64, Entry>,
    cached_bytes: usize,
    /// Sizes of all entries.
    sizes: BTreeMap<u64, usize>,
    bytes: usize,
    durable: u64,
}

impl Log {
    /// Opens the log on a disk, or begins one, and checks it against its floor. The receiver
    /// completes when the disk has been let go of.
    pub(super) fn open(
        env: &Env,
        scope: &Scope,
        disk: Arc<dyn LogDisk>,
        place: &Place<'_>,
    ) -> Result<(Self, oneshot::Receiver<()>), Error> {
        let opened = scribe::open(env, disk, place)?;
        let found = &opened.found;
        let memory = Memory {
            vote: found.vote,
            committed: found.committed,
            purged: found.purged.map(|purged| purged.stamp.into()),
            last: found.last,
            cached: BTreeMap::new(),
            cached_bytes: 0,
            sizes: found.sizes.clone(),
            bytes: found.sizes.values().sum(),
            durable: found.last.map_or(0, |last| last.index),
        };
        let shared = Arc::new(Shared {
            disk: Arc::clone(&opened.disk),
            sealer: opened.sealer.clone(),
            memory: Mutex::new(memory),
            vigil: Arc::new(Vigil::new(Arc::clone(&env.clock))),
        });
        let mut scribe = Scribe::new(opened, Arc::clone(&shared), env);
        let vigil = Arc::clone(&shared.vigil);
        let work = move |group: Vec<Job>| {
            let jobs = group.len();
            scribe.work(group);
            vigil.written(jobs);
        };
        let (writer, ended) = Writer::start(scope, "raft-log", QUEUE, work)
            .map_err(|error| Error::io("the thread of the raft log", error))?;
        Ok((Self { shared, writer }, ended))
    }

    /// The marks of the member whose log this is.
    pub(super) fn vigil(&self) -> Arc<Vigil> {
        Arc::clone(&self.shared.vigil)
    }

    /// Bytes of entries that the log holds.
    pub(super) fn bytes(&self) -> usize {
        self.shared.memory().bytes
    }

    /// The last entry that is gone.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.shared.memory().purged
    }

    /// Whether an entry after some index can only be read by a newer release: what stands there, in
    /// words. Reads the disk.
    pub(super) fn newer(&self, after: Option<u64>) -> io::Result<Option<String>> {
        let first = after.map_or(0, |index| index.saturating_add(1));
        let mut newer = None;
        record::scan(&*self.shared.disk, first..=u64::MAX, &mut |raw| {
            if newer.is_none() {
                newer =
                    self.shared.sealer.newer_format(&raw).map(|format| (raw.stamp.index, format));
            }
            Ok(())
        })?;
        let (found, known) = (newer, codec::NEWEST);
        Ok(found.map(|(index, format)| {
            format!("entry {index} of its log has format {format}, and this release knows {known}")
        }))
    }

    async fn wait(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(job(done)).await?;
        answer.await.map_err(|_| io::Error::other(Closed))
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.shared.vigil.queued();
        self.writer.send(job).await.map_err(io::Error::other)
    }

    /// The entries of some indexes that are in the log, until `bytes` of them; at least one.
    fn read(&self, first: u64, end: u64, bytes: usize) -> io::Result<Vec<Entry>> {
        let (mut found, from_disk, until) = {
            let memory = self.shared.memory();
            let last = memory.last.map_or(0, |last| last.index + 1);
            let first = first.max(memory.purged.map_or(0, |purged| purged.index + 1));
            let end = memory.cap(first, end.min(last), bytes);
            if first >= end {
                return Ok(Vec::new());
            }
            let cached_from = memory.cached.keys().next().copied().unwrap_or(last);
            let cached = memory.cached.range(first.max(cached_from).min(end)..end);
            (cached.map(|(_, entry)| entry.clone()).collect(), first, cached_from.min(end))
        };
        if from_disk < until {
            let mut all = Vec::new();
            record::scan(&*self.shared.disk, from_disk..=until - 1, &mut |raw| {
                all.push(self.shared.sealer.open(&raw)?);
                Ok(())
            })?;
            all.append(&mut found);
            found = all;
        }
        Ok(found)
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries up to an index may leave the memory.
    pub(super) fn is_durable_to(&self, index: u64) {
        let mut memory = self.memory();
        memory.durable = index;
        memory.evict();
    }
}

impl Memory {
    fn push(&mut self, entry: Entry, size: usize) {
        let id = entry.log_id();
        self.last = Some(id);
        self.cached.insert(id.index, entry);
        self.cached_bytes += size;
        self.sizes.insert(id.index, size);
        self.bytes += size;
    }

    fn evict(&mut self) {
        while self.cached_bytes > CACHED_BYTES
            && let Some(first) = self.cached.first_entry()
            && *first.key() <= self.durable
        {
            let size = self.sizes.get(first.key()).copied().unwrap_or_default();
            first.remove();
            self.cached_bytes = self.cached_bytes.saturating_sub(size);
        }
    }

    fn forget(&mut self, indexes: impl RangeBounds<u64> + Clone) {
        let gone: Vec<u64> = self.sizes.range(indexes).map(|(index, _)| *index).collect();
        for index in gone {
            let size = self.sizes.remove(&index).unwrap_or_default();
            self.bytes = self.bytes.saturating_sub(size);
            if self.cached.remove(&index).is_some() {
                self.cached_bytes = self.cached_bytes.saturating_sub(size);
            }
        }
    }

    /// The end of the range that starts at `first` and has at most some bytes.
    fn cap(&self, first: u64, end: u64, bytes: usize) -> u64 {
        if first >= end {
            return end;
        }
        let mut sum = 0;
        for (index, size) in self.sizes.range(first..end) {
            sum += size;
            if sum > bytes && *index > first {
                return *index;
            }
        }
        end
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(first, end, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, MESSAGE_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.shared.memory();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.shared.memory().vote = Some(vote);
        self.wait(|done| Job::Vote { vote, done }).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.memory().committed = committed;
        self.send(Job::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.memory().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        {
            let mut memory = self.shared.memory();
            for entry in entries {
                let bytes = codec::encode_entry(&entry).map_err(io::Error::other)?;
                let stamp = Stamp::from(entry.log_id());
                memory.push(entry, bytes.len());
                encoded.push((stamp, bytes));
            }
        }
        self.send(Job::Append { entries: encoded, done: callback }).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        {
            let mut memory = self.shared.memory();
            if last.map(|last| last.index) >= memory.last.map(|last| last.index) {
                return Ok(());
            }
            memory.forget(last.map_or(0, |last| last.index + 1)..);
            memory.last = last;
        }
        self.wait(|done| Job::Truncate { last, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        {
            let mut memory = self.shared.memory();
            memory.forget(..=log_id.index);
            memory.purged = memory.purged.max(Some(log_id));
            memory.last = memory.last.max(Some(log_id));
        }
        self.wait(|upto| Job::Purge { upto: log_id, done: upto }).await
    }
}

#[cfg(test)]
mod tests;
