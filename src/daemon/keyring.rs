//! The keys of a manager on its disk, and the lock before them.
//!
//! ```text
//!   unlock key (replicated, kept by people)
//!      └─ opens ─▶ raft.key: the data key of this manager
//!                     ├─ opens ─▶ raft/: log and snapshots
//!                     └─ opens ─▶ certificates/: the private key (a key derived from the data key)
//! ```
//!
//! So another unlock key means one small file that is replaced as a whole: whenever the power goes,
//! either the old key opens everything or the new one does. While managers do not lock themselves,
//! `raft.key` holds the data key as it is, and both files are read by whoever can read them.
//!
//! ```text
//!   raft.key   [magic: 8][0 plain, 1 locked][generation: 8][data key, sealed if locked][digest: 8]
//!              or, while it was never locked, the 32 bytes of the data key: as releases without a
//!              lock read and write it
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;

use crate::domain::{Autolock, UnlockKey};
use crate::env::seal::{self, SealKey};
use crate::env::{Env, files};
use crate::identity::{CertificateDir, Keeping};

const MAGIC: &[u8; 8] = b"swmkey1\n";
const PLAIN: u8 = 0;
const LOCKED: u8 = 1;
const DIGEST: usize = 8;
/// What the seal of the data key is bound to.
const PURPOSE: &[u8] = b"swarm data key";
/// What the key of the private key's seal is derived for.
const NODE_KEY: &[u8] = b"swarm node private key";

/// The keys of this node. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    path: PathBuf,
    certificates: CertificateDir,
    env: Env,
    opened: Arc<Mutex<Option<Opened>>>,
}

/// The data key, and what it lies behind.
#[derive(Clone)]
struct Opened {
    data_key: [u8; 32],
    lock: Autolock,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.lock)
    }
}

/// What lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No key: this node was never a manager.
    Nothing,
    /// The key, known now.
    Open,
    /// A key that waits for its unlock key.
    Locked,
}

/// Why a lock did not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnlockError {
    /// The key does not fit.
    #[error("the unlock key does not open this manager's data")]
    WrongKey,
    /// Something else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The file, read.
enum KeyFile {
    Plain { generation: u64, data_key: [u8; 32] },
    Locked { generation: u64, sealed: Vec<u8> },
}

impl Keyring {
    /// The keys in a state directory. Touches nothing yet.
    pub(super) fn new(state_dir: &Path, env: &Env) -> Self {
        Self {
            path: state_dir.join("raft.key"),
            certificates: CertificateDir::new(state_dir),
            env: env.clone(),
            opened: Arc::default(),
        }
    }

    /// The node's certificate and private key.
    pub(super) fn certificates(&self) -> CertificateDir {
        self.certificates.clone()
    }

    /// Reads what can be read without an unlock key.
    pub(super) fn look(&self) -> anyhow::Result<Found> {
        Ok(match self.read()? {
            None => Found::Nothing,
            Some(KeyFile::Plain { generation, data_key }) => {
                let lock = Autolock { generation, key: None };
                self.know(Opened { data_key, lock });
                Found::Open
            }
            Some(KeyFile::Locked { .. }) => Found::Locked,
        })
    }

