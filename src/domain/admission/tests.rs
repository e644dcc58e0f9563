//! Specs that want the host, against policies; and that no spelling gets around one.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A spec with a container of that JSON.
fn spec(container: Value) -> ServiceSpec {
    let mut body = json!({"Name": "a", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}});
    let Value::Object(members) = container else { panic!("an object") };
    for (name, value) in members {
        if name == "Networks" {
            body["TaskTemplate"]["Networks"] = value;
        } else {
            body["TaskTemplate"]["ContainerSpec"][name] = value;
        }
    }
    serde_json::from_value(body).unwrap()
}

fn bind(source: &str) -> Value {
    json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/x"}]})
}

fn volume(options: &Value) -> Value {
    let driver = json!({"Name": "local", "Options": options});
    let mount = json!({"Type": "volume", "Source": "v", "Target": "/x",
        "VolumeOptions": {"DriverConfig": driver}});
    json!({"Mounts": [mount]})
}

/// What the default policy refuses, each with the grant that its refusal names.
fn evil_binds() -> Vec<(Value, Option<&'static str>)> {
    vec![
        (bind("/"), Some("docker-socket")),
        (bind("//"), Some("docker-socket")),
        (bind("/run"), Some("docker-socket")),
        (bind("/var"), Some("bind-mount=/var")),
        (bind("/var/run"), Some("docker-socket")),
        (bind("/var/run/docker.sock"), Some("docker-socket")),
        (bind("/run/./docker.sock"), Some("docker-socket")),
        (bind("//run//docker.sock/"), Some("docker-socket")),
        (bind("/run/containerd/containerd.sock"), Some("docker-socket")),
        (bind("/run/containerd"), Some("docker-socket")),
        (bind("/run/podman/podman.sock"), Some("docker-socket")),
        (bind("/run/swarm/swarm.sock"), Some("docker-socket")),
        (bind("/var/run/swarm/swarm.sock"), Some("docker-socket")),
        (bind("/run/swarm"), None),
        (bind("/run/swarm/tasks"), None),
        (bind("/var/lib/swarm"), None),
        (bind("/var/lib/swarm/raft.key"), None),
        (bind("/var/lib/docker"), Some("bind-mount=/var/lib/docker")),
        (bind("/etc"), Some("bind-mount=/etc")),
        (bind("/etc/shadow"), Some("bind-mount=/etc/shadow")),
        (bind("/etc/localtime"), Some("bind-mount=/etc/localtime")),
        (bind("/root/.ssh"), Some("bind-mount=/root/.ssh")),
        (bind("/proc"), Some("bind-mount=/proc")),
        (bind("/sys/fs/cgroup"), Some("bind-mount=/sys/fs/cgroup")),
        (bind("/dev/mem"), Some("bind-mount=/dev/mem")),
        (bind("/home/user"), Some("bind-mount=/home/user")),
        (bind("/srvx"), Some("bind-mount=/srvx")),
        (bind("/opt/{{.Service.Name}}/data"), Some("bind-mount=/opt")),
        (bind("/{{.Service.Name}}"), Some("bind-mount=/")),
        (bind("/srv/{{index .Service.Labels \"path\"}}"), Some("bind-mount=/")),
        (bind("/srv/{{.Task.Slot | upper}}"), Some("bind-mount=/")),
        (bind("{{.Service.Name}}"), Some("bind-mount=/")),
        (bind("/srv/{{"), Some("bind-mount=/")),
        (bind("/srv/../etc"), Some("bind-mount=/")),
        (bind("/srv/a\nb"), Some("bind-mount=/")),
    ]
}

