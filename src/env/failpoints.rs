//! Places where a test lets a real process die or stand still.
//!
//! A point is a name in the code at which the order of two effects matters: an entry that is written
//! and not yet durable, a container that is there and not yet reported. `scripts/chaos.sh` and the
//! drills of `tests/e2e` arm some of them by a variable in the environment of a daemon:
//!
//! ```text
//!   agent.after_create=abort@3;raft.before_barrier=pause:2s
//!   └ point            │    │                      └ stands still, every time
//!                      │    └ the third time; without a number an abort strikes the first time
//!                      └ the process kills itself on the spot
//! ```
//!
//! A daemon without the variable has no table of points: each place is one look at an `Option`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Clock;

/// A pause that is longer would look like a test that hangs.
const PAUSE_MAX: Duration = Duration::from_secs(60);

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal),+ $(,)?) => {
        /// A place in the code. What is meant by its name stands in docs/TESTING.md, too.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $point),+
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name),+
                }
            }
        }
    };
}

points! {
    /// Entries came; nothing is written.
    RaftBeforeAppend = "raft.before_append",
    /// Entries are written, and not durable.
    RaftAfterAppend = "raft.after_append",
    /// A vote is written, and not durable.
    RaftVote = "raft.vote",
    /// Writes of any kind are done; the device was not asked to keep them.
    RaftBeforeBarrier = "raft.before_barrier",
    /// All is durable but the floor that says so.
    RaftBeforeFloor = "raft.before_floor",
    /// The floor says so; nobody was told.
    RaftAfterFloor = "raft.after_floor",
    /// The floor is lowered; the log is not cut.
    RaftTruncate = "raft.truncate",
    /// The purge point is durable; the entries are still there.
    RaftPurge = "raft.purge",
    /// A snapshot is encoded, and not written.
    RaftSnapshot = "raft.snapshot",
    /// A snapshot that was sent is written; the state is still the old one.
    RaftInstall = "raft.install",
    /// A leader has formed an entry; openraft does not know it.
    ProposerBefore = "proposer.before_write",
    /// An entry is committed and applied; who proposed it was not told.
    ProposerAfter = "proposer.after_commit",
    /// A manager has reports of agents that are not proposed.
    DispatcherCommit = "dispatcher.commit",
    /// A node was let in and written down; its certificate has not left.
    CaIssue = "ca.issue",
    /// Assignments are in the ledger; nobody acts on them yet.
    AgentAfterLedger = "agent.after_ledger",
    /// The files of a task are written; its container is not made.
    AgentBeforeCreate = "agent.before_create",
    /// A container is made, and not reported.
    AgentAfterCreate = "agent.after_create",
    /// A container was started, and is not reported.
    AgentAfterStart = "agent.after_start",
    /// A container that an earlier life of the agent left was found, and not adopted.
    AgentAdopt = "agent.adopt",
    /// A container is removed; its files are not.
    AgentAfterRemove = "agent.after_remove",
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Abort,
    Pause(Duration),
}

/// Effects at points, counted.
#[derive(Debug)]
pub struct Failpoints {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    point: Point,
    effect: Effect,
    /// At which hit; every one if absent.
    nth: Option<u32>,
    hits: AtomicU32,
}

/// A text that arms no failpoints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{item:?} is not a failpoint: {reason}")]
pub struct Unreadable {
    item: String,
    reason: String,
}

impl Failpoints {
    /// Reads `POINT=EFFECT[@N]` separated by semicolons.
    ///
    /// # Errors
    /// In words, for everything else.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
        let rules = items
            .map(|item| {
                parse_rule(item).map_err(|reason| Unreadable { item: item.to_owned(), reason })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if rules.is_empty() {
            let reason = "nothing is armed; leave the variable out instead".to_owned();
            return Err(Unreadable { item: text.to_owned(), reason });
        }
        Ok(Self { rules })
    }

    /// What is to be done at a point, this time.
    fn strike(&self, point: Point) -> Option<Effect> {
        let mut struck = None;
        for rule in self.rules.iter().filter(|rule| rule.point == point) {
            let hit = rule.hits.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if rule.nth.is_none_or(|nth| nth == hit) {
                struck = struck.or(Some(rule.effect));
            }
        }
        if let Some(effect) = struck {
            tracing::warn!(point = point.name(), ?effect, "a failpoint strikes");
        }
        struck
    }

    /// A point in code that blocks.
    pub(super) fn hit(&self, point: Point) {
        match self.strike(point) {
            Some(Effect::Abort) => die(),
            Some(Effect::Pause(pause)) => std::thread::sleep(pause),
            None => {}
        }
    }

    /// A point in code that awaits.
    pub(super) async fn pass(&self, point: Point, clock: &dyn Clock) {
        match self.strike(point) {
            Some(Effect::Abort) => die(),
            Some(Effect::Pause(pause)) => clock.sleep(pause).await,
            None => {}
        }
    }
}

impl fmt::Display for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, rule) in self.rules.iter().enumerate() {
            let separator = if number == 0 { "" } else { ";" };
            write!(f, "{separator}{}=", rule.point.name())?;
            match rule.effect {
                Effect::Abort => f.write_str("abort")?,
                Effect::Pause(pause) => write!(f, "pause:{}ms", pause.as_millis())?,
            }
            rule.nth.map_or(Ok(()), |nth| write!(f, "@{nth}"))?;
        }
        Ok(())
    }
}

