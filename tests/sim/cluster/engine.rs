//! The engine of a simulated machine: the model, as the agent meets it on a bad day. It outlives the
//! agent's process; calls take time, hang, fail, or are carried out and their answer is lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use swarm::domain::container::RegistryAuth;
use swarm::domain::node::Description;
use swarm::domain::{Network, TaskId};
use swarm::env::Env;
use swarm::runtime::model::{ModelRuntime, Up};
use swarm::runtime::{
    Container, ContainerPlan, Error, Health, Hint, LogLine, LogOptions, NetworkPlan, Phase,
    Runtime, SwarmMode,
};
use tokio::sync::mpsc;

use crate::chance::Chance;

/// Between two looks of a call that hangs.
const LOOK: Duration = Duration::from_millis(100);

/// What was done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It began to run.
    Started(TaskId),
    /// It ran, was well as far as the engine knew, and was told to stop.
    Stopped(TaskId),
}

/// How the engine behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mood {
    pub(crate) hangs: bool,
    /// Least and longest time of a call, in milliseconds.
    pub(crate) takes: (u64, u64),
    /// Of a thousand calls, how many are refused, and how many are carried out without an answer.
    pub(crate) refuses: u64,
    pub(crate) loses: u64,
}

impl Mood {
    pub(crate) const GOOD: Self = Self { hangs: false, takes: (1, 40), refuses: 0, loses: 0 };
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    chance: Chance,
    deeds: Vec<Deed>,
}

/// The engine of a machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) model: Arc<ModelRuntime>,
    inner: Arc<Mutex<Inner>>,
}

/// The images that can be pulled.
pub(crate) const IMAGES: [&str; 2] = ["web:1", "web:2"];

impl Engine {
    pub(crate) fn new(chance: Chance) -> Self {
        let model = ModelRuntime::new();
        IMAGES.iter().for_each(|image| model.publish_image(image));
        let inner = Inner { mood: Mood::GOOD, chance, deeds: Vec::new() };
        Self { model: Arc::new(model), inner: Arc::new(Mutex::new(inner)) }
    }

    pub(crate) fn set_mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut self.inner.lock().unwrap().mood);
    }

    pub(crate) fn heal(&self) {
        self.set_mood(|mood| *mood = Mood::GOOD);
        self.model.set_up(Up::Answers);
        self.model.set_events(Up::Answers);
    }

    pub(crate) fn take_deeds(&self) -> Vec<Deed> {
        std::mem::take(&mut self.inner.lock().unwrap().deeds)
    }

    /// The containers that run.
    pub(crate) fn running(&self) -> Vec<Container> {
        let mut all = self.model.containers();
        all.retain(|it| matches!(it.phase, Phase::Running(_)));
        all
    }

    /// Health checks pass after a while.
    pub(crate) fn check_health(&self) {
        for container in self.running() {
            let passes = self.inner.lock().unwrap().chance.permille(300);
            if container.phase == Phase::Running(Health::Starting) && passes {
                self.model.set_health(container.task, Health::Healthy);
            }
        }
    }

    /// The engine for a process.
    pub(crate) fn runtime(&self, env: &Env) -> Arc<dyn Runtime> {
        Arc::new(Client { engine: self.clone(), env: env.clone() })
    }
}

/// An agent's connection to the engine.
#[derive(Debug)]
struct Client {
    engine: Engine,
    env: Env,
}

/// Whether the answer comes back.
#[derive(Clone, Copy)]
enum Answer {
    Comes,
    IsLost,
}

impl Client {
    async fn turn(&self) -> Result<Answer, Error> {
        let takes = {
            let mut inner = self.engine.inner.lock().unwrap();
            let (least, most) = inner.mood.takes;
            inner.chance.millis(least, most)
        };
        self.env.clock.sleep(takes).await;
        while self.engine.inner.lock().unwrap().mood.hangs {
            self.env.clock.sleep(LOOK).await;
        }
        let mut inner = self.engine.inner.lock().unwrap();
        let fate = inner.chance.below(1_000);
        if fate < inner.mood.refuses {
            return Err(Error::Transient("the engine is not well".to_owned()));
        }
        let is_lost = fate < inner.mood.refuses + inner.mood.loses;
        Ok(if is_lost { Answer::IsLost } else { Answer::Comes })
    }

    fn did(&self, deed: Deed) {
        self.engine.inner.lock().unwrap().deeds.push(deed);
    }

    fn phase(&self, task: TaskId) -> Option<Phase> {
        self.engine.model.containers().iter().find(|it| it.task == task).map(|it| it.phase)
    }
}

fn lost<T>(answer: Answer, done: Result<T, Error>) -> Result<T, Error> {
    match answer {
        Answer::Comes => done,
        Answer::IsLost => Err(Error::Unreachable("the engine closed the connection".to_owned())),
    }
}

#[async_trait]
impl Runtime for Client {
    async fn describe(&self) -> Result<Description, Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.describe().await)
    }

    async fn swarm_mode(&self) -> Result<SwarmMode, Error> {
        self.engine.model.swarm_mode().await
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.list().await)
    }

    async fn inspect(&self, task: TaskId) -> Result<Container, Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.inspect(task).await)
    }

    async fn pull(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        limit: Duration,
    ) -> Result<(), Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.pull(image, auth, limit).await)
    }

    async fn ensure_network(&self, network: &Network, plan: &NetworkPlan) -> Result<(), Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.ensure_network(network, plan).await)
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.remove_network(name).await)
    }

    async fn create(&self, plan: &ContainerPlan) -> Result<String, Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.create(plan).await)
    }

    async fn start(&self, task: TaskId) -> Result<(), Error> {
        let answer = self.turn().await?;
        let is_running = matches!(self.phase(task), Some(Phase::Running(_)));
        let started = self.engine.model.start(task).await;
        if started.is_ok() && !is_running {
            self.did(Deed::Started(task));
        }
        lost(answer, started)
    }

    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), Error> {
        let answer = self.turn().await?;
        let was = self.phase(task);
        let stopped = self.engine.model.stop(task, grace).await;
        let was_well = matches!(was, Some(Phase::Running(health)) if health != Health::Unhealthy);
        if stopped.is_ok() && was_well {
            self.did(Deed::Stopped(task));
        }
        lost(answer, stopped)
    }

    async fn remove(&self, task: TaskId) -> Result<(), Error> {
        let answer = self.turn().await?;
        lost(answer, self.engine.model.remove(task).await)
    }

    fn watch(self: Arc<Self>) -> mpsc::Receiver<Hint> {
        Arc::clone(&self.engine.model).watch()
    }

    async fn logs(
        &self,
        task: TaskId,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogLine>, Error> {
        self.engine.model.logs(task, options).await
    }
}
