//! A [`LogDisk`] of our own: a log in segments, which are written from front to back and never
//! changed.
//!
//! ```text
//!   seg-1 [head, frames…, seal]   seg-2 [head, checkpoint, frames…, seal]   seg-3 [head, checkpoint, frames…
//!   a frame: records · a cut · a purge · a named value
//! ```
//!
//! Everything is a frame, a cut of the log too, so that the order of the calls is the order on the
//! device and a cut comes back no sooner than what it cut. A barrier is one `fdatasync`. A segment
//! that is full is followed by one that begins with the named values (its checkpoint); the new one is
//! durable before the old one is sealed, so a seal without a successor is damage. Segments without
//! records are removed from the front, after the barrier that made their purge durable.
//!
//! What the end of the log must be is not known here: that is the floor's (`raft/floor`).

use std::fmt::{self, Debug};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::fcntl::{Flock, FlockArg};

use super::disk::{LogDisk, OpenError, Record};
use super::{Entropy, OsEntropy, files};
use frame::{Draft, LogId, SEGMENT_HEAD, SegmentHead};
use index::Index;
use recover::{Recovered, Remains};

mod frame;
mod index;
mod recover;

/// Bytes after which a segment is followed by another: a tenth of what the log may grow to, so that
/// little is kept that nobody wants.
const SEGMENT: u64 = 4 << 20;
/// Records that a visit looks up at once.
const VISITED: usize = 256;

/// A [`LogDisk`] on segment files.
pub struct SegmentDisk {
    dir: PathBuf,
    log: LogId,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    _lock: Flock<File>,
}

/// The end of the log.
struct Writer {
    number: u64,
    file: Arc<File>,
    at: u64,
    /// Of the next frame.
    sequence: u64,
    /// The highest that is on the device.
    durable: u64,
    /// Segments before this one are to be removed after the next barrier.
    unwanted: u64,
    remains: Option<Remains>,
}

impl Debug for SegmentDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentDisk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl SegmentDisk {
    /// Whether there is a segmented log in a directory.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        recover::numbers(dir).is_ok_and(|numbers| !numbers.is_empty())
    }

    /// Opens the log in a directory, or makes one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        files::private_dir(dir)?;
        let lock = lock(dir)?;
        for draft in files::list(dir, "")? {
            if draft.extension().is_some_and(|extension| extension == "tmp") {
                files::remove(&draft)?;
            }
        }
        let numbers = recover::numbers(dir)?;
        let found = if numbers.is_empty() { begin(dir)? } else { recover::recover(dir, &numbers)? };
        let Recovered { log, index, number, at, sequence, remains } = found;
        let newest = index.segments.get(&number).map(|segment| Arc::clone(&segment.file));
        let file = newest.ok_or_else(|| OpenError::Damaged("it has no segment".to_owned()))?;
        let unwanted = index.purge.map_or(0, |(_, oldest)| oldest);
        let durable = sequence - 1;
        let writer = Writer { number, file, at, sequence, durable, unwanted, remains };
        let (writer, index) = (Mutex::new(writer), RwLock::new(index));
        Ok(Self { dir: dir.to_owned(), log, writer, index, _lock: lock })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a frame behind the last one and takes in what it says.
    fn put(&self, writer: &mut Writer, draft: &Draft) -> io::Result<()> {
        self.clear(writer)?;
        let is_full = writer.at + draft.size() as u64 > SEGMENT;
        if is_full && writer.at > SEGMENT_HEAD as u64 {
            self.roll(writer)?;
        }
        self.write(writer, draft)?;
        Ok(())
    }

    fn write(&self, writer: &mut Writer, draft: &Draft) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(draft.size());
        draft.encode(&self.log, writer.sequence, writer.durable, &mut bytes);
        writer.file.write_all_at(&bytes, writer.at)?;
        let change = draft.change(writer.at).ok_or(io::ErrorKind::InvalidInput)?;
        self.index_mut().apply(writer.number, change);
        writer.at += bytes.len() as u64;
        writer.sequence += 1;
        Ok(())
    }

    /// Goes on in a new segment.
    fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let number = writer.number + 1;
        let first = writer.sequence + 1;
        let checkpoint = self.index().checkpoint();
        let (file, at, sequence) = create(&self.dir, self.log, (number, first), &checkpoint)?;
        self.write(writer, &Draft::seal())?;
        writer.file.sync_data()?;
        self.index_mut().add(number, Arc::clone(&file));
        *writer = Writer {
            number,
            file,
            at,
            sequence,
            durable: sequence - 1,
            unwanted: writer.unwanted,
            remains: None,
        };
        Ok(())
    }

    /// Removes what a crash left behind the end: it must not pass for what comes there now.
    fn clear(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(Remains { until, unused }) = writer.remains.take() else { return Ok(()) };
        tracing::info!(bytes = until.saturating_sub(writer.at), "cleared a torn end of the log");
        if until > writer.at {
            let length = usize::try_from(until - writer.at).map_err(io::Error::other)?;
            writer.file.write_all_at(&vec![0; length], writer.at)?;
            writer.file.sync_data()?;
        }
        unused.map_or(Ok(()), |path| files::remove(&path))
    }
}

