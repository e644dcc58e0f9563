//! Goldens: what the engine is asked for a service's JSON.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::domain::network::Subnet;
use crate::domain::node::Platform;
use crate::domain::task::{Slot, TaskAddress};
use crate::domain::{Meta, NetworkId, NodeId, ServiceId, Task, TaskState, TaskStatus, Timestamp};
use crate::runtime::{NetworkPlan, NodeFacts};

fn plan(spec: Value) -> ContainerPlan {
    plan_of(serde_json::from_value(spec).unwrap())
}

/// A task of a spec, in a network.
pub(in crate::runtime) fn plan_of(spec: crate::domain::ServiceSpec) -> ContainerPlan {
    let task = Task {
        id: TaskId::from_bytes([1; 16]),
        meta: Meta::default(),
        service: ServiceId::from_bytes([2; 16]),
        spec: 1,
        slot: Slot::Number(3),
        node: Some(NodeId::from_bytes([4; 16])),
        addresses: vec![TaskAddress {
            network: NetworkId::from_bytes([5; 16]),
            addr: Ipv4Addr::new(10, 0, 0, 7).into(),
        }],
        desired: TaskState::Running,
        not_before: Timestamp(0),
        status: TaskStatus::default(),
    };
    ContainerPlan {
        task: Arc::new(task),
        spec: Arc::new(spec),
        node: NodeFacts {
            id: NodeId::from_bytes([4; 16]),
            hostname: "n1".to_owned(),
            platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
        },
        network: Some(NetworkPlan {
            name: "swarm-default".to_owned(),
            bridge: "ov4097".to_owned(),
            subnet: Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
            gateway: Ipv4Addr::new(10, 0, 0, 2),
            mtu: 1450,
        }),
        files_dir: PathBuf::from("/run/swarm/tasks/t"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "goldens are literals")]
fn check(spec: Value, golden: Expect) {
    let body = create_body(&plan(spec)).unwrap();
    let body = serde_json::to_value(body).unwrap();
    golden.assert_eq(&serde_json::to_string_pretty(&body).unwrap());
}

#[test]
fn plain_service() {
    check(
        json!({
            "Name": "web",
            "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1", "Args": ["nginx", "-g"]}}
        }),
        expect![[r#"
            {
              "Cmd": [
                "nginx",
                "-g"
              ],
              "HostConfig": {
                "Mounts": [
                  {
                    "ReadOnly": true,
                    "Source": "/run/swarm/tasks/t/resolv.conf",
                    "Target": "/etc/resolv.conf",
                    "Type": "bind"
                  }
                ],
                "NetworkMode": "swarm-default"
              },
              "Image": "nginx:1",
              "Labels": {
                "com.docker.swarm.node.id": "08k3x4ouhb9tw7biwqbakywas",
                "com.docker.swarm.service.id": "04a1ykcf8nmwy3nrgd5nahg5e",
                "com.docker.swarm.service.name": "web",
                "com.docker.swarm.task": "",
                "com.docker.swarm.task.id": "0250za67mbtgh1tvq6ktn8q2p",
                "com.docker.swarm.task.name": "web.3.0250za67mbtgh1tvq6ktn8q2p"
              },
              "NetworkingConfig": {
                "EndpointsConfig": {
                  "swarm-default": {
                    "IPAMConfig": {
                      "IPv4Address": "10.0.0.7"
                    },
                    "MacAddress": "02:42:0a:00:00:07"
                  }
                }
              },
              "StopTimeout": 10
            }"#]],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one golden of everything")]
fn everything_that_a_spec_may_say() {
    let spec = json!({
        "Name": "web",
        "Labels": {"tier": "front"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1",
                "Labels": {"a": "b"},
                "Command": ["/bin/nginx"],
                "Args": ["-g", "daemon off;"],
                "Hostname": "{{.Node.Hostname}}-{{.Task.Slot}}",
                "Env": ["NAME={{.Task.Name}}", "TIER={{index .Service.Labels \"tier\"}}", "PLAIN=1"],
                "Dir": "/srv",
                "User": "1000:1000",
                "Groups": ["audio"],
                "TTY": true,
                "OpenStdin": true,
                "ReadOnly": true,
                "StopSignal": "SIGQUIT",
                "StopGracePeriod": 3_000_000_000u64,
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000, "Retries": 2},
                "Hosts": ["10.1.1.1 db database"],
                "Secrets": [{
                    "SecretID": "0000000000000000000000001", "SecretName": "key",
                    "File": {"Name": "key.pem", "UID": "0", "GID": "0", "Mode": 292}
                }],
                "Configs": [{
                    "ConfigID": "0000000000000000000000002", "ConfigName": "conf",
                    "File": {"Name": "/etc/nginx.conf", "UID": "0", "GID": "0", "Mode": 292}
                }],
                "Init": true,
                "Sysctls": {"net.core.somaxconn": "1024"},
                "CapabilityAdd": ["CAP_NET_ADMIN"],
                "CapabilityDrop": ["CAP_MKNOD"],
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
                "Privileges": {"NoNewPrivileges": true, "Seccomp": {"Mode": "unconfined"}},
                "Mounts": [
                    {"Type": "bind", "Source": "/data/{{.Task.Slot}}", "Target": "/data",
                     "BindOptions": {"Propagation": "rslave"}},
                    {"Type": "volume", "Source": "v-{{.Service.Name}}", "Target": "/v",
                     "VolumeOptions": {"NoCopy": true, "Labels": {"s": "{{.Task.Slot}}"}}},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024}}
                ]
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 1_048_576, "Pids": 10},
                "Reservations": {"MemoryBytes": 524_288}
            },
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}
        },
        "EndpointSpec": {"Ports": [
            {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"},
            {"TargetPort": 53, "Protocol": "udp", "PublishMode": "host"}
        ]}
    });
    check(
        spec,
        expect![[r#"
        {
          "Cmd": [
            "-g",
            "daemon off;"
          ],
          "Entrypoint": [
            "/bin/nginx"
          ],
          "Env": [
            "NAME=web.3.0250za67mbtgh1tvq6ktn8q2p",
            "TIER=front",
            "PLAIN=1"
          ],
          "ExposedPorts": {
            "53/udp": {},
            "80/tcp": {}
          },
          "Healthcheck": {
            "Interval": 1000000000,
            "Retries": 2,
            "Test": [
              "CMD",
              "true"
            ]
          },
          "HostConfig": {
            "CapAdd": [
              "CAP_NET_ADMIN"
            ],
            "CapDrop": [
              "CAP_MKNOD"
            ],
            "ExtraHosts": [
              "db:10.1.1.1",
              "database:10.1.1.1"
            ],
            "GroupAdd": [
              "audio"
            ],
            "Init": true,
            "LogConfig": {
              "Config": {
                "max-size": "1m"
              },
              "Type": "json-file"
            },
            "Memory": 1048576,
            "MemoryReservation": 524288,
            "Mounts": [
              {
                "BindOptions": {
                  "Propagation": "rslave"
                },
                "Source": "/data/3",
                "Target": "/data",
                "Type": "bind"
              },
              {
                "Source": "v-web",
                "Target": "/v",
                "Type": "volume",
                "VolumeOptions": {
                  "Labels": {
                    "s": "3"
                  },
                  "NoCopy": true
                }
              },
              {
                "Target": "/t",
                "TmpfsOptions": {
                  "SizeBytes": 1024
                },
                "Type": "tmpfs"
              },
              {
                "ReadOnly": true,
                "Source": "/run/swarm/tasks/t/resolv.conf",
                "Target": "/etc/resolv.conf",
                "Type": "bind"
              },
              {
                "ReadOnly": true,
                "Source": "/run/swarm/tasks/t/secrets/0000000000000000000000001",
                "Target": "/run/secrets/key.pem",
                "Type": "bind"
              },
              {
                "ReadOnly": true,
                "Source": "/run/swarm/tasks/t/configs/0000000000000000000000002",
                "Target": "/etc/nginx.conf",
                "Type": "bind"
              }
            ],
            "NanoCpus": 500000000,
            "NetworkMode": "swarm-default",
            "PidsLimit": 10,
            "PortBindings": {
              "53/udp": [
                {
                  "HostPort": ""
                }
              ],
              "80/tcp": [
                {
                  "HostPort": "8080"
                }
              ]
            },
            "ReadonlyRootfs": true,
            "SecurityOpt": [
              "no-new-privileges:true",
              "seccomp=unconfined"
            ],
            "Sysctls": {
              "net.core.somaxconn": "1024"
            },
            "Ulimits": [
              {
                "Hard": 20,
                "Name": "nofile",
                "Soft": 10
              }
            ]
          },
          "Hostname": "n1-3",
          "Image": "nginx:1",
          "Labels": {
            "a": "b",
            "com.docker.swarm.node.id": "08k3x4ouhb9tw7biwqbakywas",
            "com.docker.swarm.service.id": "04a1ykcf8nmwy3nrgd5nahg5e",
            "com.docker.swarm.service.name": "web",
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": "0250za67mbtgh1tvq6ktn8q2p",
            "com.docker.swarm.task.name": "web.3.0250za67mbtgh1tvq6ktn8q2p"
          },
          "NetworkingConfig": {
            "EndpointsConfig": {
              "swarm-default": {
                "IPAMConfig": {
                  "IPv4Address": "10.0.0.7"
                },
                "MacAddress": "02:42:0a:00:00:07"
              }
            }
          },
          "OpenStdin": true,
          "StopSignal": "SIGQUIT",
          "StopTimeout": 3,
          "Tty": true,
          "User": "1000:1000",
          "WorkingDir": "/srv"
        }"#]],
    );
}

#[test]
fn service_on_the_network_of_the_host_keeps_its_resolver() {
    let mut plan = plan(json!({
        "Name": "web",
        "TaskTemplate": {
            "ContainerSpec": {"Image": "nginx:1"},
            "Networks": [{"Target": "host"}]
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}]}
    }));
    plan.network = None;
    let body = create_body(&plan).unwrap();
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("host"));
    assert_eq!((host.mounts, host.port_bindings), (None, None));
    assert_eq!(body.networking_config, None);
}

