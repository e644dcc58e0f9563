//! `swarm service create`: flags → spec.

use anyhow::{Context, bail};
use clap::Args;

use super::flags::SharedFlags;
use super::follow::{self, FollowFlags, Wish};
use super::references;
use crate::cli::client::{Client, Refusal, Route};
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::values::files::FileRequest;
use crate::cli::values::port::Ports;
use crate::cli::values::{env, files, mount, number, place, port};
use crate::domain::ServiceSpec;
use crate::domain::container::{DnsConfig, Mount, Ulimit};
use crate::domain::network::NetworkAttachmentSpec;
use crate::domain::placement::{Placement, Preference};
use crate::domain::resources::GenericResource;
use crate::domain::service::{EndpointMode, EndpointSpec, Mode, PublishMode};

/// `swarm service create`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm service create --name web --replicas 3 nginx
  swarm service create --name web --publish mode=host,target=80,published=8080 nginx
  swarm service create --name db --mount source=data,target=/var/lib/data \\
      --constraint node.labels.disk==ssd --secret db_password postgres
  swarm service create --name ping --mode global busybox ping 10.0.0.1

Options come before the image; what follows it is the container's command. Waits until the tasks
run; Ctrl-C stops waiting, not the service. Digests of images are not resolved: name one with
IMAGE@sha256:… where all nodes must run the same bits.")]
pub(crate) struct Create {
    /// The image
    image: String,
    /// Its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
    /// Service name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Service mode: replicated or global
    #[arg(long, value_name = "MODE", default_value = "replicated")]
    mode: String,
    #[command(flatten)]
    lists: CreateLists,
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    follow: FollowFlags,
}

/// Flags that may be given several times.
#[derive(Args, Clone, Debug)]
struct CreateLists {
    /// Service labels
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Container labels
    #[arg(long = "container-label", value_name = "KEY=VALUE")]
    container_labels: Vec<String>,
    /// Set environment variables (NAME=value, or NAME to pass your own)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Attach a filesystem mount to the service (type=volume,source=data,target=/data)
    #[arg(long = "mount", value_name = "MOUNT", value_parser = mount::parse)]
    mounts: Vec<Mount>,
    /// Publish a port on the hosts of the tasks (mode=host,target=80,published=8080)
    #[arg(short, long = "publish", value_name = "PORT", value_parser = port::parse)]
    ports: Vec<Ports>,
    /// Placement constraints, such as node.labels.zone==a
    #[arg(long = "constraint", value_name = "EXPRESSION")]
    constraints: Vec<String>,
    /// Add a placement preference, such as spread=node.labels.zone
    #[arg(long = "placement-pref", value_name = "PREFERENCE", value_parser = place::preference)]
    preferences: Vec<Preference>,
    /// User defined resources, such as gpu=1
    #[arg(long = "generic-resource", value_name = "KIND=VALUE", value_parser = place::generic)]
    generic: Vec<GenericResource>,
    /// Network attachments: host, none
    #[arg(long = "network", value_name = "NETWORK", value_parser = place::network)]
    networks: Vec<NetworkAttachmentSpec>,
    /// Specify secrets to expose to the service
    #[arg(long = "secret", value_name = "SECRET", value_parser = files::parse)]
    secrets: Vec<FileRequest>,
    /// Specify configurations to expose to the service
    #[arg(long = "config", value_name = "CONFIG", value_parser = files::parse)]
    configs: Vec<FileRequest>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long = "host", value_name = "HOST:IP", value_parser = env::host_entry)]
    hosts: Vec<String>,
    /// Set custom DNS servers
    #[arg(long = "dns", value_name = "IP")]
    dns: Vec<std::net::IpAddr>,
    /// Set DNS options
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Set one or more supplementary user groups for the container
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Sysctl options
    #[arg(long = "sysctl", value_name = "KEY=VALUE")]
    sysctls: Vec<String>,
    /// Ulimit options, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "LIMIT", value_parser = number::ulimit)]
    ulimits: Vec<Ulimit>,
}

