//! What agents report, batched into proposals: one is in flight, what arrives meanwhile is the next.
//!
//! Reports join on a lattice, so repeating them after an unknown outcome or a change of leader is
//! harmless; a batch is repeated until it is committed.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::env::{Env, Point, Scope};
use crate::raft::{ProposeError, Store};
use crate::state::Change;

/// Reports that wait for the proposal in flight; a session that finds no room waits itself.
const QUEUE: usize = 4_096;
/// Changes of one proposal at most: about 200 bytes each, well below the soft cut of an entry.
const BATCH_MAX: usize = 400;
/// How long a proposal may take before it is repeated.
const DEADLINE: Duration = Duration::from_secs(5);
/// Between two tries while nobody leads.
const RETRY: Duration = Duration::from_millis(100);

/// One report message of one session.
#[derive(Debug)]
pub(crate) struct Report {
    /// What it changes.
    pub(crate) changes: Vec<Change>,
    /// Counts the session's reports that are committed.
    pub(crate) committed: watch::Sender<u64>,
    /// The number of the report within its session, from 1.
    pub(crate) number: u64,
}

/// The queue of reports. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    queue: mpsc::Sender<Report>,
}

impl Reports {
    /// Queues a report; waits while the queue is full.
    pub(crate) async fn push(&self, report: Report) {
        // The queue closes only with the whole dispatcher, and the session with it.
        if self.queue.send(report).await.is_err() {
            tracing::debug!("a report came after the dispatcher had ended");
        }
    }
}

/// Starts to propose reports.
pub(crate) fn start(env: &Env, store: &Store, scope: &Scope) -> Reports {
    let (queue, reports) = mpsc::channel(QUEUE);
    scope.spawn("reports", propose_all(env.clone(), store.clone(), reports));
    Reports { queue }
}

async fn propose_all(env: Env, store: Store, mut reports: mpsc::Receiver<Report>) {
    while let Some(first) = reports.recv().await {
        let mut changes = first.changes;
        let mut answers = vec![(first.committed, first.number)];
        while changes.len() < BATCH_MAX
            && let Ok(next) = reports.try_recv()
        {
            changes.extend(next.changes);
            answers.push((next.committed, next.number));
        }
        env.faults.pass(Point::DispatcherCommit, &*env.clock).await;
        commit(&env, &store, changes).await;
        for (committed, number) in answers {
            committed.send_modify(|count| *count = number.max(*count));
        }
    }
}

/// Proposes until the changes are committed or refused for good.
async fn commit(env: &Env, store: &Store, changes: Vec<Change>) {
    if changes.is_empty() {
        return;
    }
    loop {
        match store.propose(None, changes.clone(), DEADLINE).await {
            Ok(_) => return,
            Err(ProposeError::Rejected(rejection)) => {
                // Reports are always acceptable to `apply`, unless the node itself is gone.
                tracing::debug!(%rejection, "reports were refused");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "reports wait");
                env.clock.sleep(env.entropy.jitter(RETRY)).await;
            }
        }
    }
}
