//! Since when alarms are raised: what a list of conditions means after the one before.

use std::collections::BTreeMap;

use super::alarm::{Alarm, Name};
use crate::domain::Timestamp;

/// An alarm that is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// What it is now.
    pub alarm: Alarm,
    /// When its condition was first seen here.
    pub since: Timestamp,
}

/// News.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It holds.
    Raised(Raised),
    /// It held.
    Cleared(Raised),
}

/// What held at the last look.
#[derive(Debug, Default)]
pub struct Tracker {
    known: BTreeMap<(Name, String), (Raised, IsTold)>,
}

/// Whether somebody was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsTold {
    Yes,
    NotYet,
}

impl Tracker {
    /// Takes the conditions that hold now. What is news, in their order.
    pub fn look(&mut self, now: Timestamp, alarms: Vec<Alarm>) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.known);
        let mut news = Vec::new();
        for alarm in alarms {
            let key = (alarm.name, alarm.subject.clone());
            let (since, told) = before
                .remove(&key)
                .map_or((now, IsTold::NotYet), |(raised, told)| (raised.since, told));
            let raised = Raised { alarm, since };
            // The wall clock may go back: a condition that is older than now is taken as new.
            let lasted = now.0.saturating_sub(since.0) / 1_000_000_000;
            let is_due = told == IsTold::NotYet && lasted >= key.0.patience_seconds();
            if is_due {
                news.push(Change::Raised(raised.clone()));
            }
            let told = if is_due { IsTold::Yes } else { told };
            self.known.insert(key, (raised, told));
        }
        let cleared = before.into_values().filter(|(_, told)| *told == IsTold::Yes);
        news.extend(cleared.map(|(raised, _)| Change::Cleared(raised)));
        news
    }

    /// The alarms that are raised, the most urgent first.
    #[must_use]
    pub fn raised(&self) -> Vec<Raised> {
        let told = self.known.values().filter(|(_, told)| *told == IsTold::Yes);
        told.map(|(raised, _)| raised.clone()).collect()
    }
}
