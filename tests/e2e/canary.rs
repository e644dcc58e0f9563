//! Secrets that are used in every way there is, and then looked for everywhere.
//!
//! Every value is searched for as it is, in base 64 (at any offset, both alphabets) and in hex, in all
//! files of all hosts (state, engine, logs, `/run`), in the environment and the command lines of their
//! processes, and in all that was printed. Where the design puts a value is named here, place by place.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::lab::{Lab, state};
use crate::registry::{ADDRESS, Registry, Shelf};

const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
const ALPHABET: [&str; 2] = [
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
];
/// Larger files are none of ours: images and their layers.
const FILE_MAX: u64 = 256 << 20;

/// What must not be found, by name, and how each would look.
#[derive(Default)]
struct Canaries(BTreeMap<String, Vec<(&'static str, Vec<u8>)>>);

impl Canaries {
    fn add(&mut self, name: &str, value: &[u8]) {
        assert!(value.len() >= 16, "{name}: {} bytes are found by chance", value.len());
        let hex = |digits: &str| {
            let digits = digits.as_bytes();
            let pair = |byte: &u8| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]];
            value.iter().flat_map(pair).collect::<Vec<u8>>()
        };
        let mut looks = vec![
            ("as it is", value.to_vec()),
            ("in hex", hex("0123456789abcdef")),
            ("in hex", hex("0123456789ABCDEF")),
        ];
        for alphabet in ALPHABET {
            looks.extend((0..3).map(|offset| ("in base 64", base64(value, offset, alphabet))));
        }
        self.0.insert(name.to_owned(), looks);
    }

    /// The names that are in some bytes.
    fn within(&self, bytes: &[u8]) -> Vec<String> {
        let has = |look: &[u8]| memchr::memmem::find(bytes, look).is_some();
        let found = self.0.iter().filter_map(|(name, looks)| {
            let (how, _) = looks.iter().find(|(_, look)| has(look))?;
            Some(format!("{name} {how}"))
        });
        found.collect()
    }
}

/// What is the same in base 64 whatever stands around, when the value begins at an offset.
fn base64(value: &[u8], offset: usize, alphabet: &str) -> Vec<u8> {
    let whole = &value[(3 - offset) % 3..];
    let triples = whole.chunks_exact(3);
    let letters = triples.flat_map(|triple| {
        let bits = u32::from_be_bytes([0, triple[0], triple[1], triple[2]]);
        [18, 12, 6, 0].map(|shift| alphabet.as_bytes()[(bits >> shift) as usize & 63])
    });
    letters.collect()
}

fn random(kind: &str) -> String {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    format!("canary-{kind}-{}", bytes.map(|byte| format!("{byte:02x}")).concat())
}

/// Everything that commands printed that were not asked for a secret.
#[derive(Default)]
struct Printed(Vec<(String, String)>);

impl Printed {
    fn swarm(&mut self, lab: &Lab, host: usize, line: &[&str]) -> String {
        let said = lab.try_swarm(host, line);
        self.0.push((format!("swarm {line:?}"), format!("{}\n{}", said.out, said.err)));
        assert!(said.ok, "swarm {line:?}: {}", said.err);
        said.out
    }

    fn docker(&mut self, lab: &Lab, host: usize, line: &[&str]) {
        let api = format!("unix://{}", crate::lab::socket(host).display());
        let said = lab.exec(host, &[&["docker", "-H", &api], line].concat());
        assert!(said.ok, "docker {line:?}: {}", said.err);
        self.0.push((format!("docker {line:?}"), format!("{}\n{}", said.out, said.err)));
    }
}

/// Files below a directory, without sockets, devices, links, and what belongs to the kernel.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() && !kind.is_socket() {
            found.push(path);
        }
    }
}

/// The directories of a host that may hold anything of ours, and its processes' arguments.
fn places(host: usize) -> Vec<PathBuf> {
    let name = std::env::var("LAB_NAME").unwrap_or_else(|_| "swl".to_owned());
    let disk = state().join(format!("{name}-h{host}"));
    let pid = std::fs::read_to_string(disk.join("pid")).unwrap();
    vec![disk, PathBuf::from(format!("/proc/{}/root/run", pid.trim()))]
}

