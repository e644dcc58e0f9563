//! The table of steps.

use super::*;

const UP: Seen = Seen::Present(Phase::Running(Health::Unchecked));
const CREATED: Seen = Seen::Present(Phase::Created);
const EXITED: Seen = Seen::Present(Phase::Exited { code: 1, oom_killed: false });

fn facts(wish: Wish, state: TaskState, seen: Seen) -> Facts {
    Facts { wish, state, seen, blocker: None, early: Early::Due, traffic: Traffic::None }
}

fn check(wish: Wish, state: TaskState, seen: Seen, wanted: Operation) {
    assert_eq!(step(&facts(wish, state, seen)), wanted, "{wish:?} {state} {seen:?}");
}

#[test]
fn life_of_a_task_goes_on_in_order() {
    use Operation::{AwaitEvent, Create, Look, Report, Start};
    use TaskState as S;
    check(Wish::Run, S::Assigned, Seen::Unknown, Look);
    check(Wish::Run, S::Assigned, Seen::Absent, Report(S::Accepted));
    check(Wish::Run, S::Accepted, Seen::Absent, Report(S::Preparing));
    check(Wish::Run, S::Preparing, Seen::Absent, Create);
    check(Wish::Run, S::Preparing, CREATED, Report(S::Ready));
    check(Wish::Run, S::Ready, CREATED, Report(S::Starting));
    check(Wish::Run, S::Starting, CREATED, Start);
    check(Wish::Run, S::Starting, UP, Report(S::Running));
    check(Wish::Run, S::Running, UP, AwaitEvent);
    check(Wish::Run, S::Running, EXITED, Operation::Ended { code: 1, oom_killed: false });
    check(Wish::Run, S::Failed, EXITED, Operation::Rest);
}

#[test]
fn adopted_container_is_reported_and_never_made_again() {
    use TaskState as S;
    check(Wish::Run, S::Assigned, UP, Operation::Report(S::Running));
    check(Wish::Run, S::Assigned, CREATED, Operation::Report(S::Ready));
    check(Wish::Run, S::Ready, Seen::Absent, Operation::Create);
    check(Wish::Run, S::Starting, Seen::Absent, Operation::Destroyed);
    check(Wish::Run, S::Running, Seen::Absent, Operation::Destroyed);
}

#[test]
fn dead_task_is_never_revived() {
    for state in [TaskState::Complete, TaskState::Failed, TaskState::Rejected] {
        check(Wish::Run, state, Seen::Absent, Operation::Rest);
        check(Wish::Run, state, CREATED, Operation::Rest);
        check(Wish::Run, state, UP, Operation::Stop);
    }
}

#[test]
fn health_stands_between_starting_and_running() {
    let with = |health| Seen::Present(Phase::Running(health));
    let starting = TaskState::Starting;
    check(Wish::Run, starting, with(Health::Starting), Operation::AwaitEvent);
    check(Wish::Run, starting, with(Health::Healthy), Operation::Report(TaskState::Running));
    check(Wish::Run, starting, with(Health::Unhealthy), Operation::StopUnhealthy);
    check(Wish::Run, TaskState::Running, with(Health::Unhealthy), Operation::StopUnhealthy);
}

#[test]
fn blockers_hold_the_task_where_it_is() {
    let blocked = |blocker, seen, state| {
        step(&Facts { blocker: Some(blocker), ..facts(Wish::Run, state, seen) })
    };
    let preparing = TaskState::Preparing;
    let network = Operation::Await(Blocker::Network);
    assert_eq!(blocked(Blocker::Network, Seen::Absent, preparing), network);
    assert_eq!(blocked(Blocker::Files, Seen::Absent, preparing), Operation::WriteFiles);
    assert_eq!(blocked(Blocker::Image, Seen::Absent, preparing), Operation::Pull);
    assert_eq!(blocked(Blocker::Files, CREATED, TaskState::Starting), Operation::WriteFiles);
    assert_eq!(blocked(Blocker::Image, CREATED, TaskState::Starting), Operation::Start);
    let early = Facts { early: Early::Waits, ..facts(Wish::Run, TaskState::Ready, CREATED) };
    assert_eq!(step(&early), Operation::AwaitTime);
    let early = Facts { early: Early::WaitsForWord, wish: Wish::Prepare, ..early };
    assert_eq!(step(&early), Operation::AwaitEvent, "its predecessor still runs");
}

#[test]
fn end_drains_stops_reports_and_removes() {
    use TaskState as S;
    let served = Facts { traffic: Traffic::Possible, ..facts(Wish::Stop, S::Running, UP) };
    assert_eq!(step(&served), Operation::Drain);
    check(Wish::Stop, S::Running, UP, Operation::Stop);
    check(Wish::Stop, S::Running, EXITED, Operation::Report(S::Shutdown));
    check(Wish::Stop, S::Shutdown, EXITED, Operation::Rest);
    check(Wish::Stop, S::Assigned, Seen::Absent, Operation::Report(S::Shutdown));
    check(Wish::Remove, S::Shutdown, EXITED, Operation::Remove);
    check(Wish::Remove, S::Shutdown, Seen::Absent, Operation::Rest);
    check(Wish::Gone, S::Running, UP, Operation::Stop);
    check(Wish::Gone, S::Running, EXITED, Operation::Remove);
    check(Wish::Gone, S::Running, Seen::Absent, Operation::Forget);
}

#[test]
fn wish_follows_the_desired_state() {
    assert_eq!(Wish::of(TaskState::Running), Wish::Run);
    assert_eq!(Wish::of(TaskState::Ready), Wish::Prepare);
    assert_eq!(Wish::of(TaskState::Shutdown), Wish::Stop);
    assert_eq!(Wish::of(TaskState::Remove), Wish::Remove);
}
