//! Enrolment: from a join token to a certificate.
//!
//! First the root certificate is asked for over a connection that trusts anybody, and held against
//! the digest in the token; only then, over a connection that trusts this root alone, the token is
//! shown. Each of the given managers is tried in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::DEFAULT_PORT;
use super::dial::connect;
use crate::domain::NodeId;
use crate::domain::node::Availability;
use crate::env::Env;
use crate::identity::{
    ClientTls, Credentials, IdentityError, NodeIdentity, NodeKey, Token, TokenError, pinned, token,
    unverified,
};
use crate::wire::node::certificate_authority_client::CertificateAuthorityClient;
use crate::wire::node::{IssueReply, IssueRequest, RootCertificateRequest};

/// For the root certificate.
const ROOT_LIMIT: Duration = Duration::from_secs(3);
/// For the certificate, which takes a commit.
const ISSUE_LIMIT: Duration = Duration::from_secs(15);
/// Rounds over all addresses while managers answer that they cannot just now.
const ROUNDS: u32 = 3;

/// What a node brings to join.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The join token.
    pub token: String,
    /// Managers, in the order in which to try them.
    pub managers: Vec<SocketAddr>,
    /// Whether the node takes tasks at once.
    pub availability: Availability,
}

/// What it gets.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Who it is now. Not yet on disk.
    pub credentials: Credentials,
    /// The same, as its certificate says it.
    pub identity: NodeIdentity,
    /// The cluster's managers; the one that answered is among them or first.
    pub managers: Vec<SocketAddr>,
}

/// Why a node could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// The token does not fit.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No address was given.
    #[error("the address of a manager is needed, such as 10.0.0.1:{DEFAULT_PORT}")]
    NoAddress,
    /// An address cannot be understood or found.
    #[error("{text:?} is not an address of a manager, such as 10.0.0.1:{DEFAULT_PORT}: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// Why not.
        reason: String,
    },
    /// No manager answered.
    #[error(
        "could not reach a manager at {}; check the address and that port {}/tcp is open between the machines",
        attempts(.0),
        ports(.0)
    )]
    Unreachable(Vec<(SocketAddr, String)>),
    /// Managers answered, and none of them could let this node in.
    #[error("could not join: {}", attempts(.0))]
    Unable(Vec<(SocketAddr, String)>),
    /// A manager answered that it will not.
    #[error("the manager at {addr} refused: {reason}")]
    Refused {
        /// The manager.
        addr: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// The certificate that came is not what was asked for.
    #[error("the manager at {addr} sent a certificate that is not this node's: {reason}")]
    Certificate {
        /// The manager.
        addr: SocketAddr,
        /// What is wrong.
        reason: String,
    },
    /// The certificate that came is of another time than this machine's.
    #[error("the manager at {addr} let this node in, but {error}; then join again")]
    Clocks {
        /// The manager.
        addr: SocketAddr,
        /// What is wrong.
        error: IdentityError,
    },
    /// This machine cannot make a key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn attempts(failed: &[(SocketAddr, String)]) -> String {
    let each: Vec<_> = failed.iter().map(|(addr, reason)| format!("{addr}: {reason}")).collect();
    each.join("; ")
}

fn ports(failed: &[(SocketAddr, String)]) -> u16 {
    failed.first().map_or(DEFAULT_PORT, |(addr, _)| addr.port())
}

/// The addresses of a manager given as `host`, `host:port` or `address:port`.
///
/// # Errors
/// When it is neither, or the name is unknown.
pub async fn resolve(text: &str) -> Result<Vec<SocketAddr>, EnrollError> {
    let failed = |reason: String| EnrollError::Address { text: text.to_owned(), reason };
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(vec![addr]);
    }
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, DEFAULT_PORT)]);
    }
    let with_port =
        if text.contains(':') { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
    let found: Vec<_> = tokio::net::lookup_host(with_port)
        .await
        .map_err(|error| failed(error.to_string()))?
        .collect();
    if found.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(found) }
}

/// Joins a cluster: asks its managers for a certificate.
///
/// # Errors
/// [`EnrollError`], which says what to do. Nothing is written here in any case.
pub async fn enroll(env: &Env, enrolment: &Enrolment) -> Result<Enrolled, EnrollError> {
    let token = token::parse(&enrolment.token)?;
    if enrolment.managers.is_empty() {
        return Err(EnrollError::NoAddress);
    }
    let key = NodeKey::generate()?;
    let attempt = Attempt { env, enrolment, token, key };
    let mut rounds = ROUNDS;
    loop {
        rounds -= 1;
        let (mut failed, mut clocks) = (Vec::new(), None);
        let (mut is_busy, mut is_answered) = (false, false);
        for addr in &enrolment.managers {
            match attempt.at(*addr).await {
                Ok(enrolled) => return Ok(enrolled),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Busy(reason)) => {
                    (is_busy, is_answered) = (true, true);
                    failed.push((*addr, reason));
                }
                Err(Failure::NoHandshake(reason)) => {
                    is_answered = true;
                    failed.push((*addr, reason));
                }
                Err(Failure::Unreachable(reason)) => failed.push((*addr, reason)),
                Err(Failure::Clocks(error)) => clocks = Some(error),
            }
        }
        if let Some(error) = clocks {
            return Err(error);
        }
        if !is_busy || rounds == 0 {
            let error = if is_answered { EnrollError::Unable } else { EnrollError::Unreachable };
            return Err(error(failed));
        }
        env.clock.sleep(env.entropy.jitter(Duration::from_secs(1))).await;
    }
}

