//! `--mount type=volume,source=data,target=/data,readonly`.

use serde_json::{Map, Value, json};

use super::csv;
use super::number;
use crate::domain::container::{Mount, MountKind};

/// Options of one kind of mount, by their flag names.
#[derive(Default)]
struct Options {
    bind: Map<String, Value>,
    volume: Map<String, Value>,
    tmpfs: Map<String, Value>,
    labels: Map<String, Value>,
    driver: String,
    driver_options: Map<String, Value>,
}

/// Reads a mount.
///
/// # Errors
/// With Docker's words.
pub(crate) fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let mut options = Options::default();
    for field in csv::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), value),
            None => {
                let key = field.to_lowercase();
                match key.as_str() {
                    "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" => (key, "true"),
                    _ => {
                        return Err(format!("invalid field '{field}' must be a key=value pair"));
                    }
                }
            }
        };
        set(&mut mount, &mut options, &key, value).map_err(|reason| match reason {
            Unfit::Key => format!("unexpected key '{key}' in '{field}'"),
            Unfit::Value => format!("invalid value for {key}: {value}"),
        })?;
    }
    finish(mount, options)
}

enum Unfit {
    Key,
    Value,
}

fn set(mount: &mut Mount, options: &mut Options, key: &str, value: &str) -> Result<(), Unfit> {
    match key {
        "type" => {
            let kind = Value::from(value.to_lowercase());
            mount.kind = serde_json::from_value(kind).map_err(|_| Unfit::Value)?;
        }
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = flag(value)?,
        "bind-propagation" => {
            options.bind.insert("Propagation".to_owned(), value.to_lowercase().into());
        }
        "bind-nonrecursive" => {
            options.bind.insert("NonRecursive".to_owned(), flag(value)?.into());
        }
        "volume-nocopy" => {
            options.volume.insert("NoCopy".to_owned(), flag(value)?.into());
        }
        "volume-subpath" => {
            options.volume.insert("Subpath".to_owned(), value.into());
        }
        "volume-label" => add_pair(&mut options.labels, value),
        "volume-driver" => value.clone_into(&mut options.driver),
        "volume-opt" => add_pair(&mut options.driver_options, value),
        "tmpfs-size" => {
            let size = number::bytes(value).map_err(|_| Unfit::Value)?;
            options.tmpfs.insert("SizeBytes".to_owned(), size.into());
        }
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8).map_err(|_| Unfit::Value)?;
            options.tmpfs.insert("Mode".to_owned(), mode.into());
        }
        "consistency" => {
            mount.extra.insert("Consistency".to_owned(), value.to_lowercase().into());
        }
        _ => return Err(Unfit::Key),
    }
    Ok(())
}

fn finish(mut mount: Mount, mut options: Options) -> Result<Mount, String> {
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if !options.labels.is_empty() {
        options.volume.insert("Labels".to_owned(), options.labels.into());
    }
    if !options.driver.is_empty() || !options.driver_options.is_empty() {
        let mut driver = Map::new();
        if !options.driver.is_empty() {
            driver.insert("Name".to_owned(), options.driver.into());
        }
        if !options.driver_options.is_empty() {
            driver.insert("Options".to_owned(), options.driver_options.into());
        }
        options.volume.insert("DriverConfig".to_owned(), driver.into());
    }
    let kind = json!(mount.kind);
    let kind = kind.as_str().unwrap_or_default();
    for (name, of, member, given) in [
        ("bind-*", MountKind::Bind, "BindOptions", options.bind),
        ("volume-*", MountKind::Volume, "VolumeOptions", options.volume),
        ("tmpfs-*", MountKind::Tmpfs, "TmpfsOptions", options.tmpfs),
    ] {
        if given.is_empty() {
            continue;
        }
        if of != mount.kind {
            return Err(format!("cannot mix '{name}' options with mount type '{kind}'"));
        }
        mount.extra.insert(member.to_owned(), given.into());
    }
    Ok(mount)
}

/// A source that begins with a dot is relative to where the command runs, as in Docker.
fn absolute(source: &str) -> String {
    if source == "." || source.starts_with("./") || source.starts_with("../") {
        std::path::absolute(source)
            .map_or_else(|_| source.to_owned(), |path| path.display().to_string())
    } else {
        source.to_owned()
    }
}

fn flag(value: &str) -> Result<bool, Unfit> {
    match value.to_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Unfit::Value),
    }
}

fn add_pair(map: &mut Map<String, Value>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.insert(key.to_owned(), value.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(text).map_or_else(|error| error, |mount| serde_json::to_string(&mount).unwrap())
    }

    #[test]
    fn mounts_are_dockers() {
        for (text, expected) in [
            ("type=volume,src=vv,dst=/data", r#"{"Type":"volume","Source":"vv","Target":"/data"}"#),
            (
                "type=bind,source=/a,target=/b,ro,bind-propagation=rslave",
                r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}"#,
            ),
            (
                "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777",
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Mode":1023,"SizeBytes":1048576}}"#,
            ),
            (
                "source=v,target=/d,volume-driver=nfs,\"volume-opt=o=a,b\",volume-label=x=y",
                r#"{"Type":"volume","Source":"v","Target":"/d","VolumeOptions":{"DriverConfig":{"Name":"nfs","Options":{"o":"a,b"}},"Labels":{"x":"y"}}}"#,
            ),
            ("type=volume", "target is required"),
            ("type=floppy,target=/a", "invalid value for type: floppy"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("target=/a,colour=red", "unexpected key 'colour' in 'colour=red'"),
            ("target=/a,ro=maybe", "invalid value for ro: maybe"),
            (
                "type=bind,source=/a,target=/b,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }
}
