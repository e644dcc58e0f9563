//! What `apply` does and refuses, rule by rule.

use std::sync::Arc;

use super::*;
use crate::domain::container::{ConfigReference, SecretReference};
use crate::domain::secret::PayloadSpec;
use crate::domain::service::{EndpointSpec, PortConfig, PublishMode, UpdateState, UpdateStatus};
use crate::domain::{ServiceSpec, Timestamp};
use crate::state::fixtures::*;

pub(super) fn refused(state: &mut State, changes: Vec<Change>) -> Rejection {
    let before: Vec<_> = state.objects().collect();
    let (outcome, events) = commit(state, changes);
    assert!(events.is_empty());
    assert_eq!(state.objects().collect::<Vec<_>>(), before, "all or nothing");
    outcome.unwrap_err()
}

pub(super) fn done(state: &mut State, changes: Vec<Change>) -> Vec<Event> {
    let (outcome, events) = commit(state, changes);
    assert_eq!(outcome, Ok(Revision(state.position.index)));
    events
}

pub(super) fn delete(key: ObjectKey) -> Change {
    Change::Delete { key, expect: Expect::Any }
}

fn with_secret(number: u8) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.task_template.container_spec.secrets.push(SecretReference {
        file: None,
        secret_id: secret_id(number),
        secret_name: format!("secret{number}"),
    });
    spec
}

fn with_config(number: u8) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.task_template.container_spec.configs.push(ConfigReference {
        file: None,
        config_id: config_id(number),
        config_name: String::new(),
    });
    spec
}

fn with_port(published_port: u16) -> ServiceSpec {
    let port =
        PortConfig { published_port, publish_mode: PublishMode::Host, ..PortConfig::default() };
    ServiceSpec {
        endpoint_spec: Some(EndpointSpec { ports: vec![port], ..EndpointSpec::default() }),
        ..ServiceSpec::default()
    }
}

#[test]
fn create_sets_times_and_revisions() {
    let mut state = small();
    let events = done(&mut state, vec![create(secret(1))]);
    let stored = state.secrets_named("SECRET1").unwrap();
    assert_eq!(stored.meta.created_at, state.clock);
    assert_eq!(stored.meta.updated_at, state.clock);
    assert_eq!(stored.meta.revision, Revision(2));
    assert_eq!(stored.meta.spec_revision, Revision(2));
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, EventKind::Created);
    assert_eq!(events[0].object, Object::Secret(Arc::clone(stored)));
}

#[test]
fn only_a_change_of_the_wish_raises_the_spec_revision() {
    let mut state = small();
    let mut node = (**state.node(node_id(1)).unwrap()).clone();
    node.status.message = "well".into();
    done(&mut state, vec![put(node.clone(), Expect::At(Revision(1)))]);
    let meta = state.node(node_id(1)).unwrap().meta;
    assert_eq!((meta.revision, meta.spec_revision), (Revision(2), Revision(1)));
    assert!(meta.created_at < meta.updated_at);

    node.spec.name = "first".into();
    done(&mut state, vec![put(node, Expect::SpecAt(Revision(1)))]);
    let meta = state.node(node_id(1)).unwrap().meta;
    assert_eq!((meta.revision, meta.spec_revision), (Revision(3), Revision(3)));
}

#[test]
fn time_never_goes_back() {
    let mut state = small();
    let clock = state.clock;
    let command = Command { proposed_at: Timestamp(1), ..Command::default() };
    let (outcome, _) = apply(&mut state, &command, Position { term: 2, index: 9 });
    assert_eq!(outcome, Ok(Revision(9)));
    assert_eq!((state.clock, state.position.term), (clock, 2));
}

#[test]
fn a_rejected_command_changes_nothing_but_position_and_clock() {
    let mut state = small();
    let clock = state.clock;
    let other = crate::domain::Node { certified: crate::domain::node::Role::Manager, ..node(1) };
    let rejection = refused(&mut state, vec![create(secret(1)), create(other)]);
    assert_eq!(rejection, Rejection::Exists { kind: "node", id: node_id(1).to_string() });
    assert_eq!(state.position.index, 2);
    assert!(state.clock > clock);
    assert!(state.secrets_named("secret1").is_none());
}

