//! The worker's side: keeps a session with a manager, and what the manager assigned running.
//!
//! ```text
//!   manager ══ session ─▶ ledger ─▶ assignments (watch) ─┬▶ worker ─▶ runner per task ─▶ engine
//!                 ▲                                       ├▶ network ─▶ bridges, tunnels, rules
//!                 └──────── statuses, description ◀───────┤
//!                                                         └▶ dns (by the daemon)
//! ```
//!
//! The node acts from its ledger: managers may come and go, the agent may be killed, tasks run on.
//! `step` decides, `runner` acts, `session` talks; they meet on the `board` only.
//! What does not happen here: placement, restarts of tasks (a dead task is replaced by a manager),
//! answers to names.

mod board;
mod codec;
mod connector;
mod departure;
mod describe;
mod files;
#[cfg(test)]
pub(crate) mod fuzz;
mod guard;
mod ledger;
mod logs;
mod network;
mod runner;
mod session;
mod step;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{Semaphore, watch};

pub use guard::Guard;
pub use ledger::LedgerError;
pub use network::Fabric;

use crate::domain::node::{Description, Role};
use crate::domain::timing::Timing;
use crate::domain::{AssignmentSet, NodeId, TaskId, TaskState};
use crate::env::{Env, Scope};
use crate::runtime::Runtime;
use crate::transport::ManagerLink;
use board::Board;
use files::TaskFiles;
use ledger::Ledger;
use runner::Tools;

/// Containers made or started at a time, for each core: an engine waits for disks and namespaces for
/// about as long as it computes (`scripts/bench.sh`); more only lets each of them take longer.
const STARTS_PER_CORE: usize = 2;
/// Containers looked at or ended at a time.
const ACTS: usize = 32;
/// What a container gets to end itself when the node leaves the cluster.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// Name of the ledger in the data directory.
const LEDGER: &str = "ledger";
/// Name of the ledger's key in the run directory.
const LEDGER_KEY: &str = "ledger.key";

/// Who and where this node is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For what must survive a reboot: the ledger.
    pub data_dir: PathBuf,
    /// For what must not: task files with secrets. On a file system in memory that the engine sees.
    pub run_dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// The address at which other nodes reach it.
    pub addr: IpAddr,
    /// Managers to begin with; later the ledger knows them.
    pub managers: Vec<SocketAddr>,
    /// The cluster's times.
    pub timing: Timing,
    /// What this node permits.
    pub guard: Guard,
}

/// What the agent works with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The world.
    pub env: Env,
    /// The container engine.
    pub runtime: Arc<dyn Runtime>,
    /// The way to the managers.
    pub link: Arc<dyn ManagerLink>,
    /// The network between nodes.
    pub overlay: Arc<dyn Fabric>,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A directory cannot be made.
    #[error("cannot make the directory {path}: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A running agent. Cheap to clone; it ends with the scope it was started in.
#[derive(Clone, Debug)]
pub struct Handle {
    board: Arc<Board>,
    settings: Arc<Settings>,
    deps: Deps,
    scope: Scope,
}

/// Starts an agent: what its ledger says is carried out at once, whether or not a manager answers.
///
/// # Errors
/// When the ledger or a directory cannot be made or read.
pub async fn start(settings: Settings, deps: Deps, scope: &Scope) -> Result<Handle, Error> {
    let scope = scope.child("agent");
    let fail = |path: &PathBuf, error: std::io::Error| Error::Directory {
        path: path.clone(),
        reason: error.to_string(),
    };
    let (data, run) = (&settings.data_dir, &settings.run_dir);
    deps.env.device.private_dir(data).map_err(|error| fail(data, error))?;
    // Not so the run directory: the API's socket lies there, which a group may use. What is secret
    // in it is in a private directory or file of its own.
    std::fs::create_dir_all(run).map_err(|error| fail(run, error))?;
    let path = settings.data_dir.join(LEDGER);
    let key = settings.run_dir.join(LEDGER_KEY);
    let ledger = Ledger::open(settings.node, &path, &key, &deps.env)?;
    warn_unless_in_memory(&settings);
    let board = Board::new(ledger, &settings.managers, &scope);
    let handle = Handle {
        board: Arc::clone(&board),
        settings: Arc::new(settings),
        deps,
        scope: scope.clone(),
    };
    handle.spawn_routines();
    Ok(handle)
}

/// Secrets should never reach a disk, not even through the page cache.
fn warn_unless_in_memory(settings: &Settings) {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    let kind = statfs(&settings.run_dir).map(|stat| stat.filesystem_type());
    if !matches!(kind, Ok(TMPFS_MAGIC)) {
        tracing::warn!(
            path = %settings.run_dir.display(),
            "task files, secrets among them, do not lie in memory: use a directory on tmpfs"
        );
    }
}

