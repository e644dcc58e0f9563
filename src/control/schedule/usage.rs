//! What is taken on each node, worked out once per pass in one walk over all tasks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::filter::is_ready;
use crate::control::crew::Crew;
use crate::control::facts::Needs;
use crate::control::pass::Pass;
use crate::domain::service::{Protocol, VersionNumber};
use crate::domain::{NetworkId, ServiceId, Task, Timestamp};

/// What is taken on each node, and which addresses rest.
#[derive(Debug, Default)]
pub(in crate::control) struct Usage {
    nodes: Vec<Taken>,
    /// Nodes that take new tasks, those with the fewest tasks first.
    order: BTreeSet<(u32, usize)>,
    resting: BTreeSet<(NetworkId, IpAddr)>,
    /// When the first of them may be used again.
    pub(in crate::control) rests_until: Option<Timestamp>,
}

/// What is taken on one node.
#[derive(Clone, Debug, Default)]
pub(in crate::control) struct Taken {
    /// Tasks that are wanted to run.
    pub(super) tasks: u32,
    pub(super) nano_cpus: i64,
    pub(super) memory: i64,
    pub(super) generic: Vec<(String, i64)>,
    pub(super) ports: Vec<(Protocol, u16)>,
}

impl Usage {
    /// Counts the tasks as the pass leaves them; the crews are in the order of their services.
    pub(in crate::control) fn new(pass: &Pass<'_>, crews: &[Crew]) -> Self {
        let nodes = vec![Taken::default(); pass.roster.len()];
        let mut usage = Self { nodes, ..Self::default() };
        let mut memo = Memo::default();
        let mut remaining = crews.iter().peekable();
        for ((service, _), task) in pass.view.tasks_by_service.iter() {
            while remaining.peek().is_some_and(|crew| crew.service.id < *service) {
                remaining.next();
            }
            if remaining.peek().is_none_or(|crew| crew.service.id != *service) {
                usage.add(pass, task, &mut memo);
            }
        }
        for member in crews.iter().flat_map(|crew| &crew.members).filter(|it| !it.gone) {
            usage.add(pass, &member.task, &mut memo);
        }
        let ready = (0..pass.roster.len()).filter(|place| is_ready(pass.roster.at(*place)));
        usage.order = ready.map(|place| (usage.nodes[place].tasks, place)).collect();
        usage
    }

    /// Nodes that take new tasks, those with the fewest tasks first.
    pub(super) fn by_tasks(&self) -> impl Iterator<Item = usize> + '_ {
        self.order.iter().map(|(_, place)| *place)
    }

    fn add(&mut self, pass: &Pass<'_>, task: &Task, memo: &mut Memo) {
        if task.status.state.is_terminal() {
            let until = task.meta.updated_at.after(pass.observed.timing.address_rest);
            if until > pass.now && !task.addresses.is_empty() {
                self.resting.extend(task.addresses.iter().map(|it| (it.network, it.addr)));
                self.rests_until = Some(self.rests_until.map_or(until, |it| it.min(until)));
            }
            return;
        }
        let Some(place) = task.node.and_then(|id| pass.roster.place(id)) else { return };
        let taken = &mut self.nodes[place];
        taken.tasks += u32::from(task.is_live());
        taken.add(memo.needs(pass, task.service, task.spec));
    }

    pub(in crate::control) fn rests(&self, network: NetworkId, addr: IpAddr) -> bool {
        !self.resting.is_empty() && self.resting.contains(&(network, addr))
    }

    pub(super) fn at(&self, place: usize) -> &Taken {
        &self.nodes[place]
    }

    /// Counts one more live task.
    pub(super) fn take(&mut self, place: usize, needs: &Needs) {
        let taken = &mut self.nodes[place];
        if self.order.remove(&(taken.tasks, place)) {
            self.order.insert((taken.tasks + 1, place));
        }
        taken.tasks += 1;
        taken.add(needs);
    }
}

impl Taken {
    fn add(&mut self, needs: &Needs) {
        self.nano_cpus = self.nano_cpus.saturating_add(needs.nano_cpus);
        self.memory = self.memory.saturating_add(needs.memory);
        for (kind, count) in &needs.generic {
            match self.generic.iter_mut().find(|(known, _)| known == kind) {
                Some((_, sum)) => *sum = sum.saturating_add(*count),
                None => self.generic.push((kind.clone(), *count)),
            }
        }
        self.ports.extend_from_slice(&needs.ports);
    }
}

/// The needs of the version looked up last: tasks come service by service.
#[derive(Default)]
struct Memo {
    last: Option<(ServiceId, VersionNumber, Arc<Needs>)>,
    nothing: Needs,
}

impl Memo {
    fn needs(&mut self, pass: &Pass<'_>, service: ServiceId, number: VersionNumber) -> &Needs {
        let known = self.last.as_ref().is_some_and(|it| (it.0, it.1) == (service, number));
        if !known {
            let version = pass.view.spec(service, number);
            self.last = version.map(|it| (service, number, Arc::new(Needs::of(&it.spec))));
        }
        self.last.as_ref().map_or(&self.nothing, |(_, _, needs)| needs)
    }
}
