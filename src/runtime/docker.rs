//! The Docker Engine behind [`Runtime`], through bollard.
//!
//! Every request has a deadline of its own, so a hung engine never hangs the agent; the connection is
//! made (and the API version negotiated) when it is first needed and again after it was lost, so the
//! node runs without an engine and finds it when it comes. Containers are found by label, never by a
//! name that was only remembered. What to do is decided by the agent, not here.

mod former;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerSummary, NetworkInspect};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::{
    Container, ContainerPlan, Error, Hint, LogLine, LogOptions, NetworkPlan, Runtime, SwarmMode,
    platform, pull, spec, stream,
};
use crate::domain::container::RegistryAuth;
use crate::domain::node::{Description, Platform};
use crate::domain::{Network, NodeId, TaskId};
use crate::env::{Env, Scope};

/// For questions that the engine answers from memory.
const QUICK: Duration = Duration::from_secs(10);
/// For what touches disks, cgroups and namespaces of a busy machine.
const SLOW: Duration = Duration::from_secs(90);
/// bollard's own limit, in seconds; ours are shorter, so that it never strikes first.
const BOLLARD_LIMIT: u64 = 24 * 3600;
/// Containers looked at side by side when all are listed.
const INSPECTS: usize = 8;

/// Where the engine is and who asks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The engine's socket.
    pub socket: PathBuf,
    /// This node: containers of other nodes on the same engine are not ours.
    pub node: NodeId,
}

/// The engine of this node.
#[derive(Debug)]
pub struct DockerRuntime {
    pub(super) settings: Settings,
    pub(super) env: Env,
    pub(super) scope: Scope,
    client: Mutex<Option<Docker>>,
    /// The engine's ids of containers, a shortcut; the labels are the truth.
    ids: Mutex<BTreeMap<TaskId, String>>,
}

/// Makes the runtime. It does not connect: the engine may come later.
#[must_use]
pub fn start(settings: Settings, env: Env, scope: &Scope) -> Arc<DockerRuntime> {
    Arc::new(DockerRuntime {
        settings,
        env,
        scope: scope.child("engine"),
        client: Mutex::new(None),
        ids: Mutex::new(BTreeMap::new()),
    })
}

/// Which act an error belongs to: the same text weighs differently.
pub(super) use crate::env::EngineAct as Act;

