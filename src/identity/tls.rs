//! TLS: one identity as a pair of rustls configurations, swapped as a unit.
//!
//! TLS 1.3 only, HTTP/2 only, no resumption (a renewed identity must not resume an old one), trust
//! in the cluster's own root alone, time from the node's clock. Client certificates are optional at
//! this level so that a node without one can enrol; `transport` checks them for each RPC.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::sync::watch;

use super::{Certificate, Credentials, IdentityError};
use crate::domain::Timestamp;
use crate::env::Clock;

/// The name by which managers are dialled: only a manager's certificate has it.
pub const MANAGER_NAME: &str = "swarm-manager";

/// The client side of an identity.
pub type ClientTls = Arc<ClientConfig>;

/// The server side of an identity.
pub type ServerTls = Arc<ServerConfig>;

/// [`MANAGER_NAME`] as TLS wants it.
///
/// # Errors
/// Never: the name is a name.
pub fn manager_name() -> Result<ServerName<'static>, IdentityError> {
    ServerName::try_from(MANAGER_NAME)
        .map_err(|error| IdentityError::Certificate(error.to_string()))
}

/// A node's identity, ready for connections.
#[derive(Clone)]
pub struct Identity {
    /// What the certificate says.
    pub certificate: Certificate,
    /// The roots that the node trusts, PEM.
    pub root_pem: String,
    /// For accepting connections.
    pub server: ServerTls,
    /// For making connections.
    pub client: ClientTls,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.certificate)
    }
}

impl Identity {
    pub(super) fn new(parts: &Credentials, clock: &Arc<dyn Clock>) -> Result<Self, IdentityError> {
        let certificate = parts.certificate()?;
        let key = PrivateKeyDer::from_pem_slice(parts.key_pem.expose())
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        let roots = roots(&parts.root_pem)?;
        let chain = super::authority::certificates(&parts.certificate_pem)?;
        check_signatures(&chain, &parts.root_pem)?;
        let mismatch = |error: Error| IdentityError::Mismatch(error.to_string());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::new(provider()))
                .allow_unauthenticated()
                .build()
                .map_err(|error| IdentityError::Authority(error.to_string()))?;
        let mut server = ServerConfig::builder_with_details(Arc::new(provider()), time(clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(mismatch)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.send_tls13_tickets = 0;
        let client = ClientConfig::builder_with_details(Arc::new(provider()), time(clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(mismatch)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(mismatch)?;
        let (server, client) = (Arc::new(server), finished(client));
        Ok(Self { certificate, root_pem: parts.root_pem.clone(), server, client, verifier })
    }

    /// The digest of the roots that the node trusts.
    ///
    /// # Errors
    /// Never: they could be read before.
    pub fn trust_digest(&self) -> Result<[u8; 32], IdentityError> {
        super::authority::trust_digest(&self.root_pem)
    }

    /// The roots that the node trusts, DER.
    #[must_use]
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        Self::roots_of(&self.root_pem).unwrap_or_default()
    }

    /// The root certificates of a PEM text, DER.
    ///
    /// # Errors
    /// When there is none.
    pub fn roots_of(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        super::authority::certificates(pem)
    }

    /// Whether a peer's certificate, with what it showed beside it, still leads to a root that the
    /// node trusts. Its time may be over.
    #[must_use]
    pub fn knows(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        let Some((leaf, rest)) = chain.split_first() else { return false };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_nanos(now.0));
        let verified = self.verifier.verify_client_cert(leaf, rest, now);
        match verified {
            Ok(_) => true,
            Err(Error::InvalidCertificate(wrong)) => is_about_time(&wrong),
            Err(_) => false,
        }
    }
}

/// The identity that a process has now; replaced by renewals while connections live on. Cheap to
/// clone: all clones are the same identity.
#[derive(Clone, Debug)]
pub struct SharedIdentity {
    current: Arc<watch::Sender<Arc<Identity>>>,
}

impl SharedIdentity {
    /// Begins with an identity.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::new(identity))) }
    }

    /// The identity now.
    #[must_use]
    pub fn current(&self) -> Arc<Identity> {
        Arc::clone(&self.current.borrow())
    }

    /// Replaces the identity: connections made from now on use the new one.
    pub fn replace(&self, identity: Identity) {
        self.current.send_replace(Arc::new(identity));
    }

    /// Follows the identity, so its role too.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Identity>> {
        self.current.subscribe()
    }
}

/// The client side of a node that has no certificate yet.
#[derive(Clone)]
pub struct Pin {
    /// For connections.
    pub client: ClientTls,
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}

