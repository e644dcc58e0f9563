//! Numbers, health, alarms and status, as machines and people ask for them.

mod exposition;

use std::collections::BTreeSet;

use super::*;
use crate::health::{Room, Validity};
use exposition::{Kind, parse};

/// What a manager that is well says of itself.
fn well() -> Vitals {
    let mut vitals = Vitals::default();
    vitals.local.is_connected = Some(true);
    vitals.local.room = Some(Room { free: 1 << 40, lack: None });
    let from = Env::system().clock.now();
    let until = from.after(Duration::from_secs(3_600));
    vitals.local.certificate = Some(Validity { from, until });
    vitals.raft = Some(crate::raft::Vitals { free: 1 << 40, ..crate::raft::Vitals::default() });
    vitals
}

impl Bench {
    /// The first manager of a cluster, well.
    async fn healthy() -> Self {
        let bench = Self::manager().await;
        *bench.control.vitals.lock().unwrap() = well();
        bench
    }

    async fn lose_leader(&self) {
        let store = Store::in_memory_led(Env::system(), crate::raft::Leadership::default());
        fill(&store, ClusterSpec::default()).await;
        self.control.stores.send_replace(Some(store));
    }

    fn change(&self, change: impl FnOnce(&mut Vitals)) {
        change(&mut self.control.vitals.lock().unwrap());
    }

    fn set(&self, participation: Participation, error: &str) {
        let error = error.to_owned();
        *self.control.state.lock().unwrap() = LocalState { participation, error, ..active() };
    }

    async fn ready(&self) -> (u16, String) {
        let answer = self.get("/readyz").await;
        let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
        (answer.status.as_u16(), text.trim().to_owned())
    }

    async fn page(&self) -> Vec<exposition::Metric> {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, StatusCode::OK);
        let kind = answer.headers.get("content-type").unwrap();
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        parse(std::str::from_utf8(&answer.bytes).unwrap())
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing_in_each_state() {
    let bench = Bench::inactive().await;
    let ok = |text: &str| (200, text.to_owned());
    let not = |text: &str| (503, text.to_owned());
    assert_eq!(bench.ready().await, ok("ok: not in a swarm"));
    bench.set(Participation::Pending, "");
    assert_eq!(bench.ready().await, not("the node is joining a swarm"));
    bench.set(Participation::Locked, "");
    assert_eq!(bench.ready().await, not("the manager is locked: docker swarm unlock"));
    bench.set(Participation::Error, "the raft data in /x is damaged");
    assert_eq!(bench.ready().await, not("the raft data in /x is damaged"));
    bench.set(Participation::Active, "");
    assert_eq!(bench.ready().await, not("the manager is starting"));
    *bench.control.state.lock().unwrap() = LocalState { is_manager: false, ..active() };
    assert_eq!(bench.ready().await, ok("ok: worker"));
    bench.change(|vitals| vitals.local.is_connected = Some(false));
    assert_eq!(bench.ready().await, not("the node has no session with a manager"));
    bench.change(|vitals| *vitals = well());
    assert_eq!(bench.ready().await, ok("ok: worker"));
    bench.change(|vitals| vitals.local.degraded = "no container engine".to_owned());
    assert_eq!(bench.ready().await, not("the node cannot run tasks: no container engine"));

    let bench = Bench::healthy().await;
    assert_eq!(bench.ready().await, ok("ok: manager"));
    let lack = Some("1 MiB is free".to_owned());
    bench.change(|vitals| vitals.local.room = Some(Room { free: 1 << 20, lack }));
    assert_eq!(bench.ready().await, not("the manager's disk is full: 1 MiB is free"));
    bench.change(|vitals| *vitals = well());
    bench.lose_leader().await;
    assert_eq!(bench.ready().await, not("the swarm does not have a leader"));
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK, "a restart mends nothing");
}

#[tokio::test]
async fn numbers_are_there_in_every_state_and_keep_the_rules() {
    let bench = Bench::inactive().await;
    let outside = bench.page().await;
    assert!(outside.iter().all(|metric| !metric.name.starts_with("swarm_raft_")));
    let info = outside.iter().find(|metric| metric.name == "swarm_node_info").unwrap();
    assert_eq!(info.value(&[("part", "outside")]), Some(1.0));
    bench.set(Participation::Locked, "");
    let locked = bench.page().await;
    let alarm = locked.iter().find(|metric| metric.name == "swarm_alarm").unwrap();
    let labels = [("name", "manager-locked"), ("severity", "critical")];
    assert_eq!(alarm.value(&labels), Some(1.0));
    *bench.control.state.lock().unwrap() = LocalState { is_manager: false, ..active() };
    let worker = bench.page().await;
    assert!(worker.iter().any(|metric| metric.name == "swarm_dns_query_duration_seconds"));
    assert!(worker.iter().all(|metric| metric.name != "swarm_nodes"));

    let bench = Bench::healthy().await;
    bench.web().await;
    let page = bench.page().await;
    let of = |name: &str| page.iter().find(|metric| metric.name == name).unwrap();
    assert_eq!(of("swarm_nodes").value(&[("state", "ready")]), Some(1.0));
    assert_eq!(of("swarm_managers").value(&[("state", "reachable")]), Some(1.0));
    assert_eq!(of("swarm_services").value(&[]), Some(1.0));
    assert_eq!(of("swarm_service_tasks_wanted").value(&[("service", "web")]), Some(3.0));
    assert_eq!(of("swarm_service_tasks_running").value(&[("service", "web")]), Some(0.0));
    assert_eq!(of("swarm_raft_is_leader").value(&[]), Some(1.0));
    let writes = of("swarm_api_request_duration_seconds");
    assert_eq!(writes.count(&[("class", "write")]), Some(1.0), "the service was created");
    assert!(of("process_resident_memory_bytes").value(&[]).unwrap() > 1e6);
    assert!(page.len() < 90, "{} names", page.len());
    let series: usize = page.iter().map(exposition::Metric::series).sum();
    assert!(series < 900, "{series} series");
}

