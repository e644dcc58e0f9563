//! What a container of a service may be: image, environment, mounts, health check, files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Checked, ensure, image, is_set, wrong};
use crate::domain::Nanos;
use crate::domain::container::{
    ConfigReference, ContainerSpec, FileTarget, Healthcheck, Mount, MountKind, SecretReference,
    Ulimit,
};

/// Names of signals, without `SIG`.
const SIGNALS: [&str; 33] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
];

/// Longest path that Linux takes, without the zero at its end.
const PATH_MAX: usize = 4095;

/// Longest name of a file on Linux.
const NAME_MAX: usize = 255;

/// Where a file of a task cannot lie: these are made by the kernel and the engine.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Read, write and execute for everybody. What a task gets to read needs no set-user-ID bits.
const MODE_MAX: u32 = 0o777;

/// Highest signal number of Linux.
const SIGNAL_MAX: u8 = 64;

fn field(name: &str) -> String {
    format!("TaskTemplate.ContainerSpec.{name}")
}

pub(super) fn check(it: &ContainerSpec) -> Checked {
    let reason = "ContainerSpec: image reference must be provided";
    ensure!(!it.image.is_empty(), field("Image"), reason);
    image::check(&it.image).map_err(|reason| {
        let text = format!("ContainerSpec: {:?} is not a valid repository/tag: {reason}", it.image);
        wrong(field("Image"), text)
    })?;
    environment(&it.env)?;
    stop_signal(&it.stop_signal)?;
    mounts(&it.mounts)?;
    it.healthcheck.as_ref().map_or(Ok(()), healthcheck)?;
    files(&it.secrets, &it.configs)?;
    it.ulimits.iter().try_for_each(ulimit)?;
    it.hosts.iter().try_for_each(|line| host(line))?;
    let privileges = it.extra.get("Privileges").and_then(|it| it.get("CredentialSpec"));
    let windows = "credential specs are for Windows containers, which are not supported";
    let linux = privileges.is_none_or(|it| it.is_null() || *it == serde_json::json!({}));
    ensure!(linux, field("Privileges.CredentialSpec"), windows);
    let isolation = is_set(&it.extra, "Isolation")
        && it.extra.get("Isolation").and_then(|it| it.as_str()) != Some("default");
    ensure!(!isolation, field("Isolation"), "is for Windows containers, which are not supported");
    Ok(())
}

fn environment(env: &[String]) -> Checked {
    for line in env {
        let named = !line.is_empty() && !line.starts_with('=') && !line.contains('\0');
        let reason = format!("invalid environment variable: {line:?}: NAME=value is expected");
        ensure!(named, field("Env"), reason);
    }
    Ok(())
}

fn stop_signal(text: &str) -> Checked {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = |text: &str| text.parse::<u8>().ok();
    let real_time = || match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) | (_, Some("")) => true,
        (Some(offset), _) => offset.strip_prefix('+').and_then(number).is_some_and(|it| it <= 15),
        (_, Some(offset)) => offset.strip_prefix('-').and_then(number).is_some_and(|it| it <= 14),
        _ => false,
    };
    let numbered = || number(text).is_some_and(|it| (1..=SIGNAL_MAX).contains(&it));
    let known =
        text.is_empty() || SIGNALS.contains(&name) || name == "XFSZ" || real_time() || numbered();
    ensure!(known, field("StopSignal"), format!("invalid signal: {text}"));
    Ok(())
}

fn mounts(mounts: &[Mount]) -> Checked {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        let parts = mount.target.split('/').filter(|it| !matches!(*it, "" | "."));
        ensure!(
            targets.insert(parts.collect::<Vec<_>>()),
            field("Mounts.Target"),
            format!("ContainerSpec: duplicate mount point: {}", mount.target)
        );
        check_mount(mount)?;
    }
    Ok(())
}

