//! `/x/v1/backups`: the backups that this manager has written by itself, and how it goes. Not Docker's.

use std::path::Path;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::context::{Ctx, json};
use super::control::Backups;
use super::error::Error;
use crate::domain::Timestamp;
use crate::env::files;
use crate::raft::archive;

/// A node that writes none.
const NOT_TOLD: &str = "this node writes no backups by itself: put [backup] into the settings file of \
                        a manager (docs/OPERATIONS.md, Scheduled backups) and restart its daemon";

/// What the names of backups end with.
const SUFFIX: &str = ".swarm";

/// `GET /x/v1/backups`: how scheduled backups go, and the files with what each says of itself. Every
/// file is read and its checksum compared.
pub(super) async fn list(State(ctx): State<Ctx>) -> Result<Response, Error> {
    let backups = ctx.deps.control.state().backups.ok_or_else(|| Error::bad_request(NOT_TOLD))?;
    let directory = backups.directory.clone();
    let files = ctx.scope.blocking(move || files::list(&directory, "").map(described)).await;
    let files = files.ok_or_else(|| Error::internal("the backups could not be read"))?;
    let place = backups.directory.display();
    let files = files.map_err(|error| Error::internal(format!("cannot list {place}: {error}")))?;
    let mut answer = shown(&backups);
    answer["Files"] = Value::Array(files);
    Ok(json(StatusCode::OK, &answer))
}

/// How it goes, without the files.
pub(super) fn shown(backups: &Backups) -> Value {
    let time = |at: &Timestamp| at.to_string();
    json!({
        "Directory": backups.directory.display().to_string(),
        "Last": backups.last.as_ref().map(time),
        "Next": backups.next.as_ref().map(time),
        "Failed": backups.failure.as_ref().map(|(at, _)| time(at)),
        "Error": backups.failure.as_ref().map_or("", |(_, why)| why),
    })
}

fn described(files: Vec<std::path::PathBuf>) -> Vec<Value> {
    let ours = files.into_iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX));
    ours.map(|path| described_one(&path)).collect()
}

fn described_one(path: &Path) -> Value {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let size = read.as_ref().map_or(0, Vec::len);
    let summary =
        read.and_then(|content| archive::summary(&content).map_err(|error| error.to_string()));
    match summary {
        Ok(it) => json!({
            "Name": name,
            "Size": size,
            "Created": it.created.to_string(),
            "ClusterID": it.cluster.to_string(),
            "Index": it.index,
            "Nodes": it.nodes,
            "Services": it.services,
            "Error": "",
        }),
        Err(error) => json!({"Name": name, "Size": size, "Error": error}),
    }
}
