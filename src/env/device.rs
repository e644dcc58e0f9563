//! What a manager's data lies on, as one seam: the disk of its log, whole files, the room that is
//! left, and the end of the process when the device has failed.
//!
//! A simulation stands behind the same trait, so that what decides what is written, in which order
//! and what is believed after a crash is the production code of the folders above.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{LogDisk, LogKind, OpenError, SledDisk, open_probed};
use super::files;
use super::segments::SegmentDisk;

/// The device under a manager's folder. Everything here blocks.
pub trait Device: Send + Sync + Debug + 'static {
    /// Opens the log in a directory, or makes it, and reads all of it once.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open_log(&self, dir: &Path) -> Result<Arc<dyn LogDisk>, OpenError>;

    /// Opens a file that is written in place.
    ///
    /// # Errors
    /// When there is no such file, and the device's.
    fn open_slots(&self, path: &Path) -> io::Result<Box<dyn Slots>>;

    /// Opens a file that is written at its end only.
    ///
    /// # Errors
    /// When there is no such file, and the device's.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn Appending>>;

    /// Makes a directory and its parents, durably, for its owner only; its existence is a success.
    ///
    /// # Errors
    /// The device's.
    fn private_dir(&self, path: &Path) -> io::Result<()>;

    /// The content of a file; `None` if there is no such file.
    ///
    /// # Errors
    /// The device's.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// The content of a file as the device has it: what the page cache holds is dropped first.
    ///
    /// # Errors
    /// The device's.
    fn read_back(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces a file durably with what `write` writes: the old content or the new, never a
    /// mixture.
    ///
    /// # Errors
    /// The device's, and what `write` returns.
    fn replace(
        &self,
        path: &Path,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()>;

    /// Removes a file durably; its absence is a success.
    ///
    /// # Errors
    /// The device's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The files of a directory whose names start with a prefix, in the order of their names.
    ///
    /// # Errors
    /// The device's.
    fn list(&self, dir: &Path, prefix: &str) -> io::Result<Vec<PathBuf>>;

    /// The length of a file in bytes; `None` if there is no such file.
    fn length(&self, path: &Path) -> Option<u64>;

    /// Sets space aside: a file of real blocks.
    ///
    /// # Errors
    /// When there is too little space; nothing is set aside then.
    fn set_aside(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Bytes that may still be written beside a path.
    ///
    /// # Errors
    /// The device's.
    fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// Ends the process at once, without a word to anybody.
    fn end_process(&self) -> !;
}

/// A file that is written in place, durably.
pub trait Slots: Send + Sync + Debug {
    /// Writes bytes at a position and makes them survive a power cut. A power cut meanwhile may
    /// leave any mixture of old and new bytes there.
    ///
    /// # Errors
    /// The device's.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
}

/// A file that grows. Errors leave an unknown part of the bytes there.
pub trait Appending: Send + Sync + Debug {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// The device's.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was added survive a power cut.
    ///
    /// # Errors
    /// The device's.
    fn sync(&mut self) -> io::Result<()>;
}

impl dyn Device {
    /// Ends the process at once: nothing that was written since the last barrier may be
    /// acknowledged.
    pub fn give_up(&self, what: &str, error: &dyn std::error::Error) -> ! {
        tracing::error!(
            %error,
            "{what}: the disk has failed, so nothing more can be promised; this process ends now. \
             Check the disk, then start it again"
        );
        self.end_process()
    }
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDevice {
    logs: LogKind,
}

impl SystemDevice {
    /// A device that begins logs of a kind. One that is there already is used as it lies.
    #[must_use]
    pub const fn new(logs: LogKind) -> Self {
        Self { logs }
    }

    fn kind_of(self, dir: &Path) -> Result<LogKind, OpenError> {
        let found = match (SledDisk::exists(dir), SegmentDisk::exists(dir)) {
            (true, true) => {
                let what =
                    format!("{} holds two logs, one of sled and one of segments", dir.display());
                return Err(OpenError::Damaged(what));
            }
            (true, false) => LogKind::Sled,
            (false, true) => LogKind::Segments,
            (false, false) => return Ok(self.logs),
        };
        if found != self.logs {
            tracing::info!(
                %found,
                wanted = %self.logs,
                "the raft log is of another kind than the settings say, and is used as it is; a \
                 manager that joins anew begins one of the kind wanted"
            );
        }
        Ok(found)
    }
}

impl Device for SystemDevice {
    fn open_log(&self, dir: &Path) -> Result<Arc<dyn LogDisk>, OpenError> {
        match self.kind_of(dir)? {
            LogKind::Sled => Ok(Arc::new(open_probed(dir)?)),
            LogKind::Segments => Ok(Arc::new(SegmentDisk::open(dir)?)),
        }
    }

    fn open_slots(&self, path: &Path) -> io::Result<Box<dyn Slots>> {
        let file = OpenOptions::new().read(true).write(true).mode(0o600).open(path)?;
        Ok(Box::new(SlotFile { file }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        Ok(Box::new(AppendFile { file: OpenOptions::new().append(true).open(path)? }))
    }

    fn private_dir(&self, path: &Path) -> io::Result<()> {
        files::private_dir(path)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        files::read(path)
    }

    fn read_back(&self, path: &Path) -> io::Result<Vec<u8>> {
        files::read_from_device(path)
    }

    fn replace(
        &self,
        path: &Path,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        files::replace_with(path, |file| write(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        files::remove(path)
    }

    fn list(&self, dir: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
        files::list(dir, prefix)
    }

    fn length(&self, path: &Path) -> Option<u64> {
        fs::metadata(path).ok().map(|meta| meta.len())
    }

    fn set_aside(&self, path: &Path, bytes: u64) -> io::Result<()> {
        files::set_aside(path, bytes)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        files::free_space(path)
    }

    fn end_process(&self) -> ! {
        std::process::abort()
    }
}

#[derive(Debug)]
struct AppendFile {
    file: File,
}

impl Appending for AppendFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[derive(Debug)]
struct SlotFile {
    file: File,
}

impl Slots for SlotFile {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_set_aside_is_real_space() {
        let (dir, device) = (tempfile::tempdir().unwrap(), SystemDevice::default());
        let path = dir.path().join("ballast");
        assert_eq!(device.length(&path), None);
        device.set_aside(&path, 1 << 20).unwrap();
        assert_eq!(device.length(&path), Some(1 << 20));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&path).unwrap());
        assert!(blocks * 512 >= 1 << 20);
        device.remove(&path).unwrap();
        assert_eq!(device.length(&path), None);
        assert!(device.free_space(dir.path()).unwrap() > 0);
    }

    #[test]
    fn slots_are_written_in_place() {
        let (dir, device) = (tempfile::tempdir().unwrap(), SystemDevice::default());
        let path = dir.path().join("slots");
        assert!(device.open_slots(&path).is_err(), "it must be there");
        device.replace(&path, &mut |out| out.write_all(b"old and new")).unwrap();
        device.open_slots(&path).unwrap().write_at(4, b"AND").unwrap();
        assert_eq!(device.read(&path).unwrap().unwrap(), b"old AND new");
    }

    #[test]
    fn a_log_that_is_there_is_used_whatever_the_settings_say() {
        for (first, second) in
            [(LogKind::Sled, LogKind::Segments), (LogKind::Segments, LogKind::Sled)]
        {
            let dir = tempfile::tempdir().unwrap();
            let open = |kind| {
                crate::env::disk::tests::patient(|| SystemDevice::new(kind).open_log(dir.path()))
            };
            let log = open(first).unwrap();
            log.put_meta("vote", vec![7]).unwrap();
            log.barrier().unwrap();
            drop(log);
            assert_eq!(open(second).unwrap().meta("vote").unwrap(), Some(vec![7]), "{first}");
            std::fs::write(dir.path().join("db"), "").unwrap();
            std::fs::write(dir.path().join("seg-1"), "").unwrap();
            let refused = open(first).unwrap_err().to_string();
            assert!(refused.contains("two logs"), "{refused}");
        }
    }
}
