//! Key, certificate and root of a node, and the file in which they lie.
//!
//! One file holds all three, so that a crash in the middle of a renewal cannot leave a certificate
//! with another one's key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Certificate, Identity, IdentityError, NodeIdentity, NodeKey, authority};
use crate::domain::cluster::Authority;
use crate::domain::node::Role;
use crate::domain::secret::Sensitive;
use crate::domain::{ClusterId, Timestamp};
use crate::env::{Clock, files};

const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";

/// Everything a node needs to be somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The node's private key, PEM.
    pub key_pem: Sensitive,
    /// The node's certificate, PEM.
    pub certificate_pem: String,
    /// The cluster's root certificate, PEM.
    pub root_pem: String,
}

impl Credentials {
    /// Ready for TLS. Checks that the parts belong together, but not that they are still valid: an
    /// expired identity can be shown to people.
    ///
    /// # Errors
    /// When a part cannot be read, or the root did not sign the certificate, or the key is not its
    /// key.
    pub fn identity(&self, clock: &Arc<dyn Clock>) -> Result<Identity, IdentityError> {
        Identity::new(self, clock)
    }

    /// What the certificate says.
    ///
    /// # Errors
    /// When it is not one of a node.
    pub fn certificate(&self) -> Result<Certificate, IdentityError> {
        Certificate::from_pem(&self.certificate_pem)
    }

    fn to_file(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let parts =
            [self.certificate_pem.as_bytes(), self.root_pem.as_bytes(), self.key_pem.expose()];
        for part in parts {
            text.extend_from_slice(part.trim_ascii());
            text.push(b'\n');
        }
        text
    }

    fn from_file(text: &str) -> Option<Self> {
        let (certificate, rest) = text.split_at_checked(end_of_certificate(text)?)?;
        let (root, key) = rest.split_at_checked(end_of_certificate(rest)?)?;
        Some(Self {
            key_pem: Sensitive::new(key.trim().as_bytes()),
            certificate_pem: certificate.trim().to_owned(),
            root_pem: root.trim().to_owned(),
        })
    }
}

fn end_of_certificate(text: &str) -> Option<usize> {
    text.find(END_CERTIFICATE).map(|at| at + END_CERTIFICATE.len())
}

/// Founds a cluster: its authority, and the credentials of its first manager.
///
/// # Errors
/// When there is no randomness for the keys.
pub fn found(
    cluster: ClusterId,
    now: Timestamp,
    validity: Duration,
) -> Result<(Authority, NodeIdentity, Credentials), IdentityError> {
    let authority = authority::create(cluster, now)?;
    let key = NodeKey::generate()?;
    let identity = NodeIdentity { cluster, node: key.node_id(), role: Role::Manager };
    let request = authority::Request::from_pem(&key.request()?)?;
    let certificate_pem = authority::sign(&authority, request, identity, now, validity)?;
    let root_pem = authority.root_pem.clone();
    Ok((authority, identity, Credentials { key_pem: key.pem(), certificate_pem, root_pem }))
}

/// Where the credentials of a node lie: `certificates/` in its state directory.
#[derive(Clone, Debug)]
pub struct CertificateDir {
    file: PathBuf,
}

impl CertificateDir {
    /// Below a state directory. Touches nothing yet.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { file: state_dir.join("certificates").join("swarm-node.pem") }
    }

    /// Reads the credentials; `None` if this machine is no node.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(&self) -> Result<Option<Credentials>, IdentityError> {
        let content = files::read(&self.file).map_err(|error| self.error("read", &error))?;
        let Some(content) = content else { return Ok(None) };
        let damaged = std::io::Error::other(
            "it is not a certificate, a root certificate and a key: it was changed or is damaged",
        );
        std::str::from_utf8(&content)
            .ok()
            .and_then(Credentials::from_file)
            .map(Some)
            .ok_or_else(|| self.error("read", &damaged))
    }

    /// Replaces the credentials, durably. Blocks for a disk sync.
    ///
    /// # Errors
    /// When the file cannot be written; the old credentials stand then.
    pub fn save(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let dir = self.file.parent().unwrap_or(&self.file);
        files::private_dir(dir)
            .and_then(|()| files::replace(&self.file, &credentials.to_file()))
            .map_err(|error| self.error("written", &error))
    }

    /// Forgets the credentials, durably: this machine is no node any more.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self) -> Result<(), IdentityError> {
        files::remove(&self.file).map_err(|error| self.error("written", &error))
    }

    fn error(&self, action: &'static str, error: &std::io::Error) -> IdentityError {
        IdentityError::Files {
            path: self.file.display().to_string(),
            action,
            reason: error.to_string(),
        }
    }
}
