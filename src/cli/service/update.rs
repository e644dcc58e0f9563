//! `swarm service update`: edits the spec as it is and sends it back under its version.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::Args;

use super::flags::{CommandLine, SharedFlags, command_line};
use super::follow::{self, FollowFlags, Wish};
use super::{create, references};
use crate::cli::client::{Route, is_not_found};
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::values::files::FileRequest;
use crate::cli::values::port::Ports;
use crate::cli::values::{env, files, mount, number, place, port};
use crate::domain::ServiceSpec;
use crate::domain::container::{
    ConfigReference, ContainerSpec, FileTarget, Mount, SecretReference, Ulimit,
};
use crate::domain::network::NetworkAttachmentSpec;
use crate::domain::placement::{Placement, Preference};
use crate::domain::resources::GenericResource;
use crate::domain::service::{PortConfig, Protocol, TaskTemplate};

/// `swarm service update`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm service update --image nginx:1.27 web
  swarm service update --env-add LOG=debug --env-rm TRACE web
  swarm service update --update-order start-first --update-parallelism 2 --force web
  swarm service update --rollback web

Waits until the new tasks run; Ctrl-C stops waiting, not the update. A flag without `-add` or `-rm`
replaces what was there.")]
pub(crate) struct Update {
    /// Name or id of the service
    service: String,
    /// Service image tag
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Service command args, as one command line
    #[arg(long, value_name = "COMMAND", value_parser = command_line, allow_hyphen_values = true)]
    args: Option<CommandLine>,
    /// Force update even if no changes require it
    #[arg(long)]
    force: bool,
    /// Rollback to previous specification
    #[arg(long)]
    rollback: bool,
    #[command(flatten)]
    maps: MapEdits,
    #[command(flatten)]
    lists: ListEdits,
    #[command(flatten)]
    objects: ObjectEdits,
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    follow: FollowFlags,
}

/// Edits of things with keys.
#[derive(Args, Clone, Debug, Default)]
struct MapEdits {
    /// Add or update a service label
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long, value_name = "KEY=VALUE")]
    container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Add or update an environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Add or update a sysctl option
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl_add: Vec<String>,
    /// Remove a sysctl option
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
}

/// Edits of lists of texts.
#[derive(Args, Clone, Debug, Default)]
struct ListEdits {
    /// Add or update a placement constraint
    #[arg(long, value_name = "EXPRESSION")]
    constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long, value_name = "EXPRESSION")]
    constraint_rm: Vec<String>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "HOST:IP", value_parser = env::host_entry)]
    host_add: Vec<String>,
    /// Remove a custom host-to-IP mapping (host:ip, or host for all of its addresses)
    #[arg(long, value_name = "HOST[:IP]")]
    host_rm: Vec<String>,
    /// Add or update a custom DNS server
    #[arg(long, value_name = "IP")]
    dns_add: Vec<std::net::IpAddr>,
    /// Remove a custom DNS server
    #[arg(long, value_name = "IP")]
    dns_rm: Vec<std::net::IpAddr>,
    /// Add or update a DNS option
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove a DNS option
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Add or update a custom DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Add an additional supplementary user group to the container
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Remove a previously added supplementary user group from the container
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
}

