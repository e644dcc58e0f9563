//! What a user means by a text: an id, a name, or the beginning of an id, in this order.

use std::str::FromStr;
use std::sync::Arc;

use http::StatusCode;

use super::error::Error;
use crate::domain::{Config, NetworkId, Node, Secret, Service, Task};
use crate::state::{State, Table};

/// Finds the one object that a text means.
///
/// # Errors
/// 404 when there is none, 400 when the beginning of an id fits several.
fn find<'a, K, V>(
    kind: &str,
    text: &str,
    table: &'a Table<K, V>,
    names: impl Fn(&V) -> Vec<&str>,
) -> Result<&'a Arc<V>, Error>
where
    K: Ord + Clone + FromStr + ToString,
{
    if text.is_empty() {
        return Err(Error::not_found(kind, text));
    }
    if let Some(found) = text.parse::<K>().ok().and_then(|id| table.get(&id)) {
        return Ok(found);
    }
    let named: Vec<_> = table.values().filter(|it| names(it).contains(&text)).collect();
    let fitting = if named.is_empty() {
        let begins = |id: &K| id.to_string().starts_with(text);
        table.iter().filter(|(id, _)| begins(id)).map(|(_, it)| it).collect()
    } else {
        named
    };
    match fitting.as_slice() {
        [] => Err(Error::not_found(kind, text)),
        [one] => Ok(one),
        several => Err(Error::new(
            StatusCode::BAD_REQUEST,
            format!("{kind} {text} is ambiguous ({} matches found)", several.len()),
        )),
    }
}

/// A node, by id, its name or its host name.
pub(super) fn node<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Node>, Error> {
    find("node", text, &state.nodes, |node| {
        let host = node.description.as_ref().map(|description| description.hostname.as_str());
        host.into_iter().chain([node.spec.name.as_str()]).collect()
    })
}

/// A service; one that is being removed is gone for the user.
pub(super) fn service<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Service>, Error> {
    let found = find("service", text, &state.services, |service| {
        if service.removing { Vec::new() } else { vec![service.name.as_str()] }
    })?;
    if found.removing {
        return Err(Error::not_found("service", text));
    }
    Ok(found)
}

/// A task.
pub(super) fn task<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Task>, Error> {
    find("task", text, &state.tasks, |_| Vec::new())
}

/// A secret.
pub(super) fn secret<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Secret>, Error> {
    find("secret", text, &state.secrets, |secret| vec![secret.spec.name.as_str()])
}

/// A config.
pub(super) fn config<'a>(state: &'a State, text: &str) -> Result<&'a Arc<Config>, Error> {
    find("config", text, &state.configs, |config| vec![config.spec.name.as_str()])
}

/// A cluster network.
pub(super) fn network(state: &State, text: &str) -> Result<NetworkId, Error> {
    find("network", text, &state.networks, |network| vec![network.name.as_str()])
        .map(|network| network.id)
}
