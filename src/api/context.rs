//! What every handler works with: reading the replicated state, changing it, encoding answers.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::Deps;
use super::alarms::{self, Alarms};
use super::ask::{Ask, Freshness};
use super::control::{ControlError, Participation};
use super::engine::Engine;
use super::error::Error;
use super::events::EventHub;
use crate::domain::{RequestId, Revision};
use crate::env::Scope;
use crate::raft::{Leadership, Store};
use crate::state::{Change, View};

/// Longest wait for a quorum before a read is refused.
const READ_LIMIT: Duration = Duration::from_secs(4);
/// Longest wait for a change to be committed: it outlasts an election.
const PROPOSE_LIMIT: Duration = Duration::from_secs(10);

/// Docker's texts for a node that has no cluster's state.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
/// And of one that does not know yet what it is.
const STARTING: &str =
    "The swarm daemon of this node has just started and is not ready yet. Try again in a moment.";
const IS_WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// What every handler works with. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ctx {
    pub(super) deps: Arc<Deps>,
    pub(super) engine: Engine,
    pub(super) events: EventHub,
    pub(super) alarms: Alarms,
    pub(super) scope: Scope,
}

/// A view to answer from.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) store: Store,
    pub(super) view: View,
    freshness: Freshness,
}

impl Ctx {
    /// Starts what runs beside requests.
    pub(super) fn start(deps: Deps, scope: Scope) -> Self {
        let engine = Engine::new(deps.engine.clone(), deps.env.clone(), scope.clone());
        let events = EventHub::start(&deps, &scope);
        let ctx = Self { deps: Arc::new(deps), engine, events, alarms: Alarms::default(), scope };
        ctx.scope.spawn("alarms", alarms::run(ctx.clone()));
        ctx
    }

    /// The store, or why there is none, in Docker's words.
    pub(super) fn store(&self) -> Result<Store, Error> {
        if let Some(store) = self.deps.store.borrow().clone() {
            return Ok(store);
        }
        let state = self.deps.control.state();
        Err(match state.participation {
            Participation::Inactive => Error::unavailable(NO_SWARM),
            Participation::Starting => Error::unavailable(STARTING),
            Participation::Locked => ControlError::Locked.into(),
            Participation::Error => Error::unavailable(state.error),
            Participation::Pending | Participation::Active if state.is_manager => {
                Error::no_leader()
            }
            Participation::Pending | Participation::Active => Error::unavailable(IS_WORKER),
        })
    }

    /// A view as fresh as the request wants it.
    pub(super) async fn read(&self, ask: &Ask) -> Result<Read, Error> {
        let store = self.store()?;
        let view = match ask.freshness {
            Freshness::Linearizable => store.read_index(READ_LIMIT).await?,
            Freshness::Stale => store.view(),
        };
        Ok(Read { store, view, freshness: ask.freshness })
    }

    /// A view that has everything that was committed before the request, as changes need it.
    pub(super) async fn read_to_change(&self) -> Result<Read, Error> {
        self.read(&Ask::default()).await
    }

    /// Changes the state, all or nothing.
    pub(super) async fn propose(
        &self,
        store: &Store,
        ask: &Ask,
        changes: Vec<Change>,
    ) -> Result<Revision, Error> {
        let request = RequestId::from_bytes(self.draw("request", ask, store));
        Ok(store.propose(Some(request), changes, PROPOSE_LIMIT).await?)
    }

    /// The bytes of a new id: chance, or the same for the same `Idempotency-Key`, so that a
    /// repeated request finds what the first one made.
    pub(super) fn draw(&self, kind: &str, ask: &Ask, store: &Store) -> [u8; 16] {
        let Some(key) = &ask.key else { return self.deps.env.entropy.id() };
        let view = store.view();
        let cluster = view.cluster.as_ref().map(|cluster| cluster.id.to_bytes());
        let text = [kind.as_bytes(), &cluster.unwrap_or_default(), key.as_bytes()].join(&0);
        let digest = crate::env::seal::digest(&text);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id
    }
}

impl Read {
    /// Who leads.
    pub(super) fn leadership(&self) -> Leadership {
        *self.store.leadership().borrow()
    }

    /// 200 with a body, saying so if it may be behind.
    pub(super) fn json(&self, value: &Value) -> Response {
        let mut response = json(StatusCode::OK, value);
        let revision = HeaderValue::from(self.view.position.index);
        response.headers_mut().insert("x-swarm-revision", revision);
        if self.freshness == Freshness::Stale {
            response.headers_mut().insert("x-swarm-stale", HeaderValue::from_static("true"));
        }
        response
    }
}

/// A JSON answer as Docker writes it: with a newline at its end.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    let body = format!("{value}\n");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
