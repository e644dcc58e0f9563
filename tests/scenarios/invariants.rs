//! What must hold of every plan and of every state that plans lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use swarm::control::{Dirty, Observed, Plan, plan};
use swarm::domain::service::Protocol;
use swarm::domain::task::Slot;
use swarm::domain::{NetworkId, NodeId, ServiceId, Task, TaskState};
use swarm::state::{Change, State, View};

use super::world::commit;

/// A plan is deterministic, its changes can be taken one by one, it leaves nothing to do, and it is
/// no less than a plan that skips nothing.
pub(crate) fn plan_holds(view: &View, observed: &Observed, dirty: &Dirty, given: &Plan) {
    assert_eq!(plan(view, observed, dirty), *given, "a plan follows from its arguments alone");
    let mut state = view.scratch();
    let mut seen = BTreeSet::new();
    for change in given.changes.iter().flatten() {
        let key = match change {
            Change::Put { object, .. } => object.key(),
            Change::Delete { key, .. } => *key,
            other => panic!("a plan only puts and deletes: {other:?}"),
        };
        assert!(seen.insert(key), "{key:?} is changed twice");
        let outcome = commit(&mut state, observed.now, vec![change.clone()]);
        assert!(outcome.is_ok(), "{outcome:?}: {change:#?}");
        state_holds(&state);
    }
    let again = plan(&View::new(state), observed, &Dirty::All);
    assert!(
        again.changes.is_empty(),
        "{dirty:?} left something to do:\n{:#?}\nafter\n{:#?}",
        again.changes,
        given.changes
    );
}

/// What holds between any two changes of a plan.
pub(crate) fn state_holds(state: &State) {
    let mut live: BTreeMap<(ServiceId, Slot), Vec<&Task>> = BTreeMap::new();
    let mut addresses: BTreeSet<(NetworkId, IpAddr)> = BTreeSet::new();
    let mut ports: BTreeSet<(NodeId, Protocol, u16)> = BTreeSet::new();
    let mut taken: BTreeMap<NodeId, (i64, i64)> = BTreeMap::new();
    let gateways = state.network_nodes.values();
    addresses.extend(gateways.map(|part| (part.network, IpAddr::V4(part.gateway))));
    for task in state.tasks.values() {
        let version = state.spec(task.service, task.spec).unwrap();
        if task.is_live() {
            live.entry((task.service, task.slot)).or_default().push(task);
        }
        if task.status.state > TaskState::Running {
            continue;
        }
        for it in &task.addresses {
            assert!(addresses.insert((it.network, it.addr)), "{} is used twice", it.addr);
        }
        let Some(node) = task.node else { continue };
        for port in version.spec.host_ports().filter(|port| port.published_port > 0) {
            let key = (node, port.protocol, port.published_port);
            assert!(ports.insert(key), "port {key:?} is used twice");
        }
        if let Some(it) = &version.spec.task_template.resources
            && let Some(it) = &it.reservations
        {
            let sum = taken.entry(node).or_default();
            sum.0 += it.nano_cpus;
            sum.1 += it.memory_bytes;
        }
    }
    for ((service, slot), tasks) in live {
        slot_holds(state, service, slot, &tasks);
    }
    for (id, (nano_cpus, memory)) in taken {
        let Some(description) = state.node(id).and_then(|node| node.description.as_ref()) else {
            continue;
        };
        let has = &description.resources;
        assert!(nano_cpus <= has.nano_cpus && memory <= has.memory_bytes, "{id} has too much");
    }
}

/// One live task in a slot; two while start-first replaces one, of different versions.
fn slot_holds(state: &State, service: ServiceId, slot: Slot, tasks: &[&Task]) {
    let versions: BTreeSet<_> = tasks.iter().map(|task| task.spec).collect();
    let start_first = state.specs.range((service, 0)..=(service, u64::MAX)).any(|(_, it)| {
        let configs = [&it.spec.update_config, &it.spec.rollback_config];
        let orders = configs.map(|config| config.as_ref().and_then(|it| it.order));
        orders.contains(&Some(swarm::domain::policy::UpdateOrder::StartFirst))
    });
    assert!(
        tasks.len() == 1 || start_first && versions.len() == tasks.len(),
        "{} live tasks in {slot:?}",
        tasks.len()
    );
}
