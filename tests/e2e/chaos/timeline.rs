//! Faults as a seed draws them, and how each begins and ends on the lab.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;
use crate::lab::Lab;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A daemon is killed and comes back later.
    Kill,
    /// All managers are killed at once.
    KillAll,
    /// A daemon kills itself, or stands still, between two effects.
    Failpoint,
    /// A daemon stands still for a moment.
    Blink,
    /// Two managers do not hear each other; the third hears both.
    Partial,
    /// Frames of a host come some milliseconds late.
    Delay,
    /// The wall clock of a daemon is set.
    Clock,
    /// An engine is killed; it keeps its containers.
    EngineKill,
    /// An engine stands still.
    EngineHang,
    /// A manager's disk is full.
    Full,
    /// A daemon can open no more files.
    Files,
    /// A daemon stands still for longer than its lease.
    Freeze,
    /// Nobody hears a host, and it hears nobody.
    Isolate,
    /// A host does not hear another one.
    Oneway,
    /// A host's link is down.
    Cut,
    /// Frames of a host are lost at random.
    Loss,
}

impl Kind {
    pub(crate) const ALL: [Self; 16] = [
        Self::Kill,
        Self::KillAll,
        Self::Failpoint,
        Self::Blink,
        Self::Partial,
        Self::Delay,
        Self::Clock,
        Self::EngineKill,
        Self::EngineHang,
        Self::Full,
        Self::Files,
        Self::Freeze,
        Self::Isolate,
        Self::Oneway,
        Self::Cut,
        Self::Loss,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whether the cluster must go through it without replacing a task: no host is silent.
    pub(crate) fn is_gentle(self) -> bool {
        match self {
            Self::Kill
            | Self::Failpoint
            | Self::Blink
            | Self::Partial
            | Self::Delay
            | Self::Clock
            | Self::EngineKill
            | Self::EngineHang
            | Self::Full
            | Self::Files => true,
            Self::KillAll
            | Self::Freeze
            | Self::Isolate
            | Self::Oneway
            | Self::Cut
            | Self::Loss => false,
        }
    }

    /// Whether it is one of the switch, of which there is one at a time.
    fn is_of_the_network(self) -> bool {
        matches!(
            self,
            Self::Partial | Self::Delay | Self::Isolate | Self::Oneway | Self::Cut | Self::Loss
        )
    }

    /// How long it lasts, in milliseconds.
    fn lasts(self) -> (u64, u64) {
        match self {
            Self::Blink => (100, 1_200),
            // The agent has ten seconds to come back before its tasks are replaced.
            Self::Kill | Self::KillAll => (1, 4_000),
            Self::Freeze => (3_000, 6_000),
            Self::Failpoint => (3_000, 6_000),
            Self::Clock | Self::EngineKill | Self::EngineHang | Self::Files | Self::Full => {
                (4_000, 7_000)
            }
            Self::Partial | Self::Delay | Self::Isolate | Self::Oneway | Self::Cut | Self::Loss => {
                (2_000, 6_000)
            }
        }
    }
}

/// Points of a manager and of an agent that a busy cluster comes by every few moments.
const MANAGER_POINTS: [&str; 9] = [
    "raft.before_append",
    "raft.after_append",
    "raft.vote",
    "raft.before_barrier",
    "raft.before_floor",
    "raft.after_floor",
    "proposer.before_write",
    "proposer.after_commit",
    "dispatcher.commit",
];
const AGENT_POINTS: [&str; 6] = [
    "agent.after_ledger",
    "agent.before_create",
    "agent.after_create",
    "agent.after_start",
    "agent.adopt",
    "agent.after_remove",
];

/// One fault of a timeline.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// From the begin of the run.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    host: usize,
    other: usize,
    /// Percent, milliseconds, seconds, descriptors: what the kind needs.
    amount: i64,
    point: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, kind, at, lasts, host, .. } = self;
        let (at, lasts) = (at.as_secs_f32(), lasts.as_secs_f32());
        write!(f, "{number:>3} {at:>6.1} s  {lasts:>4.1} s  host {host}  {}", kind.name())?;
        match kind {
            Kind::Failpoint => write!(f, " {}", self.point),
            Kind::Partial => write!(f, " from host {}", self.other),
            Kind::Oneway => write!(f, " to host {}", self.other),
            Kind::Loss => write!(f, " {} %", self.amount),
            Kind::Delay => write!(f, " {} ms", self.amount),
            Kind::Clock => write!(f, " {:+} s", self.amount),
            Kind::Files => write!(f, " {}", self.amount),
            _ => Ok(()),
        }
    }
}

/// Hosts of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hosts: usize,
    pub(crate) managers: usize,
}

/// Draws faults from the begin of a span to its end, of some kinds, each about equally often; some
/// of them come first.
pub(crate) fn draw(
    dice: &mut Dice,
    shape: Shape,
    (first, kinds): (&[Kind], &[Kind]),
    (from, to): (Duration, Duration),
) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut deck: Vec<Kind> = first.to_vec();
    dice.shuffle(&mut deck);
    let mut at = from + dice.millis(500, 2_000);
    while !kinds.is_empty() {
        if deck.is_empty() {
            deck = kinds.to_vec();
            dice.shuffle(&mut deck);
        }
        let Some(kind) = deck.pop() else { break };
        let fault = one(dice, shape, kind, at);
        // Now and then the next one comes while this one lasts, on another host.
        let before = faults.last().filter(|last| last.at + last.lasts > at);
        let clash = before.is_some_and(|last| {
            let both = last.kind.is_of_the_network() && kind.is_of_the_network();
            let all = last.kind == Kind::KillAll || kind == Kind::KillAll;
            both || all || last.host == fault.host
        });
        if clash {
            at = before.map_or(at, |last| last.at + last.lasts) + Duration::from_millis(500);
            deck.push(kind);
            continue;
        }
        if at + fault.lasts > to {
            break;
        }
        let quiet = fault.lasts + dice.millis(300, 2_500);
        at += if dice.percent(30) { dice.millis(300, 1_500) } else { quiet };
        faults.push(fault);
    }
    faults
}

