//! `/swarm`: the cluster itself and this node's part in it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{self, Ask};
use super::context::{Ctx, json};
use super::control::{InitRequest, JoinRequest, Leave, Participation};
use super::error::{Code, Error};
use super::{convert, keys};
use crate::domain::cluster::{ClusterSpec, DATA_PATH_PORT, Orchestration, Trust};
use crate::domain::node::Availability;
use crate::domain::unlock::Rotation;
use crate::domain::{Cluster, Format, UnlockKey};
use crate::state::{Change, Expect, Object};

/// How long `init` waits for the store that the daemon has announced.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// `GET /swarm`.
pub(super) async fn inspect(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    let cluster = read.view.cluster.as_ref().ok_or_else(Error::no_leader)?;
    let mut shown = convert::cluster(cluster);
    let tokens = ctx.deps.control.join_tokens(cluster)?;
    shown["JoinTokens"] = json!({"Worker": tokens.worker, "Manager": tokens.manager});
    Ok(read.json(&shown))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct InitBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    data_path_port: u16,
    force_new_cluster: bool,
    spec: ClusterSpec,
    auto_lock_managers: bool,
    availability: String,
    default_addr_pool: Vec<String>,
    subnet_size: u8,
}

/// `POST /swarm/init`.
pub(super) async fn init(State(ctx): State<Ctx>, body: Bytes) -> Result<Response, Error> {
    let mut value = ask::json(&body, keys::INIT)?;
    let given_limit = value.pointer("/Spec/Orchestration/TaskHistoryRetentionLimit").is_some();
    drop_zeros(&mut value);
    let mut body: InitBody = ask::typed(value)?;
    check_name(&body.spec)?;
    data_path(&body.data_path_addr, body.data_path_port)?;
    if !given_limit {
        body.spec.orchestration = Orchestration::default();
    }
    body.spec.encryption_config.auto_lock_managers |= body.auto_lock_managers;
    let checked = body.spec.validate();
    checked.map_err(|error| Error::rpc(Code::InvalidArgument, error.reason))?;
    let request = InitRequest {
        listen_addr: body.listen_addr,
        advertise_addr: body.advertise_addr,
        force_new_cluster: body.force_new_cluster,
        spec: body.spec,
        availability: availability(&body.availability)?,
        address_pools: body.default_addr_pool,
        subnet_size: body.subnet_size,
    };
    let node = ctx.deps.control.init(request).await?;
    let mut stores = ctx.deps.store.clone();
    let opened = stores.wait_for(Option::is_some);
    if !matches!(ctx.deps.env.clock.timeout(STORE_WAIT, opened).await, Ok(Ok(_))) {
        return Err(Error::no_leader());
    }
    Ok(json(StatusCode::OK, &Value::String(node.to_string())))
}

/// Tunnels have one address, the advertised one, and one port.
fn data_path(addr: &str, port: u16) -> Result<(), Error> {
    if !addr.is_empty() {
        let text = "a data path of its own is not supported: tunnels use the advertised address; leave --data-path-addr out and choose --advertise-addr";
        return Err(Error::bad_request(text));
    }
    if !matches!(port, 0 | DATA_PATH_PORT) {
        let text = format!(
            "data path port {port} is not supported: leave --data-path-port out and let UDP {DATA_PATH_PORT} pass between the hosts"
        );
        return Err(Error::bad_request(text));
    }
    Ok(())
}

/// Go's zero values mean "the default": clients send them for what the user did not say.
fn drop_zeros(value: &mut Value) {
    for (parent, member) in
        [("/Spec/CAConfig", "NodeCertExpiry"), ("/Spec/Dispatcher", "HeartbeatPeriod")]
    {
        let members = value.pointer_mut(parent).and_then(Value::as_object_mut);
        if let Some(members) = members
            && members.get(member).is_some_and(|number| number == 0)
        {
            members.remove(member);
        }
    }
    if let Some(raft) = value.pointer_mut("/Spec/Raft").and_then(Value::as_object_mut) {
        let is_tick = |name: &str| matches!(name, "ElectionTick" | "HeartbeatTick");
        raft.retain(|name, number| !is_tick(name) || *number != 0);
    }
}

fn check_name(spec: &ClusterSpec) -> Result<(), Error> {
    if matches!(spec.name.as_str(), "" | "default") {
        return Ok(());
    }
    Err(Error::bad_request("swarm spec must be named \"default\""))
}

