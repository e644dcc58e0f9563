//! Paths to handlers, the version prefix, and the headers of every answer.

use std::fmt;
use std::str::FromStr;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tower::ServiceExt;

use super::context::Ctx;
use super::error::Error;
use super::{
    backups, events, metrics, networks, nodes, payloads, recovery, service_logs, services, status,
    swarm, system, tasks,
};
use crate::env::{Answered, Env, Wanted};

/// Largest request body that we read ourselves: a config of 1000 KiB in base 64, with room.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;

/// A version of Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

/// The newest version we announce: that of Engine 20.10, whose recorded answers ours are compared
/// with. Newer clients step down to it.
pub(super) const VERSION_MAX: Version = Version { major: 1, minor: 41 };
/// The oldest version whose paths we accept.
pub(super) const VERSION_MIN: Version = Version { major: 1, minor: 24 };

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

fn number(text: &str) -> Option<u32> {
    u32::from_str(text).ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The version that the client's path named; `None` without a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(pub(super) Option<Version>);

/// The API as a function from requests to answers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Api {
    router: Router,
    env: Env,
}

impl Api {
    pub(super) fn new(ctx: Ctx) -> Self {
        let env = ctx.deps.env.clone();
        let router = Router::new()
            .route("/_ping", get(system::ping))
            .route("/version", get(system::version))
            .route("/info", get(system::info))
            .route("/events", get(events::stream))
            .route("/distribution/{*rest}", get(system::distribution))
            .route("/x/v1/status", get(status::status))
            .merge(watch_routes())
            .merge(recovery_routes())
            .merge(swarm_routes())
            .merge(object_routes())
            .method_not_allowed_fallback(async || Error::no_route())
            .fallback(pass_through)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(ctx);
        Self { router, env }
    }

    /// Only what machines ask to watch this node, for listeners that everybody may reach.
    pub(super) fn to_watch(ctx: Ctx) -> Self {
        let env = ctx.deps.env.clone();
        let nothing = async || Error::no_route();
        let router = watch_routes().method_not_allowed_fallback(nothing).fallback(nothing);
        Self { router: router.with_state(ctx), env }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        let wanted = wanted(request.method(), request.uri().path());
        let began = self.env.clock.instant();
        let response = self.route(request).await;
        let meters = &self.env.meters;
        meters.api.of(wanted).took(self.env.clock.instant().since(began));
        meters.api_answers.of(answered(response.status())).up();
        response
    }

    async fn route(&self, mut request: Request<Body>) -> Response {
        let response = match unprefixed(request.uri()) {
            Err(error) => error.into_response(),
            Ok((version, uri)) => {
                *request.uri_mut() = uri;
                request.extensions_mut().insert(Asked(version));
                let Ok(response) = self.router.clone().oneshot(request).await;
                response
            }
        };
        with_headers(response)
    }
}

/// What a request wants, as it is counted.
fn wanted(method: &Method, path: &str) -> Wanted {
    const OURS: [&str; 12] = [
        "_ping", "version", "info", "healthz", "readyz", "metrics", "swarm", "nodes", "services",
        "tasks", "secrets", "configs",
    ];
    let path = split_prefix(path).map_or(path, |(_, rest)| rest);
    let mut words = path.split('/').skip(1);
    let first = words.next().unwrap_or_default();
    let is_ours = OURS.contains(&first) || matches!(first, "networks" | "events" | "x");
    match method {
        _ if !is_ours => Wanted::Engine,
        _ if first == "events" || words.last() == Some("logs") => Wanted::Stream,
        &Method::GET | &Method::HEAD => Wanted::Read,
        _ => Wanted::Write,
    }
}

/// A status as it is counted.
fn answered(status: StatusCode) -> Answered {
    match status.as_u16() {
        ..400 => Answered::Done,
        400..500 => Answered::Refused,
        _ => Answered::Failed,
    }
}

fn watch_routes() -> Router<Ctx> {
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(metrics::page))
}

fn recovery_routes() -> Router<Ctx> {
    let restore = post(recovery::restore).layer(DefaultBodyLimit::max(recovery::ARCHIVE_BYTES_MAX));
    Router::new()
        .route("/x/v1/backup", post(recovery::backup))
        .route("/x/v1/backups", get(backups::list))
        .route("/x/v1/restore", restore)
        .route("/x/v1/recover", post(recovery::recover))
}

