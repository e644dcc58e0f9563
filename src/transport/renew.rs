//! Renewal: a new key and a new certificate, at a random point between half and four fifths of the
//! old one's time, or at once when the node's role changed. The identity is swapped; connections
//! live on.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{Channels, Lane, LinkError};
use crate::domain::Timestamp;
use crate::domain::node::Role;
use crate::env::{Env, Scope};
use crate::identity::{
    CertificateDir, Credentials, Identity, IdentityError, NodeKey, SharedIdentity,
};
use crate::wire::node::IssueRequest;
use crate::wire::node::certificate_authority_client::CertificateAuthorityClient;

/// For one renewal, which takes a commit at most.
const LIMIT: Duration = Duration::from_secs(10);
/// The clock on the wall may be set; how long to sleep without looking at it.
const NAP: Duration = Duration::from_secs(600);
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why to renew before it is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalRequest {
    /// The node's role is another one now: renew until the certificate says so.
    Role(Role),
    /// Somebody wants a new one.
    Now,
}

/// Why a renewal failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// No manager gave one.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Own key or files, or what came is not right, or it is too late.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No manager is known.
    #[error("no manager is known that could renew the certificate")]
    NoManager,
}

/// What renewals need.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// The identity to keep fresh.
    pub identity: SharedIdentity,
    /// Where it lies.
    pub dir: CertificateDir,
    /// Ways to the managers.
    pub channels: Channels,
    /// The managers known now.
    pub managers: watch::Receiver<Vec<SocketAddr>>,
    /// The world.
    pub env: Env,
}

impl Renewal {
    /// Renews for ever; a routine of `scope`.
    pub async fn run(self, scope: Scope, mut requests: mpsc::Receiver<RenewalRequest>) {
        loop {
            let due = self.due();
            let wanted = tokio::select! {
                biased;
                Some(request) = requests.recv() => request,
                () = self.sleep_until(due) => RenewalRequest::Now,
            };
            match wanted {
                RenewalRequest::Role(role) if self.role() == role => {}
                RenewalRequest::Role(_) | RenewalRequest::Now => {
                    self.insist(&scope, wanted).await;
                }
            }
        }
    }

    fn role(&self) -> Role {
        self.identity.current().certificate.identity.role
    }

    /// A random point between 50 % and 80 % of the certificate's time.
    fn due(&self) -> Timestamp {
        let current = self.identity.current();
        let life = current.certificate.not_after.since(current.certificate.not_before);
        let spread = u32::try_from(self.env.entropy.number() % 300).unwrap_or_default();
        current.certificate.not_before.after(life / 1000 * (500 + spread))
    }

    async fn sleep_until(&self, due: Timestamp) {
        loop {
            let left = due.since(self.env.clock.now());
            if left.is_zero() {
                return;
            }
            self.env.clock.sleep(left.min(NAP)).await;
        }
    }

    /// Renews until it has worked, and has given the role that was asked for.
    async fn insist(&self, scope: &Scope, wanted: RenewalRequest) {
        let mut pause = RETRY_MIN;
        loop {
            match self.attempt(scope).await {
                Ok(()) => {
                    let role = self.role();
                    tracing::info!(role = role.as_str(), "certificate renewed");
                    if wanted == RenewalRequest::Now || wanted == RenewalRequest::Role(role) {
                        return;
                    }
                }
                Err(RenewError::Identity(error @ IdentityError::Expired { .. })) => {
                    tracing::error!("{error}");
                    pause = RETRY_MAX;
                }
                Err(error) => tracing::warn!(%error, "certificate not renewed; trying again"),
            }
            self.env.clock.sleep(self.env.entropy.jitter(pause)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Asks the managers in turn, beginning anywhere; keeps what it gets.
    async fn attempt(&self, scope: &Scope) -> Result<(), RenewError> {
        let mut managers = self.managers.borrow().clone();
        let count = u64::try_from(managers.len()).unwrap_or_default().max(1);
        let first = usize::try_from(self.env.entropy.number() % count).unwrap_or_default();
        managers.rotate_left(first);
        let mut failure = RenewError::NoManager;
        for addr in managers {
            match renew_once(&self.identity, &self.channels, addr, &self.env).await {
                Ok((credentials, identity)) => {
                    self.keep(scope, credentials, identity).await?;
                    return Ok(());
                }
                Err(error @ RenewError::Identity(IdentityError::Expired { .. })) => {
                    return Err(error);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// To disk first: an identity that a restart would lose is none.
    async fn keep(
        &self,
        scope: &Scope,
        credentials: Credentials,
        identity: Identity,
    ) -> Result<(), RenewError> {
        let dir = self.dir.clone();
        match scope.blocking(move || dir.save(&credentials)).await {
            Some(outcome) => outcome?,
            None => return Err(IdentityError::Key("its writer failed".to_owned()).into()),
        }
        self.identity.replace(identity);
        Ok(())
    }
}

/// Asks one manager for a new certificate of the current identity, with a new key. Changes nothing
/// here.
///
/// # Errors
/// [`RenewError`].
pub async fn renew_once(
    identity: &SharedIdentity,
    channels: &Channels,
    addr: SocketAddr,
    env: &Env,
) -> Result<(Credentials, Identity), RenewError> {
    let current = identity.current();
    if let Err(expired @ IdentityError::Expired { .. }) =
        current.certificate.in_time(env.clock.now())
    {
        return Err(expired.into());
    }
    let key = NodeKey::generate()?;
    let request = IssueRequest { csr_pem: key.request()?, ..IssueRequest::default() };
    let mut client = CertificateAuthorityClient::new(channels.lane(addr, Lane::Control));
    let reply = env
        .clock
        .timeout(LIMIT, client.issue(request))
        .await
        .map_err(|late| LinkError::Unreachable { addr, reason: late.to_string() })?
        .map_err(|status| channels.link_error(addr, Lane::Control, &status))?
        .into_inner();
    let credentials = Credentials {
        key_pem: key.pem(),
        certificate_pem: reply.certificate_pem,
        root_pem: reply.root_pem,
    };
    let renewed = credentials.identity(&env.clock)?;
    let (before, after) = (current.certificate.identity, renewed.certificate.identity);
    if (before.cluster, before.node) != (after.cluster, after.node) {
        return Err(IdentityError::Mismatch(format!("{after} instead of {before}")).into());
    }
    renewed.certificate.fresh(env.clock.now())?;
    Ok((credentials, renewed))
}
