//! `--with-registry-auth`: the caller's credentials for an image's registry, from Docker's config.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::base64;

/// The registry whose images have no registry in their names.
const HUB: &str = "https://index.docker.io/v1/";

/// The header `X-Registry-Auth` for an image; `None` where the caller has no credentials.
///
/// # Errors
/// When Docker's config cannot be read, or keeps the credentials in a helper.
pub(super) fn header(image: &str) -> anyhow::Result<Option<String>> {
    let path = config_path();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let config: Value =
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    from_config(&config, registry_of(image))
}

fn config_path() -> PathBuf {
    let dir = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker");
    dir.unwrap_or_else(home).join("config.json")
}

/// The part of a reference that names a registry: it has a dot, a port, or is `localhost`.
fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => HUB,
    }
}

fn from_config(config: &Value, registry: &str) -> anyhow::Result<Option<String>> {
    let helper = config.pointer(&format!("/credHelpers/{}", registry.replace('/', "~1")));
    if let Some(helper) = helper.or_else(|| config.get("credsStore")).and_then(Value::as_str) {
        bail!(
            "credentials of {registry} are in the helper docker-credential-{helper}, which is not \
             supported: log in with a config.json without credsStore (DOCKER_CONFIG=DIR docker login)"
        );
    }
    let Some(entry) = config.get("auths").and_then(|auths| auths.get(registry)) else {
        return Ok(None);
    };
    let mut auth = json!({ "serveraddress": registry });
    if let Some(token) = entry.get("identitytoken").and_then(Value::as_str) {
        auth["identitytoken"] = token.into();
    } else {
        let pair = entry.get("auth").and_then(Value::as_str).and_then(base64::decode);
        let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
            bail!("the credentials of {registry} in Docker's config are not understood");
        };
        auth["username"] = user.into();
        auth["password"] = password.into();
    }
    Ok(Some(base64::encode_url(auth.to_string().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        assert_eq!(registry_of("nginx"), HUB);
        assert_eq!(registry_of("library/nginx"), HUB);
        assert_eq!(registry_of("registry.local:5000/a/b:1"), "registry.local:5000");
        let config = json!({"auths": {"r.io": {"auth": base64::encode(b"me:pw")}}});
        let header = from_config(&config, "r.io").unwrap().unwrap();
        let text = String::from_utf8(base64::decode(&header).unwrap()).unwrap();
        assert_eq!(text, r#"{"password":"pw","serveraddress":"r.io","username":"me"}"#);
        assert_eq!(from_config(&config, "other.io").unwrap(), None);
        let helper = json!({"credsStore": "pass"});
        assert!(from_config(&helper, "r.io").unwrap_err().to_string().contains("helper"));
    }
}
