//! What a node asks of the Raft group: to become a member, to be let go.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use crate::domain::{Autolock, Format, NodeId, RaftId};
use crate::env::Env;
use crate::transport::Channels;
use crate::wire::cluster::autolock;
use crate::wire::manager::membership_client::MembershipClient;
use crate::wire::manager::{JoinRequest, LeaveRequest};

/// How long a manager may take to commit a membership.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to the other managers.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) channels: &'a Channels,
    pub(super) env: &'a Env,
}

impl Group<'_> {
    /// Asks a manager for membership of this node, which will listen on `advertise`. Answers its
    /// raft id and how it is to lock its data.
    ///
    /// # Errors
    /// When it cannot be reached, or the cluster has as many managers as it may have.
    pub(super) async fn join(
        &self,
        manager: SocketAddr,
        advertise: SocketAddr,
    ) -> anyhow::Result<(RaftId, Autolock)> {
        let mut client = MembershipClient::new(self.channels.channel(manager));
        let request = JoinRequest { addr: advertise.to_string(), format: Format::NEWEST.0 };
        let asked = client.join(request);
        let answer = self.env.clock.timeout(LIMIT, asked).await;
        let reply = answer
            .with_context(|| format!("the manager at {manager} did not answer"))?
            .map_err(|status| anyhow::anyhow!("{}", status.message()))
            .with_context(|| format!("the manager at {manager} refused"))?;
        let reply = reply.into_inner();
        let lock = autolock(reply.lock_generation, &reply.unlock_key)?;
        Ok((RaftId(reply.raft_id), lock))
    }

    /// Tells the others that a manager leaves; best effort, since it leaves in any case.
    pub(super) async fn leave(&self, managers: &[SocketAddr], node: NodeId) {
        for manager in managers {
            let mut client = MembershipClient::new(self.channels.channel(*manager));
            let request = LeaveRequest { node: node.to_bytes().to_vec().into() };
            match self.env.clock.timeout(LIMIT, client.leave(request)).await {
                Ok(Ok(_)) => return,
                Ok(Err(status)) => tracing::warn!(%manager, %status, "not told that we leave"),
                Err(elapsed) => tracing::warn!(%manager, %elapsed, "not told that we leave"),
            }
        }
    }
}
