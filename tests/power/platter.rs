//! What a machine's file system holds, and which part of it would survive a power cut.
//!
//! A file's pages are durable when the file was synced after they were written, a name when its
//! directory was. On a cut each dirty page, each change of a length and each change of a name may or
//! may not have reached the device; names change in the order of the calls, as on file systems with
//! a journal, pages in any. A sync that fails drops what was dirty, and every descriptor that was
//! open then is told once.

use std::collections::{BTreeMap, BTreeSet};

use crate::chance::Chance;

const PAGE: usize = 4_096;
const SECTOR: usize = 512;
pub(crate) const ROOT: u64 = 1;

/// What a cut keeps of what was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keeps {
    Nothing,
    All,
    /// What was written first.
    Prefix,
    /// Any pages.
    Subset,
    /// Any pages, and parts of some.
    Torn,
}

impl Keeps {
    pub(crate) const ALL: [Self; 5] =
        [Self::Nothing, Self::All, Self::Prefix, Self::Subset, Self::Torn];
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Write,
    Sync,
    /// A name or a length changes.
    Change,
}

/// What is to happen at a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Accident {
    /// The power is cut in it.
    Cut,
    /// It fails, once.
    Fail(fuser::Errno),
}

/// A file or a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    pub(crate) is_dir: bool,
    pub(crate) mode: u16,
    pub(crate) visible: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that are not durable, in the order in which they were written.
    dirty: Vec<usize>,
    /// Visible content that the device will never have: a sync failed.
    is_lost: bool,
    pub(crate) names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    errors: u64,
    pub(crate) open: u64,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
struct Renaming {
    /// Directory, name, and what it names afterwards.
    parts: Vec<(u64, String, Option<u64>)>,
}

#[derive(Debug)]
pub(crate) struct Platter {
    pub(crate) inodes: BTreeMap<u64, Inode>,
    pub(crate) handles: BTreeMap<u64, (u64, u64)>,
    renamings: Vec<Renaming>,
    next: u64,
    pub(crate) capacity: u64,
    /// Calls of each kind so far.
    pub(crate) calls: BTreeMap<Call, u64>,
    accident: Option<(Call, u64, Accident)>,
    /// The power is off: nothing is answered any more.
    pub(crate) is_off: bool,
    /// The process that the power was cut for is dead.
    pub(crate) is_killed: bool,
    pub(crate) stall: std::time::Duration,
}

impl Platter {
    pub(crate) fn new() -> Self {
        Self {
            inodes: BTreeMap::from([(ROOT, Inode::dir(0o755))]),
            handles: BTreeMap::new(),
            renamings: Vec::new(),
            next: ROOT + 1,
            capacity: 1 << 40,
            calls: BTreeMap::new(),
            accident: None,
            is_off: false,
            is_killed: false,
            stall: std::time::Duration::ZERO,
        }
    }

    /// Arranges something for the n-th call of a kind from now, the next being the first.
    pub(crate) fn arrange(&mut self, kind: Call, nth: u64, accident: Accident) {
        let so_far = self.calls.get(&kind).copied().unwrap_or_default();
        self.accident = Some((kind, so_far + nth, accident));
    }

    pub(crate) fn has_happened(&self) -> bool {
        self.accident.is_none()
    }

    /// Counts a call; what happens at it.
    pub(crate) fn turn(&mut self, kind: Call) -> Option<Accident> {
        let calls = self.calls.entry(kind).or_default();
        *calls += 1;
        let (at, when, what) = self.accident?;
        if at != kind || *calls < when {
            return None;
        }
        self.accident = None;
        self.is_off |= matches!(what, Accident::Cut);
        Some(what)
    }

    pub(crate) fn used(&self) -> u64 {
        // A file without a name gives its room back; that it may be open does not matter here.
        let named: BTreeSet<u64> =
            self.inodes.values().flat_map(|inode| inode.names.values().copied()).collect();
        let sizes = named.iter().filter_map(|ino| self.inodes.get(ino));
        sizes.map(|inode| inode.visible.len() as u64).sum()
    }

    pub(crate) fn lookup(&self, dir: u64, name: &str) -> Option<u64> {
        self.inodes.get(&dir)?.names.get(name).copied()
    }