enum Failure {
    /// No other manager will say anything else.
    Final(EnrollError),
    /// A manager that cannot just now.
    Busy(String),
    /// A manager, and one of the two does not trust the other's certificate.
    NoHandshake(String),
    /// No manager there.
    Unreachable(String),
    /// A manager whose clock is not this machine's; another one's may be.
    Clocks(EnrollError),
}

impl<E: Into<EnrollError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

struct Attempt<'a> {
    env: &'a Env,
    enrolment: &'a Enrolment,
    token: Token,
    key: NodeKey,
}

impl Attempt<'_> {
    async fn at(&self, addr: SocketAddr) -> Result<Enrolled, Failure> {
        let root_pem = self.root(addr).await?;
        token::check_digest(&self.token, &root_pem)?;
        let config = pinned(&root_pem, &self.env.clock)?.client;
        let channel = self.channel(addr, config).await?;
        let request = IssueRequest {
            csr_pem: self.key.request()?,
            token: self.enrolment.token.trim().to_owned(),
            availability: match self.enrolment.availability {
                Availability::Active => 0,
                Availability::Pause => 1,
                Availability::Drain => 2,
            },
            node: self.key.node_id().to_bytes().to_vec().into(),
            clock: self.env.clock.now().0,
        };
        let mut client = CertificateAuthorityClient::new(channel);
        let reply = self
            .env
            .clock
            .timeout(ISSUE_LIMIT, client.issue(request))
            .await
            .map_err(|late| Failure::Busy(late.to_string()))?
            .map_err(|status| refused(addr, &status))?
            .into_inner();
        self.accepted(addr, reply)
    }

    /// The root certificate of whoever answers, not yet trusted.
    async fn root(&self, addr: SocketAddr) -> Result<String, Failure> {
        let channel = self.channel(addr, unverified(&self.env.clock)?.client).await?;
        let mut client = CertificateAuthorityClient::new(channel).max_decoding_message_size(65_536);
        let reply = self
            .env
            .clock
            .timeout(ROOT_LIMIT, client.root_certificate(RootCertificateRequest {}))
            .await
            .map_err(|late| Failure::Unreachable(late.to_string()))?
            .map_err(|status| {
                Failure::Unreachable(format!("it is no swarm manager: {}", status.message()))
            })?;
        Ok(reply.into_inner().root_pem)
    }

    async fn channel(&self, addr: SocketAddr, config: ClientTls) -> Result<Channel, Failure> {
        let tls = connect(addr, config, self.env).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Failure::NoHandshake(error.to_string()),
            _ => Failure::Unreachable(error.to_string()),
        })?;
        once(tls).await.map_err(|error| Failure::Unreachable(super::root_cause(&error)))
    }

    /// Checks everything that the manager says: it might be a broken one. It has shown that it is a
    /// manager of the token's root; which roots to trust besides is its word.
    fn accepted(&self, addr: SocketAddr, reply: IssueReply) -> Result<Enrolled, Failure> {
        let wrong = |reason: String| EnrollError::Certificate { addr, reason };
        let credentials = Credentials {
            key_pem: self.key.pem(),
            certificate_pem: reply.certificate_pem,
            root_pem: reply.root_pem,
        };
        let certificate = credentials
            .identity(&self.env.clock)
            .map_err(|error| wrong(error.to_string()))?
            .certificate
            .clone();
        let identity = certificate.identity;
        if NodeId::from_slice(&reply.node) != Some(identity.node) {
            return Err(wrong("the certificate names another node".to_owned()).into());
        }
        certificate
            .fresh(self.env.clock.now())
            .map_err(|error| Failure::Clocks(EnrollError::Clocks { addr, error }))?;
        let mut managers: Vec<SocketAddr> =
            reply.managers.iter().filter_map(|manager| manager.addr.parse().ok()).collect();
        if !managers.contains(&addr) {
            managers.insert(0, addr);
        }
        Ok(Enrolled { credentials, identity, managers })
    }
}

fn refused(addr: SocketAddr, status: &Status) -> Failure {
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => {
            Failure::Busy(reason)
        }
        // Another manager's clock may be this machine's.
        Code::OutOfRange => Failure::Clocks(EnrollError::Refused { addr, reason }),
        // Not the manager's words, but those of a broken connection.
        _ if std::error::Error::source(status).is_some() => Failure::Busy(reason),
        _ => Failure::Final(EnrollError::Refused { addr, reason }),
    }
}

/// A channel over a connection that stands already; it does not connect again.
async fn once(tls: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let tls = Arc::new(Mutex::new(Some(tls)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let tls = tls.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            tls.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    });
    super::endpoint().connect_with_connector(connector).await
}
