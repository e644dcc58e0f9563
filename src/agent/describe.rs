//! What the node says of itself, kept up to date: the engine, the machine, and why it cannot work.
//!
//! A node without an engine still is a node: it says what is missing and takes tasks when it is there.

use std::sync::Arc;
use std::time::Duration;

use super::board::Board;
use crate::domain::node::{Description, Platform};
use crate::domain::resources::Resources;
use crate::env::Env;
use crate::runtime::Runtime;

/// What changes without a word of the engine (labels, plugins) is found after this time.
const REPEAT: Duration = Duration::from_secs(20);
/// While there is no engine.
const RETRY: Duration = Duration::from_secs(2);

/// Follows the engine and the network for ever. The engine is asked when it comes or goes and once in a
/// while, never for the network's sake: its answer costs it as much as starting a process or two.
pub(super) async fn run(env: Env, board: Arc<Board>, runtime: Arc<dyn Runtime>) {
    let mut engine = board.engine.subscribe();
    let mut networks = board.networks.subscribe();
    loop {
        let (described, pause) = match runtime.describe().await {
            Ok(described) => (described, REPEAT),
            Err(error) => (Description { degraded: error.to_string(), ..machine(&env) }, RETRY),
        };
        let description = finish(&env, described);
        let due = env.clock.instant().after(pause);
        loop {
            publish(&board, &description, &networks.borrow_and_update().problem);
            let rest = due.since(env.clock.instant());
            tokio::select! {
                biased;
                changed = engine.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                changed = networks.changed() => if changed.is_err() { return },
                () = env.clock.sleep(rest) => break,
            }
        }
    }
}

/// Tells the others, if it is news. A problem of the engine comes before one of the network.
fn publish(board: &Board, description: &Description, problem: &str) {
    let mut description = description.clone();
    if description.degraded.is_empty() {
        problem.clone_into(&mut description.degraded);
    }
    board.description.send_if_modified(|known| {
        let changed = known.as_ref() != Some(&description);
        if changed {
            if !description.degraded.is_empty() {
                tracing::warn!(reason = description.degraded, "this node cannot run tasks");
            }
            *known = Some(description);
        }
        changed
    });
}

/// What an engine does not know.
fn finish(env: &Env, described: Description) -> Description {
    let hostname = env.machine.hostname().unwrap_or_else(|| described.hostname.clone());
    Description { hostname, agent_version: env!("CARGO_PKG_VERSION").to_owned(), ..described }
}

/// The machine as the kernel shows it, for the time without an engine.
pub(super) fn machine(env: &Env) -> Description {
    let cpus = env.machine.cores();
    Description {
        hostname: env.machine.hostname().unwrap_or_default(),
        platform: Platform {
            architecture: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
        },
        resources: Resources {
            nano_cpus: i64::try_from(cpus).unwrap_or(1).saturating_mul(1_000_000_000),
            memory_bytes: env.machine.memory_bytes().unwrap_or_default(),
            ..Resources::default()
        },
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Description::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn machine_without_engine_has_name_and_size() {
        let machine = super::machine(&crate::env::Env::system());
        assert!(!machine.hostname.is_empty());
        assert!(machine.resources.nano_cpus >= 1_000_000_000);
        assert!(machine.resources.memory_bytes > 1 << 20);
    }
}