impl Create {
    /// Creates the service and waits until it runs.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let mut spec = self.spec(&env::caller)?;
        let container = &mut spec.task_template.container_spec;
        container.secrets = references::secrets(&shell.client, &self.lists.secrets).await?;
        container.configs = references::configs(&shell.client, &self.lists.configs).await?;
        let created = create(&shell.client, &spec, &self.follow).await?;
        shell.out.line(&created.id)?;
        follow::after(shell, &created.id, &self.follow, Wish::Spec).await
    }

    /// The spec without its secrets and configs, whose ids are not known here.
    fn spec(&self, lookup: env::Lookup<'_>) -> anyhow::Result<ServiceSpec> {
        let mut spec =
            ServiceSpec { name: self.name.clone(), mode: self.mode()?, ..ServiceSpec::default() };
        spec.labels = env::pairs(&self.lists.labels);
        spec.endpoint_spec =
            Some(EndpointSpec { mode: Some(EndpointMode::Vip), ..EndpointSpec::default() });
        let container = &mut spec.task_template.container_spec;
        container.image = tagged(&self.image);
        container.args.clone_from(&self.args);
        // As Docker's client: an explicit "no" where the flag is absent.
        container.init = Some(false);
        self.shared.apply(&mut spec)?;
        self.lists.apply(&mut spec, lookup)?;
        Ok(spec)
    }

    fn mode(&self) -> anyhow::Result<Mode> {
        match self.mode.as_str() {
            "replicated" => Ok(Mode::default()),
            "global" => Ok(Mode::Global {}),
            "replicated-job" | "global-job" => {
                bail!("service mode {} is not built yet: only replicated and global are", self.mode)
            }
            other => bail!("Unknown mode: {other}, only replicated and global supported"),
        }
    }
}

impl CreateLists {
    fn apply(&self, spec: &mut ServiceSpec, lookup: env::Lookup<'_>) -> anyhow::Result<()> {
        let task = &mut spec.task_template;
        let container = &mut task.container_spec;
        container.labels = env::pairs(&self.container_labels);
        container.env = env::environment(&self.env_file, &self.env, lookup)?;
        container.mounts.clone_from(&self.mounts);
        container.hosts.clone_from(&self.hosts);
        container.groups.clone_from(&self.groups);
        container.sysctls = env::pairs(&self.sysctls);
        container.ulimits.clone_from(&self.ulimits);
        container.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
        let dns = DnsConfig {
            nameservers: self.dns.iter().map(ToString::to_string).collect(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        };
        container.dns_config = Some(dns);
        if !self.constraints.is_empty() || !self.preferences.is_empty() {
            let placement: &mut Placement = task.placement.get_or_insert_default();
            placement.constraints.clone_from(&self.constraints);
            placement.preferences.clone_from(&self.preferences);
        }
        if !self.generic.is_empty() {
            let resources = task.resources.get_or_insert_default();
            let reservations = resources.reservations.get_or_insert_default();
            reservations.generic.clone_from(&self.generic);
        }
        task.networks.clone_from(&self.networks);
        if !self.ports.is_empty() {
            let endpoint = spec.endpoint_spec.get_or_insert_default();
            endpoint.ports = self.ports.iter().flat_map(|ports| ports.0.clone()).collect();
        }
        Ok(())
    }
}

async fn create(
    client: &Client,
    spec: &ServiceSpec,
    follow: &FollowFlags,
) -> anyhow::Result<reply::Created> {
    let image = &spec.task_template.container_spec.image;
    let auth = follow.registry_auth(image)?;
    let route = Route::new(["services", "create"]);
    client.post_for(&route, spec, auth.as_deref()).await.map_err(|error| hinted(error, spec))
}

/// An image as Docker's client names it: `latest` where neither tag nor digest is given.
pub(super) fn tagged(image: &str) -> String {
    let name = image.rsplit_once('/').map_or(image, |(_, name)| name);
    if image.is_empty() || name.contains([':', '@']) {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Says how to publish a port, where the daemon refused one that Docker would have taken.
pub(super) fn hinted(error: anyhow::Error, spec: &ServiceSpec) -> anyhow::Error {
    let ports = spec.endpoint_spec.iter().flat_map(|endpoint| &endpoint.ports);
    let mut ingress = ports.filter(|port| port.publish_mode == PublishMode::Ingress);
    let (Some(port), Some(refusal)) = (ingress.next(), error.downcast_ref::<Refusal>()) else {
        return error;
    };
    if refusal.status >= 500 && refusal.status != 501 || refusal.message.contains("mode=host") {
        return error;
    }
    let hint = format!(
        "{refusal}; to publish on the hosts of the tasks: --publish mode=host,target={},published={}",
        port.target_port, port.published_port
    );
    error.context(hint)
}

/// Refuses a file that two references put in the same place.
pub(super) fn no_duplicates(requests: &[FileRequest], kind: &str) -> anyhow::Result<()> {
    let mut targets = std::collections::BTreeSet::new();
    for request in requests {
        if !targets.insert(&request.file.name) {
            bail!("duplicate {kind} target for {} not allowed", request.source);
        }
    }
    Ok(())
}

/// Reads an id of a reply.
pub(super) fn id<T: std::str::FromStr>(text: &str) -> anyhow::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().context("the daemon's answer is not understood")
}

#[cfg(test)]
mod tests;
