//! The newest view and the endpoint sets derived from it, computed once per commit for all sessions.

use std::sync::Arc;

use tokio::sync::watch;

use crate::env::Scope;
use crate::raft::Store;
use crate::state::View;
use crate::state::endpoints::{self, EndpointIndex};

/// A view and what every session needs of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) view: View,
    pub(crate) endpoints: Arc<EndpointIndex>,
}

/// The source of frames. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    frames: watch::Receiver<Frame>,
}

impl Feed {
    /// Follows the frames.
    pub(crate) fn watch(&self) -> watch::Receiver<Frame> {
        self.frames.clone()
    }
}

/// Starts to derive frames from the store's views.
pub(crate) fn start(store: &Store, scope: &Scope) -> Feed {
    let mut views = store.watch();
    let first = frame(views.borrow_and_update().clone(), None);
    let (sender, frames) = watch::channel(first);
    scope.spawn("feed", async move {
        while views.changed().await.is_ok() {
            let view = views.borrow_and_update().clone();
            let previous = Arc::clone(&sender.borrow().endpoints);
            if sender.send(frame(view, Some(&previous))).is_err() {
                return;
            }
        }
    });
    Feed { frames }
}

fn frame(view: View, previous: Option<&EndpointIndex>) -> Frame {
    let endpoints = Arc::new(endpoints::all(&view, previous));
    Frame { view, endpoints }
}
