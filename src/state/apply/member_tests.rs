//! What `apply` does and refuses about managers, networks and the cluster.

use super::tests::{delete, done, refused};
use super::*;
use crate::domain::cluster::{Authority, Cluster, RootRotation, Trust};
use crate::domain::secret::Sensitive;
use crate::state::fixtures::*;

fn join(node: u8) -> Change {
    let addr = format!("192.0.2.{node}:2377").parse().unwrap();
    Change::JoinManager { node: node_id(node), addr }
}

fn raft_id(state: &State, node: u8) -> RaftId {
    state.node(node_id(node)).unwrap().manager.unwrap().raft_id
}

#[test]
fn raft_ids_are_never_used_twice() {
    let mut state = small();
    done(&mut state, vec![join(1)]);
    assert_eq!(raft_id(&state, 1), RaftId(1));
    done(&mut state, vec![join(2)]);
    let second = RaftId(state.position.index);
    assert_eq!(raft_id(&state, 2), second);
    assert!(done(&mut state, vec![join(2)]).is_empty(), "a repeated join changes nothing");

    let mut removed = (**state.node(node_id(2)).unwrap()).clone();
    removed.manager.as_mut().unwrap().membership = Membership::Removed;
    done(&mut state, vec![put(removed, Expect::Present)]);
    done(&mut state, vec![join(2)]);
    assert!(raft_id(&state, 2) > second);

    let moved = "192.0.2.99:2377".parse().unwrap();
    let before = raft_id(&state, 1);
    done(&mut state, vec![Change::JoinManager { node: node_id(1), addr: moved }]);
    let manager = state.node(node_id(1)).unwrap().manager.unwrap();
    assert_eq!((manager.raft_id, manager.addr), (before, moved));
}

#[test]
fn an_eighth_manager_is_refused() {
    let mut state = small();
    for number in 4..=9 {
        done(&mut state, vec![create(node(number))]);
    }
    for number in 1..=7 {
        done(&mut state, vec![join(number)]);
    }
    assert_eq!(refused(&mut state, vec![join(8)]), Rejection::TooManyManagers { max: 7 });
    let mut removed = (**state.node(node_id(7)).unwrap()).clone();
    removed.manager.as_mut().unwrap().membership = Membership::Removed;
    done(&mut state, vec![put(removed, Expect::Present), join(8)]);
    assert_eq!(state.managers().count(), 7);
    let unknown = refused(&mut state, vec![join(77)]);
    assert!(matches!(unknown, Rejection::NotFound { kind: "node", .. }));
}

#[test]
fn two_joins_of_one_entry_do_not_share_an_id() {
    let mut state = small();
    done(&mut state, vec![join(1)]);
    assert!(refused(&mut state, vec![join(2), join(3)]).to_string().contains("try again"));
}

#[test]
fn networks_do_not_overlap_and_keep_their_shape() {
    let mut state = small();
    let mut other = network(2);
    other.subnet = network(1).subnet;
    assert!(refused(&mut state, vec![create(other)]).to_string().contains("overlaps"));
    let twin = crate::domain::Network { vni: network(1).vni, ..network(2) };
    assert!(refused(&mut state, vec![create(twin)]).to_string().contains("VNI"));
    let moved = crate::domain::Network { cursor: 5, ..network(1) };
    done(&mut state, vec![put(moved, Expect::Present)]);
    let bent = crate::domain::Network { vni: 1, ..network(1) };
    assert!(matches!(
        refused(&mut state, vec![put(bent, Expect::Present)]),
        Rejection::Broken { .. }
    ));
    let key = ObjectKey::Network(network_id(1));
    assert!(refused(&mut state, vec![delete(key)]).to_string().contains("default network"));
}

#[test]
fn the_cluster_is_for_ever() {
    let mut state = small();
    assert!(matches!(
        refused(&mut state, vec![delete(ObjectKey::Cluster)]),
        Rejection::Broken { .. }
    ));
    let rotated = crate::domain::Cluster { worker_token: 2, ..cluster() };
    done(&mut state, vec![put(rotated, Expect::Present)]);
    let mut stale_read = cluster();
    stale_read.spec.labels.insert("a".into(), "b".into());
    done(&mut state, vec![put(stale_read, Expect::SpecAt(Revision(1)))]);
    assert_eq!(state.cluster.as_ref().unwrap().worker_token, 2, "a rotation is never undone");
    let mut locked = state.cluster.clone().map(|it| (*it).clone()).unwrap();
    let key = crate::domain::UnlockKey::new([7; 32]);
    locked.autolock = crate::domain::Autolock { generation: 1, key: Some(key) };
    locked.spec.encryption_config.auto_lock_managers = true;
    done(&mut state, vec![put(locked.clone(), Expect::Present)]);
    locked.autolock.key = None;
    assert!(matches!(
        refused(&mut state, vec![put(locked, Expect::Present)]),
        Rejection::Broken { .. }
    ));
    assert!(matches!(
        refused(&mut state, vec![put(cluster(), Expect::Any)]),
        Rejection::Broken { .. }
    ));
}