fn swarm_routes() -> Router<Ctx> {
    Router::new()
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/init", post(swarm::init))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/swarm/update", post(swarm::update))
        .route("/swarm/unlockkey", get(swarm::unlock_key))
        .route("/swarm/unlock", post(swarm::unlock))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
}

fn object_routes() -> Router<Ctx> {
    Router::new()
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(service_logs::of_service))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(service_logs::of_task))
        .route("/secrets", get(payloads::list_secrets))
        .route("/secrets/create", post(payloads::create_secret))
        .route("/secrets/{id}", get(payloads::inspect_secret).delete(payloads::remove_secret))
        .route("/secrets/{id}/update", post(payloads::update_secret))
        .route("/configs", get(payloads::list_configs))
        .route("/configs/create", post(payloads::create_config))
        .route("/configs/{id}", get(payloads::inspect_config).delete(payloads::remove_config))
        .route("/configs/{id}/update", post(payloads::update_config))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
}

/// Everything else is the engine's.
async fn pass_through(
    State(ctx): State<Ctx>,
    axum::Extension(Asked(version)): axum::Extension<Asked>,
    request: Request<Body>,
) -> Result<Response, Error> {
    ctx.engine.forward(request, version).await
}

/// Takes the version prefix off a path and checks it.
fn unprefixed(uri: &Uri) -> Result<(Option<Version>, Uri), Error> {
    let whole = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let Some((version, rest)) = split_prefix(whole) else {
        return Ok((None, whole.parse().map_err(|_| Error::no_route())?));
    };
    if version > VERSION_MAX {
        return Err(Error::bad_request(format!(
            "client version {version} is too new. Maximum supported API version is {VERSION_MAX}"
        )));
    }
    if version < VERSION_MIN {
        return Err(Error::bad_request(format!(
            "client version {version} is too old. Minimum supported API version is {VERSION_MIN}, please upgrade your client to a newer version"
        )));
    }
    Ok((Some(version), rest.parse().map_err(|_| Error::no_route())?))
}

fn split_prefix(path: &str) -> Option<(Version, &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/')?;
    let (version, rest) = after.split_at(end);
    Some((Version::parse(version)?, rest))
}

/// What every answer says of the server.
fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let announced = HeaderValue::from_str(&VERSION_MAX.to_string());
    headers.insert("api-version", announced.unwrap_or(HeaderValue::from_static("1.41")));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    headers.insert("ostype", HeaderValue::from_static("linux"));
    let server = concat!("Docker/", env!("CARGO_PKG_VERSION"), " (linux)");
    headers.insert("server", HeaderValue::from_static(server));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Result<(Option<String>, String), String> {
        let (version, uri) =
            unprefixed(&path.parse().unwrap()).map_err(|error| error.message.clone())?;
        Ok((version.map(|version| version.to_string()), uri.to_string()))
    }

    #[test]
    fn requests_are_counted_by_what_they_want() {
        let of = |method: Method, path| wanted(&method, path);
        assert_eq!(of(Method::GET, "/v1.41/services"), Wanted::Read);
        assert_eq!(of(Method::POST, "/services/create"), Wanted::Write);
        assert_eq!(of(Method::GET, "/v1.41/services/x/logs"), Wanted::Stream);
        assert_eq!(of(Method::GET, "/events"), Wanted::Stream);
        assert_eq!(of(Method::GET, "/v1.41/containers/json"), Wanted::Engine);
        assert_eq!(of(Method::GET, "/"), Wanted::Engine);
    }

    #[test]
    fn prefixes_are_taken_off_and_checked() {
        let some = |version: &str, path: &str| Ok((Some(version.to_owned()), path.to_owned()));
        assert_eq!(split("/v1.41/services?status=true"), some("1.41", "/services?status=true"));
        assert_eq!(split("/v1.24/_ping"), some("1.24", "/_ping"));
        assert_eq!(split("/services"), Ok((None, "/services".to_owned())));
        assert_eq!(split("/volumes/v1"), Ok((None, "/volumes/v1".to_owned())));
        assert_eq!(
            split("/v1.99/info"),
            Err("client version 1.99 is too new. Maximum supported API version is 1.41".to_owned())
        );
        assert_eq!(
            split("/v1.1/info"),
            Err("client version 1.1 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version".to_owned())
        );
    }
}
