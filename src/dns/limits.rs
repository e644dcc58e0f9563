//! How much a client may ask: work under way, bounded in all and by client, and a rate.
//!
//! A container that floods the server must take neither the names from the others nor the processor
//! from the daemon. The locks are held for a look-up only.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::env::Instant;

/// Queries of one client per second: more than a busy proxy that caches nothing asks.
const PER_SECOND: u32 = 2_000;
/// Queries that may come at once.
const BURST: u32 = 4_000;
/// Clients whose rate is remembered. There are fewer tasks on a node; with more, addresses are made up,
/// and everybody begins anew.
const CLIENTS_MAX: usize = 4_096;

/// Work under way.
#[derive(Debug)]
pub(super) struct Work {
    total: usize,
    per_client: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_client: BTreeMap<IpAddr, usize>,
}

/// The right to some work; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    taken: Arc<Mutex<Taken>>,
    client: IpAddr,
}

impl Work {
    pub(super) fn new(total: usize, per_client: usize) -> Self {
        Self { total, per_client, taken: Arc::default() }
    }

    /// The right to one more, if there is room.
    pub(super) fn take(&self, client: IpAddr) -> Option<Permit> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_client.get(&client).copied().unwrap_or_default();
        if taken.all >= self.total || own >= self.per_client {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, own + 1);
        drop(taken);
        Some(Permit { taken: Arc::clone(&self.taken), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// How fast clients ask: a bucket for each.
#[derive(Debug, Default)]
pub(super) struct Rate {
    buckets: Mutex<BTreeMap<IpAddr, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Rate {
    /// Counts a query; whether it may be answered.
    pub(super) fn admits(&self, client: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(&client) {
            buckets.clear();
        }
        let bucket = buckets.entry(client).or_insert(Bucket { left: BURST, filled: now });
        let passed = now.since(bucket.filled);
        let earned = passed.as_micros() * u128::from(PER_SECOND) / 1_000_000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            bucket.left = bucket.left.saturating_add(earned).min(BURST);
            // What was not enough for a query counts for the next one.
            bucket.filled =
                bucket.filled.after(Duration::from_secs(1) / PER_SECOND * earned.min(BURST));
            if bucket.left == BURST {
                bucket.filled = now;
            }
        }
        let admitted = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_flood_is_cut_to_the_rate_and_others_are_served() {
        let rate = Rate::default();
        let start = Instant(Duration::from_secs(7));
        let mut answered = 0;
        for step in 0..100_000u32 {
            // 100,000 queries in ten seconds.
            let now = start.after(Duration::from_micros(100) * step);
            answered += u32::from(rate.admits(ip(1), now));
            if step % 1_000 == 0 {
                assert!(rate.admits(ip(2), now), "another client, at {step}");
            }
        }
        let most = BURST + 10 * PER_SECOND;
        assert!((most - 100..=most).contains(&answered), "{answered} of at most {most}");
    }

    #[test]
    fn whoever_keeps_to_the_rate_is_always_answered() {
        let rate = Rate::default();
        let gap = Duration::from_secs(1) / PER_SECOND;
        assert!((0..50_000u32).all(|step| rate.admits(ip(1), Instant(gap * step))));
    }

    #[test]
    fn addresses_that_are_made_up_cost_bounded_memory() {
        let rate = Rate::default();
        for number in 0..20_000 {
            rate.admits(ip(number), Instant::default());
        }
        assert!(rate.buckets.lock().unwrap().len() <= CLIENTS_MAX);
    }

    #[test]
    fn work_is_bounded_by_client_and_in_all_and_given_back() {
        let work = Work::new(3, 2);
        let first = work.take(ip(1)).unwrap();
        let _second = work.take(ip(1)).unwrap();
        assert!(work.take(ip(1)).is_none(), "two of one client");
        let _third = work.take(ip(2)).unwrap();
        assert!(work.take(ip(3)).is_none(), "three in all");
        drop(first);
        let _fourth = work.take(ip(3)).unwrap();
        assert_eq!(work.taken.lock().unwrap().by_client.len(), 3);
    }
}
