//! What is fuzzed: each thing that comes from a wire, a disk or a user, and what must hold of it.

use std::sync::Arc;

use prost::Message as _;

use super::mutate::Kind::{self, Bytes, Json, Text};
use crate::control::{Dirty, Lease, Observed, plan};
use crate::domain::admission::{Grant, normalise};
use crate::domain::assignment::AssignmentDiff;
use crate::domain::container::{FileTarget, SecretReference};
use crate::domain::placement::Constraint;
use crate::domain::task::Slot;
use crate::domain::{
    AssignmentSet, Format, Node, NodeId, Position, SecretId, Service, ServiceSpec, SpecPolicy,
    SpecVersion, Task, TaskId, TaskState, TaskStatus, Timestamp, UnlockKey,
};
use crate::identity::{Certificate, Credentials, authority, token};
use crate::state::{Change, Command, Object, State, View};
use crate::wire::node::{
    AgentMessage, Heartbeat, Hello, ManagerAddr, ManagerMessage, Managers, Report, TaskReport,
    Welcome, agent_message, manager_message,
};
use crate::wire::object::{decode_change, decode_object, encode_change, encode_object};
use crate::wire::types;
use crate::{agent, api, cli, dispatcher, dns, raft, runtime};

/// Something that reads what others wrote.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) run: fn(&[u8]),
    /// Real encodings, beside the corpus.
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! target {
    ($name:ident, $kind:expr, $run:expr, $seeds:expr) => {
        Target { name: stringify!($name), kind: $kind, run: $run, seeds: $seeds }
    };
}

/// All of them, in the order of the tests.
pub(super) const TARGETS: &[Target] = &[
    target!(raft_message, Bytes, raft::fuzz::message, raft::fuzz::messages),
    target!(raft_append, Bytes, raft::fuzz::append, || raft::fuzz::appends(changes())),
    target!(raft_snapshot, Bytes, raft::fuzz::snapshot, || raft::fuzz::snapshots(&state())),
    target!(log_record, Bytes, raft::fuzz::record, || raft::fuzz::records(changes())),
    target!(floor_file, Bytes, raft::fuzz::floor, raft::fuzz::floors),
    target!(stored_object, Bytes, stored_object, || golden("object.")),
    target!(stored_change, Bytes, stored_change, || golden("change.")),
    target!(agent_messages, Bytes, read_agent_message, agent_messages),
    target!(agent_session, Bytes, agent_session, agent_sessions),
    target!(manager_messages, Bytes, read_manager_message, manager_messages),
    target!(ledger_diff, Bytes, agent::fuzz::ledger, || golden("diff")),
    target!(service_spec, Json, service_spec, service_specs),
    target!(cluster_spec, Json, api::fuzz::cluster, cluster_specs),
    target!(node_spec, Json, api::fuzz::node, none),
    target!(join_token, Text, |bytes| text(bytes, join_token), none),
    target!(certificate, Bytes, certificate, none),
    target!(certificate_request, Text, |bytes| text(bytes, certificate_request), none),
    target!(credentials, Text, |bytes| text(bytes, credentials), private_keys),
    target!(apply, Bytes, apply, stories),
    target!(planner, Bytes, planner, stories),
    target!(dns_query, Bytes, dns::fuzz::query, none),
    target!(dns_reply, Bytes, dns::fuzz::reply, none),
    target!(constraint, Text, |bytes| text(bytes, constraint), none),
    target!(flag_values, Text, |bytes| text(bytes, cli::fuzz::values), none),
    target!(bind_path, Text, |bytes| text(bytes, bind_path), none),
    target!(file_target, Text, |bytes| text(bytes, file_target), none),
    target!(engine_container, Json, runtime::fuzz::engine, none),
    target!(task_template, Text, |bytes| text(bytes, runtime::fuzz::template), none),
    target!(format_template, Text, |bytes| text(bytes, cli::fuzz::template), none),
    target!(filters, Text, |bytes| text(bytes, api::fuzz::filters), none),
    target!(backup, Bytes, backup, none),
];

