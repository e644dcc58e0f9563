//! Key, certificate and root of a node, and the file in which they lie.
//!
//! One file holds all three, so that a crash in the middle of a renewal cannot leave a certificate
//! with another one's key. Where managers lock themselves, the private key in it is sealed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::authority::{self, Issued};
use super::{Certificate, Identity, IdentityError, NodeIdentity, NodeKey};
use crate::domain::cluster::Authority;
use crate::domain::node::Role;
use crate::domain::secret::Sensitive;
use crate::domain::{Cluster, ClusterId, NodeId, Timestamp, base64};
use crate::env::seal::SealKey;
use crate::env::{Clock, OsEntropy, files};

const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";
/// Stands in the file between what was signed and the roots, where either is more than one.
const ROOTS_FOLLOW: &str = "# Trusted roots";
const BEGIN_SEALED: &str = "-----BEGIN SEALED PRIVATE KEY-----";
const END_SEALED: &str = "-----END SEALED PRIVATE KEY-----";
/// What the seal of a private key is bound to.
const PURPOSE: &[u8] = b"swarm node private key";

/// Everything a node needs to be somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The node's private key, PEM.
    pub key_pem: Sensitive,
    /// The node's certificate, PEM; after it, while the root is rotated, what leads to the old root.
    pub certificate_pem: String,
    /// The root certificates that the node trusts, PEM.
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

    /// The file, with the private key in the form in which it is to lie there. While nothing but one
    /// certificate and one root is in it, as all releases write and read it.
    fn to_file(&self, key: &[u8]) -> Vec<u8> {
        let count = |pem: &str| pem.matches(END_CERTIFICATE).count();
        let is_plain = (count(&self.certificate_pem), count(&self.root_pem)) == (1, 1);
        let mark = if is_plain { None } else { Some(ROOTS_FOLLOW.as_bytes()) };
        let parts = [Some(self.certificate_pem.as_bytes()), mark, Some(self.root_pem.as_bytes())];
        let mut text = Vec::new();
        for part in parts.into_iter().flatten().chain([key]) {
            text.extend_from_slice(part.trim_ascii());
            text.push(b'\n');
        }
        text
    }

    fn from_file(text: &str) -> Option<Self> {
        let (certificate, roots_and_key) = match text.split_once(ROOTS_FOLLOW) {
            Some(parts) => parts,
            None => text.split_at_checked(text.find(END_CERTIFICATE)? + END_CERTIFICATE.len())?,
        };
        let end = roots_and_key.rfind(END_CERTIFICATE)? + END_CERTIFICATE.len();
        let (roots, key) = roots_and_key.split_at_checked(end)?;
        Some(Self {
            key_pem: Sensitive::new(key.trim().as_bytes()),
            certificate_pem: certificate.trim().to_owned(),
            root_pem: roots.trim().to_owned(),
        })
    }
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
    let (identity, credentials) = manager(cluster, None, |request, identity| {
        let certificate_pem = authority::sign(&authority, request, identity, now, validity)?;
        Ok(Issued { certificate_pem, root_pem: authority.root_pem.clone() })
    })?;
    Ok((authority, identity, credentials))
}

/// The credentials of a manager of a cluster whose state is at hand: of `node`, or of a new one.
///
/// # Errors
/// When the authority is damaged, or there is no randomness for the key.
pub fn enlist(
    cluster: &Cluster,
    node: Option<NodeId>,
    now: Timestamp,
) -> Result<(NodeIdentity, Credentials), IdentityError> {
    manager(cluster.id, node, |request, identity| authority::issue(cluster, request, identity, now))
}

fn manager(
    cluster: ClusterId,
    node: Option<NodeId>,
    issue: impl FnOnce(authority::Request, NodeIdentity) -> Result<Issued, IdentityError>,
) -> Result<(NodeIdentity, Credentials), IdentityError> {
    let key = NodeKey::generate()?;
    let node = node.unwrap_or_else(|| key.node_id());
    let identity = NodeIdentity { cluster, node, role: Role::Manager };
    let request = authority::Request::from_pem(&key.request()?)?;
    let Issued { certificate_pem, root_pem } = issue(request, identity)?;
    Ok((identity, Credentials { key_pem: key.pem(), certificate_pem, root_pem }))
}

/// Whether the private key is written as it is, or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keeping {
    /// Whoever reads the file has the key.
    #[default]
    Plain,
    /// Only who has the seal's key, too.
    Sealed,
}

/// Where the credentials of a node lie: `certificates/` in its state directory. Clones are one
/// place.
#[derive(Clone, Debug)]
pub struct CertificateDir {
    file: PathBuf,
    manner: Arc<Mutex<Manner>>,
}

/// How the private key is written and read.
#[derive(Debug, Default)]
struct Manner {
    keeping: Keeping,
    key: Option<SealKey>,
}

