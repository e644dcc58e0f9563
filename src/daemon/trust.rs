//! Which roots this node trusts, as the managers want it; and what a node does whose certificate has
//! run out.
//!
//! ```text
//!   manager ── Trust ─▶ agent ─▶ renewal ─▶ certificate and roots on the disk ─▶ agent ── Report ─▶
//! ```
//!
//! A manager has the root's key in its own replica. Where its certificate ran out while it was off,
//! it signs itself another one, so that managers that were all off for too long find each other
//! again. A worker cannot; it keeps its tasks running and says what to do.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::node::{Node, Running};
use crate::domain::Cluster;
use crate::domain::NodeId;
use crate::domain::node::Role;
use crate::env::{Env, Scope};
use crate::identity::{CertificateDir, Identity, IdentityError, SharedIdentity, enlist};
use crate::raft::Store;
use crate::transport::RenewalRequest;

/// The clock on the wall may be set; how long to sleep without looking at it.
const NAP: Duration = Duration::from_secs(5);
/// Between two looks for a state to sign from, once the certificate has run out.
const RETRY: Duration = Duration::from_secs(1);

/// Renews the certificate when the managers want other roots to be trusted, and tells them which are.
pub(super) fn follow(running: &Running, requests: mpsc::Sender<RenewalRequest>) {
    let Some(worker) = &running.worker else { return };
    let identity = running.identity.clone();
    let mut wanted = worker.trust_wanted();
    running.scope.spawn("wanted-trust", async move {
        while wanted.changed().await.is_ok() {
            let Some(digest) = *wanted.borrow_and_update() else { continue };
            let is_so = identity.current().trust_digest() == Ok(digest);
            if !is_so && requests.send(RenewalRequest::Now).await.is_err() {
                return;
            }
        }
    });
    let agent = worker.agent();
    let mut identity = running.identity.watch();
    running.scope.spawn("trusted", async move {
        loop {
            // Credentials are on the disk before they are the identity.
            let digest = identity.borrow_and_update().trust_digest();
            match digest {
                Ok(digest) => agent.trusts(digest),
                Err(error) => tracing::error!(%error, "the roots of this node cannot be read"),
            }
            if identity.changed().await.is_err() {
                return;
            }
        }
    });
}

impl Node {
    /// Watches over the end of the certificate.
    pub(super) fn outlive(&self, running: &Running) {
        let expiry = Expiry {
            node: running.record.node,
            identity: running.identity.clone(),
            dir: self.inner.keyring.certificates(),
            store: self.store(),
            env: self.inner.env.clone(),
        };
        let local = self.inner.local.clone();
        let scope = running.scope.clone();
        running.scope.spawn("expiry", async move {
            let mut identity = expiry.identity.watch();
            loop {
                let current = identity.borrow_and_update().clone();
                let now = expiry.env.clock.now();
                let left = current.certificate.not_after.since(now);
                // One that a manager signed itself by a clock that ran ahead is of the future.
                let (pause, words) = match current.certificate.in_time(now) {
                    Ok(()) => (left.clamp(RETRY, NAP), String::new()),
                    Err(wrong) => (RETRY, expiry.help(&scope, wrong.to_string()).await),
                };
                local.send_if_modified(|local| {
                    let before = std::mem::take(&mut local.expired);
                    local.expired = words;
                    before != local.expired
                });
                tokio::select! {
                    changed = identity.changed() => if changed.is_err() { return },
                    () = expiry.env.clock.sleep(pause) => {}
                }
            }
        });
    }
}

/// What a node can do about a certificate that has run out.
struct Expiry {
    node: NodeId,
    identity: SharedIdentity,
    dir: CertificateDir,
    store: watch::Receiver<Option<Store>>,
    env: Env,
}

impl Expiry {
    /// Signs a new certificate, if this is a manager; otherwise the words that say what is to be done.
    async fn help(&self, scope: &Scope, words: String) -> String {
        let current = self.identity.current();
        let Some(store) = self.store.borrow().clone() else { return words };
        // Where there is a leader, it is this machine's clock that is wrong, or a renewal is on its way.
        if store.leadership().borrow().leader.is_some() {
            return words;
        }
        let view = store.view();
        let Some(cluster) = view.cluster.clone() else { return words };
        let is_manager = view.node(self.node).is_some_and(|node| node.certified == Role::Manager);
        if !is_manager || !may_sign(&cluster, &current) {
            return words;
        }
        match self.sign(scope, &cluster).await {
            Ok(()) => {
                tracing::warn!(
                    expired = %current.certificate.not_after,
                    "the certificate was not valid at this time; as a manager, this node signed itself another"
                );
                String::new()
            }
            Err(error) => {
                tracing::error!(%error, "no new certificate could be signed here");
                words
            }
        }
    }

    async fn sign(&self, scope: &Scope, cluster: &Cluster) -> Result<(), IdentityError> {
        let (_, credentials) = enlist(cluster, Some(self.node), self.env.clock.now())?;
        let identity = credentials.identity(&self.env.clock)?;
        let dir = self.dir.clone();
        match scope.blocking(move || dir.save(&credentials)).await {
            Some(saved) => saved?,
            None => return Err(IdentityError::Key("its writer failed".to_owned())),
        }
        self.identity.replace(identity);
        Ok(())
    }
}

