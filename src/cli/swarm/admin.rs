//! `swarm join-token`, `update`, `unlock`, `unlock-key`.

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::client::Route;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::values::number;
use crate::domain::Nanos;
use crate::domain::cluster::ClusterSpec;

/// The role that a token gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JoinRole {
    /// Runs tasks.
    Worker,
    /// Keeps the state as well.
    Manager,
}

/// Settings of the cluster that `init` and `update` share.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SpecFlags {
    /// Task history retention limit: ended tasks kept per slot (default 5)
    #[arg(long, value_name = "COUNT")]
    task_history_limit: Option<i64>,
    /// Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    cert_expiry: Option<Nanos>,
    /// Docker's dispatcher heartbeat period; any but its default is refused by the daemon
    #[arg(long, value_name = "DURATION", value_parser = number::duration, hide = true)]
    dispatcher_heartbeat: Option<Nanos>,
    /// Docker's log entries between snapshots; any but its default is refused by the daemon
    #[arg(long, value_name = "COUNT", hide = true)]
    snapshot_interval: Option<u64>,
    /// Docker's additional snapshots; any but its default is refused by the daemon
    #[arg(long, value_name = "COUNT", hide = true)]
    max_snapshots: Option<u64>,
}

impl SpecFlags {
    /// Writes what was given into a spec.
    pub(crate) fn apply(&self, spec: &mut ClusterSpec) {
        if let Some(limit) = self.task_history_limit {
            spec.orchestration.task_history_retention_limit = limit;
        }
        if let Some(expiry) = self.cert_expiry {
            spec.ca.node_cert_expiry = expiry;
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec.dispatcher.heartbeat_period = period;
        }
        if let Some(interval) = self.snapshot_interval {
            spec.raft.insert("SnapshotInterval".to_owned(), interval.into());
        }
        if let Some(count) = self.max_snapshots {
            spec.raft.insert("KeepOldSnapshots".to_owned(), count.into());
        }
    }

    fn is_empty(&self) -> bool {
        self.task_history_limit.is_none()
            && self.cert_expiry.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.snapshot_interval.is_none()
            && self.max_snapshots.is_none()
    }
}

/// `swarm join-token`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm join-token worker              the command that adds a worker
  swarm join-token -q manager          only the token, for scripts
  swarm join-token --rotate worker     a new token; the old one stops working")]
pub(crate) struct JoinToken {
    /// The role of the nodes that join
    #[arg(value_enum, ignore_case = true)]
    role: JoinRole,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
}

/// `swarm update`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm update --task-history-limit 2
  swarm update --autolock              managers ask for a key when they start
  swarm update --cert-expiry 720h")]
pub(crate) struct Update {
    /// Change manager autolocking setting (true|false)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    autolock: Option<bool>,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `swarm unlock-key`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm unlock-key
  swarm unlock-key -q > key.txt
  swarm unlock-key --rotate")]
pub(crate) struct UnlockKey {
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
    /// Only display token
    #[arg(short, long)]
    quiet: bool,
}

/// `swarm unlock`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm unlock                the key is read from the first line of standard input
  swarm unlock < key.txt")]
pub(crate) struct Unlock {}

impl JoinToken {
    /// Prints a token or the command that uses it.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let swarm = Route::new(["swarm"]);
        if self.rotate {
            let cluster: reply::Cluster = shell.client.get(&swarm).await?;
            let rotated = match self.role {
                JoinRole::Worker => "rotateWorkerToken",
                JoinRole::Manager => "rotateManagerToken",
            };
            update(shell, &cluster, &cluster.spec, Some(rotated)).await?;
            if !self.quiet {
                let role = role_word(self.role);
                shell.out.text(format_args!("Successfully rotated {role} join token.\n\n"))?;
            }
        }
        if self.quiet {
            let cluster: reply::Cluster = shell.client.get(&swarm).await?;
            return Ok(shell.out.line(token(&cluster, self.role))?);
        }
        let info: reply::SystemInfo = shell.client.get(&Route::new(["info"])).await?;
        print_join_command(shell, &info.swarm.node_id, self.role).await
    }
}

const fn role_word(role: JoinRole) -> &'static str {
    match role {
        JoinRole::Worker => "worker",
        JoinRole::Manager => "manager",
    }
}

fn token(cluster: &reply::Cluster, role: JoinRole) -> &str {
    match role {
        JoinRole::Worker => &cluster.join_tokens.worker,
        JoinRole::Manager => &cluster.join_tokens.manager,
    }
}

