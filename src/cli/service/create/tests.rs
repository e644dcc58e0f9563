//! Flags → spec, as the stock client 20.10 and 28.2 send it, less members that say nothing.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    create: Create,
}

fn parse(words: &[&str]) -> Result<Create, String> {
    let words = std::iter::once(&"create").chain(words);
    Program::try_parse_from(words).map(|it| it.create).map_err(|error| error.to_string())
}

fn spec(words: &[&str]) -> Value {
    let lookup = |name: &str| (name == "MINE").then(|| "1".to_owned());
    serde_json::to_value(parse(words).unwrap().spec(&lookup).unwrap()).unwrap()
}

fn refusal(words: &[&str]) -> String {
    match parse(words) {
        Err(usage) => usage,
        Ok(create) => create.spec(&|_| None).unwrap_err().to_string(),
    }
}

#[test]
fn the_smallest_service_is_dockers() {
    assert_eq!(
        spec(&["--name", "web", "busybox:latest", "sleep", "--help", "-x"]),
        json!({
            "Name": "web",
            "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "busybox:latest",
                    "Args": ["sleep", "--help", "-x"],
                    "DNSConfig": {},
                    "Init": false,
                },
                "ForceUpdate": 0,
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "EndpointSpec": {"Mode": "vip"},
        })
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn every_flag_of_the_container_arrives() {
    let spec = spec(&[
        "--label",
        "l=1",
        "--container-label",
        "cl=1",
        "-e",
        "A=1",
        "-e",
        "MINE",
        "--hostname",
        "{{.Node.Hostname}}",
        "-u",
        "0",
        "-w",
        "/srv",
        "--stop-grace-period",
        "5s",
        "--stop-signal",
        "SIGINT",
        "--host",
        "a:1.2.3.4",
        "--dns",
        "1.1.1.1",
        "--dns-option",
        "ndots:2",
        "--dns-search",
        "local",
        "--group",
        "g",
        "--sysctl",
        "net.core.somaxconn=100",
        "--ulimit",
        "nofile=100",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "mknod",
        "--init",
        "--tty",
        "--read-only",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=1m",
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "--health-retries",
        "2",
        "--entrypoint",
        "sh -c",
        "--mount",
        "type=volume,src=vv,dst=/data",
        "busybox",
    ]);
    assert_eq!(
        spec["TaskTemplate"]["ContainerSpec"],
        json!({
            "Image": "busybox:latest",
            "Labels": {"cl": "1"},
            "Command": ["sh", "-c"],
            "Hostname": "{{.Node.Hostname}}",
            "Env": ["A=1", "MINE=1"],
            "Dir": "/srv",
            "User": "0",
            "Groups": ["g"],
            "TTY": true,
            "ReadOnly": true,
            "Mounts": [{"Type": "volume", "Source": "vv", "Target": "/data"}],
            "StopSignal": "SIGINT",
            "StopGracePeriod": 5_000_000_000u64,
            "Healthcheck": {
                "Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000, "Retries": 2,
            },
            "Hosts": ["1.2.3.4 a"],
            "DNSConfig": {
                "Nameservers": ["1.1.1.1"], "Search": ["local"], "Options": ["ndots:2"],
            },
            "Init": true,
            "Sysctls": {"net.core.somaxconn": "100"},
            "CapabilityAdd": ["CAP_NET_ADMIN"],
            "CapabilityDrop": ["CAP_MKNOD"],
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 100}],
        })
    );
    assert_eq!(spec["Labels"], json!({"l": "1"}));
    assert_eq!(
        spec["TaskTemplate"]["LogDriver"],
        json!({"Name": "json-file", "Options": {"max-size": "1m"}})
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn policies_appear_whole_once_a_part_is_given() {
    let spec = spec(&[
        "--replicas",
        "5",
        "--replicas-max-per-node",
        "2",
        "--update-order",
        "start-first",
        "--rollback-parallelism",
        "0",
        "--restart-condition",
        "on-failure",
        "--restart-window",
        "1m",
        "--limit-memory",
        "64M",
        "--limit-pids",
        "9",
        "--reserve-cpu",
        "0.1",
        "--generic-resource",
        "gpu=1",
        "--constraint",
        "node.role==manager",
        "--placement-pref",
        "spread=node.labels.zone",
        "--endpoint-mode",
        "dnsrr",
        "--network",
        "host",
        "-p",
        "mode=host,target=81,published=8081",
        "busybox",
    ]);
    assert_eq!(spec["Mode"], json!({"Replicated": {"Replicas": 5}}));
    assert_eq!(
        spec["UpdateConfig"],
        json!({
            "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000u64,
            "MaxFailureRatio": 0.0, "Order": "start-first",
        })
    );
    assert_eq!(spec["RollbackConfig"]["Parallelism"], json!(0));
    assert_eq!(spec["RollbackConfig"]["Order"], json!("stop-first"));
    let task = &spec["TaskTemplate"];
    assert_eq!(
        task["RestartPolicy"],
        json!({
            "Condition": "on-failure", "Delay": 5_000_000_000u64, "MaxAttempts": 0,
            "Window": 60_000_000_000u64,
        })
    );
    assert_eq!(
        task["Resources"],
        json!({
            "Limits": {"MemoryBytes": 67_108_864, "Pids": 9},
            "Reservations": {
                "NanoCPUs": 100_000_000,
                "GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}],
            },
        })
    );
    assert_eq!(
        task["Placement"],
        json!({
            "Constraints": ["node.role==manager"],
            "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            "MaxReplicas": 2,
        })
    );
    assert_eq!(task["Networks"], json!([{"Target": "host"}]));
    assert_eq!(
        spec["EndpointSpec"],
        json!({
            "Mode": "dnsrr",
            "Ports": [{
                "Protocol": "tcp", "TargetPort": 81, "PublishedPort": 8081, "PublishMode": "host",
            }],
        })
    );
}

#[test]
fn images_get_a_tag_where_they_have_none() {
    for (given, full) in [
        ("busybox", "busybox:latest"),
        ("busybox:1", "busybox:1"),
        ("r.io:5000/a/b", "r.io:5000/a/b:latest"),
        ("r.io/a@sha256:00", "r.io/a@sha256:00"),
    ] {
        assert_eq!(tagged(given), full);
    }
}

#[test]
fn global_services_have_no_replicas() {
    assert_eq!(spec(&["--mode", "global", "busybox"])["Mode"], json!({"Global": {}}));
    assert!(
        refusal(&["--mode", "global", "--replicas", "2", "busybox"]).contains("replicated mode")
    );
}

#[test]
fn refusals_say_what_is_wrong() {
    for (words, part) in [
        (&["--mode", "replicated-job", "busybox"][..], "not built yet"),
        (&["--mode", "odd", "busybox"], "Unknown mode: odd"),
        (&["--limit-memory", "x", "busybox"], "invalid size: 'x'"),
        (&["--restart-delay", "5", "busybox"], "missing unit in duration"),
        (&["--publish", "1.2.3.4:80:80", "busybox"], "hostip is not supported"),
        (&["--mount", "type=bind,source=/a", "busybox"], "target is required"),
        (&["--update-order", "random", "busybox"], "expected `stop-first` or `start-first`"),
        (&["--rollback-failure-action", "rollback", "busybox"], "expected `pause` or `continue`"),
        (&["--no-healthcheck", "--health-cmd", "x", "busybox"], "conflicts with --health-*"),
        (&["--update-max-failure-ratio", "2", "busybox"], "not between 0 and 1"),
        (&["--name", "x"], "<IMAGE>"),
    ] {
        let refused = refusal(words);
        assert!(refused.contains(part), "{words:?}: {refused}");
    }
}

#[test]
fn capabilities_return_to_the_default_before_they_turn() {
    let caps = |words: &[&str]| {
        let spec = spec(words);
        let container = &spec["TaskTemplate"]["ContainerSpec"];
        (container["CapabilityAdd"].clone(), container["CapabilityDrop"].clone())
    };
    let both = caps(&["--cap-add", "SYS_TIME", "--cap-drop", "SYS_TIME", "busybox"]);
    assert_eq!(both, (json!(["CAP_SYS_TIME"]), Value::Null));
    let all = caps(&["--cap-add", "ALL", "--cap-add", "SYS_TIME", "busybox"]);
    assert_eq!(all, (json!(["ALL"]), Value::Null));
}
