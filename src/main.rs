//! The `swarm` binary: a command of the command line, or the daemon of a node.

use std::process::ExitCode;

use swarm::cli::{self, Invocation};
use swarm::daemon;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect()) {
        Ok(Invocation::Command(command)) => ExitCode::from(cli::run(*command)),
        Ok(Invocation::Daemon(arguments)) => daemon::main(arguments),
        Ok(Invocation::Verify(verify)) => {
            let verified = verify
                .input()
                .and_then(|(file, passphrase)| daemon::verify_backup(&file, passphrase.as_deref()));
            ExitCode::from(cli::report(verified))
        }
        Err(usage) => usage.exit(),
    }
}
