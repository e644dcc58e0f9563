//! From a user's request to running containers, beside Docker Swarm and the bare Engine API.
//!
//! `scripts/bench.sh` makes the hosts and runs this program twice: as a tap between a daemon and its
//! engine, which notes when containers are asked for, and as the client that measures. All figures of
//! a comparison are taken in turn, by the same client, over unix sockets.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures real time and prints"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, Subcommand};
use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

/// Version of the Engine API that all sides speak.
const API: &str = "/v1.40";
/// Containers of a batch.
const MANY: usize = 20;
/// Batches that are tried with the bare Engine API: containers made at a time.
const AT_A_TIME: [usize; 4] = [1, 2, 4, 8];

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Passes bytes between a daemon and its engine; notes when each container is asked for.
    Tap { listen: PathBuf, engine: PathBuf, log: PathBuf },
    /// Measures and prints a table.
    Compare {
        /// API and engine of a node of ours.
        #[arg(long, num_args = 2)]
        ours: Vec<PathBuf>,
        /// API and engine of a node of Docker Swarm, which are one socket there.
        #[arg(long, num_args = 2)]
        theirs: Vec<PathBuf>,
        /// What the tap of our node writes.
        #[arg(long)]
        log: PathBuf,
        /// The image, which both engines have.
        #[arg(long)]
        image: String,
        /// Overlay network of Docker Swarm.
        #[arg(long)]
        network: String,
        #[arg(long, default_value_t = 10)]
        runs: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    match Arguments::parse().command {
        Command::Tap { listen, engine, log } => tap(&listen, &engine, &log).await,
        Command::Compare { ours, theirs, log, image, network, runs } => {
            let ours = Side { api: Http(ours[0].clone()), engine: Http(ours[1].clone()) };
            let theirs = Side { api: Http(theirs[0].clone()), engine: Http(theirs[1].clone()) };
            let bench = Bench { ours, theirs, log, image, network };
            bench.run(runs).await;
        }
    }
}

/// Nanoseconds since the epoch: one clock for all processes of this machine.
fn now() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos()
}

async fn tap(listen: &Path, engine: &Path, log: &Path) {
    if listen.exists() {
        std::fs::remove_file(listen).unwrap();
    }
    let listener = UnixListener::bind(listen).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (engine, log) = (engine.to_owned(), log.to_owned());
        #[expect(clippy::let_underscore_must_use, reason = "a closed connection is its end")]
        let pass = async move {
            let Ok(upstream) = UnixStream::connect(&engine).await else { return };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_engine, mut to_engine) = upstream.into_split();
            let up = async {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    note(&buffer[..count], &log);
                    if to_engine.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
                let _ = to_engine.shutdown().await;
            };
            let down = async {
                let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
                let _ = to_client.shutdown().await;
            };
            tokio::join!(up, down);
        };
        tokio::task::spawn(pass);
    }
}

/// Notes the time if these bytes begin a request for a container.
fn note(bytes: &[u8], log: &Path) {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.starts_with("POST ") && line.contains("/containers/create?") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(file, "{} {line}", now()).unwrap();
    }
}

/// An HTTP API on a unix socket.
struct Http(PathBuf);

