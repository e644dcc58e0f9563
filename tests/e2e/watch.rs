//! Numbers, alarms and the status of a real cluster, as those who watch it see them.

use crate::lab::Lab;

/// The value of a series of a host's page; `None` if it is not there.
fn number(lab: &Lab, host: usize, series: &str) -> Option<f64> {
    let page = lab.curl(host, "/metrics", &[]);
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

/// What the status says, and whether it calls that well.
fn status(lab: &Lab, host: usize) -> (bool, String) {
    let said = lab.try_swarm(host, &["status"]);
    (said.ok, said.out + &said.err)
}

fn is_well(lab: &Lab, host: usize) -> bool {
    let (well, text) = status(lab, host);
    well && text.contains("swarm:    all is well") && text.contains("alarms:   none")
}

#[test]
fn who_watches_a_cluster_sees_what_is_wrong_and_that_it_is_over() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 4, &[]);
    for host in 1..=4 {
        lab.until("all is well, says every node", || is_well(&lab, host));
    }
    let text = status(&lab, 2).1;
    assert!(text.contains("managers: 3 of 3 reachable, 2 needed; host-1 leads"), "{text}");
    assert!(text.contains("nodes:    4 of 4 ready"), "{text}");
    assert!(text.contains("services: 1 of 1 as wanted, 4 of 4 tasks running"), "{text}");
    assert!(status(&lab, 4).1.contains("host-4, worker, the engine answers"));

    // Every host has numbers; managers have those of the swarm as well.
    for host in 1..=4 {
        assert_eq!(number(&lab, host, "swarm_agent_connected"), Some(1.0), "host {host}");
        assert_eq!(number(&lab, host, "swarm_agent_tasks{state=\"running\"}"), Some(1.0));
        assert!(number(&lab, host, "process_resident_memory_bytes").unwrap() > 1e6);
        let asked = "swarm_engine_request_duration_seconds_count{act=\"create\"}";
        assert_eq!(number(&lab, host, asked), Some(1.0), "host {host} made one container");
        assert_eq!(number(&lab, host, "swarm_overlay_networks"), Some(1.0));
    }
    for host in 1..=3 {
        assert_eq!(number(&lab, host, "swarm_nodes{state=\"ready\"}"), Some(4.0));
        assert_eq!(number(&lab, host, "swarm_service_tasks_running{service=\"web\"}"), Some(4.0));
        assert!(number(&lab, host, "swarm_raft_sync_duration_seconds_count").unwrap() > 5.0);
    }
    assert_eq!(number(&lab, 4, "swarm_nodes{state=\"ready\"}"), None, "a worker has no state");
    assert!(number(&lab, 1, "swarm_plan_pass_duration_seconds_count").unwrap() > 1.0);
    lab.resolve(1, "web", "web");
    assert!(
        number(&lab, 1, "swarm_dns_query_duration_seconds_count{answer=\"own\"}").unwrap() > 0.0
    );

    // An engine that is gone is an alarm on its node and on the managers, until it is back.
    lab.act(&["kill", "4", "dockerd"]);
    lab.until("the managers name the node", || {
        let (well, text) = status(&lab, 1);
        !well && text.contains("node-degraded of host-4") && text.contains("no container engine at")
    });
    assert!(!lab.try_swarm(4, &["status"]).ok, "the node itself says so, too");
    assert!(lab.curl(4, "/readyz", &[]).contains("cannot run tasks: no container engine"));
    let alarm = "swarm_alarm{name=\"node-degraded\",severity=\"warning\"}";
    assert_eq!(number(&lab, 2, alarm), Some(1.0));
    lab.act(&["start", "4", "dockerd"]);
    lab.until("all is well again", || is_well(&lab, 1) && is_well(&lab, 4));
    let told =
        lab.swarm(1, &["events", "--since", "10m", "--until", "0s", "--filter", "type=alarm"]);
    let of = |action: &str| {
        let what = format!("alarm {action} node-degraded/host-4");
        told.lines().position(|line| line.contains(&what))
    };
    assert!(of("raise").is_some() && of("raise") < of("clear"), "{told}");

    // A manager that is gone is named, with what to do.
    lab.act(&["kill", "3", "daemon"]);
    lab.until("the manager that is gone is named", || {
        let (well, text) = status(&lab, 2);
        !well
            && text.contains("managers: 2 of 3 reachable, 2 needed")
            && text.contains("manager-unreachable of host-3")
            && text.contains("swarm node replace")
    });
    let (well, text) = status(&lab, 3);
    assert!(!well && text.contains("is it running?"), "{text}");
    lab.act(&["kill", "2", "daemon"]);
    lab.until("no quorum is an alarm, seen without one", || {
        let (well, text) = status(&lab, 1);
        !well && text.contains("critical: no-quorum") && text.contains("more than half of 3")
    });
    assert!(lab.curl(1, "/readyz", &["--include"]).starts_with("HTTP/1.1 503"));
    assert_eq!(number(&lab, 1, "swarm_raft_has_leader"), Some(0.0));
    lab.act(&["start", "2", "daemon"]);
    lab.act(&["start", "3", "daemon"]);
    lab.until("all is well at last", || (1..=4).all(|host| is_well(&lab, host)));
}
