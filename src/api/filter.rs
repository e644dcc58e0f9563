//! The `filters` parameter, in both of its forms: `{"label":{"a=b":true}}` and `{"label":["a=b"]}`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ask::{Params, not_json};
use super::error::Error;
use crate::domain::Labels;

/// Filter values by key. Values of one key are alternatives (labels excepted); keys add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the parameter.
    ///
    /// # Errors
    /// 400 when it is not of either form.
    pub(super) fn parse(params: &Params) -> Result<Self, Error> {
        let text = params.get("filters").unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::bad_request(not_json(text.as_bytes(), &error)))?;
        let wrong = || Error::bad_request("filters must be an object of lists or of objects");
        let members = match value {
            Value::Object(members) => members,
            Value::Null => return Ok(Self::default()),
            _ => return Err(wrong()),
        };
        let mut filters = BTreeMap::new();
        for (key, values) in members {
            let values = match values {
                Value::Object(values) => values.into_iter().map(|(value, _)| value).collect(),
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    })
                    .collect(),
                Value::String(value) => vec![value],
                Value::Null | Value::Bool(_) | Value::Number(_) => return Err(wrong()),
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// Reads the parameter and refuses keys that the endpoint does not have.
    ///
    /// # Errors
    /// 400, as [`Self::parse`], and Docker's text for an unknown key.
    pub(super) fn only(params: &Params, known: &[&str]) -> Result<Self, Error> {
        let filters = Self::parse(params)?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::bad_request(format!("Invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// The values of a key.
    pub(super) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a value of the key matches, or there are none.
    pub(super) fn any(&self, key: &str, mut matches: impl FnMut(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| matches(value))
    }

    /// Whether one of the texts starts with a value of the key, or there are no values.
    pub(super) fn prefix(&self, key: &str, texts: &[&str]) -> bool {
        self.any(key, |value| texts.iter().any(|text| text.starts_with(value)))
    }

    /// Whether labels have all that the key's values name: `name` or `name=value`.
    pub(super) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filters, Error> {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Filters::only(&Params::parse(&format!("filters={escaped}")), &["name", "label", "id"])
    }

    #[test]
    fn both_forms_are_read() {
        for text in [r#"{"label":{"a=b":true,"c":true}}"#, r#"{"label":["a=b","c"]}"#] {
            let filters = parse(text).unwrap();
            let labels = |pairs: &[(&str, &str)]| {
                pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Labels>()
            };
            assert!(filters.labels("label", &labels(&[("a", "b"), ("c", "x")])));
            assert!(!filters.labels("label", &labels(&[("a", "x"), ("c", "x")])));
            assert!(!filters.labels("label", &labels(&[("a", "b")])));
        }
        assert!(parse("{}").unwrap().prefix("name", &["anything"]));
        assert!(parse(r#"{"name":["we"]}"#).unwrap().prefix("name", &["web"]));
        assert!(!parse(r#"{"name":["we"]}"#).unwrap().prefix("name", &["db"]));
    }

    #[test]
    fn what_is_wrong_is_told_as_docker_does() {
        assert_eq!(parse(r#"{"bad":["x"]}"#).unwrap_err().message, "Invalid filter 'bad'");
        assert_eq!(
            parse("nope").unwrap_err().message,
            "invalid character 'o' in literal null (expecting 'u')"
        );
        assert!(parse("[1]").is_err() && parse(r#"{"name":1}"#).is_err());
    }
}
