//! gRPC over mutual TLS: the accept loop, the gate before every RPC, the channel pool, the agents'
//! link, enrolment and renewal.
//!
//! [`serve`] accepts; [`Channels`] dials. Both read the node's identity anew for each connection, so
//! a renewed certificate needs no restart. Whoever calls is known by certificate alone, and the gate
//! holds role and standing against one table (`identity::permitted`) before a handler runs. The
//! only folder that names tonic's transport.

mod accept;
mod channels;
mod dial;
mod dialogue;
mod enroll;
mod gate;
mod grpc_link;
mod link;
mod renew;
mod slots;

#[cfg(test)]
mod tests;

pub use accept::{Limits, Serving, serve};
pub use channels::{Channels, ConnectionState, Lane};
pub use dialogue::{Answers, Dialogue, Questions, Ways, answers};
pub use enroll::{EnrollError, Enrolled, Enrolment, enroll, resolve};
pub use gate::{Peer, PeerIdentity, Roster, Standing, peer};
pub use grpc_link::GrpcLink;
pub use link::{LinkError, ManagerLink, SessionLink};
pub use renew::{RenewError, Renewal, RenewalRequest, renew_once};

/// The port that managers listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 2377;

/// Largest message in either direction, in bytes; to be set on every generated client and server.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The innermost cause of an error: what the system or the peer said, without the layers around it.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An endpoint without an address: the connector knows it. (`http`, since the connector does TLS.)
fn endpoint() -> tonic::transport::Endpoint {
    tonic::transport::Endpoint::from_static("http://swarm-manager")
}
