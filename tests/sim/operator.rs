//! Whoever runs the cluster: adds managers, removes them, and replaces those that lost their data,
//! one after another, by what a leader offers. Repeats until it is done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm::domain::node::{Node, Role};
use swarm::domain::{NodeId, RaftId};
use swarm::env::Env;
use swarm::raft::Handle;
use swarm::state::{Change, Expect, Object, ObjectKey};

use crate::net::{self, Host};

/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(3);
/// A step that has not ended after this is taken again: its leader may be gone.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// A machine becomes a member; its id once it has one.
    Member { host: Host, node: NodeId, raft_id: Option<RaftId> },
    /// A member goes.
    Gone { host: Host, node: NodeId, raft_id: RaftId },
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Joined(RaftId),
    Votes,
    Gone,
    Nothing,
}

/// The list of wants, and the step that is being taken.
#[derive(Default)]
pub(crate) struct Operator {
    pub(crate) wants: VecDeque<Want>,
    step: Option<(Duration, Arc<Mutex<Option<Done>>>)>,
    nodes: u8,
}

/// A node as the first change that concerns it.
pub(crate) fn node_change(id: NodeId) -> Change {
    let node = Node { certified: Role::Manager, ..Node::new(id, Role::Worker) };
    Change::Put { object: Object::Node(Arc::new(node)), expect: Expect::Absent }
}

impl Operator {
    /// A node id that was never used.
    pub(crate) fn node(&mut self) -> NodeId {
        self.nodes += 1;
        NodeId::from_bytes([self.nodes; 16])
    }

    pub(crate) fn want_member(&mut self, host: Host) {
        let node = self.node();
        self.wants.push_back(Want::Member { host, node, raft_id: None });
    }

    /// What the step has come to, or the next step for a leader to take.
    pub(crate) fn next(&mut self, now: Duration) -> Next {
        let Some(want) = self.wants.front().copied() else { return Next::Idle };
        if let Some((since, outcome)) = &self.step {
            let done = *outcome.lock().unwrap();
            match done {
                Some(done) => {
                    self.step = None;
                    return Next::Done(want, done);
                }
                None if now < *since + PATIENCE => return Next::Idle,
                None => {}
            }
        }
        Next::Take(want)
    }

    /// A leader takes the next step.
    pub(crate) fn take(&mut self, now: Duration) -> Arc<Mutex<Option<Done>>> {
        let outcome = Arc::new(Mutex::new(None));
        self.step = Some((now, Arc::clone(&outcome)));
        outcome
    }
}

/// What there is to do for the operator.
pub(crate) enum Next {
    Idle,
    Take(Want),
    Done(Want, Done),
}

/// A step, taken in a leader's process.
pub(crate) async fn step(handle: Handle, env: Env, want: Want) -> Done {
    let done = match want {
        Want::Member { host, node, raft_id: None } => join(&handle, host, node).await,
        Want::Member { host, node, raft_id: Some(id) } => {
            admit(&handle, &env, host, (id, node)).await
        }
        Want::Gone { node, raft_id, .. } => dismiss(&handle, node, raft_id).await,
    };
    if done.is_none() {
        env.clock.sleep(Duration::from_millis(200)).await;
    }
    done.unwrap_or(Done::Nothing)
}

async fn join(handle: &Handle, host: Host, node: NodeId) -> Option<Done> {
    let store = handle.store();
    if store.view().node(node).is_none() {
        store.propose(None, vec![node_change(node)], LIMIT).await.ok()?;
    }
    let change = Change::JoinManager { node, addr: net::addr(host) };
    store.propose(None, vec![change], LIMIT).await.ok()?;
    let raft_id = store.view().node(node)?.manager?.raft_id;
    Some(Done::Joined(raft_id))
}

async fn admit(
    handle: &Handle,
    env: &Env,
    host: Host,
    (id, node): (RaftId, NodeId),
) -> Option<Done> {
    if !handle.members().borrow().voters.contains(&id) {
        handle.add_learner(id, node, net::addr(host)).await.ok()?;
        let mut members = handle.members();
        let close = members.wait_for(|now| now.learners.get(&id).is_some_and(|lag| *lag < 20));
        env.clock.timeout(LIMIT, close).await.ok()?.ok()?;
        handle.promote(id).await.ok()?;
    }
    Some(Done::Votes)
}

async fn dismiss(handle: &Handle, node: NodeId, id: RaftId) -> Option<Done> {
    handle.remove(id).await.ok()?;
    let change = Change::Delete { key: ObjectKey::Node(node), expect: Expect::Any };
    handle.store().propose(None, vec![change], LIMIT).await.ok()?;
    Some(Done::Gone)
}
