//! When a backup is due, how its file is called, which files have had their time. Pure.
//!
//! Time is cut into slots of the schedule's length, shifted by an offset of each manager's own, so
//! that managers take turns. A backup is due when the last one was made in another slot than this
//! one: a restart makes none too many, a clock that was set forward makes one, not all that would
//! have been due meanwhile, and one that was set back does not stop them until it has caught up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::Backups;
use crate::domain::{NodeId, Timestamp};

/// The longest wait between two looks at the clock: it may be set.
const LOOK: Duration = Duration::from_secs(30);
/// The shortest and the longest wait after a failure.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A backup, now.
    Now,
    /// Another look after this long; the next backup is due at the time.
    Wait(Duration, Timestamp),
}

/// A manager's part of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    every: u64,
    offset: u64,
}

impl Slots {
    /// Slots of a length, for a manager: its node's id decides where in a slot it is due.
    pub(super) fn new(every: Duration, node: NodeId) -> Self {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut number = [0; 8];
        number.copy_from_slice(&node.to_bytes()[8..]);
        Self { every, offset: u64::from_be_bytes(number) % every }
    }

    fn of(self, at: Timestamp) -> u64 {
        // One slot ahead, so that nothing lies before the first one.
        (at.0.saturating_add(self.every) - self.offset) / self.every
    }

    /// What comes next, given the time of the last backup.
    pub(super) fn next(self, now: Timestamp, last: Option<Timestamp>) -> Next {
        let slot = self.of(now);
        if last.is_none_or(|last| self.of(last) != slot) {
            return Next::Now;
        }
        let end = Timestamp((slot.saturating_mul(self.every)).saturating_add(self.offset));
        Next::Wait(end.since(now).clamp(Duration::from_millis(1), LOOK), end)
    }

    /// How long to wait after some failures in a row.
    pub(super) fn retry(self, failures: u32) -> Duration {
        let wait = RETRY_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        wait.min(RETRY_MAX).min(Duration::from_nanos(self.every)).max(Duration::from_secs(1))
    }
}

/// What to say of backups that should have been made, and what to do; `None` where all is well.
/// Missed are two in a row, or the first one of all: a disk that is busy once is nobody's concern, and
/// a schedule that never made one is a mistake in the settings.
pub(in crate::daemon) fn overdue(backups: &Backups, now: Timestamp) -> Option<String> {
    let Backups { directory, every, since, last, failure, .. } = backups;
    let is_late = now.since(last.unwrap_or(*since)) > *every * 2;
    let is_none = last.is_none() && failure.is_some();
    if !is_late && !is_none {
        return None;
    }
    let missed = match last {
        Some(last) => format!("no backup was made and verified here since {}", last.brief()),
        None => "no backup was ever made and verified here".to_owned(),
    };
    let why = match failure {
        Some((at, why)) => format!("the last attempt, {}, failed: {why}", at.brief()),
        None => format!("is {} a mount that hangs? See the daemon's log", directory.display()),
    };
    Some(format!("{missed}; {why}; `swarm backup ls` here says how it goes on"))
}

/// What the names of a manager's backups begin with: others may share the directory.
pub(super) fn prefix(node: NodeId) -> String {
    format!("swarm-{node}-")
}

/// The name of a backup.
pub(super) fn name(node: NodeId, at: Timestamp) -> String {
    let text: String = at.to_string().chars().take(19).filter(|it| *it != ':').collect();
    format!("{}{text}Z{SUFFIX}", prefix(node))
}

/// What the names of verified backups end with.
pub(super) const SUFFIX: &str = ".swarm";
/// What is added to the name of one that is not verified yet.
pub(super) const DRAFT: &str = ".unverified";

/// Verified backups among the files of a directory, the oldest first.
pub(super) fn verified(files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.into_iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX)).collect()
}

