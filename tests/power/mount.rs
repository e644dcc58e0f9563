//! The file system of a [`Platter`], mounted: every read and write of a process goes to it, past the
//! kernel's own page cache.

use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};

use crate::platter::{Accident, Call, Inode, Platter, ROOT};

const TTL: Duration = Duration::ZERO;
const BLOCK: u64 = 4_096;

/// A machine's disk; survives its mounts.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Wakes what waits for the power to come back, which is when its process has been killed.
    killed: Arc<Condvar>,
}

/// A mounted disk.
pub(crate) struct Mounted {
    session: Option<fuser::BackgroundSession>,
    pub(crate) dir: tempfile::TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.umount_and_join().unwrap();
        }
    }
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { platter: Arc::new(Mutex::new(Platter::new())), killed: Arc::default() }
    }

    pub(crate) fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }

    /// Mounts it; `None`, and a line that says why, where that is not possible.
    pub(crate) fn mount(&self) -> Option<Mounted> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("swarm-test".to_owned())];
        match fuser::spawn_mount(Files { disk: self.clone() }, dir.path(), &config) {
            Ok(session) => Some(Mounted { session: Some(session), dir }),
            Err(error) => {
                println!("SKIPPED: no file system can be mounted here: {error}");
                None
            }
        }
    }

    /// Answers what was held back when the power went: its process has been killed.
    pub(crate) fn let_go(&self) {
        self.platter().is_killed = true;
        self.killed.notify_all();
    }

    /// Whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.platter().is_off
    }
}

struct Files {
    disk: Disk,
}

/// What is to be done about a call.
enum Turn<'a> {
    Go(MutexGuard<'a, Platter>),
    Fail(MutexGuard<'a, Platter>, Errno),
    Off,
}

impl Files {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.disk.platter()
    }

    fn turn(&self, kind: Call) -> Turn<'_> {
        let mut platter = self.platter();
        if platter.is_off {
            return Turn::Off;
        }
        match platter.turn(kind) {
            None => Turn::Go(platter),
            Some(Accident::Fail(errno)) => Turn::Fail(platter, errno),
            Some(Accident::Cut) => Turn::Off,
        }
    }

    /// Holds an answer back until the process that waits for it has been killed: it learns nothing.
    fn hold(&self) {
        let (platter, limit) = (self.platter(), Duration::from_secs(60));
        let waited = self.disk.killed.wait_timeout_while(platter, limit, |it| !it.is_killed);
        drop(waited.unwrap());
    }

    /// Changes names or lengths.
    fn change(&self, reply: ReplyEmpty, work: impl FnOnce(&mut Platter) -> Result<(), Errno>) {
        match self.turn(Call::Change) {
            Turn::Go(mut platter) => match work(&mut platter) {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(errno),
            },
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }
}

fn name(name: &OsStr) -> &str {
    name.to_str().unwrap()
}

