//! An engine in memory that keeps the rules of [`Runtime`]: for tests and simulations of the agent.
//!
//! It reads what a container would do from the spec: arguments that end in `exit N` (or are `true` or
//! `false`) end at once, everything else runs until it is stopped. What no spec says (an image that
//! cannot be pulled, an engine that hangs, health) is set by the test. A contract test holds it and
//! the real engine to the same behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{
    Container, ContainerPlan, Error, Health, Hint, LogLine, LogOptions, NetworkPlan, Phase,
    Runtime, SwarmMode, spec,
};
use crate::domain::container::RegistryAuth;
use crate::domain::node::{Description, Platform};
use crate::domain::resources::Resources;
use crate::domain::{Network, TaskId};

/// Hints that may wait.
const HINTS: usize = 256;

/// An engine in memory.
#[derive(Debug)]
pub struct ModelRuntime {
    inner: Mutex<Inner>,
    up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    containers: BTreeMap<TaskId, Entry>,
    networks: BTreeMap<String, NetworkPlan>,
    images: BTreeSet<String>,
    /// What can be pulled, and the credentials that it takes.
    registry: BTreeMap<String, Option<RegistryAuth>>,
    foreign_ports: BTreeSet<u16>,
    hints: Vec<mpsc::Sender<Hint>>,
    /// Hints reach nobody.
    is_mute: bool,
    calls: Vec<Call>,
    descriptions: usize,
    pids: i64,
}

#[derive(Debug)]
struct Entry {
    container: Container,
    plan: ContainerPlan,
}

/// An act that was asked of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// An image was fetched.
    Pull(String),
    /// A container was made.
    Create(TaskId),
    /// A container was started.
    Start(TaskId),
    /// A container was stopped.
    Stop(TaskId),
    /// A container was removed.
    Remove(TaskId),
}

impl Default for ModelRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelRuntime {
    /// An engine that is up and has the image `busybox:latest`.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            images: BTreeSet::from(["busybox:latest".to_owned()]),
            pids: 1000,
            ..Inner::default()
        };
        Self { inner: Mutex::new(inner), up: watch::Sender::new(true) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine answers (`true`) or every call fails as if nothing listened.
    pub fn set_up(&self, state: Up) {
        self.up.send_replace(state == Up::Answers);
        if state == Up::Answers {
            self.lock().hint(None);
        }
    }

    /// How often the engine was asked to describe itself, which is dear for a real one.
    #[must_use]
    pub fn descriptions(&self) -> usize {
        self.lock().descriptions
    }

    /// Makes an image available for pulls.
    pub fn publish_image(&self, image: &str) {
        self.lock().registry.insert(image.to_owned(), None);
    }

    /// Makes an image available for pulls with these credentials only.
    pub fn publish_private_image(&self, image: &str, auth: RegistryAuth) {
        self.lock().registry.insert(image.to_owned(), Some(auth));
    }

    /// A listener that is not ours takes a port of the host.
    pub fn take_port(&self, port: u16) {
        self.lock().foreign_ports.insert(port);
    }

    /// A container's process ends by itself.
    pub fn exit(&self, task: TaskId, code: i64) {
        self.lock().exit(task, code);
    }

    /// The kernel ends a container's process for want of memory.
    pub fn kill_for_memory(&self, task: TaskId) {
        self.lock().end(task, Phase::Exited { code: 137, oom_killed: true });
    }

    /// All containers' processes end: the engine restarts without keeping them, or the machine does.
    pub fn end_all(&self) {
        let mut inner = self.lock();
        let tasks: Vec<_> = inner.containers.keys().copied().collect();
        for task in tasks {
            inner.end(task, Phase::Exited { code: 137, oom_killed: false });
        }
    }

    /// A container is gone, as with the disk that it lay on.
    pub fn forget(&self, task: TaskId) {
        self.lock().containers.remove(&task);
    }

    /// The stream of hints is there (`Answers`), or hints are lost and nobody knows; when it is there
    /// again its readers are told to look at everything.
    pub fn set_events(&self, state: Up) {
        let mut inner = self.lock();
        inner.is_mute = state == Up::Down;
        if state == Up::Answers {
            inner.hint(None);
        }
    }

    /// All containers, whether or not the engine answers.
    #[must_use]
    pub fn containers(&self) -> Vec<Container> {
        self.lock().containers.values().map(|entry| entry.container.clone()).collect()
    }

    /// A container's health is found out.
    pub fn set_health(&self, task: TaskId, health: Health) {
        let mut inner = self.lock();
        if let Some(entry) = inner.containers.get_mut(&task)
            && let Phase::Running(_) = entry.container.phase
        {
            entry.container.phase = Phase::Running(health);
        }
        inner.hint(Some(task));
    }

    /// Puts a container there that nobody of this process made.
    pub fn plant(&self, plan: &ContainerPlan, phase: Phase) {
        let mut inner = self.lock();
        inner.insert(plan);
        inner.pids += 1;
        let pid = if let Phase::Running(_) = phase { inner.pids } else { 0 };
        if let Some(entry) = inner.containers.get_mut(&plan.task.id) {
            entry.container.phase = phase;
            entry.container.pid = pid;
        }
    }

    /// What was asked so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The engine's networks.
    #[must_use]
    pub fn networks(&self) -> Vec<NetworkPlan> {
        self.lock().networks.values().cloned().collect()
    }

    fn answer(&self) -> Result<(), Error> {
        if *self.up.borrow() {
            Ok(())
        } else {
            Err(Error::Unreachable("the model engine is down".to_owned()))
        }
    }
}

