//! Member names of request bodies, brought to Docker's spelling.
//!
//! Go matches member names whatever their case, so clients really send `"replicated"`, `"global"` or
//! `"order"`; serde does not. Names are corrected only where a struct is expected: the keys of user
//! maps (labels, options, sysctls) are left alone. `null` means absent and is dropped.

use serde_json::{Map, Value};

/// What a member holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Something without known members: a scalar, a list of scalars, a map of the user's.
    Leaf,
    /// A struct.
    Struct(Schema),
    /// A list of structs.
    List(Schema),
}

/// The known members of a struct.
pub(super) type Schema = &'static [(&'static str, Kind)];

use Kind::{Leaf, List, Struct};

const UPDATE: Schema = &[
    ("Parallelism", Leaf),
    ("Delay", Leaf),
    ("FailureAction", Leaf),
    ("Monitor", Leaf),
    ("MaxFailureRatio", Leaf),
    ("Order", Leaf),
];
const DRIVER: Schema = &[("Name", Leaf), ("Options", Leaf)];
const FILE: Schema = &[("Name", Leaf), ("UID", Leaf), ("GID", Leaf), ("Mode", Leaf)];
const ATTACHMENT: Schema = &[("Target", Leaf), ("Aliases", Leaf), ("DriverOpts", Leaf)];
const MOUNT: Schema = &[
    ("Type", Leaf),
    ("Source", Leaf),
    ("Target", Leaf),
    ("ReadOnly", Leaf),
    ("Consistency", Leaf),
    (
        "BindOptions",
        Struct(&[
            ("Propagation", Leaf),
            ("NonRecursive", Leaf),
            ("CreateMountpoint", Leaf),
            ("ReadOnlyNonRecursive", Leaf),
            ("ReadOnlyForceRecursive", Leaf),
        ]),
    ),
    (
        "VolumeOptions",
        Struct(&[
            ("NoCopy", Leaf),
            ("Labels", Leaf),
            ("Subpath", Leaf),
            ("DriverConfig", Struct(DRIVER)),
        ]),
    ),
    ("TmpfsOptions", Struct(&[("SizeBytes", Leaf), ("Mode", Leaf), ("Options", Leaf)])),
];
const PRIVILEGES: Schema = &[
    ("CredentialSpec", Struct(&[("Config", Leaf), ("File", Leaf), ("Registry", Leaf)])),
    (
        "SELinuxContext",
        Struct(&[
            ("Disable", Leaf),
            ("User", Leaf),
            ("Role", Leaf),
            ("Type", Leaf),
            ("Level", Leaf),
        ]),
    ),
    ("Seccomp", Struct(&[("Mode", Leaf), ("Profile", Leaf)])),
    ("AppArmor", Struct(&[("Mode", Leaf)])),
    ("NoNewPrivileges", Leaf),
];
const CONTAINER: Schema = &[
    ("Image", Leaf),
    ("Labels", Leaf),
    ("Command", Leaf),
    ("Args", Leaf),
    ("Hostname", Leaf),
    ("Env", Leaf),
    ("Dir", Leaf),
    ("User", Leaf),
    ("Groups", Leaf),
    ("Privileges", Struct(PRIVILEGES)),
    ("TTY", Leaf),
    ("OpenStdin", Leaf),
    ("ReadOnly", Leaf),
    ("Mounts", List(MOUNT)),
    ("StopSignal", Leaf),
    ("StopGracePeriod", Leaf),
    (
        "Healthcheck",
        Struct(&[
            ("Test", Leaf),
            ("Interval", Leaf),
            ("Timeout", Leaf),
            ("Retries", Leaf),
            ("StartPeriod", Leaf),
            ("StartInterval", Leaf),
        ]),
    ),
    ("Hosts", Leaf),
    ("DNSConfig", Struct(&[("Nameservers", Leaf), ("Search", Leaf), ("Options", Leaf)])),
    ("Secrets", List(&[("File", Struct(FILE)), ("SecretID", Leaf), ("SecretName", Leaf)])),
    (
        "Configs",
        List(&[
            ("File", Struct(FILE)),
            ("Runtime", Leaf),
            ("ConfigID", Leaf),
            ("ConfigName", Leaf),
        ]),
    ),
    ("Isolation", Leaf),
    ("Init", Leaf),
    ("Sysctls", Leaf),
    ("CapabilityAdd", Leaf),
    ("CapabilityDrop", Leaf),
    ("Ulimits", List(&[("Name", Leaf), ("Soft", Leaf), ("Hard", Leaf)])),
    ("OomScoreAdj", Leaf),
];
const GENERIC: Schema = &[
    ("NamedResourceSpec", Struct(&[("Kind", Leaf), ("Value", Leaf)])),
    ("DiscreteResourceSpec", Struct(&[("Kind", Leaf), ("Value", Leaf)])),
];
const RESOURCES: Schema = &[
    ("Limits", Struct(&[("NanoCPUs", Leaf), ("MemoryBytes", Leaf), ("Pids", Leaf)])),
    (
        "Reservations",
        Struct(&[("NanoCPUs", Leaf), ("MemoryBytes", Leaf), ("GenericResources", List(GENERIC))]),
    ),
];
const RESTART: Schema =
    &[("Condition", Leaf), ("Delay", Leaf), ("MaxAttempts", Leaf), ("Window", Leaf)];
