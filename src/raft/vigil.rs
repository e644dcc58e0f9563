//! Marks that work leaves while it is under way, so that somebody else sees when it does not end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fitness::Ailment;
use crate::env::{Clock, Instant};

/// The marks of one member.
#[derive(Debug)]
pub(super) struct Vigil {
    clock: Arc<dyn Clock>,
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// Jobs that the log's thread has not finished.
    jobs: usize,
    /// When it last finished some, or got one after it had none.
    writing_since: Option<Instant>,
    pass_since: Option<Instant>,
    /// The first and the last of a row of plans that were refused.
    refused: Option<(Instant, Instant)>,
    has_stepped: bool,
    ailments: BTreeSet<Ailment>,
}

impl Vigil {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, marks: Mutex::default() }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job is given to the log's thread.
    pub(super) fn queued(&self) {
        let now = self.clock.instant();
        let mut marks = self.marks();
        marks.jobs += 1;
        marks.writing_since.get_or_insert(now);
    }

    /// The log's thread has finished some jobs.
    pub(super) fn written(&self, jobs: usize) {
        let now = self.clock.instant();
        let mut marks = self.marks();
        marks.jobs = marks.jobs.saturating_sub(jobs);
        marks.writing_since = (marks.jobs > 0).then_some(now);
    }

    /// For how long a write has been on its way.
    pub(super) fn writing(&self) -> Duration {
        let now = self.clock.instant();
        self.marks().writing_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// A planning pass begins.
    pub(super) fn pass_begins(&self) {
        let now = self.clock.instant();
        self.marks().pass_since = Some(now);
    }

    /// The pass has ended.
    pub(super) fn pass_ends(&self) {
        self.marks().pass_since = None;
    }

    /// The plan was refused.
    pub(super) fn plan_refused(&self) {
        let now = self.clock.instant();
        let mut marks = self.marks();
        let (first, _) = marks.refused.unwrap_or((now, now));
        marks.refused = Some((first, now));
    }

    /// The plan was carried out, or another tenure begins.
    pub(super) fn plan_taken(&self) {
        self.marks().refused = None;
    }

    /// For how long a pass or a row of refused plans has lasted.
    pub(super) fn planning(&self) -> Duration {
        let now = self.clock.instant();
        let marks = self.marks();
        let pass = marks.pass_since.map_or(Duration::ZERO, |since| now.since(since));
        let row = marks.refused.map_or(Duration::ZERO, |(first, last)| last.since(first));
        pass.max(row)
    }

    /// The wall clock is where a step has put it that is not believed.
    pub(super) fn clock_is_wrong(&self) {
        self.marks().has_stepped = true;
    }

    /// The wall clock is believed.
    pub(super) fn clock_is_right(&self) {
        self.marks().has_stepped = false;
    }

    /// Whether the wall clock is not believed.
    pub(super) fn has_stepped(&self) -> bool {
        self.marks().has_stepped
    }

    /// What was found; told to those who ask.
    pub(super) fn found(&self, ailments: &BTreeSet<Ailment>) {
        self.marks().ailments.clone_from(ailments);
    }

    /// Why this member is not fit to lead; empty if it is.
    pub(super) fn ailments(&self) -> BTreeSet<Ailment> {
        self.marks().ailments.clone()
    }
}