impl Handle {
    fn spawn_routines(&self) {
        let Deps { env, runtime, link, overlay } = self.deps.clone();
        let (scope, board) = (&self.scope, &self.board);
        let settings = &self.settings;
        let tools = Tools {
            env: env.clone(),
            board: Arc::clone(board),
            runtime: Arc::clone(&runtime),
            files: TaskFiles::new(&settings.run_dir),
            node: settings.node,
            guard: settings.guard.clone(),
            drain: settings.timing.drain,
            starts: Semaphore::new(env.machine.cores() * STARTS_PER_CORE),
            acts: Semaphore::new(ACTS),
            scope: scope.clone(),
        };
        let networker = network::Networker {
            env: env.clone(),
            board: Arc::clone(board),
            runtime: Arc::clone(&runtime),
            fabric: overlay,
            node: settings.node,
            addr: settings.addr,
        };
        let connector = connector::Connector {
            env: env.clone(),
            board: Arc::clone(board),
            runtime: Arc::clone(&runtime),
            link,
            node: settings.node,
            addr: settings.addr,
            timing: settings.timing,
            scope: scope.clone(),
        };
        scope.spawn("describe", describe::run(env, Arc::clone(board), runtime));
        scope.spawn("network", networker.run());
        scope.spawn("worker", worker::run(Arc::new(tools)));
        scope.spawn("session", connector.run());
    }

    /// What this node must have.
    #[must_use]
    pub fn assignments(&self) -> watch::Receiver<Arc<AssignmentSet>> {
        self.board.assignments.subscribe()
    }

    /// Whether each task of this node serves, as this node sees it now; newer than what the cluster
    /// knows. A task that is not here has not been looked at.
    #[must_use]
    pub fn local(&self) -> watch::Receiver<Arc<BTreeMap<TaskId, bool>>> {
        self.board.local.subscribe()
    }

    /// The managers as last told; an address given by hand has no node.
    #[must_use]
    pub fn managers(&self) -> watch::Receiver<Vec<(NodeId, SocketAddr)>> {
        self.board.managers.subscribe()
    }

    /// The role that a renewed certificate would have; `None` until a manager spoke of it.
    #[must_use]
    pub fn role(&self) -> watch::Receiver<Option<Role>> {
        self.board.role.subscribe()
    }

    /// The digest of the roots that a renewed certificate would come with; `None` until a manager
    /// spoke of it.
    #[must_use]
    pub fn trust_wanted(&self) -> watch::Receiver<Option<[u8; 32]>> {
        self.board.trust_wanted.subscribe()
    }

    /// Says the digest of the roots that lie on this node's disk, so that managers are told.
    pub fn trusts(&self, digest: [u8; 32]) {
        self.board.trusted.send_replace(Some(digest));
    }

    /// The manager of the session; `None` while there is no session.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.board.connected.subscribe()
    }

    /// Whether the managers say that this node is not in the cluster any more.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.board.removed.subscribe()
    }

    /// How many tasks this agent knows in each state.
    #[must_use]
    pub fn census(&self) -> BTreeMap<TaskState, usize> {
        self.board.census()
    }

    /// What the node says of itself.
    #[must_use]
    pub fn describe(&self) -> Description {
        let known = self.board.description.borrow().clone();
        known.unwrap_or_else(|| describe::machine(&self.deps.env))
    }

    /// Ends the agent and removes all that it made on this node: containers, networks, files, the
    /// ledger. For leaving the cluster. What cannot be removed is returned in words.
    pub async fn leave(self) -> Vec<String> {
        self.scope.shutdown(LEAVE_GRACE).await;
        let runtime = &self.deps.runtime;
        let mut left = Vec::new();
        match runtime.list().await {
            Ok(containers) => {
                let removals = containers.into_iter().map(|container| async move {
                    runtime.stop(container.task, LEAVE_GRACE).await?;
                    runtime.remove(container.task).await
                });
                let ends: Vec<_> =
                    futures::stream::iter(removals).buffer_unordered(ACTS).collect().await;
                left.extend(ends.into_iter().filter_map(Result::err).map(|it| it.to_string()));
            }
            Err(error) => left.push(error.to_string()),
        }
        let set = Arc::clone(&self.board.assignments.borrow());
        for (_, plan) in network::wanted(&set, self.settings.node, 0).into_values() {
            let removed = runtime.remove_network(&plan.name).await;
            left.extend(removed.err().map(|error| error.to_string()));
        }
        left.extend(self.deps.overlay.teardown().await.err().map(|error| error.to_string()));
        let tasks = TaskFiles::new(&self.settings.run_dir);
        let removals = [
            std::fs::remove_dir_all(tasks.base()),
            std::fs::remove_file(self.settings.run_dir.join(LEDGER_KEY)),
            self.deps.env.device.remove(&self.settings.data_dir.join(LEDGER)),
        ];
        left.extend(
            removals
                .into_iter()
                .filter_map(Result::err)
                .filter(|error| error.kind() != std::io::ErrorKind::NotFound)
                .map(|error| error.to_string()),
        );
        left
    }
}
