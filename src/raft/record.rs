//! Entries on the disk: sealed, chained, cut into checksummed records.
//!
//! ```text
//!   raw entry   [format][chain before: 32][term: 8][leader: 8][sealed entry]
//!   record      [CRC-32: 4][number of parts: 2][at most 4 090 bytes of the raw entry]
//!   chain       SHA-256(chain before, term, leader, index, sealed entry)
//! ```
//!
//! The checksum finds a damaged record, the chain finds entries that are gone, changed or in another
//! order, the seal keeps the content secret. That the log's *end* is gone only the floor can tell.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::codec::{self, FORMAT, Stamp};
use super::types::{Entry, LogId};
use crate::env::Entropy;
use crate::env::disk::{LogDisk, RECORD_MAX, Record};
use crate::env::seal::{Hasher, SealKey, hmac};

/// What stands for all entries up to one.
pub(super) type Chain = [u8; 32];

const RECORD_HEAD: usize = 6;
const PART_MAX: usize = RECORD_MAX - RECORD_HEAD;
const RAW_HEAD: usize = 1 + 32 + 8 + 8;

/// An entry as it lies on the disk.
#[derive(Debug)]
pub(super) struct RawEntry {
    pub(super) stamp: Stamp,
    /// What stands for the entries before it.
    pub(super) before: Chain,
    /// What stands for the entries up to it.
    pub(super) chain: Chain,
    sealed: Vec<u8>,
}

impl RawEntry {
    pub(super) fn log_id(&self) -> LogId {
        self.stamp.into()
    }

    pub(super) fn size(&self) -> usize {
        self.sealed.len()
    }
}

/// An entry that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} of the log {flaw}")]
pub(super) struct Broken {
    pub(super) index: u64,
    pub(super) flaw: Flaw,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("{0}")]
    Damage(String),
    #[error("has format {0}, and this release knows {FORMAT}")]
    Newer(u8),
}

impl Broken {
    pub(super) fn damaged(index: u64, reason: impl Into<String>) -> Self {
        Self { index, flaw: Flaw::Damage(reason.into()) }
    }

