//! `swarm service inspect --pretty`: the layout of Docker's client.

use crate::cli::reply;
use crate::cli::text::units;
use crate::domain::container::{ContainerSpec, MountKind};
use crate::domain::policy::{RestartPolicy, UpdatePolicy};
use crate::domain::resources::ResourceRequirements;
use crate::domain::service::{EndpointMode, PublishMode};
use crate::domain::{Labels, Nanos, ServiceSpec, Timestamp};

/// Lines of a text.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// A line if there is something to say.
    fn given(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.line(format!("{label}{text}"));
        }
    }

    fn pairs(&mut self, title: &str, pairs: &Labels, separator: &str) {
        if !pairs.is_empty() {
            self.line(title);
            for (key, value) in pairs {
                self.line(format!(" {key}{separator}{value}"));
            }
        }
    }
}

/// A service for people.
pub(super) fn service(service: &reply::Service, now: Timestamp) -> String {
    let spec = &service.spec;
    let mut page = Page::default();
    page.line("");
    page.line(format!("ID:\t\t{}", service.id));
    page.line(format!("Name:\t\t{}", spec.name));
    page.pairs("Labels:", &spec.labels, "=");
    match spec.replicas() {
        Some(replicas) => {
            page.line("Service Mode:\tReplicated");
            page.line(format!(" Replicas:\t{replicas}"));
        }
        None => page.line("Service Mode:\tGlobal"),
    }
    if let Some(status) = service.update_status.as_ref().filter(|it| !it.state.is_empty()) {
        page.line("UpdateStatus:");
        page.line(format!(" State:\t\t{}", status.state));
        for (label, time) in
            [(" Started:\t", &status.started_at), (" Completed:\t", &status.completed_at)]
        {
            let ago = time.as_ref().map(|time| units::ago(time, now)).unwrap_or_default();
            page.given(label, &ago);
        }
        page.line(format!(" Message:\t{}", status.message));
    }
    placement(&mut page, spec);
    policy(&mut page, "UpdateConfig:", " Update order:      ", spec.update_config.as_ref());
    policy(&mut page, "RollbackConfig:", " Rollback order:    ", spec.rollback_config.as_ref());
    container(&mut page, &spec.task_template.container_spec);
    if let Some(restart) = &spec.task_template.restart_policy {
        restart_policy(&mut page, restart);
    }
    if let Some(driver) = &spec.task_template.log_driver {
        page.line("Log Driver:");
        page.line(format!(" Name:\t\t{}", driver.name));
        if !driver.options.is_empty() {
            page.line(" LogOpts:");
            for (key, value) in &driver.options {
                page.line(format!("  {key}:       {value}"));
            }
        }
    }
    page.line("Resources:");
    if let Some(wanted) = &spec.task_template.resources {
        resources(&mut page, wanted);
    }
    endpoint(&mut page, service);
    page.line("");
    page.0
}

fn placement(page: &mut Page, spec: &ServiceSpec) {
    let Some(placement) = &spec.task_template.placement else { return };
    let preferences: Vec<String> = placement
        .preferences
        .iter()
        .filter_map(|preference| preference.spread.as_ref())
        .map(|spread| format!("spread={}", spread.spread_descriptor))
        .collect();
    let nothing =
        placement.constraints.is_empty() && preferences.is_empty() && placement.max_replicas == 0;
    if nothing {
        return;
    }
    page.line("Placement:");
    if !placement.constraints.is_empty() {
        page.line(format!(" Constraints:\t[{}]", placement.constraints.join(" ")));
    }
    if !preferences.is_empty() {
        page.line(format!(" Preferences:   [{}]", preferences.join(" ")));
    }
    if placement.max_replicas > 0 {
        page.line(format!(" Max Replicas Per Node:   {}", placement.max_replicas));
    }
}

