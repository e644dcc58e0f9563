//! Entering a cluster: from a join request to a record and credentials.

use std::net::SocketAddr;
use std::time::Duration;

use super::address;
use super::manager::Beginning;
use super::node::Node;
use super::record::Record;
use super::worker::Worker;
use crate::api::{ControlError, JoinRequest};
use crate::domain::Autolock;
use crate::identity::NodeIdentity;
use crate::transport::{self, EnrollError, Enrolment, enroll};

/// How long a node may take to become a member before `join` says that it goes on in the background.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

impl Node {
    /// Enrols and starts; what was written is taken back if it fails.
    pub(super) async fn enrol(&self, request: JoinRequest) -> Result<(), ControlError> {
        let host = address::host_addresses().map_err(invalid)?;
        let listen = address::listen(&request.listen_addr, &host).map_err(invalid)?;
        let mut remotes = Vec::new();
        for text in &request.remote_addrs {
            remotes.extend(transport::resolve(text).await.map_err(|error| enrolment(&error))?);
        }
        let first = *remotes.first().ok_or_else(|| {
            ControlError::Invalid("at least one manager's address is needed".to_owned())
        })?;
        let advertise = if request.advertise_addr.is_empty() {
            // The address from which the manager is reached is one at which it can reach us.
            let toward = address::toward(first).await.map_err(invalid)?;
            SocketAddr::new(toward, listen.port())
        } else {
            address::advertise(&request.advertise_addr, &host).map_err(invalid)?
        };
        let wish = Enrolment {
            token: request.token,
            managers: remotes.clone(),
            availability: request.availability,
        };
        let enrolled = enroll(&self.inner.env, &wish).await.map_err(|error| enrolment(&error))?;
        let NodeIdentity { cluster, node, .. } = enrolled.identity;
        let mut record = Record::new(cluster, node, advertise, listen);
        record.managers = remotes;
        for addr in enrolled.managers {
            if !record.managers.contains(&addr) {
                record.managers.push(addr);
            }
        }
        // A manager learns of the lock together with its place in the group.
        let lock = Autolock::default();
        self.settle(record, &enrolled.credentials, Beginning::Resume, lock).await
    }

    /// Waits until the agent has a session.
    pub(super) async fn wait_connected(&self) -> Result<(), ControlError> {
        let connected = {
            let slot = self.inner.running.lock().await;
            slot.as_ref().and_then(|running| running.worker.as_ref()).map(Worker::connected)
        };
        let Some(mut connected) = connected else { return Ok(()) };
        let waited = connected.wait_for(Option::is_some);
        match self.inner.env.clock.timeout(JOIN_LIMIT, waited).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ControlError::JoinTimeout),
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> ControlError {
    ControlError::Invalid(error.to_string())
}

fn enrolment(error: &EnrollError) -> ControlError {
    match error {
        EnrollError::Token(_) | EnrollError::NoAddress | EnrollError::Address { .. } => {
            ControlError::Invalid(error.to_string())
        }
        EnrollError::Unreachable(_)
        | EnrollError::Unable(_)
        | EnrollError::Refused { .. }
        | EnrollError::Certificate { .. }
        | EnrollError::Clocks { .. }
        | EnrollError::Identity(_) => ControlError::Unavailable(error.to_string()),
    }
}
