//! Backups: a state in one file, sealed with a passphrase.
//!
//! ```text
//!   [magic: 8][length: 4][header: JSON][(length: 4, sealed piece)…][SHA-256 of all that is before it: 32]
//!   content of the pieces = a snapshot (`codec`)
//!   a piece's seal is bound to the header, its number and whether it is the last
//! ```
//!
//! The digest tells damage from a wrong passphrase, without the passphrase. The header can be read by
//! anybody: it says which cluster, when, and how large, and how the passphrase becomes a key.

use serde::{Deserialize, Serialize};

use super::codec::{self, Stamp};
use super::types::{LogId, SnapshotMeta, StoredMembership};
use crate::domain::{ClusterId, Timestamp, base64};
use crate::env::Entropy;
use crate::env::seal::{self, Hasher, SealKey};
use crate::state::State;

const MAGIC: &[u8; 8] = b"swmbak1\n";
const FORMAT: u32 = 1;
const PIECE: usize = 1 << 20;
const DIGEST: usize = 32;
/// Rounds of PBKDF2-HMAC-SHA-256 (OWASP's figure of 2023): a guess costs a tenth of a second.
const ROUNDS: u32 = 600_000;
/// Most rounds that are done for a file that asks for them.
const ROUNDS_MAX: u32 = 10_000_000;
/// Fewest bytes of a passphrase.
pub const PASSPHRASE_MIN: usize = 12;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// The number of the format.
    pub format: u32,
    /// The cluster.
    #[serde(rename = "ClusterID")]
    pub cluster: ClusterId,
    /// When it was made.
    pub created: Timestamp,
    /// The last entry that it has.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Nodes, managers among them.
    pub nodes: usize,
    /// Managers.
    pub managers: usize,
    /// Services.
    pub services: usize,
    /// Secrets.
    pub secrets: usize,
    /// Configs.
    pub configs: usize,
    /// How often the passphrase is hashed.
    pub rounds: u32,
    /// What the passphrase is hashed with, base 64.
    pub salt: String,
}

/// Why a backup cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Too easy to guess.
    #[error(
        "the passphrase is too short: it needs at least {PASSPHRASE_MIN} characters, since it opens every secret of the swarm"
    )]
    Passphrase,
    /// No cluster yet.
    #[error("there is nothing to back up yet: this manager does not have the swarm's state")]
    Empty,
    /// Another file.
    #[error("this is not a backup of a swarm")]
    Foreign,
    /// Written by a newer release.
    #[error("this backup has format {0}, this release knows {FORMAT}: use the newer release")]
    Newer(u32),
    /// Not what was written.
    #[error("this backup is damaged: {0}; use another one")]
    Damaged(String),
    /// The passphrase does not open it.
    #[error("the passphrase does not open this backup")]
    WrongPassphrase,
}