/// Replaces the spec of the cluster, and a token or key if asked.
///
/// # Errors
/// When the daemon refuses.
pub(super) async fn update(
    shell: &Shell,
    cluster: &reply::Cluster,
    spec: &ClusterSpec,
    rotate: Option<&str>,
) -> anyhow::Result<()> {
    let mut route =
        Route::new(["swarm", "update"]).query("version", &cluster.version.index.to_string());
    for flag in ["rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey"] {
        route = route.query(flag, if rotate == Some(flag) { "true" } else { "false" });
    }
    shell.client.post(&route, spec).await
}

/// Prints the command that a new node runs.
///
/// # Errors
/// When the daemon refuses or the node is no manager.
pub(crate) async fn print_join_command(
    shell: &mut Shell,
    node: &str,
    role: JoinRole,
) -> anyhow::Result<()> {
    let node: reply::Node = shell.client.get(&Route::new(["nodes", node])).await?;
    let Some(manager) = node.manager_status else {
        bail!("this node is not a manager: run the command on one");
    };
    let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
    let token = token(&cluster, role);
    let role = role_word(role);
    shell.out.text(format_args!(
        "To add a {role} to this swarm, run the following command:\n\n    \
         swarm join --token {token} {}\n\n",
        manager.addr
    ))?;
    Ok(())
}

/// Prints the unlock key and what it is for.
///
/// # Errors
/// When the output is closed.
pub(crate) fn print_unlock_command(shell: &mut Shell, key: &str) -> anyhow::Result<()> {
    shell.out.text(format_args!(
        "To unlock a swarm manager after it restarts, run the `swarm unlock`\ncommand and provide \
         the following key:\n\n    {key}\n\nPlease remember to store this key in a password manager, \
         since without it you\nwill not be able to restart the manager.\n"
    ))?;
    Ok(())
}

impl Update {
    /// Changes settings of the cluster.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        if self.autolock.is_none() && self.spec.is_empty() {
            bail!(
                "nothing to update: name a setting, such as `swarm update --autolock`; see --help"
            );
        }
        let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
        let was_locked = cluster.spec.encryption_config.auto_lock_managers;
        let mut spec = cluster.spec.clone();
        self.spec.apply(&mut spec);
        if let Some(autolock) = self.autolock {
            spec.encryption_config.auto_lock_managers = autolock;
        }
        let locks = spec.encryption_config.auto_lock_managers && !was_locked;
        update(shell, &cluster, &spec, None).await?;
        shell.out.line("Swarm updated.")?;
        if locks {
            let route = Route::new(["swarm", "unlockkey"]);
            let key: reply::UnlockKey = shell.client.get(&route).await?;
            print_unlock_command(shell, &key.unlock_key)?;
        }
        Ok(())
    }
}

impl UnlockKey {
    /// Prints the unlock key.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        if self.rotate {
            let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
            if !cluster.spec.encryption_config.auto_lock_managers {
                bail!("cannot rotate because autolock is not turned on");
            }
            update(shell, &cluster, &cluster.spec, Some("rotateManagerUnlockKey")).await?;
            if !self.quiet {
                shell.out.text("Successfully rotated manager unlock key.\n\n")?;
            }
        }
        let key: reply::UnlockKey = shell
            .client
            .get(&Route::new(["swarm", "unlockkey"]))
            .await
            .context("could not fetch unlock key")?;
        if key.unlock_key.is_empty() {
            bail!("no unlock key is set");
        }
        if self.quiet {
            return Ok(shell.out.line(&key.unlock_key)?);
        }
        print_unlock_command(shell, &key.unlock_key)
    }
}

impl Unlock {
    /// Unlocks this manager.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let info: reply::SystemInfo = shell.client.get(&Route::new(["info"])).await?;
        match info.swarm.local_node_state.as_str() {
            "inactive" => bail!("This node is not part of a swarm"),
            // One that is starting may turn out to be locked.
            "locked" | "pending" => {}
            _ => bail!("swarm is not locked"),
        }
        shell.out.text("Please enter unlock key: ")?;
        let mut key = String::new();
        std::io::stdin().read_line(&mut key).context("cannot read the key")?;
        let body = json!({ "UnlockKey": key.trim() });
        shell.client.post(&Route::new(["swarm", "unlock"]), &body).await
    }
}
