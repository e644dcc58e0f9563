//! Our JSON beside Docker's, as recorded: nothing lost of what clients send, nothing missing of
//! what they read.

use serde_json::json;

use super::super::service_spec;
use super::*;

/// Paths of what is in `given` and not, or not alike, in `kept`. Empty values and null may go.
fn lost(given: &Value, kept: &Value, path: &str, into: &mut Vec<String>) {
    match given {
        Value::Null => {}
        Value::Object(members) => {
            for (name, member) in members {
                let below = format!("{path}/{name}");
                lost(member, kept.get(name).unwrap_or(&Value::Null), &below, into);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                let below = format!("{path}/{place}");
                lost(item, kept.get(place).unwrap_or(&Value::Null), &below, into);
            }
        }
        Value::Bool(false) if kept.is_null() => {}
        Value::String(text) if text.is_empty() && kept.is_null() => {}
        Value::Number(_) if given.as_f64() == kept.as_f64() => {}
        scalar if scalar == kept => {}
        scalar => into.push(format!("{path}: {scalar} became {kept}")),
    }
}

pub(super) fn assert_kept(given: &Value, kept: &Value) {
    let mut all = Vec::new();
    lost(given, kept, "", &mut all);
    assert!(all.is_empty(), "lost:\n{}", all.join("\n"));
}

/// Paths of members that Docker's JSON has and ours has not.
fn missing(theirs: &Value, ours: &Value, path: &str, into: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), ours) => {
            for (name, member) in theirs {
                let below = format!("{path}/{name}");
                match ours.get(name) {
                    Some(found) => missing(member, found, &below, into),
                    None => into.push(below),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(their), Some(our)) = (theirs.first(), ours.first()) {
                missing(their, our, &format!("{path}/0"), into);
            }
        }
        (theirs, ours) => {
            if std::mem::discriminant(theirs) != std::mem::discriminant(ours) && !theirs.is_null() {
                into.push(format!("{path}: another type: {ours}"));
            }
        }
    }
}

fn assert_shape(theirs: &Value, ours: &Value, except: &[&str]) {
    let mut all = Vec::new();
    missing(theirs, ours, "", &mut all);
    all.retain(|path| !except.contains(&path.as_str()));
    assert!(all.is_empty(), "missing:\n{}\nours:\n{ours:#}", all.join("\n"));
}

#[test]
fn what_clients_send_is_kept() {
    for name in ["POST services/create (docker CLI 28)", "POST services/create (docker-py)"] {
        let body = sample(name);
        let spec = service_spec::decode(body.to_string().as_bytes()).unwrap();
        assert_kept(&body, &serde_json::to_value(&spec).unwrap());
    }
}

