//! The agent against the model of the engine and a manager made of channels.

mod connector;
mod guarded;
mod world;

use serde_json::{Value, json};

use super::*;
use crate::domain::assignment::Item;
use crate::domain::container::RegistryAuth;
use crate::domain::secret::{PayloadSpec, Sensitive};
use crate::domain::task::Slot;
use crate::domain::{
    Meta, Position, Secret, SecretId, ServiceId, ServiceSpec, SpecVersion, Task, TaskState,
    TaskStatus, Timestamp,
};
use crate::runtime::model::{Call, Up};
use crate::runtime::{ContainerPlan, Health, NodeFacts, Phase};
use crate::wire::node::Trust;
use crate::wire::node::manager_message::Kind as ToAgent;
use world::{LONG, NODE, World};

fn task(number: u8, desired: TaskState) -> Task {
    Task {
        id: TaskId::from_bytes([number; 16]),
        meta: Meta::default(),
        service: ServiceId::from_bytes([number; 16]),
        spec: 1,
        slot: Slot::Number(1),
        node: Some(NODE),
        addresses: Vec::new(),
        desired,
        not_before: Timestamp(0),
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
    }
}

fn spec(args: &[&str]) -> Value {
    json!({
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Args": args},
            "Networks": [{"Target": "host"}]
        }
    })
}

fn set(index: u64, tasks: &[(Task, Value)]) -> AssignmentSet {
    let mut set = AssignmentSet::at(Position { term: 1, index });
    for (task, spec) in tasks {
        set.insert(Item::Task(Arc::new(task.clone())));
        let spec: ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
        set.insert(Item::SpecVersion(Arc::new(SpecVersion {
            service: task.service,
            number: 1,
            spec: Arc::new(spec),
        })));
    }
    set
}

fn one(index: u64, desired: TaskState, spec: &Value) -> (TaskId, AssignmentSet) {
    let task = task(1, desired);
    (task.id, set(index, &[(task, spec.clone())]))
}

#[tokio::test]
async fn task_lives_and_ends_as_assigned() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let spec = spec(&["sleep"]);
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!((status.message.as_str(), status.error.as_str()), ("started", ""));
    assert!(status.container.unwrap().pid > 0);
    assert_eq!(life.agent.local().borrow().get(&id), Some(&true));
    let made = vec![Call::Create(id), Call::Start(id)];
    assert_eq!(world.engine.calls(), made, "nothing else stands before a start");
    let described = world.engine.descriptions();

    manager.assign(one(2, TaskState::Shutdown, &spec).1).await;
    let status = manager.until(&world.env, id, TaskState::Shutdown).await;
    assert_eq!(status.message, "shutdown");
    assert_eq!(status.container.unwrap().exit_code, Some(137));
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    assert_eq!(world.count(&Call::Remove(id)), 0, "what has stopped stays for its logs");

    manager.assign(set(3, &[])).await;
    world.until("removed", || world.count(&Call::Remove(id)) == 1).await;
    world.until("forgotten", || life.agent.local().borrow().is_empty()).await;
    assert_eq!(world.engine.descriptions(), described, "assignments are no news of the engine");
    life.kill().await;
}

#[tokio::test]
async fn statuses_tell_how_a_task_ended() {
    for (args, state, error) in [
        (["true"], TaskState::Complete, ""),
        (["exit 3"], TaskState::Failed, "task: non-zero exit (3)"),
    ] {
        let world = World::new();
        let mut life = world.start().await;
        let mut manager = life.manager().await;
        let (id, running) = one(1, TaskState::Running, &spec(&args));
        manager.assign(running).await;
        let status = manager.until(&world.env, id, state).await;
        assert_eq!(status.error, error);
        let states: Vec<_> = manager.statuses[&id].iter().map(|status| status.state).collect();
        assert!(states.is_sorted(), "{states:?}");
        life.kill().await;
    }
}

#[tokio::test]
async fn restarted_agent_adopts_what_runs() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(7, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running.clone()).await;
    let before = manager.until(&world.env, id, TaskState::Running).await;
    life.kill().await;

    let mut life = world.start().await;
    assert_eq!(*life.agent.assignments().borrow().as_ref(), running, "from the ledger");
    let local = life.agent.local();
    world.until("adopted without a manager", || local.borrow().get(&id) == Some(&true)).await;
    let mut manager = life.manager().await;
    let after = manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(after.container, before.container, "the same process");
    manager.assign(running).await;
    assert_eq!(world.engine.calls(), [Call::Create(id), Call::Start(id)]);
    life.kill().await;
}

#[tokio::test]
async fn what_happens_before_the_welcome_is_reported_after_it() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    drop(manager);
    let mut manager = life.greeted().await;
    assert_eq!(manager.statuses[&id].last().unwrap().state, TaskState::Running, "hello");
    let agent = &life.agent;
    world.engine.exit(id, 3);
    world.until("noticed", || agent.census().contains_key(&TaskState::Failed)).await;
    manager.welcome().await;
    manager.until(&world.env, id, TaskState::Failed).await;
    assert_eq!(manager.statuses[&id].len(), 2, "nothing is said twice");
    life.kill().await;
}