/// The corpus alone.
fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

fn text(bytes: &[u8], run: fn(&str)) {
    run(&String::from_utf8_lossy(bytes));
}

/// What the past formats have of a kind.
fn golden(kind: &str) -> Vec<Vec<u8>> {
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let file = include_str!("../../../tests/it/upgrade/format-1.txt");
    let lines = file.lines().filter_map(|line| line.split_once(' '));
    let of_kind = lines.filter(|(name, _)| name.starts_with(kind));
    of_kind.map(|(_, hex)| hex.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn changes() -> Vec<Change> {
    let all = golden("change.");
    let decoded: Vec<_> = all.iter().filter_map(|bytes| decode_change(bytes).ok()).collect();
    assert_eq!(decoded.len(), all.len());
    decoded
}

/// As much of a state as the golden changes make.
fn state() -> State {
    let mut state = State::default();
    for (number, change) in changes().into_iter().enumerate() {
        let index = u64::try_from(number).unwrap() + 1;
        let proposed_at = Timestamp(index);
        let command = Command { proposed_at, request: None, changes: vec![change] };
        drop(crate::state::apply(&mut state, &command, Position { term: 1, index }));
    }
    state
}

/// One object of each kind.
fn objects() -> Vec<Object> {
    golden("object.").iter().map(|bytes| decode_object(bytes).unwrap()).collect()
}

/// The golden node, and the task that it has in the cluster below.
fn worker() -> (NodeId, TaskId) {
    let node = objects().into_iter().find_map(|object| match object {
        Object::Node(node) => Some(node.id),
        _ => None,
    });
    (node.unwrap(), TaskId::from_bytes([0xa; 16]))
}

/// The golden objects with a task of the golden node, and one of another node; references before what refers.
fn cluster_with_two_tasks() -> Vec<Object> {
    let (worker, mine) = worker();
    let (other, theirs) = (NodeId::from_bytes([0xb; 16]), TaskId::from_bytes([0xc; 16]));
    let mut all = Vec::new();
    for object in objects() {
        match object {
            Object::Task(task) if matches!(task.slot, Slot::Number(_)) => {
                for (id, node) in [(mine, worker), (theirs, other)] {
                    let (addresses, status) = (Vec::new(), TaskStatus::default());
                    let node = Some(node);
                    all.push(Object::Task(Arc::new(Task {
                        id,
                        node,
                        addresses,
                        status,
                        ..(*task).clone()
                    })));
                }
            }
            Object::Task(_) => {}
            Object::Node(node) => {
                all.push(Object::Node(Arc::new(Node {
                    id: other,
                    manager: None,
                    ..(*node).clone()
                })));
                all.push(Object::Node(node));
            }
            Object::SpecVersion(version) => {
                let mut spec = (*version.spec).clone();
                spec.task_template.container_spec.secrets.clear();
                spec.task_template.container_spec.configs.clear();
                let spec = Arc::new(spec);
                all.push(Object::SpecVersion(Arc::new(SpecVersion { spec, ..(*version).clone() })));
            }
            Object::Service(service) => {
                all.push(Object::Service(Arc::new(Service {
                    previous: None,
                    ..(*service).clone()
                })));
            }
            object => all.push(object),
        }
    }
    let rank = |object: &Object| match object {
        Object::Cluster(_) => 0,
        Object::Node(_) | Object::Network(_) | Object::Secret(_) | Object::Config(_) => 1,
        Object::NetworkNode(_) | Object::SpecVersion(_) => 2,
        Object::Service(_) => 3,
        Object::Task(_) => 4,
    };
    all.sort_by_key(rank);
    all
}

fn stored_object(bytes: &[u8]) {
    if let Ok(object) = decode_object(bytes) {
        assert_eq!(decode_object(&encode_object(&object)), Ok(object));
    }
}

fn stored_change(bytes: &[u8]) {
    if let Ok(change) = decode_change(bytes) {
        assert_eq!(decode_change(&encode_change(&change)), Ok(change));
    }
}

fn read_agent_message(bytes: &[u8]) {
    if let Ok(message) = AgentMessage::decode(bytes) {
        assert_eq!(AgentMessage::decode(&*message.encode_to_vec()), Ok(message));
    }
    if let Ok(message) = types::TaskStatus::decode(bytes)
        && let Ok(status) = TaskStatus::try_from(message)
    {
        let lower = TaskStatus::default().join(status.clone());
        assert_eq!(lower.clone().join(status), lower, "joining twice is joining once");
    }
}

fn read_manager_message(bytes: &[u8]) {
    let Ok(message) = ManagerMessage::decode(bytes) else { return };
    if let Some(manager_message::Kind::Assignments(diff)) = message.kind.clone()
        && let Ok(diff) = AssignmentDiff::try_from(diff)
        && let Ok(set) = AssignmentSet::default().absorb(diff.clone())
    {
        drop(set.absorb(diff));
    }
    assert_eq!(ManagerMessage::decode(&*message.encode_to_vec()), Ok(message));
}

fn agent_messages() -> Vec<Vec<u8>> {
    let status = types::TaskStatus::from(&TaskStatus::default());
    let report = TaskReport { task: vec![3; 16].into(), status: Some(status.clone()) };
    let hello = Hello {
        description_json: br#"{"Hostname":"a"}"#.to_vec().into(),
        addr: vec![10, 0, 0, 1].into(),
        reports: vec![report.clone()],
        ..Hello::default()
    };
    let several = Report { tasks: vec![report.clone(), report], ..Report::default() };
    let kinds = [agent_message::Kind::Hello(hello), agent_message::Kind::Report(several)];
    let messages = kinds.map(|kind| AgentMessage { kind: Some(kind) }.encode_to_vec());
    [&messages[..], &[status.encode_to_vec()]].concat()
}

/// An agent that says message after message, each behind its length.
fn agent_session(bytes: &[u8]) {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while messages.len() < 64
        && !rest.is_empty()
        && let Ok(message) = AgentMessage::decode_length_delimited(&mut rest)
    {
        messages.push(message);
    }
    let (node, _) = worker();
    drop(dispatcher::fuzz::session(node, messages, cluster_with_two_tasks()));
}

fn agent_sessions() -> Vec<Vec<u8>> {
    let (_, task) = worker();
    let running = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let status = Some(types::TaskStatus::from(&running));
    let report = TaskReport { task: task.to_bytes().to_vec().into(), status };
    let mut messages: Vec<_> = agent_messages()
        .iter()
        .filter_map(|bytes| AgentMessage::decode(&**bytes).ok())
        .filter(|message| message.kind.is_some())
        .collect();
    let beat = agent_message::Kind::Heartbeat(Heartbeat::default());
    let reports = agent_message::Kind::Report(Report { tasks: vec![report], ..Report::default() });
    messages.extend([beat, reports].map(|kind| AgentMessage { kind: Some(kind) }));
    let (node, _) = worker();
    let view = dispatcher::fuzz::session(node, messages.clone(), cluster_with_two_tasks());
    let heard = view.task(task).map(|task| task.status.state);
    assert_eq!(heard, Some(TaskState::Running), "the agent is not heard, so nothing is tried");
    let whole: Vec<u8> =
        messages.iter().flat_map(AgentMessage::encode_length_delimited_to_vec).collect();
    vec![whole, messages[0].encode_length_delimited_to_vec()]
}

fn manager_messages() -> Vec<Vec<u8>> {
    let diff = types::AssignmentDiff::decode(&*golden("diff")[0]).unwrap();
    let manager = ManagerAddr { node: vec![1; 16].into(), addr: "10.0.0.1:2377".to_owned() };
    let kinds = [
        manager_message::Kind::Assignments(diff),
        manager_message::Kind::Managers(Managers { managers: vec![manager] }),
        manager_message::Kind::Welcome(Welcome { session: vec![7; 16].into(), heartbeat_ms: 250 }),
    ];
    kinds.map(|kind| ManagerMessage { kind: Some(kind) }.encode_to_vec()).to_vec()
}

fn service_spec(bytes: &[u8]) {
    let Some(spec) = api::fuzz::service(bytes) else { return };
    drop(SpecPolicy::default().violations(&spec));
    drop(SpecPolicy::everything().violations(&spec));
    runtime::fuzz::container(spec);
}

fn service_specs() -> Vec<Vec<u8>> {
    let samples: serde_json::Value =
        serde_json::from_str(include_str!("../../api/tests/samples.json")).unwrap();
    let sample = samples["POST services/create (docker CLI 28)"].to_string().into_bytes();
    vec![include_bytes!("../../../tests/it/upgrade/service-spec.json").to_vec(), sample]
}

fn cluster_specs() -> Vec<Vec<u8>> {
    let policy = Some(SpecPolicy::everything());
    let spec = crate::domain::cluster::ClusterSpec { policy, ..Default::default() };
    vec![serde_json::to_vec(&spec).unwrap()]
}

fn join_token(text: &str) {
    if let Ok(parsed) = token::parse(text) {
        drop(parsed.fingerprint());
    }
    if let Ok(key) = text.parse::<UnlockKey>() {
        assert_eq!(
            key.text().parse::<UnlockKey>().ok().map(|it| *it.expose()),
            Some(*key.expose())
        );
    }
}

fn certificate(bytes: &[u8]) {
    drop(Certificate::from_der(&bytes.to_vec().into()));
    drop(Certificate::from_pem(&String::from_utf8_lossy(bytes)));
}

fn certificate_request(text: &str) {
    if authority::Request::from_pem(text).is_ok() {
        assert!(text.len() <= authority::REQUEST_MAX, "a request of {} bytes", text.len());
    }
    drop(authority::digest(text));
}

fn credentials(text: &str) {
    let parts = Credentials {
        key_pem: crate::domain::secret::Sensitive::new(text.as_bytes()),
        certificate_pem: text.to_owned(),
        root_pem: text.to_owned(),
    };
    drop(parts.certificate());
    drop(parts.identity(&crate::env::Env::system().clock));
}

/// A key is made anew on each run: none lies in the corpus, not even one that opens nothing.
fn private_keys() -> Vec<Vec<u8>> {
    vec![crate::identity::NodeKey::generate().unwrap().pem().expose().to_vec()]
}

/// A story: changes, each behind its length.
fn story_of(bytes: &[u8]) -> Vec<Command> {
    let mut rest = bytes;
    let mut commands = Vec::new();
    while let Ok(message) = types::Change::decode_length_delimited(&mut rest) {
        if let Ok(change) = Change::try_from(message) {
            let proposed_at = Timestamp(u64::try_from(commands.len()).unwrap());
            commands.push(Command { proposed_at, request: None, changes: vec![change] });
        }
        if rest.is_empty() || commands.len() > 64 {
            break;
        }
    }
    commands
}

/// The state in which stories begin.
fn a_cluster() -> State {
    let put = |object| Change::Put { object, expect: crate::state::Expect::Any };
    let changes = cluster_with_two_tasks().into_iter().map(put).collect();
    let command = Command { proposed_at: Timestamp(1), request: None, changes };
    let mut state = State::default();
    let (outcome, _) = crate::state::apply(&mut state, &command, Position { term: 1, index: 1 });
    assert!(outcome.is_ok(), "{outcome:?}");
    state
}

/// Applied twice, a story comes to the same.
fn apply(bytes: &[u8]) {
    let commands = story_of(bytes);
    let run = || {
        let mut state = a_cluster();
        let mut outcomes = Vec::new();
        for (command, index) in commands.iter().zip(2..) {
            outcomes.push(crate::state::apply(&mut state, command, Position { term: 1, index }).0);
        }
        (outcomes, state)
    };
    let ((one, first), (other, second)) = (run(), run());
    assert_eq!(one, other);
    assert!(first.objects().eq(second.objects()), "the same story, another state");
    // A snapshot of it is read as what it was.
    for whole in raft::fuzz::snapshots(&first) {
        raft::fuzz::snapshot(&whole);
    }
}

/// Whatever state a cluster has come to, a plan follows from it alone, and every batch of it is taken.
fn planner(bytes: &[u8]) {
    let mut state = a_cluster();
    let mut index = 1;
    for command in story_of(bytes) {
        index += 1;
        drop(crate::state::apply(&mut state, &command, Position { term: 1, index }));
    }
    let now = Timestamp(3_600_000_000_000);
    let lease = Lease { renewed_at: now, format: Format::NEWEST, ..Lease::default() };
    let leases = state.nodes.iter().step_by(2).map(|(node, _)| (*node, lease)).collect();
    let observed =
        Observed { now, leases, seed: [index.to_le_bytes()[0]; 32], ..Observed::default() };
    for round in 0..3 {
        let view = View::new(state.clone());
        let found = plan(&view, &observed, &Dirty::All);
        assert_eq!(found, plan(&view, &observed, &Dirty::All), "the same arguments, another plan");
        for changes in found.changes {
            index += 1;
            let command = Command { proposed_at: now, request: None, changes };
            let (outcome, _) =
                crate::state::apply(&mut state, &command, Position { term: 1, index });
            assert!(outcome.is_ok(), "round {round}: {outcome:?}: {:#?}", command.changes);
        }
    }
}

fn stories() -> Vec<Vec<u8>> {
    let mut story = Vec::new();
    for change in golden("change.") {
        let message = types::Change::decode(&*change).unwrap();
        story.extend(message.encode_length_delimited_to_vec());
    }
    let mut objects = Vec::new();
    for object in cluster_with_two_tasks() {
        let change = Change::Put { object, expect: crate::state::Expect::Any };
        let message = types::Change::decode(&*encode_change(&change)).unwrap();
        objects.extend(message.encode_length_delimited_to_vec());
    }
    vec![[objects.clone(), story.clone()].concat(), story, objects]
}

fn constraint(text: &str) {
    if let Ok(constraint) = Constraint::parse(text) {
        drop(constraint);
    }
    drop(Constraint::parse_meetable(text));
}

fn bind_path(text: &str) {
    if SpecPolicy::default().bind(text, crate::domain::admission::Access::Write).is_ok() {
        let places = ["/srv", "/data", "/mnt", "/media"];
        let path = normalise(&text.replace("{{", "").replace("}}", "")).unwrap_or_default();
        assert!(places.iter().any(|place| path.starts_with(place)), "{text:?}");
    }
    if let Ok(grant) = text.parse::<Grant>() {
        assert_eq!(grant.to_string().parse::<Grant>().ok(), Some(grant));
    }
}

fn file_target(text: &str) {
    let file = |name: &str| FileTarget { name: name.to_owned(), ..FileTarget::default() };
    let mut spec = ServiceSpec { name: "a".to_owned(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "a".to_owned();
    spec.task_template.container_spec.secrets = vec![SecretReference {
        file: Some(file(text)),
        secret_id: SecretId::from_bytes([1; 16]),
        secret_name: "s".to_owned(),
    }];
    if spec.validate().is_ok() {
        assert!(!text.chars().any(char::is_control) && !text.split('/').any(|part| part == ".."));
        runtime::fuzz::container(spec);
    }
}

/// The header of a backup, with a digest that is right. The rest needs the passphrase.
fn backup(bytes: &[u8]) {
    drop(raft::archive::summary(bytes));
    let signed = [bytes, &crate::env::seal::digest(bytes)].concat();
    drop(raft::archive::summary(&signed));
}
