//! From a task and its spec to the engine's request, purely.
//!
//! The one place that knows how a `ContainerSpec` becomes a container. It decides nothing about when,
//! and does no I/O: files of secrets, configs and `resolv.conf` lie in the plan's directory already.

use std::path::Path;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
    NetworkingConfig, PortBinding, ResourcesUlimits,
};
use serde::de::DeserializeOwned;

use super::template::{self, expand};
use super::{ContainerPlan, Error};
use crate::domain::admission::Access;
use crate::domain::container::{self, ContainerSpec, FileTarget, Healthcheck, MountKind};
use crate::domain::network::mac_of;
use crate::domain::{Extra, Nanos, TaskId};

/// Label with the node's id on every container of ours.
pub const LABEL_NODE: &str = "com.docker.swarm.node.id";
/// Label with the task's id.
pub const LABEL_TASK: &str = "com.docker.swarm.task.id";
/// Label with the network's id on the engine's networks of ours.
pub const LABEL_NETWORK: &str = "com.docker.swarm.network.id";
/// Label that marks a container as a task's (always empty).
const LABEL_MARK: &str = "com.docker.swarm.task";
const LABEL_TASK_NAME: &str = "com.docker.swarm.task.name";
const LABEL_SERVICE: &str = "com.docker.swarm.service.id";
const LABEL_SERVICE_NAME: &str = "com.docker.swarm.service.name";

/// The engine's own networks that a service may name.
const ENGINE_NETWORKS: [&str; 3] = ["host", "none", "bridge"];

/// The name of the container of a plan.
#[must_use]
pub fn container_name(plan: &ContainerPlan) -> String {
    template::name(&plan.task, &plan.spec.name)
}

/// The engine's network that the spec names (`host`, `none`, `bridge`), if it names one.
#[must_use]
pub fn engine_network(spec: &crate::domain::ServiceSpec) -> Option<&'static str> {
    let wanted = &spec.task_template.networks;
    ENGINE_NETWORKS.into_iter().find(|name| wanted.iter().any(|network| network.target == *name))
}

/// The request that creates the container of a plan.
///
/// # Errors
/// [`Error::Permanent`] where a template or an option cannot be understood.
pub fn create_body(plan: &ContainerPlan) -> Result<ContainerCreateBody, Error> {
    let spec = &plan.spec.task_template.container_spec;
    let text = |text: &str| expand(text, plan).map_err(|error| permanent(&error));
    let env = spec.env.iter().map(|line| text(line)).collect::<Result<Vec<_>, _>>()?;
    let hostname = text(&spec.hostname)?;
    let grace = plan.spec.stop_grace().duration().as_secs();
    let ports = if shares_host(plan) { Vec::new() } else { exposed_ports(plan) };
    Ok(ContainerCreateBody {
        hostname: non_empty(&hostname),
        user: non_empty(&spec.user),
        exposed_ports: some(ports),
        tty: spec.tty.then_some(true),
        open_stdin: spec.open_stdin.then_some(true),
        env: some(env),
        cmd: some(spec.args.clone()),
        entrypoint: some(spec.command.clone()),
        healthcheck: spec.healthcheck.as_ref().map(health),
        image: Some(spec.image.clone()),
        working_dir: non_empty(&spec.dir),
        labels: Some(labels(plan).into_iter().collect()),
        stop_signal: non_empty(&spec.stop_signal),
        stop_timeout: i64::try_from(grace).ok(),
        host_config: Some(host_config(plan)?),
        networking_config: networking(plan),
        ..ContainerCreateBody::default()
    })
}

