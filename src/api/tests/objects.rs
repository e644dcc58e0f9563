//! The lives of objects: create, list, change, remove.

use serde_json::json;

use super::*;

fn filters(value: &Value) -> String {
    let text = value.to_string();
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("filters={escaped}")
}

async fn names(bench: &Bench, path: &str) -> Vec<String> {
    let answer = bench.get(path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.message());
    let list = answer.json();
    let name = |it: &Value| it["Spec"]["Name"].as_str().unwrap_or_default().to_owned();
    list.as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn a_service_is_updated_scaled_and_rolled_back() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    let path = format!("/v1.41/services/{}", web.id);
    let first = bench.get(&path).await.json();
    assert!(first.get("PreviousSpec").is_none());

    let mut spec = first["Spec"].clone();
    spec["Mode"]["Replicated"]["Replicas"] = json!(5);
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("busybox:2");
    let update = |version: &Value| format!("{path}/update?version={version}");
    let version = first["Version"]["Index"].clone();
    let answer = bench.post(&update(&version), &spec).await;
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "Warnings": null })));
    let second = bench.get(&path).await.json();
    assert_eq!(second["Spec"], spec);
    assert_eq!(second["PreviousSpec"], first["Spec"]);
    assert!(second["Version"]["Index"].as_u64() > first["Version"]["Index"].as_u64());

    let again = bench.post(&update(&version), &spec).await;
    assert_eq!(again.status, StatusCode::INTERNAL_SERVER_ERROR, "the version is stale");

    let rollback = format!("{}&rollback=previous", update(&second["Version"]["Index"]));
    let answer = bench.post(&rollback, &spec).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    let third = bench.get(&path).await.json();
    assert_eq!((&third["Spec"], &third["PreviousSpec"]), (&first["Spec"], &spec));
    assert_eq!(third["UpdateStatus"]["State"], "rollback_started");
    assert_eq!(third["UpdateStatus"]["Message"], "manually requested rollback");

    // A number that was used is never used again, though the current one went back.
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    let answer = bench.post(&update(&third["Version"]["Index"]), &spec).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    let view = bench.store().view();
    let service = view.service(web.id).unwrap();
    assert_eq!((service.current, service.previous), (3, Some(1)));
}

#[tokio::test]
async fn a_first_version_cannot_be_rolled_back_nor_renamed_nor_change_its_mode() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    let shown = bench.get("/services/web").await.json();
    let update = format!("/services/web/update?version={}", shown["Version"]["Index"]);
    let answer = bench.post(&format!("{update}&rollback=previous"), &json!({})).await;
    let text = format!(
        "rpc error: code = FailedPrecondition desc = service {} does not have a previous spec",
        web.id
    );
    assert_eq!((answer.status, answer.message()), (StatusCode::BAD_REQUEST, text));
    let mut renamed = shown["Spec"].clone();
    renamed["Name"] = json!("other");
    let answer = bench.post(&update, &renamed).await;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert!(answer.message().ends_with("renaming services is not supported"));
    let mut global = shown["Spec"].clone();
    global["Mode"] = json!({"global": {}});
    let answer = bench.post(&update, &global).await;
    assert!(answer.message().ends_with("service mode change is not allowed"));
}

