//! One contract for the model of the engine and for a real one.
//!
//! The real engine is that of `SWARM_TEST_DOCKER` (`unix:///…`); it must have an image
//! `busybox:latest` with a shell. Without the variable only the model is held to the contract, and a
//! line says so.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use swarm::domain::network::Subnet;
use swarm::domain::node::Platform;
use swarm::domain::task::{Slot, TaskAddress};
use swarm::domain::{
    Labels, Meta, Network, NetworkId, NodeId, ServiceId, Task, TaskId, TaskState, TaskStatus,
    Timestamp,
};
use swarm::env::{Env, Scope};
use swarm::runtime::model::ModelRuntime;
use swarm::runtime::{
    ContainerPlan, Error, Health, LogOptions, NetworkPlan, NodeFacts, Phase, Runtime, docker,
};

const LONG: Duration = Duration::from_secs(20);

struct Case {
    runtime: Arc<dyn Runtime>,
    env: Env,
    node: NodeId,
}

/// The real engine, if there is one.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn engine(env: &Env) -> Option<Case> {
    let Ok(address) = std::env::var("SWARM_TEST_DOCKER") else {
        println!("SKIPPED: no real engine (SWARM_TEST_DOCKER=unix:///… names one)");
        return None;
    };
    let socket = PathBuf::from(address.trim_start_matches("unix://"));
    let node = NodeId::from_bytes(env.entropy.id());
    let settings = docker::Settings { socket, node };
    let runtime = docker::start(settings, env.clone(), &Scope::root("test"));
    Some(Case { runtime, env: env.clone(), node })
}

fn cases() -> Vec<Case> {
    let env = Env::system();
    let node = NodeId::from_bytes(env.entropy.id());
    let model = Case { runtime: Arc::new(ModelRuntime::new()), env: env.clone(), node };
    std::iter::once(model).chain(engine(&env)).collect()
}

impl Case {
    fn plan(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> ContainerPlan {
        let mut spec = json!({
            "Name": "contract",
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox:latest", "Args": args},
                "Networks": [{"Target": "none"}]
            }
        });
        change(&mut spec);
        let task = Task {
            id: TaskId::from_bytes(self.env.entropy.id()),
            meta: Meta::default(),
            service: ServiceId::from_bytes([2; 16]),
            spec: 1,
            slot: Slot::Number(1),
            node: Some(self.node),
            addresses: Vec::new(),
            desired: TaskState::Running,
            not_before: Timestamp(0),
            status: TaskStatus::default(),
        };
        ContainerPlan {
            task: Arc::new(task),
            spec: Arc::new(serde_json::from_value(spec).unwrap()),
            node: NodeFacts {
                id: self.node,
                hostname: "n1".to_owned(),
                platform: Platform::default(),
            },
            network: None,
            files_dir: PathBuf::from("/nonexistent"),
        }
    }

    async fn phase(&self, task: TaskId) -> Phase {
        self.runtime.inspect(task).await.unwrap().phase
    }

    async fn until(&self, task: TaskId, wanted: impl Fn(Phase) -> bool) -> Phase {
        let begun = self.env.clock.instant();
        loop {
            let phase = self.phase(task).await;
            if wanted(phase) {
                return phase;
            }
            let waited = self.env.clock.instant().since(begun);
            assert!(waited < LONG, "still {phase:?}");
            self.env.clock.sleep(Duration::from_millis(20)).await;
        }
    }
}

const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];