/// Edits of things with parts.
#[derive(Args, Clone, Debug, Default)]
struct ObjectEdits {
    /// Add or update a mount on a service
    #[arg(long, value_name = "MOUNT", value_parser = mount::parse)]
    mount_add: Vec<Mount>,
    /// Remove a mount by its target path
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Add or update a published port
    #[arg(long, value_name = "PORT", value_parser = port::parse)]
    publish_add: Vec<Ports>,
    /// Remove a published port by its target port
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port::parse)]
    publish_rm: Vec<Ports>,
    /// Add a placement preference
    #[arg(long, value_name = "PREFERENCE", value_parser = place::preference)]
    placement_pref_add: Vec<Preference>,
    /// Remove a placement preference
    #[arg(long, value_name = "PREFERENCE", value_parser = place::preference)]
    placement_pref_rm: Vec<Preference>,
    /// Add a generic resource
    #[arg(long, value_name = "KIND=VALUE", value_parser = place::generic)]
    generic_resource_add: Vec<GenericResource>,
    /// Remove a generic resource by its kind
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Add a network (host or none)
    #[arg(long, value_name = "NETWORK", value_parser = place::network)]
    network_add: Vec<NetworkAttachmentSpec>,
    /// Remove a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Add or update a secret on a service
    #[arg(long, value_name = "SECRET", value_parser = files::parse)]
    secret_add: Vec<FileRequest>,
    /// Remove a secret by its name
    #[arg(long, value_name = "SECRET")]
    secret_rm: Vec<String>,
    /// Add or update a config file on a service
    #[arg(long, value_name = "CONFIG", value_parser = files::parse)]
    config_add: Vec<FileRequest>,
    /// Remove a configuration file by its name
    #[arg(long, value_name = "CONFIG")]
    config_rm: Vec<String>,
    /// Add or update a ulimit option
    #[arg(long, value_name = "LIMIT", value_parser = number::ulimit)]
    ulimit_add: Vec<Ulimit>,
    /// Remove a ulimit option
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
}

impl Update {
    /// Updates the service and waits until it runs as wished.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let route = Route::new(["services", &self.service]);
        let service: reply::Service = shell.client.get(&route).await?;
        let mut route = Route::new(["services", &service.id, "update"])
            .query("version", &service.version.index.to_string());
        let mut spec = service.spec;
        if self.rollback {
            self.refuse_edits(&spec)?;
            route = route.query("rollback", "previous");
        } else {
            self.edit(&mut spec, &env::caller)?;
            self.edit_networks(shell, &mut spec.task_template).await?;
            self.edit_references(shell, &mut spec.task_template.container_spec).await?;
        }
        let auth = self.follow.registry_auth(&spec.task_template.container_spec.image)?;
        if auth.is_none() {
            route = route.query("registryAuthFrom", "spec");
        }
        let updated = shell.client.post_for(&route, &spec, auth.as_deref()).await;
        let updated: reply::Updated = updated.map_err(|error| create::hinted(error, &spec))?;
        for warning in updated.warnings.iter().flatten() {
            shell.out.note(warning)?;
        }
        shell.out.line(&self.service)?;
        let wish = if self.rollback { Wish::Previous } else { Wish::Spec };
        follow::after(shell, &service.id, &self.follow, wish).await
    }

    /// Everything but secrets and configs, whose ids are not known here.
    fn edit(&self, spec: &mut ServiceSpec, lookup: env::Lookup<'_>) -> anyhow::Result<()> {
        self.shared.apply(spec)?;
        self.maps.apply(spec, lookup)?;
        self.lists.apply(&mut spec.task_template);
        self.objects.apply(spec)?;
        let task = &mut spec.task_template;
        if let Some(image) = &self.image {
            task.container_spec.image = create::tagged(image);
        }
        if let Some(args) = &self.args {
            task.container_spec.args.clone_from(&args.0);
        }
        if self.force {
            task.force_update += 1;
        }
        Ok(())
    }

    /// A rollback takes the previous spec as it was.
    fn refuse_edits(&self, spec: &ServiceSpec) -> anyhow::Result<()> {
        let mut edited = spec.clone();
        self.edit(&mut edited, &|_| None)?;
        let edits = &self.objects;
        let references = edits.secret_add.len()
            + edits.secret_rm.len()
            + edits.config_add.len()
            + edits.config_rm.len();
        if edited != *spec || references > 0 {
            bail!("other flags may not be combined with --rollback");
        }
        Ok(())
    }

    /// Specs name networks by id; users by name.
    async fn edit_networks(&self, shell: &Shell, task: &mut TaskTemplate) -> anyhow::Result<()> {
        for name in &self.objects.network_rm {
            let route = Route::new(["networks", name]);
            let id = match shell.client.get::<reply::Network>(&route).await {
                Ok(network) => network.id,
                Err(error) if is_not_found(&error) => name.clone(),
                Err(error) => return Err(error),
            };
            task.networks.retain(|network| network.target != id);
        }
        Ok(())
    }

    async fn edit_references(
        &self,
        shell: &Shell,
        container: &mut ContainerSpec,
    ) -> anyhow::Result<()> {
        let edits = &self.objects;
        container.secrets.retain(|known| !edits.secret_rm.contains(&known.secret_name));
        container.configs.retain(|known| !edits.config_rm.contains(&known.config_name));
        let secrets = references::secrets(&shell.client, &edits.secret_add).await?;
        let configs = references::configs(&shell.client, &edits.config_add).await?;
        let place = |file: &Option<FileTarget>| file.as_ref().map(|file| file.name.clone());
        container.secrets.retain(|known| {
            let same = |new: &SecretReference| place(&new.file) == place(&known.file);
            !secrets.iter().any(same)
        });
        container.configs.retain(|known| {
            let same = |new: &ConfigReference| place(&new.file) == place(&known.file);
            !configs.iter().any(same)
        });
        container.secrets.extend(secrets);
        container.configs.extend(configs);
        Ok(())
    }
}

