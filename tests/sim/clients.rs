//! Clients of one manager, in its process: unique writes, blind writes and compare-and-set on a few
//! registers, linearizable reads; and those who watch what it tells.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarm::domain::secret::PayloadSpec;
use swarm::domain::{Config, Meta, Revision};
use swarm::env::Env;
use swarm::raft::{Handle, ProposeError, Store};
use swarm::state::{Change, Expect, Object, Rejection, View};
use tokio::sync::broadcast::error::RecvError;

use crate::chance::Chance;
use crate::net::Host;
use crate::oracle::{Began, Oracle, REGISTERS, VALUE, config_id};

pub(crate) type Shared = Arc<Mutex<Oracle>>;

/// How long an operation may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Attempts of a client that wants its write done.
const ATTEMPTS: usize = 5;

/// A config; registers hold their value in a label.
pub(crate) fn config(number: u64, value: u64, size: usize) -> Object {
    let spec = PayloadSpec {
        name: format!("config-{number}"),
        labels: [(VALUE.to_owned(), value.to_string())].into(),
        ..PayloadSpec::default()
    };
    let data: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(size).collect();
    let id = config_id(number);
    Object::Config(Arc::new(Config { id, meta: Meta::default(), spec, data: data.into() }))
}

/// The registers' first versions.
pub(crate) fn registers() -> Vec<Change> {
    (0..REGISTERS)
        .map(|number| Change::Put { object: config(number, 0, 8), expect: Expect::Absent })
        .collect()
}

/// A client.
pub(crate) struct Client {
    pub(crate) handle: Handle,
    pub(crate) env: Env,
    pub(crate) oracle: Shared,
    pub(crate) chance: Chance,
    /// Shortest and longest pause between two operations, in milliseconds.
    pub(crate) pace: (u64, u64),
    pub(crate) is_over: Arc<std::sync::atomic::AtomicBool>,
}

impl Client {
    /// Works until it is over.
    pub(crate) async fn run(mut self) {
        let store = self.handle.store();
        loop {
            let pause = self.chance.millis(self.pace.0, self.pace.1);
            self.env.clock.sleep(pause).await;
            if self.is_over.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            match self.chance.below(10) {
                0..4 => self.create(&store).await,
                4 => self.write(&store).await,
                5..7 => self.swap(&store).await,
                _ => self.read(&store).await,
            }
        }
    }

    fn begin(&self, register: Option<u64>) -> Began {
        self.oracle.lock().unwrap().begin(register.map(config_id))
    }

    /// Writes something new; in half of the cases until it is known to be done.
    async fn create(&mut self, store: &Store) {
        let began = self.begin(None);
        let size = if self.chance.permille(50) { 9_000 } else { 64 };
        let object = config(began.number, began.number, size);
        let attempts = if self.chance.permille(500) { ATTEMPTS } else { 1 };
        let mut is_unknown = false;
        for _ in 0..attempts {
            let change = Change::Put { object: object.clone(), expect: Expect::Absent };
            match store.propose(None, vec![change], LIMIT).await {
                Ok(revision) => {
                    return self.oracle.lock().unwrap().created(began, revision.0, !is_unknown);
                }
                Err(error) => is_unknown |= !self.is_certain(&error),
            }
        }
        self.give_up(began, is_unknown);
    }

    async fn write(&mut self, store: &Store) {
        let register = self.chance.below(REGISTERS);
        let began = self.begin(Some(register));
        let change =
            Change::Put { object: config(register, began.number, 8), expect: Expect::Present };
        match store.propose(None, vec![change], LIMIT).await {
            Ok(revision) => {
                let mut oracle = self.oracle.lock().unwrap();
                oracle.wrote(began, config_id(register), None, revision.0);
            }
            Err(error) => self.give_up(began, !self.is_certain(&error)),
        }
    }

    async fn swap(&mut self, store: &Store) {
        let register = self.chance.below(REGISTERS);
        let view = store.view();
        let Some(known) = view.configs.get(&config_id(register)) else { return };
        let over = known.meta.spec_revision;
        let pause = self.chance.millis(0, 100);
        self.env.clock.sleep(pause).await;
        let began = self.begin(Some(register));
        let object = config(register, began.number, 8);
        let change = Change::Put { object, expect: Expect::SpecAt(over) };
        match store.propose(None, vec![change], LIMIT).await {
            Ok(Revision(index)) => {
                let mut oracle = self.oracle.lock().unwrap();
                oracle.wrote(began, config_id(register), Some(over.0), index);
            }
            Err(ProposeError::Rejected(Rejection::Stale { expected, actual })) => {
                self.oracle.lock().unwrap().stale(began, expected.0, actual.0);
            }
            Err(error) => self.give_up(began, !self.is_certain(&error)),
        }
    }

    async fn read(&mut self, store: &Store) {
        let register = self.chance.below(REGISTERS);
        let began = self.begin(Some(register));
        if let Ok(view) = store.read_index(LIMIT).await {
            self.oracle.lock().unwrap().read(began, config_id(register), &view);
        }
    }

    /// Whether an error says that nothing was written.
    fn is_certain(&self, error: &ProposeError) -> bool {
        match error {
            ProposeError::Rejected(rejection) => {
                let mut oracle = self.oracle.lock().unwrap();
                oracle.violate(format!("I8: a write that nothing speaks against: {rejection}"));
                true
            }
            ProposeError::NoLeader | ProposeError::NotLeader | ProposeError::NoSpace(_) => true,
            ProposeError::Unknown | ProposeError::Unavailable(_) => false,
        }
    }

    fn give_up(&self, began: Began, is_unknown: bool) {
        let mut oracle = self.oracle.lock().unwrap();
        if is_unknown { oracle.unknown(began) } else { oracle.refused(began) }
    }
}

/// Follows what a member tells of the log.
pub(crate) async fn follow(host: Host, handle: Handle, env: Env, oracle: Shared) {
    let mut events = handle.store().events();
    let view = handle.store().view();
    oracle.lock().unwrap().restored(host, &view);
    let mut before = Some(view.position.index);
    loop {
        match events.recv().await {
            Ok(events) => {
                let (index, has_gap) = oracle.lock().unwrap().events(host, before, &events);
                if let (true, Some(before)) = (has_gap, before) {
                    // A snapshot took the place of entries, or else events are lost.
                    for _ in 0..10 {
                        env.clock.sleep(Duration::from_millis(300)).await;
                        if handle.progress().snapshot >= index {
                            break;
                        }
                    }
                    oracle.lock().unwrap().skipped(host, before, index, handle.progress());
                }
                before = before.max(Some(index));
            }
            Err(RecvError::Lagged(_)) => before = None,
            Err(RecvError::Closed) => return,
        }
    }
}

/// Follows who leads, as a member says.
pub(crate) async fn observe(host: Host, handle: Handle, oracle: Shared) {
    let store = handle.store();
    let mut leadership = store.leadership();
    let mut position = store.view().position;
    loop {
        let now = *leadership.borrow_and_update();
        let view: View = store.view();
        {
            let mut oracle = oracle.lock().unwrap();
            if now.is_self {
                oracle.leads(host, now, &view);
            }
            oracle.progress(host, handle.progress());
            if view.position < position {
                oracle.violate(format!(
                    "I6: host {host} went from {position:?} to {:?}",
                    view.position
                ));
            }
        }
        position = view.position;
        if leadership.changed().await.is_err() {
            return;
        }
    }
}
