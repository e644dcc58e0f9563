//! The leader's heartbeats.
//!
//! openraft looks at its timers five times per heartbeat, on every member, and the more often the
//! sooner heartbeats follow each other. Here they are sent at their own pace, so that openraft's timers
//! need not be finer than elections are.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::types::Raft;
use crate::domain::RaftId;
use crate::env::Env;

/// Sends heartbeats while this member leads others.
pub(super) struct Pulse {
    pub(super) me: RaftId,
    pub(super) raft: Raft,
    pub(super) env: Env,
    pub(super) every: Duration,
}

impl Pulse {
    /// Runs until openraft has ended.
    pub(super) async fn run(self) {
        let mut group = self.raft.server_metrics();
        loop {
            let has_followers = {
                let now = group.borrow_and_update();
                let members = now.membership_config.membership().nodes().count();
                now.current_leader == Some(self.me.0) && members > 1
            };
            if has_followers {
                if self.raft.trigger().heartbeat().await.is_err() {
                    return;
                }
                self.env.clock.sleep(self.every).await;
            } else if group.changed().await.is_err() {
                return;
            }
        }
    }
}
