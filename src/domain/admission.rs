//! What a service may ask of the hosts that run it: the cluster's policy, and each node's own.
//!
//! One pure check, used twice: by the API before a spec is proposed, with the policy of the cluster,
//! and by the agent before a container is made, with the policy of the node. Capabilities beyond the
//! engine's default set, the host's network, sockets that give the host away, paths of the host and
//! switched-off confinement are permitted by name or not at all (docs/adr/0025).
//!
//! What it does not do: follow links (the agent does), or judge what already runs.

mod grant;
mod paths;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::container::{ContainerSpec, Mount, MountKind, null_default};
use super::validate::InvalidField;
use super::{Extra, ServiceSpec};
pub use grant::{Grant, InvalidGrant};
pub use paths::{Access, Reach, normalise};
use paths::{covers, fixed_part, plain_text};

/// Capabilities that the engine gives to every container.
const CAPABILITIES_DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Paths that may be bind-mounted unless the policy says otherwise: the file system standard's places
/// for data of services and for mounted file systems, and the two files that everybody binds.
const BIND_MOUNTS_DEFAULT: [&str; 6] =
    ["/srv", "/data", "/mnt", "/media", "/etc/localtime:ro", "/etc/timezone:ro"];

/// Kernel parameters that reach no further than the container's own namespaces: all of the network's
/// (with the host's network the engine refuses them), and the one of the others that is harmless.
const SYSCTLS_DEFAULT: [&str; 2] = ["net.*", "kernel.shm_rmid_forced"];

/// Mount types of the engine's `local` volume driver that reach no path of the host.
const VOLUME_TYPES: [&str; 5] = ["", "tmpfs", "nfs", "nfs4", "cifs"];

/// What services may ask of a host. The default is what containers need that trust nobody and whom
/// nobody has to trust.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpecPolicy {
    /// Sockets of container engines and of this daemon, and directories above them.
    pub docker_socket: bool,
    /// The host's network.
    pub host_network: bool,
    /// Seccomp, AppArmor or SELinux switched off or replaced.
    pub unconfined: bool,
    /// Paths of the host that may be mounted, each with everything below it; `:ro` at the end means
    /// read-only mounts alone.
    #[serde(deserialize_with = "null_default")]
    pub bind_mounts: Vec<String>,
    /// Capabilities that may be added, without `CAP_`; `ALL` means any.
    #[serde(deserialize_with = "null_default")]
    pub capabilities: Vec<String>,
    /// Kernel parameters that may be set; `*` at the end matches the rest.
    #[serde(deserialize_with = "null_default")]
    pub sysctls: Vec<String>,
    /// Unknown members: a later release's.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for SpecPolicy {
    fn default() -> Self {
        Self {
            docker_socket: false,
            host_network: false,
            unconfined: false,
            bind_mounts: BIND_MOUNTS_DEFAULT.map(str::to_owned).to_vec(),
            capabilities: Vec::new(),
            sysctls: SYSCTLS_DEFAULT.map(str::to_owned).to_vec(),
            extra: Extra::new(),
        }
    }
}

/// Something that a spec asks for and a policy does not permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as the API spells it.
    pub field: &'static str,
    /// What was asked for, in words.
    pub what: String,
    /// What would permit it; nothing does where it is `None`.
    pub grant: Option<Grant>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not permitted", self.field, self.what)
    }
}

const MOUNTS: &str = "TaskTemplate.ContainerSpec.Mounts";

