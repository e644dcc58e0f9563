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

/// Proposes until the changes are committed or refused for good. Reports of many nodes go together; one that is
/// refused costs the others nothing, since a batch that is refused is halved until the culprit is alone.
async fn commit(env: &Env, store: &Store, changes: Vec<Change>) {
    let mut batches = vec![changes];
    while let Some(mut changes) = batches.pop() {
        if changes.is_empty() {
            continue;
        }
        match store.propose(None, changes.clone(), DEADLINE).await {
            Ok(_) => {}
            Err(ProposeError::Rejected(_)) if changes.len() > 1 => {
                let second = changes.split_off(changes.len() / 2);
                batches.extend([second, changes]);
            }
            Err(ProposeError::Rejected(rejection)) => {
                tracing::warn!(%rejection, "a report of an agent was refused");
            }
            Err(error) => {
                tracing::debug!(%error, "reports wait");
                batches.push(changes);
                env.clock.sleep(env.entropy.jitter(RETRY)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::domain::node::{Description, Role};
    use crate::domain::{Node, NodeId};
    use crate::state::{Expect, Object};

    #[tokio::test]
    async fn a_report_that_is_refused_costs_the_others_nothing() {
        let (env, scope) = (Env::system(), Scope::root("test"));
        let store = Store::in_memory(env.clone());
        let put = |number: u8| {
            let node = Node::new(NodeId::from_bytes([number; 16]), Role::Worker);
            Change::Put { object: Object::Node(Arc::new(node)), expect: Expect::Absent }
        };
        let puts = (1..=9).map(put);
        store.propose(None, puts.collect(), DEADLINE).await.unwrap();
        let addr: IpAddr = [10, 0, 0, 1].into();
        let report = |number: u8| Change::ReportNode {
            node: NodeId::from_bytes([number; 16]),
            description: Description {
                // No entry of the log holds that of the fifth.
                hostname: "h".repeat(if number == 5 { 3 << 20 } else { 10 }),
                ..Description::default()
            },
            addr,
        };
        let (committed, mut acked) = watch::channel(0);
        let reports = start(&env, &store, &scope);
        reports.push(Report { changes: (1..=9).map(report).collect(), committed, number: 1 }).await;
        acked.wait_for(|count| *count == 1).await.unwrap();
        let view = store.view();
        let described = view.nodes.values().filter(|it| it.description.is_some());
        let described: Vec<u8> = described.map(|it| it.id.to_bytes()[0]).collect();
        assert_eq!(described, [1, 2, 3, 4, 6, 7, 8, 9]);
        scope.shutdown(DEADLINE).await;
    }
}
