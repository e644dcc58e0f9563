//! Open files of a simulated disk.

use super::*;

#[derive(Debug)]
pub(super) struct SimTail {
    pub(super) device: SimDevice,
    pub(super) path: PathBuf,
}

impl SimTail {
    fn put(&self, platter: &mut Platter, bytes: &[u8]) {
        if let Some(content) = platter.files.get_mut(&self.path) {
            content.extend_from_slice(bytes);
        }
    }
}

impl Appending for SimTail {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.device.call(
            |platter| self.put(platter, bytes),
            |platter| {
                let torn = platter.chance.index(bytes.len() + 1);
                self.put(platter, &bytes[..torn]);
            },
        )
    }

    fn sync(&mut self) -> io::Result<()> {
        self.device.call(
            |platter| {
                let length = platter.files.get(&self.path).map_or(0, Vec::len);
                if let Some(durable) = platter.growing.get_mut(&self.path) {
                    *durable = length;
                }
            },
            |_| {},
        )
    }
}

#[derive(Debug)]
pub(super) struct SimSlots {
    pub(super) device: SimDevice,
    pub(super) path: PathBuf,
}

impl Slots for SimSlots {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let put = |platter: &mut Platter, length: usize| {
            if let Some(content) = platter.files.get_mut(&self.path) {
                content[at..at + length].copy_from_slice(&bytes[..length]);
            }
        };
        self.device.call(
            |platter| {
                put(platter, bytes.len());
                platter.promised = platter.last();
            },
            |platter| {
                let torn = platter.chance.index(bytes.len().min(200));
                put(platter, torn);
            },
        )
    }
}
