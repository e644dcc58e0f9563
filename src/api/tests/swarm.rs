//! The cluster itself: making, joining, leaving, changing it.

use serde_json::json;

use super::*;

#[tokio::test]
async fn init_takes_what_the_cli_sends() {
    let bench = Bench::inactive().await;
    let answer = bench.post("/v1.41/swarm/init", &sample("POST swarm/init (CLI)")).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    assert_eq!(answer.json(), json!(NodeId::from_bytes(id(1)).to_string()));
    let request = bench.control.init.lock().unwrap().clone().unwrap();
    assert_eq!(request.listen_addr, "0.0.0.0:2377");
    assert_eq!(request.advertise_addr, "10.77.0.1");
    assert_eq!(request.subnet_size, 24);
    assert_eq!(request.spec, ClusterSpec::default(), "Go's zeros mean the defaults");
    let again = bench.post("/swarm/init", &json!({})).await;
    assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(again.message().starts_with("This node is already part of a swarm."));
    let wrong = json!({"Spec": {"Name": "mine"}});
    let answer = Bench::inactive().await.post("/swarm/init", &wrong).await;
    assert_eq!(answer.message(), "swarm spec must be named \"default\"");
}

#[tokio::test]
async fn join_and_leave_reach_the_daemon() {
    let bench = Bench::inactive().await;
    let body = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "DataPathAddr": "",
        "RemoteAddrs": ["10.77.0.1:2377"], "JoinToken": "SWMTKN-1-x", "Availability": "drain"});
    assert_eq!(bench.post("/v1.41/swarm/join", &body).await.status, StatusCode::OK);
    let request = bench.control.join.lock().unwrap().clone().unwrap();
    assert_eq!(request.token, "SWMTKN-1-x");
    assert_eq!(request.availability, crate::domain::node::Availability::Drain);
    let info = bench.get("/info").await.json();
    assert_eq!(info["Swarm"]["LocalNodeState"], "active");
    assert_eq!(info["Swarm"]["ControlAvailable"], false);
    assert_eq!(bench.post("/swarm/leave", &json!({})).await.status, StatusCode::OK);
    assert_eq!(bench.get("/info").await.json()["Swarm"]["LocalNodeState"], "inactive");

    let bench = Bench::manager().await;
    let refused = bench.post("/swarm/leave", &json!({})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.message().ends_with("Use `--force` to ignore this message. "));
    assert_eq!(bench.post("/swarm/leave?force=1", &json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_spec_is_changed_and_tokens_are_rotated() {
    let bench = Bench::manager().await;
    let shown = bench.get("/swarm").await.json();
    assert_eq!(shown["JoinTokens"]["Worker"], "SWMTKN-1-digest-worker1");
    let mut spec = shown["Spec"].clone();
    spec["Orchestration"]["TaskHistoryRetentionLimit"] = json!(3);
    spec["CAConfig"]["NodeCertExpiry"] = json!(2_592_000_000_000_000u64);
    let path = format!(
        "/v1.41/swarm/update?rotateManagerToken=false&rotateWorkerToken=true&version={}",
        shown["Version"]["Index"]
    );
    let answer = bench.post(&path, &spec).await;
    assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, 0), "{answer:?}");
    let changed = bench.get("/swarm").await.json();
    assert_eq!(changed["Spec"], spec);
    assert_eq!(changed["JoinTokens"]["Worker"], "SWMTKN-1-digest-worker2");
    assert_eq!(changed["JoinTokens"]["Manager"], "SWMTKN-1-digest-manager1");
    let stale = bench.post(&path, &shown["Spec"]).await;
    assert!(stale.message().ends_with("update out of sequence"));

    let update = format!("/swarm/update?version={}", changed["Version"]["Index"]);
    let refuse = async |pointer: &str, value: Value, status: u16, text: &str| {
        let mut wrong = changed["Spec"].clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[member] = value;
        let answer = bench.post(&update, &wrong).await;
        assert_eq!(answer.status.as_u16(), status, "{pointer}");
        assert!(answer.message().contains(text), "{}", answer.message());
    };
    refuse("/CAConfig/SigningCACert", json!("x"), 400, "of one's own").await;
    refuse("/CAConfig/NodeCertExpiry", json!(1), 400, "1h0m0s").await;
    refuse("/Name", json!("mine"), 400, "must be named").await;
    assert_eq!(bench.get("/swarm/unlockkey").await.json(), json!({ "UnlockKey": "" }));
}