fn check_mount(it: &Mount) -> Checked {
    let kind = match it.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Npipe | MountKind::Cluster => {
            let reason = "cluster volumes and named pipes are not supported: use bind, volume or \
                          tmpfs";
            return Err(wrong(field("Mounts.Type"), reason));
        }
    };
    let text = |what: &str| format!("invalid mount config for type \"{kind}\": {what}");
    // Both may begin with a template, which only the node can fill in.
    let absolute = |path: &str| path.starts_with('/') || path.starts_with("{{");
    let not_absolute =
        |path: &str| text(&format!("invalid mount path: '{path}' mount path must be absolute"));
    let target = field("Mounts.Target");
    ensure!(!it.target.is_empty(), target, text("field Target must not be empty"));
    ensure!(absolute(&it.target), target, not_absolute(&it.target));
    let root = it.target.trim_end_matches('/').is_empty();
    ensure!(!root, target, text("invalid specification: destination can't be '/'"));
    ensure!(!climbs(&it.target), target, text("a path without '..' is expected"));
    for (member, path) in [("Source", &it.source), ("Target", &it.target)] {
        let plain = !path.chars().any(char::is_control);
        let what = "control characters are not allowed";
        ensure!(plain, field(&format!("Mounts.{member}")), text(what));
        let short = path.len() <= PATH_MAX;
        ensure!(short, field(&format!("Mounts.{member}")), text("a path has up to 4095 bytes"));
    }
    let source = field("Mounts.Source");
    match it.kind {
        MountKind::Bind => {
            ensure!(!it.source.is_empty(), source, text("field Source must not be empty"));
            ensure!(absolute(&it.source), source, not_absolute(&it.source));
            ensure!(!climbs(&it.source), source, text("a path without '..' is expected"));
        }
        MountKind::Tmpfs => {
            ensure!(it.source.is_empty(), source, text("field Source must not be specified"));
        }
        MountKind::Volume => {
            let path = it.source.contains('/') && !it.source.contains("{{");
            let reason = format!("{:?} is not a name of a volume: use type=bind", it.source);
            ensure!(!path, source, text(&reason));
        }
        MountKind::Npipe | MountKind::Cluster => {}
    }
    Ok(())
}

/// Whether a path leaves the directory that it names.
fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn healthcheck(it: &Healthcheck) -> Checked {
    let form = it.test.first().map(String::as_str);
    let known = match form {
        None => true,
        Some("NONE") => it.test.len() == 1,
        Some("CMD" | "CMD-SHELL") => it.test.len() > 1,
        Some(_) => false,
    };
    let reason = "[\"NONE\"], [\"CMD\", args...] or [\"CMD-SHELL\", command] is expected";
    ensure!(known, field("Healthcheck.Test"), reason);
    for (name, value) in [
        ("Interval", it.interval),
        ("Timeout", it.timeout),
        ("StartPeriod", it.start_period),
        ("StartInterval", it.start_interval),
    ] {
        let long_enough = value.is_none_or(|it| it == Nanos(0) || it >= Nanos(1_000_000));
        let reason = format!("ContainerSpec: {name} in HealthConfig cannot be less than 1ms");
        ensure!(long_enough, field(&format!("Healthcheck.{name}")), reason);
    }
    let reason = "ContainerSpec: Retries in HealthConfig cannot be negative";
    ensure!(it.retries.is_none_or(|it| it >= 0), field("Healthcheck.Retries"), reason);
    Ok(())
}

fn ulimit(it: &Ulimit) -> Checked {
    ensure!(!it.name.is_empty(), field("Ulimits.Name"), "a limit without a name");
    let ordered = it.hard == -1 || (it.soft != -1 && it.soft <= it.hard);
    let reason = format!(
        "ulimit soft limit must be less than or equal to hard limit: {}={}:{}",
        it.name, it.soft, it.hard
    );
    ensure!(ordered, field("Ulimits"), reason);
    Ok(())
}

