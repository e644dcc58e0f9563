//! The stock `docker` clients, every version that is found, against our socket, unchanged.

use std::path::Path;
use std::process::Command;

use crate::lab::{IMAGE, Lab, Said};

/// Debian's client (20.10) is mandatory; others are run where they are.
const CLIENTS: [&str; 3] = ["/usr/bin/docker", "/usr/local/bin/docker", "/opt/docker/docker"];

fn docker(client: &str, arguments: &[&str]) -> Said {
    let host = format!("unix://{}", crate::lab::socket(1).display());
    Command::new(client).args(["-H", &host]).args(arguments).output().unwrap().into()
}

#[test]
fn stock_clients_drive_the_cluster() {
    let lab = Lab::cluster(1, 1);
    let mut tried = 0;
    for client in CLIENTS.iter().filter(|client| Path::new(client).exists()) {
        let run = |arguments: &[&str]| {
            let said = docker(client, arguments);
            assert!(said.ok, "{client} {arguments:?}: {}\n{}", said.out, said.err);
            said.out
        };
        println!("{client}: {}", run(&["version", "--format", "{{.Client.Version}}"]));
        assert!(run(&["info"]).contains("Swarm: active"));
        run(&[
            "service",
            "create",
            "--name",
            "web",
            "--replicas",
            "2",
            IMAGE,
            "sh",
            "-c",
            "echo started; exec sleep inf",
        ]);
        assert!(run(&["service", "ls"]).contains("2/2"));
        assert!(run(&["service", "ps", "web"]).contains("Running"));
        assert!(run(&["service", "inspect", "--pretty", "web"]).contains("Replicas:\t2"));
        lab.until("logs come", || run(&["service", "logs", "web"]).matches("started").count() == 2);
        run(&["service", "scale", "web=3"]);
        run(&["service", "update", "--env-add", "A=b", "--update-parallelism", "0", "web"]);
        assert!(run(&["service", "inspect", "web"]).contains("A=b"));
        run(&["service", "rm", "web"]);
        assert!(!run(&["service", "ls"]).contains("web"));
        assert!(run(&["node", "ls"]).contains("Leader"));
        assert!(run(&["node", "inspect", "--pretty", "self"]).contains("host-1"));
        run(&["node", "update", "--label-add", "zone=a", "host-1"]);
        assert!(run(&["node", "inspect", "self"]).contains("\"zone\": \"a\""));
        let file = crate::lab::state().join("payload");
        std::fs::write(&file, "payload").unwrap();
        for kind in ["secret", "config"] {
            run(&[kind, "create", "thing", file.to_str().unwrap()]);
            assert!(run(&[kind, "ls"]).contains("thing"));
            assert!(run(&[kind, "inspect", "thing"]).contains("thing"));
            run(&[kind, "rm", "thing"]);
        }
        assert!(run(&["swarm", "join-token", "worker"]).contains("docker swarm join --token"));
        // Everything that is not swarm mode goes to the engine.
        assert!(run(&["image", "ls"]).contains(IMAGE));
        assert_eq!(run(&["run", "--rm", "--network", "none", IMAGE, "echo", "hello"]), "hello");
        lab.until("all tasks are gone", || lab.all_containers(&[1], "web").is_empty());
        tried += 1;
    }
    assert!(tried > 0, "no docker client is installed: apt-get install docker.io");
}
