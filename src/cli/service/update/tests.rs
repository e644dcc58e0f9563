//! Edits of a spec: what is named changes, everything else stays, unknown members too.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    update: Update,
}

fn known() -> ServiceSpec {
    serde_json::from_value(json!({
        "Name": "web",
        "Labels": {"a": "1", "b": "2"},
        "Unknown": {"kept": true},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox:1",
                "Args": ["sleep", "1"],
                "Env": ["A=1", "B=2"],
                "Hosts": ["1.2.3.4 a", "1.2.3.5 a", "1.2.3.6 b"],
                "Mounts": [{"Type": "volume", "Source": "v", "Target": "/data"}],
                "DNSConfig": {"Nameservers": ["1.1.1.1"]},
                "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Isolation": "default",
            },
            "Placement": {"Constraints": ["node.role==worker"]},
            "Resources": {"Limits": {"MemoryBytes": 1}},
            "ForceUpdate": 3,
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"},
        ]},
    }))
    .unwrap()
}

fn edit(words: &[&str]) -> Result<Value, String> {
    let words = std::iter::once(&"update").chain(words).chain(std::iter::once(&"web"));
    let update = Program::try_parse_from(words).map_err(|error| error.to_string())?.update;
    let mut spec = known();
    update.edit(&mut spec, &|_| None).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(spec).unwrap())
}

#[test]
fn nothing_given_changes_nothing() {
    assert_eq!(edit(&[]).unwrap(), serde_json::to_value(known()).unwrap());
    assert_eq!(edit(&[]).unwrap()["Unknown"], json!({"kept": true}));
}

#[test]
fn each_flag_changes_its_own_member() {
    for (words, pointer, expected) in [
        (&["--image", "busybox:2"][..], "/TaskTemplate/ContainerSpec/Image", json!("busybox:2")),
        (
            &["--args", "sh -c 'sleep 2'"],
            "/TaskTemplate/ContainerSpec/Args",
            json!(["sh", "-c", "sleep 2"]),
        ),
        (&["--force"], "/TaskTemplate/ForceUpdate", json!(4)),
        (&["--replicas", "9"], "/Mode/Replicated/Replicas", json!(9)),
        (&["--label-add", "a=9", "--label-rm", "b"], "/Labels", json!({"a": "9"})),
        (
            &["--env-add", "A=9", "--env-add", "C=3", "--env-rm", "B"],
            "/TaskTemplate/ContainerSpec/Env",
            json!(["A=9", "C=3"]),
        ),
        (
            &["--host-rm", "a:1.2.3.4", "--host-rm", "b", "--host-add", "c:9.9.9.9"],
            "/TaskTemplate/ContainerSpec/Hosts",
            json!(["1.2.3.5 a", "9.9.9.9 c"]),
        ),
        (
            &["--mount-add", "type=tmpfs,target=/data"],
            "/TaskTemplate/ContainerSpec/Mounts",
            json!([{"Type": "tmpfs", "Target": "/data"}]),
        ),
        (&["--mount-rm", "/data"], "/TaskTemplate/ContainerSpec/Mounts", Value::Null),
        (
            &["--dns-add", "8.8.8.8", "--dns-rm", "1.1.1.1"],
            "/TaskTemplate/ContainerSpec/DNSConfig/Nameservers",
            json!(["8.8.8.8"]),
        ),
        (&["--cap-drop", "NET_ADMIN"], "/TaskTemplate/ContainerSpec/CapabilityAdd", Value::Null),
        (
            &["--constraint-add", "node.id==x", "--constraint-rm", "node.role==worker"],
            "/TaskTemplate/Placement/Constraints",
            json!(["node.id==x"]),
        ),
        (
            &["--limit-cpu", "0.5"],
            "/TaskTemplate/Resources/Limits",
            json!({"NanoCPUs": 500_000_000, "MemoryBytes": 1}),
        ),
        (&["--publish-rm", "80"], "/EndpointSpec/Ports", Value::Null),
        (
            &["--publish-add", "mode=host,target=80,published=8080"],
            "/EndpointSpec/Ports",
            json!([{
                "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host",
            }]),
        ),
        (&["--network-add", "host"], "/TaskTemplate/Networks", json!([{"Target": "host"}])),
        (&["--no-healthcheck"], "/TaskTemplate/ContainerSpec/Healthcheck/Test", json!(["NONE"])),
        (&["--tty=false"], "/TaskTemplate/ContainerSpec/TTY", Value::Null),
        (&["--init=true"], "/TaskTemplate/ContainerSpec/Init", json!(true)),
    ] {
        let edited = edit(words).unwrap();
        let found = edited.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn a_rollback_takes_no_edits() {
    let update = |words: &[&str]| Program::try_parse_from(words).unwrap().update;
    let alone = update(&["update", "--rollback", "web"]);
    assert!(alone.refuse_edits(&known()).is_ok());
    for extra in ["--force", "--secret-rm=x", "--image=busybox:9"] {
        let refused = update(&["update", "--rollback", extra, "web"]).refuse_edits(&known());
        assert!(refused.unwrap_err().to_string().contains("may not be combined"), "{extra}");
    }
}

#[test]
fn edits_that_make_no_sense_are_refused() {
    let clash = edit(&["--publish-add", "mode=host,target=81,published=8080"]).unwrap_err();
    assert!(clash.contains("conflicting port mapping"), "{clash}");
    assert!(edit(&["--args", "'open"]).unwrap_err().contains("unclosed quote"));
    assert!(edit(&["--env-add", "=x"]).unwrap_err().contains("invalid environment variable"));
}