/// Names and kinds as docs/OPERATIONS.md has them: "| `name` | kind | …".
fn documented() -> BTreeSet<(String, Kind)> {
    let text = include_str!("../../../docs/OPERATIONS.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').split('{').next()?.to_owned();
        let kind = Kind::parse(cells.next()?)?;
        Some((name, kind))
    };
    text.lines().filter_map(row).collect()
}

#[tokio::test]
async fn the_documented_numbers_are_those_that_there_are() {
    let bench = Bench::healthy().await;
    bench.web().await;
    let page = bench.page().await;
    let served: BTreeSet<_> =
        page.into_iter().map(|metric| (metric.name.clone(), metric.kind)).collect();
    let documented = documented();
    let undocumented: Vec<_> = served.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&served).collect();
    assert!(undocumented.is_empty(), "not in docs/OPERATIONS.md: {undocumented:?}");
    assert!(gone.is_empty(), "in docs/OPERATIONS.md, and not served: {gone:?}");
}

#[test]
fn every_alarm_is_documented_with_what_to_do() {
    let text = include_str!("../../../docs/OPERATIONS.md");
    for name in crate::health::Name::ALL {
        let row = format!("| `{}` | {} |", name.as_str(), name.severity().as_str());
        assert!(text.contains(&row), "docs/OPERATIONS.md has no row {row:?}");
    }
}

#[tokio::test]
async fn a_listener_for_those_who_watch_serves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let scope = Scope::root("test");
    let bench = Bench::healthy().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let deps = || Deps {
        env: Env::system(),
        control: Arc::<Control>::clone(&bench.control),
        store: bench.control.stores.subscribe(),
        logs: Arc::<Logs>::clone(&bench.logs),
        engine: PathBuf::from("/nonexistent"),
    };
    let settings = |name: &str| Settings {
        socket: folder.path().join(name),
        group: None,
        metrics: Some(free),
    };
    let handle = serve(settings("a"), deps(), &scope).await.unwrap();
    let taken = serve(settings("b"), deps(), &scope).await.unwrap_err();
    assert!(taken.to_string().contains("metrics-addr"), "{taken}");

    let ask = async |path: &str, method: Method| {
        let stream = tokio::net::TcpStream::connect(free).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        scope.spawn("client", async move {
            connection.await.ok();
        });
        let request = Request::builder().method(method).uri(path).header("host", "x");
        sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask(path, Method::GET).await, StatusCode::OK, "{path}");
    }
    for path in ["/info", "/services", "/v1.41/swarm", "/x/v1/status", "/containers/json"] {
        assert_eq!(ask(path, Method::GET).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(ask("/metrics", Method::POST).await, StatusCode::NOT_FOUND);
    handle.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn alarms_come_and_go_as_events() {
    let bench = Bench::healthy().await;
    let request = Request::builder().uri("/events?filters=%7B%22type%22%3A%5B%22alarm%22%5D%7D");
    let mut body = bench.send(request.body(Body::empty()).unwrap()).await.into_body();
    let mut next = async || {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&frame.into_data().unwrap()).unwrap()
    };
    bench.change(|vitals| vitals.local.degraded = "no container engine".to_owned());
    let raised = next().await;
    assert_eq!((&raised["Type"], &raised["Action"]), (&"alarm".into(), &"raise".into()));
    assert_eq!(raised["Actor"]["ID"], "node-degraded/vm");
    let attributes = &raised["Actor"]["Attributes"];
    assert_eq!(
        (&attributes["name"], &attributes["severity"]),
        (&"node-degraded".into(), &"warning".into())
    );
    assert_eq!(attributes["text"], "it cannot run tasks: no container engine");
    let status = bench.get("/x/v1/status").await.json();
    assert_eq!((&status["Well"], &status["Verdict"]), (&false.into(), &"1 alarm".into()));
    assert_eq!(status["Alarms"][0]["Name"], "node-degraded");
    bench.change(|vitals| vitals.local.degraded = String::new());
    let cleared = next().await;
    assert_eq!(
        (&cleared["Action"], &cleared["Actor"]["ID"]),
        (&"clear".into(), &"node-degraded/vm".into())
    );
    let status = bench.get("/x/v1/status").await.json();
    assert_eq!((&status["Well"], &status["Verdict"]), (&true.into(), &"all is well".into()));
}

#[tokio::test]
async fn status_says_what_is_not_as_wanted() {
    let bench = Bench::healthy().await;
    bench.web().await;
    let status = bench.get("/x/v1/status").await.json();
    assert_eq!(status["Verdict"], "1 service is not as wanted");
    let cluster = &status["Cluster"];
    assert_eq!(cluster["Leader"], "vm");
    assert_eq!(cluster["Tasks"], serde_json::json!({"Wanted": 3, "Running": 0}));
    assert_eq!(cluster["Behind"][0]["Service"], "web");
    assert_eq!(status["Upgrade"], Value::Null, "the newest format is used");
    bench.lose_leader().await;
    let status = bench.get("/x/v1/status").await.json();
    let verdict = status["Verdict"].as_str().unwrap();
    assert!(verdict.starts_with("the swarm does not have a leader"), "{verdict}");
    assert_eq!(status["Ready"], false);
}
