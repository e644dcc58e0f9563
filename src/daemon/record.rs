//! What a node must know of itself before it can ask anybody: one small file in the state directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::{ClusterId, NodeId, RaftId};
use crate::env::files;

/// The number of this format; a newer one is refused.
const FORMAT: u32 = 1;

/// A node's own memory of its membership. Its role is that of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Record {
    /// The number of the format.
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Where the other nodes reach its port.
    pub advertise: SocketAddr,
    /// Where it listens, when it is a manager.
    pub listen: SocketAddr,
    /// Its raft id, when it is a manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<RaftId>,
    /// The folder of its log, below the state directory, when it is a manager: another one after
    /// each recovery, so that this file says in one write which holds.
    #[serde(default = "Record::first_folder", skip_serializing_if = "is_first_folder")]
    pub raft_folder: String,
    /// Managers it can ask; the ledger keeps newer ones.
    pub managers: Vec<SocketAddr>,
}

fn is_first_folder(folder: &str) -> bool {
    folder == Record::first_folder()
}

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a record.
    #[error(
        "{} is damaged: {reason}; restore it from a backup, or run `swarm leave --force` and join again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file was written by a newer release.
    #[error(
        "{} has format {format}, this release knows {FORMAT}: install the newer release again",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl Record {
    /// A record in today's format.
    #[must_use]
    pub(super) fn new(
        cluster: ClusterId,
        node: NodeId,
        advertise: SocketAddr,
        listen: SocketAddr,
    ) -> Self {
        let (managers, raft_folder) = (Vec::new(), Self::first_folder());
        Self { format: FORMAT, cluster, node, advertise, listen, raft: None, raft_folder, managers }
    }

    /// The folder of a log that was never recovered.
    pub(super) fn first_folder() -> String {
        "raft".to_owned()
    }

    fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("node.json")
    }

    /// Reads the record of a state directory; `None` when the node is in no cluster.
    ///
    /// # Errors
    /// When it is there and cannot be used.
    pub(super) fn load(state_dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = Self::path(state_dir);
        let content = match files::read(&path) {
            Ok(content) => content,
            Err(source) => return Err(RecordError::Io { path, source }),
        };
        let Some(content) = content else { return Ok(None) };
        let record: Self = match serde_json::from_slice(&content) {
            Ok(record) => record,
            Err(error) => return Err(RecordError::Damaged { path, reason: error.to_string() }),
        };
        if record.format > FORMAT {
            return Err(RecordError::Newer { path, format: record.format });
        }
        Ok(Some(record))
    }

    /// Writes the record, durably.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn save(&self, state_dir: &Path) -> Result<(), RecordError> {
        let path = Self::path(state_dir);
        let failed = |source| RecordError::Io { path: path.clone(), source };
        let content = serde_json::to_vec_pretty(self)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        files::private_dir(state_dir).map_err(failed)?;
        files::replace(&path, &content).map_err(failed)
    }

    /// Forgets the membership.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn remove(state_dir: &Path) -> Result<(), RecordError> {
        let path = Self::path(state_dir);
        files::remove(&path).map_err(|source| RecordError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let addr = SocketAddr::from(([10, 0, 0, 1], 2377));
        let mut record = Record::new(
            ClusterId::from_bytes([1; 16]),
            NodeId::from_bytes([2; 16]),
            addr,
            SocketAddr::from(([0, 0, 0, 0], 2377)),
        );
        record.managers = vec![addr];
        record
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), None);
        record().save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Some(record()));
        let old = std::fs::read_to_string(dir.path().join("node.json")).unwrap();
        assert!(!old.contains("raft-folder"), "as it always was: {old}");
        let recovered = Record { raft_folder: "raft-7".to_owned(), ..record() };
        recovered.save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Some(recovered));
        Record::remove(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn damage_and_newer_formats_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.json"), "{").unwrap();
        assert!(matches!(Record::load(dir.path()), Err(RecordError::Damaged { .. })));
        Record { format: 9, ..record() }.save(dir.path()).unwrap();
        assert!(matches!(Record::load(dir.path()), Err(RecordError::Newer { format: 9, .. })));
    }
}