fn permanent(error: &dyn std::fmt::Display) -> Error {
    Error::Permanent(error.to_string())
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn shares_host(plan: &ContainerPlan) -> bool {
    matches!(engine_network(&plan.spec), Some("host" | "none"))
}

fn labels(plan: &ContainerPlan) -> Vec<(String, String)> {
    let own = [
        (LABEL_MARK, String::new()),
        (LABEL_TASK, plan.task.id.to_string()),
        (LABEL_TASK_NAME, container_name(plan)),
        (LABEL_NODE, plan.node.id.to_string()),
        (LABEL_SERVICE, plan.task.service.to_string()),
        (LABEL_SERVICE_NAME, plan.spec.name.clone()),
    ];
    let user = &plan.spec.task_template.container_spec.labels;
    let user = user.iter().map(|(key, value)| (key.clone(), value.clone()));
    user.chain(own.map(|(key, value)| (key.to_owned(), value))).collect()
}

fn exposed_ports(plan: &ContainerPlan) -> Vec<String> {
    plan.spec
        .host_ports()
        .map(|port| format!("{}/{}", port.target_port, port.protocol.as_str()))
        .collect()
}

fn nanos(value: Option<Nanos>) -> Option<i64> {
    value.and_then(|nanos| i64::try_from(nanos.0).ok())
}

fn health(check: &Healthcheck) -> HealthConfig {
    HealthConfig {
        test: some(check.test.clone()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: check.retries,
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
    }
}

fn host_config(plan: &ContainerPlan) -> Result<HostConfig, Error> {
    let template = &plan.spec.task_template;
    let spec = &template.container_spec;
    let limits = template.resources.as_ref().and_then(|all| all.limits.as_ref());
    let reserved = template.resources.as_ref().and_then(|all| all.reservations.as_ref());
    let positive = |value: i64| (value > 0).then_some(value);
    let dns = spec.dns_config.as_ref().filter(|_| plan.network.is_none());
    let driver = template.log_driver.as_ref();
    let extra = |name| template.resources.as_ref().and_then(|all| all.extra.get(name)?.as_i64());
    Ok(HostConfig {
        memory: limits.and_then(|limits| positive(limits.memory_bytes)),
        memory_reservation: reserved.and_then(|reserved| positive(reserved.memory_bytes)),
        memory_swap: swap(extra("SwapBytes"), limits.map_or(0, |limits| limits.memory_bytes)),
        memory_swappiness: extra("MemorySwappiness"),
        nano_cpus: limits.and_then(|limits| positive(limits.nano_cpus)),
        pids_limit: limits.and_then(|limits| positive(limits.pids)),
        init: spec.init,
        ulimits: some(spec.ulimits.iter().map(ulimit).collect()),
        log_config: driver.map(|driver| HostConfigLogConfig {
            typ: non_empty(&driver.name),
            config: Some(driver.options.clone().into_iter().collect()),
        }),
        network_mode: Some(network_mode(plan)),
        port_bindings: (!shares_host(plan)).then(|| port_bindings(plan)).flatten(),
        mounts: some(mounts(plan)?),
        cap_add: some(spec.capability_add.clone()),
        cap_drop: some(spec.capability_drop.clone()),
        dns: dns.and_then(|dns| some(dns.nameservers.clone())),
        dns_options: dns.and_then(|dns| some(dns.options.clone())),
        dns_search: dns.and_then(|dns| some(dns.search.clone())),
        extra_hosts: some(extra_hosts(spec)),
        group_add: some(spec.groups.clone()),
        oom_score_adj: spec.extra.get("OomScoreAdj").and_then(serde_json::Value::as_i64),
        readonly_rootfs: spec.read_only.then_some(true),
        security_opt: some(security(spec)),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        ..HostConfig::default()
    })
}

/// The engine wants memory and swap together; -1 means no limit.
fn swap(swap: Option<i64>, memory: i64) -> Option<i64> {
    swap.map(|swap| if swap < 0 { -1 } else { memory.saturating_add(swap) })
}

fn ulimit(limit: &container::Ulimit) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    }
}

/// What of `Privileges` is a security option of the engine.
fn security(spec: &ContainerSpec) -> Vec<String> {
    let Some(privileges) = spec.extra.get("Privileges") else { return Vec::new() };
    let mode = |name: &str| privileges.get(name)?.get("Mode")?.as_str();
    let mut options = Vec::new();
    if privileges.get("NoNewPrivileges").and_then(serde_json::Value::as_bool) == Some(true) {
        options.push("no-new-privileges:true".to_owned());
    }
    if mode("AppArmor") == Some("disabled") {
        options.push("apparmor=unconfined".to_owned());
    }
    if mode("Seccomp") == Some("unconfined") {
        options.push("seccomp=unconfined".to_owned());
    }
    if let Some(context) = privileges.get("SELinuxContext").filter(|context| context.is_object()) {
        if context.get("Disable").and_then(serde_json::Value::as_bool) == Some(true) {
            options.push("label=disable".to_owned());
        }
        for (key, word) in
            [("User", "user"), ("Role", "role"), ("Type", "type"), ("Level", "level")]
        {
            if let Some(value) = context.get(key).and_then(serde_json::Value::as_str)
                && !value.is_empty()
            {
                options.push(format!("label={word}:{value}"));
            }
        }
    }
    options
}

