//! Clients that work on the cluster through the API of every manager, and write down what they saw.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::dice::Dice;
use super::http::{Failure, Reply, ask};
use super::linear::{Answer, Call, Op};

/// Keys that are in use at a time, and for how long: short histories are checked quickly.
const KEYS: usize = 6;
const AGE: Duration = Duration::from_secs(10);
const LABEL: &str = "chaos.value";

/// One call as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) manager: usize,
    pub(crate) key: usize,
    pub(crate) op: Op,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, manager, key, op } = self;
        let (begun, ended) = (op.begun / 1_000, op.ended / 1_000);
        let name = kind(*key).name(*key);
        let (call, answer) = (op.call, op.answer);
        write!(
            f,
            "{begun} us to {ended} us, client {client}, manager {manager}, {name}: {call:?} {answer:?}"
        )
    }
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Work {
    sockets: Vec<PathBuf>,
    started: Instant,
    values: AtomicU64,
    is_over: AtomicBool,
    records: Mutex<Vec<Record>>,
    /// Answers that nothing explains.
    odd: Mutex<Vec<String>>,
    /// Answers to stale reads: these may be old, and are in no history.
    stale: AtomicU64,
}

/// An object as it was read.
struct Seen {
    id: String,
    version: u64,
    value: u64,
}

impl Work {
    #[expect(clippy::disallowed_methods, reason = "the real time of a real run")]
    pub(crate) fn new(sockets: Vec<PathBuf>) -> Self {
        Self {
            sockets,
            started: Instant::now(),
            values: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            records: Mutex::default(),
            odd: Mutex::default(),
            stale: AtomicU64::new(0),
        }
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }

    pub(crate) fn odd(&self) -> Vec<String> {
        self.odd.lock().unwrap().clone()
    }

    pub(crate) fn stale_reads(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap()
    }

    /// The life of a client: most of the time with one manager, now and then with another.
    pub(crate) fn client(&self, client: usize, seed: u64) {
        let mut dice = Dice::new(seed, 1_000 + client as u64);
        let home = client % self.sockets.len();
        while !self.is_over() {
            let era = usize::try_from(self.elapsed().as_secs() / AGE.as_secs()).unwrap();
            let key = era * KEYS + dice.below(KEYS);
            let manager = if dice.percent(80) { home } else { dice.below(self.sockets.len()) };
            let one = One { work: self, client, manager, key };
            match dice.below(100) {
                0..30 => drop(one.read()),
                30..65 => one.swap(),
                65..83 => one.create(),
                83..90 => one.remove(),
                _ => one.read_stale(),
            }
            sleep(dice.millis(5, 40));
        }
    }

    /// Reads every key that was ever used, with one manager after the other.
    pub(crate) fn read_all(&self) -> Result<(), String> {
        let keys: std::collections::BTreeSet<_> =
            self.records().iter().map(|record| record.key).collect();
        for key in keys {
            let manager = key % self.sockets.len();
            let one = One { work: self, client: usize::MAX, manager, key };
            if one.read().is_none() {
                return Err(format!("{} cannot be read although all is well", one.name()));
            }
        }
        Ok(())
    }

    /// Every key's calls must be linearizable. Says how many calls were acknowledged.
    pub(crate) fn judge(&self) -> Result<usize, String> {
        let mut keys: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
        let records = self.records();
        for record in &records {
            keys.entry(record.key).or_default().push(record.op);
        }
        let wrong: Vec<_> = keys
            .iter()
            .filter_map(|(key, ops)| {
                super::linear::check(ops)
                    .err()
                    .map(|why| format!("{}: {why}", kind(*key).name(*key)))
            })
            .collect();
        if !wrong.is_empty() {
            return Err(format!("not linearizable:\n{}", wrong.join("\n")));
        }
        Ok(records.iter().filter(|record| record.op.answer != Answer::Unknown).count())
    }
}

/// What a key is.
#[derive(Clone, Copy)]
enum Kind {
    Config,
    Secret,
    Service,
}

fn kind(key: usize) -> Kind {
    match key % 3 {
        0 => Kind::Config,
        1 => Kind::Secret,
        _ => Kind::Service,
    }
}

impl Kind {
    fn name(self, key: usize) -> String {
        match self {
            Self::Config => format!("chaos-config-{key}"),
            Self::Secret => format!("chaos-secret-{key}"),
            Self::Service => format!("chaos-service-{key}"),
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Config => "/configs",
            Self::Secret => "/secrets",
            Self::Service => "/services",
        }
    }

    fn spec(self, key: usize, value: u64) -> Value {
        let (name, labels) = (self.name(key), json!({ LABEL: value.to_string() }));
        match self {
            Self::Config | Self::Secret => {
                json!({ "Name": name, "Labels": labels, "Data": "eA==" })
            }
            Self::Service => json!({
                "Name": name,
                "Labels": labels,
                "TaskTemplate": { "ContainerSpec": { "Image": crate::lab::IMAGE } },
                "Mode": { "Replicated": { "Replicas": 0 } },
            }),
        }
    }
}

