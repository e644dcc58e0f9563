//! A simulated machine: a disk, a clock that people may set, and while it runs a process, which is a
//! tokio executor of its own on simulated time. To drop the executor is to kill the process.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm::domain::timing::Timing;
use swarm::domain::{NodeId, RaftId, Timestamp};
use swarm::env::{Clock, Env, Faults, Instant, Machine, Scope};
use swarm::raft::{self, Compaction, Error, Handle, Settings};
use tokio::runtime::{Builder, RngSeed, Runtime};

use crate::chance::{Chance, SeededEntropy};
use crate::device::{Death, SimDevice};
use crate::net::{self, Host, Message, Net, State};
use crate::oracle::Oracle;

/// Where simulated history begins: 2026-01-01.
const EPOCH: u64 = 1_767_225_600_000_000_000;

/// How a member's log is cut, so that snapshots are made and sent in a run of a minute.
const COMPACTION: Compaction = Compaction { entries: 60, kept: 20, bytes: 200 << 10 };

/// Looks at the clock while time stands still, from which on somebody must be running in circles: time
/// only goes on when everybody waits.
const CIRCLES: u64 = 500_000;

#[derive(Debug)]
pub(crate) struct SimClock {
    /// Simulated time when the process started.
    started_at: Duration,
    started: tokio::time::Instant,
    skew_millis: Arc<AtomicI64>,
    /// The last look in nanoseconds, and looks since then that saw no other time.
    last: AtomicU64,
    looks: AtomicU64,
}

impl SimClock {
    pub(crate) fn new(
        started_at: Duration,
        started: tokio::time::Instant,
        skew_millis: &Arc<AtomicI64>,
    ) -> Self {
        let skew_millis = Arc::clone(skew_millis);
        Self { started_at, started, skew_millis, last: AtomicU64::new(0), looks: AtomicU64::new(0) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = self.started_at + self.started.elapsed();
        let true_time = EPOCH.saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX));
        let skew = self.skew_millis.load(Ordering::Relaxed).saturating_mul(1_000_000);
        Timestamp(true_time.saturating_add_signed(skew))
    }

    fn instant(&self) -> Instant {
        let now = self.started_at + self.started.elapsed();
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        if self.last.swap(nanos, Ordering::Relaxed) != nanos {
            self.looks.store(0, Ordering::Relaxed);
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        assert!(looks != CIRCLES, "somebody runs in circles: time stands still at {now:?}");
        Instant(now)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// What a simulated machine is, the same on every machine that simulates.
#[derive(Debug)]
pub(crate) struct SimMachine {
    pub(crate) host: Host,
}

impl Machine for SimMachine {
    /// As many as the engine's model says: a node does not shrink while its engine is silent.
    fn cores(&self) -> usize {
        4
    }

    fn hostname(&self) -> Option<String> {
        Some(format!("host-{}", self.host))
    }

    fn memory_bytes(&self) -> Option<i64> {
        Some(8 << 30)
    }
}

/// What a member is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership {
    pub(crate) raft_id: RaftId,
    pub(crate) node: NodeId,
}

/// How a start went; filled in by the process.
type Started = Arc<Mutex<Option<Result<Handle, Error>>>>;

struct Process {
    executor: Runtime,
    scope: Scope,
    env: Env,
    /// The executor's time and the simulation's at its start.
    epoch: (tokio::time::Instant, Duration),
    outcome: Started,
    /// Once it has started.
    handle: Option<Handle>,
}

/// A machine.
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) device: SimDevice,
    pub(crate) membership: Option<Membership>,
    /// Set when bits were flipped: the log's least end before.
    pub(crate) flipped: Option<(String, u64)>,
    pub(crate) is_quarantined: bool,
    pub(crate) paused_until: Duration,
    skew_millis: Arc<AtomicI64>,
    process: Option<Process>,
    chance: Chance,
    net: Net,
    faults: Faults,
    pub(crate) starts: u64,
}

/// What a process did that its machine's owner must know.
pub(crate) enum Occurrence {
    Started(Handle),
    Refused(Error),
    Died(Death),
}

