//! One member, three members, and what happens to them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::net::Net;
use super::{config_change, entry_of, node_change};
use crate::domain::timing::Timing;
use crate::domain::{ConfigId, Format, NodeId, RaftId, RequestId};
use crate::env::disk::LogKind;
use crate::env::{Env, Scope, SystemDevice};
use crate::raft::{
    Compaction, Error, Handle, Leadership, ProposeError, ReadError, Settings, epoch, plant,
    salvage, start,
};
use crate::state::{Change, Expect, ObjectKey, Rejection, View};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(1_500);

struct Cluster {
    dir: tempfile::TempDir,
    net: Arc<Net>,
    env: Env,
    scope: Scope,
}

fn addr(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 2377).into()
}

fn settings(dir: &Path, number: u8) -> Settings {
    Settings {
        dir: dir.join(format!("m{number}")),
        raft_id: RaftId(number.into()),
        node: NodeId::from_bytes([number; 16]),
        addr: addr(number),
        timing: Timing::DEFAULT,
        key: [number; 32],
        compaction: Compaction::DEFAULT,
    }
}

impl Cluster {
    fn on(kind: LogKind) -> Self {
        Self::over(kind, Net { tells_of_ends: true, ..Net::default() })
    }

    fn over(kind: LogKind, net: Net) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { device: Arc::new(SystemDevice::new(kind)), ..Env::system() };
        Self { dir, net: Arc::new(net), env, scope: Scope::root("test") }
    }

    async fn start(&self, number: u8) -> Handle {
        let link = self.net.link(addr(number));
        let settings = settings(self.dir.path(), number);
        let handle = start(settings, self.env.clone(), link, &self.scope).await.unwrap();
        self.net.add(addr(number), handle.inbound());
        handle
    }

    async fn stop(&self, number: u8, handle: Handle) {
        handle.shutdown().await;
        self.net.remove(addr(number));
    }

    /// As `kill -9` would: nobody is told.
    async fn kill(&self, number: u8, handle: Handle) {
        self.net.remove(addr(number));
        handle.kill().await;
    }

    async fn one(&self) -> Handle {
        let handle = self.start(1).await;
        handle.bootstrap(vec![node_change(1)]).await.unwrap();
        handle
    }

    async fn three(&self) -> [Handle; 3] {
        let first = self.one().await;
        let mut all = vec![first.clone()];
        for number in 2..=3 {
            all.push(self.start(number).await);
            self.join(&first, number).await;
        }
        all.try_into().unwrap()
    }

    async fn join(&self, leader: &Handle, number: u8) {
        let id = RaftId(number.into());
        leader.add_learner(id, NodeId::from_bytes([number; 16]), addr(number)).await.unwrap();
        leader.promote(id).await.unwrap();
        let mut members = leader.members();
        members.wait_for(|members| members.voters.contains(&id)).await.unwrap();
    }
}

fn configs(view: &View) -> usize {
    view.configs.len()
}

async fn put(handle: &Handle, number: u64) -> Result<u64, ProposeError> {
    let store = handle.store();
    store.propose(None, vec![config_change(number, 200)], LONG).await.map(|revision| revision.0)
}

async fn leads(handle: &Handle) {
    let mut leadership = handle.store().leadership();
    let env = Env::system();
    env.clock.timeout(LONG, leadership.wait_for(|now| now.is_self)).await.unwrap().unwrap();
}

