//! A daemon for `init` and `join` where none runs: the systemd unit if one is installed, otherwise
//! this binary again, in the background.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::cli::os::{self, Moment};
use crate::cli::shell::Shell;

/// How long a daemon may take until it answers.
const READY: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines of the log in an error.
const TAIL: usize = 8;
/// Where a unit may be installed.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/swarm.service",
    "/lib/systemd/system/swarm.service",
    "/usr/lib/systemd/system/swarm.service",
];

/// Makes sure that a daemon answers on the socket.
///
/// # Errors
/// When none can be started or it does not answer in time; with the end of its log.
pub(crate) async fn ensure(shell: &mut Shell) -> anyhow::Result<()> {
    if shell.client.ping().await {
        return Ok(());
    }
    let hint = if shell.defaults && Path::new("/run/systemd/system").is_dir() && unit_installed() {
        run(Command::new("systemctl").args(["start", "swarm.service"])).await?;
        LogHint::Journal
    } else {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["daemon", "--background", "--state-dir"]).arg(&shell.state_dir);
        command.arg("--socket").arg(shell.client.socket());
        run(&mut command).await?;
        LogHint::File(shell.state_dir.join("daemon.log"))
    };
    let started = Moment::now();
    while started.elapsed() < READY {
        if shell.client.ping().await {
            return Ok(());
        }
        os::sleep(PAUSE).await;
    }
    bail!(
        "the swarm daemon was started but does not answer on {} within {} s; {}",
        shell.client.socket().display(),
        READY.as_secs(),
        hint.text()
    )
}

fn unit_installed() -> bool {
    UNITS.iter().any(|unit| Path::new(unit).exists())
}

/// Where its log is.
enum LogHint {
    Journal,
    File(PathBuf),
}

impl LogHint {
    fn text(&self) -> String {
        match self {
            Self::Journal => "see `journalctl -u swarm.service -n 50`".to_owned(),
            Self::File(path) => match std::fs::read(path) {
                Ok(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let lines: Vec<&str> = text.lines().rev().take(TAIL).collect();
                    let tail: Vec<&str> = lines.into_iter().rev().collect();
                    format!("the end of its log {}:\n  {}", path.display(), tail.join("\n  "))
                }
                Err(error) => format!("its log {} cannot be read: {error}", path.display()),
            },
        }
    }
}

/// Runs a program that returns soon.
async fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot start the swarm daemon by {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    bail!("cannot start the swarm daemon: {}", words.trim())
}
