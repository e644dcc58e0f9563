//! What the server says of itself: `/_ping`, `/version`, `/info`, and the health of the daemon.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use serde_json::{Map, Value, json};

use super::context::{Ctx, json};
use super::control::{LocalState, Participation};
use super::convert;
use super::error::Error;
use super::router::{Asked, VERSION_MAX, VERSION_MIN};
use crate::domain::node::Role;

/// Longest wait for a registry: without an answer, clients go on with a warning.
const DISTRIBUTION_LIMIT: Duration = Duration::from_secs(2);

/// This release.
pub(super) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// `GET /_ping` and `HEAD /_ping`.
pub(super) async fn ping(State(ctx): State<Ctx>) -> Response {
    let state = ctx.deps.control.state();
    let role = match (state.participation, state.is_manager) {
        (Participation::Active, true) => "active/manager",
        (Participation::Active, false) => "active/worker",
        (other, _) => other.as_str(),
    };
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put("content-type", "text/plain; charset=utf-8");
    put("cache-control", "no-cache, no-store, must-revalidate");
    put("pragma", "no-cache");
    put("builder-version", "1");
    put("swarm", role);
    (headers, "OK").into_response()
}

/// `GET /version`: the engine's, if there is one, with our range of API versions.
pub(super) async fn version(State(ctx): State<Ctx>) -> Response {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let own = json!({
        "Name": "Swarm",
        "Version": RELEASE,
        "Details": {
            "ApiVersion": VERSION_MAX.to_string(),
            "MinAPIVersion": VERSION_MIN.to_string(),
            "Arch": arch,
            "Os": "linux",
        },
    });
    let mut shown = match ctx.engine.question("/version").await {
        Some(Value::Object(members)) => members,
        Some(_) | None => Map::new(),
    };
    let api = Value::String(VERSION_MAX.to_string());
    let min = Value::String(VERSION_MIN.to_string());
    let mut components = match shown.remove("Components") {
        Some(Value::Array(components)) => components,
        Some(_) | None => Vec::new(),
    };
    if let Some(details) = components.first_mut().and_then(|it| it.get_mut("Details")) {
        details["ApiVersion"] = api.clone();
        details["MinAPIVersion"] = min.clone();
    }
    components.push(own);
    shown.insert("Components".to_owned(), Value::Array(components));
    shown.insert("ApiVersion".to_owned(), api);
    shown.insert("MinAPIVersion".to_owned(), min);
    for (name, value) in [("Version", RELEASE), ("Os", "linux"), ("Arch", arch)] {
        shown.entry(name).or_insert_with(|| Value::from(value));
    }
    for name in ["GitCommit", "GoVersion", "KernelVersion", "BuildTime"] {
        shown.entry(name).or_insert_with(|| Value::from(""));
    }
    shown.entry("Platform").or_insert_with(|| json!({ "Name": "" }));
    json(StatusCode::OK, &Value::Object(shown))
}

/// `GET /info`: the engine's, with our `Swarm` member.
pub(super) async fn info(State(ctx): State<Ctx>) -> Response {
    let state = ctx.deps.control.state();
    let mut shown = match ctx.engine.question("/info").await {
        Some(Value::Object(members)) => members,
        Some(_) | None => without_engine(&ctx, &state),
    };
    shown.insert("Swarm".to_owned(), swarm(&ctx, &state));
    json(StatusCode::OK, &Value::Object(shown))
}

/// What can be said of a node whose engine does not answer.
fn without_engine(ctx: &Ctx, state: &LocalState) -> Map<String, Value> {
    let warning = format!(
        "WARNING: no Docker Engine answers at {}: this node runs no tasks",
        ctx.deps.engine.display()
    );
    let shown = json!({
        "ID": "",
        "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0,
        "Images": 0,
        "Driver": "", "DriverStatus": null,
        "Plugins": {"Volume": null, "Network": null, "Authorization": null, "Log": null},
        "SystemTime": ctx.deps.env.clock.now().to_string(),
        "LoggingDriver": "", "CgroupDriver": "",
        "OSType": "linux", "Architecture": std::env::consts::ARCH,
        "NCPU": 0, "MemTotal": 0,
        "Name": state.hostname,
        "ServerVersion": RELEASE,
        "Runtimes": {}, "DefaultRuntime": "",
        "LiveRestoreEnabled": false,
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": [],
        "Warnings": [warning],
    });
    match shown {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// `Info.Swarm`, from what this node has: it must answer without a quorum.
fn swarm(ctx: &Ctx, state: &LocalState) -> Value {
    let view = ctx.deps.store.borrow().as_ref().map(crate::raft::Store::view);
    let managers: Vec<Value> = state
        .managers
        .iter()
        .map(|(node, addr)| json!({"NodeID": node.to_string(), "Addr": addr.to_string()}))
        .collect();
    let mut shown = json!({
        "NodeID": state.node.map(|node| node.to_string()).unwrap_or_default(),
        "NodeAddr": state.addr.map(|addr| addr.to_string()).unwrap_or_default(),
        "LocalNodeState": state.participation.as_str(),
        "ControlAvailable": view.is_some(),
        "Error": state.trouble(),
        "RemoteManagers": if managers.is_empty() { Value::Null } else { Value::Array(managers) },
    });
    if let Some(view) = view {
        let managers = view.nodes.values().filter(|node| node.spec.role == Role::Manager).count();
        shown["Nodes"] = view.nodes.len().into();
        shown["Managers"] = managers.into();
        if let Some(cluster) = &view.cluster {
            shown["Cluster"] = convert::cluster(cluster);
        }
    }
    shown
}

/// `GET /distribution/{image}/json`: the engine's answer, but soon.
pub(super) async fn distribution(
    State(ctx): State<Ctx>,
    axum::Extension(Asked(version)): axum::Extension<Asked>,
    request: Request<Body>,
) -> Result<Response, Error> {
    let asked = ctx.engine.forward(request, version);
    match ctx.deps.env.clock.timeout(DISTRIBUTION_LIMIT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::internal(format!(
            "the registry did not answer within {} s",
            DISTRIBUTION_LIMIT.as_secs()
        ))),
    }
}
