//! One thing that a policy permits, as people write it: `docker-socket`, `bind-mount=/srv`.

use std::fmt;
use std::str::FromStr;

use super::{SpecPolicy, normalise};

/// Longest name of a capability or kernel parameter; real ones are shorter.
const NAME_MAX: usize = 128;

/// Something that a policy may permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// All there is.
    Everything,
    /// Sockets of engines and of this daemon.
    DockerSocket,
    /// The host's network.
    HostNetwork,
    /// Confinement switched off or replaced.
    Unconfined,
    /// A path of the host and what is below it; `:ro` for reading alone.
    BindMount(String),
    /// A capability.
    Capability(String),
    /// A kernel parameter, or those that begin with what stands before `*`.
    Sysctl(String),
}

/// A text that is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGrant(pub(super) String);

/// A capability in its one spelling.
pub(super) fn capability(name: &str) -> String {
    let upper = name.trim().to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let fail = |reason: String| Err(InvalidGrant(reason));
        let is_name = |name: &str, more: &str| {
            let plain = name.chars().all(|it| it.is_ascii_alphanumeric() || more.contains(it));
            plain && !name.is_empty() && name.len() <= NAME_MAX
        };
        match text.split_once('=') {
            None if text == "everything" => Ok(Self::Everything),
            None if text == "docker-socket" => Ok(Self::DockerSocket),
            None if text == "host-network" => Ok(Self::HostNetwork),
            None if text == "unconfined" => Ok(Self::Unconfined),
            Some(("bind-mount", path)) => {
                let (place, suffix) = match path.strip_suffix(":ro") {
                    Some(place) => (place, ":ro"),
                    None => (path, ""),
                };
                match normalise(place) {
                    Some(place) => Ok(Self::BindMount(format!("{place}{suffix}"))),
                    None => fail(format!("{path:?}: an absolute path without .. is expected")),
                }
            }
            Some(("capability", name)) => {
                let name = capability(name);
                if is_name(&name, "_") {
                    return Ok(Self::Capability(name));
                }
                fail(format!("{name:?}: a capability like NET_ADMIN, or ALL, is expected"))
            }
            Some(("sysctl", name)) => {
                let (stem, star) = match name.strip_suffix('*') {
                    Some(stem) => (stem, "*"),
                    None => (name, ""),
                };
                let stem = stem.replace('/', ".");
                if is_name(&stem, "._-") || (stem.is_empty() && star == "*") {
                    return Ok(Self::Sysctl(format!("{stem}{star}")));
                }
                fail(format!(
                    "{name:?}: a kernel parameter like kernel.shmmax or net.* is expected"
                ))
            }
            None | Some(_) => fail(format!(
                "{text:?}: docker-socket, host-network, unconfined, bind-mount=PATH[:ro], \
                 capability=NAME, sysctl=NAME or everything is expected"
            )),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::DockerSocket => f.write_str("docker-socket"),
            Self::HostNetwork => f.write_str("host-network"),
            Self::Unconfined => f.write_str("unconfined"),
            Self::BindMount(path) => write!(f, "bind-mount={path}"),
            Self::Capability(name) => write!(f, "capability={name}"),
            Self::Sysctl(name) => write!(f, "sysctl={name}"),
        }
    }
}

impl Grant {
    /// The entry of a list that it is, if it is one.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        match self {
            Self::BindMount(entry) | Self::Capability(entry) | Self::Sysctl(entry) => Some(entry),
            Self::Everything | Self::DockerSocket | Self::HostNetwork | Self::Unconfined => None,
        }
    }
}

impl SpecPolicy {
    /// Permits something.
    pub fn allow(&mut self, grant: &Grant) {
        match grant {
            Grant::Everything => *self = Self::everything(),
            Grant::DockerSocket => self.docker_socket = true,
            Grant::HostNetwork => self.host_network = true,
            Grant::Unconfined => self.unconfined = true,
            Grant::BindMount(entry) => insert(&mut self.bind_mounts, entry),
            Grant::Capability(entry) => insert(&mut self.capabilities, entry),
            Grant::Sysctl(entry) => insert(&mut self.sysctls, entry),
        }
    }

    /// Permits something no longer.
    ///
    /// # Errors
    /// When a list does not have the entry: perhaps another one permits the same.
    pub fn deny(&mut self, grant: &Grant) -> Result<(), InvalidGrant> {
        match grant {
            Grant::Everything => *self = Self::nothing(),
            Grant::DockerSocket => self.docker_socket = false,
            Grant::HostNetwork => self.host_network = false,
            Grant::Unconfined => self.unconfined = false,
            Grant::BindMount(entry) => return remove(&mut self.bind_mounts, entry, grant),
            Grant::Capability(entry) => return remove(&mut self.capabilities, entry, grant),
            Grant::Sysctl(entry) => return remove(&mut self.sysctls, entry, grant),
        }
        Ok(())
    }
}

fn insert(list: &mut Vec<String>, entry: &str) {
    if !list.iter().any(|it| it == entry) {
        list.push(entry.to_owned());
    }
}

fn remove(list: &mut Vec<String>, entry: &str, grant: &Grant) -> Result<(), InvalidGrant> {
    let before = list.len();
    list.retain(|it| it != entry);
    if list.len() < before {
        return Ok(());
    }
    let there = if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    Err(InvalidGrant(format!("{grant} is no entry of the policy, which has {there} of the kind")))
}
