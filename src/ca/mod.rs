//! Issuing identities: certificates for new nodes and renewals, membership of managers, and what
//! the state says of who calls.
//!
//! Every manager does all of it: the root's key is in the replicated state, and what must be written
//! goes through the store to whoever leads. No policy on top: the token or the node object says
//! which role a certificate gets.

mod issue;
mod limiter;
mod members;
mod roster;

#[cfg(test)]
mod tests;

pub use issue::Issuer;
pub use members::Members;
pub use roster::StateRoster;

use std::time::Duration;

use tonic::Status;

use crate::raft::{ProposeError, ReadError};
use crate::state::Rejection;

/// For reading what is certainly the newest state.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// For one commit.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

fn not_read(error: &ReadError) -> Status {
    Status::unavailable(error.to_string())
}

fn not_written(error: &ProposeError) -> Status {
    match error {
        ProposeError::Rejected(Rejection::Stale { .. }) => Status::aborted(error.to_string()),
        ProposeError::Rejected(Rejection::NotFound { .. }) => Status::not_found(error.to_string()),
        ProposeError::Rejected(_) => Status::failed_precondition(error.to_string()),
        ProposeError::NoLeader
        | ProposeError::Unknown
        | ProposeError::NotLeader
        | ProposeError::NoSpace(_)
        | ProposeError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}
