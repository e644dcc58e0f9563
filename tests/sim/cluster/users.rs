//! Users of a cluster: they create, scale, update, roll back and remove services, drain nodes and
//! bring them back, through the API of a manager, in its process and without a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use serde_json::{Value, json};
use swarm::api::{
    ControlError, Deps, InitRequest, JoinRequest, JoinTokens, Leave, Local, LocalState, LogError,
    LogItem, LogOptions, LogSource, NodeControl, Participation, RecoverRequest, Recovery,
    RestoreRequest, Vitals,
};
use swarm::domain::cluster::RootRotation;
use swarm::domain::{Cluster, NodeId, base64};
use swarm::env::{Env, Scope};
use swarm::raft::Store;
use tokio::sync::{mpsc, watch};

use crate::chance::Chance;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// Services that there may be; some are global.
pub(crate) const SERVICES: u64 = 6;
/// What the last wish adds to `ForceUpdate`: more than users do, so that no version from before a rollback
/// is the same and its tasks are as good.
const SETTLED: u64 = 1_000;
/// Secrets that services may use.
pub(crate) const SECRETS: u64 = 3;

/// What users did, by what it was and how it was answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub(crate) answers: BTreeMap<(&'static str, u16), u64>,
    /// Whether all services were set to what must come true.
    pub(crate) is_settled: bool,
    /// Whether all services were removed.
    pub(crate) is_cleared: bool,
}

impl Book {
    pub(crate) fn succeeded(&self) -> u64 {
        let good = self.answers.iter().filter(|((_, status), _)| (200..300).contains(status));
        good.map(|(_, count)| count).sum()
    }
}

/// A daemon that is in the cluster and changes nothing of that.
#[derive(Debug)]
struct Control {
    state: LocalState,
    /// As long as this is there, so is the store.
    _store: watch::Sender<Option<Store>>,
}

fn not_here<T>() -> Result<T, ControlError> {
    Err(ControlError::Unsupported("not in a simulation".to_owned()))
}

#[async_trait]
impl NodeControl for Control {
    fn state(&self) -> LocalState {
        self.state.clone()
    }

    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    fn next_root(&self, _: &Cluster) -> Result<RootRotation, ControlError> {
        not_here()
    }

    async fn init(&self, _: InitRequest) -> Result<NodeId, ControlError> {
        not_here()
    }

    async fn join(&self, _: JoinRequest) -> Result<(), ControlError> {
        not_here()
    }

    async fn leave(&self, _: Leave) -> Result<(), ControlError> {
        not_here()
    }

    async fn restore(&self, _: RestoreRequest) -> Result<NodeId, ControlError> {
        not_here()
    }

    async fn recover(&self, _: RecoverRequest) -> Result<Recovery, ControlError> {
        not_here()
    }

    async fn unlock(&self, _: &str) -> Result<(), ControlError> {
        not_here()
    }

    async fn follow_lock(&self) -> Result<(), ControlError> {
        not_here()
    }

    fn join_tokens(&self, _: &Cluster) -> Result<JoinTokens, ControlError> {
        not_here()
    }
}

#[derive(Debug)]
struct NoLogs;

#[async_trait]
impl LogSource for NoLogs {
    async fn subscribe(
        &self,
        _: Vec<swarm::domain::TaskId>,
        _: LogOptions,
    ) -> Result<mpsc::Receiver<LogItem>, LogError> {
        Err(LogError("output is not simulated".to_owned()))
    }
}

/// The API of a manager.
pub(crate) fn api(env: &Env, store: Store, me: (NodeId, SocketAddr), scope: &Scope) -> Local {
    let state = LocalState {
        participation: Participation::Active,
        node: Some(me.0),
        addr: Some(me.1.ip()),
        is_manager: true,
        ..LocalState::default()
    };
    let (_store, store) = watch::channel(Some(store));
    let deps = Deps {
        env: env.clone(),
        control: Arc::new(Control { state, _store }),
        store,
        logs: Arc::new(NoLogs),
        engine: "/nonexistent".into(),
    };
    Local::new(deps, scope)
}

/// A user at a manager.
pub(crate) struct User {
    pub(crate) api: Local,
    pub(crate) env: Env,
    pub(crate) chance: Chance,
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) is_over: Arc<AtomicBool>,
}

fn secret_name(number: u64) -> String {
    format!("key-{number}")
}

/// What a secret holds, which nobody else may.
pub(crate) fn secret_data(number: u64) -> String {
    format!("canary-{number}-do-not-leak")
}

impl User {
    async fn ask(
        &self,
        what: &'static str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<Value> {
        let body = body.map_or_else(Body::empty, |it| Body::from(it.to_string()));
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let answered = self.env.clock.timeout(PATIENCE, self.api.answer(request)).await;
        let (status, answer) = match answered {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = axum::body::to_bytes(response.into_body(), 16 << 20).await.unwrap();
                (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
            }
            Err(_) => (0, Value::Null),
        };
        *self.book.lock().unwrap().answers.entry((what, status)).or_default() += 1;
        tracing::debug!(what, status, %answer, "user");
        (200..300).contains(&status).then_some(answer)
    }

