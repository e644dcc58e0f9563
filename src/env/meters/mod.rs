//! What a process counts of itself, carried in `Env`: nothing is global, and where nobody asks, a
//! number costs an addition.
//!
//! Here is what happens in the course of work (how long, how often, what came of it). What *is* (the
//! members of a group, the state of tasks) is read from its owner when a page is made: `api/metrics`.
//! Names follow Prometheus: base units, `_total` on what only rises, labels of closed sets.

mod kinds;
mod page;

pub use kinds::{Counter, Family, Gauge, Histogram, Label};
pub use page::Page;

use kinds::label;

label! {
    /// What became of a proposal.
    Proposed "outcome" {
        /// Committed and applied.
        Taken = "taken",
        /// Applied and refused: a condition or a rule of the state.
        Rejected = "rejected",
        /// Not written: no leadership, no room.
        Refused = "refused",
        /// It may or may not take effect.
        Unknown = "unknown",
    }
}

label! {
    /// How a tenure began or ended.
    Turn "turn" {
        /// This manager began to lead.
        Won = "won",
        /// This manager leads no more.
        Lost = "lost",
        /// This manager gave leadership up because it was not fit.
        Resigned = "resigned",
    }
}

label! {
    /// Whether something came out well.
    Ended "outcome" {
        /// It did.
        Well = "ok",
        /// It did not.
        Badly = "error",
    }
}

label! {
    /// What the engine of a node was asked for.
    EngineAct "act" {
        /// A question.
        Ask = "ask",
        /// To make a container.
        Create = "create",
        /// To start one.
        Start = "start",
        /// To stop or remove one; a stop lasts as long as its grace.
        End = "end",
        /// About networks.
        Network = "network",
    }
}

label! {
    /// How a query for a name was answered.
    Named "answer" {
        /// From the assignments.
        Own = "own",
        /// By a name server of the host.
        Upstream = "upstream",
        /// No name server of the host answered, or too many queries waited.
        Failed = "failed",
        /// Not at all: it was no query.
        Ignored = "ignored",
    }
}

label! {
    /// What a request to the API wants.
    Wanted "class" {
        /// To read.
        Read = "read",
        /// To change.
        Write = "write",
        /// To follow.
        Stream = "stream",
        /// Something of the local engine.
        Engine = "engine",
    }
}

label! {
    /// How a request to the API was answered.
    Answered "code" {
        /// 1xx to 3xx.
        Done = "2xx",
        /// The client's fault.
        Refused = "4xx",
        /// Ours, or nobody's.
        Failed = "5xx",
    }
}

/// Everything that is counted in the course of work.
#[derive(Debug, Default)]
pub struct Meters {
    /// Writing entries to the disk of the log, without making them durable.
    pub raft_append: Histogram,
    /// Making the log durable: the barrier and the floor.
    pub raft_sync: Histogram,
    /// From the proposal of an entry to its outcome, on the leader.
    pub raft_commit: Histogram,
    /// Applying an entry.
    pub raft_apply: Histogram,
    /// Proposals made here, by outcome.
    pub raft_proposals: Family<Proposed, Counter>,
    /// Tenures of this manager.
    pub raft_tenures: Family<Turn, Counter>,
    /// Other leaders or terms that this manager has seen.
    pub raft_leader_changes: Counter,
    /// Planning passes.
    pub plan_pass: Histogram,
    /// Changes that passes proposed.
    pub plan_changes: Counter,
    /// Plans that somebody else's change had overtaken.
    pub plan_overtaken: Counter,
    /// Sessions of agents that were opened here.
    pub sessions_opened: Counter,
    /// Sessions of agents that are open here.
    pub sessions: Gauge,
    /// Differences of assignments sent.
    pub assignments_sent: Counter,
    /// Statuses and descriptions taken from agents.
    pub reports: Counter,
    /// Batches of leases told to the leader.
    pub lease_batches: Family<Ended, Counter>,
    /// Sessions of this agent that ended.
    pub agent_sessions_lost: Counter,
    /// Requests to the engine.
    pub engine: Family<EngineAct, Histogram>,
    /// Requests to the engine that it did not answer well.
    pub engine_errors: Family<EngineAct, Counter>,
    /// Queries for names.
    pub dns: Family<Named, Histogram>,
    /// Name servers of the host that did not answer.
    pub dns_upstream_failures: Counter,
    /// Passes over the network between nodes.
    pub overlay: Family<Ended, Histogram>,
    /// What they changed in the kernel.
    pub overlay_operations: Counter,
    /// Networks that this node takes part in.
    pub overlay_networks: Gauge,
    /// Addresses of other nodes and their tasks that this node's kernel is told.
    pub overlay_neighbours: Gauge,
    /// Requests to the API.
    pub api: Family<Wanted, Histogram>,
    /// Answers of the API.
    pub api_answers: Family<Answered, Counter>,
}

