//! One agent's session: hello, then assignments out and reports in, until either side ends it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::Shared;
use super::feed::Frame;
use super::status::Report;
use super::trust::{TrustStep, TrustTalk};
use crate::domain::assignment::Item;
use crate::domain::node::{Description, Membership, Role};
use crate::domain::{
    AssignmentSet, Format, NodeId, Position, Revision, SessionId, TaskId, TaskStatus,
};
use crate::env::{Canary, Instant};
use crate::identity::NodeIdentity;
use crate::state::{Change, State, assignment};
use crate::wire::DecodeError;
use crate::wire::node::agent_message::Kind as FromAgent;
use crate::wire::node::manager_message::Kind as ToAgent;
use crate::wire::node::{
    AgentMessage, Hello, ManagerAddr, ManagerMessage, Managers, ReportAck, RoleChange, TaskReport,
    Welcome,
};

/// Bytes of what an agent says of its machine.
const DESCRIPTION_MAX: usize = 256 << 10;
/// Bytes of one text of a status; what is longer is cut. The log keeps it for every task.
const TEXT_MAX: usize = 8 << 10;
/// How long the first message may take.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// How long this manager may take to reach the position that an agent knows.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(5);
/// Why a manager that nobody leads has no sessions.
const LEADERLESS: &str = "this manager has lost its leader";

/// What an agent says, in order, until its end of the session is closed.
pub(super) trait Inbox: Stream<Item = Result<AgentMessage, Status>> + Send + Unpin {}

impl<S: Stream<Item = Result<AgentMessage, Status>> + Send + Unpin> Inbox for S {}

