//! `swarm service ls`, `ps` and `inspect`.

use anyhow::bail;
use clap::Args;

use super::pretty;
use crate::cli::client::Route;
use crate::cli::filters::Filters;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::tasks::{self, PsArgs, without_digest};
use crate::cli::text::rows::{self, ListArgs, Listing, Row};
use crate::cli::text::units;
use crate::domain::service::{PortConfig, PublishMode};

/// `swarm service inspect`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm service inspect --pretty web
  swarm service inspect --format '{{json .Spec.TaskTemplate.ContainerSpec.Env}}' web")]
pub(crate) struct Inspect {
    /// Names or ids of services
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// 'json', or a Go template such as '{{.Spec.Name}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
}

const LISTING: Listing = Listing {
    template: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
        ("CreatedAt", "CREATED"),
        ("Labels", "LABELS"),
    ],
};

/// Lists services.
pub(super) async fn list(shell: &mut Shell, args: &ListArgs) -> anyhow::Result<()> {
    let route =
        Route::new(["services"]).filters(&Filters::parse(&args.filters)?).query("status", "true");
    let mut services: Vec<reply::Service> = shell.client.get(&route).await?;
    services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    if args.quiet && args.format.is_none() {
        for service in services {
            shell.out.line(units::short_id(&service.id))?;
        }
        return Ok(());
    }
    let rows = services.iter().map(row).collect();
    LISTING.print(&mut shell.out, args.format.as_deref(), rows)
}

fn row(service: &reply::Service) -> Row {
    let spec = &service.spec;
    let status = service.service_status.clone().unwrap_or_default();
    let mut replicas = format!("{}/{}", status.running_tasks, status.desired_tasks);
    let most = spec.task_template.placement.as_ref().map_or(0, |placement| placement.max_replicas);
    if most > 0 && spec.replicas().is_some() {
        replicas.push_str(&format!(" (max {most} per node)"));
    }
    let mode = if spec.replicas().is_some() { "replicated" } else { "global" };
    let endpoint = spec.endpoint_spec.as_ref().map(|endpoint| endpoint.ports.as_slice());
    let ports = service.endpoint.ports.as_deref().or(endpoint).unwrap_or_default();
    Row::default()
        .with("ID", units::short_id(&service.id))
        .with("Name", spec.name.as_str())
        .with("Mode", mode)
        .with("Replicas", replicas)
        .with("Image", without_digest(&spec.task_template.container_spec.image))
        .with("Ports", published(ports))
        .with("CreatedAt", service.created_at.as_str())
        .with_labels(&spec.labels)
}

/// Ports on every node as Docker shows them; those on the hosts of the tasks, which Docker leaves
/// out here, are marked.
fn published(ports: &[PortConfig]) -> String {
    let texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let (from, to) = (port.published_port, port.target_port);
            let protocol = port.protocol.as_str();
            match port.publish_mode {
                PublishMode::Ingress => format!("*:{from}->{to}/{protocol}"),
                PublishMode::Host if from == 0 => format!("{to}/{protocol} (host)"),
                PublishMode::Host => format!("{from}->{to}/{protocol} (host)"),
            }
        })
        .collect();
    texts.join(", ")
}

/// Lists the tasks of services.
pub(super) async fn ps(shell: &mut Shell, names: &[String], args: &PsArgs) -> anyhow::Result<()> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match shell.client.get::<reply::Service>(&Route::new(["services", name])).await {
            Ok(service) => {
                let filters = Filters::parse(&args.filters)?.with("service", &service.id);
                let tasks: Vec<reply::Task> =
                    shell.client.get(&Route::new(["tasks"]).filters(&filters)).await?;
                found.extend(tasks);
            }
            Err(error) if crate::cli::client::is_not_found(&error) => {
                missing.push(format!("no such service: {name}"));
            }
            Err(error) => return Err(error),
        }
    }
    if missing.len() < names.len() {
        tasks::print(shell, found, args).await?;
    }
    if missing.is_empty() { Ok(()) } else { bail!("{}", missing.join("\n")) }
}

impl Inspect {
    /// Prints services.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let mut objects = Vec::new();
        for name in &self.services {
            let route = Route::new(["services", name]).query("insertDefaults", "true");
            let raw = shell.client.get_raw(&route).await?;
            objects.push(String::from_utf8_lossy(&raw).trim().to_owned());
        }
        if !self.pretty {
            return rows::print_objects(&mut shell.out, self.format.as_deref(), &objects);
        }
        for object in objects {
            let mut service: reply::Service = serde_json::from_str(&object)?;
            name_networks(shell, &mut service).await?;
            shell.out.text(pretty::service(&service, crate::cli::os::now()))?;
        }
        Ok(())
    }
}

/// Puts names in the place of networks' ids.
async fn name_networks(shell: &Shell, service: &mut reply::Service) -> anyhow::Result<()> {
    let networks = &mut service.spec.task_template.networks;
    if networks.is_empty() {
        return Ok(());
    }
    let known: Vec<reply::Network> = shell.client.get(&Route::new(["networks"])).await?;
    for network in networks {
        if let Some(found) = known.iter().find(|known| known.id == network.target) {
            network.target.clone_from(&found.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_say_where_they_are_open() {
        let ports: Vec<PortConfig> = serde_json::from_str(
            r#"[{"TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"},
                {"TargetPort":81,"PublishedPort":8081,"PublishMode":"host","Protocol":"udp"}]"#,
        )
        .unwrap();
        assert_eq!(published(&ports), "*:8080->80/tcp, 8081->81/udp (host)");
    }
}
