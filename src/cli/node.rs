//! `swarm node …`.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::client::{Client, Route};
use super::filters::Filters;
use super::os::{self, Moment};
use super::reply;
use super::shell::Shell;
use super::swarm::admin::{JoinRole, print_join_command};
use super::swarm::enter::availability;
use super::tasks::{self, PsArgs};
use super::text::rows::{self, ListArgs, Listing, Row};
use super::text::units;
use super::values::env::pairs;
use crate::domain::node::{Availability, NodeSpec, Role};

/// `swarm node`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes in the swarm
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  swarm node ls
  swarm node ls --filter role=manager -q
  swarm node ls --format '{{.Hostname}} {{.Status}}'"
    )]
    Ls(ListArgs),
    /// Display detailed information on one or more nodes
    #[command(after_help = "Examples:
  swarm node inspect self --pretty
  swarm node inspect --format '{{.Status.Addr}}' worker1")]
    Inspect(InspectArgs),
    /// List tasks running on one or more nodes, defaults to current node
    #[command(after_help = "Examples:
  swarm node ps
  swarm node ps --filter desired-state=running worker1 worker2")]
    Ps {
        /// Nodes; this one if absent
        #[arg(value_name = "NODE", default_value = "self")]
        nodes: Vec<String>,
        #[command(flatten)]
        args: PsArgs,
    },
    /// Update a node
    #[command(after_help = "Examples:
  swarm node update --availability drain worker1     its tasks move elsewhere
  swarm node update --availability active worker1
  swarm node update --label-add zone=a worker1")]
    Update(UpdateArgs),
    /// Promote one or more nodes to manager in the swarm
    #[command(after_help = "Examples:
  swarm node promote worker1 worker2")]
    Promote(NodeArgs),
    /// Demote one or more nodes from manager in the swarm
    #[command(after_help = "Examples:
  swarm node demote manager3")]
    Demote(NodeArgs),
    /// Take a node out whose data is lost or damaged, and tell how its host joins again
    #[command(after_help = "Examples:
  swarm node replace manager3     on another manager; then what it prints, on the host itself

Demotes the node if it is a manager, waits until the others do not count on its vote, and removes it.")]
    Replace {
        /// Name or id of the node
        node: String,
    },
    /// Remove one or more nodes from the swarm
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  swarm node rm worker1             a node that left or is down
  swarm node rm --force worker1     a node that will not come back"
    )]
    Rm {
        #[command(flatten)]
        nodes: NodeArgs,
        /// Force remove a node from the swarm
        #[arg(short, long)]
        force: bool,
    },
}

/// Some nodes.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgs {
    /// Names or ids of nodes; `self` is this one
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// What `inspect` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct InspectArgs {
    /// Names or ids of nodes; `self` is this one
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
    /// 'json', or a Go template such as '{{.Status.State}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
}

/// What `update` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpdateArgs {
    /// Name or id of a node; `self` is this one
    node: String,
    /// Availability of the node: active, pause or drain
    #[arg(long, value_name = "WORD", value_parser = availability)]
    availability: Option<Availability>,
    /// Role of the node: worker or manager
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Option<Role>,
    /// Add or update a node label (key=value)
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<String>,
    /// Remove a node label if exists
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
}

fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(text.to_lowercase().into())
        .map_err(|_| format!("invalid role {text:?}, only worker and manager are supported"))
}

const LISTING: Listing = Listing {
    template: "{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t\
               {{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
    headings: &[
        ("ID", "ID"),
        ("Self", ""),
        ("Hostname", "HOSTNAME"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("ManagerStatus", "MANAGER STATUS"),
        ("EngineVersion", "ENGINE VERSION"),
        ("TLSStatus", "TLS STATUS"),
        ("Labels", "LABELS"),
    ],
};

impl NodeCommand {
    /// Runs the command.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        match self {
            Self::Ls(args) => list(shell, &args).await,
            Self::Inspect(args) => inspect(shell, &args).await,
            Self::Ps { nodes, args } => ps(shell, &nodes, &args).await,
            Self::Update(args) => update(shell, &args).await,
            Self::Promote(args) => change_role(shell, &args.nodes, Role::Manager).await,
            Self::Demote(args) => change_role(shell, &args.nodes, Role::Worker).await,
            Self::Replace { node } => replace(shell, &node).await,
            Self::Rm { nodes, force } => remove(shell, &nodes.nodes, force.then_some("1")).await,
        }
    }
}

/// The id behind `self`; any other name as it is.
pub(crate) async fn resolve(client: &Client, name: &str) -> anyhow::Result<String> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let info: reply::SystemInfo = client.get(&Route::new(["info"])).await?;
    if info.swarm.node_id.is_empty() {
        bail!(
            "node ID not found in /info: this node is not part of a swarm; use `swarm init` or \
             `swarm join` to connect it"
        );
    }
    Ok(info.swarm.node_id)
}

