//! Tasks.

use serde_json::{Map, Value, json};

use super::service::spec_json;
use super::{head, network_attachment, put, value};
use crate::domain::placement::{Constraint, Placement};
use crate::domain::task::{ContainerStatus, Slot};
use crate::domain::{Service, Task, TaskState};
use crate::state::State;

/// A task as `GET /tasks/{id}` shows it.
pub(in crate::api) fn task(state: &State, task: &Task) -> Value {
    let mut members = head(task.id.to_string(), &task.meta, task.meta.revision);
    put(&mut members, "Labels", json!({}));
    let spec = state.spec(task.service, task.spec).map(|version| spec_json(&version.spec));
    let template = spec.and_then(|mut spec| spec.get_mut("TaskTemplate").map(Value::take));
    put(&mut members, "Spec", template.unwrap_or_else(|| json!({})));
    put(&mut members, "ServiceID", Value::String(task.service.to_string()));
    if let Slot::Number(slot) = task.slot {
        put(&mut members, "Slot", slot.into());
    }
    if let Some(node) = task.node {
        put(&mut members, "NodeID", Value::String(node.to_string()));
    }
    put(&mut members, "Status", status(task));
    put(&mut members, "DesiredState", Value::from(task.desired.as_str()));
    let attachments: Vec<Value> =
        task.addresses.iter().filter_map(|it| network_attachment(state, it)).collect();
    if !attachments.is_empty() {
        put(&mut members, "NetworksAttachments", Value::Array(attachments));
    }
    Value::Object(members)
}

fn status(task: &Task) -> Value {
    let status = &task.status;
    let mut members = Map::new();
    let at = if status.at.0 == 0 { task.meta.created_at } else { status.at };
    put(&mut members, "Timestamp", Value::String(at.to_string()));
    put(&mut members, "State", Value::from(status.state.as_str()));
    put(&mut members, "Message", Value::from(status.message.clone()));
    if !status.error.is_empty() {
        put(&mut members, "Err", Value::from(status.error.clone()));
    }
    if let Some(container) = &status.container {
        put(&mut members, "ContainerStatus", container_status(container));
    }
    let ports =
        if status.ports.is_empty() { json!({}) } else { json!({"Ports": value(&status.ports)}) };
    put(&mut members, "PortStatus", ports);
    Value::Object(members)
}

fn container_status(container: &ContainerStatus) -> Value {
    json!({
        "ContainerID": container.id,
        "PID": container.pid,
        "ExitCode": container.exit_code.unwrap_or_default(),
    })
}

/// The name of a task's container: `web.1.<task id>`, `web.<node id>.<task id>`.
pub(in crate::api) fn task_name(state: &State, task: &Task) -> String {
    let service = state.service(task.service);
    let name = service.map_or_else(|| task.service.to_string(), |service| service.name.clone());
    match task.slot {
        Slot::Number(slot) => format!("{name}.{slot}.{}", task.id),
        Slot::Node(node) => format!("{name}.{node}.{}", task.id),
    }
}

/// Whether a task runs what its service's current spec says, so that an update leaves it alone. A
/// difference in placement alone counts only where the node does not qualify any more.
pub(in crate::api) fn is_up_to_date(state: &State, service: &Service, task: &Task) -> bool {
    if task.spec == service.current {
        return true;
    }
    let (Some(has), Some(wants)) = (state.spec(service.id, task.spec), state.current_spec(service))
    else {
        return false;
    };
    if !has.spec.host_ports().eq(wants.host_ports()) {
        return false;
    }
    let placement = &wants.task_template.placement;
    let mut template = has.spec.task_template.clone();
    // New credentials of a registry mean nothing to a task that has its image.
    if (TaskState::Ready..=TaskState::Running).contains(&task.status.state) {
        let pull_options = &wants.task_template.container_spec.pull_options;
        template.container_spec.pull_options.clone_from(pull_options);
    }
    let moved = template.placement != *placement;
    template.placement.clone_from(placement);
    template == wants.task_template && (!moved || qualifies(state, task, placement.as_ref()))
}

/// Whether the node of a task meets constraints.
fn qualifies(state: &State, task: &Task, placement: Option<&Placement>) -> bool {
    let Some(node) = task.node.and_then(|id| state.node(id)) else { return false };
    let mut constraints = placement.iter().flat_map(|it| &it.constraints);
    constraints.all(|text| Constraint::parse(text).is_ok_and(|it| it.matches(node)))
}
