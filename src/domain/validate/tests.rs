//! What is accepted, what is refused, in which words.

use super::*;
use crate::domain::container::{
    ConfigReference, ContainerSpec, FileTarget, Healthcheck, Mount, MountKind, SecretReference,
    Ulimit,
};
use crate::domain::network::NetworkAttachmentSpec;
use crate::domain::placement::{Preference, SpreadOver};
use crate::domain::resources::{Limits, Reservations};
use crate::domain::service::{PortConfig, Protocol};
use crate::domain::{ConfigId, SecretId};

fn spec() -> ServiceSpec {
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task_template.container_spec.image = "nginx:1.25".into();
    spec
}

fn with(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = spec();
    change(&mut spec);
    spec
}

fn in_container(change: impl FnOnce(&mut ContainerSpec)) -> ServiceSpec {
    with(|spec| change(&mut spec.task_template.container_spec))
}

/// Refused at a field, with a part of the text.
fn refuse(spec: &ServiceSpec, field: &str, part: &str) {
    let error = spec.validate().unwrap_err();
    assert_eq!(error.field.trim_start_matches("TaskTemplate.ContainerSpec."), field, "{error}");
    assert!(error.reason.contains(part), "{error}");
}

fn accept(spec: &ServiceSpec) {
    assert_eq!(spec.validate(), Ok(()));
}

#[test]
fn names() {
    accept(&spec());
    for good in ["a", "A1", "a-b_c", "a--b", &"x".repeat(63)] {
        accept(&with(|it| it.name = good.into()));
    }
    refuse(&with(|it| it.name.clear()), "Name", "meta: name must be provided");
    for bad in ["-a", "a-", "a.b", "a b", "ä", "_a", "a/b"] {
        let part = "name must be valid as a DNS name component";
        refuse(&with(|it| it.name = bad.into()), "Name", part);
    }
    let part = "name must be 63 characters or fewer";
    refuse(&with(|it| it.name = "x".repeat(64)), "Name", part);
}

#[test]
fn images() {
    let part = "ContainerSpec: image reference must be provided";
    refuse(&in_container(|it| it.image.clear()), "Image", part);
    let part = "\"Nginx:\" is not a valid repository/tag";
    refuse(&in_container(|it| it.image = "Nginx:".into()), "Image", part);
}

#[test]
fn modes_and_replicas() {
    let million = REPLICAS_MAX + 1;
    let many = with(|it| it.mode = Mode::Replicated { replicas: Some(million) });
    refuse(&many, "Mode.Replicated.Replicas", "1000001 replicas are more than 1000000");
    accept(&with(|it| it.mode = Mode::Replicated { replicas: Some(0) }));
    accept(&with(|it| it.mode = Mode::Global {}));
    let bounded = with(|it| {
        it.mode = Mode::Global {};
        it.task_template.placement = Some(Placement { max_replicas: 1, ..Placement::default() });
    });
    refuse(&bounded, "TaskTemplate.Placement.MaxReplicas", "replicated mode");
}

#[test]
fn updates_keep_name_and_mode() {
    let old = spec();
    assert_eq!(
        with(|it| it.mode = Mode::Replicated { replicas: None }).validate_update(&old),
        Ok(())
    );
    let text = |new: ServiceSpec| new.validate_update(&old).unwrap_err().to_string();
    let global = with(|it| it.mode = Mode::Global {});
    assert_eq!(text(global), "invalid Mode: service mode change is not allowed");
    let renamed = with(|it| it.name = "other".into());
    assert_eq!(text(renamed), "invalid Name: renaming services is not supported");
    assert!(text(with(|it| it.name.clear())).contains("must be provided"));
}

