//! How this node and its swarm are: `/healthz` and `/readyz` for machines, `/x/v1/status` for
//! `swarm status`. None of them asks anybody: they answer without a quorum, locked, and before a
//! cluster exists.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::alarms::{self, Look};
use super::context::{Ctx, json};
use crate::health::report::{Hold, Upgrade, member_name};
use crate::health::{Census, Part, Raised};
use crate::raft::Store;

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// `GET /healthz`: the process serves. A restart would mend nothing of what else may be wrong.
pub(super) async fn healthz() -> Response {
    plain(StatusCode::OK, "ok")
}

/// `GET /readyz`: the node does its part; otherwise why not.
pub(super) async fn readyz(State(ctx): State<Ctx>) -> Response {
    match readiness(&alarms::look(&ctx)) {
        Ok(text) => plain(StatusCode::OK, text),
        Err(text) => plain(StatusCode::SERVICE_UNAVAILABLE, text),
    }
}

/// What the node is, if it does its part.
fn readiness(look: &Look) -> Result<&'static str, String> {
    let local = &look.vitals.local;
    let word = match local.part {
        Part::Outside => return Ok("ok: not in a swarm"),
        Part::Starting => return Err("the daemon is starting".to_owned()),
        Part::Joining => return Err("the node is joining a swarm".to_owned()),
        Part::Locked => return Err("the manager is locked: docker swarm unlock".to_owned()),
        Part::Broken => return Err(local.error.clone()),
        Part::Manager if look.view.is_none() => return Err("the manager is starting".to_owned()),
        Part::Manager if local.is_led != Some(true) => {
            return Err("the swarm does not have a leader".to_owned());
        }
        Part::Manager => "ok: manager",
        Part::Worker => "ok: worker",
    };
    if let Some(lack) = local.room.as_ref().and_then(|room| room.lack.as_ref()) {
        return Err(format!("the manager's disk is full: {lack}"));
    }
    if local.is_connected == Some(false) {
        return Err("the node has no session with a manager".to_owned());
    }
    if !local.degraded.is_empty() {
        return Err(format!("the node cannot run tasks: {}", local.degraded));
    }
    Ok(word)
}

/// `GET /x/v1/status`: where this node and its swarm stand.
pub(super) async fn status(State(ctx): State<Ctx>) -> Response {
    let look = alarms::look(&ctx);
    let report = look.report();
    let state = ctx.deps.control.state();
    let store = ctx.deps.store.borrow().clone();
    let engine = ctx.engine.is_there().await;
    let ready = readiness(&look);
    let managers: Vec<String> = state.managers.iter().map(|(_, addr)| addr.to_string()).collect();
    let shown = json!({
        "Version": super::system::RELEASE,
        "NodeID": state.node.map(|node| node.to_string()),
        "Name": look.vitals.local.name,
        "State": state.participation.as_str(),
        "Role": if state.is_manager { "manager" } else { "worker" },
        "Error": state.trouble(),
        "Engine": engine,
        "Ready": ready.is_ok(),
        "NotReady": ready.err(),
        "Connected": look.vitals.local.is_connected,
        "KnownManagers": managers,
        "Well": report.is_well,
        "Verdict": report.verdict,
        "Raft": store.as_ref().map(raft),
        "Backups": state.backups.as_ref().map(super::backups::shown),
        "Cluster": report.cluster.as_ref().map(|census| cluster(&look, census, store.as_ref())),
        "Upgrade": report.upgrade.as_ref().map(upgrade),
        "Alarms": look.raised.iter().map(alarm).collect::<Vec<_>>(),
    });
    json(StatusCode::OK, &shown)
}

fn raft(store: &Store) -> Value {
    let (view, leadership) = (store.view(), *store.leadership().borrow());
    json!({
        "Term": leadership.term,
        "Leader": leadership.leader.map(|(_, addr)| addr.to_string()),
        "IsLeader": leadership.is_self,
        "Format": view.format().0,
        "Applied": {"Term": view.position.term, "Index": view.position.index},
    })
}

/// A format that is to come, and who holds it back.
fn upgrade(upgrade: &Upgrade) -> Value {
    let Upgrade { used, known, holds } = upgrade;
    let hold = |it: &Hold| {
        let knows = it.knows.map(|format| format.0);
        json!({"Node": it.node, "ID": it.id.to_string(), "Knows": knows})
    };
    let waits = holds.as_ref().map(|holds| holds.iter().map(hold).collect::<Vec<_>>());
    json!({"Used": used.0, "Known": known.0, "WaitsFor": waits})
}

fn cluster(look: &Look, census: &Census, store: Option<&Store>) -> Value {
    let leader = store.and_then(|store| store.leadership().borrow().leader);
    let name = leader.zip(look.view.as_ref()).and_then(|((id, _), view)| member_name(view, id));
    let behind = census.behind.iter().map(|it| {
        json!({
            "Service": it.service, "Wanted": it.wanted, "Running": it.running, "Reason": it.reason,
        })
    });
    json!({
        "Leader": name,
        "Managers": {
            "Total": census.managers,
            "Reachable": census.managers_reachable,
            "Quorum": census.quorum,
        },
        "Nodes": {
            "Total": census.nodes, "Ready": census.ready, "Down": census.down,
            "Degraded": census.degraded, "Drained": census.drained,
        },
        "Services": {"Total": census.services, "Behind": census.behind_count},
        "Tasks": {"Wanted": census.wanted, "Running": census.running},
        "Behind": behind.collect::<Vec<_>>(),
    })
}

fn alarm(raised: &Raised) -> Value {
    let Raised { alarm, since } = raised;
    json!({
        "Name": alarm.name.as_str(),
        "Subject": alarm.subject,
        "Severity": alarm.name.severity().as_str(),
        "Since": since.to_string(),
        "Text": alarm.text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Format, NodeId};

    #[test]
    fn a_format_that_is_to_come_says_whom_it_waits_for() {
        let id = NodeId::from_bytes([7; 16]);
        let hold = |knows| Hold { node: "n1".to_owned(), id, knows };
        let holds = Some(vec![hold(None), hold(Some(Format(1)))]);
        let known = Upgrade { used: Format(1), known: Format(2), holds };
        let id = id.to_string();
        let waits = json!([
            {"Node": "n1", "ID": id, "Knows": null},
            {"Node": "n1", "ID": id, "Knows": 1},
        ]);
        assert_eq!(upgrade(&known), json!({"Used": 1, "Known": 2, "WaitsFor": waits}));
        let unknown = upgrade(&Upgrade { holds: None, ..known });
        assert_eq!(unknown["WaitsFor"], Value::Null);
    }
}
