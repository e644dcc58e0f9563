//! Reading a segmented log that a process left, and telling a torn end from damage. Changes nothing.
//!
//! What was written and not made durable may be there in any part: pages reach the device in any
//! order. So the log ends at the first frame that is not whole, unless something later proves that
//! this frame had been durable: a frame that says so, or a later segment with content.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::disk::OpenError;
use super::super::files;
use super::frame::{self, ALIGNED, Change, FrameHead, LogId, SEGMENT_HEAD, SegmentHead};
use super::index::Index;

const PREFIX: &str = "seg-";

/// A log as it was found.
pub(super) struct Recovered {
    pub(super) log: LogId,
    pub(super) index: Index,
    /// The segment that is written.
    pub(super) number: u64,
    /// Where its content ends.
    pub(super) at: u64,
    /// Of the next frame.
    pub(super) sequence: u64,
    /// What is to be cleared before anything is written.
    pub(super) remains: Option<Remains>,
}

/// What a crash left behind the end.
pub(super) struct Remains {
    /// Where the bytes end that are not zero.
    pub(super) until: u64,
    /// A segment that was made and never used.
    pub(super) unused: Option<PathBuf>,
}

/// The path of a segment.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:020}"))
}

/// The numbers of the segments in a directory, in order.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.strip_prefix(PREFIX)?.to_owned());
    let parse = |path: &PathBuf| name(path)?.parse().ok();
    Ok(files::list(dir, PREFIX)?.iter().filter_map(parse).collect())
}

/// What one segment was found to hold.
struct Found {
    head: SegmentHead,
    at: usize,
    sequence: u64,
    is_sealed: bool,
    /// Where the bytes end that are not zero.
    until: usize,
}

/// Reads the log in a directory that has at least one segment.
pub(super) fn recover(dir: &Path, numbers: &[u64]) -> Result<Recovered, OpenError> {
    let mut index = Index::default();
    let mut last: Option<(u64, Found)> = None;
    let mut unused = None;
    for (position, &number) in numbers.iter().enumerate() {
        let path = path(dir, number);
        let (file, bytes) = read(&path)?;
        let head = SegmentHead::parse(&bytes)
            .filter(|head| head.number == number)
            .ok_or_else(|| damaged(&path, "its head is not what was written"))?;
        if let Some((before, end)) = &last {
            if head.log != end.head.log {
                return Err(damaged(&path, "it is a segment of another log"));
            }
            if number != before + 1 {
                return Err(gone(dir, before + 1));
            }
            if !end.is_sealed {
                let is_untouched = usize::try_from(head.checkpoint)
                    .is_ok_and(|end| bytes.get(end..).is_some_and(is_zero));
                if position + 1 == numbers.len() && is_untouched {
                    unused = Some(path);
                    break;
                }
                return Err(damaged(&self::path(dir, *before), &breaks_off(end)));
            }
            if head.first != end.sequence {
                return Err(damaged(&path, "it does not continue the one before it"));
            }
        }
        index.add(number, Arc::new(file));
        let found = replay(&path, &bytes, head, &mut index)?;
        last = Some((number, found));
    }
    let Some((number, end)) = last else { return Err(gone(dir, 1)) };
    if end.is_sealed {
        return Err(gone(dir, number + 1));
    }
    let oldest = index.purge.map_or(1, |(_, oldest)| oldest);
    if numbers.first().is_some_and(|first| *first > oldest) {
        return Err(gone(dir, oldest));
    }
    let is_torn = end.until > end.at;
    let remains =
        (is_torn || unused.is_some()).then_some(Remains { until: end.until as u64, unused });
    let Found { head, at, sequence, .. } = end;
    Ok(Recovered { log: head.log, index, number, at: at as u64, sequence, remains })
}

/// The content of a segment as the device has it. What an earlier process left unsynced is made
/// durable first, and the page cache is dropped: after a failed sync it holds what the device does
/// not have.
fn read(path: &Path) -> Result<(File, Vec<u8>), OpenError> {
    let mut file = OpenOptions::new().read(true).write(true).mode(0o600).open(path)?;
    files::settle(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

fn replay(
    path: &Path,
    bytes: &[u8],
    head: SegmentHead,
    index: &mut Index,
) -> Result<Found, OpenError> {
    let until = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut found = Found { head, at: SEGMENT_HEAD, sequence: head.first, is_sealed: false, until };
    while !found.is_sealed
        && let Some(frame) = frame::parse(&head.log, bytes, found.at)
        && frame.sequence == found.sequence
    {
        found.is_sealed = frame.change == Change::Seal;
        index.apply(head.number, frame.change);
        found.at = frame.end;
        found.sequence += 1;
    }
    if found.is_sealed {
        return Ok(found);
    }
    let rest = bytes.get(found.at..found.until.max(found.at)).unwrap_or_default();
    let was_durable = (0..rest.len()).step_by(ALIGNED).any(|at| {
        let head = FrameHead::parse(&head.log, &rest[at..]);
        head.is_some_and(|head| head.durable >= found.sequence)
    });
    if was_durable || (found.at as u64) < head.checkpoint {
        return Err(damaged(path, &breaks_off(&found)));
    }
    Ok(found)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn breaks_off(found: &Found) -> String {
    format!("what was durable at byte {} is not there", found.at)
}

fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::Damaged(format!("{}: {what}", path.display()))
}

fn gone(dir: &Path, number: u64) -> OpenError {
    damaged(&path(dir, number), "it is gone")
}