#[test]
fn resources_have_minima() {
    let limits = |nano_cpus, memory_bytes| {
        with(|it| {
            let limits = Limits { nano_cpus, memory_bytes, ..Limits::default() };
            let all = ResourceRequirements { limits: Some(limits), ..Default::default() };
            it.task_template.resources = Some(all);
        })
    };
    accept(&limits(0, 0));
    accept(&limits(NANO_CPUS_MIN, MEMORY_MIN));
    let field = "TaskTemplate.Resources.Limits.NanoCPUs";
    refuse(&limits(999_999, 0), field, "invalid cpu value 0.000999999: Must be at least 0.001");
    refuse(&limits(-1_500_000_000, 0), field, "invalid cpu value -1.5:");
    let field = "TaskTemplate.Resources.Limits.MemoryBytes";
    refuse(&limits(0, 4_194_303), field, "invalid memory value 4194303: Must be at least 4MiB");
    let reserved = with(|it| {
        let needs = Reservations { memory_bytes: -1, ..Reservations::default() };
        let all = ResourceRequirements { reservations: Some(needs), ..Default::default() };
        it.task_template.resources = Some(all);
    });
    refuse(&reserved, "TaskTemplate.Resources.Reservations.MemoryBytes", "at least 4MiB");
}

#[test]
fn environment_and_stop_signal() {
    accept(&in_container(|it| it.env = vec!["A=b".into(), "C".into(), "D==".into()]));
    for bad in ["", "=a", "A=\0"] {
        refuse(&in_container(|it| it.env = vec![bad.into()]), "Env", "invalid environment");
    }
    for good in ["", "SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1", "SIGXFSZ", "64"] {
        accept(&in_container(|it| it.stop_signal = good.into()));
    }
    for bad in ["SIGFOO", "0", "65", "-9", "RTMIN+16", "RTMIN3", " TERM"] {
        let part = format!("invalid signal: {bad}");
        refuse(&in_container(|it| it.stop_signal = bad.into()), "StopSignal", &part);
    }
}

#[test]
fn mounts() {
    let mount = |kind, source: &str, target: &str| Mount {
        kind,
        source: source.into(),
        target: target.into(),
        ..Mount::default()
    };
    let on = |mounts: Vec<Mount>| in_container(|it| it.mounts = mounts);
    use MountKind::{Bind, Cluster, Npipe, Tmpfs, Volume};
    accept(&on(vec![
        mount(Bind, "/srv/{{.Task.Slot}}", "/a"),
        mount(Volume, "data", "/b"),
        mount(Volume, "", "/c"),
        mount(Tmpfs, "", "/d"),
        mount(Volume, "v-{{.Node.ID}}", "{{.Service.Name}}"),
    ]));
    let twice = on(vec![mount(Volume, "a", "/x"), mount(Tmpfs, "", "/x/")]);
    refuse(&twice, "Mounts.Target", "ContainerSpec: duplicate mount point: /x/");
    for (it, field, part) in [
        (mount(Bind, "", "/a"), "Mounts.Source", "field Source must not be empty"),
        (mount(Bind, "a", "/a"), "Mounts.Source", "mount path must be absolute"),
        (mount(Volume, "a/b", "/a"), "Mounts.Source", "use type=bind"),
        (mount(Tmpfs, "a", "/a"), "Mounts.Source", "must not be specified"),
        (mount(Volume, "a", ""), "Mounts.Target", "must not be empty"),
        (mount(Volume, "a", "b"), "Mounts.Target", "'b' mount path must be absolute"),
        (mount(Volume, "a", "//"), "Mounts.Target", "destination can't be '/'"),
        (mount(Cluster, "a", "/a"), "Mounts.Type", "use bind, volume or tmpfs"),
        (mount(Npipe, "a", "/a"), "Mounts.Type", "use bind, volume or tmpfs"),
    ] {
        refuse(&on(vec![it]), field, part);
    }
}

