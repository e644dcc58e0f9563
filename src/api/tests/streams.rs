//! Streams: events and logs.

use http_body_util::BodyExt;
use serde_json::json;

use super::*;

#[tokio::test]
async fn kept_events_tell_what_happened() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    let shown = bench.get("/services/web").await.json();
    let mut spec = shown["Spec"].clone();
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("busybox:2");
    spec["Mode"]["Replicated"]["Replicas"] = json!(4);
    let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    assert_eq!(bench.post(&path, &spec).await.status, StatusCode::OK);
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
    assert_eq!(bench.delete("/services/web").await.status, StatusCode::OK);
    let mut drained = node(1, Role::Manager);
    drained.spec.availability = crate::domain::node::Availability::Drain;
    put(&bench.store(), vec![Object::Node(Arc::new(drained))]).await;

    let until = Env::system().clock.now().0 / 1_000_000_000 + 1;
    let filter = "%7B%22type%22%3A%5B%22service%22%2C%22node%22%5D%7D";
    let answer = bench.get(&format!("/events?since=1&until={until}&filters={filter}")).await;
    let lines: Vec<Value> = std::str::from_utf8(&answer.bytes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines.iter().map(|it| (&it["Type"], &it["Action"])).collect();
    let (service, changed) = (json!("service"), json!("node"));
    let (create, update, remove) = (json!("create"), json!("update"), json!("remove"));
    let expected =
        [(&service, &create), (&service, &update), (&service, &remove), (&changed, &update)];
    assert_eq!(told, expected, "{lines:#?}");
    let attributes = &lines[1]["Actor"]["Attributes"];
    let wanted = json!({"name": "web", "image.old": "busybox:latest", "image.new": "busybox:2",
        "replicas.old": "3", "replicas.new": "4"});
    assert_eq!(attributes, &wanted);
    assert_eq!(lines[3]["Actor"]["Attributes"]["availability.new"], "drain");
    assert_eq!(lines[0]["scope"], "swarm");
}

fn item(web: &Service, number: u8, stream: LogStream, text: &'static str) -> LogItem {
    LogItem {
        task: running(web, number).id,
        node: NodeId::from_bytes(id(1)),
        stream,
        at: Timestamp(1_795_241_615_736_396_488),
        data: Bytes::from_static(text.as_bytes()),
    }
}

fn frame(stream: u8, payload: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(payload.as_bytes());
    frame
}

#[tokio::test]
async fn logs_are_framed_with_what_the_cli_needs() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
    bench.logs.items.lock().unwrap().extend([
        item(&web, 1, LogStream::Stdout, "hello\n"),
        item(&web, 1, LogStream::Stderr, "no newline"),
        item(&web, 1, LogStream::Warning, "node vm2 is down\n"),
    ]);
    let plain = bench.get("/v1.41/services/web/logs?stdout=1&stderr=1&tail=7&since=5.5").await;
    let expected =
        [frame(1, "hello\n"), frame(2, "no newline\n"), frame(2, "warning: node vm2 is down\n")];
    assert_eq!(plain.bytes, expected.concat());
    let (tasks, options) = bench.logs.asked.lock().unwrap().pop().unwrap();
    assert_eq!(tasks, [running(&web, 1).id]);
    let since = Some(Timestamp(5_500_000_000));
    assert_eq!(options, LogOptions { follow: false, tail: Some(7), since, only: None });

    let path = "/v1.41/services/web/logs?stdout=1&details=1&timestamps=1";
    let full = bench.get(path).await;
    let node = NodeId::from_bytes(id(1));
    let details = format!(
        "com.docker.swarm.node.id={node},com.docker.swarm.service.id={},com.docker.swarm.task.id={}",
        web.id, tasks[0]
    );
    let line = format!("2026-11-21T06:13:35.736396488Z {details} hello\n");
    assert!(full.bytes.starts_with(&frame(1, &line)), "{:?}", full.bytes);
    let task = bench.get(&format!("/tasks/{}/logs?stdout=1", tasks[0])).await;
    assert!(task.bytes.starts_with(&frame(1, "hello\n")));
}

#[tokio::test]
async fn a_follower_of_a_service_follows_its_new_tasks() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
    let items =
        [item(&web, 1, LogStream::Stdout, "first\n"), item(&web, 2, LogStream::Stdout, "second\n")];
    bench.logs.items.lock().unwrap().extend(items);
    let request = Request::get("/services/web/logs?stdout=1&follow=1&tail=3");
    let mut body = bench.send(request.body(Body::empty()).unwrap()).await.into_body();
    let next = async |body: &mut hyper::body::Incoming| {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    };
    assert_eq!(next(&mut body).await, frame(1, "first\n"));
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 2)))]).await;
    assert_eq!(next(&mut body).await, frame(1, "second\n"));
    let asked = bench.logs.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "each task is subscribed once");
    assert_eq!(asked[1].1.tail, None, "a new task from its beginning");
}

#[tokio::test]
async fn a_terminal_s_output_is_not_framed() {
    let bench = Bench::manager().await;
    let mut body = sample("POST services/create (docker CLI 28)");
    body["TaskTemplate"]["ContainerSpec"]["TTY"] = json!(true);
    assert_eq!(bench.post("/services/create", &body).await.status, StatusCode::CREATED);
    let web = Arc::clone(bench.store().view().service_named("web").unwrap());
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
    bench.logs.items.lock().unwrap().push(item(&web, 1, LogStream::Stdout, "raw\r\n"));
    let answer = bench.get("/services/web/logs?stdout=1").await;
    assert_eq!(answer.bytes, "raw\r\n");
    assert_eq!(answer.headers["content-type"], "application/vnd.docker.raw-stream");
}
