//! Services.

use serde_json::{Map, Value, json};

use super::{head, put, value};
use crate::domain::service::{Service, ServiceSpec, UpdateStatus};
use crate::domain::{TaskState, Timestamp};
use crate::state::State;

/// A service as `GET /services/{id}` shows it.
pub(in crate::api) fn service(state: &State, service: &Service) -> Value {
    let mut members = head(service.id.to_string(), &service.meta, service.meta.spec_revision);
    let spec = state.current_spec(service);
    put(&mut members, "Spec", spec.map_or(Value::Null, |spec| spec_json(spec)));
    if let Some(previous) = service.previous.and_then(|number| state.spec(service.id, number)) {
        put(&mut members, "PreviousSpec", spec_json(&previous.spec));
    }
    let endpoint = spec.and_then(|spec| spec.endpoint_spec.as_ref());
    let mut shown = Map::new();
    put(&mut shown, "Spec", endpoint.map_or_else(|| json!({}), value));
    if let Some(ports) = endpoint.map(|endpoint| &endpoint.ports).filter(|it| !it.is_empty()) {
        put(&mut shown, "Ports", value(ports));
    }
    put(&mut members, "Endpoint", Value::Object(shown));
    if let Some(update) = &service.update {
        put(&mut members, "UpdateStatus", update_status(update));
    }
    Value::Object(members)
}

/// A service's spec without what must not be shown.
pub(in crate::api) fn spec_json(spec: &ServiceSpec) -> Value {
    let mut shown = spec.clone();
    shown.task_template.container_spec.pull_options = None;
    value(&shown)
}

fn update_status(update: &UpdateStatus) -> Value {
    let mut members = Map::new();
    put(&mut members, "State", Value::from(update.state.as_str()));
    if update.started_at > Timestamp(0) {
        put(&mut members, "StartedAt", Value::String(update.started_at.to_string()));
    }
    if let Some(at) = update.completed_at {
        put(&mut members, "CompletedAt", Value::String(at.to_string()));
    }
    put(&mut members, "Message", Value::from(update.message.clone()));
    Value::Object(members)
}

/// `ServiceStatus`: how many tasks run and should. A task that was told to stop does not count,
/// though its container may still run.
pub(in crate::api) fn service_status(state: &State, service: &Service) -> Value {
    let (mut running, mut wanted, mut completed) = (0u64, 0u64, 0u64);
    for task in state.tasks_of(service.id) {
        let is_wanted = task.desired <= TaskState::Running;
        running += u64::from(is_wanted && task.status.state == TaskState::Running);
        wanted += u64::from(is_wanted);
        completed += u64::from(task.status.state == TaskState::Complete);
    }
    let replicas = state.current_spec(service).and_then(|spec| spec.replicas());
    json!({
        "RunningTasks": running,
        "DesiredTasks": replicas.unwrap_or(wanted),
        "CompletedTasks": completed,
    })
}

/// What `insertDefaults=true` adds: every default that has an effect where the user said nothing.
pub(in crate::api) fn insert_defaults(shown: &mut Value) {
    let Some(spec) = shown.get_mut("Spec").and_then(Value::as_object_mut) else { return };
    let policy = json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000u64,
        "MaxFailureRatio": 0, "Order": "stop-first",
    });
    let defaults = json!({
        "TaskTemplate": {
            "ContainerSpec": {"StopGracePeriod": 10_000_000_000u64, "DNSConfig": {}},
            "Resources": {"Limits": {}, "Reservations": {}},
            "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000u64, "MaxAttempts": 0},
            "Placement": {},
            "Runtime": "container",
        },
        "UpdateConfig": policy,
        "RollbackConfig": policy,
        "EndpointSpec": {"Mode": "vip"},
    });
    if let Value::Object(defaults) = defaults {
        merge(spec, defaults);
    }
}

/// Adds members that are absent, in depth.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (name, member) in from {
        match (into.get_mut(&name), member) {
            (Some(Value::Object(inner)), Value::Object(member)) => merge(inner, member),
            (Some(_), _) => {}
            (None, member) => {
                into.insert(name, member);
            }
        }
    }
}
