//! Failures as Docker's clients know them: a status and `{"message": …}`.
//!
//! Texts and codes are those of the Docker Engine where it has them (clients compare texts, such as
//! "update out of sequence"); what swarmkit's gRPC said keeps its `rpc error: code = …` prefix.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::control::ControlError;
use super::log_source::LogError;
use crate::raft::{ProposeError, ReadError};
use crate::state::Rejection;

/// Docker's text for a cluster without a leader.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/// gRPC codes of swarmkit that show in texts, with the HTTP status that Docker gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    InvalidArgument,
    FailedPrecondition,
    PermissionDenied,
    AlreadyExists,
    Unimplemented,
    Unknown,
}

impl Code {
    const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::PermissionDenied => "PermissionDenied",
            Self::AlreadyExists => "AlreadyExists",
            Self::Unimplemented => "Unimplemented",
            Self::Unknown => "Unknown",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Error {
    /// HTTP status.
    pub(super) status: StatusCode,
    /// For people.
    pub(super) message: String,
}

impl Error {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// What swarmkit answers through Docker.
    pub(super) fn rpc(code: Code, text: impl std::fmt::Display) -> Self {
        Self::new(code.status(), format!("rpc error: code = {} desc = {text}", code.name()))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{kind} {name} not found"))
    }

    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }

    pub(super) fn no_leader() -> Self {
        let text = format!("rpc error: code = Unavailable desc = {NO_LEADER}");
        Self::unavailable(text)
    }

    /// Whether the object had changed since it was read.
    pub(super) fn is_out_of_sequence(&self) -> bool {
        self.message.ends_with("update out of sequence")
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), message = %self.message, "request failed");
        let body = format!("{}\n", serde_json::json!({ "message": self.message }));
        (self.status, [(http::header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match &rejection {
            Rejection::NameInUse { kind: "service", .. } | Rejection::Exists { .. } => {
                Self::rpc(Code::AlreadyExists, rejection)
            }
            Rejection::NameInUse { kind, name } => {
                Self::rpc(Code::AlreadyExists, format!("{kind} {name} already exists"))
            }
            Rejection::Stale { .. } => Self::rpc(Code::Unknown, rejection),
            Rejection::NotFound { kind, id } => Self::not_found(kind, id),
            Rejection::Referenced { .. } => Self::rpc(Code::InvalidArgument, rejection),
            Rejection::TooManyManagers { .. } | Rejection::Broken { .. } => {
                Self::rpc(Code::FailedPrecondition, rejection)
            }
        }
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejection) => rejection.into(),
            ProposeError::NoLeader | ProposeError::NotLeader => Self::no_leader(),
            ProposeError::Unknown => Self::new(StatusCode::GATEWAY_TIMEOUT, error.to_string()),
            ProposeError::NoSpace(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            ProposeError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader | ReadError::Timeout => Self::no_leader(),
        }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::AlreadyInSwarm
            | ControlError::NotInSwarm
            | ControlError::JoinTimeout
            | ControlError::LastManager
            | ControlError::QuorumLoss { .. }
            | ControlError::ManagerLeave
            | ControlError::Locked
            | ControlError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            ControlError::InvalidToken | ControlError::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ControlError::NotLocked => StatusCode::CONFLICT,
            ControlError::InvalidKey => StatusCode::UNAUTHORIZED,
            ControlError::Invalid(_) => StatusCode::BAD_REQUEST,
            ControlError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        };
        Self::new(status, error.to_string())
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Self::unavailable(error.0)
    }
}
