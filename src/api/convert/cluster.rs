//! The cluster.

use serde_json::{Map, Value, json};

use super::{head, put, value};
use crate::domain::cluster::RAFT_DEFAULTS;
use crate::domain::{Cluster, base64};
use crate::env::seal;

/// The cluster as `GET /info` shows it; `GET /swarm` adds the join tokens.
pub(in crate::api) fn cluster(cluster: &Cluster) -> Value {
    let mut members = head(cluster.id.to_string(), &cluster.meta, cluster.meta.spec_revision);
    put(&mut members, "Spec", spec(cluster));
    let roots = cluster.roots_pem();
    put(&mut members, "TLSInfo", tls_info(Some(&roots), &cluster.issuer().root_pem));
    let rotation = cluster.trust.rotation.as_ref();
    put(&mut members, "RootRotationInProgress", Value::Bool(rotation.is_some()));
    if let Some(rotation) = rotation
        && let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(rotation.next.root_pem.as_bytes())
    {
        let digest = seal::digest(&pem.contents).map(|byte| format!("{byte:02x}")).concat();
        put(&mut members, "DesiredRootDigest", Value::String(format!("sha256:{digest}")));
    }
    let pool = format!("{}/{}", cluster.pool.base, cluster.pool.prefix);
    put(&mut members, "DefaultAddrPool", json!([pool]));
    put(&mut members, "SubnetSize", cluster.pool.subnet_size.into());
    put(&mut members, "DataPathPort", cluster.data_path_port.into());
    Value::Object(members)
}

/// The spec, with Docker's numbers for the knobs of its own Raft, which clients expect to see.
fn spec(cluster: &Cluster) -> Value {
    let mut spec = value(&cluster.spec);
    if let Some(raft) = spec.get_mut("Raft").and_then(Value::as_object_mut) {
        for (name, number) in RAFT_DEFAULTS {
            raft.entry(name).or_insert_with(|| number.into());
        }
    }
    if let Some(ca) = spec.get_mut("CAConfig").and_then(Value::as_object_mut) {
        ca.remove("SigningCAKey");
    }
    spec
}

/// The trusted roots, if they are known, and who issues certificates, as DER in base 64.
pub(in crate::api) fn tls_info(roots_pem: Option<&str>, issuer_pem: &str) -> Value {
    let mut members = Map::new();
    if let Some(roots) = roots_pem {
        put(&mut members, "TrustRoot", Value::from(roots));
    }
    if let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(issuer_pem.as_bytes())
        && let Ok(root) = pem.parse_x509()
    {
        let subject = base64::encode(root.subject().as_raw());
        put(&mut members, "CertIssuerSubject", Value::String(subject));
        let key = base64::encode(root.public_key().raw);
        put(&mut members, "CertIssuerPublicKey", Value::String(key));
    }
    Value::Object(members)
}
