//! What the machine is, as far as this program asks: its cores, its memory, its name.

use std::fmt::Debug;
use std::num::NonZero;

/// The machine under a process.
pub trait Machine: Send + Sync + Debug {
    /// How many routines really run at a time; at least 1.
    fn cores(&self) -> usize;

    /// Its name; `None` where it cannot be read.
    fn hostname(&self) -> Option<String>;

    /// Its memory in bytes; `None` where it cannot be read.
    fn memory_bytes(&self) -> Option<i64>;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMachine;

impl Machine for SystemMachine {
    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, NonZero::get)
    }

    fn hostname(&self) -> Option<String> {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned())
    }

    fn memory_bytes(&self) -> Option<i64> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib * 1024)
    }
}
