//! Domain values as Docker's JSON. Shapes are those of Engine 20.10, as recorded.

mod cluster;
pub(super) mod event;
mod network;
mod node;
mod payload;
mod service;
mod task;

pub(super) use cluster::{cluster, tls_info};
pub(super) use network::{network, network_attachment, predefined};
pub(super) use node::NodeShape;
pub(super) use payload::{config, secret};
pub(super) use service::{insert_defaults, service, service_status};
pub(super) use task::{is_up_to_date, task, task_name};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::{Meta, Revision};

/// A value of ours as JSON; none of our types can fail to be.
fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// The members that every object begins with.
fn head(id: String, meta: &Meta, version: Revision) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("ID".to_owned(), Value::String(id));
    members.insert("Version".to_owned(), json!({ "Index": version.0 }));
    members.insert("CreatedAt".to_owned(), Value::String(meta.created_at.to_string()));
    members.insert("UpdatedAt".to_owned(), Value::String(meta.updated_at.to_string()));
    members
}

fn put(members: &mut Map<String, Value>, name: &str, member: Value) {
    members.insert(name.to_owned(), member);
}
