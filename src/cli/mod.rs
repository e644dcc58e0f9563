//! The command line: a client of the Docker Engine API that the daemon serves, with Docker's words,
//! flags and output.
//!
//! ```text
//! argv ─▶ clap ─▶ flags ─▶ spec (domain types) ─▶ HTTP on the daemon's socket ─▶ table, JSON, progress
//! ```
//!
//! It decides nothing about the cluster: it translates. It does not start the daemon's own code
//! either; `main` does, for [`Invocation::Daemon`] and [`Invocation::Verify`]. Exit codes: 0 done, 1 refused or failed, 2 wrong
//! usage.

mod base64;
mod client;
mod events;
mod filters;
#[cfg(test)]
pub(crate) mod fuzz;
mod info;
mod node;
mod os;
mod payload;
mod reply;
mod service;
mod shell;
mod status;
mod swarm;
mod tasks;
mod text;
mod values;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};

use client::Client;
use node::NodeCommand;
use payload::{Kind, PayloadCommand};
use service::ServiceCommand;
use shell::{Out, Shell};
use swarm::recovery::{BackupCommand, Verify};

/// Where the daemon listens unless told otherwise.
const SOCKET: &str = "/run/swarm/swarm.sock";
/// Where the daemon keeps its state unless told otherwise.
const STATE_DIR: &str = "/var/lib/swarm";

/// What the arguments of the program ask for.
#[derive(Debug)]
pub enum Invocation {
    /// A command of this module; give it to [`run`].
    Command(Box<Command>),
    /// `swarm daemon`, with the arguments that follow (and the program's name before them).
    Daemon(Vec<OsString>),
    /// `swarm backup verify`; give what it finds to [`report`].
    Verify(Box<Verify>),
}

/// A parsed command.
#[derive(Debug)]
pub struct Command(Cli);

/// Reads the arguments of the program, its name first.
///
/// # Errors
/// On wrong usage, and for `--help` and `--version`, which clap prints and ends with status 0.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, clap::Error> {
    if arguments.get(1).is_some_and(|word| word == "daemon") {
        let rest = arguments.into_iter().enumerate().filter(|(place, _)| *place != 1);
        return Ok(Invocation::Daemon(rest.map(|(_, word)| word).collect()));
    }
    Cli::try_parse_from(arguments).map(|cli| match cli.action {
        Action::Backup(BackupCommand::Verify(verify)) => Invocation::Verify(Box::new(verify)),
        _ => Invocation::Command(Box::new(Command(cli))),
    })
}

/// Runs a command; the exit code of the program.
#[must_use]
pub fn run(command: Command) -> u8 {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|executor| executor.block_on(command.0.run(Out::system())));
    match outcome {
        Ok(()) => 0,
        Err(error) if is_closed_pipe(&error) => 0,
        Err(error) if error.is::<status::NotWell>() => 1,
        Err(error) => complain(&error),
    }
}

/// Prints a text, or the error that took its place; the exit code of the program.
#[must_use]
pub fn report(outcome: anyhow::Result<String>) -> u8 {
    match outcome.and_then(|text| Ok(Out::system().line(text)?)) {
        Ok(()) => 0,
        Err(error) if is_closed_pipe(&error) => 0,
        Err(error) => complain(&error),
    }
}

/// Prints an error that ends the program; the exit code.
pub fn complain(error: &anyhow::Error) -> u8 {
    // Nobody is left to tell when standard error is closed, too.
    drop(Out::system().note(words(error)));
    1
}

/// An error as the user sees it: the daemon's refusals as Docker prints them, ours after `error:`.
fn words(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if text.starts_with("Error") { text } else { format!("error: {text}") }
}

/// Whoever read our output has read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// An error of what failed among several things, if anything did.
fn failed(failures: &[String]) -> anyhow::Result<()> {
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// Simple, fast and robust container orchestration, in Docker's words
#[derive(Debug, Parser)]
#[command(
    name = "swarm",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  swarm init                                           make a cluster of this machine
  swarm service create --name web --replicas 3 nginx   run something on it
  swarm service ps web                                 see where
  swarm join-token worker                              how another machine joins

`docker -H unix:///run/swarm/swarm.sock` works, too. Exit status: 0 done, 1 failed, 2 wrong usage."
)]
struct Cli {
    /// The daemon's address
    #[arg(short = 'H', long = "host", value_name = "unix://PATH", env = "SWARM_HOST")]
    endpoint: Option<String>,
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    action: Action,
}

