//! Ids of new objects, drawn from a seed: the same seed gives the same ids in the same order.
//!
//! `SplitMix64` (Steele, Lea, Flood 2014) over two lanes that are keyed by all 32 bytes of the seed.
//! Ids must be distinct, not secret; the seed itself comes from the operating system's entropy.

use crate::domain::TaskId;

/// A source of ids.
#[derive(Debug)]
pub(super) struct Ids {
    high: u64,
    low: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Ids {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let lane = |start: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&seed[start..start + 8]);
            u64::from_le_bytes(bytes)
        };
        Self { high: lane(0) ^ mix(lane(16)), low: lane(8) ^ mix(lane(24)) }
    }

    pub(super) fn task(&mut self) -> TaskId {
        self.high = self.high.wrapping_add(GOLDEN);
        self.low = self.low.wrapping_add(GOLDEN.rotate_left(17) | 1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&mix(self.high).to_be_bytes());
        bytes[8..].copy_from_slice(&mix(self.low).to_be_bytes());
        TaskId::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_distinct_and_follow_from_the_seed() {
        let draw = |seed| {
            let mut ids = Ids::new(seed);
            (0..10_000).map(|_| ids.task()).collect::<Vec<_>>()
        };
        let first = draw([1; 32]);
        assert_eq!(first, draw([1; 32]));
        let mut all: BTreeSet<_> = first.into_iter().collect();
        for byte in 0..32 {
            let mut seed = [1; 32];
            seed[byte] = 2;
            all.extend(draw(seed));
        }
        assert_eq!(all.len(), 33 * 10_000);
    }
}
