//! What can go wrong with a member of the group.

use std::io;
use std::path::PathBuf;

use super::store::ProposeError;

/// Why a member does not start, or the group does not change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is on the disk is not what was written: this member could vote against what it
    /// acknowledged before, so it must not take part any more.
    #[error(
        "the raft data in {} is damaged: {what}; to protect the swarm this manager takes no part in \
         it any more. On another manager run `swarm node replace` for this node, then here \
         `swarm leave --force`, and join again",
        dir.display()
    )]
    Corrupt {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer release: nothing is wrong with it.
    #[error(
        "the raft data in {} was written by a newer release: {what}. Nothing is lost: install that \
         release again and start the daemon; until then this manager takes no part. (Without that \
         release: `swarm node replace` for this node on another manager, then here `swarm leave \
         --force`, and join again)",
        dir.display()
    )]
    Newer {
        /// The folder.
        dir: PathBuf,
        /// What cannot be read.
        what: String,
    },
    /// The data was sealed with another key.
    #[error(
        "the raft data cannot be read with this key; restore the key file that belongs to it, or \
         run `swarm leave --force` and join again"
    )]
    Key,
    /// The data is another member's.
    #[error(
        "the raft data is that of member {found}, not {expected}; restore the state directory as a \
         whole, or run `swarm leave --force` and join again"
    )]
    Foreign {
        /// Who we are.
        expected: u64,
        /// Whose data it is.
        found: u64,
    },
    /// Another process uses the data.
    #[error("the raft data in {} is in use by another process: is a daemon running already?", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("could not open {what}: {source}")]
    Io {
        /// What was opened.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// This member is in a group already.
    #[error("this node is already part of a swarm")]
    Begun,
    /// The group's last voter cannot go.
    #[error("the last manager cannot be removed; use `swarm leave --force` to end the swarm")]
    LastVoter,
    /// Only the leader changes the group.
    #[error("this manager does not lead")]
    NotLeader,
    /// Another change of the group is on its way.
    #[error("the group of managers is changing already; try again")]
    Busy,
    /// The change makes no sense to Raft.
    #[error("the group of managers cannot change so: {0}")]
    Membership(String),
    /// The first state was not accepted.
    #[error("could not write to the swarm: {0}")]
    Propose(#[from] ProposeError),
    /// The member has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}

impl Error {
    pub(super) fn io(what: &'static str, source: io::Error) -> Self {
        Self::Io { what, source }
    }
}
