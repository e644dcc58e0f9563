//! The connection to a manager: which one, for how long, and what goes over it.
//!
//! Any manager will do. A session that ends is followed by one to the next manager; only when a whole
//! round of them failed does the agent wait. Assignments count from the moment they are in the ledger,
//! and never go back: what is older than the known position is refused, whoever sent it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::board::Board;
use super::codec;
use super::departure::Departure;
use super::ledger::Note;
use super::logs::Subscriptions;
use crate::domain::assignment::AssignmentDiff;
use crate::domain::node::{Description, Role};
use crate::domain::{AssignmentSet, Format, NodeId, Position, timing::Timing};
use crate::env::{Canary, Env, Instant, Point, Scope};
use crate::runtime::Runtime;
use crate::transport::{LinkError, ManagerLink, SessionLink};
use crate::wire::node::agent_message::Kind as ToManager;
use crate::wire::node::manager_message::Kind as FromManager;
use crate::wire::node::{AgentMessage, Heartbeat, Hello, ManagerMessage, Report};
use crate::wire::types;

/// Statuses in one report: well below the largest message.
const REPORTS: usize = 1000;
/// A manager that says nothing for this long after Hello is not one. (It may wait for 5 s until it
/// knows what this node knows.)
const WELCOME_WAIT: Duration = Duration::from_secs(7);
/// The first word waits this long for the engine's description.
const DESCRIBE_WAIT: Duration = Duration::from_secs(1);
/// A session shorter than this has not worked.
const SHORT: Duration = Duration::from_secs(1);
/// The wait after a round of managers that all failed; it doubles up to the longest.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A node that was removed asks rarely.
const REMOVED_WAIT: Duration = Duration::from_secs(10);

/// What the routine needs.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) env: Env,
    pub(super) board: Arc<Board>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) link: Arc<dyn ManagerLink>,
    pub(super) node: NodeId,
    pub(super) addr: IpAddr,
    pub(super) timing: Timing,
    pub(super) scope: Scope,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the manager closed the session without a word")]
    Silent,
    #[error("the manager did not answer within {} s", WELCOME_WAIT.as_secs())]
    NoWelcome,
    #[error("the manager does not read")]
    Stuck,
    #[error("the manager sent something that is not understood: {0}")]
    Garbled(String),
    #[error(transparent)]
    OutOfSequence(#[from] crate::domain::assignment::OutOfSequence),
    #[error("{0}")]
    Ledger(String),
    #[error("it goes on with the manager at {}", .0.0)]
    Elsewhere(Box<(SocketAddr, SessionLink)>),
}