#[test]
fn health_checks() {
    let check = |change: fn(&mut Healthcheck)| {
        let mut it =
            Healthcheck { test: vec!["CMD".into(), "true".into()], ..Healthcheck::default() };
        change(&mut it);
        in_container(|container| container.healthcheck = Some(it))
    };
    accept(&check(|_| {}));
    accept(&check(|it| it.test = vec!["NONE".into()]));
    accept(&check(|it| it.test.clear()));
    accept(&check(|it| it.interval = Some(Nanos(0))));
    refuse(&check(|it| it.test = vec!["CMD".into()]), "Healthcheck.Test", "CMD-SHELL");
    refuse(&check(|it| it.test = vec!["curl".into()]), "Healthcheck.Test", "CMD-SHELL");
    let part = "StartPeriod in HealthConfig cannot be less than 1ms";
    refuse(&check(|it| it.start_period = Some(Nanos(999_999))), "Healthcheck.StartPeriod", part);
    let part = "Retries in HealthConfig cannot be negative";
    refuse(&check(|it| it.retries = Some(-1)), "Healthcheck.Retries", part);
}

fn file(name: &str) -> Option<FileTarget> {
    let (uid, gid) = ("0".into(), "0".into());
    Some(FileTarget { name: name.into(), uid, gid, mode: 0o444 })
}

fn secret(name: &str, file: Option<FileTarget>) -> SecretReference {
    let secret_id = SecretId::from_bytes([1; 16]);
    SecretReference { file, secret_id, secret_name: name.into() }
}

fn config(name: &str, file: Option<FileTarget>) -> ConfigReference {
    let config_id = ConfigId::from_bytes([1; 16]);
    ConfigReference { file, config_id, config_name: name.into() }
}

#[test]
fn files_of_secrets_and_configs() {
    let on = |secrets: Vec<_>, configs: Vec<_>| {
        in_container(|it| (it.secrets, it.configs) = (secrets, configs))
    };
    accept(&on(
        vec![secret("a", file("a")), secret("b", file("/etc/b.pem")), secret("a", file("x/a"))],
        vec![config("a", file("a")), config("b", file("/etc/b.conf"))],
    ));
    for (it, part) in [
        (secret("", file("a")), "malformed secret reference"),
        (secret("a", None), "no target provided"),
        (secret("a", file("")), "invalid target file name"),
        (secret("a", file("../a")), "invalid target file name"),
        (secret("a", file("/run/../etc/passwd")), "invalid target file name"),
        (secret("a", file("a/")), "invalid target file name"),
        (secret("a", file(".")), "invalid target file name"),
        (secret("a", file("/")), "invalid target file name"),
        (secret("a", file("a\0")), "invalid target file name"),
    ] {
        refuse(&on(vec![it], vec![]), "Secrets", part);
    }
    refuse(&on(vec![], vec![config("a", None)]), "Configs", "no target provided");
    let twice = on(vec![secret("a", file("x")), secret("b", file("./x"))], vec![]);
    let part = "secret references 'a' and 'b' have a conflicting target: './x'";
    refuse(&twice, "Secrets", part);
    let both = on(vec![secret("a", file("x"))], vec![config("b", file("/run/secrets//x"))]);
    refuse(&both, "Configs", "config references 'a' and 'b' have a conflicting target");
    let named = FileTarget { uid: "www".into(), ..file("a").unwrap() };
    refuse(&on(vec![secret("a", Some(named))], vec![]), "Secrets.File.UID", "not a number");
}

#[test]
fn limits_hosts_and_windows() {
    let limit = |soft, hard| {
        let it = Ulimit { name: "nofile".into(), soft, hard };
        in_container(|container| container.ulimits = vec![it])
    };
    accept(&limit(1024, 2048));
    accept(&limit(1024, -1));
    refuse(&limit(2, 1), "Ulimits", "nofile=2:1");
    refuse(&limit(-1, 1), "Ulimits", "nofile=-1:1");
    accept(&in_container(|it| it.hosts = vec!["10.0.0.1 db master".into(), "::1 self".into()]));
    for bad in ["db 10.0.0.1", "10.0.0.1", ""] {
        refuse(&in_container(|it| it.hosts = vec![bad.into()]), "Hosts", "one or more names");
    }
    let privileges = |value: serde_json::Value| {
        in_container(|it| drop(it.extra.insert("Privileges".into(), value)))
    };
    accept(&privileges(serde_json::json!({"CredentialSpec": null, "NoNewPrivileges": true})));
    let windows = privileges(serde_json::json!({"CredentialSpec": {"File": "x"}}));
    refuse(&windows, "Privileges.CredentialSpec", "Windows");
}