/// Writes a state as a backup. Takes a tenth of a second for the passphrase.
///
/// # Errors
/// When there is no cluster in the state, or the passphrase is too short.
pub fn write(
    state: &State,
    passphrase: &[u8],
    now: Timestamp,
    entropy: &(dyn Entropy + 'static),
) -> Result<(Summary, Vec<u8>), ArchiveError> {
    if passphrase.len() < PASSPHRASE_MIN {
        return Err(ArchiveError::Passphrase);
    }
    let cluster = state.cluster.as_ref().ok_or(ArchiveError::Empty)?;
    let salt = entropy.id();
    let summary = Summary {
        format: FORMAT,
        cluster: cluster.id,
        created: now,
        index: state.position.index,
        term: state.position.term,
        nodes: state.nodes.values().count(),
        managers: state.managers().count(),
        services: state.services.values().filter(|service| !service.removing).count(),
        secrets: state.secrets.values().count(),
        configs: state.configs.values().count(),
        rounds: ROUNDS,
        salt: base64::encode(&salt),
    };
    let damaged = |error: &dyn std::fmt::Display| ArchiveError::Damaged(error.to_string());
    let header = serde_json::to_vec(&summary).map_err(|error| damaged(&error))?;
    let content = codec::encode_snapshot(&meta(state), state).map_err(|error| damaged(&error))?;
    let key = SealKey::new(&seal::stretch(passphrase, &salt, ROUNDS));
    let mut out = MAGIC.to_vec();
    put(&mut out, &header)?;
    let last = content.len().div_ceil(PIECE).saturating_sub(1);
    for (number, piece) in content.chunks(PIECE).enumerate() {
        put(&mut out, &key.seal(entropy, &purpose(&header, number, last - number), piece))?;
    }
    out.extend_from_slice(&seal::digest(&out));
    Ok((summary, out))
}

/// Reads a backup whole, checking everything.
///
/// # Errors
/// [`ArchiveError`].
pub fn read(content: &[u8], passphrase: &[u8]) -> Result<(Summary, State), ArchiveError> {
    let (summary, header, mut rest) = open(content)?;
    let damaged = |what: &str| ArchiveError::Damaged(what.to_owned());
    let salt = base64::decode(&summary.salt).map_err(ArchiveError::Damaged)?;
    if summary.rounds > ROUNDS_MAX {
        return Err(damaged("its header asks for too much work"));
    }
    let key = SealKey::new(&seal::stretch(passphrase, &salt, summary.rounds));
    let mut plain = Vec::with_capacity(rest.len());
    let mut number = 0;
    while !rest.is_empty() {
        let (sealed, after) = take(rest).ok_or_else(|| damaged("a piece is cut off"))?;
        let piece = key
            .open(&purpose(header, number, after.len()), sealed)
            .map_err(|_| ArchiveError::WrongPassphrase)?;
        plain.extend_from_slice(&piece);
        number += 1;
        rest = after;
    }
    let (_, state) =
        codec::decode_snapshot(&plain).map_err(|error| ArchiveError::Damaged(error.to_string()))?;
    let cluster = state.cluster.as_ref().map(|cluster| cluster.id);
    if cluster != Some(summary.cluster) || state.position.index != summary.index {
        return Err(damaged("its header belongs to another one"));
    }
    Ok((summary, state))
}

/// Reads what a backup says of itself, having checked its digest.
///
/// # Errors
/// [`ArchiveError`].
pub fn summary(content: &[u8]) -> Result<Summary, ArchiveError> {
    open(content).map(|(summary, _, _)| summary)
}

/// Summary, header as it stands there, pieces.
fn open(content: &[u8]) -> Result<(Summary, &[u8], &[u8]), ArchiveError> {
    let damaged = |what: &str| ArchiveError::Damaged(what.to_owned());
    let body = content.strip_prefix(MAGIC).ok_or(ArchiveError::Foreign)?;
    let (header, _) = take(body).ok_or_else(|| damaged("it is cut off"))?;
    // A newer format may end in another way: it is named before anything else is looked at.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Format {
        format: u32,
    }
    if let Ok(Format { format }) = serde_json::from_slice(header)
        && format > FORMAT
    {
        return Err(ArchiveError::Newer(format));
    }
    let end = content.len().checked_sub(DIGEST).ok_or_else(|| damaged("it is cut off"))?;
    let (whole, digest) = content.split_at(end);
    if seal::digest(whole) != *digest {
        return Err(damaged("its checksum is wrong"));
    }
    let body = whole.get(MAGIC.len()..).unwrap_or_default();
    let (header, pieces) = take(body).ok_or_else(|| damaged("it is cut off"))?;
    let summary = serde_json::from_slice(header)
        .map_err(|error| ArchiveError::Damaged(format!("its header: {error}")))?;
    Ok((summary, header, pieces))
}

/// The place of the state in the log, in a group of nobody: who restores it is alone.
fn meta(state: &State) -> SnapshotMeta {
    let at = state.position;
    let id = LogId::from(Stamp { term: at.term, leader: 0, index: at.index });
    SnapshotMeta { last_log_id: Some(id), last_membership: StoredMembership::default() }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ArchiveError> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| ArchiveError::Damaged("a part is too long".to_owned()))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Bound to the header, a piece's number, and whether anything follows it.
fn purpose(header: &[u8], number: usize, rest: usize) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(b"swarm backup\0");
    hasher.update(header);
    hasher.update(&(number as u64).to_le_bytes());
    hasher.update(&[u8::from(rest == 0)]);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEntropy;

    const SECRET: &[u8] = b"correct horse battery";

    #[test]
    fn a_backup_comes_back_whole_and_gives_nothing_away() {
        let state = crate::state::fixtures::small();
        let (summary, file) = write(&state, SECRET, Timestamp(7), &OsEntropy).unwrap();
        assert_eq!(super::summary(&file), Ok(summary.clone()));
        let (read_summary, read_state) = read(&file, SECRET).unwrap();
        assert_eq!(read_summary, summary);
        assert_eq!(read_state.objects().collect::<Vec<_>>(), state.objects().collect::<Vec<_>>());
        assert_eq!(read_state.position, state.position);
        let refused = read(&file, b"incorrect horse battery").map(|_| ());
        assert_eq!(refused, Err(ArchiveError::WrongPassphrase));
        let short = write(&state, b"short", Timestamp(7), &OsEntropy);
        assert_eq!(short.map(|_| ()), Err(ArchiveError::Passphrase));
        let key = state.cluster.as_ref().unwrap().token_key.clone();
        assert!(!file.windows(key.expose().len()).any(|window| window == key.expose()));
    }

    #[test]
    fn damage_is_told_from_a_wrong_passphrase() {
        let state = crate::state::fixtures::small();
        let (_, file) = write(&state, SECRET, Timestamp(7), &OsEntropy).unwrap();
        for at in (0..file.len()).step_by(37) {
            let mut damaged = file.clone();
            damaged[at] ^= 4;
            assert!(super::summary(&damaged).is_err(), "byte {at}");
        }
        for length in (0..file.len()).step_by(41) {
            assert!(super::summary(&file[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(super::summary(b"tar").unwrap_err(), ArchiveError::Foreign);
    }
}