    /// Whether nothing is wrong with it, but that this release is older.
    pub(super) const fn is_newer(&self) -> bool {
        matches!(self.flaw, Flaw::Newer(_))
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

/// Seals entries and opens them.
#[derive(Clone, Debug)]
pub(super) struct Sealer {
    key: SealKey,
    entropy: Arc<dyn Entropy>,
    /// Recognises the key.
    pub(super) check: [u8; 16],
}

impl Sealer {
    /// A sealer with the data key of this manager.
    pub(super) fn new(key: &[u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        let mut check = [0; 16];
        check.copy_from_slice(&hmac(key, b"swarm raft key check")[..16]);
        Self { key: SealKey::new(key).derive(b"swarm raft log"), entropy, check }
    }

    /// The records of an encoded entry, and the chain with it.
    pub(super) fn write(
        &self,
        before: &Chain,
        stamp: Stamp,
        encoded: &[u8],
    ) -> (Vec<Record>, Chain) {
        let sealed = self.key.seal(&*self.entropy, &purpose(stamp), encoded);
        let mut raw = Vec::with_capacity(RAW_HEAD + sealed.len());
        raw.push(FORMAT);
        raw.extend_from_slice(before);
        raw.extend_from_slice(&stamp.term.to_le_bytes());
        raw.extend_from_slice(&stamp.leader.to_le_bytes());
        raw.extend_from_slice(&sealed);
        (cut(stamp.index, &raw), chain_of(before, stamp, &sealed))
    }

    /// The format of an entry, if it is newer than what this release reads.
    pub(super) fn newer_format(&self, raw: &RawEntry) -> Option<u8> {
        let encoded = self.key.open(&purpose(raw.stamp), &raw.sealed).ok()?;
        codec::newer_format(&encoded)
    }

    /// The entry in a raw one.
    pub(super) fn open(&self, raw: &RawEntry) -> Result<Entry, Broken> {
        let index = raw.stamp.index;
        let broken = |reason: String| Broken::damaged(index, reason);
        let encoded = self
            .key
            .open(&purpose(raw.stamp), &raw.sealed)
            .map_err(|error| broken(format!("is not readable: {error}")))?;
        codec::decode_entry(&encoded).map_err(|error| broken(format!("is not readable: {error}")))
    }
}

/// Visits the raw entries of some indexes, in order. Checks records, not the chain.
pub(super) fn scan(
    disk: &dyn LogDisk,
    indexes: RangeInclusive<u64>,
    visit: &mut dyn FnMut(RawEntry) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending: Option<Pending> = None;
    disk.scan(indexes, &mut |record| {
        let part = Part::parse(record)?;
        let mut entry = match pending.take() {
            Some(entry) if entry.index == part.index => entry,
            Some(entry) => return Err(entry.incomplete().into()),
            None => Pending::new(&part),
        };
        entry.add(&part)?;
        if entry.is_complete() {
            visit(entry.parse()?)?;
        } else {
            pending = Some(entry);
        }
        Ok(())
    })?;
    pending.map_or(Ok(()), |entry| Err(entry.incomplete().into()))
}

struct Part {
    index: u64,
    part: u16,
    parts: u16,
    bytes: Vec<u8>,
}

impl Part {
    fn parse(record: Record) -> Result<Self, Broken> {
        let Record { index, part, mut bytes } = record;
        let broken = |reason: &str| Broken::damaged(index, reason);
        let head: [u8; RECORD_HEAD] = bytes
            .get(..RECORD_HEAD)
            .and_then(|head| head.try_into().ok())
            .ok_or_else(|| broken("has a record that is cut off"))?;
        let [a, b, c, d, low, high] = head;
        if checksum(index, part, &bytes[4..]) != u32::from_le_bytes([a, b, c, d]) {
            return Err(broken("has a record with a wrong checksum"));
        }
        bytes.drain(..RECORD_HEAD);
        Ok(Self { index, part, parts: u16::from_le_bytes([low, high]), bytes })
    }
}

struct Pending {
    index: u64,
    parts: u16,
    next: u16,
    raw: Vec<u8>,
}

impl Pending {
    const fn new(first: &Part) -> Self {
        Self { index: first.index, parts: first.parts, next: 0, raw: Vec::new() }
    }

    fn add(&mut self, part: &Part) -> Result<(), Broken> {
        if part.part != self.next || part.parts != self.parts {
            return Err(self.incomplete());
        }
        self.next += 1;
        self.raw.extend_from_slice(&part.bytes);
        Ok(())
    }

    const fn is_complete(&self) -> bool {
        self.next == self.parts
    }

    fn incomplete(&self) -> Broken {
        Broken::damaged(self.index, "lacks a part")
    }

    fn parse(self) -> Result<RawEntry, Broken> {
        let index = self.index;
        let cut_off = || Broken::damaged(index, "is cut off");
        match *self.raw.first().ok_or_else(cut_off)? {
            FORMAT => {}
            0 => return Err(Broken::damaged(index, "has no format")),
            newer => return Err(Broken { index, flaw: Flaw::Newer(newer) }),
        }
        let (head, sealed) = self.raw.split_at_checked(RAW_HEAD).ok_or_else(cut_off)?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut before = [0; 32];
        before.copy_from_slice(&head[1..33]);
        let stamp = Stamp { term: number(33), leader: number(41), index };
        let chain = chain_of(&before, stamp, sealed);
        Ok(RawEntry { stamp, before, chain, sealed: sealed.to_vec() })
    }
}

fn cut(index: u64, raw: &[u8]) -> Vec<Record> {
    let pieces: Vec<&[u8]> = raw.chunks(PART_MAX).collect();
    let parts = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
    (0..parts)
        .zip(pieces)
        .map(|(part, piece)| {
            let mut bytes = Vec::with_capacity(RECORD_HEAD + piece.len());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&parts.to_le_bytes());
            bytes.extend_from_slice(piece);
            let sum = checksum(index, part, &bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            Record { index, part, bytes }
        })
        .collect()
}

/// Covers the key too, so that a record found under another's key is damage.
fn checksum(index: u64, part: u16, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&index.to_le_bytes());
    hasher.update(&part.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn chain_of(before: &Chain, stamp: Stamp, sealed: &[u8]) -> Chain {
    let mut hasher = Hasher::new();
    hasher.update(before);
    hasher.update(&purpose(stamp));
    hasher.update(sealed);
    hasher.finish()
}

fn purpose(stamp: Stamp) -> [u8; 24] {
    let mut purpose = [0; 24];
    purpose[..8].copy_from_slice(&stamp.term.to_le_bytes());
    purpose[8..16].copy_from_slice(&stamp.leader.to_le_bytes());
    purpose[16..].copy_from_slice(&stamp.index.to_le_bytes());
    purpose
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The records of an entry under another index, as a release with the next format would write them.
    pub(in crate::raft) fn of_a_newer_shape(records: &[Record], index: u64) -> Vec<Record> {
        let mut raw: Vec<u8> =
            records.iter().flat_map(|it| &it.bytes[RECORD_HEAD..]).copied().collect();
        raw[0] = FORMAT + 1;
        cut(index, &raw)
    }
}
