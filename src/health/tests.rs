//! Facts and the alarms and reports that follow from them.

use std::net::SocketAddr;

use super::report::{Hold, Upgrade};
use super::*;
use crate::domain::cluster::{Authority, RootRotation, Trust};
use crate::domain::node::{ManagerStatus, Membership, Reachability, Role};
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, Format, Node, RaftId, TaskState, Timestamp};
use crate::state::fixtures::{commit, node, node_id, placed, put, small, task};
use crate::state::{Expect, State};

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

/// This node: a manager that is well.
fn well() -> Local {
    Local {
        node: Some(node_id(1)),
        name: "n1".into(),
        part: Part::Manager,
        is_led: Some(true),
        is_connected: Some(true),
        room: Some(Room { free: 1 << 40, lack: None }),
        certificate: Some(Validity { from: at(0), until: at(1_000) }),
        ..Local::default()
    }
}

fn voter(number: u8) -> Node {
    let mut voter = node(number);
    voter.spec.role = Role::Manager;
    voter.manager = Some(ManagerStatus {
        raft_id: RaftId(u64::from(number)),
        addr: SocketAddr::from(([192, 0, 2, number], 2377)),
        membership: Membership::Voter,
        silent: false,
    });
    voter
}

/// Three managers, one service with one task that runs.
fn managers() -> State {
    let mut state = small();
    let mut changes: Vec<_> = (1..=3).map(|number| put(voter(number), Expect::Any)).collect();
    changes.push(put(placed(1, 1, 1, TaskState::Running), Expect::Any));
    commit(&mut state, changes).0.unwrap();
    state
}

fn change(state: &mut State, node: Node) {
    commit(state, vec![put(node, Expect::Any)]).0.unwrap();
}

fn found(local: &Local, state: Option<&State>) -> Vec<(&'static str, String)> {
    let facts = Facts { now: at(100), local, state };
    alarms(&facts).into_iter().map(|alarm| (alarm.name.as_str(), alarm.subject)).collect()
}

fn pair(name: &'static str, subject: &str) -> (&'static str, String) {
    (name, subject.to_owned())
}

#[test]
fn nothing_is_raised_where_all_is_well() {
    let (local, state) = (well(), managers());
    assert_eq!(found(&local, Some(&state)), []);
    let facts = Facts { now: at(100), local: &local, state: Some(&state) };
    let report = report(&facts, &[]);
    assert!(report.is_well, "{report:?}");
    let census = report.cluster.unwrap();
    assert_eq!((census.managers, census.managers_reachable, census.quorum), (3, 3, 2));
    assert_eq!((census.nodes, census.ready), (3, 3));
    assert_eq!((census.services, census.wanted, census.running), (1, 1, 1));
}

#[test]
fn every_fact_of_this_node_has_its_alarm() {
    let of = |change: &dyn Fn(&mut Local)| {
        let mut local = well();
        change(&mut local);
        found(&local, None)
    };
    let one = |name, change: &dyn Fn(&mut Local)| assert_eq!(of(change), [pair(name, "n1")]);
    one("node-broken", &|it| it.part = Part::Broken);
    one("manager-locked", &|it| it.part = Part::Locked);
    one("no-quorum", &|it| it.is_led = Some(false));
    one("no-session", &|it| it.is_connected = Some(false));
    one("node-degraded", &|it| it.degraded = "no engine".into());
    one("manager-unfit", &|it| it.ailments.push("the disk does not answer".into()));
    one("clock-stepped", &|it| it.has_clock_stepped = true);
    one("certificate-expiring", &|it| {
        it.certificate = Some(Validity { from: at(0), until: at(124) });
    });
    one("certificate-expiring", &|it| {
        it.certificate = Some(Validity { from: at(101), until: at(200) });
    });
    one("certificate-expiring", &|it| {
        it.part = Part::Worker;
        it.certificate = Some(Validity { from: at(0), until: at(99) });
    });
    one("disk-full", &|it| it.room = Some(Room { free: 1, lack: Some("no room".into()) }));
    one("disk-low", &|it| it.room = Some(Room { free: 500 << 20, lack: None }));
    one("backup-overdue", &|it| it.backup_overdue = Some("none since Monday".into()));
    assert_eq!(of(&|it| it.certificate = Some(Validity { from: at(0), until: at(126) })), []);
    assert_eq!(
        of(&|it| {
            it.part = Part::Locked;
            it.certificate = Some(Validity { from: at(0), until: at(124) });
        }),
        [pair("manager-locked", "n1"), pair("certificate-expiring", "n1")],
        "it is not renewed while it is locked"
    );
    assert_eq!(of(&|it| *it = Local::default()), [], "in no swarm");
    assert_eq!(
        of(&|it| {
            it.part = Part::Locked;
            it.is_connected = Some(false);
        }),
        [pair("manager-locked", "n1")],
        "a locked manager has no session, of course"
    );
}

