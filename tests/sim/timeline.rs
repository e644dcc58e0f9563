//! What goes wrong in a run, and when: drawn from the seed before anything happens, so that a part of
//! it can be left out and the rest be run again.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;
use crate::net::{Host, Way};

/// A kind of fault; a seed draws some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Split,
    OneWay,
    Partial,
    Delay,
    Loss,
    Breaks,
    Crash,
    PowerCut,
    PowerCutOfAll,
    PowerCutInCall,
    DiskError,
    DiskFull,
    SlowDisk,
    Pause,
    Clock,
    Add,
    Remove,
    Flip,
    HandOver,
}

impl Kind {
    pub(crate) const ALL: [Self; 19] = [
        Self::Split,
        Self::OneWay,
        Self::Partial,
        Self::Delay,
        Self::Loss,
        Self::Breaks,
        Self::Crash,
        Self::PowerCut,
        Self::PowerCutOfAll,
        Self::PowerCutInCall,
        Self::DiskError,
        Self::DiskFull,
        Self::SlowDisk,
        Self::Pause,
        Self::Clock,
        Self::Add,
        Self::Remove,
        Self::Flip,
        Self::HandOver,
    ];
}

/// A fault: when it begins, how long it lasts, whom it strikes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    /// The hosts concerned, as numbers to be taken modulo how many there are.
    pub(crate) who: [usize; 2],
    /// A number that a kind uses as it likes.
    pub(crate) much: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, at, lasts, who, much } = self;
        let name = format!("{kind:?}");
        write!(f, "at {at:>9.3?} for {lasts:>9.3?}  {name:<14} who {who:?} much {much}")
    }
}

/// What a seed decides before a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) managers: usize,
    pub(crate) clients: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) lasts: Duration,
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let managers = match chance.below(20) {
            0..12 => 3,
            12..18 => 5,
            _ => 7,
        };
        let lasts = Duration::from_secs(20);
        let mut kinds = Kind::ALL.to_vec();
        chance.shuffle(&mut kinds);
        kinds.truncate(usize::try_from(chance.between(3, 9)).unwrap());
        let mut faults = Vec::new();
        for _ in 0..chance.between(8, 24) {
            let Some(kind) = chance.pick(&kinds).copied() else { continue };
            let at = chance.millis(0, 19_000);
            let lasts = chance.millis(100, 4_000);
            let who = [chance.index(420), chance.index(420)];
            faults.push(Fault { kind, at, lasts, who, much: chance.next() });
        }
        faults.sort_by_key(|fault| fault.at);
        let clients = if managers == 7 { 1 } else { 2 };
        Self { managers, clients, faults, lasts }
    }
}

impl Fault {
    /// The host that is struck, of so many.
    pub(crate) const fn host(&self, hosts: usize) -> Host {
        self.who[0] % hosts
    }

    /// What it makes of the way between two of so many hosts.
    pub(crate) fn way(&self, from: Host, to: Host, hosts: usize) -> Option<Way> {
        let (a, b) = (self.who[0] % hosts, self.who[1] % hosts);
        let cut = Way { is_cut: true, ..Way::GOOD };
        let is_in = |host: Host| (self.much >> host) & 1 == 1;
        match self.kind {
            Kind::Split => (is_in(from) != is_in(to)).then_some(cut),
            Kind::OneWay if self.much.is_multiple_of(2) => (from == a).then_some(cut),
            Kind::OneWay => (to == a).then_some(cut),
            Kind::Partial => ((from, to) == (a, b) || (to, from) == (a, b)).then_some(cut),
            Kind::Delay => {
                let least = self.much % 300;
                let slow = Way { delay: (least, least + self.much % 700), ..Way::GOOD };
                (from == a || to == a || self.much.is_multiple_of(3)).then_some(slow)
            }
            Kind::Loss => Some(Way { lost: 10 + self.much % 300, ..Way::GOOD }),
            Kind::Breaks => Some(Way { broken: 10 + self.much % 300, ..Way::GOOD }),
            Kind::Crash
            | Kind::PowerCut
            | Kind::PowerCutOfAll
            | Kind::PowerCutInCall
            | Kind::DiskError
            | Kind::DiskFull
            | Kind::SlowDisk
            | Kind::Pause
            | Kind::Clock
            | Kind::Add
            | Kind::Remove
            | Kind::Flip
            | Kind::HandOver => None,
        }
    }
}