    /// Works until it is over.
    pub(crate) async fn run(mut self) {
        loop {
            let pause = self.chance.millis(100, 1_500);
            self.env.clock.sleep(pause).await;
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let number = self.chance.below(SERVICES);
            let name = format!("svc-{number}");
            match self.chance.below(20) {
                0..7 => self.create(number, &name).await,
                7..11 => self.change(&name, Self::scale).await,
                11..15 => self.change(&name, Self::update).await,
                15 => self.rollback(&name).await,
                16 => drop(self.ask("remove", "DELETE", &format!("/services/{name}"), None).await),
                17 => drop(self.ask("tasks", "GET", "/tasks", None).await),
                18 if self.chance.permille(400) => self.role().await,
                _ => self.availability().await,
            }
        }
    }

    /// The secrets, before anybody works.
    pub(crate) async fn secrets(&self) -> bool {
        for number in 0..SECRETS {
            let data = base64::encode(secret_data(number).as_bytes());
            let body = json!({"Name": secret_name(number), "Data": data});
            if self.ask("secret", "POST", "/secrets/create", Some(&body)).await.is_none() {
                return false;
            }
        }
        true
    }

    async fn create(&mut self, number: u64, name: &str) {
        let secrets = self.ask("secrets", "GET", "/secrets", None).await;
        let spec = self.spec(number, name, secrets.as_ref());
        self.ask("create", "POST", "/services/create", Some(&spec)).await;
    }

    fn spec(&mut self, number: u64, name: &str, secrets: Option<&Value>) -> Value {
        let chance = &mut self.chance;
        let image = if chance.permille(60) { "bad:1" } else { ["web:1", "web:2"][chance.index(2)] };
        let mut container = json!({"Image": image, "Args": ["serve"]});
        if chance.permille(300) {
            container["Healthcheck"] = json!({"Test": ["CMD", "true"]});
        }
        if chance.permille(50) {
            container["Args"] = json!(["sh", "-c", "exit 1"]);
        }
        let wanted = secret_name(chance.below(SECRETS));
        let secret = secrets
            .and_then(Value::as_array)
            .and_then(|all| all.iter().find(|it| it.pointer("/Spec/Name") == Some(&json!(wanted))));
        if let (Some(secret), true) = (secret, chance.permille(500)) {
            let file = json!({"Name": &wanted, "UID": "0", "GID": "0", "Mode": 292});
            let id = &secret["ID"];
            container["Secrets"] = json!([{"SecretID": id, "SecretName": wanted, "File": file}]);
        }
        let mode = if number == 0 {
            json!({"Global": {}})
        } else {
            json!({"Replicated": {"Replicas": chance.between(1, 6)}})
        };
        let mut spec = json!({
            "Name": name,
            "TaskTemplate": {
                "ContainerSpec": container,
                "Resources": {"Reservations": {"NanoCPUs": 200_000_000, "MemoryBytes": 64 << 20}},
                "RestartPolicy": {"Condition": "any", "Delay": 500_000_000},
            },
            "Mode": mode,
            "UpdateConfig": policy(chance),
            "RollbackConfig": policy(chance),
        });
        if number == 1 {
            let port = json!({
                "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host",
            });
            spec["EndpointSpec"] = json!({"Ports": [port]});
            spec["Mode"] = json!({"Replicated": {"Replicas": chance.between(1, 3)}});
        }
        spec
    }

    fn scale(&mut self, spec: &mut Value) {
        if let Some(replicas) = spec.pointer_mut("/Mode/Replicated/Replicas") {
            *replicas = json!(self.chance.below(8));
        }
    }

    fn update(&mut self, spec: &mut Value) {
        let template = &mut spec["TaskTemplate"];
        match self.chance.below(8) {
            0 => template["ContainerSpec"]["Image"] = json!("bad:1"),
            1 => template["ContainerSpec"]["Args"] = json!(["sh", "-c", "exit 1"]),
            _ => {
                let image = ["web:1", "web:2"][self.chance.index(2)];
                template["ContainerSpec"]["Image"] = json!(image);
                template["ContainerSpec"]["Args"] = json!(["serve"]);
            }
        }
        if self.chance.permille(300) {
            let force = template["ForceUpdate"].as_u64().unwrap_or_default();
            template["ForceUpdate"] = json!(force + 1);
        }
        spec["UpdateConfig"] = policy(&mut self.chance);
    }

    /// Reads a service and writes it changed, unless somebody was faster.
    async fn change(&mut self, name: &str, edit: fn(&mut Self, &mut Value)) {
        let path = format!("/services/{name}");
        let Some(service) = self.ask("inspect", "GET", &path, None).await else { return };
        let mut spec = service["Spec"].clone();
        edit(self, &mut spec);
        let version = &service["Version"]["Index"];
        let path = format!("{path}/update?version={version}");
        self.ask("update", "POST", &path, Some(&spec)).await;
    }