#[tokio::test]
async fn what_a_session_reported_that_is_left_is_reported_again() {
    let world = World::new();
    let mut life = world.start().await;
    let mut own = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    own.assign(running).await;
    own.until(&world.env, id, TaskState::Running).await;
    connector::say_managers(&own, &[connector::OWN, connector::OTHER]).await;
    let mut other = life.greeted().await;
    world.engine.exit(id, 3);
    // Who knows what becomes of this report: its session ends now.
    own.until(&world.env, id, TaskState::Failed).await;
    other.welcome().await;
    other.until(&world.env, id, TaskState::Failed).await;
    life.kill().await;
}

#[tokio::test]
async fn crash_between_create_and_start_is_made_good() {
    let world = World::new();
    let spec = spec(&["sleep"]);
    let task = task(1, TaskState::Running);
    let plan = ContainerPlan {
        task: Arc::new(task.clone()),
        spec: Arc::new(serde_json::from_value(spec.clone()).unwrap()),
        node: NodeFacts { id: NODE, ..NodeFacts::default() },
        network: None,
        files_dir: PathBuf::from("/nonexistent"),
    };
    world.engine.plant(&plan, Phase::Created);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    manager.assign(set(1, &[(task.clone(), spec)])).await;
    manager.until(&world.env, task.id, TaskState::Running).await;
    assert_eq!(world.engine.list().await.unwrap().len(), 1);
    assert_eq!(world.count(&Call::Start(task.id)), 1);
    life.kill().await;
}

#[tokio::test]
async fn container_that_nobody_knows_goes_after_the_managers_word() {
    let world = World::new();
    let stray = task(9, TaskState::Running);
    let plan = ContainerPlan {
        task: Arc::new(stray.clone()),
        spec: Arc::new(serde_json::from_value(spec(&["sleep"])).unwrap()),
        node: NodeFacts { id: NODE, ..NodeFacts::default() },
        network: None,
        files_dir: PathBuf::from("/nonexistent"),
    };
    world.engine.plant(&plan, Phase::Running(Health::Unchecked));
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    world.env.clock.sleep(Duration::from_millis(50)).await;
    assert_eq!(world.engine.calls(), [], "without a manager's word nothing is removed");
    manager.assign(set(1, &[])).await;
    world.until("removed", || world.count(&Call::Remove(stray.id)) == 1).await;
    assert_eq!(world.engine.list().await.unwrap(), []);
    life.kill().await;
}

#[tokio::test]
async fn older_assignments_are_refused() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let spec = spec(&["sleep"]);
    let (id, running) = one(5, TaskState::Running, &spec);
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    // A manager that lags sends an empty world from before.
    manager.sent = AssignmentSet::default();
    manager.assign(set(4, &[])).await;
    let mut next = life.manager().await;
    assert_eq!(life.agent.assignments().borrow().position.index, 5);
    assert_eq!(world.count(&Call::Stop(id)), 0);
    // The same set again changes nothing.
    next.assign(one(5, TaskState::Running, &spec).1).await;
    next.assign(one(6, TaskState::Running, &spec).1).await;
    let sets = life.agent.assignments();
    world.until("position", || sets.borrow().position.index == 6).await;
    assert_eq!(world.engine.calls(), [Call::Create(id), Call::Start(id)]);
    life.kill().await;
}

#[tokio::test]
async fn health_gates_serving_and_ends_the_task() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let mut spec = spec(&["sleep"]);
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({"Test": ["CMD", "true"]});
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Starting).await;
    world.until("started", || world.count(&Call::Start(id)) == 1).await;
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    world.engine.set_health(id, Health::Healthy);
    manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(life.agent.local().borrow().get(&id), Some(&true));
    world.engine.set_health(id, Health::Unhealthy);
    let status = manager.until(&world.env, id, TaskState::Failed).await;
    assert_eq!(status.error, "task: non-zero exit (137): dockerexec: unhealthy container");
    assert_eq!(life.agent.local().borrow().get(&id), Some(&false));
    life.kill().await;
}

#[tokio::test]
async fn image_is_pulled_only_when_absent_and_its_absence_rejects() {
    let world = World::new();
    world.engine.publish_image("there:1");
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let image = |name: &str| {
        let mut spec = spec(&["sleep"]);
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(name);
        spec
    };
    let (good, bad) = (task(1, TaskState::Running), task(2, TaskState::Running));
    let tasks = [(good.clone(), image("there:1")), (bad.clone(), image("nope:1"))];
    manager.assign(set(1, &tasks)).await;
    manager.until(&world.env, good.id, TaskState::Running).await;
    let status = manager.until(&world.env, bad.id, TaskState::Rejected).await;
    assert!(status.error.starts_with("No such image: nope:1"), "{}", status.error);
    assert_eq!(status.message, "preparing");
    assert_eq!(world.count(&Call::Pull("there:1".to_owned())), 1);
    life.kill().await;
}