/// Where canaries were found, as `file: canary how`, and in how many files one is where it belongs.
fn scan(
    lab: &Lab,
    canaries: &Canaries,
    hosts: usize,
    belongs: impl Fn(&Path, &str) -> bool,
) -> (BTreeSet<String>, usize) {
    let mut leaks = BTreeSet::new();
    let (mut read, mut at_home) = (0, 0);
    for host in 1..=hosts {
        let mut all = Vec::new();
        places(host).iter().for_each(|place| files(place, &mut all));
        for path in all {
            let small = path.metadata().is_ok_and(|meta| meta.len() <= FILE_MAX);
            let Some(bytes) = small.then(|| std::fs::read(&path).ok()).flatten() else { continue };
            read += 1;
            for name in canaries.within(&bytes) {
                if belongs(&path, &name) {
                    at_home += 1;
                } else {
                    leaks.insert(format!("host {host} {}: {name}", path.display()));
                }
            }
        }
        let line = "for it in /proc/[0-9]*; do cat $it/environ $it/cmdline 2>/dev/null; done";
        let said = lab.exec(host, &["sh", "-c", line]);
        for name in canaries.within(said.out.as_bytes()) {
            leaks.insert(format!("host {host}, environment or arguments: {name}"));
        }
    }
    assert!(read > 20 * hosts, "only {read} files were read");
    (leaks, at_home)
}

/// The task's own copy of a secret: a file in memory, for the container alone.
fn is_task_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("/root/run/swarm/tasks/") && text.contains("/secrets/")
}

/// A lab in which secrets are used.
struct Story {
    lab: Lab,
    canaries: Canaries,
    printed: Printed,
    /// Files of the user's, which no host has.
    outside: tempfile::TempDir,
    secret: String,
    passphrase: String,
}

#[test]
fn secrets_are_found_nowhere_but_where_they_belong() {
    // Core files are allowed here; the daemon must refuse them itself.
    let unlimited = nix::sys::resource::RLIM_INFINITY;
    let cores = nix::sys::resource::Resource::RLIMIT_CORE;
    nix::sys::resource::setrlimit(cores, unlimited, unlimited).unwrap();
    let mut story = Story {
        // Everything is logged that can be.
        lab: Lab::cluster_with(4, 3, &[("SWARM_LOG", "debug,swarm=trace")]),
        canaries: Canaries::default(),
        printed: Printed::default(),
        outside: tempfile::tempdir().unwrap(),
        secret: random("secret"),
        passphrase: random("passphrase"),
    };
    story.canaries.add("secret", story.secret.as_bytes());
    story.canaries.add("backup passphrase", story.passphrase.as_bytes());
    let _registries = story.run_tasks();
    let key = story.draw_keys();
    story.back_up();
    story.compact_and_kill();
    story.crash_the_first_manager(&key);
    look_at_everything(&story.lab, &mut story.printed);
    let Story { lab, canaries, printed, .. } = &story;
    for (what, text) in &printed.0 {
        assert_eq!(canaries.within(text.as_bytes()), Vec::<String>::new(), "{what} printed it");
    }
    let belongs = |path: &Path, name: &str| name.starts_with("secret as") && is_task_file(path);
    let (leaks, at_home) = scan(lab, canaries, 4, belongs);
    assert!(leaks.is_empty(), "{leaks:#?}");
    // What is there is found: three tasks of `web` with three copies each, and `pulled` with one.
    assert!(at_home >= 10, "only {at_home} of the tasks' own copies were seen");

    // And when nobody uses them any more, they are nowhere at all.
    lab.swarm(2, &["service", "rm", "web", "pulled"]);
    lab.until("the secrets are free", || lab.try_swarm(2, &["secret", "rm", "one", "two"]).ok);
    lab.until("their files are gone", || {
        let left = |host| lab.exec(host, &["sh", "-c", "ls /run/swarm/tasks | wc -l"]).out != "0";
        !(1..=4).any(left)
    });
    let (leaks, _) = scan(lab, canaries, 4, |_, _| false);
    assert!(leaks.is_empty(), "{leaks:#?}");
}