async fn one_member_keeps_everything_over_a_restart(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let handle = cluster.one().await;
    assert!(matches!(handle.bootstrap(vec![]).await, Err(Error::Begun)));
    for number in 0..30 {
        put(&handle, number).await.unwrap();
    }
    let again = put(&handle, 7).await;
    assert!(again.is_ok(), "the same object again is a retry: {again:?}");
    let delete = Change::Delete {
        key: ObjectKey::Config(ConfigId::from_bytes([9; 16])),
        expect: Expect::Present,
    };
    handle.store().propose(None, vec![delete], LONG).await.unwrap();
    let stale = handle.store().view();
    let missing = Change::JoinManager { node: NodeId::from_bytes([99; 16]), addr: addr(99) };
    let rejected = handle.store().propose(None, vec![missing], LONG).await;
    assert!(matches!(rejected, Err(ProposeError::Rejected(_))), "{rejected:?}");
    let view = handle.store().read_index(LONG).await.unwrap();
    assert_eq!(configs(&view), 30);
    assert!(view.position > stale.position);
    cluster.stop(1, handle).await;

    let handle = cluster.start(1).await;
    leads(&handle).await;
    let found = handle.store().view();
    assert_eq!(configs(&found), 30);
    assert!(found.objects().eq(view.objects()));
    put(&handle, 100).await.unwrap();
    cluster.kill(1, handle).await;

    let handle = cluster.start(1).await;
    leads(&handle).await;
    assert_eq!(configs(&handle.store().view()), 31);
}

async fn what_queues_becomes_one_entry_and_all_are_answered(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let handle = cluster.one().await;
    let before = handle.store().view().position.index;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..1_000 {
        let handle = handle.clone();
        waiting.spawn(async move { put(&handle, number).await.unwrap() });
    }
    let mut indexes = std::collections::BTreeSet::new();
    while let Some(index) = waiting.join_next().await {
        indexes.insert(index.unwrap());
    }
    let view = handle.store().view();
    assert_eq!(configs(&view), 1_000);
    let entries = view.position.index - before;
    assert!(entries < 300, "{entries} entries for 1000 proposals");
    assert_eq!(indexes.len() as u64, entries);
    // Each joining manager must get an id of its own.
    let times: Vec<_> = view.configs.values().map(|config| config.meta.created_at).collect();
    assert!(times.iter().all(|time| time.0 > 0));
}

async fn proposals_are_bound_to_a_term_and_to_a_size(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let handle = cluster.one().await;
    let store = handle.store();
    let term = store.leadership().borrow().term;
    store.propose_in_term(term, vec![config_change(1, 10)], LONG).await.unwrap();
    let other = store.propose_in_term(term + 1, vec![config_change(2, 10)], LONG).await;
    assert_eq!(other, Err(ProposeError::NotLeader));
    let large = store.propose(None, vec![config_change(3, 3 << 20)], LONG).await;
    let Err(ProposeError::Rejected(Rejection::Broken { rule })) = large else {
        panic!("{large:?}")
    };
    assert!(rule.contains("too large"), "{rule}");
    // A config of the largest size goes through.
    store.propose(None, vec![config_change(4, 1_000_000)], LONG).await.unwrap();
    cluster.stop(1, handle).await;
    let handle = cluster.start(1).await;
    leads(&handle).await;
    assert_eq!(configs(&handle.store().view()), 2);
}

async fn followers_forward_and_read_their_own_writes(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let all = cluster.three().await;
    for (number, handle) in (0..).zip(&all) {
        let index = put(handle, number).await.unwrap();
        let view = handle.store().view();
        assert!(view.position.index >= index);
        assert_eq!(configs(&view), usize::try_from(number).unwrap() + 1);
    }
    let rejected = Change::JoinManager { node: NodeId::from_bytes([99; 16]), addr: addr(99) };
    let request = Some(RequestId::from_bytes([1; 16]));
    let rejected = all[2].store().propose(request, vec![rejected], LONG).await;
    assert!(matches!(rejected, Err(ProposeError::Rejected(_))), "{rejected:?}");
    put(&all[0], 50).await.unwrap();
    for handle in &all {
        let view = handle.store().read_index(LONG).await.unwrap();
        assert_eq!(configs(&view), 4, "a read sees every write before it");
    }
    let not_here = all[1].store().propose_in_term(1, vec![], LONG).await;
    assert_eq!(not_here, Err(ProposeError::NotLeader));
}

async fn a_dead_leader_is_succeeded_within_a_second(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let [first, second, third] = cluster.three().await;
    put(&second, 1).await.unwrap();
    let started = cluster.env.clock.instant();
    cluster.kill(1, first).await;
    put(&second, 2).await.unwrap();
    let took = cluster.env.clock.instant().since(started);
    assert!(took < Duration::from_millis(1_000), "the next write took {took:?}");
    put(&third, 3).await.unwrap();
    // The dead one comes back as a follower and catches up.
    let first = cluster.start(1).await;
    put(&first, 4).await.unwrap();
    assert_eq!(configs(&first.store().view()), 4);
}

