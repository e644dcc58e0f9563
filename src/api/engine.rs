//! The local Docker Engine: whatever is no business of ours goes there, with streams and upgrades.
//!
//! A connection per request: requests are rare, may stream for ever, and may become raw connections
//! (attach, exec). The version prefix is moved into the range that the engine supports, so that a
//! client and an engine that have no version in common still understand each other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::error::Error;
use super::router::Version;
use crate::env::{Env, Instant, Scope};

/// Longest wait for the engine to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait for a whole answer to a question of our own.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);
/// How long the engine's range of versions is remembered: it may be upgraded under us.
const RANGE_AGE_MAX: Duration = Duration::from_secs(30);
/// Largest answer that we read ourselves (`/info`, lists of networks).
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Headers that belong to a connection and not to a message (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE];

/// The API versions that an engine speaks.
#[derive(Clone, Copy, Debug)]
struct Range {
    min: Version,
    max: Version,
    asked_at: Instant,
}

/// The local Docker Engine. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    socket: Arc<PathBuf>,
    env: Env,
    scope: Scope,
    range: Arc<Mutex<Option<Range>>>,
}

impl Engine {
    pub(super) fn new(socket: PathBuf, env: Env, scope: Scope) -> Self {
        Self { socket: Arc::new(socket), env, scope, range: Arc::default() }
    }

    /// Passes a request on and its answer back.
    ///
    /// # Errors
    /// 503 when there is no engine.
    pub(super) async fn forward(
        &self,
        mut request: Request<Body>,
        version: Option<Version>,
    ) -> Result<Response, Error> {
        let version = self.version_for(version).await;
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let uri = rewritten(request.uri(), version)?;
        let upgrade = request.headers().get(header::UPGRADE).cloned();
        let (mut parts, body) = request.into_parts();
        parts.uri = uri;
        strip(&mut parts.headers);
        parts.headers.insert(header::HOST, HeaderValue::from_static("docker"));
        if let Some(protocol) = upgrade {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        let mut answer = self.send(Request::from_parts(parts, body)).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            strip(answer.headers_mut());
            return Ok(answer.map(Body::new));
        }
        let engine = hyper::upgrade::on(&mut answer);
        if let Some(client) = client {
            self.scope.spawn("hijacked connection", splice(client, engine));
        }
        let (parts, _) = answer.into_parts();
        Ok(Response::from_parts(parts, Body::empty()))
    }

    /// Asks the engine for a JSON answer; `None` when there is no engine or it does not know.
    pub(super) async fn question(&self, path_and_query: &str) -> Option<Value> {
        let asked = self.env.clock.timeout(QUESTION_LIMIT, self.question_raw(path_and_query));
        asked.await.ok().flatten()
    }

    async fn question_raw(&self, path_and_query: &str) -> Option<Value> {
        let response = self.stream(path_and_query).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Opens a stream of the engine's, in the newest version it speaks.
    pub(super) async fn stream(&self, path_and_query: &str) -> Result<Response, Error> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path_and_query)
            .header(header::HOST, "docker")
            .body(Body::empty())
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(self.send(request).await?.map(Body::new))
    }

    /// Whether the engine accepts connections.
    pub(super) async fn is_there(&self) -> bool {
        self.connect().await.is_ok()
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<hyper::body::Incoming>, Error> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| {
            Error::new(StatusCode::BAD_GATEWAY, format!("the Docker Engine hung up: {error}"))
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        self.scope.spawn("engine connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the engine ended");
            }
        });
        sender.send_request(request).await.map_err(broken)
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let absent = |why: String| {
            Error::unavailable(format!(
                "there is no Docker Engine at {}: {why}; start it, or tell the daemon where it is (the swarm's own objects are served without it)",
                self.socket.display()
            ))
        };
        let connecting = UnixStream::connect(self.socket.as_path());
        match self.env.clock.timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(absent(error.to_string())),
            Err(_) => Err(absent("it does not answer".to_owned())),
        }
    }

    /// The version to speak with the engine for a client's; the client's own where the engine's
    /// range is unknown.
    async fn version_for(&self, wanted: Option<Version>) -> Option<Version> {
        let wanted = wanted?;
        let now = self.env.clock.instant();
        let known = *self.range.lock().unwrap_or_else(PoisonError::into_inner);
        let range = match known {
            Some(range) if now.since(range.asked_at) < RANGE_AGE_MAX => range,
            Some(_) | None => {
                let answer = self.question("/version").await?;
                let version = |name: &str| Version::parse(answer.get(name)?.as_str()?);
                let (min, max) = (version("MinAPIVersion")?, version("ApiVersion")?);
                let range = Range { min, max, asked_at: now };
                *self.range.lock().unwrap_or_else(PoisonError::into_inner) = Some(range);
                range
            }
        };
        Some(wanted.max(range.min).min(range.max))
    }
}

/// The path (which has no version prefix any more) with the engine's prefix.
fn rewritten(uri: &Uri, version: Option<Version>) -> Result<Uri, Error> {
    let rest = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let text = version.map_or_else(|| rest.to_owned(), |version| format!("/v{version}{rest}"));
    text.parse().map_err(|_| Error::no_route())
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Joins two raw connections until both directions have ended.
async fn splice(client: hyper::upgrade::OnUpgrade, engine: hyper::upgrade::OnUpgrade) {
    let (client, engine) = match tokio::try_join!(client, engine) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "a connection could not be made raw");
            return;
        }
    };
    let (mut client, mut engine) = (TokioIo::new(client), TokioIo::new(engine));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut engine).await {
        tracing::debug!(%error, "a raw connection ended");
    }
}
