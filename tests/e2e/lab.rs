//! A lab of hosts, and what tests ask of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The image of the tests: one static busybox.
pub(crate) const IMAGE: &str = "swarm/test";

/// Hosts 1..=n of a lab; taken down when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    hosts: usize,
}

/// What a command said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A container of a task: its process, its begin, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) pid: String,
    pub(crate) started: String,
    pub(crate) task: String,
    pub(crate) service: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            err: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script(name: &str) -> Command {
    let mut command = Command::new(root().join("scripts").join(name));
    command.env("SWARM_BIN", env!("CARGO_BIN_EXE_swarm"));
    command.env("LAB_STATE", state());
    command
}

/// Where the lab's hosts keep their disks. Another folder and name let two runs stand side by side.
pub(crate) fn state() -> PathBuf {
    let dir = std::env::var_os("LAB_STATE").unwrap_or_else(|| "/var/tmp/swarm-e2e".into());
    PathBuf::from(dir)
}

/// What the names of the lab's hosts begin with.
fn name() -> String {
    std::env::var("LAB_NAME").unwrap_or_else(|_| "swl".to_owned())
}

/// The folder of a host, as the machine sees it.
pub(crate) fn disk(host: usize) -> PathBuf {
    state().join(format!("{}-h{host}", name()))
}

/// The API's socket of a host, as the machine sees it.
pub(crate) fn socket(host: usize) -> PathBuf {
    disk(host).join("sock/swarm.sock")
}

/// The root file system of the tests' image, as a tar.
pub(crate) fn image_tar() -> PathBuf {
    state().join("image.tar")
}

fn lab(arguments: &[&str]) -> Said {
    script("lab.sh").args(arguments).output().unwrap().into()
}

impl Lab {
    /// Hosts with daemons, in no cluster.
    pub(crate) fn hosts(hosts: usize) -> Self {
        Self::hosts_with(hosts, &[])
    }

    /// The same, with variables for `lab.sh`.
    pub(crate) fn hosts_with(hosts: usize, variables: &[(&str, &str)]) -> Self {
        // What an interrupted run left behind goes first.
        lab(&["down"]);
        let mut made = script("lab.sh");
        made.args(["hosts", &hosts.to_string()]).envs(variables.iter().copied());
        let made = Said::from(made.output().unwrap());
        assert!(made.ok, "lab: {} {}", made.out, made.err);
        let lab = Self { hosts };
        lab.load_image();
        lab
    }