impl Connector {
    /// Keeps a session open for ever.
    pub(super) async fn run(self) {
        let mut wait = BACK_OFF_MIN;
        let mut lost = None;
        let mut departure = Departure::new(self.timing.restart_grace / 2);
        loop {
            let mut removed = false;
            for addr in self.order(lost) {
                let begun = self.env.clock.instant();
                let (addr, ended) = self.session(addr, &mut departure).await;
                lost = Some(addr);
                if self.board.connected.send_replace(None).is_some() {
                    self.env.meters.agent_sessions_lost.up();
                }
                let lasted = self.env.clock.instant().since(begun);
                removed = matches!(ended, Ended::Link(LinkError::Removed));
                self.board
                    .removed
                    .send_if_modified(|known| std::mem::replace(known, removed) != removed);
                if removed {
                    tracing::error!("{ended}");
                    break;
                }
                tracing::info!(manager = %addr, reason = %ended, "no session with this manager");
                if lasted > SHORT {
                    wait = BACK_OFF_MIN;
                    break;
                }
            }
            let pause = if removed { REMOVED_WAIT } else { wait };
            self.env.clock.sleep(self.env.entropy.jitter(pause)).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    /// Whether a manager is in this agent's own process.
    pub(super) fn is_own(&self, manager: SocketAddr) -> bool {
        manager.ip() == self.addr
    }

    /// The managers in the order to try.
    pub(super) fn order(&self, lost: Option<SocketAddr>) -> Vec<SocketAddr> {
        let known = self.board.managers.borrow().iter().map(|(_, addr)| *addr).collect();
        in_order(known, (self.addr, lost), self.env.entropy.number())
    }

    /// A session with one manager, and from that in the own process with those to whom it moves on. Returns
    /// the last one.
    async fn session(&self, addr: SocketAddr, departure: &mut Departure) -> (SocketAddr, Ended) {
        let mut at = match self.link.open(addr).await {
            Ok(link) => (addr, link),
            Err(error) => return (addr, error.into()),
        };
        loop {
            let addr = at.0;
            match self.converse(at, departure).await {
                Ended::Elsewhere(next) => {
                    tracing::info!(from = %addr, to = %next.0, "the session moves to another process");
                    self.board.connected.send_replace(None);
                    at = *next;
                }
                ended => return (addr, ended),
            }
        }
    }

    async fn converse(
        &self,
        (addr, link): (SocketAddr, SessionLink),
        departure: &mut Departure,
    ) -> Ended {
        let logs = Subscriptions {
            node: self.node,
            board: Arc::clone(&self.board),
            runtime: Arc::clone(&self.runtime),
            link: Arc::clone(&self.link),
            addr,
            scope: self.scope.child("subscriptions"),
            open: std::collections::BTreeMap::new(),
        };
        let session = Session {
            connector: self,
            addr,
            link,
            logs,
            described: None,
            trusted: None,
            sent: 0,
            committed: 0,
            beat: self.timing.agent_heartbeat,
            next_beat: self.env.clock.instant(),
        };
        let begun = self.env.clock.instant();
        let Err(ended) = session.run(departure).await;
        if !self.is_own(addr) {
            departure.stayed(self.env.clock.instant().since(begun));
        }
        ended
    }
}

/// The managers from a place that differs from node to node and from round to round. This node's `own`
/// comes late: that one is the same process, and when it dies, nobody is left who saw the session close,
/// so the host would count as silent (docs/adr/0030). Last comes the one that was `lost`: if its host is
/// gone, finding that out again takes what is left of the lease.
fn in_order(
    mut known: Vec<SocketAddr>,
    (own, lost): (IpAddr, Option<SocketAddr>),
    number: u64,
) -> Vec<SocketAddr> {
    if let Ok(count @ 1..) = u64::try_from(known.len()) {
        known.rotate_left(usize::try_from(number % count).unwrap_or_default());
    }
    known.sort_by_key(|addr| (Some(*addr) == lost, addr.ip() == own));
    known.dedup();
    known
}

/// One session with one manager.
#[derive(Debug)]
struct Session<'a> {
    connector: &'a Connector,
    addr: SocketAddr,
    link: SessionLink,
    logs: Subscriptions,
    described: Option<Description>,
    trusted: Option<[u8; 32]>,
    /// Reports sent and, of these, those that are committed.
    sent: u64,
    committed: u64,
    beat: Duration,
    next_beat: Instant,
}

impl Session<'_> {
    async fn run(mut self, departure: &mut Departure) -> Result<std::convert::Infallible, Ended> {
        let board = Arc::clone(&self.connector.board);
        let env = self.connector.env.clone();
        self.hello().await?;
        self.welcome().await?;
        tracing::info!(manager = %self.addr, "session");
        board.connected.send_replace(Some(self.addr));
        let mut descriptions = board.description.subscribe();
        let mut trusted = board.trusted.subscribe();
        self.report(&board, &mut descriptions).await?;
        let elsewhere = departure.found(self.connector, self.addr);
        tokio::pin!(elsewhere);
        loop {
            let now = env.clock.instant();
            tokio::select! {
                biased;
                () = env.clock.sleep(self.next_beat.since(now)) => self.heartbeat().await?,
                message = self.link.incoming.recv() => {
                    let message = message.ok_or(Ended::Silent)??;
                    self.receive(message).await?;
                    // An acknowledgement makes way for what has queued behind it.
                    if self.sent == self.committed {
                        self.report(&board, &mut descriptions).await?;
                    }
                }
                // One report is on its way at a time: what queues behind it is the next batch.
                () = board.to_send.notified(), if self.sent == self.committed => {
                    self.report(&board, &mut descriptions).await?;
                }
                changed = descriptions.changed(), if self.sent == self.committed => {
                    changed.map_err(|_| Ended::Silent)?;
                    self.report(&board, &mut descriptions).await?;
                }
                changed = trusted.changed(), if self.sent == self.committed => {
                    changed.map_err(|_| Ended::Silent)?;
                    self.report(&board, &mut descriptions).await?;
                }
                next = &mut elsewhere => return Err(Ended::Elsewhere(Box::new(next))),
            }
        }
    }

