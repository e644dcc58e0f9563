//! `swarm backup` and `swarm recover`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde::Deserialize;

use super::admin::{self, JoinRole};
use super::backups::Ls;
use super::start;
use crate::cli::client::Route;
use crate::cli::shell::Shell;
use crate::cli::{base64, os};

/// The header of a passphrase.
const PASSPHRASE: &str = "X-Swarm-Passphrase";
/// Largest backup that is read.
const ARCHIVE_BYTES_MAX: usize = 256 << 20;
/// Largest file of a passphrase.
const PASSPHRASE_BYTES_MAX: usize = 64 << 10;

/// `swarm backup`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write a backup of the swarm's state into a file, sealed with a passphrase
    Create(Create),
    /// List the backups that this manager has written by itself
    Ls(Ls),
    /// Check a backup, without a daemon
    Verify(Verify),
    /// Make this host the only manager of a backup's swarm
    Restore(Restore),
}

/// Where the passphrase comes from.
#[derive(Args, Clone, Debug)]
pub(crate) struct Secret {
    /// File with the passphrase, '-' for standard input; a line break at its end does not count
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<String>,
    /// The passphrase
    #[arg(
        long,
        value_name = "TEXT",
        env = "SWARM_BACKUP_PASSPHRASE",
        hide_env_values = true,
        hide = true
    )]
    passphrase: Option<String>,
}

/// `swarm backup create`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm backup create --passphrase-file /root/backup.key /backup/swarm-$(date +%F).swarm
  swarm unlock-key -q | swarm backup create --passphrase-file - /backup/today.swarm

The file has everything that the managers agreed on: services, secrets, configs, nodes, the key of the
root certificate. It has no data of volumes. SWARM_BACKUP_PASSPHRASE is read, too.")]
pub(crate) struct Create {
    /// The file to write; it must not be there
    file: PathBuf,
    #[command(flatten)]
    secret: Secret,
    /// Take what this manager has, although there may be newer: for a swarm without a quorum
    #[arg(long)]
    stale: bool,
}

/// `swarm backup verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm backup verify --passphrase-file /root/backup.key /backup/swarm-2026-01-31.swarm
  swarm backup verify /backup/swarm-2026-01-31.swarm        its checksum only, without the passphrase")]
pub struct Verify {
    /// The backup
    file: String,
    #[command(flatten)]
    secret: Secret,
}

/// `swarm backup restore`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm backup restore --passphrase-file backup.key --advertise-addr 10.0.0.1 today.swarm

Run it on a host of no swarm. Give it the address of one of the old managers, and the workers come back
by themselves; at another address they must join again. The old managers are no nodes any more.")]
pub(crate) struct Restore {
    /// The backup
    file: String,
    #[command(flatten)]
    secret: Secret,
    #[command(flatten)]
    places: PlaceFlags,
}

/// `swarm recover`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm recover              tells what would happen, on each manager that is left; changes nothing
  swarm recover --force      does it: this is the only manager afterwards

For a swarm that has lost the majority of its managers for good. `swarm init --force-new-cluster` does
the same without asking first.")]
pub(crate) struct Recover {
    /// Do it
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    places: PlaceFlags,
}

/// How the only manager is reached.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlaceFlags {
    /// Where the others reach this node.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "",
        hide_default_value = true,
        help = "Advertised address (format: <ip|interface>[:port]); as before, or found out, if absent"
    )]
    advertise_addr: String,
    /// Where this node listens for the others.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "",
        hide_default_value = true,
        help = "Listen address (format: <ip|interface>[:port]); as before, or any, if absent"
    )]
    listen_addr: String,
}

impl PlaceFlags {
    fn on(&self, route: Route) -> Route {
        route.query("advertise-addr", &self.advertise_addr).query("listen-addr", &self.listen_addr)
    }
}

impl Secret {
    /// The passphrase, if one was given.
    fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let bytes = match (&self.passphrase_file, &self.passphrase) {
            (Some(file), _) => os::read_input(file, PASSPHRASE_BYTES_MAX)
                .with_context(|| format!("cannot read the passphrase from {file}"))?,
            (None, Some(text)) => text.clone().into_bytes(),
            (None, None) => return Ok(None),
        };
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            bail!("the passphrase is empty");
        }
        Ok(Some(text.to_vec()))
    }

    fn header(&self) -> anyhow::Result<String> {
        match self.read()? {
            Some(secret) => Ok(base64::encode(&secret)),
            None => bail!("a passphrase is needed: --passphrase-file FILE, or '-' to type it"),
        }
    }
}

