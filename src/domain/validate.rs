//! Whether a user's spec makes sense: names, ranges, combinations. Every refusal names the field, in
//! Docker's words where Docker has words for it.
//!
//! What needs the state (does the secret exist, is the name free) is checked by `state` and the API.

mod container;
mod image;

use std::collections::BTreeSet;

use super::cluster::{ClusterSpec, DispatcherSpec, RAFT_DEFAULTS};
use super::node::NodeSpec;
use super::placement::{Constraint, Placement};
use super::policy::UpdatePolicy;
use super::resources::ResourceRequirements;
use super::secret::{CONFIG_BYTES_MAX, PayloadSpec, SECRET_BYTES_MAX};
use super::service::{EndpointMode, EndpointSpec, Mode, PublishMode, TaskTemplate};
use super::{Extra, Nanos, ServiceSpec, SpecPolicy};

/// Most replicas of one service: what the cluster is built for.
pub const REPLICAS_MAX: u64 = 1_000_000;

/// Smallest CPU reservation or limit, in billionths of a CPU (Docker's).
pub const NANO_CPUS_MIN: i64 = 1_000_000;

/// Smallest memory reservation or limit, in bytes (Docker's).
pub const MEMORY_MIN: i64 = 4 * 1024 * 1024;

/// Networks of the engine's own that a service may name.
pub const ENGINE_NETWORKS: [&str; 2] = ["host", "none"];

/// A field of a request that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field}: {reason}")]
pub struct InvalidField {
    /// The field, as the API spells it (`TaskTemplate.ContainerSpec.Image`).
    pub field: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

type Checked = Result<(), InvalidField>;

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> InvalidField {
    InvalidField { field: field.into(), reason: reason.into() }
}

/// Refuses a field where a condition does not hold.
macro_rules! ensure {
    ($holds:expr, $field:expr, $reason:expr) => {
        if !$holds {
            return Err($crate::domain::validate::wrong($field, $reason));
        }
    };
}
use ensure;

impl ServiceSpec {
    /// Whether a service can be made of this spec.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn validate(&self) -> Checked {
        service_name(&self.name)?;
        mode(&self.mode)?;
        template(&self.task_template, &self.mode)?;
        for (field, policy) in
            [("UpdateConfig", &self.update_config), ("RollbackConfig", &self.rollback_config)]
        {
            policy.as_ref().map_or(Ok(()), |policy| update(field, policy))?;
        }
        self.endpoint_spec.as_ref().map_or(Ok(()), endpoint)?;
        networks(self)
    }

    /// Whether a service with the spec `old` can take this one.
    ///
    /// # Errors
    /// The first field that cannot be accepted, or must not change.
    pub fn validate_update(&self, old: &Self) -> Checked {
        self.validate()?;
        ensure!(self.name == old.name, "Name", "renaming services is not supported");
        let same = std::mem::discriminant(&self.mode) == std::mem::discriminant(&old.mode);
        ensure!(same, "Mode", "service mode change is not allowed");
        Ok(())
    }

    /// The cluster networks that the spec names, by name or id; empty means the default network.
    pub fn cluster_networks(&self) -> impl Iterator<Item = &str> {
        let template = &self.task_template.networks;
        let named = if template.is_empty() { &self.networks } else { template };
        named.iter().map(|it| it.target.as_str()).filter(|it| !ENGINE_NETWORKS.contains(it))
    }
}

/// The refusal of a network that is not there.
#[must_use]
pub fn unknown_network(target: &str) -> InvalidField {
    let reason = format!(
        "network {target} not found: leave Networks out to join the cluster's network, or name \
         host or none"
    );
    wrong("TaskTemplate.Networks", reason)
}

impl ClusterSpec {
    /// Whether the cluster can take this spec.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn validate(&self) -> Checked {
        let named = self.name.is_empty() || self.name == "default";
        ensure!(named, "Name", "modification of cluster name is not allowed: it is \"default\"");
        let hour = self.ca.node_cert_expiry >= Nanos::from_secs(3600);
        ensure!(hour, "CAConfig.NodeCertExpiry", "minimum certificate expiry time is: 1h0m0s");
        let period = self.dispatcher.heartbeat_period == DispatcherSpec::default().heartbeat_period;
        let reason = "the dispatcher's heartbeat period cannot be changed: agents are heard from four \
             times a second, and a silent node is down after 2.2 s; leave it at 5s";
        ensure!(period, "Dispatcher.HeartbeatPeriod", reason);
        for (member, default) in RAFT_DEFAULTS {
            let number =
                self.raft.get(member).filter(|number| **number != 0 && **number != default);
            let reason = format!(
                "{member} has no effect here, where snapshots follow the size of the log: leave it at {default}"
            );
            ensure!(number.is_none(), format!("Raft.{member}"), reason);
        }
        for (member, what) in [
            ("ExternalCAs", "external certificate authorities are not supported"),
            ("SigningCACert", "a root certificate of one's own is not supported"),
            ("SigningCAKey", "a root key of one's own is not supported"),
        ] {
            ensure!(!is_set(&self.ca.extra, member), format!("CAConfig.{member}"), what);
        }
        self.policy.as_ref().map_or(Ok(()), SpecPolicy::validate)
    }
}