/// Whether a certificate that this replica's state gives is one that the others believe. The replica
/// may be older than the certificate on the disk: after a switch of roots, nobody would believe what
/// the old one signs.
fn may_sign(cluster: &Cluster, current: &Identity) -> bool {
    let roots = current.roots();
    let (Ok(state), Ok(issuer)) =
        (Identity::roots_of(&cluster.roots_pem()), Identity::roots_of(&cluster.issuer().root_pem))
    else {
        return false;
    };
    roots.iter().all(|root| state.contains(root)) || roots.last() == issuer.first()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Node;
    use crate::domain::cluster::Trust;
    use crate::domain::{ClusterId, Timestamp};
    use crate::env::{Clock, Instant};
    use crate::identity::authority;
    use crate::raft::Leadership;
    use crate::state::fixtures::{cluster, node};
    use crate::state::{Change, Expect, Object};
    use std::pin::Pin;
    use std::sync::Arc;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn first() -> Cluster {
        let id = ClusterId::from_bytes([1; 16]);
        Cluster { id, authority: authority::create(id, NOW).unwrap(), ..cluster() }
    }

    fn rotating(from: &Cluster) -> Cluster {
        let rotation = Some(authority::succeed(from, NOW).unwrap());
        let generation = from.trust.generation + 1;
        Cluster { trust: Trust { generation, rotation }, ..from.clone() }
    }

    fn switched(from: &Cluster) -> Cluster {
        let authority = from.issuer().clone();
        let trust = Trust { generation: from.trust.generation + 1, rotation: None };
        Cluster { authority, trust, ..from.clone() }
    }

    fn identity(cluster: &Cluster) -> Identity {
        let (_, credentials) = enlist(cluster, None, NOW).unwrap();
        credentials.identity(&Env::system().clock).unwrap()
    }

    #[test]
    fn only_a_replica_that_knows_the_roots_of_the_disk_may_sign() {
        let old = first();
        let between = rotating(&old);
        let new = switched(&between);
        for (replica, disk, may) in [
            (&old, &old, true),
            (&between, &old, true),
            (&between, &between, true),
            (&new, &between, true),
            (&new, &new, true),
            // The replica is behind: what the old root signs may be worth nothing by now.
            (&old, &between, false),
            (&old, &new, false),
            (&rotating(&old), &between, false),
        ] {
            assert_eq!(may_sign(replica, &identity(disk)), may);
        }
    }

    /// The system's clock, set forward.
    #[derive(Debug)]
    struct Later(Duration);

    impl Clock for Later {
        fn now(&self) -> Timestamp {
            Env::system().clock.now().after(self.0)
        }

        fn instant(&self) -> Instant {
            Env::system().clock.instant()
        }

        fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Env::system().clock.sleep(time)
        }
    }

    #[tokio::test]
    async fn a_manager_that_was_off_for_too_long_signs_itself_a_certificate_a_worker_does_not() {
        let founded = Env::system().clock.now();
        let later = Arc::new(Later(Duration::from_secs(200 * 86_400)));
        let env = Env { clock: later, ..Env::system() };
        let id = ClusterId::from_bytes([1; 16]);
        let cluster =
            Cluster { id, authority: authority::create(id, founded).unwrap(), ..cluster() };
        let (who, credentials) = enlist(&cluster, None, founded).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let expiry = |store| Expiry {
            node: who.node,
            identity: SharedIdentity::new(credentials.identity(&env.clock).unwrap()),
            dir: CertificateDir::new(dir.path()),
            store,
            env: env.clone(),
        };
        let scope = Scope::root("test");
        let worker = expiry(watch::channel(None).1);
        let help = async |expiry: &Expiry| expiry.help(&scope, "do this".to_owned()).await;
        assert_eq!(help(&worker).await, "do this");
        assert_eq!(worker.dir.load().unwrap(), None, "nothing was written");

        let led = expiry(watch::channel(Some(Store::in_memory(env.clone()))).1);
        assert!(!help(&led).await.is_empty(), "with a leader, the clock is wrong");
        assert_eq!(led.dir.load().unwrap(), None, "nothing was written");

        let store = Store::in_memory_led(env.clone(), Leadership::default());
        let manager = expiry(watch::channel(Some(store.clone())).1);
        assert!(!help(&manager).await.is_empty(), "there is no state to sign from yet");
        let node = Node { id: who.node, certified: Role::Manager, ..node(1) };
        let put = |object| Change::Put { object, expect: Expect::Any };
        let objects = [Object::Cluster(Arc::new(cluster)), Object::Node(Arc::new(node))];
        let changes = objects.into_iter().map(put).collect();
        store.propose(None, changes, Duration::from_secs(5)).await.unwrap();
        assert_eq!(help(&manager).await, "");
        let renewed = manager.identity.current();
        assert_eq!(renewed.certificate.identity, who);
        assert!(!renewed.certificate.expired(env.clock.now()));
        let saved = manager.dir.load().unwrap().unwrap();
        assert_eq!(saved.certificate().unwrap(), renewed.certificate);
    }
}