#[test]
fn preconditions() {
    let mut state = small();
    let renamed = |name: &str| {
        let mut node = node(1);
        node.spec.name = name.into();
        node
    };
    let stale = Rejection::Stale { expected: Revision(7), actual: Revision(1) };
    assert_eq!(refused(&mut state, vec![put(renamed("a"), Expect::At(Revision(7)))]), stale);
    assert_eq!(refused(&mut state, vec![put(renamed("a"), Expect::SpecAt(Revision(7)))]), stale);
    let missing = Rejection::NotFound { kind: "node", id: node_id(9).to_string() };
    for expect in [Expect::Present, Expect::At(Revision(1)), Expect::SpecAt(Revision(1))] {
        assert_eq!(refused(&mut state, vec![put(node(9), expect)]), missing);
    }
    for (name, expect) in [("a", Expect::Present), ("b", Expect::Any)] {
        assert_eq!(done(&mut state, vec![put(renamed(name), expect)]).len(), 1);
    }
    let key = ObjectKey::Node(node_id(1));
    let delete_at = |revision| Change::Delete { key, expect: Expect::At(Revision(revision)) };
    assert!(matches!(refused(&mut state, vec![delete_at(1)]), Rejection::Stale { .. }));
    let now = state.node(node_id(1)).unwrap().meta.revision.0;
    assert_eq!(done(&mut state, vec![delete_at(now)])[0].kind, EventKind::Removed);
    assert!(done(&mut state, vec![delete_at(now)]).is_empty(), "gone already: success");
}

#[test]
fn retries_are_successes_without_effect() {
    let mut state = small();
    assert!(done(&mut state, vec![create(node(1))]).is_empty());
    assert!(done(&mut state, vec![put(node(1), Expect::At(Revision(77)))]).is_empty());
    assert!(done(&mut state, vec![create(version(1, 1, ServiceSpec::default()))]).is_empty());
    assert_eq!(state.node(node_id(1)).unwrap().meta.revision, Revision(1));
    let other = version(1, 1, with_port(80));
    assert!(matches!(refused(&mut state, vec![create(other)]), Rejection::Exists { .. }));
    let other = version(1, 1, with_port(80));
    let rejection = refused(&mut state, vec![put(other, Expect::Any)]);
    assert!(matches!(rejection, Rejection::Broken { .. }));
}

#[test]
fn a_users_write_spares_what_the_system_recorded() {
    let mut state = small();
    let read = (**state.node(node_id(1)).unwrap()).clone();
    let mut seen = read.clone();
    seen.status.message = "silent".into();
    done(&mut state, vec![put(seen, Expect::At(Revision(1)))]);
    let mut wish = read;
    wish.spec.name = "first".into();
    done(&mut state, vec![put(wish, Expect::SpecAt(Revision(1)))]);
    let node = state.node(node_id(1)).unwrap();
    assert_eq!((node.spec.name.as_str(), node.status.message.as_str()), ("first", "silent"));
}

#[test]
fn a_users_update_of_a_service_starts_its_update_afresh() {
    let mut state = small();
    let read = (**state.service(service_id(1)).unwrap()).clone();
    let status = UpdateStatus {
        state: UpdateState::Updating,
        target: 1,
        started_at: Timestamp(1),
        completed_at: None,
        batch_done_at: None,
        message: String::new(),
    };
    let running = crate::domain::Service { update: Some(status.clone()), ..read.clone() };
    done(&mut state, vec![put(running, Expect::At(Revision(1)))]);
    // The user removes it, having read it before the progress: the progress stays.
    let gone = crate::domain::Service { removing: true, ..read.clone() };
    done(&mut state, vec![put(gone, Expect::SpecAt(Revision(1)))]);
    let service = state.service(service_id(1)).unwrap();
    assert!(service.removing && service.update == Some(status));
    let spec_revision = service.meta.spec_revision;
    let next = crate::domain::Service { current: 2, previous: Some(1), ..read };
    let changes =
        vec![put(next, Expect::SpecAt(spec_revision)), create(version(1, 2, with_port(80)))];
    done(&mut state, changes);
    let service = state.service(service_id(1)).unwrap();
    assert_eq!((service.current, &service.update), (2, &None));
}

