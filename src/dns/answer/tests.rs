//! Replies to queries, byte for byte where clients look.

use super::super::zone::tests::{ME, ip, set, task};
use super::*;
use crate::domain::assignment::Item;
use crate::domain::endpoint::Endpoint;
use crate::domain::task::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;

fn zone() -> Zone {
    Zone::new(&set(), ME, &BTreeMap::new())
}

/// A zone in which `web` has many tasks.
fn big(tasks: u16) -> Zone {
    let mut set = set();
    let web = set.endpoints().find(|set| set.name == "Web").unwrap();
    let mut web = (**web).clone();
    web.endpoints = (0..tasks)
        .map(|number| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let [high, low] = number.to_be_bytes();
            Endpoint {
                task: crate::domain::TaskId::from_bytes(id),
                slot: Slot::Number(u32::from(number) + 1),
                node: ME,
                addr: IpAddr::V4([10, 1, high + 1, low].into()),
                serving: true,
            }
        })
        .collect();
    set.insert(Item::Endpoints(Arc::new(web)));
    Zone::new(&set, ME, &BTreeMap::new())
}

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_version(0);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn ask(zone: &Zone, bytes: &[u8], transport: Transport) -> Message {
    match decide(zone, ip("127.0.0.1"), bytes, transport, 7) {
        Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn data(message: &Message) -> Vec<String> {
    let mut texts: Vec<String> =
        message.answers.iter().map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

#[test]
fn addresses_in_any_case_with_a_short_life() {
    for name in ["web.", "WeB.", "Tasks.Web.Net1."] {
        let reply = ask(&zone(), &query(name, RecordType::A, None), Transport::Udp);
        assert_eq!(data(&reply), ["10.1.0.11", "10.1.0.12"]);
        let meta = reply.metadata;
        assert_eq!((meta.id, meta.response_code), (0x4242, ResponseCode::NoError));
        assert!(meta.authoritative && meta.recursion_available && meta.recursion_desired);
        assert!(reply.answers.iter().all(|record| record.ttl == TTL_SECS));
        assert_eq!(reply.queries[0].name.to_ascii(), name, "the question comes back as it was");
    }
}

#[test]
fn a_name_without_such_records_exists_all_the_same() {
    for (name, kind) in [
        ("web.", RecordType::AAAA),
        ("web.", RecordType::MX),
        ("idle.", RecordType::A),
        ("web.3.", RecordType::A),
    ] {
        let reply = ask(&zone(), &query(name, kind, None), Transport::Udp);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name} {kind}");
        assert!(reply.answers.is_empty());
    }
}

#[test]
fn other_names_are_somebody_elses() {
    for name in ["unknown.", "example.com.", "1.2.0.192.in-addr.arpa.", "."] {
        let bytes = query(name, RecordType::A, None);
        let decision = decide(&zone(), ip("10.1.0.20"), &bytes, Transport::Udp, 7);
        assert_eq!(decision, Decision::Forward, "{name}");
    }
    // A stranger gets nothing at all, not even forwarding.
    let bytes = query("example.com.", RecordType::A, None);
    let Decision::Reply(reply) = decide(&zone(), ip("192.0.2.9"), &bytes, Transport::Udp, 7) else {
        panic!("no reply");
    };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn services_come_with_the_addresses_of_their_targets() {
    let bytes = query("_http._tcp.web.", RecordType::SRV, Some(1232));
    let reply = ask(&zone(), &bytes, Transport::Udp);
    let target = |slot, number| format!("0 1 8080 web.{slot}.{}.", task(number));
    assert_eq!(data(&reply), [target(1, 11), target(2, 12)]);
    assert_eq!(reply.additionals.len(), 2);
}

#[test]
fn addresses_have_names() {
    let ptr = |name: &str| ask(&zone(), &query(name, RecordType::PTR, None), Transport::Udp);
    let reply = ptr("11.0.1.10.in-addr.arpa.");
    assert_eq!(data(&reply), [format!("web.1.{}.net1.", task(11))]);
    assert_eq!(ptr("99.0.1.10.in-addr.arpa.").metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn datagrams_are_cut_at_what_the_client_takes() {
    let zone = big(200);
    let size = |payload| {
        let bytes = query("web.", RecordType::A, payload);
        match decide(&zone, ip("127.0.0.1"), &bytes, Transport::Udp, 7) {
            Decision::Reply(bytes) => (bytes.len(), Message::from_vec(&bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    };
    for (payload, limit) in [(None, 512), (Some(100), 512), (Some(900), 900), (Some(9000), 1232)] {
        let (length, reply) = size(payload);
        assert!(length <= limit && length * 10 > limit * 8, "{payload:?}: {length}");
        assert!(reply.metadata.truncation && !reply.answers.is_empty());
        assert_eq!(reply.edns.is_some(), payload.is_some());
    }
    let whole = ask(&zone, &query("web.", RecordType::A, None), Transport::Tcp);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[test]
fn the_order_of_answers_is_chance_and_nothing_is_lost() {
    let zone = big(20);
    let order = |chance| {
        let bytes = query("web.", RecordType::A, None);
        let Decision::Reply(bytes) = decide(&zone, ip("127.0.0.1"), &bytes, Transport::Tcp, chance)
        else {
            panic!("no reply")
        };
        let reply = Message::from_vec(&bytes).unwrap();
        reply.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>()
    };
    let orders: std::collections::BTreeSet<_> = (0..50).map(|n| order(n << 32 | n)).collect();
    assert!(orders.len() > 20, "{}", orders.len());
    let sorted: std::collections::BTreeSet<_> = orders
        .into_iter()
        .map(|mut order| {
            order.sort();
            order
        })
        .collect();
    assert_eq!(sorted.len(), 1);
}

#[test]
fn bad_messages_are_refused_or_ignored_and_never_a_panic() {
    let zone = zone();
    let decide = |bytes: &[u8]| decide(&zone, ip("127.0.0.1"), bytes, Transport::Udp, 7);
    let code = |decision| match decision {
        Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap().metadata.response_code,
        other => panic!("{other:?}"),
    };
    let good = query("web.", RecordType::A, Some(1232));
    let mut reply = good.clone();
    reply[2] |= 0x80;
    assert_eq!(decide(&reply), Decision::Ignore, "a reply is not answered");
    assert_eq!(decide(&good[..11]), Decision::Ignore);
    assert_eq!(code(decide(&good[..14])), ResponseCode::FormErr);
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(code(decide(&update)), ResponseCode::NotImp);
    let mut empty = good[..12].to_vec();
    empty[4..12].fill(0);
    assert_eq!(code(decide(&empty)), ResponseCode::FormErr);
    for at in 0..good.len() {
        for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _any = decide(&bytes);
        }
    }
}