fn policy(page: &mut Page, title: &str, order: &str, policy: Option<&UpdatePolicy>) {
    let Some(policy) = policy else { return };
    page.line(title);
    page.line(format!(" Parallelism:\t{}", policy.parallelism));
    if let Some(delay) = policy.delay.filter(|delay| delay.0 > 0) {
        page.line(format!(" Delay:\t\t{}", duration(delay)));
    }
    page.given(" On failure:\t", &word(&policy.failure_action));
    if let Some(monitor) = policy.monitor.filter(|monitor| monitor.0 > 0) {
        page.line(format!(" Monitoring Period: {}", duration(monitor)));
    }
    page.line(format!(" Max failure ratio: {}", policy.max_failure_ratio));
    page.given(order, &word(&policy.order));
}

/// Docker's word for a value of an enumeration; empty if there is none.
fn word<T: serde::Serialize>(value: &Option<T>) -> String {
    let value = value.as_ref().and_then(|value| serde_json::to_value(value).ok());
    value.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

fn duration(nanos: Nanos) -> String {
    units::go_duration(nanos.0)
}

fn container(page: &mut Page, container: &ContainerSpec) {
    page.line("ContainerSpec:");
    page.line(format!(" Image:\t\t{}", container.image));
    if !container.command.is_empty() {
        page.line(format!(" Command:\t{} ", container.command.join(" ")));
    }
    if !container.args.is_empty() {
        page.line(format!(" Args:\t\t{} ", container.args.join(" ")));
    }
    if !container.env.is_empty() {
        page.line(format!(" Env:\t\t{} ", container.env.join(" ")));
    }
    page.given(" Dir:\t\t", &container.dir);
    page.given(" Hostname:\t", &container.hostname);
    if let Some(init) = container.init {
        page.line(format!(" Init:\t\t{init}"));
    }
    page.given(" User: ", &container.user);
    if !container.capability_add.is_empty() || !container.capability_drop.is_empty() {
        page.line("Capabilities:");
        page.given(" Add: ", &container.capability_add.join(", "));
        page.given(" Drop: ", &container.capability_drop.join(", "));
    }
    page.pairs("SysCtls:", &container.sysctls, ": ");
    if !container.ulimits.is_empty() {
        page.line("Ulimits:");
        for limit in &container.ulimits {
            page.line(format!(" {}: {}:{}", limit.name, limit.soft, limit.hard));
        }
    }
    mounts(page, container);
    let files = |name: &str, file: Option<&crate::domain::container::FileTarget>| {
        format!(" Target:\t{}\n  Source:\t{name}", file.map_or("", |file| &file.name))
    };
    if !container.secrets.is_empty() {
        page.line("Secrets:");
        for secret in &container.secrets {
            page.line(files(&secret.secret_name, secret.file.as_ref()));
        }
    }
    if !container.configs.is_empty() {
        page.line("Configs:");
        for config in &container.configs {
            page.line(files(&config.config_name, config.file.as_ref()));
        }
    }
    if let Some(check) = &container.healthcheck {
        page.line(" Healthcheck:");
        let of = |nanos: Option<Nanos>| duration(nanos.unwrap_or_default());
        page.line(format!("  Interval = {}", of(check.interval)));
        page.line(format!("  Retries = {}", check.retries.unwrap_or_default()));
        page.line(format!("  StartPeriod =\t{}", of(check.start_period)));
        page.line(format!("  Timeout =\t{}", of(check.timeout)));
        page.line(format!("  Tests: {}", check.test.join(" ")));
    }
}

fn mounts(page: &mut Page, container: &ContainerSpec) {
    if container.mounts.is_empty() {
        return;
    }
    page.line("Mounts:");
    for mount in &container.mounts {
        let kind = match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Npipe => "npipe",
            MountKind::Cluster => "cluster",
        };
        page.line(format!(" Target:\t{}", mount.target));
        page.line(format!("  Source:\t{}", mount.source));
        page.line(format!("  ReadOnly:\t{}", mount.read_only));
        page.line(format!("  Type:\t\t{kind}"));
    }
}

