//! What releases before this one left on a manager's disk is opened by this one: record, key,
//! snapshot, log, backup. `scripts/make-fixture.sh` makes such a file; none is ever changed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use swarm::domain::timing::Timing;
use swarm::domain::{Format, RaftId, Timestamp};
use swarm::env::{Env, Scope};
use swarm::raft::{self, Compaction, Peer, PeerError, PeerLink, Settings, archive};
use swarm::state::View;
use swarm::wire::manager::{ProposeReply, ProposeRequest};

/// State directories by the commit whose binary wrote them.
const FIXTURES: [(&str, &[u8]); 1] =
    [("9e678f097c8f", include_bytes!("state-9e678f097c8f.tar.gz"))];

/// The passphrase of the backups in them.
const PASSPHRASE: &[u8] = b"correct horse battery";

fn unpack(tar: &[u8], into: &Path) {
    let mut command = Command::new("tar");
    command.args(["-xzf", "-", "-C"]).arg(into).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What the record says, as far as the log needs it.
fn settings(dir: &Path) -> Settings {
    let record = std::fs::read(dir.join("node.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["format"], 1);
    let folder = record["raft-folder"].as_str().unwrap();
    Settings {
        dir: dir.join(folder),
        raft_id: RaftId(record["raft"].as_u64().unwrap()),
        node: record["node"].as_str().unwrap().parse().unwrap(),
        addr: record["advertise"].as_str().unwrap().parse().unwrap(),
        timing: Timing::DEFAULT,
        key: std::fs::read(dir.join("raft.key")).unwrap().try_into().unwrap(),
        compaction: Compaction::DEFAULT,
    }
}

fn holds(view: &View, replicas: u64) {
    assert_eq!(view.format(), Format::FIRST);
    let service = view.service_named("web").unwrap();
    let spec = view.current_spec(service).unwrap();
    assert_eq!((spec.replicas(), spec.labels["a"].as_str()), (Some(replicas), "b"));
    assert_eq!(view.secrets_named("key").unwrap().data.expose(), b"a secret\n");
    assert_eq!(view.managers().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_earlier_releases_left_on_the_disk_is_opened() {
    for (release, tar) in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        unpack(tar, dir.path());
        let (env, scope) = (Env::system(), Scope::root("test"));
        let at = || settings(dir.path());
        let salvaged = raft::salvage(&at(), &env, &scope).await.unwrap();
        holds(&salvaged.view, 3);
        assert!(salvaged.view.configs_named("later").is_some(), "{release}: the log's end");

        let member = raft::start(at(), env.clone(), Arc::new(Nobody), &scope).await.unwrap();
        let mut leadership = member.store().leadership();
        let limit = Duration::from_secs(30);
        env.clock.timeout(limit, leadership.wait_for(|now| now.is_self)).await.unwrap().unwrap();
        member.store().propose(None, Vec::new(), limit).await.unwrap();
        holds(&member.store().view(), 3);
        let before = salvaged.last;
        member.shutdown().await;
        let again = raft::salvage(&at(), &env, &scope).await.unwrap();
        assert!(again.last > before, "{release}: it was written to");
        holds(&again.view, 3);

        let backup = std::fs::read(dir.path().join("backup.swarm")).unwrap();
        let (summary, state) = archive::read(&backup, PASSPHRASE).unwrap();
        assert!(summary.created > Timestamp(0));
        holds(&View::new(state), 2);
    }
}

/// The ways to the other members, of whom there are none.
#[derive(Debug)]
struct Nobody;

impl Nobody {
    fn none<T>(to: Peer) -> Result<T, PeerError> {
        Err(PeerError::Unreachable { addr: to.addr, reason: "nobody is there".to_owned() })
    }
}

#[async_trait]
impl PeerLink for Nobody {
    async fn vote(&self, to: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Self::none(to)
    }

    async fn append(&self, to: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Self::none(to)
    }

    async fn transfer(&self, to: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Self::none(to)
    }

    async fn snapshot(
        &self,
        to: Peer,
        _: Bytes,
        _: Bytes,
        _: Duration,
    ) -> Result<Bytes, PeerError> {
        Self::none(to)
    }

    async fn propose(
        &self,
        to: Peer,
        _: ProposeRequest,
        _: Duration,
    ) -> Result<ProposeReply, PeerError> {
        Self::none(to)
    }

    async fn read_index(&self, to: Peer, _: Duration) -> Result<u64, PeerError> {
        Self::none(to)
    }

    async fn closed(&self, _: Peer) {
        std::future::pending().await
    }
}
