//! What this node lets the cluster do with it: the last look at a container before it is made.
//!
//! The managers have judged the spec by the cluster's policy. The owner of a host may be stricter, and
//! only the host knows where its links lead. What runs already is not asked again.
//!
//! A link that is exchanged between this look and the engine's own is not noticed: whoever may write
//! into a permitted directory of the host should be somebody the host trusts.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::SpecPolicy;
use crate::domain::admission::{Access, Reach, normalise};
use crate::runtime::{ContainerPlan, spec};

/// What a node permits.
#[derive(Clone, Debug)]
pub struct Guard {
    policy: SpecPolicy,
    /// The daemon's own directories, where the settings put them.
    private: Vec<String>,
    /// Its socket, which a policy can permit.
    socket: String,
}

impl Guard {
    /// The node's own policy, and the paths that no container may have whatever the policy says.
    #[must_use]
    pub fn new(policy: SpecPolicy, private: &[PathBuf], socket: &Path) -> Self {
        let spelled = |path: &Path| path.to_str().and_then(normalise);
        let private = private.iter().filter_map(|path| spelled(path)).collect();
        Self { policy, private, socket: spelled(socket).unwrap_or_default() }
    }

    /// A node that leaves the matter to the cluster's policy.
    #[must_use]
    pub fn open() -> Self {
        Self::new(SpecPolicy::everything(), &[], Path::new(""))
    }

    /// Whether a container may be made. Blocks: it follows links.
    ///
    /// # Errors
    /// Why not, for whoever reads `service ps`.
    pub(super) fn check(&self, plan: &ContainerPlan) -> Result<(), String> {
        if let Some(violation) = self.policy.violations(&plan.spec).into_iter().next() {
            return Err(format!(
                "{violation} by the policy of this node ([policy] in its settings)"
            ));
        }
        let sources = spec::bind_sources(plan).map_err(|error| error.to_string())?;
        sources.iter().try_for_each(|(source, access)| self.bind(source, *access))
    }

    fn bind(&self, source: &str, access: Access) -> Result<(), String> {
        let Some(path) = normalise(source) else {
            return Err(format!("{source:?} is not a path without .. that could be mounted"));
        };
        self.judge(&path, source, access)?;
        let real = resolve(Path::new(&path))
            .map_err(|error| format!("it cannot be found out where {source} leads: {error}"))?;
        let Some(real) = real.to_str().and_then(normalise) else {
            return Err(format!("{source} leads to a path that is no text"));
        };
        if real == path {
            return Ok(());
        }
        self.judge(&real, &format!("{source}, a link to {real},"), access)?;
        // The managers have judged the name alone. A name of the system's own they permitted as such.
        match (Reach::of(&path), Reach::of(&real)) {
            (Reach::Other, Reach::Other) => Ok(()),
            (Reach::Other, _) | (Reach::System, Reach::Socket | Reach::AboveSocket) => {
                Err(format!(
                    "a mount of {source} is not permitted: it is a link to {real}, which the policy of the swarm has not judged"
                ))
            }
            _ => Ok(()),
        }
    }

    fn judge(&self, path: &str, shown: &str, access: Access) -> Result<(), String> {
        let own = |place: &String| Path::new(path).starts_with(place) && path != self.socket;
        if self.private.iter().any(own) || Reach::of(path) == Reach::Private {
            return Err(format!(
                "a mount of {shown} is not permitted: the daemon keeps keys there"
            ));
        }
        self.policy.bind(path, access).map_err(|violation| {
            format!(
                "{}: a mount of {shown} is not permitted by the policy of this node ([policy] in its settings)",
                violation.field
            )
        })
    }
}

/// Where a path leads; of a path that is not there, where its parents lead.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            // A link to nowhere leads somewhere as soon as somebody makes that.
            Some(_) if path.is_symlink() => Err(error),
            Some(parent) => Ok(resolve(parent)?.join(path.file_name().unwrap_or_default())),
            None => Err(error),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(guard: &Guard, path: &Path) -> String {
        guard.bind(path.to_str().unwrap(), Access::Write).err().unwrap_or_default()
    }

    #[test]
    fn links_lead_to_nothing_that_their_name_does_not_say() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir(at("data")).unwrap();
        symlink(at("data"), at("same")).unwrap();
        symlink("/etc", at("etc")).unwrap();
        symlink("/", at("root")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        let guard = Guard::open();
        assert_eq!(refused(&guard, &at("data")), "");
        assert_eq!(refused(&guard, &at("same")), "");
        assert_eq!(refused(&guard, &at("data/new/deeper")), "");
        assert!(refused(&guard, &at("etc")).contains("a link to /etc"));
        assert!(refused(&guard, &at("etc/ssh")).contains("a link to /etc/ssh"));
        assert!(refused(&guard, &at("root")).contains("a link to /"));
        assert!(refused(&guard, &at("root/var/lib/swarm")).contains("keeps keys"));
        assert!(refused(&guard, &at("dangling")).contains("cannot be found out"));
        assert!(refused(&guard, &at("data/../data")).contains(".."));
    }

    #[test]
    fn the_daemons_own_directories_are_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().canonicalize().unwrap().join("state");
        let guard =
            Guard::new(SpecPolicy::everything(), std::slice::from_ref(&state), &state.join("sock"));
        assert_eq!(refused(&guard, &state.join("sock")), "");
        assert!(refused(&guard, &state.join("raft")).contains("keeps keys"));
        assert!(refused(&guard, Path::new("/var/lib/swarm/agent")).contains("keeps keys"));
        assert_eq!(refused(&guard, Path::new("/var/lib/docker")), "");
    }

    #[test]
    fn the_nodes_own_policy_is_named() {
        let mut policy = SpecPolicy::everything();
        policy.bind_mounts = vec!["/srv".to_owned()];
        let guard = Guard::new(policy, &[], Path::new(""));
        let text = refused(&guard, Path::new("/opt/data"));
        assert!(text.contains("the policy of this node"), "{text}");
        assert_eq!(refused(&guard, Path::new("/srv")), "");
    }
}
