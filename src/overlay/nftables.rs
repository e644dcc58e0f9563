//! The packet filter's programs: `nft` for our tables, `iptables` for the one rule that lets overlay
//! traffic pass where Docker (or anybody) set the policy of FORWARD to DROP.
//!
//! `nft` does not print what was loaded (it reorders and rewrites), so drift is found by comparing its
//! listing with the listing taken after our own last load, never with the generated text.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Error;
use super::firewall::{TABLES, removal};
use crate::env::Env;

/// A program that answers at all answers within this time; the lock of `iptables` included.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(15);

/// Marks our rules in chains that are not ours.
const COMMENT: &str = "swarm-overlay";

/// What was loaded last.
#[derive(Debug, Default)]
pub(super) struct Applied {
    text: String,
    listing: String,
}

/// What a program left behind.
struct Outcome {
    success: bool,
    stdout: String,
    stderr: String,
}

/// Loads a ruleset unless it is loaded and untouched. Whether anything was loaded.
pub(super) async fn load(env: &Env, applied: &mut Applied, text: String) -> Result<bool, Error> {
    if applied.text == text && applied.listing == listing(env).await? {
        return Ok(false);
    }
    let outcome = nft(env, &["-f", "-"], &text).await?;
    if !outcome.success {
        *applied = Applied::default();
        return Err(Error::Nft { reason: first_line(&outcome.stderr) });
    }
    *applied = Applied { listing: listing(env).await?, text };
    Ok(true)
}

/// Removes our tables if they are there. Whether anything was removed; a host without `nft` has none.
pub(super) async fn unload(env: &Env, applied: &mut Applied) -> Result<bool, Error> {
    *applied = Applied::default();
    match listing(env).await {
        Ok(text) if text.is_empty() => return Ok(false),
        Err(Error::NftMissing) => return Ok(false),
        Ok(_) | Err(_) => {}
    }
    let outcome = nft(env, &["-f", "-"], &removal()).await?;
    if outcome.success { Ok(true) } else { Err(Error::Nft { reason: first_line(&outcome.stderr) }) }
}

async fn listing(env: &Env) -> Result<String, Error> {
    let mut text = String::new();
    for table in TABLES {
        let mut arguments = vec!["list", "table"];
        arguments.extend(table.split(' '));
        // A table that is not there is an empty listing: that is drift, not an error.
        text.push_str(&nft(env, &arguments, "").await?.stdout);
    }
    Ok(text)
}

async fn nft(env: &Env, arguments: &[&str], input: &str) -> Result<Outcome, Error> {
    let failed = |reason: String| Error::Nft { reason };
    match run(env, "nft", arguments, input).await {
        Ok(outcome) => Ok(outcome),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::NftMissing),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn run(
    env: &Env,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> std::io::Result<Outcome> {
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let work = async move {
        if let Some(mut stdin) = stdin {
            // A program that ends before it has read all says why on its standard error.
            let _broken_pipe = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output =
        env.clock.timeout(PROGRAM_DEADLINE, work).await.map_err(|_| {
            std::io::Error::other(format!("{program} did not answer within 15 s"))
        })??;
    Ok(Outcome {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("no reason given").trim().to_owned()
}

/// Lets traffic within each bridge pass where the policy of FORWARD is DROP, and takes our rules for
/// other bridges away. Number of rules changed. A host without `iptables` has no such policy.
pub(super) async fn open_forward(env: &Env, bridges: &BTreeSet<String>) -> Result<usize, Error> {
    let Some(rules) = iptables(env, &["-S"]).await? else { return Ok(0) };
    let changes = forward_changes(&rules, bridges);
    for change in &changes {
        let arguments: Vec<&str> = change.iter().map(String::as_str).collect();
        iptables(env, &arguments).await?;
    }
    Ok(changes.len())
}

/// The calls of `iptables` that lead from its rules (as `-S` prints them) to what is wanted.
fn forward_changes(rules: &str, bridges: &BTreeSet<String>) -> Vec<Vec<String>> {
    let dropping = rules.lines().any(|line| line == "-P FORWARD DROP");
    // DOCKER-USER survives restarts of the engine; the rules in FORWARD are moved about by it.
    let has_user_chain = rules.lines().any(|line| line == "-N DOCKER-USER");
    let chain = if has_user_chain { "DOCKER-USER" } else { "FORWARD" };
    let mut wanted: BTreeSet<Vec<String>> = bridges
        .iter()
        .filter(|_| dropping)
        .map(|bridge| {
            let rule =
                format!("{chain} -i {bridge} -o {bridge} -m comment --comment {COMMENT} -j ACCEPT");
            rule.split(' ').map(str::to_owned).collect()
        })
        .collect();
    let mut changes = Vec::new();
    for line in rules.lines().filter(|line| line.contains(COMMENT)) {
        let Some(rule) = line.strip_prefix("-A ") else { continue };
        let rule: Vec<String> = rule.replace('"', "").split(' ').map(str::to_owned).collect();
        // The second of two like rules is not wanted any more, either.
        if !wanted.remove(&rule) {
            changes.push([vec!["-D".to_owned()], rule].concat());
        }
    }
    changes.extend(wanted.into_iter().map(|rule| [vec!["-I".to_owned()], rule].concat()));
    changes
}

async fn iptables(env: &Env, arguments: &[&str]) -> Result<Option<String>, Error> {
    let mut all = vec!["-w", "5"];
    all.extend(arguments);
    match run(env, "iptables", &all, "").await {
        Ok(outcome) if outcome.success => Ok(Some(outcome.stdout)),
        Ok(outcome) => Err(Error::Iptables { reason: first_line(&outcome.stderr) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Iptables { reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridges(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn lines(rules: &str, wanted: &[&str]) -> Vec<String> {
        forward_changes(rules, &bridges(wanted)).iter().map(|change| change.join(" ")).collect()
    }

    #[test]
    fn nothing_is_opened_where_nothing_is_closed() {
        let rules = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
        assert!(lines(rules, &["ov4097"]).is_empty());
    }

    #[test]
    fn a_closed_forward_chain_is_opened_for_each_bridge_once() {
        let closed = "-P FORWARD DROP\n-N DOCKER-USER\n";
        let rule = "DOCKER-USER -i ov4097 -o ov4097 -m comment --comment swarm-overlay -j ACCEPT";
        assert_eq!(lines(closed, &["ov4097"]), [format!("-I {rule}")]);
        let opened = format!("{closed}-A {}\n", rule.replace("swarm-overlay", "\"swarm-overlay\""));
        assert!(lines(&opened, &["ov4097"]).is_empty());
        let twice = format!("{opened}-A {rule}\n");
        assert_eq!(lines(&twice, &["ov4097"]), [format!("-D {rule}")]);
        assert_eq!(lines(&opened, &[]), [format!("-D {rule}")]);
    }

    #[test]
    fn without_the_engines_chain_the_rule_goes_to_forward() {
        let changes = lines("-P FORWARD DROP\n", &["ov9"]);
        assert!(changes[0].starts_with("-I FORWARD -i ov9 -o ov9 "), "{changes:?}");
    }
}
