//! Drills: what an operator does on purpose, and what wears a host out, again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::chaos::dice::Dice;
use crate::chaos::http::{Failure, Reply, ask};
use crate::lab::{IMAGE, Lab, socket};

const DEATHS: usize = 50;
const CONTAINERS: usize = 50;

#[test]
fn fifty_containers_outlive_fifty_deaths_of_their_agent() {
    let lab = Lab::cluster(2, 1);
    let replicas = CONTAINERS.to_string();
    let rest = ["--replicas", &replicas, "--constraint", "node.hostname==host-2", IMAGE];
    let create = [&["service", "create", "--name", "many"], &rest[..], &["sleep", "inf"]].concat();
    lab.swarm(1, &create);
    let before = lab.lives(2);
    assert_eq!(before.len(), CONTAINERS);
    let struck = || lab.log(2).matches("a failpoint strikes").count();
    let mut dice = Dice::new(50, 50);
    let mut deaths = 0;
    while deaths < DEATHS {
        if deaths % 5 == 0 {
            // Two deaths: one from outside, one in the middle of taking the containers over.
            let point = format!("agent.adopt=abort@{}", 1 + dice.below(CONTAINERS));
            let known = struck();
            lab.act(&["failpoint", "2", &point]);
            lab.until("it dies while it adopts", || struck() > known);
            deaths += 2;
            lab.until("it is back", || lab.ready() == 2);
            assert!(!lab.resolve(2, "many", "many").is_empty(), "names answer");
        } else {
            sleep(dice.millis(0, 900));
            // Between two lives there is nobody to kill.
            lab.until("it dies", || {
                lab.exec(2, &["sh", "-c", "kill -9 $(cat /run/lab-swarm.pid)"]).ok
            });
            deaths += 1;
        }
    }
    lab.until("all is well", || lab.ready() == 2 && lab.replicas(1, "many") == "50/50");
    assert_eq!(lab.lives(2), before, "same process ids, same start times, none more, none less");
    // What it adopted it also ends.
    lab.swarm(1, &["service", "rm", "many"]);
    lab.until("all are gone", || lab.lives(2).is_empty());
}

/// Creates a config under a key until somebody says that it is there; the answer's id.
fn write(number: usize, lab_managers: usize, failed: &AtomicUsize) -> Value {
    let body = json!({ "Name": format!("write-{number}"), "Data": "eA==" });
    let header = format!("Idempotency-Key: write-{number}\r\n");
    let mut manager = number % lab_managers;
    loop {
        manager = manager % lab_managers + 1;
        match ask(&socket(manager), "POST /configs/create", &header, Some(&body)) {
            Ok(Reply { status: 201, body, .. }) => return body["ID"].clone(),
            Ok(Reply { status: 503 | 504, .. }) | Err(Failure::NotSent | Failure::NoAnswer) => {
                failed.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20));
            }
            Ok(other) => panic!("write {number} by manager {manager}: {other:?}"),
        }
    }
}

#[test]
fn a_rolling_restart_of_all_managers_loses_no_write_and_touches_no_container() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 8, &[]);
    let before = lab.lives(4);
    let (is_over, failed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let written: BTreeMap<usize, Value> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (is_over, failed) = (&is_over, &failed);
                scope.spawn(move || {
                    let numbers =
                        (writer..).step_by(3).take_while(|_| !is_over.load(Ordering::Relaxed));
                    numbers.map(|number| (number, write(number, 3, failed))).collect::<Vec<_>>()
                })
            })
            .collect();
        let restarted =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| restart_all(&lab)));
        is_over.store(true, Ordering::Relaxed);
        let all = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        restarted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        all
    });
    let found = lab.swarm(2, &["config", "ls", "--format", "{{.Name}} {{.ID}}"]);
    let found: BTreeMap<_, _> = found.lines().filter_map(|line| line.split_once(' ')).collect();
    assert!(written.len() > 50, "{} writes", written.len());
    assert_eq!(found.len(), written.len(), "every write once, and none that was not asked for");
    for (number, id) in &written {
        assert_eq!(found.get(&*format!("write-{number}")).copied(), id.as_str(), "write {number}");
    }
    let retried = failed.load(Ordering::Relaxed);
    println!("{} writes, {retried} tries were repeated", written.len());
    assert_eq!(lab.lives(4), before, "no container was touched");
    assert_eq!(lab.replicas(3, "web"), "8/8");
}

