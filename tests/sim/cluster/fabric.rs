//! The network of a simulated machine.

use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use swarm::agent::Fabric;
use swarm::domain::{AssignmentSet, Position};

/// The network of a machine: it applies what it is told, unless it is broken.
#[derive(Debug, Default)]
pub(crate) struct SimFabric {
    inner: Mutex<(bool, Position)>,
}

impl SimFabric {
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.inner.lock().unwrap().0 = is_broken;
    }
}

#[async_trait]
impl Fabric for SimFabric {
    async fn apply(&self, set: &AssignmentSet) -> Result<(), swarm::overlay::Error> {
        let mut inner = self.inner.lock().unwrap();
        if inner.0 {
            let reason = "the simulated kernel says no".to_owned();
            return Err(swarm::overlay::Error::Nft { reason });
        }
        inner.1 = set.position;
        Ok(())
    }

    fn mtu(&self, _: IpAddr) -> u32 {
        1450
    }

    async fn teardown(&self) -> Result<(), swarm::overlay::Error> {
        Ok(())
    }
}
