//! Alarms: a closed set of conditions, each with a text that says what to do.

use std::sync::Arc;
use std::time::Duration;

use super::facts::{Facts, Local, Part, Validity, name_of};
use crate::domain::Timestamp;
use crate::domain::node::{Membership, Node, Reachability, Role};
use crate::state::State;

/// Free bytes below which somebody should make room before it is urgent; writes stop at 64 MiB.
const ROOM_LOW: u64 = 512 << 20;

/// So far a clock may be behind cluster time: well below the hour by which certificates begin in the
/// past, and above what machines without time synchronisation drift by in weeks.
const BEHIND_MAX: Duration = Duration::from_secs(300);

/// Nodes that an alarm names; the others are counted.
const NAMED_MAX: usize = 5;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is refused, or will be, or is about to be lost.
    Critical,
    /// The swarm copes; the next fault may be one too many.
    Warning,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $severity:ident, $patience:literal;)+) => {
        /// Which condition it is; the most urgent first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Name { $($(#[$doc])* $name),+ }

        impl Name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Its name in events, metrics and documents.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity),+ }
            }

            /// For how many seconds it must hold before somebody is told.
            #[must_use]
            pub const fn patience_seconds(self) -> u64 {
                match self { $(Self::$name => $patience),+ }
            }
        }
    };
}

names! {
    /// This node cannot be what it should be, such as a manager with a damaged log.
    NodeBroken = "node-broken", Critical, 0;
    /// This manager waits for its unlock key.
    ManagerLocked = "manager-locked", Critical, 0;
    /// This manager knows no leader; an election takes a few seconds.
    NoQuorum = "no-quorum", Critical, 8;
    /// Nothing is written to the log any more.
    DiskFull = "disk-full", Critical, 0;
    /// Two agents say that they are one node.
    IdentityTwice = "identity-twice", Critical, 0;
    /// A certificate should have been renewed long ago.
    CertificateExpiring = "certificate-expiring", Critical, 0;
    /// This manager is not fit to lead.
    LeaderUnfit = "manager-unfit", Warning, 0;
    /// A manager is not heard from.
    ManagerUnreachable = "manager-unreachable", Warning, 0;
    /// A node is not heard from.
    NodeDown = "node-down", Warning, 0;
    /// A node is there and cannot run tasks.
    NodeDegraded = "node-degraded", Warning, 0;
    /// This node's agent finds no manager.
    NoSession = "no-session", Warning, 10;
    /// An even number of managers.
    EvenManagers = "even-managers", Warning, 60;
    /// Little room is left for the log.
    DiskLow = "disk-low", Warning, 0;
    /// The clock of this machine was set.
    ClockStepped = "clock-stepped", Warning, 0;
    /// Scheduled backups are not made; after a long night the first one takes a moment.
    BackupOverdue = "backup-overdue", Warning, 60;
    /// A rotation of the root certificate waits for nodes, which takes seconds where all are there.
    RotationStuck = "rotation-stuck", Warning, 600;
}

/// Something that somebody must know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Which condition.
    pub name: Name,
    /// Of what: a node's name; empty if it is the swarm's.
    pub subject: String,
    /// What it is and what to do.
    pub text: String,
}

/// All conditions that hold, in the order of their names.
#[must_use]
pub fn alarms(facts: &Facts<'_>) -> Vec<Alarm> {
    let mut found = of_this_node(facts);
    if let Some(state) = facts.state {
        state.nodes.values().for_each(|node| found.extend(of_a_node(node)));
        found.extend(even_managers(state));
        found.extend(rotation(state));
        for id in &facts.local.contested {
            let name = state.node(*id).map_or_else(|| id.to_string(), |node| name_of(node));
            let text = format!(
                "two agents say that they are node {id}: a disk or virtual machine was copied; on \
                 the copy run `swarm leave --force` and join again"
            );
            found.push(Alarm { name: Name::IdentityTwice, subject: name, text });
        }
    }
    found.sort();
    found.dedup_by(|a, b| (a.name, &a.subject) == (b.name, &b.subject));
    found
}