impl MapEdits {
    fn apply(&self, spec: &mut ServiceSpec, lookup: env::Lookup<'_>) -> anyhow::Result<()> {
        let container = &mut spec.task_template.container_spec;
        for (map, add, remove) in [
            (&mut spec.labels, &self.label_add, &self.label_rm),
            (&mut container.labels, &self.container_label_add, &self.container_label_rm),
            (&mut container.sysctls, &self.sysctl_add, &self.sysctl_rm),
        ] {
            map.retain(|key, _| !remove.contains(key));
            map.extend(env::pairs(add));
        }
        let variables = &mut container.env;
        variables.retain(|known| !self.env_rm.iter().any(|name| name == env::name_of(known)));
        for flag in &self.env_add {
            let variable = env::variable(flag, lookup)?;
            let name = env::name_of(&variable);
            match variables.iter_mut().find(|known| env::name_of(known) == name) {
                Some(known) => *known = variable,
                None => variables.push(variable),
            }
        }
        Ok(())
    }
}

/// Removes, then adds what is not there yet.
fn edit_list<T: Clone + PartialEq>(list: &mut Vec<T>, add: &[T], remove: &[T]) {
    list.retain(|known| !remove.contains(known));
    for item in add {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

impl ListEdits {
    fn apply(&self, task: &mut TaskTemplate) {
        let container = &mut task.container_spec;
        edit_list(&mut container.groups, &self.group_add, &self.group_rm);
        let gone: Vec<(&str, Option<&str>)> = self
            .host_rm
            .iter()
            .map(|host| {
                host.split_once(':').map_or((host.as_str(), None), |(name, ip)| (name, Some(ip)))
            })
            .collect();
        container.hosts.retain(|entry| {
            let mut words = entry.split_whitespace();
            let (ip, name) = (words.next(), words.next());
            !gone.iter().any(|(host, at)| name == Some(host) && (at.is_none() || *at == ip))
        });
        edit_list(&mut container.hosts, &self.host_add, &[]);
        let text = |list: &[std::net::IpAddr]| -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        };
        let changes_dns = !(self.dns_add.is_empty()
            && self.dns_rm.is_empty()
            && self.dns_option_add.is_empty()
            && self.dns_option_rm.is_empty()
            && self.dns_search_add.is_empty()
            && self.dns_search_rm.is_empty());
        if changes_dns {
            let dns = container.dns_config.get_or_insert_default();
            edit_list(&mut dns.nameservers, &text(&self.dns_add), &text(&self.dns_rm));
            edit_list(&mut dns.options, &self.dns_option_add, &self.dns_option_rm);
            edit_list(&mut dns.search, &self.dns_search_add, &self.dns_search_rm);
        }
        if !self.constraint_add.is_empty() || !self.constraint_rm.is_empty() {
            let placement: &mut Placement = task.placement.get_or_insert_default();
            edit_list(&mut placement.constraints, &self.constraint_add, &self.constraint_rm);
        }
    }
}

impl ObjectEdits {
    fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let task = &mut spec.task_template;
        let container = &mut task.container_spec;
        let added: BTreeSet<&str> = self.mount_add.iter().map(|it| it.target.as_str()).collect();
        container.mounts.retain(|mount| {
            !self.mount_rm.contains(&mount.target) && !added.contains(mount.target.as_str())
        });
        container.mounts.extend(self.mount_add.iter().cloned());
        container.ulimits.retain(|limit| {
            !self.ulimit_rm.contains(&limit.name)
                && !self.ulimit_add.iter().any(|new| new.name == limit.name)
        });
        container.ulimits.extend(self.ulimit_add.iter().cloned());
        container.ulimits.sort_by(|a, b| a.name.cmp(&b.name));
        if !self.placement_pref_add.is_empty() || !self.placement_pref_rm.is_empty() {
            let preferences = &mut task.placement.get_or_insert_default().preferences;
            preferences.retain(|known| !self.placement_pref_rm.contains(known));
            preferences.extend(self.placement_pref_add.iter().cloned());
        }
        self.apply_generic(task);
        task.networks.retain(|network| !self.network_rm.contains(&network.target));
        edit_list(&mut task.networks, &self.network_add, &[]);
        self.apply_ports(spec)
    }

    fn apply_generic(&self, task: &mut TaskTemplate) {
        if self.generic_resource_add.is_empty() && self.generic_resource_rm.is_empty() {
            return;
        }
        let resources = task.resources.get_or_insert_default();
        let generic = &mut resources.reservations.get_or_insert_default().generic;
        generic.retain(|known| !self.generic_resource_rm.iter().any(|kind| kind == kind_of(known)));
        for new in &self.generic_resource_add {
            if matches!(new, GenericResource::Discrete { .. }) {
                generic.retain(|known| kind_of(known) != kind_of(new));
            }
            edit_list(generic, std::slice::from_ref(new), &[]);
        }
    }

    fn apply_ports(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return Ok(());
        }
        let ports = &mut spec.endpoint_spec.get_or_insert_default().ports;
        let removed: Vec<&PortConfig> = self.publish_rm.iter().flat_map(|it| &it.0).collect();
        ports.retain(|known| {
            !removed.iter().any(|port| {
                let published =
                    port.published_port == 0 || port.published_port == known.published_port;
                published
                    && (port.target_port, port.protocol) == (known.target_port, known.protocol)
            })
        });
        for port in self.publish_add.iter().flat_map(|it| &it.0) {
            if ports.contains(port) {
                continue;
            }
            let key =
                |port: &PortConfig| -> (u16, Protocol) { (port.published_port, port.protocol) };
            let clash = port.published_port != 0
                && ports
                    .iter()
                    .any(|known| key(known) == key(port) && known.target_port != port.target_port);
            if clash {
                bail!(
                    "conflicting port mapping between {}:{}/{} and an existing port: remove it by \
                     --publish-rm first",
                    port.published_port,
                    port.target_port,
                    port.protocol.as_str()
                );
            }
            ports.retain(|known| key(known) != key(port) || port.published_port == 0);
            ports.push(port.clone());
        }
        Ok(())
    }
}

fn kind_of(resource: &GenericResource) -> &str {
    match resource {
        GenericResource::Named { kind, .. } | GenericResource::Discrete { kind, .. } => kind,
    }
}

#[cfg(test)]
mod tests;
