//! One task: asks `step` what to do, does it, reports it. Decides nothing but how errors weigh.
//!
//! A runner never polls: it waits for the wish to change, for a hint of the engine, or for the end of
//! what it does itself. Errors that may pass are retried with a back-off, for ever while the engine
//! does not answer, a few times while it says no.

mod act;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};

use super::board::Board;
use super::files::TaskFiles;
use super::guard::Guard;
use super::step::{Blocker, Early, Facts, Operation, Seen, Traffic, Wish, step};
use super::worker::{Materials, Wanted};
use crate::domain::task::ContainerStatus;
use crate::domain::{TaskId, TaskState, TaskStatus};
use crate::env::{Canary, Env, Instant, Scope};
use crate::runtime::{Container, Error, Health, NetworkPlan, Phase, Runtime, spec};

/// Refusals of the engine that may pass, in a row, before the task fails.
const ATTEMPTS: u32 = 6;
/// The first wait after an error; it doubles up to the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(3);
/// An act on the engine that takes longer is a reason to be told.
const SLOW: Duration = Duration::from_secs(10);
/// Docker's words for a container whose health check failed.
const UNHEALTHY: &str = "dockerexec: unhealthy container";
/// Docker's words for a container that somebody removed.
const DESTROYED: &str = "dockerexec: container destroyed";

/// What all runners share.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) env: Env,
    pub(super) board: Arc<Board>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) files: TaskFiles,
    pub(super) node: crate::domain::NodeId,
    pub(super) guard: Guard,
    /// From withdrawing a task's address to its stop signal.
    pub(super) drain: Duration,
    /// Containers made or started at a time: more would only be slower.
    pub(super) starts: Semaphore,
    /// Containers looked at or ended at a time.
    pub(super) acts: Semaphore,
    pub(super) scope: Scope,
}

/// The routine of one task.
#[derive(Debug)]
pub(super) struct Runner {
    tools: Arc<Tools>,
    task: TaskId,
    wanted: watch::Receiver<Wanted>,
    hint: Arc<Notify>,
    status: TaskStatus,
    seen: Seen,
    container: Option<Container>,
    /// The files are there, with the resolver of this network.
    files: Option<Option<NetworkPlan>>,
    image_missing: bool,
    pulls: u32,
    drained: bool,
    due_at: Option<Instant>,
    attempts: u32,
    back_off: Duration,
}

/// Whether the runner goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

impl Runner {
    /// A runner for a task, with what is known of it so far.
    pub(super) fn new(
        tools: Arc<Tools>,
        task: TaskId,
        wanted: watch::Receiver<Wanted>,
        hint: Arc<Notify>,
        (status, seen): (TaskStatus, Seen),
    ) -> Self {
        Self {
            tools,
            task,
            wanted,
            hint,
            status,
            seen,
            container: None,
            files: None,
            image_missing: false,
            pulls: 0,
            drained: false,
            due_at: None,
            attempts: 0,
            back_off: BACK_OFF_MIN,
        }
    }

