//! What services may ask of hosts: refused in words, permitted by a command, never taken back from
//! what runs.

use serde_json::json;

use super::*;
use crate::api::swarm;

fn spec(name: &str, container: &Value, replicas: u64) -> Value {
    let mut spec = json!({"Name": name, "Mode": {"Replicated": {"Replicas": replicas}},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}});
    for (member, value) in container.as_object().unwrap() {
        spec["TaskTemplate"]["ContainerSpec"][member] = value.clone();
    }
    spec
}

fn socket() -> Value {
    json!({"Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s"}]})
}

pub(super) async fn set_policy(bench: &Bench, policy: Value) -> Answer {
    let shown = bench.get("/swarm").await.json();
    let mut spec = shown["Spec"].clone();
    spec["Policy"] = policy;
    bench.post(&format!("/swarm/update?version={}", shown["Version"]["Index"]), &spec).await
}

async fn update(bench: &Bench, name: &str, spec: &Value, query: &str) -> Answer {
    let shown = bench.get(&format!("/services/{name}")).await.json();
    let version = &shown["Version"]["Index"];
    bench.post(&format!("/services/{name}/update?version={version}{query}"), spec).await
}

#[tokio::test]
async fn refusals_name_the_field_and_the_way() {
    let bench = Bench::manager().await;
    let answer = bench.post("/services/create", &spec("a", &socket(), 1)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer.message(),
        "rpc error: code = PermissionDenied desc = TaskTemplate.ContainerSpec.Mounts: a mount of \
         /var/run/docker.sock, with the socket of an engine or daemon, is not permitted by the policy \
         of this swarm; whoever answers for the hosts may permit it: swarm policy allow docker-socket"
    );
    let own = json!({"Mounts": [{"Type": "bind", "Source": "/var/lib/swarm", "Target": "/s"}]});
    let text = bench.post("/services/create", &spec("a", &own, 1)).await.message();
    assert!(text.ends_with("is not permitted by the policy of this swarm"), "{text}");
    let mut host = spec("a", &json!({}), 1);
    host["TaskTemplate"]["Networks"] = json!([{"Target": "host"}]);
    let answer = bench.post("/services/create", &host).await;
    assert!(answer.message().ends_with("swarm policy allow host-network"), "{answer:?}");
    assert_eq!(bench.get("/services").await.json(), json!([]));
}

#[tokio::test]
async fn a_policy_holds_for_what_is_new_and_leaves_what_runs_alone() {
    let bench = Bench::manager().await;
    let granted = set_policy(&bench, json!({"DockerSocket": true})).await;
    assert_eq!(granted.status, StatusCode::OK, "{granted:?}");
    let made = bench.post("/services/create", &spec("a", &socket(), 1)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let plain = spec("a", &json!({}), 1);
    assert_eq!(update(&bench, "a", &plain, "").await.status, StatusCode::OK);
    assert_eq!(update(&bench, "a", &spec("a", &socket(), 1), "").await.status, StatusCode::OK);
    let running = bench.store().view().position;

    let denied = set_policy(&bench, json!({})).await;
    assert_eq!(denied.status, StatusCode::OK, "{denied:?}");
    // Nothing was written but the cluster: nothing stops for a policy.
    assert_eq!(bench.store().view().position.index, running.index + 1);
    let scaled = update(&bench, "a", &spec("a", &socket(), 5), "").await;
    assert_eq!(scaled.status, StatusCode::OK, "what runs may be scaled: {scaled:?}");
    let mut changed = socket();
    changed["Image"] = json!("other");
    let refused = update(&bench, "a", &spec("a", &changed, 5), "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    assert_eq!(update(&bench, "a", &plain, "").await.status, StatusCode::OK);
    let back = update(&bench, "a", &plain, "&rollback=previous").await;
    assert_eq!(back.status, StatusCode::FORBIDDEN, "a rollback by hand is a wish, too: {back:?}");
}

#[tokio::test]
async fn clients_that_do_not_know_the_policy_keep_it() {
    let bench = Bench::manager().await;
    let policy = json!({"DockerSocket": true, "BindMounts": ["/srv"]});
    assert_eq!(set_policy(&bench, policy).await.status, StatusCode::OK);
    let before = bench.get("/swarm").await.json()["Spec"]["Policy"].clone();
    assert_eq!(before["BindMounts"], json!(["/srv"]));
    // Docker's client reads the spec into a struct of its own and sends that back.
    assert_eq!(set_policy(&bench, Value::Null).await.status, StatusCode::OK);
    assert_eq!(bench.get("/swarm").await.json()["Spec"]["Policy"], before);
    for (wrong, field) in [
        (json!({"BindMounts": ["srv"]}), "absolute path"),
        (json!({"Privileged": true}), "no such member"),
        (json!({"DockerSocket": "yes"}), "expected a boolean"),
    ] {
        let refused = set_policy(&bench, wrong).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        assert!(refused.message().contains(field), "{refused:?}");
    }
}

#[test]
fn a_policy_waits_for_the_oldest_manager() {
    use crate::domain::{Format, SpecPolicy};
    let policy = Some(SpecPolicy::everything());
    let wish = ClusterSpec { policy, ..ClusterSpec::default() };
    let at = |format| Cluster { format, ..cluster(ClusterSpec::default()) };
    swarm::check_spec(&at(Format::POLICY), &wish).unwrap();
    swarm::check_spec(&at(Format::FIRST), &ClusterSpec::default()).unwrap();
    let refused = swarm::check_spec(&at(Format::FIRST), &wish).unwrap_err();
    assert!(refused.message.contains("every manager"), "{refused}");
}

#[test]
fn a_release_without_policies_keeps_them() {
    // What the last release had in the place of ours: members it does not know.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Older {
        #[serde(rename = "Name")]
        name: String,
        #[serde(flatten)]
        extra: crate::domain::Extra,
    }
    let policy = Some(crate::domain::SpecPolicy::everything());
    let spec = ClusterSpec { policy, ..ClusterSpec::default() };
    let older: Older = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    let back: ClusterSpec = serde_json::from_value(serde_json::to_value(&older).unwrap()).unwrap();
    assert_eq!((back, older.name.as_str()), (spec, "default"));
}
