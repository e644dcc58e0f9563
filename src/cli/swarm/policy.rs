//! `swarm policy`: what services may ask of hosts.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::admin;
use crate::cli::client::Route;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::text::table;
use crate::domain::SpecPolicy;
use crate::domain::admission::Grant;

const GRANTS: &str = "WHAT is one of

  docker-socket        sockets of engines and of this daemon: root on the host
  host-network         the host's network
  unconfined           another seccomp, AppArmor or SELinux profile than the engine's, or none
  bind-mount=PATH      a path of the host and what is below it; PATH:ro for reading alone
  capability=NAME      a capability beyond the engine's default set; ALL for any
  sysctl=NAME          a kernel parameter; NAME* for those that begin so
  everything           as with Docker Swarm: there is no policy";

/// `swarm policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Display what services may ask of hosts
    Show(Show),
    /// Permit services something
    Allow(Allow),
    /// Permit services something no longer
    Deny(Deny),
    /// Return to the policy that a new swarm has
    Reset(Reset),
}

/// `swarm policy show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm policy show")]
pub(crate) struct Show {}

/// `swarm policy allow`.
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{GRANTS}

Examples:
  swarm policy allow bind-mount=/opt/app bind-mount=/etc/ssl/certs:ro
  swarm policy allow docker-socket             Portainer, Traefik, and whoever else reads it
  swarm policy allow capability=NET_ADMIN host-network
  swarm policy allow everything"))]
pub(crate) struct Allow {
    /// What to permit
    #[arg(required = true, value_name = "WHAT")]
    grants: Vec<Grant>,
}

/// `swarm policy deny`.
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{GRANTS}

What runs is left alone, and so is what only scales: a service is held against the policy when it is
made, when what its containers are changes, and when it is rolled back by hand.

Examples:
  swarm policy deny docker-socket
  swarm policy deny bind-mount=/mnt
  swarm policy deny everything"))]
pub(crate) struct Deny {
    /// What to permit no longer
    #[arg(required = true, value_name = "WHAT")]
    grants: Vec<Grant>,
}

/// `swarm policy reset`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm policy reset")]
pub(crate) struct Reset {}

impl PolicyCommand {
    /// Shows or changes the policy.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
        let mut policy = cluster.spec.spec_policy();
        match self {
            Self::Show(_) => return Ok(shell.out.text(table::align(&shown(&policy)))?),
            Self::Allow(allow) => allow.grants.iter().for_each(|grant| policy.allow(grant)),
            Self::Deny(deny) => {
                for grant in &deny.grants {
                    if let Err(error) = policy.deny(grant) {
                        bail!("{error}; see `swarm policy show`");
                    }
                }
            }
            Self::Reset(_) => policy = SpecPolicy::default(),
        }
        let mut spec = cluster.spec.clone();
        spec.policy = Some(policy.clone());
        admin::update(shell, &cluster, &spec, None).await?;
        shell.out.line("Policy updated.")?;
        name_the_rest(shell, &policy).await
    }
}

fn shown(policy: &SpecPolicy) -> String {
    let yes = |permitted: bool| if permitted { "yes" } else { "no" };
    let list = |entries: &[String]| match entries {
        [] => "none".to_owned(),
        entries => entries.join(", "),
    };
    let rows = [
        ("docker-socket", yes(policy.docker_socket).to_owned()),
        ("host-network", yes(policy.host_network).to_owned()),
        ("unconfined", yes(policy.unconfined).to_owned()),
        ("bind-mount", list(&policy.bind_mounts)),
        ("capability", list(&policy.capabilities)),
        ("sysctl", list(&policy.sysctls)),
    ];
    rows.iter().map(|(name, value)| format!("{name}\t{value}\n")).collect()
}

/// Services that have what the policy does not permit any more.
async fn name_the_rest(shell: &mut Shell, policy: &SpecPolicy) -> anyhow::Result<()> {
    let services: Vec<reply::Service> = shell.client.get(&Route::new(["services"])).await?;
    let mut named = false;
    for service in services {
        let Some(violation) = policy.violations(&service.spec).into_iter().next() else { continue };
        if !named {
            shell.out.note("These have more than that. They go on, until they are changed:")?;
            named = true;
        }
        shell.out.note(format_args!("  {}: {violation}", service.spec.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_shown_as_it_is_permitted() {
        assert_eq!(
            table::align(&shown(&SpecPolicy::default())),
            "docker-socket   no\n\
             host-network    no\n\
             unconfined      no\n\
             bind-mount      /srv, /data, /mnt, /media, /etc/localtime:ro, /etc/timezone:ro\n\
             capability      none\n\
             sysctl          net.*, kernel.shm_rmid_forced\n"
        );
    }
}
