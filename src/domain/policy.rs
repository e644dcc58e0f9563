//! Restart and update policies with Docker's defaults.

use serde::{Deserialize, Serialize};

use super::{Extra, Nanos};

/// When and how often a task that ended is replaced.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Which ends count; `any` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<RestartCondition>,
    /// Between the end and the next start; 5 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanos>,
    /// Restarts of one slot within `window`; 0 or absent means no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// The window in which attempts count; 0 or absent means for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Nanos>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

impl RestartPolicy {
    /// Docker's default delay between an end and the next start.
    pub const DEFAULT_DELAY: Nanos = Nanos::from_secs(5);
}

/// Which ends of a task lead to a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never.
    None,
    /// Only an end with an error.
    OnFailure,
    /// Any end.
    #[default]
    Any,
}

/// How the tasks of a service are replaced by a new spec (`UpdateConfig`, `RollbackConfig`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdatePolicy {
    /// Slots replaced at a time; 0 means all. Docker's default, set by clients, is 1.
    pub parallelism: u64,
    /// Between two batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanos>,
    /// What happens when too many new tasks fail; `pause` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<FailureAction>,
    /// How long a new task is watched; 5 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Nanos>,
    /// The share of failed tasks that is tolerated, 0.0 to 1.0.
    pub max_failure_ratio: f64,
    /// `stop-first` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<UpdateOrder>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

impl UpdatePolicy {
    /// Docker's default time for which a new task is watched.
    pub const DEFAULT_MONITOR: Nanos = Nanos::from_secs(5);
}

/// What happens to an update when too many tasks fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Stop where it is and wait for the user.
    #[default]
    Pause,
    /// Go on.
    Continue,
    /// Return to the previous spec.
    Rollback,
}

/// Which of the two tasks of a slot goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old task stops before the new one starts.
    #[default]
    StopFirst,
    /// The new task runs before the old one stops.
    StartFirst,
}
