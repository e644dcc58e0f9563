//! What runs: image, command, environment, mounts, health check, secrets (Docker: `ContainerSpec`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigId, Extra, Labels, Nanos, SecretId};

/// Go clients send `null` where a list or map is empty.
pub(crate) fn null_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The container of every task of a service.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerSpec {
    /// Image reference, possibly with a digest.
    pub image: String,
    /// Labels of the container.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_default")]
    pub labels: Labels,
    /// Replaces the image's entrypoint.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub command: Vec<String>,
    /// Replaces the image's command.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub args: Vec<String>,
    /// Host name of the container; may hold templates.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// `NAME=value`, or `NAME` to unset.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub groups: Vec<String>,
    /// Allocate a terminal.
    #[serde(rename = "TTY", skip_serializing_if = "is_false")]
    pub tty: bool,
    /// Keep standard input open.
    #[serde(skip_serializing_if = "is_false")]
    pub open_stdin: bool,
    /// Root file system is read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// Bind mounts, volumes, tmpfs.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub mounts: Vec<Mount>,
    /// Signal that asks the container to stop; the image's own if absent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// From the stop signal to SIGKILL; 10 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<Nanos>,
    /// Health check; the image's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Extra lines of `/etc/hosts`: `IP host [alias…]`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub hosts: Vec<String>,
    /// Resolver settings of the user; replaces ours where it names servers.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Secrets to mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub secrets: Vec<SecretReference>,
    /// Configs to mount.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub configs: Vec<ConfigReference>,
    /// Run an init process as pid 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "Labels::is_empty", deserialize_with = "null_default")]
    pub sysctls: Labels,
    /// Capabilities added to the default set.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub capability_add: Vec<String>,
    /// Capabilities dropped from the default set.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub capability_drop: Vec<String>,
    /// Resource limits of processes.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub ulimits: Vec<Ulimit>,
    /// How the image is fetched; never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_options: Option<PullOptions>,
    /// Members that this release does not interpret (`Isolation`, `Privileges`, …).
    #[serde(flatten)]
    pub extra: Extra,
}

impl ContainerSpec {
    /// The credentials of the image's registry, if the user gave any.
    #[must_use]
    pub fn registry_auth(&self) -> Option<&RegistryAuth> {
        self.pull_options.as_ref().map(|options| &options.registry_auth)
    }
}

/// How an image is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PullOptions {
    /// Credentials of the image's registry.
    pub registry_auth: RegistryAuth,
}

/// Credentials of a registry as the user sent them (`X-Registry-Auth`: base 64 of JSON). They are
/// handed to the engine as they came. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RegistryAuth(String);

impl RegistryAuth {
    /// Takes the text of the header.
    #[must_use]
    pub const fn new(header: String) -> Self {
        Self(header)
    }

    /// The text of the header, for the few places that must have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAuth({} bytes)", self.0.len())
    }
}

/// A file system in the container.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Mount {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// Host path or volume name; empty for tmpfs and anonymous volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Mounted read-only.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// `BindOptions`, `VolumeOptions`, `TmpfsOptions` as Docker has them; handed to the engine.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Kind of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A named or anonymous volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// A named pipe (Windows): refused by validation.
    Npipe,
    /// A cluster volume: refused by validation.
    Cluster,
}

/// How a container's health is found out. Zero or absent values inherit the image's.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", args…]`, `["CMD-SHELL", command]` or empty to inherit.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Nanos>,
    /// A check that takes longer has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Nanos>,
    /// Grace at the start, in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Nanos>,
    /// Between checks during the grace at the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Nanos>,
    /// Consecutive failures that make a container unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Resolver settings of the user.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsConfig {
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub options: Vec<String>,
}

/// Where a secret or config appears in the container.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileTarget {
    /// File name below `/run/secrets` or an absolute path.
    #[serde(rename = "Name")]
    pub name: String,
    /// Owner, a number.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Group, a number.
    #[serde(rename = "GID")]
    pub gid: String,
    /// Permission bits.
    #[serde(rename = "Mode")]
    pub mode: u32,
}

/// A secret that a container uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecretReference {
    /// Where it appears.
    #[serde(rename = "File", default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Which secret.
    #[serde(rename = "SecretID")]
    pub secret_id: SecretId,
    /// Its name when the reference was made; checked against the id.
    #[serde(rename = "SecretName", default)]
    pub secret_name: String,
}

/// A config that a container uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigReference {
    /// Where it appears.
    #[serde(rename = "File", default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Which config.
    #[serde(rename = "ConfigID")]
    pub config_id: ConfigId,
    /// Its name when the reference was made; checked against the id.
    #[serde(rename = "ConfigName", default)]
    pub config_name: String,
}

/// One limit of the container's processes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}
