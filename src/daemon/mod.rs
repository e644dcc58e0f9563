//! The composition root: puts everything together and is the only place that knows everything.
//!
//! `run` is the life of a node process: the API first (it answers before any cluster exists), then
//! whatever the node's `record` says it is. `node` owns that part and changes it: init, join,
//! leave, a new role. `worker` is what every node does, `manager` what managers do as well.

mod address;
mod background;
mod backups;
mod control;
pub mod duties;
mod enter;
pub mod founding;
mod group;
mod harden;
mod keyring;
mod locked;
mod logs;
mod manager;
mod node;
mod record;
mod recover;
mod role;
pub mod settings;
mod telemetry;
mod trust;
mod vitals;
mod worker;

pub use recover::verify_backup;
pub use settings::DaemonArgs;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::api;
use crate::env::{Env, Failpoints, Faults, Scope, SystemDevice, files};
use settings::Settings;

/// How long everything may take to end after a signal. Containers are never touched.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// The program `swarm daemon` with its arguments (the program's name first): runs until a signal ends
/// it. Exit codes: 0 ended on request, 1 failed, 2 wrong usage.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let args = match DaemonArgs::read(arguments) {
        Ok(args) => args,
        Err(usage) => usage.exit(),
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut out = std::io::stderr().lock();
            // Where nobody reads standard error there is nobody to tell.
            let told = writeln!(out, "swarm daemon: {error:#}");
            ExitCode::from(if told.is_ok() { 1 } else { 3 })
        }
    }
}

fn run(args: &DaemonArgs) -> anyhow::Result<()> {
    let settings = Settings::load(args)?;
    if args.background {
        return background::detach(&settings);
    }
    let format = if args.log_json { telemetry::Format::Json } else { telemetry::Format::Text };
    telemetry::install(&settings.log, format)?;
    harden::process();
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("swarm")
        .build()
        .context("cannot start the executor")?;
    if args.supervise {
        return executor.block_on(async { background::supervise(&settings, &Env::system()).await });
    }
    telemetry::crash_on_panic();
    let faults = faults(args)?;
    let outcome = executor.block_on(serve(settings, faults));
    executor.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// What a test armed, if this is one.
fn faults(args: &DaemonArgs) -> anyhow::Result<Faults> {
    let Some(text) = &args.failpoints else { return Ok(Faults::NONE) };
    let points = Failpoints::parse(text).context("SWARM_FAILPOINTS, which is for tests")?;
    tracing::warn!(%points, "failpoints are armed: this daemon is under test and will fail on purpose");
    Ok(Faults::armed(points))
}

/// The life of a node process.
async fn serve(settings: Settings, faults: Faults) -> anyhow::Result<()> {
    let device = Arc::new(SystemDevice::new(settings.raft_log));
    let env = Env { device, faults, ..Env::system() };
    let scope = Scope::root("node");
    files::private_dir(&settings.state_dir).with_context(|| {
        format!("cannot use the state directory {}", settings.state_dir.display())
    })?;
    let _lock = lock(&settings.state_dir)?;
    harden::shared_dir(&settings.run_dir)
        .with_context(|| format!("cannot use the run directory {}", settings.run_dir.display()))?;
    let node = node::start(settings.clone(), env.clone(), &scope);
    let deps = api::Deps {
        env: env.clone(),
        control: Arc::new(node.clone()),
        store: node.store(),
        logs: logs::Broker::new(node.dispatcher(), &scope),
        engine: settings.engine.clone(),
    };
    let listen = api::Settings {
        socket: settings.socket.clone(),
        group: settings.group.clone(),
        metrics: settings.metrics_addr,
    };
    let server = api::serve(listen, deps, &scope).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %settings.socket.display(),
        "swarm daemon is ready"
    );
    notify_ready();
    node.resume().await;
    wait_for_signal().await?;
    tracing::info!("stopping; containers go on");
    node.stop().await;
    server.shutdown(SHUTDOWN_LIMIT).await;
    if !scope.shutdown(SHUTDOWN_LIMIT).await {
        tracing::warn!("not everything ended in time");
    }
    Ok(())
}

/// Keeps a second daemon out of the state directory. Held until it is dropped.
fn lock(state_dir: &Path) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    let path = state_dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow::anyhow!(
            "another swarm daemon uses {}; stop it first, or give this one another --state-dir",
            state_dir.display()
        )
    })
}

/// Tells systemd, if it started us, that the API answers.
fn notify_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
