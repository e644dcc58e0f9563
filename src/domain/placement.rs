//! Where tasks may and would rather run (Docker: `Placement`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::container::null_default;
use super::node::{Description, Node, Platform};
use super::{Extra, Labels};

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

/// The form of a constraint and every key it can have, for those who gave something else.
const FORM: &str = "KEY==VALUE or KEY!=VALUE is expected, with KEY one of node.id, node.hostname, \
                    node.ip, node.role, node.platform.os, node.platform.arch, node.labels.NAME, \
                    engine.labels.NAME";

/// A text that is not a constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}; {FORM}")]
pub struct InvalidConstraint {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A condition on nodes (moby/swarmkit `manager/constraint`): `key==value` or `key!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    key: String,
    relation: Relation,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    Different,
}

impl Constraint {
    /// Reads a constraint.
    ///
    /// # Errors
    /// Where there is not exactly one operator, or key or value have characters that Docker does not
    /// allow there.
    pub fn parse(text: &str) -> Result<Self, InvalidConstraint> {
        let refuse = |reason: String| InvalidConstraint { text: text.to_owned(), reason };
        let equal = text.split_once("==").map(|parts| (parts, Relation::Equal));
        let different = text.split_once("!=").map(|parts| (parts, Relation::Different));
        // Where both occur, the first one is the operator and the rest is an invalid value.
        let found = match (equal, different) {
            (Some(a), Some(b)) => Some(if a.0.0.len() < b.0.0.len() { a } else { b }),
            (one, other) => one.or(other),
        };
        let Some(((key, value), relation)) = found else {
            return Err(refuse("constraint expected one operator from ==, !=".to_owned()));
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(refuse(format!("key '{key}' is invalid")));
        }
        if !is_value(value) {
            return Err(refuse(format!("value '{value}' is invalid")));
        }
        Ok(Self { key: key.to_owned(), relation, value: value.to_owned() })
    }

    /// Whether a node meets the constraint. An unknown key is never met.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let text = |it: fn(&Description) -> &str| description.map_or("", it);
        let is_equal = match self.key.to_ascii_lowercase().as_str() {
            "node.id" => self.same(&node.id.to_string()),
            "node.hostname" => self.same(text(|it| &it.hostname)),
            "node.ip" => return self.matches_addr(node.status.addr),
            "node.role" => self.same(node.spec.role.as_str()),
            "node.platform.os" => self.same(text(|it| &it.platform.os)),
            "node.platform.arch" => normal_arch(&self.value)
                .eq_ignore_ascii_case(normal_arch(text(|it| &it.platform.architecture))),
            _ => match self.label(node) {
                Some(value) => self.same(value),
                None => return false,
            },
        };
        is_equal == (self.relation == Relation::Equal)
    }

    /// Reads a constraint that some node could meet. Docker accepts one whose key means nothing, or
    /// whose value is no address where one is needed, and its tasks wait for ever.
    ///
    /// # Errors
    /// As [`Constraint::parse`], and where no node can ever meet it.
    pub fn parse_meetable(text: &str) -> Result<Self, InvalidConstraint> {
        let constraint = Self::parse(text)?;
        match constraint.futility() {
            Some(reason) => Err(InvalidConstraint { text: text.to_owned(), reason }),
            None => Ok(constraint),
        }
    }

    fn futility(&self) -> Option<String> {
        let key = self.key.to_ascii_lowercase();
        let named = ["node.labels.", "engine.labels."];
        match key.as_str() {
            "node.ip" if self.range().is_none() => {
                Some(format!("{} is neither an IP address nor a subnet", self.value))
            }
            "node.id" | "node.hostname" | "node.ip" | "node.role" | "node.platform.os"
            | "node.platform.arch" => None,
            _ if named.iter().any(|it| key.len() > it.len() && key.starts_with(it)) => None,
            _ => Some(format!("there is no key {}", self.key)),
        }
    }

    fn same(&self, value: &str) -> bool {
        self.value.to_lowercase() == value.to_lowercase()
    }

    /// The value of the label that is meant (empty if the node has none); label keys are
    /// case-sensitive. `None` if no label is meant.
    fn label<'n>(&self, node: &'n Node) -> Option<&'n str> {
        let after = |prefix: &str| {
            let (start, rest) = self.key.split_at_checked(prefix.len())?;
            start.eq_ignore_ascii_case(prefix).then_some(rest)
        };
        let of = |labels: &'n Labels, key: &str| labels.get(key).map_or("", String::as_str);
        match (after("node.labels."), after("engine.labels.")) {
            (Some(key), _) => Some(of(&node.spec.labels, key)),
            (None, Some(key)) => {
                Some(node.description.as_ref().map_or("", |it| of(&it.engine.labels, key)))
            }
            (None, None) => None,
        }
    }

    /// An address or a range of addresses; what is neither is never met. A node whose address is
    /// not known is in no range.
    fn matches_addr(&self, addr: Option<IpAddr>) -> bool {
        let Some(range) = self.range() else { return false };
        let inside = addr.is_some_and(|addr| range.contains(&addr));
        inside == (self.relation == Relation::Equal)
    }

    fn range(&self) -> Option<ipnet::IpNet> {
        let single = || self.value.parse::<IpAddr>().ok().map(ipnet::IpNet::from);
        self.value.parse().ok().or_else(single)
    }
}

fn is_key(key: &str) -> bool {
    let allowed = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    key.len() > 1
        && key.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
        && key.chars().all(allowed)
}

fn is_value(value: &str) -> bool {
    let allowed = |it: char| {
        it.is_ascii_alphanumeric() || it.is_whitespace() || ":-_.*()?+[]\\^$|/".contains(it)
    };
    !value.is_empty() && value.chars().all(allowed)
}

/// Engines and images name architectures differently; Docker compares the names of images.
#[must_use]
pub fn normal_arch(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv7l" | "armhf" => "arm",
        other => other,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
