//! What goes through to the local engine: a stand-in that speaks HTTP by hand.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Answers every connection's one request: JSON by path, a raw echo after an upgrade.
async fn stand_in(listener: UnixListener, scope: Scope, seen: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        scope.spawn("engine", async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            seen.lock().unwrap().push(line.clone());
            let path = line.split(' ').nth(1).unwrap();
            if head.to_lowercase().contains("upgrade: tcp") {
                let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
                return;
            }
            let body = match path.split('?').next().unwrap() {
                "/version" => json!({"ApiVersion": "1.50", "MinAPIVersion": "1.44", "Version": "28",
                    "Components": [{"Name": "Engine", "Details": {"ApiVersion": "1.50"}}]}),
                "/info" => json!({"Name": "vm", "NCPU": 2, "Swarm": {"LocalNodeState": "inactive"}}),
                "/networks" => json!([{"Name": "bridge", "Id": "b", "Scope": "local"},
                    {"Name": "ingress", "Id": "i", "Scope": "swarm"}]),
                "/events" => {
                    let line = json!({"Type": "container", "Action": "start"});
                    let text = format!("{line}\n");
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n",
                        text.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    std::future::pending::<()>().await;
                    return;
                }
                other => json!({ "path": other }),
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

async fn with_engine() -> (Bench, Arc<Mutex<Vec<String>>>) {
    let bench = Bench::manager().await;
    let listener = UnixListener::bind(bench.folder.path().join("engine.sock")).unwrap();
    let seen = Arc::default();
    bench.scope.spawn("engines", stand_in(listener, bench.scope.clone(), Arc::clone(&seen)));
    (bench, seen)
}

#[tokio::test]
async fn other_paths_go_through_in_a_version_that_the_engine_speaks() {
    let (bench, seen) = with_engine().await;
    let answer = bench.get("/v1.41/containers/json?all=1").await;
    assert_eq!(answer.json(), json!({ "path": "/v1.44/containers/json" }));
    assert_eq!(answer.headers.get("api-version").unwrap(), "1.41");
    assert_eq!(bench.get("/images/json").await.json(), json!({ "path": "/images/json" }));
    let asked = seen.lock().unwrap().clone();
    assert_eq!(asked[1], "GET /v1.44/containers/json?all=1 HTTP/1.1", "{asked:?}");
    let answer = bench.get("/v1.41/distribution/a/b:c/json").await;
    assert_eq!(answer.json(), json!({ "path": "/v1.44/distribution/a/b:c/json" }));
}

#[tokio::test]
async fn merged_answers_have_both_sides() {
    let (bench, _) = with_engine().await;
    let info = bench.get("/info").await.json();
    assert_eq!((&info["NCPU"], &info["Swarm"]["LocalNodeState"]), (&json!(2), &json!("active")));
    let version = bench.get("/version").await.json();
    assert_eq!((&version["Version"], &version["ApiVersion"]), (&json!("28"), &json!("1.41")));
    assert_eq!(version["Components"][0]["Details"]["ApiVersion"], "1.41");
    let networks = bench.get("/networks").await.json();
    let names: Vec<_> = networks.as_array().unwrap().iter().map(|it| &it["Name"]).collect();
    assert_eq!(names, ["bridge", "default"], "the engine's own swarm is none of ours");
    assert_eq!(bench.get("/networks/default").await.json()["Scope"], "swarm");
    let host = bench.get("/v1.41/networks/host?scope=swarm").await.json();
    assert_eq!(host["Id"], "host");
    let local = bench.get("/v1.41/networks/bridge").await.json();
    assert_eq!(local, json!({ "path": "/v1.44/networks/bridge" }));
    let overlay = json!({"Name": "n", "Driver": "overlay"});
    let answer = bench.post("/networks/create", &overlay).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    let answer = bench.post("/networks/create", &json!({"Name": "n", "Driver": "bridge"})).await;
    assert_eq!(answer.json(), json!({ "path": "/networks/create" }));
    assert_eq!(bench.delete("/networks/default").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn raw_connections_are_joined_in_both_directions() {
    let (bench, _) = with_engine().await;
    let request = Request::post("/v1.41/containers/x/attach?stream=1")
        .header("connection", "Upgrade")
        .header("upgrade", "tcp")
        .body(Body::empty())
        .unwrap();
    let answer = bench.send(request).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers().get("upgrade").unwrap(), "tcp");
    let mut raw = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    raw.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    raw.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    raw.shutdown().await.unwrap();
    assert_eq!(raw.read(&mut back).await.unwrap(), 0, "the end goes through, too");
}

#[tokio::test]
async fn without_an_engine_the_answer_says_so() {
    let bench = Bench::manager().await;
    let answer = bench.get("/v1.41/containers/json").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.message().starts_with("there is no Docker Engine at "), "{}", answer.message());
    assert_eq!(bench.get("/services").await.status, StatusCode::OK);
    let info = bench.get("/info").await.json();
    assert!(info["Warnings"][0].as_str().unwrap().contains("no Docker Engine"));
}

#[tokio::test]
async fn events_of_the_engine_and_of_the_cluster_come_in_one_stream() {
    let (bench, _) = with_engine().await;
    let request = Request::get("/v1.41/events").body(Body::empty()).unwrap();
    let mut body = bench.send(request).await.into_body();
    let mut text = String::new();
    let mut created = false;
    while !(text.contains("\"container\"") && text.contains("\"service\"")) {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        if !created {
            bench.web().await;
            created = true;
        }
    }
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
}
