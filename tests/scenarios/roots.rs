//! The rotation of the root certificate, in scenarios: certificates are names here.

use std::sync::Arc;

use swarm::domain::Cluster;
use swarm::domain::cluster::{Authority, RootRotation, Trust};
use swarm::domain::secret::Sensitive;
use swarm::state::{Change, Expect, Object};

use super::world::World;

/// `root …`
pub(crate) fn step(world: &mut World, words: &[&str]) -> Vec<String> {
    let outcome = match *words {
        ["rotate", name] => rotate(world, name, None),
        // As of a client that read the cluster before the last change of its roots.
        ["rotate", name, "late"] => {
            let seen = generation(world) - 1;
            rotate(world, name, Some(seen))
        }
        ["update"] => {
            let cluster = cluster(world);
            let expect = Expect::SpecAt(cluster.meta.spec_revision);
            let mut changed = (*cluster).clone();
            changed.spec.labels.insert("changed".to_owned(), "yes".to_owned());
            put(world, changed, expect)
        }
        ["trusted", ref names @ ..] => names.iter().try_for_each(|name| {
            let (node, trust) = (world.node(name).id, generation(world));
            world.commit(vec![Change::ReportTrust { node, trust }])
        }),
        // A report that comes late: of the roots before.
        ["trusted-before", name] => {
            let (node, trust) = (world.node(name).id, generation(world) - 1);
            world.commit(vec![Change::ReportTrust { node, trust }])
        }
        ["show"] => return show(world),
        ref other => panic!("what is {other:?}?"),
    };
    outcome.err().map(|rejection| format!("error: {rejection}")).into_iter().collect()
}

/// The cluster now.
pub(crate) fn cluster(world: &World) -> Arc<Cluster> {
    Arc::clone(world.state.cluster.as_ref().unwrap())
}

fn generation(world: &World) -> u64 {
    cluster(world).trust.generation
}

fn put(world: &mut World, cluster: Cluster, expect: Expect) -> Result<(), swarm::state::Rejection> {
    let object = Object::Cluster(Arc::new(cluster));
    world.commit(vec![Change::Put { object, expect }])
}

/// As the API does it.
pub(crate) fn rotate(
    world: &mut World,
    name: &str,
    seen: Option<u64>,
) -> Result<(), swarm::state::Rejection> {
    let cluster = cluster(world);
    let expect = Expect::SpecAt(cluster.meta.spec_revision);
    let mut changed = (*cluster).clone();
    let count = changed.spec.ca.force_rotate() + 1;
    changed.spec.ca.extra.insert("ForceRotate".to_owned(), count.into());
    let next = Authority { root_pem: name.to_owned(), key_pem: Sensitive::new(b"key") };
    let rotation = Some(RootRotation { next, cross_pem: format!("{name} by the old") });
    let generation = seen.unwrap_or(cluster.trust.generation) + 1;
    changed.trust = Trust { generation, rotation };
    put(world, changed, expect)
}

fn show(world: &World) -> Vec<String> {
    let cluster = cluster(world);
    let named = |pem: &str| if pem.is_empty() { "first".to_owned() } else { pem.to_owned() };
    let Trust { generation, rotation } = &cluster.trust;
    let next = rotation.as_ref().map(|it| format!(", then {}", it.next.root_pem));
    let root = named(&cluster.authority.root_pem);
    let mut lines =
        vec![format!("root {root}{} (generation {generation})", next.unwrap_or_default())];
    let behind = world.state.nodes.values().filter(|node| node.trust < *generation);
    let behind: Vec<String> = behind.map(|node| world.name_of(node.id)).collect();
    if !behind.is_empty() {
        lines.push(format!("not confirmed by {}", behind.join(", ")));
    }
    lines
}
