//! From a request's body to a service spec that can be proposed: decoding, what we refuse by name,
//! and what the spec refers to.

use serde_json::Value;

use super::ask;
use super::error::{Code, Error};
use super::{keys, lookup};
use crate::domain::ServiceSpec;
use crate::domain::container::{PullOptions, RegistryAuth};
use crate::domain::validate::ENGINE_NETWORKS;
use crate::state::State;

/// Members that some clients repeat from the query into the body (dockerode); not part of a spec.
const QUERY_ECHOES: [&str; 4] = ["version", "rollback", "registryAuthFrom", "force"];

/// Reads a spec out of a body.
///
/// # Errors
/// Docker's texts for what is no spec, and clear ones for what this release cannot do.
pub(super) fn decode(body: &[u8]) -> Result<ServiceSpec, Error> {
    let mut value = ask::json(body, keys::SERVICE)?;
    if let Some(members) = value.as_object_mut() {
        QUERY_ECHOES.iter().for_each(|name| drop(members.remove(*name)));
        settle_mode(members)?;
    }
    if !value.pointer("/TaskTemplate/ContainerSpec").is_some_and(Value::is_object) {
        return Err(Error::bad_request("mismatched Runtime and *Spec fields"));
    }
    let image = value.pointer("/TaskTemplate/ContainerSpec/Image").and_then(Value::as_str);
    if image.is_none_or(str::is_empty) {
        let text = "ContainerSpec: image reference must be provided";
        return Err(Error::rpc(Code::InvalidArgument, text));
    }
    let mut spec: ServiceSpec = ask::typed(value)?;
    if spec.task_template.networks.is_empty() {
        spec.task_template.networks = std::mem::take(&mut spec.networks);
    }
    spec.networks.clear();
    spec.task_template.container_spec.pull_options = None;
    spec.validate().map_err(|error| Error::rpc(Code::InvalidArgument, error))?;
    Ok(spec)
}

/// Brings `Mode` to one of our kinds: absent means one replica.
fn settle_mode(members: &mut serde_json::Map<String, Value>) -> Result<(), Error> {
    let Some(mode) = members.get("Mode").and_then(Value::as_object) else { return Ok(()) };
    for job in ["ReplicatedJob", "GlobalJob"] {
        if mode.contains_key(job) {
            let text = "jobs are not supported yet: use the mode replicated or global, with a restart condition of none or on-failure";
            return Err(Error::rpc(Code::Unimplemented, text));
        }
    }
    match mode.len() {
        0 => drop(members.remove("Mode")),
        1 => {}
        _ => return Err(Error::bad_request("must specify only one service mode")),
    }
    Ok(())
}

/// Checks what a spec refers to and replaces names by ids.
///
/// # Errors
/// Docker's texts for secrets, configs and networks that are not there.
pub(super) fn resolve(state: &State, spec: &mut ServiceSpec) -> Result<(), Error> {
    let container = &spec.task_template.container_spec;
    let missing: Vec<&str> = container
        .secrets
        .iter()
        .filter(|it| {
            let found = state.secrets.get(&it.secret_id);
            found.is_none_or(|secret| secret.spec.name != it.secret_name)
        })
        .map(|it| it.secret_name.as_str())
        .collect();
    refuse_missing("secret", &missing)?;
    let missing: Vec<&str> = container
        .configs
        .iter()
        .filter(|it| {
            let found = state.configs.get(&it.config_id);
            found.is_none_or(|config| config.spec.name != it.config_name)
        })
        .map(|it| it.config_name.as_str())
        .collect();
    refuse_missing("config", &missing)?;
    resolve_networks(state, spec)
}

fn refuse_missing(kind: &str, names: &[&str]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let plural = if names.len() > 1 { "s" } else { "" };
    let text = format!("{kind}{plural} not found: {}", names.join(", "));
    Err(Error::rpc(Code::InvalidArgument, text))
}

fn resolve_networks(state: &State, spec: &mut ServiceSpec) -> Result<(), Error> {
    for network in &mut spec.task_template.networks {
        if !ENGINE_NETWORKS.contains(&network.target.as_str()) {
            network.target = lookup::network(state, &network.target)?.to_string();
        }
    }
    Ok(())
}

/// Holds what a spec asks of hosts against the cluster's policy. What a service runs already is not
/// judged again: a stricter policy stands in the way of nobody who only scales.
///
/// # Errors
/// What is not permitted, and the command that would permit it.
pub(super) fn admit(
    state: &State,
    spec: &ServiceSpec,
    current: Option<&ServiceSpec>,
) -> Result<(), Error> {
    if current.is_some_and(|current| asks_the_same(current, spec)) {
        return Ok(());
    }
    let policy = state.cluster.as_ref().map(|it| it.spec.spec_policy()).unwrap_or_default();
    let Some(violation) = policy.violations(spec).into_iter().next() else { return Ok(()) };
    let way = violation.grant.as_ref().map_or_else(String::new, |grant| {
        format!("; whoever answers for the hosts may permit it: swarm policy allow {grant}")
    });
    let text = format!("{violation} by the policy of this swarm{way}");
    Err(Error::rpc(Code::PermissionDenied, text))
}

/// Whether two specs run the same container in the same networks.
fn asks_the_same(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let container = |spec: &ServiceSpec| {
        let mut container = spec.task_template.container_spec.clone();
        container.pull_options = None;
        container
    };
    one.task_template.networks == other.task_template.networks && container(one) == container(other)
}

/// Puts registry credentials into a spec, for the nodes that pull; they are never returned.
pub(super) fn set_registry_auth(spec: &mut ServiceSpec, auth: Option<RegistryAuth>) {
    spec.task_template.container_spec.pull_options =
        auth.map(|registry_auth| PullOptions { registry_auth });
}