impl Verify {
    /// The backup, and the passphrase if one was given.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn input(&self) -> anyhow::Result<(Vec<u8>, Option<Vec<u8>>)> {
        Ok((archive(&self.file)?, self.secret.read()?))
    }
}

fn archive(file: &str) -> anyhow::Result<Vec<u8>> {
    let content = os::read_input(file, ARCHIVE_BYTES_MAX)
        .with_context(|| format!("cannot read the backup {file}"))?;
    if content.len() > ARCHIVE_BYTES_MAX {
        bail!("{file} is larger than any backup");
    }
    Ok(content)
}

impl BackupCommand {
    /// Runs the command.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(shell).await,
            Self::Ls(command) => command.run(shell).await,
            Self::Restore(command) => command.run(shell).await,
            // `parse` has taken this one, as it needs no daemon.
            Self::Verify(_) => bail!("`swarm backup verify` is run without a daemon"),
        }
    }
}

impl Create {
    async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let secret = self.secret.header()?;
        let mut route = Route::new(["x", "v1", "backup"]);
        if self.stale {
            route = route.query("stale", "true");
        }
        let file = shell.client.post_bytes(&route, Vec::new(), (PASSPHRASE, &secret)).await?;
        os::write_private(&self.file, &file)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        let kilobytes = file.len().div_ceil(1024);
        shell.out.line(format_args!(
            "Wrote {} ({kilobytes} KiB). Check it with `swarm backup verify`; without the passphrase \
             it is of no use.",
            self.file.display()
        ))?;
        Ok(())
    }
}

impl Restore {
    async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let (content, secret) = (archive(&self.file)?, self.secret.header()?);
        start::ensure(shell).await?;
        let route = self.places.on(Route::new(["x", "v1", "restore"]));
        let reply = shell.client.post_bytes(&route, content, (PASSPHRASE, &secret)).await?;
        let id: String = serde_json::from_slice(&reply)
            .context("the daemon's answer to a restore is not understood")?;
        shell.out.text(format_args!(
            "Swarm restored: current node ({id}) is its only manager.\n\n\
             Managers of old are no nodes any more: run `swarm leave --force` on each, then join it \
             again.\n\n"
        ))?;
        admin::print_join_command(shell, &id, JoinRole::Manager).await
    }
}

/// `POST /x/v1/recover`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Recovery {
    #[serde(rename = "NodeID")]
    node: String,
    addr: String,
    last_term: u64,
    last_index: u64,
    committed_index: u64,
    last_change: String,
    removed_managers: Vec<RemovedManager>,
    nodes: u64,
    services: u64,
    tasks: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RemovedManager {
    #[serde(rename = "ID")]
    id: String,
    hostname: String,
}

impl Recover {
    /// Tells, or does.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let mut route = self.places.on(Route::new(["x", "v1", "recover"]));
        if !self.force {
            route = route.query("dry-run", "true");
        }
        let recovery: Recovery = shell.client.post_empty_for(&route).await?;
        let Recovery { node, addr, last_index, last_term, committed_index, .. } = &recovery;
        let verb = if self.force { "is" } else { "would be" };
        let mut lines = vec![
            format!("This node ({node} at {addr}) {verb} the only manager of the swarm."),
            format!(
                " Last change here: {} (term {last_term}, entry {last_index})",
                recovery.last_change
            ),
            format!(" May be lost: what other managers agreed on after entry {last_index}"),
        ];
        if committed_index < last_index {
            lines.push(format!(
                " Of unknown fate, kept: entries {} to {last_index}",
                committed_index + 1
            ));
        }
        lines.push(format!(
            " Kept: {} services, {} tasks, {} of {} nodes",
            recovery.services,
            recovery.tasks,
            recovery.nodes.saturating_sub(recovery.removed_managers.len() as u64),
            recovery.nodes
        ));
        for manager in &recovery.removed_managers {
            lines.push(format!(" No node any more: manager {} ({})", manager.hostname, manager.id));
        }
        shell.out.line(lines.join("\n"))?;
        if self.force {
            shell.out.text(
                "\nRun `swarm leave --force` on each of the managers that are no nodes any more, then \
                 join them again.\n\n",
            )?;
            return admin::print_join_command(shell, node, JoinRole::Manager).await;
        }
        shell.out.text(
            "\nNothing was changed. Ask every manager that is left, and go on where the term is \
             highest, then the entry:\n\n    swarm recover --force\n\n",
        )?;
        Ok(())
    }
}
