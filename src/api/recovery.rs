//! `/x/v1/backup`, `/x/v1/restore`, `/x/v1/recover`: for a bad day, and before it. Not Docker's.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::ask::Ask;
use super::context::{Ctx, json};
use super::control::{Places, RecoverRequest, Recovery, RestoreRequest, Run};
use super::error::Error;
use crate::domain::base64;
use crate::domain::secret::Sensitive;
use crate::raft::archive;

/// Largest backup that is taken: the state itself is kept below 50 MB.
pub(super) const ARCHIVE_BYTES_MAX: usize = 256 << 20;
/// The header with the passphrase of a backup, in base 64.
const PASSPHRASE: &str = "x-swarm-passphrase";

/// `POST /x/v1/backup`: the state as one sealed file.
pub(super) async fn backup(
    State(ctx): State<Ctx>,
    ask: Ask,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let secret = passphrase(&headers)?;
    let read = ctx.read(&ask).await?;
    let env = ctx.deps.env.clone();
    let work = move || archive::write(&read.view, secret.expose(), env.clock.now(), &*env.entropy);
    let written = ctx.scope.blocking(work).await;
    let (_, file) = written
        .ok_or_else(|| Error::internal("the backup could not be written"))?
        .map_err(|error| Error::bad_request(error.to_string()))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, kind, file).into_response())
}

/// `POST /x/v1/restore`: a cluster of this node, from a backup.
pub(super) async fn restore(
    State(ctx): State<Ctx>,
    ask: Ask,
    headers: HeaderMap,
    archive: Bytes,
) -> Result<Response, Error> {
    let passphrase = passphrase(&headers)?;
    let request = RestoreRequest { archive, passphrase, places: places(&ask) };
    let node = ctx.deps.control.restore(request).await?;
    Ok(json(StatusCode::OK, &Value::String(node.to_string())))
}

/// `POST /x/v1/recover`: this manager alone. With `dry-run`, what that would mean.
pub(super) async fn recover(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let run = if ask.params.flag("dry-run") { Run::Dry } else { Run::Real };
    let request = RecoverRequest { places: places(&ask), run };
    let recovery = ctx.deps.control.recover(request).await?;
    Ok(json(StatusCode::OK, &shown(&recovery)))
}

fn places(ask: &Ask) -> Places {
    let text = |name: &str| ask.params.get(name).unwrap_or_default().to_owned();
    Places { listen: text("listen-addr"), advertise: text("advertise-addr") }
}

fn passphrase(headers: &HeaderMap) -> Result<Sensitive, Error> {
    let text = headers.get(PASSPHRASE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bytes = base64::decode(text).map_err(Error::bad_request)?;
    if bytes.is_empty() {
        return Err(Error::bad_request(format!(
            "the passphrase of the backup is needed, in base 64, in the header {PASSPHRASE}"
        )));
    }
    Ok(Sensitive::new(&bytes))
}

fn shown(it: &Recovery) -> Value {
    let removed: Vec<Value> = it
        .removed
        .iter()
        .map(|(id, hostname)| json!({"ID": id.to_string(), "Hostname": hostname}))
        .collect();
    json!({
        "NodeID": it.node.to_string(),
        "Addr": it.addr.to_string(),
        "Epoch": it.epoch,
        "Term": it.term,
        "LastTerm": it.last.term,
        "LastIndex": it.last.index,
        "CommittedIndex": it.committed,
        "LastChange": it.newest.to_string(),
        "RemovedManagers": removed,
        "Nodes": it.nodes,
        "Services": it.services,
        "Tasks": it.tasks,
    })
}
