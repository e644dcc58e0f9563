//! Faults as they begin and end.

use std::io;

use swarm::runtime::Health;
use swarm::runtime::model::Up;

use super::*;
use crate::net::Way;

impl World {
    /// A fault strikes, if it can strike now.
    pub(super) fn begin(&mut self, fault: Fault) {
        let host = fault.host(self.servers.len());
        let has_struck = match fault.kind {
            Kind::Split
            | Kind::OneWay
            | Kind::Partial
            | Kind::Delay
            | Kind::Loss
            | Kind::Breaks => {
                self.disturbed_all =
                    self.disturbed_all.max(self.now + fault.lasts + rules::SETTLES);
                true
            }
            Kind::Crash => self.end(host, Death::Aborted, fault.lasts),
            Kind::PowerCut => self.end(host, Death::PowerCut, fault.lasts),
            Kind::PowerCutOfAll => {
                let hosts = 0..self.servers.len();
                hosts.filter(|host| self.end(*host, Death::PowerCut, fault.lasts)).count() > 0
            }
            Kind::HandOver => self.hand_over(fault.who[1]),
            _ => self.strike(host, &fault),
        };
        if has_struck {
            *self.fired.entry(fault.kind).or_default() += 1;
        }
        self.active.push(Fault { at: self.now, ..fault });
        self.set_ways();
    }

    /// What strikes one machine, its disks, its engine or its containers.
    fn strike(&mut self, host: Host, fault: &Fault) -> bool {
        let victims = self.running_on(host);
        let victim = victims.get(fault.who[1] % victims.len().max(1)).copied();
        let server = &mut self.servers[host];
        let (engine, is_up) = (server.engine.clone(), server.is_running());
        let is_gentle = matches!(fault.kind, Kind::Exit | Kind::OutOfMemory | Kind::EventsLost);
        let call = 1 + u32::try_from(fault.much % 40).unwrap_or_default();
        let has_struck = match fault.kind {
            Kind::DiskError => {
                let disk = if fault.who[1].is_multiple_of(2) { &server.disk } else { &server.data };
                disk.fail_call(call, io::ErrorKind::Other);
                is_up
            }
            Kind::SlowDisk => {
                let least = fault.much % 400;
                let latency = Some((least, least + fault.much % 300));
                server.disk.set_latency(latency);
                server.data.set_latency(latency);
                is_up
            }
            Kind::Pause => {
                server.paused_until = self.now + fault.lasts;
                is_up
            }
            Kind::EngineHangs => with(&engine, |mood| mood.hangs = true),
            Kind::EngineSlow => with(&engine, |mood| mood.takes = (500, 4_000)),
            Kind::EngineErrors => with(&engine, |mood| mood.refuses = 300),
            Kind::AnswersLost => with(&engine, |mood| mood.loses = 300),
            Kind::EventsLost => {
                engine.model.set_events(Up::Down);
                true
            }
            Kind::EngineDown => {
                engine.model.set_up(Up::Down);
                true
            }
            Kind::ContainersEnd => {
                engine.model.end_all();
                engine.model.set_up(Up::Down);
                !victims.is_empty()
            }
            Kind::NetworkFails => {
                server.fabric.set_broken(true);
                true
            }
            Kind::Exit | Kind::OutOfMemory | Kind::Unhealthy => {
                let Some(task) = victim else { return false };
                match fault.kind {
                    Kind::Exit => engine.model.exit(task, 1),
                    Kind::OutOfMemory => engine.model.kill_for_memory(task),
                    _ => engine.model.set_health(task, Health::Unhealthy),
                }
                true
            }
            Kind::NodeGoes => self.replace(host, fault.lasts),
            _ => false,
        };
        if !is_gentle {
            self.disturb(host, fault.lasts);
        }
        has_struck
    }