/// `IP host [alias…]` as the spec has it, `host:IP` as the engine wants it.
fn extra_hosts(spec: &ContainerSpec) -> Vec<String> {
    spec.hosts
        .iter()
        .flat_map(|line| {
            let mut words = line.split_whitespace();
            let addr = words.next().unwrap_or_default();
            words.map(move |host| format!("{host}:{addr}")).collect::<Vec<_>>()
        })
        .collect()
}

fn network_mode(plan: &ContainerPlan) -> String {
    match (engine_network(&plan.spec), &plan.network) {
        (Some(name), _) => name.to_owned(),
        (None, Some(network)) => network.name.clone(),
        (None, None) => "none".to_owned(),
    }
}

fn networking(plan: &ContainerPlan) -> Option<NetworkingConfig> {
    let network = plan.network.as_ref()?;
    let addr = plan.task.addresses.iter().map(|address| address.addr).find(|addr| match addr {
        std::net::IpAddr::V4(addr) => network.subnet.offset(*addr).is_some(),
        std::net::IpAddr::V6(_) => false,
    });
    let mac = addr.map(|addr| mac_of(addr).map(|byte| format!("{byte:02x}")).join(":"));
    let settings = EndpointSettings {
        ipam_config: addr.map(|addr| EndpointIpamConfig {
            ipv4_address: Some(addr.to_string()),
            ..EndpointIpamConfig::default()
        }),
        mac_address: mac,
        ..EndpointSettings::default()
    };
    Some(NetworkingConfig {
        endpoints_config: Some(std::iter::once((network.name.clone(), settings)).collect()),
    })
}

fn port_bindings(plan: &ContainerPlan) -> Option<bollard::models::PortMap> {
    let mut all = std::collections::BTreeMap::<String, Vec<PortBinding>>::new();
    for port in plan.spec.host_ports() {
        let key = format!("{}/{}", port.target_port, port.protocol.as_str());
        let host_port =
            if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
        all.entry(key).or_default().push(binding);
    }
    let all = all.into_iter().map(|(key, bindings)| (key, Some(bindings)));
    (all.len() > 0).then(|| all.collect())
}

fn mounts(plan: &ContainerPlan) -> Result<Vec<Mount>, Error> {
    let spec = &plan.spec.task_template.container_spec;
    let mut mounts =
        spec.mounts.iter().map(|mount| user_mount(mount, plan)).collect::<Result<Vec<_>, _>>()?;
    if plan.network.is_some() {
        mounts.push(file_mount(&plan.files_dir.join("resolv.conf"), "/etc/resolv.conf".to_owned()));
    }
    let names = file_names(spec.secrets.iter().map(|it| it.secret_id.to_string()));
    for (secret, name) in spec.secrets.iter().zip(names) {
        let target = target_path(secret.file.as_ref(), "/run/secrets/", &secret.secret_name)?;
        mounts.push(file_mount(&plan.files_dir.join("secrets").join(name), target));
    }
    let names = file_names(spec.configs.iter().map(|it| it.config_id.to_string()));
    for (config, name) in spec.configs.iter().zip(names) {
        let target = target_path(config.file.as_ref(), "/", &config.config_name)?;
        mounts.push(file_mount(&plan.files_dir.join("configs").join(name), target));
    }
    Ok(mounts)
}

/// The names of a task's files, one for each reference to a secret or config, in order. A reference
/// has a file of its own, since each says who may read it: the id, with a number from the second
/// reference to the same id on.
#[must_use]
pub fn file_names(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    ids.map(|id| {
        let earlier = seen.entry(id.clone()).or_default();
        *earlier += 1;
        if *earlier == 1 { id } else { format!("{id}.{earlier}") }
    })
    .collect()
}