const PLACEMENT: Schema = &[
    ("Constraints", Leaf),
    ("Preferences", List(&[("Spread", Struct(&[("SpreadDescriptor", Leaf)]))])),
    ("MaxReplicas", Leaf),
    ("Platforms", List(&[("Architecture", Leaf), ("OS", Leaf)])),
];
const TASK: Schema = &[
    ("PluginSpec", Leaf),
    ("NetworkAttachmentSpec", Leaf),
    ("ContainerSpec", Struct(CONTAINER)),
    ("Resources", Struct(RESOURCES)),
    ("RestartPolicy", Struct(RESTART)),
    ("Placement", Struct(PLACEMENT)),
    ("Networks", List(ATTACHMENT)),
    ("LogDriver", Struct(DRIVER)),
    ("ForceUpdate", Leaf),
    ("Runtime", Leaf),
];
const PORT: Schema = &[
    ("Name", Leaf),
    ("Protocol", Leaf),
    ("TargetPort", Leaf),
    ("PublishedPort", Leaf),
    ("PublishMode", Leaf),
];

/// `ServiceSpec`.
pub(super) const SERVICE: Schema = &[
    ("Name", Leaf),
    ("Labels", Leaf),
    ("TaskTemplate", Struct(TASK)),
    (
        "Mode",
        Struct(&[
            ("Replicated", Struct(&[("Replicas", Leaf)])),
            ("Global", Struct(&[])),
            ("ReplicatedJob", Struct(&[("MaxConcurrent", Leaf), ("TotalCompletions", Leaf)])),
            ("GlobalJob", Struct(&[])),
        ]),
    ),
    ("UpdateConfig", Struct(UPDATE)),
    ("RollbackConfig", Struct(UPDATE)),
    ("Networks", List(ATTACHMENT)),
    ("EndpointSpec", Struct(&[("Mode", Leaf), ("Ports", List(PORT))])),
];

/// `NodeSpec`.
pub(super) const NODE: Schema =
    &[("Name", Leaf), ("Labels", Leaf), ("Role", Leaf), ("Availability", Leaf)];

/// `SecretSpec` and `ConfigSpec`.
pub(super) const PAYLOAD: Schema = &[
    ("Name", Leaf),
    ("Labels", Leaf),
    ("Data", Leaf),
    ("Driver", Struct(DRIVER)),
    ("Templating", Struct(DRIVER)),
];

/// `SwarmSpec`.
pub(super) const CLUSTER: Schema = &[
    ("Name", Leaf),
    ("Labels", Leaf),
    ("Orchestration", Struct(&[("TaskHistoryRetentionLimit", Leaf)])),
    (
        "Raft",
        Struct(&[
            ("SnapshotInterval", Leaf),
            ("KeepOldSnapshots", Leaf),
            ("LogEntriesForSlowFollowers", Leaf),
            ("ElectionTick", Leaf),
            ("HeartbeatTick", Leaf),
        ]),
    ),
    ("Dispatcher", Struct(&[("HeartbeatPeriod", Leaf)])),
    (
        "CAConfig",
        Struct(&[
            ("NodeCertExpiry", Leaf),
            ("ExternalCAs", Leaf),
            ("SigningCACert", Leaf),
            ("SigningCAKey", Leaf),
            ("ForceRotate", Leaf),
        ]),
    ),
    ("TaskDefaults", Struct(&[("LogDriver", Struct(DRIVER))])),
    ("EncryptionConfig", Struct(&[("AutoLockManagers", Leaf)])),
    (
        "Policy",
        Struct(&[
            ("DockerSocket", Leaf),
            ("HostNetwork", Leaf),
            ("Unconfined", Leaf),
            ("BindMounts", Leaf),
            ("Capabilities", Leaf),
            ("Sysctls", Leaf),
        ]),
    ),
];