#[tokio::test]
async fn life_of_a_container_is_idempotent() {
    for case in cases() {
        let (runtime, plan) = (&case.runtime, case.plan(&SLEEP, |_| {}));
        let task = plan.task.id;
        assert_eq!(runtime.inspect(task).await, Err(Error::Missing));
        let id = runtime.create(&plan).await.unwrap();
        assert_eq!(runtime.create(&plan).await.unwrap(), id, "a second create is the first");
        assert_eq!(case.phase(task).await, Phase::Created);
        runtime.start(task).await.unwrap();
        runtime.start(task).await.unwrap();
        let running = runtime.inspect(task).await.unwrap();
        assert_eq!(running.phase, Phase::Running(Health::Unchecked));
        assert!(running.pid > 0);
        assert_eq!(runtime.list().await.unwrap(), [running]);
        runtime.stop(task, Duration::from_secs(1)).await.unwrap();
        runtime.stop(task, Duration::from_secs(1)).await.unwrap();
        assert!(matches!(case.phase(task).await, Phase::Exited { .. }));
        runtime.remove(task).await.unwrap();
        runtime.remove(task).await.unwrap();
        assert_eq!(runtime.inspect(task).await, Err(Error::Missing));
        assert_eq!(runtime.start(task).await, Err(Error::Missing));
        assert_eq!(runtime.stop(task, Duration::from_secs(1)).await, Ok(()));
        assert_eq!(runtime.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn exit_code_is_told_and_hinted() {
    for case in cases() {
        let plan = case.plan(&["sh", "-c", "exit 3"], |_| {});
        let task = plan.task.id;
        let mut hints = Arc::clone(&case.runtime).watch();
        assert_eq!(hints.recv().await, Some(None), "first: look at everything");
        case.runtime.create(&plan).await.unwrap();
        case.runtime.start(task).await.unwrap();
        loop {
            let hint = case.env.clock.timeout(LONG, hints.recv()).await.unwrap();
            let phase = case.phase(task).await;
            if hint == Some(Some(task)) && matches!(phase, Phase::Exited { .. }) {
                assert_eq!(phase, Phase::Exited { code: 3, oom_killed: false });
                break;
            }
        }
        case.runtime.remove(task).await.unwrap();
    }
}

#[tokio::test]
async fn absent_image_is_told_before_and_after_the_pull() {
    for case in cases() {
        let plan = case.plan(&SLEEP, |spec| {
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("localhost:1/nope:1");
        });
        let created = case.runtime.create(&plan).await;
        assert!(matches!(&created, Err(Error::NoImage(text)) if text.contains("No such image")));
        let pulled = case.runtime.pull("localhost:1/nope:1", None, LONG).await;
        let wanted = "No such image: localhost:1/nope:1";
        assert!(
            matches!(&pulled, Err(Error::Permanent(text)) if text.starts_with(wanted)),
            "{pulled:?}"
        );
        assert_eq!(case.runtime.pull("busybox:latest", None, LONG).await, Ok(()));
    }
}

#[tokio::test]
async fn port_of_somebody_else_is_told() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let model = Arc::new(ModelRuntime::new());
    model.take_port(port);
    let env = Env::system();
    let node = NodeId::from_bytes(env.entropy.id());
    let first = Case { runtime: model, env: env.clone(), node };
    for case in std::iter::once(first).chain(engine(&env)) {
        let (network, network_plan) = network(&case, 7, Ipv4Addr::new(10, 213, 7, 2));
        case.runtime.ensure_network(&network, &network_plan).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("resolv.conf"), "nameserver 10.213.7.2\n").unwrap();
        let mut plan = case.plan(&SLEEP, |spec| {
            spec["TaskTemplate"]["Networks"] = json!(null);
            spec["EndpointSpec"] = json!({"Ports": [
                {"TargetPort": 80, "PublishedPort": port, "PublishMode": "host"}
            ]});
        });
        plan.network = Some(network_plan.clone());
        plan.files_dir = files.path().to_owned();
        case.runtime.create(&plan).await.unwrap();
        let started = case.runtime.start(plan.task.id).await;
        assert!(matches!(started, Err(Error::PortInUse(_))), "{started:?}");
        case.runtime.remove(plan.task.id).await.unwrap();
        case.runtime.remove_network(&network_plan.name).await.unwrap();
    }
}

fn network(case: &Case, number: u8, gateway: Ipv4Addr) -> (Network, NetworkPlan) {
    let subnet = Subnet { base: Ipv4Addr::new(10, 213, number, 0), prefix: 24 };
    let network = Network {
        id: NetworkId::from_bytes(case.env.entropy.id()),
        meta: Meta::default(),
        name: format!("contract{number}"),
        labels: Labels::default(),
        vni: 5000 + u32::from(number),
        subnet,
        cursor: 0,
    };
    let plan = NetworkPlan {
        name: format!("swarm-contract{number}"),
        bridge: format!("ovt{number}"),
        subnet,
        gateway,
        mtu: 1450,
    };
    (network, plan)
}

#[tokio::test]
async fn network_gives_fixed_address_resolver_and_files() {
    for case in cases() {
        let (network, plan) = network(&case, 8, Ipv4Addr::new(10, 213, 8, 3));
        case.runtime.ensure_network(&network, &plan).await.unwrap();
        case.runtime.ensure_network(&network, &plan).await.unwrap();
        let moved = NetworkPlan { gateway: Ipv4Addr::new(10, 213, 8, 2), ..plan };
        case.runtime.ensure_network(&network, &moved).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("resolv.conf"), "nameserver 10.213.8.2\n").unwrap();
        let script = "cat /etc/resolv.conf; ip -4 addr show eth0 2>&1 || busybox ip addr; echo $X";
        let mut container = case.plan(&["sh", "-c", script], |spec| {
            spec["TaskTemplate"]["Networks"] = json!(null);
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["X=slot-{{.Task.Slot}}"]);
        });
        let mut task = Task::clone(&container.task);
        task.addresses =
            vec![TaskAddress { network: network.id, addr: Ipv4Addr::new(10, 213, 8, 77).into() }];
        let id = task.id;
        container.task = Arc::new(task);
        container.network = Some(moved.clone());
        container.files_dir = files.path().to_owned();
        case.runtime.create(&container).await.unwrap();
        case.runtime.start(id).await.unwrap();
        if case.runtime.inspect(id).await.unwrap().id.starts_with("model") {
            continue;
        }
        case.until(id, |phase| matches!(phase, Phase::Exited { .. })).await;
        let mut lines = case.runtime.logs(id, LogOptions::default()).await.unwrap();
        let mut text = String::new();
        while let Some(line) = lines.recv().await {
            assert!(line.at.is_some());
            text.push_str(std::str::from_utf8(&line.data).unwrap());
        }
        for wanted in ["nameserver 10.213.8.2", "10.213.8.77/24", "mtu 1450", "slot-1"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        case.runtime.remove(id).await.unwrap();
        case.runtime.remove_network(&moved.name).await.unwrap();
        case.runtime.remove_network(&moved.name).await.unwrap();
    }
}

