//! What a node must not forget: its assignments, what it last reported, the managers it knows.
//!
//! An append file of checksummed records; a set acts only after its record is on the disk
//! (fdatasync). A torn tail is cut off when the file is opened, and a file that has grown is written
//! anew. Secrets and credentials of registries are sealed with a key that lies in memory only
//! (`run_dir`), so that a disk gives none away: after a reboot they come from a manager again.
//!
//! ```text
//!   file    magic, records…
//!   record  length u32 · CRC-32 of the rest u32 · kind u8 · payload
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec;
use crate::domain::assignment::{AssignmentDiff, Item};
use crate::domain::container::{PullOptions, RegistryAuth};
use crate::domain::secret::Sensitive;
use crate::domain::{AssignmentSet, NodeId, Secret, ServiceSpec, SpecVersion, TaskId, TaskStatus};
use crate::env::{Appending, Canary, Entropy, Env, files, seal::SealKey};

const MAGIC: &[u8; 8] = b"swarmlg1";
const HEAD: usize = 8;
/// Larger records than any set of a node; anything beyond is damage.
const RECORD_MAX: usize = 256 << 20;
/// The file is written anew when it has grown by this much and to several times its content.
const SLACK: u64 = 1 << 20;
const PURPOSE: &[u8] = b"secret in the agent's ledger";
const PURPOSE_AUTH: &[u8] = b"registry credentials in the agent's ledger";

const KIND_DIFF: u8 = 1;
const KIND_STATUS: u8 = 2;
const KIND_MANAGERS: u8 = 3;
/// The node it belongs to; the first record.
const KIND_NODE: u8 = 4;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the agent's ledger {path}: {source}")]
pub struct LedgerError {
    path: PathBuf,
    source: io::Error,
}

/// What the ledger knew when it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// The assignments.
    pub(super) set: AssignmentSet,
    /// The last status of each task of the set.
    pub(super) statuses: BTreeMap<TaskId, TaskStatus>,
    /// Managers.
    pub(super) managers: Vec<(NodeId, SocketAddr)>,
}

/// Something to write down.
#[derive(Clone, Debug)]
pub(super) enum Note {
    /// The assignments changed.
    Diff(AssignmentDiff),
    /// A task's status changed.
    Status(TaskId, TaskStatus),
    /// The managers changed.
    Managers(Vec<(NodeId, SocketAddr)>),
}

/// The open ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    node: NodeId,
    env: Env,
    /// Opened anew with each new file.
    file: Option<Box<dyn Appending>>,
    key: SealKey,
    memory: Memory,
    len: u64,
    compact_at: u64,
    damaged: bool,
}

impl Ledger {
    /// Opens or creates the ledger of a node; that of another node (of an earlier life of this
    /// machine) is as good as none. `key_file` should be on a file system in memory.
    pub(super) fn open(
        node: NodeId,
        path: &Path,
        key_file: &Path,
        env: &Env,
    ) -> Result<Self, LedgerError> {
        let fail = |source| LedgerError { path: path.to_owned(), source };
        let key = key(key_file, &*env.entropy).map_err(fail)?;
        let bytes = env.device.read(path).map_err(fail)?.unwrap_or_default();
        let mut ledger = Self {
            path: path.to_owned(),
            node,
            env: env.clone(),
            file: None,
            key,
            memory: Memory::default(),
            len: 0,
            compact_at: 0,
            damaged: false,
        };
        let good = ledger.replay(&bytes);
        if good < bytes.len() {
            tracing::warn!(lost = bytes.len() - good, "the ledger's tail was torn and is cut off");
        }
        ledger.rewrite().map_err(fail)?;
        Ok(ledger)
    }

    /// What is known now.
    pub(super) const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Writes notes in order, and flushes them to the disk if one of them changes the assignments.
    /// After an error nothing of them counts, and the next write starts with a new file.
    pub(super) fn write(&mut self, notes: Vec<Note>) -> Result<(), LedgerError> {
        let written = self.append(notes);
        self.damaged = written.is_err();
        written.map_err(|source| LedgerError { path: self.path.clone(), source })
    }

    fn append(&mut self, notes: Vec<Note>) -> io::Result<()> {
        if self.damaged || self.file.is_none() {
            self.rewrite()?;
        }
        let mut bytes = Vec::new();
        for note in &notes {
            self.encode(note, &mut bytes);
        }
        let is_due = notes.iter().any(|note| matches!(note, Note::Diff(_)));
        if let Some(file) = &mut self.file {
            file.append(&bytes)?;
            if is_due && !self.env.faults.has(Canary::LedgerNotSynced) {
                file.sync()?;
            }
        }
        self.len += bytes.len() as u64;
        for note in notes {
            self.memory.take(note);
        }
        if self.len > self.compact_at {
            self.rewrite()?;
        }
        Ok(())
    }

