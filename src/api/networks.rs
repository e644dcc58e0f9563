//! `/networks`: the cluster's networks among the engine's own. Networks of the user's own that span
//! nodes do not exist yet; asking for one is refused in words.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Request, StatusCode};
use serde_json::Value;

use super::ask::{self, Ask};
use super::context::{Ctx, json};
use super::error::{Code, Error};
use super::filter::Filters;
use super::router::Asked;
use super::{convert, keys, lookup};
use crate::domain::Network;
use crate::domain::validate::ENGINE_NETWORKS;
use crate::state::View;

/// What the request's version prefix was.
type Prefix = axum::Extension<Asked>;

/// This node's view of the cluster's networks; none on workers and outside of a cluster.
fn view(ctx: &Ctx) -> Option<View> {
    ctx.deps.store.borrow().as_ref().map(crate::raft::Store::view)
}

/// `GET /networks`: the engine's and ours.
pub(super) async fn list(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let filters = Filters::parse(&ask.params)?;
    let query = ask.params.get("filters").map(super::events::escape);
    let path = query.map_or_else(|| "/networks".to_owned(), |it| format!("/networks?filters={it}"));
    let answer = ctx.engine.question(&path).await;
    let view = view(&ctx);
    if answer.is_none() && view.is_none() {
        // Nothing to show of our own: let the engine's absence be the answer.
        ctx.engine.stream(&path).await?;
    }
    let mut networks = match answer {
        Some(Value::Array(networks)) => networks,
        Some(_) | None => Vec::new(),
    };
    // The engine is in no swarm, or in one that is none of ours.
    networks.retain(|network| network.get("Scope").is_none_or(|scope| scope != "swarm"));
    if let Some(view) = view {
        let ours = view.networks.values().filter(|network| matches(network, &filters));
        networks.extend(ours.map(|network| convert::network(network)));
    }
    Ok(json(StatusCode::OK, &Value::Array(networks)))
}

fn matches(network: &Network, filters: &Filters) -> bool {
    filters.prefix("id", &[&network.id.to_string()])
        && filters.any("name", |name| network.name.contains(name))
        && filters.any("driver", |driver| driver == "overlay")
        && filters.any("scope", |scope| scope == "swarm")
        && filters.any("type", |kind| kind == "custom")
        && filters.any("dangling", |dangling| matches!(dangling, "false" | "0"))
        && filters.labels("label", &network.labels)
}

/// `GET /networks/{id}`.
pub(super) async fn inspect(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
    axum::Extension(Asked(version)): Prefix,
    request: Request<Body>,
) -> Result<Response, Error> {
    let in_swarm = ask.params.get("scope") == Some("swarm");
    if let Some(view) = view(&ctx) {
        let found = lookup::network(&view, &text).ok().and_then(|id| view.networks.get(&id));
        if let Some(network) = found {
            return Ok(json(StatusCode::OK, &convert::network(network)));
        }
        if in_swarm && ENGINE_NETWORKS.contains(&text.as_str()) {
            let driver = if text == "none" { "null" } else { "host" };
            return Ok(json(StatusCode::OK, &convert::predefined(&text, driver)));
        }
    }
    if in_swarm {
        return Err(Error::not_found("network", &text));
    }
    ctx.engine.forward(request, version).await
}

/// `POST /networks/create`: local ones are the engine's; ones that span nodes are refused.
pub(super) async fn create(
    State(ctx): State<Ctx>,
    axum::Extension(Asked(version)): Prefix,
    request: Request<Body>,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, super::router::BODY_BYTES_MAX)
        .await
        .map_err(|error| Error::bad_request(error.to_string()))?;
    let wanted = ask::json(&body, keys::NETWORK)?;
    let text = |name: &str| wanted.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("Driver") == "overlay" || text("Scope") == "swarm" {
        let view = ctx.store()?.view();
        let name = text("Name");
        if view.networks.values().any(|network| network.name == name) {
            let message = format!("network with name {name} already exists");
            return Err(Error::new(StatusCode::CONFLICT, message));
        }
        return Err(no_own_networks(&view));
    }
    ctx.engine.forward(Request::from_parts(parts, Body::from(body)), version).await
}

fn no_own_networks(view: &View) -> Error {
    let default = view.cluster.as_ref().and_then(|it| view.networks.get(&it.default_network));
    let name = default.map_or("the default network", |network| network.name.as_str());
    let text = format!(
        "networks of your own that span nodes are not supported yet: services that name no network share {name}, which spans all nodes; leave the network out"
    );
    Error::rpc(Code::Unimplemented, text)
}

/// `DELETE /networks/{id}`.
pub(super) async fn remove(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    axum::Extension(Asked(version)): Prefix,
    request: Request<Body>,
) -> Result<Response, Error> {
    if let Some(view) = view(&ctx) {
        let found = lookup::network(&view, &text).ok().and_then(|id| view.networks.get(&id));
        if let Some(network) = found {
            let text = format!(
                "network {} ({}) is a swarm predefined network and cannot be removed",
                network.id, network.name
            );
            return Err(Error::rpc(Code::FailedPrecondition, text));
        }
    }
    ctx.engine.forward(request, version).await
}
