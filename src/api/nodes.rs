//! `/nodes`: the machines of the cluster.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::Value;

use super::ask::{self, Ask};
use super::context::Ctx;
use super::error::{Code, Error};
use super::filter::Filters;
use super::{convert, keys, lookup};
use crate::domain::Node;
use crate::domain::cluster::MANAGERS_MAX;
use crate::domain::node::{Membership, NodeSpec, Reachability, Role};
use crate::state::{Change, Expect, Object, ObjectKey, Rejection, State as Replicated};

/// Attempts to remove a node that keeps changing between the check and the removal.
const REMOVE_ATTEMPTS: u32 = 4;

/// `GET /nodes`.
pub(super) async fn list(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let known = ["id", "label", "membership", "name", "node.label", "role"];
    let filters = Filters::only(&ask.params, &known)?;
    let read = ctx.read(&ask).await?;
    let shape = convert::NodeShape::new(&read.view, read.leadership());
    let shown = read
        .view
        .nodes
        .values()
        .filter(|node| matches(node, &filters))
        .map(|node| shape.node(node));
    Ok(read.json(&Value::Array(shown.collect())))
}

fn matches(node: &Node, filters: &Filters) -> bool {
    let description = node.description.clone().unwrap_or_default();
    filters.prefix("id", &[&node.id.to_string()])
        && filters.prefix("name", &[&description.hostname, &node.spec.name])
        && filters.labels("label", &description.engine.labels)
        && filters.labels("node.label", &node.spec.labels)
        && filters.any("role", |role| role == node.spec.role.as_str())
        && filters.any("membership", |membership| membership == "accepted")
}

/// `GET /nodes/{id}`.
pub(super) async fn inspect(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    let node = lookup::node(&read.view, &text)?;
    let shape = convert::NodeShape::new(&read.view, read.leadership());
    Ok(read.json(&shape.node(node)))
}

/// `POST /nodes/{id}/update`.
pub(super) async fn update(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let version = ask.params.version("node")?;
    let value = ask::json(&body, keys::NODE)?;
    for member in ["Role", "Availability"] {
        let given = value.get(member).and_then(Value::as_str).unwrap_or_default();
        if given.is_empty() {
            return Err(Error::bad_request(format!("invalid {member}: \"{given}\"")));
        }
    }
    let spec: NodeSpec = ask::typed(value)?;
    spec.validate().map_err(|error| Error::rpc(Code::InvalidArgument, error))?;
    let read = ctx.read_to_change().await?;
    let node = lookup::node(&read.view, &text)?;
    match (node.spec.role, spec.role) {
        (Role::Worker, Role::Manager) => may_promote(&read.view)?,
        (Role::Manager, Role::Worker) => may_demote(&read.view, node)?,
        (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => {}
    }
    let changed = Node { spec, ..(**node).clone() };
    let object = Object::Node(Arc::new(changed));
    let change = Change::Put { object, expect: Expect::SpecAt(version) };
    ctx.propose(&read.store, &ask, vec![change]).await?;
    Ok(StatusCode::OK.into_response())
}

fn may_promote(state: &Replicated) -> Result<(), Error> {
    let managers = state.nodes.values().filter(|node| node.spec.role == Role::Manager).count();
    if managers >= MANAGERS_MAX {
        return Err(Rejection::TooManyManagers { max: MANAGERS_MAX }.into());
    }
    Ok(())
}

/// Whether the managers that remain have a quorum among them. A node of which the leader has not
/// heard yet counts as reachable: it is new.
fn may_demote(state: &Replicated, leaving: &Node) -> Result<(), Error> {
    let refused = |text| Err(Error::rpc(Code::FailedPrecondition, text));
    let managers = state.nodes.values().filter(|node| node.spec.role == Role::Manager).count();
    if managers <= 1 {
        return refused("attempting to demote the last manager of the swarm");
    }
    let others = state.nodes.values().filter(|node| {
        let votes = node.manager.is_some_and(|it| it.membership == Membership::Voter);
        votes && node.id != leaving.id
    });
    let (mut members, mut reachable) = (0usize, 0usize);
    for node in others {
        members += 1;
        reachable += usize::from(node.status.reachability != Reachability::Unreachable);
    }
    let was_voter = leaving.manager.is_some_and(|it| it.membership == Membership::Voter);
    if was_voter && reachable < members / 2 + 1 {
        return refused("can't remove member from the raft: this would result in a loss of quorum");
    }
    Ok(())
}

/// `DELETE /nodes/{id}`.
pub(super) async fn remove(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let removal = if ask.params.flag("force") { Removal::Forced } else { Removal::IfDown };
    for attempt in 1.. {
        let read = ctx.read_to_change().await?;
        let node = lookup::node(&read.view, &text)?;
        may_remove(node, removal)?;
        let key = ObjectKey::Node(node.id);
        // The node may come back or be promoted in between: the check must hold at the removal.
        let change = Change::Delete { key, expect: Expect::At(node.meta.revision) };
        match ctx.propose(&read.store, &ask, vec![change]).await {
            Err(error) if attempt < REMOVE_ATTEMPTS && error.is_out_of_sequence() => {}
            outcome => return outcome.map(|_| StatusCode::OK.into_response()),
        }
    }
    Err(Error::rpc(Code::Unknown, "update out of sequence"))
}

/// Whether a node may be removed although it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removal {
    IfDown,
    Forced,
}

fn may_remove(node: &Node, removal: Removal) -> Result<(), Error> {
    let is_member = node.manager.is_some_and(|it| it.membership != Membership::Removed);
    if node.spec.role == Role::Manager || is_member {
        let text = format!(
            "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
            node.id
        );
        return Err(Error::rpc(Code::FailedPrecondition, text));
    }
    if removal == Removal::IfDown && node.status.reachability == Reachability::Reachable {
        let text = format!("node {} is not down and can't be removed", node.id);
        return Err(Error::rpc(Code::FailedPrecondition, text));
    }
    Ok(())
}
