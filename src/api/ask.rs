//! What a request says beside its path and body: query, headers; and reading JSON bodies.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Error;
use super::keys::{self, Schema};
use crate::domain::Revision;
use crate::domain::container::RegistryAuth;

/// Query parameters. Unknown ones are ignored; of repeated ones the first holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        let mut values = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(unescape(name)).or_insert_with(|| unescape(value));
        }
        Self(values)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Go's reading of booleans: anything but the words for false.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).map(|value| value.trim().to_ascii_lowercase());
        !matches!(value.as_deref(), None | Some("" | "0" | "no" | "false" | "none"))
    }

    /// The mandatory `version` of an update.
    ///
    /// # Errors
    /// Docker's text when it is missing or no number.
    pub(super) fn version(&self, kind: &str) -> Result<Revision, Error> {
        let text = self.get("version").unwrap_or_default();
        text.parse().map(Revision).map_err(|_| {
            Error::bad_request(format!(
                "invalid {kind} version '{text}': strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })
    }
}

/// Decodes `%XX` and `+`; what is no escape stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether an answer may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Freshness {
    /// It has everything that was committed before the request.
    #[default]
    Linearizable,
    /// It is what this manager has now.
    Stale,
}

/// What a request says beside its path and body.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// The query.
    pub(super) params: Params,
    /// `?stale=true` or `X-Swarm-Stale: 1`.
    pub(super) freshness: Freshness,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// `X-Registry-Auth`, as it came.
    pub(super) registry_auth: Option<RegistryAuth>,
}

impl<S: Sync> FromRequestParts<S> for Ask {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let params = Params::parse(parts.uri.query().unwrap_or_default());
        let header = |name: &str| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        let stale = params.flag("stale") || header("x-swarm-stale").is_some_and(|it| it != "0");
        let freshness = if stale { Freshness::Stale } else { Freshness::Linearizable };
        let key = header("idempotency-key");
        let registry_auth = header("x-registry-auth").map(RegistryAuth::new);
        Ok(Self { params, freshness, key, registry_auth })
    }
}

/// Reads a body whatever its content type says, with the member names corrected.
///
/// # Errors
/// 400 when it is no JSON object.
pub(super) fn json(body: &[u8], schema: Schema) -> Result<Value, Error> {
    let mut value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Err(Error::bad_request(not_json(body, &error))),
    };
    if !value.is_object() {
        return Err(Error::bad_request("the body must be a JSON object"));
    }
    keys::normalise(&mut value, schema);
    Ok(value)
}

/// Reads a corrected value into a type.
///
/// # Errors
/// 400 with what does not fit.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::bad_request(error.to_string()))
}

/// Go's text for the commonest mistakes, which clients' tests look for.
pub(super) fn not_json(text: &[u8], error: &serde_json::Error) -> String {
    let trimmed = text.trim_ascii_start();
    match trimmed {
        [] => "EOF".to_owned(),
        [b'{', rest @ ..] => match rest.trim_ascii_start() {
            [first, ..] if !matches!(first, b'"' | b'}') => format!(
                "invalid character '{}' looking for beginning of object key string",
                char::from(*first)
            ),
            _ => error.to_string(),
        },
        [b'n', second, ..] if *second != b'u' => {
            format!("invalid character '{}' in literal null (expecting 'u')", char::from(*second))
        }
        [first, ..] if !matches!(first, b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
            format!("invalid character '{}' looking for beginning of value", char::from(*first))
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_booleans_are_go_s() {
        let params = Params::parse("filters=%7B%22a%22%3A1%7D&a=1&b=0&c=False&d=True&e&f=x+y&a=0");
        assert_eq!(params.get("filters"), Some("{\"a\":1}"));
        assert!(params.flag("a") && params.flag("d"));
        assert!(!params.flag("b") && !params.flag("c") && !params.flag("e") && !params.flag("z"));
        assert_eq!(params.get("f"), Some("x y"));
    }

    #[test]
    fn a_wrong_version_is_told_as_docker_does() {
        let message = |query: &str| Params::parse(query).version("service").unwrap_err().message;
        assert_eq!(
            message("version=x"),
            "invalid service version 'x': strconv.ParseUint: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            message(""),
            "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax"
        );
    }

    #[test]
    fn what_is_no_json_is_told_as_go_does() {
        let message = |body: &[u8]| json(body, keys::NODE).unwrap_err().message;
        assert_eq!(
            message(b"{bad"),
            "invalid character 'b' looking for beginning of object key string"
        );
        assert_eq!(message(b"nope"), "invalid character 'o' in literal null (expecting 'u')");
        assert_eq!(message(b"<x"), "invalid character '<' looking for beginning of value");
        assert_eq!(message(b""), "EOF");
    }
}
