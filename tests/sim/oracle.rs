//! What must hold, checked while a simulation runs and when it has ended. The numbers are those of
//! the invariants in docs/TESTING.md.
//!
//! Every object's every version is known by its log index, from the events of all members together;
//! so the order of all operations is known, and linearizability is two checks: an operation found
//! what the log says at its place, and its place is after that of all operations that had completed
//! before it began.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use swarm::domain::{Config, ConfigId, RaftId};
use swarm::raft::{Leadership, Progress};
use swarm::state::{Event, EventKind, Object, ObjectKey, View};
use swarm::wire;

use crate::chance::Chance;
use crate::net::Host;

/// The label that holds a register's value.
pub(crate) const VALUE: &str = "value";

/// What a completed operation says about the log.
#[derive(Clone, Debug)]
enum Claim {
    /// The register was written at an index, on top of a version of it.
    Wrote { register: ConfigId, value: u64, over: Option<u64> },
    /// The register had this value at an index.
    Read { register: ConfigId, value: Option<u64> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    value: u64,
    /// The version before it, where somebody saw it come about.
    over: Option<u64>,
}

/// Versions of registers in a batch of events, in their order.
type Told = BTreeMap<(ConfigId, u64), Vec<Version>>;

/// How often things came about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written: u64,
    pub(crate) swapped: u64,
    pub(crate) stale: u64,
    pub(crate) read: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) retried: u64,
    pub(crate) leaders: u64,
    pub(crate) events: u64,
    pub(crate) snapshots: u64,
    /// Of clusters: what users did and how it was answered, containers that began and were stopped,
    /// nodes that were called down, and how often the strict rules applied.
    pub(crate) answers: BTreeMap<(&'static str, u16), u64>,
    pub(crate) started: u64,
    pub(crate) stopped: u64,
    pub(crate) lost_nodes: u64,
    pub(crate) strict: u64,
    /// News that users were told, slots that updates took out of service, and changes of roles.
    pub(crate) told: u64,
    pub(crate) turns: u64,
    pub(crate) roles: u64,
}

/// What is known of the whole cluster.
#[derive(Default)]
pub(crate) struct Oracle {
    violation: Option<String>,
    /// I1: where a leader was. Raft's leaders are ordered by term and id.
    leaders: BTreeMap<(u64, RaftId), Host>,
    /// I6: the highest vote that a member gave away.
    votes: BTreeMap<RaftId, (u64, u64)>,
    /// I2, I4: every version of every object.
    versions: BTreeMap<(u64, ObjectKey), u64>,
    /// I9: indexes with events.
    bearing: BTreeSet<u64>,
    /// I9: all changes of configs as users are told of them, and members that may have left some out.
    configs: BTreeMap<u64, Vec<(&'static str, String)>>,
    gaps: BTreeSet<Host>,
    /// I4: digests of whole states.
    digests: BTreeMap<u64, (Host, View, u64)>,
    /// I10: ids that were given.
    ids: BTreeSet<u64>,
    /// I5: what was acknowledged, by number of the write.
    acknowledged: BTreeMap<u64, u64>,
    created: BTreeMap<u64, u64>,
    not_written: BTreeSet<u64>,
    /// The versions of each register by index; several where one entry wrote it several times.
    registers: BTreeMap<ConfigId, BTreeMap<u64, Vec<Version>>>,
    claims: Vec<(u64, Claim)>,
    /// The highest index that a completed operation has seen.
    seen: u64,
    seen_of: BTreeMap<ConfigId, u64>,
    next: u64,
    pub(crate) counts: Counts,
    trace: u64,
}

/// What was known when an operation began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began {
    /// The unique number of the operation.
    pub(crate) number: u64,
    seen: u64,
    seen_of: u64,
}

/// The id of a unique object, or (small numbers) of a register.
pub(crate) fn config_id(number: u64) -> ConfigId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    ConfigId::from_bytes(id)
}

/// Numbers below this are registers.
pub(crate) const REGISTERS: u64 = 5;

fn number(config: &Config) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&config.id.to_bytes()[8..]);
    u64::from_be_bytes(number)
}

/// The value of a register.
pub(crate) fn value(config: &Config) -> Option<u64> {
    config.spec.labels.get(VALUE)?.parse().ok()
}

fn hash_of(object: &Object) -> u64 {
    let mut hasher = DefaultHasher::new();
    wire::object::encode_object(object).hash(&mut hasher);
    hasher.finish()
}

