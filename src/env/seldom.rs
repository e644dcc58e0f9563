//! What goes wrong many times a second is told at once, and then now and again with how often it
//! was: a full log helps nobody.

use std::time::Duration;

use super::Instant;

/// Between two words about the same thing.
const EVERY: Duration = Duration::from_secs(10);

/// Counts what happens, and says when it is to be told.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It has happened. How often since somebody was told, this time included, if now is the time to
    /// tell: the first time, and then once in ten seconds.
    pub fn again(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.since(told) < EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_how_many_in_ten_seconds() {
        let mut seldom = Seldom::default();
        let mut at = |millis| seldom.again(Instant(Duration::from_millis(millis)));
        assert_eq!(at(5_000), Some(1));
        let told: Vec<_> = (1..=250).filter_map(|number| at(5_000 + number * 100)).collect();
        assert_eq!(told, [100, 100], "ten times a second for 25 s");
        assert_eq!(at(60_000), Some(51), "what nobody was told of is not lost");
    }
}
