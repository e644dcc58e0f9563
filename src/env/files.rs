//! Whole files that survive a power cut: either the old content or the new, never a mixture.
//!
//! Everything here blocks; callers that must not block use `Scope::blocking`. Logs are not written
//! here (`disk`), nor are streams of any kind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces a file: writes beside it, syncs, renames, syncs the directory. Only the owner may read.
///
/// # Errors
/// The old content is untouched unless the last step, the sync of the directory, fails.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, |file| file.write_all(content))
}

/// As [`replace`], with content that is written piece by piece.
///
/// # Errors
/// As [`replace`], and what `write` returns.
pub fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let beside = beside(path)?;
    // A draft left by a crash may have other permissions or be a link: never write into it.
    remove(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// The content of a file; `None` if there is no such file.
///
/// # Errors
/// Whatever reading fails with, but for the file's absence.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The content of a file as the device has it: what the page cache holds is dropped first.
///
/// # Errors
/// Whatever reading fails with.
pub fn read_from_device(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    drop_cache(&file);
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content)?;
    Ok(content)
}

/// Makes what another process left in the page cache durable, and drops the cache: what a failed
/// sync left there the device does not have.
///
/// # Errors
/// Whatever syncing fails with.
pub fn settle(file: &File) -> io::Result<()> {
    file.sync_data()?;
    drop_cache(file);
    Ok(())
}

fn drop_cache(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    // Advice: some file systems ignore it, and then reading is ordinary.
    if let Err(error) = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!(%error, "page cache could not be dropped");
    }
}

/// Removes a file; its absence is a success.
///
/// # Errors
/// Whatever removing fails with, but for the file's absence.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a directory and its parents, durably, for its owner only; its existence is a success.
///
/// # Errors
/// Whatever making or syncing fails with.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    sync_dir(path)?;
    sync_parent(path)
}

/// The files of a directory whose names start with a prefix, in the order of their names.
///
/// # Errors
/// Whatever listing fails with.
pub fn list(dir: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// Whatever opening or syncing fails with.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that an ordinary process may still write to the file system of a path.
///
/// # Errors
/// Whatever `statvfs` fails with.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stats = nix::sys::statvfs::statvfs(path)?;
    Ok(stats.blocks_available().saturating_mul(stats.fragment_size()))
}

/// Sets space aside: a file of real blocks.
///
/// # Errors
/// When there is too little space; nothing is set aside then.
pub fn set_aside(path: &Path, bytes: u64) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    let mode = nix::fcntl::FallocateFlags::empty();
    nix::fcntl::fallocate(&file, mode, 0, length).map_err(|error| {
        drop(fs::remove_file(path));
        io::Error::from(error)
    })
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"))?
        .to_os_string();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => sync_dir(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_files_are_private() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        private_dir(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let path = dir.join("key");
        fs::write(dir.join("key.tmp"), "left by a crash").unwrap();
        replace(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn replacing_leaves_no_trace_of_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"a longer content").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), Some(b"new".to_vec()));
        assert_eq!(read_from_device(&path).unwrap(), b"new");
        assert_eq!(list(dir.path(), "key").unwrap(), std::slice::from_ref(&path));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, b"old").unwrap();
        let failed = replace_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(read(&path).unwrap(), Some(b"old".to_vec()));
    }
}
