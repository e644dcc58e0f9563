//! What is well and what is not, and what to do about it: facts go in, alarms and a report come out.
//!
//! Pure. Facts are the replicated state as this node has it and what the node knows of itself; who
//! gathers them, counts time and tells people is `api`. Nothing here changes anything.

pub mod alarm;
pub mod facts;
pub mod report;
pub mod tracker;

#[cfg(test)]
mod tests;

pub use alarm::{Alarm, Name, Severity, alarms};
pub use facts::{Facts, Local, Part, Room, Validity};
pub use report::{Behind, Census, Report, report};
pub use tracker::{Change, Raised, Tracker};