/// The same with volumes, capabilities, parameters, confinement and networks.
fn evil_otherwise() -> Vec<(Value, Option<&'static str>)> {
    vec![
        (volume(&json!({"type": "none", "o": "bind", "device": "/etc"})), Some("bind-mount=/etc")),
        (volume(&json!({"o": "rbind,rw", "device": "/etc"})), Some("bind-mount=/etc")),
        (
            volume(&json!({"type": "nfs", "o": "addr=1.2.3.4, bind", "device": "/etc"})),
            Some("bind-mount=/etc"),
        ),
        (volume(&json!({"device": "/etc"})), Some("bind-mount=/etc")),
        (volume(&json!({"type": "ext4", "device": "/dev/sda1"})), Some("bind-mount=/dev/sda1")),
        (
            volume(&json!({"type": "none", "o": "bind", "device": "/run/docker.sock"})),
            Some("docker-socket"),
        ),
        (
            volume(&json!({"type": "overlay", "device": "overlay", "o": "lowerdir=/etc"})),
            Some("docker-socket"),
        ),
        (volume(&json!({"type": "proc", "device": "proc"})), Some("docker-socket")),
        (
            volume(&json!({"type": "tmpfs", "device": "{{index .Service.Labels \"x\"}}"})),
            Some("docker-socket"),
        ),
        (
            volume(
                &json!({"type": "none", "o": "{{index .Service.Labels \"x\"}}", "device": "/etc"}),
            ),
            Some("bind-mount=/etc"),
        ),
        (json!({"CapabilityAdd": ["SYS_ADMIN"]}), Some("capability=SYS_ADMIN")),
        (json!({"CapabilityAdd": ["cap_sys_admin"]}), Some("capability=SYS_ADMIN")),
        (json!({"CapabilityAdd": ["CAP_NET_ADMIN"]}), Some("capability=NET_ADMIN")),
        (json!({"CapabilityAdd": ["ALL"]}), Some("capability=ALL")),
        (json!({"CapabilityAdd": ["all"]}), Some("capability=ALL")),
        (json!({"CapabilityAdd": ["CHOWN", "BPF"]}), Some("capability=BPF")),
        (json!({"Sysctls": {"kernel.shmmax": "1"}}), Some("sysctl=kernel.shmmax")),
        (json!({"Sysctls": {"kernel/core_pattern": "|/x"}}), Some("sysctl=kernel.core_pattern")),
        (json!({"Sysctls": {"fs.mqueue.msg_max": "1"}}), Some("sysctl=fs.mqueue.msg_max")),
        (json!({"Sysctls": {"network": "1"}}), Some("sysctl=network")),
        (json!({"Privileges": {"Seccomp": {"Mode": "unconfined"}}}), Some("unconfined")),
        (
            json!({"Privileges": {"Seccomp": {"Mode": "custom", "Profile": "e30="}}}),
            Some("unconfined"),
        ),
        (json!({"Privileges": {"Seccomp": {"Mode": 7}}}), Some("unconfined")),
        (json!({"Privileges": {"AppArmor": {"Mode": "disabled"}}}), Some("unconfined")),
        (json!({"Privileges": {"SELinuxContext": {"Disable": true}}}), Some("unconfined")),
        (json!({"Privileges": {"SELinuxContext": {"Type": "spc_t"}}}), Some("unconfined")),
        (json!({"Privileges": {"SELinuxContext": {"Level": "s0:c1"}}}), Some("unconfined")),
        (json!({"Networks": [{"Target": "host"}]}), Some("host-network")),
    ]
}

fn evil() -> Vec<(Value, Option<&'static str>)> {
    [evil_binds(), evil_otherwise()].concat()
}

fn first(policy: &SpecPolicy, container: Value) -> Option<Violation> {
    policy.violations(&spec(container)).into_iter().next()
}

#[test]
fn the_default_policy_refuses_what_gives_the_host_away() {
    for (container, grant) in evil() {
        let violation = first(&SpecPolicy::default(), container.clone());
        let violation = violation.unwrap_or_else(|| panic!("{container} is permitted"));
        let named = violation.grant.map(|grant| grant.to_string());
        assert_eq!(named.as_deref(), grant, "{container}");
    }
}

#[test]
fn nothing_is_less_and_everything_leaves_the_daemons_own_directories_alone() {
    for (container, grant) in evil() {
        assert!(first(&SpecPolicy::nothing(), container.clone()).is_some(), "{container}");
        let refused = first(&SpecPolicy::everything(), container.clone()).is_some();
        assert_eq!(refused, grant.is_none(), "{container}");
    }
}

#[test]
fn what_a_refusal_names_permits_what_was_refused() {
    for (container, _) in evil() {
        let mut policy = SpecPolicy::default();
        // A directory above a socket needs a grant for each.
        for _ in 0..3 {
            match first(&policy, container.clone()).map(|it| it.grant) {
                Some(Some(grant)) => policy.allow(&grant),
                Some(None) | None => break,
            }
        }
        let left = first(&policy, container.clone());
        assert!(left.is_none_or(|it| it.grant.is_none()), "{container}");
        policy.validate().unwrap();
    }
}

#[test]
fn the_default_policy_permits_what_ordinary_services_have() {
    let read_only = |source: &str| json!({"Mounts": [{"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": true}]});
    for container in [
        json!({}),
        bind("/srv"),
        bind("/srv/{{.Service.Name}}/{{.Task.Slot}}"),
        bind("/mnt/nfs/app/"),
        bind("/data//pg"),
        read_only("/etc/localtime"),
        json!({"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x"}]}),
        json!({"Mounts": [{"Type": "tmpfs", "Target": "/x"}]}),
        volume(&json!({"type": "nfs", "o": "addr=10.0.0.9,rw", "device": ":/export"})),
        volume(&json!({"type": "cifs", "o": "username=a", "device": "//server/share"})),
        volume(&json!({"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})),
        json!({"CapabilityAdd": ["NET_BIND_SERVICE", "cap_chown"], "CapabilityDrop": ["ALL"]}),
        json!({"Sysctls": {"net.core.somaxconn": "100", "net/ipv4/ip_forward": "1"}}),
        json!({"Privileges": {"NoNewPrivileges": true, "Seccomp": {"Mode": "default"}}}),
        json!({"Privileges": {"SELinuxContext": {"Disable": false, "User": ""}, "AppArmor": null}}),
        json!({"Networks": [{"Target": "none"}]}),
    ] {
        assert_eq!(first(&SpecPolicy::default(), container.clone()), None, "{container}");
    }
}

#[test]
fn read_only_entries_permit_reading_alone() {
    let mut policy = SpecPolicy::nothing();
    policy.allow(&"bind-mount=/etc/ssl:ro".parse().unwrap());
    policy.bind("/etc/ssl/certs", Access::Read).unwrap();
    let refused = policy.bind("/etc/ssl/certs", Access::Write).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "TaskTemplate.ContainerSpec.Mounts: a writable mount of /etc/ssl/certs is not permitted"
    );
    policy.bind("/etc/ssl2", Access::Read).unwrap_err();
}

