//! `GET /metrics`: the numbers of this node for Prometheus.
//!
//! What was counted in the course of work comes from `env::Meters`; what is comes from the state that
//! this node has, when somebody asks. No label has a task or container in it; a service is one only
//! as long as there are few of them.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::alarms::{self, Look};
use super::context::Ctx;
use crate::domain::{TaskState, Timestamp};
use crate::env::{Page, process};
use crate::health::report::{node_state, standing};
use crate::health::{Census, Name};
use crate::raft::{Leadership, Vitals as RaftVitals};

/// Services that have series of their own: the first ones by name.
const SERVICES_MAX: usize = 200;
/// What nodes can be.
const NODE_STATES: [&str; 4] = ["ready", "degraded", "down", "unknown"];

/// `GET /metrics`.
pub(super) async fn page(State(ctx): State<Ctx>) -> Response {
    let text = text(&ctx);
    ([(header::CONTENT_TYPE, Page::MEDIA_TYPE)], text).into_response()
}

fn text(ctx: &Ctx) -> String {
    let look = alarms::look(ctx);
    let store = ctx.deps.store.borrow().clone();
    let now = ctx.deps.env.clock.now();
    let mut page = Page::default();
    node(&mut page, &look, now);
    raised(&mut page, &look);
    if let Some(store) = store {
        raft(&mut page, *store.leadership().borrow(), look.vitals.raft.as_ref());
        cluster(&mut page, &look);
        ctx.deps.env.meters.write_manager(&mut page);
    }
    ctx.deps.env.meters.write_node(&mut page);
    this_process(&mut page);
    page.text()
}

fn seconds(at: Timestamp) -> f64 {
    std::time::Duration::from_nanos(at.0).as_secs_f64()
}

fn node(page: &mut Page, look: &Look, now: Timestamp) {
    let local = &look.vitals.local;
    let info = vec![env!("CARGO_PKG_VERSION")];
    page.gauges("swarm_build_info", "The version of this daemon.", &["version"], [(info, 1)]);
    let part = format!("{:?}", local.part).to_lowercase();
    page.gauges(
        "swarm_node_info",
        "What this node is: outside, joining, worker, manager, locked or broken.",
        &["part"],
        [(vec![part.as_str()], 1)],
    );
    let flag = |value: bool| u8::from(value);
    page.gauge(
        "swarm_agent_connected",
        "Whether this node's agent has a session with a manager.",
        flag(local.is_connected == Some(true)),
    );
    page.gauge(
        "swarm_node_degraded",
        "Whether this node cannot run tasks.",
        flag(!local.degraded.is_empty()),
    );
    let tasks = &look.vitals.tasks;
    page.gauges(
        "swarm_agent_tasks",
        "Tasks that this node's agent knows, by state.",
        &["state"],
        TaskState::ALL
            .iter()
            .map(|state| (vec![state.as_str()], tasks.get(state).copied().unwrap_or_default())),
    );
    let expiry = local.certificate.map(|valid| (vec!["node"], seconds(valid.until)));
    page.gauges(
        "swarm_certificate_expiry_timestamp_seconds",
        "When a certificate ends, in seconds since 1970.",
        &["certificate"],
        expiry,
    );
    page.gauge("swarm_clock_timestamp_seconds", "This node's wall clock.", seconds(now));
}

fn raised(page: &mut Page, look: &Look) {
    let count = |name: Name| look.raised.iter().filter(|it| it.alarm.name == name).count();
    page.gauges(
        "swarm_alarm",
        "Alarms that are raised here, by name.",
        &["name", "severity"],
        Name::ALL.iter().map(|name| (vec![name.as_str(), name.severity().as_str()], count(*name))),
    );
}

