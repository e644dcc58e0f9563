//! Wrong input: every refusal says what to do, and changes nothing.

use crate::lab::{IMAGE, Lab};

fn refused(lab: &Lab, host: usize, arguments: &[&str], words: &[&str]) {
    let said = lab.try_swarm(host, arguments);
    assert!(!said.ok, "swarm {arguments:?} was accepted: {}", said.out);
    for word in words {
        assert!(said.err.contains(word), "swarm {arguments:?}: {word:?} is not in: {}", said.err);
    }
}

#[test]
fn wrong_input_is_refused_in_words() {
    let lab = Lab::hosts(2);
    refused(&lab, 1, &["service", "ls"], &["not a swarm manager"]);
    refused(&lab, 1, &["init", "--advertise-addr", "eth9"], &["eth9"]);
    two_at_once_found_one_swarm(&lab);
    refused(&lab, 1, &["init", "--advertise-addr", "10.99.0.1"], &["already part of a swarm"]);
    let token = lab.swarm(1, &["join-token", "--quiet", "worker"]);
    refused(&lab, 2, &["join", "--token", "nonsense", "10.99.0.1:2377"], &["token"]);
    refused(&lab, 2, &["join", "--token", &token, "10.99.0.1:2399"], &["10.99.0.1:2399"]);
    let last = token.chars().last().unwrap();
    let other = if last == '0' { '1' } else { '0' };
    let forged = format!("{}{other}", &token[..token.len() - 1]);
    refused(&lab, 2, &["join", "--token", &forged, "10.99.0.1:2377"], &["token"]);
    lab.swarm(1, &["join-token", "--rotate", "--quiet", "worker"]);
    refused(&lab, 2, &["join", "--token", &token, "10.99.0.1:2377"], &["token"]);
    let fresh = lab.swarm(1, &["join-token", "--quiet", "worker"]);
    assert_ne!(fresh, token);
    // A token of another swarm pins another root.
    lab.swarm(2, &["init", "--advertise-addr", "10.99.0.2"]);
    let foreign = lab.swarm(2, &["join-token", "--quiet", "worker"]);
    lab.swarm(2, &["leave", "--force"]);
    let words = ["remote CA does not match fingerprint"];
    refused(&lab, 2, &["join", "--token", &foreign, "10.99.0.1:2377"], &words);
    lab.swarm(2, &["join", "--token", &fresh, "10.99.0.1:2377"]);

    for (arguments, words) in [
        (vec!["--name=-x-", IMAGE], vec!["name"]),
        (vec!["--name", "a", ""], vec!["image"]),
        (vec!["--name", "a", "--reserve-cpu", "x", IMAGE], vec!["reserve-cpu"]),
        (vec!["--name", "a", "--publish", "80:80", IMAGE], vec!["mode=host"]),
        (vec!["--name", "a", "--network", "nowhere", IMAGE], vec!["nowhere"]),
        (vec!["--name", "a", "--secret", "nothing", IMAGE], vec!["nothing"]),
        (
            vec!["--name", "a", "--constraint", "node.colour~=red", IMAGE],
            vec!["Placement.Constraints", "node.colour~=red", "==, !=", "node.labels.NAME"],
        ),
        (
            vec!["--name", "a", "--constraint", "foo==bar", IMAGE],
            vec!["Placement.Constraints", "foo==bar", "no key foo", "node.role"],
        ),
        (
            vec!["--name", "a", "--constraint", "", IMAGE],
            vec!["Placement.Constraints", "\"\"", "==, !="],
        ),
        (vec!["--name", "a", "--mount", "type=bind,source=x,target=/y", IMAGE], vec!["mount"]),
    ] {
        let mut create = vec!["service", "create", "--detach"];
        create.extend(arguments);
        refused(&lab, 1, &create, &words);
    }
    assert_eq!(lab.swarm(1, &["service", "ls", "--quiet"]), "", "nothing was created");
    lab.web(1, "web", 1, &[]);
    refused(&lab, 1, &["service", "create", "--name", "web", IMAGE], &["already exists"]);
    refused(&lab, 1, &["service", "inspect", "nothing"], &["nothing"]);
    refused(&lab, 1, &["service", "scale", "web=many"], &["many"]);
    refused(&lab, 2, &["service", "ls"], &["not a swarm manager"]);
    refused(&lab, 1, &["leave"], &["--force"]);
    refused(&lab, 1, &["node", "demote", "host-1"], &["last manager"]);
}

