//! The invariants that `apply` enforces. They hold of every state that was ever agreed on; whether a
//! change is wise is decided elsewhere.
//!
//! [`check`] looks at one object as it is written, [`settled`] at references between objects once the
//! whole command is done, so that their order within a command does not matter.

use std::net::IpAddr;

use super::addresses::AddressOwner;
use super::rows::index_name;
use super::{Event, EventKind, Object, ObjectKey, Rejection, State};
use crate::domain::{
    Cluster, Config, ConfigId, Network, NetworkId, NetworkNode, Node, Secret, SecretId, Service,
    SpecVersion, Task, TaskState,
};

/// Whether an object may be written as it is, over what was there.
pub(super) fn check(
    state: &State,
    object: &Object,
    current: Option<&Object>,
) -> Result<(), Rejection> {
    match (object, current) {
        (Object::Cluster(new), Some(Object::Cluster(old))) => cluster(new, old),
        (Object::Service(new), _) => service_name(state, new),
        (Object::SpecVersion(_), Some(_)) => broken("a spec version never changes"),
        (Object::Task(new), Some(Object::Task(old))) => {
            task_rises(new, old).and_then(|()| task(new)).and_then(|()| task_takes(state, new))
        }
        (Object::Task(new), _) => {
            task_refers(state, new).and_then(|()| task(new)).and_then(|()| task_takes(state, new))
        }
        (Object::Network(new), Some(Object::Network(old))) => network_stays(new, old),
        (Object::Network(new), _) => network_fits(state, new),
        (Object::NetworkNode(new), Some(Object::NetworkNode(old)))
            if new.gateway != old.gateway =>
        {
            broken("the gateway of a node in a network never changes")
        }
        (Object::NetworkNode(new), _) => network_node(state, new),
        (Object::Secret(new), Some(Object::Secret(old))) => secret_stays(new, old),
        (Object::Secret(new), _) => secret_name(state, new),
        (Object::Config(new), Some(Object::Config(old))) => config_stays(new, old),
        (Object::Config(new), _) => config_name(state, new),
        (Object::Node(new), Some(Object::Node(old))) => node(state, new, Some(old)),
        (Object::Node(new), _) => node(state, new, None),
        (Object::Cluster(_) | Object::SpecVersion(_), _) => Ok(()),
    }
}

/// Whether all references hold after a command.
pub(super) fn settled(state: &State, events: &[Event]) -> Result<(), Rejection> {
    events.iter().try_for_each(|event| match (&event.object, event.kind) {
        (Object::Service(it), EventKind::Created | EventKind::Updated) => has_specs(state, it),
        (Object::SpecVersion(it), EventKind::Created) => spec_refers(state, it),
        (Object::SpecVersion(it), EventKind::Removed) => spec_unused(state, it),
        (Object::Secret(it), EventKind::Removed) => secret_unused(state, it),
        (Object::Config(it), EventKind::Removed) => config_unused(state, it),
        (Object::Network(it), EventKind::Removed) => network_unused(state, it),
        (Object::Cluster(_), EventKind::Removed) => broken("the cluster cannot be deleted"),
        _ => Ok(()),
    })
}

fn broken(rule: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection::Broken { rule: rule.into() })
}

macro_rules! ensure {
    ($holds:expr, $rule:expr) => {
        if !$holds {
            return broken($rule);
        }
    };
}

fn missing(key: &ObjectKey) -> Rejection {
    Rejection::NotFound { kind: key.kind(), id: key.id_text() }
}

fn taken(kind: &'static str, name: &str) -> Result<(), Rejection> {
    Err(Rejection::NameInUse { kind, name: name.to_owned() })
}

fn cluster(new: &Cluster, old: &Cluster) -> Result<(), Rejection> {
    ensure!(new.id == old.id, "the id of the cluster never changes");
    ensure!(new.format >= old.format, "the format of the cluster never falls");
    let rises = new.worker_token >= old.worker_token && new.manager_token >= old.manager_token;
    ensure!(rises, "the generation of a join token never falls");
    roots(new, old)?;
    let (new, old) = (&new.autolock, &old.autolock);
    let counts = new.generation > old.generation || new == old;
    ensure!(counts, "an unlock key changes with its generation, which never falls");
    Ok(())
}

/// The roots change by one step at a time, each counted; and only to a root that was announced.
fn roots(new: &Cluster, old: &Cluster) -> Result<(), Rejection> {
    let awaited = old.trust.rotation.as_ref().map(|rotation| &rotation.next);
    let switched = new.authority != old.authority;
    let expected = awaited == Some(&new.authority) && new.trust.rotation.is_none();
    ensure!(!switched || expected, "the root certificate changes only to the one it is rotated to");
    let changed = switched || new.trust.rotation != old.trust.rotation;
    let counted = new.trust.generation == old.trust.generation + u64::from(changed);
    ensure!(counted, "the root certificate was changed at the same moment: try again");
    Ok(())
}