impl Http {
    async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, hyper::body::Incoming) {
        let stream = UnixStream::connect(&self.0).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn(connection);
        let body = body.map_or_else(Bytes::new, |body| serde_json::to_vec(body).unwrap().into());
        let request = Request::builder()
            .method(method)
            .uri(format!("{API}{path}"))
            .header("host", "docker")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        (response.status().as_u16(), response.into_body())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.open(method.clone(), path, body).await;
        let bytes = answer.collect().await.unwrap().to_bytes();
        assert!(status < 400, "{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    }
}

/// A cluster's API and the engine of its only node that matters.
struct Side {
    api: Http,
    engine: Http,
}

struct Bench {
    ours: Side,
    theirs: Side,
    log: PathBuf,
    image: String,
    network: String,
}

/// Times of one creation, as milliseconds from the start of the request.
struct Created {
    accepted: f64,
    /// The first request for a container, where a tap saw it.
    asked: Option<f64>,
    /// The last of the processes began.
    started: f64,
    /// The API says that all tasks run.
    running: f64,
}

impl Bench {
    async fn run(&self, runs: usize) {
        let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut add =
            |name: &str, value: f64| figures.entry(name.to_owned()).or_default().push(value);
        // One of each first, unmeasured: the first container of an engine pays for more.
        for run in 0..=runs {
            let one = self.ours(&["host"], 1, run).await;
            let theirs = self.theirs(&["host"], 1, run).await;
            let own = self.ours(&[], 1, run).await;
            let own_theirs = self.theirs(&[&self.network], 1, run).await;
            let many = self.ours(&["host"], MANY, run).await;
            let many_theirs = self.theirs(&["host"], MANY, run).await;
            let mut bare = Vec::new();
            for width in AT_A_TIME {
                bare.push((width, self.bare(width).await));
            }
            if run == 0 {
                continue;
            }
            add("accepted", one.accepted);
            add("asked", one.asked.unwrap() - one.accepted);
            add("asked own", own.asked.unwrap() - own.accepted);
            for (name, created) in [
                ("host ours", one),
                ("host theirs", theirs),
                ("own ours", own),
                ("own theirs", own_theirs),
                ("many ours", many),
                ("many theirs", many_theirs),
            ] {
                add(name, created.started);
                add(&format!("{name} running"), created.running);
            }
            for (width, time) in bare {
                add(&format!("bare {width}"), time);
            }
        }
        print(&figures);
    }

    async fn ours(&self, networks: &[&str], replicas: usize, run: usize) -> Created {
        let name = format!("ours-{run}-{}-{replicas}", networks.len());
        let mut created = self.create(&self.ours, &name, networks, replicas).await;
        let log = std::fs::read_to_string(&self.log).unwrap();
        let asked = log.lines().find(|line| line.contains(&format!("name={name}.")));
        let at: i128 = asked.unwrap().split(' ').next().unwrap().parse().unwrap();
        created.1.asked = Some(millis(created.0, at));
        created.1
    }

    async fn theirs(&self, networks: &[&str], replicas: usize, run: usize) -> Created {
        let name = format!("theirs-{run}-{}-{replicas}", networks.len());
        self.create(&self.theirs, &name, networks, replicas).await.1
    }

    /// Creates a service, waits for its containers, removes it; with the time when it began.
    async fn create(
        &self,
        side: &Side,
        name: &str,
        networks: &[&str],
        replicas: usize,
    ) -> (i128, Created) {
        let label = format!("com.docker.swarm.service.name={name}");
        let filter = json!({"event": ["start"], "label": [label]}).to_string();
        let path = format!("/events?filters={}", escape(&filter));
        let (_, events) = side.engine.open(Method::GET, &path, None).await;
        let targets: Vec<Value> = networks.iter().map(|name| json!({"Target": name})).collect();
        let spec = json!({
            "Name": name,
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": self.image, "Command": ["sleep", "100000"], "StopSignal": "SIGKILL",
                },
                "Networks": targets,
            },
        });
        let began = now();
        let answer = side.api.call(Method::POST, "/services/create", Some(&spec)).await;
        let accepted = millis(began, now());
        let ids = started(events, replicas).await;
        self.all_run(side, name, replicas).await;
        let running = millis(began, now());
        let mut started: f64 = 0.0;
        for id in ids {
            started = started.max(millis(began, self.start_of(side, &id).await));
        }
        let id = answer["ID"].as_str().unwrap();
        side.api.call(Method::DELETE, &format!("/services/{id}"), None).await;
        self.none_left(side, &label).await;
        (began, Created { accepted, asked: None, started, running })
    }

    /// Waits until the cluster says that all tasks of a service run.
    async fn all_run(&self, side: &Side, service: &str, replicas: usize) {
        let filter = escape(&json!({"service": [service]}).to_string());
        let path = format!("/tasks?filters={filter}");
        loop {
            let tasks = side.api.call(Method::GET, &path, None).await;
            let running = |task: &&Value| task["Status"]["State"] == "running";
            if tasks.as_array().map_or(0, |all| all.iter().filter(running).count()) >= replicas {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// When a container's process began.
    async fn start_of(&self, side: &Side, id: &str) -> i128 {
        let all = side.engine.call(Method::GET, &format!("/containers/{id}/json"), None).await;
        let text = all["State"]["StartedAt"].as_str().unwrap();
        OffsetDateTime::parse(text, &Rfc3339).unwrap().unix_timestamp_nanos()
    }

    /// Waits until the containers with a label are gone, and the engine has had a rest.
    async fn none_left(&self, side: &Side, label: &str) {
        let filter = escape(&json!({"label": [label]}).to_string());
        let path = format!("/containers/json?all=1&filters={filter}");
        for _ in 0..600 {
            let left = side.engine.call(Method::GET, &path, None).await;
            let count = left.as_array().map_or(0, Vec::len);
            if count == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Containers made and started by the bare Engine API on our engine, some at a time.
    async fn bare(&self, width: usize) -> f64 {
        let engine = &self.ours.engine;
        let body = json!({
            "Image": self.image, "Cmd": ["sleep", "100000"],
            "HostConfig": {"NetworkMode": "host"}, "Labels": {"bench": "bare"},
        });
        let began = now();
        let make = |number: usize| {
            let body = &body;
            async move {
                let path = format!("/containers/create?name=bare-{width}-{number}");
                let made = engine.call(Method::POST, &path, Some(body)).await;
                let id = made["Id"].as_str().unwrap().to_owned();
                engine.call(Method::POST, &format!("/containers/{id}/start"), None).await;
                id
            }
        };
        let ids: Vec<String> =
            futures::stream::iter(0..MANY).map(make).buffer_unordered(width).collect().await;
        let mut running: f64 = 0.0;
        for id in &ids {
            running = running.max(millis(began, self.start_of(&self.ours, id).await));
        }
        for id in ids {
            engine.call(Method::DELETE, &format!("/containers/{id}?force=1"), None).await;
        }
        self.none_left(&self.ours, "bench=bare").await;
        running
    }
}

/// The containers that a stream of events says have started, once there are enough.
async fn started(mut events: hyper::body::Incoming, count: usize) -> Vec<String> {
    let mut buffer = Vec::new();
    let mut ids = Vec::new();
    while ids.len() < count {
        // Two minutes are more than any container takes.
        let frame = tokio::time::timeout(Duration::from_secs(120), events.frame()).await;
        let frame = frame.unwrap().unwrap().unwrap();
        buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            ids.push(event["id"].as_str().unwrap().to_owned());
        }
    }
    ids
}

fn millis(from: i128, to: i128) -> f64 {
    (to - from) as f64 / 1e6
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        if byte.is_ascii_alphanumeric() {
            done.push(char::from(byte));
        } else {
            write!(done, "%{byte:02X}").unwrap();
        }
        done
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn print(figures: &BTreeMap<String, Vec<f64>>) {
    let of = |name: &str| median(&figures[name]);
    println!("| `POST /services/create` sent to … | ours | Docker Swarm | theirs / ours |");
    println!("|---|---|---|---|");
    for (name, what) in [
        ("host", "one task, host network"),
        ("own", "one task with its own address (their overlay network)"),
        ("many", "20 tasks, host network"),
    ] {
        for (suffix, end) in [(" running", "state `running` in the API"), ("", "process started")] {
            let ours = of(&format!("{name} ours{suffix}"));
            let theirs = of(&format!("{name} theirs{suffix}"));
            let ratio = theirs / ours;
            println!("| {what}: {end} | {ours:.1} ms | {theirs:.1} ms | {ratio:.2} |");
        }
    }
    println!("\n| inside our figures | median | worst |\n|---|---|---|");
    for (name, what) in [
        ("accepted", "`POST /services/create` sent to answered"),
        ("asked", "answered to first `POST /containers/create` at the engine, host network"),
        ("asked own", "the same, own address"),
    ] {
        let worst = figures[name].iter().copied().fold(f64::MIN, f64::max);
        println!("| {what} | {:.2} ms | {worst:.2} ms |", of(name));
    }
    println!(
        "\n| 20 containers on the same engine, host network | time | rate | ours / bare |\n|---|---|---|---|"
    );
    let ours = of("many ours");
    let rate = |time: f64| MANY as f64 / time * 1e3;
    println!("| `service create --replicas 20` | {ours:.0} ms | {:.1} /s | |", rate(ours));
    for width in AT_A_TIME {
        let time = of(&format!("bare {width}"));
        println!(
            "| bare Engine API, {width} at a time | {time:.0} ms | {:.1} /s | {:.2} |",
            rate(time),
            time / ours
        );
    }
}
