//! What the parts of an agent tell each other: values to watch, and statuses that wait to be sent.
//!
//! Each value has one writer: `session` the assignments, managers, role and connection; `network` the
//! networks; the runners the statuses; `describe` the description. Nothing here decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::ledger::{Ledger, Memory, Note};
use crate::domain::node::{Description, Role};
use crate::domain::{AssignmentSet, NetworkId, NodeId, Position, TaskId, TaskState, TaskStatus};
use crate::env::Scope;
use crate::runtime::NetworkPlan;

/// Notes that may wait for the disk; then their writers wait.
const NOTES: usize = 1024;
/// Notes written with one flush.
const BATCH: usize = 256;

/// The node's networks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Networks {
    /// Those that tasks may join.
    pub(super) ready: BTreeMap<NetworkId, NetworkPlan>,
    /// What is wrong, for people; empty if nothing is.
    pub(super) problem: String,
    /// The assignments that the kernel's network stands for.
    pub(super) applied: Position,
}

/// A note and who waits until it is written.
type Entry = (Note, Option<oneshot::Sender<Result<(), String>>>);

/// The board.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) assignments: watch::Sender<Arc<AssignmentSet>>,
    /// A manager of this process's lifetime said what the assignments are.
    pub(super) confirmed: watch::Sender<bool>,
    pub(super) networks: watch::Sender<Networks>,
    pub(super) local: watch::Sender<Arc<BTreeMap<TaskId, bool>>>,
    pub(super) managers: watch::Sender<Vec<(NodeId, SocketAddr)>>,
    pub(super) role: watch::Sender<Option<Role>>,
    /// Digest of the roots that the managers want this node to trust.
    pub(super) trust_wanted: watch::Sender<Option<[u8; 32]>>,
    /// Digest of those that it trusts; by the daemon.
    pub(super) trusted: watch::Sender<Option<[u8; 32]>>,
    pub(super) connected: watch::Sender<Option<SocketAddr>>,
    pub(super) removed: watch::Sender<bool>,
    pub(super) description: watch::Sender<Option<Description>>,
    /// Counts how often the engine came or went.
    pub(super) engine: watch::Sender<u64>,
    /// Woken when a status waits to be sent.
    pub(super) to_send: Notify,
    statuses: Mutex<Statuses>,
    notes: mpsc::Sender<Entry>,
}

#[derive(Debug, Default)]
struct Statuses {
    latest: BTreeMap<TaskId, TaskStatus>,
    unsent: BTreeSet<TaskId>,
}