/// Body of `POST /swarm/init`.
pub(super) const INIT: Schema = &[
    ("ListenAddr", Leaf),
    ("AdvertiseAddr", Leaf),
    ("DataPathAddr", Leaf),
    ("DataPathPort", Leaf),
    ("ForceNewCluster", Leaf),
    ("Spec", Struct(CLUSTER)),
    ("AutoLockManagers", Leaf),
    ("Availability", Leaf),
    ("DefaultAddrPool", Leaf),
    ("SubnetSize", Leaf),
];

/// Body of `POST /swarm/join`.
pub(super) const JOIN: Schema = &[
    ("ListenAddr", Leaf),
    ("AdvertiseAddr", Leaf),
    ("DataPathAddr", Leaf),
    ("RemoteAddrs", Leaf),
    ("JoinToken", Leaf),
    ("Availability", Leaf),
];

/// Body of `POST /swarm/unlock`.
pub(super) const UNLOCK: Schema = &[("UnlockKey", Leaf)];

/// Body of `POST /networks/create`, as far as it is looked at.
pub(super) const NETWORK: Schema =
    &[("Name", Leaf), ("Driver", Leaf), ("Scope", Leaf), ("Ingress", Leaf), ("Attachable", Leaf)];

/// Brings the member names of a value to the schema's spelling and drops `null`s, in depth.
pub(super) fn normalise(value: &mut Value, schema: Schema) {
    let Value::Object(members) = value else { return };
    let given = std::mem::take(members);
    let mut known = Map::new();
    for (name, mut member) in given {
        if member.is_null() {
            continue;
        }
        let Some((spelling, kind)) = find(schema, &name) else {
            known.entry(name).or_insert(member);
            continue;
        };
        match kind {
            Leaf => {}
            Struct(inner) => normalise(&mut member, inner),
            List(inner) => {
                if let Value::Array(items) = &mut member {
                    items.retain(|item| !item.is_null());
                    items.iter_mut().for_each(|item| normalise(item, inner));
                }
            }
        }
        let exact = name == spelling;
        if exact || !known.contains_key(spelling) {
            known.insert(spelling.to_owned(), member);
        }
    }
    *members = known;
}

fn find(schema: Schema, name: &str) -> Option<(&'static str, Kind)> {
    schema.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_corrected_where_structs_are_and_nowhere_else() {
        let mut body = json!({
            "name": "web",
            "labels": {"MyLabel": "x", "name": "y"},
            "TASKTEMPLATE": {"containerspec": {"image": "a", "HealthCheck": {"retries": 3},
                "mounts": [{"volumeoptions": {"DriverConfig": {"name": "local",
                    "options": {"Type": "nfs"}}}}], "sysctls": {"net.Core": "1"}}},
            "Mode": {"replicated": {"replicas": 2}, "Global": null},
            "rollbackconfig": {"order": "start-first"},
            "SomethingNew": {"kept": true},
        });
        normalise(&mut body, SERVICE);
        assert_eq!(
            body,
            json!({
                "Name": "web",
                "Labels": {"MyLabel": "x", "name": "y"},
                "TaskTemplate": {"ContainerSpec": {"Image": "a", "Healthcheck": {"Retries": 3},
                    "Mounts": [{"VolumeOptions": {"DriverConfig": {"Name": "local",
                        "Options": {"Type": "nfs"}}}}], "Sysctls": {"net.Core": "1"}}},
                "Mode": {"Replicated": {"Replicas": 2}},
                "RollbackConfig": {"Order": "start-first"},
                "SomethingNew": {"kept": true},
            })
        );
    }

    #[test]
    fn the_exact_spelling_wins_over_another() {
        let mut body = json!({"NAME": "wrong", "Name": "right", "name": "wrong too"});
        normalise(&mut body, NODE);
        assert_eq!(body, json!({"Name": "right"}));
    }
}