    /// Opens what is locked. A wrong key changes nothing.
    pub(super) fn unlock(&self, key: &UnlockKey) -> Result<(), UnlockError> {
        let Some(KeyFile::Locked { generation, sealed }) = self.read()? else {
            return Err(anyhow::anyhow!("{} is not locked", self.path.display()).into());
        };
        let opened = SealKey::new(key.expose())
            .open(&purpose(generation), &sealed)
            .map_err(|_| UnlockError::WrongKey)?;
        let data_key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| self.damaged())?;
        self.know(Opened { data_key, lock: Autolock { generation, key: Some(key.clone()) } });
        Ok(())
    }

    /// The data key; made, and kept as `lock` says, where there is none.
    pub(super) fn data_key(&self, lock: &Autolock) -> anyhow::Result<[u8; 32]> {
        if let Some(opened) = &*self.opened() {
            return Ok(opened.data_key);
        }
        match self.look()? {
            Found::Nothing => {
                let made = Opened { data_key: self.env.entropy.key(), lock: lock.clone() };
                self.write(&made)?;
                self.know(made.clone());
                Ok(made.data_key)
            }
            Found::Open | Found::Locked => {
                let opened = self.opened().as_ref().map(|opened| opened.data_key);
                opened.ok_or_else(|| anyhow::anyhow!("{} is locked", self.path.display()))
            }
        }
    }

    /// Keeps the keys as the cluster wants it. Does nothing where they are kept so, or where the
    /// cluster's wish is older than the one that was followed last.
    ///
    /// The private key is sealed before its key's key is locked away, and opened after: what is on
    /// the disk at any moment is opened by the old unlock key or by the new one.
    pub(super) fn follow(&self, wanted: &Autolock) -> anyhow::Result<()> {
        let mut slot = self.opened();
        let Some(opened) = slot.as_mut() else { return Ok(()) };
        if wanted.generation < opened.lock.generation {
            return Ok(());
        }
        if wanted.key.is_some() {
            self.certificates.keep(Keeping::Sealed)?;
        }
        if *wanted != opened.lock {
            let changed = Opened { data_key: opened.data_key, lock: wanted.clone() };
            self.write(&changed)?;
            *opened = changed;
            tracing::info!(
                generation = wanted.generation,
                is_locked = wanted.key.is_some(),
                "the key of this manager's data is kept in another way"
            );
        }
        if wanted.key.is_none() {
            self.certificates.keep(Keeping::Plain)?;
        }
        Ok(())
    }

    /// Forgets the data key, and with it the data: this node is no manager any more. The private
    /// key of the node is kept, as it is.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        let mut slot = self.opened();
        if slot.take().is_some() {
            self.certificates.keep(Keeping::Plain)?;
        }
        self.certificates.release();
        files::remove(&self.path).with_context(|| self.failed())
    }

    fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the data key, and lets the private key be read and written by it.
    fn know(&self, opened: Opened) {
        let keeping = match opened.lock.key {
            Some(_) => Keeping::Sealed,
            None => Keeping::Plain,
        };
        self.certificates.hold(SealKey::new(&opened.data_key).derive(NODE_KEY), keeping);
        *self.opened() = Some(opened);
    }

    fn read(&self) -> anyhow::Result<Option<KeyFile>> {
        let Some(content) = files::read(&self.path).with_context(|| self.failed())? else {
            return Ok(None);
        };
        if let Ok(data_key) = <[u8; 32]>::try_from(content.as_slice()) {
            return Ok(Some(KeyFile::Plain { generation: 0, data_key }));
        }
        parse(&content).map(Some).ok_or_else(|| self.damaged())
    }

    fn write(&self, opened: &Opened) -> anyhow::Result<()> {
        let Opened { data_key, lock } = opened;
        if *lock == Autolock::default() {
            return files::replace(&self.path, data_key).with_context(|| self.failed());
        }
        let mut content = MAGIC.to_vec();
        content.push(if lock.key.is_some() { LOCKED } else { PLAIN });
        content.extend_from_slice(&lock.generation.to_le_bytes());
        match &lock.key {
            Some(key) => {
                let seal = SealKey::new(key.expose());
                let purpose = purpose(lock.generation);
                content.extend(seal.seal(&*self.env.entropy, &purpose, data_key));
            }
            None => content.extend_from_slice(data_key),
        }
        content.extend_from_slice(&seal::digest(&content)[..DIGEST]);
        files::replace(&self.path, &content).with_context(|| self.failed())
    }

    fn failed(&self) -> String {
        format!("cannot use the key of the manager's data, {}", self.path.display())
    }

    fn damaged(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "the key of the manager's data, {}, is damaged: restore the state directory from a backup, or run `swarm leave --force` and join again",
            self.path.display()
        )
    }
}

/// Bound to the generation, so that the number cannot be changed without the key.
fn purpose(generation: u64) -> Vec<u8> {
    [PURPOSE, &generation.to_le_bytes()].concat()
}

fn parse(content: &[u8]) -> Option<KeyFile> {
    let (body, digest) = content.split_at_checked(content.len().checked_sub(DIGEST)?)?;
    if seal::digest(body)[..DIGEST] != *digest {
        return None;
    }
    let (kind, rest) = body.strip_prefix(MAGIC)?.split_first()?;
    let (generation, payload) = rest.split_at_checked(8)?;
    let generation = u64::from_le_bytes(generation.try_into().ok()?);
    match *kind {
        PLAIN => Some(KeyFile::Plain { generation, data_key: payload.try_into().ok()? }),
        LOCKED => Some(KeyFile::Locked { generation, sealed: payload.to_vec() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