/// What a node has confirmed is never more than there was to confirm, and is not forgotten.
fn node(state: &State, new: &Node, old: Option<&Node>) -> Result<(), Rejection> {
    let known = state.cluster.as_ref().map_or(0, |cluster| cluster.trust.generation);
    ensure!(new.trust <= known, "a node cannot trust roots that there are not");
    let kept = old.is_none_or(|old| new.trust >= old.trust);
    ensure!(kept, "what roots a node trusts is not forgotten");
    Ok(())
}

fn service_name(state: &State, new: &Service) -> Result<(), Rejection> {
    match state.service_names.get(index_name(&new.name).as_str()) {
        Some(id) if **id != new.id => taken("service", &new.name),
        _ => Ok(()),
    }
}

fn secret_name(state: &State, new: &Secret) -> Result<(), Rejection> {
    match state.secret_names.get(index_name(&new.spec.name).as_str()) {
        Some(id) if **id != new.id => taken("secret", &new.spec.name),
        _ => Ok(()),
    }
}

fn config_name(state: &State, new: &Config) -> Result<(), Rejection> {
    match state.config_names.get(index_name(&new.spec.name).as_str()) {
        Some(id) if **id != new.id => taken("config", &new.spec.name),
        _ => Ok(()),
    }
}

fn secret_stays(new: &Secret, old: &Secret) -> Result<(), Rejection> {
    let same = new.spec.name == old.spec.name && new.data == old.data;
    ensure!(same, "only updates to Labels are allowed");
    Ok(())
}

fn config_stays(new: &Config, old: &Config) -> Result<(), Rejection> {
    let same = new.spec.name == old.spec.name && new.data == old.data;
    ensure!(same, "only updates to Labels are allowed");
    Ok(())
}

fn has_specs(state: &State, service: &Service) -> Result<(), Rejection> {
    // A later change of the same command may have deleted the service again.
    if state.service(service.id).is_none() {
        return Ok(());
    }
    for number in std::iter::once(service.current).chain(service.previous) {
        let key = ObjectKey::SpecVersion(service.id, number);
        state.spec(service.id, number).ok_or_else(|| missing(&key))?;
    }
    Ok(())
}

fn spec_refers(state: &State, version: &SpecVersion) -> Result<(), Rejection> {
    let key = ObjectKey::Service(version.service);
    state.service(version.service).ok_or_else(|| missing(&key))?;
    let container = &version.spec.task_template.container_spec;
    for it in &container.secrets {
        let known = state.secrets.get(&it.secret_id).map(|secret| secret.spec.name.as_str());
        reference("secret", &it.secret_name, &it.secret_id.to_string(), known)?;
    }
    for it in &container.configs {
        let known = state.configs.get(&it.config_id).map(|config| config.spec.name.as_str());
        reference("config", &it.config_name, &it.config_id.to_string(), known)?;
    }
    Ok(())
}

/// A reference holds an id and the name it had; both must fit.
fn reference(
    kind: &'static str,
    name: &str,
    id: &str,
    known: Option<&str>,
) -> Result<(), Rejection> {
    if known.is_some_and(|known| name.is_empty() || known == name) {
        return Ok(());
    }
    let id = if name.is_empty() { id } else { name };
    Err(Rejection::NotFound { kind, id: id.to_owned() })
}

fn spec_unused(state: &State, version: &SpecVersion) -> Result<(), Rejection> {
    let number = version.number;
    let wanted = state
        .service(version.service)
        .is_some_and(|it| it.current == number || it.previous == Some(number));
    ensure!(!wanted, "a spec version that its service refers to cannot be deleted");
    let runs = state.tasks_of(version.service).any(|task| task.spec == number);
    ensure!(!runs, "a spec version that a task refers to cannot be deleted");
    Ok(())
}