impl SpecPolicy {
    /// The policy that permits all there is: what a node says that leaves the matter to the cluster.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            docker_socket: true,
            host_network: true,
            unconfined: true,
            bind_mounts: vec!["/".to_owned()],
            capabilities: vec!["ALL".to_owned()],
            sysctls: vec!["*".to_owned()],
            extra: Extra::new(),
        }
    }

    /// The policy that permits nothing beyond a plain container.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            docker_socket: false,
            host_network: false,
            unconfined: false,
            bind_mounts: Vec::new(),
            capabilities: Vec::new(),
            sysctls: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// Whether it can be the policy of a cluster or node.
    ///
    /// # Errors
    /// The first entry that means nothing.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let wrong =
            |field: &str, reason: String| InvalidField { field: format!("Policy.{field}"), reason };
        if let Some(member) = self.extra.keys().next() {
            let known = "DockerSocket, HostNetwork, Unconfined, BindMounts, Capabilities, Sysctls";
            return Err(wrong(member, format!("there is no such member: there are {known}")));
        }
        let grants = |field, entries: &[String], kind: &str| {
            let checked = entries.iter().try_for_each(|entry| {
                let grant: Grant = format!("{kind}={entry}").parse()?;
                // Spelled another way, it would permit something that a reader does not see.
                let same = grant.entry() == Some(entry.as_str());
                let reason = || format!("{entry:?}: write {:?}", grant.entry().unwrap_or_default());
                if same { Ok(()) } else { Err(InvalidGrant(reason())) }
            });
            checked.map_err(|InvalidGrant(reason)| wrong(field, reason))
        };
        grants("BindMounts", &self.bind_mounts, "bind-mount")?;
        grants("Capabilities", &self.capabilities, "capability")?;
        grants("Sysctls", &self.sysctls, "sysctl")
    }

    /// What a spec asks for beyond the policy, in the order of its fields.
    #[must_use]
    pub fn violations(&self, spec: &ServiceSpec) -> Vec<Violation> {
        let template = &spec.task_template;
        let container = &template.container_spec;
        let mut found = Vec::new();
        for mount in &container.mounts {
            found.extend(self.mount(mount));
        }
        found.extend(self.capabilities(container));
        found.extend(self.sysctls(container));
        if !self.unconfined {
            found.extend(unconfined(container));
        }
        let networks = template.networks.iter().chain(&spec.networks);
        if !self.host_network && networks.into_iter().any(|network| network.target == "host") {
            found.push(Violation {
                field: "TaskTemplate.Networks",
                what: "the network of the host".to_owned(),
                grant: Some(Grant::HostNetwork),
            });
        }
        found
    }

    /// Whether a path of the host may be mounted.
    ///
    /// # Errors
    /// What stands against it.
    pub fn bind(&self, source: &str, access: Access) -> Result<(), Violation> {
        let (shown, suffix) = match access {
            Access::Read => ("read-only", ":ro"),
            Access::Write => ("writable", ""),
        };
        let refuse = |what: String, grant| Violation { field: MOUNTS, what, grant };
        let Some(path) = plain_text(source).and_then(|text| normalise(&text)) else {
            // As good as the whole disk.
            let whole = self.bind_mounts.iter().any(|entry| entry == "/");
            let grant = match (whole, self.docker_socket) {
                (true, true) => return Ok(()),
                (true, false) => Grant::DockerSocket,
                (false, _) => Grant::BindMount("/".to_owned()),
            };
            let what = format!("a mount of {source:?}, which nobody can judge before it is made,");
            return Err(refuse(what, Some(grant)));
        };
        match Reach::of(&path) {
            Reach::Private => {
                let what = format!("a mount of {source}, where the daemon keeps keys and state,");
                return Err(refuse(what, None));
            }
            Reach::Socket if self.docker_socket => return Ok(()),
            Reach::Socket | Reach::AboveSocket if !self.docker_socket => {
                let what = format!("a mount of {source}, with the socket of an engine or daemon,");
                return Err(refuse(what, Some(Grant::DockerSocket)));
            }
            Reach::Socket | Reach::AboveSocket | Reach::System | Reach::Other => {}
        }
        if self.bind_mounts.iter().any(|entry| covers(entry, &path, access)) {
            return Ok(());
        }
        let grant = Grant::BindMount(format!("{}{suffix}", fixed_part(&path)));
        Err(refuse(format!("a {shown} mount of {source}"), Some(grant)))
    }

    fn mount(&self, mount: &Mount) -> Option<Violation> {
        match mount.kind {
            MountKind::Bind => self.bind(&mount.source, Access::of(mount)).err(),
            MountKind::Volume => self.volume(mount),
            MountKind::Tmpfs | MountKind::Npipe | MountKind::Cluster => None,
        }
    }

    /// A volume of the engine's `local` driver can be a bind mount by another name.
    fn volume(&self, mount: &Mount) -> Option<Violation> {
        let driver = mount.extra.get("VolumeOptions")?.get("DriverConfig")?;
        let name = driver.get("Name").and_then(Value::as_str).unwrap_or_default();
        if !matches!(name, "" | "local") {
            return None;
        }
        let options = driver.get("Options")?.as_object()?;
        let option = |name: &str| options.get(name).and_then(Value::as_str).unwrap_or_default();
        let (kind, flags, device) = (option("type"), option("o"), option("device"));
        let binds = flags.split(',').any(|flag| {
            matches!(flag.trim(), "bind" | "rbind" | "move" | "remount") || flag.contains("{{")
        });
        if binds || (device.starts_with('/') && kind != "cifs") {
            return self.bind(device, Access::of(mount)).err();
        }
        if VOLUME_TYPES.contains(&kind) && !device.contains("{{") {
            return None;
        }
        // An overlay of any directories, a block device: as good as the whole disk.
        self.bind("/", Access::Write)
            .err()
            .map(|it| Violation { what: format!("a volume of type {kind:?} on {device:?}"), ..it })
    }

    fn capabilities(&self, container: &ContainerSpec) -> impl Iterator<Item = Violation> {
        let any = self.capabilities.iter().any(|it| it == "ALL");
        let added = container.capability_add.iter().map(|name| grant::capability(name));
        added.filter(move |name| !any && !self.permits_capability(name)).map(|name| Violation {
            field: "TaskTemplate.ContainerSpec.CapabilityAdd",
            what: format!("the capability {name}"),
            grant: Some(Grant::Capability(name)),
        })
    }

    fn permits_capability(&self, name: &str) -> bool {
        CAPABILITIES_DEFAULT.contains(&name) || self.capabilities.iter().any(|it| it == name)
    }

    fn sysctls(&self, container: &ContainerSpec) -> impl Iterator<Item = Violation> {
        let permitted = |name: &str| {
            self.sysctls.iter().any(|entry| match entry.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == entry,
            })
        };
        // The kernel takes slashes for dots.
        let wanted = container.sysctls.keys().map(|name| name.replace('/', "."));
        wanted.filter(move |name| !permitted(name)).map(|name| Violation {
            field: "TaskTemplate.ContainerSpec.Sysctls",
            what: format!("the kernel parameter {name}"),
            grant: Some(Grant::Sysctl(name)),
        })
    }
}