impl LogDisk for SegmentDisk {
    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.put(&mut self.writer(), &Draft::records(&records))
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.put(&mut self.writer(), &Draft::truncate(last))
    }

    fn purge_to(&self, upto: u64) -> io::Result<()> {
        let mut writer = self.writer();
        let oldest = {
            let mut index = self.index_mut();
            index.purge_to(upto);
            index.oldest()
        };
        self.put(&mut writer, &Draft::purge(upto, oldest))?;
        writer.unwanted = oldest;
        Ok(())
    }

    fn put_meta(&self, name: &'static str, value: Vec<u8>) -> io::Result<()> {
        self.put(&mut self.writer(), &Draft::meta(name, &value))
    }

    fn meta(&self, name: &'static str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.index().meta.get(name).cloned())
    }

    fn scan(
        &self,
        indexes: RangeInclusive<u64>,
        visit: &mut dyn FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut from = (*indexes.start(), 0);
        let to = (*indexes.end(), u16::MAX);
        while from <= to {
            let found: Vec<_> = {
                let index = self.index();
                let spots = index.records.range(from..=to).take(VISITED);
                let file = |segment| index.segments.get(segment).map(|it| Arc::clone(&it.file));
                spots.map(|(key, spot)| (*key, *spot, file(&spot.segment))).collect()
            };
            let Some(((index, part), ..)) = found.last() else { return Ok(()) };
            from = match part.checked_add(1) {
                Some(next) => (*index, next),
                None => (index.saturating_add(1), 0),
            };
            let is_end = (*index, *part) == (u64::MAX, u16::MAX);
            for ((index, part), spot, file) in found {
                let file = file.ok_or(io::ErrorKind::NotFound)?;
                let length = usize::try_from(spot.length).map_err(io::Error::other)?;
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, spot.at)?;
                visit(Record { index, part, bytes })?;
            }
            if is_end {
                return Ok(());
            }
        }
        Ok(())
    }

    fn barrier(&self) -> io::Result<()> {
        let mut writer = self.writer();
        writer.file.sync_data()?;
        writer.durable = writer.sequence - 1;
        let unwanted = writer.unwanted.min(writer.number);
        loop {
            let first = self.index().segments.keys().next().copied();
            let Some(first) = first.filter(|first| *first < unwanted) else { return Ok(()) };
            // One by one, each durable before the next, so that no crash leaves a gap.
            files::remove(&recover::path(&self.dir, first))?;
            self.index_mut().segments.remove(&first);
        }
    }

    fn size(&self) -> u64 {
        let index = self.index();
        let length = |file: &File| file.metadata().map_or(0, |meta| meta.len());
        index.segments.values().map(|segment| length(&segment.file)).sum()
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => OpenError::Locked,
        error => OpenError::Io(error.into()),
    })
}

/// Makes a log without content.
fn begin(dir: &Path) -> io::Result<Recovered> {
    let mut log = LogId::default();
    let entropy: &dyn Entropy = &OsEntropy;
    log.copy_from_slice(&entropy.key()[..16]);
    let (file, at, sequence) = create(dir, log, (1, 1), &[])?;
    let mut index = Index::default();
    index.add(1, file);
    Ok(Recovered { log, index, number: 1, at, sequence, remains: None })
}

/// Makes a segment durably; returns it with the place and the sequence of its next frame.
fn create(
    dir: &Path,
    log: LogId,
    (number, first): (u64, u64),
    checkpoint: &[Draft],
) -> io::Result<(Arc<File>, u64, u64)> {
    let size: usize = checkpoint.iter().map(Draft::size).sum();
    let at = (SEGMENT_HEAD + size) as u64;
    let mut content = SegmentHead { log, number, first, checkpoint: at }.encode();
    let mut sequence = first;
    for draft in checkpoint {
        draft.encode(&log, sequence, first - 1, &mut content);
        sequence += 1;
    }
    let path = recover::path(dir, number);
    files::replace_with(&path, |file| {
        reserve(file)?;
        file.write_all(&content)
    })?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    Ok((Arc::new(file), at, sequence))
}

/// Takes the blocks of a segment from the file system at once, so that a full disk is met between
/// segments and a barrier need not write the file's size.
fn reserve(file: &mut File) -> io::Result<()> {
    let length = i64::try_from(SEGMENT).map_err(io::Error::other)?;
    let mode = nix::fcntl::FallocateFlags::empty();
    match nix::fcntl::fallocate(&*file, mode, 0, length) {
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(()),
        done => done.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests;
