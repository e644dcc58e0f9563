//! Managers as processes, over mutual TLS: one leads, is killed with SIGKILL, and is succeeded.
//!
//! The test starts itself again, once per manager ([`a_manager`]), so that what dies is a process and
//! what is seen of it is what its host tells.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use swarm::domain::cluster::Authority;
use swarm::domain::node::{Node, Role};
use swarm::domain::timing::Timing;
use swarm::domain::{ClusterId, NodeId, RaftId};
use swarm::env::disk::LogKind;
use swarm::env::{Env, Scope, SystemDevice};
use swarm::identity::{
    CertificateDir, Credentials, NodeIdentity, NodeKey, Requirement, SharedIdentity, authority,
};
use swarm::raft::{self, Compaction, Handle};
use swarm::state::{Change, Expect, Object};
use swarm::transport::{Channels, Lane, Limits, Roster, Serving, Standing};
use swarm::wire::manager::proposals_client::ProposalsClient;
use swarm::wire::manager::raft_client::RaftClient;
use swarm::wire::manager::{ProposeRequest, RaftMessage, propose_reply};
use swarm::wire::types;

const MANAGERS: u8 = 3;
const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const ROOT: &str = "SWARM_TEST_MANAGER_ROOT";
const NUMBER: &str = "SWARM_TEST_MANAGER";
const ADDRS: &str = "SWARM_TEST_MANAGER_ADDRS";

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn change(number: u8) -> Change {
    let node = Node::new(NodeId::from_bytes([number; 16]), Role::Worker);
    Change::Put { object: Object::Node(Arc::new(node)), expect: Expect::Any }
}

fn credentials(authority: &Authority, number: u8, env: &Env) -> Credentials {
    let identity = NodeIdentity { cluster: CLUSTER, node: node(number), role: Role::Manager };
    let key = NodeKey::generate().unwrap();
    let request = authority::Request::from_pem(&key.request().unwrap()).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let certificate_pem =
        authority::sign(authority, request, identity, env.clock.now(), day).unwrap();
    let root_pem = authority.root_pem.clone();
    Credentials { key_pem: key.pem(), certificate_pem, root_pem }
}

#[derive(Debug)]
struct Everybody;

#[async_trait]
impl Roster for Everybody {
    async fn standing(&self, _: NodeIdentity, _: Requirement) -> Standing {
        Standing::Good
    }
}

fn identity(state_dir: &Path, env: &Env) -> SharedIdentity {
    let credentials = CertificateDir::new(state_dir).load().unwrap().unwrap();
    SharedIdentity::new(credentials.identity(&env.clock).unwrap())
}

/// Not a test but a manager, where the environment says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let number: u8 = std::env::var(NUMBER).unwrap().parse().unwrap();
    let addrs: Vec<SocketAddr> =
        std::env::var(ADDRS).unwrap().split(',').map(|addr| addr.parse().unwrap()).collect();
    let dir = PathBuf::from(root).join(format!("m{number}"));
    let addr = addrs[usize::from(number) - 1];
    // Managers with different kinds of logs are one group.
    let kind = if number == 2 { LogKind::Segments } else { LogKind::Sled };
    let env = Env { device: Arc::new(SystemDevice::new(kind)), ..Env::system() };
    let scope = Scope::root("manager");
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    let identity = identity(&dir, &env);
    let channels = Channels::new(identity.clone(), env.clone(), scope.clone());
    let settings = raft::Settings {
        dir: dir.join("raft"),
        raft_id: RaftId(number.into()),
        node: node(number),
        addr,
        timing: Timing::DEFAULT,
        key: [number; 32],
        compaction: Compaction::DEFAULT,
    };
    let link = raft::tonic_link(env.clone(), channels);
    let handle = raft::start(settings, env.clone(), link, &scope).await.unwrap();
    let (raft, proposals) = handle.services();
    let serving = Serving {
        identity,
        roster: Arc::new(Everybody),
        routes: tonic::service::Routes::new(raft).add_service(proposals),
        env: env.clone(),
        limits: Limits::default(),
    };
    if number == 1 {
        scope.spawn("found", found(handle.clone(), addrs));
    }
    swarm::transport::serve(listener, serving, &scope).await.unwrap();
}

/// The first manager lets the others in.
async fn found(handle: Handle, addrs: Vec<SocketAddr>) {
    if handle.bootstrap(vec![change(1)]).await.is_err() {
        return; // it was founded before
    }
    for (number, addr) in (1..=MANAGERS).zip(addrs).skip(1) {
        let id = RaftId(number.into());
        handle.add_learner(id, node(number), addr).await.unwrap();
        handle.promote(id).await.unwrap();
    }
}

