//! Docker's statuses and texts, to the letter.

use serde_json::json;

use super::*;

async fn check(bench: &Bench, method: Method, path: &str, body: &str, expected: (u16, &str)) {
    let answer = bench.ask(method.clone(), path, body.to_owned()).await;
    let found = (answer.status.as_u16(), answer.message());
    assert_eq!(found, (expected.0, expected.1.to_owned()), "{method} {path} {body}");
    assert!(answer.bytes.ends_with(b"\n"), "{method} {path}");
}

const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

#[tokio::test]
async fn outside_of_a_swarm() {
    let bench = Bench::inactive().await;
    for path in ["/nodes", "/services", "/tasks", "/secrets", "/configs", "/swarm", "/nodes/x"] {
        check(&bench, Method::GET, path, "", (503, NOT_A_MANAGER)).await;
    }
    check(&bench, Method::POST, "/swarm/leave", "", (503, "This node is not part of a swarm"))
        .await;
    check(&bench, Method::POST, "/swarm/unlock", "{}", (409, "swarm is not locked")).await;
    let body = json!({"RemoteAddrs": ["127.0.0.1"], "JoinToken": "SWMTKN-1-bad"}).to_string();
    check(&bench, Method::POST, "/swarm/join", &body, (500, "invalid join token")).await;
    let version = (400, "client version 1.99 is too new. Maximum supported API version is 1.41");
    check(&bench, Method::GET, "/v1.99/info", "", version).await;
}

