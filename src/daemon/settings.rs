//! What a daemon runs with: flags, then `/etc/swarm/config.toml`, then defaults; checked once.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser};
use serde::Deserialize;

use crate::agent::Guard;
use crate::domain::SpecPolicy;
use crate::domain::timing::Timing;
use crate::env::disk::LogKind;

/// TCP port between nodes (IANA: "docker swarm").
pub const NODE_PORT: u16 = 2377;
/// Port of the DNS server; port 53 of the node's gateways is redirected to it.
const DNS_PORT: u16 = 10_053;

/// Scheduled backups that are kept if nothing is said.
const BACKUPS_KEPT: usize = 14;
/// The shortest time between two scheduled backups: one reads, seals and verifies the whole state.
const BACKUP_EVERY_MIN: Duration = Duration::from_secs(10);

/// Flags of `swarm daemon`.
#[derive(Args, Clone, Debug, Default)]
pub struct DaemonArgs {
    /// Where the node keeps its identity, log and ledger [default: /var/lib/swarm]
    #[arg(long, env = "SWARM_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets and the files of running tasks lie; must be a tmpfs [default: /run/swarm]
    #[arg(long, env = "SWARM_RUN_DIR", value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The API's socket [default: /run/swarm/swarm.sock]
    #[arg(long, env = "SWARM_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The group that may use the API's socket beside root [default: swarm, if there is such a group]
    #[arg(long, env = "SWARM_GROUP", value_name = "NAME")]
    pub group: Option<String>,
    /// The Docker Engine's socket [default: /var/run/docker.sock]
    #[arg(long, env = "SWARM_ENGINE", value_name = "PATH")]
    pub engine: Option<PathBuf>,
    /// Port of the DNS server of this node's tasks [default: 10053]
    #[arg(long, env = "SWARM_DNS_PORT", value_name = "PORT")]
    pub dns_port: Option<u16>,
    /// What a new raft log lies in: sled or segments; one that is there is used as it is [default: sled]
    #[arg(long, env = "SWARM_RAFT_LOG", value_name = "KIND")]
    pub raft_log: Option<LogKind>,
    /// Where to serve /metrics, /healthz and /readyz over TCP, too, to everybody who reaches it
    /// [default: nowhere]
    #[arg(long, env = "SWARM_METRICS_ADDR", value_name = "IP:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// Settings file [default: /etc/swarm/config.toml, if it exists]
    #[arg(long, env = "SWARM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is logged: a level, or directives like `info,swarm::raft=debug`
    #[arg(long, env = "SWARM_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log lines as JSON
    #[arg(long)]
    pub log_json: bool,
    /// Go to the background: a session of its own, restarted when it fails, log in the state
    /// directory
    #[arg(long, conflicts_with = "supervise")]
    pub background: bool,
    /// Run the daemon as a child and restart it when it fails (what --background starts)
    #[arg(long, hide = true)]
    pub supervise: bool,
    /// For tests: where the daemon dies or stands still (`env::Failpoints`)
    #[arg(long, env = "SWARM_FAILPOINTS", hide = true, value_name = "POINT=EFFECT;…")]
    pub failpoints: Option<String>,
}

#[derive(Parser)]
#[command(
    name = "swarm daemon",
    about = "Run the daemon of this node: agent, DNS server and, where its role says so, manager",
    long_about = None,
    version
)]
struct Program {
    #[command(flatten)]
    args: DaemonArgs,
}

impl DaemonArgs {
    /// Reads the arguments of the program, its name first.
    ///
    /// # Errors
    /// On wrong usage, and for `--help`, which clap prints and ends with status 0.
    pub fn read(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        Program::try_parse_from(arguments).map(|program| program.args)
    }
}

/// The settings file. Flags win over it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    group: Option<String>,
    engine: Option<PathBuf>,
    dns_port: Option<u16>,
    upstream_dns: Option<Vec<SocketAddr>>,
    raft_log: Option<String>,
    metrics_addr: Option<SocketAddr>,
    log: Option<String>,
    policy: FilePolicy,
    format_hold: Option<Length>,
    backup: Option<BackupFile>,
}

/// `[policy]`: what this node refuses whatever the cluster permits. What is not named is the
/// cluster's to say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct FilePolicy {
    docker_socket: Option<bool>,
    host_network: Option<bool>,
    unconfined: Option<bool>,
    bind_mounts: Option<Vec<String>>,
    capabilities: Option<Vec<String>>,
    sysctls: Option<Vec<String>>,
}

impl FilePolicy {
    fn policy(self) -> anyhow::Result<SpecPolicy> {
        let open = SpecPolicy::everything();
        let policy = SpecPolicy {
            docker_socket: self.docker_socket.unwrap_or(open.docker_socket),
            host_network: self.host_network.unwrap_or(open.host_network),
            unconfined: self.unconfined.unwrap_or(open.unconfined),
            bind_mounts: self.bind_mounts.unwrap_or(open.bind_mounts),
            capabilities: self.capabilities.unwrap_or(open.capabilities),
            sysctls: self.sysctls.unwrap_or(open.sysctls),
            extra: open.extra,
        };
        policy.validate().context("[policy] in the settings file")?;
        Ok(policy)
    }
}