#[test]
fn every_member_that_was_ever_seen_is_kept() {
    let body = json!({
        "Name": "all", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "Isolation": "default", "Labels": {"c": "d"},
                "Privileges": {"CredentialSpec": null, "NoNewPrivileges": true,
                    "SELinuxContext": {"Disable": true, "User": "u", "Role": "r", "Type": "t", "Level": "l"}},
                "Command": ["sh"], "Args": ["-c", "true"], "Env": ["A=1", "B"], "Groups": ["g"],
                "Hostname": "{{.Node.Hostname}}", "Hosts": ["1.2.3.4 a"], "Dir": "/srv", "User": "0:0",
                "TTY": true, "OpenStdin": true, "ReadOnly": true, "Init": true,
                "StopGracePeriod": 5_000_000_000u64, "StopSignal": "SIGINT",
                "DNSConfig": {"Nameservers": ["1.1.1.1"], "Search": ["s"], "Options": ["o"]},
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000u64,
                    "Timeout": 2_000_000_000u64, "Retries": 3, "StartPeriod": 4_000_000_000u64,
                    "StartInterval": 5_000_000_000u64},
                "Mounts": [
                    {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"NoCopy": true,
                        "Labels": {"l": "m"}, "DriverConfig": {"Name": "local", "Options": {"o": "p"}}}},
                    {"Type": "bind", "Source": "/b", "Target": "/c", "ReadOnly": true,
                        "BindOptions": {"Propagation": "rprivate"}},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1, "Mode": 511}}],
                "Sysctls": {"net.core.somaxconn": "100"}, "CapabilityAdd": ["CAP_NET_ADMIN"],
                "CapabilityDrop": ["CAP_MKNOD"], "Ulimits": [{"Name": "nofile", "Hard": 2, "Soft": 1}],
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 2, "Window": 3},
            "Resources": {"Limits": {"NanoCPUs": 2_000_000, "MemoryBytes": 8_388_608, "Pids": 3},
                "Reservations": {"NanoCPUs": 1_000_000, "MemoryBytes": 4_194_304, "GenericResources": [
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}},
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "UUID1"}}]}},
            "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "Constraints": ["node.role==manager"], "MaxReplicas": 2,
                "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
            "ForceUpdate": 7, "Runtime": "container",
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": [{"Protocol": "udp", "TargetPort": 80,
            "PublishedPort": 8080, "PublishMode": "host"}]},
        "UpdateConfig": {"Parallelism": 2, "Delay": 1, "FailureAction": "rollback", "Monitor": 5,
            "MaxFailureRatio": 0.25, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 0, "FailureAction": "continue", "Order": "stop-first"},
        "Invented": {"Later": [1, 2]},
    });
    let spec = service_spec::decode(body.to_string().as_bytes()).unwrap();
    assert_kept(&body, &serde_json::to_value(&spec).unwrap());
}

#[tokio::test]
async fn objects_have_docker_s_members() {
    let bench = Bench::manager().await;
    let web = bench.web().await;
    put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;

    let services = bench.get("/v1.41/services?status=true").await.json();
    let except = [
        "/0/Endpoint/VirtualIPs",
        "/0/Endpoint/Ports",
        "/0/Endpoint/Spec/Ports",
        "/0/Spec/EndpointSpec/Ports",
        "/0/Spec/Labels/traefik.enable",
        "/0/Spec/TaskTemplate/ContainerSpec/Isolation",
        "/0/Spec/TaskTemplate/Networks",
        "/0/Spec/TaskTemplate/Runtime",
    ];
    assert_shape(&sample("GET /services"), &services, &except);
    assert_eq!(
        services[0]["ServiceStatus"],
        json!({"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0})
    );

    let tasks = bench.get("/v1.41/tasks").await.json();
    let except = [
        "/0/Spec/ContainerSpec/Isolation",
        "/0/Spec/Networks",
        "/0/NetworksAttachments/0/Network/Spec/Ingress",
        "/0/NetworksAttachments/0/Network/IPAMOptions/Configs/0/Gateway",
    ];
    assert_shape(&sample("GET /tasks (running)"), &tasks, &except);
    assert_eq!(tasks[0]["NetworksAttachments"][0]["Addresses"], json!(["10.0.1.1/16"]));

    let node = bench.get("/v1.41/nodes/vm").await.json();
    let theirs = sample("GET /nodes/{id}");
    let except = ["/Description/Engine/Plugins"];
    assert_shape(&theirs, &node, &except);
    assert_eq!(node["Description"]["TLSInfo"], theirs["Description"]["TLSInfo"]);
    assert_eq!(node["ManagerStatus"], theirs["ManagerStatus"]);
    assert_eq!(node["Status"], theirs["Status"]);

    let theirs = sample("GET /swarm");
    let swarm = bench.get("/v1.41/swarm").await.json();
    assert_shape(&theirs, &swarm, &[]);
    assert_eq!(swarm["Spec"], theirs["Spec"]);

    let theirs = sample("GET /info active");
    let info = bench.get("/v1.41/info").await.json();
    assert_shape(&theirs["Swarm"], &info["Swarm"], &[]);
}