fn host(line: &str) -> Checked {
    let mut words = line.split_whitespace();
    let addr = words.next().unwrap_or_default();
    let addressed = addr.parse::<IpAddr>().is_ok() || addr == "host-gateway";
    let reason = format!("{line:?}: an IP address and one or more names are expected");
    ensure!(addressed && words.next().is_some(), field("Hosts"), reason);
    Ok(())
}

/// References to secrets and configs: complete, below their directory, no two on one path.
fn files(secrets: &[SecretReference], configs: &[ConfigReference]) -> Checked {
    let mut seen = BTreeMap::new();
    for it in secrets {
        let name = it.secret_name.as_str();
        let field = field("Secrets");
        ensure!(!name.is_empty(), field, "malformed secret reference");
        let reason = "malformed secret reference, no target provided";
        let file = it.file.as_ref().ok_or_else(|| wrong(field.as_str(), reason))?;
        let path = target("secret", &field, file)?;
        let path = if path.starts_with('/') { path } else { format!("/run/secrets/{path}") };
        if let Some(other) = seen.insert(path, name) {
            return Err(conflict("secret", &field, (other, name, &file.name)));
        }
    }
    for it in configs {
        let name = it.config_name.as_str();
        let field = field("Configs");
        ensure!(!name.is_empty(), field, "malformed config reference");
        let reason = "malformed config reference, no target provided";
        let file = it.file.as_ref().ok_or_else(|| wrong(field.as_str(), reason))?;
        let path = target("config", &field, file)?;
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        if let Some(other) = seen.insert(path, name) {
            return Err(conflict("config", &field, (other, name, &file.name)));
        }
    }
    nested(&seen)
}

/// No file can lie below another.
fn nested(files: &BTreeMap<String, &str>) -> Checked {
    for path in files.keys() {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let parent = parents.filter(|parent| !parent.is_empty()).find(|it| files.contains_key(*it));
        let reason = format!("{path:?} lies below {:?}, which is a file", parent.unwrap_or(""));
        ensure!(parent.is_none(), field("Secrets"), reason);
    }
    Ok(())
}

fn conflict(
    kind: &str,
    field: &str,
    (one, other, path): (&str, &str, &str),
) -> super::InvalidField {
    let text =
        format!("{kind} references '{one}' and '{other}' have a conflicting target: '{path}'");
    wrong(field, text)
}

/// The path of a file without `.` and doubled slashes.
fn target(kind: &str, field: &str, file: &FileTarget) -> Result<String, super::InvalidField> {
    let name = file.name.as_str();
    let bad = || {
        let text = format!(
            "malformed file {kind} reference, invalid target file name provided: {name:?}: a path \
             of a file, without .., is expected"
        );
        wrong(field, text)
    };
    let parts: Vec<_> = name.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    let is_file = !parts.is_empty() && !name.ends_with('/') && !name.ends_with("/.");
    let fits = name.len() <= PATH_MAX && parts.iter().all(|part| part.len() <= NAME_MAX);
    let plain = !name.chars().any(char::is_control);
    if !is_file || !fits || !plain || parts.contains(&"..") {
        return Err(bad());
    }
    let place = format!("/{}", parts[0]);
    let kernels = name.starts_with('/') && KERNELS.contains(&place.as_str());
    let reason = format!("{name:?}: {place} is the kernel's, no file can be put there");
    ensure!(!kernels, field, reason);
    let ordinary = file.mode <= MODE_MAX;
    let reason = format!("{:o}: permission bits are 0 to 777, in octal", file.mode);
    ensure!(ordinary, format!("{field}.File.Mode"), reason);
    for (member, id) in [("UID", &file.uid), ("GID", &file.gid)] {
        let number = id.is_empty() || id.parse::<u32>().is_ok();
        let reason = format!("{id:?} is not a number: names of users are not known on the node");
        ensure!(number, format!("{field}.File.{member}"), reason);
    }
    let path = parts.join("/");
    Ok(if name.starts_with('/') { format!("/{path}") } else { path })
}
