//! `swarm ca`: the root certificate, and its rotation.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::admin;
use crate::cli::client::Route;
use crate::cli::os;
use crate::cli::reply;
use crate::cli::shell::{Out, Screen, Shell};
use crate::cli::text::units;
use crate::cli::values::number;
use crate::domain::Nanos;

/// Between two looks, as Docker's client.
const PAUSE: Duration = Duration::from_millis(200);
/// Looks in a row that may fail.
const FAILURES_MAX: u32 = 20;
/// Most nodes that are named while they are waited for.
const NAMED_MOST: usize = 5;
/// Characters of a bar.
const BAR: usize = 50;

/// `swarm ca`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm ca > root.pem      the root certificate; while it is rotated, the old one and the next
  swarm ca --rotate        a new root; the certificates of all nodes and both join tokens change
  swarm ca --rotate -d     the same, without waiting

Nodes that are down hold a rotation up until they are back, or removed with `swarm node rm`; nothing
else waits for it.")]
pub(crate) struct Authority {
    /// Rotate the swarm CA
    #[arg(long)]
    rotate: bool,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = number::duration)]
    cert_expiry: Option<Nanos>,
    /// Exit immediately instead of waiting for the root rotation to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// A root certificate of one's own; refused by the daemon
    #[arg(long, value_name = "PEM_FILE", hide = true)]
    ca_cert: Option<String>,
    /// The key of a root certificate of one's own; refused by the daemon
    #[arg(long, value_name = "PEM_FILE", hide = true)]
    ca_key: Option<String>,
    /// An external authority; refused by the daemon
    #[arg(long, value_name = "SPEC", hide = true)]
    external_ca: Option<String>,
}

impl Authority {
    /// Prints the root certificate, after rotating it if that is wanted.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let own = self.ca_cert.is_some() || self.ca_key.is_some() || self.external_ca.is_some();
        if own {
            bail!(
                "a root certificate of one's own and external authorities are not supported: leave \
                 --ca-cert, --ca-key and --external-ca out, and the swarm makes its own root"
            );
        }
        if !self.rotate {
            if self.cert_expiry.is_some() {
                bail!(
                    "`--cert-expiry` flag requires the `--rotate` flag to update the CA; to change it \
                     alone: `swarm update --cert-expiry`"
                );
            }
            return show(shell).await;
        }
        let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
        let mut spec = cluster.spec.clone();
        if let Some(expiry) = self.cert_expiry {
            spec.ca.node_cert_expiry = expiry;
        }
        let count = spec.ca.force_rotate() + 1;
        spec.ca.extra.insert("ForceRotate".to_owned(), count.into());
        admin::update(shell, &cluster, &spec, None).await?;
        if self.detach {
            return Ok(());
        }
        let screen = if self.quiet { None } else { Some(shell.out.screen()) };
        if follow(shell, screen).await? { show(shell).await } else { Ok(()) }
    }
}

async fn show(shell: &mut Shell) -> anyhow::Result<()> {
    let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
    if cluster.tls_info.trust_root.is_empty() {
        bail!("no CA information available");
    }
    shell.out.line(cluster.tls_info.trust_root.trim_end())?;
    Ok(())
}

/// Shows how far the rotation is until it is done; `false` if the user does not want to wait.
async fn follow(shell: &mut Shell, screen: Option<Screen>) -> anyhow::Result<bool> {
    let mut display = Display { screen, drawn: 0, printed: BTreeMap::new() };
    let mut failures = 0;
    // One for the whole time: a signal between two of them would reach nobody.
    let mut interrupted = std::pin::pin!(os::interrupted());
    loop {
        let picture = tokio::select! {
            biased;
            () = &mut interrupted => {
                shell.out.note("Operation continuing in background.")?;
                shell.out.note("Use `swarm node ls` to see which nodes it waits for.")?;
                return Ok(false);
            }
            picture = look_again(shell) => picture,
        };
        match picture {
            Ok(picture) => {
                failures = 0;
                display.draw(&mut shell.out, &picture)?;
                if picture.is_done() {
                    return Ok(true);
                }
            }
            // A leader may be lost meanwhile; the rotation goes on, and so does this.
            Err(error) if failures >= FAILURES_MAX => return Err(error),
            Err(_) => failures += 1,
        }
    }
}

async fn look_again(shell: &Shell) -> anyhow::Result<Picture> {
    os::sleep(PAUSE).await;
    let cluster: reply::Cluster = shell.client.get(&Route::new(["swarm"])).await?;
    let nodes: Vec<reply::Node> = shell.client.get(&Route::new(["nodes"])).await?;
    Ok(Picture::of(&cluster, &nodes))
}

/// How far a rotation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Picture {
    digest: String,
    in_progress: bool,
    nodes: usize,
    certificates: usize,
    roots: usize,
    /// Who is behind, and why if that is known.
    behind: Vec<String>,
}

