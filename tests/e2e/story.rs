//! The main story: form a cluster, run services, find them by name, change and remove them.

use crate::lab::{IMAGE, Lab};

#[test]
fn a_service_runs_everywhere_and_is_found_by_name() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 4, &[]);
    assert_eq!(lab.replicas(2, "web"), "4/4", "every manager serves the API");
    let hosts = [1, 2, 3, 4];
    let addresses = lab.addresses(&hosts, "web");
    assert_eq!(addresses.len(), 4);
    for host in hosts {
        lab.until("the name gives every task", || lab.resolve(host, "web", "web") == addresses);
        assert_eq!(lab.resolve(host, "web", "tasks.web"), addresses);
    }
    // Each task reaches each other by address, across hosts.
    for host in hosts {
        let (id, _) = lab.containers(host, "web").remove(0);
        for addr in &addresses {
            let url = format!("http://{addr}/");
            let said =
                lab.try_docker(host, &["exec", &id, "timeout", "5", "wget", "-q", "-O", "-", &url]);
            assert!(said.ok && !said.out.is_empty(), "host {host} to {addr}: {}", said.err);
        }
    }
    lab.swarm(1, &["service", "scale", "web=6"]);
    assert_eq!(lab.replicas(3, "web"), "6/6");
    lab.swarm(1, &["service", "scale", "web=2"]);
    lab.until("names follow", || {
        let addresses = lab.addresses(&hosts, "web");
        let some = hosts.into_iter().find(|host| !lab.containers(*host, "web").is_empty());
        addresses.len() == 2 && some.is_some_and(|h| lab.resolve(h, "web", "web") == addresses)
    });
    lab.swarm(1, &["service", "update", "--env-add", "COLOUR=green", "web"]);
    let env = lab.swarm(
        1,
        &["service", "inspect", "--format", "{{json .Spec.TaskTemplate.ContainerSpec.Env}}", "web"],
    );
    assert!(env.contains("COLOUR=green"), "{env}");
    lab.swarm(2, &["service", "rm", "web"]);
    lab.until("nothing remains", || {
        lab.all_containers(&hosts, "web").is_empty()
            && lab.swarm(1, &["service", "ls", "--quiet"]).is_empty()
    });
}

#[test]
fn global_services_drain_constraints_and_host_ports() {
    let lab = Lab::cluster(3, 1);
    lab.swarm(
        1,
        &["service", "create", "--name", "each", "--mode", "global", IMAGE, "sleep", "inf"],
    );
    assert_eq!(lab.replicas(1, "each"), "3/3");
    lab.web(1, "web", 3, &["--constraint", "node.role==worker"]);
    assert!(lab.containers(1, "web").is_empty(), "managers do not match the constraint");
    let worker = lab
        .swarm(1, &["node", "ls", "--filter", "role=worker", "--format", "{{.ID}} {{.Hostname}}"]);
    let line = worker.lines().find(|line| line.ends_with("host-3")).unwrap();
    let id = line.split(' ').next().unwrap();
    lab.swarm(1, &["node", "update", "--availability", "drain", id]);
    lab.until("its tasks move", || {
        lab.containers(3, "web").is_empty() && lab.replicas(1, "web") == "3/3"
    });
    lab.swarm(1, &["node", "update", "--availability", "active", id]);
    lab.swarm(
        1,
        &[
            "service",
            "create",
            "--name",
            "open",
            "--publish",
            "mode=host,published=8088,target=80",
            "--mode",
            "global",
            IMAGE,
            "sh",
            "-c",
            "echo hello > /www/index.html; exec httpd -f -p 80 -h /www",
        ],
    );
    for host in ["10.99.0.1", "10.99.0.2", "10.99.0.3"] {
        let url = format!("http://{host}:8088/");
        let said = lab.exec(1, &["busybox", "timeout", "5", "wget", "-q", "-O", "-", &url]);
        assert_eq!(said.out, "hello", "{host}: {}", said.err);
    }
    // A task that no node can run says why, in words.
    lab.swarm(
        1,
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "nowhere",
            "--constraint",
            "node.labels.disk==ssd",
            IMAGE,
            "sleep",
            "inf",
        ],
    );
    lab.until("the reason shows", || {
        lab.swarm(1, &["service", "ps", "--no-trunc", "nowhere"]).contains("no suitable node")
    });
    lab.swarm(1, &["node", "update", "--label-add", "disk=ssd", id]);
    lab.until("it runs once a node fits", || lab.replicas(1, "nowhere") == "1/1");
}

#[test]
fn secrets_configs_health_and_logs() {
    let lab = Lab::cluster(2, 1);
    let pipe = |text: &str, command: &str| {
        let line = format!("printf {text} | {} {command} -", env!("CARGO_BIN_EXE_swarm"));
        let said = lab.exec(1, &["sh", "-c", &line]);
        assert!(said.ok, "{}", said.err);
    };
    pipe("s3cret", "secret create password");
    pipe("hello", "config create greeting");
    lab.swarm(
        1,
        &[
            "service",
            "create",
            "--name",
            "app",
            "--replicas",
            "2",
            "--secret",
            "password",
            "--config",
            "source=greeting,target=/etc/greeting",
            IMAGE,
            "sh",
            "-c",
            "cat /run/secrets/password /etc/greeting; echo; exec sleep inf",
        ],
    );
    lab.until("the output of every task is there", || {
        let logs = lab.swarm(1, &["service", "logs", "--raw", "app"]);
        logs.matches("s3crethello").count() == 2
    });
    let shown = lab.swarm(1, &["secret", "inspect", "password"]);
    assert!(!shown.contains("s3cret") && !shown.contains("czNjcmV0"), "{shown}");
    let used = lab.try_swarm(1, &["secret", "rm", "password"]);
    assert!(!used.ok && used.err.contains("in use"), "{}", used.err);
    // A health check gates both the state and the name.
    lab.swarm(
        1,
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "sick",
            "--health-cmd",
            "test -e /well",
            "--health-interval",
            "500ms",
            "--health-retries",
            "100",
            IMAGE,
            "sleep",
            "inf",
        ],
    );
    lab.until("its container runs", || !lab.all_containers(&[1, 2], "sick").is_empty());
    assert_eq!(lab.replicas(1, "sick"), "0/1", "not yet healthy, so not running");
    let host = if lab.containers(1, "sick").is_empty() { 2 } else { 1 };
    assert_eq!(lab.resolve(host, "app", "sick"), Vec::<String>::new());
    let (id, _) = lab.containers(host, "sick").remove(0);
    lab.docker(host, &["exec", &id, "touch", "/well"]);
    lab.until("healthy means running", || lab.replicas(1, "sick") == "1/1");
    lab.until("and found", || lab.resolve(host, "app", "sick").len() == 1);
}