impl Story {
    /// Secrets by each client, in tasks, through an update and back; an image that wants a password.
    fn run_tasks(&mut self) -> Vec<Registry> {
        let lab = &self.lab;
        let api = format!("docker -H unix://{}", crate::lab::socket(1).display());
        for (client, name) in [(SWARM, "one"), (api.as_str(), "two")] {
            // The shell's own arguments are gone with it.
            let line = format!("printf %s '{}' | {client} secret create {name} -", self.secret);
            assert!(lab.exec(1, &["sh", "-c", &line]).ok);
        }
        let password = random("password");
        self.canaries.add("registry password", password.as_bytes());
        let auth = swarm::domain::base64::encode(format!("me:{password}").as_bytes());
        let arch = lab.docker(1, &["version", "--format", "{{.Server.Arch}}"]);
        let registry = |host| Shelf::default().login(&auth).image("private", &arch).open(lab, host);
        let registries = (1..=4).map(registry).collect();
        let config = json!({"auths": {ADDRESS: {"auth": auth}}}).to_string();
        std::fs::write(self.outside.path().join("config.json"), config).unwrap();

        let more = ["--secret", "one", "--secret", "source=one,target=again,mode=0400"];
        lab.web(1, "web", 2, &[&more[..], &["--secret", "source=two,target=/opt/two"]].concat());
        let config = format!("DOCKER_CONFIG={}", self.outside.path().display());
        let image = format!("{ADDRESS}/private:1");
        let create = ["env", &config, SWARM, "service", "create", "--name", "pulled"];
        let more = ["--with-registry-auth", "--secret", "two", &image, "sleep", "inf"];
        let said = lab.exec(1, &[&create[..], &more].concat());
        assert!(said.ok, "{}", said.err);
        self.printed.0.push(("service create".to_owned(), said.out + &said.err));
        let reads = |host: usize, path: &str| {
            let first = lab.containers(host, "web").pop();
            first.map(|(id, _)| lab.try_docker(host, &["exec", &id, "cat", path]).out)
        };
        for path in ["/run/secrets/one", "/run/secrets/again", "/opt/two"] {
            let read = (1..=4).find_map(|host| reads(host, path));
            assert_eq!(read.as_ref(), Some(&self.secret), "{path}");
        }
        self.printed.swarm(lab, 2, &["service", "update", "--env-add", "A=1", "web"]);
        self.printed.swarm(lab, 2, &["service", "rollback", "web"]);
        self.printed.swarm(lab, 2, &["service", "scale", "web=3"]);
        registries
    }

    /// Unlock keys and join tokens; the unlock key that holds.
    fn draw_keys(&mut self) -> String {
        let lab = &self.lab;
        lab.swarm(1, &["update", "--autolock"]);
        let first = lab.swarm(1, &["unlock-key", "--quiet"]);
        let newer = lab.swarm(1, &["unlock-key", "--rotate", "--quiet"]);
        for (name, text) in [("unlock key", &first), ("newer unlock key", &newer)] {
            self.canaries.add(name, text.strip_prefix("SWMKEY-1-").unwrap().as_bytes());
        }
        for role in ["worker", "manager"] {
            let token = lab.swarm(1, &["join-token", "--quiet", role]);
            let secret = token.rsplit('-').next().unwrap();
            self.canaries.add(&format!("{role} token"), secret.as_bytes());
        }
        newer
    }

    /// A backup, and what it tells of the cluster's own keys to who has its passphrase.
    fn back_up(&mut self) {
        let pass = self.outside.path().join("pass");
        std::fs::write(&pass, &self.passphrase).unwrap();
        let backup = self.outside.path().join("canary.swarm");
        let (pass, file) = (pass.display().to_string(), backup.display().to_string());
        for command in ["create", "verify"] {
            let line = ["backup", command, "--passphrase-file", &pass, &file];
            self.printed.swarm(&self.lab, 1, &line);
        }
        let sealed = std::fs::read(&backup).unwrap();
        let (_, state) = swarm::raft::archive::read(&sealed, self.passphrase.as_bytes()).unwrap();
        let cluster = state.cluster.clone().unwrap();
        self.canaries.add("token key", cluster.token_key.expose());
        let key = cluster.autolock.key.as_ref().unwrap();
        self.canaries.add("newer unlock key's bytes", key.expose());
        let pem = String::from_utf8(cluster.authority.key_pem.expose().to_vec()).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        // The first 48 characters say "a key of P-256": every node's key begins with them.
        self.canaries.add("root key in its file", &body.as_bytes()[48..88]);
        self.canaries.add("root key", &swarm::domain::base64::decode(&body).unwrap());
        assert_eq!(self.canaries.within(&sealed), Vec::<String>::new(), "the backup is sealed");
        let secret = self.secret.as_bytes();
        assert!(state.secrets.values().any(|it| it.data.expose() == secret));
    }

