//! Secrets and configs by name: their ids, which specs need.

use anyhow::bail;

use super::create::{id, no_duplicates};
use crate::cli::client::{Client, Route};
use crate::cli::filters::Filters;
use crate::cli::reply;
use crate::cli::values::files::FileRequest;
use crate::domain::container::{ConfigReference, SecretReference};

/// References to secrets.
///
/// # Errors
/// When one does not exist or two have the same place.
pub(super) async fn secrets(
    client: &Client,
    requests: &[FileRequest],
) -> anyhow::Result<Vec<SecretReference>> {
    no_duplicates(requests, "secret")?;
    let known = named(client, "secrets", requests).await?;
    requests
        .iter()
        .map(|request| {
            let Some(found) = known.iter().find(|known| known.spec.name == request.source) else {
                bail!("secret not found: {}; see `swarm secret ls`", request.source);
            };
            Ok(SecretReference {
                file: Some(request.file.clone()),
                secret_id: id(&found.id)?,
                secret_name: request.source.clone(),
            })
        })
        .collect()
}

/// References to configs.
///
/// # Errors
/// When one does not exist or two have the same place.
pub(super) async fn configs(
    client: &Client,
    requests: &[FileRequest],
) -> anyhow::Result<Vec<ConfigReference>> {
    no_duplicates(requests, "config")?;
    let known = named(client, "configs", requests).await?;
    requests
        .iter()
        .map(|request| {
            let Some(found) = known.iter().find(|known| known.spec.name == request.source) else {
                bail!("config not found: {}; see `swarm config ls`", request.source);
            };
            Ok(ConfigReference {
                file: Some(request.file.clone()),
                config_id: id(&found.id)?,
                config_name: request.source.clone(),
            })
        })
        .collect()
}

async fn named(
    client: &Client,
    kind: &str,
    requests: &[FileRequest],
) -> anyhow::Result<Vec<reply::Payload>> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let filters =
        requests.iter().fold(Filters::default(), |all, one| all.with("name", &one.source));
    client.get(&Route::new([kind]).filters(&filters)).await
}