/// One client's call on one key with one manager.
struct One<'a> {
    work: &'a Work,
    client: usize,
    manager: usize,
    key: usize,
}

impl One<'_> {
    fn name(&self) -> String {
        kind(self.key).name(self.key)
    }

    fn ask(&self, line: &str, body: Option<&Value>) -> Result<Reply, Failure> {
        ask(&self.work.sockets[self.manager], line, "", body)
    }

    fn record(&self, call: Call, begun: u64, answer: Answer) {
        let op = Op { call, answer, begun, ended: self.work.now() };
        let Self { client, manager, key, .. } = *self;
        self.work.records.lock().unwrap().push(Record { client, manager: manager + 1, key, op });
    }

    fn is_odd(&self, what: &str, reply: &Reply) {
        let text = format!("{} of {}: {} {}", what, self.name(), reply.status, reply.message());
        self.work.odd.lock().unwrap().push(text);
    }

    fn path(&self, more: &str) -> String {
        format!("{}/{}{more}", kind(self.key).path(), self.name())
    }

    fn understand(&self, reply: &Reply) -> Option<Seen> {
        let labels = &reply.body["Spec"]["Labels"];
        let seen = (|| {
            let value = labels[LABEL].as_str()?.parse().ok()?;
            let id = reply.body["ID"].as_str()?.to_owned();
            Some(Seen { id, version: reply.body["Version"]["Index"].as_u64()?, value })
        })();
        if seen.is_none() {
            self.is_odd("read", reply);
        }
        seen
    }

    /// Whether there was an answer, and the object.
    fn read(&self) -> Option<Option<Seen>> {
        let begun = self.work.now();
        let reply = self.ask(&format!("GET {}", self.path("")), None).ok()?;
        let seen = match reply.status {
            200 => Some(self.understand(&reply)?),
            404 => None,
            503 => return None,
            _ => {
                self.is_odd("read", &reply);
                return None;
            }
        };
        let value = seen.as_ref().map(|seen| seen.value);
        self.record(Call::Read, begun, Answer::Value(value));
        Some(seen)
    }

    /// A read that may be old must say so, and must be of something that somebody wrote.
    fn read_stale(&self) {
        let Ok(reply) = self.ask(&format!("GET {}?stale=true", self.path("")), None) else {
            return;
        };
        match reply.status {
            200 if !reply.head.contains("x-swarm-stale: true") => {
                self.is_odd("unmarked read", &reply)
            }
            200 => {
                let known = self.work.values.load(Ordering::Relaxed);
                let Some(seen) = self.understand(&reply) else { return };
                if seen.value >= known {
                    self.is_odd("stale read of a value that nobody wrote", &reply);
                }
                self.work.stale.fetch_add(1, Ordering::Relaxed);
            }
            404 | 503 => {}
            _ => self.is_odd("stale read", &reply),
        }
    }

    fn create(&self) {
        let value = self.work.values.fetch_add(1, Ordering::Relaxed);
        let line = format!("POST {}/create", kind(self.key).path());
        self.change(Call::Create(value), &line, Some(&kind(self.key).spec(self.key, value)));
    }

    fn swap(&self) {
        let Some(Some(seen)) = self.read() else { return };
        let to = self.work.values.fetch_add(1, Ordering::Relaxed);
        let (kind, version) = (kind(self.key), seen.version);
        let line = format!("POST {}/{}/update?version={version}", kind.path(), seen.id);
        let call = Call::Swap { from: seen.value, to };
        self.change(call, &line, Some(&kind.spec(self.key, to)));
    }

    fn remove(&self) {
        self.change(Call::Remove, &format!("DELETE {}", self.path("")), None);
    }

    /// A call that changes something: done, refused, unknown; or certainly not done, which is not in
    /// the history, so that a trace of it that somebody reads is a lie.
    fn change(&self, call: Call, line: &str, body: Option<&Value>) {
        let begun = self.work.now();
        let is_swap = matches!(call, Call::Swap { .. });
        let answer = match self.ask(line, body) {
            Err(Failure::NotSent) => return,
            Err(Failure::NoAnswer) => Answer::Unknown,
            Ok(reply) => match reply.status {
                200 | 201 | 204 => Answer::Done,
                404 | 409 => Answer::Refused,
                500 if is_swap && reply.message().ends_with("update out of sequence") => {
                    Answer::Refused
                }
                504 => Answer::Unknown,
                503 | 507 => return,
                _ => {
                    self.is_odd(line, &reply);
                    Answer::Unknown
                }
            },
        };
        self.record(call, begun, answer);
    }
}
