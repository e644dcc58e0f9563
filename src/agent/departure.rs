//! The way from the manager in this agent's own process to one in another (docs/adr/0030).
//!
//! Whoever ran `swarm init` began with itself, since there was nobody else, and so does an agent that came back
//! when no other manager answered. Such a session says nothing once the process dies: the host would count as
//! silent, and its tasks would be replaced. So it is left as soon as there is somebody to go to.

use std::net::SocketAddr;
use std::time::Duration;

use super::connector::Connector;
use super::session::Session;

/// Longest wait between two tries: a manager that never answers costs a dial in five minutes.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// When to try next. Outlives sessions, so that an agent does not go back and forth.
#[derive(Debug)]
pub(super) struct Departure {
    first: Duration,
    wait: Duration,
}

impl Departure {
    /// The first try comes about `first` after another manager is known: a new one must catch up with the log.
    pub(super) const fn new(first: Duration) -> Self {
        Self { first, wait: first }
    }

    /// A session with another process lasted for so long. If it was worth going, the next time may come soon.
    pub(super) fn stayed(&mut self, lasted: Duration) {
        if lasted > self.wait {
            self.wait = self.first;
        }
    }

    /// A session with a manager in another process. Pending for ever in one that is not with this agent's
    /// own.
    pub(super) async fn found<'a>(
        &mut self,
        connector: &'a Connector,
        from: SocketAddr,
    ) -> Session<'a> {
        let is_own = |manager: SocketAddr| connector.is_own(manager);
        let mut managers = connector.board.managers.subscribe();
        while is_own(from) {
            let is_alone = |known: &Vec<(_, SocketAddr)>| known.iter().all(|(_, it)| is_own(*it));
            if managers.wait_for(|known| !is_alone(known)).await.is_err() {
                break;
            }
            connector.env.clock.sleep(connector.env.entropy.jitter(self.wait)).await;
            self.wait = (self.wait * 2).min(WAIT_MAX);
            let Some(to) = connector.order(Some(from)).into_iter().find(|it| !is_own(*it)) else {
                continue;
            };
            match Session::begin(connector, to).await {
                Ok(session) => return session,
                Err(error) => tracing::debug!(manager = %to, %error, "not to this manager"),
            }
        }
        futures::future::pending().await
    }
}