#[tokio::test]
async fn the_root_is_rotated_and_says_how_far() {
    let bench = Bench::manager().await;
    let store = bench.store();
    let put = async |object| {
        let change = Change::Put { object, expect: Expect::Present };
        store.propose(None, vec![change], Duration::from_secs(5)).await.unwrap();
    };
    let cluster = || (**store.view().cluster.as_ref().unwrap()).clone();
    let old = Cluster { format: crate::domain::Format::FIRST, ..cluster() };
    let refused = super::super::swarm::may_rotate(&old).unwrap_err().to_string();
    assert!(refused.contains("every manager must run a release"), "{refused}");
    let before = bench.get("/swarm").await.json();
    assert_eq!(before["RootRotationInProgress"], false);
    assert!(before.get("DesiredRootDigest").is_none());
    let rotate = async |count: u64| {
        let shown = bench.get("/swarm").await.json();
        let mut spec = shown["Spec"].clone();
        spec["CAConfig"]["ForceRotate"] = json!(count);
        let path = format!("/swarm/update?version={}", shown["Version"]["Index"]);
        assert_eq!(bench.post(&path, &spec).await.status, StatusCode::OK);
        bench.get("/swarm").await.json()
    };
    let during = rotate(1).await;
    assert_eq!(during["RootRotationInProgress"], true);
    assert_eq!(during["JoinTokens"], before["JoinTokens"], "until the switch");
    assert_eq!(during["DesiredRootDigest"].as_str().unwrap().len(), 7 + 64);
    let old = before["TLSInfo"]["TrustRoot"].as_str().unwrap();
    let both = during["TLSInfo"]["TrustRoot"].as_str().unwrap();
    assert!(both.starts_with(old.trim_end()) && both.len() > old.len(), "{both}");
    assert_ne!(during["TLSInfo"]["CertIssuerPublicKey"], before["TLSInfo"]["CertIssuerPublicKey"]);
    let whole = during.to_string();
    assert!(!whole.contains("next key") && !whole.contains("bmV4dCBrZXk"), "{whole}");
    let tls = async || bench.get("/nodes").await.json()[0]["Description"]["TLSInfo"].clone();
    assert_eq!(tls().await, before["TLSInfo"]);
    let node = store.view().nodes.values().next().unwrap().id;
    let report = Change::ReportTrust { node, trust: 1 };
    store.propose(None, vec![report], Duration::from_secs(5)).await.unwrap();
    assert_eq!(tls().await, during["TLSInfo"]);

    // Another wish changes nothing of it, another count replaces what it rotates to.
    let again = rotate(1).await;
    assert_eq!(again["TLSInfo"], during["TLSInfo"]);
    assert_eq!(cluster().trust.generation, 1);
    rotate(2).await;
    assert_eq!(cluster().trust.generation, 2);
    assert_eq!(tls().await, before["TLSInfo"], "what was confirmed does not count any more");
    let switched = Cluster {
        authority: cluster().issuer().clone(),
        trust: crate::domain::cluster::Trust { generation: 3, rotation: None },
        ..cluster()
    };
    put(Object::Cluster(Arc::new(switched))).await;
    let after = bench.get("/swarm").await.json();
    assert_eq!(after["TLSInfo"]["CertIssuerPublicKey"], during["TLSInfo"]["CertIssuerPublicKey"]);
    assert!(tls().await.get("TrustRoot").is_none(), "it still trusts the old root besides");
}