    async fn rollback(&mut self, name: &str) {
        let path = format!("/services/{name}");
        let Some(service) = self.ask("inspect", "GET", &path, None).await else { return };
        let path =
            format!("{path}/update?version={}&rollback=previous", service["Version"]["Index"]);
        self.ask("rollback", "POST", &path, Some(&service["Spec"])).await;
    }

    async fn availability(&mut self) {
        let Some(nodes) = self.ask("nodes", "GET", "/nodes", None).await else { return };
        let Some(node) = nodes.as_array().and_then(|all| self.chance.pick(all)).cloned() else {
            return;
        };
        let wish = ["active", "active", "drain", "pause"][self.chance.index(4)];
        self.set_availability(&node, wish).await;
    }

    /// Makes a manager of a worker, or a worker of a manager.
    async fn role(&mut self) {
        let Some(nodes) = self.ask("nodes", "GET", "/nodes", None).await else { return };
        let role = |node: &Value| node.pointer("/Spec/Role").cloned().unwrap_or_default();
        let (managers, workers): (Vec<&Value>, Vec<&Value>) =
            nodes.as_array().into_iter().flatten().partition(|node| role(node) == "manager");
        let may_demote = match managers.len() {
            0 | 1 => false,
            2 | 3 => self.chance.permille(250),
            4 | 5 => self.chance.permille(600),
            _ => true,
        };
        let (all, wish) = if may_demote { (managers, "worker") } else { (workers, "manager") };
        let Some(node) = self.chance.pick(&all) else { return };
        let mut spec = node["Spec"].clone();
        spec["Role"] = json!(wish);
        let what = if may_demote { "demote" } else { "promote" };
        let id = node["ID"].as_str().unwrap_or_default();
        let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        self.ask(what, "POST", &path, Some(&spec)).await;
    }

    async fn set_availability(&self, node: &Value, wish: &str) -> bool {
        let mut spec = node["Spec"].clone();
        spec["Availability"] = json!(wish);
        let id = node["ID"].as_str().unwrap_or_default();
        let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        self.ask("node", "POST", &path, Some(&spec)).await.is_some()
    }

    /// All nodes are active, and every service is something that must come true.
    pub(crate) async fn settle(mut self) {
        while !self.try_settle().await {
            self.env.clock.sleep(Duration::from_millis(500)).await;
        }
        self.book.lock().unwrap().is_settled = true;
    }

    async fn try_settle(&mut self) -> bool {
        let Some(nodes) = self.ask("nodes", "GET", "/nodes", None).await else { return false };
        for node in nodes.as_array().unwrap() {
            let is_active = node.pointer("/Spec/Availability") == Some(&json!("active"));
            if !is_active && !self.set_availability(node, "active").await {
                return false;
            }
        }
        let Some(services) = self.ask("services", "GET", "/services", None).await else {
            return false;
        };
        for service in services.as_array().unwrap() {
            let mut spec = service["Spec"].clone();
            let force = spec.pointer("/TaskTemplate/ForceUpdate").and_then(Value::as_u64);
            let container = &mut spec["TaskTemplate"]["ContainerSpec"];
            container["Image"] = json!("web:1");
            container["Args"] = json!(["serve"]);
            spec["TaskTemplate"]["ForceUpdate"] = json!(force.unwrap_or_default() + SETTLED);
            spec["UpdateConfig"] = json!({"Parallelism": 2, "Monitor": 500_000_000});
            if let Some(replicas) = spec.pointer_mut("/Mode/Replicated/Replicas") {
                *replicas = json!(replicas.as_u64().unwrap_or_default().min(3));
            }
            let id = service["ID"].as_str().unwrap_or_default();
            let path = format!("/services/{id}/update?version={}", service["Version"]["Index"]);
            if self.ask("settle", "POST", &path, Some(&spec)).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Removes all services.
    pub(crate) async fn clear(self) {
        loop {
            let services = self.ask("services", "GET", "/services", None).await;
            let Some(services) = services else {
                self.env.clock.sleep(Duration::from_millis(500)).await;
                continue;
            };
            let all = services.as_array().unwrap();
            if all.is_empty() {
                break;
            }
            for service in all {
                let id = service["ID"].as_str().unwrap_or_default();
                self.ask("remove", "DELETE", &format!("/services/{id}"), None).await;
            }
            self.env.clock.sleep(Duration::from_millis(500)).await;
        }
        self.book.lock().unwrap().is_cleared = true;
    }
}

fn policy(chance: &mut Chance) -> Value {
    let parallelism = chance.between(1, 3);
    let action = ["pause", "continue", "rollback"][chance.index(3)];
    let order = ["stop-first", "start-first"][chance.index(2)];
    json!({
        "Parallelism": parallelism,
        "Monitor": 1_000_000_000,
        "FailureAction": action,
        "Order": order,
    })
}
