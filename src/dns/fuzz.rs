//! The fuzz tests' way to queries and replies.

use std::net::IpAddr;

use super::answer::{Decision, Transport, decide};
use super::upstream;
use super::zone::Zone;
use super::zone::tests::{ME, set};

/// A query of a client that sees names, and of a stranger.
pub(crate) fn query(bytes: &[u8]) {
    let zone = Zone::new(&set(), ME, &std::collections::BTreeMap::new());
    let client: IpAddr = [10, 1, 0, 20].into();
    let stranger: IpAddr = [203, 0, 113, 9].into();
    for (transport, most) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        match decide(&zone, client, bytes, transport, 7) {
            Decision::Reply(reply) => assert!(reply.len() <= most, "{} bytes", reply.len()),
            Decision::Forward | Decision::Ignore => {}
        }
        match decide(&zone, stranger, bytes, transport, 7) {
            // Who is not in a network gets no more than he sent, so that nobody else is flooded.
            Decision::Reply(reply) => {
                assert!(reply.len() <= bytes.len().max(12), "{} for {}", reply.len(), bytes.len());
            }
            Decision::Forward => panic!("a stranger is no client of ours"),
            Decision::Ignore => {}
        }
    }
}

/// A query and what somebody says is the reply to it: the first byte says where it begins.
pub(crate) fn reply(bytes: &[u8]) {
    let Some((at, rest)) = bytes.split_first() else { return };
    let at = usize::from(*at).min(rest.len());
    let (query, reply) = rest.split_at(at);
    if upstream::answers(query, reply) {
        assert!(reply.len() >= 12 && reply[..2] == query[..2] && reply[2] & 0x80 != 0);
    }
}