/// What of `Privileges` takes confinement away. Words that are not known count as that.
fn unconfined(container: &ContainerSpec) -> Vec<Violation> {
    let Some(privileges) = container.extra.get("Privileges") else { return Vec::new() };
    let violation = |field, what: &str| Violation {
        field,
        what: what.to_owned(),
        grant: Some(Grant::Unconfined),
    };
    let is_default = |name: &str| {
        let mode = privileges.get(name).and_then(|it| it.get("Mode"));
        mode.is_none_or(|mode| mode.is_null() || matches!(mode.as_str(), Some("" | "default")))
    };
    let mut found = Vec::new();
    if !is_default("Seccomp") {
        let field = "TaskTemplate.ContainerSpec.Privileges.Seccomp";
        found.push(violation(field, "another seccomp profile than the engine's"));
    }
    if !is_default("AppArmor") {
        let field = "TaskTemplate.ContainerSpec.Privileges.AppArmor";
        found.push(violation(field, "another AppArmor profile than the engine's"));
    }
    let selinux = privileges.get("SELinuxContext").and_then(Value::as_object);
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Array(_) | Value::Object(_) => true,
    };
    if selinux.is_some_and(|context| context.values().any(says)) {
        let field = "TaskTemplate.ContainerSpec.Privileges.SELinuxContext";
        found.push(violation(field, "another SELinux context than the engine's"));
    }
    found
}

#[cfg(test)]
mod tests;
