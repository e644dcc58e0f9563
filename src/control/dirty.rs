//! Which objects a pass must not skip. Names objects, never events, and only ever names too many:
//! it may save work, never alter the answer.

use std::collections::BTreeSet;

use super::crew::Crew;
use super::pass::Pass;
use super::rest::Rests;
use crate::domain::{NodeId, ServiceId, Timestamp};
use crate::state::{Event, Object, ObjectKey, View};

/// What a pass must look at.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Dirty {
    /// Everything: opens a tenure, and is always right.
    #[default]
    All,
    /// These objects, and what depends on them.
    Some(DirtySet),
}

/// Objects that changed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DirtySet {
    /// Services, by a change of their own or of one of their tasks.
    pub services: BTreeSet<ServiceId>,
    /// Nodes.
    pub nodes: BTreeSet<NodeId>,
}

impl Dirty {
    /// Nothing but what time and leases bring about.
    #[must_use]
    pub fn none() -> Self {
        Self::Some(DirtySet::default())
    }

    /// What events make dirty.
    #[must_use]
    pub fn from_events(_view: &View, events: &[Event]) -> Self {
        let mut dirty = Self::none();
        for event in events {
            dirty.mark(match &event.object {
                Object::Cluster(_) => ObjectKey::Cluster,
                Object::Task(task) => ObjectKey::Service(task.service),
                other => other.key(),
            });
        }
        dirty
    }

    /// What the timers of the last plans make dirty that are due now.
    #[must_use]
    pub fn due(timers: &[(Timestamp, ObjectKey)], now: Timestamp) -> Self {
        let mut dirty = Self::none();
        timers.iter().filter(|(at, _)| *at <= now).for_each(|(_, key)| dirty.mark(*key));
        dirty
    }

    /// Marks one object.
    pub fn mark(&mut self, key: ObjectKey) {
        let Self::Some(set) = self else { return };
        match key {
            // The history limit and the default network concern every service; a task is named by
            // its service where that is known.
            ObjectKey::Cluster | ObjectKey::Network(_) | ObjectKey::Task(_) => *self = Self::All,
            ObjectKey::Service(id) | ObjectKey::SpecVersion(id, _) => {
                set.services.insert(id);
            }
            ObjectKey::Node(id) | ObjectKey::NetworkNode(_, id) => {
                set.nodes.insert(id);
            }
            ObjectKey::Secret(_) | ObjectKey::Config(_) => {}
        }
    }

    /// Adds what another hint names.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(mine), Self::Some(theirs)) => {
                mine.services.extend(theirs.services);
                mine.nodes.extend(theirs.nodes);
            }
        }
    }
}

/// The services that this pass looks at, in the order of their ids.
pub(super) fn crews(pass: &Pass<'_>, dirty: &Dirty) -> Vec<Crew> {
    let load = |service| Crew::load(pass, service);
    match dirty {
        Dirty::All => {
            let mut rests = Rests::new(pass);
            let services = pass.view.services.values();
            services.filter(|service| !rests.is_at_rest(pass, service)).filter_map(load).collect()
        }
        Dirty::Some(set) => {
            let services = services(pass, set);
            services.iter().filter_map(|id| pass.view.service(*id)).filter_map(load).collect()
        }
    }
}

fn services(pass: &Pass<'_>, set: &DirtySet) -> BTreeSet<ServiceId> {
    let view = pass.view;
    let mut services = set.services.clone();
    let mut nodes = set.nodes.clone();
    nodes.extend(pass.roster.touched());
    nodes.extend(super::liveness::given_up(pass));
    for node in &nodes {
        services.extend(view.tasks_on(*node).map(|task| task.service));
    }
    if !nodes.is_empty() {
        // A node that comes or goes concerns every service that wants one task on each.
        let global = view.services.values().filter(|service| {
            view.current_spec(service).is_some_and(|spec| spec.replicas().is_none())
        });
        services.extend(global.map(|service| service.id));
    }
    // Tasks without a node: whatever is placed or freed may change their chances or the reason.
    if view.tasks.len() > view.tasks_by_node.len() {
        let unplaced = view.tasks.values().filter(|task| task.node.is_none());
        services.extend(unplaced.map(|task| task.service));
    }
    services
}
