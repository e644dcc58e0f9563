//! Another root of all certificates, while everything runs and while nodes are down.

use crate::lab::{IMAGE, Lab};

/// How many nodes have a word for their certificates.
fn tls(lab: &Lab, by: usize, word: &str) -> usize {
    let said = lab.try_swarm(by, &["node", "ls", "--format", "{{.TLSStatus}}"]);
    said.out.lines().filter(|line| *line == word).count()
}

/// The issuer of the certificate on a host's disk, as openssl tells two roots of one name apart.
fn key_id(lab: &Lab, host: usize) -> String {
    let file = "/var/lib/swarm/certificates/swarm-node.pem";
    lab.exec(host, &["sh", "-c", &format!("grep -c 'BEGIN CERTIFICATE' {file}")]).out
}

#[test]
fn the_root_is_rotated_under_running_containers_and_a_node_that_was_down_follows() {
    let lab = Lab::cluster(3, 3);
    lab.web(1, "web", 3, &[]);
    let hosts = [1, 2, 3];
    let before = lab.all_containers(&hosts, "web");
    let old_root = lab.swarm(1, &["ca"]);
    let old_token = lab.swarm(1, &["join-token", "--quiet", "worker"]);

    // A node is down when it begins: it holds the switch up, and the progress names it.
    lab.act(&["kill", "3", "daemon"]);
    lab.swarm(1, &["ca", "--rotate", "--detach"]);
    lab.until("those that are there have rotated", || tls(&lab, 1, "Ready") == 2);
    assert_eq!(tls(&lab, 1, "Needs Rotation"), 1);
    let both = lab.swarm(1, &["ca"]);
    assert!(both.starts_with(&old_root) && both.matches("BEGIN").count() == 2, "{both}");
    let waits = lab
        .exec(1, &["timeout", "--signal=INT", "3", env!("CARGO_BIN_EXE_swarm"), "ca", "--rotate"]);
    // This was a second rotation midway: it replaces what the first one rotated to.
    assert!(waits.out.contains("rotated TLS certificates: "), "{waits:?}");
    assert!(waits.out.contains("waiting for: ") && waits.out.contains("host-3"), "{waits:?}");
    lab.until("those that are there have followed", || tls(&lab, 1, "Ready") == 2);
    assert_eq!(lab.swarm(1, &["join-token", "--quiet", "worker"]), old_token, "until the switch");

    // Everything works meanwhile, the death of a leader included.
    lab.swarm(1, &["service", "update", "--detach", "--label-add", "during=rotation", "web"]);
    lab.act(&["kill", "1", "daemon"]);
    lab.act(&["start", "1", "daemon"]);
    lab.until("two are ready", || lab.ready_by(2) >= 2);

    lab.act(&["start", "3", "daemon"]);
    lab.until("the root is switched, and all have followed", || {
        lab.ready() == 3
            && tls(&lab, 1, "Ready") == 3
            && lab.swarm(1, &["ca"]).matches("BEGIN").count() == 1
    });
    let new_root = lab.swarm(1, &["ca"]);
    assert!(new_root != old_root && !old_root.contains(&new_root), "{new_root}");
    for host in hosts {
        lab.until("its file is as ever: a certificate and a root", || key_id(&lab, host) == "2");
    }
    lab.until("all run", || lab.replicas(1, "web") == "3/3");
    assert_eq!(lab.all_containers(&hosts, "web"), before, "same processes, same start times");

    // The old token is refused in words, the new one joins.
    lab.swarm(3, &["leave", "--force"]);
    let refused = lab.try_swarm(3, &["join", "--token", &old_token, "10.99.0.1:2377"]);
    let words = "from before this swarm's root certificate was rotated";
    assert!(!refused.ok && refused.err.contains(words), "{}", refused.err);
    lab.join(3, "worker");
    lab.until("it is a node", || lab.ready() == 3);

    // Once more, with Docker's own client, which waits until it is done.
    let docker = "docker -H unix:///run/swarm/swarm.sock";
    let down = || {
        let nodes = lab.swarm(1, &["node", "ls", "--format", "{{.ID}} {{.Status}}"]);
        let gone = nodes.lines().find_map(|line| line.strip_suffix(" Down"));
        gone.map(str::to_owned)
    };
    lab.until("what host 3 was is down", || down().is_some());
    lab.swarm(1, &["node", "rm", "--force", &down().unwrap()]);
    let said = lab.exec(1, &["sh", "-c", &format!("{docker} swarm ca --rotate")]);
    assert!(said.ok && said.out.contains("rotated TLS certificates"), "{said:?}");
    assert_eq!(lab.swarm(1, &["ca"]), said.out[said.out.rfind("-----BEGIN").unwrap()..].trim());
    lab.swarm(
        1,
        &["service", "create", "--name", "after", "--replicas", "3", IMAGE, "sleep", "1h"],
    );
}

