//! The fuzz tests' way to the bodies and parameters of requests.

use super::ask::{self, Params};
use super::filter::Filters;
use super::{keys, service_spec};
use crate::domain::ServiceSpec;
use crate::domain::cluster::ClusterSpec;
use crate::domain::node::NodeSpec;
use crate::domain::secret::PayloadSpec;

/// A service; what was accepted, if it was.
pub(crate) fn service(bytes: &[u8]) -> Option<ServiceSpec> {
    let spec = service_spec::decode(bytes).ok()?;
    // What was accepted is kept as JSON, and must be the same and as acceptable when it is read.
    let kept = serde_json::to_vec(&spec).unwrap();
    assert_eq!(serde_json::from_slice::<ServiceSpec>(&kept).unwrap(), spec);
    assert_eq!(service_spec::decode(&kept).unwrap(), spec);
    Some(spec)
}

/// A cluster, a payload.
pub(crate) fn cluster(bytes: &[u8]) {
    if let Ok(value) = ask::json(bytes, keys::CLUSTER)
        && let Ok(spec) = ask::typed::<ClusterSpec>(value)
        && spec.validate().is_ok()
    {
        let kept = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<ClusterSpec>(kept).unwrap(), spec);
        spec.spec_policy().validate().unwrap();
    }
    if let Ok(value) = ask::json(bytes, keys::PAYLOAD)
        && let Ok(spec) = ask::typed::<PayloadSpec>(value)
    {
        drop(spec.validate());
    }
}

/// A node.
pub(crate) fn node(bytes: &[u8]) {
    if let Ok(value) = ask::json(bytes, keys::NODE)
        && let Ok(spec) = ask::typed::<NodeSpec>(value)
    {
        drop(spec.validate());
    }
}

/// The query of a request, with filters.
pub(crate) fn filters(text: &str) {
    let params = Params::parse(text);
    drop(Filters::parse(&params));
    drop(Filters::parse(&Params::parse(&format!("filters={text}"))));
}
