//! What is written comes back, whatever was torn off, and no secret lies in the open.

use std::path::PathBuf;

use super::*;
use crate::domain::secret::PayloadSpec;
use crate::domain::task::Slot;
use crate::domain::{
    Meta, Position, SecretId, ServiceId, ServiceSpec, SpecVersion, Task, TaskState, Timestamp,
};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn open(&self) -> Ledger {
        let key = self.dir.path().join("key");
        let node = NodeId::from_bytes([4; 16]);
        Ledger::open(node, &self.path(), &key, &Env::system()).unwrap()
    }
}

fn task(number: u8) -> Task {
    Task {
        id: TaskId::from_bytes([number; 16]),
        meta: Meta::default(),
        service: ServiceId::from_bytes([9; 16]),
        spec: 1,
        slot: Slot::Number(u32::from(number)),
        node: Some(NodeId::from_bytes([4; 16])),
        addresses: Vec::new(),
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
    }
}

fn set(index: u64, tasks: &[u8]) -> AssignmentSet {
    let mut set = AssignmentSet::at(Position { term: 1, index });
    for number in tasks {
        set.insert(Item::Task(Arc::new(task(*number))));
    }
    let mut spec = ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() };
    spec.task_template.container_spec.pull_options =
        Some(PullOptions { registry_auth: RegistryAuth::new("eyJ1c2VybmFtZSI6Im1lIn0=".into()) });
    set.insert(Item::SpecVersion(Arc::new(SpecVersion {
        service: ServiceId::from_bytes([9; 16]),
        number: 1,
        spec: Arc::new(spec),
    })));
    set.insert(Item::Secret(Arc::new(Secret {
        id: SecretId::from_bytes([7; 16]),
        meta: Meta::default(),
        spec: PayloadSpec { name: "key".to_owned(), ..PayloadSpec::default() },
        data: Sensitive::new(b"correct horse battery staple"),
    })));
    set
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, at: Timestamp(5), message: "m".to_owned(), ..TaskStatus::default() }
}

fn fill(ledger: &mut Ledger) -> Memory {
    let one = set(1, &[1, 2]);
    let two = set(2, &[2, 3]);
    let managers = vec![(NodeId::from_bytes([1; 16]), "10.0.0.1:2377".parse().unwrap())];
    ledger.write(vec![Note::Diff(AssignmentSet::default().diff(&one))]).unwrap();
    ledger.write(vec![Note::Status(task(1).id, status(TaskState::Running))]).unwrap();
    ledger.write(vec![Note::Status(task(2).id, status(TaskState::Running))]).unwrap();
    ledger.write(vec![Note::Managers(managers.clone())]).unwrap();
    ledger.write(vec![Note::Diff(one.diff(&two))]).unwrap();
    let statuses = BTreeMap::from([(task(2).id, status(TaskState::Running))]);
    Memory { set: two, statuses, managers }
}

#[test]
fn everything_comes_back() {
    let place = Place::new();
    let wanted = fill(&mut place.open());
    assert_eq!(place.open().memory(), &wanted);
    assert_eq!(place.open().memory(), &wanted, "and again from the file written anew");
}

#[test]
fn torn_tail_costs_only_the_last_record() {
    let place = Place::new();
    fill(&mut place.open());
    let whole = std::fs::read(place.path()).unwrap();
    let mut last = 0;
    for cut in (0..=whole.len()).step_by(7).chain([whole.len()]) {
        std::fs::write(place.path(), &whole[..cut]).unwrap();
        let index = place.open().memory().set.position.index;
        assert!(index >= last, "a longer file knows no less ({cut})");
        last = index;
    }
    assert_eq!(last, 2);
}

#[test]
fn flipped_bit_ends_the_replay() {
    let place = Place::new();
    fill(&mut place.open());
    let mut bytes = std::fs::read(place.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(place.path(), &bytes).unwrap();
    assert!(place.open().memory().set.position.index < 2);
}

#[test]
fn secret_is_never_on_the_disk_and_is_lost_with_its_key() {
    let place = Place::new();
    fill(&mut place.open());
    let bytes = std::fs::read(place.path()).unwrap();
    let found = bytes.windows(13).any(|window| window == b"correct horse");
    assert!(!found, "the secret lies in the open");
    let id = SecretId::from_bytes([7; 16]);
    let known = place.open().memory().set.secret(id).cloned().unwrap();
    assert_eq!(known.data.expose(), b"correct horse battery staple");
    std::fs::remove_file(place.dir.path().join("key")).unwrap();
    let after_reboot = place.open();
    assert_eq!(after_reboot.memory().set.secret(id), None);
    assert_eq!(after_reboot.memory().set.position.index, 2);
    assert!(after_reboot.memory().set.task(task(3).id).is_some());
}

#[test]
fn registry_credentials_are_never_on_the_disk_and_are_lost_with_the_key() {
    let place = Place::new();
    fill(&mut place.open());
    let bytes = std::fs::read(place.path()).unwrap();
    let found = bytes.windows(12).any(|window| window == b"eyJ1c2VybmFt");
    assert!(!found, "the credentials lie in the open");
    std::fs::remove_file(place.dir.path().join("key")).unwrap();
    let after_reboot = place.open();
    let set = &after_reboot.memory().set;
    let version = set.spec(ServiceId::from_bytes([9; 16]), 1).unwrap();
    assert_eq!(version.spec.name, "web");
    assert_eq!(version.spec.task_template.container_spec.registry_auth(), None);
}

#[test]
fn ledger_of_another_node_is_as_good_as_none() {
    let place = Place::new();
    fill(&mut place.open());
    let key = place.dir.path().join("key");
    let other = NodeId::from_bytes([5; 16]);
    let ledger = Ledger::open(other, &place.path(), &key, &Env::system()).unwrap();
    assert_eq!(ledger.memory(), &Memory::default());
}

#[test]
fn file_that_grows_is_written_anew() {
    let place = Place::new();
    let mut ledger = place.open();
    fill(&mut ledger);
    let text = "x".repeat(1000);
    for round in 0..5000u64 {
        let status =
            TaskStatus { message: text.clone(), at: Timestamp(round), ..TaskStatus::default() };
        ledger.write(vec![Note::Status(task(2).id, status)]).unwrap();
    }
    drop(ledger);
    assert!(std::fs::metadata(place.path()).unwrap().len() < 2 * SLACK);
    let ledger = place.open();
    assert_eq!(ledger.memory().statuses[&task(2).id].at, Timestamp(4999));
    assert_eq!(ledger.memory().set, set(2, &[2, 3]));
}
