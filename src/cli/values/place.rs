//! Placement preferences, generic resources, networks.

use super::csv;
use crate::domain::network::NetworkAttachmentSpec;
use crate::domain::placement::{Preference, SpreadOver};
use crate::domain::resources::GenericResource;

/// `spread=node.labels.zone`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn preference(text: &str) -> Result<Preference, String> {
    let Some((strategy, by)) = text.split_once('=') else {
        return Err("placement preference must be of the format \"<strategy>=<arg>\"".to_owned());
    };
    if strategy != "spread" {
        return Err(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ));
    }
    Ok(Preference { spread: Some(SpreadOver { spread_descriptor: by.to_owned() }) })
}

/// `gpu=2` or `gpu=UUID1`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn generic(text: &str) -> Result<GenericResource, String> {
    let (kind, value) = text.split_once('=').unwrap_or((text, ""));
    if kind.is_empty() || value.is_empty() {
        return Err(format!("incorrect term {text}, missing '=' or malformed expression"));
    }
    match value.parse::<i64>() {
        Ok(count) => Ok(GenericResource::Discrete { kind: kind.to_owned(), value: count }),
        Err(_) => Ok(GenericResource::Named { kind: kind.to_owned(), value: value.to_owned() }),
    }
}

/// `host`, or `name=NET,alias=A,driver-opt=K=V`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn network(text: &str) -> Result<NetworkAttachmentSpec, String> {
    let mut network = NetworkAttachmentSpec::default();
    if !text.contains('=') {
        text.clone_into(&mut network.target);
        return Ok(network);
    }
    for field in csv::fields(text)? {
        let (key, value) = csv::pair(&field)?;
        match key.as_str() {
            "name" => value.clone_into(&mut network.target),
            "alias" => network.aliases.push(value.to_owned()),
            "driver-opt" => {
                let (option, value) = csv::pair(value)?;
                network.driver_opts.insert(option, value.to_owned());
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_resources_networks() {
        let spread = preference("spread=node.labels.zone").unwrap().spread.unwrap();
        assert_eq!(spread.spread_descriptor, "node.labels.zone");
        assert!(preference("pack=x").unwrap_err().contains("only spread"));
        assert!(preference("zone").unwrap_err().contains("<strategy>=<arg>"));
        let ssd = generic("ssd=2").unwrap();
        assert_eq!(ssd, GenericResource::Discrete { kind: "ssd".into(), value: 2 });
        assert!(matches!(generic("gpu=UUID1").unwrap(), GenericResource::Named { .. }));
        assert!(generic("gpu").is_err());
        assert_eq!(network("host").unwrap().target, "host");
        assert_eq!(network("name=n,alias=db").unwrap().aliases, ["db"]);
        assert!(network("alias=db").is_err());
    }
}
