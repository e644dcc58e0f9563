//! What an operator does on a bad day: locked managers, backups, a lost majority.

use crate::lab::{IMAGE, Lab, Said};

const SWARM: &str = env!("CARGO_BIN_EXE_swarm");

fn state(lab: &Lab, host: usize) -> String {
    lab.try_swarm(host, &["info", "--format", "{{.Swarm.LocalNodeState}}"]).out
}

/// Kills a host's daemon and starts it again; it comes up locked.
fn restart_locked(lab: &Lab, host: usize) {
    lab.act(&["kill", &host.to_string(), "daemon"]);
    lab.act(&["start", &host.to_string(), "daemon"]);
    lab.until("it comes up locked", || state(lab, host) == "locked");
}

fn unlock(lab: &Lab, host: usize, client: &str, key: &str) -> Said {
    lab.exec(host, &["sh", "-c", &format!("echo '{key}' | {client} unlock")])
}

#[test]
fn a_locked_manager_opens_with_its_key_and_its_containers_never_stop() {
    let lab = Lab::hosts(1);
    let said = lab.swarm(1, &["init", "--advertise-addr", "10.99.0.1", "--autolock"]);
    let key = lab.swarm(1, &["unlock-key", "--quiet"]);
    assert!(key.starts_with("SWMKEY-1-") && said.contains(&key), "{said}");
    lab.web(1, "web", 2, &[]);
    let before = lab.containers(1, "web");
    let addresses = lab.addresses(&[1], "web");

    restart_locked(&lab, 1);
    let refused = lab.try_swarm(1, &["service", "ls"]);
    let text = "Swarm is encrypted and needs to be unlocked before it can be used. \
                Please use \"swarm unlock\" to unlock it.";
    assert!(!refused.ok && refused.err.contains(text), "{}", refused.err);
    lab.until("names go on", || lab.resolve(1, "web", "web") == addresses);
    for wrong in ["", "SWMKEY-1-x", &format!("SWMKEY-1-{}", "A".repeat(43))] {
        let refused = unlock(&lab, 1, SWARM, wrong);
        assert!(!refused.ok && refused.err.contains("invalid key provided"), "{refused:?}");
    }
    assert_eq!(state(&lab, 1), "locked", "a wrong key changes nothing");
    let opened = unlock(&lab, 1, SWARM, &key);
    assert!(opened.ok, "{opened:?}");
    lab.until("it leads again", || lab.replicas(1, "web") == "2/2" && lab.ready() == 1);
    assert_eq!(lab.containers(1, "web"), before, "same processes, same start times");
    assert!(unlock(&lab, 1, SWARM, &key).err.contains("not locked"));

    // A rotated key: the old one opens nothing any more. With Docker's own client.
    let docker = "docker -H unix:///run/swarm/swarm.sock swarm";
    let rotated = lab.exec(1, &["sh", "-c", &format!("{docker} unlock-key --rotate --quiet")]);
    assert!(rotated.ok && rotated.out != key, "{rotated:?}");
    restart_locked(&lab, 1);
    assert!(!unlock(&lab, 1, docker, &key).ok, "the old key");
    let opened = unlock(&lab, 1, docker, &rotated.out);
    assert!(opened.ok, "{opened:?}");
    lab.until("it leads again", || lab.replicas(1, "web") == "2/2" && lab.ready() == 1);

    // Without autolock a restart needs nobody.
    let off = lab.exec(1, &["sh", "-c", &format!("{docker} update --autolock=false")]);
    assert!(off.ok, "{off:?}");
    lab.act(&["kill", "1", "daemon"]);
    lab.act(&["start", "1", "daemon"]);
    lab.until("it leads by itself", || lab.replicas(1, "web") == "2/2" && lab.ready() == 1);
    assert_eq!(lab.containers(1, "web"), before, "same processes, same start times");
}

#[test]
fn a_manager_that_was_down_opens_with_the_key_it_last_knew() {
    let lab = Lab::cluster(3, 3);
    lab.swarm(1, &["update", "--autolock"]);
    let first = lab.swarm(2, &["unlock-key", "--quiet"]);
    let locks = |host: usize| {
        let key = "/var/lib/swarm/raft.key";
        lab.exec(host, &["sh", "-c", &format!("head -c 9 {key} | tail -c 1 | od -An -tu1")]).out
    };
    for host in [1, 2, 3] {
        lab.until("every manager locks its key", || locks(host) == "1");
    }
    lab.act(&["kill", "3", "daemon"]);
    let second = lab.swarm(1, &["unlock-key", "--rotate", "--quiet"]);
    assert_ne!(first, second);
    lab.act(&["start", "3", "daemon"]);
    lab.until("it comes up locked", || state(&lab, 3) == "locked");
    assert!(!unlock(&lab, 3, SWARM, &second).ok, "it has not heard of the new key");
    assert!(unlock(&lab, 3, SWARM, &first).ok);
    lab.until("it has caught up", || lab.ready_by(3) == 3);
    // It has followed: now the new key, and it alone, opens it.
    lab.until("it follows", || {
        restart_locked(&lab, 3);
        unlock(&lab, 3, SWARM, &second).ok || {
            assert!(unlock(&lab, 3, SWARM, &first).ok);
            lab.until("it is back", || lab.ready_by(3) == 3);
            false
        }
    });
    lab.until("all is well", || lab.ready_by(3) == 3);
}

/// The API's words of a refusal on a host.
fn refusal(lab: &Lab, host: usize) -> String {
    lab.try_swarm(host, &["service", "ls"]).err
}