async fn list(shell: &mut Shell, args: &ListArgs) -> anyhow::Result<()> {
    let filters = Filters::parse(&args.filters)?;
    let mut nodes: Vec<reply::Node> =
        shell.client.get(&Route::new(["nodes"]).filters(&filters)).await?;
    nodes.sort_by(|a, b| {
        (&a.description.machine.hostname, &a.id).cmp(&(&b.description.machine.hostname, &b.id))
    });
    if args.quiet {
        for node in nodes {
            shell.out.line(node.id)?;
        }
        return Ok(());
    }
    let info: reply::SystemInfo = shell.client.get(&Route::new(["info"])).await?;
    let rows = nodes.iter().map(|node| row(node, &info.swarm)).collect();
    LISTING.print(&mut shell.out, args.format.as_deref(), rows)
}

fn row(node: &reply::Node, swarm: &reply::SwarmInfo) -> Row {
    let manager = node.manager_status.as_ref().map_or_else(String::new, |manager| {
        if manager.leader { "Leader".to_owned() } else { units::capital(&manager.reachability) }
    });
    Row::default()
        .with("ID", node.id.as_str())
        .with("Self", node.id == swarm.node_id)
        .with("Hostname", node.description.machine.hostname.as_str())
        .with("Status", status(node))
        .with("Availability", units::capital(node.spec.availability.as_str()))
        .with("ManagerStatus", manager)
        .with("EngineVersion", node.description.machine.engine.engine_version.as_str())
        .with("TLSStatus", tls_status(node, swarm))
        .with_labels(&node.spec.labels)
}

/// Docker's words for whether the node has the certificate and the roots that it should.
fn tls_status(node: &reply::Node, swarm: &reply::SwarmInfo) -> &'static str {
    let own = &node.description.tls_info;
    match swarm.cluster.as_ref().map(|cluster| &cluster.tls_info) {
        Some(wanted) if *wanted == reply::TlsInfo::default() => "Unknown",
        None => "Unknown",
        Some(_) if *own == reply::TlsInfo::default() => "Unknown",
        Some(wanted) if wanted == own => "Ready",
        Some(_) => "Needs Rotation",
    }
}

/// Whether the node is there, and whether it can do its part.
fn status(node: &reply::Node) -> String {
    let state = units::capital(&node.status.state);
    if node.description.machine.degraded.is_empty() { state } else { format!("{state} (degraded)") }
}

async fn inspect(shell: &mut Shell, args: &InspectArgs) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for name in &args.nodes {
        let id = resolve(&shell.client, name).await?;
        let raw = shell.client.get_raw(&Route::new(["nodes", &id])).await?;
        objects.push(String::from_utf8_lossy(&raw).trim().to_owned());
    }
    if !args.pretty {
        return rows::print_objects(&mut shell.out, args.format.as_deref(), &objects);
    }
    for object in objects {
        let node: reply::Node = serde_json::from_str(&object)?;
        shell.out.text(pretty(&node))?;
    }
    Ok(())
}

fn pretty(node: &reply::Node) -> String {
    let mut text = format!("ID:\t\t\t{}\n", node.id);
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if !node.spec.name.is_empty() {
        line(format!("Name:\t\t\t{}", node.spec.name));
    }
    if !node.spec.labels.is_empty() {
        line("Labels:".to_owned());
        for (key, value) in &node.spec.labels {
            line(format!(" - {key}={value}"));
        }
    }
    let description = &node.description.machine;
    line(format!("Hostname:              \t{}", description.hostname));
    line(format!("Joined at:             \t{}", node.created_at));
    line("Status:".to_owned());
    line(format!(" State:\t\t\t{}", units::capital(&node.status.state)));
    if !node.status.message.is_empty() {
        line(format!(" Message:\t\t{}", units::capital(&node.status.message)));
    }
    line(format!(" Availability:         \t{}", units::capital(node.spec.availability.as_str())));
    line(format!(" Address:\t\t{}", node.status.addr));
    if let Some(manager) = &node.manager_status {
        line("Manager Status:".to_owned());
        line(format!(" Address:\t\t{}", manager.addr));
        line(format!(" Raft Status:\t\t{}", units::capital(&manager.reachability)));
        line(format!(" Leader:\t\t{}", if manager.leader { "Yes" } else { "No" }));
    }
    line("Platform:".to_owned());
    line(format!(" Operating System:\t{}", description.platform.os));
    line(format!(" Architecture:\t\t{}", description.platform.architecture));
    line("Resources:".to_owned());
    line(format!(" CPUs:\t\t\t{}", units::cpus(description.resources.nano_cpus)));
    line(format!(" Memory:\t\t{}", units::bytes_size(description.resources.memory_bytes)));
    let plugins = &description.engine.plugins;
    if !plugins.is_empty() {
        line("Plugins:".to_owned());
        for kind in ["Log", "Network", "Volume"] {
            let named = plugins.iter().filter(|plugin| plugin.kind == kind);
            let names: Vec<&str> = named.map(|plugin| plugin.name.as_str()).collect();
            if !names.is_empty() {
                let tabs = if kind == "Log" { "\t\t" } else { "\t" };
                line(format!(" {kind}:{tabs}{}", names.join(", ")));
            }
        }
    }
    line(format!("Engine Version:\t\t{}", description.engine.engine_version));
    if !description.agent_version.is_empty() {
        line(format!("Agent Version:\t\t{}", description.agent_version));
    }
    let tls = &node.description.tls_info;
    if !tls.trust_root.is_empty() {
        line("TLS Info:".to_owned());
        line(" TrustRoot:".to_owned());
        line(tls.trust_root.clone());
        line(format!(" Issuer Subject:\t{}", tls.cert_issuer_subject));
        line(format!(" Issuer Public Key:\t{}", tls.cert_issuer_public_key));
    }
    text
}

