//! Typed identifiers: 16 bytes inside, Docker's 25 base-36 characters at the edge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of the text form: 36^25 > 2^128, so every id fits and has leading zeros where needed.
pub const TEXT_LEN: usize = 25;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: {TEXT_LEN} characters of 0-9 and a-z are expected")]
pub struct InvalidId {
    /// What was given.
    pub text: String,
}

fn encode(value: u128) -> [u8; TEXT_LEN] {
    let mut text = [b'0'; TEXT_LEN];
    let mut rest = value;
    for place in text.iter_mut().rev() {
        let digit = usize::try_from(rest % 36).unwrap_or_default();
        *place = DIGITS[digit];
        rest /= 36;
    }
    text
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != TEXT_LEN {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        value.checked_mul(36)?.checked_add(u128::from(digit))
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u128);

        impl $name {
            /// The id made of 16 bytes (big-endian, so byte order is id order).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// The 16 bytes of the id.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// Reads the 16 bytes of a wire field; `None` for any other length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_bytes)
            }

            /// The first 12 characters, as Docker's tables show ids.
            #[must_use]
            pub fn short(self) -> String {
                self.to_string().chars().take(12).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(std::str::from_utf8(&encode(self.0)).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                decode(text).map(Self).ok_or_else(|| InvalidId { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A cluster, for its whole life.
    ClusterId;
    /// A config object.
    ConfigId;
    /// A cluster network.
    NetworkId;
    /// An enrolled machine. Not a raft id: a machine that leaves and joins again is a new node.
    NodeId;
    /// A client's request, so that a retry is recognised.
    RequestId;
    /// A secret object.
    SecretId;
    /// A service.
    ServiceId;
    /// One connection of one agent to one manager.
    SessionId;
    /// One attempt to run one container.
    TaskId;
}

/// A member of the Raft group. The first manager is 1; every later id is the log index of the
/// committed join, so that an id is never used twice (openraft, "dynamic membership").
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_one_to_one() {
        for value in [0u128, 1, 35, 36, u128::MAX, 0x0123_4567_89ab_cdef] {
            let id = NodeId::from_bytes(value.to_be_bytes());
            assert_eq!(id.to_string().len(), TEXT_LEN);
            assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        }
    }

    #[test]
    fn order_of_text_is_order_of_ids() {
        let small = TaskId::from_bytes([1; 16]);
        let large = TaskId::from_bytes([2; 16]);
        assert!(small < large && small.to_string() < large.to_string());
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "zzzzzzzzzzzzzzzzzzzzzzzzz"] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
