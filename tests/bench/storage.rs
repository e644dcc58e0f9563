//! What a commit costs on the disk: `cargo bench --bench storage [DIR]` prints a table.
//!
//! sled, our own segments and the bare device in turn, in one run: read the ratios, the absolute times
//! are those of a noisy machine. A commit is what the raft log does for a group of entries (`raft/log`):
//! append, barrier, and the floor written beside the log. Goal of our own log: at most twice the bare
//! device.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures real time and prints"
)]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm::env::disk::{LogDisk, LogKind, Record};
use swarm::env::{Device, Slots, SystemDevice};

/// Commits per figure, taken in turns of ten.
const COMMITS: usize = 400;
const TURN: usize = 10;
/// A service's update, sealed; 64 of them queue under load.
const SIZE: usize = 600;
const GROUP: usize = 64;

/// Something that keeps a group of entries.
trait Commit {
    fn commit(&mut self, first: u64, count: usize);
}

struct Log {
    disk: Arc<dyn LogDisk>,
    floor: Box<dyn Slots>,
    round: u64,
}

impl Log {
    fn new(kind: LogKind, dir: &Path) -> Self {
        let device = SystemDevice::new(kind);
        let dir = dir.join(kind.to_string());
        let disk = device.open_log(&dir.join("log")).unwrap();
        let floor = dir.join("floor");
        device.replace(&floor, &mut |out| out.write_all(&[0; 8_192])).unwrap();
        Self { disk, floor: device.open_slots(&floor).unwrap(), round: 0 }
    }
}

impl Commit for Log {
    fn commit(&mut self, first: u64, count: usize) {
        let records = (first..).take(count).map(|index| Record {
            index,
            part: 0,
            bytes: vec![index.to_le_bytes()[0]; SIZE],
        });
        self.disk.append(records.collect()).unwrap();
        self.disk.barrier().unwrap();
        self.round += 1;
        self.floor.write_at(self.round % 2 * 4_096, &[7; 4_096]).unwrap();
    }
}

/// `write` and `fdatasync`, once for the entries and once for a page.
struct Bare {
    log: File,
    floor: File,
}

impl Bare {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir(dir.join("bare")).unwrap();
        let floor = File::create(dir.join("bare/floor")).unwrap();
        floor.write_all_at(&[0; 8_192], 0).unwrap();
        floor.sync_all().unwrap();
        Self { log: File::create(dir.join("bare/log")).unwrap(), floor }
    }
}

impl Commit for Bare {
    fn commit(&mut self, _: u64, count: usize) {
        self.log.write_all(&vec![7; count * SIZE]).unwrap();
        self.log.sync_data().unwrap();
        self.floor.write_all_at(&[7; 4_096], 0).unwrap();
        self.floor.sync_data().unwrap();
    }
}

/// Times of commits of some size, by each in turn.
fn measure(all: &mut [(&str, Box<dyn Commit>)], group: usize, from: u64) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); all.len()];
    for turn in 0..COMMITS / TURN {
        for ((_, log), times) in all.iter_mut().zip(&mut times) {
            for round in 0..TURN {
                let first = from + ((turn * TURN + round) * group) as u64;
                let started = Instant::now();
                log.commit(first, group);
                times.push(started.elapsed());
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    times
}

fn main() {
    // `cargo bench` adds flags of its own.
    let wished = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let top = match wished {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let top = top.unwrap();
    let mut all: Vec<(&str, Box<dyn Commit>)> = vec![
        ("write + fdatasync", Box::new(Bare::new(top.path()))),
        ("sled", Box::new(Log::new(LogKind::Sled, top.path()))),
        ("segments", Box::new(Log::new(LogKind::Segments, top.path()))),
    ];
    println!("| commit of | on | p50 | p99 | entries/s | p50 / bare |");
    println!("|---|---|---|---|---|---|");
    for (group, from) in [(1, 0), (GROUP, 1_000_000)] {
        let times = measure(&mut all, group, from);
        let p50 = |times: &[Duration]| times[times.len() / 2].as_secs_f64();
        let bare = p50(&times[0]);
        for ((name, _), times) in all.iter().zip(&times) {
            let p99 = times[times.len() * 99 / 100].as_secs_f64();
            let total: Duration = times.iter().sum();
            println!(
                "| {group} x {SIZE} B | {name} | {:.2} ms | {:.2} ms | {:.0} | {:.2} |",
                p50(times) * 1e3,
                p99 * 1e3,
                (COMMITS * group) as f64 / total.as_secs_f64(),
                p50(times) / bare
            );
        }
    }
}
