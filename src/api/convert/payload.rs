//! Secrets and configs.

use serde_json::Value;

use super::{head, put, value};
use crate::domain::{Config, Secret, base64};

/// A secret as `GET /secrets/{id}` shows it: never its data.
pub(in crate::api) fn secret(secret: &Secret) -> Value {
    let mut members = head(secret.id.to_string(), &secret.meta, secret.meta.spec_revision);
    put(&mut members, "Spec", value(&secret.spec));
    Value::Object(members)
}

/// A config as `GET /configs/{id}` shows it, with its data.
pub(in crate::api) fn config(config: &Config) -> Value {
    let mut members = head(config.id.to_string(), &config.meta, config.meta.spec_revision);
    let mut spec = value(&config.spec);
    if let Some(members) = spec.as_object_mut() {
        put(members, "Data", Value::String(base64::encode(&config.data)));
    }
    put(&mut members, "Spec", spec);
    Value::Object(members)
}