#[tokio::test]
async fn on_a_worker_and_on_managers_that_are_not_there() {
    let bench = Bench::inactive().await;
    *bench.control.state.lock().unwrap() = LocalState { is_manager: false, ..active() };
    let text = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
    check(&bench, Method::GET, "/services", "", (503, text)).await;
    *bench.control.state.lock().unwrap() =
        LocalState { participation: Participation::Starting, ..LocalState::default() };
    let text = "The swarm daemon of this node has just started and is not ready yet. Try again in a moment.";
    check(&bench, Method::GET, "/services", "", (503, text)).await;
    *bench.control.state.lock().unwrap() =
        LocalState { participation: Participation::Locked, ..active() };
    let text = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
    check(&bench, Method::GET, "/services", "", (503, text)).await;
    let text = "swarm could not be unlocked: invalid key provided";
    check(&bench, Method::POST, "/swarm/unlock", r#"{"UnlockKey":"no"}"#, (401, text)).await;
    let text = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
    check(&bench, Method::POST, "/swarm/leave", "", (503, text)).await;
}

#[tokio::test]
async fn of_services() {
    let bench = Bench::manager().await;
    bench.web().await;
    let create = "/v1.41/services/create";
    let web = sample("POST services/create (docker CLI 28)").to_string();
    let text = "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists";
    check(&bench, Method::POST, create, &web, (409, text)).await;
    for (method, path) in [
        (Method::GET, "/services/no"),
        (Method::DELETE, "/services/no"),
        (Method::GET, "/services/no/logs?stdout=1"),
    ] {
        check(&bench, method, path, "", (404, "service no not found")).await;
    }
    let text =
        "rpc error: code = InvalidArgument desc = ContainerSpec: image reference must be provided";
    let body = r#"{"Name":"a","TaskTemplate":{"ContainerSpec":{}}}"#;
    check(&bench, Method::POST, create, body, (400, text)).await;
    let text = "mismatched Runtime and *Spec fields";
    check(&bench, Method::POST, create, r#"{"Name":"a"}"#, (400, text)).await;
    let text = "invalid character 'b' looking for beginning of object key string";
    check(&bench, Method::POST, create, "{bad", (400, text)).await;
    let text = "rpc error: code = Unknown desc = update out of sequence";
    check(&bench, Method::POST, "/services/web/update?version=1", &web, (500, text)).await;
    let text = "invalid service version 'x': strconv.ParseUint: parsing \"x\": invalid syntax";
    check(&bench, Method::POST, "/services/web/update?version=x", &web, (400, text)).await;
    let text = "Bad parameters: you must choose at least one stream";
    check(&bench, Method::GET, "/services/web/logs", "", (500, text)).await;
    let bad = "/services?filters=%7B%22bad%22%3A%5B%22x%22%5D%7D";
    check(&bench, Method::GET, bad, "", (400, "Invalid filter 'bad'")).await;
    let text = "invalid character 'o' in literal null (expecting 'u')";
    check(&bench, Method::GET, "/services?filters=nope", "", (400, text)).await;
    let bad = "/tasks?filters=%7B%22desired-state%22%3A%5B%22x%22%5D%7D";
    check(&bench, Method::GET, bad, "", (500, "Invalid desired-state filter: 'x'")).await;
    check(&bench, Method::GET, "/tasks/no", "", (404, "task no not found")).await;
    check(&bench, Method::PUT, "/services/web", "", (404, "page not found")).await;
}

#[tokio::test]
async fn of_what_a_service_refers_to() {
    let bench = Bench::manager().await;
    let with = |part: Value| {
        let mut body = sample("POST services/create (docker CLI 28)");
        body["TaskTemplate"]["ContainerSpec"]["Secrets"] = part["Secrets"].clone();
        body["TaskTemplate"]["Networks"] = part["Networks"].clone();
        if part.get("Mode").is_some() {
            body["Mode"] = part["Mode"].clone();
        }
        body["EndpointSpec"]["Ports"] = part["Ports"].clone();
        body.to_string()
    };
    let create = "/v1.41/services/create";
    let secret = json!([{"SecretID": "0".repeat(25), "SecretName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}}]);
    let text = "rpc error: code = InvalidArgument desc = secret not found: s";
    let body = with(json!({ "Secrets": secret }));
    check(&bench, Method::POST, create, &body, (400, text)).await;
    let body = with(json!({"Networks": [{"Target": "mine"}]}));
    check(&bench, Method::POST, create, &body, (404, "network mine not found")).await;
    let body = with(json!({"Mode": {"ReplicatedJob": {}}}));
    let answer = bench.ask(Method::POST, create, body).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    let body = with(
        json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]}),
    );
    let answer = bench.ask(Method::POST, create, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.message().contains("mode=host"));
    let named = with(json!({"Networks": [{"Target": "default"}]}));
    let answer = bench.ask(Method::POST, create, named).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.message());
    let network = NetworkId::from_bytes(id(8)).to_string();
    let shown = bench.get("/services/web").await.json();
    assert_eq!(shown["Spec"]["TaskTemplate"]["Networks"], json!([{ "Target": network }]));
}

#[tokio::test]
async fn of_secrets_and_configs() {
    let bench = Bench::manager().await;
    for (kind, max) in [("secret", 512_000usize), ("config", 1_024_000)] {
        let create = format!("/v1.41/{kind}s/create");
        let body = r#"{"Name":"s1","Data":"czNjcmV0"}"#;
        let answer = bench.ask(Method::POST, &create, body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let text = format!("rpc error: code = AlreadyExists desc = {kind} s1 already exists");
        check(&bench, Method::POST, &create, body, (409, &text)).await;
        let text = format!(
            "rpc error: code = InvalidArgument desc = {kind} data must be larger than 0 and less than {max} bytes"
        );
        check(&bench, Method::POST, &create, r#"{"Name":"s2"}"#, (400, &text)).await;
        let large = json!({"Name": "s2", "Data": crate::domain::base64::encode(&vec![0; max])});
        check(&bench, Method::POST, &create, &large.to_string(), (400, &text)).await;
        let text = "illegal base64 data at input byte 0";
        check(&bench, Method::POST, &create, r#"{"Name":"s2","Data":"*"}"#, (400, text)).await;
        let path = format!("/{kind}s/s1");
        let version = bench.get(&path).await.json()["Version"]["Index"].clone();
        let text = "rpc error: code = InvalidArgument desc = only updates to Labels are allowed";
        let update = format!("{path}/update?version={version}");
        let body = r#"{"Name":"s1","Data":"b3RoZXI="}"#;
        check(&bench, Method::POST, &update, body, (400, text)).await;
        let text = format!("{kind} no not found");
        check(&bench, Method::DELETE, &format!("/{kind}s/no"), "", (404, &text)).await;
    }
}

#[tokio::test]
async fn of_nodes() {
    let bench = Bench::manager().await;
    let vm = NodeId::from_bytes(id(1));
    let version = bench.get("/nodes/vm").await.json()["Version"]["Index"].clone();
    let update = format!("/nodes/vm/update?version={version}");
    let text = "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm";
    let body = r#"{"Role":"worker","Availability":"active"}"#;
    check(&bench, Method::POST, &update, body, (400, text)).await;
    let text = "invalid Role: \"\"";
    check(&bench, Method::POST, &update, r#"{"Availability":"active"}"#, (400, text)).await;
    let text = format!(
        "rpc error: code = FailedPrecondition desc = node {vm} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
    );
    check(&bench, Method::DELETE, "/nodes/vm?force=1", "", (400, &text)).await;
    check(&bench, Method::GET, "/nodes/self", "", (404, "node self not found")).await;

    put(&bench.store(), vec![Object::Node(Arc::new(node(2, Role::Worker)))]).await;
    let text = format!(
        "rpc error: code = FailedPrecondition desc = node {} is not down and can't be removed",
        NodeId::from_bytes(id(2))
    );
    check(&bench, Method::DELETE, "/nodes/vm2", "", (400, &text)).await;
    assert_eq!(bench.delete("/nodes/vm2?force=true").await.status, StatusCode::OK);
    check(&bench, Method::GET, "/nodes/vm2", "", (404, "node vm2 not found")).await;
}

#[tokio::test]
async fn an_eighth_manager_and_a_lost_quorum_are_refused() {
    let bench = Bench::manager().await;
    let others = (2..=7).map(|number| Object::Node(Arc::new(node(number, Role::Manager))));
    put(&bench.store(), others.collect()).await;
    put(&bench.store(), vec![Object::Node(Arc::new(node(8, Role::Worker)))]).await;
    let version = bench.get("/nodes/vm8").await.json()["Version"]["Index"].clone();
    let body = json!({"Role": "manager", "Availability": "active"});
    let answer = bench.post(&format!("/nodes/vm8/update?version={version}"), &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.message().contains("7 managers already"), "{}", answer.message());

    let down = (2..=4).map(|number| {
        let mut down = node(number, Role::Manager);
        down.status.reachability = Reachability::Unreachable;
        Object::Node(Arc::new(down))
    });
    put(&bench.store(), down.collect()).await;
    let version = bench.get("/nodes/vm7").await.json()["Version"]["Index"].clone();
    let text = "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss of quorum";
    let path = format!("/nodes/vm7/update?version={version}");
    let body = r#"{"Role":"worker","Availability":"active"}"#;
    check(&bench, Method::POST, &path, body, (400, text)).await;
    let version = bench.get("/nodes/vm2").await.json()["Version"]["Index"].clone();
    let answer =
        bench.ask(Method::POST, &format!("/nodes/vm2/update?version={version}"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "an unreachable one may go: {}", answer.message());
}
