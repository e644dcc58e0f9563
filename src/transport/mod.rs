//! gRPC over mutual TLS: the accept loop, the channel pool, the agents' link, enrolment.

mod link;

pub use link::{LinkError, ManagerLink, SessionLink};
