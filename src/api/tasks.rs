//! `/tasks`: what runs, ran, or waits to run.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::ask::Ask;
use super::context::Ctx;
use super::error::Error;
use super::filter::Filters;
use super::{convert, lookup};
use crate::domain::{Labels, NodeId, ServiceId, Task, TaskState};
use crate::state::State as Replicated;

/// Which tasks a list is asked for.
struct Wanted {
    filters: Filters,
    services: BTreeSet<ServiceId>,
    nodes: BTreeSet<NodeId>,
    desired: BTreeSet<TaskState>,
}

/// `GET /tasks`.
pub(super) async fn list(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let known =
        ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];
    let filters = Filters::only(&ask.params, &known)?;
    let desired = filters.values("desired-state").iter().map(|text| state_named(text));
    let desired = desired.collect::<Result<_, _>>()?;
    let read = ctx.read(&ask).await?;
    let state: &Replicated = &read.view;
    let services = filters.values("service").iter().map(|text| service_id(state, text));
    let nodes = filters.values("node").iter().map(|text| Ok(lookup::node(state, text)?.id));
    let wanted = Wanted {
        services: services.collect::<Result<_, Error>>()?,
        nodes: nodes.collect::<Result<_, Error>>()?,
        desired,
        filters,
    };
    let shown = candidates(state, &wanted)
        .into_iter()
        .filter(|task| matches(state, task, &wanted))
        .map(|task| convert::task(state, task));
    Ok(read.json(&Value::Array(shown.collect())))
}

fn state_named(text: &str) -> Result<TaskState, Error> {
    let found = TaskState::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let message = format!("Invalid desired-state filter: '{text}'");
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })
}

/// A service by any of its names; one that is being removed still has tasks to be seen.
fn service_id(state: &Replicated, text: &str) -> Result<ServiceId, Error> {
    let exact = text.parse().ok().filter(|id| state.service(*id).is_some());
    exact.map_or_else(|| Ok(lookup::service(state, text)?.id), Ok)
}

/// The tasks that an index finds, or all.
fn candidates<'a>(state: &'a Replicated, wanted: &Wanted) -> Vec<&'a Arc<Task>> {
    if !wanted.services.is_empty() {
        return wanted.services.iter().flat_map(|id| state.tasks_of(*id)).collect();
    }
    if !wanted.nodes.is_empty() {
        return wanted.nodes.iter().flat_map(|id| state.tasks_on(*id)).collect();
    }
    state.tasks.values().collect()
}

fn matches(state: &Replicated, task: &Task, wanted: &Wanted) -> bool {
    let filters = &wanted.filters;
    let service = state.service(task.service);
    let up_to_date = |text: &str| {
        let is = service.is_some_and(|service| convert::is_up_to_date(state, service, task));
        is == matches!(text, "true" | "1")
    };
    let no_labels = Labels::new();
    let spec = state.spec(task.service, task.spec);
    let labels = spec.map_or(&no_labels, |version| &version.spec.labels);
    (wanted.desired.is_empty() || wanted.desired.contains(&task.desired))
        && (wanted.nodes.is_empty() || task.node.is_some_and(|node| wanted.nodes.contains(&node)))
        && filters.prefix("id", &[&task.id.to_string()])
        && filters.any("name", |text| convert::task_name(state, task).starts_with(text))
        && filters.labels("label", labels)
        && filters.any("runtime", |wanted| matches!(wanted, "" | "container"))
        && filters.any("_up-to-date", up_to_date)
}

/// `GET /tasks/{id}`.
pub(super) async fn inspect(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    let task = lookup::task(&read.view, &text)?;
    Ok(read.json(&convert::task(&read.view, task)))
}