    pub(crate) fn make(&mut self, dir: u64, name: &str, inode: Inode) -> u64 {
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, inode);
        self.rename_all(vec![(dir, name.to_owned(), Some(ino))]);
        ino
    }

    pub(crate) fn unlink(&mut self, dir: u64, name: &str) {
        self.rename_all(vec![(dir, name.to_owned(), None)]);
    }

    pub(crate) fn rename(&mut self, from: (u64, &str), to: (u64, &str)) {
        let ino = self.lookup(from.0, from.1);
        self.rename_all(vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), ino)]);
    }

    fn rename_all(&mut self, parts: Vec<(u64, String, Option<u64>)>) {
        for (dir, name, ino) in &parts {
            let names = &mut self.inodes.get_mut(dir).unwrap().names;
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
        self.renamings.push(Renaming { parts });
    }

    pub(crate) fn write(&mut self, ino: u64, at: usize, bytes: &[u8]) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let end = at + bytes.len();
        if inode.visible.len() < end {
            inode.visible.resize(end, 0);
        }
        inode.visible[at..end].copy_from_slice(bytes);
        for page in at / PAGE..end.div_ceil(PAGE) {
            inode.dirty.retain(|dirty| *dirty != page);
            inode.dirty.push(page);
        }
    }

    pub(crate) fn resize(&mut self, ino: u64, length: usize) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.visible.resize(length, 0);
        inode.dirty.push(length / PAGE);
    }

    pub(crate) fn open(&mut self, ino: u64) -> u64 {
        let inode = self.inodes.get_mut(&ino).unwrap();
        inode.open += 1;
        let seen = inode.errors;
        let handle = self.next;
        self.next += 1;
        self.handles.insert(handle, (ino, seen));
        handle
    }

    pub(crate) fn close(&mut self, handle: u64) {
        let Some((ino, _)) = self.handles.remove(&handle) else { return };
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.open -= 1;
        // The page cache forgets, some time, what the device never had.
        if inode.open == 0 && inode.is_lost {
            inode.visible = inode.durable.clone();
            inode.dirty.clear();
            inode.is_lost = false;
        }
    }

    /// Whether the sync by a descriptor succeeds.
    pub(crate) fn sync(&mut self, ino: u64, handle: u64) -> bool {
        let Some(inode) = self.inodes.get_mut(&ino) else { return true };
        inode.durable = inode.visible.clone();
        inode.dirty.clear();
        let errors = inode.errors;
        let Some((_, seen)) = self.handles.get_mut(&handle) else { return true };
        let is_told = *seen == errors;
        *seen = errors;
        is_told
    }

    /// A sync that fails: what was dirty is clean now, and not on the device.
    pub(crate) fn fail_sync(&mut self, ino: u64, handle: u64) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.dirty.clear();
        inode.is_lost = true;
        inode.errors += 1;
        if let Some((_, seen)) = self.handles.get_mut(&handle) {
            *seen += 1;
        }
    }

    /// Makes the names of a directory durable; what happened to names before, too, as in a journal.
    pub(crate) fn sync_dir(&mut self, dir: u64) {
        let last = self.renamings.iter().rposition(|it| it.parts.iter().any(|part| part.0 == dir));
        let Some(last) = last else { return };
        for renaming in self.renamings.drain(..=last).collect::<Vec<_>>() {
            self.settle(&renaming);
        }
    }

    fn settle(&mut self, renaming: &Renaming) {
        for (dir, name, ino) in &renaming.parts {
            let names = &mut self.inodes.get_mut(dir).unwrap().durable_names;
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
    }

    /// The power is cut: what was not durable survives in part, and nothing is open.
    pub(crate) fn cut(&mut self, keeps: Keeps, chance: &mut Chance) {
        let renamings = std::mem::take(&mut self.renamings);
        let kept = match keeps {
            Keeps::Nothing => 0,
            Keeps::All => renamings.len(),
            Keeps::Prefix | Keeps::Subset | Keeps::Torn => chance.index(renamings.len() + 1),
        };
        for renaming in renamings.iter().take(kept) {
            self.settle(renaming);
        }
        for inode in self.inodes.values_mut() {
            inode.lose(keeps, chance);
            inode.names = inode.durable_names.clone();
            inode.open = 0;
        }
        self.handles.clear();
        self.accident = None;
        self.is_off = false;
        self.is_killed = false;
        self.sweep();
    }

    /// Forgets what no name leads to.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(ino) = next.pop() {
            for child in self.inodes[&ino].names.values() {
                if reached.insert(*child) {
                    next.push(*child);
                }
            }
        }
        self.inodes.retain(|ino, _| reached.contains(ino));
    }
}

impl Inode {
    pub(crate) fn file(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }

    pub(crate) fn dir(mode: u16) -> Self {
        Self { is_dir: true, mode, ..Self::default() }
    }

    fn lose(&mut self, keeps: Keeps, chance: &mut Chance) {
        let length = match keeps {
            Keeps::Nothing => self.durable.len(),
            Keeps::All => self.visible.len(),
            Keeps::Prefix | Keeps::Subset | Keeps::Torn => {
                if chance.is(50) {
                    self.durable.len()
                } else {
                    self.visible.len()
                }
            }
        };
        let dirty = std::mem::take(&mut self.dirty);
        let first = chance.index(dirty.len() + 1);
        self.durable.resize(length, 0);
        for (order, page) in dirty.iter().enumerate() {
            let is_kept = match keeps {
                Keeps::Nothing => false,
                Keeps::All => true,
                Keeps::Prefix => order < first,
                Keeps::Subset | Keeps::Torn => chance.is(50),
            };
            if !is_kept {
                continue;
            }
            let begin = (page * PAGE).min(length);
            let mut end = (begin + PAGE).min(length).min(self.visible.len());
            if keeps == Keeps::Torn && chance.is(50) {
                end = end.min(begin + SECTOR * chance.index(PAGE / SECTOR + 1));
            }
            if begin < end {
                self.durable[begin..end].copy_from_slice(&self.visible[begin..end]);
            }
        }
        self.visible = self.durable.clone();
        self.is_lost = false;
    }
}
