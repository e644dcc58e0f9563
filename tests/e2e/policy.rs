//! What services may ask of hosts: refused by the cluster, refused by a node, permitted by command.

use crate::lab::{IMAGE, Lab, state};

fn create(lab: &Lab, name: &str, more: &[&str]) -> crate::lab::Said {
    let mut line =
        vec!["service", "create", "--detach", "--restart-condition", "none", "--name", name];
    line.extend_from_slice(more);
    line.extend([IMAGE, "sleep", "inf"]);
    lab.try_swarm(1, &line)
}

fn rejected(lab: &Lab, service: &str, words: &[&str]) {
    lab.until(&format!("{service} is rejected for {words:?}"), || {
        let said = lab.swarm(1, &["service", "ps", "--no-trunc", service]);
        said.contains("Rejected") && words.iter().all(|word| said.contains(word))
    });
}

#[test]
fn hosts_are_given_away_to_nobody_whom_the_policies_do_not_permit() {
    // Not where the lab keeps its hosts: it clears that first.
    let outside = tempfile::tempdir().unwrap();
    let settings = outside.path().join("config.toml");
    let text = "[policy]\ncapabilities = [\"SYS_NICE\"]\n";
    std::fs::write(&settings, text).unwrap();
    let lab = Lab::cluster_with(1, 1, &[("SWARM_CONFIG", settings.to_str().unwrap())]);
    let socket = "type=bind,source=/var/run/docker.sock,target=/docker.sock";
    for (more, grant) in [
        (&["--mount", socket][..], "docker-socket"),
        (&["--network", "host"], "host-network"),
        (&["--cap-add", "NET_ADMIN"], "capability=NET_ADMIN"),
        (&["--mount", "type=bind,source=/etc,target=/x,readonly"], "bind-mount=/etc:ro"),
        (&["--sysctl", "kernel.shmmax=1"], "sysctl=kernel.shmmax"),
    ] {
        let said = create(&lab, "no", more);
        assert!(
            !said.ok && said.err.contains(&format!("swarm policy allow {grant}")),
            "{}",
            said.err
        );
    }
    // Docker's own client is told the same.
    let api = format!("unix://{}", crate::lab::socket(1).display());
    let line =
        ["docker", "-H", &api, "service", "create", "--network", "host", "--name", "no", IMAGE];
    assert!(lab.exec(1, &line).err.contains("swarm policy allow host-network"));

    // Where links lead, only the host knows.
    let data = state().join("data");
    drop(std::fs::remove_dir_all(&data));
    std::fs::create_dir_all(data.join("real")).unwrap();
    std::os::unix::fs::symlink("/etc", data.join("link")).unwrap();
    std::os::unix::fs::symlink(data.join("real"), data.join("alias")).unwrap();
    let data = data.display().to_string();
    lab.swarm(
        1,
        &["policy", "allow", &format!("bind-mount={data}"), "docker-socket", "host-network"],
    );
    lab.swarm(1, &["policy", "allow", "capability=NET_ADMIN", "capability=SYS_NICE"]);
    let mount = |name: &str| format!("type=bind,source={data}/{name},target=/x");
    assert!(create(&lab, "link", &["--mount", &mount("link")]).ok);
    rejected(&lab, "link", &["it is a link to /etc"]);
    assert!(create(&lab, "alias", &["--mount", &mount("alias")]).ok);
    assert!(create(&lab, "socket", &["--mount", socket, "--network", "host"]).ok);
    // This node is stricter than the cluster.
    assert!(create(&lab, "admin", &["--cap-add", "NET_ADMIN"]).ok);
    rejected(&lab, "admin", &["NET_ADMIN", "policy of this node"]);
    assert!(create(&lab, "nice", &["--cap-add", "SYS_NICE"]).ok);
    for service in ["alias", "socket", "nice"] {
        lab.until(&format!("{service} runs"), || lab.replicas(1, service) == "1/1");
    }

    // A stricter policy ends nothing, not even over a restart of the daemon.
    let before = lab.containers(1, "socket");
    let said = lab.try_swarm(1, &["policy", "deny", "docker-socket"]);
    assert!(said.ok && said.err.contains("socket: "), "{}", said.err);
    lab.act(&["kill", "1", "daemon"]);
    lab.act(&["start", "1", "daemon"]);
    lab.until("the node is back", || lab.ready() == 1);
    lab.swarm(1, &["service", "update", "--detach", "--label-add", "a=b", "socket"]);
    let said = lab.try_swarm(1, &["service", "update", "--detach", "--env-add", "A=1", "socket"]);
    assert!(!said.ok && said.err.contains("docker-socket"), "{}", said.err);
    assert_eq!(lab.containers(1, "socket"), before);
}
