//! `swarm info` and `swarm version`.

use clap::Args;
use serde_json::{Value, json};

use super::client::Route;
use super::reply;
use super::shell::Shell;
use super::text::rows;
use super::text::units;
use crate::domain::Nanos;

/// `swarm info`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm info
  swarm info --format '{{.Swarm.LocalNodeState}}'")]
pub(crate) struct Info {
    /// 'json', or a Go template such as '{{.Swarm.NodeID}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `swarm version`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm version
  swarm version --format '{{.Client.Version}}'")]
pub(crate) struct Version {
    /// 'json', or a Go template such as '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Info {
    /// Prints what the node knows of its cluster.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let raw = shell.client.get_raw(&Route::new(["info"])).await?;
        let text = String::from_utf8_lossy(&raw).trim().to_owned();
        if self.format.is_some() {
            return rows::print_objects(&mut shell.out, self.format.as_deref(), &[text]);
        }
        let info: reply::SystemInfo = serde_json::from_str(&text)?;
        Ok(shell.out.text(pretty(&info))?)
    }
}

fn pretty(info: &reply::SystemInfo) -> String {
    let swarm = &info.swarm;
    let mut lines = vec![
        format!("Server Version: {}", info.server_version),
        format!("Swarm: {}", swarm.local_node_state),
    ];
    if matches!(swarm.local_node_state.as_str(), "" | "inactive" | "locked") {
        return lines.join("\n") + "\n";
    }
    lines.push(format!(" NodeID: {}", swarm.node_id));
    if !swarm.error.is_empty() {
        lines.push(format!(" Error: {}", swarm.error));
    }
    lines.push(format!(" Is Manager: {}", swarm.control_available));
    if let Some(cluster) = swarm.cluster.as_ref().filter(|_| swarm.control_available) {
        cluster_lines(swarm, cluster, &mut lines);
    }
    lines.push(format!(" Node Address: {}", swarm.node_addr));
    let mut managers: Vec<&str> =
        swarm.remote_managers.iter().flatten().map(|manager| manager.addr.as_str()).collect();
    managers.sort_unstable();
    if !managers.is_empty() {
        lines.push(" Manager Addresses:".to_owned());
        lines.extend(managers.into_iter().map(|addr| format!("  {addr}")));
    }
    lines.join("\n") + "\n"
}

fn cluster_lines(swarm: &reply::SwarmInfo, cluster: &reply::ClusterInfo, lines: &mut Vec<String>) {
    lines.push(format!(" ClusterID: {}", cluster.id));
    lines.push(format!(" Managers: {}", swarm.managers));
    lines.push(format!(" Nodes: {}", swarm.nodes));
    if let Some(pools) = cluster.default_addr_pool.as_ref().filter(|pools| !pools.is_empty()) {
        lines.push(format!(" Default Address Pool: {}", pools.join("  ")));
        lines.push(format!(" SubnetSize: {}", cluster.subnet_size));
    }
    if cluster.data_path_port > 0 {
        lines.push(format!(" Data Path Port: {}", cluster.data_path_port));
    }
    let limit = cluster.spec.orchestration.task_history_retention_limit;
    let words = |nanos: Nanos| units::human_duration(nanos.duration());
    lines.extend([
        " Orchestration:".to_owned(),
        format!("  Task History Retention Limit: {limit}"),
        " Dispatcher:".to_owned(),
        format!("  Heartbeat Period: {}", words(cluster.spec.dispatcher.heartbeat_period)),
        " CA Configuration:".to_owned(),
        format!("  Expiry Duration: {}", words(cluster.spec.ca.node_cert_expiry)),
        format!(" Autolock Managers: {}", cluster.spec.encryption_config.auto_lock_managers),
        format!(" Root Rotation In Progress: {}", cluster.root_rotation_in_progress),
    ]);
}

impl Version {
    /// Prints the versions of client and daemon; without a daemon, only the client's.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let client = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": "1.41",
            "Os": std::env::consts::OS,
            "Arch": go_architecture(),
        });
        let server = shell.client.get::<Value>(&Route::new(["version"])).await;
        if self.format.is_some() {
            let server = server.as_ref().ok().cloned().unwrap_or_default();
            let both = json!({ "Client": client, "Server": server }).to_string();
            return rows::print_objects(&mut shell.out, self.format.as_deref(), &[both]);
        }
        shell.out.text(section("Client", &client))?;
        match server {
            Ok(server) => Ok(shell.out.text(format_args!("\n{}", section("Server", &server)))?),
            Err(error) => Err(error),
        }
    }
}

/// Go's name of this machine's architecture.
const fn go_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

fn section(title: &str, value: &Value) -> String {
    let member = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    format!(
        "{title}:\n Version:     {}\n API version: {}\n OS/Arch:     {}/{}\n",
        member("Version"),
        member("ApiVersion"),
        member("Os"),
        member("Arch")
    )
}