#[test]
fn a_node_that_never_comes_back_is_removed_and_the_rotation_goes_on() {
    let lab = Lab::cluster(2, 1);
    let old_root = lab.swarm(1, &["ca"]);
    lab.act(&["kill", "2", "host"]);
    lab.swarm(1, &["ca", "--rotate", "--detach", "--cert-expiry", "720h"]);
    lab.until("the manager has rotated", || tls(&lab, 1, "Ready") == 1);
    assert!(lab.swarm(1, &["ca"]).starts_with(&old_root));
    let down = lab.swarm(1, &["node", "ls", "--filter", "role=worker", "--quiet"]);
    lab.swarm(1, &["node", "rm", "--force", &down]);
    lab.until("the root is switched", || {
        let root = lab.swarm(1, &["ca"]);
        root.matches("BEGIN").count() == 1 && root != old_root && tls(&lab, 1, "Ready") == 1
    });
}

/// Three bad days in one: while a node that is down holds a rotation up, a locked manager is opened, and then the
/// majority is lost for ever. The rotation ends all the same, and the key still opens.
#[test]
fn a_rotation_outlives_a_locked_manager_and_a_lost_majority() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 4, &[]);
    let before = lab.all_containers(&[1], "web");
    let old_root = lab.swarm(1, &["ca"]);
    lab.swarm(1, &["update", "--autolock"]);
    let key = lab.swarm(1, &["unlock-key", "--quiet"]);
    lab.act(&["kill", "3", "daemon"]);
    lab.swarm(1, &["ca", "--rotate", "--detach"]);
    lab.until("three have rotated", || tls(&lab, 1, "Ready") == 3);

    let state = || lab.try_swarm(1, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).out;
    let restart_and_open = || {
        lab.act(&["kill", "1", "daemon"]);
        lab.act(&["start", "1", "daemon"]);
        lab.until("it comes up locked", || state() == "locked");
        let swarm = env!("CARGO_BIN_EXE_swarm");
        let opened = lab.exec(1, &["sh", "-c", &format!("echo '{key}' | {swarm} unlock")]);
        assert!(opened.ok, "{opened:?}");
        lab.until("it is open", || state() == "active");
    };
    restart_and_open();
    lab.until("two managers and the worker are there", || lab.ready() == 3);
    assert_eq!(lab.swarm(1, &["ca"]).matches("BEGIN").count(), 2, "the rotation goes on");

    lab.act(&["stop", "2"]);
    lab.act(&["stop", "3"]);
    let refusal = || lab.try_swarm(1, &["service", "ls"]).err;
    lab.until("no leader", || refusal().contains("does not have a leader"));
    let done = lab.swarm(1, &["recover", "--force"]);
    assert!(done.contains("is the only manager"), "{done}");
    lab.until("it leads, and the worker is back", || lab.ready() == 2);
    lab.until("the root is switched, now that those who held it up are gone", || {
        let root = lab.swarm(1, &["ca"]);
        root.matches("BEGIN").count() == 1 && root != old_root && tls(&lab, 1, "Ready") == 2
    });
    restart_and_open();
    lab.until("everything runs", || lab.ready() == 2 && lab.replicas(1, "web") == "4/4");
    let after = lab.all_containers(&[1, 4], "web");
    assert!(before.iter().all(|it| after.contains(it)), "no container was restarted");
}
