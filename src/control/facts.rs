//! What planning must know of a version of a spec, worked out once per pass.

use std::sync::Arc;

use crate::domain::node::{Node, Platform};
use crate::domain::placement::{Constraint, normal_arch};
use crate::domain::resources::GenericResource;
use crate::domain::service::{Protocol, VersionNumber};
use crate::domain::{NetworkId, ServiceSpec, SpecVersion};
use crate::state::View;

/// What planning must know of a version of a spec.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) number: VersionNumber,
    pub(super) spec: Arc<ServiceSpec>,
    /// How it compares with the current version.
    pub(super) likeness: Likeness,
    /// Cluster networks its tasks join.
    pub(super) networks: Vec<NetworkId>,
    /// What each task takes from its node.
    pub(super) needs: Needs,
    /// Most tasks on one node; 0 means no bound.
    pub(super) max_replicas: u64,
    /// `None` if one cannot be read: no node qualifies then.
    constraints: Option<Vec<Constraint>>,
    platforms: Vec<Platform>,
}

/// How tasks of one version differ from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Not at all.
    Same,
    /// Only in the credentials that fetch the image: nothing to a task that has it.
    Credentials,
    /// Only in where they may run.
    Placement,
    /// In what they run.
    Different,
}

/// What a task takes from its node for as long as it may run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Needs {
    pub(super) nano_cpus: i64,
    pub(super) memory: i64,
    /// Units of each kind.
    pub(super) generic: Vec<(String, i64)>,
    /// Fixed host ports.
    pub(super) ports: Vec<(Protocol, u16)>,
}

impl Needs {
    pub(super) fn of(spec: &ServiceSpec) -> Self {
        let reserved =
            spec.task_template.resources.as_ref().and_then(|it| it.reservations.as_ref());
        let ports = spec.host_ports().filter(|port| port.published_port != 0);
        Self {
            nano_cpus: reserved.map_or(0, |it| it.nano_cpus.max(0)),
            memory: reserved.map_or(0, |it| it.memory_bytes.max(0)),
            generic: reserved.map_or_else(Vec::new, |it| units(&it.generic)),
            ports: ports.map(|port| (port.protocol, port.published_port)).collect(),
        }
    }
}

/// Generic resources as units of each kind: a named one is one unit.
pub(super) fn units(generic: &[GenericResource]) -> Vec<(String, i64)> {
    let mut units: Vec<(String, i64)> = Vec::new();
    for it in generic {
        let (kind, count) = match it {
            GenericResource::Named { kind, .. } => (kind, 1),
            GenericResource::Discrete { kind, value } => (kind, (*value).max(0)),
        };
        match units.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => units.push((kind.clone(), count)),
        }
    }
    units
}

impl Facts {
    pub(super) fn new(view: &View, version: &SpecVersion, current: &Arc<ServiceSpec>) -> Self {
        let spec = &version.spec;
        let placement = spec.task_template.placement.as_ref();
        let constraints = placement.map_or_else(
            || Some(Vec::new()),
            |it| it.constraints.iter().map(|text| Constraint::parse(text).ok()).collect(),
        );
        Self {
            number: version.number,
            spec: Arc::clone(spec),
            likeness: compare(spec, current),
            networks: view.networks_of(spec),
            needs: Needs::of(spec),
            max_replicas: placement.map_or(0, |it| it.max_replicas),
            constraints,
            platforms: placement.map_or_else(Vec::new, |it| it.platforms.clone()),
        }
    }

    /// Whether a node meets the constraints.
    pub(super) fn allows(&self, node: &Node) -> bool {
        self.constraints.as_ref().is_some_and(|all| all.iter().all(|it| it.matches(node)))
    }

    /// Whether a node can run the image.
    pub(super) fn runs_on(&self, node: &Node) -> bool {
        self.platforms.is_empty()
            || node.description.as_ref().is_some_and(|it| {
                self.platforms.iter().any(|platform| fits(platform, &it.platform))
            })
    }

    /// Labels over whose values the tasks are spread.
    pub(super) fn spread(&self) -> impl Iterator<Item = &str> {
        let placement = self.spec.task_template.placement.iter();
        placement
            .flat_map(|it| &it.preferences)
            .filter_map(|it| it.spread.as_ref())
            .map(|it| it.spread_descriptor.as_str())
    }
}

fn compare(spec: &Arc<ServiceSpec>, current: &Arc<ServiceSpec>) -> Likeness {
    if Arc::ptr_eq(spec, current) {
        return Likeness::Same;
    }
    if !spec.host_ports().eq(current.host_ports()) || spec.networks != current.networks {
        return Likeness::Different;
    }
    if spec.task_template == current.task_template {
        return Likeness::Same;
    }
    let mut like = spec.task_template.clone();
    like.container_spec.pull_options.clone_from(&current.task_template.container_spec.pull_options);
    if like == current.task_template {
        return Likeness::Credentials;
    }
    like.placement.clone_from(&current.task_template.placement);
    if like == current.task_template { Likeness::Placement } else { Likeness::Different }
}

/// Whether an image's platform runs on a node's; an empty member means any.
fn fits(image: &Platform, node: &Platform) -> bool {
    let same = |a: &str, b: &str| a.is_empty() || a.eq_ignore_ascii_case(b);
    same(&image.os, &node.os)
        && same(normal_arch(&image.architecture), normal_arch(&node.architecture))
}