async fn a_silent_leader_is_succeeded_and_steps_back(kind: LogKind) {
    let cluster = Cluster::over(kind, Net::default());
    let [first, second, third] = cluster.three().await;
    put(&first, 1).await.unwrap();
    cluster.net.cut(addr(1));
    let started = cluster.env.clock.instant();
    // What was on its way to the silent leader has an unknown outcome; repeating it is safe.
    let store = second.store();
    while store.propose(None, vec![config_change(2, 200)], SHORT).await.is_err() {}
    let took = cluster.env.clock.instant().since(started);
    assert!(took < Duration::from_secs(8), "the next write took {took:?}");
    // Cut off, it says so instead of answering from the past.
    let lost = first.store().propose(None, vec![config_change(9, 10)], SHORT).await;
    assert!(matches!(lost, Err(ProposeError::NoLeader | ProposeError::Unknown)), "{lost:?}");
    let read = first.store().read_index(SHORT).await;
    assert!(matches!(read, Err(ReadError::NoLeader | ReadError::Timeout)), "{read:?}");
    assert_eq!(first.store().leadership().borrow().leader, None);
    cluster.net.heal(addr(1));
    put(&third, 3).await.unwrap();
    let view = first.store().read_index(LONG).await.unwrap();
    assert!(view.configs.get(&ConfigId::from_bytes([0; 16])).is_none());
    assert!((3..=4).contains(&configs(&view)));
}

/// A leader's timers stand still: they must go on when it is none any more.
async fn a_leader_of_old_stands_for_election_again(kind: LogKind) {
    let cluster = Cluster::over(kind, Net::default());
    let [first, second, third] = cluster.three().await;
    put(&first, 1).await.unwrap();
    cluster.net.cut(addr(1));
    let other = |id: u64| move |now: &Leadership| now.leader.is_some_and(|(it, _)| it.0 != id);
    let mut seen = second.store().leadership();
    let led = cluster.env.clock.timeout(LONG, seen.wait_for(other(1))).await.unwrap();
    let (leader, at) = led.unwrap().leader.unwrap();
    cluster.net.heal(addr(1));
    put(&first, 2).await.unwrap();
    second.keeps_out_of_elections();
    third.keeps_out_of_elections();
    cluster.net.cut(at);
    let mut seen = first.store().leadership();
    let led = seen.wait_for(other(leader.0));
    let led = cluster.env.clock.timeout(LONG, led).await.unwrap();
    assert_eq!(led.unwrap().leader, Some((RaftId(1), addr(1))));
}

/// Followers may have committed what it had not made durable itself: in its old term it could give
/// the same ids to other entries.
async fn a_leader_that_restarts_is_elected_again(kind: LogKind) {
    let cluster = Cluster::over(kind, Net::default());
    let [first, _second, _third] = cluster.three().await;
    put(&first, 1).await.unwrap();
    let before = first.store().leadership().borrow().term;
    // Back before anybody misses it.
    cluster.kill(1, first).await;
    let first = cluster.start(1).await;
    let mut leadership = first.store().leadership();
    let led = leadership.wait_for(|now| now.leader.is_some());
    let term = cluster.env.clock.timeout(LONG, led).await.unwrap().unwrap().term;
    assert!(term > before, "led on in term {term}");
    put(&first, 2).await.unwrap();
}

async fn a_leader_that_stops_hands_over(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let [first, second, third] = cluster.three().await;
    cluster.stop(1, first).await;
    let started = cluster.env.clock.instant();
    put(&third, 1).await.unwrap();
    let took = cluster.env.clock.instant().since(started);
    assert!(took < Duration::from_millis(500), "the next write took {took:?}");
    drop(second);
}

