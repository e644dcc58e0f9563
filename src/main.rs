//! The `swarm` binary: a command of the command line, or the daemon of a node.

use std::process::ExitCode;

use swarm::cli::{self, Invocation};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect()) {
        Ok(Invocation::Command(command)) => ExitCode::from(cli::run(*command)),
        Ok(Invocation::Daemon(_)) => {
            ExitCode::from(cli::complain(&anyhow::anyhow!("this build has no daemon yet")))
        }
        Err(usage) => usage.exit(),
    }
}