    /// Reads what is whole; returns how many bytes that is.
    fn replay(&mut self, bytes: &[u8]) -> usize {
        if bytes.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
            return 0;
        }
        let Some((KIND_NODE, owner, mut at)) = record(bytes, MAGIC.len()) else { return 0 };
        if owner != self.node.to_bytes() {
            tracing::warn!("the ledger is of another node and is emptied");
            return bytes.len();
        }
        while let Some((kind, payload, end)) = record(bytes, at) {
            match self.decode(kind, payload) {
                Some(note) => self.memory.take(note),
                None => return at,
            }
            at = end;
        }
        at
    }

    /// Replaces the file by one that holds only what is known now.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        put_record(KIND_NODE, &self.node.to_bytes(), &mut bytes);
        self.encode(&Note::Diff(self.memory.set.complete()), &mut bytes);
        for (task, status) in &self.memory.statuses {
            self.encode(&Note::Status(*task, status.clone()), &mut bytes);
        }
        self.encode(&Note::Managers(self.memory.managers.clone()), &mut bytes);
        self.file = None;
        let device = &self.env.device;
        device.replace(&self.path, &mut |out| out.write_all(&bytes))?;
        self.file = Some(device.open_append(&self.path)?);
        self.len = bytes.len() as u64;
        self.compact_at = self.len * 4 + SLACK;
        Ok(())
    }

    fn encode(&self, note: &Note, out: &mut Vec<u8>) {
        let (kind, payload) = match note {
            Note::Diff(diff) => (KIND_DIFF, codec::encode_diff(&self.sealed(diff))),
            Note::Status(task, status) => (KIND_STATUS, codec::encode_status(*task, status)),
            Note::Managers(managers) => (KIND_MANAGERS, codec::encode_managers(managers)),
        };
        put_record(kind, &payload, out);
    }

    fn decode(&self, kind: u8, payload: &[u8]) -> Option<Note> {
        match kind {
            KIND_DIFF => codec::decode_diff(payload).map(|diff| Note::Diff(self.opened(diff))),
            KIND_STATUS => {
                codec::decode_status(payload).map(|(task, status)| Note::Status(task, status))
            }
            KIND_MANAGERS => codec::decode_managers(payload).map(Note::Managers),
            _ => None,
        }
    }

    fn sealed(&self, diff: &AssignmentDiff) -> AssignmentDiff {
        let seal = |item: &Item| match item {
            Item::Secret(secret) => {
                let data = self.key.seal(&*self.env.entropy, PURPOSE, secret.data.expose());
                let data = Sensitive::new(&data);
                Item::Secret(Arc::new(Secret { data, ..Secret::clone(secret) }))
            }
            Item::SpecVersion(version) => Item::SpecVersion(with_auth(version, |auth| {
                let sealed =
                    self.key.seal(&*self.env.entropy, PURPOSE_AUTH, auth.expose().as_bytes());
                Some(RegistryAuth::new(to_hex(&sealed)))
            })),
            other => other.clone(),
        };
        AssignmentDiff { put: diff.put.iter().map(seal).collect(), ..diff.clone() }
    }

    /// Secrets that were sealed with a key that is gone are left out, and so are credentials: an
    /// image that is here needs none.
    fn opened(&self, diff: AssignmentDiff) -> AssignmentDiff {
        let open = |item: Item| match item {
            Item::Secret(secret) => {
                let data = self.key.open(PURPOSE, secret.data.expose()).ok()?;
                let data = Sensitive::new(&data);
                Some(Item::Secret(Arc::new(Secret { data, ..Secret::clone(&secret) })))
            }
            Item::SpecVersion(version) => Some(Item::SpecVersion(with_auth(&version, |auth| {
                let text = self.key.open(PURPOSE_AUTH, &from_hex(auth.expose())?).ok()?;
                String::from_utf8(text).ok().map(RegistryAuth::new)
            }))),
            other => Some(other),
        };
        AssignmentDiff { put: diff.put.into_iter().filter_map(open).collect(), ..diff }
    }
}

/// A spec version with its registry credentials changed, if it has any.
fn with_auth(
    version: &Arc<SpecVersion>,
    change: impl FnOnce(&RegistryAuth) -> Option<RegistryAuth>,
) -> Arc<SpecVersion> {
    let container = &version.spec.task_template.container_spec;
    let Some(options) = &container.pull_options else { return Arc::clone(version) };
    let changed = change(&options.registry_auth);
    let mut spec = ServiceSpec::clone(&version.spec);
    spec.task_template.container_spec.pull_options =
        changed.map(|registry_auth| PullOptions { registry_auth });
    Arc::new(SpecVersion { spec: Arc::new(spec), ..SpecVersion::clone(version) })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

impl Memory {
    fn take(&mut self, note: Note) {
        match note {
            Note::Diff(diff) => {
                // What was written followed what was known; after a tail was lost, it still does.
                if let Ok(set) = self.set.absorb(diff) {
                    self.set = set;
                }
                let set = &self.set;
                self.statuses.retain(|task, _| set.task(*task).is_some());
            }
            Note::Status(task, status) => {
                if self.set.task(task).is_some() {
                    self.statuses.insert(task, status);
                }
            }
            Note::Managers(managers) => self.managers = managers,
        }
    }
}

fn put_record(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(payload);
    let length = u32::try_from(payload.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

/// The record at an offset and where it ends; `None` if it is not whole.
fn record(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let length = usize::try_from(word(at)?).ok()?;
    let crc = word(at + 4)?;
    let start = at + HEAD;
    if length == 0 || length > RECORD_MAX {
        return None;
    }
    let body = bytes.get(start..start.checked_add(length)?)?;
    (crc32fast::hash(body) == crc).then(|| (body[0], &body[1..], start + length))
}

/// The key in memory, made on the first start after a boot.
fn key(path: &Path, entropy: &(dyn Entropy + 'static)) -> io::Result<SealKey> {
    if let Some(bytes) = files::read(path)?
        && let Ok(bytes) = <[u8; 32]>::try_from(bytes.as_slice())
    {
        return Ok(SealKey::new(&bytes));
    }
    let bytes = entropy.key();
    files::replace(path, &bytes)?;
    Ok(SealKey::new(&bytes))
}

#[cfg(test)]
mod tests;
