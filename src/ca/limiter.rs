//! How often one address may try to enrol.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::Instant;

/// The time over which attempts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong tokens of one address in a window: nobody mistypes more often.
const FAILURES_MAX: u32 = 20;
/// Attempts of one address in a window: a whole rack behind one address.
const ATTEMPTS_MAX: u32 = 1_000;
/// Addresses that are remembered; the one with the oldest window is forgotten first.
const ADDRESSES_MAX: usize = 4_096;

#[derive(Debug)]
struct Window {
    since: Instant,
    attempts: u32,
    failures: u32,
}

/// Counts attempts per address, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    windows: Mutex<BTreeMap<IpAddr, Window>>,
}

impl Limiter {
    /// Counts an attempt; whether it may be made.
    pub(super) fn attempt(&self, ip: IpAddr, now: Instant) -> bool {
        self.with(ip, now, |window| {
            window.attempts = window.attempts.saturating_add(1);
            window.attempts <= ATTEMPTS_MAX && window.failures < FAILURES_MAX
        })
    }

    /// Counts a wrong token.
    pub(super) fn failed(&self, ip: IpAddr, now: Instant) {
        self.with(ip, now, |window| window.failures = window.failures.saturating_add(1));
    }

    fn with<T>(&self, ip: IpAddr, now: Instant, f: impl FnOnce(&mut Window) -> T) -> T {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if !windows.contains_key(&ip) && windows.len() >= ADDRESSES_MAX {
            let oldest = windows.iter().min_by_key(|(_, window)| window.since).map(|(ip, _)| *ip);
            if let Some(oldest) = oldest {
                windows.remove(&oldest);
            }
        }
        let fresh = || Window { since: now, attempts: 0, failures: 0 };
        let window = windows.entry(ip).or_insert_with(fresh);
        if now.since(window.since) > WINDOW {
            *window = fresh();
        }
        f(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn guessing_is_stopped_for_a_minute_and_for_one_address() {
        let limiter = Limiter::default();
        let start = Instant::default();
        for _ in 0..FAILURES_MAX {
            assert!(limiter.attempt(ip(1), start));
            limiter.failed(ip(1), start);
        }
        assert!(!limiter.attempt(ip(1), start));
        assert!(limiter.attempt(ip(2), start));
        assert!(limiter.attempt(ip(1), start.after(WINDOW * 2)));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = Limiter::default();
        for number in 0..10_000 {
            limiter.attempt(ip(number), Instant(Duration::from_nanos(number.into())));
        }
        assert_eq!(limiter.windows.lock().unwrap().len(), ADDRESSES_MAX);
        assert!(limiter.windows.lock().unwrap().contains_key(&ip(9_999)));
    }
}