impl Picture {
    /// Docker's rules: a certificate counts by its issuer; a root counts once all certificates do.
    fn of(cluster: &reply::Cluster, nodes: &[reply::Node]) -> Self {
        let wanted = &cluster.tls_info;
        let signed = |node: &reply::Node| {
            let info = &node.description.tls_info;
            info.cert_issuer_public_key == wanted.cert_issuer_public_key
                && info.cert_issuer_subject == wanted.cert_issuer_subject
        };
        let trusts = |node: &reply::Node| {
            signed(node) && node.description.tls_info.trust_root == wanted.trust_root
        };
        let in_progress = cluster.root_rotation_in_progress;
        let certificates = nodes.iter().filter(|node| signed(node)).count();
        let roots = if in_progress { 0 } else { nodes.iter().filter(|node| trusts(node)).count() };
        let behind = nodes.iter().filter(|node| !trusts(node)).map(|node| {
            let name = &node.description.machine.hostname;
            let name = if name.is_empty() { &node.id } else { name };
            if node.status.state == "ready" {
                name.clone()
            } else {
                format!("{name} ({})", node.status.state)
            }
        });
        Self {
            digest: cluster.desired_root_digest.clone(),
            in_progress,
            nodes: nodes.len(),
            certificates,
            roots,
            behind: behind.collect(),
        }
    }

    fn is_done(&self) -> bool {
        !self.in_progress && (self.certificates, self.roots) == (self.nodes, self.nodes)
    }

    /// The lines of a screen of so many columns, each under a key; bars where there is room.
    fn lines(&self, columns: usize) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if !self.digest.is_empty() {
            lines.push(("digest", format!("desired root digest: {}", self.digest)));
        }
        let line = |what: &str, done: usize| {
            let room = columns > BAR + 45;
            let bar = if room { bar(done, self.nodes) } else { String::new() };
            format!("  rotated {what} certificates: {bar}{done}/{} nodes", self.nodes)
        };
        lines.push(("certificates", line("TLS", self.certificates)));
        lines.push(("roots", line("CA", self.roots).replacen(": ", ":  ", 1)));
        if !self.behind.is_empty() {
            let named = self.behind.iter().take(NAMED_MOST).cloned().collect::<Vec<_>>().join(", ");
            let more = self.behind.len().saturating_sub(NAMED_MOST);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(("behind", format!("  waiting for: {named}{more}")));
        }
        lines
    }
}

fn bar(done: usize, all: usize) -> String {
    let filled = BAR * done / all.max(1);
    let arrow = if filled == BAR { "=".repeat(BAR) } else { format!("{}>", "=".repeat(filled)) };
    format!("[{arrow:<BAR$}] ")
}

/// The lines on the screen: drawn over on a terminal; elsewhere each is printed when it is new.
struct Display {
    screen: Option<Screen>,
    drawn: usize,
    printed: BTreeMap<&'static str, String>,
}

impl Display {
    fn draw(&mut self, out: &mut Out, picture: &Picture) -> std::io::Result<()> {
        match self.screen {
            None => Ok(()),
            Some(Screen::Plain) => {
                for (key, line) in picture.lines(0) {
                    if self.printed.get(key) != Some(&line) {
                        out.line(&line)?;
                        self.printed.insert(key, line);
                    }
                }
                Ok(())
            }
            Some(Screen::Terminal(columns)) => {
                let up =
                    if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
                let lines = picture.lines(columns);
                self.drawn = lines.len();
                let lines = lines.iter().map(|(_, line)| {
                    format!("\r\x1b[2K{}\n", units::ellipsis(line, columns.saturating_sub(1)))
                });
                out.text(format_args!("{up}{}\x1b[J", lines.collect::<String>()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(root: &str, issuer: &str, digest: &str) -> reply::Cluster {
        serde_json::from_value(json!({
            "TLSInfo": {"TrustRoot": root, "CertIssuerSubject": "s", "CertIssuerPublicKey": issuer},
            "RootRotationInProgress": !digest.is_empty(), "DesiredRootDigest": digest,
        }))
        .unwrap()
    }

    fn node(name: &str, state: &str, root: &str, issuer: &str) -> reply::Node {
        let info =
            json!({"TrustRoot": root, "CertIssuerSubject": "s", "CertIssuerPublicKey": issuer});
        serde_json::from_value(json!({
            "ID": name, "Description": {"Hostname": name, "TLSInfo": info},
            "Status": {"State": state},
        }))
        .unwrap()
    }

    #[test]
    fn the_progress_says_whom_it_waits_for() {
        let nodes = [node("n1", "ready", "old+next", "next"), node("n2", "down", "old", "old")];
        let picture = Picture::of(&cluster("old+next", "next", "sha256:ab"), &nodes);
        assert!(!picture.is_done());
        let lines: Vec<String> = picture.lines(0).into_iter().map(|(_, line)| line).collect();
        assert_eq!(
            lines,
            [
                "desired root digest: sha256:ab",
                "  rotated TLS certificates: 1/2 nodes",
                "  rotated CA certificates:  0/2 nodes",
                "  waiting for: n2 (down)",
            ]
        );
    }

    #[test]
    fn it_is_done_when_all_trust_the_new_root_alone() {
        let switched = cluster("next", "next", "");
        let nodes = [node("n1", "ready", "next", "next"), node("n2", "ready", "", "next")];
        let picture = Picture::of(&switched, &nodes);
        assert_eq!((picture.certificates, picture.roots, picture.is_done()), (2, 1, false));
        let picture = Picture::of(&switched, &nodes[..1]);
        assert!(picture.is_done() && picture.behind.is_empty());
        assert_eq!(picture.lines(0).len(), 2);
    }
}
