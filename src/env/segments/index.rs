//! What a segmented log holds, in memory: where each record lies, and how much of each segment is
//! still wanted.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::frame::{Change, Draft, Piece};

/// Where a record lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) segment: u64,
    pub(super) at: u64,
    pub(super) length: u32,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    /// Records in it that are part of the log.
    live: usize,
}

/// The content of a log.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) records: BTreeMap<(u64, u16), Spot>,
    pub(super) meta: BTreeMap<String, Vec<u8>>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The highest index that was purged, and the oldest segment that was wanted then.
    pub(super) purge: Option<(u64, u64)>,
}

impl Index {
    pub(super) fn add(&mut self, number: u64, file: Arc<File>) {
        self.segments.insert(number, Segment { file, live: 0 });
    }

    /// Takes in what a frame of a segment says.
    pub(super) fn apply(&mut self, segment: u64, change: Change) {
        match change {
            Change::Records(pieces) => {
                for Piece { key, at, length } in pieces {
                    let replaced = self.records.insert(key, Spot { segment, at, length });
                    self.forget(replaced);
                    self.count(segment, 1);
                }
            }
            Change::Truncate(last) => {
                let gone = match last {
                    None => std::mem::take(&mut self.records),
                    Some(u64::MAX) => BTreeMap::new(),
                    Some(last) => self.records.split_off(&(last + 1, 0)),
                };
                self.forget(gone.into_values());
            }
            Change::Purge { upto, oldest } => {
                self.purge_to(upto);
                self.purge = Some((upto, oldest));
            }
            Change::Meta { name, value } => {
                self.meta.insert(name, value);
            }
            Change::Seal => {}
        }
    }

    /// Forgets records up to an index.
    pub(super) fn purge_to(&mut self, upto: u64) {
        let kept = match upto {
            u64::MAX => BTreeMap::new(),
            upto => self.records.split_off(&(upto + 1, 0)),
        };
        let gone = std::mem::replace(&mut self.records, kept);
        self.forget(gone.into_values());
    }

    /// The oldest segment that holds a record, or the newest one.
    pub(super) fn oldest(&self) -> u64 {
        let newest = self.segments.keys().next_back().copied().unwrap_or_default();
        let mut all = self.segments.iter();
        all.find(|(_, segment)| segment.live > 0).map_or(newest, |(number, _)| *number)
    }

    /// What a new segment begins with, so that those before it are needed for their records alone.
    pub(super) fn checkpoint(&self) -> Vec<Draft> {
        let purge = self.purge.map(|(upto, oldest)| Draft::purge(upto, oldest));
        let meta = self.meta.iter().map(|(name, value)| Draft::meta(name, value));
        purge.into_iter().chain(meta).collect()
    }

    fn forget(&mut self, gone: impl IntoIterator<Item = Spot>) {
        for spot in gone {
            self.count(spot.segment, -1);
        }
    }

    fn count(&mut self, segment: u64, by: isize) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_add_signed(by);
        }
    }
}
