//! The leader's heartbeats.
//!
//! openraft looks at its timers five times per heartbeat, on every member, and the more often the
//! sooner heartbeats follow each other. Here they are sent at their own pace, so that openraft's timers
//! need not be finer than elections are, and stand still where there is no election to wait for: on the
//! leader.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use super::types::Raft;
use crate::domain::RaftId;
use crate::env::Env;

/// Sends heartbeats while this member leads others, and has openraft look at its timers while it does not.
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
            let (leads, has_others) = {
                let now = group.borrow_and_update();
                let members = now.membership_config.membership().nodes().count();
                (now.current_leader == Some(self.me.0), members > 1)
            };
            self.raft.runtime_config().tick(!leads);
            let changed = if leads && has_others {
                if self.raft.trigger().heartbeat().await.is_err() {
                    return;
                }
                self.env.clock.timeout(self.every, group.changed()).await
            } else {
                Ok(group.changed().await)
            };
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    }
}
