//! A client of the Docker Engine API on a unix socket: one HTTP/1.1 connection per request.
//!
//! A connection per request costs 50 µs on a local socket and has no state to get wrong. Every
//! request but a stream has a deadline, so that a daemon that hangs does not hang its user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::os;

/// The version of the Engine API that this client speaks.
const VERSION: &str = "/v1.41";
/// For how long a request may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// For how long a request may take that waits for other nodes (join, leave).
const LONG_DEADLINE: Duration = Duration::from_secs(180);

/// The API behind a socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// A refusal of the daemon, with Docker's wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Error response from daemon: {message}")]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// The daemon's words.
    pub(crate) message: String,
}

/// Nothing answers on the socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the swarm daemon at {}: {reason}: is it running? start it with `swarm init` or `swarm daemon`",
    socket.display()
)]
pub(crate) struct Unreachable {
    socket: PathBuf,
    reason: std::io::Error,
}

/// A path below the API's root with its query, both escaped.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    path: String,
    separator: char,
}

impl Route {
    /// A path of fixed words and names that are escaped: `["services", "web", "update"]`.
    pub(crate) fn new<const N: usize>(parts: [&str; N]) -> Self {
        let mut path = String::new();
        for part in parts {
            path.push('/');
            escape_into(part, &mut path);
        }
        Self { path, separator: '?' }
    }

    /// Adds a member of the query.
    #[must_use]
    pub(crate) fn query(mut self, key: &str, value: &str) -> Self {
        self.path.push(self.separator);
        self.separator = '&';
        escape_into(key, &mut self.path);
        self.path.push('=');
        escape_into(value, &mut self.path);
        self
    }

    /// Adds filters, if there are any.
    #[must_use]
    pub(crate) fn filters(self, filters: &super::filters::Filters) -> Self {
        if filters.is_empty() { self } else { self.query("filters", &filters.to_json()) }
    }
}

