//! Log lines on standard error, and what happens on a panic.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What other people's crates log is worth a line only when something is wrong.
const QUIET: &str = "openraft=error,sled=warn,h2=warn,hyper=warn,tonic=warn,tower=warn,rustls=warn,\
                     hickory_server=error,hickory_proto=error,hickory_net=error,netlink_proto=warn,netlink_packet_route=error,bollard=warn";

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Text,
    /// For machines, a JSON object per line.
    Json,
}

/// Installs the log. The filter's own directives win over the quiet defaults.
///
/// # Errors
/// When the filter is not one, or a log is installed already.
pub(super) fn install(filter: &str, format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| anyhow::anyhow!("log filter {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("log: {error}"))
}

/// A panic anywhere ends the process: half a manager is worse than none, and the supervisor starts
/// a whole one. Only what damage makes the raft log's database do is survived, and told in words.
pub(super) fn crash_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if crate::env::disk::is_probing_panic() {
            tracing::debug!(%panic, "the raft log makes its database panic");
            return; // becomes an error that says what to do
        }
        tracing::error!(%panic, "a bug: the daemon ends itself");
        print(panic);
        std::process::abort();
    }));
}
