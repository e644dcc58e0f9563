//! Whatever comes from outside is read without a panic, in bounded time and memory.
//!
//! Every target has a corpus (`tests/fuzz/corpus/<target>/`), which is replayed on every run, and is
//! then fed mutations of it: bytes are flipped, cut, repeated and spliced; texts get words of their own
//! language; JSON is changed as a tree. Without further ado a run takes seconds; `scripts/fuzz.sh` runs
//! for as long as it is told. An input that fails is kept beside the corpus and named with the command
//! that repeats it (docs/adr/0026).

mod mutate;
mod targets;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// One input may take so long, on a machine that has other things to do as well.
const TIME_MAX: Duration = Duration::from_secs(5);
/// How much the process may grow over one input, in bytes.
const GROWTH_MAX: u64 = 256 << 20;
/// Mutations of a run that nobody gave time to.
const SHORT: usize = 1_500;
/// Largest input.
const INPUT_MAX: usize = 64 << 10;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The committed inputs of a target, and its own encodings.
fn seeds(target: &Target) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (number, seed) in (target.seeds)().into_iter().enumerate() {
        all.insert(format!("made-{number}"), seed);
    }
    let entries = std::fs::read_dir(corpus(target.name));
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        all.insert(name, std::fs::read(entry.path()).unwrap());
    }
    assert!(!all.is_empty(), "{}: nothing to begin with", target.name);
    all
}

thread_local! {
    /// Whether a panic of this thread is a finding rather than the end of a test.
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a target on an input; what is wrong with how it took it.
#[expect(clippy::disallowed_methods, reason = "an input that takes for ever is a finding")]
fn attempt(target: &Target, input: &[u8]) -> Result<(), String> {
    let before = resident();
    let began = Instant::now();
    PANIC.with_borrow_mut(String::clear);
    LISTENING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    LISTENING.set(false);
    let took = began.elapsed();
    // A routine's panic ends no test by itself, but a daemon.
    let panic = PANIC.with_borrow(Clone::clone);
    if outcome.is_err() || !panic.is_empty() {
        return Err(panic);
    }
    if took > TIME_MAX {
        return Err(format!("it took {took:?}"));
    }
    let grown = resident().saturating_sub(before);
    if grown > GROWTH_MAX {
        return Err(format!("the process grew by {} MiB", grown >> 20));
    }
    Ok(())
}

/// Keeps what panics say while a target runs; all others are printed as ever.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if LISTENING.get() {
                PANIC.with_borrow_mut(|text| *text = panic.to_string());
            } else {
                print(panic);
            }
        }));
    });
}

/// Bytes of memory in use.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// Keeps an input that failed, and says how to repeat it.
fn keep(target: &Target, input: &[u8], what: &str) -> ! {
    let digest = crate::env::seal::digest(input);
    let name: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = corpus(target.name);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("crash-{name}"));
    std::fs::write(&path, input).unwrap();
    panic!(
        "target {}: {what}\ninput: {}\nrepeat: ./scripts/fuzz.sh --target {} --seconds 0",
        target.name,
        path.display(),
        target.name
    );
}

#[expect(clippy::disallowed_methods, reason = "a run takes as long as its user says")]
fn fuzz(name: &str) {
    listen();
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|it| it.parse::<u64>().ok());
    if !wanted.is_empty() && wanted != name {
        return;
    }
    let corpus: Vec<Vec<u8>> = seeds(target).into_values().collect();
    for input in &corpus {
        if let Err(what) = attempt(target, input) {
            keep(target, input, &what);
        }
    }
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    let mut mutator = Mutator::new(seed, target.kind, corpus);
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut runs = 0usize;
    while until.map_or(runs < SHORT, |until| Instant::now() < until) {
        let mut input = mutator.next();
        input.truncate(INPUT_MAX);
        if let Err(what) = attempt(target, &input) {
            keep(target, &input, &what);
        }
        runs += 1;
    }
    println!("fuzz {name}: {runs} mutations of {} inputs, seed {seed}", mutator.seeds());
}

/// One test for each target, so that a failure names it and they run beside one another.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(run.as_slice(), known);
        }
    };
}

targets![
    raft_message,
    raft_append,
    raft_snapshot,
    log_record,
    floor_file,
    stored_object,
    stored_change,
    agent_messages,
    agent_session,
    manager_messages,
    ledger_diff,
    service_spec,
    cluster_spec,
    node_spec,
    join_token,
    certificate,
    certificate_request,
    credentials,
    apply,
    planner,
    dns_query,
    dns_reply,
    constraint,
    flag_values,
    bind_path,
    file_target,
    engine_container,
    task_template,
    format_template,
    filters,
    backup,
];
