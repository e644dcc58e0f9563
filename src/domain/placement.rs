//! Where tasks may and would rather run (Docker: `Placement`).

use serde::{Deserialize, Serialize};

use super::Extra;
use super::container::null_default;
use super::node::Platform;

/// The user's wishes about nodes.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Placement {
    /// Must hold: `node.labels.zone==a`, `node.role!=manager`, …
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub constraints: Vec<String>,
    /// Would rather: spread over the values of a label.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub preferences: Vec<Preference>,
    /// Most tasks of the service on one node; 0 means no bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_replicas: u64,
    /// Platforms that the image has; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub platforms: Vec<Platform>,
    /// Unknown members.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A wish that orders nodes and excludes none.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Preference {
    /// Spread evenly over the values of a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadOver>,
}

/// The label whose values are spread over.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadOver {
    /// Such as `node.labels.zone`.
    pub spread_descriptor: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}