    async fn send(&self, kind: ToManager) -> Result<(), Ended> {
        let message = AgentMessage { kind: Some(kind) };
        let limit = self.connector.timing.lease;
        match self.connector.env.clock.timeout(limit, self.link.outgoing.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // Why is the last word of the other direction.
            Ok(Err(_)) | Err(_) if !self.link.incoming.is_empty() => Ok(()),
            Ok(Err(_)) => Err(Ended::Silent),
            Err(_) => Err(Ended::Stuck),
        }
    }

    async fn hello(&mut self) -> Result<(), Ended> {
        let board = &self.connector.board;
        let mut descriptions = board.description.subscribe();
        let clock = &self.connector.env.clock;
        // In time or not: what is known then is said.
        drop(clock.timeout(DESCRIBE_WAIT, descriptions.wait_for(Option::is_some)).await);
        let known = board.description.borrow().clone();
        let description = known.unwrap_or_else(|| Description {
            degraded: "the container engine has not answered yet".to_owned(),
            ..super::describe::machine(&self.connector.env)
        });
        self.trusted = *board.trusted.borrow();
        let hello = Hello {
            trust: digest_bytes(self.trusted),
            description_json: json(&description)?,
            addr: match self.connector.addr {
                IpAddr::V4(addr) => Bytes::copy_from_slice(&addr.octets()),
                IpAddr::V6(addr) => Bytes::copy_from_slice(&addr.octets()),
            },
            position: Some(codec::position(self.known_position())),
            reports: board
                .take_all()
                .iter()
                .map(|(task, status)| codec::report(*task, status))
                .collect(),
            format: Format::NEWEST.0,
        };
        self.described = Some(description);
        self.send(ToManager::Hello(hello)).await
    }

    /// A bug that a test wants.
    fn is_forgetful(&self) -> bool {
        self.connector.env.faults.has(Canary::StaleAssignments)
    }

    fn known_position(&self) -> Position {
        let known = self.connector.board.assignments.borrow().position;
        if self.is_forgetful() { Position::default() } else { known }
    }

    async fn welcome(&mut self) -> Result<(), Ended> {
        let first = self
            .connector
            .env
            .clock
            .timeout(WELCOME_WAIT, self.link.incoming.recv())
            .await
            .map_err(|_| Ended::NoWelcome)?
            .ok_or(Ended::Silent)??;
        let Some(FromManager::Welcome(welcome)) = first.kind else {
            return Err(Ended::Garbled("its first word is not Welcome".to_owned()));
        };
        if welcome.heartbeat_ms > 0 {
            self.beat = Duration::from_millis(welcome.heartbeat_ms.into());
        }
        self.next_beat = self.connector.env.clock.instant();
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        let applied = self.connector.board.networks.borrow().applied;
        self.send(ToManager::Heartbeat(Heartbeat { applied: Some(codec::position(applied)) }))
            .await?;
        self.next_beat = self.connector.env.clock.instant().after(self.beat);
        Ok(())
    }

    /// Sends statuses and a description that wait, if any do.
    async fn report(
        &mut self,
        board: &Board,
        descriptions: &mut tokio::sync::watch::Receiver<Option<Description>>,
    ) -> Result<(), Ended> {
        let tasks: Vec<_> = board
            .take_unsent(REPORTS)
            .iter()
            .map(|(task, status)| codec::report(*task, status))
            .collect();
        let description = descriptions.borrow_and_update().clone();
        let news = description.filter(|known| Some(known) != self.described.as_ref());
        let trusted = Some(*board.trusted.borrow()).filter(|now| *now != self.trusted);
        if tasks.is_empty() && news.is_none() && trusted.is_none() {
            return Ok(());
        }
        let description_json = match &news {
            Some(description) => json(description)?,
            None => Bytes::new(),
        };
        self.sent += 1;
        self.described = news.or_else(|| self.described.take());
        let trust = digest_bytes(trusted.flatten());
        self.trusted = trusted.unwrap_or(self.trusted);
        self.send(ToManager::Report(Report { tasks, description_json, trust })).await
    }

