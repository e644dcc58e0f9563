//! Counters, gauges and histograms: numbers that cost an atomic addition and are read when somebody
//! asks.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of all histograms, in microseconds: from a write to an SSD to what
/// people call hanging. One set for all, so that any two can be compared and their number is known.
pub(super) const BOUNDS_MICROS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// A number that only rises while the process lives.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// So many are there now.
    pub fn set(&self, value: usize) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Of each bucket alone; the last one is for what is beyond all bounds.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many were within each bound, rising; the last is how many there were.
    pub(super) fn cumulative(&self) -> Vec<u64> {
        let mut sum = 0;
        let mut upto = |bucket: &AtomicU64| {
            sum += bucket.load(Ordering::Relaxed);
            sum
        };
        self.buckets.iter().map(&mut upto).collect()
    }

    /// How long all took together.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed))
    }
}

/// A label with a closed set of values, so that a family has a known size.
pub trait Label: Copy + Debug + 'static {
    /// Its name.
    const KEY: &'static str;
    /// Its values.
    const ALL: &'static [Self];
    /// A value as it is shown.
    fn word(self) -> &'static str;
    /// Its place among all.
    fn place(self) -> usize;
}

/// One number per value of a label.
#[derive(Debug)]
pub struct Family<L, M> {
    cells: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M: Default> Default for Family<L, M> {
    fn default() -> Self {
        let cells = L::ALL.iter().map(|_| M::default()).collect();
        Self { cells, label: PhantomData }
    }
}

impl<L: Label, M> Family<L, M> {
    /// The number of a value.
    #[must_use]
    pub fn of(&self, label: L) -> &M {
        &self.cells[label.place()]
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &M)> {
        L::ALL.iter().map(|label| label.word()).zip(&self.cells)
    }
}

/// Makes a label of words.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident $key:literal { $($(#[$case_doc:meta])* $case:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$case_doc])* $case),+ }

        impl $crate::env::Label for $name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$case),+];
            fn word(self) -> &'static str {
                match self { $(Self::$case => $word),+ }
            }
            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use label;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 30_000_000, 30_000_001] {
            histogram.took(Duration::from_micros(micros));
        }
        let counts = histogram.cumulative();
        assert_eq!((counts[0], counts[1]), (2, 3), "100 µs are within 100 µs");
        assert_eq!((counts[13], counts[14]), (4, 5), "beyond all bounds");
        assert_eq!(histogram.sum(), Duration::from_micros(60_000_202));
    }
}
