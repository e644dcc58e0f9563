//! A network in memory: members are found by address, can be cut off, and their end is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::raft::{Inbound, Peer, PeerError, PeerLink};
use crate::wire::manager::{ProposeReply, ProposeRequest};

#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) members: Mutex<BTreeMap<SocketAddr, Inbound>>,
    pub(super) cut: Mutex<BTreeSet<SocketAddr>>,
    /// Raised whenever a member comes or goes.
    pub(super) changes: watch::Sender<u64>,
    /// Whether the end of a process is seen, as on a network that resets connections.
    pub(super) tells_of_ends: bool,
}

impl Net {
    pub(super) fn add(&self, addr: SocketAddr, inbound: Inbound) {
        self.members.lock().unwrap().insert(addr, inbound);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn remove(&self, addr: SocketAddr) {
        self.members.lock().unwrap().remove(&addr);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn cut(&self, addr: SocketAddr) {
        self.cut.lock().unwrap().insert(addr);
    }

    pub(super) fn heal(&self, addr: SocketAddr) {
        self.cut.lock().unwrap().remove(&addr);
    }

    pub(super) fn link(self: &Arc<Self>, from: SocketAddr) -> Arc<dyn PeerLink> {
        Arc::new(Wire { net: Arc::clone(self), from })
    }
}

#[derive(Debug)]
struct Wire {
    net: Arc<Net>,
    from: SocketAddr,
}

impl Wire {
    async fn find(&self, to: Peer, limit: Duration) -> Result<Inbound, PeerError> {
        let is_cut = {
            let cut = self.net.cut.lock().unwrap();
            cut.contains(&to.addr) || cut.contains(&self.from)
        };
        if is_cut {
            crate::env::Env::system().clock.sleep(limit).await;
            return Err(PeerError::Timeout);
        }
        let inbound = self.net.members.lock().unwrap().get(&to.addr).cloned();
        let inbound = inbound
            .ok_or_else(|| PeerError::Unreachable { addr: to.addr, reason: "refused".into() })?;
        inbound.is_meant(to.id)?;
        Ok(inbound)
    }
}

#[async_trait]
impl PeerLink for Wire {
    async fn vote(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        self.find(to, limit).await?.vote(&payload).await
    }

    async fn append(&self, to: Peer, payload: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        self.find(to, limit).await?.append(&payload).await
    }

    async fn transfer(
        &self,
        to: Peer,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        self.find(to, limit).await?.transfer(&payload).await
    }

    async fn snapshot(
        &self,
        to: Peer,
        header: Bytes,
        data: Bytes,
        limit: Duration,
    ) -> Result<Bytes, PeerError> {
        self.find(to, limit).await?.snapshot(&header, data).await
    }

    async fn propose(
        &self,
        to: Peer,
        request: ProposeRequest,
        limit: Duration,
    ) -> Result<ProposeReply, PeerError> {
        self.find(to, limit).await?.propose(request).await
    }

    async fn read_index(&self, to: Peer, limit: Duration) -> Result<u64, PeerError> {
        self.find(to, limit).await?.read_index().await
    }

    async fn closed(&self, to: Peer) {
        if !self.net.tells_of_ends {
            return std::future::pending().await;
        }
        let mut changes = self.net.changes.subscribe();
        let mut stood = false;
        loop {
            changes.borrow_and_update();
            let stands = self.net.members.lock().unwrap().contains_key(&to.addr);
            if stood && !stands {
                return;
            }
            stood = stands;
            changes.changed().await.unwrap();
        }
    }
}