impl NodeSpec {
    /// Whether a node can take this spec. Whether it may be demoted depends on the other nodes.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn validate(&self) -> Checked {
        ensure!(!self.labels.contains_key(""), "Labels", "a label without a name");
        let plain = !self.name.chars().any(char::is_control);
        ensure!(plain, "Name", "control characters are not allowed");
        Ok(())
    }
}

impl PayloadSpec {
    /// Whether a secret or config can have this spec.
    ///
    /// # Errors
    /// The first field that cannot be accepted.
    pub fn validate(&self) -> Checked {
        ensure!(!self.name.is_empty(), "Name", "name must be provided");
        ensure!(
            is_payload_name(&self.name),
            "Name",
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
             character must be [a-zA-Z0-9]"
        );
        let driver = "secrets of plugins are not supported: leave Driver out and give Data";
        ensure!(!is_set(&self.extra, "Driver"), "Driver", driver);
        let templates = "templates in secrets and configs are not supported: leave Templating out";
        ensure!(!is_set(&self.extra, "Templating"), "Templating", templates);
        Ok(())
    }

    /// Whether a secret may have so many bytes.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn validate_secret_size(bytes: usize) -> Checked {
        let reason =
            format!("secret data must be larger than 0 and less than {SECRET_BYTES_MAX} bytes");
        ensure!(bytes > 0 && bytes < SECRET_BYTES_MAX, "Data", reason);
        Ok(())
    }

    /// Whether a config may have so many bytes.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn validate_config_size(bytes: usize) -> Checked {
        let reason =
            format!("config data must be larger than 0 and less than {CONFIG_BYTES_MAX} bytes");
        ensure!(bytes > 0 && bytes < CONFIG_BYTES_MAX, "Data", reason);
        Ok(())
    }
}

/// Whether a member that this release does not interpret has a value that means something.
fn is_set(extra: &Extra, member: &str) -> bool {
    use serde_json::Value;
    extra.get(member).is_some_and(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    })
}

/// Docker's `^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`, up to 64 characters.
fn is_payload_name(name: &str) -> bool {
    let ends = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
    name.len() <= 64
        && name.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
        && ends(name.chars().next())
        && ends(name.chars().last())
}

/// Docker's `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, up to 63 characters.
fn service_name(name: &str) -> Checked {
    let ends = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
    let valid = name.chars().all(|it| it.is_ascii_alphanumeric() || "-_".contains(it))
        && ends(name.chars().next())
        && ends(name.chars().last());
    ensure!(!name.is_empty(), "Name", "meta: name must be provided");
    ensure!(valid, "Name", "name must be valid as a DNS name component");
    ensure!(name.len() <= 63, "Name", "name must be 63 characters or fewer");
    Ok(())
}

fn mode(mode: &Mode) -> Checked {
    let replicas = match mode {
        Mode::Replicated { replicas } => replicas.unwrap_or(1),
        Mode::Global {} => 0,
    };
    let reason = format!("{replicas} replicas are more than {REPLICAS_MAX}");
    ensure!(replicas <= REPLICAS_MAX, "Mode.Replicated.Replicas", reason);
    Ok(())
}

fn template(it: &TaskTemplate, mode: &Mode) -> Checked {
    let runtime = matches!(it.runtime.as_str(), "" | "container");
    let reason = format!("{:?} is not supported: use container", it.runtime);
    ensure!(runtime, "TaskTemplate.Runtime", reason);
    for member in ["PluginSpec", "NetworkAttachmentSpec"] {
        let field = format!("TaskTemplate.{member}");
        ensure!(!is_set(&it.extra, member), field, "is not supported: use ContainerSpec");
    }
    container::check(&it.container_spec)?;
    it.resources.as_ref().map_or(Ok(()), resources)?;
    it.placement.as_ref().map_or(Ok(()), |placement| place(placement, mode))
}