async fn a_late_learner_gets_a_snapshot(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let first = cluster.one().await;
    for number in 0..700 {
        put(&first, number).await.unwrap();
    }
    first.compact_now().await;
    let second = cluster.start(2).await;
    let mut events = second.store().events();
    cluster.join(&first, 2).await;
    put(&second, 1_000).await.unwrap();
    let (here, there) = (second.store().view(), first.store().view());
    assert_eq!(configs(&here), 701);
    assert!(here.objects().eq(there.objects()));
    let told = events.recv().await.unwrap();
    assert!(told.len() >= 700, "the snapshot is told as events: {}", told.len());
    // And both restart from their snapshots.
    cluster.stop(2, second).await;
    cluster.kill(1, first).await;
    let (first, second) = (cluster.start(1).await, cluster.start(2).await);
    put(&first, 1_001).await.unwrap();
    put(&second, 1_002).await.unwrap();
    assert_eq!(configs(&second.store().view()), 703);
}

async fn members_come_and_go(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let [first, second, third] = cluster.three().await;
    let members = first.members().borrow().clone();
    assert_eq!(members.me, Some(RaftId(1)));
    assert_eq!(members.voters, [1, 2, 3].map(RaftId).into());
    assert_eq!(members.addrs[&RaftId(2)], (NodeId::from_bytes([2; 16]), addr(2)));
    assert!(members.learners.is_empty() && members.silent.is_empty());
    assert!(matches!(second.remove(RaftId(3)).await, Err(Error::NotLeader)));

    first.transfer(RaftId(2)).await.unwrap();
    leads(&second).await;
    assert!(matches!(second.remove(RaftId(2)).await, Err(Error::NotLeader)), "hands over instead");
    let mut leadership = first.store().leadership();
    let others = |id: RaftId| id == RaftId(1) || id == RaftId(3);
    let next = leadership.wait_for(|now| now.leader.is_some_and(|(id, _)| others(id)));
    let next = next.await.unwrap().leader.unwrap().0;
    let leader = if next == RaftId(1) { &first } else { &third };
    leads(leader).await;
    leader.remove(RaftId(2)).await.unwrap();
    leader.remove(RaftId(2)).await.unwrap();
    let mut members = leader.members();
    members.wait_for(|members| members.addrs.len() == 2).await.unwrap();
    cluster.kill(2, second).await;
    put(&first, 1).await.unwrap();
    put(&third, 2).await.unwrap();
}

async fn damage_is_refused_with_a_way_out(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let handle = cluster.one().await;
    put(&handle, 1).await.unwrap();
    cluster.stop(1, handle).await;
    let floor = cluster.dir.path().join("m1/floor");
    let kept = std::fs::read(&floor).unwrap();
    std::fs::remove_file(&floor).unwrap();
    let again = || async {
        let link = cluster.net.link(addr(1));
        let settings = settings(cluster.dir.path(), 1);
        start(settings, cluster.env.clone(), link, &cluster.scope).await
    };
    let refused = again().await.unwrap_err().to_string();
    assert!(refused.contains("swarm node replace"), "{refused}");
    std::fs::write(&floor, kept).unwrap();
    let mut other = settings(cluster.dir.path(), 1);
    other.key = [77; 32];
    let link = cluster.net.link(addr(1));
    let refused = start(other, cluster.env.clone(), link, &cluster.scope).await;
    assert!(matches!(refused, Err(Error::Key)), "{refused:?}");
    let handle = again().await.unwrap();
    leads(&handle).await;
    let metrics = handle.metrics();
    assert!(metrics.borrow_watched().running_state.is_ok());
}

async fn what_was_acknowledged_survives_every_order_of_deaths(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let mut all: Vec<Option<Handle>> = cluster.three().await.into_iter().map(Some).collect();
    let mut written = 0;
    // Each one alone, two at once (no quorum is left), then all.
    for dead in [vec![0], vec![1], vec![2], vec![0, 1], vec![1, 2], vec![0, 1, 2]] {
        for round in 0..10 {
            let through = all[round % 3].as_ref().unwrap();
            let change = config_change(written, 3_000);
            let store = through.store();
            while store.propose(None, vec![change.clone()], LONG).await.is_err() {}
            written += 1;
        }
        for index in &dead {
            let number = u8::try_from(*index).unwrap() + 1;
            cluster.kill(number, all[*index].take().unwrap()).await;
        }
        for index in dead {
            let number = u8::try_from(index).unwrap() + 1;
            all[index] = Some(cluster.start(number).await);
        }
        for handle in all.iter().flatten() {
            let view = loop {
                if let Ok(view) = handle.store().read_index(LONG).await {
                    break view;
                }
            };
            assert_eq!(configs(&view) as u64, written);
        }
    }
    let [first, second, third] = [0, 1, 2].map(|index| all[index].as_ref().unwrap().store());
    let view = first.read_index(LONG).await.unwrap();
    for other in [second, third] {
        let other = other.read_index(LONG).await.unwrap();
        assert!(other.objects().eq(view.objects()));
    }
}

