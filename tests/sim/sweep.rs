//! Many seeds on all cores; of the first one that fails, as few faults as it takes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use swarm::env::{Canary, Faults};

use crate::chance::Chance;
use crate::cluster;
use crate::timeline::{Kind, Plan, Profile};
use crate::world::{self, Outcome};

/// Seeds from which on every kind of fault must have struck.
const ENOUGH: u64 = 60;
/// How long shrinking may take.
const SHRINKING: Duration = Duration::from_secs(90);
/// Runs that shrinking may take.
const SHRINKS: usize = 40;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    profile: Profile,
    first: u64,
    seeds: u64,
    /// The faults of the timeline to keep, by number.
    only: Option<Vec<usize>>,
    faults: Faults,
}

impl Request {
    /// `SIM_SEED` with `SIM_ONLY` for one run, `SIM_SEEDS` from `SIM_FIRST` on for many; with the bug
    /// `SIM_CANARY` made on purpose.
    pub(crate) fn from_environment(profile: Profile, seeds: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
        let only = std::env::var("SIM_ONLY").ok().filter(|text| !text.is_empty());
        let only = only.map(|text| text.split(',').map(|number| number.parse().unwrap()).collect());
        let canary = std::env::var("SIM_CANARY").ok();
        let canary = canary.map(|name| {
            let mut all = Canary::RAFT.iter().chain(&Canary::CLUSTER);
            *all.find(|canary| format!("{canary:?}") == name).unwrap()
        });
        let faults = canary.map_or(Faults::NONE, Faults::with);
        match number("SIM_SEED") {
            Some(seed) => Self { profile, first: seed, seeds: 1, only, faults },
            None => Self {
                profile,
                first: number("SIM_FIRST").unwrap_or(1),
                seeds: number("SIM_SEEDS").unwrap_or(seeds),
                only,
                faults,
            },
        }
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// In a simulation a panic is a finding: in production it ends the process.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_simulated = PANICS.with_borrow_mut(|panics| match panics {
                Some(panics) => {
                    panics.push(panic.to_string());
                    true
                }
                None => false,
            });
            if !is_simulated {
                before(panic);
            }
        }));
    });
}

/// The plan of a seed.
pub(crate) fn plan(profile: Profile, seed: u64) -> Plan {
    Plan::draw(profile, &mut Chance::new(seed))
}

fn simulate(seed: u64, plan: Plan, faults: Faults) -> Outcome {
    match plan.profile {
        Profile::Raft => world::run(seed, plan, faults),
        Profile::Cluster | Profile::Big => cluster::run(seed, plan, faults),
    }
}

/// Runs a plan, on a thread of its own so that nothing of another run is in the way.
pub(crate) fn run_plan(seed: u64, plan: Plan, faults: Faults) -> Outcome {
    catch_panics();
    PANICS.set(Some(Vec::new()));
    let mut outcome = match std::env::var("SIM_LOG") {
        Ok(filter) => {
            tracing::subscriber::with_default(log(&filter), || simulate(seed, plan, faults))
        }
        Err(_) => simulate(seed, plan, faults),
    };
    let panics = PANICS.take().unwrap_or_default();
    if let (None, Some(panic)) = (&outcome.violation, panics.first()) {
        outcome.violation = Some(format!("I32: {panic}"));
    }
    outcome
}

fn log(filter: &str) -> impl tracing::Subscriber + Send + Sync + 'static {
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).finish()
}

/// Runs a seed.
pub(crate) fn one(profile: Profile, seed: u64, faults: Faults) -> Outcome {
    run_plan(seed, plan(profile, seed), faults)
}

