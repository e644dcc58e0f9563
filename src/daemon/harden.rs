//! What the daemon does to itself before anything else: no core files, no files that others can read.
//!
//! The process holds the keys of the cluster and the secrets of tasks in memory. What `systemd` can do
//! as well (docs/OPERATIONS.md) is done here, too, for daemons that are started in other ways.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Refuses core files and narrows what new files permit. Each is tried for itself: a daemon that
/// cannot have one of them is still better than none.
pub(super) fn process() {
    umask(Mode::from_bits_truncate(0o077));
    // A limit of 0 forbids files; a process that cannot be dumped is not piped to a handler either,
    // and other users cannot look into it.
    let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let hidden = prctl::set_dumpable(false);
    for failed in [limited.err(), hidden.err()].into_iter().flatten() {
        tracing::warn!(%failed, "the process may leave core files");
    }
}

/// Makes the run directory where it is missing: others may enter it, as the API's socket lies there.
pub(super) fn shared_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