impl Meters {
    /// Writes what only managers do.
    pub fn write_manager(&self, page: &mut Page) {
        page.times(
            "swarm_raft_append_duration_seconds",
            "Time to write entries to the disk of the log, not yet durable.",
            &self.raft_append,
        );
        page.times(
            "swarm_raft_sync_duration_seconds",
            "Time to make the log durable (fdatasync and floor).",
            &self.raft_sync,
        );
        page.times(
            "swarm_raft_commit_duration_seconds",
            "Time from the proposal of an entry to its outcome, on the leader.",
            &self.raft_commit,
        );
        page.times(
            "swarm_raft_apply_duration_seconds",
            "Time to apply an entry.",
            &self.raft_apply,
        );
        page.counts(
            "swarm_raft_proposals_total",
            "Proposals to this manager as the leader, by outcome.",
            &self.raft_proposals,
        );
        page.counts(
            "swarm_raft_tenures_total",
            "Tenures of this manager that were won, lost, or given up as unfit.",
            &self.raft_tenures,
        );
        page.count(
            "swarm_raft_leader_changes_total",
            "Changes of the leader or its term that this manager has seen.",
            &self.raft_leader_changes,
        );
        page.times("swarm_plan_pass_duration_seconds", "Time of a planning pass.", &self.plan_pass);
        page.count(
            "swarm_plan_changes_total",
            "Changes that planning passes proposed.",
            &self.plan_changes,
        );
        page.count(
            "swarm_plan_overtaken_total",
            "Plans that were refused because something had changed meanwhile.",
            &self.plan_overtaken,
        );
        page.level(
            "swarm_dispatcher_sessions",
            "Agents that have a session with this manager.",
            &self.sessions,
        );
        page.count(
            "swarm_dispatcher_sessions_opened_total",
            "Sessions of agents that were opened.",
            &self.sessions_opened,
        );
        page.count(
            "swarm_dispatcher_assignments_sent_total",
            "Differences of assignments sent to agents.",
            &self.assignments_sent,
        );
        page.count("swarm_dispatcher_reports_total", "Reports taken from agents.", &self.reports);
        page.counts(
            "swarm_dispatcher_lease_batches_total",
            "Batches of leases told to the leader, by whether it took them.",
            &self.lease_batches,
        );
    }

    /// Writes what every node does.
    pub fn write_node(&self, page: &mut Page) {
        page.count(
            "swarm_agent_sessions_lost_total",
            "Sessions of this node's agent that ended.",
            &self.agent_sessions_lost,
        );
        page.times_by(
            "swarm_engine_request_duration_seconds",
            "Time of requests to the container engine, by act.",
            &self.engine,
        );
        page.counts(
            "swarm_engine_request_errors_total",
            "Requests that the container engine did not answer well, by act.",
            &self.engine_errors,
        );
        page.times_by(
            "swarm_dns_query_duration_seconds",
            "Time of queries for names, by how they were answered.",
            &self.dns,
        );
        page.count(
            "swarm_dns_upstream_failures_total",
            "Name servers of the host that did not answer a query.",
            &self.dns_upstream_failures,
        );
        page.times_by(
            "swarm_overlay_reconcile_duration_seconds",
            "Time of passes over the network between nodes, by outcome.",
            &self.overlay,
        );
        page.count(
            "swarm_overlay_operations_total",
            "Changes made to links, entries and rules of the kernel.",
            &self.overlay_operations,
        );
        page.level(
            "swarm_overlay_networks",
            "Cluster networks that this node takes part in.",
            &self.overlay_networks,
        );
        page.level(
            "swarm_overlay_neighbours",
            "Addresses elsewhere that this node's kernel is told.",
            &self.overlay_neighbours,
        );
        page.times_by(
            "swarm_api_request_duration_seconds",
            "Time to answer requests to the API (streams: until they begin), by class.",
            &self.api,
        );
        page.counts(
            "swarm_api_responses_total",
            "Answers of the API, by kind of status code.",
            &self.api_answers,
        );
    }
}
