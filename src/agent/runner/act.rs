//! What a runner does to the engine and to files; what an error means is weighed in `runner`.

use std::sync::Arc;
use std::time::Duration;

use super::{Runner, UNHEALTHY};
use crate::agent::step::Seen;
use crate::agent::worker::Wanted;
use crate::domain::TaskState;
use crate::env::{Env, Point};
use crate::runtime::{Container, ContainerPlan, Error, NodeFacts, Phase};

/// A pull that takes longer has failed; the manager tries again, perhaps elsewhere.
const PULL_LIMIT: Duration = Duration::from_secs(15 * 60);
/// From the stop signal to SIGKILL where no spec says it.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

impl Runner {
    pub(super) async fn look(&mut self) {
        let found = {
            let _permit = self.tools.acts.acquire().await;
            self.tools.runtime.inspect(self.task).await
        };
        match found {
            Ok(container) => {
                if self.container.is_none() && self.seen == Seen::Unknown {
                    self.pass(Point::AgentAdopt).await;
                }
                self.seen = Seen::Present(container.phase);
                self.container = Some(container);
                self.clear_error().await;
            }
            Err(Error::Missing) => {
                self.seen = Seen::Absent;
                self.container = None;
            }
            Err(error) => self.trouble(error).await,
        }
    }

    pub(super) async fn write_files(&mut self, wanted: &Wanted) {
        let Some(materials) = wanted.materials.clone() else { return };
        let Ok(network) = self.network(&materials) else { return };
        let (files, plan) = (self.tools.files.clone(), network.clone());
        let written =
            self.tools.scope.blocking(move || files.write(&materials, plan.as_ref())).await;
        match written {
            Some(Ok(())) => self.files = Some(network),
            Some(Err(error)) => {
                let dir = self.tools.files.base().display();
                let text = format!("cannot write the files of the task below {dir}: {error}");
                self.trouble(Error::Transient(text)).await;
            }
            None => self.trouble(Error::Transient("cannot write files".to_owned())).await,
        }
    }

    pub(super) async fn pull(&mut self, wanted: &Wanted) {
        let Some(materials) = &wanted.materials else { return };
        let container = &materials.spec.task_template.container_spec;
        let (image, auth) = (&container.image, container.registry_auth());
        self.pulls += 1;
        let tools = Arc::clone(&self.tools);
        let pulled = tokio::select! {
            biased;
            _ = self.wanted.changed() => return,
            pulled = tools.runtime.pull(image, auth, PULL_LIMIT) => pulled,
        };
        match pulled {
            Ok(()) => self.image_missing = false,
            Err(error) => self.trouble(error).await,
        }
    }

    pub(super) async fn create(&mut self, wanted: &Wanted) {
        let Some(materials) = &wanted.materials else { return };
        let Ok(network) = self.network(materials) else { return };
        let description = self.tools.board.description.borrow().clone();
        let description =
            description.unwrap_or_else(|| crate::agent::describe::machine(&self.tools.env));
        let plan = ContainerPlan {
            task: Arc::clone(&materials.task),
            spec: Arc::clone(&materials.spec),
            node: NodeFacts {
                id: self.tools.node,
                hostname: description.hostname,
                platform: description.platform,
            },
            network,
            files_dir: self.tools.files.dir(self.task),
        };
        let tools = Arc::clone(&self.tools);
        if let Err(error) = self.permit(&plan).await {
            return self.trouble(error).await;
        }
        self.pass(Point::AgentBeforeCreate).await;
        let created = {
            let _permit = tools.starts.acquire().await;
            self.attend(tools.runtime.create(&plan)).await
        };
        match created {
            Ok(id) => {
                self.pass(Point::AgentAfterCreate).await;
                self.seen = Seen::Present(Phase::Created);
                self.container = Some(Container {
                    id,
                    task: self.task,
                    phase: Phase::Created,
                    pid: 0,
                    ports: Vec::new(),
                });
                self.progressed();
            }
            Err(Error::NoImage(text)) if self.pulls >= 2 => {
                self.trouble(Error::Permanent(text)).await;
            }
            Err(Error::NoImage(_)) => self.image_missing = true,
            Err(error) => self.trouble(error).await,
        }
    }

    /// Whether this node lets the container be made.
    async fn permit(&self, plan: &ContainerPlan) -> Result<(), Error> {
        let (guard, plan) = (self.tools.guard.clone(), plan.clone());
        let checked = self.tools.scope.blocking(move || guard.check(&plan)).await;
        let stopped = || Error::Transient("the mounts of the task were not checked".to_owned());
        checked.ok_or_else(stopped)?.map_err(Error::Permanent)
    }

    pub(super) async fn start(&mut self) {
        let (tools, task) = (Arc::clone(&self.tools), self.task);
        let started = {
            let _permit = tools.starts.acquire().await;
            self.attend(tools.runtime.start(task)).await
        };
        match started {
            Ok(()) => {
                self.pass(Point::AgentAfterStart).await;
                self.seen = Seen::Unknown;
                self.progressed();
            }
            Err(Error::Permanent(text)) => {
                self.trouble(Error::Permanent(format!("starting container failed: {text}"))).await;
            }
            Err(error) => self.trouble(error).await,
        }
    }

    pub(super) async fn stop(&mut self, wanted: &Wanted) {
        let stopped = {
            let _permit = self.tools.acts.acquire().await;
            self.tools.runtime.stop(self.task, grace(wanted)).await
        };
        match stopped {
            Ok(()) => self.seen = Seen::Unknown,
            Err(error) => self.trouble(error).await,
        }
    }

    pub(super) async fn stop_unhealthy(&mut self, wanted: &Wanted) {
        self.tools.board.set_local(self.task, Some(false));
        if let Err(error) = self.tools.runtime.stop(self.task, grace(wanted)).await {
            return self.trouble(error).await;
        }
        match self.tools.runtime.inspect(self.task).await {
            Ok(container) => {
                let phase = container.phase;
                self.seen = Seen::Present(phase);
                self.container = Some(container);
                match phase {
                    Phase::Exited { code, .. } => self.ended(code, Some(UNHEALTHY)).await,
                    Phase::Created | Phase::Running(_) => {}
                }
            }
            Err(Error::Missing) => {
                self.seen = Seen::Absent;
                self.finish(TaskState::Failed, UNHEALTHY.to_owned()).await;
            }
            Err(error) => self.trouble(error).await,
        }
    }

    pub(super) async fn remove(&mut self) {
        let removed = {
            let _permit = self.tools.acts.acquire().await;
            self.tools.runtime.remove(self.task).await
        };
        match removed {
            Ok(()) => {
                self.pass(Point::AgentAfterRemove).await;
                self.seen = Seen::Absent;
                self.container = None;
                self.remove_files().await;
            }
            Err(error) => self.trouble(error).await,
        }
    }

    async fn pass(&self, point: Point) {
        let Env { faults, clock, .. } = &self.tools.env;
        faults.pass(point, &**clock).await;
    }

    pub(super) async fn remove_files(&mut self) {
        let (files, task) = (self.tools.files.clone(), self.task);
        let removed = self.tools.scope.blocking(move || files.remove(task)).await;
        if let Some(Err(error)) = removed {
            tracing::warn!(task.id = %task, %error, "the files of a task cannot be removed");
        }
        self.files = None;
    }
}

fn grace(wanted: &Wanted) -> Duration {
    wanted.materials.as_ref().map_or(GRACE_DEFAULT, |all| all.spec.stop_grace().duration())
}