/// What this node knows of itself.
fn of_this_node(facts: &Facts<'_>) -> Vec<Alarm> {
    let Facts { local, now, .. } = facts;
    let mut found = Vec::new();
    // As the state calls it, so that what both know is one alarm.
    let known = local.node.and_then(|id| facts.state?.node(id));
    let subject = known.map_or_else(|| local.name.clone(), |node| name_of(node));
    let mut alarm = |name, text: String| {
        found.push(Alarm { name, subject: subject.clone(), text });
    };
    match local.part {
        Part::Broken => alarm(Name::NodeBroken, local.error.clone()),
        Part::Locked => {
            alarm(Name::ManagerLocked, "run `swarm unlock` here with the unlock key".to_owned());
        }
        Part::Outside | Part::Starting | Part::Joining | Part::Worker | Part::Manager => {}
    }
    if local.is_led == Some(false) {
        alarm(Name::NoQuorum, no_quorum(facts));
    }
    if local.is_connected == Some(false) && matches!(local.part, Part::Worker | Part::Manager) {
        let text = "no manager is reached from here: containers and names go on, nothing new is \
                    started; see `session` in the daemon's log, TCP 2377 and the managers";
        alarm(Name::NoSession, text.to_owned());
    }
    if !local.degraded.is_empty() {
        alarm(Name::NodeDegraded, format!("it cannot run tasks: {}", local.degraded));
    }
    if !local.ailments.is_empty() {
        let text = format!(
            "it gives up leadership and does not stand for election: {}; look at the disk and the \
             load of this machine",
            local.ailments.join("; ")
        );
        alarm(Name::LeaderUnfit, text);
    }
    if let Some(text) = wrong_clock(facts) {
        alarm(Name::ClockStepped, text);
    }
    if let Some(text) = local.certificate.and_then(|valid| out_of_time(valid, *now)) {
        alarm(Name::CertificateExpiring, text);
    }
    of_disk(local, &mut alarm);
    if let Some(text) = &local.backup_overdue {
        alarm(Name::BackupOverdue, text.clone());
    }
    found
}

/// A clock that was set, or that is behind what the swarm has seen already. (One that is ahead
/// cannot be told from a swarm in which nothing happens.)
fn wrong_clock(facts: &Facts<'_>) -> Option<String> {
    const REPAIR: &str = "repair its time synchronisation (chrony, systemd-timesyncd)";
    let newest = facts.state.map(|state| state.clock).unwrap_or_default();
    if newest.since(facts.now) > BEHIND_MAX {
        return Some(format!(
            "the clock of this machine says {}, and the swarm was at {} already: compare `date` \
             with another machine's; {REPAIR}. Certificates are signed by this clock",
            facts.now.brief(),
            newest.brief()
        ));
    }
    facts.local.has_clock_stepped.then(|| format!("the clock of this machine was set; {REPAIR}"))
}

/// A certificate that should have been renewed, or is not valid at all: then the clock comes first.
fn out_of_time(valid: Validity, now: Timestamp) -> Option<String> {
    let (from, until, now_text) = (valid.from.brief(), valid.until.brief(), now.brief());
    let compare = format!(
        "and the clock of this machine says {now_text}: compare `date` with another machine's and \
         set the clock if it is wrong; if it is right, `swarm info` here says what to do"
    );
    if now < valid.from {
        return Some(format!("the certificate of this node is not valid before {from}, {compare}"));
    }
    if now > valid.until {
        return Some(format!("the certificate of this node ended at {until}, {compare}"));
    }
    valid.is_late(now).then(|| {
        format!(
            "the certificate of this node ends at {until} and could not be renewed: bring it \
             together with a manager before that (`certificate not renewed` in the daemon's log \
             says why not; a locked manager: `swarm unlock`), or it must join again"
        )
    })
}

