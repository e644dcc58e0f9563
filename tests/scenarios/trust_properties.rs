//! Random stories of roots: users rotate when they like, answers and reports are lost or come late,
//! managers lag, leaders die, nodes come and go. At every moment all nodes that there are must
//! believe each other's certificates (I30), and in the end there is one root.

use std::collections::BTreeMap;

use proptest::prelude::*;
use swarm::domain::node::{Description, NodeSpec};
use swarm::domain::{Cluster, Format, NodeId};
use swarm::state::Change;

use super::roots;
use super::world::World;

/// What lies on a node's disk; roots by their names.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    issuer: String,
    /// The root that signed the issuer's cross certificate, if that goes with it.
    cross: Option<String>,
    trusts: Vec<String>,
}

impl Held {
    /// As the certificate authority issues it.
    fn of(cluster: &Cluster) -> Self {
        let old = cluster.authority.root_pem.clone();
        match &cluster.trust.rotation {
            None => Self { issuer: old.clone(), cross: None, trusts: vec![old] },
            Some(rotation) => {
                let next = rotation.next.root_pem.clone();
                Self { issuer: next.clone(), cross: Some(old.clone()), trusts: vec![old, next] }
            }
        }
    }

    fn believes(&self, other: &Self) -> bool {
        let mut leads = std::iter::once(&other.issuer).chain(&other.cross);
        leads.any(|root| self.trusts.contains(root))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Rotate,
    /// Another wish, made of a cluster that was read so many changes ago.
    Late(usize),
    Renew(usize),
    /// What a node trusts reaches a manager that lags so many changes, which writes it down later.
    Report(usize, usize),
    /// One of the reports that are on their way is committed, in any order, perhaps twice.
    Deliver(usize, bool),
    Pass,
    Elect,
    Join,
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Rotate),
        1 => (0..4usize).prop_map(Step::Late),
        8 => (0..6usize).prop_map(Step::Renew),
        8 => (0..6usize, 0..3usize).prop_map(|(node, lag)| Step::Report(node, lag)),
        8 => (0..9usize, any::<bool>()).prop_map(|(which, twice)| Step::Deliver(which, twice)),
        8 => Just(Step::Pass),
        1 => Just(Step::Elect),
        1 => Just(Step::Join),
        1 => (0..6usize).prop_map(Step::Remove),
    ]
}

struct Story {
    world: World,
    disks: BTreeMap<NodeId, Held>,
    /// The cluster as it was after each change of it.
    past: Vec<Cluster>,
    reports: Vec<Change>,
    names: usize,
}

impl Story {
    fn new() -> Self {
        let world = World::new(5, 16, Format::NEWEST);
        let mut story = Self {
            past: vec![(*roots::cluster(&world)).clone()],
            world,
            disks: BTreeMap::new(),
            reports: Vec::new(),
            names: 0,
        };
        (0..3).for_each(|_| story.join());
        story
    }

    fn join(&mut self) {
        self.names += 1;
        let hostname = format!("n{}", self.names);
        let description = Description { hostname: hostname.clone(), ..Description::default() };
        self.world.add_node(description, NodeSpec::default());
        let id = self.world.node(&hostname).id;
        self.disks.insert(id, Held::of(&roots::cluster(&self.world)));
    }

    fn pick(&self, which: usize) -> Option<NodeId> {
        let all: Vec<_> = self.disks.keys().copied().collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn report(&mut self, node: NodeId, lag: usize) {
        let seen = self.past.len().saturating_sub(1 + lag);
        let view = &self.past[seen];
        if Held::of(view).trusts == self.disks[&node].trusts {
            self.reports.push(Change::ReportTrust { node, trust: view.trust.generation });
        }
    }

    fn perform(&mut self, step: &Step) {
        match *step {
            Step::Rotate | Step::Late(_) => {
                self.names += 1;
                let name = format!("root{}", self.names);
                let lag = if let Step::Late(lag) = step { *lag } else { 0 };
                let seen = self.past.len().saturating_sub(1 + lag);
                let generation = self.past[seen].trust.generation;
                // Refused if the roots have changed since.
                let outcome = roots::rotate(&mut self.world, &name, Some(generation));
                let now = self.past.last().unwrap().trust.generation;
                assert_eq!(outcome.is_ok(), generation == now);
            }
            Step::Renew(which) => {
                let Some(node) = self.pick(which) else { return };
                self.disks.insert(node, Held::of(&roots::cluster(&self.world)));
            }
            Step::Report(which, lag) => {
                let Some(node) = self.pick(which) else { return };
                self.report(node, lag);
            }
            Step::Deliver(which, twice) => {
                if self.reports.is_empty() {
                    return;
                }
                let which = which % self.reports.len();
                let report = self.reports[which].clone();
                if !twice {
                    self.reports.remove(which);
                }
                self.world.commit(vec![report]).unwrap();
            }
            Step::Pass => {
                self.world.pass();
            }
            Step::Elect => self.world.elect(),
            Step::Join => self.join(),
            Step::Remove(which) => {
                let Some(node) = self.pick(which) else { return };
                self.disks.remove(&node);
                let name = self.world.name_of(node);
                self.world.remove_node(&name);
            }
        }
        let now = roots::cluster(&self.world);
        if self.past.last().unwrap().trust != now.trust {
            self.past.push((*now).clone());
        }
    }

    fn all_believe(&self) {
        for (client, a) in &self.disks {
            for (server, b) in &self.disks {
                assert!(a.believes(b), "{client} does not believe {server}: {a:?} {b:?}");
            }
        }
    }
}

/// 96 stories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { 96 };
    ProptestConfig { cases, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn all_nodes_believe_each_other_at_every_moment(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut story = Story::new();
        for step in &steps {
            story.perform(step);
            story.all_believe();
        }
        // Whatever happened: once all nodes are there and are heard, one root remains.
        for _ in 0..3 {
            for which in 0..story.disks.len() {
                story.perform(&Step::Renew(which));
                story.perform(&Step::Report(which, 0));
                story.all_believe();
            }
            while !story.reports.is_empty() {
                story.perform(&Step::Deliver(0, false));
                story.all_believe();
            }
            story.perform(&Step::Pass);
            story.all_believe();
        }
        let cluster = roots::cluster(&story.world);
        prop_assert_eq!(&cluster.trust.rotation, &None);
        for (node, held) in &story.disks {
            prop_assert_eq!(held, &Held::of(&cluster));
            prop_assert_eq!(story.world.state.node(*node).unwrap().trust, cluster.trust.generation);
        }
    }
}
