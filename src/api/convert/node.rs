//! Nodes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{head, put, tls_info, value};
use crate::domain::node::{Membership, Reachability};
use crate::domain::{Cluster, Node};
use crate::raft::Leadership;
use crate::state::State;

/// What all nodes of an answer share.
#[derive(Debug)]
pub(in crate::api) struct NodeShape {
    leadership: Leadership,
    trust: u64,
    tls_info: Option<Value>,
    /// Of nodes that have not confirmed the roots of now.
    tls_info_before: Option<Value>,
}

impl NodeShape {
    pub(in crate::api) fn new(state: &State, leadership: Leadership) -> Self {
        let cluster = state.cluster.as_ref();
        let now = |it: &Arc<Cluster>| tls_info(Some(&it.roots_pem()), &it.issuer().root_pem);
        // Before a switch nodes know the old root alone; after it, they trust one that the state has
        // forgotten besides the new.
        let before = |it: &Arc<Cluster>| {
            let old = &it.authority.root_pem;
            tls_info(it.trust.rotation.is_some().then_some(old.as_str()), old)
        };
        Self {
            leadership,
            trust: cluster.map_or(0, |cluster| cluster.trust.generation),
            tls_info: cluster.map(now),
            tls_info_before: cluster.map(before),
        }
    }

    /// A node as `GET /nodes/{id}` shows it.
    pub(in crate::api) fn node(&self, node: &Node) -> Value {
        let mut members = head(node.id.to_string(), &node.meta, node.meta.spec_revision);
        put(&mut members, "Spec", value(&node.spec));
        let described = node.description.clone().unwrap_or_default();
        let mut description = value(&described);
        let info = if node.trust < self.trust { &self.tls_info_before } else { &self.tls_info };
        if let (Some(info), Some(members)) = (info, description.as_object_mut()) {
            put(members, "TLSInfo", info.clone());
        }
        put(&mut members, "Description", description);
        put(&mut members, "Status", status(node));
        if let Some(manager) = manager_status(node, self.leadership) {
            put(&mut members, "ManagerStatus", manager);
        }
        Value::Object(members)
    }
}

fn status(node: &Node) -> Value {
    let mut members = Map::new();
    put(&mut members, "State", Value::from(node.status.reachability.as_str()));
    let degraded = node.description.as_ref().map_or("", |it| it.degraded.as_str());
    let message = match (node.status.message.as_str(), degraded) {
        ("", "") => String::new(),
        ("", degraded) => format!("cannot run tasks: {degraded}"),
        (message, _) => message.to_owned(),
    };
    if !message.is_empty() {
        put(&mut members, "Message", Value::String(message));
    }
    let addr = node.status.addr.or_else(|| node.manager.map(|manager| manager.addr.ip()));
    if let Some(addr) = addr {
        put(&mut members, "Addr", Value::String(addr.to_string()));
    }
    Value::Object(members)
}

fn manager_status(node: &Node, leadership: Leadership) -> Option<Value> {
    let manager = node.manager.filter(|it| it.membership != Membership::Removed)?;
    let leads = leadership.leader.is_some_and(|(leader, _)| leader == manager.raft_id);
    let reachability = match node.status.reachability {
        _ if leads => "reachable",
        _ if manager.silent => "unreachable",
        Reachability::Reachable => "reachable",
        Reachability::Unknown => "unknown",
        Reachability::Unreachable => "unreachable",
    };
    let mut members = Map::new();
    if leads {
        put(&mut members, "Leader", Value::Bool(true));
    }
    put(&mut members, "Reachability", Value::from(reachability));
    put(&mut members, "Addr", Value::String(manager.addr.to_string()));
    Some(Value::Object(members))
}
