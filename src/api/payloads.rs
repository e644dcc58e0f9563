//! `/secrets` and `/configs`: small payloads for containers. Alike but for what may be read back.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::{self, Ask};
use super::context::{Ctx, json};
use super::error::{Code, Error};
use super::filter::Filters;
use super::{base64, convert, keys, lookup};
use crate::domain::secret::{CONFIG_BYTES_MAX, PayloadSpec, SECRET_BYTES_MAX, Sensitive};
use crate::domain::{Config, ConfigId, Meta, Secret, SecretId};
use crate::env::seal::same;
use crate::state::{Change, Expect, Object, ObjectKey};

/// Filter keys of both lists.
const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

/// Longest name (swarmkit).
const NAME_MAX: usize = 64;

fn matches(filters: &Filters, id: &str, spec: &PayloadSpec) -> bool {
    filters.prefix("id", &[id])
        && filters.prefix("name", &[&spec.name])
        && filters.any("names", |name| name == spec.name)
        && filters.labels("label", &spec.labels)
}

/// Reads a spec and its payload.
fn decode(kind: &str, body: &[u8], max: usize) -> Result<(PayloadSpec, Vec<u8>), Error> {
    let (spec, data) = split(body)?;
    if spec.extra.contains_key("Driver") {
        let text = format!("{kind} drivers are not supported: give the data itself");
        return Err(Error::rpc(Code::Unimplemented, text));
    }
    check_name(&spec.name)?;
    let data = data.unwrap_or_default();
    if data.is_empty() || data.len() >= max {
        let text = format!("{kind} data must be larger than 0 and less than {max} bytes");
        return Err(Error::rpc(Code::InvalidArgument, text));
    }
    Ok((spec, data))
}

fn split(body: &[u8]) -> Result<(PayloadSpec, Option<Vec<u8>>), Error> {
    let mut value = ask::json(body, keys::PAYLOAD)?;
    let data = value.as_object_mut().and_then(|members| {
        members.remove("version");
        members.remove("Data")
    });
    let data = match data {
        None => None,
        Some(Value::String(text)) => Some(base64::decode(&text).map_err(Error::bad_request)?),
        Some(_) => return Err(Error::bad_request("Data must be a base 64 string")),
    };
    Ok((ask::typed(value)?, data))
}

fn check_name(name: &str) -> Result<(), Error> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = name.as_bytes();
    if edge(bytes.first())
        && edge(bytes.last())
        && name.len() <= NAME_MAX
        && name.bytes().all(inner)
    {
        return Ok(());
    }
    let text = "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    Err(Error::rpc(Code::InvalidArgument, text))
}

/// Takes labels from an update and refuses everything else.
fn labels_only(body: &[u8], current: &PayloadSpec, has: &[u8]) -> Result<PayloadSpec, Error> {
    let (wanted, data) = split(body)?;
    let same_name = wanted.name.is_empty() || wanted.name == current.name;
    let same_data = data.is_none_or(|data| data.is_empty() || same(&data, has));
    let same_rest = wanted.extra.is_empty() || wanted.extra == current.extra;
    if !(same_name && same_data && same_rest) {
        return Err(Error::rpc(Code::InvalidArgument, "only updates to Labels are allowed"));
    }
    Ok(PayloadSpec { labels: wanted.labels, ..current.clone() })
}

fn created(id: &str) -> Response {
    json(StatusCode::CREATED, &json!({ "ID": id }))
}

fn fresh(ask: &Ask) -> Ask {
    Ask { freshness: Default::default(), ..ask.clone() }
}

fn put(object: Object, expect: Expect) -> Vec<Change> {
    vec![Change::Put { object, expect }]
}

/// `GET /secrets`.
pub(super) async fn list_secrets(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let filters = Filters::only(&ask.params, &FILTERS)?;
    let read = ctx.read(&ask).await?;
    let shown = read.view.secrets.values();
    let shown = shown.filter(|it| matches(&filters, &it.id.to_string(), &it.spec));
    Ok(read.json(&shown.map(|secret| convert::secret(secret)).collect()))
}

/// `GET /secrets/{id}`.
pub(super) async fn inspect_secret(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    Ok(read.json(&convert::secret(lookup::secret(&read.view, &text)?)))
}

/// `POST /secrets/create`.
pub(super) async fn create_secret(
    State(ctx): State<Ctx>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let store = ctx.store()?;
    let (spec, data) = decode("secret", &body, SECRET_BYTES_MAX)?;
    let id = SecretId::from_bytes(ctx.draw("secret", &ask, &store));
    let secret = Secret { id, meta: Meta::default(), spec, data: Sensitive::new(&data) };
    let object = Object::Secret(Arc::new(secret));
    ctx.propose(&store, &ask, put(object, Expect::Absent)).await?;
    Ok(created(&id.to_string()))
}

/// `POST /secrets/{id}/update`.
pub(super) async fn update_secret(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let version = ask.params.version("secret")?;
    let read = ctx.read(&fresh(&ask)).await?;
    let secret = lookup::secret(&read.view, &text)?;
    let spec = labels_only(&body, &secret.spec, secret.data.expose())?;
    let object = Object::Secret(Arc::new(Secret { spec, ..(**secret).clone() }));
    ctx.propose(&read.store, &ask, put(object, Expect::SpecAt(version))).await?;
    Ok(StatusCode::OK.into_response())
}

/// `DELETE /secrets/{id}`.
pub(super) async fn remove_secret(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&fresh(&ask)).await?;
    let key = ObjectKey::Secret(lookup::secret(&read.view, &text)?.id);
    let change = Change::Delete { key, expect: Expect::Present };
    ctx.propose(&read.store, &ask, vec![change]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /configs`.
pub(super) async fn list_configs(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let filters = Filters::only(&ask.params, &FILTERS)?;
    let read = ctx.read(&ask).await?;
    let shown = read.view.configs.values();
    let shown = shown.filter(|it| matches(&filters, &it.id.to_string(), &it.spec));
    Ok(read.json(&shown.map(|config| convert::config(config)).collect()))
}

/// `GET /configs/{id}`.
pub(super) async fn inspect_config(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    Ok(read.json(&convert::config(lookup::config(&read.view, &text)?)))
}

/// `POST /configs/create`.
pub(super) async fn create_config(
    State(ctx): State<Ctx>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let store = ctx.store()?;
    let (spec, data) = decode("config", &body, CONFIG_BYTES_MAX)?;
    let id = ConfigId::from_bytes(ctx.draw("config", &ask, &store));
    let config = Config { id, meta: Meta::default(), spec, data: data.into() };
    let object = Object::Config(Arc::new(config));
    ctx.propose(&store, &ask, put(object, Expect::Absent)).await?;
    Ok(created(&id.to_string()))
}

/// `POST /configs/{id}/update`.
pub(super) async fn update_config(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let version = ask.params.version("config")?;
    let read = ctx.read(&fresh(&ask)).await?;
    let config = lookup::config(&read.view, &text)?;
    let spec = labels_only(&body, &config.spec, &config.data)?;
    let object = Object::Config(Arc::new(Config { spec, ..(**config).clone() }));
    ctx.propose(&read.store, &ask, put(object, Expect::SpecAt(version))).await?;
    Ok(StatusCode::OK.into_response())
}

/// `DELETE /configs/{id}`.
pub(super) async fn remove_config(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&fresh(&ask)).await?;
    let key = ObjectKey::Config(lookup::config(&read.view, &text)?.id);
    let change = Change::Delete { key, expect: Expect::Present };
    ctx.propose(&read.store, &ask, vec![change]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
