//! Environment variables, labels, host entries, capabilities.

use std::collections::BTreeSet;

use anyhow::{Context, bail};

use crate::domain::Labels;

/// Looks a variable of the caller up, for `--env NAME` without a value.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The caller's environment.
pub(crate) fn caller(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Variables of files, then of flags; of several with one name the last stays, in its place.
///
/// # Errors
/// When a file cannot be read or a name is missing.
pub(crate) fn environment(
    files: &[String],
    flags: &[String],
    lookup: Lookup<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut variables = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the environment file {file}"))?;
        for line in text.trim_start_matches('\u{feff}').lines().map(str::trim_start) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() || name.contains(char::is_whitespace) {
                bail!("poorly formatted environment: variable '{name}' in {file}: {line}");
            }
            // As in Docker, a name without a value is passed only if the caller has it.
            if line.contains('=') {
                variables.push(line.to_owned());
            } else if let Some(value) = lookup(name) {
                variables.push(format!("{name}={value}"));
            }
        }
    }
    for flag in flags {
        variables.push(variable(flag, lookup)?);
    }
    let mut kept: Vec<String> = Vec::new();
    for variable in variables {
        let name = name_of(&variable);
        if kept.contains(&variable) {
            continue;
        }
        kept.retain(|known| name_of(known) != name);
        kept.push(variable);
    }
    Ok(kept)
}

/// One `--env`: `NAME=value`, or `NAME` for the caller's value.
///
/// # Errors
/// When the name is missing.
pub(crate) fn variable(flag: &str, lookup: Lookup<'_>) -> anyhow::Result<String> {
    if name_of(flag).is_empty() {
        bail!("invalid environment variable: {flag}");
    }
    if flag.contains('=') {
        return Ok(flag.to_owned());
    }
    Ok(lookup(flag).map_or_else(|| flag.to_owned(), |value| format!("{flag}={value}")))
}

/// The name of `NAME=value`.
pub(crate) fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// `key[=value]` flags as a map.
pub(crate) fn pairs(flags: &[String]) -> Labels {
    flags
        .iter()
        .map(|flag| {
            let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// `--host name:ip` as Swarm stores it: `ip name`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn host_entry(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, ip) = text.split_once([':', '=']).ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {ip:?}"));
    }
    Ok(format!("{bare} {name}"))
}

/// Capabilities as the engine names them, `CAP_NET_ADMIN` or `ALL`, each once, in order.
pub(crate) fn capabilities(flags: &[String]) -> BTreeSet<String> {
    flags
        .iter()
        .map(|flag| {
            let name = flag.trim().to_uppercase();
            let bare = name == "ALL" || name == "RESET" || name.starts_with("CAP_");
            if bare { name } else { format!("CAP_{name}") }
        })
        .filter(|name| name != "CAP_")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_variables_win_and_names_are_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env").display().to_string();
        std::fs::write(&file, "# comment\nA=1\nHOMELESS\nPATHLIKE\n\n  B=2\n").unwrap();
        let lookup = |name: &str| (name != "HOMELESS").then(|| "x".to_owned());
        let flags = ["A=3".to_owned(), "Z".to_owned(), "HOMELESS".to_owned()];
        let variables = environment(&[file], &flags, &lookup).unwrap();
        assert_eq!(variables, ["PATHLIKE=x", "B=2", "A=3", "Z=x", "HOMELESS"]);
        assert!(environment(&[], &["=1".to_owned()], &lookup).is_err());
        assert!(environment(&["/nope".to_owned()], &[], &lookup).is_err());
    }

    #[test]
    fn hosts_and_capabilities() {
        assert_eq!(host_entry("a:1.2.3.4").unwrap(), "1.2.3.4 a");
        assert_eq!(host_entry("a:::1").unwrap(), "::1 a");
        assert!(host_entry("a").unwrap_err().contains("bad format"));
        assert!(host_entry("a:b").unwrap_err().contains("invalid IP"));
        let set = capabilities(&["net_admin".into(), "CAP_NET_ADMIN".into(), "all".into()]);
        assert_eq!(set.into_iter().collect::<Vec<_>>(), ["ALL", "CAP_NET_ADMIN"]);
    }
}
