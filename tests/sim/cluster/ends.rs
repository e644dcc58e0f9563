//! The end of a run: wishes come true, names follow, then all services go and nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use swarm::dns::Names;
use swarm::domain::node::Reachability;
use swarm::domain::service::UpdateState;
use swarm::domain::{ServiceId, TaskId, TaskState};
use swarm::runtime::Phase;

use super::*;

/// How long addresses rest, and a little.
const REST: Duration = Duration::from_secs(75);
/// Time in which nothing may happen any more.
const QUIET: Duration = Duration::from_secs(5);

impl World {
    /// Where everybody stands.
    pub(super) fn situation(&self) -> String {
        let mut lines = Vec::new();
        for server in &self.servers {
            let manager = server.manager().map(|it| {
                let store = it.raft.store();
                format!("{:?} {:?}", *store.leadership().borrow(), it.raft.progress())
            });
            let agent = server.agent().map(|it| {
                let at = it.assignments().borrow().position.index;
                format!("{:?} knows {at}", *it.connected().borrow())
            });
            let host = server.host;
            let running = server.engine.running().len();
            lines.push(format!("  host {host}: {manager:?}; {agent:?}; {running} containers run"));
        }
        if let Some(view) = self.view() {
            for service in view.services.values() {
                let mode = view.current_spec(service).map(|spec| spec.mode.clone());
                let update = service.update.as_ref().map(|it| it.state);
                let (name, removing) = (&service.name, service.removing);
                lines.push(format!("  {name}: {mode:?} {update:?} removing {removing}"));
                for task in view.tasks_of(service.id).filter(|it| it.is_live()) {
                    let (state, desired) = (task.status.state, task.desired);
                    let host = self.servers.iter().find(|it| it.node == task.node);
                    let host = host.filter(|it| it.node.is_some()).map(|it| it.host);
                    let why = &task.status.error;
                    let (id, slot) = (task.id, task.slot);
                    lines.push(format!("    {id} {slot:?} {state} of {desired} on {host:?} {why}"));
                }
            }
            for node in
                view.nodes.values().filter(|it| it.status.reachability != Reachability::Reachable)
            {
                lines.push(format!("  node {}: {:?}", node.id, node.status));
            }
        }
        lines.join("\n")
    }

    /// Wishes come true, and then nothing is left.
    pub(super) fn conclude(&mut self) {
        self.until(PATIENCE, "a machine did not start", |world| {
            let is_up = |it: &Server| {
                it.agent().is_some() && (it.membership.is_none() || it.manager().is_some())
            };
            world.servers.iter().all(|it| it.node.is_none() || is_up(it))
        });
        self.until(PATIENCE, "nobody leads", |world| world.leader().is_some());
        self.act(User::settle, "the last wishes were not taken", |book| book.is_settled);
        self.until(PATIENCE + REST, "what was wished for did not come true", Self::is_as_wished);
        self.comes_to(PATIENCE, Self::names);
        self.comes_to(PATIENCE, Self::roles);
        self.stays();
        self.act(User::clear, "the services were not removed", |book| book.is_cleared);
        self.comes_to(PATIENCE, Self::left);
        if self.has_failed() {
            return;
        }
        self.comes_to(PATIENCE, Self::news);
        for (host, manager) in self.managers() {
            self.oracle.lock().unwrap().state(host, &manager.raft.store().view());
        }
        let view = self.view();
        let mut oracle = self.oracle.lock().unwrap();
        view.iter().for_each(|view| oracle.conclude(view));
        let done = self.book.lock().unwrap().succeeded();
        if done < LEAST_DONE {
            oracle.violate(format!("coverage: only {done} requests of users succeeded"));
        }
    }

    /// A user at the leader does something, again at another if the leader goes.
    fn act<F>(&mut self, deed: impl Fn(User) -> F, problem: &str, is_done: impl Fn(&Book) -> bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.has_failed() {
            return;
        }
        let Some((host, _)) = self.leader() else {
            return self.violate("liveness: the leader is gone and nothing is wrong");
        };
        let user = self.user(host, 9);
        self.servers[host].spawn(deed(user));
        self.until(PATIENCE, problem, |world| is_done(&world.book.lock().unwrap()));
    }

    /// Lets time pass until nothing is wrong; what is wrong for too long is a violation.
    fn comes_to(&mut self, limit: Duration, problem: fn(&Self) -> Option<String>) {
        let deadline = self.now + limit;
        while !self.has_failed()
            && let Some(problem) = problem(self)
        {
            if self.now >= deadline {
                let situation = self.situation();
                return self.violate(format!("{problem}, for {limit:?}\n{situation}"));
            }
            self.pass(Duration::from_millis(50));
        }
    }