/// Whether the model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Up {
    /// It answers.
    Answers,
    /// Nobody listens.
    Down,
}

impl Inner {
    fn hint(&mut self, hint: Hint) {
        if self.is_mute {
            return;
        }
        // A full queue loses a hint only together with a reader that has many to go.
        self.hints.retain(|hints| {
            !matches!(hints.try_send(hint), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    fn insert(&mut self, plan: &ContainerPlan) {
        let task = plan.task.id;
        let container = Container {
            id: format!("model-{}", task.short()),
            task,
            phase: Phase::Created,
            pid: 0,
            ports: Vec::new(),
        };
        self.containers.insert(task, Entry { container, plan: plan.clone() });
    }

    fn exit(&mut self, task: TaskId, code: i64) {
        self.end(task, Phase::Exited { code, oom_killed: false });
    }

    /// Whether a container that runs on this machine has a port of the host.
    fn has_port(&self, task: TaskId, port: u16) -> bool {
        let is_taken = |entry: &Entry| {
            matches!(entry.container.phase, Phase::Running(_))
                && entry.container.task != task
                && entry.container.ports.iter().any(|it| it.published_port == port)
        };
        self.foreign_ports.contains(&port) || self.containers.values().any(is_taken)
    }

    fn end(&mut self, task: TaskId, how: Phase) {
        if let Some(entry) = self.containers.get_mut(&task)
            && let Phase::Running(_) = entry.container.phase
        {
            entry.container.phase = how;
            entry.container.pid = 0;
        }
        self.hint(Some(task));
    }
}

/// What a container's arguments say it ends with at once, if it does.
fn scripted_exit(plan: &ContainerPlan) -> Option<i64> {
    let last = plan.spec.task_template.container_spec.args.last()?;
    match last.as_str() {
        "true" => Some(0),
        "false" => Some(1),
        other => other.rsplit_once("exit ").and_then(|(_, code)| code.trim().parse().ok()),
    }
}

#[async_trait]
impl Runtime for ModelRuntime {
    async fn swarm_mode(&self) -> Result<SwarmMode, Error> {
        Ok(SwarmMode::Inactive)
    }

    async fn describe(&self) -> Result<Description, Error> {
        self.lock().descriptions += 1;
        self.answer()?;
        Ok(Description {
            hostname: "model".to_owned(),
            platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
            resources: Resources {
                nano_cpus: 4_000_000_000,
                memory_bytes: 8 << 30,
                ..Resources::default()
            },
            ..Description::default()
        })
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        self.answer()?;
        Ok(self.lock().containers.values().map(|entry| entry.container.clone()).collect())
    }

    async fn inspect(&self, task: TaskId) -> Result<Container, Error> {
        self.answer()?;
        let inner = self.lock();
        inner.containers.get(&task).map(|entry| entry.container.clone()).ok_or(Error::Missing)
    }

    async fn pull(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        _limit: Duration,
    ) -> Result<(), Error> {
        self.answer()?;
        let mut inner = self.lock();
        inner.calls.push(Call::Pull(image.to_owned()));
        if inner.images.contains(image) {
            return Ok(());
        }
        let failed = |reason: &str| {
            Error::Permanent(format!("No such image: {image} (could not be pulled: {reason})"))
        };
        match inner.registry.get(image) {
            None => return Err(failed("not found")),
            Some(wanted) if wanted.is_some() && wanted.as_ref() != auth => {
                return Err(failed("unauthorized: authentication required"));
            }
            Some(_) => {}
        }
        inner.images.insert(image.to_owned());
        Ok(())
    }

    async fn ensure_network(&self, _network: &Network, plan: &NetworkPlan) -> Result<(), Error> {
        self.answer()?;
        self.lock().networks.insert(plan.name.clone(), plan.clone());
        Ok(())
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        self.answer()?;
        self.lock().networks.remove(name);
        Ok(())
    }

    async fn create(&self, plan: &ContainerPlan) -> Result<String, Error> {
        self.answer()?;
        let body = spec::create_body(plan)?;
        let mut inner = self.lock();
        inner.calls.push(Call::Create(plan.task.id));
        if let Some(entry) = inner.containers.get(&plan.task.id) {
            return Ok(entry.container.id.clone());
        }
        let image = body.image.unwrap_or_default();
        if !inner.images.contains(&image) {
            return Err(Error::NoImage(format!("No such image: {image}")));
        }
        if let Some(network) = &plan.network
            && !inner.networks.contains_key(&network.name)
        {
            return Err(Error::Transient(format!("network {} not found", network.name)));
        }
        inner.insert(plan);
        Ok(format!("model-{}", plan.task.id.short()))
    }

    async fn start(&self, task: TaskId) -> Result<(), Error> {
        self.answer()?;
        let mut inner = self.lock();
        inner.calls.push(Call::Start(task));
        let entry = inner.containers.get(&task).ok_or(Error::Missing)?;
        if let Phase::Running(_) = entry.container.phase {
            return Ok(());
        }
        let mut ports: Vec<_> = entry.plan.spec.host_ports().cloned().collect();
        if let Some(port) = ports.iter().find(|port| inner.has_port(task, port.published_port)) {
            let port = port.published_port;
            return Err(Error::PortInUse(format!(
                "listen tcp4 0.0.0.0:{port}: bind: address already in use"
            )));
        }
        for port in ports.iter_mut().filter(|port| port.published_port == 0) {
            port.published_port = 32_768 + port.target_port % 1000;
        }
        inner.pids += 1;
        let pid = inner.pids;
        let entry = inner.containers.get_mut(&task).ok_or(Error::Missing)?;
        let check = &entry.plan.spec.task_template.container_spec.healthcheck;
        entry.container.ports = ports;
        entry.container.pid = pid;
        entry.container.phase = Phase::Running(match check {
            Some(_) => Health::Starting,
            None => Health::Unchecked,
        });
        let exit = scripted_exit(&entry.plan);
        inner.hint(Some(task));
        if let Some(code) = exit {
            inner.exit(task, code);
        }
        Ok(())
    }

    async fn stop(&self, task: TaskId, _grace: Duration) -> Result<(), Error> {
        self.answer()?;
        let mut inner = self.lock();
        inner.calls.push(Call::Stop(task));
        inner.exit(task, 137);
        Ok(())
    }

    async fn remove(&self, task: TaskId) -> Result<(), Error> {
        self.answer()?;
        let mut inner = self.lock();
        inner.calls.push(Call::Remove(task));
        inner.containers.remove(&task);
        inner.hint(Some(task));
        Ok(())
    }

    fn watch(self: Arc<Self>) -> mpsc::Receiver<Hint> {
        let (hints, receiver) = mpsc::channel(HINTS);
        let mut inner = self.lock();
        inner.hints.push(hints);
        inner.hint(None);
        drop(inner);
        receiver
    }

    async fn logs(
        &self,
        task: TaskId,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogLine>, Error> {
        let container = self.inspect(task).await?;
        let (lines, receiver) = mpsc::channel(1);
        let data = Bytes::from(format!("output of {}\n", container.id));
        if options.stderr_only != Some(true) {
            // There is room for one line and the receiver is here.
            drop(lines.try_send(LogLine { stderr: false, at: None, data }));
        }
        Ok(receiver)
    }
}