/// Services that are wanted and whose current spec meets a condition, by name.
fn users(state: &State, uses: impl Fn(&SpecVersion) -> bool) -> Option<String> {
    let names: Vec<_> = state
        .services
        .values()
        .filter(|service| !service.removing)
        .filter(|service| state.spec(service.id, service.current).is_some_and(|it| uses(it)))
        .map(|service| service.name.as_str())
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn uses_secret(version: &SpecVersion, id: SecretId) -> bool {
    version.spec.task_template.container_spec.secrets.iter().any(|it| it.secret_id == id)
}

fn uses_config(version: &SpecVersion, id: ConfigId) -> bool {
    version.spec.task_template.container_spec.configs.iter().any(|it| it.config_id == id)
}

fn secret_unused(state: &State, secret: &Secret) -> Result<(), Rejection> {
    users(state, |version| uses_secret(version, secret.id)).map_or(Ok(()), |by| {
        Err(Rejection::Referenced { kind: "secret", name: secret.spec.name.clone(), by })
    })
}

fn config_unused(state: &State, config: &Config) -> Result<(), Rejection> {
    users(state, |version| uses_config(version, config.id)).map_or(Ok(()), |by| {
        Err(Rejection::Referenced { kind: "config", name: config.spec.name.clone(), by })
    })
}

fn network_stays(new: &Network, old: &Network) -> Result<(), Rejection> {
    let same = new.name == old.name && new.vni == old.vni && new.subnet == old.subnet;
    ensure!(same, "name, VNI and subnet of a network never change");
    Ok(())
}

fn network_fits(state: &State, new: &Network) -> Result<(), Rejection> {
    if state.network_names.get(index_name(&new.name).as_str()).is_some() {
        return taken("network", &new.name);
    }
    for other in state.networks.values() {
        ensure!(other.vni != new.vni, "the VNI of a network is its own");
        if other.subnet.overlaps(new.subnet) {
            return broken(format!(
                "the subnet {} of network {} overlaps with {} of network {}",
                new.subnet, new.name, other.subnet, other.name
            ));
        }
    }
    Ok(())
}

fn network_unused(state: &State, network: &Network) -> Result<(), Rejection> {
    let default = state.cluster.as_ref().is_some_and(|it| it.default_network == network.id);
    ensure!(!default, "the cluster's default network cannot be deleted");
    let tasks =
        state.addresses_taken(network.id).any(|(_, owner)| matches!(owner, AddressOwner::Task(_)));
    ensure!(!tasks, "a network that has tasks cannot be deleted");
    Ok(())
}

fn network_node(state: &State, new: &NetworkNode) -> Result<(), Rejection> {
    let node = ObjectKey::Node(new.node);
    state.node(new.node).ok_or_else(|| missing(&node))?;
    let addr = IpAddr::V4(new.gateway);
    address_fits(state, new.network, addr, AddressOwner::Gateway(new.node))
}

fn address_fits(
    state: &State,
    network: NetworkId,
    addr: IpAddr,
    owner: AddressOwner,
) -> Result<(), Rejection> {
    let key = ObjectKey::Network(network);
    let subnet = state.networks.get(&network).ok_or_else(|| missing(&key))?.subnet;
    let inside = match addr {
        IpAddr::V4(addr) => subnet.offset(addr).is_some(),
        IpAddr::V6(_) => false,
    };
    if !inside {
        return broken(format!("address {addr} is not in the network's subnet {subnet}"));
    }
    match state.address_owner(network, addr) {
        Some(other) if other != owner => broken(format!("address {addr} is taken")),
        _ => Ok(()),
    }
}

fn task_refers(state: &State, new: &Task) -> Result<(), Rejection> {
    let service = ObjectKey::Service(new.service);
    state.service(new.service).ok_or_else(|| missing(&service))?;
    let version = ObjectKey::SpecVersion(new.service, new.spec);
    state.spec(new.service, new.spec).map(|_| ()).ok_or_else(|| missing(&version))
}

fn task_rises(new: &Task, old: &Task) -> Result<(), Rejection> {
    let origin = (new.service, new.spec, new.slot) == (old.service, old.spec, old.slot);
    ensure!(origin, "service, spec and slot of a task never change");
    ensure!(old.node.is_none() || new.node == old.node, "a task never changes its node");
    let addressed = old.addresses.is_empty() || new.addresses == old.addresses;
    ensure!(addressed, "the addresses of a task are set once");
    ensure!(new.desired >= old.desired, "the desired state of a task only rises");
    ensure!(new.status.state >= old.status.state, "the state of a task only rises");
    Ok(())
}

fn task(new: &Task) -> Result<(), Rejection> {
    let state = new.status.state;
    ensure!(state != TaskState::Remove, "remove is only ever a desired state");
    let placed = state < TaskState::Assigned || state.is_terminal() || new.node.is_some();
    ensure!(placed, "a task that is assigned has a node");
    Ok(())
}

/// What a task takes must be there and free. A task that has ended takes nothing.
fn task_takes(state: &State, new: &Task) -> Result<(), Rejection> {
    if new.status.state.is_terminal() {
        return Ok(());
    }
    let known = state.task(new.id);
    let had_node = known.is_some_and(|old| old.node.is_some());
    let had_addresses = known.is_some_and(|old| !old.addresses.is_empty());
    if let Some(id) = new.node.filter(|_| !had_node) {
        let key = ObjectKey::Node(id);
        state.node(id).ok_or_else(|| missing(&key))?;
        for (node, protocol, port) in state.ports_wanted(new) {
            if state.host_ports.get(&(node, protocol, port)).is_some_and(|it| **it != new.id) {
                let protocol = protocol.as_str();
                return broken(format!("port {port}/{protocol} is taken on node {node}"));
            }
        }
    }
    for it in new.addresses.iter().filter(|_| !had_addresses) {
        address_fits(state, it.network, it.addr, AddressOwner::Task(new.id))?;
    }
    Ok(())
}
