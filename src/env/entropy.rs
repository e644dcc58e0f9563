//! Chance: ids, jitter, keys.

use std::fmt::Debug;
use std::time::Duration;

/// Where randomness comes from. All methods block for nanoseconds only.
pub trait Entropy: Send + Sync + Debug {
    /// Fills a buffer with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

impl dyn Entropy {
    /// 16 unpredictable bytes, for an id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// 32 unpredictable bytes, for a key or a seed.
    #[must_use]
    pub fn key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }

    /// An unpredictable number.
    #[must_use]
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// A duration between half of `around` and one and a half times it, for back-offs.
    #[must_use]
    pub fn jitter(&self, around: Duration) -> Duration {
        let nanos = u64::try_from(around.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(nanos / 2 + self.number() % nanos)
    }
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        // The kernel's generator fails only where there is no kernel support at all; a node without
        // keys cannot go on in any way.
        #[expect(clippy::expect_used, reason = "no node can run without a source of keys")]
        getrandom::fill(buffer).expect("the operating system has no random numbers");
    }
}
