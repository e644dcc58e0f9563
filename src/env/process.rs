//! What the kernel knows of this process, for its own page of numbers.

use std::time::Duration;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Time on processors, in the kernel and outside of it.
    pub cpu: Duration,
    /// Bytes of memory that are present.
    pub resident: u64,
    /// Bytes of address space.
    pub virtual_memory: u64,
    /// Threads.
    pub threads: u64,
    /// File descriptors that are open.
    pub open_fds: u64,
    /// The most that may be.
    pub max_fds: u64,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

/// What this process uses now; `None` where the kernel does not say.
#[must_use]
pub fn usage() -> Option<Usage> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    use nix::unistd::SysconfVar;
    let (ticks, page) = (sysconf(SysconfVar::CLK_TCK)?, sysconf(SysconfVar::PAGE_SIZE)?);
    let usage = parse(&stat, ticks, page, boot)?;
    // The handle that reads the folder is one of them.
    let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    let max_fds = max_fds(&limits).unwrap_or_default();
    Some(Usage { open_fds: u64::try_from(open_fds).ok()?, max_fds, ..usage })
}

fn sysconf(name: nix::unistd::SysconfVar) -> Option<u64> {
    nix::unistd::sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok())
}

/// Reads `/proc/self/stat`: the fields after the name, which may hold anything but its last bracket.
fn parse(stat: &str, ticks: u64, page: u64, boot: u64) -> Option<Usage> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Numbered from 3 (the state) in proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let (used, started) = (field(14)? + field(15)?, field(22)?);
    let ticks = ticks.max(1);
    Some(Usage {
        cpu: Duration::from_millis(used.saturating_mul(1000) / ticks),
        threads: field(20)?,
        virtual_memory: field(23)?,
        resident: field(24)?.saturating_mul(page),
        started: boot + started / ticks,
        ..Usage::default()
    })
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_name() {
        let stat = "42 (a) b)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 8192000 \
                    300 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";
        let usage = parse(stat, 100, 4096, 1_000_000).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!((usage.threads, usage.resident), (7, 300 * 4096));
        assert_eq!((usage.virtual_memory, usage.started), (8_192_000, 1_000_010));
        assert_eq!(max_fds("Limit Soft Hard\nMax open files   1024   4096  files\n"), Some(1024));
    }

    #[test]
    fn this_process_is_seen() {
        let usage = usage().unwrap();
        assert!(usage.resident > 1 << 20 && usage.threads >= 1 && usage.open_fds >= 3, "{usage:?}");
        assert!(usage.max_fds >= usage.open_fds && usage.started > 1_500_000_000, "{usage:?}");
    }
}
