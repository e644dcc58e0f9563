//! Whether this member is fit to lead. Pure: what was observed goes in, what follows comes out.
//!
//! A leader whose disk stands still, that applies nothing, cannot plan or has no room answers its
//! heartbeats and holds the whole swarm up. It hands leadership over, and stands for election again
//! only when it has been well for a while, or when nobody else leads: a poor leader is better than none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::env::{Canary, Faults, Instant};

/// A write to the log that takes longer: disks that are only slow take a second.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Entries that are committed and not applied for longer.
const APPLY_MAX: Duration = Duration::from_secs(30);
/// A planning pass that takes longer, or plans that are refused again and again for longer.
const PLAN_MAX: Duration = Duration::from_secs(30);
/// Room may be made again meanwhile.
const ROOM_MAX: Duration = Duration::from_secs(5);
/// Who was not well for a moment counts as not well for so long.
const CONVALESCENCE: Duration = Duration::from_secs(20);
/// Without a leader for so long, who is not well stands, too.
const LAST_RESORT: Duration = Duration::from_secs(15);
/// Who was elected although not well keeps leading for so long: the others may be no better.
const KEPT: Duration = Duration::from_secs(120);
/// Between two attempts to hand leadership over.
const RESIGN_AGAIN: Duration = Duration::from_secs(5);

/// Why a member is not fit to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// The disk of the log does not answer.
    Disk,
    /// What is committed is not applied.
    Apply,
    /// Planning does not end, or its plans are always refused.
    Plan,
    /// The disk is full.
    Room,
}

impl Ailment {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "the disk of the log does not answer",
            Self::Apply => "committed entries are not applied",
            Self::Plan => "planning does not come to an end",
            Self::Room => "the disk of the log is full",
        }
    }
}

/// Who leads, as this member sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Seat {
    /// This member does.
    Leads,
    /// Another one does.
    #[default]
    Follows,
    /// Nobody does.
    Orphan,
}

/// What is observed at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) now: Instant,
    /// Who leads.
    pub(super) seat: Seat,
    /// A voter that could lead instead is heard from.
    pub(super) has_heir: bool,
    /// For how long a write has been on its way.
    pub(super) writing: Duration,
    /// For how long nothing was applied although something is committed.
    pub(super) behind: Duration,
    /// For how long a pass, or a row of refused plans, has lasted.
    pub(super) planning: Duration,
    pub(super) lacks_room: bool,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// It may become a candidate.
    pub(super) may_stand: bool,
    /// It leads, should not, and somebody else can.
    pub(super) resigns: bool,
    pub(super) ailments: BTreeSet<Ailment>,
}

/// What must be remembered between two moments.
#[derive(Debug, Default)]
pub(super) struct Fitness {
    faults: Faults,
    /// When each ailment was last seen.
    seen: BTreeMap<Ailment, Instant>,
    lacking_since: Option<Instant>,
    leaderless_since: Option<Instant>,
    led: bool,
    /// It was elected at this time, not being well.
    reprieved_at: Option<Instant>,
    resigned_at: Option<Instant>,
}

impl Fitness {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Judges a moment; moments come in order.
    pub(super) fn judge(&mut self, facts: &Facts) -> Judgement {
        let now = facts.now;
        self.look(facts);
        let ailments: BTreeSet<Ailment> = self.seen.keys().copied().collect();
        let is_ill = !ailments.is_empty();
        let (leads, is_orphan) = (facts.seat == Seat::Leads, facts.seat == Seat::Orphan);
        if !is_orphan {
            self.leaderless_since = None;
        }
        let leaderless = is_orphan.then(|| *self.leaderless_since.get_or_insert(now));
        let is_needed = leaderless.is_some_and(|since| now.since(since) >= LAST_RESORT);
        if leads && !self.led {
            self.reprieved_at = is_ill.then_some(now);
        }
        self.led = leads;
        let is_kept = self.reprieved_at.is_some_and(|at| now.since(at) < KEPT);
        let is_early = self.resigned_at.is_some_and(|at| now.since(at) < RESIGN_AGAIN);
        let is_blind = self.faults.has(Canary::UnfitLeaderStays);
        let resigns = is_ill && leads && facts.has_heir && !is_kept && !is_early && !is_blind;
        if resigns {
            self.resigned_at = Some(now);
        }
        Judgement { may_stand: !is_ill || is_needed || is_blind, resigns, ailments }
    }

