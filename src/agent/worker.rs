//! One runner per task: makes them as assignments come, tells them what changed, lets them go.
//!
//! Containers that run already are adopted: a runner looks before it acts, so a restart of the agent
//! touches none of them. Containers of ours that no assignment knows are removed, but only once a
//! manager has said in this process's lifetime what the assignments are.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use super::runner::{Runner, Tools};
use super::step::{Seen, Wish};
use crate::domain::{AssignmentSet, Config, Secret, ServiceSpec, Task, TaskId, TaskState};
use crate::env::Canary;
use crate::runtime::Hint;

/// Ended runners that may wait to be noticed.
const ENDED: usize = 256;

/// What a task is made of.
#[derive(Debug)]
pub(super) struct Materials {
    pub(super) task: Arc<Task>,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) secrets: Vec<Arc<Secret>>,
    pub(super) configs: Vec<Arc<Config>>,
}

/// What is wanted of a task.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) wish: Wish,
    /// `None` until all of it has arrived, and for containers that nobody knows.
    pub(super) materials: Option<Arc<Materials>>,
}

#[derive(Debug)]
struct Running {
    wanted: watch::Sender<Wanted>,
    hint: Arc<Notify>,
}

/// The worker.
#[derive(Debug)]
pub(super) struct Worker {
    tools: Arc<Tools>,
    runners: BTreeMap<TaskId, Running>,
    ended: mpsc::Sender<TaskId>,
}

/// Where a task comes from, which says whether its container may exist already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The ledger: somebody may have made it.
    Ledger,
    /// A manager, just now.
    Session,
}

/// Follows the assignments for ever.
pub(super) async fn run(tools: Arc<Tools>) {
    let (ended, mut over) = mpsc::channel(ENDED);
    let mut sets = tools.board.assignments.subscribe();
    let mut confirmed = tools.board.confirmed.subscribe();
    let mut hints = Arc::clone(&tools.runtime).watch();
    let sweep = Arc::new(Notify::new());
    let mut strays = sweeper(&tools, &sweep);
    let mut worker = Worker { tools, runners: BTreeMap::new(), ended };
    let set = Arc::clone(&sets.borrow_and_update());
    worker.apply(&set, Origin::Ledger);
    loop {
        tokio::select! {
            biased;
            Some(task) = over.recv() => worker.ended(task, &sets.borrow()),
            changed = sets.changed() => {
                if changed.is_err() {
                    return;
                }
                let set = Arc::clone(&sets.borrow_and_update());
                worker.apply(&set, Origin::Session);
            }
            Some(hint) = hints.recv() => {
                if hint.is_none() {
                    sweep.notify_one();
                }
                worker.hint(hint);
            }
            Ok(()) = confirmed.changed() => sweep.notify_one(),
            Some(stray) = strays.recv() => worker.adopt_stray(stray, &sets.borrow()),
        }
    }
}

