//! Two releases in one cluster: this one and the one before it, whose binary `SWARM_PREVIOUS` names
//! (`scripts/previous.sh` builds it).

use std::path::{Path, PathBuf};

use crate::lab::Lab;

/// The format is not raised while this is the leader's setting.
const HELD: &str = "format-hold = \"1d\"\n";
/// It is raised as soon as all managers know it.
const FREE: &str = "format-hold = \"0s\"\n";
/// The previous release knows no such setting.
const NONE: &str = "";

/// The manager that leads, as a host sees it.
fn leader(lab: &Lab, by: usize) -> Option<usize> {
    let shown = lab.try_swarm(by, &["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"]);
    let line =
        shown.out.lines().find_map(|line| line.strip_suffix(" Leader").map(str::to_owned))?;
    line.strip_prefix("host-")?.parse().ok()
}

/// What a host of this release says of its replica.
fn format(lab: &Lab, host: usize) -> Option<u64> {
    let status: serde_json::Value =
        serde_json::from_str(&lab.curl(host, "/x/v1/status", &[])).ok()?;
    status["Raft"]["Format"].as_u64()
}

/// A cluster on its way from one release to the other.
struct Upgrade {
    lab: Lab,
    previous: PathBuf,
    steps: u32,
    /// The containers that nothing may touch.
    containers: Vec<(String, String)>,
}

impl Upgrade {
    /// Three managers and a worker of the previous release, with a service.
    fn begin(previous: PathBuf) -> Self {
        let lab = Lab::hosts_of(4, &previous, NONE);
        lab.form(3);
        lab.web(1, "web", 4, &[]);
        let containers = lab.all_containers(&[1, 2, 3, 4], "web");
        assert_eq!(containers.len(), 4);
        Self { lab, previous, steps: 0, containers }
    }

    fn forward(&mut self, host: usize, settings: &str) {
        let program = Path::new(env!("CARGO_BIN_EXE_swarm"));
        self.lab.replace_daemon(host, program, settings);
        self.goes_on();
    }

    fn back(&mut self, host: usize) {
        self.lab.replace_daemon(host, &self.previous, NONE);
        self.goes_on();
    }

    /// All nodes are ready, every manager takes a write, the same processes run.
    fn goes_on(&mut self) {
        self.lab.until("all are ready and all managers answer", || {
            let managing = |by| {
                let status =
                    self.lab.try_swarm(by, &["node", "ls", "--format", "{{.ManagerStatus}}"]);
                let up = |line: &&str| ["Leader", "Reachable"].contains(line);
                status.out.lines().filter(up).count()
            };
            self.lab.ready() == 4 && [1, 2, 3].iter().all(|by| managing(*by) == 3)
        });
        for by in [1, 2, 3] {
            self.steps += 1;
            let step = format!("step={}", self.steps);
            let line = ["service", "update", "--detach", "--label-add", &step, "web"];
            self.lab.until(&format!("{step}, written by host {by}"), || {
                self.lab.try_swarm(by, &line).ok
            });
        }
        let shown = self.lab.swarm(3, &["service", "inspect", "web"]);
        assert!(shown.contains(&format!("\"step\": \"{}\"", self.steps)), "{shown}");
        assert_eq!(self.lab.all_containers(&[1, 2, 3, 4], "web"), self.containers);
    }

    /// Restarts leaders, without changing what they run, until a host leads.
    fn lead(&mut self, host: usize, programs: &[(usize, &Path)]) {
        for _ in 0..12 {
            let Some(now) = leader(&self.lab, 1) else { continue };
            if now == host {
                return;
            }
            let (_, program) = programs.iter().find(|(it, _)| *it == now).unwrap();
            let settings = if *program == self.previous { NONE } else { HELD };
            self.lab.replace_daemon(now, program, settings);
            self.goes_on();
        }
        panic!("host {host} does not come to lead");
    }
}

#[test]
fn a_cluster_is_upgraded_one_by_one_and_back_and_no_container_notices() {
    let Some(previous) = std::env::var_os("SWARM_PREVIOUS").map(PathBuf::from) else {
        println!("SKIPPED: SWARM_PREVIOUS names no previous release; see scripts/test.sh mixed");
        return;
    };
    let mut it = Upgrade::begin(previous.clone());
    // A worker: there, back, and there again.
    it.forward(4, NONE);
    it.back(4);
    it.forward(4, NONE);
    // An old leader with new followers.
    let old = leader(&it.lab, 1).unwrap();
    let followers: Vec<usize> = (1..=3).filter(|host| *host != old).collect();
    it.forward(followers[0], HELD);
    // A new leader with old followers.
    let new = Path::new(env!("CARGO_BIN_EXE_swarm"));
    let programs = [(followers[0], new), (followers[1], &*previous), (old, &*previous)];
    it.lead(followers[0], &programs);
    it.forward(followers[1], HELD);
    assert_eq!(format(&it.lab, followers[0]), Some(1), "one manager does not know format 2");
    it.forward(old, HELD);
    // All are new, and the format is held back: any of them may go back.
    assert_eq!(format(&it.lab, 1), Some(1));
    it.back(followers[1]);
    it.forward(followers[1], HELD);
    // Each says so itself, and the leader's setting counts.
    for host in [1, 2, 3] {
        it.lab.replace_daemon(host, new, FREE);
        it.goes_on();
    }
    it.lab.until("the format is raised", || (1..=3).all(|host| format(&it.lab, host) == Some(2)));
    it.goes_on();
    let lab = &it.lab;

    // From now on the way back is closed, in words, and nobody else suffers.
    let back = followers[1];
    lab.replace_daemon(back, &previous, NONE);
    lab.until("the old release says why it cannot", || {
        lab.log(back).contains("format 2 is not known to this release, which reads 1")
    });
    let by = followers[0];
    let update = ["service", "update", "--detach", "--label-add", "without=one", "web"];
    lab.until("the others go on", || lab.try_swarm(by, &update).ok);
    it.forward(back, FREE);
    let lab = &it.lab;

    // A manager of the old release is not taken in.
    lab.replace_daemon(4, &previous, NONE);
    lab.until("the worker is back", || lab.ready() == 4);
    lab.swarm(1, &["node", "promote", "host-4"]);
    lab.until("it is told which release is needed", || {
        lab.log(4)
            .contains("this cluster uses format 2 and this node's release of swarm knows format 1")
    });
    lab.replace_daemon(4, new, FREE);
    lab.until("it is a manager as soon as it is upgraded", || {
        lab.try_swarm(4, &["node", "ls", "--format", "{{.ManagerStatus}}"])
            .out
            .lines()
            .filter(|line| ["Leader", "Reachable"].contains(line))
            .count()
            == 4
    });
    assert_eq!(lab.all_containers(&[1, 2, 3, 4], "web"), it.containers);
}
