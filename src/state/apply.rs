//! The only writer of the replicated state: total, deterministic, all-or-nothing, without policy.
//!
//! A command is applied to a clone (O(1)) that replaces the state only if every change passed. The
//! position and the clock advance either way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{
    Change, Command, Event, EventKind, Expect, Object, ObjectKey, Outcome, Rejection, State, rules,
};
use crate::domain::cluster::MANAGERS_MAX;
use crate::domain::node::{Description, ManagerStatus, Membership};
use crate::domain::{
    Meta, Node, NodeId, Position, RaftId, Revision, Task, TaskId, TaskState, TaskStatus,
};

/// Applies a command that was committed at a position.
///
/// On success the outcome is the log index at which it took effect, with an event for every object
/// that really changed. On a rejection nothing but position and clock has changed.
pub fn apply(state: &mut State, command: &Command, position: Position) -> (Outcome, Vec<Event>) {
    state.position = position;
    state.clock = state.clock.max(command.proposed_at);
    let revision = Revision(position.index);
    let mut draft = Draft { state: state.clone(), revision, events: Vec::new() };
    let outcome = command
        .changes
        .iter()
        .try_for_each(|change| draft.change(change))
        .and_then(|()| rules::settled(&draft.state, &draft.events));
    match outcome {
        Ok(()) => {
            *state = draft.state;
            (Ok(revision), draft.events)
        }
        Err(rejection) => (Err(rejection), Vec::new()),
    }
}

/// The state as it will be if every change passes.
struct Draft {
    state: State,
    revision: Revision,
    events: Vec<Event>,
}

impl Draft {
    fn change(&mut self, change: &Change) -> Result<(), Rejection> {
        match change {
            Change::Put { object, expect } => self.put(object, *expect),
            Change::Delete { key, expect } => self.delete(key, *expect),
            Change::ReportTask { task, node, status } => self.report_task(*task, *node, status),
            Change::ReportNode { node, description, addr } => {
                self.report_node(*node, description, *addr)
            }
            Change::ReportTrust { node, trust } => self.report_trust(*node, *trust),
            Change::JoinManager { node, addr } => self.join_manager(*node, *addr),
        }
    }

    fn put(&mut self, object: &Object, expect: Expect) -> Result<(), Rejection> {
        let key = object.key();
        let current = self.state.object(&key);
        let wanted = match (&current, expect) {
            (Some(current), Expect::SpecAt(_)) => object.as_users_write(current),
            (Some(current), Expect::Present) => object.risen_from(current),
            _ => object.clone(),
        };
        if current.as_ref().is_some_and(|current| is_same(&wanted, current)) {
            return Ok(()); // the outcome of an earlier attempt, or nothing to do
        }
        check_expect(&key, current.as_ref(), expect)?;
        self.write(&wanted, current)
    }

    fn delete(&mut self, key: &ObjectKey, expect: Expect) -> Result<(), Rejection> {
        let Some(current) = self.state.object(key) else { return Ok(()) };
        check_expect(key, Some(&current), expect)?;
        self.state.erase(key);
        self.note(EventKind::Removed, current, None);
        Ok(())
    }

    fn report_task(
        &mut self,
        id: TaskId,
        node: NodeId,
        status: &TaskStatus,
    ) -> Result<(), Rejection> {
        let Some(task) = self.state.tasks.get(&id).cloned() else { return Ok(()) };
        if task.node != Some(node) || status.state == TaskState::Remove {
            return Ok(());
        }
        let joined = task.status.clone().join(status.clone());
        if joined == task.status {
            return Ok(());
        }
        let risen = Task { status: joined, ..(*task).clone() };
        self.write(&Object::Task(Arc::new(risen)), Some(Object::Task(task)))
    }

    fn report_node(
        &mut self,
        id: NodeId,
        description: &Description,
        addr: IpAddr,
    ) -> Result<(), Rejection> {
        let Some(node) = self.state.nodes.get(&id).cloned() else { return Ok(()) };
        if node.description.as_ref() == Some(description) && node.status.addr == Some(addr) {
            return Ok(());
        }
        let mut described = (*node).clone();
        described.description = Some(description.clone());
        described.status.addr = Some(addr);
        self.write(&Object::Node(Arc::new(described)), Some(Object::Node(node)))
    }

