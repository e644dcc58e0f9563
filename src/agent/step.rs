//! What to do next for one task: pure, from what is wanted, reported and observed.
//!
//! The order of a life is Docker's: accepted, preparing (files, network, image, create), ready,
//! starting (start, health), running, and an end. A step never waits and never remembers; the runner
//! performs the operation and asks again.

use crate::domain::TaskState;
use crate::runtime::{Health, Phase};

/// What the manager wants of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// It shall be ready to run, and wait for the managers' word: its predecessor is still stopping.
    Prepare,
    /// It shall run.
    Run,
    /// It shall not run; its container stays for those who want to look at it.
    Stop,
    /// Its container shall be removed, too.
    Remove,
    /// It is in no assignment any more: nothing shall be left of it.
    Gone,
}

impl Wish {
    /// The wish behind a desired state.
    pub(super) fn of(desired: TaskState) -> Self {
        match desired {
            TaskState::Remove => Self::Remove,
            state if state > TaskState::Running => Self::Stop,
            TaskState::Running => Self::Run,
            _ => Self::Prepare,
        }
    }
}

/// What is known of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody looked yet, or something happened since.
    Unknown,
    /// There is none.
    Absent,
    /// It is there.
    Present(Phase),
}

/// What stands before the container can be made or started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocker {
    /// The spec, a secret or a config has not arrived.
    Materials,
    /// The node's part in the network is not ready.
    Network,
    /// The files of secrets, configs and the resolver are not written.
    Files,
    /// The image is not on this node.
    Image,
}

/// Everything a step looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// What is wanted.
    pub(super) wish: Wish,
    /// What was last reported.
    pub(super) state: TaskState,
    /// The container.
    pub(super) seen: Seen,
    /// The first thing that is missing.
    pub(super) blocker: Option<Blocker>,
    /// The restart delay has not passed.
    pub(super) early: Early,
    /// Whether others may still send it requests.
    pub(super) traffic: Traffic,
}

/// Whether the task must wait for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// Its time has come.
    Due,
    /// Not yet.
    Waits,
    /// When the managers say so.
    WaitsForWord,
}

/// Whether requests may still come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// It never served, or its address was withdrawn for long enough.
    None,
    /// It was served until the wish changed.
    Possible,
}

/// The next act on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Look at the container.
    Look,
    /// Report a state.
    Report(TaskState),
    /// Wait until what is missing has come.
    Await(Blocker),
    /// Write the files.
    WriteFiles,
    /// Fetch the image.
    Pull,
    /// Make the container.
    Create,
    /// Wait for the task's time.
    AwaitTime,
    /// Start it.
    Start,
    /// It runs, or may not yet: wait for something to happen.
    AwaitEvent,
    /// It ended by itself: report how.
    Ended {
        /// Exit code.
        code: i64,
        /// Whether the kernel ended it.
        oom_killed: bool,
    },
    /// Somebody removed it: report the failure.
    Destroyed,
    /// Its health check failed: stop it and report the failure.
    StopUnhealthy,
    /// Wait until nobody sends requests any more.
    Drain,
    /// Stop it.
    Stop,
    /// Remove the container and its files.
    Remove,
    /// Nothing to do until the wish changes.
    Rest,
    /// The task is over and forgotten.
    Forget,
}

/// The next operation.
pub(super) fn step(facts: &Facts) -> Operation {
    if facts.seen == Seen::Unknown {
        return Operation::Look;
    }
    match facts.wish {
        Wish::Prepare | Wish::Run => run(facts),
        Wish::Stop | Wish::Remove | Wish::Gone => end(facts),
    }
}

fn run(facts: &Facts) -> Operation {
    if facts.state.is_terminal() {
        return match facts.seen {
            Seen::Present(Phase::Running(_)) => Operation::Stop,
            Seen::Present(Phase::Created | Phase::Exited { .. }) | Seen::Absent | Seen::Unknown => {
                Operation::Rest
            }
        };
    }
    match facts.seen {
        Seen::Unknown => Operation::Look,
        Seen::Absent if facts.state >= TaskState::Starting => Operation::Destroyed,
        Seen::Absent => prepare(facts),
        Seen::Present(Phase::Created) => launch(facts),
        Seen::Present(Phase::Running(health)) => attend(facts, health),
        Seen::Present(Phase::Exited { code, oom_killed }) => Operation::Ended { code, oom_killed },
    }
}

fn prepare(facts: &Facts) -> Operation {
    if facts.state < TaskState::Accepted {
        return Operation::Report(TaskState::Accepted);
    }
    if facts.state < TaskState::Preparing {
        return Operation::Report(TaskState::Preparing);
    }
    unblock(facts.blocker).unwrap_or(Operation::Create)
}

fn unblock(blocker: Option<Blocker>) -> Option<Operation> {
    blocker.map(|blocker| match blocker {
        Blocker::Materials | Blocker::Network => Operation::Await(blocker),
        Blocker::Files => Operation::WriteFiles,
        Blocker::Image => Operation::Pull,
    })
}

fn launch(facts: &Facts) -> Operation {
    if facts.state < TaskState::Ready {
        return Operation::Report(TaskState::Ready);
    }
    // The files lie in memory: after a reboot they must be written anew. The image is in use.
    if let Some(blocker) = facts.blocker
        && blocker != Blocker::Image
    {
        return unblock(Some(blocker)).unwrap_or(Operation::Start);
    }
    match facts.early {
        Early::Due => {}
        Early::Waits => return Operation::AwaitTime,
        Early::WaitsForWord => return Operation::AwaitEvent,
    }
    if facts.state < TaskState::Starting {
        return Operation::Report(TaskState::Starting);
    }
    Operation::Start
}

fn attend(facts: &Facts, health: Health) -> Operation {
    let reached = match health {
        Health::Unhealthy => return Operation::StopUnhealthy,
        Health::Starting => TaskState::Starting,
        Health::Unchecked | Health::Healthy => TaskState::Running,
    };
    if facts.state < reached { Operation::Report(reached) } else { Operation::AwaitEvent }
}

fn end(facts: &Facts) -> Operation {
    if let Seen::Present(Phase::Running(_)) = facts.seen {
        return match facts.traffic {
            Traffic::Possible => Operation::Drain,
            Traffic::None => Operation::Stop,
        };
    }
    if !facts.state.is_terminal() && facts.wish != Wish::Gone {
        return Operation::Report(TaskState::Shutdown);
    }
    match (facts.wish, facts.seen) {
        (Wish::Remove | Wish::Gone, Seen::Present(_)) => Operation::Remove,
        (Wish::Gone, Seen::Absent | Seen::Unknown) => Operation::Forget,
        (Wish::Prepare | Wish::Run | Wish::Stop | Wish::Remove, _) => Operation::Rest,
    }
}

#[cfg(test)]
mod tests;