fn one(dice: &mut Dice, shape: Shape, kind: Kind, at: Duration) -> Fault {
    let (least, most) = kind.lasts();
    let only_managers = matches!(kind, Kind::Partial | Kind::Full | Kind::KillAll);
    let host = 1 + dice.below(if only_managers { shape.managers } else { shape.hosts });
    let others: Vec<_> = (1..=shape.managers).filter(|other| *other != host).collect();
    let amount = match kind {
        Kind::Loss => dice.pick(&[5, 15, 30]),
        Kind::Delay => dice.pick(&[5, 20, 60]),
        Kind::Clock => dice.pick(&[3_600, -3_600, 315_360_000, -315_360_000]),
        Kind::Files => dice.pick(&[10, 30, 45]),
        _ => 0,
    };
    let is_manager = host <= shape.managers;
    let point = if is_manager && dice.percent(60) {
        dice.pick(&MANAGER_POINTS)
    } else {
        dice.pick(&AGENT_POINTS)
    };
    let effect = match (dice.percent(75), point.starts_with("agent.")) {
        (true, true) => format!("abort@{}", 1 + dice.below(2)),
        (true, false) => format!("abort@{}", 1 + dice.below(12)),
        (false, _) => format!("pause:{}ms", dice.pick(&[50, 300, 900])),
    };
    Fault {
        number: 0,
        kind,
        at,
        lasts: dice.millis(least, most),
        host,
        other: dice.pick(&others),
        amount,
        point: format!("{point}={effect}"),
    }
}

impl Fault {
    /// Begins it.
    pub(crate) fn begin(&self, lab: &Lab, shape: Shape) {
        let (host, other) = (self.host.to_string(), self.other.to_string());
        let (host, other, amount) = (&*host, &*other, &*self.amount.to_string());
        match self.kind {
            Kind::Kill => lab.act(&["kill", host, "daemon"]),
            Kind::KillAll => {
                for manager in 1..=shape.managers {
                    lab.act(&["kill", &manager.to_string(), "daemon"]);
                }
            }
            Kind::Failpoint => lab.act(&["failpoint", host, &self.point]),
            Kind::Blink | Kind::Freeze => lab.act(&["pause", host]),
            Kind::Partial => lab.act(&["partition", host, other]),
            Kind::Delay => lab.act(&["delay", host, amount, "5"]),
            Kind::Clock => lab.act(&["clock", host, amount]),
            Kind::EngineKill => lab.act(&["kill", host, "dockerd"]),
            Kind::EngineHang => lab.act(&["pause", host, "dockerd"]),
            Kind::Full => lab.act(&["fill", host]),
            Kind::Files => lab.act(&["files", host, amount]),
            Kind::Isolate => lab.act(&["isolate", host]),
            Kind::Oneway => lab.act(&["oneway", host, other]),
            Kind::Cut => lab.act(&["cut", host]),
            Kind::Loss => lab.act(&["loss", host, amount]),
        }
    }

    /// Ends it.
    pub(crate) fn end(&self, lab: &Lab, shape: Shape) {
        let host = &*self.host.to_string();
        match self.kind {
            Kind::Kill => lab.act(&["start", host, "daemon"]),
            Kind::KillAll => {
                for manager in 1..=shape.managers {
                    lab.act(&["start", &manager.to_string(), "daemon"]);
                }
            }
            // What has not struck until now must not do so later.
            Kind::Failpoint => {
                lab.act(&["kill", host, "daemon"]);
                lab.act(&["start", host, "daemon"]);
            }
            Kind::Blink | Kind::Freeze => lab.act(&["resume", host]),
            Kind::Clock => lab.act(&["clock", host, "0"]),
            Kind::EngineKill => lab.act(&["start", host, "dockerd"]),
            Kind::EngineHang => lab.act(&["resume", host, "dockerd"]),
            Kind::Full => lab.act(&["empty", host]),
            Kind::Files => lab.act(&["files", host]),
            Kind::Cut => lab.act(&["mend", host]),
            Kind::Partial | Kind::Delay | Kind::Isolate | Kind::Oneway | Kind::Loss => {
                lab.act(&["heal"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_and_every_kind() {
        let shape = Shape { hosts: 4, managers: 3 };
        let span = (Duration::ZERO, Duration::from_secs(300));
        let draw = |seed| draw(&mut Dice::new(seed, 0), shape, (&[], &Kind::ALL), span);
        let text = |faults: &[Fault]| faults.iter().map(|it| format!("{it}\n")).collect::<String>();
        assert_eq!(text(&draw(7)), text(&draw(7)));
        assert_ne!(text(&draw(7)), text(&draw(8)));
        for kind in Kind::ALL {
            assert!(draw(7).iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        let faults = draw(7);
        for pair in faults.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            let apart = first.at + first.lasts <= second.at || first.host != second.host;
            assert!(apart, "one host has one fault at a time: {first}, {second}");
        }
        assert!(faults.iter().all(|it| it.at + it.lasts <= span.1));
    }
}
