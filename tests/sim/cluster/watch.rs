//! Users who watch: each follows the events of a manager's API for as long as the manager runs. What
//! they were told is held against what all members told of the log (I9): nothing of it is left out,
//! nothing comes twice or in another order.

use axum::body::Body;
use futures::StreamExt as _;
use serde_json::Value;
use swarm::raft::Store;

use super::*;

/// What a manager told a user of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) kind: String,
    pub(crate) action: String,
    pub(crate) id: String,
    pub(crate) nanos: u64,
}

/// All that a user was told.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) host: Host,
    /// Everything after this index was to be told.
    pub(crate) since: u64,
    pub(crate) told: Vec<News>,
    /// The manager ended, and with it the watch.
    pub(crate) is_over: bool,
}

/// Follows the events of a manager.
async fn follow(host: Host, api: Local, store: Store, watches: Arc<Mutex<Vec<Watch>>>) {
    let request = http::Request::builder().uri("/events").body(Body::empty()).unwrap();
    let response = api.answer(request).await;
    let since = store.view().position.index;
    let at = {
        let mut watches = watches.lock().unwrap();
        watches.push(Watch { host, since, told: Vec::new(), is_over: false });
        watches.len() - 1
    };
    let mut lines = response.into_body().into_data_stream();
    while let Some(Ok(line)) = lines.next().await {
        let news = read(&serde_json::from_slice(&line).unwrap());
        watches.lock().unwrap()[at].told.push(news);
    }
}

fn read(value: &Value) -> News {
    let text = |at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    News {
        kind: text("/Type"),
        action: text("/Action"),
        id: text("/Actor/ID"),
        nanos: value["timeNano"].as_u64().unwrap_or_default(),
    }
}

impl World {
    /// A user follows the events of a manager, for as long as it runs.
    pub(super) fn watch(&self, host: Host, api: Local, store: Store) {
        for watch in self.watches.lock().unwrap().iter_mut().filter(|it| it.host == host) {
            watch.is_over = true;
        }
        self.servers[host].spawn(follow(host, api, store, Arc::clone(&self.watches)));
    }

    /// I9: what is wrong with what users were told, when nothing happens any more.
    pub(super) fn news(&self) -> Option<String> {
        let (watches, oracle) = (self.watches.lock().unwrap(), self.oracle.lock().unwrap());
        watches.iter().find_map(|watch| {
            let is_over = self.servers[watch.host].manager().is_none() || watch.is_over;
            watch.problem(is_over, &oracle)
        })
    }
}

impl Watch {
    /// What is wrong with what was told.
    fn problem(&self, is_over: bool, oracle: &Oracle) -> Option<String> {
        let host = self.host;
        // Alarms are this manager's own, by its own clock.
        let shared: Vec<&News> = self.told.iter().filter(|news| news.kind != "alarm").collect();
        if let Some(pair) = shared.windows(2).find(|pair| pair[0].nanos > pair[1].nanos) {
            return Some(format!("I9: a user at host {host} was told of {pair:?} in this order"));
        }
        let configs = self.told.iter().filter(|news| news.kind == "config");
        let told: Vec<(&str, &str)> =
            configs.map(|news| (news.action.as_str(), news.id.as_str())).collect();
        let log = oracle.configs();
        let latest = log.iter().position(|(index, ..)| *index > self.since).unwrap_or(log.len());
        let log: Vec<(&str, &str)> = log.iter().map(|(_, action, id)| (*action, *id)).collect();
        let is_told = |from: usize| {
            let rest = &log[from..];
            rest.starts_with(&told) && (is_over || rest.len() == told.len())
        };
        if (0..=latest).rev().any(is_told) || oracle.has_gap(host) {
            return None;
        }
        let expected = &log[latest..];
        let at = told.iter().zip(expected).position(|(one, other)| one != other);
        Some(format!(
            "I9: a user at host {host} was told of {} changes of configs after index {}, of {}; \
             the first that differs is {at:?}: {:?}, not {:?}",
            told.len(),
            self.since,
            expected.len(),
            at.and_then(|at| told.get(at)),
            at.and_then(|at| expected.get(at))
        ))
    }
}
