//! The processes that write, are killed, and say what they find: this test binary, started again.
//!
//! They talk in lines that begin with `@`: what they are about to do, what they consider done, what
//! they found when they started. A line is written before the next call to the disk.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use swarm::domain::secret::PayloadSpec;
use swarm::domain::timing::Timing;
use swarm::domain::{Config, ConfigId, Meta, NodeId, RaftId};
use swarm::env::disk::{LogDisk, LogKind, OpenError, Record};
use swarm::env::{Canary, Device, Env, Faults, Scope, SystemDevice, files};
use swarm::raft::{self, Compaction, Error, Handle, Peer, PeerError, PeerLink, ProposeError};
use swarm::state::{Change, Expect, Object, View};
use swarm::wire::manager::{ProposeReply, ProposeRequest};

use crate::chance::Chance;

pub(crate) const ROLE: &str = "SWARM_POWER_ROLE";
pub(crate) const DIR: &str = "SWARM_POWER_DIR";
pub(crate) const KIND: &str = "SWARM_POWER_KIND";
pub(crate) const SEED: &str = "SWARM_POWER_SEED";
/// The number of the first thing to write.
pub(crate) const FIRST: &str = "SWARM_POWER_FIRST";
/// How many to write; without end if absent.
pub(crate) const COUNT: &str = "SWARM_POWER_COUNT";
/// A bug made on purpose.
pub(crate) const CANARY: &str = "SWARM_POWER_CANARY";

const LIMIT: Duration = Duration::from_secs(20);

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The test runner writes to the same pipe, and ends none of its lines in time.
    writeln!(out, "\n@ {line}").unwrap();
    out.flush().unwrap();
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    given(name).map(|text| text.parse().unwrap())
}

/// Not a test but a process, where the environment says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process() {
    let Some(role) = given(ROLE) else { return };
    let dir = PathBuf::from(given(DIR).unwrap());
    let kind: LogKind = given(KIND).unwrap().parse().unwrap();
    let device = SystemDevice::new(kind);
    let canary = given(CANARY).map(|name| {
        Canary::RAFT
            .into_iter()
            .chain([Canary::FloorIgnored])
            .find(|canary| format!("{canary:?}") == name)
            .unwrap()
    });
    let faults = canary.map_or(Faults::NONE, Faults::with);
    let env = Env { device: Arc::new(device), faults, ..Env::system() };
    match role.as_str() {
        "log" => log(&device, &dir),
        "manager" => manager(&env, &dir).await,
        "check" => check(&env, &dir).await,
        "file" => file(&dir),
        other => panic!("what is {other}?"),
    }
}

/// What a record of an index holds, as some operation wrote it.
fn content(operation: u64, index: u64) -> Vec<u8> {
    let mut chance = Chance::new(operation ^ index.rotate_left(32));
    let mut bytes = operation.to_le_bytes().to_vec();
    let length = if chance.is(20) { 4_088 } else { chance.index(600) };
    bytes.resize(8 + length, 0);
    bytes[8..].fill_with(|| chance.next().to_le_bytes()[0]);
    bytes
}

/// Which operation wrote a record; 0 if it is not what any wrote.
fn written_by(record: &Record) -> u64 {
    let operation = record.bytes.get(..8).and_then(|bytes| bytes.try_into().ok());
    let operation = operation.map_or(0, u64::from_le_bytes);
    if record.bytes == content(operation, record.index) { operation } else { 0 }
}

/// Drives the log's disk: appends, cuts, purges and named values, and a barrier after some of them.
fn log(device: &SystemDevice, dir: &Path) {
    let disk = match device.open_log(dir) {
        Ok(disk) => disk,
        Err(OpenError::Damaged(what)) => return say(&format!("refused {what}")),
        Err(error) => panic!("{error}"),
    };
    let vote =
        disk.meta("vote").unwrap().map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let mut found = Vec::new();
    let scanned = disk.scan(0..=u64::MAX, &mut |record| {
        found.push((record.index, written_by(&record)));
        Ok(())
    });
    scanned.unwrap();
    // What a killed process left in the page cache counts from now on.
    disk.barrier().unwrap_or_else(|error| device.end(&error));
    let text: Vec<String> = found.iter().map(|(index, by)| format!("{index}={by}")).collect();
    say(&format!("found {} {}", vote.unwrap_or_default(), text.join(" ")));
    let mut chance = Chance::new(number(SEED).unwrap());
    let first = found.first().map_or(1, |(index, _)| *index);
    let mut span = (first, found.last().map_or(first, |(index, _)| index + 1));
    let mut operation = number(FIRST).unwrap();
    loop {
        for _ in 0..=chance.below(3) {
            operate(&*disk, &mut span, operation, &mut chance);
            operation += 1;
        }
        disk.barrier().unwrap_or_else(|error| device.end(&error));
        say("ack");
    }
}

/// One operation on the indexes `first..next`.
fn operate(disk: &dyn LogDisk, span: &mut (u64, u64), operation: u64, chance: &mut Chance) {
    let (first, next) = *span;
    let length = next - first;
    let done = match chance.below(100) {
        0..8 if length > 10 => {
            let last = next - 1 - chance.below(10);
            say(&format!("cut {operation} {last}"));
            span.1 = last + 1;
            disk.truncate_after(Some(last))
        }
        8..12 if length > 200 => {
            let upto = first + chance.below(length - 100);
            say(&format!("purge {operation} {upto}"));
            span.0 = upto + 1;
            disk.purge_to(upto)
        }
        12..25 => {
            say(&format!("vote {operation}"));
            disk.put_meta("vote", operation.to_le_bytes().to_vec())
        }
        _ => {
            let end = next + 1 + chance.below(20);
            say(&format!("append {operation} {next} {end}"));
            let record = |index| Record { index, part: 0, bytes: content(operation, index) };
            span.1 = end;
            disk.append((next..end).map(record).collect())
        }
    };
    if let Err(error) = done {
        SystemDevice::default().end(&error);
    }
}

