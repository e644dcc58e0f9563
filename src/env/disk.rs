//! The disk under the Raft log: a strictly ordered store of small records, on sled, and (`writer`) the
//! thread that writes it. The only file that names sled.
//!
//! The seam is a log and not a key-value tree, so that sled, a log of our own (`segments`) and a
//! simulated disk can stand behind it; what protects the content (checksums, the chain, the floor) lives above it,
//! in `raft/log`, and so protects all of them alike.
//!
//! ```text
//!   jobs ──► Writer (one thread, takes all that queued) ──► LogDisk: append… put_meta…, barrier()
//! ```
//!
//! sled's own `flush` ends with `sync_file_range`, which neither empties the device's cache nor
//! writes the inode. [`LogDisk::barrier`] therefore adds `fdatasync` on a descriptor of its own. A
//! failed sync cannot be repaired by trying again (the kernel has dropped the dirty pages): the
//! process ends (`Device::give_up`) and what is on the device is judged at the next start.

mod writer;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use writer::{Closed, Writer};

/// The longest record: sled keeps longer values in files of their own, which it never syncs.
pub const RECORD_MAX: usize = 4_096;

/// A piece of a log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The log index of the entry.
    pub index: u64,
    /// Which piece of it, from 0.
    pub part: u16,
    /// The piece, at most [`RECORD_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// A log of records and a few named values. Writes take effect in the order of the calls, are
/// readable at once, and are durable after the next [`Self::barrier`]. Errors other than those of
/// `scan` and `meta` leave the disk in an unknown state: the process must end.
pub trait LogDisk: Send + Sync + Debug + 'static {
    /// Adds records, all or none.
    ///
    /// # Errors
    /// The device's.
    fn append(&self, records: Vec<Record>) -> io::Result<()>;

    /// Removes all records above an index; `None` removes all.
    ///
    /// # Errors
    /// The device's.
    fn truncate_after(&self, last: Option<u64>) -> io::Result<()>;

    /// Removes all records up to and with an index.
    ///
    /// # Errors
    /// The device's.
    fn purge_to(&self, upto: u64) -> io::Result<()>;

    /// Sets a named value.
    ///
    /// # Errors
    /// The device's.
    fn put_meta(&self, name: &'static str, value: Vec<u8>) -> io::Result<()>;

    /// A named value.
    ///
    /// # Errors
    /// The device's.
    fn meta(&self, name: &'static str) -> io::Result<Option<Vec<u8>>>;

    /// Visits the records of some indexes in order.
    ///
    /// # Errors
    /// The device's, and the visitor's, which ends the visit.
    fn scan(
        &self,
        indexes: RangeInclusive<u64>,
        visit: &mut dyn FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()>;

    /// Makes everything written so far survive a power cut.
    ///
    /// # Errors
    /// The device's.
    fn barrier(&self) -> io::Result<()>;

    /// Bytes used on the device.
    fn size(&self) -> u64;
}

/// What a log lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogKind {
    /// A sled database.
    #[default]
    Sled,
    /// Segment files of our own.
    Segments,
}

impl LogKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sled, Self::Segments];
}

impl std::fmt::Display for LogKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sled => "sled",
            Self::Segments => "segments",
        })
    }
}

