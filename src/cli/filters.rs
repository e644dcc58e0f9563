//! `--filter key=value`, as the Engine API wants it: `{"key":{"value":true}}`.

use std::collections::{BTreeMap, BTreeSet};

/// Filters of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads the values of `--filter`.
    ///
    /// # Errors
    /// When one is not `key=value`.
    pub(crate) fn parse(given: &[String]) -> anyhow::Result<Self> {
        let mut filters = Self::default();
        for filter in given {
            let Some((key, value)) = filter.split_once('=') else {
                anyhow::bail!(
                    "invalid filter '{filter}': expected key=value, such as --filter name=web"
                );
            };
            filters.add(&key.trim().to_lowercase(), value.trim());
        }
        Ok(filters)
    }

    /// Adds a filter.
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned());
    }

    /// With a filter more.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.add(key, value);
        self
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON of the query.
    pub(crate) fn to_json(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> = self
            .0
            .iter()
            .map(|(key, values)| {
                let set = values.iter().map(|value| (value.clone(), true.into())).collect();
                (key.clone(), serde_json::Value::Object(set))
            })
            .collect();
        serde_json::Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_have_dockers_shape() {
        let given = ["Name=web".to_owned(), "label=a=b".to_owned(), "name=api".to_owned()];
        let filters = Filters::parse(&given).unwrap();
        assert_eq!(filters.to_json(), r#"{"label":{"a=b":true},"name":{"api":true,"web":true}}"#);
        let error = Filters::parse(&["name".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("expected key=value"), "{error}");
    }
}
