//! `/services`: what the user wants to run.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::ask::Ask;
use super::context::{Ctx, Read, json};
use super::error::{Code, Error};
use super::filter::Filters;
use super::{convert, lookup, service_spec};
use crate::domain::service::{
    Mode, Service, ServiceSpec, UpdateState, UpdateStatus, VersionNumber,
};
use crate::domain::{Meta, Revision, ServiceId, SpecVersion};
use crate::raft::Store;
use crate::state::{Change, Expect, Object, State as Replicated};

/// How long a create waits for a service of the same name that is being removed: Docker's default
/// stop grace of 10 s, with room.
const REMOVAL_WAIT: Duration = Duration::from_secs(15);
/// Attempts to remove a service that keeps being updated.
const REMOVE_ATTEMPTS: u32 = 8;

/// `GET /services`.
pub(super) async fn list(State(ctx): State<Ctx>, ask: Ask) -> Result<Response, Error> {
    let known = ["id", "label", "mode", "name", "runtime"];
    let filters = Filters::only(&ask.params, &known)?;
    let read = ctx.read(&ask).await?;
    let with_status = ask.params.flag("status");
    let shown = read
        .view
        .services
        .values()
        .filter(|service| !service.removing && matches(&read.view, service, &filters))
        .map(|service| {
            let mut shown = convert::service(&read.view, service);
            if with_status {
                shown["ServiceStatus"] = convert::service_status(&read.view, service);
            }
            shown
        });
    Ok(read.json(&Value::Array(shown.collect())))
}

fn matches(state: &Replicated, service: &Service, filters: &Filters) -> bool {
    let Some(spec) = state.current_spec(service) else { return false };
    let mode = match spec.mode {
        Mode::Replicated { .. } => "replicated",
        Mode::Global {} => "global",
    };
    filters.prefix("id", &[&service.id.to_string()])
        && filters.prefix("name", &[&service.name])
        && filters.labels("label", &spec.labels)
        && filters.any("mode", |wanted| wanted == mode)
        && filters.any("runtime", |wanted| matches!(wanted, "" | "container"))
}

/// `GET /services/{id}`.
pub(super) async fn inspect(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    let read = ctx.read(&ask).await?;
    let mut shown = convert::service(&read.view, lookup::service(&read.view, &text)?);
    if ask.params.flag("insertDefaults") {
        convert::insert_defaults(&mut shown);
    }
    Ok(read.json(&shown))
}

/// `POST /services/create`.
pub(super) async fn create(
    State(ctx): State<Ctx>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let store = ctx.store()?;
    let mut spec = service_spec::decode(&body)?;
    let read = ctx.read_to_change().await?;
    let id = ServiceId::from_bytes(ctx.draw("service", &ask, &store));
    if read.view.service(id).is_none() {
        service_spec::resolve(&read.view, &mut spec)?;
        service_spec::admit(&read.view, &spec, None)?;
        service_spec::set_registry_auth(&mut spec, ask.registry_auth.clone());
        wait_for_name(&ctx, &store, &spec.name).await?;
        ctx.propose(&store, &ask, creation(id, spec)).await?;
    }
    Ok(json(StatusCode::CREATED, &json!({ "ID": id.to_string() })))
}

fn creation(id: ServiceId, spec: ServiceSpec) -> Vec<Change> {
    let service = Service {
        id,
        meta: Meta::default(),
        name: spec.name.clone(),
        current: 1,
        previous: None,
        update: None,
        removing: false,
    };
    let version = SpecVersion { service: id, number: 1, spec: Arc::new(spec) };
    vec![
        Change::Put { object: Object::Service(Arc::new(service)), expect: Expect::Absent },
        Change::Put { object: Object::SpecVersion(Arc::new(version)), expect: Expect::Absent },
    ]
}

/// A removed service keeps its name until its tasks have stopped: waits for that, so that removing
/// and creating again works as it does with Docker.
async fn wait_for_name(ctx: &Ctx, store: &Store, name: &str) -> Result<(), Error> {
    let held = |state: &Replicated| state.service_named(name).is_some_and(|it| it.removing);
    let mut views = store.watch();
    let free = views.wait_for(|view| !held(view));
    match ctx.deps.env.clock.timeout(REMOVAL_WAIT, free).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Error::no_leader()),
        Err(_) => Err(Error::new(
            StatusCode::CONFLICT,
            format!(
                "service {name} is still being removed: its tasks have not all stopped; try again when they have"
            ),
        )),
    }
}

