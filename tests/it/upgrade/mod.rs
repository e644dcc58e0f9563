//! Every message that ever lay in a log, a snapshot or a ledger can still be read.
//!
//! `format-1.txt` holds the bytes of one instance of every kind, in hexadecimal. When what is written
//! changes on purpose, the file stays and a new one is added: what was written must be readable for
//! ever (docs/adr/0003).

mod fixture;
mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;
use swarm::domain::assignment::{AssignmentDiff, Item};
use swarm::state::{Change, Object, Rejection};
use swarm::wire::object::{decode_change, decode_object, encode_change, encode_object};
use swarm::wire::types;

/// What a file of bytes has by each name.
fn parse(file: &str) -> BTreeMap<String, Vec<u8>> {
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let named = lines.map(|line| line.split_once(' ').unwrap());
    named
        .map(|(name, hex)| (name.to_owned(), hex.as_bytes().chunks(2).map(byte).collect()))
        .collect()
}

fn render(samples: &BTreeMap<String, Vec<u8>>) -> String {
    let mut text =
        "# One instance of every kind of message; see mod.rs. Never edited.\n".to_owned();
    for (name, bytes) in samples {
        write!(text, "{name} ").unwrap();
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn encoded() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (name, object) in samples::objects() {
        all.insert(format!("object.{name}"), encode_object(&object));
    }
    for (name, change) in samples::changes() {
        all.insert(format!("change.{name}"), encode_change(&change));
    }
    for (name, item) in samples::items() {
        all.insert(format!("item.{name}"), types::Item::from(&item).encode_to_vec());
    }
    for (name, rejection) in samples::rejections() {
        let bytes = types::Rejection::from(&rejection).encode_to_vec();
        all.insert(format!("rejection.{name}"), bytes);
    }
    let diff = types::AssignmentDiff::from(&samples::diff()).encode_to_vec();
    all.insert("diff".to_owned(), diff);
    all
}

#[test]
fn format_1_is_written_as_ever() {
    expect_test::expect_file!["format-1.txt"].assert_eq(&render(&encoded()));
}

#[test]
fn format_1_is_read() {
    let bytes = parse(include_str!("format-1.txt"));
    for (name, object) in samples::objects() {
        assert_eq!(decode_object(&bytes[&format!("object.{name}")]), Ok::<Object, _>(object));
    }
    for (name, change) in samples::changes() {
        assert_eq!(decode_change(&bytes[&format!("change.{name}")]), Ok::<Change, _>(change));
    }
    for (name, item) in samples::items() {
        let message = types::Item::decode(&*bytes[&format!("item.{name}")]).unwrap();
        assert_eq!(Item::try_from(message), Ok(item), "{name}");
    }
    for (name, rejection) in samples::rejections() {
        let message = types::Rejection::decode(&*bytes[&format!("rejection.{name}")]).unwrap();
        assert_eq!(Rejection::from(message), rejection, "{name}");
    }
    let message = types::AssignmentDiff::decode(&*bytes["diff"]).unwrap();
    assert_eq!(AssignmentDiff::try_from(message), Ok(samples::diff()));
}

/// The lock came after format-1.txt: two fields at the end of the cluster.
#[test]
fn a_locked_cluster_is_written_and_read_as_ever() {
    let (_, object) = samples::objects().into_iter().find(|(name, _)| *name == "cluster").unwrap();
    let Object::Cluster(cluster) = object else { panic!("not a cluster") };
    let key = Some(swarm::domain::UnlockKey::new([7; 32]));
    let autolock = swarm::domain::Autolock { generation: 5, key };
    let locked = swarm::domain::Cluster { autolock, ..(*cluster).clone() };
    let object = Object::Cluster(std::sync::Arc::new(locked));
    let bytes = encode_object(&object);
    let appended = [&[0x78, 5, 0x82, 0x01, 32][..], &[7; 32]].concat();
    assert!(bytes.ends_with(&appended), "{bytes:02x?}");
    assert_eq!(decode_object(&bytes), Ok::<Object, _>(object));
}

/// Why nothing may be written before every manager knows it (docs/adr/0027): a release that reads a
/// field which it does not know and writes the object again has lost it.
#[test]
fn what_a_release_does_not_know_it_loses() {
    let (_, object) = samples::objects().into_iter().find(|(name, _)| *name == "cluster").unwrap();
    let Object::Cluster(cluster) = object else { panic!("not a cluster") };
    let known = types::Cluster::from(&*cluster).encode_to_vec();
    let field_of_the_future = [0xf8, 0x07, 1]; // number 127, value 1
    let newer = [&known[..], &field_of_the_future[..]].concat();
    let read = types::Cluster::decode(&*newer).unwrap();
    assert_eq!(read.encode_to_vec(), known);
}

/// Rotation of the root came with format 2: fields at the end of the cluster and of nodes, and a verb.
#[test]
fn a_root_on_its_way_is_written_and_read_as_ever() {
    use swarm::domain::cluster::{Authority, Cluster, RootRotation, Trust};
    let sample =
        |wanted| samples::objects().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
    let Object::Cluster(cluster) = sample("cluster") else { panic!("not a cluster") };
    let next = Authority {
        root_pem: "NEXT".into(),
        key_pem: swarm::domain::secret::Sensitive::new(b"KEY2"),
    };
    let rotation = Some(RootRotation { next, cross_pem: "CROSS".into() });
    let cluster = Cluster { trust: Trust { generation: 3, rotation }, ..(*cluster).clone() };
    let object = Object::Cluster(std::sync::Arc::new(cluster));
    let bytes = encode_object(&object);
    let rotation = [&[0x0a, 4][..], b"NEXT", &[0x12, 4], b"KEY2", &[0x1a, 5], b"CROSS"].concat();
    let appended = [&[0x88, 0x01, 3, 0x92, 0x01, 19][..], &rotation].concat();
    assert!(bytes.ends_with(&appended), "{bytes:02x?}");
    assert_eq!(decode_object(&bytes), Ok::<Object, _>(object));

    let Object::Node(node) = sample("node") else { panic!("not a node") };
    let id = node.id;
    let node = swarm::domain::Node { trust: 3, ..(*node).clone() };
    let object = Object::Node(std::sync::Arc::new(node));
    let bytes = encode_object(&object);
    assert!(bytes.ends_with(&[0x60, 3]), "{bytes:02x?}");
    assert_eq!(decode_object(&bytes), Ok::<Object, _>(object));

    let report = Change::ReportTrust { node: id, trust: 3 };
    let bytes = encode_change(&report);
    let written = [&[0xa2, 0x01, 20, 0x0a, 16][..], &id.to_bytes(), &[0x10, 3]].concat();
    assert_eq!(bytes, written);
    assert_eq!(decode_change(&bytes), Ok(report));
}

#[test]
fn every_kind_has_its_bytes() {
    let kinds: std::collections::BTreeSet<_> =
        samples::objects().into_iter().map(|(_, it)| it.key().kind()).collect();
    assert_eq!(kinds.len(), 9);
    assert_eq!(samples::items().len(), 8);
    assert_eq!(samples::rejections().len(), 7);
}

#[test]
fn a_spec_comes_back_as_it_came() {
    let json = include_str!("service-spec.json");
    let sent: serde_json::Value = serde_json::from_str(json).unwrap();
    let spec: swarm::domain::ServiceSpec = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_value(spec).unwrap(), sent);
}