#[test]
fn what_the_state_says_of_nodes_is_raised_once() {
    let mut state = managers();
    let mut silent = voter(3);
    silent.manager = silent.manager.map(|part| ManagerStatus { silent: true, ..part });
    silent.status.reachability = Reachability::Unreachable;
    change(&mut state, silent);
    assert_eq!(found(&well(), Some(&state)), [pair("manager-unreachable", "n3")]);

    let mut worker = node(3);
    worker.status.reachability = Reachability::Unreachable;
    change(&mut state, worker);
    let down = [pair("node-down", "n3"), pair("even-managers", "")];
    assert_eq!(found(&well(), Some(&state)), down);

    let mut state = managers();
    let mut degraded = voter(1);
    degraded.description.as_mut().unwrap().degraded = "no engine".into();
    change(&mut state, degraded);
    let local = Local { name: "its-host".into(), degraded: "no engine".into(), ..well() };
    assert_eq!(found(&local, Some(&state)), [pair("node-degraded", "n1")], "not twice");

    let local = Local { contested: [node_id(2)].into(), ..well() };
    let state = managers();
    assert_eq!(found(&local, Some(&state)), [pair("identity-twice", "n2")]);
}

#[test]
fn a_rotation_that_waits_names_the_nodes_that_hold_it_up() {
    let mut state = managers();
    let authority = Authority { root_pem: "next".into(), key_pem: Sensitive::new(b"key") };
    let rotation = Some(RootRotation { next: authority, cross_pem: "cross".into() });
    let cluster = (**state.cluster.as_ref().unwrap()).clone();
    let trust = Trust { generation: 1, rotation };
    commit(&mut state, vec![put(Cluster { trust, ..cluster }, Expect::Any)]).0.unwrap();
    let waiting = |state: &State| {
        let facts = Facts { now: at(100), local: &well(), state: Some(state) };
        let stuck = alarms(&facts).into_iter().find(|it| it.name == Name::RotationStuck);
        stuck.map(|alarm| (alarm.subject, alarm.text))
    };
    let trusting = |number| Node { trust: 1, ..voter(number) };
    change(&mut state, trusting(1));
    let mut down = voter(3);
    down.status.reachability = Reachability::Unreachable;
    change(&mut state, down);
    let (subject, text) = waiting(&state).unwrap();
    assert_eq!(subject, "", "it is the swarm's");
    assert!(text.contains("the next one: n2 (ready), n3 (down); bring back"), "{text}");
    assert!(text.contains(&format!("swarm node rm --force {}", node_id(2))), "{text}");
    for number in 4..=9 {
        change(&mut state, node(number));
    }
    let (_, text) = waiting(&state).unwrap();
    assert!(text.contains("n6 (ready), 3 more; bring back"), "{text}");
    (2..=9).for_each(|number| change(&mut state, trusting(number)));
    assert_eq!(waiting(&state), None);

    // Told only of one that lasts: where all are there, it takes seconds.
    let alarm = Alarm { name: Name::RotationStuck, subject, text };
    let mut tracker = Tracker::default();
    assert_eq!(tracker.look(at(10), vec![alarm.clone()]), []);
    assert_eq!(tracker.look(at(609), vec![alarm.clone()]), []);
    assert_eq!(tracker.look(at(610), vec![alarm]).len(), 1);
}

#[test]
fn a_clock_that_is_behind_the_swarm_is_told() {
    let mut state = managers();
    let told = |state: &State| {
        let facts = Facts { now: at(100), local: &well(), state: Some(state) };
        alarms(&facts).into_iter().map(|alarm| alarm.text).collect::<Vec<_>>()
    };
    state.clock = at(400);
    assert_eq!(told(&state), [""; 0]);
    state.clock = at(401);
    let texts = told(&state);
    let words = "says 1970-01-01T00:01:40Z, and the swarm was at 1970-01-01T00:06:41Z already";
    assert!(texts.len() == 1 && texts[0].contains(words), "{texts:?}");
}

#[test]
fn a_certificate_out_of_its_time_leads_to_the_clock_first() {
    let told = |from, until| {
        let local = Local { certificate: Some(Validity { from, until }), ..well() };
        let facts = Facts { now: at(100), local: &local, state: None };
        alarms(&facts).pop().unwrap().text
    };
    assert!(told(at(0), at(110)).contains("could not be renewed"));
    for (from, until) in [(at(0), at(99)), (at(101), at(900))] {
        let text = told(from, until);
        assert!(text.contains("clock of this machine says 1970-01-01T00:01:40Z"), "{text}");
        assert!(text.contains("compare `date`"), "{text}");
    }
}

#[test]
fn every_alarm_says_what_to_do() {
    let mut state = managers();
    let mut silent = voter(3);
    silent.manager = silent.manager.map(|part| ManagerStatus { silent: true, ..part });
    change(&mut state, silent);
    let local = Local { is_led: Some(false), ..well() };
    let facts = Facts { now: at(100), local: &local, state: Some(&state) };
    let texts: Vec<String> = alarms(&facts).into_iter().map(|alarm| alarm.text).collect();
    assert!(texts[0].contains("more than half of 3 (n1, n2, n3)"), "{texts:?}");
    assert!(texts[1].contains(&format!("swarm node replace {}", node_id(3))), "{texts:?}");
}