fn two_at_once_found_one_swarm(lab: &Lab) {
    let init = || lab.try_swarm(1, &["init", "--advertise-addr", "10.99.0.1"]);
    let said = std::thread::scope(|threads| {
        let other = threads.spawn(init);
        [init(), other.join().unwrap()]
    });
    let (founded, refused): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.ok);
    assert_eq!(founded.len(), 1, "{said:?}");
    assert!(refused[0].err.contains("already part of a swarm"), "{said:?}");
    // What is on the disk is of one swarm.
    let nodes = || lab.swarm(1, &["node", "ls", "--quiet"]);
    let node = nodes();
    lab.act(&["kill", "1", "daemon"]);
    lab.act(&["start", "1", "daemon"]);
    let by_itself = |said: &str| !said.contains("swarm init");
    lab.until("it serves again", || {
        let said = lab.try_swarm(1, &["node", "ls", "--quiet"]);
        assert!(said.ok || by_itself(&said.err) || said.err.contains("cannot reach"), "{said:?}");
        said.ok
    });
    assert_eq!(nodes(), node);
}

#[test]
fn tasks_that_cannot_start_say_why() {
    let lab = Lab::cluster(1, 1);
    let said = |service: &str| lab.swarm(1, &["service", "ps", "--no-trunc", service]);
    lab.swarm(1, &["service", "create", "--detach", "--name", "noimage", "nobody/nothing:1", "x"]);
    lab.until("the image is missed", || said("noimage").to_lowercase().contains("image"));
    lab.swarm(
        1,
        &["service", "create", "--detach", "--name", "greedy", "--reserve-cpu", "512", IMAGE, "x"],
    );
    lab.until("resources are short", || said("greedy").contains("insufficient resources"));
    lab.swarm(
        1,
        &[
            "service",
            "create",
            "--detach",
            "--name",
            "crash",
            "--restart-condition",
            "none",
            IMAGE,
            "sh",
            "-c",
            "exit 7",
        ],
    );
    lab.until("the exit code shows", || said("crash").contains("non-zero exit (7)"));
    ports_that_are_taken_are_told(&lab);
}

fn ports_that_are_taken_are_told(lab: &Lab) {
    let said = |service: &str| lab.swarm(1, &["service", "ps", "--no-trunc", service]);
    let open = |name: &str| {
        let port = ["--detach", "--publish", "mode=host,published=8099,target=80"];
        let create = [&["service", "create", "--name", name], &port[..], &[IMAGE, "sleep", "inf"]];
        lab.swarm(1, &create.concat());
    };
    // Somebody who is not ours listens there.
    let line = "busybox httpd -f -p 8099 -h /tmp >/dev/null 2>&1 & echo $!";
    let stranger = lab.exec(1, &["sh", "-c", line]).out;
    open("blocked");
    lab.until("the stranger's port is told", || {
        said("blocked").contains("Rejected") && said("blocked").contains("address already in use")
    });
    assert!(lab.exec(1, &["kill", &stranger]).ok);
    lab.until("it runs when the port is free", || lab.replicas(1, "blocked") == "1/1");
    open("second");
    lab.until("another service's port is told", || {
        said("second").contains("host-mode port already in use on 1 node")
    });
    lab.swarm(1, &["service", "rm", "blocked"]);
    lab.until("it runs when that service is gone", || lab.replicas(1, "second") == "1/1");
}

/// Two who change the same object: the second is told, in Docker's words, and changes nothing.
#[test]
fn stale_versions_are_out_of_sequence() {
    let lab = Lab::cluster(1, 1);
    lab.swarm(1, &["service", "create", "--detach", "--name", "web", "--replicas", "0", IMAGE]);
    let payload = format!("echo x | {} config create thing -", env!("CARGO_BIN_EXE_swarm"));
    assert!(lab.exec(1, &["sh", "-c", &payload]).ok);
    let id = lab.swarm(1, &["node", "ls", "--quiet"]);
    let curl = |path: &str, body: Option<&str>| match body {
        Some(body) => lab.curl(1, path, &["-H", "Content-Type: application/json", "-d", body]),
        None => lab.curl(1, path, &[]),
    };
    let node = format!("/nodes/{id}");
    for path in ["/services/web", "/configs/thing", &node, "/swarm"] {
        let shown: serde_json::Value = serde_json::from_str(&curl(path, None)).unwrap();
        let (version, mut spec) = (shown["Version"]["Index"].clone(), shown["Spec"].clone());
        let update = format!("{path}/update?version={version}");
        spec["Labels"] = serde_json::json!({"who": "first"});
        let first = curl(&update, Some(&spec.to_string()));
        assert!(!first.contains("message"), "{path}: {first}");
        spec["Labels"] = serde_json::json!({"who": "second"});
        let second = curl(&update, Some(&spec.to_string()));
        assert!(second.contains("update out of sequence"), "{path}: {second}");
        let shown: serde_json::Value = serde_json::from_str(&curl(path, None)).unwrap();
        assert_eq!(shown["Spec"]["Labels"]["who"], "first", "{path}");
    }
    // An update without a version is no update.
    let said = curl("/services/web/update", Some("{}"));
    assert!(said.contains("invalid service version"), "{said}");
}
