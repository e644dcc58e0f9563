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
use super::{convert, keys, lookup};
use crate::domain::secret::{PayloadSpec, Sensitive};
use crate::domain::validate::InvalidField;
use crate::domain::{Config, ConfigId, Meta, Secret, SecretId, base64};
use crate::env::seal::same;
use crate::state::{Change, Expect, Object, ObjectKey};

/// Filter keys of both lists.
const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

fn matches(filters: &Filters, id: &str, spec: &PayloadSpec) -> bool {
    filters.prefix("id", &[id])
        && filters.prefix("name", &[&spec.name])
        && filters.any("names", |name| name == spec.name)
        && filters.labels("label", &spec.labels)
}

/// Reads a spec and its payload.
fn decode(
    body: &[u8],
    check_size: fn(usize) -> Result<(), InvalidField>,
) -> Result<(PayloadSpec, Vec<u8>), Error> {
    let (spec, data) = split(body)?;
    let data = data.unwrap_or_default();
    let checked = spec.validate().and_then(|()| check_size(data.len()));
    // The texts are Docker's by themselves, without the field.
    checked.map_err(|error| Error::rpc(Code::InvalidArgument, error.reason))?;
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
    let (spec, data) = decode(&body, PayloadSpec::validate_secret_size)?;
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
    let read = ctx.read_to_change().await?;
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
    let read = ctx.read_to_change().await?;
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
    let (spec, data) = decode(&body, PayloadSpec::validate_config_size)?;
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
    let read = ctx.read_to_change().await?;
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
    let read = ctx.read_to_change().await?;
    let key = ObjectKey::Config(lookup::config(&read.view, &text)?.id);
    let change = Change::Delete { key, expect: Expect::Present };
    ctx.propose(&read.store, &ask, vec![change]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
