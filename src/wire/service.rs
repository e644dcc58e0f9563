//! Services, their spec versions, secrets and configs ⇄ messages.

use std::sync::Arc;

use bytes::Bytes;

use super::parts::{Numbered, id, id_to, json, json_to, meta, numbered, time_opt};
use super::{DecodeError, types};
use crate::domain::secret::Sensitive;
use crate::domain::service::{UpdateState, UpdateStatus};
use crate::domain::{
    Config, ConfigId, Secret, SecretId, Service, ServiceId, SpecVersion, Timestamp,
};

numbered!(UpdateState {
    Updating = 0,
    Paused = 1,
    Completed = 2,
    RollbackStarted = 3,
    RollbackPaused = 4,
    RollbackCompleted = 5,
});

impl From<&UpdateStatus> for types::UpdateStatus {
    fn from(it: &UpdateStatus) -> Self {
        Self {
            state: it.state.number(),
            target: it.target,
            started_at: it.started_at.0,
            completed_at: it.completed_at.unwrap_or_default().0,
            batch_done_at: it.batch_done_at.unwrap_or_default().0,
            message: it.message.clone(),
        }
    }
}

impl TryFrom<types::UpdateStatus> for UpdateStatus {
    type Error = DecodeError;

    fn try_from(it: types::UpdateStatus) -> Result<Self, DecodeError> {
        Ok(Self {
            state: UpdateState::numbered("state", it.state)?,
            target: it.target,
            started_at: Timestamp(it.started_at),
            completed_at: time_opt(it.completed_at),
            batch_done_at: time_opt(it.batch_done_at),
            message: it.message,
        })
    }
}

impl From<&Service> for types::Service {
    fn from(it: &Service) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            name: it.name.clone(),
            current: it.current,
            previous: it.previous.unwrap_or_default(),
            update: it.update.as_ref().map(types::UpdateStatus::from),
            removing: it.removing,
        }
    }
}

impl TryFrom<types::Service> for Service {
    type Error = DecodeError;

    fn try_from(it: types::Service) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id("id", &it.id, ServiceId::from_slice)?,
            meta: meta(it.meta),
            name: it.name,
            current: it.current,
            previous: (it.previous != 0).then_some(it.previous),
            update: it.update.map(UpdateStatus::try_from).transpose()?,
            removing: it.removing,
        })
    }
}

impl From<&SpecVersion> for types::SpecVersion {
    fn from(it: &SpecVersion) -> Self {
        Self {
            service: id_to(it.service.to_bytes()),
            number: it.number,
            spec_json: json_to(&*it.spec),
        }
    }
}

impl TryFrom<types::SpecVersion> for SpecVersion {
    type Error = DecodeError;

    fn try_from(it: types::SpecVersion) -> Result<Self, DecodeError> {
        Ok(Self {
            service: id("service", &it.service, ServiceId::from_slice)?,
            number: it.number,
            spec: Arc::new(json("spec_json", &it.spec_json)?),
        })
    }
}

impl From<&Secret> for types::Payload {
    fn from(it: &Secret) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            spec_json: json_to(&it.spec),
            data: Bytes::copy_from_slice(it.data.expose()),
        }
    }
}

impl TryFrom<types::Payload> for Secret {
    type Error = DecodeError;

    fn try_from(it: types::Payload) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id("id", &it.id, SecretId::from_slice)?,
            meta: meta(it.meta),
            spec: json("spec_json", &it.spec_json)?,
            data: Sensitive::new(&it.data),
        })
    }
}

impl From<&Config> for types::Payload {
    fn from(it: &Config) -> Self {
        Self {
            id: id_to(it.id.to_bytes()),
            meta: Some(it.meta.into()),
            spec_json: json_to(&it.spec),
            data: Bytes::copy_from_slice(&it.data),
        }
    }
}

impl TryFrom<types::Payload> for Config {
    type Error = DecodeError;

    fn try_from(it: types::Payload) -> Result<Self, DecodeError> {
        Ok(Self {
            id: id("id", &it.id, ConfigId::from_slice)?,
            meta: meta(it.meta),
            spec: json("spec_json", &it.spec_json)?,
            data: it.data.as_ref().into(),
        })
    }
}
