//! Room on the disk: looked at before anything is accepted, because sled cannot be asked to stop in
//! the middle of a write.
//!
//! Under [`REFUSE_BELOW`] proposals are refused in words. Under [`RELEASE_BELOW`] the ballast is
//! given back, so that votes, purges and an operator have room; it is set aside again when there is
//! plenty.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::files::{self, Ballast};
use crate::env::{Env, Scope};

/// Free bytes below which nothing is accepted: two entries of the largest kind, a snapshot, and what
/// sled needs to move segments.
const REFUSE_BELOW: u64 = 64 << 20;
const RELEASE_BELOW: u64 = 16 << 20;
const HOLD_ABOVE: u64 = 256 << 20;
const BALLAST: u64 = 32 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the room on the disk.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    ballast: Ballast,
    lack: Mutex<Option<String>>,
}

impl Space {
    pub(super) fn new(dir: &Path) -> Self {
        let ballast = Ballast::new(dir.join("ballast"), BALLAST);
        Self { dir: dir.to_owned(), ballast, lack: Mutex::default() }
    }

    /// Why nothing can be accepted now, in words; `None` if there is room.
    pub(super) fn lack(&self) -> Option<String> {
        self.lack.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks again and again, until cancelled.
    pub(super) async fn watch(self: std::sync::Arc<Self>, env: Env, scope: Scope) {
        loop {
            let me = std::sync::Arc::clone(&self);
            scope.blocking(move || me.look()).await;
            env.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Looks now.
    pub(super) fn look(&self) {
        let free = match files::free_space(&self.dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the room on the disk is not known");
                return;
            }
        };
        self.judge(free);
    }

    fn judge(&self, free: u64) {
        let is_held = self.ballast.is_held();
        let changed = match free {
            0..RELEASE_BELOW if is_held => self.ballast.release(),
            HOLD_ABOVE.. if !is_held => self.ballast.hold(),
            _ => Ok(()),
        };
        if let Err(error) = changed {
            tracing::warn!(%error, "the ballast of the raft log could not be changed");
        }
        let lack = (free < REFUSE_BELOW).then(|| {
            format!(
                "{} MiB are free on the file system of {}, and {} are needed; make room there",
                free >> 20,
                self.dir.display(),
                REFUSE_BELOW >> 20
            )
        });
        let mut known = self.lack.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && lack.is_some() {
            tracing::error!(lack, "nothing is written to the swarm any more: the disk is full");
        }
        *known = lack;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_decides_what_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path());
        space.judge(1 << 40);
        assert_eq!(space.lack(), None);
        assert!(space.ballast.is_held());
        space.judge(40 << 20);
        assert!(space.lack().unwrap().contains("40 MiB are free"));
        assert!(space.ballast.is_held());
        space.judge(1 << 20);
        assert!(!space.ballast.is_held(), "given back");
        space.judge(100 << 20);
        assert_eq!(space.lack(), None);
        assert!(!space.ballast.is_held());
        space.judge(1 << 40);
        assert!(space.ballast.is_held());
    }
}
