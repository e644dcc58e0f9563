//! Whatever is asked in whatever order: the state stays sound, derived indexes agree with the rows,
//! and refused commands leave no trace.

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::domain::container::SecretReference;
use crate::domain::service::{EndpointSpec, PortConfig, PublishMode};
use crate::domain::task::Slot;
use crate::domain::{Service, ServiceSpec, Timestamp};
use crate::state::fixtures::*;
use crate::state::{AddressOwner, Table};

fn spec(kind: u8) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    if kind == 1 {
        let publish_mode = PublishMode::Host;
        let port = PortConfig { published_port: 80, publish_mode, ..PortConfig::default() };
        spec.endpoint_spec = Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() });
    }
    if kind == 2 {
        let (secret_id, secret_name) = (secret_id(1), String::new());
        let reference = SecretReference { file: None, secret_id, secret_name };
        spec.task_template.container_spec.secrets.push(reference);
    }
    spec
}

fn any_task() -> impl Strategy<Value = Task> {
    let state = || (0..14u32).prop_map(|it| TaskState::from_number(it).unwrap());
    ((1..5u8, 1..3u8, 1..3u8), (0..4u8, 0..4u8), state(), state()).prop_map(
        |((id, service, spec), (node, addr), state, desired)| Task {
            node: (node > 0).then(|| node_id(node)),
            addresses: if addr > 0 { vec![address(addr)] } else { Vec::new() },
            desired,
            slot: Slot::Number(1),
            spec: u64::from(spec),
            status: TaskStatus { state, ..TaskStatus::default() },
            ..task(id, service)
        },
    )
}

fn any_object() -> impl Strategy<Value = Object> {
    let service = (1..4u8, 1..3u64, any::<bool>(), 1..3u8).prop_map(|it| {
        let (id, current, removing, name) = it;
        Object::from(Service { removing, name: format!("n{name}"), ..service(id, current) })
    });
    let part = (1..4u8, 1..3u8).prop_map(|(node, addr)| {
        let gateway = std::net::Ipv4Addr::new(10, 1, 0, addr);
        Object::from(crate::domain::NetworkNode { gateway, ..part(1, node) })
    });
    prop_oneof![
        4 => any_task().prop_map(Object::from),
        2 => service,
        2 => (1..4u8, 1..3u64, 0..3u8).prop_map(|(id, number, kind)| {
            Object::from(version(id, number, spec(kind)))
        }),
        1 => (1..4u8).prop_map(|id| Object::from(node(id))),
        1 => part,
        1 => (1..3u8).prop_map(|id| Object::from(network(id))),
        1 => (1..3u8).prop_map(|id| Object::from(secret(id))),
        1 => (1..3u8).prop_map(|id| Object::from(config(id))),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let expect = prop_oneof![
        3 => Just(Expect::Any),
        2 => Just(Expect::Absent),
        1 => Just(Expect::Present),
        1 => (1..30u64).prop_map(|it| Expect::At(Revision(it))),
        1 => (1..30u64).prop_map(|it| Expect::SpecAt(Revision(it))),
    ];
    let report = (any_task(), 1..4u8).prop_map(|(task, node)| Change::ReportTask {
        task: task.id,
        node: node_id(node),
        status: task.status,
    });
    let join = (1..4u8).prop_map(|node| Change::JoinManager {
        node: node_id(node),
        addr: format!("192.0.2.{node}:2377").parse().unwrap(),
    });
    prop_oneof![
        6 => (any_object(), expect).prop_map(|(object, expect)| Change::Put { object, expect }),
        2 => any_object().prop_map(|it| Change::Delete { key: it.key(), expect: Expect::Any }),
        2 => report,
        1 => join,
    ]
}

fn rows<K: Ord + Clone + Debug, V: Clone>(table: &Table<K, V>) -> Vec<(K, V)> {
    table.iter().map(|(key, row)| (key.clone(), (**row).clone())).collect()
}

/// Indexes are what a snapshot's reader would make of the rows.
fn assert_indexes(state: &State) {
    let fresh = State::restore(state.position, state.clock, state.objects());
    assert_eq!(rows(&state.service_names), rows(&fresh.service_names));
    assert_eq!(rows(&state.secret_names), rows(&fresh.secret_names));
    assert_eq!(rows(&state.config_names), rows(&fresh.config_names));
    assert_eq!(rows(&state.network_names), rows(&fresh.network_names));
    assert_eq!(rows(&state.tasks_by_service), rows(&fresh.tasks_by_service));
    assert_eq!(rows(&state.tasks_by_node), rows(&fresh.tasks_by_node));
    assert_eq!(rows(&state.addresses), rows(&fresh.addresses));
    assert_eq!(rows(&state.host_ports), rows(&fresh.host_ports));
}

fn assert_sound(state: &State) {
    let mut owners = BTreeMap::new();
    for part in state.network_nodes.values() {
        let key = (part.network, std::net::IpAddr::V4(part.gateway));
        assert_eq!(owners.insert(key, AddressOwner::Gateway(part.node)), None);
    }
    let mut ports = BTreeMap::new();
    for task in state.tasks.values().filter(|task| !task.status.state.is_terminal()) {
        for it in &task.addresses {
            let key = (it.network, it.addr);
            assert_eq!(owners.insert(key, AddressOwner::Task(task.id)), None, "one owner each");
        }
        for port in state.ports_wanted(task) {
            assert_eq!(ports.insert(port, task.id), None, "one task each");
        }
    }
    for service in state.services.values() {
        assert!(state.spec(service.id, service.current).is_some(), "a current spec");
        let named = state.service_named(&service.name).map(|it| it.id);
        assert_eq!(named, Some(service.id), "unique names");
    }
}

fn assert_risen(before: &State, after: &State) {
    for old in before.tasks.values() {
        let Some(new) = after.task(old.id) else { continue };
        // A task that was deleted and made again in one command is another task.
        if new.meta.created_at != old.meta.created_at {
            continue;
        }
        assert!(new.status.state >= old.status.state && new.desired >= old.desired);
        assert!(old.node.is_none() || new.node == old.node);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_log_leaves_a_sound_state(log in vec(vec(any_change(), 1..4), 1..40)) {
        let mut state = small();
        let mut replica = state.clone();
        for changes in log {
            let before = state.clone();
            let (outcome, events) = commit(&mut state, changes.clone());
            prop_assert_eq!(&outcome, &commit(&mut replica, changes).0, "deterministic");
            if outcome.is_err() {
                prop_assert!(events.is_empty());
                let same = before.objects().eq(state.objects());
                prop_assert!(same, "a refused command leaves no trace");
            }
            for event in &events {
                prop_assert_eq!(event.revision, Revision(state.position.index));
                prop_assert!(event.at >= Timestamp(before.clock.0));
            }
            assert_sound(&state);
            assert_risen(&before, &state);
        }
        assert_indexes(&state);
        prop_assert!(state.objects().eq(replica.objects()));
    }
}
