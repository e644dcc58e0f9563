//! Secrets and configs: small payloads for containers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::{ConfigId, Extra, Labels, Meta, SecretId};

/// Largest secret, in bytes (Docker's limit).
pub const SECRET_BYTES_MAX: usize = 500 * 1024;
/// Largest config, in bytes (Docker's limit).
pub const CONFIG_BYTES_MAX: usize = 1000 * 1024;

/// Bytes that must not be shown: `Debug` prints only their length.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sensitive(Arc<[u8]>);

impl Sensitive {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the few places that must have them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sensitive({} bytes)", self.0.len())
    }
}

/// A secret: delivered only to nodes that run a task that uses it; never returned by the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Identity.
    pub id: SecretId,
    /// Times and revisions.
    pub meta: Meta,
    /// Name, labels.
    pub spec: PayloadSpec,
    /// The payload.
    pub data: Sensitive,
}

/// A config: like a secret, but readable.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Identity.
    pub id: ConfigId,
    /// Times and revisions.
    pub meta: Meta,
    /// Name, labels.
    pub spec: PayloadSpec,
    /// The payload.
    pub data: Arc<[u8]>,
}

/// What the user says of a secret or config (Docker: `SecretSpec`, `ConfigSpec`, without `Data`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PayloadSpec {
    /// Unique among its kind.
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
    /// Unknown members (`Templating`, …).
    #[serde(flatten)]
    pub extra: Extra,
}
