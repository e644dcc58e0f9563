//! Paths of the host: spelled one way, and what lies at, above and below them.

use crate::domain::container::Mount;

/// Sockets that give the host away to whoever may write to them.
const SOCKETS: [&str; 6] = [
    "/run/docker.sock",
    "/run/swarm/swarm.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/systemd/private",
];

/// Where this daemon keeps keys, state and the secrets of tasks, unless its settings say otherwise.
const PRIVATE: [&str; 2] = ["/var/lib/swarm", "/run/swarm"];

/// Where a host keeps itself: whoever writes there is root, whoever reads there knows its secrets.
const SYSTEM: [&str; 15] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib",
    "/var/spool",
];

/// What a mount lets a container do with a path of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

impl Access {
    /// As a mount says it.
    #[must_use]
    pub const fn of(mount: &Mount) -> Self {
        if mount.read_only { Self::Read } else { Self::Write }
    }
}

/// What a path of the host reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A socket of an engine or of this daemon.
    Socket,
    /// A directory with such a socket somewhere below it.
    AboveSocket,
    /// The daemon's own directories.
    Private,
    /// The host's own directories, or one above them.
    System,
    /// Anything else.
    Other,
}

impl Reach {
    /// What a path that [`normalise`] has spelled reaches.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let at_or_below = |place: &str| below(path, place);
        let above = |place: &str| below(place, path);
        if SOCKETS.contains(&path) {
            Self::Socket
        } else if PRIVATE.iter().any(|place| at_or_below(place)) {
            Self::Private
        } else if SOCKETS.iter().any(|place| above(place)) {
            Self::AboveSocket
        } else if SYSTEM.iter().any(|place| at_or_below(place) || above(place)) {
            Self::System
        } else {
            Self::Other
        }
    }
}

/// A path in its one spelling: absolute, without empty parts and `.`; `/var/run` is `/run`. `None`
/// for what is not absolute, climbs with `..` or has control characters.
#[must_use]
pub fn normalise(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let parts: Vec<&str> = rest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") || path.chars().any(char::is_control) {
        return None;
    }
    let parts = match parts.as_slice() {
        ["var", "run", ..] => &parts[1..],
        _ => &parts[..],
    };
    Some(format!("/{}", parts.join("/")))
}

/// Whether a path is another one or lies below it. Both in their one spelling.
pub(super) fn below(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || place == "/")
}

/// Whether an entry of a policy (`/srv`, `/etc/localtime:ro`) covers a mount.
pub(super) fn covers(entry: &str, path: &str, access: Access) -> bool {
    match entry.strip_suffix(":ro") {
        Some(place) => access == Access::Read && below(path, place),
        None => below(path, entry),
    }
}

/// The part of a path that no template has a say in: what a policy can name.
pub(super) fn fixed_part(path: &str) -> &str {
    let templated = path.find(BLANK).map_or(path, |at| &path[..at]);
    if templated.len() == path.len() {
        return path;
    }
    match templated.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// What stands for a template: no path of a host is called that, so nothing is taken for a socket or
/// a system's directory.
const BLANK: &str = "{}";

/// Fields that are one part of a path whatever they hold.
const SINGLE: [&str; 7] = [
    ".Service.ID",
    ".Service.Name",
    ".Node.ID",
    ".Node.Hostname",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
];

/// A text whose templates stand for one part of a path each, with a word in their place; `None` if
/// any may stand for more.
pub(super) fn plain_text(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, tail) = after.split_once("}}")?;
        if !SINGLE.contains(&action.trim()) {
            return None;
        }
        out.push_str(before);
        out.push_str(BLANK);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}