impl Board {
    /// The board of an agent with what its ledger remembers; starts the routine that writes it.
    pub(super) fn new(ledger: Ledger, managers: &[SocketAddr], scope: &Scope) -> Arc<Self> {
        let Memory { set, statuses, managers: mut known } = ledger.memory().clone();
        // An address given by hand has no node yet; it is forgotten with the first list.
        known.extend(
            managers
                .iter()
                .filter(|addr| !ledger.memory().managers.iter().any(|(_, known)| known == *addr))
                .map(|addr| (NodeId::default(), *addr))
                .collect::<Vec<_>>(),
        );
        let (notes, receiver) = mpsc::channel(NOTES);
        let writer = scope.clone();
        scope.spawn("ledger", async move { write_notes(ledger, receiver, &writer).await });
        Arc::new(Self {
            assignments: watch::Sender::new(Arc::new(set)),
            confirmed: watch::Sender::new(false),
            networks: watch::Sender::default(),
            local: watch::Sender::default(),
            managers: watch::Sender::new(known),
            role: watch::Sender::default(),
            trust_wanted: watch::Sender::default(),
            trusted: watch::Sender::default(),
            connected: watch::Sender::default(),
            removed: watch::Sender::default(),
            description: watch::Sender::default(),
            engine: watch::Sender::default(),
            to_send: Notify::new(),
            statuses: Mutex::new(Statuses { latest: statuses, unsent: BTreeSet::new() }),
            notes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Statuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest status of a task.
    pub(super) fn status(&self, task: TaskId) -> Option<TaskStatus> {
        self.lock().latest.get(&task).cloned()
    }

    /// How many tasks there are in each state.
    pub(super) fn census(&self) -> BTreeMap<TaskState, usize> {
        let mut census = BTreeMap::new();
        for status in self.lock().latest.values() {
            *census.entry(status.state).or_default() += 1;
        }
        census
    }

    /// Records a status; it will be sent and written down.
    pub(super) async fn report(&self, task: TaskId, status: TaskStatus) {
        {
            let mut statuses = self.lock();
            statuses.latest.insert(task, status.clone());
            statuses.unsent.insert(task);
        }
        self.to_send.notify_one();
        // The routine ends only together with the agent.
        drop(self.notes.send((Note::Status(task, status), None)).await);
    }

    /// Statuses that were never sent, at most `max`, oldest task first; they count as sent now.
    pub(super) fn take_unsent(&self, max: usize) -> Vec<(TaskId, TaskStatus)> {
        let mut statuses = self.lock();
        let tasks: Vec<_> = statuses.unsent.iter().take(max).copied().collect();
        tasks
            .into_iter()
            .filter_map(|task| {
                statuses.unsent.remove(&task);
                Some((task, statuses.latest.get(&task)?.clone()))
            })
            .collect()
    }

    /// All statuses, for the first word of a session.
    pub(super) fn statuses(&self) -> BTreeMap<TaskId, TaskStatus> {
        self.lock().latest.clone()
    }

    /// The session that begins to report has said so much: all else waits to be sent, whatever another
    /// session has sent meanwhile.
    pub(super) fn said(&self, said: &BTreeMap<TaskId, TaskStatus>) {
        let Statuses { latest, unsent } = &mut *self.lock();
        let news = latest.iter().filter(|(task, status)| said.get(task) != Some(status));
        *unsent = news.map(|(task, _)| *task).collect();
    }

    /// Forgets a task that is over.
    pub(super) fn forget(&self, task: TaskId) {
        let mut statuses = self.lock();
        statuses.latest.remove(&task);
        statuses.unsent.remove(&task);
        drop(statuses);
        self.set_local(task, None);
    }

    /// Publishes whether a task serves, as far as this node knows.
    pub(super) fn set_local(&self, task: TaskId, serving: Option<bool>) {
        self.local.send_if_modified(|local| {
            if local.get(&task).copied() == serving {
                return false;
            }
            let local = Arc::make_mut(local);
            match serving {
                Some(serving) => local.insert(task, serving),
                None => local.remove(&task),
            };
            true
        });
    }

    /// Writes a note and waits until it is on the disk.
    ///
    /// # Errors
    /// In words, when it could not be written.
    pub(super) async fn write(&self, note: Note) -> Result<(), String> {
        let (done, written) = oneshot::channel();
        let ended = || "the agent is stopping".to_owned();
        self.notes.send((note, Some(done))).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }

    /// Says that the engine came or went.
    pub(super) fn engine_changed(&self) {
        self.engine.send_modify(|count| *count += 1);
    }
}

/// Writes what queued while the last write was on its way, with one flush.
async fn write_notes(ledger: Ledger, mut notes: mpsc::Receiver<Entry>, scope: &Scope) {
    let mut ledger = ledger;
    let mut batch = Vec::with_capacity(BATCH);
    while notes.recv_many(&mut batch, BATCH).await > 0 {
        let (notes, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let write = move || {
            let result = ledger.write(notes);
            (ledger, result)
        };
        let Some((back, result)) = scope.blocking(write).await else { return };
        ledger = back;
        if let Err(error) = &result {
            tracing::error!(%error, "the agent cannot write down what it must not forget");
        }
        let result = result.map_err(|error| error.to_string());
        for done in waiting.into_iter().flatten() {
            // Who waited may be gone.
            drop(done.send(result.clone()));
        }
    }
}
