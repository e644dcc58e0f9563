//! Changes of the state as Docker's events.

use std::collections::BTreeMap;

use crate::api::events::News;
use crate::domain::{Node, Service};
use crate::state::{Event, EventKind, Object, State};

/// What Docker would tell of a change; `None` where it would say nothing.
pub(in crate::api) fn news(event: &Event, state: &State) -> Option<News> {
    let action = match event.kind {
        EventKind::Created => "create",
        EventKind::Updated => "update",
        EventKind::Removed => "remove",
    };
    let told = |kind, id: String, name: &str| {
        let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
        Some(News { kind, action, id, attributes, at: event.at })
    };
    match &event.object {
        Object::Service(service) => service_news(event, service, state),
        Object::Node(node) => {
            let news = told("node", node.id.to_string(), &node_name(node))?;
            node_news(event, node, news)
        }
        Object::Secret(secret) => told("secret", secret.id.to_string(), &secret.spec.name),
        Object::Config(config) => told("config", config.id.to_string(), &config.spec.name),
        // A network's cursor moves with every address: no news.
        Object::Network(_) if event.kind == EventKind::Updated => None,
        Object::Network(network) => told("network", network.id.to_string(), &network.name),
        Object::Cluster(_) | Object::SpecVersion(_) | Object::Task(_) | Object::NetworkNode(_) => {
            None
        }
    }
}

/// For the user a service is gone as soon as he removed it, not when its tasks have stopped.
fn service_news(event: &Event, service: &Service, state: &State) -> Option<News> {
    let before = match &event.before {
        Some(Object::Service(before)) => Some(before),
        _ => None,
    };
    let action = match (event.kind, before.is_some_and(|it| it.removing), service.removing) {
        (EventKind::Created, _, _) => "create",
        (EventKind::Updated, false, true) | (EventKind::Removed, _, false) => "remove",
        (EventKind::Updated, _, true) | (EventKind::Removed, _, true) => return None,
        (EventKind::Updated, _, false) => "update",
    };
    let mut attributes = BTreeMap::from([("name".to_owned(), service.name.clone())]);
    let mut pair = |name: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            old.map(|old| attributes.insert(format!("{name}.old"), old));
            new.map(|new| attributes.insert(format!("{name}.new"), new));
        }
    };
    if let Some(before) = before.filter(|_| action == "update") {
        let (old, new) = (state.current_spec(before), state.current_spec(service));
        let image = |spec: &std::sync::Arc<crate::domain::ServiceSpec>| {
            spec.task_template.container_spec.image.clone()
        };
        if old.is_some() && new.is_some() {
            pair("image", old.map(image), new.map(image));
            let replicas = |it: &std::sync::Arc<crate::domain::ServiceSpec>| {
                it.replicas().map(|replicas| replicas.to_string())
            };
            pair("replicas", old.and_then(replicas), new.and_then(replicas));
        }
        let update = |it: &Service| it.update.as_ref().map(|it| it.state.as_str().to_owned());
        pair("updatestate", update(before), update(service));
    }
    Some(News { kind: "service", action, id: service.id.to_string(), attributes, at: event.at })
}

fn node_name(node: &Node) -> String {
    let hostname = node.description.as_ref().map(|description| description.hostname.clone());
    hostname.unwrap_or_else(|| node.spec.name.clone())
}

/// Nodes report all the time; news is what a user would notice.
fn node_news(event: &Event, node: &Node, mut news: News) -> Option<News> {
    let Some(Object::Node(before)) = &event.before else { return Some(news) };
    let mut pair = |name: &str, old: &str, new: &str| {
        if old != new {
            news.attributes.insert(format!("{name}.old"), old.to_owned());
            news.attributes.insert(format!("{name}.new"), new.to_owned());
        }
    };
    pair("state", before.status.reachability.as_str(), node.status.reachability.as_str());
    pair("role", before.spec.role.as_str(), node.spec.role.as_str());
    pair("availability", before.spec.availability.as_str(), node.spec.availability.as_str());
    let noticed = news.attributes.len() > 1
        || before.spec != node.spec
        || before.description != node.description
        || event.kind == EventKind::Removed;
    noticed.then_some(news)
}