async fn ps(shell: &mut Shell, names: &[String], args: &PsArgs) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for name in names {
        let id = resolve(&shell.client, name).await?;
        let node: reply::Node = shell.client.get(&Route::new(["nodes", &id])).await?;
        let filters = Filters::parse(&args.filters)?.with("node", &node.id);
        let tasks: Vec<reply::Task> =
            shell.client.get(&Route::new(["tasks"]).filters(&filters)).await?;
        found.extend(tasks);
    }
    tasks::print(shell, found, args).await
}

async fn change(
    shell: &Shell,
    name: &str,
    edit: impl FnOnce(&mut NodeSpec) -> bool,
) -> anyhow::Result<bool> {
    let id = resolve(&shell.client, name).await?;
    let mut node: reply::Node = shell.client.get(&Route::new(["nodes", &id])).await?;
    if !edit(&mut node.spec) {
        return Ok(false);
    }
    let route =
        Route::new(["nodes", &node.id, "update"]).query("version", &node.version.index.to_string());
    shell.client.post(&route, &node.spec).await?;
    Ok(true)
}

async fn update(shell: &mut Shell, args: &UpdateArgs) -> anyhow::Result<()> {
    if let Some(missing) = missing_label(shell, args).await? {
        bail!("key {missing} doesn't exist in node's labels");
    }
    change(shell, &args.node, |spec| {
        spec.availability = args.availability.unwrap_or(spec.availability);
        spec.role = args.role.unwrap_or(spec.role);
        spec.labels.extend(pairs(&args.label_add));
        spec.labels.retain(|key, _| !args.label_rm.contains(key));
        true
    })
    .await?;
    Ok(shell.out.line(&args.node)?)
}

async fn missing_label(shell: &Shell, args: &UpdateArgs) -> anyhow::Result<Option<String>> {
    if args.label_rm.is_empty() {
        return Ok(None);
    }
    let id = resolve(&shell.client, &args.node).await?;
    let node: reply::Node = shell.client.get(&Route::new(["nodes", &id])).await?;
    Ok(args.label_rm.iter().find(|key| !node.spec.labels.contains_key(*key)).cloned())
}

async fn change_role(shell: &mut Shell, names: &[String], role: Role) -> anyhow::Result<()> {
    for name in names {
        let changed = change(shell, name, |spec| {
            let changes = spec.role != role;
            spec.role = role;
            changes
        })
        .await?;
        match (changed, role) {
            (true, Role::Manager) => {
                shell.out.line(format_args!("Node {name} promoted to a manager in the swarm."))?;
            }
            (true, Role::Worker) => {
                shell.out.line(format_args!("Manager {name} demoted in the swarm."))?;
            }
            (false, role) => {
                let role = role.as_str();
                shell.out.line(format_args!("Node {name} is already a {role}."))?;
            }
        }
    }
    Ok(())
}

/// How long the managers may take to let a member go.
const RELEASE_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether they have.
const RELEASE_PAUSE: Duration = Duration::from_millis(300);

async fn replace(shell: &mut Shell, name: &str) -> anyhow::Result<()> {
    let me = resolve(&shell.client, "self").await?;
    let id = resolve(&shell.client, name).await?;
    if id == me {
        bail!("node {name} is this one: run the command on another manager");
    }
    let node: reply::Node = shell.client.get(&Route::new(["nodes", &id])).await?;
    let role = match node.spec.role {
        Role::Manager => JoinRole::Manager,
        Role::Worker => JoinRole::Worker,
    };
    change_role(shell, std::slice::from_ref(&id), Role::Worker).await?;
    let since = Moment::now();
    loop {
        let route = Route::new(["nodes", &id]).query("force", "1");
        match shell.client.delete(&route).await {
            Ok(()) => break,
            // It is still a member of the managers' group.
            Err(error)
                if error.to_string().contains("must be demoted")
                    && since.elapsed() < RELEASE_LIMIT => {}
            Err(error) => return Err(error),
        }
        os::sleep(RELEASE_PAUSE).await;
    }
    shell.out.text(format_args!(
        "Node {id} is out of the swarm. On its host, if it is still there, run `swarm leave --force`.\n\n"
    ))?;
    print_join_command(shell, &me, role).await
}

async fn remove(shell: &mut Shell, names: &[String], force: Option<&str>) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for name in names {
        let id = resolve(&shell.client, name).await?;
        let mut route = Route::new(["nodes", &id]);
        if let Some(force) = force {
            route = route.query("force", force);
        }
        match shell.client.delete(&route).await {
            Ok(()) => shell.out.line(name)?,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    super::failed(&failures)
}
