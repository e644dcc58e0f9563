//! What a segment consists of: a head, then frames, then zeros.
//!
//! ```text
//!   head     [magic: 8][log: 16][number: 8][first sequence: 8][end of the checkpoint: 8][CRC-32: 4]
//!   frame    [CRC-32 of what follows in the frame's head: 4][length: 4][sequence: 8]
//!            [durable: 8][kind: 1][0: 3][CRC-32 of the payload: 4] payload, 0 to 7 zeros
//! ```
//!
//! Checksums begin with the id of the log, so that no piece of another log passes for one of this.
//! `durable` is the highest sequence that was on the device when the frame was written: what tells a
//! torn end (which no later frame calls durable) from damage.

use super::super::disk::Record;

/// Bytes of a segment's head.
pub(super) const SEGMENT_HEAD: usize = 64;
/// Bytes of a frame's head.
pub(super) const FRAME_HEAD: usize = 32;
/// Frames begin at multiples of this, so that looking for one need not try every byte.
pub(super) const ALIGNED: usize = 8;

const MAGIC: &[u8; 8] = b"swmsegm1";
const RECORD_HEAD: usize = 14;

const RECORDS: u8 = 1;
const TRUNCATE: u8 = 2;
const PURGE: u8 = 3;
const META: u8 = 4;
const SEAL: u8 = 5;

/// Which log a segment is of.
pub(super) type LogId = [u8; 16];

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) log: LogId,
    pub(super) number: u64,
    /// Of its first frame.
    pub(super) first: u64,
    /// Where the frames end that were written with the head.
    pub(super) checkpoint: u64,
}

impl SegmentHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEAD);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.log);
        for number in [self.number, self.first, self.checkpoint] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32fast::hash(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.resize(SEGMENT_HEAD, 0);
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let content = bytes.get(..48)?;
        let sum = u32::from_le_bytes(bytes.get(48..52)?.try_into().ok()?);
        if crc32fast::hash(content) != sum || !content.starts_with(MAGIC) {
            return None;
        }
        let log = content.get(8..24)?.try_into().ok()?;
        Some(Self {
            log,
            number: number(content, 24)?,
            first: number(content, 32)?,
            checkpoint: number(content, 40)?,
        })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    length: u32,
    pub(super) sequence: u64,
    pub(super) durable: u64,
    kind: u8,
    sum: u32,
}

impl FrameHead {
    /// The head at the beginning of some bytes, if there is one of this log.
    pub(super) fn parse(log: &LogId, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..FRAME_HEAD)?;
        let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        if word(0)? != checksum(log, &head[4..]) {
            return None;
        }
        let (length, sum) = (word(4)?, word(28)?);
        Some(Self {
            length,
            sequence: number(head, 8)?,
            durable: number(head, 16)?,
            kind: head[24],
            sum,
        })
    }
}

/// A whole frame.
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) change: Change,
    /// Where the next frame begins.
    pub(super) end: usize,
}

/// The frame at a place in a segment; `None` if there is no whole one.
pub(super) fn parse(log: &LogId, segment: &[u8], at: usize) -> Option<Frame> {
    let head = FrameHead::parse(log, segment.get(at..)?)?;
    let begin = at + FRAME_HEAD;
    let end = begin.checked_add(usize::try_from(head.length).ok()?)?;
    let payload = segment.get(begin..end)?;
    if checksum(log, payload) != head.sum {
        return None;
    }
    let change = Change::parse(head.kind, payload, begin as u64)?;
    Some(Frame { sequence: head.sequence, change, end: end.next_multiple_of(ALIGNED) })
}

/// A place in a segment's life that a frame describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Records were added.
    Records(Vec<Piece>),
    /// All above an index are gone; all, if there is none.
    Truncate(Option<u64>),
    /// All up to an index are gone, and so are segments before `oldest`.
    Purge { upto: u64, oldest: u64 },
    /// A named value was set.
    Meta { name: String, value: Vec<u8> },
    /// The log goes on in the next segment.
    Seal,
}