    fn report_trust(&mut self, id: NodeId, trust: u64) -> Result<(), Rejection> {
        let known = self.state.cluster.as_ref().map_or(0, |cluster| cluster.trust.generation);
        let Some(node) = self.state.nodes.get(&id).cloned() else { return Ok(()) };
        if trust <= node.trust || trust > known {
            return Ok(());
        }
        let trusting = Node { trust, ..(*node).clone() };
        self.write(&Object::Node(Arc::new(trusting)), Some(Object::Node(node)))
    }

    fn join_manager(&mut self, id: NodeId, addr: SocketAddr) -> Result<(), Rejection> {
        let key = ObjectKey::Node(id);
        let node = self.state.nodes.get(&id).cloned().ok_or_else(|| not_found(&key))?;
        let member = node.manager.filter(|it| it.membership != Membership::Removed);
        let manager = match member {
            Some(manager) if manager.addr == addr => return Ok(()),
            Some(manager) => ManagerStatus { addr, ..manager },
            None => {
                let raft_id = self.next_raft_id()?;
                ManagerStatus { raft_id, addr, membership: Membership::None, silent: false }
            }
        };
        let mut joined = (*node).clone();
        joined.manager = Some(manager);
        self.write(&Object::Node(Arc::new(joined)), Some(Object::Node(node)))
    }

    /// The raft id of the manager that joins by this command.
    fn next_raft_id(&self) -> Result<RaftId, Rejection> {
        if self.state.managers().count() >= MANAGERS_MAX {
            return Err(Rejection::TooManyManagers { max: MANAGERS_MAX });
        }
        let mut known = self.state.nodes.values().filter_map(|node| node.manager);
        let first = known.next().is_none();
        let raft_id = RaftId(if first { 1 } else { self.revision.0 });
        let mut known = self.state.nodes.values().filter_map(|node| node.manager);
        // Two joins in one log entry would share its index; the second comes again.
        if known.any(|manager| manager.raft_id == raft_id) {
            let rule = "another manager joined at the same moment: try again".to_owned();
            return Err(Rejection::Broken { rule });
        }
        Ok(raft_id)
    }

    /// Writes an object that has passed its precondition: rules, times, revisions, indexes, event.
    fn write(&mut self, object: &Object, current: Option<Object>) -> Result<(), Rejection> {
        rules::check(&self.state, object, current.as_ref())?;
        let now = self.state.clock;
        let meta = match current.as_ref().and_then(Object::meta) {
            None => Meta {
                created_at: now,
                updated_at: now,
                revision: self.revision,
                spec_revision: self.revision,
            },
            Some(before) => {
                let differs = current.as_ref().is_some_and(|it| object.spec_differs(it));
                let spec_revision = if differs { self.revision } else { before.spec_revision };
                Meta { updated_at: now, revision: self.revision, spec_revision, ..before }
            }
        };
        let stored = object.with_meta(meta);
        self.state.store(stored.clone());
        let kind = if current.is_some() { EventKind::Updated } else { EventKind::Created };
        self.note(kind, stored, current);
        Ok(())
    }

    fn note(&mut self, kind: EventKind, object: Object, before: Option<Object>) {
        let (revision, at) = (self.revision, self.state.clock);
        self.events.push(Event { kind, object, before, revision, at });
    }
}

/// Whether two states of one object differ in nothing but times and revisions.
fn is_same(object: &Object, current: &Object) -> bool {
    current.meta().map_or_else(|| object == current, |meta| object.with_meta(meta) == *current)
}

fn check_expect(
    key: &ObjectKey,
    current: Option<&Object>,
    expect: Expect,
) -> Result<(), Rejection> {
    let meta = current.and_then(Object::meta).unwrap_or_default();
    let stale = |expected, actual| match current {
        Some(_) if expected == actual => Ok(()),
        Some(_) => Err(Rejection::Stale { expected, actual }),
        None => Err(not_found(key)),
    };
    match expect {
        Expect::Any => Ok(()),
        Expect::Present if current.is_some() => Ok(()),
        Expect::Present => Err(not_found(key)),
        Expect::Absent if current.is_none() => Ok(()),
        Expect::Absent => Err(Rejection::Exists { kind: key.kind(), id: key.id_text() }),
        Expect::SpecAt(revision) => stale(revision, meta.spec_revision),
        Expect::At(revision) => stale(revision, meta.revision),
    }
}

fn not_found(key: &ObjectKey) -> Rejection {
    Rejection::NotFound { kind: key.kind(), id: key.id_text() }
}

#[cfg(test)]
mod member_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