    async fn receive(&mut self, message: ManagerMessage) -> Result<(), Ended> {
        let board = &self.connector.board;
        match message.kind {
            Some(FromManager::Assignments(diff)) => self.assign(diff).await?,
            Some(FromManager::Managers(managers)) => {
                let managers = codec::managers(&managers);
                let news = !managers.is_empty() && *board.managers.borrow() != managers;
                if news {
                    board.managers.send_replace(managers.clone());
                    board.write(Note::Managers(managers)).await.map_err(Ended::Ledger)?;
                }
            }
            Some(FromManager::Logs(request)) => self.logs.request(request),
            Some(FromManager::Role(change)) => {
                let role = if change.role == 1 { Role::Manager } else { Role::Worker };
                board.role.send_replace(Some(role));
            }
            Some(FromManager::Trust(trust)) => {
                let digest = <[u8; 32]>::try_from(&*trust.digest);
                let wrong = |_| Ended::Garbled("a digest has 32 bytes".to_owned());
                board.trust_wanted.send_replace(Some(digest.map_err(wrong)?));
            }
            Some(FromManager::Ack(ack)) => self.committed = ack.reports.min(self.sent),
            Some(FromManager::Welcome(_)) | None => {}
        }
        Ok(())
    }

    /// Takes assignments: into the ledger first, then to all who follow them.
    async fn assign(&self, diff: types::AssignmentDiff) -> Result<(), Ended> {
        let board = &self.connector.board;
        let diff =
            AssignmentDiff::try_from(diff).map_err(|error| Ended::Garbled(error.to_string()))?;
        let complete = diff.from.is_none();
        let known = Arc::clone(&board.assignments.borrow());
        let next = if complete && self.is_forgetful() {
            AssignmentSet::default().absorb(diff)?
        } else {
            known.absorb(diff)?
        };
        let news = known.diff(&next);
        if !news.is_empty() || news.to != known.position {
            board.write(Note::Diff(news)).await.map_err(Ended::Ledger)?;
            let Env { faults, clock, .. } = &self.connector.env;
            faults.pass(Point::AgentAfterLedger, &**clock).await;
            board.assignments.send_replace(Arc::new(next));
        }
        if complete {
            board.confirmed.send_if_modified(|known| !std::mem::replace(known, true));
        }
        Ok(())
    }
}

fn digest_bytes(digest: Option<[u8; 32]>) -> Bytes {
    digest.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default()
}

fn json(description: &Description) -> Result<Bytes, Ended> {
    serde_json::to_vec(description)
        .map(Bytes::from)
        .map_err(|error| Ended::Garbled(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_in_the_same_process_is_the_last_one_to_try() {
        let addr = |number: u8| SocketAddr::from(([10, 0, 0, number], 2377));
        let order = |known: &[u8], number| {
            let known = known.iter().map(|it| addr(*it)).collect();
            in_order(known, (addr(1).ip(), None), number)
        };
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..12 {
            let order = order(&[1, 2, 3], number);
            assert_eq!((order.len(), order[2]), (3, addr(1)), "{order:?}");
            firsts.insert(order[0]);
        }
        assert_eq!(firsts, [addr(2), addr(3)].into(), "the others share the agents");
        assert_eq!(order(&[1], 7), [addr(1)], "where it is the only one, it is it");
        assert_eq!(order(&[], 7), []);
    }

    #[test]
    fn a_manager_that_was_lost_is_tried_after_all_others() {
        let addr = |number: u8| SocketAddr::from(([10, 0, 0, number], 2377));
        for number in 0..8 {
            let known = (1..=4).map(addr).collect();
            let order = in_order(known, (addr(1).ip(), Some(addr(2))), number);
            assert_eq!((order.len(), &order[2..]), (4, &[addr(1), addr(2)][..]));
        }
    }
}
