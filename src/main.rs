//! The `swarm` binary: a command of the command line, or the daemon of a node.

use std::process::ExitCode;

use swarm::cli::{self, Invocation};
use swarm::daemon;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect()) {
        Ok(Invocation::Command(command)) => ExitCode::from(cli::run(*command)),
        Ok(Invocation::Daemon(arguments)) => daemon::main(arguments),
        Err(usage) => usage.exit(),
    }
}
