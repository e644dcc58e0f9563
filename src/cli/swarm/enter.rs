//! `swarm init`, `swarm join`, `swarm leave`.

use clap::Args;
use serde_json::json;

use super::admin::{self, SpecFlags};
use super::start;
use crate::cli::client::Route;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::domain::cluster::ClusterSpec;
use crate::domain::node::Availability;

/// TCP port between nodes.
const NODE_PORT: u16 = 2377;

/// How a node is reached.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AddressFlags {
    /// Where the others reach this node.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "",
        hide_default_value = true,
        help = "Advertised address (format: <ip|interface>[:port]); found out if absent"
    )]
    pub(crate) advertise_addr: String,
    /// Where this node listens for the others.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:2377",
        help = "Listen address (format: <ip|interface>[:port])"
    )]
    pub(crate) listen_addr: String,
    /// Address for data path traffic; refused by the daemon: it is the advertised address
    #[arg(long, value_name = "ADDR", default_value = "", hide = true)]
    pub(crate) data_path_addr: String,
    /// Availability of the node: active, pause or drain
    #[arg(long, value_name = "WORD", default_value = "active", value_parser = availability)]
    pub(crate) availability: Availability,
}

/// Reads `active`, `pause` or `drain`.
pub(crate) fn availability(text: &str) -> Result<Availability, String> {
    serde_json::from_value(text.to_lowercase().into()).map_err(|_| {
        format!("invalid availability {text:?}, only active, pause, and drain are supported")
    })
}

/// `swarm init`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm init                                     one network address: nothing else is needed
  swarm init --advertise-addr 10.0.0.1           several addresses: say which the others reach
  swarm init --advertise-addr eth1 --autolock    by interface; managers ask for a key at start
  swarm init --default-addr-pool 10.20.0.0/16    addresses of containers from this range

Starts the daemon if none runs: the systemd unit where one is installed, otherwise a process in the
background, whose log is daemon.log in the state directory.")]
pub(crate) struct Init {
    #[command(flatten)]
    address: AddressFlags,
    /// Default address pool in CIDR format; networks take their subnets from it
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Port number for data path traffic; any but 4789 is refused by the daemon
    #[arg(long, value_name = "PORT", default_value_t = 0, hide = true)]
    data_path_port: u32,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager)
    #[arg(long)]
    autolock: bool,
    /// Force create a new cluster from current state (see `swarm recover`, which asks first)
    #[arg(long)]
    force_new_cluster: bool,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `swarm join`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm join --token SWMTKN-1-… 10.0.0.1:2377
  swarm join --token SWMTKN-1-… 10.0.0.1          port 2377 is assumed

The token is printed by `swarm join-token worker` (or manager) on a manager; it decides the role.")]
pub(crate) struct Join {
    /// Address of a manager
    #[arg(value_name = "HOST[:PORT]")]
    manager: String,
    /// Token for entry into the swarm
    #[arg(long, value_name = "TOKEN", env = "SWARM_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    #[command(flatten)]
    address: AddressFlags,
}

/// `swarm leave`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm leave            on a worker: its tasks move elsewhere
  swarm leave --force    on a manager; on the last one this erases the cluster

Demote a manager before it leaves (`swarm node demote NODE` on another), so that the others do not
count on its vote.")]
pub(crate) struct Leave {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(short, long)]
    force: bool,
}

impl Init {
    /// Makes a cluster of this node.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        start::ensure(shell).await?;
        let mut spec = ClusterSpec::default();
        self.spec.apply(&mut spec);
        spec.encryption_config.auto_lock_managers = self.autolock;
        let body = json!({
            "ListenAddr": self.address.listen_addr,
            "AdvertiseAddr": self.address.advertise_addr,
            "DataPathAddr": self.address.data_path_addr,
            "DataPathPort": self.data_path_port,
            "DefaultAddrPool": self.default_addr_pool,
            "SubnetSize": self.default_addr_pool_mask_length,
            "ForceNewCluster": self.force_new_cluster,
            "AutoLockManagers": self.autolock,
            "Availability": self.address.availability,
            "Spec": spec,
        });
        let route = Route::new(["swarm", "init"]);
        let id: String = shell.client.post_for(&route, &body, None).await?;
        shell
            .out
            .text(format_args!("Swarm initialized: current node ({id}) is now a manager.\n\n"))?;
        admin::print_join_command(shell, &id, admin::JoinRole::Worker).await?;
        shell.out.text(
            "To add a manager to this swarm, run 'swarm join-token manager' and follow the \
             instructions.\n\n",
        )?;
        if self.autolock {
            let route = Route::new(["swarm", "unlockkey"]);
            let key: reply::UnlockKey = shell.client.get(&route).await?;
            admin::print_unlock_command(shell, &key.unlock_key)?;
        }
        Ok(())
    }
}

impl Join {
    /// Makes this node a member.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        start::ensure(shell).await?;
        let body = json!({
            "ListenAddr": self.address.listen_addr,
            "AdvertiseAddr": self.address.advertise_addr,
            "DataPathAddr": self.address.data_path_addr,
            "RemoteAddrs": [with_port(&self.manager)],
            "JoinToken": self.token,
            "Availability": self.address.availability,
        });
        shell.client.post(&Route::new(["swarm", "join"]), &body).await?;
        let info: reply::SystemInfo = shell.client.get(&Route::new(["info"])).await?;
        let role = if info.swarm.control_available { "manager" } else { "worker" };
        shell.out.line(format_args!("This node joined a swarm as a {role}."))?;
        Ok(())
    }
}

/// Adds the port that every node uses.
fn with_port(address: &str) -> String {
    if address.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{address}]:{NODE_PORT}");
    }
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if has_port { address.to_owned() } else { format!("{address}:{NODE_PORT}") }
}

impl Leave {
    /// Ends this node's membership.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let mut route = Route::new(["swarm", "leave"]);
        if self.force {
            route = route.query("force", "1");
        }
        shell.client.post_empty(&route).await?;
        shell.out.line("Node left the swarm.")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_added_where_it_is_missing() {
        for (given, full) in [
            ("10.0.0.1", "10.0.0.1:2377"),
            ("10.0.0.1:4000", "10.0.0.1:4000"),
            ("manager.local", "manager.local:2377"),
            ("fe80::1", "[fe80::1]:2377"),
            ("[fe80::1]", "[fe80::1]:2377"),
            ("[fe80::1]:99", "[fe80::1]:99"),
        ] {
            assert_eq!(with_port(given), full);
        }
        assert!(availability("sleeping").unwrap_err().contains("only active, pause, and drain"));
    }
}
