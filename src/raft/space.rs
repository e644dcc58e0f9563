//! Room on the disk: looked at before anything is accepted, because sled cannot be asked to stop in
//! the middle of a write.
//!
//! Under [`REFUSE_BELOW`] proposals are refused in words. Under [`RELEASE_BELOW`] the ballast is
//! given back, so that votes, purges and an operator have room; it is set aside again when there is
//! plenty.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::env::{Device, Env, Scope};

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
    device: Arc<dyn Device>,
    dir: PathBuf,
    ballast: PathBuf,
    lack: Mutex<Option<String>>,
    free: AtomicU64,
}

impl Space {
    pub(super) fn new(dir: &Path, env: &Env) -> Self {
        let device = Arc::clone(&env.device);
        let ballast = dir.join("ballast");
        Self {
            device,
            dir: dir.to_owned(),
            ballast,
            lack: Mutex::default(),
            free: AtomicU64::new(u64::MAX),
        }
    }

    fn holds_ballast(&self) -> bool {
        self.device.length(&self.ballast) == Some(BALLAST)
    }

    /// Why nothing can be accepted now, in words; `None` if there is room.
    pub(super) fn lack(&self) -> Option<String> {
        self.lack.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that were free at the last look.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Looks again and again, until cancelled.
    pub(super) async fn watch(self: Arc<Self>, env: Env, scope: Scope) {
        loop {
            let me = Arc::clone(&self);
            scope.blocking(move || me.look()).await;
            env.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Looks now.
    pub(super) fn look(&self) {
        let free = match self.device.free_space(&self.dir) {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "the room on the disk is not known");
                return;
            }
        };
        self.judge(free);
    }

    fn judge(&self, free: u64) {
        self.free.store(free, Ordering::Relaxed);
        let is_held = self.holds_ballast();
        let changed = match free {
            0..RELEASE_BELOW if is_held => self.device.remove(&self.ballast),
            HOLD_ABOVE.. if !is_held => self.device.set_aside(&self.ballast, BALLAST),
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
        let space = Space::new(dir.path(), &Env::system());
        space.judge(1 << 40);
        assert_eq!(space.lack(), None);
        assert!(space.holds_ballast());
        space.judge(40 << 20);
        assert!(space.lack().unwrap().contains("40 MiB are free"));
        assert!(space.holds_ballast());
        space.judge(1 << 20);
        assert!(!space.holds_ballast(), "given back");
        space.judge(100 << 20);
        assert_eq!(space.lack(), None);
        assert!(!space.holds_ballast());
        space.judge(1 << 40);
        assert!(space.holds_ballast());
    }
}
