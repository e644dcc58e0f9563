//! One session with one manager: what goes over it.
//!
//! Assignments count from the moment they are in the ledger, and never go back: what is older than the
//! known position is refused, whoever sent it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::board::Board;
use super::codec;
use super::connector::Connector;
use super::departure::Departure;
use super::ledger::Note;
use super::logs::Subscriptions;
use crate::domain::assignment::AssignmentDiff;
use crate::domain::node::{Description, Role};
use crate::domain::{AssignmentSet, Format, Position, TaskId, TaskStatus};
use crate::env::{Canary, Env, Instant, Point};
use crate::transport::{LinkError, SessionLink};
use crate::wire::node::agent_message::Kind as ToManager;
use crate::wire::node::manager_message::Kind as FromManager;
use crate::wire::node::{AgentMessage, Heartbeat, Hello, ManagerMessage, Report};
use crate::wire::types;

/// Statuses in one report: well below the largest message.
const REPORTS: usize = 1000;
/// A manager that says nothing for this long after Hello is not one. (It may wait for 5 s until it
/// knows what this node knows.)
const WELCOME_WAIT: Duration = Duration::from_secs(7);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
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
}

/// One session with one manager.
#[derive(Debug)]
pub(super) struct Session<'a> {
    connector: &'a Connector,
    addr: SocketAddr,
    link: SessionLink,
    logs: Subscriptions,
    described: Option<Description>,
    trusted: Option<[u8; 32]>,
    /// What hello said of tasks.
    said: BTreeMap<TaskId, TaskStatus>,
    /// Reports sent and, of these, those that are committed.
    sent: u64,
    committed: u64,
    beat: Duration,
    next_beat: Instant,
}

impl<'a> Session<'a> {
    /// A session with a manager that has said welcome.
    pub(super) async fn begin(connector: &'a Connector, addr: SocketAddr) -> Result<Self, Ended> {
        let link = connector.link.open(addr).await?;
        let logs = Subscriptions {
            node: connector.node,
            board: Arc::clone(&connector.board),
            runtime: Arc::clone(&connector.runtime),
            link: Arc::clone(&connector.link),
            addr,
            scope: connector.scope.child("subscriptions"),
            open: BTreeMap::new(),
        };
        let mut session = Self {
            connector,
            addr,
            link,
            logs,
            described: None,
            trusted: None,
            said: BTreeMap::new(),
            sent: 0,
            committed: 0,
            beat: connector.timing.agent_heartbeat,
            next_beat: connector.env.clock.instant(),
        };
        session.hello().await?;
        session.welcome().await?;
        Ok(session)
    }

    /// The manager.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs until it ends, or until there is one with a manager that suits better.
    pub(super) async fn run(mut self, departure: &mut Departure) -> Result<Self, Ended> {
        let board = Arc::clone(&self.connector.board);
        let env = self.connector.env.clone();
        tracing::info!(manager = %self.addr, "session");
        board.connected.send_replace(Some(self.addr));
        board.said(&std::mem::take(&mut self.said));
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
                next = &mut elsewhere => return Ok(next),
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

    /// Says all that is known here.
    async fn hello(&mut self) -> Result<(), Ended> {
        let board = &self.connector.board;
        let known = board.description.borrow().clone();
        let description = known.unwrap_or_else(|| Description {
            degraded: "the container engine has not answered yet".to_owned(),
            ..super::describe::machine(&self.connector.env)
        });
        self.trusted = *board.trusted.borrow();
        self.said = board.statuses();
        let hello = Hello {
            trust: digest_bytes(self.trusted),
            description_json: json(&description)?,
            addr: match self.connector.addr {
                IpAddr::V4(addr) => Bytes::copy_from_slice(&addr.octets()),
                IpAddr::V6(addr) => Bytes::copy_from_slice(&addr.octets()),
            },
            position: Some(codec::position(self.known_position())),
            reports: self.said.iter().map(|(task, status)| codec::report(*task, status)).collect(),
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
        let (next, news) = if complete {
            let before = if self.is_forgetful() { &AssignmentSet::default() } else { &*known };
            let next = before.absorb(diff)?;
            let news = known.diff(&next);
            (next, news)
        } else {
            (known.absorb(diff.clone())?, diff)
        };
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