#[tokio::test]
async fn health_is_told_and_output_is_streamed() {
    let env = Env::system();
    let Some(case) = engine(&env) else { return };
    let script = "echo out; echo err >&2; sleep 0.3; touch /tmp/ok; while :; do sleep 0.1; done";
    let plan = case.plan(&["sh", "-c", script], |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = json!({
            "Test": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 200_000_000, "Retries": 2
        });
        spec["TaskTemplate"]["ContainerSpec"]["StopSignal"] = json!("SIGKILL");
    });
    let task = plan.task.id;
    case.runtime.create(&plan).await.unwrap();
    case.runtime.start(task).await.unwrap();
    assert_eq!(case.phase(task).await, Phase::Running(Health::Starting));
    case.until(task, |phase| phase == Phase::Running(Health::Healthy)).await;
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = case.runtime.logs(task, follow).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let line = case.env.clock.timeout(LONG, lines.recv()).await.unwrap().unwrap();
        seen.push((line.stderr, line.data.to_vec()));
    }
    seen.sort();
    assert_eq!(seen, [(false, b"out\n".to_vec()), (true, b"err\n".to_vec())]);
    let only = LogOptions { stderr_only: Some(true), tail: Some(2), ..LogOptions::default() };
    let mut lines = case.runtime.logs(task, only).await.unwrap();
    assert_eq!(&lines.recv().await.unwrap().data[..], b"err\n");
    assert_eq!(lines.recv().await, None);
    case.runtime.remove(task).await.unwrap();
}

#[tokio::test]
async fn engine_that_is_not_there_is_told_at_once() {
    let env = Env::system();
    let settings = docker::Settings {
        socket: PathBuf::from("/nonexistent/docker.sock"),
        node: NodeId::from_bytes([1; 16]),
    };
    let runtime = docker::start(settings, env, &Scope::root("test"));
    let error = runtime.describe().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable(text) if text.contains("/nonexistent/docker.sock")),
        "{error}"
    );
}

#[tokio::test]
async fn wrong_command_is_permanent() {
    let Some(case) = engine(&Env::system()) else { return };
    let plan = case.plan(&["/does/not/exist"], |_| {});
    case.runtime.create(&plan).await.unwrap();
    let started = case.runtime.start(plan.task.id).await;
    assert!(matches!(started, Err(Error::Permanent(_))), "{started:?}");
    case.runtime.remove(plan.task.id).await.unwrap();
}

#[tokio::test]
async fn described_engine_has_resources_and_plugins() {
    let Some(case) = engine(&Env::system()) else { return };
    let description = case.runtime.describe().await.unwrap();
    assert!(description.resources.nano_cpus >= 1_000_000_000);
    assert!(description.resources.memory_bytes > 0);
    assert_eq!(description.platform.os, "linux");
    assert!(description.engine.plugins.iter().any(|plugin| plugin.name == "bridge"));
}
