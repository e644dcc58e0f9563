//! What goes wrong: leaders, agents, hosts, engines.

use crate::lab::Lab;

#[test]
fn the_leader_dies_and_nobody_notices() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 4, &[]);
    let hosts = [1, 2, 3, 4];
    let before = lab.all_containers(&hosts, "web");
    let addresses = lab.addresses(&hosts, "web");
    lab.act(&["kill", "1", "daemon"]);
    // Names never stop, not even on the host whose manager is dead... its agent is dead, too; so the
    // others are asked.
    for host in [2, 3, 4] {
        assert!(!lab.resolve(host, "web", "web").is_empty(), "host {host} still answers");
    }
    lab.until("another manager leads and writes", || {
        lab.try_swarm(2, &["service", "update", "--detach", "--label-add", "after=kill", "web"]).ok
    });
    lab.act(&["start", "1", "daemon"]);
    lab.until("the old leader is back", || lab.ready_by(2) == 4);
    lab.until("all run", || lab.replicas(2, "web") == "4/4");
    assert_eq!(lab.all_containers(&hosts, "web"), before, "no container was restarted");
    lab.until("the same addresses", || lab.resolve(4, "web", "web") == addresses);
}

#[test]
fn an_agent_dies_and_adopts_its_containers_again() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 4, &[]);
    let before = lab.containers(2, "web");
    assert!(!before.is_empty());
    for _ in 0..3 {
        lab.act(&["kill", "2", "daemon"]);
        lab.act(&["start", "2", "daemon"]);
        lab.until("it is back", || lab.exec(2, &[env!("CARGO_BIN_EXE_swarm"), "info"]).ok);
    }
    lab.until("ready", || lab.ready() == 2 && lab.replicas(1, "web") == "4/4");
    assert_eq!(lab.containers(2, "web"), before, "same process ids, same start times");
}

#[test]
fn a_silent_host_is_replaced() {
    let lab = Lab::cluster(3, 1);
    lab.web(1, "web", 6, &[]);
    assert!(!lab.containers(3, "web").is_empty());
    lab.act(&["cut", "3"]);
    lab.until("its tasks run elsewhere", || {
        lab.replicas(1, "web") == "6/6" && lab.all_containers(&[1, 2], "web").len() == 6
    });
    let addresses = lab.addresses(&[1, 2], "web");
    lab.until("names forget it", || lab.resolve(1, "web", "web") == addresses);
    lab.act(&["mend", "3"]);
    lab.until("it comes back, without its old tasks", || {
        lab.ready() == 3 && lab.containers(3, "web").is_empty()
    });
}

#[test]
fn without_a_quorum_writes_are_refused_in_words_and_names_go_on() {
    let lab = Lab::cluster(3, 3);
    lab.web(1, "web", 3, &[]);
    let addresses = lab.addresses(&[1, 2, 3], "web");
    lab.act(&["kill", "2", "daemon"]);
    lab.act(&["kill", "3", "daemon"]);
    lab.until("no leader", || {
        let said = lab.try_swarm(1, &["service", "ls"]);
        !said.ok && said.err.contains("does not have a leader")
    });
    assert_eq!(lab.resolve(1, "web", "web"), addresses);
    let label = ["service", "update", "--detach", "--label-add", "a=b", "web"];
    let said = lab.try_swarm(1, &label);
    assert!(!said.ok && said.err.contains("does not have a leader"), "{}", said.err);
    let asked = lab.curl(1, "/services", &["--include"]);
    assert!(asked.starts_with("HTTP/1.1 503") && asked.contains("have a leader"), "{asked}");
    // What may be old is given to those who say that they know, and is marked.
    for (path, more) in [("/services?stale=true", ""), ("/services", "X-Swarm-Stale: 1")] {
        let asked = lab.curl(1, path, &["--include", "--header", more]);
        assert!(asked.starts_with("HTTP/1.1 200"), "{asked}");
        assert!(asked.contains("x-swarm-stale: true") && asked.contains("\"web\""), "{asked}");
    }
    lab.act(&["start", "2", "daemon"]);
    lab.until("a quorum again", || lab.replicas(1, "web") == "3/3");
}

#[test]
fn a_manager_is_promoted_demoted_and_removed() {
    let lab = Lab::cluster(3, 1);
    let managers = |by| {
        let status = lab.try_swarm(by, &["node", "ls", "--format", "{{.ManagerStatus}}"]).out;
        status.lines().filter(|line| *line == "Leader" || *line == "Reachable").count()
    };
    lab.swarm(1, &["node", "promote", "host-2", "host-3"]);
    lab.until("three managers", || managers(1) == 3 && managers(3) == 3);
    // A manager that was promoted before is a worker again, and a manager again.
    lab.swarm(1, &["node", "demote", "host-3"]);
    lab.until("a worker again", || {
        let said = lab.try_swarm(3, &["service", "ls"]);
        managers(1) == 2 && said.err.contains("not a swarm manager")
    });
    lab.swarm(1, &["node", "promote", "host-3"]);
    lab.until("three managers again", || managers(1) == 3 && managers(3) == 3);
    lab.swarm(3, &["node", "demote", "host-1"]);
    lab.until("two managers, one of them leads", || managers(2) == 2);
    lab.until("it has become a worker and may leave", || lab.try_swarm(1, &["leave"]).ok);
    lab.until("down", || lab.ready_by(2) == 2);
    lab.swarm(2, &["node", "rm", "host-1"]);
    assert_eq!(lab.swarm(2, &["node", "ls", "--quiet"]).lines().count(), 2);
    lab.web(2, "web", 2, &[]);
}
