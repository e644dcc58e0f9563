//! The world behind small seams: time, chance, disk, routines, and faults made on purpose.
//!
//! Everything above this folder takes what it needs of the world as an [`Env`], so that a simulation
//! can replace it. This folder is the only one that reads clocks, draws randomness, spawns routines
//! and writes files.
#![expect(
    clippy::disallowed_methods,
    reason = "this folder is the door to what is banned elsewhere"
)]

mod clock;
mod device;
pub mod disk;
mod entropy;
mod failpoints;
mod faults;
pub mod files;
mod machine;
mod meters;
pub mod process;
mod scope;
pub mod seal;
pub mod segments;
mod seldom;

pub use clock::{Clock, Instant, SystemClock};
pub use device::{Appending, Device, Slots, SystemDevice};
pub use entropy::{Entropy, OsEntropy};
pub use failpoints::{Failpoints, Point};
pub use faults::{Canary, Faults};
pub use machine::{Machine, SystemMachine};
pub use meters::{
    Answered, Counter, Ended, EngineAct, Family, Gauge, Histogram, Label, Meters, Named, Page,
    Proposed, Turn, Wanted,
};
pub use scope::{Pace, Scope};
pub use seldom::Seldom;

use std::sync::Arc;

/// The world as one cheaply cloned value.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// What a manager's data lies on.
    pub device: Arc<dyn Device>,
    /// What the machine is.
    pub machine: Arc<dyn Machine>,
    /// Bugs made on purpose; none but in tests of the tests.
    pub faults: Faults,
    /// What this process counts of itself.
    pub meters: Arc<Meters>,
}

impl Env {
    /// The real world, with the usual kind of log.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(OsEntropy),
            device: Arc::new(SystemDevice::default()),
            machine: Arc::new(SystemMachine),
            faults: Faults::NONE,
            meters: Arc::default(),
        }
    }
}
