//! What `apply` must know of every kind of object: its name for people, its times and revisions, which
//! part of it is the user's wish, and how a user's write spares what belongs to the system.

use std::sync::Arc;

use super::{Object, ObjectKey};
use crate::domain::{Cluster, Config, Meta, Network, NetworkNode, Node, Secret, Service, Task};

impl ObjectKey {
    /// The kind of object, as people call it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Node(_) => "node",
            Self::Service(_) => "service",
            Self::SpecVersion(..) => "spec version",
            Self::Task(_) => "task",
            Self::Network(_) => "network",
            Self::NetworkNode(..) => "network node",
            Self::Secret(_) => "secret",
            Self::Config(_) => "config",
        }
    }

    /// The id of the object, for people.
    #[must_use]
    pub fn id_text(&self) -> String {
        match self {
            Self::Cluster => "default".to_owned(),
            Self::Node(id) => id.to_string(),
            Self::Service(id) => id.to_string(),
            Self::SpecVersion(id, number) => format!("{id}:{number}"),
            Self::Task(id) => id.to_string(),
            Self::Network(id) => id.to_string(),
            Self::NetworkNode(network, node) => format!("{network}:{node}"),
            Self::Secret(id) => id.to_string(),
            Self::Config(id) => id.to_string(),
        }
    }
}

impl Object {
    /// Times and revisions; `None` for spec versions, which never change.
    #[must_use]
    pub fn meta(&self) -> Option<Meta> {
        match self {
            Self::Cluster(it) => Some(it.meta),
            Self::Node(it) => Some(it.meta),
            Self::Service(it) => Some(it.meta),
            Self::SpecVersion(_) => None,
            Self::Task(it) => Some(it.meta),
            Self::Network(it) => Some(it.meta),
            Self::NetworkNode(it) => Some(it.meta),
            Self::Secret(it) => Some(it.meta),
            Self::Config(it) => Some(it.meta),
        }
    }

    /// The same object with other times and revisions.
    #[must_use]
    pub(super) fn with_meta(&self, meta: Meta) -> Self {
        match self {
            Self::Cluster(it) => Self::Cluster(Arc::new(Cluster { meta, ..(**it).clone() })),
            Self::Node(it) => Self::Node(Arc::new(Node { meta, ..(**it).clone() })),
            Self::Service(it) => Self::Service(Arc::new(Service { meta, ..(**it).clone() })),
            Self::SpecVersion(it) => Self::SpecVersion(Arc::clone(it)),
            Self::Task(it) => Self::Task(Arc::new(Task { meta, ..(**it).clone() })),
            Self::Network(it) => Self::Network(Arc::new(Network { meta, ..(**it).clone() })),
            Self::NetworkNode(it) => {
                Self::NetworkNode(Arc::new(NetworkNode { meta, ..(**it).clone() }))
            }
            Self::Secret(it) => Self::Secret(Arc::new(Secret { meta, ..(**it).clone() })),
            Self::Config(it) => Self::Config(Arc::new(Config { meta, ..(**it).clone() })),
        }
    }

    /// Whether the user's wish differs between two states of one object.
    pub(super) fn spec_differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cluster(a), Self::Cluster(b)) => a.spec != b.spec,
            (Self::Node(a), Self::Node(b)) => a.spec != b.spec,
            (Self::Service(a), Self::Service(b)) => {
                (a.current, a.removing, &a.name) != (b.current, b.removing, &b.name)
            }
            (Self::Network(a), Self::Network(b)) => a.name != b.name || a.labels != b.labels,
            (Self::Secret(a), Self::Secret(b)) => a.spec != b.spec,
            (Self::Config(a), Self::Config(b)) => a.spec != b.spec,
            (Self::Task(_), Self::Task(_)) | (Self::NetworkNode(_), Self::NetworkNode(_)) => false,
            (a, b) => a != b,
        }
    }

    /// A user's write of `self` over `current`: the wish is the user's, what the system recorded
    /// since the user read the object stays.
    pub(super) fn as_users_write(&self, current: &Self) -> Self {
        match (self, current) {
            (Self::Cluster(new), Self::Cluster(old)) => Self::Cluster(Arc::new(Cluster {
                worker_token: new.worker_token.max(old.worker_token),
                manager_token: new.manager_token.max(old.manager_token),
                format: old.format,
                autolock: new.autolock.over(&old.autolock, &new.spec.encryption_config),
                authority: old.authority.clone(),
                trust: match new.spec.ca.asks_another_root_than(&old.spec.ca) {
                    true => new.trust.clone(),
                    false => old.trust.clone(),
                },
                ..(**new).clone()
            })),
            (Self::Node(new), Self::Node(old)) => {
                Self::Node(Arc::new(Node { spec: new.spec.clone(), ..(**old).clone() }))
            }
            (Self::Service(new), Self::Service(old)) => {
                let changed = new.current != old.current;
                let update = if changed { new.update.clone() } else { old.update.clone() };
                Self::Service(Arc::new(Service { update, ..(**new).clone() }))
            }
            (new, _) => new.clone(),
        }
    }

    /// A write that raises what it names whatever was reported meanwhile: of a task, the higher of
    /// both desired states and the join of both statuses.
    pub(super) fn risen_from(&self, current: &Self) -> Self {
        match (self, current) {
            (Self::Task(new), Self::Task(old)) => Self::Task(Arc::new(Task {
                desired: new.desired.max(old.desired),
                status: new.status.clone().join(old.status.clone()),
                ..(**new).clone()
            })),
            (new, _) => new.clone(),
        }
    }
}
