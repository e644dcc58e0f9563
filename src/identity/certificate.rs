//! A node's key, its certificate request, and what a certificate says.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::x509::AttributeTypeAndValue;

use super::{IdentityError, NodeIdentity, role_name};
use crate::domain::node::Role;
use crate::domain::secret::Sensitive;
use crate::domain::{NodeId, Timestamp};
use crate::env::seal;

/// A node's private key: ECDSA P-256. Made anew for each certificate.
pub struct NodeKey {
    pair: KeyPair,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(hidden)")
    }
}

impl NodeKey {
    /// A new key, from the operating system's generator.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate().map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(Self { pair })
    }

    /// The id of a node that enrols with this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        node_id_of(self.pair.der_bytes())
    }

    /// The private key, PEM (PKCS#8).
    #[must_use]
    pub fn pem(&self) -> Sensitive {
        Sensitive::new(self.pair.serialize_pem().as_bytes())
    }

    /// A request for a certificate, PEM. It names nobody: who gets the certificate is the
    /// authority's business.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request(&self) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&self.pair)
            .and_then(|request| request.pem())
            .map_err(|error| IdentityError::Request(error.to_string()))
    }
}

/// The id of a node that enrols with a public key (its bare bits). Since the id is a digest of the
/// key, an answer that was lost can be asked for again, and nobody else can ask for it.
#[must_use]
pub fn node_id_of(public_key: &[u8]) -> NodeId {
    let mut hasher = seal::Hasher::new();
    hasher.update(b"swarm node id\0");
    hasher.update(public_key);
    let digest = hasher.finish();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    NodeId::from_bytes(id)
}

/// A node's certificate and what it says. Says nothing about who signed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub identity: NodeIdentity,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// DER.
    pub der: CertificateDer<'static>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.identity, self.not_after)
    }
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or it does not name exactly one node, role and cluster.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| IdentityError::Certificate(format!("no PEM certificate: {error}")))?;
        Self::from_der(&der)
    }

    /// Reads a certificate.
    ///
    /// # Errors
    /// When it does not name exactly one node, role and cluster.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate("bytes follow its end".to_owned()));
        }
        let identity = identity(certificate.subject())?;
        let validity = certificate.validity();
        let not_before = timestamp(validity.not_before.timestamp());
        let not_after = timestamp(validity.not_after.timestamp());
        Ok(Self { identity, not_before, not_after, der: der.clone().into_owned() })
    }

    /// Whether it is valid at a time.
    ///
    /// # Errors
    /// What is wrong with its time or with the clock, and what to do; for the node whose it is.
    pub fn in_time(&self, now: Timestamp) -> Result<(), IdentityError> {
        let (from, until) = (self.not_before, self.not_after);
        if now > until {
            return Err(IdentityError::Expired { from, until, now });
        }
        if now < from {
            return Err(IdentityError::Early { from, until, now });
        }
        Ok(())
    }

    /// Whether one that was just signed is worth having: it has begun, and is not due for another one
    /// already. Whoever signed it has another clock.
    ///
    /// # Errors
    /// [`IdentityError::Useless`].
    pub fn fresh(&self, now: Timestamp) -> Result<(), IdentityError> {
        let (from, until) = (self.not_before, self.not_after);
        let left = until.since(now);
        if now < from || left < until.since(from) / 5 {
            return Err(IdentityError::Useless { from, until, now });
        }
        Ok(())
    }

    /// Whether its time is over.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp(u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000_000))
}

fn identity(subject: &X509Name<'_>) -> Result<NodeIdentity, IdentityError> {
    let wrong = |what: &str| IdentityError::Certificate(what.to_owned());
    let node = only(subject.iter_common_name())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("its common name is not exactly one node id"))?;
    let cluster = only(subject.iter_organization())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("its organization is not exactly one cluster id"))?;
    let role = only(subject.iter_organizational_unit())
        .and_then(|text| [Role::Worker, Role::Manager].into_iter().find(|r| role_name(*r) == text))
        .ok_or_else(|| wrong("its organizational unit is not exactly one role"))?;
    Ok(NodeIdentity { cluster, node, role })
}

/// The value of an attribute that occurs exactly once.
fn only<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let value = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(value)
}