async fn a_member_alone_goes_on_with_all_that_it_had(kind: LogKind) {
    let cluster = Cluster::on(kind);
    let members = cluster.three().await;
    put(&members[0], 1).await.unwrap();
    let index = put(&members[0], 2).await.unwrap();
    let before = members[1].store().applied(index, &cluster.env.clock, LONG).await;
    assert_eq!(configs(&before), 2);
    for (member, number) in members.into_iter().zip(1..) {
        cluster.kill(number, member).await;
    }
    let old = settings(cluster.dir.path(), 2);
    let salvaged = salvage(&old, &cluster.env, &cluster.scope).await.unwrap();
    assert!(salvaged.last >= before.position && salvaged.committed <= salvaged.last.index);
    let objects = |view: &View| view.objects().collect::<Vec<_>>();
    assert_eq!(objects(&salvaged.view), objects(&before));

    let number = epoch(cluster.env.clock.now(), salvaged.term);
    let dir = cluster.dir.path().join("alone");
    let alone = Settings { dir, raft_id: RaftId(number), ..old };
    let extra = vec![config_change(3, 10)];
    plant(&alone, &cluster.env, &cluster.scope, &salvaged.view, extra).await.unwrap();
    // Begun, and begun again from what the first run left.
    for round in 0..2 {
        let link = cluster.net.link(addr(2));
        let started = start(alone.clone(), cluster.env.clone(), link, &cluster.scope).await;
        let handle = started.unwrap();
        cluster.net.add(addr(2), handle.inbound());
        leads(&handle).await;
        let view = handle.store().read_index(LONG).await.unwrap();
        assert!(view.position.term >= number && number > salvaged.term);
        assert!(view.position.index > salvaged.last.index + 1_000, "no index is used again");
        assert_eq!(configs(&view), 3 + round);
        put(&handle, 20 + u64::try_from(round).unwrap()).await.unwrap();
        cluster.kill(2, handle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_takes_nothing_that_only_a_newer_release_can_read() {
    let cluster = Cluster::on(LogKind::Sled);
    let [leader, follower, _] = cluster.three().await;
    put(&leader, 1).await.unwrap();
    let newer = Format(Format::NEWEST.0 + 1);
    assert_eq!(*follower.newer().borrow(), None);
    let before = follower.progress();
    let refused = follower.inbound().append(&entry_of(newer)).await.unwrap_err().to_string();
    let told = "a newer release wrote it; upgrade this manager";
    assert!(refused.contains(told), "{refused}");
    assert!(follower.newer().borrow().as_ref().unwrap().contains(told));
    assert_eq!(follower.progress().term, before.term, "not even the term of it was taken");
    put(&leader, 2).await.unwrap();
}

super::over_both! {
    one_member_keeps_everything_over_a_restart,
    what_queues_becomes_one_entry_and_all_are_answered,
    proposals_are_bound_to_a_term_and_to_a_size,
    followers_forward_and_read_their_own_writes,
    a_dead_leader_is_succeeded_within_a_second,
    a_silent_leader_is_succeeded_and_steps_back,
    a_leader_of_old_stands_for_election_again,
    a_leader_that_restarts_is_elected_again,
    a_leader_that_stops_hands_over,
    a_late_learner_gets_a_snapshot,
    members_come_and_go,
    damage_is_refused_with_a_way_out,
    what_was_acknowledged_survives_every_order_of_deaths,
    a_member_alone_goes_on_with_all_that_it_had,
}
