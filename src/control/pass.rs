//! One pass: what the steps read, and where their decisions gather until they become a plan.
//!
//! Several steps may touch one object (a task is created, addressed and placed); the plan has one
//! change for it: the first precondition, the last value. Changes are ordered so that any prefix is a
//! valid state: the cluster, versions, nodes and networks, then services, then tasks in the order in which they
//! were touched, then removals from the leaves to the root.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::crew::{Crew, Origin};
use super::ids::Ids;
use super::schedule::Usage;
use super::{Effect, Observed, Plan};
use crate::domain::node::Reachability;
use crate::domain::{
    Cluster, Format, Network, NetworkId, NetworkNode, Node, NodeId, Revision, ServiceId,
    SpecVersion, Task, Timestamp,
};
use crate::state::{Change, Expect, Object, ObjectKey, View};

/// Bytes of changes in one batch, by estimate. sled moves values of 128 KiB and more out of line
/// (docs/adr/0002), and an entry holds the envelope too.
const BATCH_BYTES: usize = 80 * 1024;

/// What all steps share.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) view: &'a View,
    pub(super) observed: &'a Observed,
    /// Cluster time: never before what the state has seen.
    pub(super) now: Timestamp,
    /// The cluster, if this pass changed it.
    cluster: Option<Arc<Cluster>>,
    /// All nodes, as this pass leaves them.
    pub(super) roster: Roster,
    /// Networks whose cursor moved.
    pub(super) networks: BTreeMap<NetworkId, Arc<Network>>,
    /// Nodes' new parts in networks.
    pub(super) parts: Vec<NetworkNode>,
    /// Parts of nodes that are gone.
    pub(super) parts_gone: Vec<(NetworkId, NodeId, Revision)>,
    /// Spec versions made by a rollback.
    pub(super) versions: Vec<SpecVersion>,
    /// Services whose rows go, with their last revision.
    pub(super) services_gone: Vec<(ServiceId, Revision)>,
    /// Spec versions that nobody refers to any more.
    pub(super) versions_gone: Vec<(ServiceId, u64)>,
    /// The effect, if one was chosen.
    pub(super) effect: Option<Effect>,
    pub(super) ids: Ids,
    /// What is taken on each node; worked out once something waits for a place.
    pub(super) usage: Option<Usage>,
    notes: Vec<(ObjectKey, String)>,
    timers: Vec<(Timestamp, ObjectKey)>,
    touches: u32,
}

impl<'a> Pass<'a> {
    pub(super) fn new(view: &'a View, observed: &'a Observed) -> Self {
        Self {
            view,
            observed,
            now: observed.now.max(view.clock),
            cluster: None,
            roster: Roster::new(view),
            networks: BTreeMap::new(),
            parts: Vec::new(),
            parts_gone: Vec::new(),
            versions: Vec::new(),
            services_gone: Vec::new(),
            versions_gone: Vec::new(),
            effect: None,
            ids: Ids::new(observed.seed),
            usage: None,
            notes: Vec::new(),
            timers: Vec::new(),
            touches: 0,
        }
    }

    /// The cluster, as this pass leaves it.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref().or(self.view.cluster.as_ref())
    }

    /// Changes the cluster; nothing happens where there is none.
    pub(super) fn edit_cluster(&mut self, change: impl FnOnce(&mut Cluster)) {
        if let Some(mut cluster) = self.cluster().cloned() {
            change(Arc::make_mut(&mut cluster));
            self.cluster = Some(cluster);
        }
    }

    /// The format in force when this pass's changes are applied: what may be written.
    pub(super) fn format(&self) -> Format {
        self.cluster().map_or(Format::FIRST, |cluster| cluster.format)
    }

    /// The place of the next touched object in the order of changes.
    pub(super) fn touch(&mut self) -> u32 {
        self.touches += 1;
        self.touches
    }

    /// Explains to people why something was not done.
    pub(super) fn note(&mut self, key: ObjectKey, text: String) {
        self.notes.push((key, text));
    }

    /// Asks for another look at an object at a time that is still to come.
    pub(super) fn wake(&mut self, at: Timestamp, key: ObjectKey) {
        if at > self.now {
            self.timers.push((at, key));
        }
    }

    /// Whether a length of time has passed since `start`; asks for a look when it will have.
    pub(super) fn is_over(&mut self, start: Timestamp, length: Duration, key: ObjectKey) -> bool {
        let end = start.after(length);
        self.wake(end, key);
        self.now >= end
    }

    /// Turns what was decided into a plan.
    pub(super) fn finish(mut self, crews: Vec<Crew>) -> Plan {
        let mut batches = Batches::default();
        if let Some(cluster) = self.cluster.take() {
            // First: it may raise the format that the others are written in.
            let expect = Expect::At(cluster.meta.revision);
            batches.put(Object::Cluster(cluster), expect);
        }
        for version in std::mem::take(&mut self.versions) {
            batches.put(Object::SpecVersion(Arc::new(version)), Expect::Absent);
        }
        for row in std::mem::take(&mut self.roster.rows) {
            if row.touched {
                let expect = Expect::At(row.node.meta.revision);
                batches.put(Object::Node(row.node), expect);
            }
        }
        for network in std::mem::take(&mut self.networks).into_values() {
            let expect = Expect::At(network.meta.revision);
            batches.put(Object::Network(network), expect);
        }
        for (network, node, revision) in std::mem::take(&mut self.parts_gone) {
            batches.delete(ObjectKey::NetworkNode(network, node), Expect::At(revision));
        }
        for part in std::mem::take(&mut self.parts) {
            batches.put(Object::NetworkNode(Arc::new(part)), Expect::Absent);
        }
        for crew in crews.iter().filter(|crew| crew.service_touched) {
            let expect = Expect::At(crew.service.meta.revision);
            batches.put(Object::Service(Arc::clone(&crew.service)), expect);
        }
        batches.tasks(crews);
        for (id, revision) in std::mem::take(&mut self.services_gone) {
            batches.delete(ObjectKey::Service(id), Expect::At(revision));
        }
        for (id, number) in std::mem::take(&mut self.versions_gone) {
            batches.delete(ObjectKey::SpecVersion(id, number), Expect::Any);
        }
        self.timers.sort_unstable();
        self.timers.dedup();
        Plan {
            changes: batches.done,
            effect: self.effect,
            notes: self.notes,
            wake_at: self.timers.first().map(|(at, _)| *at),
            timers: self.timers,
        }
    }
}