/// The backups that are more than `keep`: the oldest by name, never the one just made.
pub(super) fn surplus(verified: &[PathBuf], keep: usize, made: &Path) -> Vec<PathBuf> {
    let others = verified.iter().filter(|path| *path != made);
    let count = verified.len().saturating_sub(keep.max(1));
    others.take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn at(minutes: u64) -> Timestamp {
        Timestamp((1_800_000_000 + minutes * 60) * 1_000_000_000)
    }

    #[test]
    fn one_backup_per_slot_whatever_the_clock_does() {
        let slots = Slots::new(HOUR, node(0));
        assert_eq!(slots.next(at(0), None), Next::Now, "the first one at once");
        assert_eq!(slots.next(at(10), Some(at(0))), Next::Wait(LOOK, at(60)));
        assert_eq!(slots.next(at(60), Some(at(0))), Next::Now);
        assert_eq!(slots.next(at(60 * 24 * 365), Some(at(0))), Next::Now, "a year ahead: one");
        let year = at(60 * 24 * 365);
        assert!(matches!(slots.next(year, Some(year)), Next::Wait(..)));
        assert_eq!(slots.next(at(5), Some(year)), Next::Now, "a year back: one");
        assert!(matches!(slots.next(at(6), Some(at(5))), Next::Wait(..)), "and no more");
        assert!(matches!(slots.next(at(59), Some(at(0))), Next::Wait(..)), "restarted");
    }

    #[test]
    fn two_that_are_missed_or_the_first_one_are_overdue() {
        let well = Backups { every: HOUR, since: at(0), last: Some(at(0)), ..Backups::default() };
        let failed = Some((at(61), "/backup is not there: make it".to_owned()));
        let told = |backups: &Backups, minutes| overdue(backups, at(minutes)).unwrap_or_default();
        assert_eq!(told(&well, 120), "");
        let hangs = Backups { directory: "/backup".into(), ..well.clone() };
        assert!(told(&hangs, 121).contains("is /backup a mount that hangs?"));
        let once = Backups { failure: failed.clone(), ..well.clone() };
        assert_eq!(told(&once, 62), "", "it is tried again");
        let text = told(&once, 121);
        assert!(text.contains(&format!("since {}", at(0).brief())), "{text}");
        assert!(text.contains("make it") && text.contains("swarm backup ls"), "{text}");
        let first = Backups { last: None, ..well };
        assert_eq!(told(&first, 1), "", "it is being made");
        assert!(told(&first, 121).contains("ever"));
        assert!(told(&Backups { failure: failed, ..first }, 62).contains("ever"));
        assert_eq!(told(&Backups { last: Some(at(999)), ..once }, 121), "", "a clock was set back");
    }

    #[test]
    fn managers_take_turns() {
        let dues: std::collections::BTreeSet<_> = [1_u8, 7, 90]
            .iter()
            .map(|number| match Slots::new(HOUR, node(*number)).next(at(0), Some(at(0))) {
                Next::Wait(_, due) => due,
                Next::Now => panic!("it has just been made"),
            })
            .collect();
        assert_eq!(dues.len(), 3);
        assert!(dues.iter().all(|due| *due > at(0) && *due <= at(60)), "{dues:?}");
    }

    #[test]
    fn failures_are_retried_with_patience_and_within_the_slot() {
        let slots = Slots::new(HOUR, node(1));
        assert_eq!([1, 2, 3].map(|it| slots.retry(it).as_secs()), [5, 10, 20]);
        assert_eq!(slots.retry(u32::MAX), RETRY_MAX);
        assert_eq!(Slots::new(Duration::from_secs(10), node(1)).retry(9).as_secs(), 10);
    }

    #[test]
    fn the_oldest_go_and_the_newest_stays() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let files = paths(&["a.swarm", "b.swarm", "c.swarm", "c.swarm.unverified"]);
        let good = verified(files);
        assert_eq!(good, paths(&["a.swarm", "b.swarm", "c.swarm"]));
        assert_eq!(surplus(&good, 2, Path::new("c.swarm")), paths(&["a.swarm"]));
        assert_eq!(surplus(&good, 0, Path::new("c.swarm")), paths(&["a.swarm", "b.swarm"]));
        assert_eq!(surplus(&good, 1, Path::new("a.swarm")), paths(&["b.swarm", "c.swarm"]));
        assert_eq!(surplus(&good, 9, Path::new("c.swarm")), paths(&[]));
    }

    #[test]
    fn names_sort_by_time() {
        let names = [name(node(1), at(0)), name(node(1), at(1)), name(node(1), at(600))];
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(names[0], format!("swarm-{}-2027-01-15T080000Z.swarm", node(1)));
    }
}
