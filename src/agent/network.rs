//! The node's part in the cluster's networks: the engine's bridges first, then tunnels and rules.
//!
//! Level-triggered: whatever changed (assignments, the engine), the whole is brought to what the
//! assignments say. Tasks wait until their network is ready; that the kernel follows later changes is
//! told by the position of the heartbeats.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::board::Board;
use crate::domain::{AssignmentSet, Network, NetworkId, NodeId};
use crate::env::Env;
use crate::overlay;
use crate::runtime::{NetworkPlan, Runtime};

/// Prefix of the names of the engine's networks that are the cluster's.
const NAME_PREFIX: &str = "swarm-";
/// What others did to the kernel's network is found after this time.
const REPEAT: Duration = Duration::from_secs(30);
/// The first wait after a failure; it doubles up to the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The network between nodes, as the agent needs it.
#[async_trait]
pub trait Fabric: Send + Sync + Debug {
    /// Brings tunnels and rules to what the set says; the bridges are there.
    ///
    /// # Errors
    /// In words for the user; what could be done is done.
    async fn apply(&self, set: &AssignmentSet) -> Result<(), overlay::Error>;

    /// Largest packet of containers on a node with this address.
    fn mtu(&self, local: IpAddr) -> u32;

    /// Removes everything that is the cluster's.
    ///
    /// # Errors
    /// As [`Self::apply`].
    async fn teardown(&self) -> Result<(), overlay::Error>;
}

#[async_trait]
impl Fabric for overlay::Handle {
    async fn apply(&self, set: &AssignmentSet) -> Result<(), overlay::Error> {
        Self::apply(self, set).await
    }

    fn mtu(&self, local: IpAddr) -> u32 {
        Self::mtu(self, local)
    }

    async fn teardown(&self) -> Result<(), overlay::Error> {
        Self::teardown(self).await
    }
}

/// What the routine needs.
#[derive(Clone, Debug)]
pub(super) struct Networker {
    pub(super) env: Env,
    pub(super) board: Arc<Board>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) fabric: Arc<dyn Fabric>,
    pub(super) node: NodeId,
    pub(super) addr: IpAddr,
}

/// The engine's networks that a set asks for on a node.
pub(super) fn wanted(
    set: &AssignmentSet,
    node: NodeId,
    mtu: u32,
) -> BTreeMap<NetworkId, (Arc<Network>, NetworkPlan)> {
    set.networks()
        .filter_map(|network| {
            let part = set.network_node(network.id, node)?;
            let plan = NetworkPlan {
                name: format!("{NAME_PREFIX}{}", network.name),
                bridge: format!("ov{}", network.vni),
                subnet: network.subnet,
                gateway: part.gateway,
                mtu,
            };
            Some((network.id, (Arc::clone(network), plan)))
        })
        .collect()
}

impl Networker {
    /// Follows the assignments for ever.
    pub(super) async fn run(self) {
        let mut sets = self.board.assignments.subscribe();
        let mut engine = self.board.engine.subscribe();
        let mut wait = BACK_OFF_MIN;
        let mut ensured = BTreeMap::new();
        loop {
            let set = Arc::clone(&sets.borrow_and_update());
            let pause = match self.bring(&set, &mut ensured).await {
                Ok(()) => {
                    wait = BACK_OFF_MIN;
                    REPEAT
                }
                Err(problem) => {
                    self.publish_problem(&problem);
                    let pause = self.env.entropy.jitter(wait);
                    wait = (wait * 2).min(BACK_OFF_MAX);
                    pause
                }
            };
            tokio::select! {
                biased;
                changed = sets.changed() => if changed.is_err() { return },
                changed = engine.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The engine may have lost or remade its bridges.
                    ensured.clear();
                }
                () = self.env.clock.sleep(pause) => ensured.clear(),
            }
        }
    }

    async fn bring(
        &self,
        set: &AssignmentSet,
        ensured: &mut BTreeMap<NetworkId, NetworkPlan>,
    ) -> Result<(), String> {
        let wanted = wanted(set, self.node, self.fabric.mtu(self.addr));
        for (id, (network, plan)) in &wanted {
            if ensured.get(id) != Some(plan) {
                self.runtime
                    .ensure_network(network, plan)
                    .await
                    .map_err(|error| format!("network {}: {error}", network.name))?;
                ensured.insert(*id, plan.clone());
            }
        }
        self.fabric.apply(set).await.map_err(|error| error.to_string())?;
        self.drop_unwanted(&wanted).await;
        let ready: BTreeMap<_, _> = wanted.into_iter().map(|(id, (_, plan))| (id, plan)).collect();
        self.board.networks.send_if_modified(|networks| {
            let next =
                super::board::Networks { ready, problem: String::new(), applied: set.position };
            let changed = *networks != next;
            *networks = next;
            changed
        });
        Ok(())
    }

    /// Networks that were ready and are wanted no more go, as soon as no container is left in them.
    async fn drop_unwanted(&self, wanted: &BTreeMap<NetworkId, (Arc<Network>, NetworkPlan)>) {
        let ready = self.board.networks.borrow().ready.clone();
        for (id, plan) in ready {
            if !wanted.contains_key(&id)
                && let Err(error) = self.runtime.remove_network(&plan.name).await
            {
                tracing::debug!(%error, network = plan.name, "an unused network stays for now");
            }
        }
    }

    fn publish_problem(&self, problem: &str) {
        self.board.networks.send_if_modified(|networks| {
            if networks.problem == problem {
                return false;
            }
            tracing::warn!(problem, "the node's network is not as it should be");
            problem.clone_into(&mut networks.problem);
            true
        });
    }
}