    /// I20: exactly what is wished runs, and the view says so.
    fn is_as_wished(&self) -> bool {
        let Some(view) = self.view() else { return false };
        let nodes = view.nodes.len();
        let mut running: BTreeSet<TaskId> = BTreeSet::new();
        for server in &self.servers {
            running.extend(server.engine.running().iter().map(|it| it.task));
        }
        let is_served = |service: &swarm::domain::Service| {
            let replicas = view.current_spec(service).map(|spec| spec.replicas());
            let wanted = match replicas {
                Some(Some(replicas)) => usize::try_from(replicas).unwrap(),
                Some(None) => nodes,
                None => return false,
            };
            let is_updating = service.update.as_ref().is_some_and(|it| {
                matches!(it.state, UpdateState::Updating | UpdateState::RollbackStarted)
            });
            let tasks: Vec<_> =
                view.tasks_of(service.id).filter(|it| it.desired == TaskState::Running).collect();
            let is_well = |task: &&Arc<swarm::domain::Task>| {
                task.status.state == TaskState::Running
                    && task.spec == service.current
                    && running.contains(&task.id)
            };
            !is_updating && tasks.len() == wanted && tasks.iter().all(is_well)
        };
        let all = view.services.values().all(|service| is_served(service));
        let wanted =
            |task: &TaskId| view.task(*task).is_some_and(|task| task.desired == TaskState::Running);
        let reachable = |node: &Arc<Node>| node.status.reachability == Reachability::Reachable;
        all && running.iter().all(wanted) && view.nodes.values().all(reachable)
    }

    /// I23: what is wrong with the names on a node, if anything is.
    fn names(&self) -> Option<String> {
        let view = self.view()?;
        let mut wanted: BTreeMap<ServiceId, BTreeSet<IpAddr>> = BTreeMap::new();
        for task in view.tasks.values() {
            let addresses = wanted.entry(task.service).or_default();
            if task.desired == TaskState::Running && task.status.state == TaskState::Running {
                addresses.extend(task.addresses.iter().map(|it| it.addr));
            }
        }
        self.servers.iter().filter(|it| !self.is_big() || it.host % 20 == 0).find_map(|server| {
            let agent = server.agent()?;
            let set = Arc::clone(&agent.assignments().borrow());
            let names = Names::new(&set, server.node?, &agent.local().borrow());
            view.services.values().find_map(|service| {
                let found = names.addresses(&service.name.to_ascii_lowercase());
                let wanted = wanted.get(&service.id).cloned().unwrap_or_default();
                (found.as_ref() != Some(&wanted)).then(|| {
                    format!(
                        "I23: {} is {found:?} on host {}, not {wanted:?}",
                        service.name, server.host
                    )
                })
            })
        })
    }

    /// I20: what has come true stays.
    fn stays(&mut self) {
        let before = self.rules.counts.started;
        self.pass(QUIET);
        let after = self.rules.counts.started;
        if !self.has_failed() && before != after {
            let situation = self.situation();
            self.violate(format!("I20: containers begin though nothing changed\n{situation}"));
        }
    }

    /// I20: what is left when all services are gone.
    fn left(&self) -> Option<String> {
        let view = self.view()?;
        if let Some(task) = view.tasks.values().next() {
            return Some(format!("I20: the record of {task:?} is left"));
        }
        if let Some(((service, number), _)) = view.specs.iter().next() {
            return Some(format!("I20: version {number} of service {service} is left"));
        }
        self.servers.iter().find_map(|server| {
            let containers = server.engine.model.containers();
            if let Some(container) = containers.first() {
                return Some(format!("I20: {container:?} is left on host {}", server.host));
            }
            let agent = server.agent()?;
            if let Some(task) = agent.assignments().borrow().tasks().next() {
                return Some(format!(
                    "I20: {task:?} is left in the ledger of host {}",
                    server.host
                ));
            }
            let files = std::fs::read_dir(server.run_dir.join("tasks")).ok()?;
            let name = files.filter_map(Result::ok).next()?.file_name();
            Some(format!("I20: files of {} are left on host {}", name.display(), server.host))
        })
    }

    /// Containers that run on a machine.
    pub(super) fn running_on(&self, host: Host) -> Vec<TaskId> {
        let all = self.servers[host].engine.model.containers();
        all.iter().filter(|it| matches!(it.phase, Phase::Running(_))).map(|it| it.task).collect()
    }
}