impl std::str::FromStr for LogKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Not the name of a [`LogKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind of log: it is sled or segments")]
pub struct UnknownKind(String);

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("it is in use by another process")]
    Locked,
    /// What is on it cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A [`LogDisk`] on sled 0.34.
#[derive(Clone)]
pub struct SledDisk {
    db: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    file: std::sync::Arc<File>,
}

impl Debug for SledDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SledDisk")
    }
}

impl SledDisk {
    /// Whether there is a database in a directory.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join("db").exists() || dir.join("conf").exists()
    }

    /// Opens the database in a directory, or makes it.
    ///
    /// Panics on some damage, since sled does: use [`open_probed`] for what may be damaged.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        super::files::private_dir(dir)?;
        if let Ok(db) = File::open(dir.join("db")) {
            super::files::settle(&db)?;
        }
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(16 << 20)
            // Fixed for ever when the database is made: another value would not open it.
            .segment_size(4 << 20)
            // The only thread of sled's that collects freed segments; it syncs each time, changes or
            // not. Its own sync errors are swallowed, but each of them is also reported to our
            // descriptor, at the next barrier.
            .flush_every_ms(Some(5_000))
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(open_error)?;
        let log = db.open_tree("log").map_err(open_error)?;
        let meta = db.open_tree("meta").map_err(open_error)?;
        let file = File::open(dir.join("db"))?;
        if let Ok(conf) = File::open(dir.join("conf")) {
            conf.sync_all()?;
        }
        super::files::private_dir(dir)?;
        Ok(Self { db, log, meta, file: std::sync::Arc::new(file) })
    }
}

impl LogDisk for SledDisk {
    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for record in records {
            debug_assert!(
                record.bytes.len() <= RECORD_MAX,
                "records are cut before they come here"
            );
            batch.insert(&key(record.index, record.part), record.bytes);
        }
        self.log.apply_batch(batch).map_err(io::Error::from)
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        let first = last.map_or(0, |last| last.saturating_add(1));
        // From the end, so that a crash half-way leaves a shorter log and not one with a hole.
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for found in self.log.range(key(first, 0)..).keys().rev().take(1_024) {
                batch.remove(found.map_err(io::Error::from)?);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            self.log.apply_batch(batch).map_err(io::Error::from)?;
        }
    }

    fn purge_to(&self, upto: u64) -> io::Result<()> {
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for found in self.log.range(..=key(upto, u16::MAX)).keys().take(1_024) {
                batch.remove(found.map_err(io::Error::from)?);
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            self.log.apply_batch(batch).map_err(io::Error::from)?;
        }
    }

    fn put_meta(&self, name: &'static str, value: Vec<u8>) -> io::Result<()> {
        self.meta.insert(name, value).map(drop).map_err(io::Error::from)
    }

    fn meta(&self, name: &'static str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.meta.get(name).map_err(io::Error::from)?.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        indexes: RangeInclusive<u64>,
        visit: &mut dyn FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        for found in self.log.range(key(*indexes.start(), 0)..=key(*indexes.end(), u16::MAX)) {
            let (found, value) = found.map_err(io::Error::from)?;
            let (index, part) = parse_key(&found)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a key is damaged"))?;
            visit(Record { index, part, bytes: value.to_vec() })?;
        }
        Ok(())
    }

    fn barrier(&self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::from)?;
        self.file.sync_data()
    }

    fn size(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// Opens a database and reads all of it, on a thread of its own, so that no damage is met later.
///
/// sled panics on some damage, here or in threads that it starts. Such a panic is caught and is
/// [`OpenError::Damaged`]; a panic hook that ends the process must ask [`is_probing_panic`] first.
///
/// # Errors
/// [`OpenError`].
pub fn open_probed(dir: &Path) -> Result<SledDisk, OpenError> {
    let dir = dir.to_owned();
    let probing = Probing::begin();
    let thread = std::thread::Builder::new().name(PROBE.to_owned()).spawn(move || {
        let disk = SledDisk::open(&dir)?;
        disk.scan(0..=u64::MAX, &mut |_| Ok(()))
            .map_err(|error| OpenError::Damaged(error.to_string()))?;
        Ok(disk)
    })?;
    let opened = thread.join();
    drop(probing);
    opened.unwrap_or_else(|panic| Err(OpenError::Damaged(panic_text(&*panic))))
}

const PROBE: &str = "raft-probe";
static PROBES: AtomicUsize = AtomicUsize::new(0);

struct Probing;

impl Probing {
    fn begin() -> Self {
        PROBES.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        PROBES.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a panic of the current thread is one that [`open_probed`] provokes and survives: its own,
/// or while it runs one of sled's.
#[must_use]
pub fn is_probing_panic() -> bool {
    let thread = std::thread::current();
    let is_sleds = |name: &str| name.starts_with("sled") || name == "log flusher";
    let name = thread.name().unwrap_or("sled");
    name == PROBE || (is_sleds(name) && PROBES.load(Ordering::SeqCst) > 0)
}

fn key(index: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(u64, u16)> {
    let (index, part) = key.split_at_checked(8)?;
    Some((u64::from_be_bytes(index.try_into().ok()?), u16::from_be_bytes(part.try_into().ok()?)))
}

fn open_error(error: sled::Error) -> OpenError {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            OpenError::Locked
        }
        sled::Error::Io(error) => OpenError::Io(error),
        sled::Error::Corruption { .. }
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::CollectionNotFound(_) => OpenError::Damaged(error.to_string()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "the database cannot be read".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Opens a disk that was closed a moment ago: sled's threads let go of the lock a little later
    /// than its handles (`raft` waits likewise at start).
    pub(crate) fn patient<D>(open: impl Fn() -> Result<D, OpenError>) -> Result<D, OpenError> {
        for _ in 0..500 {
            match open() {
                Err(OpenError::Locked) => std::thread::sleep(std::time::Duration::from_millis(10)),
                other => return other,
            }
        }
        open()
    }

    fn record(index: u64, part: u16) -> Record {
        Record { index, part, bytes: format!("{index}.{part}").into_bytes() }
    }

    fn all(disk: &SledDisk) -> Vec<(u64, u16)> {
        let mut found = Vec::new();
        disk.scan(0..=u64::MAX, &mut |record| {
            assert_eq!(record.bytes, format!("{}.{}", record.index, record.part).into_bytes());
            found.push((record.index, record.part));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn records_come_back_in_order_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        {
            let disk = SledDisk::open(dir.path()).unwrap();
            disk.append(vec![record(2, 0), record(1, 1), record(1, 0), record(300, 0)]).unwrap();
            disk.put_meta("vote", vec![7]).unwrap();
            disk.barrier().unwrap();
            assert!(matches!(SledDisk::open(dir.path()), Err(OpenError::Locked)));
        }
        let disk = patient(|| SledDisk::open(dir.path())).unwrap();
        assert_eq!(all(&disk), [(1, 0), (1, 1), (2, 0), (300, 0)]);
        assert_eq!(disk.meta("vote").unwrap(), Some(vec![7]));
        assert_eq!(disk.meta("other").unwrap(), None);
    }

    #[test]
    fn truncating_and_purging_take_whole_entries() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(dir.path()).unwrap();
        let records = (1..=3_000).flat_map(|index| [record(index, 0), record(index, 1)]);
        disk.append(records.collect()).unwrap();
        disk.truncate_after(Some(12)).unwrap();
        disk.purge_to(10).unwrap();
        assert_eq!(all(&disk), [(11, 0), (11, 1), (12, 0), (12, 1)]);
        disk.truncate_after(None).unwrap();
        assert_eq!(all(&disk), []);
    }

    #[test]
    fn a_database_that_makes_sled_panic_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        {
            let disk = open_probed(dir.path()).unwrap();
            disk.append((0..2_000).map(|index| record(index, 0)).collect()).unwrap();
            disk.barrier().unwrap();
        }
        assert_eq!(all(&patient(|| open_probed(dir.path())).unwrap()).len(), 2_000);
        let path = dir.path().join("db");
        let whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let mut refused = 0;
        for part in 0..16 {
            let mut damaged = whole.clone();
            damaged[used / 16 * part..][..64].fill(0x5a);
            std::fs::write(&path, damaged).unwrap();
            refused += usize::from(patient(|| open_probed(dir.path())).is_err());
        }
        assert!(refused > 0);
        assert!(!is_probing_panic());
    }
}