#[tokio::test]
async fn private_image_is_pulled_with_the_users_credentials() {
    let world = World::new();
    world.engine.publish_private_image("private:1", RegistryAuth::new("bWU6cHc=".to_owned()));
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let with = |auth: Option<&str>| {
        let mut spec = spec(&["sleep"]);
        let container = &mut spec["TaskTemplate"]["ContainerSpec"];
        container["Image"] = json!("private:1");
        if let Some(auth) = auth {
            container["PullOptions"] = json!({"RegistryAuth": auth});
        }
        spec
    };
    let all = [task(1, TaskState::Running), task(2, TaskState::Running)];
    let tasks = [(all[0].clone(), with(None)), (all[1].clone(), with(Some("d3Jvbmc=")))];
    manager.assign(set(1, &tasks)).await;
    for task in &all {
        let status = manager.until(&world.env, task.id, TaskState::Rejected).await;
        assert!(status.error.contains("unauthorized"), "{}", status.error);
    }
    let good = task(3, TaskState::Running);
    manager.assign(set(2, &[(good.clone(), with(Some("bWU6cHc=")))])).await;
    manager.until(&world.env, good.id, TaskState::Running).await;
    life.kill().await;
}

#[tokio::test]
async fn port_of_somebody_else_rejects_the_task() {
    let world = World::new();
    world.engine.take_port(8080);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let mut spec = spec(&["sleep"]);
    spec["EndpointSpec"] =
        json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]});
    let (id, running) = one(1, TaskState::Running, &spec);
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Rejected).await;
    assert!(status.error.contains("address already in use"), "{}", status.error);
    life.kill().await;
}

#[tokio::test]
async fn node_without_engine_says_so_and_goes_on_when_it_comes() {
    let world = World::new();
    world.engine.set_up(Up::Down);
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    let status = manager.until(&world.env, id, TaskState::Preparing).await;
    world.until("degraded", || life.agent.describe().degraded.contains("engine is down")).await;
    assert!(status.error.is_empty() || status.error.contains("engine is down"));
    world.engine.set_up(Up::Answers);
    manager.until(&world.env, id, TaskState::Running).await;
    world.until("well again", || life.agent.describe().degraded.is_empty()).await;
    life.kill().await;
}

#[tokio::test]
async fn task_waits_for_its_secret_and_its_files_go_with_it() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let secret = SecretId::from_bytes([7; 16]);
    let mut spec = spec(&["sleep"]);
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{
        "SecretID": secret, "SecretName": "key",
        "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o400}
    }]);
    let (id, without) = one(1, TaskState::Running, &spec);
    manager.assign(without).await;
    manager.until(&world.env, id, TaskState::Preparing).await;
    let (_, mut with) = one(2, TaskState::Running, &spec);
    with.insert(Item::Secret(Arc::new(Secret {
        id: secret,
        meta: Meta::default(),
        spec: PayloadSpec::default(),
        data: Sensitive::new(b"hush"),
    })));
    manager.assign(with).await;
    manager.until(&world.env, id, TaskState::Running).await;
    let dir = world.dir.path().join("run/tasks").join(id.to_string());
    let file = dir.join("secrets").join(secret.to_string());
    assert_eq!(std::fs::read(file).unwrap(), b"hush");
    manager.assign(set(3, &[])).await;
    world.until("files removed", || !dir.exists()).await;
    life.kill().await;
}

#[tokio::test]
async fn assignments_are_on_the_disk_before_anything_happens() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(3, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running.clone()).await;
    world.until("created", || world.count(&Call::Create(id)) == 1).await;
    let copy = world.dir.path().join("copy");
    std::fs::copy(world.dir.path().join("data/ledger"), &copy).unwrap();
    let key = world.dir.path().join("run/ledger.key");
    let ledger = Ledger::open(NODE, &copy, &key, &world.env).unwrap();
    assert_eq!(ledger.memory().set, running);
    life.kill().await;
}

#[tokio::test]
async fn leaving_removes_everything() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    assert_eq!(life.agent.clone().leave().await, Vec::<String>::new());
    assert_eq!(world.engine.list().await.unwrap(), []);
    assert!(!world.dir.path().join("data/ledger").exists());
    assert!(!world.dir.path().join("run/tasks").exists());
}

#[tokio::test]
async fn roots_are_asked_for_and_confirmed() {
    let world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    assert!(manager.trusted.is_empty(), "nothing is said before it is known");
    life.agent.trusts([1; 32]);
    assert_eq!(manager.until_trusted(&world.env).await, [1; 32].as_slice());
    let mut wanted = life.agent.trust_wanted();
    assert_eq!(*wanted.borrow_and_update(), None);
    manager.say(ToAgent::Trust(Trust { digest: vec![2; 32].into() })).await;
    world
        .env
        .clock
        .timeout(LONG, wanted.wait_for(|it| *it == Some([2; 32])))
        .await
        .unwrap()
        .unwrap();
    life.agent.trusts([2; 32]);
    assert_eq!(manager.until_trusted(&world.env).await, [2; 32].as_slice());
    drop(manager);
    let manager = life.manager().await;
    assert_eq!(manager.trusted, [2; 32].as_slice(), "every session begins with it");
    life.kill().await;
}
