//! Snapshots on the disk: whole files, sealed in pieces, verified by reading them back.
//!
//! ```text
//!   snap-<index>   [magic][(length: 4, sealed piece)…]
//!   a piece's seal is bound to its number and to whether it is the last
//! ```
//!
//! The two newest are kept. What they hold is `codec`'s business.

use std::fmt::Debug;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Error;
use super::codec::{self, CodecError};
use super::types::SnapshotMeta;
use crate::env::Env;
use crate::env::seal::SealKey;
use crate::state::State;

const MAGIC: &[u8; 8] = b"swmsnap1";
const PIECE: usize = 1 << 20;
const KEPT: usize = 2;

/// A folder of snapshots.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    dir: PathBuf,
    key: SealKey,
    env: Env,
}

/// A snapshot that was read and verified.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) meta: SnapshotMeta,
    pub(super) state: State,
    pub(super) bytes: Bytes,
}

impl Snapshots {
    /// The snapshots in a folder, which is made if it is not there.
    pub(super) fn open(dir: PathBuf, key: &[u8; 32], env: &Env) -> Result<Self, Error> {
        let made = env.device.private_dir(&dir);
        made.map_err(|error| Error::io("the folder of snapshots", error))?;
        let key = SealKey::new(key).derive(b"swarm raft snapshot");
        Ok(Self { dir, key, env: env.clone() })
    }

    /// Writes a snapshot durably, reads it back from the device, and drops the oldest ones.
    pub(super) fn write(&self, index: u64, content: &[u8]) -> io::Result<()> {
        let path = self.dir.join(format!("snap-{index:020}"));
        let Env { device, entropy, .. } = &self.env;
        device.replace(&path, &mut |file| {
            let mut out = io::BufWriter::new(file);
            out.write_all(MAGIC)?;
            let last = content.len().div_ceil(PIECE).saturating_sub(1);
            for (number, piece) in content.chunks(PIECE).enumerate() {
                let sealed = self.key.seal(&**entropy, &purpose(number, last - number), piece);
                let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
                out.write_all(&length.to_le_bytes())?;
                out.write_all(&sealed)?;
            }
            out.flush()
        })?;
        let written = self.open_file(&device.read_back(&path)?);
        if written.as_deref() != Some(content) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is not what was written to it: check the disk", path.display()),
            ));
        }
        let mut all = device.list(&self.dir, "snap-")?;
        all.retain(|path| path.extension().is_none());
        let surplus = all.len().saturating_sub(KEPT);
        all.iter().take(surplus).try_for_each(|path| device.remove(path))
    }

    /// The newest snapshot that is whole.
    pub(super) fn newest(&self) -> Result<Option<Loaded>, Error> {
        let failed = |error| Error::io("a snapshot", error);
        let device = &self.env.device;
        let mut all = device.list(&self.dir, "snap-").map_err(failed)?;
        all.retain(|path| path.extension().is_none());
        let mut damage = None;
        for path in all.iter().rev() {
            let content = device.read(path).map_err(failed)?.unwrap_or_default();
            match self.decode(path, &content) {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(Error::Corrupt { what, .. }) => {
                    tracing::error!(what, "skipped a damaged snapshot");
                    damage = Some(what);
                }
                // An older one is no way out: what came after it is not to be forgotten.
                Err(error) => return Err(error),
            }
        }
        let dir = self.dir.clone();
        damage.map_or(Ok(None), |what| Err(Error::Corrupt { dir, what }))
    }

    fn decode(&self, path: &Path, content: &[u8]) -> Result<Loaded, Error> {
        let (name, dir) = (path.display(), self.dir.clone());
        let Some(bytes) = self.open_file(content) else {
            let what = format!("{name} is damaged, or was sealed with another key");
            return Err(Error::Corrupt { dir, what });
        };
        let (meta, state) = codec::decode_snapshot(&bytes).map_err(|error| {
            let what = format!("{name}: {error}");
            match error {
                CodecError::Format { .. } => Error::Newer { dir, what },
                CodecError::Damaged { .. } => Error::Corrupt { dir, what },
            }
        })?;
        Ok(Loaded { meta, state, bytes: bytes.into() })
    }

    fn open_file(&self, content: &[u8]) -> Option<Vec<u8>> {
        let mut rest = content.strip_prefix(MAGIC)?;
        let mut out = Vec::with_capacity(rest.len());
        let mut number = 0;
        while !rest.is_empty() {
            let (length, after) = rest.split_at_checked(4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?);
            let (sealed, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            let piece = self.key.open(&purpose(number, after.len()), sealed).ok()?;
            out.extend_from_slice(&piece);
            number += 1;
            rest = after;
        }
        Some(out)
    }
}

/// Bound to a piece's number and to whether anything follows it.
fn purpose(number: usize, rest: usize) -> [u8; 9] {
    let mut purpose = [0; 9];
    purpose[..8].copy_from_slice(&(number as u64).to_le_bytes());
    purpose[8] = u8::from(rest == 0);
    purpose
}