fn restart_policy(page: &mut Page, policy: &RestartPolicy) {
    let attempts = policy.max_attempts.unwrap_or_default();
    let window = policy.window.filter(|window| window.0 > 0);
    // As Docker's client, which shows this section only where it differs from the default.
    let plain = policy.condition.unwrap_or_default()
        == crate::domain::policy::RestartCondition::Any
        && policy.delay.is_none_or(|delay| delay == RestartPolicy::DEFAULT_DELAY)
        && attempts == 0
        && window.is_none();
    if plain {
        return;
    }
    page.line("Restart Policy:");
    page.given(" Condition:\t", &word(&policy.condition));
    page.given(" Delay:\t\t", &policy.delay.map(duration).unwrap_or_default());
    page.line(format!(" Max attempts:\t{attempts}"));
    page.given(" Window:\t", &window.map(duration).unwrap_or_default());
}

fn resources(page: &mut Page, wanted: &ResourceRequirements) {
    if let Some(reserved) = &wanted.reservations
        && (reserved.nano_cpus > 0 || reserved.memory_bytes > 0)
    {
        page.line(" Reservations:");
        amounts(page, reserved.nano_cpus, reserved.memory_bytes);
    }
    if let Some(limits) = &wanted.limits
        && (limits.nano_cpus > 0 || limits.memory_bytes > 0 || limits.pids > 0)
    {
        page.line(" Limits:");
        amounts(page, limits.nano_cpus, limits.memory_bytes);
        if limits.pids > 0 {
            page.line(format!("  PIDs:\t\t{}", limits.pids));
        }
    }
}

fn amounts(page: &mut Page, nano_cpus: i64, bytes: i64) {
    if nano_cpus > 0 {
        page.line(format!("  CPU:\t\t{}", units::cpus(nano_cpus)));
    }
    if bytes > 0 {
        page.line(format!("  Memory:\t{}", units::bytes_size(bytes)));
    }
}

fn endpoint(page: &mut Page, service: &reply::Service) {
    let spec = &service.spec;
    if !spec.task_template.networks.is_empty() {
        let names: Vec<&str> =
            spec.task_template.networks.iter().map(|network| network.target.as_str()).collect();
        page.line(format!("Networks: {} ", names.join(" ")));
    }
    let Some(endpoint) = &spec.endpoint_spec else { return };
    let mode = match endpoint.mode.unwrap_or_default() {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    };
    page.line(format!("Endpoint Mode:\t{mode}"));
    let ports = service.endpoint.ports.as_ref().unwrap_or(&endpoint.ports);
    if ports.is_empty() {
        return;
    }
    page.line("Ports:");
    for port in ports {
        let mode = match port.publish_mode {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        };
        page.line(format!(" PublishedPort = {}", port.published_port));
        page.line(format!("  Protocol = {}", port.protocol.as_str()));
        page.line(format!("  TargetPort = {}", port.target_port));
        page.line(format!("  PublishMode = {mode}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_service_looks_as_in_docker() {
        let found: reply::Service = serde_json::from_value(serde_json::json!({
            "ID": "rcsof43khfz1dc02gr3xouuj0",
            "Spec": {
                "Name": "web", "Labels": {},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "3600"],
                                      "Init": false},
                    "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000u64,
                                      "MaxAttempts": 0},
                    "Placement": {"Constraints": ["node.role==manager"]},
                },
                "Mode": {"Replicated": {"Replicas": 3}},
                "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause",
                    "Monitor": 5_000_000_000u64, "MaxFailureRatio": 0, "Order": "stop-first"},
                "EndpointSpec": {"Mode": "vip"},
            },
        }))
        .unwrap();
        // Recorded from Docker 20.10.24, without its section on rollbacks.
        let expected = "
ID:\t\trcsof43khfz1dc02gr3xouuj0
Name:\t\tweb
Service Mode:\tReplicated
 Replicas:\t3
Placement:
 Constraints:\t[node.role==manager]
UpdateConfig:
 Parallelism:\t1
 On failure:\tpause
 Monitoring Period: 5s
 Max failure ratio: 0
 Update order:      stop-first
ContainerSpec:
 Image:\t\tbusybox:latest
 Args:\t\tsleep 3600\x20
 Init:\t\tfalse
Resources:
Endpoint Mode:\tvip

";
        assert_eq!(service(&found, Timestamp(0)), expected);
    }
}
