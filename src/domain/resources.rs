//! CPU, memory, processes and generic resources: what tasks reserve and what they may use at most.

use serde::{Deserialize, Serialize};

use super::Extra;

/// Billionths of one CPU (Docker: `NanoCPUs`).
pub type NanoCpus = i64;
/// Bytes of memory.
pub type Bytes = i64;

/// Upper bounds of a task (Docker: `Resources.Limits`). Zero means no limit.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// CPU time per time, in billionths of a CPU.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: NanoCpus,
    /// Memory.
    #[serde(rename = "MemoryBytes", skip_serializing_if = "is_zero")]
    pub memory_bytes: Bytes,
    /// Number of processes.
    #[serde(rename = "Pids", skip_serializing_if = "is_zero")]
    pub pids: i64,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a task needs to be placed (Docker: `Resources.Reservations`).
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Reservations {
    /// CPU time per time, in billionths of a CPU.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_zero")]
    pub nano_cpus: NanoCpus,
    /// Memory.
    #[serde(rename = "MemoryBytes", skip_serializing_if = "is_zero")]
    pub memory_bytes: Bytes,
    /// Things that are counted or named by the operator (GPUs, licences).
    #[serde(
        rename = "GenericResources",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::container::null_default"
    )]
    pub generic: Vec<GenericResource>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Reservations and limits of a task.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResourceRequirements {
    /// Upper bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Reservations>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One generic resource, in Docker's two forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GenericResource {
    /// One named unit, such as `gpu=UUID1`.
    #[serde(rename = "NamedResourceSpec")]
    Named {
        /// The kind of resource.
        #[serde(rename = "Kind")]
        kind: String,
        /// The unit's name.
        #[serde(rename = "Value")]
        value: String,
    },
    /// A number of units, such as `ssd=2`.
    #[serde(rename = "DiscreteResourceSpec")]
    Discrete {
        /// The kind of resource.
        #[serde(rename = "Kind")]
        kind: String,
        /// How many units.
        #[serde(rename = "Value")]
        value: i64,
    },
}

/// What a node has, or what is taken on it.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPUs, in billionths.
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: NanoCpus,
    /// Memory.
    #[serde(rename = "MemoryBytes")]
    pub memory_bytes: Bytes,
    /// Generic resources.
    #[serde(
        rename = "GenericResources",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::container::null_default"
    )]
    pub generic: Vec<GenericResource>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}