#[test]
fn an_alarm_is_told_once_after_its_patience_and_once_when_it_is_over() {
    let alarm =
        |text: &str| Alarm { name: Name::NoQuorum, subject: String::new(), text: text.to_owned() };
    let mut tracker = Tracker::default();
    assert_eq!(tracker.look(at(10), vec![alarm("a")]), [], "an election takes seconds");
    assert_eq!(tracker.look(at(13), vec![]), [], "nobody was told of it");
    assert_eq!(tracker.look(at(20), vec![alarm("a")]), []);
    assert_eq!(tracker.raised(), []);
    let raised = Raised { alarm: alarm("b"), since: at(20) };
    assert_eq!(tracker.look(at(28), vec![alarm("b")]), [Change::Raised(raised.clone())]);
    assert_eq!(tracker.raised(), [raised]);
    assert_eq!(tracker.look(at(31), vec![alarm("c")]), [], "it is known");
    let newest = Raised { alarm: alarm("c"), since: at(20) };
    assert_eq!(tracker.look(at(34), vec![]), [Change::Cleared(newest)]);
    assert_eq!(tracker.raised(), []);
}

#[test]
fn a_service_that_is_not_as_wanted_is_named_with_its_reason() {
    let mut state = managers();
    let mut waiting = task(2, 1);
    waiting.status.error = "no suitable node".into();
    waiting.status.state = TaskState::Pending;
    commit(&mut state, vec![put(waiting, Expect::Any)]).0.unwrap();
    let local = well();
    let facts = Facts { now: at(100), local: &local, state: Some(&state) };
    let report = report(&facts, &[]);
    assert!(!report.is_well);
    assert_eq!(report.verdict, "1 service is not as wanted");
    let behind =
        Behind { service: "web1".into(), wanted: 2, running: 1, reason: "no suitable node".into() };
    assert_eq!(report.cluster.unwrap().behind, [behind]);
}

#[test]
fn who_holds_a_newer_format_back_is_named_where_it_is_known() {
    let mut state = managers();
    let upgrade = |state: &State, formats: Option<&[(u8, u32)]>| {
        let known = |(node, format): &(u8, u32)| (node_id(*node), Format(*format));
        let formats = formats.map(|all| all.iter().map(known).collect());
        let local = Local { formats, ..well() };
        let report = report(&Facts { now: at(100), local: &local, state: Some(state) }, &[]);
        assert!(report.is_well, "nothing is wrong with it");
        report.upgrade
    };
    let used = |state: &mut State, format| {
        let cluster = (**state.cluster.as_ref().unwrap()).clone();
        let put = put(Cluster { format: Format(format), ..cluster }, Expect::Any);
        commit(state, vec![put]).0.unwrap();
    };
    assert_eq!(state.format(), Format(1));
    let only_leader = Upgrade { used: Format(1), known: Format(2), holds: None };
    assert_eq!(upgrade(&state, None), Some(only_leader));
    let hold = |node: u8, knows: Option<u32>| Hold {
        node: format!("n{node}"),
        id: node_id(node),
        knows: knows.map(Format),
    };
    let holds = |heard: &[(u8, u32)], state: &State| upgrade(state, Some(heard)).unwrap().holds;
    let waits = vec![hold(2, Some(1)), hold(3, None)];
    assert_eq!(holds(&[(1, 2), (2, 1), (9, 1)], &state), Some(waits));
    assert_eq!(holds(&[(1, 2), (2, 2), (3, 2)], &state), Some(vec![]), "soon");
    used(&mut state, 2);
    assert_eq!(upgrade(&state, Some(&[(1, 2), (2, 2), (3, 2)])), None);
    assert_eq!(upgrade(&state, Some(&[(1, 2)])), None, "nothing newer is known");
    let newer = upgrade(&state, Some(&[(1, 2), (2, 3), (3, 3)])).unwrap();
    assert_eq!((newer.known, newer.holds), (Format(3), Some(vec![hold(1, Some(2))])));
}

#[test]
fn what_ended_well_is_not_missed() {
    let mut state = managers();
    commit(&mut state, vec![put(placed(1, 1, 1, TaskState::Complete), Expect::Any)]).0.unwrap();
    let service = state.services.values().next().unwrap();
    let standing = super::report::standing(&state, service);
    assert_eq!((standing.wanted, standing.running), (0, 0));
}

#[test]
fn the_verdict_says_where_this_node_stands() {
    let verdict = |part, is_led| {
        let local = Local { part, is_led, ..well() };
        report(&Facts { now: at(100), local: &local, state: None }, &[]).verdict
    };
    assert_eq!(verdict(Part::Outside, None), "this node is in no swarm");
    assert_eq!(verdict(Part::Locked, None), "this manager is locked");
    assert_eq!(verdict(Part::Manager, None), "this manager is starting");
    assert_eq!(verdict(Part::Worker, None), "all is well");
}
