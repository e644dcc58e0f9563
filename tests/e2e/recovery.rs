//! What an operator does on a bad day: locked managers.

use crate::lab::{Lab, Said};

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