/// Where things are.
#[derive(Args, Debug)]
struct Places {
    /// The daemon's socket [default: /run/swarm/swarm.sock]
    #[arg(long, value_name = "PATH", env = "SWARM_SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// Where a daemon that is started keeps its state [default: /var/lib/swarm]
    #[arg(long, value_name = "DIR", env = "SWARM_STATE_DIR", global = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Initialize a swarm
    Init(swarm::enter::Init),
    /// Join a swarm as a node and/or manager
    Join(swarm::enter::Join),
    /// Leave the swarm
    Leave(swarm::enter::Leave),
    /// Manage join tokens
    JoinToken(swarm::admin::JoinToken),
    /// Display and rotate the root CA
    Ca(swarm::authority::Authority),
    /// Unlock this manager
    Unlock(swarm::admin::Unlock),
    /// Manage the unlock key
    UnlockKey(swarm::admin::UnlockKey),
    /// Back up the swarm's state, check and restore backups
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Make this manager the only one, when the majority is lost
    Recover(swarm::recovery::Recover),
    /// Update the swarm
    Update(swarm::admin::Update),
    /// Manage what services may ask of hosts
    #[command(subcommand)]
    Policy(swarm::policy::PolicyCommand),
    /// Say whether all is well, and what is not
    Status(status::Status),
    /// Display what this node knows of its swarm
    Info(info::Info),
    /// Show the versions of client and daemon
    Version(info::Version),
    /// Get events from the swarm
    Events(events::Events),
    /// Manage nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Manage services
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Manage secrets
    #[command(subcommand)]
    Secret(PayloadCommand),
    /// Manage configs
    #[command(subcommand)]
    Config(PayloadCommand),
    /// Generate the completion script of a shell
    #[command(after_help = "Examples:
  swarm completion bash > /usr/share/bash-completion/completions/swarm
  swarm completion zsh > /usr/share/zsh/vendor-completions/_swarm
  swarm completion fish > /usr/share/fish/vendor_completions.d/swarm.fish")]
    Completion {
        /// Its name: bash, zsh or fish
        shell: clap_complete::Shell,
    },
    /// Run a node: agent always, manager when its role says so (see `swarm daemon --help`)
    Daemon,
}

impl Cli {
    async fn run(self, out: Out) -> anyhow::Result<()> {
        let defaults = self.endpoint.is_none()
            && self.places.socket.is_none()
            && self.places.state_dir.is_none();
        let socket = match (&self.endpoint, self.places.socket) {
            (Some(host), _) => socket_of(host)?,
            (None, Some(socket)) => socket,
            (None, None) => PathBuf::from(SOCKET),
        };
        let state_dir = self.places.state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR));
        let mut shell = Shell { client: Client::new(socket), out, state_dir, defaults };
        self.action.run(&mut shell).await
    }
}

/// The path of `unix:///run/swarm/swarm.sock`.
fn socket_of(host: &str) -> anyhow::Result<PathBuf> {
    match host.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
        _ => bail!("invalid host {host:?}: only unix:///absolute/path is supported"),
    }
}

impl Action {
    async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        match self {
            Self::Init(command) => command.run(shell).await,
            Self::Join(command) => command.run(shell).await,
            Self::Leave(command) => command.run(shell).await,
            Self::JoinToken(command) => command.run(shell).await,
            Self::Ca(command) => command.run(shell).await,
            Self::Unlock(command) => command.run(shell).await,
            Self::UnlockKey(command) => command.run(shell).await,
            Self::Backup(command) => command.run(shell).await,
            Self::Recover(command) => command.run(shell).await,
            Self::Update(command) => command.run(shell).await,
            Self::Policy(command) => command.run(shell).await,
            Self::Status(command) => command.run(shell).await,
            Self::Info(command) => command.run(shell).await,
            Self::Version(command) => command.run(shell).await,
            Self::Events(command) => command.run(shell).await,
            Self::Node(command) => command.run(shell).await,
            Self::Service(command) => command.run(shell).await,
            Self::Secret(command) => command.run(Kind::Secret, shell).await,
            Self::Config(command) => command.run(Kind::Config, shell).await,
            Self::Completion { shell: kind } => {
                let mut script = Vec::new();
                clap_complete::generate(kind, &mut Cli::command(), "swarm", &mut script);
                Ok(shell.out.bytes(&script)?)
            }
            // `parse` has taken this one; it is here so that help lists it.
            Self::Daemon => bail!("`daemon` must be the first word: swarm daemon [OPTIONS]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_tree_of_commands_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn daemon_goes_elsewhere_and_usage_is_checked() {
        match parse(words_of("swarm daemon --background")).unwrap() {
            Invocation::Daemon(rest) => assert_eq!(rest, words_of("swarm --background")),
            other => panic!("{other:?}"),
        }
        assert_eq!(parse(words_of("swarm nosuch")).unwrap_err().exit_code(), 2);
        assert_eq!(parse(words_of("swarm --help")).unwrap_err().exit_code(), 0);
        let verify = parse(words_of("swarm backup verify today.swarm")).unwrap();
        assert!(matches!(verify, Invocation::Verify(_)));
        let list = parse(words_of("swarm --host unix:///a node ls -q")).unwrap();
        assert!(matches!(list, Invocation::Command(_)));
    }

    #[test]
    fn every_command_has_help_and_leaves_have_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let leaf = command.get_subcommands().next().is_none();
            let exempt = command.get_name() == "daemon";
            assert!(!leaf || exempt || examples.contains("Examples:"), "{path} has no examples");
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn hosts_are_sockets() {
        assert_eq!(socket_of("unix:///run/x.sock").unwrap(), PathBuf::from("/run/x.sock"));
        assert!(socket_of("tcp://1.2.3.4").unwrap_err().to_string().contains("only unix://"));
    }

    #[test]
    fn an_unreachable_daemon_is_explained_in_one_line() {
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let Ok(Invocation::Command(command)) =
            parse(words_of("swarm --socket /nonexistent/swarm.sock node ls"))
        else {
            panic!("not parsed");
        };
        let error = executor.block_on(command.0.run(Out::system())).unwrap_err();
        assert_eq!(
            words(&error),
            "error: cannot reach the swarm daemon at /nonexistent/swarm.sock: No such file or \
             directory (os error 2): is it running? start it with `swarm init` or `swarm daemon`"
        );
    }
}