#[tokio::test]
async fn a_removed_service_is_gone_at_once_and_its_name_when_its_tasks_are() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    assert_eq!(bench.delete("/services/web").await.status, StatusCode::OK);
    assert_eq!(bench.get("/services/web").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get(&format!("/services/{}", web.id)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.delete("/services/web").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/services").await.json(), json!([]));
    assert!(bench.store().view().service(web.id).unwrap().removing);

    // A create waits for the name; the leader takes the service away meanwhile.
    let store = bench.store();
    let keys =
        [crate::state::ObjectKey::Service(web.id), crate::state::ObjectKey::SpecVersion(web.id, 1)];
    let gone = async {
        Env::system().clock.sleep(Duration::from_millis(200)).await;
        let changes = keys.map(|key| Change::Delete { key, expect: Expect::Any }).to_vec();
        store.propose(None, changes, Duration::from_secs(1)).await.unwrap();
    };
    let (again, ()) = tokio::join!(bench.web(), gone);
    assert_ne!(again.id, web.id);
    assert_eq!(names(&bench, "/services").await, ["web"]);
}

#[tokio::test]
async fn a_repeated_request_with_its_key_makes_one_service() {
    let bench = Bench::manager().await;
    let body = sample("POST services/create (docker CLI 28)").to_string();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/services/create").header("idempotency-key", "k1");
        let answer = bench.whole(request.body(Body::from(body.clone())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.message());
        ids.push(answer.json());
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(names(&bench, "/services").await, ["web"]);
    let secret = json!({"Name": "s", "Data": "czNjcmV0"}).to_string();
    for _ in 0..2 {
        let request = Request::post("/secrets/create").header("idempotency-key", "k1");
        let answer = bench.whole(request.body(Body::from(secret.clone())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.message());
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    let mut global = sample("POST services/create (docker CLI 28)");
    global["Name"] = json!("agent");
    global["Labels"] = json!({"com.docker.stack.namespace": "st"});
    global["Mode"] = json!({"global": {}});
    assert_eq!(bench.post("/services/create", &global).await.status, StatusCode::CREATED);

    let services = async |value: Value| {
        let mut found = names(&bench, &format!("/services?{}", filters(&value))).await;
        found.sort();
        found
    };
    assert_eq!(services(json!({})).await, ["agent", "web"]);
    assert_eq!(services(json!({"name": {"we": true}})).await, ["web"]);
    assert_eq!(services(json!({"name": ["web", "agent"]})).await, ["agent", "web"]);
    assert_eq!(services(json!({"id": [web.id.to_string()]})).await, ["web"]);
    assert_eq!(services(json!({"id": ["{'a': 1}"]})).await, Vec::<String>::new());
    assert_eq!(services(json!({"mode": ["global"]})).await, ["agent"]);
    assert_eq!(services(json!({"label": ["com.docker.stack.namespace"]})).await, ["agent"]);
    assert_eq!(services(json!({"label": ["com.docker.stack.namespace=x"]})).await, [""; 0]);

    let mut old = running(&web, 2);
    old.desired = TaskState::Shutdown;
    put(
        &bench.store(),
        vec![Object::Task(Arc::new(running(&web, 1))), Object::Task(Arc::new(old))],
    )
    .await;
    let tasks = async |value: Value| {
        let list = bench.get(&format!("/tasks?{}", filters(&value))).await.json();
        list.as_array().unwrap().iter().map(|it| it["Slot"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tasks(json!({"service": ["web"]})).await, [1, 2]);
    assert_eq!(tasks(json!({"service": ["agent"]})).await, [0; 0]);
    assert_eq!(tasks(json!({"desired-state": ["running"]})).await, [1]);
    assert_eq!(tasks(json!({"name": ["web.2"]})).await, [2]);
    assert_eq!(tasks(json!({"node": ["vm"], "desired-state": ["shutdown"]})).await, [2]);
    assert_eq!(tasks(json!({"_up-to-date": {"true": true}})).await, [1, 2]);
    assert_eq!(tasks(json!({"label": ["x"]})).await, [0; 0]);
    let answer = bench.get(&format!("/tasks?{}", filters(&json!({"service": ["no"]})))).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tasks_of_an_older_template_are_not_up_to_date() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
    let up_to_date = async || {
        let query = filters(&json!({"_up-to-date": ["true"], "service": [web.id.to_string()]}));
        bench.get(&format!("/tasks?{query}")).await.json().as_array().unwrap().len()
    };
    let change = async |change: fn(&mut Value)| {
        let shown = bench.get("/services/web").await.json();
        let mut spec = shown["Spec"].clone();
        change(&mut spec);
        let path = format!("/services/web/update?version={}", shown["Version"]["Index"]);
        assert_eq!(bench.post(&path, &spec).await.status, StatusCode::OK);
    };
    change(|spec| spec["Mode"]["Replicated"]["Replicas"] = json!(9)).await;
    assert_eq!(up_to_date().await, 1, "scaling leaves tasks alone");
    change(|spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    assert_eq!(up_to_date().await, 0);
}

#[tokio::test]
async fn defaults_are_inserted_only_where_asked_and_absent() {
    let bench = Bench::manager().await;
    bench.web().await;
    let plain = bench.get("/services/web").await.json();
    assert!(plain["Spec"].get("UpdateConfig").is_none());
    let full = bench.get("/services/web?insertDefaults=true").await.json();
    assert_eq!(full["Spec"]["UpdateConfig"]["Order"], "stop-first");
    assert_eq!(full["Spec"]["TaskTemplate"]["RestartPolicy"]["Delay"], 5_000_000_000u64);
    let container = &full["Spec"]["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["StopGracePeriod"], 10_000_000_000u64);
    assert_eq!(container["Image"], "busybox:latest");
    assert_eq!(full["Spec"]["EndpointSpec"]["Mode"], "vip");
}

#[tokio::test]
async fn registry_credentials_are_kept_and_never_shown() {
    let bench = Bench::manager().await;
    let body = sample("POST services/create (docker CLI 28)").to_string();
    let request = Request::post("/services/create").header("x-registry-auth", "c2VjcmV0");
    let answer = bench.whole(request.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let shown = bench.get("/services/web").await;
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("c2VjcmV0"));
    let stored = || {
        let view = bench.store().view();
        let service = view.service_named("web").unwrap();
        let container = &view.current_spec(service).unwrap().task_template.container_spec;
        container.registry_auth().map(|auth| auth.expose().to_owned())
    };
    assert_eq!(stored().as_deref(), Some("c2VjcmV0"));
    let shown = shown.json();
    let path =
        format!("/services/web/update?version={}&registryAuthFrom=spec", shown["Version"]["Index"]);
    let mut spec = shown["Spec"].clone();
    spec["TaskTemplate"]["ForceUpdate"] = json!(1);
    assert_eq!(bench.post(&path, &spec).await.status, StatusCode::OK);
    assert_eq!(stored().as_deref(), Some("c2VjcmV0"));
    let view = bench.store().view();
    let debug = format!("{:?}", view.current_spec(view.service_named("web").unwrap()));
    assert!(!debug.contains("c2VjcmV0"), "{debug}");
}

#[tokio::test]
async fn payloads_are_made_labelled_and_removed() {
    let bench = Bench::manager().await;
    let body = sample("POST secrets/create (CLI)");
    for kind in ["secrets", "configs"] {
        let answer = bench.post(&format!("/v1.41/{kind}/create"), &body).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        let path = format!("/v1.41/{kind}/sec1");
        let shown = bench.get(&path).await.json();
        assert_eq!(shown["ID"], answer.json()["ID"]);
        let data = shown["Spec"].get("Data").and_then(Value::as_str);
        assert_eq!(data, (kind == "configs").then_some("czNjcmV0"), "secrets are not returned");
        let update = format!("{path}/update?version={}", shown["Version"]["Index"]);
        let labelled = json!({"Name": "sec1", "Labels": {"a": "b"}, "Data": "czNjcmV0"});
        let answer = bench.post(&update, &labelled).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
        let query = filters(&json!({"label": ["a=b"], "names": ["sec1"]}));
        assert_eq!(names(&bench, &format!("/{kind}?{query}")).await, ["sec1"]);
    }
    let id = bench.get("/secrets/sec1").await.json()["ID"].clone();
    let mut web = sample("POST services/create (docker CLI 28)");
    web["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([{"SecretID": id, "SecretName": "sec1",
        "File": {"Name": "x", "UID": "0", "GID": "0", "Mode": 256}}]);
    let answer = bench.post("/services/create", &web).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.message());
    let answer = bench.delete("/secrets/sec1").await;
    let text = "rpc error: code = InvalidArgument desc = secret 'sec1' is in use by the following service: web";
    assert_eq!((answer.status, answer.message()), (StatusCode::BAD_REQUEST, text.to_owned()));
    assert_eq!(bench.delete("/configs/sec1").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn names_ids_and_beginnings_of_ids_are_found() {
    let bench = Bench::manager().await;
    for number in [2, 3] {
        put(&bench.store(), vec![Object::Node(Arc::new(node(number, Role::Worker)))]).await;
    }
    let id2 = NodeId::from_bytes(id(2)).to_string();
    let id3 = NodeId::from_bytes(id(3)).to_string();
    let common: String =
        id2.chars().zip(id3.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
    let unique = &id2[..=common.len()];
    for text in [id2.as_str(), "vm2", unique] {
        assert_eq!(bench.get(&format!("/nodes/{text}")).await.json()["ID"], id2.as_str());
    }
    if !common.is_empty() {
        let answer = bench.get(&format!("/nodes/{common}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.message().starts_with(&format!("node {common} is ambiguous (")));
    }
}

#[tokio::test]
async fn a_node_says_why_it_cannot_do_its_part() {
    let bench = Bench::manager().await;
    let mut broken = node(2, Role::Manager);
    broken.manager.as_mut().unwrap().silent = true;
    broken.description.as_mut().unwrap().degraded = "no engine".to_owned();
    put(&bench.store(), vec![Object::Node(Arc::new(broken))]).await;
    let shown = bench.get("/nodes/vm2").await.json();
    assert_eq!(shown["Status"]["State"], "ready", "it is there");
    assert_eq!(shown["Status"]["Message"], "cannot run tasks: no engine");
    assert_eq!(shown["ManagerStatus"]["Reachability"], "unreachable");
}

#[tokio::test]
async fn a_node_is_labelled_paused_and_promoted() {
    let bench = Bench::manager().await;
    put(&bench.store(), vec![Object::Node(Arc::new(node(2, Role::Worker)))]).await;
    let shown = bench.get("/nodes/vm2").await.json();
    assert!(shown.get("ManagerStatus").is_none());
    let path = format!("/nodes/vm2/update?version={}", shown["Version"]["Index"]);
    let body = json!({"Labels": {"zone": "a"}, "Role": "manager", "Availability": "pause"});
    let answer = bench.post(&path, &body).await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, 0), "{answer:?}");
    assert_eq!(bench.get("/nodes/vm2").await.json()["Spec"], body);
    let query = filters(&json!({"node.label": ["zone=a"], "role": ["manager"]}));
    let list = bench.get(&format!("/nodes?{query}")).await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(bench.post(&path, &body).await.status, StatusCode::OK, "the same again is a retry");
}

#[tokio::test]
async fn answers_say_their_revision_and_whether_they_may_be_behind() {
    let bench = Bench::manager().await;
    let fresh = bench.get("/services").await;
    assert!(fresh.headers.get("x-swarm-stale").is_none());
    assert!(fresh.headers.get("x-swarm-revision").is_some());
    let stale = bench.get("/services?stale=true").await;
    assert_eq!(stale.headers.get("x-swarm-stale").unwrap(), "true");
    let request = Request::get("/services").header("x-swarm-stale", "1");
    let stale = bench.whole(request.body(Body::empty()).unwrap()).await;
    assert_eq!(stale.headers.get("x-swarm-stale").unwrap(), "true");
}