    /// Ends what has lasted long enough.
    pub(super) fn expire(&mut self) {
        let (now, hosts) = (self.now, self.servers.len());
        let ended: Vec<Fault> =
            self.active.extract_if(.., |fault| fault.at + fault.lasts <= now).collect();
        for fault in &ended {
            let server = &self.servers[fault.host(hosts)];
            match fault.kind {
                Kind::SlowDisk => {
                    server.disk.set_latency(None);
                    server.data.set_latency(None);
                }
                Kind::NetworkFails => server.fabric.set_broken(false),
                Kind::EngineHangs
                | Kind::EngineSlow
                | Kind::EngineErrors
                | Kind::AnswersLost
                | Kind::EventsLost
                | Kind::EngineDown
                | Kind::ContainersEnd => server.engine.heal(),
                _ => {}
            }
        }
        if !ended.is_empty() {
            self.set_ways();
        }
    }

    fn set_ways(&self) {
        self.net.heal();
        let hosts = self.servers.len();
        for fault in &self.active {
            for (from, to) in (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to))) {
                if from != to
                    && let Some(way) = fault.way(from, to, hosts)
                {
                    self.net.set_way(from, to, |now| {
                        *now = Way {
                            is_cut: now.is_cut || way.is_cut,
                            lost: now.lost.max(way.lost),
                            broken: now.broken.max(way.broken),
                            delay: now.delay.max(way.delay),
                        };
                    });
                }
            }
        }
    }

    fn end(&mut self, host: Host, death: Death, pause: Duration) -> bool {
        if !self.servers[host].is_running() {
            return false;
        }
        self.servers[host].kill(death);
        self.apis.remove(&host);
        self.back_at.insert(host, self.now + pause);
        self.disturb(host, pause);
        true
    }

    fn hand_over(&self, to: usize) -> bool {
        let members: Vec<_> = self.servers.iter().filter_map(|it| it.membership).collect();
        let to = members.get(to % members.len().max(1));
        let (Some((host, manager)), Some(to)) = (self.leader(), to.copied()) else {
            return false;
        };
        let raft = manager.raft;
        if !raft.members().borrow().voters.contains(&to.raft_id) {
            return false;
        }
        self.servers[host].spawn(async move {
            raft.transfer(to.raft_id).await.ok();
        });
        true
    }

    /// A worker is removed by force, which nobody tells it; later its machine is wiped and comes back as
    /// another node.
    fn replace(&mut self, host: Host, lasts: Duration) -> bool {
        let server = &self.servers[host];
        let is_manager = server.membership.is_some() || server.certificate() == Role::Manager;
        if is_manager || self.leaving.contains_key(&host) || !server.is_running() {
            return false;
        }
        let Some((at, manager)) = self.leader() else { return false };
        let Some(old) = self.servers[host].node else { return false };
        let new = self.next_node();
        let node = Node::new(new, Role::Worker);
        let (store, clock) = (manager.raft.store(), manager.env.clock);
        self.servers[at].spawn(async move {
            // Until it is done for certain, or somebody wants a manager of it.
            loop {
                let known = store.view().node(old).cloned();
                let Some(known) = known.filter(|it| it.spec.role == Role::Worker) else { return };
                let (key, expect) =
                    (swarm::state::ObjectKey::Node(old), Expect::At(known.meta.revision));
                let object = Object::Node(Arc::new(node.clone()));
                let changes = vec![
                    Change::Delete { key, expect },
                    Change::Put { object, expect: Expect::Absent },
                ];
                if store.propose(None, changes, PATIENCE).await.is_ok() {
                    return;
                }
                clock.sleep(TICK).await;
            }
        });
        self.leaving.insert(host, (self.now + lasts, new));
        true
    }

    /// Everything is well again.
    pub(super) fn heal(&mut self) {
        self.active.clear();
        self.net.heal();
        for server in &mut self.servers {
            for disk in [&server.disk, &server.data] {
                disk.set_latency(None);
                disk.disarm();
            }
            server.engine.heal();
            server.fabric.set_broken(false);
            server.paused_until = server.paused_until.min(self.now);
        }
        for at in self.back_at.values_mut() {
            *at = self.now;
        }
        for (at, _) in self.leaving.values_mut() {
            *at = self.now;
        }
    }
}

fn with(engine: &engine::Engine, change: impl FnOnce(&mut engine::Mood)) -> bool {
    engine.set_mood(change);
    true
}