#[test]
fn grants_are_read_as_they_are_written() {
    for text in [
        "everything",
        "docker-socket",
        "host-network",
        "unconfined",
        "bind-mount=/",
        "bind-mount=/a b:ro",
        "capability=NET_ADMIN",
        "sysctl=net.*",
        "sysctl=*",
    ] {
        assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
    }
    let same = |text: &str| text.parse::<Grant>().unwrap().to_string();
    assert_eq!(same("capability=cap_net_admin"), "capability=NET_ADMIN");
    assert_eq!(same("bind-mount=/var/run//x/"), "bind-mount=/run/x");
    assert_eq!(same("sysctl=kernel/shmmax"), "sysctl=kernel.shmmax");
    for wrong in [
        "",
        "privileged",
        "bind-mount=",
        "bind-mount=a",
        "bind-mount=/a/..",
        "capability=",
        "sysctl=a*b",
        "docker-socket=yes",
    ] {
        let error = wrong.parse::<Grant>().unwrap_err().to_string();
        assert!(error.contains("expected"), "{wrong}: {error}");
    }
}

#[test]
fn denying_what_is_not_there_is_an_error() {
    let mut policy = SpecPolicy::default();
    policy.deny(&"bind-mount=/data".parse().unwrap()).unwrap();
    assert!(policy.bind("/data", Access::Read).is_err());
    let error = policy.deny(&"bind-mount=/data".parse().unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("bind-mount=/data is no entry of the policy, which has /srv"),
        "{error}"
    );
    policy.deny(&Grant::Everything).unwrap();
    assert_eq!(policy, SpecPolicy::nothing());
}

#[test]
fn a_policy_must_say_what_it_means() {
    let read = |json: Value| serde_json::from_value::<SpecPolicy>(json).unwrap();
    assert_eq!(read(json!({})), SpecPolicy::default());
    let error = read(json!({"Privileged": true})).validate().unwrap_err();
    assert_eq!(error.field, "Policy.Privileged");
    for (json, field) in [
        (json!({"BindMounts": ["srv"]}), "Policy.BindMounts"),
        (json!({"BindMounts": ["/srv/"]}), "Policy.BindMounts"),
        (json!({"BindMounts": ["/var/run"]}), "Policy.BindMounts"),
        (json!({"Capabilities": ["CAP_SYS_ADMIN"]}), "Policy.Capabilities"),
        (json!({"Sysctls": ["net.*.x"]}), "Policy.Sysctls"),
    ] {
        assert_eq!(read(json.clone()).validate().unwrap_err().field, field, "{json}");
    }
    SpecPolicy::everything().validate().unwrap();
    SpecPolicy::default().validate().unwrap();
}

/// Paths of a few parts that matter.
fn paths() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "",
        ".",
        "..",
        "srv",
        "srvx",
        "etc",
        "var",
        "run",
        "docker.sock",
        "lib",
        "swarm",
        "a",
        "{{.Task.Slot}}",
    ]);
    prop::collection::vec(part, 0..6).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    /// The kernel's reading of a path and ours are one, or the path is refused.
    #[test]
    fn no_spelling_escapes_its_directory(path in paths()) {
        let mut policy = SpecPolicy::nothing();
        policy.allow(&Grant::BindMount("/srv".to_owned()));
        let mut at: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(at.pop()),
                part => at.push(part),
            }
        }
        if policy.bind(&path, Access::Write).is_ok() {
            prop_assert_eq!(at.first(), Some(&"srv"));
            prop_assert!(!path.split('/').any(|part| part == ".."));
        }
    }

    #[test]
    fn a_normal_path_stays_as_it_is(path in paths()) {
        if let Some(normal) = normalise(&path) {
            prop_assert_eq!(normalise(&normal), Some(normal));
        }
    }

    #[test]
    fn any_text_is_judged(source in ".{0,40}") {
        // The default permits no text that does not begin with one of its own places.
        if SpecPolicy::default().bind(&source, Access::Read).is_ok() {
            prop_assert!(source.trim_start_matches(['/', '.']).starts_with(['s', 'd', 'm', 'e']));
        }
    }

    #[test]
    fn any_grant_that_is_read_is_read_again(text in "(bind-mount|capability|sysctl)=[ -~]{0,12}") {
        if let Ok(grant) = text.parse::<Grant>() {
            prop_assert_eq!(grant.to_string().parse::<Grant>().unwrap(), grant.clone());
            let mut policy = SpecPolicy::default();
            policy.allow(&grant);
            policy.validate().unwrap();
        }
    }
}
