//! `--publish 8080:80/tcp` and `--publish mode=host,target=80,published=8080`.

use super::csv;
use crate::domain::service::{PortConfig, Protocol, PublishMode};

/// Reads a port or a range of ports.
///
/// # Errors
/// With Docker's words.
pub(crate) fn parse(text: &str) -> Result<Ports, String> {
    if text.contains('=') { long(text).map(|port| Ports(vec![port])) } else { short(text) }
}

/// What one `--publish` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<PortConfig>);

fn long(text: &str) -> Result<PortConfig, String> {
    let mut port = PortConfig::default();
    for field in csv::fields(text)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field: {field}"));
        };
        match key.to_lowercase().as_str() {
            "protocol" => port.protocol = protocol(value)?,
            "mode" => port.publish_mode = mode(value)?,
            "target" => port.target_port = number("target port", value)?,
            "published" => port.published_port = number("published port", value)?,
            "name" => value.clone_into(&mut port.name),
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if port.target_port == 0 {
        return Err("missing mandatory field 'target'".to_owned());
    }
    Ok(port)
}

fn number(what: &str, value: &str) -> Result<u16, String> {
    value
        .parse()
        .map_err(|_| format!("invalid {what} ({value}): value must be an integer up to 65535"))
}

fn protocol(value: &str) -> Result<Protocol, String> {
    match value.to_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("invalid protocol value '{value}'")),
    }
}

fn mode(value: &str) -> Result<PublishMode, String> {
    match value.to_lowercase().as_str() {
        "ingress" => Ok(PublishMode::Ingress),
        "host" => Ok(PublishMode::Host),
        _ => {
            Err(format!("invalid publish mode value ({value}): must be either 'ingress' or 'host'"))
        }
    }
}

fn short(text: &str) -> Result<Ports, String> {
    let (ports, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(proto).map_err(|_| format!("invalid proto: {proto}"))?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, _)) if published.contains(':') => {
            return Err("hostip is not supported".to_owned());
        }
        Some((published, target)) if !published.is_empty() => (Some(published), target),
        Some((_, target)) => (None, target),
        None => (None, ports),
    };
    if target.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (target_low, target_high) =
        range(target).map_err(|()| format!("invalid containerPort: {target}"))?;
    let (published_low, published_high) = match published {
        Some(range_text) => {
            range(range_text).map_err(|()| format!("invalid hostPort: {range_text}"))?
        }
        None => (0, 0),
    };
    let count = target_high - target_low;
    if published.is_some() && published_high - published_low != count {
        return Err(format!("invalid ranges specified for container and host Ports: {text}"));
    }
    let port = |offset: u16| PortConfig {
        protocol,
        target_port: target_low + offset,
        published_port: if published.is_some() { published_low + offset } else { 0 },
        ..PortConfig::default()
    };
    Ok(Ports((0..=count).map(port).collect()))
}

fn range(text: &str) -> Result<(u16, u16), ()> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(());
    let (low, high) = (number(low)?, number(high)?);
    if low <= high { Ok((low, high)) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        parse(text).map_or_else(|error| error, |ports| serde_json::to_string(&ports.0).unwrap())
    }

    #[test]
    fn ports_are_dockers() {
        for (text, expected) in [
            (
                "8080:80",
                r#"[{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}]"#,
            ),
            ("53/udp", r#"[{"Protocol":"udp","TargetPort":53,"PublishMode":"ingress"}]"#),
            (
                "mode=host,target=81,published=8081,protocol=udp",
                r#"[{"Protocol":"udp","TargetPort":81,"PublishedPort":8081,"PublishMode":"host"}]"#,
            ),
            (
                "80-81:8-9",
                r#"[{"Protocol":"tcp","TargetPort":8,"PublishedPort":80,"PublishMode":"ingress"},{"Protocol":"tcp","TargetPort":9,"PublishedPort":81,"PublishMode":"ingress"}]"#,
            ),
            ("127.0.0.1:80:80", "hostip is not supported"),
            ("80/xyz", "invalid proto: xyz"),
            ("published=80", "missing mandatory field 'target'"),
            ("target=x", "invalid target port (x): value must be an integer up to 65535"),
            (
                "target=80,mode=x",
                "invalid publish mode value (x): must be either 'ingress' or 'host'",
            ),
            ("target=80,colour=red", "invalid field key: colour"),
            ("80-82:8-9", "invalid ranges specified for container and host Ports: 80-82:8-9"),
            ("70000", "invalid containerPort: 70000"),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
    }
}