fn resources(it: &ResourceRequirements) -> Checked {
    let limits = it.limits.as_ref().map(|it| ("Limits", it.nano_cpus, it.memory_bytes));
    let needs = it.reservations.as_ref().map(|it| ("Reservations", it.nano_cpus, it.memory_bytes));
    for (field, cpus, memory) in limits.into_iter().chain(needs) {
        let field = |name: &str| format!("TaskTemplate.Resources.{field}.{name}");
        ensure!(
            cpus == 0 || cpus >= NANO_CPUS_MIN,
            field("NanoCPUs"),
            format!("invalid cpu value {}: Must be at least 0.001", billionths(cpus))
        );
        ensure!(
            memory == 0 || memory >= MEMORY_MIN,
            field("MemoryBytes"),
            format!("invalid memory value {memory}: Must be at least 4MiB")
        );
    }
    Ok(())
}

/// A number of billionths as a decimal.
fn billionths(value: i64) -> String {
    let (sign, value) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    let digits = format!("{}.{:09}", value / 1_000_000_000, value % 1_000_000_000);
    format!("{sign}{}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn place(it: &Placement, mode: &Mode) -> Checked {
    for text in &it.constraints {
        let field = "TaskTemplate.Placement.Constraints";
        Constraint::parse_meetable(text).map_err(|error| wrong(field, error.to_string()))?;
    }
    for preference in it.preferences.iter().filter_map(|it| it.spread.as_ref()) {
        let over = preference.spread_descriptor.as_str();
        let label = ["node.labels.", "engine.labels."].iter().any(|prefix| {
            let (head, name) = over.split_at_checked(prefix.len()).unwrap_or_default();
            head.eq_ignore_ascii_case(prefix) && !name.is_empty()
        });
        let reason = format!("spread over {over:?}: node.labels.NAME or engine.labels.NAME");
        ensure!(label, "TaskTemplate.Placement.Preferences", reason);
    }
    let bounded = it.max_replicas == 0 || !matches!(mode, Mode::Global {});
    let reason = "can only be used with replicated mode: a global service has one task per node";
    ensure!(bounded, "TaskTemplate.Placement.MaxReplicas", reason);
    Ok(())
}

fn update(field: &str, it: &UpdatePolicy) -> Checked {
    let reason = "update-maxfailureratio cannot be less than 0 or bigger than 1";
    let within = (0.0..=1.0).contains(&it.max_failure_ratio);
    ensure!(within, format!("{field}.MaxFailureRatio"), reason);
    Ok(())
}

fn endpoint(it: &EndpointSpec) -> Checked {
    let mut published = BTreeSet::new();
    for port in &it.ports {
        let target = port.target_port;
        ensure!(target != 0, "EndpointSpec.Ports.TargetPort", "a port is 1 to 65535");
        let ingress = port.publish_mode == PublishMode::Ingress;
        let dnsrr = it.mode == Some(EndpointMode::Dnsrr);
        ensure!(
            !(ingress && dnsrr),
            "EndpointSpec.Ports.PublishMode",
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode"
        );
        let reason = format!(
            "port {target} cannot be published on all nodes (mode=ingress) yet: publish it on the \
             nodes that run a task, with --publish mode=host,target={target},published={}",
            port.published_port
        );
        ensure!(!ingress, "EndpointSpec.Ports.PublishMode", reason);
        let fresh =
            port.published_port == 0 || published.insert((port.published_port, port.protocol));
        ensure!(
            fresh,
            "EndpointSpec.Ports.PublishedPort",
            format!("EndpointSpec: duplicate published ports provided: {}", port.published_port)
        );
    }
    Ok(())
}

fn networks(spec: &ServiceSpec) -> Checked {
    let template = &spec.task_template.networks;
    let named = if template.is_empty() { &spec.networks } else { template };
    let field = "TaskTemplate.Networks.Target";
    let targets: BTreeSet<&str> = named.iter().map(|it| it.target.as_str()).collect();
    ensure!(!targets.contains(""), field, "a network without a name");
    let twice = targets.len() == named.len();
    ensure!(twice, field, "a network is named twice");
    let engines = targets.iter().any(|it| ENGINE_NETWORKS.contains(it));
    let alone = targets.len() < 2 || !engines;
    ensure!(alone, field, "host and none cannot be combined with another network");
    let ports = spec.endpoint_spec.iter().any(|it| !it.ports.is_empty());
    let reason = "ports cannot be published by a service on the network none";
    ensure!(!(ports && targets.contains("none")), "EndpointSpec.Ports", reason);
    Ok(())
}

#[cfg(test)]
mod tests;
