//! Images: of a registry that wants a password, and of other platforms.

use serde_json::json;

use crate::lab::{Lab, Said};
use crate::registry::{ADDRESS, LOGIN, Shelf};

/// What credentials begin with when they are written down: base 64 of `{"password":`.
const WRITTEN: &str = "eyJwYXNzd29yZCI6";

/// Creates a service of one task that is not restarted.
fn create(lab: &Lab, name: &str, image: &str, more: &[&str]) -> Said {
    let image = format!("{ADDRESS}/{image}:1");
    let binary = env!("CARGO_BIN_EXE_swarm");
    let config = format!("DOCKER_CONFIG={}", crate::lab::state().display());
    let mut line = vec!["env", &config, binary, "service", "create", "--detach", "--name", name];
    line.extend(["--restart-condition", "none"]);
    line.extend_from_slice(more);
    line.extend([image.as_str(), "sleep", "inf"]);
    lab.exec(1, &line)
}

/// Waits until a service's task is rejected, with words in its reason.
fn rejected(lab: &Lab, service: &str, words: &[&str]) {
    lab.until(&format!("{service} is rejected for {words:?}"), || {
        let said = lab.swarm(1, &["service", "ps", "--no-trunc", service]);
        said.contains("Rejected") && words.iter().all(|word| said.contains(word))
    });
}

#[test]
fn images_come_by_the_users_credentials_and_for_the_nodes_platform() {
    let lab = Lab::cluster(1, 1);
    let own = lab.docker(1, &["version", "--format", "{{.Server.Arch}}"]);
    let other = if own == "arm64" { "amd64" } else { "arm64" };
    let shelf = Shelf::default().image("private", &own).image("foreign", other);
    let _registry = shelf.list("elsewhere", other).open(&lab, 1);
    let login = json!({"auths": {ADDRESS: {"auth": LOGIN}}}).to_string();
    std::fs::write(crate::lab::state().join("config.json"), login).unwrap();

    assert!(create(&lab, "stranger", "private", &[]).ok);
    rejected(&lab, "stranger", &["could not be pulled", "no basic auth credentials"]);
    let said = create(&lab, "friend", "private", &["--with-registry-auth"]);
    assert!(said.ok, "{}", said.err);
    lab.until("the image came", || lab.replicas(1, "friend") == "1/1");
    // The credentials are not shown, not logged, and lie in no file in the open.
    let tasks = lab.swarm(1, &["service", "ps", "--quiet", "friend"]);
    let docker = |line: &[&str]| {
        let socket = crate::lab::socket(1).display().to_string();
        let host = format!("unix://{socket}");
        lab.exec(1, &[&["docker", "-H", &host], line].concat()).out
    };
    for shown in
        [lab.swarm(1, &["service", "inspect", "friend"]), docker(&["inspect", &tasks]), lab.log(1)]
    {
        assert!(!shown.is_empty() && !shown.contains("RegistryAuth"), "{shown}");
        assert!(!shown.contains(WRITTEN) && !shown.contains("p???w"), "{shown}");
    }
    let found = lab.exec(1, &["grep", "-rl", WRITTEN, "/var/lib/swarm"]);
    assert_eq!(found.out, "", "credentials lie in the open");

    // What the node cannot run is rejected before it is tried.
    assert!(create(&lab, "foreign", "foreign", &["--with-registry-auth"]).ok);
    let constraint = format!("node.platform.arch=={other}");
    rejected(&lab, "foreign", &[&format!("is for linux/{other}"), &constraint]);
    let filter = "label=com.docker.swarm.service.name=foreign";
    assert_eq!(lab.docker(1, &["ps", "--all", "--quiet", "--filter", filter]), "");
    assert!(create(&lab, "elsewhere", "elsewhere", &["--with-registry-auth"]).ok);
    rejected(&lab, "elsewhere", &["could not be pulled", "no matching manifest"]);
}
