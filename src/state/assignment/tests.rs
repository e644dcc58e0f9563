//! What a node is told, what is shared, and the law of differences.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::assignment::ItemKey;
use crate::domain::container::{ConfigReference, SecretReference};
use crate::domain::network::NetworkAttachmentSpec;
use crate::domain::node::Reachability;
use crate::domain::service::EndpointMode;
use crate::domain::{Node, Position, Revision, Service, ServiceSpec, Timestamp};
use crate::state::endpoints;
use crate::state::fixtures::*;
use crate::state::{Change, Expect, State};

fn done(state: &mut State, changes: Vec<Change>) {
    commit(state, changes).0.unwrap();
}

fn world(state: &State, node: u8) -> AssignmentSet {
    let view = View::new(state.clone());
    for_node(&view, node_id(node), &endpoints::all(&view, None))
}

fn tasks(set: &AssignmentSet) -> Vec<crate::domain::TaskId> {
    set.tasks().map(|task| task.id).collect()
}

#[test]
fn a_node_has_what_it_must_act_upon() {
    let mut state = small();
    let desired = |desired, task: Task| Task { desired, ..task };
    let (running, stop) = (TaskState::Running, TaskState::Shutdown);
    done(
        &mut state,
        vec![
            create(placed(1, 1, 1, TaskState::Assigned)),
            create(placed(2, 1, 2, TaskState::Running)),
            create(desired(stop, placed(3, 1, 1, TaskState::Running))),
            create(desired(running, placed(4, 1, 1, TaskState::Failed))),
            create(desired(stop, placed(5, 1, 1, TaskState::Failed))),
            create(desired(TaskState::Remove, placed(6, 1, 1, TaskState::Running))),
            create(placed(7, 1, 1, TaskState::Pending)),
        ],
    );
    let set = world(&state, 1);
    assert_eq!(
        tasks(&set),
        [1, 3, 4, 5, 6].map(task_id),
        "what has ended stays until it is reaped"
    );
    assert_eq!(set.task(task_id(4)).unwrap().status.state, TaskState::Failed);
    assert!(set.spec(service_id(1), 1).is_some());
    assert_eq!(set.position, state.position);
}

#[test]
fn payloads_go_only_where_a_task_uses_them() {
    let mut state = small();
    let mut spec = ServiceSpec::default();
    let container = &mut spec.task_template.container_spec;
    let secret_name = String::new();
    container.secrets.push(SecretReference { file: None, secret_id: secret_id(1), secret_name });
    let config_name = String::new();
    container.configs.push(ConfigReference { file: None, config_id: config_id(1), config_name });
    done(
        &mut state,
        vec![
            create(secret(1)),
            create(secret(2)),
            create(config(1)),
            create(service(2, 1)),
            create(version(2, 1, spec)),
            create(placed(1, 2, 1, TaskState::Running)),
            create(Task { desired: TaskState::Shutdown, ..placed(2, 2, 2, TaskState::Running) }),
        ],
    );
    let set = world(&state, 1);
    assert!(set.secret(secret_id(1)).is_some() && set.config(config_id(1)).is_some());
    assert!(set.secret(secret_id(2)).is_none());
    let stopping = world(&state, 2);
    assert!(stopping.task(task_id(2)).is_some() && stopping.secret(secret_id(1)).is_none());
    assert!(world(&state, 3).secret(secret_id(1)).is_none());
}

#[test]
fn a_node_knows_the_networks_it_takes_part_in() {
    let mut state = small();
    let nowhere = Node { status: crate::domain::node::NodeStatus::default(), ..node(4) };
    done(&mut state, vec![create(network(2)), create(nowhere), create(part(1, 4))]);
    done(&mut state, vec![create(node(5)), create(part(2, 5))]);
    let set = world(&state, 1);
    assert_eq!(set.networks().map(|it| it.id).collect::<Vec<_>>(), [network_id(1)]);
    assert_eq!(set.network_nodes().count(), 4);
    assert!(set.peer(node_id(3)).is_some(), "known");
    assert!(set.peer(node_id(4)).is_none(), "has no address yet");
    assert!(set.peer(node_id(5)).is_none(), "shares no network");
    assert_eq!(set.endpoints().count(), 1);
    assert_eq!(world(&state, 5).network_nodes().count(), 1);
    assert!(world(&state, 77).items.is_empty());
}

#[test]
fn endpoints_serve_while_running_wanted_and_reachable() {
    let mut state = small();
    let stopping = Task { desired: TaskState::Shutdown, ..placed(4, 1, 1, TaskState::Running) };
    let mut lost = node(3);
    lost.status.reachability = Reachability::Unreachable;
    done(
        &mut state,
        vec![
            create(placed(2, 1, 1, TaskState::Running)),
            create(placed(1, 1, 2, TaskState::Running)),
            create(placed(3, 1, 1, TaskState::Starting)),
            create(stopping),
            create(placed(5, 1, 3, TaskState::Running)),
            create(placed(6, 1, 1, TaskState::Failed)),
            create(Task { node: None, ..placed(7, 1, 1, TaskState::Pending) }),
            put(lost, Expect::Present),
        ],
    );
    let view = View::new(state.clone());
    let index = endpoints::all(&view, None);
    let set = index.get(network_id(1), service_id(1)).unwrap();
    let seen: Vec<_> = set.endpoints.iter().map(|it| (it.task, it.serving)).collect();
    let expected = [(1, true), (2, true), (3, false), (4, false), (5, false)];
    assert_eq!(seen, expected.map(|(number, serving)| (task_id(number), serving)));
    assert_eq!(set.name, "web1");
    done(&mut state, vec![put(Service { removing: true, ..service(1, 1) }, Expect::Present)]);
    let set = world(&state, 1);
    assert!(set.endpoints().all(|set| set.serving().count() == 0));
}

