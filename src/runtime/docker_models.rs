//! The engine's answers about itself, its networks and its containers, turned into our values. Pure.

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum, Ipam, IpamConfig,
    LocalNodeState, NetworkCreateRequest, NetworkInspect, SystemInfo,
};

use super::{Container, Error, Health, NetworkPlan, Phase, SwarmMode, spec};
use crate::domain::Network;
use crate::domain::node::{Description, EngineDescription, Platform, Plugin};
use crate::domain::resources::Resources;
use crate::domain::service::{PortConfig, Protocol, PublishMode};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";

/// Whether the engine orchestrates by itself.
pub(super) fn swarm_mode(info: &SystemInfo) -> SwarmMode {
    let state = info.swarm.as_ref().and_then(|swarm| swarm.local_node_state);
    match state {
        None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE) => SwarmMode::Inactive,
        Some(_) => SwarmMode::Active,
    }
}

/// What an engine says of itself and of the machine.
pub(super) fn description(info: SystemInfo) -> Description {
    let labels = info.labels.unwrap_or_default();
    let plugins = info.plugins.unwrap_or_default();
    let kinds = [("Volume", plugins.volume), ("Network", plugins.network), ("Log", plugins.log)];
    Description {
        hostname: info.name.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
        },
        resources: Resources {
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory_bytes: info.mem_total.unwrap_or_default(),
            generic: Vec::new(),
        },
        engine: EngineDescription {
            engine_version: info.server_version.unwrap_or_default(),
            labels: labels
                .iter()
                .filter_map(|label| label.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            plugins: kinds
                .into_iter()
                .flat_map(|(kind, names)| {
                    names
                        .unwrap_or_default()
                        .into_iter()
                        .map(move |name| Plugin { kind: kind.to_owned(), name })
                })
                .collect(),
        },
        ..Description::default()
    }
}

/// The request that makes the engine's network under a cluster network (reference/network.md §2.2).
pub(super) fn network_body(network: &Network, plan: &NetworkPlan) -> NetworkCreateRequest {
    let options = [
        (BRIDGE_NAME, plan.bridge.clone()),
        (MTU, plan.mtu.to_string()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
    ];
    let mut labels = network.labels.clone();
    labels.insert(spec::LABEL_NETWORK.to_owned(), network.id.to_string());
    NetworkCreateRequest {
        name: plan.name.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(plan.subnet.to_string()),
                gateway: Some(plan.gateway.to_string()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        options: Some(options.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()),
        labels: Some(labels.into_iter().collect()),
        ..NetworkCreateRequest::default()
    }
}

/// What to do about a network that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It serves.
    AsWanted,
    /// It is ours, unused and different: make it again.
    Replace,
}

/// Compares a network of the engine with what is wanted.
///
/// # Errors
/// [`Error::Permanent`] if it is somebody else's, or ours, different and in use.
pub(super) fn judge(
    found: &NetworkInspect,
    network: &Network,
    plan: &NetworkPlan,
) -> Result<Verdict, Error> {
    let option = |key| found.options.as_ref().and_then(|options| options.get(key));
    let ranges = found.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    let addressed = ranges.is_some_and(|ranges| {
        ranges.iter().any(|range| {
            range.subnet.as_ref() == Some(&plan.subnet.to_string())
                && range.gateway.as_ref() == Some(&plan.gateway.to_string())
        })
    });
    let mine = found.labels.as_ref().and_then(|labels| labels.get(spec::LABEL_NETWORK));
    let same = addressed
        && found.driver.as_deref() == Some("bridge")
        && option(BRIDGE_NAME) == Some(&plan.bridge)
        && mine == Some(&network.id.to_string());
    let used = found.containers.as_ref().map_or(0, |containers| containers.len());
    // Another MTU alone is no reason to refuse a network that works: it changes when it is unused.
    if same && (used > 0 || option(MTU) == Some(&plan.mtu.to_string())) {
        return Ok(Verdict::AsWanted);
    }
    if mine.is_none() {
        return Err(Error::Permanent(format!(
            "the engine has a network {:?} that is not the cluster's: remove it (docker network rm \
             {}), it is in the way",
            plan.name, plan.name
        )));
    }
    if used > 0 {
        return Err(Error::Transient(format!(
            "the engine's network {:?} is not as the cluster wants it and {used} containers use it",
            plan.name
        )));
    }
    Ok(Verdict::Replace)
}

/// A container of ours as the agent sees it; `None` without our labels or state.
pub(super) fn container(found: ContainerInspectResponse) -> Option<Container> {
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let task = spec::task_of(labels.iter())?;
    let state = found.state?;
    let exited = Phase::Exited {
        code: state.exit_code.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
    };
    let phase = match state.status? {
        ContainerStateStatusEnum::CREATED => Phase::Created,
        ContainerStateStatusEnum::RUNNING
        | ContainerStateStatusEnum::PAUSED
        | ContainerStateStatusEnum::STOPPING
        | ContainerStateStatusEnum::RESTARTING => {
            Phase::Running(match state.health.and_then(|health| health.status) {
                Some(HealthStatusEnum::STARTING) => Health::Starting,
                Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
                Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
                Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::Unchecked,
            })
        }
        ContainerStateStatusEnum::EXITED
        | ContainerStateStatusEnum::DEAD
        | ContainerStateStatusEnum::REMOVING
        | ContainerStateStatusEnum::EMPTY => exited,
    };
    let ports = found.network_settings.and_then(|network| network.ports).unwrap_or_default();
    let mut ports: Vec<_> = ports
        .into_iter()
        .flat_map(|(target, bindings)| {
            bindings.unwrap_or_default().into_iter().filter_map(move |binding| {
                let (port, protocol) = target.split_once('/')?;
                Some(PortConfig {
                    name: String::new(),
                    protocol: match protocol {
                        "udp" => Protocol::Udp,
                        "sctp" => Protocol::Sctp,
                        _ => Protocol::Tcp,
                    },
                    target_port: port.parse().ok()?,
                    published_port: binding.host_port?.parse().ok()?,
                    publish_mode: PublishMode::Host,
                })
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    let pid = state.pid.unwrap_or_default();
    Some(Container { id: found.id?, task, phase, pid, ports })
}