fn digest(view: &View) -> u64 {
    let mut hasher = DefaultHasher::new();
    view.position.hash(&mut hasher);
    view.clock.hash(&mut hasher);
    for object in view.objects() {
        wire::object::encode_object(&object).hash(&mut hasher);
    }
    hasher.finish()
}

/// What users are told of a batch of events, as far as it concerns configs.
fn changes_of_configs(events: &[Event]) -> Vec<(&'static str, String)> {
    let change = |event: &Event| {
        let Object::Config(config) = &event.object else { return None };
        let action = match event.kind {
            EventKind::Created => "create",
            EventKind::Updated => "update",
            EventKind::Removed => "remove",
        };
        Some((action, config.id.to_string()))
    };
    events.iter().filter_map(change).collect()
}

/// In what two states differ.
fn difference(one: &View, other: &View) -> String {
    let missing = |here: &View, there: &View| {
        let gone = here.objects().find(|it| there.object(&it.key()).as_ref() != Some(it));
        gone.map(|it| format!("{it:?}"))
    };
    format!(
        "{:?} and {:?}, {:?} and {:?}, {:?} and {:?}",
        one.position,
        other.position,
        one.clock,
        other.clock,
        missing(one, other),
        missing(other, one)
    )
}

impl Oracle {
    pub(crate) fn new() -> Self {
        Self { next: 1_000, ..Self::default() }
    }