/// The cluster of the fixture after a user asked for another root.
fn rotating(state: &State, next: &str) -> Cluster {
    let mut cluster = (**state.cluster.as_ref().unwrap()).clone();
    let count = cluster.spec.ca.force_rotate() + 1;
    cluster.spec.ca.extra.insert("ForceRotate".to_owned(), count.into());
    let next = Authority { root_pem: next.to_owned(), key_pem: Sensitive::new(b"next") };
    let rotation = Some(RootRotation { next, cross_pem: "cross".to_owned() });
    cluster.trust = Trust { generation: cluster.trust.generation + 1, rotation };
    cluster
}

fn trust(state: &State, node: u8) -> u64 {
    state.node(node_id(node)).unwrap().trust
}

#[test]
fn what_a_node_has_confirmed_only_rises_and_never_past_what_there_is() {
    let mut state = small();
    let report = |node: u8, trust: u64| Change::ReportTrust { node: node_id(node), trust };
    assert!(done(&mut state, vec![report(1, 1)]).is_empty(), "there is nothing to confirm");
    let wish = rotating(&state, "second");
    done(&mut state, vec![put(wish, Expect::Present)]);
    assert_eq!(done(&mut state, vec![report(1, 1)]).len(), 1);
    assert!(done(&mut state, vec![report(1, 1), report(1, 0), report(9, 1)]).is_empty());
    assert_eq!((trust(&state, 1), trust(&state, 2)), (1, 0));
    for wrong in [0, 2] {
        let node = Node { trust: wrong, ..(**state.node(node_id(1)).unwrap()).clone() };
        let rejection = refused(&mut state, vec![put(node, Expect::Present)]);
        assert!(matches!(rejection, Rejection::Broken { .. }), "{rejection}");
    }
    // A user's write of an older state of the node takes nothing back.
    let stale = Node { trust: 0, ..(**state.node(node_id(1)).unwrap()).clone() };
    let expect = Expect::SpecAt(stale.meta.spec_revision);
    done(&mut state, vec![put(stale, expect)]);
    assert_eq!(trust(&state, 1), 1);
}

#[test]
fn roots_change_only_as_announced_and_one_step_at_a_time() {
    let mut state = small();
    let now = |state: &State| (**state.cluster.as_ref().unwrap()).clone();
    let other = Authority { root_pem: "other".to_owned(), key_pem: Sensitive::new(b"other") };
    let usurped = Cluster { authority: other.clone(), ..now(&state) };
    refused(&mut state, vec![put(usurped, Expect::Present)]);

    let wish = rotating(&state, "second");
    let expect = Expect::SpecAt(now(&state).meta.spec_revision);
    done(&mut state, vec![put(wish.clone(), expect)]);
    let usurped =
        Cluster { authority: other, trust: Trust { generation: 2, rotation: None }, ..now(&state) };
    refused(&mut state, vec![put(usurped, Expect::Present)]);

    // Whoever writes another wish with what was read before touches no root …
    let mut label = Cluster { spec: wish.spec.clone(), ..cluster() };
    label.spec.labels.insert("a".into(), "b".into());
    let expect = Expect::SpecAt(now(&state).meta.spec_revision);
    done(&mut state, vec![put(label, expect)]);
    assert_eq!(now(&state).trust, wish.trust);
    // … and one for another root that was signed by a root of before is refused.
    let late = rotating(&state, "third");
    let switched = Cluster {
        authority: now(&state).issuer().clone(),
        trust: Trust { generation: 2, rotation: None },
        ..now(&state)
    };
    done(&mut state, vec![put(switched, Expect::Present)]);
    let expect = Expect::SpecAt(now(&state).meta.spec_revision);
    let rejection = refused(&mut state, vec![put(late, expect)]);
    assert!(rejection.to_string().contains("try again"), "{rejection}");
    assert_eq!(now(&state).authority.root_pem, "second");
}
