//! A simulated disk: what is written is visible at once and durable after a barrier. A power cut
//! keeps what was durable and some part of the rest, torn where it ends; a failed barrier loses
//! what it was to make durable; bits flip while the machine is off.
//!
//! Files are replaced in one step here: `files::replace` is proved by its own tests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use swarm::env::disk::{LogDisk, OpenError, Record};
use swarm::env::{Appending, Device, Pace, Slots};

use crate::chance::Chance;
use files::{SimSlots, SimTail};

mod files;

/// What a simulated process throws when it ends itself, or when its power is cut in a call.
pub(crate) struct Ended;

/// How a process ended by its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It gave up: the page cache survives.
    Aborted,
    /// The power was cut: what was not durable may be gone.
    PowerCut,
}

#[derive(Clone, Debug, PartialEq)]
enum Op {
    Append(u64, u16, Bytes),
    Truncate(Option<u64>),
    Purge(u64),
    Meta(&'static str, Bytes),
}

/// What a log consists of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Image {
    records: BTreeMap<(u64, u16), Bytes>,
    meta: BTreeMap<&'static str, Bytes>,
}

impl Image {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(index, part, bytes) => {
                self.records.insert((*index, *part), bytes.clone());
            }
            Op::Truncate(None) => self.records.clear(),
            Op::Truncate(Some(last)) => {
                self.records.split_off(&(last.saturating_add(1), 0));
            }
            Op::Purge(upto) => {
                self.records = self.records.split_off(&(upto.saturating_add(1), 0));
            }
            Op::Meta(name, bytes) => {
                self.meta.insert(name, bytes.clone());
            }
        }
    }
}

#[derive(Debug)]
struct Platter {
    chance: Chance,
    durable: Image,
    pending: Vec<Op>,
    visible: Image,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Files that grow, and up to where they are durable.
    growing: BTreeMap<PathBuf, usize>,
    /// The last index of the log when something was last promised to be durable.
    promised: u64,
    death: Option<Death>,
    /// Calls until the power is cut in one.
    fuse: Option<u32>,
    /// Calls until one fails, and how.
    failure: Option<(u32, io::ErrorKind)>,
    free: u64,
    /// How long writes take, in milliseconds.
    latency: (u64, u64),
    calls: u64,
}

/// The disk of a machine; survives its processes.
#[derive(Clone, Debug)]
pub(crate) struct SimDevice {
    platter: Arc<Mutex<Platter>>,
}

const PLENTY: u64 = 1 << 40;
const QUICK: (u64, u64) = (0, 2);

/// Whether a call is to be carried out.
enum Turn {
    Go,
    /// The power is cut in it.
    Cut,
    Fail(io::ErrorKind),
}

impl Platter {
    fn turn(&mut self) -> Turn {
        self.calls += 1;
        if self.death.is_some() {
            return Turn::Cut;
        }
        if let Some(left) = &mut self.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.fuse = None;
                return Turn::Cut;
            }
        }
        if let Some((left, kind)) = &mut self.failure {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let kind = *kind;
                self.failure = None;
                return Turn::Fail(kind);
            }
        }
        Turn::Go
    }

    fn write(&mut self, op: Op) {
        self.visible.apply(&op);
        self.pending.push(op);
    }

    fn sync(&mut self) {
        for op in self.pending.drain(..) {
            self.durable.apply(&op);
        }
    }

    /// Keeps a part of what was not durable: the first writes, the last of them torn; now and then
    /// with a hole in between, as pages are not written back in order.
    fn lose(&mut self) {
        let kept = self.chance.index(self.pending.len() + 1);
        let hole = self.chance.permille(200).then(|| self.chance.index(kept + 1));
        let ops: Vec<Op> = self.pending.drain(..).collect();
        for (at, op) in ops.into_iter().take(kept).enumerate() {
            if Some(at) == hole && matches!(op, Op::Append(..)) {
                continue;
            }
            match op {
                Op::Append(index, part, bytes) if at + 1 == kept && self.chance.permille(500) => {
                    let torn = bytes.slice(..self.chance.index(bytes.len()));
                    self.durable.apply(&Op::Append(index, part, torn));
                }
                op => self.durable.apply(&op),
            }
        }
        self.visible = self.durable.clone();
        for (path, durable) in &mut self.growing {
            if let Some(content) = self.files.get_mut(path) {
                let rest = content.len() - *durable;
                content.truncate(*durable + self.chance.index(rest + 1));
                *durable = content.len();
            }
        }
    }

    fn die(&mut self, death: Death) {
        if self.death.is_none() {
            self.death = Some(death);
        }
    }

    fn last(&self) -> u64 {
        self.durable.records.keys().next_back().map_or(0, |(index, _)| *index)
    }
}