/// `POST /services/{id}/update`.
pub(super) async fn update(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
    body: Bytes,
) -> Result<Response, Error> {
    let store = ctx.store()?;
    let version = ask.params.version("service")?;
    let read = ctx.read_to_change().await?;
    let service = lookup::service(&read.view, &text)?;
    if service.meta.spec_revision != version {
        return Err(Error::rpc(Code::Unknown, "update out of sequence"));
    }
    let changes = match ask.params.get("rollback") {
        None | Some("") => changed(&read, service, decode_update(&read, service, &ask, &body)?)?,
        Some("previous") => rolled_back(&read, service)?,
        Some(other) => {
            let text = format!("unrecognized rollback option {other}");
            return Err(Error::bad_request(text));
        }
    };
    ctx.propose(&store, &ask, with_precondition(changes, version)).await?;
    Ok(json(StatusCode::OK, &json!({ "Warnings": null })))
}

fn with_precondition((service, spec): (Service, Option<SpecVersion>), at: Revision) -> Vec<Change> {
    let expect = Expect::SpecAt(at);
    let mut changes = vec![Change::Put { object: Object::Service(Arc::new(service)), expect }];
    if let Some(spec) = spec {
        let object = Object::SpecVersion(Arc::new(spec));
        changes.push(Change::Put { object, expect: Expect::Absent });
    }
    changes
}

fn decode_update(
    read: &Read,
    service: &Service,
    ask: &Ask,
    body: &[u8],
) -> Result<ServiceSpec, Error> {
    let mut spec = service_spec::decode(body)?;
    service_spec::resolve(&read.view, &mut spec)?;
    let from = match ask.params.get("registryAuthFrom") {
        None | Some("" | "spec") => Some(service.current),
        Some("previous-spec") => service.previous,
        Some(other) => {
            let text = format!("unsupported registryAuthFrom {other}");
            return Err(Error::bad_request(text));
        }
    };
    let auth = ask.registry_auth.clone().or_else(|| {
        let version = from.and_then(|number| read.view.spec(service.id, number))?;
        version.spec.task_template.container_spec.registry_auth().cloned()
    });
    service_spec::set_registry_auth(&mut spec, auth);
    Ok(spec)
}

/// The service with another spec. Its number is higher than any before: the highest is always the
/// current or the previous one, since a rollback only swaps the two.
fn changed(
    read: &Read,
    service: &Service,
    spec: ServiceSpec,
) -> Result<(Service, Option<SpecVersion>), Error> {
    let current = read.view.current_spec(service);
    service_spec::admit(&read.view, &spec, current.map(Arc::as_ref))?;
    if spec.name != service.name {
        let text = "renaming services is not supported";
        return Err(Error::rpc(Code::Unimplemented, text));
    }
    let changes_mode =
        current.is_some_and(|it| it.replicas().is_some() != spec.replicas().is_some());
    if changes_mode {
        return Err(Error::rpc(Code::Unimplemented, "service mode change is not allowed"));
    }
    let number: VersionNumber = service.current.max(service.previous.unwrap_or_default()) + 1;
    let next = Service {
        current: number,
        previous: Some(service.current),
        update: None,
        ..service.clone()
    };
    let version = SpecVersion { service: service.id, number, spec: Arc::new(spec) };
    Ok((next, Some(version)))
}

/// The service with its previous spec, which becomes what a further rollback undoes.
fn rolled_back(read: &Read, service: &Service) -> Result<(Service, Option<SpecVersion>), Error> {
    let Some(previous) = service.previous else {
        let text = format!("service {} does not have a previous spec", service.id);
        return Err(Error::rpc(Code::FailedPrecondition, text));
    };
    if let Some(version) = read.view.spec(service.id, previous) {
        let current = read.view.current_spec(service).map(Arc::as_ref);
        service_spec::admit(&read.view, &version.spec, current)?;
    }
    let status = UpdateStatus {
        state: UpdateState::RollbackStarted,
        target: previous,
        started_at: read.view.clock,
        completed_at: None,
        batch_done_at: None,
        message: "manually requested rollback".to_owned(),
    };
    let next = Service {
        current: previous,
        previous: Some(service.current),
        update: Some(status),
        ..service.clone()
    };
    Ok((next, None))
}

/// `DELETE /services/{id}`: for the user the service is gone at once; its tasks stop in the
/// background.
pub(super) async fn remove(
    State(ctx): State<Ctx>,
    Path(text): Path<String>,
    ask: Ask,
) -> Result<Response, Error> {
    for attempt in 1.. {
        let read = ctx.read_to_change().await?;
        let service = lookup::service(&read.view, &text)?;
        let gone = Service { removing: true, ..(**service).clone() };
        let expect = Expect::SpecAt(service.meta.spec_revision);
        let change = Change::Put { object: Object::Service(Arc::new(gone)), expect };
        match ctx.propose(&read.store, &ask, vec![change]).await {
            // Somebody updated it in between: it shall go all the same.
            Err(error) if attempt < REMOVE_ATTEMPTS && error.is_out_of_sequence() => {}
            outcome => return outcome.map(|_| StatusCode::OK.into_response()),
        }
    }
    Err(Error::rpc(Code::Unknown, "update out of sequence"))
}