#[test]
fn templates_know_what_docker_knows() {
    let plan = plan(json!({"Name": "web", "Labels": {"a.b": "c"}}));
    let check = |text: &str, wanted: &str| {
        assert_eq!(crate::runtime::template::expand(text, &plan).unwrap(), wanted, "{text}");
    };
    check("plain", "plain");
    check("{{.Service.Name}}-{{ .Task.Slot }}", "web-3");
    check("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "linux/x86_64");
    check("{{index .Service.Labels \"a.b\"}}", "c");
    check("{{.Service.Labels.missing}}", "");
    check("{{ .Service.Name | upper }}", "WEB");
    check("{{lower \"ABC\"}}", "abc");
    check("a {{- .Task.Slot -}} b", "a3b");
    check("{{.Task.Name}}", &format!("web.3.{}", TaskId::from_bytes([1; 16])));
}

#[test]
fn wrong_templates_reject_the_task() {
    for text in ["{{.Nope}}", "{{.Task.Slot", "{{nope .Task.Slot}}", "{{index .Task \"a\"}}"] {
        let plan = plan(json!({"TaskTemplate": {"ContainerSpec": {"Env": [text]}}}));
        assert!(matches!(create_body(&plan), Err(Error::Permanent(_))), "{text}");
    }
}

#[test]
fn each_reference_to_a_secret_has_a_file_of_its_own() {
    let reference = |name: &str, mode: u32| {
        json!({"SecretID": "0000000000000000000000001", "SecretName": "s",
            "File": {"Name": name, "UID": "0", "GID": "0", "Mode": mode}})
    };
    let secrets = json!([reference("open", 0o444), reference("narrow", 0o400)]);
    let plan = plan(json!({"Name": "web", "TaskTemplate": {"ContainerSpec":
        {"Image": "a", "Secrets": secrets}}}));
    let mounts = create_body(&plan).unwrap().host_config.unwrap().mounts.unwrap();
    let source = |target: &str| {
        let mount = mounts.iter().find(|it| it.target.as_deref() == Some(target)).unwrap();
        mount.source.clone().unwrap()
    };
    let first = source("/run/secrets/open");
    assert!(first.ends_with("/secrets/0000000000000000000000001"), "as earlier releases had it");
    assert_eq!(source("/run/secrets/narrow"), format!("{first}.2"));
}