/// Trusts a root certificate, shows no certificate.
///
/// # Errors
/// When the root cannot be read.
pub fn pinned(root_pem: &str, clock: &Arc<dyn Clock>) -> Result<Pin, IdentityError> {
    let client = ClientConfig::builder_with_details(Arc::new(provider()), time(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::Authority(error.to_string()))?
        .with_root_certificates(roots(root_pem)?)
        .with_no_client_auth();
    Ok(Pin { client: finished(client) })
}

/// Trusts anybody. Only for asking for the root certificate, which is then held against the digest
/// in the join token; nothing else may be asked, let alone told, over it.
///
/// # Errors
/// When TLS 1.3 is not to be had.
pub fn unverified(clock: &Arc<dyn Clock>) -> Result<Pin, IdentityError> {
    let client = ClientConfig::builder_with_details(Arc::new(provider()), time(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::Authority(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider: provider() }))
        .with_no_client_auth();
    Ok(Pin { client: finished(client) })
}

/// Whether a certificate is right but for the time. (All roots of a cluster have one name, so what
/// another one signed has a wrong signature rather than an unknown issuer.)
const fn is_about_time(wrong: &CertificateError) -> bool {
    matches!(
        wrong,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// What a failed handshake means, for people.
#[must_use]
pub fn explain(error: &std::io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                "the other side closed the connection: is this the port of a swarm manager?".into()
            }
            _ => error.to_string(),
        };
    };
    match tls {
        Error::InvalidMessage(InvalidMessage::InvalidContentType)
        | Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            "the other side does not speak TLS: is this the port of a swarm manager (2377 unless \
             chosen otherwise)?"
                .to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the other side is a member of another swarm".to_owned()
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the other side's certificate is of another root certificate than this node trusts: one \
             of the two missed a rotation of the root"
                .to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the other side is not a manager".to_owned(),
        Error::InvalidCertificate(wrong) if is_about_time(wrong) => untimely(wrong),
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it does not accept this node's certificate: by its clock that has expired, or is not \
             valid yet. Compare `date` on the two machines and set the clock that is wrong; if both \
             are right, `swarm info` here says what to do"
                .to_owned()
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown,
        ) => "it does not accept this node's certificate: it is a member of another swarm".into(),
        other => other.to_string(),
    }
}

/// A certificate of the other side that is right but for the time: first of all, look at the clocks.
fn untimely(wrong: &CertificateError) -> String {
    let second = |time: &UnixTime| Timestamp(time.as_secs().saturating_mul(1_000_000_000)).brief();
    let (what, now) = match wrong {
        CertificateError::ExpiredContext { time, not_after } => {
            (format!("expired at {}", second(not_after)), Some(second(time)))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            (format!("is not valid before {}", second(not_before)), Some(second(time)))
        }
        CertificateError::NotValidYet => ("is not valid yet".to_owned(), None),
        _ => ("has expired".to_owned(), None),
    };
    let now = now.map(|now| format!(", and the clock of this machine says {now}"));
    format!(
        "the other side's certificate {what}{}: compare `date` on the two machines and set the \
         clock that is wrong; if both are right, `swarm status` there says what to do",
        now.unwrap_or_default()
    )
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn time(clock: &Arc<dyn Clock>) -> Arc<dyn TimeProvider> {
    Arc::new(CertificateTime { clock: Arc::clone(clock) })
}

fn finished(mut client: ClientConfig) -> Arc<ClientConfig> {
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Arc::new(client)
}

fn roots(root_pem: &str) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    for root in super::authority::certificates(root_pem)? {
        roots.add(root).map_err(|error| IdentityError::Authority(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// Each certificate was signed by one that follows it, or by a root. (That the key is the
/// certificate's is checked by rustls.)
fn check_signatures(chain: &[CertificateDer<'_>], roots_pem: &str) -> Result<(), IdentityError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let roots = super::authority::certificates(roots_pem)?;
    let parse = |der| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(IdentityError::Authority(error.to_string())),
    };
    let roots = roots.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    let chain = chain.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
    for (place, certificate) in chain.iter().enumerate() {
        let mut signers = chain.iter().skip(place + 1).chain(&roots);
        if !signers.any(|it| certificate.verify_signature(Some(it.public_key())).is_ok()) {
            return Err(IdentityError::Mismatch(
                "the certificate was signed by another root".to_owned(),
            ));
        }
    }
    Ok(())
}

/// rustls asks the node's clock.
#[derive(Debug)]
struct CertificateTime {
    clock: Arc<dyn Clock>,
}

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = std::time::Duration::from_nanos(self.clock.now().0);
        Some(UnixTime::since_unix_epoch(now))
    }
}

/// Believes that anybody is who they say.
#[derive(Debug)]
struct Anybody {
    provider: CryptoProvider,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
