//! Structured concurrency: every routine has an owner that ends it and waits for it.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owner of routines. Children end with their parents; a panic in a routine ends the process, since
/// half a manager is worse than none (crash-only: the panic hook of `daemon` aborts).
#[derive(Clone, Debug)]
pub struct Scope {
    name: Arc<str>,
    cancel: CancellationToken,
    routines: TaskTracker,
    pace: Option<Arc<dyn Pace>>,
}

/// How long work that blocks takes where it is simulated: it is done at once by the routine that
/// asked for it, after this time of the simulation. Threads would leave the order to chance.
pub trait Pace: Send + Sync + Debug {
    /// How long the next piece of work takes.
    fn next(&self) -> Duration;
}

impl Scope {
    /// The outermost scope.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let (cancel, routines) = (CancellationToken::new(), TaskTracker::new());
        Self { name: name.into(), cancel, routines, pace: None }
    }

    /// The outermost scope of a simulated process, which has one thread.
    #[must_use]
    pub fn simulated(name: &str, pace: Arc<dyn Pace>) -> Self {
        Self { pace: Some(pace), ..Self::root(name) }
    }

    /// A scope that ends with this one, or earlier.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name).into(),
            cancel: self.cancel.child_token(),
            routines: TaskTracker::new(),
            pace: self.pace.clone(),
        }
    }

    /// Starts a routine that ends by itself or when the scope does; it is dropped at its next await
    /// then, so what it holds must be safe to drop.
    pub fn spawn<F>(&self, name: &'static str, routine: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let scope = Arc::clone(&self.name);
        self.routines.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => tracing::trace!(%scope, routine = name, "cancelled"),
                () = routine => tracing::trace!(%scope, routine = name, "ended"),
            }
        });
    }

    /// Runs blocking work on a thread of its own kind and awaits its answer; `None` if it panicked.
    pub async fn blocking<T, F>(&self, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Some(pace) = &self.pace else {
            return self.routines.spawn_blocking(work).await.ok();
        };
        tokio::time::sleep(pace.next()).await;
        Some(work())
    }

    /// The pace of blocking work where it is simulated.
    pub(super) fn pace(&self) -> Option<Arc<dyn Pace>> {
        self.pace.clone()
    }

    /// Completes when the scope was told to end.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Whether the scope was told to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Tells the scope and its children to end, without waiting.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Tells the scope and its children to end and waits for the routines of this scope, at most
    /// for `limit`. Whether all of them ended.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.cancel.cancel();
        self.routines.close();
        tokio::time::timeout(limit, self.routines.wait()).await.is_ok()
    }
}