/// Changes, cut into batches.
#[derive(Debug, Default)]
struct Batches {
    done: Vec<Vec<Change>>,
    bytes: usize,
}

impl Batches {
    fn put(&mut self, object: Object, expect: Expect) {
        let bytes = size(&object);
        self.push(Change::Put { object, expect }, bytes);
    }

    fn delete(&mut self, key: ObjectKey, expect: Expect) {
        self.push(Change::Delete { key, expect }, 48);
    }

    fn push(&mut self, change: Change, bytes: usize) {
        self.bytes += bytes;
        match self.done.last_mut() {
            Some(batch) if self.bytes <= BATCH_BYTES => batch.push(change),
            _ => {
                self.bytes = bytes;
                self.done.push(vec![change]);
            }
        }
    }

    fn tasks(&mut self, crews: Vec<Crew>) {
        let mut touched: Vec<_> = crews
            .into_iter()
            .flat_map(|crew| crew.members)
            .filter_map(|member| Some((member.touched?, member)))
            .filter(|(_, member)| !(member.gone && member.origin == Origin::New))
            .collect();
        touched.sort_unstable_by_key(|(order, _)| *order);
        for (_, member) in touched {
            let expect = match member.origin {
                Origin::New => Expect::Absent,
                Origin::Stored if member.only_desired && !member.gone => Expect::Present,
                Origin::Stored => Expect::At(member.task.meta.revision),
            };
            if member.gone {
                self.delete(ObjectKey::Task(member.task.id), expect);
            } else {
                self.put(Object::Task(member.task), expect);
            }
        }
    }
}

/// An estimate of the encoded size of what a plan writes, rather too high than too low.
fn size(object: &Object) -> usize {
    match object {
        Object::Task(task) => task_size(task),
        Object::SpecVersion(version) => {
            64 + serde_json::to_vec(&*version.spec).map_or(4096, |json| json.len())
        }
        Object::Node(node) => {
            let json =
                |value: Result<Vec<u8>, serde_json::Error>| value.map_or(4096, |it| it.len());
            256 + json(serde_json::to_vec(&node.spec))
                + json(serde_json::to_vec(&node.description))
                + node.status.message.len()
        }
        Object::Service(service) => {
            128 + service.name.len() + service.update.as_ref().map_or(0, |it| it.message.len())
        }
        Object::Network(network) => {
            let labels: usize = network.labels.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
            96 + network.name.len() + labels
        }
        Object::NetworkNode(_) => 64,
        Object::Cluster(_) | Object::Secret(_) | Object::Config(_) => BATCH_BYTES,
    }
}

fn task_size(task: &Task) -> usize {
    let status = &task.status;
    let container = status.container.as_ref().map_or(0, |it| it.id.len() + 32);
    144 + task.addresses.len() * 40
        + status.message.len()
        + status.error.len()
        + status.ports.len() * 32
        + container
}

/// All nodes in the order of their ids, as the pass leaves them.
#[derive(Debug)]
pub(super) struct Roster {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    node: Arc<Node>,
    touched: bool,
}

impl Roster {
    fn new(view: &View) -> Self {
        let row = |node: &Arc<Node>| Row { node: Arc::clone(node), touched: false };
        Self { rows: view.nodes.values().map(row).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The node at a place.
    pub(super) fn at(&self, place: usize) -> &Arc<Node> {
        &self.rows[place].node
    }

    /// The place of a node.
    pub(super) fn place(&self, id: NodeId) -> Option<usize> {
        self.rows.binary_search_by_key(&id, |row| row.node.id).ok()
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.place(id).map(|place| self.at(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.rows.iter().map(|row| &row.node)
    }

    /// Nodes that this pass changed.
    pub(super) fn touched(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.rows.iter().filter(|row| row.touched).map(|row| row.node.id)
    }

    /// Changes a node.
    pub(super) fn edit(&mut self, place: usize, change: impl FnOnce(&mut Node)) {
        let row = &mut self.rows[place];
        change(Arc::make_mut(&mut row.node));
        row.touched = true;
    }

    /// Whether a node is there and renews its lease.
    pub(super) fn is_reachable(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|node| node.status.reachability == Reachability::Reachable)
    }
}
