//! Commands against a small HTTP server on a unix socket that plays a service coming up.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::*;
use crate::cli::client::Client;

/// A writer whose text can be read.
#[derive(Clone, Default)]
struct Screenshot(Arc<Mutex<Vec<u8>>>);

impl Write for Screenshot {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Screenshot {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What the server answers: the service at each look, and its tasks.
#[derive(Debug, Default)]
struct Script {
    services: VecDeque<Value>,
    tasks: VecDeque<Value>,
    asked: Vec<String>,
}

fn turn(answers: &mut VecDeque<Value>) -> Value {
    if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
}

async fn answer(
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().to_string();
    let method = request.method().clone();
    let _body = request.into_body().collect().await?;
    let mut script = script.lock().unwrap();
    script.asked.push(format!("{method} {path}"));
    let (status, body) = match path.split('?').next().unwrap() {
        "/v1.41/services/web" => (200, turn(&mut script.services)),
        "/v1.41/services/web/update" => (200, json!({"Warnings": null})),
        "/v1.41/tasks" => (200, turn(&mut script.tasks)),
        "/v1.41/nodes" => (200, json!([{"ID": "n", "Status": {"State": "ready"}}])),
        _ => (404, json!({"message": "page not found"})),
    };
    let body = Full::new(Bytes::from(body.to_string()));
    Ok(Response::builder().status(status).body(body).unwrap())
}

fn serve(socket: &Path, script: Arc<Mutex<Script>>) {
    let listener = UnixListener::bind(socket).unwrap();
    os::drive(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let script = Arc::clone(&script);
            os::drive(async move {
                let service = service_fn(move |request| answer(Arc::clone(&script), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                drop(connection.await);
            });
        }
    });
}

fn service(status: &Value) -> Value {
    json!({
        "ID": "web", "Version": {"Index": 7}, "UpdateStatus": status,
        "Spec": {
            "Name": "web", "Mode": {"Replicated": {"Replicas": 2}},
            "UpdateConfig": {"Monitor": 300_000_000},
        },
    })
}

fn tasks(first: &str, second: &str, error: &str) -> Value {
    json!([
        {"ID": "t1", "Slot": 1, "NodeID": "n", "DesiredState": "running", "Status": {"State": first}},
        {"ID": "t2", "Slot": 2, "NodeID": "n", "DesiredState": "running",
         "Status": {"State": second, "Err": error}},
    ])
}

struct Play {
    outcome: anyhow::Result<()>,
    stdout: String,
    asked: Vec<String>,
}

/// Runs a command against a script.
fn play(words: &str, services: Vec<Value>, tasks: Vec<Value>) -> Play {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("swarm.sock");
    let script = Script { services: services.into(), tasks: tasks.into(), asked: Vec::new() };
    let script = Arc::new(Mutex::new(script));
    let (stdout, stderr) = (Screenshot::default(), Screenshot::default());
    let out = Out::to(Box::new(stdout.clone()), Box::new(stderr));
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = executor.block_on(async {
        serve(&socket, Arc::clone(&script));
        let client = Client::new(socket);
        let mut shell =
            Shell { client, out, state_dir: PathBuf::from("/nonexistent"), defaults: false };
        let words = std::iter::once("service").chain(words.split(' '));
        let command = <Program as clap::Parser>::try_parse_from(words).unwrap().command;
        command.run(&mut shell).await
    });
    let asked = script.lock().unwrap().asked.clone();
    Play { outcome, stdout: stdout.text(), asked }
}

#[derive(clap::Parser)]
struct Program {
    #[command(subcommand)]
    command: crate::cli::service::ServiceCommand,
}

#[test]
fn a_service_that_comes_up_is_reported_as_by_docker() {
    let play = play(
        "scale web=2",
        vec![service(&Value::Null)],
        vec![
            json!([]),
            tasks("running", "preparing", ""),
            tasks("running", "preparing", "No such image: nosuch:1"),
            tasks("running", "running", ""),
        ],
    );
    play.outcome.unwrap();
    assert_eq!(
        play.stdout,
        "web scaled to 2\n\
         overall progress: 0 out of 2 tasks\n\
         overall progress: 1 out of 2 tasks\n\
         2/2: No such image: nosuch:1\n\
         overall progress: 2 out of 2 tasks\n\
         verify: Waiting 1 seconds to verify that tasks are stable...\n\
         verify: Service web converged\n"
    );
    assert_eq!(play.asked[0], "GET /v1.41/services/web");
    assert_eq!(play.asked[1], "POST /v1.41/services/web/update?version=7");
    let filter = "filters=%7B%22_up-to-date%22%3A%7B%22true%22%3Atrue%7D%2C";
    let filter = filter.replace("%3A", ":");
    assert!(play.asked[3].starts_with(&format!("GET /v1.41/tasks?{filter}")), "{}", play.asked[3]);
}

#[test]
fn a_paused_update_fails_and_names_the_next_step() {
    let paused = json!({"State": "paused", "Message": "update paused due to failure"});
    let services = vec![service(&Value::Null), service(&paused)];
    let play = play("scale web=2", services, vec![tasks("running", "rejected", "No such image")]);
    let error = play.outcome.unwrap_err().to_string();
    assert!(
        error.starts_with("service update paused: update paused due to failure: No such image"),
        "{error}"
    );
    assert!(error.contains("swarm service rollback web"), "{error}");
}

#[test]
fn a_rollback_is_a_failure_unless_it_was_wanted() {
    let started = json!({"State": "rollback_started", "Message": "task failed"});
    let done = json!({"State": "rollback_completed", "Message": "rollback completed"});
    let services = || vec![service(&Value::Null), service(&started), service(&done)];
    let running = || vec![tasks("running", "running", "")];
    let unwanted = play("scale web=2", services(), running());
    let error = unwanted.outcome.unwrap_err().to_string();
    assert!(error.contains("the update was rolled back: rollback completed"), "{error}");
    assert!(unwanted.stdout.contains("rollback: task failed\n"), "{}", unwanted.stdout);
    let wanted = play("rollback web", services(), running());
    wanted.outcome.unwrap();
    assert!(wanted.stdout.contains("overall progress: rolling back update: 2 out of 2 tasks"));
    assert!(wanted.asked[1].ends_with("version=7&rollback=previous"), "{}", wanted.asked[1]);
}

#[test]
fn detached_commands_do_not_wait() {
    let play = play("scale --detach web=2", vec![service(&Value::Null)], vec![json!([])]);
    play.outcome.unwrap();
    assert_eq!(play.stdout, "web scaled to 2\n");
    assert_eq!(play.asked.len(), 2);
}