#[derive(Default)]
struct Total {
    fired: BTreeMap<Kind, u64>,
    written: u64,
    read: u64,
    unknown: u64,
    refused: u64,
    leaders: u64,
    snapshots: u64,
    simulated: f64,
    answers: BTreeMap<(&'static str, u16), u64>,
    started: u64,
    stopped: u64,
    lost_nodes: u64,
    strict: u64,
    told: u64,
    turns: u64,
    roles: u64,
    failed: Option<(u64, String)>,
}

/// Runs what was asked for; panics with what was found.
pub(crate) fn run(request: &Request) {
    let began = Instant::now();
    let next = AtomicU64::new(request.first);
    let total = Mutex::new(Total::default());
    let end = request.first + request.seeds;
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || total.lock().unwrap().failed.is_some() {
                        return;
                    }
                    let mut plan = plan(request.profile, seed);
                    keep(&mut plan, request.only.as_deref());
                    // Not within the call below: the lock would be held for the whole run.
                    let outcome = run_plan(seed, plan, request.faults);
                    add(&mut total.lock().unwrap(), seed, outcome);
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    let took = began.elapsed().as_secs_f64();
    println!(
        "{:?}: {} seeds, {:.0} simulated seconds in {took:.0} s; {} writes and {} reads answered, \
         {} unknown, {} refused; {} leaders, {} snapshots taken over",
        request.profile,
        request.seeds,
        total.simulated,
        total.written,
        total.read,
        total.unknown,
        total.refused,
        total.leaders,
        total.snapshots
    );
    if request.profile != Profile::Raft {
        let answers =
            total.answers.iter().map(|((what, status), n)| format!("{what} {status} {n}"));
        println!("users: {}", answers.collect::<Vec<_>>().join(", "));
        println!(
            "{} containers began, {} were stopped; {} times a node was called down; the strict rules \
             applied {} times; {} changes of roles, {} slots withdrawn by updates, users were told {} \
             news",
            total.started,
            total.stopped,
            total.lost_nodes,
            total.strict,
            total.roles,
            total.turns,
            total.told
        );
    }
    let fired: Vec<String> =
        total.fired.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
    println!("faults: {}", fired.join(", "));
    if let Some((seed, violation)) = total.failed {
        explain(request, seed, &violation);
    }
    if request.seeds >= ENOUGH {
        let missing: Vec<_> =
            request.profile.kinds().iter().filter(|kind| !total.fired.contains_key(kind)).collect();
        assert!(missing.is_empty(), "coverage: these faults never struck: {missing:?}");
        assert!(total.snapshots > 0, "coverage: no member was ever brought up by a snapshot");
    }
}

fn add(total: &mut Total, seed: u64, outcome: Outcome) {
    let Outcome { violation, counts, fired, lasted, .. } = outcome;
    for (kind, count) in fired {
        *total.fired.entry(kind).or_default() += count;
    }
    total.written += counts.written + counts.swapped;
    total.read += counts.read;
    total.unknown += counts.unknown;
    total.refused += counts.refused;
    total.leaders += counts.leaders;
    total.snapshots += counts.snapshots;
    total.simulated += lasted.as_secs_f64();
    for (answer, count) in counts.answers {
        *total.answers.entry(answer).or_default() += count;
    }
    total.started += counts.started;
    total.stopped += counts.stopped;
    total.lost_nodes += counts.lost_nodes;
    total.strict += counts.strict;
    total.told += counts.told;
    total.turns += counts.turns;
    total.roles += counts.roles;
    if let Some(violation) = violation {
        total.failed.get_or_insert((seed, violation));
    }
}

fn keep(plan: &mut Plan, only: Option<&[usize]>) {
    if let Some(only) = only {
        let mut at = 0;
        plan.faults.retain(|_| {
            at += 1;
            only.contains(&(at - 1))
        });
    }
}

/// Leaves faults out while the run still fails, and says what is left.
fn explain(request: &Request, seed: u64, violation: &str) -> ! {
    let only = request.only.as_deref();
    println!("seed {seed} fails: {violation}\nlooking for the faults that it takes …");
    let whole = plan(request.profile, seed);
    let mut kept: Vec<usize> = only.map_or_else(|| (0..whole.faults.len()).collect(), Vec::from);
    let mut violation = violation.to_owned();
    let (mut runs, mut size) = (0, kept.len().div_ceil(2).max(1));
    let began = Instant::now();
    while runs < SHRINKS && began.elapsed() < SHRINKING && !kept.is_empty() {
        let mut has_shrunk = false;
        let mut at = 0;
        while at < kept.len() && runs < SHRINKS && began.elapsed() < SHRINKING {
            let fewer: Vec<usize> = kept
                .iter()
                .enumerate()
                .filter(|(i, _)| !(at..at + size).contains(i))
                .map(|(_, it)| *it)
                .collect();
            let mut plan = whole.clone();
            keep(&mut plan, Some(&fewer));
            runs += 1;
            if let Some(found) = run_plan(seed, plan, request.faults).violation {
                (kept, violation, has_shrunk) = (fewer, found, true);
            } else {
                at += size;
            }
        }
        if size == 1 && !has_shrunk {
            break;
        }
        size = (size / 2).max(1);
    }
    println!("{} managers, {} workers; the faults that it takes:", whole.managers, whole.workers);
    for number in &kept {
        println!("  {number:>2}  {}", whole.faults[*number]);
    }
    let only: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let profile = format!("{:?}", request.profile).to_lowercase();
    println!(
        "again: ./scripts/sim.sh --profile {profile} --seed {seed} --only '{}'",
        only.join(",")
    );
    panic!("seed {seed}: {violation}");
}