fn escape_into(text: &str, path: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

impl Client {
    /// A client of the daemon at a socket; connects with the first request.
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether a daemon answers, at most within two seconds.
    pub(crate) async fn ping(&self) -> bool {
        let ping = self.send(Method::GET, "/_ping", None, None);
        matches!(
            os::timeout(Duration::from_secs(2), ping).await,
            Some(Ok(response)) if response.status() == StatusCode::OK
        )
    }

    /// Reads an object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, route: &Route) -> anyhow::Result<T> {
        let body = self.get_raw(route).await?;
        parse(&body, route)
    }

    /// Reads an object as the daemon wrote it.
    pub(crate) async fn get_raw(&self, route: &Route) -> anyhow::Result<Bytes> {
        self.call(Method::GET, route, None, DEADLINE).await
    }

    /// Sends a body and ignores the reply's.
    pub(crate) async fn post<B: Serialize>(&self, route: &Route, body: &B) -> anyhow::Result<()> {
        self.post_raw(route, body, None).await.map(|_| ())
    }

    /// Sends a body and reads an object.
    pub(crate) async fn post_for<B: Serialize, T: DeserializeOwned>(
        &self,
        route: &Route,
        body: &B,
        registry_auth: Option<&str>,
    ) -> anyhow::Result<T> {
        let reply = self.post_raw(route, body, registry_auth).await?;
        parse(&reply, route)
    }

    async fn post_raw<B: Serialize>(
        &self,
        route: &Route,
        body: &B,
        registry_auth: Option<&str>,
    ) -> anyhow::Result<Bytes> {
        let body = serde_json::to_vec(body).context("cannot encode the request")?;
        let path = format!("{VERSION}{}", route.path);
        let header = registry_auth.map(|auth| ("X-Registry-Auth", auth));
        let exchange = self.exchange(Method::POST, &path, Some(body), header);
        os::timeout(LONG_DEADLINE, exchange).await.ok_or_else(|| late(route, LONG_DEADLINE))?
    }

    /// Sends bytes with a header of our own, and reads what comes back as it is.
    pub(crate) async fn post_bytes(
        &self,
        route: &Route,
        body: Vec<u8>,
        header: (&str, &str),
    ) -> anyhow::Result<Bytes> {
        let path = format!("{VERSION}{}", route.path);
        let exchange = self.exchange(Method::POST, &path, Some(body), Some(header));
        os::timeout(LONG_DEADLINE, exchange).await.ok_or_else(|| late(route, LONG_DEADLINE))?
    }

    /// Sends a request that has no body and reads an object.
    pub(crate) async fn post_empty_for<T: DeserializeOwned>(
        &self,
        route: &Route,
    ) -> anyhow::Result<T> {
        let reply = self.call(Method::POST, route, None, LONG_DEADLINE).await?;
        parse(&reply, route)
    }

    /// Sends a request that has no body.
    pub(crate) async fn post_empty(&self, route: &Route) -> anyhow::Result<()> {
        self.call(Method::POST, route, None, LONG_DEADLINE).await.map(|_| ())
    }

    /// Removes an object.
    pub(crate) async fn delete(&self, route: &Route) -> anyhow::Result<()> {
        self.call(Method::DELETE, route, None, DEADLINE).await.map(|_| ())
    }

    /// Opens a stream that lasts until either side ends it.
    pub(crate) async fn stream(&self, route: &Route) -> anyhow::Result<Stream> {
        let path = format!("{VERSION}{}", route.path);
        let response = os::timeout(DEADLINE, self.send(Method::GET, &path, None, None))
            .await
            .ok_or_else(|| late(route, DEADLINE))??;
        let status = response.status();
        let body = response.into_body();
        if !status.is_success() {
            let bytes = body.collect().await.context("the daemon broke off")?.to_bytes();
            return Err(refusal(status, &bytes).into());
        }
        Ok(Stream { body })
    }

    async fn call(
        &self,
        method: Method,
        route: &Route,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> anyhow::Result<Bytes> {
        let path = format!("{VERSION}{}", route.path);
        let exchange = self.exchange(method, &path, body, None);
        os::timeout(deadline, exchange).await.ok_or_else(|| late(route, deadline))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> anyhow::Result<Bytes> {
        let response = self.send(method, path, body, header).await?;
        let status = response.status();
        let body = response.into_body().collect().await.context("the daemon broke off")?;
        let bytes = body.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes).into()) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        header: Option<(&str, &str)>,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|reason| Unreachable { socket: self.socket.clone(), reason })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("the daemon does not speak HTTP")?;
        os::drive(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the daemon ended");
            }
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "swarm")
            .header(http::header::USER_AGENT, concat!("swarm/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .context("cannot build the request")?;
        sender.send_request(request).await.context("the daemon closed the connection unanswered")
    }
}

/// The body of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
}

impl Stream {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.context("the daemon broke off the stream")?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

fn parse<T: DeserializeOwned>(body: &[u8], route: &Route) -> anyhow::Result<T> {
    serde_json::from_slice(body)
        .with_context(|| format!("the daemon's answer to {} is not understood", route.path))
}

fn late(route: &Route, deadline: Duration) -> anyhow::Error {
    anyhow!(
        "the swarm daemon did not answer {} within {} s: it may still carry the request out; look \
         before trying again",
        route.path,
        deadline.as_secs()
    )
}

/// The daemon's words; it is Docker's API, so it speaks of `docker swarm init` where our users have
/// `swarm init`.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let message = serde_json::from_slice::<Message>(body).map_or_else(
        |_| {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            if text.is_empty() { format!("HTTP status {status} without a word") } else { text }
        },
        |body| body.message,
    );
    let message = message
        .replace("docker swarm ", "swarm ")
        .replace("docker node ", "swarm node ")
        .replace("docker service ", "swarm service ")
        .replace("docker info", "swarm info");
    Refusal { status: status.as_u16(), message }
}

/// Whether an error is the daemon's "not found".
pub(crate) fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 404)
}