/// The settings file's `[backup]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BackupFile {
    every: Length,
    directory: PathBuf,
    passphrase_file: PathBuf,
    #[serde(default = "BackupFile::keep")]
    keep: usize,
}

impl BackupFile {
    const fn keep() -> usize {
        BACKUPS_KEPT
    }

    fn checked(self) -> anyhow::Result<BackupSchedule> {
        let Self { every: Length(every), directory, passphrase_file, keep } = self;
        if every < BACKUP_EVERY_MIN {
            bail!("backup.every: at least {} s", BACKUP_EVERY_MIN.as_secs());
        }
        if keep == 0 {
            bail!("backup.keep: at least 1");
        }
        for (name, path) in
            [("backup.directory", &directory), ("backup.passphrase-file", &passphrase_file)]
        {
            if !path.is_absolute() {
                bail!("{name}: {} is not an absolute path", path.display());
            }
        }
        Ok(BackupSchedule { every, directory, passphrase_file, keep })
    }
}

/// A length of time as people write it: `90s`, `15m`, `6h`, `1d`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Length(Duration);

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time: 90s, 15m, 6h or 1d is expected");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        number.checked_mul(seconds).map(|it| Self(Duration::from_secs(it))).ok_or_else(wrong)
    }
}

/// When this manager writes backups by itself, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSchedule {
    /// From one to the next.
    pub every: Duration,
    /// Where they are written.
    pub directory: PathBuf,
    /// What has the passphrase.
    pub passphrase_file: PathBuf,
    /// How many are kept.
    pub keep: usize,
}

/// What a daemon runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Identity, log and ledger.
    pub state_dir: PathBuf,
    /// Sockets and files of running tasks.
    pub run_dir: PathBuf,
    /// The API's socket.
    pub socket: PathBuf,
    /// The group that may use it beside root.
    pub group: Option<String>,
    /// The Docker Engine's socket.
    pub engine: PathBuf,
    /// Port of the DNS server.
    pub dns_port: u16,
    /// Name servers for other names; those of the host's resolv.conf if absent.
    pub upstream_dns: Option<Vec<SocketAddr>>,
    /// What a new raft log lies in.
    pub raft_log: LogKind,
    /// Where numbers and health are served over TCP; nowhere if absent.
    pub metrics_addr: Option<SocketAddr>,
    /// Filter of log lines.
    pub log: String,
    /// What this node lets services ask of it.
    pub policy: SpecPolicy,
    /// How long all managers must know a newer format before this one, leading, uses it.
    pub format_hold: Duration,
    /// Backups that this node writes by itself while it is a manager.
    pub backup: Option<BackupSchedule>,
}

impl Settings {
    /// Puts flags, file and defaults together.
    ///
    /// # Errors
    /// When the file cannot be read or has an unknown or wrong member, or a path is not absolute.
    pub fn load(args: &DaemonArgs) -> anyhow::Result<Self> {
        let file = read_file(args.config.as_deref())?;
        let logs = file.raft_log.as_deref().map(str::parse::<LogKind>).transpose();
        let logs = logs.context("settings file: raft-log")?;
        let run_dir = pick(&args.run_dir, file.run_dir, "/run/swarm");
        let socket = args.socket.clone().or(file.socket);
        let settings = Self {
            state_dir: pick(&args.state_dir, file.state_dir, "/var/lib/swarm"),
            socket: socket.unwrap_or_else(|| run_dir.join("swarm.sock")),
            run_dir,
            group: args.group.clone().or(file.group).or_else(default_group),
            engine: pick(&args.engine, file.engine, "/var/run/docker.sock"),
            dns_port: args.dns_port.or(file.dns_port).unwrap_or(DNS_PORT),
            upstream_dns: file.upstream_dns,
            raft_log: args.raft_log.or(logs).unwrap_or_default(),
            metrics_addr: args.metrics_addr.or(file.metrics_addr),
            log: args.log.clone().or(file.log).unwrap_or_else(|| "info".to_owned()),
            policy: file.policy.policy()?,
            format_hold: file.format_hold.map_or(Timing::DEFAULT.format_hold, |hold| hold.0),
            backup: file.backup.map(BackupFile::checked).transpose()?,
        };
        for (name, path) in [
            ("state-dir", &settings.state_dir),
            ("run-dir", &settings.run_dir),
            ("socket", &settings.socket),
            ("engine", &settings.engine),
        ] {
            if !path.is_absolute() {
                bail!("{name}: {} is not an absolute path", path.display());
            }
        }
        Ok(settings)
    }

