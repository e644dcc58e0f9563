//! Structured concurrency: every routine has an owner that ends it and waits for it.

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
}

impl Scope {
    /// The outermost scope.
    #[must_use]
    pub fn root(name: &str) -> Self {
        Self { name: name.into(), cancel: CancellationToken::new(), routines: TaskTracker::new() }
    }

    /// A scope that ends with this one, or earlier.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self {
            name: format!("{}/{name}", self.name).into(),
            cancel: self.cancel.child_token(),
            routines: TaskTracker::new(),
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
        self.routines.spawn_blocking(work).await.ok()
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
