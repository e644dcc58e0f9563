//! The socket: listening on it, and one routine per connection. What requests mean: `router`.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::context::Ctx;
use super::router::Api;
use super::{Deps, Settings};
use crate::env::{Clock, Scope, Seldom};

/// Most connections at a time. An attached client holds one; beyond this, clients wait in the
/// socket's backlog.
const CONNECTIONS_MAX: usize = 4096;

/// After a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most connections at a time of those who watch over TCP: some Prometheus servers and load balancers.
const WATCHERS_MAX: usize = 64;
/// How long each may stay; a scraper that keeps its connection makes another one.
const WATCHER_LIMIT: Duration = Duration::from_secs(60);

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers on the socket.
    #[error(
        "{} is in use: another daemon serves it; stop that one first, or choose another socket",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else at the path.
    #[error("{} exists and is not a socket; remove it, or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// There is no such group.
    #[error("the group {name:?} for the API's socket does not exist; create it, or name another")]
    NoSuchGroup {
        /// Its name.
        name: String,
    },
    /// The address for numbers cannot be had.
    #[error("cannot serve metrics on {addr} (metrics-addr): is the address this host's, and free?")]
    Metrics {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The API without a socket: a function from requests to answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local {
    api: Api,
}

impl Local {
    /// Starts what runs beside requests; it ends with the scope.
    #[must_use]
    pub fn new(deps: Deps, scope: &Scope) -> Self {
        Self { api: Api::new(Ctx::start(deps, scope.child("api"))) }
    }

    /// Answers a request.
    pub async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        self.api.answer(request).await
    }
}

/// A running API. Its socket file goes with it.
#[derive(Debug)]
pub struct Handle {
    scope: Scope,
    socket: PathBuf,
}

impl Handle {
    /// Stops accepting, ends open connections and removes the socket file.
    pub async fn shutdown(self, limit: Duration) {
        if let Err(error) = tokio::fs::remove_file(&self.socket).await {
            tracing::debug!(%error, socket = %self.socket.display(), "socket file not removed");
        }
        if !self.scope.shutdown(limit).await {
            tracing::warn!("connections of the API did not end in time");
        }
    }
}

/// Serves the API on a Unix socket until the scope ends.
///
/// # Errors
/// When the socket cannot be had; the text says what to do.
pub async fn serve(settings: Settings, deps: Deps, scope: &Scope) -> Result<Handle, ServeError> {
    let listener = listen(&settings).await?;
    let scope = scope.child("api");
    let clock = Arc::clone(&deps.env.clock);
    let ctx = Ctx::start(deps, scope.clone());
    if let Some(addr) = settings.metrics {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|source| ServeError::Metrics { addr, source })?;
        let api = Api::to_watch(ctx.clone());
        scope.spawn("metrics", accept_watchers(listener, api, Arc::clone(&clock), scope.clone()));
        tracing::info!(%addr, "metrics and health are served");
    }
    let api = Api::new(ctx);
    scope.spawn("accept", accept(listener, api, clock, scope.clone()));
    tracing::info!(socket = %settings.socket.display(), "the API listens");
    Ok(Handle { scope, socket: settings.socket })
}

async fn listen(settings: &Settings) -> Result<UnixListener, ServeError> {
    let path = &settings.socket;
    let io_error = |source| ServeError::Io { path: path.clone(), source };
    refuse_if_taken(path).await?;
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await.map_err(io_error)?;
    }
    // Made aside with its final rights and then moved into place, so that nobody can connect before
    // and a stale file is replaced at one stroke.
    let mut aside = path.clone().into_os_string();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    remove_if_there(&aside).map_err(io_error)?;
    let listener = UnixListener::bind(&aside).map_err(io_error)?;
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o660)).map_err(io_error)?;
    if let Some(name) = &settings.group {
        let group = nix::unistd::Group::from_name(name)
            .map_err(|errno| io_error(errno.into()))?
            .ok_or_else(|| ServeError::NoSuchGroup { name: name.clone() })?;
        chown(&aside, None, Some(group.gid.as_raw())).map_err(io_error)?;
    }
    std::fs::rename(&aside, path).map_err(io_error)?;
    Ok(listener)
}

async fn refuse_if_taken(path: &Path) -> Result<(), ServeError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ServeError::Io { path: path.to_owned(), source }),
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn accept(listener: UnixListener, api: Api, clock: Arc<dyn Clock>, scope: Scope) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut failures = Seldom::default();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let api = api.clone();
                scope.spawn("connection", async move {
                    connection(stream, api).await;
                    drop(place);
                });
            }
            Err(error) => {
                if let Some(times) = failures.again(clock.instant()) {
                    tracing::warn!(%error, times, "connections to the API could not be accepted");
                }
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves those who watch: anybody who reaches the address, so their number and their time are small.
async fn accept_watchers(listener: TcpListener, api: Api, clock: Arc<dyn Clock>, scope: Scope) {
    let places = Arc::new(Semaphore::new(WATCHERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (api, clock) = (api.clone(), Arc::clone(&clock));
                scope.spawn("watcher", async move {
                    let served = clock.timeout(WATCHER_LIMIT, connection(stream, api)).await;
                    if served.is_err() {
                        tracing::debug!("a connection for metrics was open for too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<S>(stream: S, api: Api)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(api.answer(request.map(Body::new)).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the API ended");
    }
}
