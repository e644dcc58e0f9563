//! The files of a task: resolver, secrets, configs. They lie in memory (`/run`), below a directory
//! that only root may enter, and are bind-mounted into the container by `runtime::spec`.
//!
//! Names are made of ids only, so no name of a user ever becomes a path here. Everything blocks.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::worker::Materials;
use crate::domain::TaskId;
use crate::domain::container::{DnsConfig, FileTarget};
use crate::env::files::private_dir;
use crate::runtime::NetworkPlan;
use crate::runtime::spec::file_names;

/// Docker's mode of a secret or config that names none.
const MODE_DEFAULT: u32 = 0o444;

/// Where the files of tasks lie.
#[derive(Clone, Debug)]
pub(super) struct TaskFiles {
    base: PathBuf,
}

impl TaskFiles {
    /// Below the run directory of the node.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { base: run_dir.join("tasks") }
    }

    /// The directory of a task.
    pub(super) fn dir(&self, task: TaskId) -> PathBuf {
        self.base.join(task.to_string())
    }

    /// The directory of all.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Writes all files of a task; again, if some are there already.
    pub(super) fn write(
        &self,
        materials: &Materials,
        network: Option<&NetworkPlan>,
    ) -> io::Result<()> {
        private_dir(&self.base)?;
        let dir = self.dir(materials.task.id);
        let container = &materials.spec.task_template.container_spec;
        private_dir(&dir)?;
        if let Some(network) = network {
            let text = resolv_conf(network, container.dns_config.as_ref());
            write_file(&dir.join("resolv.conf"), text.as_bytes(), &owner(None)?)?;
        }
        let secrets = dir.join("secrets");
        private_dir(&secrets)?;
        let names = file_names(container.secrets.iter().map(|it| it.secret_id.to_string()));
        for (reference, name) in container.secrets.iter().zip(names) {
            let Some(secret) =
                materials.secrets.iter().find(|secret| secret.id == reference.secret_id)
            else {
                continue;
            };
            let owner = owner(reference.file.as_ref())?;
            write_file(&secrets.join(name), secret.data.expose(), &owner)?;
        }
        let configs = dir.join("configs");
        private_dir(&configs)?;
        let names = file_names(container.configs.iter().map(|it| it.config_id.to_string()));
        for (reference, name) in container.configs.iter().zip(names) {
            let Some(config) =
                materials.configs.iter().find(|config| config.id == reference.config_id)
            else {
                continue;
            };
            let owner = owner(reference.file.as_ref())?;
            write_file(&configs.join(name), &config.data, &owner)?;
        }
        Ok(())
    }

    /// The tasks that have files.
    pub(super) fn tasks(&self) -> BTreeSet<TaskId> {
        let Ok(entries) = fs::read_dir(&self.base) else { return BTreeSet::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes the files of a task; success if there are none.
    pub(super) fn remove(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_dir_all(self.dir(task)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Whose file it is and who may read it.
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

fn owner(file: Option<&FileTarget>) -> io::Result<Owner> {
    let number = |text: &str, what: &str| match text {
        "" => Ok(0),
        text => text.parse::<u32>().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{what} {text:?} is no number"))
        }),
    };
    Ok(match file {
        None => Owner { uid: 0, gid: 0, mode: MODE_DEFAULT },
        Some(file) => Owner {
            uid: number(&file.uid, "the UID of a secret or config")?,
            gid: number(&file.gid, "the GID of a secret or config")?,
            // Reading, writing, executing: whatever else a mode can say is no business of a task's file.
            mode: if file.mode == 0 { MODE_DEFAULT } else { file.mode & 0o777 },
        },
    })
}

/// Never readable by more than it shall be, not even for a moment. The file keeps its inode if it is
/// there: a container may have it mounted. A link in its place is not followed, and what is no file of
/// ours alone is not written to.
fn write_file(path: &Path, content: &[u8], owner: &Owner) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
    let mut file: File = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        let text = format!("{} is there and is no file of this task", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    // What was readable by others must not be while it gets another content.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    file.write_all(content)?;
    if (owner.uid, owner.gid) != (0, 0) {
        std::os::unix::fs::fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(owner.mode))
}

/// The node's gateway answers names; the user's own servers take its place where there are some.
fn resolv_conf(network: &NetworkPlan, dns: Option<&DnsConfig>) -> String {
    let ours = DnsConfig::default();
    let dns = dns.unwrap_or(&ours);
    let mut text = String::new();
    if dns.nameservers.is_empty() {
        text.push_str(&format!("nameserver {}\n", network.gateway));
    }
    for server in &dns.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.search.is_empty() {
        text.push_str(&format!("search {}\n", dns.search.join(" ")));
    }
    if dns.options.is_empty() {
        text.push_str("options ndots:1 timeout:1 attempts:2\n");
    } else {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::domain::network::Subnet;

    fn network() -> NetworkPlan {
        NetworkPlan {
            name: "swarm-default".to_owned(),
            bridge: "ov4097".to_owned(),
            subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
            gateway: Ipv4Addr::new(10, 0, 0, 2),
            mtu: 1450,
        }
    }

    #[test]
    fn resolver_is_the_gateway_unless_the_user_names_servers() {
        let ours = "nameserver 10.0.0.2\noptions ndots:1 timeout:1 attempts:2\n";
        assert_eq!(resolv_conf(&network(), None), ours);
        let own = DnsConfig {
            nameservers: vec!["9.9.9.9".to_owned()],
            search: vec!["a".to_owned(), "b".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        let text = "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n";
        assert_eq!(resolv_conf(&network(), Some(&own)), text);
    }

    #[test]
    fn file_has_its_mode_and_is_written_again_in_place() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_file(&path, b"one", &Owner { uid: 0, gid: 0, mode: 0o400 }).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_file(&path, b"three", &Owner { uid: 0, gid: 0, mode: 0o440 }).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.ino(), meta.mode() & 0o7777), (inode, 0o440));
        assert_eq!(fs::read(&path).unwrap(), b"three");
    }

    #[test]
    fn wrong_owner_is_refused_in_words() {
        let file = FileTarget { uid: "root".to_owned(), ..FileTarget::default() };
        let error = owner(Some(&file)).err().unwrap();
        assert!(error.to_string().contains("\"root\" is no number"));
    }
}