    /// A log that was compacted, an agent that was killed.
    fn compact_and_kill(&self) {
        let (lab, payload) = (&self.lab, self.outside.path().join("payload"));
        std::fs::write(&payload, vec![b'x'; 400_000]).unwrap();
        for number in 0..48 {
            let name = format!("c{number}");
            lab.swarm(1, &["config", "create", &name, &payload.display().to_string()]);
        }
        lab.until("a snapshot took the place of entries", || {
            lab.exec(1, &["sh", "-c", "ls /var/lib/swarm/raft*/snapshots | wc -l"]).out != "0"
        });
        lab.act(&["kill", "4", "daemon"]);
        lab.act(&["start", "4", "daemon"]);
        lab.until("the worker is back", || lab.ready() == 4);
    }

    /// A manager that falls leaves no core file, and comes back locked.
    fn crash_the_first_manager(&mut self, key: &str) {
        let lab = &self.lab;
        let pid = lab.exec(1, &["cat", "/run/lab-swarm.pid"]).out;
        let limits = lab.exec(1, &["cat", &format!("/proc/{pid}/limits")]).out;
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let numbers: Vec<_> = cores.split_whitespace().skip(4).take(2).collect();
        assert_eq!(numbers, ["0", "0"], "{cores}");
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", outside_pid(&pid))).unwrap();
        let listed = || -> BTreeSet<_> {
            std::fs::read_dir(&cwd).unwrap().flatten().map(|it| it.file_name()).collect()
        };
        let before = listed();
        assert!(lab.exec(1, &["kill", "-ABRT", &pid]).ok);
        lab.until("the manager that crashed is locked", || {
            lab.try_swarm(1, &["info"]).out.contains("locked")
        });
        let fresh: Vec<_> = listed().difference(&before).cloned().collect();
        assert!(fresh.is_empty(), "a core file: {fresh:?}");
        let wrong = lab.exec(1, &["sh", "-c", &format!("echo SWMKEY-1-wrong | {SWARM} unlock")]);
        self.printed.0.push(("unlock with a wrong key".to_owned(), wrong.out + &wrong.err));
        // From a file: what is written into a command line is in a command line.
        let file = self.outside.path().join("key");
        std::fs::write(&file, key).unwrap();
        let line = format!("{SWARM} unlock < {}", file.display());
        let opened = lab.exec(1, &["sh", "-c", &line]);
        assert!(opened.ok, "{}", opened.err);
        lab.until("the manager is back", || lab.ready() == 4);
    }
}

/// The machine's number of the daemon that host 1 knows by another.
fn outside_pid(inside: &str) -> u32 {
    let of = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let mut numbers = numbers.split_whitespace().rev();
        let nested = numbers.next() == Some(inside) && numbers.next().is_some();
        let name = status.lines().next()?.ends_with("swarm");
        (nested && name).then_some(pid)
    };
    let mut found = std::fs::read_dir("/proc").unwrap().flatten().filter_map(of);
    found.next().unwrap()
}

/// All that shows something, by our client, by Docker's and by the bare API.
fn look_at_everything(lab: &Lab, printed: &mut Printed) {
    for line in [
        &["service", "inspect", "web", "pulled"][..],
        &["service", "inspect", "--pretty", "web"],
        &["service", "ps", "--no-trunc", "web"],
        &["service", "ls"],
        &["secret", "inspect", "one", "two"],
        &["secret", "ls"],
        &["config", "ls"],
        &["node", "ls"],
        &["node", "inspect", "self"],
        &["node", "ps", "self"],
        &["info"],
        &["version"],
        &["policy", "show"],
        &["ca"],
    ] {
        printed.swarm(lab, 1, line);
    }
    let events = lab.exec(1, &["timeout", "2", SWARM, "events", "--since", "1h"]);
    printed.0.push(("swarm events".to_owned(), events.out + &events.err));
    for line in [
        &["service", "inspect", "web"][..],
        &["secret", "inspect", "one"],
        &["service", "ps", "web"],
        &["node", "inspect", "self"],
        &["info"],
    ] {
        printed.docker(lab, 1, line);
    }
    for host in 1..=4 {
        for id in lab.docker(host, &["ps", "--all", "--quiet"]).lines() {
            printed.0.push(("docker inspect".to_owned(), lab.docker(host, &["inspect", id])));
        }
    }
    for path in [
        "/services",
        "/tasks",
        "/secrets",
        "/configs",
        "/nodes",
        "/info",
        "/x/v1/status",
        "/metrics",
        "/readyz",
    ] {
        printed.0.push((path.to_owned(), lab.curl(1, path, &[])));
    }
}