#[test]
fn placement() {
    let placed = |placement: Placement| with(|it| it.task_template.placement = Some(placement));
    let constrained =
        |text: &str| placed(Placement { constraints: vec![text.into()], ..Placement::default() });
    accept(&constrained("node.labels.zone==a"));
    accept(&constrained("node.ip!=10.0.0.0/8"));
    let field = "TaskTemplate.Placement.Constraints";
    refuse(&constrained("node.colour~=red"), field, "\"node.colour~=red\": constraint expected");
    refuse(&constrained("node.role=manager"), field, "one operator from ==, !=; KEY==VALUE or");
    refuse(&constrained("node.rule==manager"), field, "\"node.rule==manager\": there is no key");
    refuse(&constrained(""), field, "\"\": constraint expected one operator from ==, !=");
    refuse(&constrained("node.ip==office"), field, "neither an IP address nor a subnet");
    let spread = |text: &str| {
        let over = SpreadOver { spread_descriptor: text.into() };
        let preferences = vec![Preference { spread: Some(over) }];
        placed(Placement { preferences, ..Placement::default() })
    };
    accept(&spread("node.labels.zone"));
    accept(&spread("Engine.Labels.disk"));
    let field = "TaskTemplate.Placement.Preferences";
    refuse(&spread("node.hostname"), field, "node.labels.NAME");
    refuse(&spread("node.labels."), field, "node.labels.NAME");
}

#[test]
fn policies() {
    let ratio = |max_failure_ratio| {
        let policy = UpdatePolicy { max_failure_ratio, ..UpdatePolicy::default() };
        with(|it| it.rollback_config = Some(policy))
    };
    accept(&ratio(0.0));
    accept(&ratio(1.0));
    for bad in [-0.1, 1.1, f64::NAN] {
        refuse(&ratio(bad), "RollbackConfig.MaxFailureRatio", "cannot be less than 0 or bigger");
    }
}

#[test]
fn ports() {
    let host = |published_port, protocol| PortConfig {
        target_port: 80,
        published_port,
        protocol,
        publish_mode: PublishMode::Host,
        ..PortConfig::default()
    };
    let on = |ports: Vec<PortConfig>| {
        with(|it| it.endpoint_spec = Some(EndpointSpec { ports, ..EndpointSpec::default() }))
    };
    use Protocol::{Tcp, Udp};
    accept(&on(vec![host(80, Tcp), host(80, Udp), host(0, Tcp), host(0, Tcp)]));
    let part = "EndpointSpec: duplicate published ports provided: 80";
    refuse(&on(vec![host(80, Tcp), host(80, Tcp)]), "EndpointSpec.Ports.PublishedPort", part);
    let nothing = PortConfig { target_port: 0, ..host(80, Tcp) };
    refuse(&on(vec![nothing]), "EndpointSpec.Ports.TargetPort", "1 to 65535");
    let ingress = || PortConfig { publish_mode: PublishMode::Ingress, ..host(8080, Tcp) };
    let field = "EndpointSpec.Ports.PublishMode";
    let part = "--publish mode=host,target=80,published=8080";
    refuse(&on(vec![ingress()]), field, part);
    let mut dnsrr = on(vec![ingress()]);
    dnsrr.endpoint_spec.as_mut().unwrap().mode = Some(EndpointMode::Dnsrr);
    refuse(&dnsrr, field, "can't be used with dnsrr mode");
}

#[test]
fn networks() {
    let joined = |targets: &[&str]| {
        let attach = |target: &&str| NetworkAttachmentSpec {
            target: (*target).into(),
            ..NetworkAttachmentSpec::default()
        };
        with(|it| it.task_template.networks = targets.iter().map(attach).collect())
    };
    for good in [&["host"][..], &["none"], &["a", "b"], &[]] {
        accept(&joined(good));
    }
    let field = "TaskTemplate.Networks.Target";
    refuse(&joined(&["host", "a"]), field, "cannot be combined");
    refuse(&joined(&["a", "a"]), field, "named twice");
    refuse(&joined(&[""]), field, "without a name");
    assert_eq!(joined(&["host"]).cluster_networks().count(), 0);
    assert_eq!(joined(&["a", "b"]).cluster_networks().collect::<Vec<_>>(), ["a", "b"]);
    assert!(unknown_network("a").to_string().contains("network a not found"));
}