/// One agent's session.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    peer: NodeIdentity,
    id: SessionId,
    outbox: mpsc::Sender<Result<ManagerMessage, Status>>,
    committed: watch::Sender<u64>,
    reports: u64,
    sent: Option<AssignmentSet>,
    managers: Vec<ManagerAddr>,
    role_told: Option<Role>,
    trust: TrustTalk,
    acked: u64,
    heard_at: Instant,
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: NodeIdentity,
        outbox: mpsc::Sender<Result<ManagerMessage, Status>>,
    ) -> Self {
        let id = SessionId::from_bytes(shared.env.entropy.id());
        let (committed, _) = watch::channel(0);
        let heard_at = shared.env.clock.instant();
        Self {
            shared,
            peer,
            id,
            outbox,
            committed,
            reports: 0,
            sent: None,
            managers: Vec::new(),
            role_told: None,
            trust: TrustTalk::default(),
            acked: 0,
            heard_at,
        }
    }

    /// Runs until either side ends the session.
    pub(super) async fn run(mut self, mut inbox: impl Inbox) {
        let node = self.peer.node;
        let ended = self.serve(&mut inbox).await;
        self.shared.beats.close(node, self.id);
        self.shared.logs.forget(node, self.id);
        match ended {
            Ok(()) => tracing::debug!(node.id = %node, "agent closed its session"),
            Err(status) => {
                tracing::info!(node.id = %node, reason = status.message(), "session closed");
                // The agent may be gone already; then there is nobody to tell.
                if self.outbox.try_send(Err(status)).is_err() {
                    tracing::trace!("the agent was not told");
                }
            }
        }
    }

    async fn serve(&mut self, inbox: &mut impl Inbox) -> Result<(), Status> {
        let node = self.peer.node;
        let first = self.shared.env.clock.timeout(HELLO_DEADLINE, inbox.next()).await;
        let hello = match first {
            Ok(message) => match message.transpose()?.and_then(|message| message.kind) {
                Some(FromAgent::Hello(hello)) => hello,
                _ => return Err(Status::invalid_argument("a session begins with hello")),
            },
            Err(_) => return Err(Status::deadline_exceeded("no hello came")),
        };
        let mut frames = self.shared.feed.watch();
        self.catch_up(&mut frames, &hello).await?;
        self.shared.beats.open(node, self.id, Format::said(hello.format));
        self.shared.logs.attach(node, self.id, self.outbox.clone());
        tracing::info!(node.id = %node, session.id = %self.id.short(), "agent connected");
        let heartbeat = self.shared.timing.agent_heartbeat.as_millis();
        self.send(ToAgent::Welcome(Welcome {
            session: Bytes::copy_from_slice(&self.id.to_bytes()),
            heartbeat_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
        }))
        .await?;
        self.greet(hello).await?;
        self.exchange(inbox, &mut frames).await
    }

    /// A manager may lag behind an agent: what it sends must not be older than what the agent knows.
    async fn catch_up(
        &self,
        frames: &mut watch::Receiver<Frame>,
        hello: &Hello,
    ) -> Result<(), Status> {
        let known = hello.position.as_ref().map_or_else(Position::default, |position| Position {
            term: position.term,
            index: position.index,
        });
        let mut led = self.shared.beats.led();
        let reached = frames.wait_for(|frame| frame.view.position >= known);
        tokio::select! {
            biased;
            // Its lease runs: another manager may have a leader.
            _ = led.wait_for(|led| !*led) => Err(Status::unavailable(LEADERLESS)),
            reached = self.shared.env.clock.timeout(CATCH_UP_DEADLINE, reached) => match reached {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(Status::unavailable("this manager is stopping")),
                Err(_) => Err(Status::unavailable("this manager is behind")),
            },
        }
    }

    /// Takes over what the agent says of itself and of its tasks.
    async fn greet(&mut self, hello: Hello) -> Result<(), Status> {
        let addr = match hello.addr.len() {
            4 => <[u8; 4]>::try_from(&hello.addr[..]).map(IpAddr::from).ok(),
            16 => <[u8; 16]>::try_from(&hello.addr[..]).map(IpAddr::from).ok(),
            _ => None,
        };
        let mut changes = Vec::new();
        if let Some(addr) = addr {
            changes.extend(self.description(&hello.description_json, Some(addr))?);
        }
        changes.extend(self.task_changes(hello.reports)?);
        self.report(changes).await;
        self.trust.hear(hello.trust);
        Ok(())
    }

    /// The change that records a description, unless it is known already.
    fn description(&self, json: &[u8], addr: Option<IpAddr>) -> Result<Option<Change>, Status> {
        if json.is_empty() {
            return Ok(None);
        }
        if json.len() > DESCRIPTION_MAX {
            let text = format!("a description has at most {DESCRIPTION_MAX} bytes");
            return Err(Status::invalid_argument(text));
        }
        let description: Description = serde_json::from_slice(json)
            .map_err(|error| Status::invalid_argument(format!("description: {error}")))?;
        let view = self.shared.store.view();
        let known = view.node(self.peer.node);
        let addr = addr.or_else(|| known.and_then(|node| node.status.addr));
        let Some(addr) = addr else {
            return Err(Status::invalid_argument("an agent must say its address"));
        };
        let same = known.is_some_and(|node| {
            node.description.as_ref() == Some(&description) && node.status.addr == Some(addr)
        });
        Ok((!same).then_some(Change::ReportNode { node: self.peer.node, description, addr }))
    }

    fn task_changes(&self, reports: Vec<TaskReport>) -> Result<Vec<Change>, Status> {
        let node = self.peer.node;
        let change = |report: TaskReport| {
            let task = TaskId::from_slice(&report.task)
                .ok_or_else(|| Status::invalid_argument("a task's id has 16 bytes"))?;
            let status = report.status.unwrap_or_default().try_into();
            let mut status: TaskStatus =
                status.map_err(|error: DecodeError| Status::invalid_argument(error.to_string()))?;
            shorten(&mut status.message);
            shorten(&mut status.error);
            Ok(Change::ReportTask { task, node, status })
        };
        reports.into_iter().map(change).collect()
    }

    async fn report(&mut self, changes: Vec<Change>) {
        self.reports += 1;
        self.shared.env.meters.reports.up();
        let report = Report { changes, committed: self.committed.clone(), number: self.reports };
        self.shared.reports.push(report).await;
    }

    async fn exchange(
        &mut self,
        inbox: &mut impl Inbox,
        frames: &mut watch::Receiver<Frame>,
    ) -> Result<(), Status> {
        let mut led = self.shared.beats.led();
        let mut committed = self.committed.subscribe();
        let silence = self.shared.timing.lease;
        let mut behind = true;
        loop {
            if !*led.borrow_and_update() {
                return Err(Status::unavailable(LEADERLESS));
            }
            if !self.shared.beats.is_current(self.peer.node, self.id) {
                return Err(Status::aborted("a newer session of this node took over"));
            }
            let outbox = self.outbox.clone();
            let silent_for = self.shared.env.clock.instant().since(self.heard_at);
            tokio::select! {
                biased;
                message = inbox.next() => match message.transpose()? {
                    Some(message) => self.receive(message).await?,
                    None => return Ok(()),
                },
                permit = outbox.reserve(), if behind => {
                    let permit = permit.map_err(|_| Status::cancelled("the agent is gone"))?;
                    drop(permit);
                    behind = false;
                    let frame = frames.borrow_and_update().clone();
                    let acked = *committed.borrow_and_update();
                    self.update(&frame, acked).await?;
                }
                changed = frames.changed(), if !behind => {
                    changed.map_err(|_| Status::unavailable("this manager is stopping"))?;
                    behind = true;
                }
                _ = committed.changed(), if !behind => behind = true,
                changed = led.changed() => {
                    changed.map_err(|_| Status::unavailable("this manager is stopping"))?;
                }
                () = self.shared.env.clock.sleep(silence.saturating_sub(silent_for)) => {
                    // A closed session says that the host lives. Nothing says so here.
                    self.shared.beats.forget(self.peer.node, self.id);
                    return Err(Status::deadline_exceeded("the agent has been silent for too long"));
                }
            }
        }
    }

    async fn receive(&mut self, message: AgentMessage) -> Result<(), Status> {
        let node = self.peer.node;
        self.heard_at = self.shared.env.clock.instant();
        match message.kind {
            Some(FromAgent::Heartbeat(beat)) => {
                let applied = beat.applied.map(|position| Revision(position.index));
                self.shared.beats.renew(node, self.id, applied);
            }
            Some(FromAgent::Report(report)) => {
                self.shared.beats.renew(node, self.id, None);
                let mut changes = self.task_changes(report.tasks)?;
                changes.extend(self.description(&report.description_json, None)?);
                self.report(changes).await;
                self.trust.hear(report.trust);
                let view = self.shared.store.view();
                self.follow_trust(&view).await?;
            }
            Some(FromAgent::Hello(_)) | None => {
                return Err(Status::invalid_argument("unexpected message of an agent"));
            }
        }
        Ok(())
    }

    /// Sends all that changed since the last time.
    async fn update(&mut self, frame: &Frame, acked: u64) -> Result<(), Status> {
        let node = self.peer.node;
        if frame.view.cluster.is_some() && frame.view.node(node).is_none() {
            return Err(Status::not_found("this node was removed from the swarm"));
        }
        let managers = managers(&frame.view);
        if managers != self.managers {
            self.managers.clone_from(&managers);
            self.send(ToAgent::Managers(Managers { managers })).await?;
        }
        let next = assignment::for_node(&frame.view, node, &frame.endpoints);
        let next = self.distorted(next, &frame.view);
        let diff = match &self.sent {
            Some(sent) => sent.diff(&next),
            None => next.complete(),
        };
        if !diff.is_empty() {
            self.send(ToAgent::Assignments((&diff).into())).await?;
            self.shared.env.meters.assignments_sent.up();
            self.sent = Some(next);
        }
        if acked > self.acked {
            self.acked = acked;
            self.send(ToAgent::Ack(ReportAck { reports: acked })).await?;
        }
        self.tell_role(&frame.view).await?;
        self.follow_trust(&frame.view).await
    }

    /// Tells the agent which roots to trust, and writes down that it does.
    async fn follow_trust(&mut self, state: &State) -> Result<(), Status> {
        let step = self.trust.step(state, self.peer.node);
        match step.map_err(|error| Status::internal(error.to_string()))? {
            TrustStep::Nothing => Ok(()),
            TrustStep::Tell(trust) => self.send(ToAgent::Trust(trust)).await,
            TrustStep::Record(trust) => {
                // Counts as part of the report before it: they are committed in this order.
                let (committed, number) = (self.committed.clone(), self.reports);
                let changes = vec![Change::ReportTrust { node: self.peer.node, trust }];
                let report = Report { changes, committed, number };
                self.shared.reports.push(report).await;
                Ok(())
            }
        }
    }

    /// The set with the bugs that a test wants.
    fn distorted(&self, mut set: AssignmentSet, state: &State) -> AssignmentSet {
        let faults = self.shared.env.faults;
        if faults.has(Canary::SecretToAll) {
            state.secrets.values().for_each(|it| set.insert(Item::Secret(Arc::clone(it))));
        }
        if let (true, Some(sent)) = (faults.has(Canary::EndpointsKept), &self.sent) {
            sent.endpoints().for_each(|it| set.insert(Item::Endpoints(Arc::clone(it))));
        }
        set
    }

    /// Tells the node to renew its certificate when its role has changed: a future manager at once,
    /// a former one when it has left the Raft group.
    async fn tell_role(&mut self, state: &State) -> Result<(), Status> {
        let Some(node) = state.node(self.peer.node) else { return Ok(()) };
        let wanted = node.spec.role;
        let in_group = node.manager.is_some_and(|part| part.membership != Membership::Removed);
        // The session is as old as its certificate; `certified` is the role of the newest one.
        let due = wanted != node.certified && (wanted == Role::Manager || !in_group);
        if !due || self.shared.env.faults.has(Canary::RoleNotTold) {
            self.role_told = None;
        } else if self.role_told != Some(wanted) {
            self.role_told = Some(wanted);
            let role = u32::from(wanted == Role::Manager);
            self.send(ToAgent::Role(RoleChange { role })).await?;
        }
        Ok(())
    }

    async fn send(&self, kind: ToAgent) -> Result<(), Status> {
        let message = ManagerMessage { kind: Some(kind) };
        let limit = self.shared.timing.lease;
        match self.shared.env.clock.timeout(limit, self.outbox.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent is gone")),
            Err(_) => Err(Status::deadline_exceeded("the agent takes no messages")),
        }
    }
}

/// The managers an agent may connect to.
fn managers(state: &State) -> Vec<ManagerAddr> {
    let address = |node: &Arc<crate::domain::Node>| {
        let part = node.manager.filter(|part| part.membership != Membership::Removed)?;
        Some(ManagerAddr { node: id_bytes(node.id), addr: part.addr.to_string() })
    };
    state.nodes.values().filter_map(address).collect()
}

fn id_bytes(id: NodeId) -> Bytes {
    Bytes::copy_from_slice(&id.to_bytes())
}

/// Cuts a text at its last character that fits.
fn shorten(text: &mut String) {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX - 3));
        text.push('…');
    }
}