struct Managers {
    root: tempfile::TempDir,
    addrs: Vec<SocketAddr>,
    processes: Vec<Option<Child>>,
    channels: Channels,
    env: Env,
}

impl Managers {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (env, scope) = (Env::system(), Scope::root("test"));
        let authority = authority::create(CLUSTER, env.clock.now()).unwrap();
        let mut ports = Vec::new();
        for number in 0..=MANAGERS {
            let credentials = credentials(&authority, number, &env);
            let dir = root.path().join(format!("m{number}"));
            CertificateDir::new(&dir).save(&credentials).unwrap();
            ports.push(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        }
        let addrs = ports.iter().skip(1).map(|port| port.local_addr().unwrap()).collect();
        drop(ports);
        let identity = identity(&root.path().join("m0"), &env);
        let channels = Channels::new(identity, env.clone(), scope);
        let processes = (0..MANAGERS).map(|_| None).collect();
        let mut managers = Self { root, addrs, processes, channels, env };
        for index in 0..managers.addrs.len() {
            managers.run(index);
        }
        managers
    }

    fn run(&mut self, index: usize) {
        let addrs: Vec<String> = self.addrs.iter().map(ToString::to_string).collect();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["raft::a_manager", "--exact", "--nocapture"])
            .env(ROOT, self.root.path())
            .env(NUMBER, (index + 1).to_string())
            .env(ADDRS, addrs.join(","))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.processes[index] = Some(process);
    }

    fn kill(&mut self, index: usize) {
        let mut process = self.processes[index].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Writes through whoever leads; returns who it was.
    async fn write(&self, number: u8) -> usize {
        loop {
            for (index, addr) in self.addrs.iter().enumerate() {
                if self.processes[index].is_none() {
                    continue;
                }
                let mut client = ProposalsClient::new(self.channels.lane(*addr, Lane::Control));
                let request = ProposeRequest {
                    request: bytes::Bytes::new(),
                    changes: vec![types::Change::from(&change(number))],
                    deadline_ms: 2_000,
                };
                let Ok(reply) = client.propose(request).await else { continue };
                let outcome = reply.into_inner().outcome.unwrap();
                assert!(matches!(outcome, propose_reply::Outcome::Revision(_)), "{outcome:?}");
                return index;
            }
            self.env.clock.sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Managers {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_succeeded_at_once() {
    let mut managers = Managers::start();
    let mut leader = managers.write(10).await;
    managers.env.clock.sleep(Duration::from_secs(3)).await; // the others are voters by then
    let mut commits = Vec::new();
    for number in 20..220 {
        let started = managers.env.clock.instant();
        managers.write(number).await;
        commits.push(managers.env.clock.instant().since(started));
    }
    commits.sort_unstable();
    println!("a write with three managers: p50 {:?}, p99 {:?}", commits[100], commits[198]);
    let mut times = Vec::new();
    for round in 11..16 {
        managers.kill(leader);
        let killed = managers.env.clock.instant();
        let next = managers.write(round).await;
        times.push(managers.env.clock.instant().since(killed));
        managers.run(leader);
        leader = next;
        managers.env.clock.sleep(Duration::from_secs(2)).await;
    }
    println!("from SIGKILL to the next write acknowledged: {times:?}");
    // Silence alone would take 2.5 s and more. The goal is 1 s; this machine may be busy.
    let slow = times.iter().filter(|time| **time > Duration::from_secs(2)).count();
    assert!(slow == 0, "{times:?}");
}

#[tokio::test]
async fn a_heartbeat_is_for_the_member_that_it_names() {
    let managers = Managers::start();
    managers.write(10).await;
    // As from a leader that knows the address as another member's.
    let mut client = RaftClient::new(managers.channels.lane(managers.addrs[1], Lane::Raft));
    let message = RaftMessage { target: 3, payload: bytes::Bytes::new() };
    let heartbeats = loop {
        let stream = tokio_stream::iter([message.clone()]);
        match client.heartbeats(stream).await {
            Ok(stream) => break stream,
            Err(_) => managers.env.clock.sleep(Duration::from_millis(20)).await, // it begins
        }
    };
    let refusal = heartbeats.into_inner().message().await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
    assert!(refusal.message().contains("this is raft member 2, not 3"), "{refusal}");
}