#[test]
fn a_service_without_tasks_has_a_name_where_it_belongs() {
    let mut state = small();
    let on = |target: &str| {
        let mut spec = ServiceSpec::default();
        let aliases = vec!["db".to_owned()];
        let target = target.to_owned();
        let it = NetworkAttachmentSpec { target, aliases, ..NetworkAttachmentSpec::default() };
        spec.task_template.networks.push(it);
        spec
    };
    done(&mut state, vec![create(service(2, 1)), create(version(2, 1, on("host")))]);
    done(&mut state, vec![create(service(3, 1)), create(version(3, 1, on("NET1")))]);
    let view = View::new(state);
    let index = endpoints::all(&view, None);
    let names: Vec<_> = index.on(network_id(1)).map(|set| set.name.as_str()).collect();
    assert_eq!(names, ["web1", "web3"]);
    let named = index.get(network_id(1), service_id(3)).unwrap();
    assert_eq!((&named.aliases[..], named.mode), (&["db".to_owned()][..], EndpointMode::Vip));
}

#[test]
fn what_has_not_changed_keeps_its_pointer() {
    let mut state = small();
    done(&mut state, vec![create(service(2, 1)), create(version(2, 1, ServiceSpec::default()))]);
    let first = endpoints::all(&View::new(state.clone()), None);
    let moved = crate::domain::Network { cursor: 9, ..network(1) };
    done(
        &mut state,
        vec![create(placed(1, 1, 1, TaskState::Running)), put(moved, Expect::Present)],
    );
    let second = endpoints::all(&View::new(state.clone()), Some(&first));
    let same = |service| {
        let get = |index: &EndpointIndex| index.get(network_id(1), service).cloned().unwrap();
        Arc::ptr_eq(&get(&first), &get(&second))
    };
    assert!(same(service_id(2)) && !same(service_id(1)));
    let networks = (first.network(network_id(1)), second.network(network_id(1)));
    assert!(Arc::ptr_eq(networks.0.unwrap(), networks.1.unwrap()), "cursor is not told");
    let peers = (first.peer(node_id(1)), second.peer(node_id(1)));
    assert!(Arc::ptr_eq(peers.0.unwrap(), peers.1.unwrap()));
}

#[test]
fn a_nodes_own_reports_do_not_come_back() {
    let mut state = small();
    let mut spec = ServiceSpec::default();
    let target = "host".to_owned();
    let host = NetworkAttachmentSpec { target, ..NetworkAttachmentSpec::default() };
    spec.task_template.networks.push(host);
    done(&mut state, vec![create(service(2, 1)), create(version(2, 1, spec))]);
    let task = Task { addresses: Vec::new(), ..placed(1, 2, 1, TaskState::Assigned) };
    done(&mut state, vec![create(task)]);
    let before = world(&state, 1);
    let status =
        TaskStatus { state: TaskState::Running, at: Timestamp(9), ..TaskStatus::default() };
    let report = Change::ReportTask { task: task_id(1), node: node_id(1), status };
    done(&mut state, vec![report]);
    assert!(before.diff(&world(&state, 1)).is_empty());
}

fn item() -> impl Strategy<Value = Item> {
    (0..8u8, 0..4u8, 0..3u8).prop_map(|(kind, id, variant)| match kind {
        0 => Item::Task(Arc::new(Task {
            desired: TaskState::from_number(u32::from(variant) + 7).unwrap(),
            ..task(id, 1)
        })),
        1 => {
            let force_update = u64::from(variant);
            let mut spec = ServiceSpec::default();
            spec.task_template.force_update = force_update;
            Item::SpecVersion(Arc::new(version(id, 1, spec)))
        }
        2 => {
            let mut it = secret(id);
            it.spec.name = format!("s{variant}");
            Item::Secret(Arc::new(it))
        }
        3 => {
            let mut it = config(id);
            it.spec.name = format!("c{variant}");
            Item::Config(Arc::new(it))
        }
        4 => Item::Network(Arc::new(crate::domain::Network {
            cursor: u64::from(variant),
            ..network(id)
        })),
        5 => {
            let mut it = part(id, id);
            it.meta.revision = Revision(u64::from(variant));
            Item::NetworkNode(Arc::new(it))
        }
        6 => Item::Peer(Arc::new(crate::domain::assignment::Peer {
            node: node_id(id),
            hostname: format!("h{variant}"),
            addr: std::net::IpAddr::from([192, 0, 2, id]),
        })),
        _ => Item::Endpoints(Arc::new(crate::domain::endpoint::EndpointSet {
            network: network_id(id),
            service: service_id(1),
            name: format!("e{variant}"),
            aliases: Vec::new(),
            mode: EndpointMode::Vip,
            ports: Vec::new(),
            endpoints: Vec::new(),
        })),
    })
}

fn set(index: u64) -> impl Strategy<Value = AssignmentSet> {
    proptest::collection::vec(item(), 0..20).prop_map(move |items| {
        let items: BTreeMap<ItemKey, Item> = items.into_iter().map(|it| (it.key(), it)).collect();
        AssignmentSet { position: Position { term: 1, index }, items }
    })
}

proptest! {
    #[test]
    fn absorb_undoes_diff(a in set(1), b in set(2)) {
        prop_assert_eq!(a.absorb(a.diff(&b)).unwrap(), b.clone());
        prop_assert_eq!(a.absorb(b.complete()).unwrap(), b.clone());
        prop_assert!(b.diff(&b).is_empty());
        prop_assert!(b.absorb(a.diff(&b)).is_err(), "not from here");
        prop_assert!(b.absorb(a.complete()).is_err(), "leads back");
    }
}