#[test]
fn runtimes() {
    accept(&with(|it| it.task_template.runtime = "container".into()));
    let plugin = with(|it| it.task_template.runtime = "plugin".into());
    refuse(&plugin, "TaskTemplate.Runtime", "use container");
    let value = serde_json::json!({"Name": "x"});
    let spec = with(|it| drop(it.task_template.extra.insert("PluginSpec".into(), value)));
    refuse(&spec, "TaskTemplate.PluginSpec", "use ContainerSpec");
}

#[test]
fn payloads() {
    let named = |name: &str| PayloadSpec { name: name.into(), ..PayloadSpec::default() };
    for good in ["a", "a-b_c.d", "1", &"x".repeat(64)] {
        assert_eq!(named(good).validate(), Ok(()), "{good}");
    }
    assert!(named("").validate().unwrap_err().reason.contains("must be provided"));
    for bad in ["-a", "a.", "a/b", "a b", &"x".repeat(65)] {
        assert!(named(bad).validate().unwrap_err().reason.contains("only 64"), "{bad}");
    }
    let mut templated = named("a");
    templated.extra.insert("Templating".into(), serde_json::json!({"Name": "golang"}));
    assert_eq!(templated.validate().unwrap_err().field, "Templating");
    templated.extra.insert("Templating".into(), serde_json::Value::Null);
    assert_eq!(templated.validate(), Ok(()));
    for (bytes, fits) in [(0, false), (1, true), (511_999, true), (512_000, false)] {
        assert_eq!(PayloadSpec::validate_secret_size(bytes).is_ok(), fits, "{bytes}");
    }
    for (bytes, fits) in [(0, false), (1_023_999, true), (1_024_000, false)] {
        assert_eq!(PayloadSpec::validate_config_size(bytes).is_ok(), fits, "{bytes}");
    }
}

#[test]
fn cluster_and_nodes() {
    let cluster = ClusterSpec::default();
    assert_eq!(cluster.validate(), Ok(()));
    let renamed = ClusterSpec { name: "mine".into(), ..cluster.clone() };
    assert_eq!(renamed.validate().unwrap_err().field, "Name");
    let mut short = cluster.clone();
    short.ca.node_cert_expiry = Nanos::from_secs(3599);
    let text = short.validate().unwrap_err().to_string();
    assert!(text.ends_with("minimum certificate expiry time is: 1h0m0s"), "{text}");
    let mut slow = cluster.clone();
    slow.dispatcher.heartbeat_period = Nanos::from_secs(10);
    assert_eq!(slow.validate().unwrap_err().field, "Dispatcher.HeartbeatPeriod");
    let mut raft = cluster.clone();
    for (member, default) in super::RAFT_DEFAULTS {
        raft.raft.insert(member.to_owned(), default.into());
        assert_eq!(raft.validate(), Ok(()), "what is shown can be written back");
    }
    raft.raft.insert("KeepOldSnapshots".to_owned(), 1.into());
    assert_eq!(raft.validate().unwrap_err().field, "Raft.KeepOldSnapshots");
    let mut external = cluster;
    external.ca.extra.insert("ExternalCAs".into(), serde_json::json!([]));
    assert_eq!(external.validate(), Ok(()));
    external.ca.extra.insert("ExternalCAs".into(), serde_json::json!([{"URL": "x"}]));
    assert_eq!(external.validate().unwrap_err().field, "CAConfig.ExternalCAs");

    let mut node = NodeSpec::default();
    assert_eq!(node.validate(), Ok(()));
    node.labels.insert(String::new(), "a".into());
    assert_eq!(node.validate().unwrap_err().field, "Labels");
}
