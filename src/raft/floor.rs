//! The floor: how far the log had come and how this member had voted, kept beside the log.
//!
//! sled may open a damaged database without a word, only shorter than it was. A member that forgot
//! its vote or acknowledged entries can make the whole group lose data, so the floor is written after
//! the log's barrier and before anything is acknowledged, and lowered before the log is cut on
//! purpose. It therefore never runs ahead of a healthy log; a log below its floor is not healthy.
//!
//! Two slots of 4 KiB take turns, so a write that is torn leaves the other one.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Stamp};
use super::record::Chain;
use crate::env::{Device, Slots};

const MAGIC: &[u8; 8] = b"swmfloor";
const SLOT: usize = 4_096;

/// What the log must at least have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Floor {
    /// Counts the writes; the higher slot is valid.
    pub(super) sequence: u64,
    /// Whose log it is.
    pub(super) raft_id: u64,
    /// Recognises the key that seals the log.
    pub(super) key_check: [u8; 16],
    /// The vote: term, candidate, whether it leads.
    pub(super) vote: Option<(u64, u64, bool)>,
    /// The last entry.
    pub(super) last: Option<Stamp>,
    /// What stands for the entries up to the last.
    pub(super) chain: Chain,
}

/// The file with the two slots.
#[derive(Debug)]
pub(super) struct FloorFile {
    file: Box<dyn Slots>,
}

impl FloorFile {
    /// Makes the file with a first floor.
    pub(super) fn create(device: &dyn Device, path: &Path, floor: &Floor) -> io::Result<Self> {
        let mut content = slot(floor)?;
        content.resize(2 * SLOT, 0);
        device.replace(path, &mut |out| out.write_all(&content))?;
        Ok(Self { file: device.open_slots(path)? })
    }

    /// Opens the file; `None` if there is none.
    ///
    /// Fails with `InvalidData` when neither slot is valid, with `Unsupported` when a newer release wrote one: the
    /// other slot is then an older floor, which must not count.
    pub(super) fn open(device: &dyn Device, path: &Path) -> io::Result<Option<(Self, Floor)>> {
        let Some(content) = device.read(path)? else { return Ok(None) };
        let slots: Result<Vec<Floor>, _> = content.chunks(SLOT).filter_map(parse).collect();
        let newest = slots
            .map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?
            .into_iter()
            .max_by_key(|floor| floor.sequence)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "neither slot is valid"))?;
        Ok(Some((Self { file: device.open_slots(path)? }, newest)))
    }

    /// Writes a floor durably, in the place of the older one.
    pub(super) fn write(&self, floor: &mut Floor) -> io::Result<()> {
        floor.sequence += 1;
        let at = if floor.sequence.is_multiple_of(2) { 0 } else { SLOT as u64 };
        self.file.write_at(at, &slot(floor)?)
    }
}

/// `[magic][length: 2][CRC-32: 4][bincode of the floor]`, filled up with zeros.
fn slot(floor: &Floor) -> io::Result<Vec<u8>> {
    let body = codec::encode_message(floor).map_err(io::Error::other)?;
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    let mut out = Vec::with_capacity(SLOT);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out.resize(SLOT, 0);
    Ok(out)
}

/// The floor of a slot; nothing where there is none that is whole.
fn parse(slot: &[u8]) -> Option<Result<Floor, CodecError>> {
    let rest = slot.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_at_checked(2)?;
    let (sum, rest) = rest.split_at_checked(4)?;
    let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
    let body = rest.get(..length)?;
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    match codec::decode_message(body) {
        _ if crc32fast::hash(body) != sum => None,
        Err(CodecError::Damaged { .. }) => None,
        floor => Some(floor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemDevice;

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("floor");
        assert!(FloorFile::open(&SystemDevice::default(), &path).unwrap().is_none());
        let mut floor = Floor { raft_id: 7, ..Floor::default() };
        let file = FloorFile::create(&SystemDevice::default(), &path, &floor).unwrap();
        for index in 1..=5 {
            floor.last = Some(Stamp { term: 1, leader: 7, index });
            file.write(&mut floor).unwrap();
        }
        assert_eq!(FloorFile::open(&SystemDevice::default(), &path).unwrap().unwrap().1, floor);

        // A torn write of the sixth: the fifth counts.
        let mut content = std::fs::read(&path).unwrap();
        content[100..120].fill(0xff);
        content[8] ^= 1;
        std::fs::write(&path, &content).unwrap();
        assert_eq!(FloorFile::open(&SystemDevice::default(), &path).unwrap().unwrap().1, floor);

        // What a newer release wrote hides no older floor.
        let mut newer = content.clone();
        let body = SLOT + MAGIC.len() + 6;
        newer[body] = codec::FORMAT + 1;
        let length = usize::from(newer[body - 6]);
        let sum = crc32fast::hash(&newer[body..body + length]);
        newer[body - 4..body].copy_from_slice(&sum.to_le_bytes());
        std::fs::write(&path, &newer).unwrap();
        let refused = FloorFile::open(&SystemDevice::default(), &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported, "{refused}");

        content[SLOT + 20] ^= 1;
        std::fs::write(&path, &content).unwrap();
        let refused = FloorFile::open(&SystemDevice::default(), &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }
}