    fn look(&mut self, facts: &Facts) {
        let now = facts.now;
        if !facts.lacks_room {
            self.lacking_since = None;
        }
        let lacking = facts.lacks_room.then(|| *self.lacking_since.get_or_insert(now));
        for (ailment, is_there) in [
            (Ailment::Disk, facts.writing > WRITE_MAX),
            (Ailment::Apply, facts.behind > APPLY_MAX),
            (Ailment::Plan, facts.planning > PLAN_MAX),
            (Ailment::Room, lacking.is_some_and(|since| now.since(since) > ROOM_MAX)),
        ] {
            if is_there {
                self.seen.insert(ailment, now);
            }
        }
        self.seen.retain(|_, at| now.since(*at) < CONVALESCENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(Duration::from_secs(seconds))
    }

    fn leading(now: u64) -> Facts {
        Facts { now: at(now), seat: Seat::Leads, has_heir: true, ..Facts::default() }
    }

    fn following(now: u64) -> Facts {
        Facts { seat: Seat::Follows, ..leading(now) }
    }

    const STALL: Duration = Duration::from_secs(6);

    #[test]
    fn a_leader_whose_disk_stands_still_resigns_and_waits_until_it_is_well() {
        let mut fitness = Fitness::default();
        assert!(!fitness.judge(&leading(1)).resigns);
        let ill = fitness.judge(&Facts { writing: STALL, ..leading(7) });
        assert!(ill.resigns && !ill.may_stand);
        assert_eq!(ill.ailments, BTreeSet::from([Ailment::Disk]));
        assert!(!fitness.judge(&Facts { writing: STALL, ..leading(8) }).resigns, "asked just now");
        assert!(fitness.judge(&Facts { writing: STALL, ..leading(12) }).resigns, "nobody came");
        assert!(!fitness.judge(&following(20)).may_stand, "it was not well a moment ago");
        assert!(fitness.judge(&following(32)).may_stand);
    }

    #[test]
    fn each_ailment_has_its_patience() {
        let ill = |facts: &dyn Fn(u64) -> Facts, last| {
            let mut fitness = Fitness::default();
            (0..=last).map(|now| fitness.judge(&facts(now))).any(|judged| judged.resigns)
        };
        let behind = |now| Facts { behind: Duration::from_secs(now), ..leading(now) };
        assert!(!ill(&behind, 30) && ill(&behind, 31));
        let planning = |now| Facts { planning: Duration::from_secs(now), ..leading(now) };
        assert!(!ill(&planning, 30) && ill(&planning, 31));
        let full = |now| Facts { lacks_room: true, ..leading(now) };
        assert!(!ill(&full, 5) && ill(&full, 6));
        let room_comes_and_goes = |now| Facts { lacks_room: now % 3 != 0, ..leading(now) };
        assert!(!ill(&room_comes_and_goes, 60));
    }

    #[test]
    fn nobody_resigns_where_nobody_could_follow() {
        let mut fitness = Fitness::default();
        let alone = Facts { writing: STALL, has_heir: false, ..leading(7) };
        assert!(!fitness.judge(&alone).resigns);
    }

    #[test]
    fn a_poor_leader_is_better_than_none_and_is_not_sent_away_at_once() {
        let mut fitness = Fitness::default();
        let ill = |facts: Facts| Facts { writing: STALL, ..facts };
        let orphan = |now| ill(Facts { seat: Seat::Orphan, ..leading(now) });
        assert!(!fitness.judge(&orphan(10)).may_stand);
        assert!(!fitness.judge(&orphan(24)).may_stand);
        assert!(fitness.judge(&orphan(25)).may_stand, "nobody else came");
        for now in 26..140 {
            assert!(!fitness.judge(&ill(leading(now))).resigns, "at {now} s");
        }
        assert!(fitness.judge(&ill(leading(146))).resigns);
    }
}