    /// What went wrong first.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn hold(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what());
        }
    }

    /// A number that stands for everything that was observed, in its order.
    pub(crate) const fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, values: &[u64]) {
        for value in values {
            self.trace = Chance::new(self.trace ^ value).next();
        }
    }

    /// I10: an id of a new member.
    pub(crate) fn raft_id(&mut self, id: u64) {
        let is_new = self.ids.insert(id);
        self.hold(is_new, || format!("I10: raft id {id} was given twice"));
    }

    /// I6: a member granted its vote.
    pub(crate) fn vote(&mut self, voter: RaftId, term: u64, candidate: u64) {
        self.note(&[1, voter.0, term, candidate]);
        let vote = (term, candidate);
        let highest = *self.votes.entry(voter).or_insert(vote);
        self.hold(highest <= vote, || {
            format!("I6: member {voter} voted for {vote:?} after it had voted for {highest:?}")
        });
        self.votes.insert(voter, vote.max(highest));
    }

    /// I1, I3: a host says that it leads.
    pub(crate) fn leads(&mut self, host: Host, leadership: Leadership, view: &View) {
        let (term, Some((id, _))) = (leadership.term, leadership.leader) else { return };
        self.note(&[2, host as u64, term, id.0]);
        let leader = (term, id);
        let is_new = !self.leaders.contains_key(&leader);
        let is_newest = self.leaders.keys().next_back().is_none_or(|newest| *newest < leader);
        let first = *self.leaders.entry(leader).or_insert(host);
        self.hold(first == host, || {
            format!("I1: hosts {first} and {host} both lead as {leader:?}")
        });
        if is_new {
            self.counts.leaders += 1;
        }
        if is_newest {
            let last = self.acknowledged.values().copied().max().unwrap_or_default();
            let index = view.position.index;
            self.hold(index >= last, || {
                format!(
                    "I3: host {host} leads in term {term} from {index}; {last} was acknowledged"
                )
            });
        }
    }

    /// I7: how far a member has come.
    pub(crate) fn progress(&mut self, host: Host, at: Progress) {
        let ordered =
            at.purged <= at.snapshot && at.snapshot <= at.applied && at.applied <= at.last;
        self.hold(ordered, || format!("I7: the progress of host {host} is out of order: {at:?}"));
    }

    /// I9: a member told of an index after another one; `at` is what it had come to a little later.
    pub(crate) fn skipped(&mut self, host: Host, before: u64, index: u64, at: Progress) {
        if at.snapshot >= index {
            self.counts.snapshots += 1;
            return;
        }
        // What a snapshot brought was told as far as it lasted; the last of it may be before its end.
        let from = before.max(at.snapshot) + 1;
        let skipped = self.bearing.range(from..index.max(from)).next().copied();
        if let Some(skipped) = skipped {
            self.violate(format!("I9: host {host} told of {before}, then {index}, not {skipped}"));
        }
    }

    /// I2, I4: an entry's events, as a member tells them. The index, and whether there was one with
    /// events between it and the one before.
    pub(crate) fn events(
        &mut self,
        host: Host,
        before: Option<u64>,
        events: &[Event],
    ) -> (u64, bool) {
        let index = events.iter().map(|event| event.revision.0).max().unwrap_or_default();
        self.counts.events += 1;
        let between = before.map(|before| before + 1..index.max(before + 1));
        let has_gap = between.is_some_and(|between| self.bearing.range(between).next().is_some());
        // Of several changes of an object in one entry, the last is what it is at that index.
        let last: BTreeMap<_, _> =
            events.iter().map(|event| ((event.revision, event.object.key()), event)).collect();
        for event in last.into_values() {
            let (revision, key) = (event.revision.0, event.object.key());
            let hash = hash_of(&event.object);
            self.note(&[3, host as u64, revision, hash]);
            self.bearing.insert(revision);
            let first = *self.versions.entry((revision, key)).or_insert(hash);
            self.hold(first == hash, || {
                format!("I4: host {host} has another {key:?} at {revision} than others: {event:?}")
            });
        }
        if has_gap {
            self.gaps.insert(host);
        }
        self.configs.entry(index).or_insert_with(|| changes_of_configs(events));
        let mut told = Told::new();
        for event in events {
            if let Object::Config(config) = &event.object {
                self.config(config, event, &mut told);
            }
        }
        for ((register, index), versions) in told {
            let known = self.registers.entry(register).or_default().entry(index).or_default();
            if known.len() < versions.len() || known.iter().all(|it| it.over.is_none()) {
                *known = versions;
            }
        }
        (index, has_gap)
    }

    /// All changes of configs in their order: the index, what happened, to which.
    pub(crate) fn configs(&self) -> Vec<(u64, &str, &str)> {
        let all = self.configs.iter().flat_map(|(index, changes)| {
            changes.iter().map(|(action, id)| (*index, *action, id.as_str()))
        });
        all.collect()
    }

    /// Whether a member may have left something out, because a snapshot took the place of entries.
    pub(crate) fn has_gap(&self, host: Host) -> bool {
        self.gaps.contains(&host)
    }

    /// I12: what a member has when it starts, made of its snapshot and its log.
    pub(crate) fn restored(&mut self, host: Host, view: &View) {
        for object in view.objects() {
            let Some(revision) = object.meta().map(|meta| meta.revision.0) else { continue };
            let hash = hash_of(&object);
            let first = *self.versions.entry((revision, object.key())).or_insert(hash);
            self.hold(first == hash, || {
                format!("I12: host {host} restored another {object:?} than there was")
            });
            if let Object::Config(config) = &object
                && let (true, Some(value)) = (number(config) < REGISTERS, value(config))
            {
                let versions = self.registers.entry(config.id).or_default();
                versions.entry(revision).or_insert_with(|| vec![Version { value, over: None }]);
            }
        }
    }

    fn config(&mut self, config: &Config, event: &Event, told: &mut Told) {
        let (number, index) = (number(config), event.revision.0);
        if number < REGISTERS {
            let Some(value) = value(config) else { return };
            let over = match (&event.before, event.kind) {
                (Some(Object::Config(before)), EventKind::Updated)
                    if before.meta.revision < config.meta.revision =>
                {
                    Some(before.meta.spec_revision.0)
                }
                _ => None,
            };
            told.entry((config.id, index)).or_default().push(Version { value, over });
            let is_refused = self.not_written.contains(&value);
            self.hold(!is_refused, || format!("I8: write {value} was refused and is at {index}"));
            return;
        }
        let first = *self.created.entry(number).or_insert(index);
        self.hold(first == index, || format!("I11: {number} was created at {first} and {index}"));
        let is_refused = self.not_written.contains(&number);
        self.hold(!is_refused, || format!("I8: write {number} was refused and is at {index}"));
    }

    /// I4, I12: the whole state of a member.
    pub(crate) fn state(&mut self, host: Host, view: &View) {
        let (index, digest) = (view.position.index, digest(view));
        self.note(&[4, host as u64, index, digest]);
        let (first, known, expected) =
            self.digests.entry(index).or_insert_with(|| (host, view.clone(), digest));
        if *expected != digest {
            let difference = difference(known, view);
            let what = format!("I4: hosts {first} and {host} differ at {index}: {difference}");
            self.violate(what);
        }
    }

    /// An operation begins, on a register or on nothing yet.
    pub(crate) fn begin(&mut self, register: Option<ConfigId>) -> Began {
        self.next += 1;
        let seen_of = register.and_then(|id| self.seen_of.get(&id)).copied().unwrap_or_default();
        Began { number: self.next, seen: self.seen, seen_of }
    }

    /// A unique object was written at an index, at the first attempt or at a later one.
    pub(crate) fn created(&mut self, began: Began, index: u64, is_first: bool) {
        self.note(&[5, began.number, index]);
        self.counts.written += 1;
        self.counts.retried += u64::from(!is_first);
        self.place(began, index, "write");
        self.acknowledged.insert(began.number, index);
        if is_first {
            self.bearing.insert(index);
        }
    }

    /// An operation certainly did nothing.
    pub(crate) fn refused(&mut self, began: Began) {
        self.note(&[6, began.number]);
        self.counts.refused += 1;
        self.not_written.insert(began.number);
        let exists = self.created.contains_key(&began.number)
            || self
                .registers
                .values()
                .flat_map(BTreeMap::values)
                .flatten()
                .any(|version| version.value == began.number);
        self.hold(!exists, || format!("I8: write {} was refused and is there", began.number));
    }

    /// Nobody knows.
    pub(crate) fn unknown(&mut self, began: Began) {
        self.note(&[7, began.number]);
        self.counts.unknown += 1;
    }

    /// A register was written, on top of a version or of whichever there was.
    pub(crate) fn wrote(
        &mut self,
        began: Began,
        register: ConfigId,
        over: Option<u64>,
        index: u64,
    ) {
        self.note(&[8, began.number, index]);
        let count =
            if over.is_some() { &mut self.counts.swapped } else { &mut self.counts.written };
        *count += 1;
        self.place(began, index, "write");
        let seen = self.seen_of.entry(register).or_default();
        *seen = index.max(*seen);
        self.claims.push((index, Claim::Wrote { register, value: began.number, over }));
    }

    /// A compare-and-set found another version.
    pub(crate) fn stale(&mut self, began: Began, expected: u64, actual: u64) {
        self.note(&[9, began.number, actual]);
        self.counts.stale += 1;
        self.not_written.insert(began.number);
        self.hold(actual != expected && actual >= began.seen_of, || {
            format!(
                "I8: a swap found {actual} where {expected} was expected and {} was seen",
                began.seen_of
            )
        });
    }

    /// A linearizable read.
    pub(crate) fn read(&mut self, began: Began, register: ConfigId, view: &View) {
        let index = view.position.index;
        self.note(&[10, began.number, index]);
        self.counts.read += 1;
        self.hold(index >= began.seen, || {
            format!("I8: a read saw {index} after an operation had seen {}", began.seen)
        });
        self.seen = self.seen.max(index);
        let value = view.configs.get(&register).and_then(|config| value(config));
        self.claims.push((index, Claim::Read { register, value }));
    }

    fn place(&mut self, began: Began, index: u64, what: &str) {
        self.hold(index > began.seen, || {
            format!(
                "I8: a {what} took effect at {index} after an operation had seen {}",
                began.seen
            )
        });
        self.seen = self.seen.max(index);
    }

    /// What must be true when everything has healed; `view` is a member's newest.
    pub(crate) fn conclude(&mut self, view: &View) {
        let lost: Vec<u64> = self
            .acknowledged
            .keys()
            .filter(|number| view.configs.get(&config_id(**number)).is_none())
            .copied()
            .collect();
        self.hold(lost.is_empty(), || format!("I5: acknowledged and lost: {lost:?}"));
        for number in self.not_written.clone() {
            let exists = view.configs.get(&config_id(number)).is_some();
            self.hold(!exists, || format!("I8: write {number} was refused and is there"));
        }
        for (index, claim) in std::mem::take(&mut self.claims) {
            let (Claim::Wrote { register, .. } | Claim::Read { register, .. }) = &claim;
            let versions = self.registers.get(register);
            let found = versions.and_then(|all| all.range(..=index).next_back());
            let is_so = match &claim {
                Claim::Wrote { value, over, .. } => found.is_some_and(|(at, versions)| {
                    let is_over =
                        |known: Option<u64>| over.is_none() || known.is_none() || *over == known;
                    *at == index && versions.iter().any(|it| it.value == *value && is_over(it.over))
                }),
                Claim::Read { value, .. } => {
                    found.and_then(|(_, versions)| versions.last()).map(|it| it.value) == *value
                }
            };
            let problem = (!is_so).then(|| found.map(|(at, versions)| (*at, versions.clone())));
            if let Some(found) = problem {
                self.violate(format!("I8: {claim:?} at {index}, but the log has {found:?}"));
            }
        }
    }
}
