//! Disks that are full, and disks that lie.

use crate::lab::{IMAGE, Lab};

/// Puts a small file system under the state directory of a host that is in no cluster yet.
fn shrink_disk(lab: &Lab, host: usize) {
    lab.act(&["kill", &host.to_string(), "daemon"]);
    // A loop device where there are any; memory elsewhere. Both end with the host.
    let file = crate::lab::state().join("small.ext4").display().to_string();
    let line = format!(
        "{{ truncate -s 400M {file} && mkfs.ext4 -q -m 0 {file} && \
         mount -o loop {file} /var/lib/swarm && rm {file}; }} || \
         mount -t tmpfs -o size=400M tmpfs /var/lib/swarm"
    );
    let made = lab.exec(host, &["sh", "-c", &line]);
    assert!(made.ok, "{}", made.err);
    lab.act(&["start", &host.to_string(), "daemon"]);
    lab.until("the daemon is back", || lab.try_swarm(host, &["info"]).ok);
}

/// Leaves so many MiB on the disk; 0 fills it to the last block.
fn fill(lab: &Lab, host: usize, leave: u64) {
    let line = format!(
        "free=$(( $(stat -f -c '%a * %S' /var/lib/swarm) / 1048576 - {leave} )); \
         if [ $free -gt 0 ]; then fallocate -l ${{free}}M /var/lib/swarm/filler-$$; fi; \
         if [ {leave} = 0 ]; then cat /dev/zero >/var/lib/swarm/filler-last-$$ 2>/dev/null; fi; :"
    );
    let filled = lab.exec(host, &["sh", "-c", &line]);
    assert!(filled.ok, "{}", filled.err);
}

fn create(lab: &Lab, by: usize, name: &str) -> crate::lab::Said {
    let spec = ["service", "create", "--detach", "--name", name, "--replicas", "0", IMAGE];
    lab.try_swarm(by, &spec)
}

#[test]
fn a_full_disk_refuses_changes_in_words_and_loses_nothing() {
    let lab = Lab::hosts(2);
    shrink_disk(&lab, 1);
    lab.swarm(1, &["init", "--advertise-addr", "10.99.0.1"]);
    lab.join(2, "worker");
    lab.until("all nodes ready", || lab.ready() == 2);
    lab.web(1, "web", 2, &[]);
    let before = lab.all_containers(&[1, 2], "web");
    let mut names: Vec<String> = vec!["web".to_owned()];
    let mut tries = 0..;
    // What is accepted must never be lost, whenever that is.
    let mut attempt = || {
        let name = format!("try-{}", tries.next().unwrap());
        let said = create(&lab, 1, &name);
        names.extend(said.ok.then_some(name));
        (said, names.len())
    };
    (0..5).for_each(|_| assert!(attempt().0.ok));
    // Less than is needed, then nothing at all: the second time the ballast has been given back.
    for leave in [40, 0, 0] {
        fill(&lab, 1, leave);
        let mut accepted = 0;
        lab.until("changes are refused, naming the disk", || {
            let (said, known) = attempt();
            accepted = known;
            let words = ["disk is full", "MiB are free", "/var/lib/swarm/raft", "make room"];
            !said.ok && words.iter().all(|word| said.err.contains(word))
        });
        let listed = lab.swarm(1, &["service", "ls", "--quiet"]);
        assert_eq!(listed.lines().count(), accepted, "reads go on");
        assert_eq!(lab.all_containers(&[1, 2], "web"), before, "tasks go on");
    }
    assert!(lab.exec(1, &["sh", "-c", "rm /var/lib/swarm/filler-*"]).ok);
    lab.until("changes are accepted again", || attempt().0.ok);
    lab.act(&["kill", "1", "daemon"]);
    lab.act(&["start", "1", "daemon"]);
    names.sort();
    lab.until("nothing that was accepted is lost, nothing refused is there", || {
        let said = lab.try_swarm(1, &["service", "ls", "--format", "{{.Name}}"]);
        let mut found: Vec<_> = said.out.lines().map(ToOwned::to_owned).collect();
        found.sort();
        found == names
    });
    lab.until("all is well", || lab.ready() == 2 && lab.replicas(1, "web") == "2/2");
    assert_eq!(lab.all_containers(&[1, 2], "web"), before, "no container was touched");
}

fn managers(lab: &Lab, by: usize) -> usize {
    let status = lab.try_swarm(by, &["node", "ls", "--format", "{{.ManagerStatus}}"]).out;
    status.lines().filter(|line| *line == "Leader" || *line == "Reachable").count()
}

#[test]
fn a_manager_whose_log_was_damaged_steps_aside_and_says_the_way_back() {
    let lab = Lab::cluster(3, 3);
    lab.web(1, "web", 3, &[]);
    let before = lab.all_containers(&[1, 2, 3], "web");
    let id = lab.swarm(3, &["info", "--format", "{{.Swarm.NodeID}}"]);
    lab.act(&["kill", "3", "daemon"]);
    // One byte in every 2 KiB of the database, as a controller that lies might leave it.
    let flip = "db=/var/lib/swarm/raft/log/db; size=$(stat -c %s $db); at=512; \
                while [ $at -lt $size ] && [ $at -lt 524288 ]; do \
                printf '\\252' | dd of=$db bs=1 seek=$at conv=notrunc status=none; \
                at=$((at + 2048)); done";
    let flipped = lab.exec(3, &["sh", "-c", flip]);
    assert!(flipped.ok, "{}", flipped.err);
    lab.act(&["start", "3", "daemon"]);
    let way = ["swarm node replace", "swarm leave --force", "join again"];
    lab.until("the node says what is wrong and what to do", || {
        let info = lab.try_swarm(3, &["info"]).out;
        info.contains("Swarm: error")
            && info.contains("the raft data in /var/lib/swarm/raft is damaged")
            && way.iter().all(|step| info.contains(step))
    });
    let refused = lab.try_swarm(3, &["service", "ls"]);
    assert!(!refused.ok && refused.err.contains("is damaged"), "{}", refused.err);
    lab.until("the others know that one manager is missing", || managers(&lab, 1) == 2);
    // They go on, and so does the node's worker half.
    for by in [1, 2] {
        let label = format!("by=host-{by}");
        lab.swarm(by, &["service", "update", "--detach", "--label-add", &label, "web"]);
    }
    lab.until("its tasks go on", || lab.ready() == 3 && lab.replicas(1, "web") == "3/3");
    assert_eq!(lab.all_containers(&[1, 2, 3], "web"), before);
    // The way back, step by step as it was told.
    assert!(lab.try_swarm(1, &["node", "replace", "self"]).err.contains("on another manager"));
    let told = lab.swarm(1, &["node", "replace", &id]);
    assert!(told.contains("swarm leave --force") && told.contains("join --token"), "{told}");
    lab.swarm(3, &["leave", "--force"]);
    lab.join(3, "manager");
    lab.until("three managers again", || managers(&lab, 1) == 3 && managers(&lab, 3) == 3);
    lab.swarm(3, &["service", "scale", "web=4"]);
    assert_eq!(lab.replicas(3, "web"), "4/4");
}
