//! What a node permits, and who may read what lies in its run directory.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::domain::SpecPolicy;

#[tokio::test]
async fn a_stricter_node_rejects_what_is_new_and_leaves_alone_what_runs() {
    let mut world = World::new();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (old, new) = (task(1, TaskState::Running), task(2, TaskState::Running));
    let spec = spec(&["sleep"]);
    manager.assign(set(1, &[(old.clone(), spec.clone())])).await;
    manager.until(&world.env, old.id, TaskState::Running).await;
    life.kill().await;

    let policy = SpecPolicy { host_network: false, ..SpecPolicy::everything() };
    world.guard = Guard::new(policy, &[], std::path::Path::new(""));
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    manager.assign(set(2, &[(old.clone(), spec.clone()), (new.clone(), spec)])).await;
    let rejected = manager.until(&world.env, new.id, TaskState::Rejected).await;
    assert_eq!(
        rejected.error,
        "TaskTemplate.Networks: the network of the host is not permitted by the policy of this \
         node ([policy] in its settings)"
    );
    let kept = manager.until(&world.env, old.id, TaskState::Running).await;
    assert_eq!(kept.error, "");
    assert_eq!(world.engine.calls(), [Call::Create(old.id), Call::Start(old.id)]);
    life.kill().await;
}

#[tokio::test]
async fn the_run_directory_stays_open_and_what_is_secret_in_it_is_not() {
    let world = World::new();
    let run = world.dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut life = world.start().await;
    let mut manager = life.manager().await;
    let (id, running) = one(1, TaskState::Running, &spec(&["sleep"]));
    manager.assign(running).await;
    manager.until(&world.env, id, TaskState::Running).await;
    let mode = |path: &str| std::fs::metadata(run.join(path)).unwrap().permissions().mode() & 0o777;
    // The API's socket lies here, which a group may use.
    assert_eq!(mode(""), 0o755);
    assert_eq!((mode("tasks"), mode(&format!("tasks/{id}/secrets"))), (0o700, 0o700));
    assert_eq!(mode("ledger.key"), 0o600);
    life.kill().await;
}