#[test]
fn names_are_unique_whatever_their_case() {
    let mut state = small();
    done(&mut state, vec![create(secret(1)), create(config(1))]);
    let mut other = service(2, 1);
    other.name = "WEB1".into();
    let changes = vec![create(other), create(version(2, 1, ServiceSpec::default()))];
    let text = refused(&mut state, changes).to_string();
    assert_eq!(text, "name conflicts with an existing object: service WEB1 already exists");
    let spec = |name: &str| PayloadSpec { name: name.into(), ..PayloadSpec::default() };
    let changes = vec![
        create(crate::domain::Secret { spec: spec("Secret1"), ..secret(2) }),
        create(crate::domain::Config { spec: spec("Config1"), ..config(2) }),
        create(crate::domain::Network { name: "Net1".into(), ..network(2) }),
    ];
    for change in changes {
        let rejection = refused(&mut state, vec![change]);
        assert!(matches!(rejection, Rejection::NameInUse { .. }), "{rejection}");
    }
    // A name is free again in the very command that gives it up.
    let again = vec![
        delete(ObjectKey::Secret(secret_id(1))),
        create(crate::domain::Secret { id: secret_id(5), ..secret(1) }),
    ];
    done(&mut state, again);
    assert_eq!(state.secrets_named("secret1").unwrap().id, secret_id(5));
}

#[test]
fn references_must_hold_in_whatever_order_they_come() {
    let mut state = small();
    let service2 = || create(service(2, 1));
    let rejection = refused(&mut state, vec![service2()]);
    assert_eq!(rejection.to_string(), format!("spec version {}:1 not found", service_id(2)));
    let rejection = refused(&mut state, vec![create(version(2, 1, ServiceSpec::default()))]);
    assert!(matches!(rejection, Rejection::NotFound { kind: "service", .. }));
    let uses = || vec![create(version(2, 1, with_secret(1))), service2()];
    assert_eq!(refused(&mut state, uses()).to_string(), "secret secret1 not found");
    let mut with_its_secret = uses();
    with_its_secret.push(create(secret(1)));
    done(&mut state, with_its_secret);
}

#[test]
fn a_reference_by_a_wrong_name_is_refused() {
    let mut state = small();
    done(&mut state, vec![create(secret(1))]);
    let mut spec = with_secret(1);
    spec.task_template.container_spec.secrets[0].secret_name = "other".into();
    let changes = vec![create(service(2, 1)), create(version(2, 1, spec))];
    assert_eq!(refused(&mut state, changes).to_string(), "secret other not found");
}

#[test]
fn what_a_service_uses_cannot_be_deleted() {
    let mut state = small();
    done(&mut state, vec![create(secret(1)), create(config(1))]);
    for (number, spec) in [(2, with_secret(1)), (3, with_config(1)), (4, with_secret(1))] {
        done(&mut state, vec![create(service(number, 1)), create(version(number, 1, spec))]);
    }
    let secret = || delete(ObjectKey::Secret(secret_id(1)));
    let text = refused(&mut state, vec![secret()]).to_string();
    assert_eq!(text, "secret 'secret1' is in use by the following services: web2, web4");
    let text = refused(&mut state, vec![delete(ObjectKey::Config(config_id(1)))]).to_string();
    assert_eq!(text, "config 'config1' is in use by the following service: web3");
    // An old version, or a service that is being removed, holds nothing.
    let gone = crate::domain::Service { removing: true, ..service(4, 1) };
    let next = crate::domain::Service { current: 2, previous: Some(1), ..service(2, 1) };
    let changes = vec![
        put(gone, Expect::Present),
        put(next, Expect::Present),
        create(version(2, 2, ServiceSpec::default())),
    ];
    done(&mut state, changes);
    done(&mut state, vec![secret()]);
}

#[test]
fn payloads_never_change() {
    let mut state = small();
    done(&mut state, vec![create(config(1))]);
    let other = crate::domain::Config { data: b"new".as_slice().into(), ..config(1) };
    let text = refused(&mut state, vec![put(other, Expect::Present)]).to_string();
    assert_eq!(text, "only updates to Labels are allowed");
    let mut labelled = config(1);
    labelled.spec.labels.insert("a".into(), "b".into());
    done(&mut state, vec![put(labelled, Expect::Present)]);
    assert_eq!(state.configs_named("config1").unwrap().meta.spec_revision, Revision(4));
}