    /// Hosts whose daemons run a program, with a settings file each; both can be changed.
    pub(crate) fn hosts_of(hosts: usize, program: &Path, settings: &str) -> Self {
        lab(&["down"]);
        for host in 1..=hosts {
            std::fs::create_dir_all(disk(host)).unwrap();
            std::fs::write(disk(host).join("config.toml"), settings).unwrap();
            std::fs::write(disk(host).join("program"), program.to_str().unwrap()).unwrap();
        }
        // What a host runs is looked up at every start; `dir` is the host's disk.
        let starter = state().join("starter");
        let text = "#!/bin/sh\nexport SWARM_CONFIG=$dir/config.toml\n\
                    exec \"$(cat \"$dir/program\")\" \"$@\"\n";
        std::fs::write(&starter, text).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&starter, executable).unwrap();
        let mut make = script("lab.sh");
        make.env("SWARM_BIN", &starter).args(["hosts", &hosts.to_string()]);
        let made = Said::from(make.output().unwrap());
        assert!(made.ok, "lab: {} {}", made.out, made.err);
        let lab = Self { hosts };
        lab.load_image();
        lab
    }

    /// Ends a host's daemon in order; the next one is of a program, with settings.
    pub(crate) fn replace_daemon(&self, host: usize, program: &Path, settings: &str) {
        std::fs::write(disk(host).join("config.toml"), settings).unwrap();
        std::fs::write(disk(host).join("program"), program.to_str().unwrap()).unwrap();
        let pid = || self.exec(host, &["cat", "/run/lab-swarm.pid"]).out;
        let before = pid();
        self.exec(host, &["kill", "-TERM", &before]);
        let program = program.canonicalize().unwrap();
        self.until("the other program runs", || {
            let exe = self.exec(host, &["readlink", &format!("/proc/{}/exe", pid())]).out;
            pid() != before && Path::new(&exe) == program
        });
    }

    /// A cluster of `hosts`, of which the first `managers` are managers.
    pub(crate) fn cluster(hosts: usize, managers: usize) -> Self {
        Self::cluster_with(hosts, managers, &[])
    }

    /// The same, with variables for `lab.sh`.
    pub(crate) fn cluster_with(hosts: usize, managers: usize, with: &[(&str, &str)]) -> Self {
        let lab = Self::hosts_with(hosts, with);
        lab.form(managers);
        lab
    }

    /// Makes a cluster of the hosts, of which the first `managers` are managers.
    pub(crate) fn form(&self, managers: usize) {
        let (lab, hosts) = (self, self.hosts);
        lab.swarm(1, &["init", "--advertise-addr", "10.99.0.1"]);
        for host in 2..=hosts {
            lab.join(host, if host <= managers { "manager" } else { "worker" });
        }
        lab.until("all nodes ready", || lab.ready() == hosts);
        lab.until("all managers vote", || {
            let status = lab.swarm(1, &["node", "ls", "--format", "{{.ManagerStatus}}"]);
            let managing = status.lines().filter(|line| *line == "Leader" || *line == "Reachable");
            managing.count() == managers
        });
    }

    /// Brings a host into the cluster of host 1.
    pub(crate) fn join(&self, host: usize, role: &str) {
        let token = self.swarm(1, &["join-token", "--quiet", role]);
        self.swarm(host, &["join", "--token", &token, "10.99.0.1:2377"]);
    }

    fn load_image(&self) {
        let tar = image_tar();
        let made: Said = Command::new("sh")
            .arg("-c")
            .arg(format!("{}/scripts/make-image.sh > {}", root().display(), tar.display()))
            .output()
            .unwrap()
            .into();
        assert!(made.ok, "image: {}", made.err);
        for host in 1..=self.hosts {
            let loaded = lab(&["load", &host.to_string(), tar.to_str().unwrap(), IMAGE]);
            assert!(loaded.ok, "image: {}", loaded.err);
        }
    }

    /// Runs a command inside a host.
    pub(crate) fn exec(&self, host: usize, command: &[&str]) -> Said {
        let mut arguments = vec!["exec".to_owned(), host.to_string()];
        arguments.extend(command.iter().map(|&word| word.to_owned()));
        script("lab.sh").args(arguments).output().unwrap().into()
    }

    /// Does something of the test's own in the network of a host, on a thread that ends with it.
    pub(crate) fn within<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        let name = Path::new("/run/netns").join(format!("{}-h{host}", name()));
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = std::fs::File::open(&name).unwrap();
                nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `swarm` inside a host; whatever it says.
    pub(crate) fn try_swarm(&self, host: usize, arguments: &[&str]) -> Said {
        let mut command = vec![env!("CARGO_BIN_EXE_swarm")];
        command.extend_from_slice(arguments);
        self.exec(host, &command)
    }

    /// Runs `swarm` inside a host; it must succeed.
    pub(crate) fn swarm(&self, host: usize, arguments: &[&str]) -> String {
        let said = self.try_swarm(host, arguments);
        assert!(said.ok, "host {host}: swarm {arguments:?}: {}\n{}", said.out, said.err);
        said.out
    }

    /// Runs the host's engine's client; it must succeed.
    pub(crate) fn docker(&self, host: usize, arguments: &[&str]) -> String {
        let said = self.try_docker(host, arguments);
        assert!(said.ok, "host {host}: docker {arguments:?}: {}\n{}", said.out, said.err);
        said.out
    }

    /// Runs the host's engine's client; whatever it says.
    pub(crate) fn try_docker(&self, host: usize, arguments: &[&str]) -> Said {
        let mut command = vec!["docker", "-H", "unix:///run/docker.sock"];
        command.extend_from_slice(arguments);
        self.exec(host, &command)
    }

    /// What a host's API answers to a request of curl's.
    pub(crate) fn curl(&self, host: usize, path: &str, more: &[&str]) -> String {
        let (socket, url) = (socket(host).display().to_string(), format!("http://localhost{path}"));
        let line = ["curl", "-s", "--unix-socket", &socket, &url];
        self.exec(host, &[&line[..], more].concat()).out
    }

    /// A lab command such as `kill`, `cut`, `partition`; it must succeed.
    pub(crate) fn act(&self, arguments: &[&str]) {
        let said = lab(arguments);
        assert!(said.ok, "lab {arguments:?}: {} {}", said.out, said.err);
    }

    /// Number of nodes that are ready, as host 1 sees it.
    pub(crate) fn ready(&self) -> usize {
        self.ready_by(1)
    }

    /// Number of nodes that are ready, as a host sees it.
    pub(crate) fn ready_by(&self, host: usize) -> usize {
        let status = self.try_swarm(host, &["node", "ls", "--format", "{{.Status}}"]);
        status.out.lines().filter(|line| *line == "Ready").count()
    }

    /// The `REPLICAS` column of a service (`3/3`).
    pub(crate) fn replicas(&self, by: usize, service: &str) -> String {
        let filter = format!("name={service}");
        self.try_swarm(by, &["service", "ls", "--filter", &filter, "--format", "{{.Replicas}}"]).out
    }

    /// Creates a service that serves its host name over HTTP, and waits until it converges.
    pub(crate) fn web(&self, by: usize, name: &str, replicas: usize, more: &[&str]) {
        let replicas = replicas.to_string();
        let mut arguments = vec!["service", "create", "--name", name, "--replicas", &replicas];
        arguments.extend_from_slice(more);
        arguments.extend_from_slice(&[
            IMAGE,
            "sh",
            "-c",
            "hostname > /www/index.html; exec httpd -f -p 80 -h /www",
        ]);
        self.swarm(by, &arguments);
    }

    /// Containers of a service on a host: id and (pid, start time).
    pub(crate) fn containers(&self, host: usize, service: &str) -> Vec<(String, String)> {
        let filter = format!("label=com.docker.swarm.service.name={service}");
        let ids = self.try_docker(host, &["ps", "--quiet", "--no-trunc", "--filter", &filter]).out;
        // A container may go between the list and the look.
        let mut containers: Vec<_> = ids
            .lines()
            .filter_map(|id| {
                let life = "{{.State.Pid}} {{.State.StartedAt}}";
                let said = self.try_docker(host, &["inspect", "--format", life, id]);
                said.ok.then(|| (id.to_owned(), said.out))
            })
            .collect();
        containers.sort();
        containers
    }

    /// All containers of a service on the hosts.
    pub(crate) fn all_containers(&self, hosts: &[usize], service: &str) -> Vec<(String, String)> {
        hosts.iter().flat_map(|host| self.containers(*host, service)).collect()
    }

    /// Every container of a task on hosts 1..=n, by its id, whether it runs or not.
    pub(crate) fn lives(&self, hosts: usize) -> BTreeMap<String, Life> {
        let label = |name| format!("{{{{index .Config.Labels \"com.docker.swarm.{name}\"}}}}");
        let (task, service) = (label("task.id"), label("service.name"));
        let line = format!(
            "D='docker -H unix:///run/docker.sock'; ids=$($D ps --all --quiet --no-trunc --filter \
             label=com.docker.swarm.task.id); [ -z \"$ids\" ] || $D inspect --format \
             '{{{{.Id}}}} {{{{.State.Pid}}}} {{{{.State.StartedAt}}}} {task} {service}' $ids"
        );
        let mut lives = BTreeMap::new();
        for host in 1..=hosts {
            let said = self.exec(host, &["sh", "-c", &line]);
            for line in said.out.lines() {
                let mut words = line.split(' ').map(ToOwned::to_owned);
                let mut next = || words.next().unwrap_or_default();
                let (id, pid, started) = (next(), next(), next());
                lives.insert(id, Life { pid, started, task: next(), service: next() });
            }
        }
        lives
    }

    /// Addresses of running tasks of a service, by their containers on the hosts.
    pub(crate) fn addresses(&self, hosts: &[usize], service: &str) -> Vec<String> {
        let mut found = Vec::new();
        for host in hosts {
            for (id, _) in self.containers(*host, service) {
                let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
                let said = self.try_docker(*host, &["inspect", "--format", format, &id]);
                found.extend(said.ok.then_some(said.out));
            }
        }
        found.sort();
        found
    }

    /// What a name resolves to inside a container of a service on a host.
    pub(crate) fn resolve(&self, host: usize, service: &str, name: &str) -> Vec<String> {
        let Some((id, _)) = self.containers(host, service).into_iter().next() else {
            return Vec::new();
        };
        let said = self.try_docker(host, &["exec", &id, "nslookup", name]);
        // busybox prints the server first ("Address: 10.0.0.2:53"), then one line per answer.
        let mut found: Vec<_> = said
            .out
            .lines()
            .skip_while(|line| !line.starts_with("Name:"))
            .filter_map(|line| line.strip_prefix("Address"))
            .filter_map(|line| line.split_once(": ").map(|(_, addr)| addr.trim().to_owned()))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// The nodes, and the end of every host's log.
    fn situation(&self) -> String {
        let mut text = self.try_swarm(1, &["node", "ls"]).out;
        for host in 1..=self.hosts {
            let log = self.log(host);
            let mut tail: Vec<_> = log.lines().rev().take(15).collect();
            tail.reverse();
            text = format!("{text}--- host {host}\n{}\n", tail.join("\n"));
        }
        text
    }

    /// The log of a host's daemon.
    pub(crate) fn log(&self, host: usize) -> String {
        lab(&["log", &host.to_string()]).out
    }

    /// Waits until something is true.
    #[expect(clippy::disallowed_methods, reason = "a limit for a test that fails, in real time")]
    pub(crate) fn until(&self, what: &str, mut is_true: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_true() {
            if Instant::now() > deadline {
                panic!("did not come true: {what}\n{}", self.situation());
            }
            sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        lab(&["down"]);
    }
}
