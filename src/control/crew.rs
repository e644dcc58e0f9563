//! A service with all its tasks, as a pass leaves them.

use std::ops::Range;
use std::sync::Arc;

use super::facts::{Facts, Likeness};
use super::pass::Pass;
use crate::domain::service::VersionNumber;
use crate::domain::task::Slot;
use crate::domain::{
    Meta, NodeId, Service, ServiceSpec, SpecVersion, Task, TaskState, TaskStatus, Timestamp,
};
use crate::state::ObjectKey;

/// A service with its tasks, in the order of slot and age.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) service: Arc<Service>,
    pub(super) service_touched: bool,
    /// The spec that the user wants now.
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) members: Vec<Member>,
    /// What is known of each version in use; the current one first.
    facts: Vec<Arc<Facts>>,
}

/// A task of the crew.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) task: Arc<Task>,
    pub(super) origin: Origin,
    /// Its place in the order of changes, if it changed.
    pub(super) touched: Option<u32>,
    /// Nothing but its desired state changed.
    pub(super) only_desired: bool,
    /// It is to be deleted.
    pub(super) gone: bool,
}

/// Where a member comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From the view.
    Stored,
    /// Made in this pass.
    New,
}

impl Member {
    /// Whether it occupies its slot.
    pub(super) fn is_live(&self) -> bool {
        !self.gone && self.task.is_live()
    }
}

/// Whether a task ended by itself, so that the restart policy has a say. `Shutdown` and `Orphaned`
/// are ends that the manager wanted or found.
pub(super) fn ended_itself(task: &Task) -> bool {
    match task.status.state {
        TaskState::Complete | TaskState::Failed | TaskState::Rejected => true,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Shutdown
        | TaskState::Remove
        | TaskState::Orphaned => false,
    }
}

impl Crew {
    /// Loads a service; `None` where its spec is missing, which `apply` does not allow.
    pub(super) fn load(pass: &Pass<'_>, service: &Arc<Service>) -> Option<Self> {
        let version = pass.view.spec(service.id, service.current)?;
        let stored = |task: &Arc<Task>| Member {
            task: Arc::clone(task),
            origin: Origin::Stored,
            touched: None,
            only_desired: true,
            gone: false,
        };
        let mut crew = Self {
            service: Arc::clone(service),
            service_touched: false,
            spec: Arc::clone(&version.spec),
            members: pass.view.tasks_of(service.id).map(stored).collect(),
            facts: vec![Arc::new(Facts::new(pass.view, version, &version.spec))],
        };
        crew.arrange();
        Some(crew)
    }

    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey::Service(self.service.id)
    }

    fn arrange(&mut self) {
        self.members.sort_by(|a, b| {
            let key = |it: &Member| {
                let task = &it.task;
                (task.slot, task.meta.created_at, it.origin == Origin::New, task.is_live(), task.id)
            };
            key(a).cmp(&key(b))
        });
    }

    /// The members of each slot, oldest first.
    pub(super) fn slots(&mut self) -> Vec<Range<usize>> {
        self.arrange();
        let mut slots = Vec::new();
        let mut start = 0;
        for end in 1..=self.members.len() {
            let slot = self.members[start].task.slot;
            if self.members.get(end).is_none_or(|next| next.task.slot != slot) {
                slots.push(start..end);
                start = end;
            }
        }
        slots
    }

    /// What is known of a version of the spec. Of a version that is missing: of the current one.
    pub(super) fn facts(&mut self, pass: &Pass<'_>, number: VersionNumber) -> Arc<Facts> {
        if let Some(facts) = self.facts.iter().find(|it| it.number == number) {
            return Arc::clone(facts);
        }
        let Some(version) = pass.view.spec(self.service.id, number) else {
            return Arc::clone(&self.facts[0]);
        };
        let facts = Arc::new(Facts::new(pass.view, version, &self.spec));
        self.facts.push(Arc::clone(&facts));
        facts
    }

    /// Makes another version the current one.
    pub(super) fn adopt(&mut self, pass: &Pass<'_>, version: &SpecVersion) {
        self.spec = Arc::clone(&version.spec);
        self.facts = vec![Arc::new(Facts::new(pass.view, version, &version.spec))];
    }

    /// Whether a task runs something else than the user wants now. A difference in placement alone
    /// leaves a task where it is if its node still qualifies (Docker: `IsTaskDirty`).
    pub(super) fn is_outdated(&mut self, pass: &Pass<'_>, task: &Task) -> bool {
        let state = task.status.state;
        let has_image = (TaskState::Ready..=TaskState::Running).contains(&state);
        if has_image && self.facts(pass, task.spec).likeness == Likeness::Credentials {
            return false;
        }
        self.is_outdated_on(pass, task.spec, task.node)
    }

    /// The same of a task that would run a version on a node and has not fetched its image yet.
    pub(super) fn is_outdated_on(
        &mut self,
        pass: &Pass<'_>,
        version: VersionNumber,
        node: Option<NodeId>,
    ) -> bool {
        if version == self.service.current {
            return false;
        }
        match self.facts(pass, version).likeness {
            Likeness::Same => false,
            Likeness::Credentials | Likeness::Different => true,
            Likeness::Placement => {
                let node = node.and_then(|id| pass.roster.get(id));
                !node.is_some_and(|node| self.facts[0].allows(node))
            }
        }
    }

    pub(super) fn edit_service(&mut self, change: impl FnOnce(&mut Service)) {
        change(Arc::make_mut(&mut self.service));
        self.service_touched = true;
    }

    pub(super) fn edit(
        &mut self,
        pass: &mut Pass<'_>,
        member: usize,
        change: impl FnOnce(&mut Task),
    ) {
        let member = &mut self.members[member];
        change(Arc::make_mut(&mut member.task));
        member.only_desired = false;
        if member.touched.is_none() {
            member.touched = Some(pass.touch());
        }
    }

    /// Raises the desired state of a task; does nothing if it is there already.
    pub(super) fn want(&mut self, pass: &mut Pass<'_>, member: usize, desired: TaskState) {
        if self.members[member].task.desired < desired {
            let only_desired = self.members[member].only_desired;
            self.edit(pass, member, |task| task.desired = desired);
            self.members[member].only_desired = only_desired;
        }
    }

    pub(super) fn delete(&mut self, pass: &mut Pass<'_>, member: usize) {
        let member = &mut self.members[member];
        member.gone = true;
        if member.touched.is_none() {
            member.touched = Some(pass.touch());
        }
    }

    /// Makes a task of the current version.
    pub(super) fn create(
        &mut self,
        pass: &mut Pass<'_>,
        slot: Slot,
        desired: TaskState,
        not_before: Timestamp,
    ) {
        let meta = Meta { created_at: pass.now, updated_at: pass.now, ..Meta::default() };
        let status =
            TaskStatus { at: pass.now, message: "created".to_owned(), ..TaskStatus::default() };
        let task = Task {
            id: pass.ids.task(),
            meta,
            service: self.service.id,
            spec: self.service.current,
            slot,
            node: None,
            addresses: Vec::new(),
            desired,
            not_before,
            status,
        };
        let touched = Some(pass.touch());
        self.members.push(Member {
            task: Arc::new(task),
            origin: Origin::New,
            touched,
            only_desired: false,
            gone: false,
        });
    }
}