fn raft(page: &mut Page, leadership: Leadership, vitals: Option<&RaftVitals>) {
    let (led, leads) = (leadership.leader.is_some(), leadership.is_self);
    page.gauge("swarm_raft_has_leader", "Whether this manager knows a leader.", u8::from(led));
    page.gauge("swarm_raft_is_leader", "Whether this manager leads.", u8::from(leads));
    page.gauge("swarm_raft_term", "The term that this manager is in.", leadership.term);
    let Some(vitals) = vitals else { return };
    let progress = vitals.progress;
    for (name, help, value) in [
        ("last", "The last entry of this manager's log.", progress.last),
        ("applied", "The last entry that this manager has applied.", progress.applied),
        ("snapshot", "The last entry in this manager's newest snapshot.", progress.snapshot),
        ("purged", "The last entry that is gone from this manager's log.", progress.purged),
    ] {
        page.gauge(&format!("swarm_raft_{name}_index"), help, value);
    }
    page.gauge("swarm_raft_log_bytes", "Bytes of entries in the log.", vitals.log_bytes);
    page.gauge("swarm_raft_disk_free_bytes", "Bytes free where the log lies.", vitals.free);
    page.gauge(
        "swarm_raft_fit",
        "Whether this manager is fit to lead (disk, apply, planning, room).",
        u8::from(vitals.ailments.is_empty()),
    );
}

fn cluster(page: &mut Page, look: &Look) {
    let report = look.report();
    let (Some(view), Some(census)) = (&look.view, &report.cluster) else { return };
    let mut nodes: BTreeMap<&str, usize> = NODE_STATES.map(|state| (state, 0)).into();
    for node in view.nodes.values() {
        *nodes.entry(node_state(node)).or_default() += 1;
    }
    let states = nodes.into_iter().map(|(state, count)| (vec![state], count));
    page.gauges("swarm_nodes", "Nodes of the swarm, by state.", &["state"], states);
    let reachable = census.managers_reachable;
    page.gauges(
        "swarm_managers",
        "Managers of the swarm, by whether they are heard from.",
        &["state"],
        [
            (vec!["reachable"], reachable),
            (vec!["unreachable"], census.managers.saturating_sub(reachable)),
        ],
    );
    let mut tasks: BTreeMap<TaskState, usize> = BTreeMap::new();
    for task in view.tasks.values() {
        *tasks.entry(task.status.state).or_default() += 1;
    }
    page.gauges(
        "swarm_tasks",
        "Tasks of the swarm, the ended ones that are kept included, by state.",
        &["state"],
        TaskState::ALL
            .iter()
            .map(|state| (vec![state.as_str()], tasks.get(state).copied().unwrap_or_default())),
    );
    services(page, look, census);
    for (name, what, count) in [
        ("networks", "Networks", view.networks.len()),
        ("secrets", "Secrets", view.secrets.len()),
        ("configs", "Configs", view.configs.len()),
    ] {
        page.gauge(&format!("swarm_{name}"), &format!("{what} of the swarm."), count);
    }
}

fn services(page: &mut Page, look: &Look, census: &Census) {
    let Some(view) = &look.view else { return };
    page.gauge("swarm_services", "Services of the swarm.", census.services);
    page.gauge("swarm_services_behind", "Services that are not as wanted.", census.behind_count);
    page.gauge("swarm_tasks_wanted", "Tasks that services want.", census.wanted);
    page.gauge("swarm_tasks_running", "Tasks that services want and that run.", census.running);
    let mut all: Vec<_> = view.services.values().filter(|it| !it.removing).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.truncate(SERVICES_MAX);
    let standings: Vec<_> = all.into_iter().map(|service| standing(view, service)).collect();
    let wanted = standings.iter().map(|it| (vec![it.service.as_str()], it.wanted));
    page.gauges(
        "swarm_service_tasks_wanted",
        "Tasks that a service wants (the first 200 services by name).",
        &["service"],
        wanted,
    );
    let running = standings.iter().map(|it| (vec![it.service.as_str()], it.running));
    page.gauges(
        "swarm_service_tasks_running",
        "Tasks of a service that run (the first 200 services by name).",
        &["service"],
        running,
    );
}

fn this_process(page: &mut Page) {
    let Some(usage) = process::usage() else { return };
    page.counter(
        "process_cpu_seconds_total",
        "Time that this process has spent on processors.",
        usage.cpu.as_secs_f64(),
    );
    for (name, help, value) in [
        ("resident_memory_bytes", "Memory of this process that is present.", usage.resident),
        ("virtual_memory_bytes", "Address space of this process.", usage.virtual_memory),
        ("open_fds", "File descriptors that are open.", usage.open_fds),
        ("max_fds", "The most file descriptors that may be open.", usage.max_fds),
        ("threads", "Threads of this process.", usage.threads),
        ("start_time_seconds", "When this process started, since 1970.", usage.started),
    ] {
        page.gauge(&format!("process_{name}"), help, value);
    }
}