trait End {
    fn end(&self, error: &std::io::Error) -> !;
}

impl End for SystemDevice {
    fn end(&self, error: &std::io::Error) -> ! {
        let device: &dyn Device = self;
        device.give_up("the disk", error)
    }
}

/// A file that is replaced again and again.
fn file(dir: &Path) {
    let path = dir.join("node.json");
    let found = files::read(&path).unwrap();
    let text = found.map_or_else(|| "0".to_owned(), |bytes| String::from_utf8(bytes).unwrap());
    let version = text.split(' ').next().unwrap().parse::<u64>();
    let is_whole = version.as_ref().is_ok_and(|version| *version == 0 || text == long(*version));
    say(&format!("found {}", if is_whole { version.unwrap().to_string() } else { "torn".into() }));
    for version in number(FIRST).unwrap().. {
        say(&format!("try {version}"));
        if let Err(error) = files::replace(&path, long(version).as_bytes()) {
            say(&format!("refused {error}"));
            return;
        }
        say(&format!("ack {version}"));
    }
}

/// More than one page.
fn long(version: u64) -> String {
    format!("{version} {}", version.to_string().repeat(2_000))
}

/// Nobody else is in the group.
#[derive(Debug)]
struct Alone;

#[async_trait]
impl PeerLink for Alone {
    async fn vote(&self, _: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn append(&self, _: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn transfer(&self, _: Peer, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn snapshot(&self, _: Peer, _: Bytes, _: Bytes, _: Duration) -> Result<Bytes, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn propose(
        &self,
        _: Peer,
        _: ProposeRequest,
        _: Duration,
    ) -> Result<ProposeReply, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn read_index(&self, _: Peer, _: Duration) -> Result<u64, PeerError> {
        Err(PeerError::Timeout)
    }

    async fn closed(&self, _: Peer) {
        std::future::pending().await
    }
}

fn settings(dir: &Path) -> raft::Settings {
    // Snapshots and purges are a part of what is tested; a run with an end leaves a longer log.
    let (entries, kept) = if given(COUNT).is_some() { (1_000, 900) } else { (60, 10) };
    raft::Settings {
        dir: dir.to_owned(),
        raft_id: RaftId(1),
        node: NodeId::from_bytes([1; 16]),
        addr: SocketAddr::from(([192, 0, 2, 1], 2377)),
        timing: Timing::DEFAULT,
        key: [1; 32],
        compaction: Compaction { entries, kept, bytes: 16 << 20 },
    }
}

/// A config whose content follows from its number.
fn config(number: u64) -> Change {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let spec = PayloadSpec { name: format!("config-{number}"), ..PayloadSpec::default() };
    let data = payload(number);
    let id = ConfigId::from_bytes(id);
    let config = Config { id, meta: Meta::default(), spec, data: data.into() };
    Change::Put { object: Object::Config(Arc::new(config)), expect: Expect::Any }
}

fn payload(number: u64) -> Vec<u8> {
    let mut chance = Chance::new(number);
    let length = if chance.is(20) { 20_000 } else { 20 + chance.index(500) };
    std::iter::repeat_with(|| chance.next().to_le_bytes()[0]).take(length).collect()
}

fn say_view(view: &View) {
    let numbers = view.configs.values().map(|config| {
        let number = u64::from_be_bytes(config.id.to_bytes()[8..].try_into().unwrap());
        let is_whole = &config.data[..] == payload(number).as_slice();
        if is_whole { number.to_string() } else { format!("{number}!") }
    });
    let numbers: Vec<String> = numbers.collect();
    say(&format!("found {}", numbers.join(" ")));
}

/// A manager alone, that writes configs.
async fn manager(env: &Env, dir: &Path) {
    let scope = Scope::root("manager");
    let started = raft::start(settings(dir), env.clone(), Arc::new(Alone), &scope).await;
    let handle = match started {
        Ok(handle) => handle,
        Err(error) => return say(&format!("refused {error}")),
    };
    match handle.bootstrap(vec![]).await {
        Ok(()) | Err(Error::Begun) => {}
        Err(error) => return say(&format!("refused {error}")),
    }
    let mut leadership = handle.store().leadership();
    let leads = leadership.wait_for(|now| now.is_self);
    env.clock.timeout(LIMIT, leads).await.unwrap().unwrap();
    let view = handle.store().read_index(LIMIT).await.unwrap();
    say(&format!("term {}", handle.progress().term));
    say_view(&view);
    write(env, &handle).await;
    handle.shutdown().await;
    say("end");
}

async fn write(env: &Env, handle: &Handle) {
    let first = number(FIRST).unwrap();
    let end = number(COUNT).map_or(u64::MAX, |count| first + count);
    for number in first..end {
        loop {
            say(&format!("try {number}"));
            match handle.store().propose(None, vec![config(number)], LIMIT).await {
                Ok(_) => break say(&format!("ack {number}")),
                Err(ProposeError::NoSpace(why)) => say(&format!("full {why}")),
                Err(error) => say(&format!("failed {error}")),
            }
            env.clock.sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What a manager's folder holds, without writing to it.
async fn check(env: &Env, dir: &Path) {
    match raft::salvage(&settings(dir), env, &Scope::root("check")).await {
        Ok(salvaged) => {
            say(&format!("term {}", salvaged.term));
            say_view(&salvaged.view);
        }
        Err(error) => say(&format!("refused {error}")),
    }
}