/// As a package's upgrade does: one manager after the other, the next when all take part again.
fn restart_all(lab: &Lab) {
    for host in 1..=3 {
        let pid = || lab.exec(host, &["cat", "/run/lab-swarm.pid"]).out;
        let old = pid();
        assert!(lab.exec(host, &["kill", "-TERM", &old]).ok);
        lab.until("a new daemon", || pid() != old && lab.try_swarm(host, &["info"]).ok);
        lab.until("all nodes and managers take part", || {
            let said =
                lab.try_swarm(host, &["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]);
            let well = |line: &&str| matches!(*line, "Ready Leader" | "Ready Reachable");
            said.out.lines().filter(well).count() == 3 && lab.ready_by(host) == 4
        });
    }
}

#[test]
fn a_daemon_without_descriptors_says_so_goes_on_and_recovers() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 4, &[]);
    let (before, addresses) = (lab.lives(2), lab.addresses(&[1, 2], "web"));
    let pids: Vec<_> = [1, 2].map(|host| lab.exec(host, &["cat", "/run/lab-swarm.pid"]).out).into();
    for host in ["1", "2"] {
        lab.act(&["files", host, "12"]);
    }
    let answers = |host| ask(&socket(host), "GET /info", "", None).is_ok();
    lab.until("the API takes no more", || !answers(1));
    for host in [1, 2] {
        lab.until("the daemon says so", || {
            answers(host); // a knock
            lab.log(host).contains("Too many open files")
        });
        let resolved = lab.resolve(host, "web", "web");
        assert_eq!(resolved, addresses, "names go on");
    }
    for host in ["1", "2"] {
        lab.act(&["files", host]);
    }
    lab.until("all is well again", || lab.ready() == 2 && lab.replicas(1, "web") == "4/4");
    lab.swarm(1, &["service", "scale", "web=6"]);
    let after = lab.lives(2);
    assert!(before.iter().all(|(id, life)| after.get(id) == Some(life)), "none was touched");
    let now: Vec<_> = [1, 2].map(|host| lab.exec(host, &["cat", "/run/lab-swarm.pid"]).out).into();
    assert_eq!(now, pids, "no daemon ended");
}

#[test]
fn a_clock_that_is_set_moves_neither_the_leader_nor_cluster_time() {
    let lab = Lab::cluster_with(3, 3, &[("LAB_CLOCK", "1")]);
    lab.web(1, "web", 3, &[]);
    let (before, on_host_1) = (lab.lives(3), lab.lives(1));
    let leads = |host: &str| {
        let format = "{{.Hostname}} {{.ManagerStatus}}";
        let said = lab.try_swarm(1, &["node", "ls", "--format", format]);
        said.out.contains(&format!("{host} Leader"))
    };
    lab.until("host 1 leads", || leads("host-1"));
    // When an object was made: the first ten characters are the day.
    let made = |name: &str| {
        lab.until("it can be made and read", || {
            lab.try_swarm(1, &["config", "create", name, "/proc/version"]);
            lab.try_swarm(1, &["config", "inspect", name]).ok
        });
        let day = lab.swarm(1, &["config", "inspect", "--format", "{{.CreatedAt}}", name]);
        day.get(..10).map(ToOwned::to_owned)
    };
    // Something to stamp with a time; under load a try may fail.
    let stamp = || {
        for label in [["--label-add", "a=b"], ["--label-rm", "a"]] {
            lab.try_swarm(1, &[&["service", "update", "--detach"], &label[..], &["web"]].concat());
        }
    };
    let today = made("today");
    let count = |words: &str| lab.log(1).matches(words).count();
    for (number, seconds) in ["315360000", "-315360000", "172800", "-172800"].iter().enumerate() {
        lab.act(&["clock", "1", seconds]);
        lab.until("the leader says that its clock was set", || {
            stamp();
            count("the clock of this machine was set") > number
        });
        assert_eq!(made(&format!("moved-{number}")), today, "cluster time goes on");
        lab.until("host 1 leads as before", || leads("host-1"));
        lab.act(&["clock", "1", "0"]);
        lab.until("the leader says that its clock is right again", || {
            stamp();
            count("agrees with cluster time again") > number
        });
    }
    assert_eq!(lab.lives(3), before, "no container was touched, on no host");
    // One that starts by a wrong clock believes no certificate, and comes back with the right time. It is
    // silent until then, so its own tasks are replaced.
    for host in ["2", "3"] {
        lab.act(&["clock", host, "315360000"]);
        lab.act(&["kill", host, "daemon"]);
        lab.act(&["start", host, "daemon"]);
        let number = host.parse().unwrap();
        lab.until("it is there", || lab.exec(number, &[env!("CARGO_BIN_EXE_swarm"), "info"]).ok);
        let what = "the certificate of this node expired";
        lab.until("it says what is wrong", || lab.log(number).contains(what));
        lab.act(&["clock", host, "0"]);
        lab.until("it is back", || lab.ready() == 3 && lab.try_swarm(number, &["node", "ls"]).ok);
    }
    lab.until("all run", || lab.replicas(1, "web") == "3/3");
    lab.until("host 1 leads as before", || leads("host-1"));
    let after = lab.lives(1);
    assert!(on_host_1.iter().all(|(id, life)| after.get(id) == Some(life)), "none was touched");
}