fn of_disk(local: &Local, alarm: &mut impl FnMut(Name, String)) {
    let Some(room) = &local.room else { return };
    match &room.lack {
        Some(lack) => alarm(Name::DiskFull, format!("no change is written any more: {lack}")),
        None if room.free < ROOM_LOW => {
            let text = format!(
                "{} MiB are free on the file system of the raft log; make room, below 64 MiB \
                 nothing is written any more",
                room.free >> 20
            );
            alarm(Name::DiskLow, text);
        }
        None => {}
    }
}

fn no_quorum(facts: &Facts<'_>) -> String {
    let voters: Vec<String> = facts.state.map_or_else(Vec::new, |state| {
        let all = state.nodes.values().filter(|node| votes(node));
        all.map(|node| name_of(node)).collect()
    });
    format!(
        "this manager knows no leader, so nothing can be changed: start managers until more than \
         half of {} ({}) are up; are they lost for good: `swarm recover`",
        voters.len(),
        voters.join(", ")
    )
}

fn votes(node: &Node) -> bool {
    node.manager.is_some_and(|part| part.membership == Membership::Voter)
}

/// What the state says of a node.
fn of_a_node(node: &Node) -> Option<Alarm> {
    let subject = name_of(node);
    let is_silent = node.manager.is_some_and(|part| part.silent);
    let is_down = node.status.reachability == Reachability::Unreachable;
    if votes(node) && (is_silent || is_down) {
        let text = format!(
            "this manager is not heard from{}: look at its machine, its daemon (`swarm status` \
             there) and TCP 2377; is it gone for good: `swarm node replace {}`",
            because(&node.status.message),
            node.id
        );
        return Some(Alarm { name: Name::ManagerUnreachable, subject, text });
    }
    if is_down {
        let text = format!(
            "this node is not heard from{}: its tasks run elsewhere; look at its machine and its \
             daemon; is it gone for good: `swarm node rm --force {}`",
            because(&node.status.message),
            node.id
        );
        return Some(Alarm { name: Name::NodeDown, subject, text });
    }
    let degraded = node.description.as_ref().map(|it| it.degraded.as_str()).unwrap_or_default();
    (!degraded.is_empty()).then(|| Alarm {
        name: Name::NodeDegraded,
        subject,
        text: format!("it cannot run tasks: {degraded}"),
    })
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// An even number of voters tolerates no more than one less, and needs one more to be up.
fn even_managers(state: &State) -> Option<Alarm> {
    let wanted = state.nodes.values().filter(|node| node.spec.role == Role::Manager).count();
    let is_even = wanted > 0 && wanted.is_multiple_of(2);
    is_even.then(|| Alarm {
        name: Name::EvenManagers,
        subject: String::new(),
        text: format!(
            "{wanted} managers tolerate the loss of {}, like {}; promote one more or demote one",
            (wanted - 1) / 2,
            wanted - 1
        ),
    })
}

/// Nodes that have yet to trust the root certificate that is to come hold its switch up.
fn rotation(state: &State) -> Option<Alarm> {
    let trust = &state.cluster.as_ref()?.trust;
    trust.rotation.as_ref()?;
    let waits: Vec<&Node> =
        state.nodes.values().map(Arc::as_ref).filter(|it| it.trust < trust.generation).collect();
    let first = waits.first()?;
    let name = |node: &&Node| match node.status.reachability {
        Reachability::Reachable => format!("{} (ready)", name_of(node)),
        Reachability::Unreachable | Reachability::Unknown => format!("{} (down)", name_of(node)),
    };
    let mut names: Vec<String> = waits.iter().take(NAMED_MAX).map(name).collect();
    if let Some(more) = waits.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let text = format!(
        "the root certificate is not switched before these nodes trust the next one: {}; bring \
         back those that are down; on those that are ready `certificate not renewed` in the \
         daemon's log says why, or the release is too old; is one gone for good: `swarm node rm \
         --force {}` (a manager: `swarm node demote` first)",
        names.join(", "),
        first.id
    );
    Some(Alarm { name: Name::RotationStuck, subject: String::new(), text })
}