    /// What this node permits, with the directories that are nobody's but the daemon's.
    pub(super) fn guard(&self) -> Guard {
        let private = [&self.state_dir, &self.run_dir].map(PathBuf::clone);
        Guard::new(self.policy.clone(), &private, &self.socket)
    }
}

/// The group of that name, where the host has one.
fn default_group() -> Option<String> {
    const NAME: &str = "swarm";
    let found = nix::unistd::Group::from_name(NAME);
    matches!(found, Ok(Some(_))).then(|| NAME.to_owned())
}

fn pick(flag: &Option<PathBuf>, file: Option<PathBuf>, default: &str) -> PathBuf {
    flag.clone().or(file).unwrap_or_else(|| PathBuf::from(default))
}

fn read_file(path: Option<&Path>) -> anyhow::Result<File> {
    const DEFAULT: &str = "/etc/swarm/config.toml";
    let (path, required) = path.map_or_else(|| (Path::new(DEFAULT), false), |path| (path, true));
    match std::fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("settings file {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            Ok(File::default())
        }
        Err(error) => Err(error).with_context(|| format!("settings file {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_file_system_standard() {
        let args = DaemonArgs { config: Some("/dev/null".into()), ..DaemonArgs::default() };
        let settings = Settings::load(&args).unwrap();
        assert_eq!(settings.state_dir, Path::new("/var/lib/swarm"));
        assert_eq!(settings.socket, Path::new("/run/swarm/swarm.sock"));
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_members_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(
            &path,
            "dns-port = 5301\nrun-dir = \"/run/a\"\nmetrics-addr = \"[::1]:9323\"\n",
        )
        .unwrap();
        let args = DaemonArgs {
            config: Some(path.clone()),
            dns_port: Some(5302),
            ..DaemonArgs::default()
        };
        let settings = Settings::load(&args).unwrap();
        assert_eq!(settings.dns_port, 5302);
        assert_eq!(settings.metrics_addr, Some("[::1]:9323".parse().unwrap()));
        assert_eq!(settings.socket, Path::new("/run/a/swarm.sock"));
        assert_eq!(settings.raft_log, LogKind::Sled);
        std::fs::write(&path, "raft-log = \"segments\"\n").unwrap();
        assert_eq!(Settings::load(&args).unwrap().raft_log, LogKind::Segments);
        std::fs::write(&path, "raft-log = \"rocks\"\n").unwrap();
        let error = format!("{:#}", Settings::load(&args).unwrap_err());
        assert!(error.contains("it is sled or segments"), "{error}");
        std::fs::write(&path, "dns-prot = 1\n").unwrap();
        let error = format!("{:#}", Settings::load(&args).unwrap_err());
        assert!(error.contains("dns-prot"), "{error}");
    }

    #[test]
    fn the_nodes_policy_is_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::load(&DaemonArgs { config: Some(path.clone()), ..DaemonArgs::default() })
        };
        assert_eq!(load("").unwrap().policy, SpecPolicy::everything());
        let text = "[policy]\nhost-network = false\nbind-mounts = [\"/srv\"]\n";
        let policy = load(text).unwrap().policy;
        assert!(!policy.host_network && policy.docker_socket);
        assert_eq!(policy.bind_mounts, ["/srv"]);
        let error = format!("{:#}", load("[policy]\nbind-mounts = [\"srv\"]\n").unwrap_err());
        assert!(error.contains("[policy]") && error.contains("\"srv\""), "{error}");
        assert!(load("[policy]\nprivileged = true\n").is_err());
    }

    #[test]
    fn backups_and_lengths_of_time_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let args = DaemonArgs { config: Some(path.clone()), ..DaemonArgs::default() };
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::load(&args).map_err(|error| format!("{error:#}"))
        };
        let whole = "format-hold = \"90s\"\n[backup]\nevery = \"6h\"\ndirectory = \"/b\"\n\
                     passphrase-file = \"/k\"\n";
        let settings = load(whole).unwrap();
        assert_eq!(settings.format_hold, Duration::from_secs(90));
        let backup = settings.backup.unwrap();
        assert_eq!((backup.every.as_secs(), backup.keep), (6 * 3_600, BACKUPS_KEPT));
        assert_eq!(load("").unwrap().backup, None);
        for (from, to, told) in [
            ("6h", "6x", "90s, 15m, 6h or 1d is expected"),
            ("6h", "1s", "backup.every: at least 10 s"),
            ("6h", "99999999999999999999d", "is no length of time"),
            ("\"/b\"", "\"b\"", "backup.directory: b is not an absolute path"),
            ("passphrase-file", "passphrase", "passphrase"),
            ("[backup]", "[backup]\nkeep = 0", "backup.keep: at least 1"),
        ] {
            let error = load(&whole.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
    }

    #[test]
    fn relative_paths_are_refused() {
        let args = DaemonArgs {
            config: Some("/dev/null".into()),
            state_dir: Some("here".into()),
            ..DaemonArgs::default()
        };
        assert!(Settings::load(&args).unwrap_err().to_string().contains("absolute"));
    }
}
