//! Starting processes, hearing what they say, and killing them.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use swarm::env::disk::LogKind;

use crate::child;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Role<'a> {
    pub(crate) name: &'static str,
    pub(crate) kind: LogKind,
    pub(crate) dir: &'a Path,
    pub(crate) seed: u64,
    pub(crate) first: u64,
    pub(crate) count: Option<u64>,
    pub(crate) canary: Option<&'static str>,
}

impl<'a> Role<'a> {
    pub(crate) const fn new(name: &'static str, kind: LogKind, dir: &'a Path) -> Self {
        Self { name, kind, dir, seed: 0, first: 1, count: None, canary: None }
    }
}

/// A process that runs.
pub(crate) struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    InOrder,
    /// By a signal of its own: it gave up.
    Aborted,
    Failed,
}

impl Process {
    pub(crate) fn start(role: &Role<'_>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child::a_process", "--exact", "--nocapture"])
            .env(child::ROLE, role.name)
            .env(child::KIND, role.kind.to_string())
            .env(child::DIR, role.dir)
            .env(child::SEED, role.seed.to_string())
            .env(child::FIRST, role.first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(count) = role.count {
            command.env(child::COUNT, count.to_string());
        }
        if let Some(canary) = role.canary {
            command.env(child::CANARY, canary);
        }
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix("@ ") {
                    heard.lock().unwrap().push(line.to_owned());
                }
            }
        });
        Self { child, lines, reader: Some(reader) }
    }

    pub(crate) fn has_said(&self, word: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.starts_with(word))
    }

    /// How many lines begin with a word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.starts_with(word)).count()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for something.
    pub(crate) fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let mut waited = Duration::ZERO;
        while !is_so(self) {
            std::thread::sleep(POLL);
            waited += POLL;
            if waited > PATIENCE {
                let lines = self.lines.lock().unwrap().join("\n");
                self.child.kill().ok();
                panic!("{what} takes too long; it said:\n{lines}");
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
    }

    /// How it ended, and all that it said.
    pub(crate) fn end(mut self) -> (End, Vec<String>) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let end = match status.signal() {
            Some(6) => End::Aborted,
            Some(_) => End::Failed,
            None if status.success() => End::InOrder,
            None => End::Failed,
        };
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        (end, lines)
    }

    /// Runs a process to its end; `None` if it had to be killed.
    pub(crate) fn run(role: &Role<'_>) -> (Option<End>, Vec<String>) {
        let mut process = Self::start(role);
        let mut waited = Duration::ZERO;
        while !process.has_ended() && waited < PATIENCE {
            std::thread::sleep(POLL);
            waited += POLL;
        }
        let is_hung = !process.has_ended();
        process.kill();
        let (end, lines) = process.end();
        ((!is_hung).then_some(end), lines)
    }
}

/// The words behind the first line that begins with a word.
pub(crate) fn said<'a>(lines: &'a [String], word: &str) -> Option<&'a str> {
    let line = lines.iter().find(|line| line.split(' ').next() == Some(word))?;
    Some(line.split_once(' ').map_or("", |(_, rest)| rest))
}

/// The words behind every line that begins with a word.
pub(crate) fn all_said<'a>(lines: &'a [String], word: &'a str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
}
