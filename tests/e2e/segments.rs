//! Managers whose raft log lies in segments, beside one whose log lies in sled.

use crate::lab::{Lab, disk};

const PROGRAM: &str = env!("CARGO_BIN_EXE_swarm");
const SEGMENTS: &str = "raft-log = \"segments\"\n";

fn managers(lab: &Lab, by: usize) -> usize {
    let status = lab.try_swarm(by, &["node", "ls", "--format", "{{.ManagerStatus}}"]).out;
    status.lines().filter(|line| *line == "Leader" || *line == "Reachable").count()
}

#[test]
fn managers_with_either_kind_of_log_are_one_cluster_through_kills_and_damage() {
    let lab = Lab::hosts_of(3, PROGRAM.as_ref(), SEGMENTS);
    std::fs::write(disk(3).join("config.toml"), "").unwrap();
    lab.act(&["kill", "3", "daemon"]);
    lab.act(&["start", "3", "daemon"]);
    lab.form(3);
    let log = "/var/lib/swarm/raft/log";
    let files = |host: usize| lab.exec(host, &["ls", log]).out;
    for (host, is_sled) in [(1, false), (2, false), (3, true)] {
        let files = files(host);
        assert_eq!(files.lines().any(|it| it == "db"), is_sled, "host {host}: {files}");
    }
    lab.web(1, "web", 3, &[]);
    let before = lab.all_containers(&[1, 2, 3], "web");
    let label = |by: usize, name: &str| {
        let label = format!("{name}=1");
        lab.until("a write is taken", || {
            let update = ["service", "update", "--detach", "--label-add", &label, "web"];
            lab.try_swarm(by, &update).ok
        });
    };

    // The leader dies, then all managers at once.
    lab.act(&["kill", "1", "daemon"]);
    label(2, "one-is-dead");
    for host in ["2", "3"] {
        lab.act(&["kill", host, "daemon"]);
    }
    for host in ["1", "2", "3"] {
        lab.act(&["start", host, "daemon"]);
    }
    lab.until("all are back", || managers(&lab, 1) == 3 && lab.ready() == 3);
    label(3, "all-were-dead");
    let labels = lab.swarm(1, &["service", "inspect", "--format", "{{json .Spec.Labels}}", "web"]);
    assert!(labels.contains("one-is-dead") && labels.contains("all-were-dead"), "{labels}");
    lab.until("all run", || lab.replicas(1, "web") == "3/3");
    assert_eq!(lab.all_containers(&[1, 2, 3], "web"), before, "no container was restarted");

    // A setting alone changes no log that is there, and says so.
    lab.replace_daemon(2, PROGRAM.as_ref(), "");
    lab.until("it takes part", || managers(&lab, 2) == 3 && lab.ready_by(2) == 3);
    assert!(!files(2).lines().any(|it| it == "db"), "{}", files(2));
    assert!(lab.log(2).contains("is of another kind than the settings say"));

    // A damaged one is found out, as a damaged database is.
    let id = lab.swarm(2, &["info", "--format", "{{.Swarm.NodeID}}"]);
    lab.act(&["kill", "2", "daemon"]);
    let flip = format!(
        "for file in {log}/*; do size=$(stat -c %s $file); at=64; while [ $at -lt $size ]; do \
         printf '\\252' | dd of=$file bs=1 seek=$at conv=notrunc status=none; \
         at=$((at + 512)); [ $at -lt 65536 ] || break; done; done"
    );
    assert!(lab.exec(2, &["sh", "-c", &flip]).ok);
    lab.act(&["start", "2", "daemon"]);
    lab.until("it says what is wrong", || {
        let info = lab.try_swarm(2, &["info"]).out;
        info.contains("Swarm: error") && info.contains("is damaged")
    });
    lab.until("the others know", || managers(&lab, 1) == 2);
    // Its way back is a log of the kind that is set now.
    lab.swarm(1, &["node", "replace", &id]);
    lab.swarm(2, &["leave", "--force"]);
    lab.join(2, "manager");
    lab.until("three managers again", || managers(&lab, 1) == 3 && managers(&lab, 2) == 3);
    assert!(files(2).lines().any(|it| it == "db"), "{}", files(2));
    lab.swarm(2, &["service", "scale", "web=4"]);
    assert_eq!(lab.replicas(3, "web"), "4/4");
}
