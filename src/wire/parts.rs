//! The small parts that messages are made of: ids, addresses, JSON, numbers of enums.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DecodeError, types};
use crate::domain::{Meta, Position, Revision, Timestamp};

pub(crate) fn wrong(field: &'static str, reason: impl Into<String>) -> DecodeError {
    DecodeError { field, reason: reason.into() }
}

/// The bytes of an id.
pub(crate) fn id_to(id: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&id)
}

/// An id; `from` is the `from_slice` of its type.
pub(crate) fn id<T>(
    field: &'static str,
    bytes: &[u8],
    from: fn(&[u8]) -> Option<T>,
) -> Result<T, DecodeError> {
    from(bytes).ok_or_else(|| wrong(field, format!("an id has 16 bytes, not {}", bytes.len())))
}

/// An id that may be absent (empty).
pub(crate) fn id_opt<T>(
    field: &'static str,
    bytes: &[u8],
    from: fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, DecodeError> {
    if bytes.is_empty() { Ok(None) } else { id(field, bytes, from).map(Some) }
}

/// The 4 or 16 bytes of an IP address.
pub(crate) fn ip_to(addr: IpAddr) -> Bytes {
    match addr {
        IpAddr::V4(addr) => Bytes::copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => Bytes::copy_from_slice(&addr.octets()),
    }
}

/// An IP address of 4 or 16 bytes.
pub(crate) fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    let octets = <[u8; 16]>::try_from(bytes);
    octets
        .map(IpAddr::from)
        .map_err(|_| wrong(field, format!("an IP address has 4 or 16 bytes, not {}", bytes.len())))
}

/// An IPv4 address.
pub(crate) fn ipv4(field: &'static str, bytes: &[u8]) -> Result<Ipv4Addr, DecodeError> {
    match ip(field, bytes)? {
        IpAddr::V4(addr) => Ok(addr),
        IpAddr::V6(_) => Err(wrong(field, "an IPv4 address is expected")),
    }
}

/// An address and port as text.
pub(crate) fn socket(field: &'static str, text: &str) -> Result<SocketAddr, DecodeError> {
    text.parse().map_err(|_| wrong(field, format!("{text:?} is not an address with a port")))
}

/// The JSON of a spec. Specs have nothing in them that JSON cannot hold (all keys are texts).
pub(crate) fn json_to<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// A spec from its JSON.
pub(crate) fn json<T: DeserializeOwned>(
    field: &'static str,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|error| wrong(field, error.to_string()))
}

/// A number that must fit into a smaller type.
pub(crate) fn narrow<T: TryFrom<u32>>(field: &'static str, number: u32) -> Result<T, DecodeError> {
    T::try_from(number).map_err(|_| wrong(field, format!("{number} is too large")))
}

/// The length of an IPv4 prefix.
pub(crate) fn prefix(field: &'static str, number: u32) -> Result<u8, DecodeError> {
    match narrow(field, number)? {
        prefix @ 0..=32 => Ok(prefix),
        _ => Err(wrong(field, format!("a prefix has at most 32 bits, not {number}"))),
    }
}

/// A part that must be there.
pub(crate) fn needed<T>(field: &'static str, part: Option<T>) -> Result<T, DecodeError> {
    part.ok_or_else(|| wrong(field, "it is missing"))
}

/// A time, where zero stands for none.
pub(crate) fn time_opt(nanos: u64) -> Option<Timestamp> {
    (nanos != 0).then_some(Timestamp(nanos))
}

/// A value that has a number in the formats.
pub(crate) trait Numbered: Sized {
    /// Its number, for ever.
    fn number(self) -> u32;
    /// The value with a number.
    fn numbered(field: &'static str, number: u32) -> Result<Self, DecodeError>;
}

/// Gives the variants of an enum their numbers.
macro_rules! numbered {
    ($kind:ty { $($variant:ident = $number:literal),* $(,)? }) => {
        impl $crate::wire::parts::Numbered for $kind {
            fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)*
                }
            }

            fn numbered(
                field: &'static str,
                number: u32,
            ) -> Result<Self, $crate::wire::DecodeError> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err($crate::wire::parts::wrong(
                        field,
                        format!("this release does not know the number {number}"),
                    )),
                }
            }
        }
    };
}

pub(super) use numbered;

impl From<Meta> for types::Meta {
    fn from(it: Meta) -> Self {
        Self {
            created_at: it.created_at.0,
            updated_at: it.updated_at.0,
            revision: it.revision.0,
            spec_revision: it.spec_revision.0,
        }
    }
}

impl From<types::Meta> for Meta {
    fn from(it: types::Meta) -> Self {
        Self {
            created_at: Timestamp(it.created_at),
            updated_at: Timestamp(it.updated_at),
            revision: Revision(it.revision),
            spec_revision: Revision(it.spec_revision),
        }
    }
}

/// Times and revisions; all zero (as in a change, where they mean nothing) if absent.
pub(crate) fn meta(it: Option<types::Meta>) -> Meta {
    it.unwrap_or_default().into()
}

impl From<Position> for types::Position {
    fn from(it: Position) -> Self {
        Self { term: it.term, index: it.index }
    }
}

impl From<types::Position> for Position {
    fn from(it: types::Position) -> Self {
        Self { term: it.term, index: it.index }
    }
}