/// Looks for containers and task files on request, in a routine of its own: a slow engine must not stop the worker.
fn sweeper(tools: &Arc<Tools>, request: &Arc<Notify>) -> mpsc::Receiver<TaskId> {
    let (strays, receiver) = mpsc::channel(ENDED);
    let (tools, request) = (Arc::clone(tools), Arc::clone(request));
    let scope = tools.scope.clone();
    scope.spawn("sweeper", async move {
        loop {
            request.notified().await;
            if !*tools.board.confirmed.borrow() {
                continue;
            }
            let files = tools.files.clone();
            let mut found = tools.scope.blocking(move || files.tasks()).await.unwrap_or_default();
            match tools.runtime.list().await {
                Ok(containers) => found.extend(containers.iter().map(|container| container.task)),
                // The next connection to the engine brings the next request.
                Err(error) => tracing::debug!(%error, "containers cannot be listed"),
            }
            for task in found {
                if strays.send(task).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

impl Worker {
    /// Brings the runners to a set.
    fn apply(&mut self, set: &AssignmentSet, origin: Origin) {
        for task in set.tasks() {
            match self.runners.get(&task.id) {
                Some(running) => update(running, set, task),
                None => self.begin(set, task, origin),
            }
        }
        for (id, running) in &self.runners {
            if set.task(*id).is_none() {
                running.wanted.send_if_modified(|wanted| {
                    let changed = wanted.wish != Wish::Gone;
                    wanted.wish = Wish::Gone;
                    changed
                });
            }
        }
    }

    fn begin(&mut self, set: &AssignmentSet, task: &Arc<Task>, origin: Origin) {
        let wish = Wish::of(task.desired);
        let materials = materials(set, task, wish).map(Arc::new);
        let known = self.tools.board.status(task.id);
        let status = match known {
            Some(known) => known.join(task.status.clone()),
            None => task.status.clone(),
        };
        let fresh = origin == Origin::Session && status.state <= TaskState::Assigned
            || self.tools.env.faults.has(Canary::AdoptsNothing);
        let seen = if fresh { Seen::Absent } else { Seen::Unknown };
        self.spawn(task.id, Wanted { wish, materials }, (status, seen));
    }

    fn spawn(&mut self, task: TaskId, wanted: Wanted, known: (crate::domain::TaskStatus, Seen)) {
        let (wanted, receiver) = watch::channel(wanted);
        let hint = Arc::new(Notify::new());
        let tools = Arc::clone(&self.tools);
        let runner = Runner::new(tools, task, receiver, Arc::clone(&hint), known);
        let ended = self.ended.clone();
        self.tools.scope.spawn("runner", async move {
            runner.run().await;
            // The worker ends only together with all runners.
            ended.send(task).await.unwrap_or_default();
        });
        self.runners.insert(task, Running { wanted, hint });
    }

    fn ended(&mut self, task: TaskId, set: &AssignmentSet) {
        self.runners.remove(&task);
        // It came back while it was on its way out.
        if let Some(task) = set.task(task) {
            self.begin(set, task, Origin::Ledger);
        }
    }

    fn hint(&self, hint: Hint) {
        match hint {
            Some(task) => {
                if let Some(running) = self.runners.get(&task) {
                    running.hint.notify_one();
                }
            }
            None => {
                self.tools.board.engine_changed();
                for running in self.runners.values() {
                    running.hint.notify_one();
                }
            }
        }
    }

    /// A container or its files were seen: if no assignment knows it, nothing shall be left of it.
    fn adopt_stray(&mut self, task: TaskId, set: &AssignmentSet) {
        if self.runners.contains_key(&task) || set.task(task).is_some() {
            return;
        }
        tracing::info!(task.id = %task, "what no assignment knows is removed");
        let wanted = Wanted { wish: Wish::Gone, materials: None };
        self.spawn(task, wanted, (crate::domain::TaskStatus::default(), Seen::Unknown));
    }
}

/// Tells a runner what is new.
fn update(running: &Running, set: &AssignmentSet, task: &Arc<Task>) {
    running.wanted.send_if_modified(|wanted| {
        // A wish only rises; what left the assignments does not come back to life.
        let wish = wanted.wish.max(Wish::of(task.desired));
        let mut changed = wish != wanted.wish;
        wanted.wish = wish;
        if wanted.materials.is_none() {
            wanted.materials = materials(set, task, wish).map(Arc::new);
            changed |= wanted.materials.is_some();
        }
        changed
    });
}

/// Collects what a task is made of; payloads only if it shall run.
fn materials(set: &AssignmentSet, task: &Arc<Task>, wish: Wish) -> Option<Materials> {
    let spec = Arc::clone(&set.spec(task.service, task.spec)?.spec);
    let container = &spec.task_template.container_spec;
    let (secrets, configs) = if wish <= Wish::Run {
        (
            container
                .secrets
                .iter()
                .map(|it| set.secret(it.secret_id).cloned())
                .collect::<Option<Vec<_>>>()?,
            container
                .configs
                .iter()
                .map(|it| set.config(it.config_id).cloned())
                .collect::<Option<Vec<_>>>()?,
        )
    } else {
        (Vec::new(), Vec::new())
    };
    Some(Materials { task: Arc::clone(task), spec, secrets, configs })
}