fn attr(ino: u64, inode: &Inode) -> FileAttr {
    let size = inode.visible.len() as u64;
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if inode.is_dir { FileType::Directory } else { FileType::RegularFile },
        perm: inode.mode & 0o7777,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

fn mode(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap()
}

fn length(length: u64) -> usize {
    usize::try_from(length).unwrap()
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let platter = self.platter();
        let found = platter.lookup(parent.0, name(child));
        match found.and_then(|ino| Some((ino, platter.inodes.get(&ino)?))) {
            Some((ino, inode)) => reply.entry(&TTL, &attr(ino, inode), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.platter().inodes.get(&ino.0) {
            Some(inode) => reply.attr(&TTL, &attr(ino.0, inode)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        to: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.turn(Call::Change) {
            Turn::Go(mut platter) => {
                if let Some(size) = size {
                    platter.resize(ino.0, length(size));
                }
                let Some(inode) = platter.inodes.get_mut(&ino.0) else {
                    return reply.error(Errno::ENOENT);
                };
                if let Some(to) = to {
                    inode.mode = mode(to);
                }
                reply.attr(&TTL, &attr(ino.0, inode));
            }
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        child: &OsStr,
        permissions: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        match self.turn(Call::Change) {
            Turn::Go(mut platter) => {
                let inode = Inode::dir(mode(permissions & !umask));
                let ino = platter.make(parent.0, name(child), inode);
                reply.entry(&TTL, &attr(ino, &platter.inodes[&ino]), Generation(0));
            }
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |platter| {
            platter.unlink(parent.0, name(child));
            Ok(())
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        self.change(reply, |platter| {
            let ino = platter.lookup(parent.0, name(child)).ok_or(Errno::ENOENT)?;
            if !platter.inodes[&ino].names.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            platter.unlink(parent.0, name(child));
            Ok(())
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        child: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.change(reply, |platter| {
            platter.rename((parent.0, name(child)), (to.0, name(new)));
            Ok(())
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.platter().open(ino.0);
        reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        child: &OsStr,
        permissions: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.turn(Call::Change) {
            Turn::Go(mut platter) => {
                let inode = Inode::file(mode(permissions & !umask));
                let ino = platter.make(parent.0, name(child), inode);
                let handle = FileHandle(platter.open(ino));
                let attr = attr(ino, &platter.inodes[&ino]);
                reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
            }
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let platter = self.platter();
        let Some(inode) = platter.inodes.get(&ino.0) else { return reply.error(Errno::ENOENT) };
        let begin = length(offset).min(inode.visible.len());
        let end = begin.saturating_add(length(size.into())).min(inode.visible.len());
        reply.data(&inode.visible[begin..end]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = u32::try_from(data.len()).unwrap();
        match self.turn(Call::Write) {
            Turn::Go(mut platter) => {
                let present = platter.inodes.get(&ino.0).map_or(0, |it| it.visible.len() as u64);
                let grows = (offset + u64::from(written)).saturating_sub(present);
                if platter.used() + grows > platter.capacity {
                    return reply.error(Errno::ENOSPC);
                }
                platter.write(ino.0, length(offset), data);
                reply.written(written);
            }
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                // The page cache has it, or a part of it; the device, perhaps.
                self.platter().write(ino.0, length(offset), &data[..data.len() / 2]);
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u64,
        flags: i32,
        reply: ReplyEmpty,
    ) {
        self.change(reply, |platter| {
            if flags != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            let end = length(offset + size);
            let present = platter.inodes.get(&ino.0).map_or(0, |it| it.visible.len());
            if platter.used() + end.saturating_sub(present) as u64 > platter.capacity {
                return Err(Errno::ENOSPC);
            }
            if end > present {
                platter.resize(ino.0, end);
            }
            Ok(())
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.platter().close(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let stall = self.platter().stall;
        std::thread::sleep(stall);
        match self.turn(Call::Sync) {
            Turn::Go(mut platter) => {
                if platter.sync(ino.0, handle.0) {
                    reply.ok();
                } else {
                    reply.error(Errno::EIO);
                }
            }
            Turn::Fail(mut platter, errno) => {
                platter.fail_sync(ino.0, handle.0);
                reply.error(errno);
            }
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.turn(Call::Sync) {
            Turn::Go(mut platter) => {
                platter.sync_dir(ino.0);
                reply.ok();
            }
            Turn::Fail(_, errno) => reply.error(errno),
            Turn::Off => {
                self.hold();
                reply.error(Errno::EIO);
            }
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let platter = self.platter();
        let Some(dir) = platter.inodes.get(&ino.0) else { return reply.error(Errno::ENOENT) };
        let own = [(".".to_owned(), ino.0), ("..".to_owned(), ROOT)];
        let names = dir.names.iter().map(|(name, ino)| (name.clone(), *ino));
        for (at, (name, ino)) in own.into_iter().chain(names).enumerate().skip(length(offset)) {
            let is_dir = platter.inodes.get(&ino).is_some_and(|inode| inode.is_dir);
            let kind = if is_dir { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let platter = self.platter();
        let free = platter.capacity.saturating_sub(platter.used()) / BLOCK;
        let block = u32::try_from(BLOCK).unwrap();
        reply.statfs(platter.capacity / BLOCK, free, free, 1 << 20, 1 << 20, block, 255, block);
    }
}
