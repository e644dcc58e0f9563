//! Backups that managers write by themselves.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lab::{self, Lab};

fn backups(host: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(lab::disk(host).join("backups")).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|it| it == "swarm"));
    found.sort();
    found
}

/// A host's settings: a backup every ten seconds, into a folder on its disk.
fn settings(host: usize) -> String {
    let disk = lab::disk(host).display().to_string();
    format!(
        "[backup]\nevery = \"10s\"\nkeep = 3\ndirectory = \"{disk}/backups\"\n\
         passphrase-file = \"{disk}/key\"\n"
    )
}

#[test]
fn managers_back_up_by_themselves_and_a_leaders_death_changes_nothing() {
    let program = Path::new(env!("CARGO_BIN_EXE_swarm"));
    let lab = Lab::hosts_of(3, program, "");
    for host in 1..=3 {
        let key = lab::disk(host).join("key");
        std::fs::write(&key, "correct horse battery\n").unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        lab.replace_daemon(host, program, &settings(host));
    }
    lab.until("the daemons answer", || (1..=3).all(|host| lab.try_swarm(host, &["info"]).ok));
    lab.form(3);
    // Nothing is made by itself, as the directory may be one that is not mounted.
    let listed = lab.try_swarm(1, &["backup", "ls"]);
    assert!(!listed.ok, "{listed:?}");
    lab.until("it is told what is missing", || lab.log(1).contains("is not there: make it"));
    for host in 1..=3 {
        std::fs::create_dir(lab::disk(host).join("backups")).unwrap();
    }
    lab.until("every manager writes its own", || (1..=3).all(|host| !backups(host).is_empty()));
    lab.until("all is well", || lab.try_swarm(1, &["backup", "ls"]).ok);
    let listed = lab.swarm(1, &["backup", "ls", "--format", "{{.State}} {{.Nodes}}"]);
    assert!(listed.lines().all(|line| line.starts_with("verified ")), "{listed}");
    assert!(lab.curl(1, "/x/v1/status", &[]).contains("\"Failed\":null"));

    lab.web(1, "web", 1, &[]);
    lab.act(&["kill", "1", "daemon"]);
    let at_death: Vec<PathBuf> = [2, 3].iter().flat_map(|host| backups(*host)).collect();
    lab.until("the others go on", || {
        [2, 3].iter().all(|host| {
            let fresh = backups(*host).into_iter().filter(|path| !at_death.contains(path));
            fresh.count() >= 2
        })
    });
    assert!((1..=3).all(|host| backups(host).len() <= 3), "no more than asked for");

    // The newest one is all that is needed for a cluster anew.
    let newest = lab::state().join("newest.swarm");
    std::fs::copy(backups(2).last().unwrap(), &newest).unwrap();
    lab.act(&["start", "1", "daemon"]);
    for host in [3, 2, 1] {
        lab.until("it leaves", || lab.try_swarm(host, &["leave", "--force"]).ok);
    }
    let key = lab::disk(1).join("key").display().to_string();
    let newest = newest.display().to_string();
    let words = ["backup", "restore", "--passphrase-file", &key];
    let place = ["--advertise-addr", "10.99.0.1", &newest];
    lab.swarm(1, &[&words[..], &place].concat());
    lab.until("the service is back", || lab.replicas(1, "web") == "1/1");
}