    /// Runs until the task is over and forgotten.
    pub(super) async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.publish_local(&wanted);
            let operation = step(&self.facts(&wanted));
            tracing::trace!(task.id = %self.task, ?operation, "step");
            if self.perform(operation, &wanted).await == Flow::Over {
                break;
            }
        }
        self.tools.board.forget(self.task);
        tracing::debug!(task.id = %self.task, "task is over");
    }

    fn facts(&mut self, wanted: &Wanted) -> Facts {
        Facts {
            wish: wanted.wish,
            state: self.status.state,
            seen: self.seen,
            blocker: self.blocker(wanted),
            early: self.early(wanted),
            traffic: self.traffic(wanted),
        }
    }

    fn blocker(&self, wanted: &Wanted) -> Option<Blocker> {
        let Some(materials) = &wanted.materials else { return Some(Blocker::Materials) };
        let network = match self.network(materials) {
            Ok(network) => network,
            Err(Unready) => return Some(Blocker::Network),
        };
        if self.files.as_ref() != Some(&network) {
            return Some(Blocker::Files);
        }
        self.image_missing.then_some(Blocker::Image)
    }

    /// The engine's network of the task; `None` where it joins none.
    fn network(&self, materials: &Materials) -> Result<Option<NetworkPlan>, Unready> {
        let Some(id) = materials.network() else { return Ok(None) };
        let networks = self.tools.board.networks.borrow();
        networks.ready.get(&id).cloned().map(Some).ok_or(Unready)
    }

    fn early(&mut self, wanted: &Wanted) -> Early {
        let Some(materials) = &wanted.materials else { return Early::Due };
        let clock = &self.tools.env.clock;
        let task = &materials.task;
        // A delay passes without the managers; that a predecessor has stopped they alone know.
        if wanted.wish == Wish::Prepare && task.not_before <= task.meta.created_at {
            return Early::WaitsForWord;
        }
        // Cluster time and this node's may differ: the delay counts from the arrival at most.
        let due_at = *self.due_at.get_or_insert_with(|| {
            let delay = task.not_before.since(task.meta.created_at);
            clock.instant().after(delay.min(task.not_before.since(clock.now())))
        });
        if clock.instant() < due_at { Early::Waits } else { Early::Due }
    }

    fn traffic(&self, wanted: &Wanted) -> Traffic {
        let joined = wanted.materials.as_ref().is_some_and(|all| all.network().is_some());
        if joined && !self.drained && self.status.state == TaskState::Running {
            Traffic::Possible
        } else {
            Traffic::None
        }
    }

    fn publish_local(&self, wanted: &Wanted) {
        if self.seen == Seen::Unknown && wanted.wish <= Wish::Run {
            return;
        }
        let healthy =
            matches!(self.seen, Seen::Present(Phase::Running(Health::Unchecked | Health::Healthy)));
        let serving =
            wanted.wish <= Wish::Run && self.status.state == TaskState::Running && healthy;
        self.tools.board.set_local(self.task, Some(serving));
    }

    async fn perform(&mut self, operation: Operation, wanted: &Wanted) -> Flow {
        match operation {
            Operation::Look => self.look().await,
            Operation::Report(state) => self.reach(state).await,
            Operation::Await(blocker) => self.wait_for(blocker).await,
            Operation::WriteFiles => self.write_files(wanted).await,
            Operation::Pull => self.pull(wanted).await,
            Operation::Create => self.create(wanted).await,
            Operation::AwaitTime => self.wait_for_time().await,
            Operation::Start => self.start().await,
            Operation::AwaitEvent => return self.wait_for_event().await,
            Operation::Ended { code, oom_killed } => {
                // A child may have been ended and the task itself have gone well.
                let cause = (oom_killed && code != 0).then_some("OOM killed");
                self.ended(code, cause).await;
            }
            Operation::Destroyed => self.finish(TaskState::Failed, DESTROYED.to_owned()).await,
            Operation::StopUnhealthy => self.stop_unhealthy(wanted).await,
            Operation::Drain => {
                self.tools.env.clock.sleep(self.tools.drain).await;
                self.drained = true;
            }
            Operation::Stop if self.tools.env.faults.has(Canary::ShutdownTooEarly) => {
                self.reach(TaskState::Shutdown).await;
                self.tools.env.clock.sleep(BACK_OFF_MAX).await;
                self.stop(wanted).await;
            }
            Operation::Stop => self.stop(wanted).await,
            Operation::Remove => self.remove().await,
            Operation::Rest => {
                self.remove_files().await;
                return self.wait_for_event().await;
            }
            Operation::Forget => {
                self.remove_files().await;
                return Flow::Over;
            }
        }
        Flow::On
    }

    /// Reports a state that was reached, in Docker's words.
    async fn reach(&mut self, state: TaskState) {
        let message = match state {
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "prepared",
            TaskState::Starting => "starting",
            TaskState::Running => "started",
            TaskState::Complete => "finished",
            TaskState::Shutdown => "shutdown",
            TaskState::New
            | TaskState::Pending
            | TaskState::Assigned
            | TaskState::Failed
            | TaskState::Rejected
            | TaskState::Remove
            | TaskState::Orphaned => state.as_str(),
        };
        let status = self.status_now(state, message.to_owned(), String::new());
        self.publish(status).await;
    }

    fn status_now(&self, state: TaskState, message: String, error: String) -> TaskStatus {
        let container = self.container.as_ref();
        let (exit_code, oom_killed) = match container.map(|container| container.phase) {
            Some(Phase::Exited { code, oom_killed }) => (Some(code), oom_killed),
            Some(Phase::Created | Phase::Running(_)) | None => (None, false),
        };
        TaskStatus {
            state,
            at: self.tools.env.clock.now(),
            message,
            error,
            container: container.map_or_else(
                || self.status.container.clone(),
                |container| {
                    let (id, pid) = (container.id.clone(), container.pid);
                    Some(ContainerStatus { id, pid, exit_code, oom_killed })
                },
            ),
            ports: container.map_or_else(Vec::new, |container| container.ports.clone()),
        }
    }

    async fn publish(&mut self, status: TaskStatus) {
        self.status = status.clone();
        let (task, state, error) = (self.task, status.state, &status.error);
        tracing::info!(task.id = %task, %state, error, "task");
        self.tools.board.report(task, status).await;
    }

    /// Reports the end of the task.
    async fn finish(&mut self, state: TaskState, error: String) {
        let message = match state {
            TaskState::Complete => "finished".to_owned(),
            _ => self.status.message.clone(),
        };
        let status = self.status_now(state, message, error);
        self.publish(status).await;
    }

    async fn ended(&mut self, code: i64, cause: Option<&str>) {
        match (code, cause) {
            (0, None) => self.finish(TaskState::Complete, String::new()).await,
            (0, Some(cause)) => self.finish(TaskState::Failed, cause.to_owned()).await,
            (code, None) => {
                self.finish(TaskState::Failed, format!("task: non-zero exit ({code})")).await;
            }
            (code, Some(cause)) => {
                let error = format!("task: non-zero exit ({code}): {cause}");
                self.finish(TaskState::Failed, error).await;
            }
        }
    }

    fn progressed(&mut self) {
        self.attempts = 0;
        self.back_off = BACK_OFF_MIN;
    }

    /// Weighs an error: retry, look again, or the end of the task.
    async fn trouble(&mut self, error: Error) {
        let running = self.wanted.borrow().wish <= Wish::Run && !self.status.state.is_terminal();
        let text = error.to_string();
        match error {
            Error::Missing => self.seen = Seen::Unknown,
            Error::NoImage(_) => self.image_missing = true,
            Error::PortInUse(_) if running => self.finish(TaskState::Rejected, text).await,
            Error::Permanent(_) if running => self.give_up(text).await,
            Error::Transient(_) if running && self.attempts + 1 >= ATTEMPTS => {
                self.give_up(text).await;
            }
            Error::Transient(_) | Error::Permanent(_) | Error::PortInUse(_) => {
                self.attempts += 1;
                self.retry_later(text).await;
            }
            Error::Unreachable(_) => self.retry_later(text).await,
        }
    }

    /// Docker: before starting a task is rejected, from then on it has failed.
    async fn give_up(&mut self, error: String) {
        let state = if self.status.state < TaskState::Starting {
            TaskState::Rejected
        } else {
            TaskState::Failed
        };
        self.finish(state, error).await;
    }

    /// Reports what stands in the way.
    async fn complain(&mut self, error: String) {
        if self.status.error != error {
            // A task that was just assigned is reported as accepted, so that the reason shows.
            let (state, message) = match self.status.state.cmp(&TaskState::Accepted) {
                Ordering::Less => (TaskState::Accepted, "accepted".to_owned()),
                Ordering::Equal | Ordering::Greater => {
                    (self.status.state, self.status.message.clone())
                }
            };
            let status = self.status_now(state, message, error);
            self.publish(status).await;
        }
    }

    /// Waits for an act on the engine, and says so when that takes too long.
    async fn attend<T>(&mut self, act: impl Future<Output = T>) -> T {
        let mut act = std::pin::pin!(act);
        let slow = self.tools.env.clock.sleep(SLOW);
        tokio::select! {
            biased;
            done = &mut act => return done,
            () = slow => {}
        }
        let seconds = SLOW.as_secs();
        self.complain(format!("the container engine has not answered for {seconds} s")).await;
        act.await
    }

    async fn retry_later(&mut self, error: String) {
        tracing::debug!(task.id = %self.task, error, "will try again");
        self.complain(error).await;
        let pause = self.tools.env.entropy.jitter(self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        tokio::select! {
            biased;
            _ = self.wanted.changed() => {}
            () = self.hint.notified() => {}
            () = self.tools.env.clock.sleep(pause) => {}
        }
        self.seen = Seen::Unknown;
    }

    /// What stood in the way has passed: the task is where it was, without an error.
    async fn clear_error(&mut self) {
        if !self.status.error.is_empty() && !self.status.state.is_terminal() {
            let (state, message) = (self.status.state, self.status.message.clone());
            let status = self.status_now(state, message, String::new());
            self.publish(status).await;
        }
    }

    async fn wait_for(&mut self, blocker: Blocker) {
        let tools = Arc::clone(&self.tools);
        let mut networks = tools.board.networks.subscribe();
        let problem = networks.borrow_and_update().problem.clone();
        if blocker == Blocker::Network && !problem.is_empty() && self.status.error != problem {
            let (state, message) = (self.status.state, self.status.message.clone());
            let status = self.status_now(state, message, problem);
            self.publish(status).await;
        }
        // What is waited for may have come in between: look before each wait.
        let wanted = self.wanted.borrow().clone();
        if self.blocker(&wanted) != Some(blocker) {
            return;
        }
        tokio::select! {
            biased;
            _ = self.wanted.changed() => {}
            _ = networks.changed() => {}
        }
    }

    async fn wait_for_time(&mut self) {
        let now = self.tools.env.clock.instant();
        let rest = self.due_at.map_or(Duration::ZERO, |due| due.since(now));
        tokio::select! {
            biased;
            _ = self.wanted.changed() => {}
            () = self.tools.env.clock.sleep(rest) => {}
        }
    }

    async fn wait_for_event(&mut self) -> Flow {
        tokio::select! {
            biased;
            changed = self.wanted.changed() => {
                if changed.is_err() {
                    return Flow::Over;
                }
            }
            () = self.hint.notified() => self.seen = Seen::Unknown,
        }
        Flow::On
    }
}

/// The network is not ready.
struct Unready;

impl Materials {
    /// The cluster network that the task joins; `None` for one of the engine's own.
    pub(super) fn network(&self) -> Option<crate::domain::NetworkId> {
        match spec::engine_network(&self.spec) {
            Some(_) => None,
            None => self.task.addresses.first().map(|address| address.network),
        }
    }
}
