//! What constraints can be read, and which nodes meet them.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::domain::NodeId;
use crate::domain::node::Role;

fn node() -> Node {
    let mut description = Description { hostname: "Alpha".into(), ..Description::default() };
    description.platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
    description.engine.labels.insert("disk".into(), "SSD".into());
    let mut node = Node::new(NodeId::from_bytes([1; 16]), Role::Manager);
    node.spec.labels.insert("Zone".into(), "a".into());
    node.status.addr = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    Node { description: Some(description), ..node }
}

#[test]
fn constraints_are_met_as_docker_meets_them() {
    for (text, met) in [
        ("node.hostname==alpha", true),
        ("node.hostname != alpha", false),
        ("NODE.hostname==ALPHA", true),
        ("node.role==manager", true),
        ("node.role!=worker", true),
        ("node.platform.os==Linux", true),
        ("node.platform.arch==amd64", true),
        ("node.platform.arch==x86_64", true),
        ("node.platform.arch==arm64", false),
        ("node.labels.Zone==A", true),
        ("node.labels.zone==a", false),
        ("node.labels.zone!=a", true),
        ("engine.labels.disk==ssd", true),
        ("node.ip==192.0.2.7", true),
        ("node.ip==192.0.2.0/24", true),
        ("node.ip!=192.0.2.0/24", false),
        ("node.ip==198.51.100.0/24", false),
        ("node.ip==nonsense", false),
        ("node.ip!=nonsense", false),
        ("node.unknown==a", false),
        ("node.unknown!=a", false),
    ] {
        assert_eq!(Constraint::parse(text).unwrap().matches(&node()), met, "{text}");
    }
}

#[test]
fn texts_that_are_no_constraints_are_refused_with_the_reason() {
    for (text, reason) in [
        ("node.role", "constraint expected one operator from ==, !="),
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("==manager", "key '' is invalid"),
        ("1a==b", "key '1a' is invalid"),
        ("node role==b", "key 'node role' is invalid"),
        ("node.role==", "value '' is invalid"),
        ("node.role==a!=b", "value 'a!=b' is invalid"),
        ("node.role==a==b", "value 'a==b' is invalid"),
    ] {
        let error = Constraint::parse(text).unwrap_err();
        assert_eq!(error.reason, reason, "{text}");
    }
}

#[test]
fn a_refusal_names_the_text_the_operators_and_every_key() {
    for text in ["node.colour~=red", "foo==bar", "", "==", "node.ip==office"] {
        let said = Constraint::parse_meetable(text).unwrap_err().to_string();
        assert!(said.starts_with(&format!("{text:?}: ")), "{said}");
        assert!(said.contains("KEY==VALUE or KEY!=VALUE"), "{said}");
        for key in ["id", "hostname", "ip", "role", "platform.os", "platform.arch", "labels.NAME"] {
            assert!(said.contains(&format!("node.{key}")), "{key}: {said}");
        }
        assert!(said.contains("engine.labels.NAME"), "{said}");
    }
}

#[test]
fn a_node_without_a_known_address_is_in_no_range() {
    let mut node = node();
    node.status.addr = None;
    assert!(!Constraint::parse("node.ip==192.0.2.0/24").unwrap().matches(&node));
    assert!(Constraint::parse("node.ip!=192.0.2.0/24").unwrap().matches(&node));
}

#[test]
fn constraints_that_no_node_can_meet_are_known() {
    let futile = |text: &str| Constraint::parse_meetable(text).is_err();
    for text in ["node.unknown==a", "node.labels.==a", "node.ip==office", "labels.zone!=a"] {
        assert!(futile(text), "{text}");
    }
    for text in ["Node.Labels.zone==a", "engine.labels.a==b", "node.ip!=::1", "NODE.ID==x"] {
        assert!(!futile(text), "{text}");
    }
}