/// Where a record lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) key: (u64, u16),
    pub(super) at: u64,
    pub(super) length: u32,
}

/// A frame that is to be written, without its place in the order.
pub(super) struct Draft {
    kind: u8,
    payload: Vec<u8>,
}

impl Draft {
    pub(super) fn records(records: &[Record]) -> Self {
        let size = records.iter().map(|record| record.bytes.len() + RECORD_HEAD).sum();
        let mut payload = Vec::with_capacity(size);
        for record in records {
            payload.extend_from_slice(&record.index.to_le_bytes());
            payload.extend_from_slice(&record.part.to_le_bytes());
            let length = u32::try_from(record.bytes.len()).unwrap_or(u32::MAX);
            payload.extend_from_slice(&length.to_le_bytes());
            payload.extend_from_slice(&record.bytes);
        }
        Self { kind: RECORDS, payload }
    }

    pub(super) fn truncate(last: Option<u64>) -> Self {
        let payload = last.map(|last| last.to_le_bytes().to_vec()).unwrap_or_default();
        Self { kind: TRUNCATE, payload }
    }

    pub(super) fn purge(upto: u64, oldest: u64) -> Self {
        Self { kind: PURGE, payload: [upto.to_le_bytes(), oldest.to_le_bytes()].concat() }
    }

    pub(super) fn meta(name: &str, value: &[u8]) -> Self {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let payload = [&[length], name.as_bytes(), value].concat();
        Self { kind: META, payload }
    }

    pub(super) const fn seal() -> Self {
        Self { kind: SEAL, payload: Vec::new() }
    }

    /// Bytes of the frame.
    pub(super) const fn size(&self) -> usize {
        (FRAME_HEAD + self.payload.len()).next_multiple_of(ALIGNED)
    }

    /// What it changes when it is written at a place.
    pub(super) fn change(&self, at: u64) -> Option<Change> {
        Change::parse(self.kind, &self.payload, at + FRAME_HEAD as u64)
    }

    pub(super) fn encode(&self, log: &LogId, sequence: u64, durable: u64, out: &mut Vec<u8>) {
        let end = out.len() + self.size();
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut head = Vec::with_capacity(FRAME_HEAD);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&sequence.to_le_bytes());
        head.extend_from_slice(&durable.to_le_bytes());
        head.extend_from_slice(&[self.kind, 0, 0, 0]);
        head.extend_from_slice(&checksum(log, &self.payload).to_le_bytes());
        out.extend_from_slice(&checksum(log, &head).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.payload);
        out.resize(end, 0);
    }
}

impl Change {
    /// `at` is where the payload lies in its segment.
    fn parse(kind: u8, payload: &[u8], at: u64) -> Option<Self> {
        match kind {
            RECORDS => pieces(payload, at).map(Self::Records),
            TRUNCATE if payload.is_empty() => Some(Self::Truncate(None)),
            TRUNCATE => Some(Self::Truncate(Some(number(payload, 0)?))),
            PURGE => Some(Self::Purge { upto: number(payload, 0)?, oldest: number(payload, 8)? }),
            META => {
                let (length, rest) = payload.split_first()?;
                let (name, value) = rest.split_at_checked(usize::from(*length))?;
                let name = String::from_utf8(name.to_vec()).ok()?;
                Some(Self::Meta { name, value: value.to_vec() })
            }
            SEAL => Some(Self::Seal),
            _ => None,
        }
    }
}

fn pieces(payload: &[u8], begin: u64) -> Option<Vec<Piece>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        let index = number(payload, at)?;
        let part = u16::from_le_bytes(payload.get(at + 8..at + 10)?.try_into().ok()?);
        let length = u32::from_le_bytes(payload.get(at + 10..at + 14)?.try_into().ok()?);
        at += RECORD_HEAD;
        found.push(Piece { key: (index, part), at: begin + at as u64, length });
        at = at.checked_add(usize::try_from(length).ok()?)?;
    }
    (at == payload.len()).then_some(found)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn checksum(log: &LogId, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(log);
    hasher.update(bytes);
    hasher.finalize()
}
