//! A root on its way: once every node trusts it, it takes the place of the old one.
//!
//! A node that is down holds this up, and nothing else: everybody who is there already has a
//! certificate of the next root, and all of them believe each other (docs/adr/0020). Removing the
//! node releases it. Nothing is remembered but what the nodes have confirmed, so any leader goes on
//! where the last one was.

use super::pass::Pass;
use crate::domain::cluster::Trust;
use crate::state::ObjectKey;

pub(super) fn decide(pass: &mut Pass<'_>) {
    let Some(cluster) = pass.cluster() else { return };
    let Some(rotation) = &cluster.trust.rotation else { return };
    let generation = cluster.trust.generation;
    let next = rotation.next.clone();
    let waits = pass.roster.iter().filter(|node| node.trust < generation).count();
    if waits > 0 {
        let text = format!("the root certificate is not switched: {waits} nodes do not trust it");
        pass.note(ObjectKey::Cluster, text);
        return;
    }
    pass.edit_cluster(|cluster| {
        cluster.authority = next;
        cluster.trust = Trust { generation: generation + 1, rotation: None };
    });
}
