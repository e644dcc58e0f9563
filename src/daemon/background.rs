//! `swarm daemon --background`: a session of its own, restarted with back-off when it fails.
//!
//! ```text
//! swarm daemon --background ─▶ swarm daemon --supervise (setsid, log file) ─▶ swarm daemon ↻
//! ```
//!
//! Used where no systemd is. The supervisor ends when the daemon ends by itself without error, or
//! when it is told to (SIGTERM), which it passes on.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::settings::Settings;
use crate::env::{Env, files};

/// First pause before a restart; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A daemon that ran for this long starts the pauses anew.
const STABLE: Duration = Duration::from_secs(60);

/// Where the log of a daemon in the background lies.
#[must_use]
pub(super) fn log_path(settings: &Settings) -> PathBuf {
    settings.state_dir.join("daemon.log")
}

/// Starts the supervisor and returns.
///
/// # Errors
/// When the state directory or the log cannot be written, or the process not be started.
pub(super) fn detach(settings: &Settings) -> anyhow::Result<()> {
    let log = open_log(&log_path(settings))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(rewritten("--background", Some("--supervise")));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.current_dir("/").spawn().context("cannot start the daemon")?;
    Ok(())
}

/// Where the process id of the supervisor lies while it runs.
#[must_use]
pub(super) fn pid_path(settings: &Settings) -> PathBuf {
    settings.run_dir.join("daemon.pid")
}

/// Runs daemons until one ends without error or SIGTERM comes.
///
/// # Errors
/// When no daemon can be started at all.
pub(super) async fn supervise(settings: &Settings, env: &Env) -> anyhow::Result<()> {
    let path = pid_path(settings);
    super::harden::shared_dir(&settings.run_dir)
        .and_then(|()| std::fs::write(&path, format!("{}\n", std::process::id())))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let outcome = restart(env).await;
    if let Err(error) = files::remove(&path) {
        tracing::debug!(%error, "the supervisor's process id remains");
    }
    outcome
}

async fn restart(env: &Env) -> anyhow::Result<()> {
    // Fails only where this process leads a session already, which is as good.
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "no new session");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut pause = PAUSE_MIN;
    loop {
        let started = env.clock.instant();
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .args(rewritten("--supervise", None))
            .spawn()
            .context("cannot start the daemon")?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let status = tokio::select! {
            status = child.wait() => status?,
            _ = terminate.recv() => return pass_on(pid, &mut child).await,
            _ = interrupt.recv() => return pass_on(pid, &mut child).await,
        };
        if status.success() {
            return Ok(());
        }
        if env.clock.instant().since(started) > STABLE {
            pause = PAUSE_MIN;
        }
        tracing::error!(%status, pause_ms = pause.as_millis(), "the daemon failed; restarting it");
        tokio::select! {
            () = env.clock.sleep(pause) => {}
            _ = terminate.recv() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn pass_on(pid: Option<i32>, child: &mut tokio::process::Child) -> anyhow::Result<()> {
    if let Some(pid) = pid {
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    }
    child.wait().await?;
    Ok(())
}

/// This process's arguments with one replaced or left out.
fn rewritten(flag: &str, by: Option<&str>) -> Vec<String> {
    let arguments = std::env::args().skip(1).filter(|argument| argument != flag);
    arguments.chain(by.map(str::to_owned)).collect()
}

fn open_log(path: &Path) -> anyhow::Result<std::fs::File> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(dir) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create the state directory {}", dir.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write the log {}", path.display()))
}
