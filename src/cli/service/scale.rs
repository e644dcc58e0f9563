//! `swarm service scale` and `swarm service rollback`.

use anyhow::{Context, bail};
use clap::Args;

use super::follow::{self, FollowFlags, Wish};
use crate::cli::client::Route;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::domain::service::Mode;

/// `swarm service scale`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm service scale web=5
  swarm service scale --detach web=5 api=2")]
pub(crate) struct Scale {
    /// Services and their numbers of tasks
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    wishes: Vec<String>,
    #[command(flatten)]
    follow: FollowFlags,
}

/// `swarm service rollback`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm service rollback web")]
pub(crate) struct Rollback {
    /// Name or id of the service
    service: String,
    #[command(flatten)]
    follow: FollowFlags,
}

/// Reads `web=5`.
fn wish(text: &str) -> anyhow::Result<(&str, u64)> {
    let Some((name, count)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        bail!("invalid scale specifier '{text}': expected SERVICE=REPLICAS, such as web=5");
    };
    let count = count
        .parse()
        .with_context(|| format!("{name}: invalid replicas value {count}: expected a number"))?;
    Ok((name, count))
}

impl Scale {
    /// Sets numbers of tasks and waits until they run.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let wishes =
            self.wishes.iter().map(|text| wish(text)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut scaled = Vec::new();
        let mut failures = Vec::new();
        for (name, count) in wishes {
            match scale_one(shell, name, count).await {
                Ok(id) => {
                    shell.out.line(format_args!("{name} scaled to {count}"))?;
                    scaled.push(id);
                }
                Err(error) => failures.push(format!("{name}: {error:#}")),
            }
        }
        for id in scaled {
            follow::after(shell, &id, &self.follow, Wish::Spec).await?;
        }
        crate::cli::failed(&failures)
    }
}

async fn scale_one(shell: &Shell, name: &str, count: u64) -> anyhow::Result<String> {
    let mut service: reply::Service = shell.client.get(&Route::new(["services", name])).await?;
    match &mut service.spec.mode {
        Mode::Replicated { replicas } => *replicas = Some(count),
        Mode::Global {} => bail!("scale can only be used with replicated mode"),
    }
    let route = Route::new(["services", &service.id, "update"])
        .query("version", &service.version.index.to_string());
    let _updated: reply::Updated = shell.client.post_for(&route, &service.spec, None).await?;
    Ok(service.id)
}

impl Rollback {
    /// Brings the previous spec back and waits until it runs.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let route = Route::new(["services", &self.service]);
        let service: reply::Service = shell.client.get(&route).await?;
        let route = Route::new(["services", &service.id, "update"])
            .query("version", &service.version.index.to_string())
            .query("rollback", "previous");
        let updated: reply::Updated = shell.client.post_for(&route, &service.spec, None).await?;
        for warning in updated.warnings.iter().flatten() {
            shell.out.note(warning)?;
        }
        shell.out.line(&self.service)?;
        follow::after(shell, &service.id, &self.follow, Wish::Previous).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_name_service_and_count() {
        assert_eq!(wish("web=5").unwrap(), ("web", 5));
        assert!(wish("web").unwrap_err().to_string().contains("SERVICE=REPLICAS"));
        assert!(wish("web=many").unwrap_err().to_string().contains("invalid replicas value"));
    }
}