/// The paths of the host that a container's mounts name, templates filled in, and whether each is
/// only read.
///
/// # Errors
/// [`Error::Permanent`] where a template cannot be understood.
pub fn bind_sources(plan: &ContainerPlan) -> Result<Vec<(String, Access)>, Error> {
    let mut sources = Vec::new();
    for mount in &plan.spec.task_template.container_spec.mounts {
        let made = user_mount(mount, plan)?;
        let path = match made.typ {
            Some(MountType::BIND) => made.source,
            _ => made.volume_options.and_then(|volume| device(&volume)),
        };
        sources.extend(path.map(|path| (path, Access::of(mount))));
    }
    Ok(sources)
}

/// The path of the host that a volume of the engine's own driver stands for, if it does.
fn device(volume: &MountVolumeOptions) -> Option<String> {
    let driver = volume.driver_config.as_ref()?;
    let local = driver.name.as_deref().is_none_or(|name| matches!(name, "" | "local"));
    let device = driver.options.as_ref()?.get("device")?;
    (local && device.starts_with('/')).then(|| device.clone())
}

/// Where a secret or config appears: an absolute path as it is, a name below the usual directory.
/// Whoever sent it has checked it, and is not trusted to have.
fn target_path(file: Option<&FileTarget>, below: &str, fallback: &str) -> Result<String, Error> {
    let name = file.map(|file| file.name.as_str()).filter(|name| !name.is_empty());
    let name = name.unwrap_or(fallback);
    let path = if name.starts_with('/') { name.to_owned() } else { format!("{below}{name}") };
    let climbs = path.split('/').any(|part| part == "..");
    if climbs || path.chars().any(char::is_control) {
        let text = format!("invalid target of a secret or config: {name:?}");
        return Err(Error::Permanent(text));
    }
    Ok(path)
}

fn file_mount(source: &Path, target: String) -> Mount {
    Mount {
        target: Some(target),
        source: Some(source.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    }
}

fn user_mount(mount: &container::Mount, plan: &ContainerPlan) -> Result<Mount, Error> {
    let text = |text: &str| expand(text, plan).map_err(|error| permanent(&error));
    let kind = match mount.kind {
        MountKind::Bind => MountType::BIND,
        MountKind::Volume => MountType::VOLUME,
        MountKind::Tmpfs => MountType::TMPFS,
        MountKind::Npipe => MountType::NPIPE,
        MountKind::Cluster => MountType::CLUSTER,
    };
    let mut volume = options::<MountVolumeOptions>(&mount.extra, "VolumeOptions")?;
    if let Some(volume) = &mut volume {
        if let Some(labels) = &mut volume.labels {
            for value in labels.values_mut() {
                *value = text(value)?;
            }
        }
        let driver = volume.driver_config.as_mut().and_then(|driver| driver.options.as_mut());
        for value in driver.into_iter().flat_map(|options| options.values_mut()) {
            *value = text(value)?;
        }
    }
    let source = text(&mount.source)?;
    Ok(Mount {
        target: Some(text(&mount.target)?),
        source: non_empty(&source),
        typ: Some(kind),
        read_only: mount.read_only.then_some(true),
        bind_options: options::<MountBindOptions>(&mount.extra, "BindOptions")?,
        volume_options: volume,
        tmpfs_options: options::<MountTmpfsOptions>(&mount.extra, "TmpfsOptions")?,
        ..Mount::default()
    })
}

fn options<T: DeserializeOwned>(extra: &Extra, name: &str) -> Result<Option<T>, Error> {
    match extra.get(name) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|error| Error::Permanent(format!("invalid mount {name}: {error}"))),
    }
}

/// The task that a container or an event belongs to, by its labels.
#[must_use]
pub(super) fn task_of<'a>(
    mut labels: impl Iterator<Item = (&'a String, &'a String)>,
) -> Option<TaskId> {
    labels.find(|(key, _)| *key == LABEL_TASK).and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
pub(super) mod tests;