#[test]
fn spec_versions_in_use_cannot_be_deleted() {
    let mut state = small();
    let key = |number| delete(ObjectKey::SpecVersion(service_id(1), number));
    assert!(refused(&mut state, vec![key(1)]).to_string().contains("its service refers to"));
    done(&mut state, vec![create(task(1, 1))]);
    let gone = vec![delete(ObjectKey::Service(service_id(1))), key(1)];
    assert!(refused(&mut state, gone.clone()).to_string().contains("a task refers to"));
    let mut all = gone;
    all.push(delete(ObjectKey::Task(task_id(1))));
    done(&mut state, all);
    assert_eq!(state.specs.len() + state.tasks_by_service.len(), 0);
}

#[test]
fn tasks_only_rise() {
    let mut state = small();
    done(&mut state, vec![create(placed(1, 1, 1, TaskState::Starting))]);
    let now = placed(1, 1, 1, TaskState::Starting);
    let wrong: Vec<Task> = vec![
        placed(1, 1, 2, TaskState::Starting),
        placed(1, 1, 1, TaskState::Ready),
        Task { node: None, ..now.clone() },
        Task { addresses: vec![address(77)], ..now.clone() },
        Task { desired: TaskState::Ready, ..now.clone() },
        Task { spec: 2, ..now.clone() },
        Task { slot: crate::domain::task::Slot::Number(9), ..now.clone() },
        placed(1, 1, 1, TaskState::Remove),
    ];
    for task in wrong {
        let rejection = refused(&mut state, vec![put(task, Expect::Any)]);
        assert!(matches!(rejection, Rejection::Broken { .. }), "{rejection}");
    }
    let stop = Task { desired: TaskState::Shutdown, ..now };
    done(&mut state, vec![put(stop, Expect::Any)]);
    let nowhere = Task { node: None, ..placed(2, 1, 1, TaskState::Assigned) };
    assert!(refused(&mut state, vec![create(nowhere)]).to_string().contains("has a node"));
    assert!(matches!(
        refused(&mut state, vec![create(placed(2, 1, 9, TaskState::Assigned))]),
        Rejection::NotFound { kind: "node", .. }
    ));
}

#[test]
fn a_wish_for_a_task_does_not_lose_to_a_report_made_meanwhile() {
    let mut state = small();
    done(&mut state, vec![create(placed(1, 1, 1, TaskState::Starting))]);
    let read = placed(1, 1, 1, TaskState::Starting);
    let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let report = Change::ReportTask { task: task_id(1), node: node_id(1), status };
    done(&mut state, vec![report]);
    let stop = Task { desired: TaskState::Shutdown, ..read.clone() };
    done(&mut state, vec![put(stop, Expect::Present)]);
    done(&mut state, vec![put(read, Expect::Present)]);
    let task = state.task(task_id(1)).unwrap();
    assert_eq!((task.status.state, task.desired), (TaskState::Running, TaskState::Shutdown));
}

#[test]
fn addresses_have_one_owner_until_the_task_ends() {
    let mut state = small();
    done(&mut state, vec![create(placed(1, 1, 1, TaskState::Running))]);
    let rival = || Task { addresses: vec![address(1)], ..placed(2, 1, 2, TaskState::Pending) };
    let text = refused(&mut state, vec![create(rival())]).to_string();
    assert_eq!(text, "address 10.1.0.1 is taken");
    let gateway =
        crate::domain::NetworkNode { gateway: std::net::Ipv4Addr::new(10, 1, 0, 1), ..part(1, 3) };
    let again = vec![delete(ObjectKey::NetworkNode(network_id(1), node_id(3))), create(gateway)];
    assert!(matches!(refused(&mut state, again), Rejection::Broken { .. }));
    let outside = Task {
        addresses: vec![crate::domain::task::TaskAddress {
            addr: "10.9.0.1".parse().unwrap(),
            ..address(1)
        }],
        ..task(3, 1)
    };
    assert!(refused(&mut state, vec![create(outside)]).to_string().contains("not in the"));
    let ended = report(1, 1, TaskState::Failed);
    done(&mut state, vec![ended, create(rival())]);
    let owner = state.address_owner(network_id(1), address(1).addr);
    assert_eq!(owner, Some(crate::state::AddressOwner::Task(task_id(2))));
    // The ended task's record goes; the address stays with its new owner.
    done(&mut state, vec![delete(ObjectKey::Task(task_id(1)))]);
    assert_eq!(state.address_owner(network_id(1), address(1).addr), owner);
}

