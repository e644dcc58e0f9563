//! `swarm status`: whether all is well, and what is not, in a few lines.

use clap::Args;
use serde::Deserialize;

use super::client::Route;
use super::os;
use super::shell::Shell;
use super::text::{rows, units};
use crate::domain::Timestamp;

/// `swarm status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm status
  swarm status --format '{{range .Alarms}}{{.Name}} {{.Subject}}{{println}}{{end}}'
  until swarm status > /dev/null; do sleep 1; done     wait until all is as wanted

On a manager of the whole swarm, on a worker of this node; it needs no quorum. Exit status: 0 all is
well, 1 something is not, or no daemon answers.")]
pub(crate) struct Status {
    /// 'json', or a Go template such as '{{.Verdict}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Something is not well; it was printed already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not all is well")]
pub(crate) struct NotWell;

/// `GET /x/v1/status`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    name: String,
    state: String,
    role: String,
    error: String,
    engine: bool,
    not_ready: Option<String>,
    connected: Option<bool>,
    known_managers: Vec<String>,
    well: bool,
    verdict: String,
    raft: Option<Raft>,
    cluster: Option<Cluster>,
    /// Not said by releases before format 2 was.
    upgrade: Option<Upgrade>,
    alarms: Vec<Alarm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upgrade {
    used: u32,
    known: u32,
    waits_for: Option<Vec<Hold>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Hold {
    node: String,
    #[serde(rename = "ID")]
    id: String,
    knows: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raft {
    leader: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Cluster {
    leader: Option<String>,
    managers: Managers,
    nodes: Nodes,
    services: Services,
    tasks: Tasks,
    behind: Vec<Behind>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Managers {
    total: u64,
    reachable: u64,
    quorum: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Nodes {
    total: u64,
    ready: u64,
    down: u64,
    degraded: u64,
    drained: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Services {
    total: u64,
    behind: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tasks {
    wanted: u64,
    running: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Behind {
    service: String,
    wanted: u64,
    running: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alarm {
    name: String,
    subject: String,
    severity: String,
    since: String,
    text: String,
}

impl Status {
    /// Prints how things stand.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let raw = shell.client.get_raw(&Route::new(["x", "v1", "status"])).await?;
        let text = String::from_utf8_lossy(&raw).trim().to_owned();
        let reply: Reply = serde_json::from_str(&text)?;
        if self.format.is_some() {
            rows::print_objects(&mut shell.out, self.format.as_deref(), &[text])?;
        } else {
            shell.out.text(pretty(&reply, os::now()))?;
        }
        if reply.well { Ok(()) } else { Err(NotWell.into()) }
    }
}

fn pretty(reply: &Reply, now: Timestamp) -> String {
    let mut lines = vec![format!("swarm:    {}", reply.verdict)];
    match &reply.cluster {
        Some(cluster) => of_cluster(reply, cluster, &mut lines),
        None => of_node(reply, &mut lines),
    }
    match reply.alarms.len() {
        0 => lines.push("alarms:   none".to_owned()),
        count => lines.push(format!("alarms:   {count}")),
    }
    lines.extend(reply.alarms.iter().map(|alarm| alarm_line(alarm, now)));
    lines.join("\n") + "\n"
}

fn of_cluster(reply: &Reply, cluster: &Cluster, lines: &mut Vec<String>) {
    let Managers { total, reachable, quorum } = cluster.managers;
    let addr = reply.raft.as_ref().and_then(|raft| raft.leader.as_ref());
    let leader = match cluster.leader.as_ref().or(addr) {
        Some(leader) => format!("{leader} leads"),
        None => "nobody leads".to_owned(),
    };
    lines.push(format!("managers: {reachable} of {total} reachable, {quorum} needed; {leader}"));
    lines.extend(reply.upgrade.as_ref().map(format_line));
    let nodes = &cluster.nodes;
    let mut line = format!("nodes:    {} of {} ready", nodes.ready, nodes.total);
    for (count, word) in
        [(nodes.down, "down"), (nodes.degraded, "degraded"), (nodes.drained, "drained or paused")]
    {
        if count > 0 {
            line.push_str(&format!(", {count} {word}"));
        }
    }
    lines.push(line);
    let (services, tasks) = (&cluster.services, &cluster.tasks);
    lines.push(format!(
        "services: {} of {} as wanted, {} of {} tasks running",
        services.total.saturating_sub(services.behind),
        services.total,
        tasks.running,
        tasks.wanted
    ));
    for behind in &cluster.behind {
        let reason = Some(behind.reason.as_str()).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let Behind { service, running, wanted, .. } = behind;
        lines.push(format!("  {service} {running}/{wanted}{reason}"));
    }
    let named = u64::try_from(cluster.behind.len()).unwrap_or(u64::MAX);
    if services.behind > named {
        lines.push(format!("  and {} more: `swarm service ls`", services.behind - named));
    }
}

/// A format that is to come, and what it waits for.
fn format_line(upgrade: &Upgrade) -> String {
    let Upgrade { used, known, waits_for } = upgrade;
    let begin = format!("format:   {used} is used, {known} is to come:");
    match waits_for.as_deref() {
        None => format!("{begin} `swarm status` on the leader says which managers it waits for"),
        Some([]) => format!("{begin} all managers know it, so it will be used in some minutes"),
        Some(holds) => {
            let hold = |it: &Hold| match it.knows {
                Some(format) => format!("{} (knows {format}: upgrade it)", it.node),
                None => format!(
                    "{} (not heard from: start it; gone for good: `swarm node replace {}`)",
                    it.node, it.id
                ),
            };
            let all: Vec<_> = holds.iter().map(hold).collect();
            format!("{begin} it waits for {}", all.join(", "))
        }
    }
}

fn of_node(reply: &Reply, lines: &mut Vec<String>) {
    let engine = if reply.engine { "the engine answers" } else { "the engine does not answer" };
    let what = match reply.state.as_str() {
        "inactive" => "in no swarm: `swarm init` or `swarm join`".to_owned(),
        "active" => reply.role.clone(),
        // It starts or joins: what it will be is not known yet.
        "pending" => reply.state.clone(),
        state => format!("{}, {state}", reply.role),
    };
    lines.push(format!("node:     {}, {what}, {engine}", reply.name));
    if !reply.error.is_empty() {
        lines.push(format!("error:    {}", reply.error));
    } else if let Some(reason) = &reply.not_ready {
        lines.push(format!("error:    {}", reason.replace("docker swarm ", "swarm ")));
    }
    let known = reply.known_managers.join(", ");
    match reply.connected {
        Some(true) => lines.push(format!("manager:  in session; known are {known}")),
        Some(false) => lines.push(format!("manager:  no session; known are {known}")),
        None => {}
    }
}

fn alarm_line(alarm: &Alarm, now: Timestamp) -> String {
    let since = units::parse_time(&alarm.since).unwrap_or(now);
    let lasted = units::human_duration(now.since(since)).to_lowercase();
    let Alarm { name, subject, severity, text, .. } = alarm;
    let of = if subject.is_empty() { String::new() } else { format!(" of {subject}") };
    format!("  {severity}: {name}{of} for {lasted}: {text}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(reply: serde_json::Value) -> String {
        let now = units::parse_time("2026-01-31T12:05:00Z").unwrap();
        pretty(&serde_json::from_value(reply).unwrap(), now)
    }

    fn node() -> serde_json::Value {
        json!({
            "Name": "host-4", "State": "active", "Role": "worker", "Error": "", "Engine": true,
            "NotReady": null, "Connected": true, "KnownManagers": ["10.0.0.1:2377"],
            "Well": true, "Verdict": "all is well", "Raft": null, "Cluster": null, "Alarms": [],
        })
    }

    fn manager() -> serde_json::Value {
        let mut reply = node();
        reply["Raft"] = json!({"Leader": "10.0.0.1:2377"});
        reply["Cluster"] = json!({
            "Leader": "host-1",
            "Managers": {"Total": 3, "Reachable": 3, "Quorum": 2},
            "Nodes": {"Total": 4, "Ready": 4, "Down": 0, "Degraded": 0, "Drained": 0},
            "Services": {"Total": 2, "Behind": 0},
            "Tasks": {"Wanted": 6, "Running": 6},
            "Behind": [],
        });
        reply
    }

    #[test]
    fn a_manager_shows_five_lines() {
        expect_test::expect![[r"
            swarm:    all is well
            managers: 3 of 3 reachable, 2 needed; host-1 leads
            nodes:    4 of 4 ready
            services: 2 of 2 as wanted, 6 of 6 tasks running
            alarms:   none
        "]]
        .assert_eq(&shown(manager()));
    }

    #[test]
    fn what_is_not_well_is_named_with_what_to_do() {
        let mut reply = manager();
        reply["Verdict"] = json!("1 alarm, 11 services are not as wanted");
        reply["Cluster"]["Leader"] = json!(null);
        reply["Raft"]["Leader"] = json!(null);
        reply["Cluster"]["Nodes"] =
            json!({"Total": 4, "Ready": 1, "Down": 2, "Degraded": 1, "Drained": 1});
        reply["Cluster"]["Services"] = json!({"Total": 12, "Behind": 11});
        reply["Cluster"]["Behind"] = json!([
            {"Service": "web", "Wanted": 3, "Running": 1, "Reason": "no suitable node"},
            {"Service": "db", "Wanted": 1, "Running": 0, "Reason": ""},
        ]);
        reply["Alarms"] = json!([
            {"Name": "node-down", "Subject": "host-4", "Severity": "warning",
             "Since": "2026-01-31T12:00:00Z", "Text": "look at it"},
            {"Name": "even-managers", "Subject": "", "Severity": "warning",
             "Since": "2026-01-31T12:04:50Z", "Text": "add one"},
        ]);
        expect_test::expect![[r"
            swarm:    1 alarm, 11 services are not as wanted
            managers: 3 of 3 reachable, 2 needed; nobody leads
            nodes:    1 of 4 ready, 2 down, 1 degraded, 1 drained or paused
            services: 1 of 12 as wanted, 6 of 6 tasks running
              web 1/3: no suitable node
              db 0/1
              and 9 more: `swarm service ls`
            alarms:   2
              warning: node-down of host-4 for 5 minutes: look at it
              warning: even-managers for 10 seconds: add one
        "]]
        .assert_eq(&shown(reply));
    }

    #[test]
    fn who_holds_a_format_back_is_named() {
        let line = |waits: serde_json::Value| {
            let mut reply = manager();
            reply["Upgrade"] = json!({"Used": 1, "Known": 2, "WaitsFor": waits});
            shown(reply).lines().nth(2).unwrap_or_default().to_owned()
        };
        expect_test::expect![[r"
            format:   1 is used, 2 is to come: `swarm status` on the leader says which managers it waits for"]]
        .assert_eq(&line(json!(null)));
        expect_test::expect![[r"
            format:   1 is used, 2 is to come: all managers know it, so it will be used in some minutes"]]
        .assert_eq(&line(json!([])));
        let waits = json!([
            {"Node": "host-2", "ID": "x2", "Knows": 1},
            {"Node": "host-3", "ID": "x3", "Knows": null},
        ]);
        expect_test::expect![[r"
            format:   1 is used, 2 is to come: it waits for host-2 (knows 1: upgrade it), host-3 (not heard from: start it; gone for good: `swarm node replace x3`)"]]
        .assert_eq(&line(waits));
    }

    #[test]
    fn a_node_without_the_state_shows_itself() {
        expect_test::expect![[r"
            swarm:    all is well
            node:     host-4, worker, the engine answers
            manager:  in session; known are 10.0.0.1:2377
            alarms:   none
        "]]
        .assert_eq(&shown(node()));
        let mut locked = node();
        locked["State"] = json!("locked");
        locked["Role"] = json!("manager");
        locked["Verdict"] = json!("this manager is locked");
        locked["NotReady"] = json!("the manager is locked: docker swarm unlock");
        locked["Connected"] = json!(false);
        expect_test::expect![[r"
            swarm:    this manager is locked
            node:     host-4, manager, locked, the engine answers
            error:    the manager is locked: swarm unlock
            manager:  no session; known are 10.0.0.1:2377
            alarms:   none
        "]]
        .assert_eq(&shown(locked));
        let mut outside = node();
        outside["State"] = json!("inactive");
        outside["Verdict"] = json!("this node is in no swarm");
        outside["Connected"] = json!(null);
        outside["Engine"] = json!(false);
        expect_test::expect![[r"
            swarm:    this node is in no swarm
            node:     host-4, in no swarm: `swarm init` or `swarm join`, the engine does not answer
            alarms:   none
        "]]
        .assert_eq(&shown(outside));
    }
}
