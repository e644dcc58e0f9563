//! How a cluster comes about: the first manager founds it, the others join it, then the workers.

use swarm::daemon::founding::{self, Founding};
use swarm::domain::cluster::{AddressPool, Authority, ClusterSpec};
use swarm::domain::network::Subnet;
use swarm::domain::node::{Availability, Membership as Part};
use swarm::domain::secret::Sensitive;
use swarm::domain::{Autolock, NetworkId};

use super::*;

impl World {
    /// The first manager founds the cluster, the others join it, then the workers.
    pub(super) fn found(&mut self) {
        let node = self.next_node();
        self.servers[0].node = Some(node);
        self.servers[0].managers = self.founders();
        self.servers[0].set_certificate(Role::Manager);
        self.servers[0].membership = Some(Membership { raft_id: RaftId(1), node });
        self.oracle.lock().unwrap().raft_id(1);
        self.servers[0].start(self.now);
        self.until(PATIENCE, "the first member did not start", |it| it.managers().count() == 1);
        let Some((_, manager)) = self.managers().next() else { return };
        let mut first = self.first_changes(node);
        first.extend(clients::registers());
        let is_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&is_begun);
        self.servers[0].spawn(async move {
            begun.store(manager.raft.bootstrap(first).await.is_ok(), Ordering::Relaxed);
        });
        self.until(PATIENCE, "the cluster did not begin", |_| is_begun.load(Ordering::Relaxed));
        for host in 1..self.servers.len() {
            self.enroll(host);
        }
        let all = self.plan.managers;
        self.until(PATIENCE, "the managers did not become a group", |world| {
            let voters = world.leader().map(|(_, it)| it.raft.members().borrow().voters.len());
            voters == Some(all)
        });
        self.until(PATIENCE, "the agents did not connect", |world| {
            world
                .servers
                .iter()
                .all(|it| it.agent().is_some_and(|agent| agent.connected().borrow().is_some()))
        });
        let Some((host, _)) = self.leader() else { return };
        let user = self.user(host, 1);
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        self.servers[host].spawn(async move {
            done.store(user.secrets().await, Ordering::Relaxed);
        });
        self.until(PATIENCE, "the secrets were not made", |_| is_done.load(Ordering::Relaxed));
    }

    /// The addresses of the first managers.
    fn founders(&self) -> Vec<std::net::SocketAddr> {
        (0..self.plan.managers).map(net::addr).collect()
    }

    fn first_changes(&self, node: NodeId) -> Vec<Change> {
        let base = std::net::Ipv4Addr::new(10, 0, 0, 0);
        let founding = Founding {
            cluster: links::CLUSTER,
            node,
            addr: net::addr(0),
            authority: Authority {
                // Nobody checks it, but its digest is told to agents.
                root_pem: include_str!("../../../src/api/tests/next-root.pem").to_owned(),
                key_pem: Sensitive::new(b"nor this"),
            },
            autolock: Autolock::default(),
            token_key: [3; 32],
            network: NetworkId::from_bytes([0x77; 16]),
            spec: ClusterSpec::default(),
            availability: Availability::Active,
            host: Vec::new(),
        };
        let pool = AddressPool { base, prefix: 8, subnet_size: 24 };
        let mut changes = founding::changes(founding, pool).unwrap();
        for change in &mut changes {
            if let Change::Put { object: Object::Network(network), .. } = change {
                let subnet = Subnet { base, prefix: self.plan.prefix };
                Arc::make_mut(network).subnet = subnet;
            }
        }
        changes
    }

    /// A machine becomes a node, as the CA enrols it, and a manager, as the members take it in.
    fn enroll(&mut self, host: Host) {
        let id = self.next_node();
        let is_manager = host < self.plan.managers;
        let role = if is_manager { Role::Manager } else { Role::Worker };
        let object = Object::Node(Arc::new(Node::new(id, role)));
        let mut changes = vec![Change::Put { object, expect: Expect::Absent }];
        if is_manager {
            changes.push(Change::JoinManager { node: id, addr: net::addr(host) });
        }
        self.until(PATIENCE, "nobody leads the new cluster", |world| world.leader().is_some());
        let Some((at, manager)) = self.leader() else { return };
        let store = manager.raft.store();
        self.servers[at].spawn(async move {
            store.propose(None, changes, PATIENCE).await.ok();
        });
        self.until(PATIENCE, "a node was not enrolled", |world| {
            world.view().is_some_and(|view| view.node(id).is_some())
        });
        let part = self.view().and_then(|view| view.node(id).and_then(|node| node.manager));
        let managers = self.founders();
        let server = &mut self.servers[host];
        server.node = Some(id);
        server.managers = managers;
        server.set_certificate(role);
        if let Some(part) = part.filter(|part| part.membership != Part::Removed) {
            self.oracle.lock().unwrap().raft_id(part.raft_id.0);
            server.membership = Some(Membership { raft_id: part.raft_id, node: id });
        }
        server.start(self.now);
    }
}
