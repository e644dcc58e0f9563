//! The fuzz tests' way to what engines say and are told.

use std::hint::black_box;

use super::spec::{self, bind_sources, create_body};
use super::template::expand;
use super::{docker_models, stream};
use crate::domain::ServiceSpec;

/// A container or event as an engine describes it.
pub(crate) fn engine(bytes: &[u8]) {
    if let Ok(found) = serde_json::from_slice(bytes) {
        drop(docker_models::container(found));
    }
    if let Ok(event) = serde_json::from_slice(bytes) {
        black_box(stream::hint(&event));
    }
    if let Ok(info) = serde_json::from_slice(bytes) {
        drop(docker_models::description(info));
    }
    black_box(stream::parse_time(bytes));
}

/// A template of a service.
pub(crate) fn template(text: &str) {
    drop(expand(text, &spec::tests::plan_of(ServiceSpec::default())));
}

/// A container of a spec that was accepted: its files lie where they should.
pub(crate) fn container(spec: ServiceSpec) {
    let plan = spec::tests::plan_of(spec);
    drop(bind_sources(&plan));
    let Ok(body) = create_body(&plan) else { return };
    let mounts = body.host_config.and_then(|host| host.mounts).unwrap_or_default();
    let files = plan.files_dir.display().to_string();
    for mount in
        mounts.iter().filter(|it| it.source.as_ref().is_some_and(|it| it.starts_with(&files)))
    {
        let target = mount.target.as_deref().unwrap_or_default();
        assert!(target.starts_with('/') && !target.split('/').any(|part| part == ".."), "{target}");
        assert_eq!(mount.read_only, Some(true), "{target}");
    }
}