#[test]
fn a_backup_brings_a_lost_manager_back_and_its_workers_follow() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 2, &["--constraint", "node.role==worker"]);
    let before = lab.containers(2, "web");
    let folder = crate::lab::state();
    let path = |name: &str| folder.join(name).display().to_string();
    let (file, key, wrong) = (path("one.swarm"), path("key"), path("wrong"));
    std::fs::write(&key, "correct horse battery\n").unwrap();
    std::fs::write(&wrong, "incorrect horse battery").unwrap();
    lab.swarm(1, &["backup", "create", "--passphrase-file", &key, &file]);
    let again = lab.try_swarm(1, &["backup", "create", "--passphrase-file", &key, &file]);
    assert!(!again.ok, "a file that is there is not replaced");
    let cluster = lab.swarm(1, &["info", "--format", "{{.Swarm.Cluster.ID}}"]);

    // Checked without a daemon, with the right passphrase alone, and damage is found.
    let verify = |key: &str, file: &str| {
        lab.exec(1, &[SWARM, "backup", "verify", "--passphrase-file", key, file])
    };
    let verified = verify(&key, &file);
    assert!(verified.ok && verified.out.contains(&cluster), "{verified:?}");
    assert!(verify(&wrong, &file).err.contains("passphrase does not open"));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = path("damaged.swarm");
    std::fs::write(&damaged, &bytes).unwrap();
    assert!(verify(&key, &damaged).err.contains("damaged"));

    // What comes after the backup is lost with the manager.
    let here = "node.hostname==host-1";
    let create = ["service", "create", "--detach", "--name", "younger", "--constraint", here];
    lab.swarm(1, &[&create[..], &[IMAGE, "sleep", "inf"]].concat());
    lab.until("a task on the manager itself", || !lab.containers(1, "younger").is_empty());
    lab.act(&["kill", "1", "daemon"]);
    lab.exec(1, &["sh", "-c", "rm -rf /var/lib/swarm/*"]);
    lab.act(&["start", "1", "daemon"]);
    lab.until("a host of no swarm", || state(&lab, 1) == "inactive");
    let restore = |key: &str, file: &str| {
        let address = ["--advertise-addr", "10.99.0.1"];
        let mut words = vec!["backup", "restore", "--passphrase-file", key];
        words.extend_from_slice(&address);
        words.push(file);
        lab.try_swarm(1, &words)
    };
    assert!(restore(&wrong, &file).err.contains("passphrase does not open"));
    assert!(restore(&key, &damaged).err.contains("damaged"));
    assert_eq!(state(&lab, 1), "inactive", "a refused restore leaves nothing");
    let restored = restore(&key, &file);
    assert!(restored.ok && restored.out.contains("only manager"), "{restored:?}");
    assert_eq!(lab.swarm(1, &["info", "--format", "{{.Swarm.Cluster.ID}}"]), cluster);
    lab.until("the worker follows by itself", || {
        lab.ready() == 2 && lab.replicas(1, "web") == "2/2"
    });
    assert_eq!(lab.containers(2, "web"), before, "no container was restarted");
    assert!(!lab.swarm(1, &["service", "ls"]).contains("younger"), "it came after the backup");
    assert_eq!(lab.containers(1, "younger").len(), 0, "nothing is left of the node that was lost");
    lab.swarm(1, &["service", "scale", "web=3"]);
}

#[test]
fn a_lost_majority_is_recovered_from_one_manager() {
    let lab = Lab::cluster(4, 3);
    lab.web(1, "web", 4, &[]);
    let before = lab.all_containers(&[1, 4], "web");
    let refused = lab.try_swarm(1, &["recover", "--force"]);
    assert!(refused.err.contains("have a quorum"), "{refused:?}");
    lab.act(&["stop", "3"]);
    lab.act(&["kill", "2", "daemon"]);
    lab.until("no leader", || refusal(&lab, 1).contains("does not have a leader"));
    let told = lab.swarm(1, &["recover"]);
    assert!(told.contains("would be the only manager") && told.contains("host-3"), "{told}");
    assert!(refusal(&lab, 1).contains("does not have a leader"), "nothing was changed");
    let done = lab.swarm(1, &["recover", "--force"]);
    assert!(done.contains("is the only manager"), "{done}");
    lab.until("it leads, and the worker is back", || lab.ready() == 2);
    lab.until("everything runs", || lab.replicas(1, "web") == "4/4");
    let after = lab.all_containers(&[1, 4], "web");
    assert!(before.iter().all(|it| after.contains(it)), "no container was restarted");

    // A manager of old comes back: it is told so, takes no part, and joins again.
    lab.act(&["start", "2", "daemon"]);
    lab.until("it finds no leader", || refusal(&lab, 2).contains("does not have a leader"));
    assert_eq!(lab.swarm(1, &["node", "ls", "--quiet"]).lines().count(), 2);
    lab.swarm(1, &["service", "update", "--detach", "--label-add", "after=recovery", "web"]);
    lab.swarm(2, &["leave", "--force"]);
    lab.join(2, "manager");
    lab.until("two managers", || {
        let status = lab.try_swarm(2, &["node", "ls", "--format", "{{.ManagerStatus}}"]).out;
        status.lines().filter(|line| *line == "Leader" || *line == "Reachable").count() == 2
    });
    // And once more, by Docker's own words.
    lab.act(&["kill", "2", "daemon"]);
    lab.until("no leader", || refusal(&lab, 1).contains("does not have a leader"));
    let docker = "docker -H unix:///run/swarm/swarm.sock swarm init --force-new-cluster";
    let forced = lab.exec(1, &["sh", "-c", &format!("{docker} --advertise-addr 10.99.0.1")]);
    assert!(forced.ok, "{forced:?}");
    lab.until("it leads", || lab.ready() == 2 && lab.replicas(1, "web") == "4/4");
}