#[tokio::test]
async fn the_unlock_key_is_shown_rotated_and_taken_away() {
    let bench = Bench::manager().await;
    let update = async |is_on: bool, flags: &str| {
        let shown = bench.get("/swarm").await.json();
        let mut spec = shown["Spec"].clone();
        spec["EncryptionConfig"]["AutoLockManagers"] = json!(is_on);
        let path = format!("/swarm/update?version={}{flags}", shown["Version"]["Index"]);
        assert_eq!(bench.post(&path, &spec).await.status, StatusCode::OK);
        bench.get("/swarm/unlockkey").await.json()["UnlockKey"].as_str().unwrap().to_owned()
    };
    assert_eq!(update(false, "&rotateManagerUnlockKey=true").await, "", "nothing to rotate");
    let first = update(true, "").await;
    assert!(first.starts_with("SWMKEY-1-") && first.len() == 52, "{first}");
    assert_eq!(update(true, "&rotateManagerUnlockKey=false").await, first);
    let second = update(true, "&rotateManagerUnlockKey=true").await;
    assert!(second.starts_with("SWMKEY-1-") && second != first);
    assert_eq!(update(false, "").await, "");
    assert_eq!(*bench.control.followed.lock().unwrap(), 5, "the manager asked is locked at once");
    let whole = bench.get("/swarm").await.json().to_string();
    assert!(!whole.contains("SWMKEY"), "only asked for is the key shown");
}

#[tokio::test]
async fn ping_version_and_health_answer_always() {
    let bench = Bench::inactive().await;
    for method in [Method::HEAD, Method::GET] {
        let answer = bench.ask(method.clone(), "/_ping", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        let header = |name: &str| answer.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("api-version"), "1.41");
        assert_eq!(header("ostype"), "linux");
        assert_eq!(header("docker-experimental"), "false");
        assert_eq!(header("swarm"), "inactive");
        assert!(header("server").starts_with("Docker/"));
        assert_eq!(answer.bytes, if method == Method::GET { "OK" } else { "" });
    }
    let version = bench.get("/version").await.json();
    assert_eq!(version["ApiVersion"], "1.41");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(bench.get("/readyz").await.status, StatusCode::OK);
    let ping = Bench::manager().await.get("/_ping").await;
    assert_eq!(ping.headers.get("swarm").unwrap(), "active/manager");
    *bench.control.state.lock().unwrap() =
        LocalState { participation: Participation::Pending, ..active() };
    assert_eq!(bench.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_backup_is_written_checked_and_taken_back() {
    let bench = Bench::manager().await;
    let passphrase = |text: &str| crate::domain::base64::encode(text.as_bytes());
    let ask = async |path: &str, secret: &str, body: Vec<u8>| {
        let request = Request::post(path).header("host", "docker");
        let request = request.header("x-swarm-passphrase", passphrase(secret));
        bench.whole(request.body(Body::from(body)).unwrap()).await
    };
    let none = bench.post("/x/v1/backup", &json!({})).await;
    assert_eq!(none.status, StatusCode::BAD_REQUEST);
    assert!(none.message().contains("passphrase"), "{}", none.message());
    let short = ask("/x/v1/backup", "short", Vec::new()).await;
    assert!(short.message().contains("at least 12"), "{}", short.message());
    let file = ask("/v1.41/x/v1/backup", "correct horse battery", Vec::new()).await;
    assert_eq!(file.status, StatusCode::OK);
    let file = file.bytes.to_vec();
    assert!(crate::raft::archive::summary(&file).is_ok());
    let wrong = ask("/x/v1/restore", "incorrect horse battery", file.clone()).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.message().contains("does not open"), "{}", wrong.message());
    let right = ask("/x/v1/restore", "correct horse battery", file).await;
    assert_eq!(right.status, StatusCode::OK);

    let told = bench.post("/x/v1/recover?dry-run=1", &json!({})).await.json();
    assert_eq!(told["RemovedManagers"][0]["Hostname"], "host-2");
    assert_eq!((&told["LastIndex"], &told["CommittedIndex"]), (&json!(41), &json!(40)));
    let refused = bench.post("/x/v1/recover", &json!({})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
}
