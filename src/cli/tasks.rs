//! Lists of tasks: `service ps`, `node ps`.

use std::collections::BTreeMap;

use clap::Args;

use super::client::{Client, Route, is_not_found};
use super::os;
use super::reply;
use super::shell::Shell;
use super::text::rows::{Listing, Row};
use super::text::units;
use crate::domain::Timestamp;
use crate::domain::service::PortConfig;

/// Characters of an error that a table shows.
const ERROR_MOST: usize = 30;

/// What every `ps` takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PsArgs {
    /// Filter the output by conditions given, such as desired-state=running; may be repeated
    #[arg(short = 'f', long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// 'table', 'table TEMPLATE', 'json', or a Go template such as '{{.Name}} {{.Node}}'
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Only display task ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not truncate output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Do not map ids to names
    #[arg(long)]
    pub(crate) no_resolve: bool,
}

const LISTING: Listing = Listing {
    template: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t\
               {{.Error}}\t{{.Ports}}",
    headings: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Image", "IMAGE"),
        ("Node", "NODE"),
        ("DesiredState", "DESIRED STATE"),
        ("CurrentState", "CURRENT STATE"),
        ("Error", "ERROR"),
        ("Ports", "PORTS"),
    ],
};

/// Names of services and nodes, each asked for once. What is gone goes by its id.
#[derive(Debug)]
pub(crate) struct Names {
    client: Client,
    resolve: bool,
    services: BTreeMap<String, String>,
    nodes: BTreeMap<String, String>,
}

impl Names {
    /// Names that are asked for.
    pub(crate) const fn asked(client: Client) -> Self {
        Self { client, resolve: true, services: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// Ids as they are.
    pub(crate) const fn ids(client: Client) -> Self {
        Self { client, resolve: false, services: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// The name of a service.
    pub(crate) async fn service(&mut self, id: &str) -> anyhow::Result<String> {
        if !self.resolve {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.services.get(id) {
            return Ok(name.clone());
        }
        let name = match self.client.get::<reply::Service>(&Route::new(["services", id])).await {
            Ok(service) => service.spec.name,
            Err(error) if is_not_found(&error) => id.to_owned(),
            Err(error) => return Err(error),
        };
        self.services.insert(id.to_owned(), name.clone());
        Ok(name)
    }

    /// The name of a node.
    pub(crate) async fn node(&mut self, id: &str) -> anyhow::Result<String> {
        if !self.resolve || id.is_empty() {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.nodes.get(id) {
            return Ok(name.clone());
        }
        let name = match self.client.get::<reply::Node>(&Route::new(["nodes", id])).await {
            Ok(node) if !node.spec.name.is_empty() => node.spec.name,
            Ok(node) if !node.description.machine.hostname.is_empty() => {
                node.description.machine.hostname
            }
            Ok(_) => id.to_owned(),
            Err(error) if is_not_found(&error) => id.to_owned(),
            Err(error) => return Err(error),
        };
        self.nodes.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

/// Prints tasks, the history of a slot below its newest task.
///
/// # Errors
/// When names cannot be asked for, the template is wrong or the output is closed.
pub(crate) async fn print(
    shell: &mut Shell,
    mut tasks: Vec<reply::Task>,
    args: &PsArgs,
) -> anyhow::Result<()> {
    tasks.sort_by(|a, b| {
        let slot = |task: &reply::Task| {
            let node = if task.slot == 0 { task.node_id.clone() } else { String::new() };
            (task.service_id.clone(), task.slot, node)
        };
        slot(a).cmp(&slot(b)).then_with(|| b.created_at.cmp(&a.created_at))
    });
    tasks.dedup_by(|a, b| a.id == b.id);
    if args.quiet && args.format.is_none() {
        for task in tasks {
            let id = if args.no_trunc { &task.id } else { units::short_id(&task.id) };
            shell.out.line(id)?;
        }
        return Ok(());
    }
    let client = shell.client.clone();
    let mut names = if args.no_resolve { Names::ids(client) } else { Names::asked(client) };
    let now = os::now();
    let mut rows = Vec::new();
    let mut previous = String::new();
    for task in &tasks {
        let service = names.service(&task.service_id).await?;
        let name = if task.slot == 0 {
            format!("{service}.{}", task.node_id)
        } else {
            format!("{service}.{}", task.slot)
        };
        let shown = if name == previous { format!(" \\_ {name}") } else { name.clone() };
        previous = name;
        let node = names.node(&task.node_id).await?;
        rows.push(row(task, &shown, &node, args, now));
    }
    LISTING.print(&mut shell.out, args.format.as_deref(), rows)
}

fn row(task: &reply::Task, name: &str, node: &str, args: &PsArgs, now: Timestamp) -> Row {
    let (id, image, error) = if args.no_trunc {
        (task.id.as_str(), task.spec.container_spec.image.clone(), task.status.err.clone())
    } else {
        let image = without_digest(&task.spec.container_spec.image).to_owned();
        (units::short_id(&task.id), image, units::ellipsis(&task.status.err, ERROR_MOST))
    };
    let error = if error.is_empty() { error } else { format!("\"{error}\"") };
    let since = units::ago(&task.status.timestamp, now).to_lowercase();
    let ports = task.status.port_status.as_ref().and_then(|status| status.ports.as_deref());
    Row::default()
        .with("ID", id)
        .with("Name", name)
        .with("Image", image)
        .with("Node", node)
        .with("DesiredState", units::capital(&task.desired_state))
        .with("CurrentState", format!("{} {since}", units::capital(&task.status.state)))
        .with("Error", error)
        .with("Ports", ports.map(task_ports).unwrap_or_default())
}

/// An image without `@sha256:…`, if it has a name besides.
pub(crate) fn without_digest(image: &str) -> &str {
    image.split_once('@').map_or(image, |(name, _)| name)
}

fn task_ports(ports: &[PortConfig]) -> String {
    let texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let protocol = port.protocol.as_str();
            format!("*:{}->{}/{protocol}", port.published_port, port.target_port)
        })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_ports() {
        assert_eq!(without_digest("busybox:latest@sha256:ab"), "busybox:latest");
        assert_eq!(without_digest("busybox"), "busybox");
        let port = PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() };
        assert_eq!(task_ports(&[port.clone(), port]), "*:8080->80/tcp,*:8080->80/tcp");
    }
}
