//! Which of the nodes that fit is best: evenly over the values of the preferred labels, level by
//! level; then the fewest tasks of the service, the fewest tasks, the smallest id.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::domain::Node;

/// The order of nodes; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Failures of the service there lately, if there were too many.
    pub(super) failures: u32,
    /// Its tasks there.
    pub(super) of_service: u32,
    /// All tasks there.
    pub(super) tasks: u32,
    /// The node's place in the roster, which is in the order of ids.
    pub(super) place: usize,
}

/// Nodes by the values of the labels that are spread over.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Tasks of the service below.
    tasks: u32,
    /// Nodes below that can take one more.
    open: usize,
    branches: BTreeMap<String, Self>,
    nodes: BinaryHeap<Reverse<Rank>>,
}

impl Tree {
    /// Adds a node with its tasks of the service; `rank` if it can take one more.
    pub(super) fn insert<'l>(
        &mut self,
        mut labels: impl Iterator<Item = &'l str>,
        node: &Node,
        tasks: u32,
        rank: Option<Rank>,
    ) {
        self.tasks += tasks;
        self.open += usize::from(rank.is_some());
        let value = labels.by_ref().find_map(|label| value(node, label));
        match (value, rank) {
            (Some(value), _) => {
                let labels: &mut dyn Iterator<Item = &'l str> = &mut labels;
                self.branches
                    .entry(value.to_owned())
                    .or_default()
                    .insert(labels, node, tasks, rank);
            }
            (None, Some(rank)) => self.nodes.push(Reverse(rank)),
            (None, None) => {}
        }
    }

    /// Hands the best node to `assign`, which answers with its new rank if it can take yet another.
    /// Nothing happens if no node is open.
    pub(super) fn take(&mut self, assign: &mut dyn FnMut(Rank) -> Option<Rank>) {
        let before = self.open;
        if before == 0 {
            return;
        }
        let branches = self.branches.iter_mut().filter(|(_, branch)| branch.open > 0);
        let best = branches.min_by(|a, b| (a.1.tasks, a.0).cmp(&(b.1.tasks, b.0)));
        if let Some((_, branch)) = best {
            let open = branch.open;
            branch.take(assign);
            self.open -= open - branch.open;
        } else if let Some(Reverse(rank)) = self.nodes.pop() {
            match assign(rank) {
                Some(rank) => self.nodes.push(Reverse(rank)),
                None => self.open -= 1,
            }
        }
        self.tasks += 1;
    }
}

/// The value of a label that is spread over; a node without it is in a group of its own. `None` for
/// what is no label: such a preference is passed over, as Docker does.
fn value<'n>(node: &'n Node, descriptor: &str) -> Option<&'n str> {
    let of =
        |labels: &'n crate::domain::Labels, key: &str| labels.get(key).map_or("", String::as_str);
    if let Some(key) = descriptor.strip_prefix("node.labels.") {
        Some(of(&node.spec.labels, key))
    } else {
        let key = descriptor.strip_prefix("engine.labels.")?;
        Some(node.description.as_ref().map_or("", |it| of(&it.engine.labels, key)))
    }
}
