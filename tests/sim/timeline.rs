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
    EngineHangs,
    EngineSlow,
    EngineErrors,
    AnswersLost,
    EventsLost,
    EngineDown,
    ContainersEnd,
    Exit,
    OutOfMemory,
    Unhealthy,
    NetworkFails,
    NodeGoes,
}

impl Kind {
    /// Those of the profile `raft`.
    pub(crate) const RAFT: [Self; 19] = [
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

    /// Those of the profiles `cluster` and `big`.
    pub(crate) const CLUSTER: [Self; 25] = [
        Self::Split,
        Self::OneWay,
        Self::Partial,
        Self::Delay,
        Self::Loss,
        Self::Breaks,
        Self::Crash,
        Self::PowerCut,
        Self::PowerCutOfAll,
        Self::DiskError,
        Self::SlowDisk,
        Self::Pause,
        Self::HandOver,
        Self::EngineHangs,
        Self::EngineSlow,
        Self::EngineErrors,
        Self::AnswersLost,
        Self::EventsLost,
        Self::EngineDown,
        Self::ContainersEnd,
        Self::Exit,
        Self::OutOfMemory,
        Self::Unhealthy,
        Self::NetworkFails,
        Self::NodeGoes,
    ];

    /// What strikes a machine and leaves the others alone, and what should disturb nobody.
    const GENTLE: [Self; 6] = [
        Self::Crash,
        Self::PowerCut,
        Self::HandOver,
        Self::Exit,
        Self::EventsLost,
        Self::OutOfMemory,
    ];
}

/// What is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Managers alone.
    #[default]
    Raft,
    /// Managers and agents with their engines and networks.
    Cluster,
    /// As many nodes and tasks as a core can step.
    Big,
}

impl Profile {
    /// The kinds of fault there are.
    pub(crate) const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Raft => &Kind::RAFT,
            Self::Cluster => &Kind::CLUSTER,
            Self::Big => &[Kind::HandOver, Kind::Crash, Kind::PowerCut, Kind::Split],
        }
    }
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
    pub(crate) profile: Profile,
    pub(crate) managers: usize,
    /// Nodes that are no managers.
    pub(crate) workers: usize,
    /// Length of the prefix of the tasks' network: a small one has its addresses given again soon.
    pub(crate) prefix: u8,
    pub(crate) clients: usize,
    pub(crate) faults: Vec<Fault>,
    pub(crate) lasts: Duration,
}

impl Plan {
    pub(crate) fn draw(profile: Profile, chance: &mut Chance) -> Self {
        match profile {
            Profile::Raft => Self::raft(chance),
            Profile::Cluster => Self::cluster(chance),
            Profile::Big => Self::big(chance),
        }
    }

    fn raft(chance: &mut Chance) -> Self {
        let managers = match chance.below(20) {
            0..12 => 3,
            12..18 => 5,
            _ => 7,
        };
        let lasts = Duration::from_secs(20);
        let mut kinds = Kind::RAFT.to_vec();
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
        Self { profile: Profile::Raft, managers, workers: 0, prefix: 24, clients, faults, lasts }
    }

    fn cluster(chance: &mut Chance) -> Self {
        let managers = match chance.below(20) {
            0..14 => 3,
            14..19 => 5,
            _ => 7,
        };
        let workers = usize::try_from(chance.between(3, 12)).unwrap();
        let lasts = Duration::from_secs(chance.between(25, 45));
        let prefix = if chance.permille(250) { 26 } else { 24 };
        // One in three runs is quiet enough to hold the strict rules against it.
        let mut kinds = if chance.permille(330) {
            Kind::GENTLE.to_vec()
        } else {
            let mut kinds = Kind::CLUSTER.to_vec();
            chance.shuffle(&mut kinds);
            kinds.truncate(usize::try_from(chance.between(3, 9)).unwrap());
            kinds
        };
        chance.shuffle(&mut kinds);
        let mut faults = Vec::new();
        for _ in 0..chance.between(6, 20) {
            let Some(kind) = chance.pick(&kinds).copied() else { continue };
            let at = chance.millis(0, u64::try_from(lasts.as_millis()).unwrap() - 1_000);
            let lasts = chance.millis(200, 8_000);
            let who = [chance.index(5_040), chance.index(5_040)];
            faults.push(Fault { kind, at, lasts, who, much: chance.next() });
        }
        faults.sort_by_key(|fault| fault.at);
        let profile = Profile::Cluster;
        Self { profile, managers, workers, prefix, clients: 1, faults, lasts }
    }

    fn big(chance: &mut Chance) -> Self {
        let lasts = Duration::from_secs(60);
        let mut faults = Vec::new();
        for (kind, at) in [(Kind::Crash, 10), (Kind::HandOver, 25), (Kind::Split, 35)] {
            let who = [chance.index(3), chance.index(5_040)];
            let (at, lasts) = (Duration::from_secs(at), Duration::from_secs(5));
            faults.push(Fault { kind, at, lasts, who, much: chance.next() });
        }
        let profile = Profile::Big;
        Self { profile, managers: 3, workers: 200, prefix: 16, clients: 1, faults, lasts }
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
        let is_in = |host: Host| (self.much >> (host % 64)) & 1 == 1;
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
            _ => None,
        }
    }
}