fn availability(text: &str) -> Result<Availability, Error> {
    match text.to_ascii_lowercase().as_str() {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        _ => Err(Error::bad_request(format!("invalid Availability: {text:?}"))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct JoinBody {
    listen_addr: String,
    advertise_addr: String,
    data_path_addr: String,
    remote_addrs: Vec<String>,
    join_token: String,
    availability: String,
}

/// `POST /swarm/join`.
pub(super) async fn join(State(ctx): State<Ctx>, body: Bytes) -> Result<Response, Error> {
    let body: JoinBody = ask::typed(ask::json(&body, keys::JOIN)?)?;
    let remote_addrs: Vec<String> =
        body.remote_addrs.into_iter().filter(|addr| !addr.trim().is_empty()).collect();
    if remote_addrs.is_empty() {
        return Err(Error::bad_request("at least 1 RemoteAddr is required to join"));
    }
    data_path(&body.data_path_addr, 0)?;
    let request = JoinRequest {
        remote_addrs,
        token: body.join_token,
        listen_addr: body.listen_addr,
        advertise_addr: body.advertise_addr,
        availability: availability(&body.availability)?,
    };
    ctx.deps.control.join(request).await?;
    Ok(StatusCode::OK.into_response())
}

/// `POST /swarm/leave`.
pub(super) async fn leave(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let leave = if ask.params.flag("force") { Leave::Force } else { Leave::Gracefully };
    let locked = ctx.deps.control.state().participation == Participation::Locked;
    if locked && leave == Leave::Gracefully {
        let text = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
        return Err(Error::unavailable(text));
    }
    ctx.deps.control.leave(leave).await?;
    Ok(StatusCode::OK.into_response())
}

/// `POST /swarm/update`.
pub(super) async fn update(
    State(ctx): State<Ctx>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let version = ask.params.version("swarm")?;
    let mut value = ask::json(&body, keys::CLUSTER)?;
    if let Some(members) = value.as_object_mut() {
        members.remove("version");
    }
    let read = ctx.read_to_change().await?;
    let cluster = read.view.cluster.as_ref().ok_or_else(Error::no_leader)?;
    let mut spec: ClusterSpec = ask::typed(value)?;
    // Docker's clients do not know the policy, send the rest back and must not take it away.
    spec.policy = spec.policy.or_else(|| cluster.spec.policy.clone());
    check_name(&spec)?;
    "default".clone_into(&mut spec.name);
    check_spec(cluster, &spec)?;
    let trust = match spec.ca.asks_another_root_than(&cluster.spec.ca) {
        true => another_root(&ctx, cluster)?,
        false => cluster.trust.clone(),
    };
    let rotation = match ask.params.flag("rotateManagerUnlockKey") {
        true => Rotation::Rotate,
        false => Rotation::Keep,
    };
    let fresh = UnlockKey::new(ctx.deps.env.entropy.key());
    let autolock = cluster.autolock.wished(&spec.encryption_config, rotation, fresh);
    let mut changed = Cluster { spec, autolock, trust, ..(**cluster).clone() };
    changed.worker_token += u64::from(ask.params.flag("rotateWorkerToken"));
    changed.manager_token += u64::from(ask.params.flag("rotateManagerToken"));
    let object = Object::Cluster(Arc::new(changed));
    let change = Change::Put { object, expect: Expect::SpecAt(version) };
    ctx.propose(&read.store, &ask, vec![change]).await?;
    // Who is told that managers lock themselves may stop this one at once.
    ctx.deps.control.follow_lock().await?;
    Ok(StatusCode::OK.into_response())
}

/// Whether a user may wish this for the cluster.
pub(super) fn check_spec(cluster: &Cluster, spec: &ClusterSpec) -> Result<(), Error> {
    // An older manager would keep the policy and hold nobody to it.
    if spec.policy != cluster.spec.policy && !cluster.format.has(Format::POLICY) {
        let text = "the policy can be changed when every manager runs a release that holds services to it: upgrade the others; ten minutes after the last one it can";
        return Err(Error::rpc(Code::FailedPrecondition, text));
    }
    spec.validate().map_err(|error| Error::rpc(Code::InvalidArgument, error.reason))
}

/// Whether all managers know how to rotate the root.
pub(super) fn may_rotate(cluster: &Cluster) -> Result<(), Error> {
    if cluster.format.has(Format::ROTATION) {
        return Ok(());
    }
    Err(Error::rpc(
        Code::FailedPrecondition,
        "the root certificate cannot be rotated yet: every manager must run a release that knows how first; upgrade the others (`swarm node ls`), or demote them",
    ))
}

/// Another root is to come; one that is on its way already is replaced.
fn another_root(ctx: &Ctx, cluster: &Cluster) -> Result<Trust, Error> {
    may_rotate(cluster)?;
    let rotation = Some(ctx.deps.control.next_root(cluster)?);
    Ok(Trust { generation: cluster.trust.generation + 1, rotation })
}

/// `GET /swarm/unlockkey`.
pub(super) async fn unlock_key(State(ctx): State<Ctx>) -> Result<Response, Error> {
    let read = ctx.read_to_change().await?;
    let cluster = read.view.cluster.as_ref().ok_or_else(Error::no_leader)?;
    let key = cluster.autolock.key.as_ref().map(UnlockKey::text).unwrap_or_default();
    Ok(json(StatusCode::OK, &json!({ "UnlockKey": key })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UnlockBody {
    unlock_key: String,
}

/// `POST /swarm/unlock`.
pub(super) async fn unlock(State(ctx): State<Ctx>, body: Bytes) -> Result<Response, Error> {
    let body: UnlockBody = ask::typed(ask::json(&body, keys::UNLOCK)?)?;
    ctx.deps.control.unlock(&body.unlock_key).await?;
    Ok(StatusCode::OK.into_response())
}
