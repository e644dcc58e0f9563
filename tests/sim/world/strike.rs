//! Faults as they begin and end, and the end of a run.

use super::*;

impl World {
    /// A fault strikes, if it can strike now.
    pub(super) fn begin(&mut self, fault: Fault) {
        let hosts = self.servers.len();
        let host = fault.host(hosts);
        let is_up = self.servers[host].handle().is_some();
        let has_struck = match fault.kind {
            Kind::Split
            | Kind::OneWay
            | Kind::Partial
            | Kind::Delay
            | Kind::Loss
            | Kind::Breaks => true,
            Kind::Crash => is_up && self.end(host, Death::Aborted, fault.lasts),
            Kind::PowerCut => is_up && self.end(host, Death::PowerCut, fault.lasts),
            Kind::PowerCutOfAll => (0..hosts).fold(false, |struck, host| {
                let was_up = self.servers[host].is_running();
                was_up && self.end(host, Death::PowerCut, fault.lasts) || struck
            }),
            Kind::PowerCutInCall => {
                self.servers[host].device.cut_power_at_call(1 + call(&fault));
                is_up
            }
            Kind::DiskError => {
                let kinds = [io::ErrorKind::Other, io::ErrorKind::StorageFull];
                let kind = kinds[usize::from(fault.much.is_multiple_of(2))];
                self.servers[host].device.fail_call(1 + call(&fault), kind);
                is_up
            }
            Kind::DiskFull => {
                self.servers[host].device.set_full(true);
                is_up
            }
            Kind::SlowDisk => {
                let least = fault.much % 400;
                self.servers[host].device.set_latency(Some((least, least + fault.much % 300)));
                is_up
            }
            Kind::Pause => {
                self.servers[host].paused_until = self.now + fault.lasts;
                is_up
            }
            Kind::Clock => {
                let far = i64::try_from(fault.much % 7_200_000).unwrap_or_default();
                self.servers[host].set_clock(far - 3_600_000);
                is_up
            }
            Kind::Add => self.add(),
            Kind::Remove => self.remove(host),
            Kind::Flip => self.flip(host, fault.lasts),
            Kind::HandOver => self.hand_over(fault.who[1] % hosts),
            // Those of a cluster.
            _ => false,
        };
        if has_struck {
            *self.fired.entry(fault.kind).or_default() += 1;
        }
        self.active.push(Fault { at: self.now, ..fault });
        self.set_ways();
    }

    /// Ends what has lasted long enough.
    pub(super) fn expire(&mut self) {
        let (now, hosts) = (self.now, self.servers.len());
        let ended: Vec<Fault> =
            self.active.extract_if(.., |fault| fault.at + fault.lasts <= now).collect();
        for fault in &ended {
            let device = &self.servers[fault.host(hosts)].device;
            match fault.kind {
                Kind::DiskFull => device.set_full(false),
                Kind::SlowDisk => device.set_latency(None),
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
        self.servers[host].kill(death);
        self.back_at.insert(host, self.now + pause);
        true
    }

    /// Whether the group is whole, so that it may be changed or lose a member's data.
    fn is_whole(&self) -> bool {
        self.operator.wants.is_empty()
            && self.servers.iter().all(|it| it.flipped.is_none() && !it.is_quarantined)
    }

    fn members(&self) -> usize {
        self.servers.iter().filter(|it| it.membership.is_some()).count()
    }

    fn add(&mut self) -> bool {
        let free = self.servers.iter().find(|it| it.membership.is_none()).map(|it| it.host);
        let Some(host) = free.filter(|_| self.is_whole()) else { return false };
        self.operator.want_member(host);
        true
    }

    fn remove(&mut self, host: Host) -> bool {
        let may = self.is_whole() && self.members() > 3 && self.servers[host].membership.is_some();
        if may {
            self.dismiss(host);
        }
        may
    }

    /// A machine is switched off, and when it comes back its disk is not what it was.
    fn flip(&mut self, host: Host, pause: Duration) -> bool {
        if !self.is_whole() || self.servers[host].membership.is_none() {
            return false;
        }
        self.end(host, Death::PowerCut, pause);
        let device = self.servers[host].device.clone();
        let least = device.promised();
        let Some(what) = device.flip() else { return false };
        self.servers[host].flipped = Some((what, least));
        true
    }

    fn hand_over(&self, to: Host) -> bool {
        let leader =
            self.running().find(|(_, handle)| handle.store().leadership().borrow().is_self);
        let (Some((host, handle)), Some(to)) = (leader, self.servers[to].membership) else {
            return false;
        };
        if handle.members().borrow().voters.contains(&to.raft_id) {
            self.servers[host].spawn(async move {
                handle.transfer(to.raft_id).await.ok();
            });
            return true;
        }
        false
    }

    /// Everything is well again; clocks stay as they are.
    pub(super) fn heal(&mut self) {
        self.active.clear();
        self.net.heal();
        for server in &mut self.servers {
            server.device.set_full(false);
            server.device.set_latency(None);
            server.device.disarm();
            server.paused_until = server.paused_until.min(self.now);
        }
        for at in self.back_at.values_mut() {
            *at = self.now;
        }
    }

    /// All members come to the same state.
    pub(super) fn converge(&mut self) {
        self.until(PATIENCE, "a want of the operator was not met", |world| {
            world.operator.wants.is_empty()
        });
        self.until(PATIENCE, "a member did not start", |world| {
            world.servers.iter().all(|it| it.membership.is_none() || it.handle().is_some())
        });
        let left = Arc::new(Mutex::new(BTreeSet::new()));
        for (host, handle) in self.running().collect::<Vec<_>>() {
            left.lock().unwrap().insert(host);
            let left = Arc::clone(&left);
            self.servers[host].spawn(async move {
                while handle.store().read_index(Duration::from_secs(5)).await.is_err() {}
                left.lock().unwrap().remove(&host);
            });
        }
        self.until(PATIENCE, "a member does not answer reads", |_| left.lock().unwrap().is_empty());
        self.until(PATIENCE, "the members did not come to the same state", |world| {
            let positions: BTreeSet<_> =
                world.running().map(|(_, handle)| handle.store().view().position).collect();
            positions.len() == 1
        });
    }

    pub(super) fn conclude(&mut self) {
        if self.has_failed() {
            return;
        }
        self.compare();
        let view = self.running().next().map(|(_, handle)| handle.store().view());
        let Some(view) = view else { return self.violate("no member runs") };
        let mut oracle = self.oracle.lock().unwrap();
        oracle.conclude(&view);
        let written = oracle.counts.written + oracle.counts.swapped;
        if written < LEAST_WRITTEN {
            oracle.violate(format!("coverage: only {written} writes were acknowledged"));
        }
    }
}

/// Which of a machine's calls is struck.
fn call(fault: &Fault) -> u32 {
    u32::try_from(fault.much % 40).unwrap_or_default()
}
