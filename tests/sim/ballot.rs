//! Votes as they leave a member: what a member promised to others is what must not be forgotten.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::Deserialize;
use swarm::raft::{Inbound, Peer, PeerError};

use crate::net::{Answer, Call, serve};
use crate::oracle::Oracle;

/// The shape of Raft's messages on the wire, as far as it is needed here.
#[derive(Deserialize)]
struct Vote {
    term: u64,
    node: u64,
    _committed: bool,
}

#[derive(Deserialize)]
enum Ballot {
    Vote(Vote),
    #[expect(dead_code, reason = "a probe promises nothing")]
    PreVote(Vote),
}

#[derive(Deserialize)]
struct Answered {
    vote: Vote,
    is_granted: bool,
}

fn decode<T: serde::de::DeserializeOwned>(payload: &Bytes) -> Option<T> {
    let content = payload.get(1..)?;
    let decoded = bincode::serde::decode_from_slice(content, bincode::config::standard());
    decoded.ok().map(|(value, _)| value)
}

/// Answers for a process, and tells of the votes that it grants.
pub(crate) async fn answer(
    inbound: Option<Inbound>,
    to: Peer,
    call: Call,
    oracle: &Arc<Mutex<Oracle>>,
) -> Result<Answer, PeerError> {
    let Some(inbound) = inbound else {
        return Err(PeerError::Unreachable { addr: to.addr, reason: "refused".to_owned() });
    };
    let asked: Option<Ballot> = match &call {
        Call::Vote(payload) => decode(payload),
        Call::Append(_)
        | Call::Transfer(_)
        | Call::Snapshot(..)
        | Call::Propose(_)
        | Call::ReadIndex
        | Call::Leases(_)
        | Call::Open(..)
        | Call::Certify(_)
        | Call::Join(..) => None,
    };
    let reply = serve(&inbound, to, call).await;
    if let (Some(Ballot::Vote(vote)), Ok(Answer::Payload(payload))) = (asked, &reply)
        && let Some(Answered { vote: Vote { term, .. }, is_granted: true }) = decode(payload)
        && term == vote.term
    {
        oracle.lock().unwrap().vote(to.id, vote.term, vote.node);
    }
    reply
}
