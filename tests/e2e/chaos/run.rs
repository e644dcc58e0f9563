//! One run: a cluster, clients, faults; then peace, and the questions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use super::clients::Work;
use super::dice::Dice;
use super::http::{Reply, ask};
use super::timeline::{self, Fault, Kind, Shape};
use crate::lab::{Lab, Life, socket};

const SHAPE: Shape = Shape { hosts: 4, managers: 3 };
const CLIENTS: usize = 6;
/// A run of this time must come to every kind.
const COVERING: Duration = Duration::from_secs(110);
/// Acknowledged calls per second below which a run has shown nothing.
const LEAST_PER_SECOND: u64 = 5;

struct Run {
    lab: Lab,
    seed: u64,
    work: Work,
    log: std::sync::Mutex<String>,
}

/// Runs a seed; panics with what is needed to look into it and to repeat it.
pub(crate) fn run(seed: u64, time: Duration, kinds: &[Kind]) {
    let lab =
        Lab::cluster_with(SHAPE.hosts, SHAPE.managers, &[("LAB_CLOCK", "1"), ("LAB_DISK", "400M")]);
    let sockets = (1..=SHAPE.managers).map(socket).collect();
    let run = Run { lab, seed, work: Work::new(sockets), log: std::sync::Mutex::default() };
    let outcome = catch_unwind(AssertUnwindSafe(|| run.all(time, kinds)));
    run.work.end();
    let dir = run.save();
    if let Err(panic) = outcome {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let (dir, minutes) = (dir.display(), time.as_secs_f64() / 60.0);
        print(&format!("seed {seed} failed; timeline, history and logs are in {dir}; again:"));
        print(&format!(
            "./scripts/chaos.sh --minutes {minutes} --seed {seed} --only {}",
            names.join(",")
        ));
        resume_unwind(panic);
    }
}