impl SimDevice {
    pub(crate) fn new(chance: Chance) -> Self {
        let platter = Platter {
            chance,
            durable: Image::default(),
            pending: Vec::new(),
            visible: Image::default(),
            files: BTreeMap::new(),
            growing: BTreeMap::new(),
            promised: 0,
            death: None,
            fuse: None,
            failure: None,
            free: PLENTY,
            latency: QUICK,
            calls: 0,
        };
        Self { platter: Arc::new(Mutex::new(platter)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }

    pub(crate) fn death(&self) -> Option<Death> {
        self.lock().death
    }

    /// A new process on the machine; `Death::PowerCut` loses what was not durable.
    pub(crate) fn reboot(&self, death: Death) {
        let mut platter = self.lock();
        if death == Death::PowerCut || platter.death == Some(Death::PowerCut) {
            platter.lose();
        }
        platter.death = None;
        platter.fuse = None;
        platter.failure = None;
    }

    /// Everything that is on the disk is gone, as with another disk.
    pub(crate) fn replace(&self) {
        let mut platter = self.lock();
        let chance = platter.chance.clone();
        *platter = Platter { chance, ..Self::new(Chance::new(0)).take() };
    }

    fn take(self) -> Platter {
        Arc::into_inner(self.platter).unwrap().into_inner().unwrap()
    }

    pub(crate) fn cut_power_at_call(&self, calls: u32) {
        self.lock().fuse = Some(calls);
    }

    pub(crate) fn fail_call(&self, calls: u32, kind: io::ErrorKind) {
        self.lock().failure = Some((calls, kind));
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.lock().free = if is_full { 8 << 20 } else { PLENTY };
    }

    pub(crate) fn set_latency(&self, latency: Option<(u64, u64)>) {
        self.lock().latency = latency.unwrap_or(QUICK);
    }

    /// Forgets faults that have not happened yet.
    pub(crate) fn disarm(&self) {
        let mut platter = self.lock();
        platter.fuse = None;
        platter.failure = None;
    }

    /// Where the log ends.
    pub(crate) fn end(&self) -> u64 {
        self.lock().visible.records.keys().next_back().map_or(0, |(index, _)| *index)
    }

    /// Where the log must at least end, after what was promised.
    pub(crate) fn promised(&self) -> u64 {
        self.lock().promised
    }

    /// Flips a bit of something that a running member wrote; what it hit.
    pub(crate) fn flip(&self) -> Option<String> {
        let mut platter = self.lock();
        let flip = |chance: &mut Chance, bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = chance.index(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
            bytes
        };
        let mut chance = platter.chance.fork(1);
        let what = match chance.below(10) {
            0 => {
                let names: Vec<_> = platter.durable.meta.keys().copied().collect();
                let name = chance.pick(&names)?;
                let flipped = flip(&mut chance, &platter.durable.meta[name]);
                platter.durable.meta.insert(name, flipped.into());
                format!("its {name}")
            }
            1 | 2 => {
                let names: Vec<_> = platter.files.keys().cloned().collect();
                let name = chance.pick(&names)?.clone();
                let flipped = flip(&mut chance, &platter.files[&name]);
                platter.files.insert(name.clone(), flipped);
                format!("the file {}", name.display())
            }
            3 => {
                // A whole end is gone, as after a cut of the file.
                let keys: Vec<_> = platter.durable.records.keys().copied().collect();
                let (index, _) = *chance.pick(&keys)?;
                platter.durable.apply(&Op::Truncate(Some(index)));
                format!("what was above entry {index}")
            }
            _ => {
                let keys: Vec<_> = platter.durable.records.keys().copied().collect();
                let key = *chance.pick(&keys)?;
                let flipped = flip(&mut chance, &platter.durable.records[&key]);
                platter.durable.records.insert(key, flipped.into());
                format!("record {}.{}", key.0, key.1)
            }
        };
        platter.visible = platter.durable.clone();
        Some(what)
    }

    /// Does `work` unless the device has another idea.
    fn call<T>(
        &self,
        work: impl FnOnce(&mut Platter) -> T,
        torn: impl FnOnce(&mut Platter),
    ) -> io::Result<T> {
        let mut platter = self.lock();
        match platter.turn() {
            Turn::Go => Ok(work(&mut platter)),
            Turn::Fail(kind) => {
                torn(&mut platter);
                Err(kind.into())
            }
            Turn::Cut => {
                torn(&mut platter);
                platter.die(Death::PowerCut);
                drop(platter);
                std::panic::resume_unwind(Box::new(Ended))
            }
        }
    }
}

impl LogDisk for SimDevice {
    fn append(&self, records: Vec<Record>) -> io::Result<()> {
        let ops: Vec<Op> = records
            .into_iter()
            .map(|record| Op::Append(record.index, record.part, record.bytes.into()))
            .collect();
        let half = ops.clone();
        self.call(
            |platter| ops.into_iter().for_each(|op| platter.write(op)),
            |platter| {
                let some = platter.chance.index(half.len() + 1);
                half.into_iter().take(some).for_each(|op| platter.write(op));
            },
        )
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.call(
            |platter| {
                platter.promised = platter.promised.min(last.unwrap_or_default());
                platter.write(Op::Truncate(last));
            },
            |_| {},
        )
    }

    fn purge_to(&self, upto: u64) -> io::Result<()> {
        self.call(|platter| platter.write(Op::Purge(upto)), |_| {})
    }

    fn put_meta(&self, name: &'static str, value: Vec<u8>) -> io::Result<()> {
        self.call(|platter| platter.write(Op::Meta(name, value.into())), |_| {})
    }

    fn meta(&self, name: &'static str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lock().visible.meta.get(name).map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        indexes: RangeInclusive<u64>,
        visit: &mut dyn FnMut(Record) -> io::Result<()>,
    ) -> io::Result<()> {
        let (from, to) = ((*indexes.start(), 0), (*indexes.end(), u16::MAX));
        let found: Vec<_> = {
            let platter = self.lock();
            let range = platter.visible.records.range(from..=to);
            range.map(|(key, bytes)| (*key, bytes.clone())).collect()
        };
        for ((index, part), bytes) in found {
            visit(Record { index, part, bytes: bytes.to_vec() })?;
        }
        Ok(())
    }

    fn barrier(&self) -> io::Result<()> {
        // A barrier that fails loses what it was for: the kernel forgets that the pages are dirty.
        self.call(Platter::sync, Platter::lose)
    }

    fn size(&self) -> u64 {
        self.lock().visible.records.values().map(|bytes| bytes.len() as u64).sum()
    }
}

impl Device for SimDevice {
    fn open_log(&self, _: &Path) -> Result<Arc<dyn LogDisk>, OpenError> {
        Ok(Arc::new(self.clone()))
    }

    fn open_slots(&self, path: &Path) -> io::Result<Box<dyn Slots>> {
        if !self.lock().files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(SimSlots { device: self.clone(), path: path.to_owned() }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let mut platter = self.lock();
        let length = platter.files.get(path).map(Vec::len).ok_or(io::ErrorKind::NotFound)?;
        platter.growing.insert(path.to_owned(), length);
        Ok(Box::new(SimTail { device: self.clone(), path: path.to_owned() }))
    }

    fn private_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lock().files.get(path).cloned())
    }

    fn read_back(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.lock().files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(
        &self,
        path: &Path,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut content = Vec::new();
        write(&mut content)?;
        let draft = path.with_extension("tmp");
        let half = content[..content.len() / 2].to_vec();
        self.call(
            |platter| {
                platter.growing.remove(path);
                platter.files.insert(path.to_owned(), content);
            },
            |platter| drop(platter.files.insert(draft, half)),
        )
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(
            |platter| {
                platter.growing.remove(path);
                platter.files.remove(path);
            },
            |_| {},
        )
    }

    fn list(&self, dir: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
        let is_meant = |path: &&PathBuf| {
            path.parent() == Some(dir)
                && path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(prefix))
        };
        Ok(self.lock().files.keys().filter(is_meant).cloned().collect())
    }

    fn length(&self, path: &Path) -> Option<u64> {
        self.lock().files.get(path).map(|content| content.len() as u64)
    }

    fn set_aside(&self, _: &Path, bytes: u64) -> io::Result<()> {
        if self.lock().free < bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn free_space(&self, _: &Path) -> io::Result<u64> {
        Ok(self.lock().free)
    }

    fn end_process(&self) -> ! {
        self.lock().die(Death::Aborted);
        std::panic::resume_unwind(Box::new(Ended))
    }
}

impl Pace for SimDevice {
    fn next(&self) -> Duration {
        let mut platter = self.lock();
        let (from, to) = platter.latency;
        platter.chance.millis(from, to)
    }
}
