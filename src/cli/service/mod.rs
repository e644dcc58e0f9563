//! `swarm service …`.

mod auth;
mod create;
mod flags;
mod follow;
mod list;
mod logs;
mod pretty;
mod progress;
mod references;
mod scale;
mod update;

use clap::Subcommand;

use super::client::Route;
use super::shell::Shell;
use super::tasks::PsArgs;
use super::text::rows::ListArgs;

/// `swarm service`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Create a new service
    Create(Box<create::Create>),
    /// Display detailed information on one or more services
    Inspect(list::Inspect),
    /// Fetch the logs of a service or task
    Logs(logs::Logs),
    /// List services
    #[command(
        visible_alias = "list",
        after_help = "Examples:
  swarm service ls
  swarm service ls --filter mode=global -q
  swarm service ls --format '{{.Name}} {{.Replicas}}'"
    )]
    Ls(ListArgs),
    /// List the tasks of one or more services
    #[command(after_help = "Examples:
  swarm service ps web
  swarm service ps --no-trunc --filter desired-state=running web
  swarm service ps --format '{{.Name}} {{.Node}} {{.CurrentState}}' web")]
    Ps {
        /// Names or ids of services
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
        #[command(flatten)]
        args: PsArgs,
    },
    /// Remove one or more services
    #[command(
        visible_alias = "remove",
        after_help = "Examples:
  swarm service rm web api"
    )]
    Rm {
        /// Names or ids of services
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Revert changes to a service's configuration
    Rollback(scale::Rollback),
    /// Scale one or multiple replicated services
    Scale(scale::Scale),
    /// Update a service
    Update(Box<update::Update>),
}

impl ServiceCommand {
    /// Runs the command.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        match self {
            Self::Create(command) => command.run(shell).await,
            Self::Inspect(command) => command.run(shell).await,
            Self::Logs(command) => command.run(shell).await,
            Self::Ls(args) => list::list(shell, &args).await,
            Self::Ps { services, args } => list::ps(shell, &services, &args).await,
            Self::Rm { services } => remove(shell, &services).await,
            Self::Rollback(command) => command.run(shell).await,
            Self::Scale(command) => command.run(shell).await,
            Self::Update(command) => command.run(shell).await,
        }
    }
}

async fn remove(shell: &mut Shell, names: &[String]) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for name in names {
        match shell.client.delete(&Route::new(["services", name])).await {
            Ok(()) => shell.out.line(name)?,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    super::failed(&failures)
}