#[test]
fn next_free_address_goes_on_from_the_cursor() {
    let mut state = small();
    let mut net = network(1);
    assert_eq!(state.free_address(&net), Some(("10.1.0.1".parse().unwrap(), 2)));
    done(&mut state, vec![create(placed(2, 1, 1, TaskState::Running))]);
    net.cursor = 2;
    assert_eq!(state.free_address(&net), Some(("10.1.0.3".parse().unwrap(), 4)));
    net.cursor = 65_534;
    assert_eq!(state.free_address(&net), Some(("10.1.255.254".parse().unwrap(), 1)));
    let tiny = crate::domain::Network {
        subnet: crate::domain::network::Subnet { base: "10.1.0.1".parse().unwrap(), prefix: 30 },
        ..net
    };
    assert_eq!(state.free_address(&tiny), Some(("10.1.0.3".parse().unwrap(), 1)));
    done(&mut state, vec![create(placed(3, 1, 1, TaskState::Running))]);
    assert_eq!(state.free_address(&tiny), None);
}

fn report(task: u8, node: u8, state: TaskState) -> Change {
    let status = TaskStatus { state, at: Timestamp(5), ..TaskStatus::default() };
    Change::ReportTask { task: task_id(task), node: node_id(node), status }
}

#[test]
fn host_ports_have_one_owner_per_node() {
    let mut state = small();
    done(&mut state, vec![create(service(2, 1)), create(version(2, 1, with_port(80)))]);
    let on = |number, node| Task {
        slot: crate::domain::task::Slot::Node(node_id(node)),
        ..placed(number, 2, node, TaskState::Assigned)
    };
    done(&mut state, vec![create(on(1, 1)), create(on(2, 2))]);
    let text = refused(&mut state, vec![create(on(3, 1))]).to_string();
    assert_eq!(text, format!("port 80/tcp is taken on node {}", node_id(1)));
    let waiting = Task { node: None, status: TaskStatus::default(), ..on(3, 1) };
    done(&mut state, vec![create(waiting)]);
    assert!(matches!(
        refused(&mut state, vec![put(on(3, 1), Expect::Present)]),
        Rejection::Broken { .. }
    ));
    done(&mut state, vec![report(1, 1, TaskState::Shutdown), put(on(3, 1), Expect::Present)]);
    let taken: Vec<_> = state.ports_taken_on(node_id(1)).map(|(_, port, by)| (port, by)).collect();
    assert_eq!(taken, [(80, task_id(3))]);
}

#[test]
fn reports_join_and_never_fail() {
    let mut state = small();
    done(&mut state, vec![create(placed(1, 1, 1, TaskState::Assigned))]);
    assert_eq!(done(&mut state, vec![report(1, 1, TaskState::Running)]).len(), 1);
    for late in [
        report(1, 1, TaskState::Preparing),
        report(1, 1, TaskState::Running),
        report(1, 2, TaskState::Failed),
        report(9, 1, TaskState::Failed),
        report(1, 1, TaskState::Remove),
    ] {
        assert!(done(&mut state, vec![late]).is_empty());
    }
    assert_eq!(state.task(task_id(1)).unwrap().status.state, TaskState::Running);
    let same = Arc::as_ptr(state.task(task_id(1)).unwrap());
    assert_eq!(Arc::as_ptr(state.tasks_on(node_id(1)).next().unwrap()), same);
    assert_eq!(Arc::as_ptr(state.tasks_of(service_id(1)).next().unwrap()), same);
}

#[test]
fn a_nodes_report_is_written_once() {
    let mut state = small();
    let report = |node| Change::ReportNode {
        node: node_id(node),
        description: Description { hostname: "new".into(), ..Description::default() },
        addr: "192.0.2.1".parse().unwrap(),
    };
    assert_eq!(done(&mut state, vec![report(1)]).len(), 1);
    assert!(done(&mut state, vec![report(1), report(9)]).is_empty());
    assert_eq!(state.node(node_id(1)).unwrap().meta.spec_revision, Revision(1));
}
