//! From a query to its reply, or to the decision that somebody else must answer; pure.

use std::net::{IpAddr, SocketAddr};

use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{
    Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode,
};
use hickory_server::proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::Request;

use super::zone::{Entry, Reverse, Sight, Zone};

/// How long a client may keep an answer, in seconds: a task that stops serving is out of use then.
pub(super) const TTL_SECS: u32 = 1;

/// Largest reply over UDP: what passes every path without being cut into fragments (DNS flag day
/// 2020).
const UDP_MAX: u16 = 1232;

/// Largest reply over UDP to a client that does not say what it takes (RFC 1035).
const UDP_PLAIN_MAX: u16 = 512;

/// Length of the header of a message.
const HEADER_LEN: usize = 12;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// One datagram, one reply of limited size.
    Udp,
    /// A stream of messages.
    Tcp,
}

impl Transport {
    const fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Tcp => Protocol::Tcp,
        }
    }
}

/// What to do with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// The name is not ours: ask upstream.
    Forward,
    /// It is no query: silence, so that two servers never talk to each other for ever.
    Ignore,
}

/// Decides about a message from a client. `chance` orders the records of the reply.
pub(super) fn decide(
    zone: &Zone,
    client: IpAddr,
    bytes: &[u8],
    transport: Transport,
    chance: u64,
) -> Decision {
    // Too short for a header, or itself a reply.
    if bytes.len() < HEADER_LEN || bytes[2] & 0x80 != 0 {
        return Decision::Ignore;
    }
    // The port of the client plays no part in an answer.
    let source = SocketAddr::new(client, 0);
    let Ok(request) = Request::from_bytes(bytes.to_vec(), source, transport.protocol()) else {
        return failure(bytes, ResponseCode::FormErr);
    };
    if request.metadata.op_code != OpCode::Query {
        return failure(bytes, ResponseCode::NotImp);
    }
    // hickory's rule is ours: exactly one question.
    let Ok(query) = request.request_info().map(|info| info.query.original()) else {
        return failure(bytes, ResponseCode::FormErr);
    };
    let mut reply = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata = Metadata::response_from_request(&request.metadata);
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    if request.edns.is_some() {
        // Without it the client would take its own size for refused.
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX).set_version(0);
        reply.set_edns(edns);
    }
    let Some(sight) = zone.sight(client).filter(|_| query.query_class == DNSClass::IN) else {
        reply.metadata.response_code = ResponseCode::Refused;
        return encode(reply, usize::from(UDP_PLAIN_MAX));
    };
    if !fill(&mut reply, zone, &sight, query) {
        return Decision::Forward;
    }
    shuffle(&mut reply.answers, chance);
    let limit = match (transport, &request.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => usize::from(UDP_PLAIN_MAX),
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.max_payload().clamp(UDP_PLAIN_MAX, UDP_MAX))
        }
    };
    encode(reply, limit)
}

/// A reply without records to a message of which only the header can be trusted.
pub(super) fn failure(request: &[u8], code: ResponseCode) -> Decision {
    let Some(id) = request.first_chunk::<2>() else { return Decision::Ignore };
    let mut reply = Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, code);
    reply.metadata.recursion_available = true;
    if let Ok(Message { queries, metadata, .. }) = Message::from_vec(request) {
        reply.metadata.recursion_desired = metadata.recursion_desired;
        reply.metadata.op_code = metadata.op_code;
        reply.add_queries(queries);
    }
    encode(reply, usize::from(UDP_PLAIN_MAX))
}

/// Puts our answer into a reply. Whether the name is ours at all.
fn fill(reply: &mut Message, zone: &Zone, sight: &Sight<'_>, query: &Query) -> bool {
    reply.metadata.authoritative = true;
    let name = query.name.to_lowercase();
    if let Some(addr) = reversed(&name) {
        return match zone.reverse(sight, addr) {
            Reverse::Elsewhere => false,
            Reverse::Nobody => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                true
            }
            Reverse::Name(target) => {
                if let (RecordType::PTR | RecordType::ANY, Some(target)) =
                    (query.query_type, absolute(&target))
                {
                    reply.add_answer(record(&query.name, RData::PTR(PTR(target))));
                }
                true
            }
        };
    }
    let text = name.to_ascii();
    let Some(entry) = sight.entry(text.trim_end_matches('.')) else { return false };
    reply.add_answers(addresses(&query.name, query.query_type, &entry));
    if matches!(query.query_type, RecordType::SRV | RecordType::ANY) {
        for (port, target) in &entry.services {
            let Some(target_name) = absolute(target) else { continue };
            let found = sight.entry(target).unwrap_or_default();
            reply.add_additionals(addresses(&target_name, RecordType::ANY, &found));
            let service = RData::SRV(SRV::new(0, 1, *port, target_name));
            reply.add_answer(record(&query.name, service));
        }
    }
    true
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_SECS, data)
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn addresses(name: &Name, wanted: RecordType, entry: &Entry) -> Vec<Record> {
    let data = entry.addresses.iter().filter_map(|addr| match (addr, wanted) {
        (IpAddr::V4(addr), RecordType::A | RecordType::ANY) => Some(RData::A(A(*addr))),
        (IpAddr::V6(addr), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*addr))),
        _ => None,
    });
    data.map(|data| record(name, data)).collect()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` means.
fn reversed(name: &Name) -> Option<IpAddr> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Fisher and Yates, with a generator that one number seeds: good enough to spread load.
fn shuffle(records: &mut [Record], chance: u64) {
    let mut state = chance | 1;
    for last in (1..records.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        records.swap(last, usize::try_from(state % bound).unwrap_or_default());
    }
}

/// A reply as bytes; what does not fit is left out and the client told (TC).
fn encode(mut reply: Message, limit: usize) -> Decision {
    loop {
        let Ok(bytes) = reply.to_vec() else { return Decision::Ignore };
        if bytes.len() <= limit || (reply.answers.is_empty() && reply.additionals.is_empty()) {
            return Decision::Reply(bytes);
        }
        if reply.additionals.is_empty() {
            // Some clients never ask again over TCP: they get as many addresses as fit.
            reply.metadata.truncation = true;
            let bare = reply.truncate().to_vec().map_or(0, |bytes| bytes.len());
            let each = bytes.len().saturating_sub(bare).div_ceil(reply.answers.len()).max(1);
            let fits = limit.saturating_sub(bare) / each;
            reply.answers.truncate(fits.min(reply.answers.len() - 1));
        } else {
            reply.additionals.clear();
        }
    }
}

#[cfg(test)]
mod tests;