/// Standard output may be closed; the run goes on.
fn print(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

impl Run {
    fn say(&self, line: &str) {
        let line = format!("{:>6.1} s  {line}", self.work.elapsed().as_secs_f32());
        print(&line);
        writeln!(self.log.lock().unwrap(), "{line}").unwrap();
    }

    /// First faults that no container may notice, then all.
    fn all(&self, time: Duration, kinds: &[Kind]) {
        self.lab.web(1, "still", 4, &[]);
        self.lab.web(1, "churn", 2, &[]);
        let (half, mut dice) = (self.work.elapsed() + time / 2, Dice::new(self.seed, 1));
        let begin = self.work.elapsed();
        let gentle: Vec<_> = kinds.iter().copied().filter(|kind| kind.is_gentle()).collect();
        let mut first = timeline::draw(&mut dice, SHAPE, (&[], &gentle), (begin, half));
        let struck = |kind: &Kind| first.iter().any(|fault| fault.kind == *kind);
        let due: Vec<_> = kinds.iter().copied().filter(|kind| !struck(kind)).collect();
        let span = (Duration::ZERO, time / 2);
        let mut second = timeline::draw(&mut dice, SHAPE, (&due, kinds), span);
        for (number, fault) in first.iter_mut().chain(&mut second).enumerate() {
            fault.number = number + 1;
        }
        let before = self.lives();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn(move || self.work.client(client, self.seed));
            }
            scope.spawn(|| self.churn());
            // Whatever happens in here, the clients must end.
            let acted = catch_unwind(AssertUnwindSafe(|| self.act(&first, &mut second, &before)));
            self.work.end();
            acted.unwrap_or_else(|panic| resume_unwind(panic));
        });
        self.settle("in the end");
        self.judge(time, &before);
        self.cover(time, first.iter().chain(&second), kinds);
        self.leave_nothing();
    }

    fn act(&self, first: &[Fault], second: &mut [Fault], before: &BTreeMap<String, Life>) {
        self.inflict(first);
        self.settle("after faults that no container may notice");
        let after = self.lives();
        for (id, life) in before.iter().filter(|(_, life)| life.service == "still") {
            assert_eq!(after.get(id), Some(life), "a container of a service at rest was touched");
        }
        let offset = self.work.elapsed();
        second.iter_mut().for_each(|fault| fault.at += offset);
        self.inflict(second);
    }

    /// Lets a timeline happen.
    fn inflict(&self, faults: &[Fault]) {
        let mut events: Vec<_> = faults.iter().map(|it| (it.at, true, it)).collect();
        events.extend(faults.iter().map(|it| (it.at + it.lasts, false, it)));
        events.sort_by_key(|(at, is_begin, fault)| (*at, *is_begin, fault.number));
        for (at, is_begin, fault) in events {
            sleep(at.saturating_sub(self.work.elapsed()));
            if is_begin {
                self.say(&format!("begins: {fault}"));
                fault.begin(&self.lab, SHAPE);
            } else {
                self.say(&format!("ends:   {fault}"));
                fault.end(&self.lab, SHAPE);
            }
        }
    }

    /// A service that grows and shrinks, so that agents have something to do.
    fn churn(&self) {
        let mut dice = Dice::new(self.seed, 2);
        while !self.work.is_over() {
            let scale = format!("churn={}", 1 + dice.below(6));
            let by = 1 + dice.below(SHAPE.managers);
            self.lab.try_swarm(by, &["service", "scale", "--detach", &scale]);
            sleep(dice.millis(1_500, 4_000));
        }
    }

    /// All is well: nodes, managers, services, and the same state everywhere.
    fn settle(&self, when: &str) {
        self.say(&format!("heals {when}"));
        self.lab.act(&["heal"]);
        self.lab.until("all nodes are ready", || self.lab.ready() == SHAPE.hosts);
        self.lab.until("all managers take part", || {
            let status =
                self.lab.try_swarm(1, &["node", "ls", "--format", "{{.ManagerStatus}}"]).out;
            let well = |line: &&str| *line == "Leader" || *line == "Reachable";
            status.lines().filter(well).count() == SHAPE.managers
        });
        self.lab.until("the service at rest is whole", || self.lab.replicas(1, "still") == "4/4");
        self.say("is well");
    }

    fn get(&self, manager: usize, path: &str) -> Option<Reply> {
        ask(&socket(manager), &format!("GET {path}"), "", None).ok().filter(|it| it.status == 200)
    }

    /// What all clients were told must be one story, and the state its end, on every manager.
    fn judge(&self, time: Duration, before: &BTreeMap<String, Life>) {
        self.lab.until("every key can be read", || self.work.read_all().is_ok());
        let acknowledged = self.work.judge().unwrap_or_else(|wrong| panic!("{wrong}"));
        let stale = self.work.stale_reads();
        self.say(&format!("{acknowledged} calls were acknowledged, {stale} reads were stale"));
        let least = time.as_secs() * LEAST_PER_SECOND;
        assert!(acknowledged as u64 >= least && stale > 0, "too little: at least {least} were due");
        let odd = self.work.odd();
        assert!(odd.is_empty(), "answers that nothing explains:\n{}", odd.join("\n"));
        self.lab.until("the growing service is whole", || {
            let said = self.lab.replicas(1, "churn");
            said.split_once('/').is_some_and(|(has, wants)| has == wants)
        });
        for path in ["/configs", "/secrets", "/services", "/tasks"] {
            self.lab.until(&format!("the same {path} on all managers"), || {
                let all: Vec<_> = (1..=SHAPE.managers)
                    .map(|manager| self.get(manager, &format!("{path}?stale=true")))
                    .map(|reply| reply.map(|reply| reply.body))
                    .collect();
                all[0].is_some() && all.iter().all(|body| *body == all[0])
            });
        }
        for (id, life) in self.lives() {
            if let Some(earlier) = before.get(&id) {
                // One that has ended since has no process any more.
                assert_eq!(
                    life.started, earlier.started,
                    "a container was started again: {life:?}"
                );
            }
        }
    }

    /// A kind that was chosen and never struck has shown nothing.
    fn cover<'a>(&self, time: Duration, faults: impl Iterator<Item = &'a Fault>, kinds: &[Kind]) {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        faults.for_each(|fault| *counts.entry(fault.kind).or_default() += 1);
        let logs: String = (1..=SHAPE.hosts).map(|host| self.lab.log(host)).collect();
        let struck = logs.matches("a failpoint strikes").count();
        let told: Vec<_> =
            counts.iter().map(|(it, count)| format!("{} {count}", it.name())).collect();
        self.say(&format!("faults: {}; failpoints struck {struck}", told.join(", ")));
        if time >= COVERING {
            let absent: Vec<_> = kinds.iter().filter(|kind| !counts.contains_key(kind)).collect();
            assert!(absent.is_empty(), "these never struck: {absent:?}; give it more --minutes");
        }
        let armed = counts.get(&Kind::Failpoint).copied().unwrap_or_default();
        assert!(armed < 3 || struck > 0, "{armed} failpoints were armed and none struck");
        assert!(!logs.contains("a bug: the daemon ends itself"), "a daemon panicked");
    }

    /// When all services are gone, nothing is left of their tasks.
    fn leave_nothing(&self) {
        let tasks = self.get(1, "/tasks").unwrap().body;
        let known: BTreeSet<_> =
            tasks.as_array().unwrap().iter().map(|it| it["ID"].to_string()).collect();
        for (id, life) in self.lives() {
            assert!(
                known.contains(&format!("{:?}", life.task)),
                "container {id} is nobody's: {life:?}"
            );
        }
        let addresses: BTreeSet<String> = addresses(&tasks);
        assert!(!addresses.is_empty());
        self.lab.swarm(1, &["service", "rm", "still", "churn"]);
        self.lab.until("all containers are gone", || self.lives().is_empty());
        for host in 1..=SHAPE.hosts {
            self.lab.until(&format!("nothing is left in the network of host {host}"), || {
                let shell = "nft list ruleset; ip neigh show nud permanent; ls /run/swarm/tasks";
                let left = self.lab.exec(host, &["sh", "-c", shell]).out;
                let words: BTreeSet<_> = left.split([' ', ',', '\n', '{', '}']).collect();
                !addresses.iter().any(|address| words.contains(&**address))
            });
        }
        self.say(&format!("nothing is left of {} addresses", addresses.len()));
    }

    fn lives(&self) -> BTreeMap<String, Life> {
        self.lab.lives(SHAPE.hosts)
    }

    fn save(&self) -> PathBuf {
        let base = std::env::var("CHAOS_OUT").unwrap_or_else(|_| "/var/tmp/swarm-chaos".to_owned());
        let dir = PathBuf::from(base).join(format!("seed-{}", self.seed));
        std::fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        write("timeline.txt", &self.log.lock().unwrap());
        let history: Vec<_> = self.work.records().iter().map(ToString::to_string).collect();
        write("history.txt", &history.join("\n"));
        for host in 1..=SHAPE.hosts {
            write(&format!("host-{host}.log"), &self.lab.log(host));
        }
        dir
    }
}

fn addresses(tasks: &Value) -> BTreeSet<String> {
    let attached = tasks.as_array().into_iter().flatten().map(|task| &task["NetworksAttachments"]);
    let addresses = attached.flat_map(|all| all.as_array().cloned().unwrap_or_default());
    let addresses =
        addresses.flat_map(|it| it["Addresses"].as_array().cloned().unwrap_or_default());
    addresses
        .filter_map(|address| address.as_str()?.split('/').next().map(ToOwned::to_owned))
        .collect()
}
