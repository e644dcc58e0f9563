//! The engine dies, or hangs, in the middle of a host's life.

use crate::lab::Lab;

fn status(lab: &Lab, host: &str) -> String {
    lab.swarm(1, &["node", "inspect", "--format", "{{json .Status}}", host])
}

/// What the list of nodes and the node itself say.
fn is_degraded(lab: &Lab, host: &str, because: &str) -> bool {
    let listed = lab.swarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
    listed.contains(&format!("{host} Ready (degraded)")) && status(lab, host).contains(because)
}

fn is_well(lab: &Lab, host: &str) -> bool {
    let listed = lab.swarm(1, &["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
    let well = format!("{host} Ready");
    listed.lines().any(|line| line == well) && !status(lab, host).contains("Message")
}

fn ps(lab: &Lab, service: &str) -> String {
    lab.swarm(1, &["service", "ps", "--no-trunc", service])
}

#[test]
fn an_engine_dies_and_its_node_says_so_until_it_is_back() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 4, &["--restart-delay", "1s"]);
    let (first, second) = (lab.containers(1, "web"), lab.containers(2, "web"));
    assert_eq!(second.len(), 2);
    lab.act(&["kill", "2", "dockerd"]);
    lab.until("the node says why", || is_degraded(&lab, "host-2", "no container engine at"));
    lab.until("so do its tasks", || ps(&lab, "web").contains("no container engine at"));
    // Whoever looks at the host itself is told, too, and the swarm's own commands go on.
    assert!(lab.try_swarm(2, &["info"]).out.contains("Swarm: active"));
    lab.web(1, "other", 2, &[]);
    assert_eq!(lab.containers(1, "other").len(), 2, "nothing is placed where no engine is");
    // A task that ends while nobody watches is replaced, by the restart policy, when its engine is
    // back; the other one is not touched.
    let (_, life) = &second[0];
    let pid = life.split(' ').next().unwrap();
    assert!(lab.exec(2, &["kill", "-9", pid]).ok);
    lab.act(&["start", "2", "dockerd"]);
    lab.until("the node is well", || is_well(&lab, "host-2"));
    lab.until("all run", || {
        let all = ps(&lab, "web");
        lab.replicas(1, "web") == "4/4" && !all.contains("no container engine at")
    });
    assert!(ps(&lab, "web").contains("task: non-zero exit (137)"), "{}", ps(&lab, "web"));
    let after = lab.all_containers(&[1, 2], "web");
    assert!(!after.contains(&second[0]), "a dead container is not revived");
    for survivor in first.iter().chain(&second[1..]) {
        assert!(after.contains(survivor), "{survivor:?} was touched: {after:?}");
    }
}

#[test]
fn an_engine_that_hangs_holds_up_nobody_else() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 4, &[]);
    let before = lab.all_containers(&[1, 2], "web");
    let addresses = lab.addresses(&[1, 2], "web");
    let signal = |name: &str| {
        let line = format!("kill -{name} $(cat /run/lab-dockerd.pid)");
        assert!(lab.exec(2, &["sh", "-c", &line]).ok);
    };
    signal("STOP");
    // Nobody knows yet: some of the new tasks go there, and say what they wait for.
    lab.swarm(1, &["service", "scale", "--detach", "web=6"]);
    let late = "the container engine has not answered for 10 s";
    lab.until("tasks say what they wait for", || ps(&lab, "web").contains(late));
    lab.until("so does the node", || is_degraded(&lab, "host-2", "no answer within 10s"));
    assert!(lab.swarm(2, &["info"]).contains("Swarm: active"), "the daemon beside it answers");
    lab.web(1, "other", 2, &[]);
    assert_eq!(lab.containers(1, "other").len(), 2, "nothing is placed where the engine hangs");
    let resolved = lab.resolve(1, "web", "web");
    assert!(addresses.iter().all(|addr| resolved.contains(addr)), "names go on: {resolved:?}");
    signal("CONT");
    lab.until("the node is well", || is_well(&lab, "host-2"));
    lab.until("all run", || lab.replicas(1, "web") == "6/6" && !ps(&lab, "web").contains(late));
    let after = lab.all_containers(&[1, 2], "web");
    assert!(before.iter().all(|it| after.contains(it)), "no container was touched: {after:?}");
}