impl Server {
    pub(crate) fn new(host: Host, mut chance: Chance, net: Net, faults: Faults) -> Self {
        let device = SimDevice::new(chance.fork(1));
        Self {
            host,
            device,
            membership: None,
            flipped: None,
            is_quarantined: false,
            paused_until: Duration::ZERO,
            skew_millis: Arc::default(),
            process: None,
            chance,
            net,
            faults,
            starts: 0,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.process.as_ref().and_then(|process| process.handle.as_ref())
    }

    pub(crate) fn set_clock(&self, by_millis: i64) {
        self.skew_millis.store(by_millis, Ordering::Relaxed);
    }

    pub(crate) fn settings(&self, membership: Membership) -> Settings {
        Settings {
            dir: "/m".into(),
            raft_id: membership.raft_id,
            node: membership.node,
            addr: net::addr(self.host),
            timing: Timing::DEFAULT,
            key: [7; 32],
            compaction: COMPACTION,
        }
    }

    /// Starts a process, which starts the member.
    pub(crate) fn start(&mut self, now: Duration) {
        let Some(membership) = self.membership else { return };
        self.starts += 1;
        let seed = self.chance.next().to_le_bytes();
        let executor = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed))
            .build()
            .unwrap();
        let started = executor.block_on(async { tokio::time::Instant::now() });
        let env = Env {
            clock: Arc::new(SimClock::new(now, started, &self.skew_millis)),
            entropy: Arc::new(SeededEntropy::new(self.chance.fork(2))),
            device: Arc::new(self.device.clone()),
            machine: Arc::new(SimMachine { host: self.host }),
            faults: self.faults,
            meters: Arc::default(),
        };
        let scope = Scope::simulated("host", Arc::new(self.device.clone()));
        let outcome = Started::default();
        let (settings, link) = (self.settings(membership), self.net.link(self.host, &env));
        executor.block_on(async {
            let (env, outer, outcome) = (env.clone(), scope.clone(), Arc::clone(&outcome));
            scope.spawn("start", async move {
                let started = raft::start(settings, env, link, &outer).await;
                *outcome.lock().unwrap() = Some(started);
            });
        });
        let epoch = (started, now);
        self.process = Some(Process { executor, scope, env, epoch, outcome, handle: None });
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self, death: Death) {
        self.process = None;
        self.device.reboot(death);
        let state = if death == Death::PowerCut { State::Silent } else { State::Refuses };
        self.net.set_machine(self.host, state);
    }

    /// Runs a routine in the process.
    pub(crate) fn spawn(&self, routine: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            process.executor.block_on(async { process.scope.spawn("routine", routine) });
        }
    }

    pub(crate) fn env(&self) -> Option<Env> {
        self.process.as_ref().map(|process| process.env.clone())
    }

    /// Lets time pass until `until`; messages that have arrived are answered.
    pub(crate) fn step(
        &mut self,
        until: Duration,
        messages: Vec<Message>,
        oracle: &Arc<Mutex<Oracle>>,
    ) -> Option<Occurrence> {
        let (host, net) = (self.host, self.net.clone());
        let was_paused = self.paused_until > Duration::ZERO;
        self.paused_until = Duration::ZERO;
        let process = self.process.as_mut()?;
        let inbound = process.handle.as_ref().map(Handle::inbound);
        let deadline = process.epoch.0 + until.saturating_sub(process.epoch.1);
        let scope = &process.scope;
        process.executor.block_on(async {
            if was_paused {
                // Time passed, and nothing else.
                let missed = deadline.saturating_duration_since(tokio::time::Instant::now());
                tokio::time::advance(missed.saturating_sub(Duration::from_millis(1))).await;
            }
            for message in messages {
                match message {
                    Message::Reply { id, reply } => net.complete(id, reply),
                    Message::Packet { .. } | Message::Due { .. } => {}
                    Message::Request { id, from, to, call } => {
                        let (net, inbound) = (net.clone(), inbound.clone());
                        let oracle = Arc::clone(oracle);
                        scope.spawn("serve", async move {
                            let reply = crate::ballot::answer(inbound, to, call, &oracle).await;
                            net.answer(host, from, id, reply);
                        });
                    }
                }
            }
            tokio::time::sleep_until(deadline).await;
        });
        if let Some(death) = self.device.death() {
            return Some(Occurrence::Died(death));
        }
        let outcome = process.outcome.lock().unwrap().take();
        match outcome? {
            Ok(handle) => {
                process.handle = Some(handle.clone());
                self.net.set_machine(host, State::Serves);
                Some(Occurrence::Started(handle))
            }
            Err(error) => Some(Occurrence::Refused(error)),
        }
    }
}