impl DockerRuntime {
    /// The connection, made and negotiated if there is none.
    pub(super) async fn client(&self) -> Result<Docker, Error> {
        if let Some(client) = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(client);
        }
        let path = self.settings.socket.display().to_string();
        let unreachable =
            |reason: String| Error::Unreachable(format!("no container engine at {path}: {reason}"));
        let docker = Docker::connect_with_unix(&path, BOLLARD_LIMIT, API_DEFAULT_VERSION)
            .map_err(|error| unreachable(cause(&error)))?;
        let docker = match self.env.clock.timeout(QUICK, docker.negotiate_version()).await {
            Ok(Ok(docker)) => docker,
            Ok(Err(error)) => return Err(unreachable(cause(&error))),
            Err(_) => return Err(unreachable(format!("no answer within {QUICK:?}"))),
        };
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(docker.clone());
        Ok(docker)
    }

    /// Forgets the connection, so that the next request negotiates again (the engine may be another).
    pub(super) fn disconnect(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One request with a deadline.
    async fn call<T, F, A>(&self, act: Act, limit: Duration, request: A) -> Result<T, Error>
    where
        A: FnOnce(Docker) -> F + Send,
        F: Future<Output = Result<T, EngineError>> + Send,
    {
        let (meters, began) = (&self.env.meters, self.env.clock.instant());
        let docker = self.client().await.inspect_err(|_| meters.engine_errors.of(act).up())?;
        let answer = self.env.clock.timeout(limit, request(docker)).await;
        meters.engine.of(act).took(self.env.clock.instant().since(began));
        let error = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => classify(&error, act),
            Err(_) => Error::Unreachable(format!(
                "the container engine did not answer within {} s",
                limit.as_secs()
            )),
        };
        if matches!(error, Error::Unreachable(_)) {
            self.disconnect();
        }
        if matches!(error, Error::Unreachable(_) | Error::Transient(_)) {
            meters.engine_errors.of(act).up();
        }
        Err(error)
    }

    /// The engine's id of a task's container.
    async fn id(&self, task: TaskId) -> Result<String, Error> {
        let known = self.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&task).cloned();
        match known {
            Some(id) => Ok(id),
            None => self.find(task).await,
        }
    }

    async fn find(&self, task: TaskId) -> Result<String, Error> {
        let label = format!("{}={task}", spec::LABEL_TASK);
        let ids = self.ids_with(label).await?;
        let id = ids.into_iter().next().ok_or(Error::Missing)?;
        self.remember(task, &id);
        Ok(id)
    }

    fn remember(&self, task: TaskId, id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(task, id.to_owned());
    }

    fn forget(&self, task: TaskId) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }

    /// The engine's ids of our containers with a label.
    async fn ids_with(&self, label: String) -> Result<Vec<String>, Error> {
        let own = format!("{}={}", spec::LABEL_NODE, self.settings.node);
        let list = self.containers([("label", vec![own, label])]).await?;
        Ok(list.into_iter().filter_map(|container| container.id).collect())
    }

    /// Containers that pass all filters, running or not.
    async fn containers<const N: usize>(
        &self,
        filters: [(&'static str, Vec<String>); N],
    ) -> Result<Vec<ContainerSummary>, Error> {
        let filters = filters.into_iter().collect();
        let options =
            query::ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.call(
            Act::Ask,
            QUICK,
            |docker| async move { docker.list_containers(Some(options)).await },
        )
        .await
    }

    async fn look(&self, id: String) -> Result<Option<Container>, Error> {
        let found =
            self.call(Act::Ask, QUICK, |docker| async move {
                docker.inspect_container(&id, None).await
            })
            .await?;
        let container = super::docker_models::container(found);
        if let Some(container) = &container {
            self.remember(container.task, &container.id);
        }
        Ok(container)
    }

    /// An act on a task's container; an id that is no longer true is looked up again, once.
    async fn act<T, F, A>(&self, task: TaskId, request: A) -> Result<T, Error>
    where
        A: Fn(String) -> F + Send + Sync,
        F: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        match request(self.id(task).await?).await {
            Err(Error::Missing) => {
                self.forget(task);
                request(self.find(task).await?).await
            }
            other => other,
        }
    }

    /// Why the image of a plan cannot run here, if it cannot.
    async fn wrong_platform(&self, plan: &ContainerPlan) -> Result<Option<String>, Error> {
        let name = plan.spec.task_template.container_spec.image.clone();
        let asked = name.clone();
        let image = self
            .call(Act::Ask, QUICK, |docker| async move { docker.inspect_image(&asked).await })
            .await?;
        let handlers = self.scope.blocking(platform::handlers).await.unwrap_or_default();
        let of = Platform {
            architecture: image.architecture.unwrap_or_default(),
            os: image.os.unwrap_or_default(),
        };
        Ok(platform::problem(&name, &of, &plan.node.platform, &handlers))
    }

    async fn inspect_network(&self, name: &str) -> Result<NetworkInspect, Error> {
        let name = name.to_owned();
        self.call(
            Act::Network,
            QUICK,
            |docker| async move { docker.inspect_network(&name, None).await },
        )
        .await
    }

    async fn has_image(&self, image: &str) -> Result<bool, Error> {
        let name = image.to_owned();
        let found = self
            .call(Act::Ask, QUICK, |docker| async move { docker.inspect_image(&name).await })
            .await;
        match found {
            Ok(_) => Ok(true),
            Err(Error::NoImage(_) | Error::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    async fn describe(&self) -> Result<Description, Error> {
        let info = self.call(Act::Ask, QUICK, |docker| async move { docker.info().await }).await?;
        Ok(super::docker_models::description(info))
    }

    async fn swarm_mode(&self) -> Result<SwarmMode, Error> {
        let info = self.call(Act::Ask, QUICK, |docker| async move { docker.info().await }).await?;
        Ok(super::docker_models::swarm_mode(&info))
    }

    async fn list(&self) -> Result<Vec<Container>, Error> {
        let ids = self.ids_with(spec::LABEL_TASK.to_owned()).await?;
        let looks: Vec<_> = futures::stream::iter(ids.into_iter().map(|id| self.look(id)))
            .buffer_unordered(INSPECTS)
            .collect()
            .await;
        let mut containers = Vec::with_capacity(looks.len());
        for look in looks {
            match look {
                Ok(container) => containers.extend(container),
                // Removed between the list and the look.
                Err(Error::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by_key(|container| container.task);
        Ok(containers)
    }

    async fn inspect(&self, task: TaskId) -> Result<Container, Error> {
        self.act(task, |id| self.look(id)).await?.ok_or(Error::Missing)
    }

    async fn pull(
        &self,
        image: &str,
        auth: Option<&RegistryAuth>,
        limit: Duration,
    ) -> Result<(), Error> {
        if self.has_image(image).await? {
            return Ok(());
        }
        let failed = |reason: &str| {
            Error::Permanent(format!("No such image: {image} (could not be pulled: {reason})"))
        };
        let pulling = pull::pull(&self.settings.socket, &self.scope, image, auth);
        match self.env.clock.timeout(limit, pulling).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(unreachable @ Error::Unreachable(_))) => {
                self.disconnect();
                Err(unreachable)
            }
            Ok(Err(other)) => Err(failed(&other.to_string())),
            Err(_) => Err(failed(&format!("not done within {} s", limit.as_secs()))),
        }
    }

    async fn ensure_network(&self, network: &Network, plan: &NetworkPlan) -> Result<(), Error> {
        let found = match self.inspect_network(&plan.name).await {
            Ok(found) if found.containers.as_ref().is_some_and(|all| !all.is_empty()) => {
                self.end_former(&plan.name).await?;
                self.inspect_network(&plan.name).await
            }
            found => found,
        };
        match found {
            Ok(found) => match super::docker_models::judge(&found, network, plan)? {
                super::docker_models::Verdict::AsWanted => return Ok(()),
                super::docker_models::Verdict::Replace => self.remove_network(&plan.name).await?,
            },
            Err(Error::Missing) => {}
            Err(error) => return Err(error),
        }
        let body = super::docker_models::network_body(network, plan);
        let created = self
            .call(Act::Network, SLOW, |docker| async move { docker.create_network(body).await })
            .await;
        created.map(|_| ())
    }

    async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        let removed = self
            .call(Act::Network, SLOW, |docker| async move { docker.remove_network(&name).await })
            .await;
        match removed {
            Ok(()) | Err(Error::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, plan: &ContainerPlan) -> Result<String, Error> {
        let task = plan.task.id;
        let body = spec::create_body(plan)?;
        let name = spec::container_name(plan);
        let options = query::CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self
            .call(Act::Create, SLOW, |docker| async move {
                docker.create_container(Some(options), body).await
            })
            .await;
        match created {
            Ok(created) => {
                self.remember(task, &created.id);
                if platform::is_doubted(&created.warnings)
                    && let Some(problem) = self.wrong_platform(plan).await?
                {
                    self.remove(task).await?;
                    return Err(Error::Permanent(problem));
                }
                Ok(created.id)
            }
            // The name is taken: by our own earlier create, if the label says so.
            Err(Error::Transient(reason)) if reason.contains("is already in use by container") => {
                match self.find(task).await {
                    Ok(id) => Ok(id),
                    Err(Error::Missing) => Err(Error::Permanent(reason)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn start(&self, task: TaskId) -> Result<(), Error> {
        self.act(task, |id| {
            self.call(
                Act::Start,
                SLOW,
                |docker| async move { docker.start_container(&id, None).await },
            )
        })
        .await
    }

    async fn stop(&self, task: TaskId, grace: Duration) -> Result<(), Error> {
        // The engine takes whole seconds; the deadline leaves time for SIGKILL to take effect.
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let stopped = self
            .act(task, |id| {
                let options = query::StopContainerOptionsBuilder::default().t(seconds).build();
                self.call(Act::End, grace.saturating_add(SLOW), |docker| async move {
                    docker.stop_container(&id, Some(options)).await
                })
            })
            .await;
        match stopped {
            Ok(()) | Err(Error::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, task: TaskId) -> Result<(), Error> {
        let removed = self
            .act(task, |id| {
                let options =
                    query::RemoveContainerOptionsBuilder::default().v(true).force(true).build();
                self.call(Act::End, SLOW, |docker| async move {
                    docker.remove_container(&id, Some(options)).await
                })
            })
            .await;
        self.forget(task);
        match removed {
            Ok(()) | Err(Error::Missing) => Ok(()),
            Err(Error::Transient(reason)) if reason.contains("already in progress") => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watch(self: Arc<Self>) -> mpsc::Receiver<Hint> {
        stream::watch(self)
    }

    async fn logs(
        &self,
        task: TaskId,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<LogLine>, Error> {
        let container = self.inspect(task).await?;
        let docker = self.client().await?;
        Ok(stream::logs(&self.scope, &docker, &container.id, options))
    }
}

/// What is at the bottom of an error: the layers above it only say that something failed.
fn cause(error: &EngineError) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What an error of the engine means for the task.
pub(super) fn classify(error: &EngineError, act: Act) -> Error {
    match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            classify_answer(*status_code, message, act)
        }
        EngineError::DockerStreamError { error } => Error::Permanent(error.clone()),
        EngineError::JsonDataError { .. } | EngineError::JsonSerdeError { .. } => {
            Error::Transient(format!("the container engine's answer is not understood: {error}"))
        }
        other => {
            let cause = cause(other);
            Error::Unreachable(format!("the container engine cannot be reached: {cause}"))
        }
    }
}

pub(super) fn classify_answer(status: u16, message: &str, act: Act) -> Error {
    let text = message.trim().to_owned();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match status {
        404 if message.to_lowercase().contains("no such image") => Error::NoImage(text),
        404 if act == Act::Network || has(&["No such container"]) => Error::Missing,
        // A network that vanished is made again by the next attempt.
        404 => Error::Transient(text),
        409 if act == Act::Network => Error::Transient(text),
        409 | 503 => Error::Transient(text),
        _ if has(&["port is already allocated"]) => Error::PortInUse(text),
        _ if has(&["bind: address already in use"]) => Error::PortInUse(text),
        _ if has(&[
            "Address already in use",
            "has active endpoints",
            "network sandbox",
            "could not find a network",
            "context deadline exceeded",
            "connection refused",
            "transport is closing",
            "device or resource busy",
        ]) =>
        {
            Error::Transient(text)
        }
        _ if matches!(act, Act::Ask | Act::End) && status >= 500 => Error::Transient(text),
        _ => Error::Permanent(text),
    }
}

#[cfg(test)]
mod tests;