fn parse_rule(item: &str) -> Result<Rule, String> {
    let (name, effect) = item.split_once('=').ok_or("write POINT=EFFECT")?;
    let point = Point::ALL.iter().copied().find(|point| point.name() == name).ok_or_else(|| {
        let known: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        format!("there is no point {name:?}; there are {}", known.join(", "))
    })?;
    let (effect, nth) = match effect.split_once('@') {
        None => (effect, None),
        Some((effect, nth)) => {
            let nth: u32 = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(|| {
                format!("{nth:?} does not say at which hit; write a number from 1 on")
            })?;
            (effect, Some(nth))
        }
    };
    let (effect, nth) = match effect.split_once(':') {
        None if effect == "abort" => (Effect::Abort, nth.or(Some(1))),
        Some(("pause", text)) => (Effect::Pause(parse_pause(text)?), nth),
        Some(_) | None => {
            return Err(format!("{effect:?} is no effect; write abort or pause:TIME (200ms, 2s)"));
        }
    };
    Ok(Rule { point, effect, nth, hits: AtomicU32::new(0) })
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write it like 200ms or 2s");
    let pause = match text.strip_suffix("ms") {
        Some(digits) => Duration::from_millis(digits.parse().map_err(|_| wrong())?),
        None => {
            let digits = text.strip_suffix('s').ok_or_else(wrong)?;
            Duration::from_secs(digits.parse().map_err(|_| wrong())?)
        }
    };
    if pause > PAUSE_MAX {
        return Err(format!("{text} is too long: {} s is the most", PAUSE_MAX.as_secs()));
    }
    Ok(pause)
}

/// Ends the process as `kill -9` would: nothing is flushed, nothing is said to anybody.
fn die() -> ! {
    let me = nix::unistd::Pid::this();
    if nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGKILL).is_ok() {
        // The signal is on its way; no line of this thread's code may run until it is there.
        std::thread::sleep(PAUSE_MAX);
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Failpoints::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_point_can_be_armed_by_its_name() {
        for point in Point::ALL {
            let text = format!("{}=abort@2", point.name());
            let armed = Failpoints::parse(&text).unwrap();
            assert_eq!(armed.to_string(), text);
            assert_eq!(armed.strike(*point), None);
            assert_eq!(armed.strike(*point), Some(Effect::Abort));
            assert_eq!(armed.strike(*point), None, "once");
        }
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len(), "no name stands for two");
    }

    #[test]
    fn an_abort_strikes_once_and_a_pause_every_time() {
        let armed = Failpoints::parse("raft.vote=abort; agent.adopt=pause:200ms").unwrap();
        assert_eq!(armed.to_string(), "raft.vote=abort@1;agent.adopt=pause:200ms");
        let pause = Some(Effect::Pause(Duration::from_millis(200)));
        assert_eq!(armed.strike(Point::AgentAdopt), pause);
        assert_eq!(armed.strike(Point::AgentAdopt), pause);
        assert_eq!(armed.strike(Point::RaftPurge), None);
        assert_eq!(armed.strike(Point::RaftVote), Some(Effect::Abort));
    }

    #[test]
    fn garbage_is_refused_in_words() {
        assert!(refused("").contains("nothing is armed"));
        assert!(refused("raft.vote").contains("write POINT=EFFECT"));
        assert!(refused("raft.veto=abort").contains("there are raft.before_append, "));
        assert!(refused("raft.vote=explode").contains("write abort or pause:TIME"));
        assert!(refused("raft.vote=abort@0").contains("a number from 1 on"));
        assert!(refused("raft.vote=pause:2").contains("like 200ms or 2s"));
        assert!(refused("raft.vote=pause:2h").contains("like 200ms or 2s"));
        assert!(refused("raft.vote=pause:61s").contains("60 s is the most"));
        assert!(refused("raft.vote=abort;x").starts_with("\"x\" is not a failpoint"));
    }
}