impl CertificateDir {
    /// Below a state directory. Touches nothing yet; private keys are written as they are.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        let file = state_dir.join("certificates").join("swarm-node.pem");
        Self { file, manner: Arc::default() }
    }

    /// Knows the seal's key from now on, and writes as `keeping` says. Touches nothing yet.
    pub fn hold(&self, key: SealKey, keeping: Keeping) {
        *self.manner() = Manner { keeping, key: Some(key) };
    }

    /// Forgets the seal's key; private keys are written as they are.
    pub fn release(&self) {
        *self.manner() = Manner::default();
    }

    /// Keeps the private key as said from now on, and writes it anew, durably, if it lies there
    /// otherwise. Blocks for a disk sync.
    ///
    /// # Errors
    /// When the file cannot be read or written, or there is no key to seal with; what is there
    /// stays then.
    pub fn keep(&self, keeping: Keeping) -> Result<(), IdentityError> {
        let mut manner = self.manner();
        let content = files::read(&self.file).map_err(|error| self.error("read", &error))?;
        if let Some(content) = content.filter(|content| keeping_of(content) != keeping) {
            let credentials = self.parse(&content, manner.key.as_ref())?;
            let changed = Manner { keeping, key: manner.key.clone() };
            self.write(&credentials, &changed)?;
        }
        manner.keeping = keeping;
        Ok(())
    }

    /// How the private key lies there; `None` if this machine is no node.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn keeping(&self) -> Result<Option<Keeping>, IdentityError> {
        let content = files::read(&self.file).map_err(|error| self.error("read", &error))?;
        Ok(content.as_deref().map(keeping_of))
    }

    /// Reads what the certificate says, also while the private key is sealed; `None` if this machine
    /// is no node.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn certificate(&self) -> Result<Option<Certificate>, IdentityError> {
        let content = files::read(&self.file).map_err(|error| self.error("read", &error))?;
        let text = content.as_deref().map(String::from_utf8_lossy);
        text.map(|text| Certificate::from_pem(&text)).transpose()
    }

    /// Reads the credentials; `None` if this machine is no node.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(&self) -> Result<Option<Credentials>, IdentityError> {
        let key = self.manner().key.clone();
        let content = files::read(&self.file).map_err(|error| self.error("read", &error))?;
        content.map(|content| self.parse(&content, key.as_ref())).transpose()
    }

    /// Replaces the credentials, durably. Blocks for a disk sync.
    ///
    /// # Errors
    /// When the file cannot be written; the old credentials stand then.
    pub fn save(&self, credentials: &Credentials) -> Result<(), IdentityError> {
        let manner = self.manner();
        self.write(credentials, &manner)
    }

    /// Forgets the credentials, durably: this machine is no node any more.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self) -> Result<(), IdentityError> {
        files::remove(&self.file).map_err(|error| self.error("written", &error))
    }

    /// Held while the file is written, so that a renewal and a change of manner do not meet.
    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, credentials: &Credentials, manner: &Manner) -> Result<(), IdentityError> {
        let content = match (manner.keeping, &manner.key) {
            (Keeping::Plain, _) => credentials.to_file(credentials.key_pem.expose()),
            (Keeping::Sealed, Some(key)) => {
                let sealed = key.seal(&OsEntropy, PURPOSE, credentials.key_pem.expose());
                let text = format!("{BEGIN_SEALED}\n{}\n{END_SEALED}", base64::encode(&sealed));
                credentials.to_file(text.as_bytes())
            }
            (Keeping::Sealed, None) => {
                let locked = std::io::Error::other("the key that seals it is not known");
                return Err(self.error("written", &locked));
            }
        };
        let dir = self.file.parent().unwrap_or(&self.file);
        files::private_dir(dir)
            .and_then(|()| files::replace(&self.file, &content))
            .map_err(|error| self.error("written", &error))
    }

    fn parse(&self, content: &[u8], key: Option<&SealKey>) -> Result<Credentials, IdentityError> {
        let failed = |reason: &str| self.error("read", &std::io::Error::other(reason.to_owned()));
        let credentials =
            std::str::from_utf8(content).ok().and_then(Credentials::from_file).ok_or_else(|| {
                failed(
                    "it is not a certificate, a root certificate and a key: it was changed or is damaged",
                )
            })?;
        let Some(sealed) = sealed_part(credentials.key_pem.expose()) else {
            return Ok(credentials);
        };
        let Some(key) = key else {
            return Err(failed("its private key is sealed, and what opens it is not known"));
        };
        let opened = base64::decode(sealed.trim())
            .ok()
            .and_then(|sealed| key.open(PURPOSE, &sealed).ok())
            .ok_or_else(|| {
                failed("its sealed private key is damaged, or belongs to another raft.key")
            })?;
        Ok(Credentials { key_pem: Sensitive::new(&opened), ..credentials })
    }

    fn error(&self, action: &'static str, error: &std::io::Error) -> IdentityError {
        IdentityError::Files {
            path: self.file.display().to_string(),
            action,
            reason: error.to_string(),
        }
    }
}

fn keeping_of(content: &[u8]) -> Keeping {
    let marker = BEGIN_SEALED.as_bytes();
    let is_sealed = content.windows(marker.len()).any(|window| window == marker);
    if is_sealed { Keeping::Sealed } else { Keeping::Plain }
}

/// What stands between the marks of a sealed key.
fn sealed_part(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?.trim();
    text.strip_prefix(BEGIN_SEALED)?.strip_suffix(END_SEALED)
}
