//! The grammar of image references (github.com/distribution/reference):
//! `[domain[:port]/]path[:tag][@algorithm:hex]`.

/// Longest name (domain and path), in bytes.
const NAME_MAX: usize = 255;

/// Longest tag, in bytes.
const TAG_MAX: usize = 128;

/// Whether a text is an image reference.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("the digest after @ is malformed".to_owned());
    }
    let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_start..].split_once(':') {
        Some((last, tag)) => (&rest[..path_start + last.len()], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag after : is malformed".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("the name is longer than {NAME_MAX} characters"));
    }
    if name.len() == 64 && name.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits are an id, not a name".to_owned());
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (Some(first), rest),
        _ => (None, name),
    };
    if domain.is_some_and(|domain| !is_domain(domain)) {
        return Err("the registry's address is malformed".to_owned());
    }
    if path.chars().any(|it| it.is_ascii_uppercase()) {
        return Err("repository name must be lowercase".to_owned());
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err("invalid reference format".to_owned())
    }
}

/// Whether the part before the first slash is a registry's address rather than a path.
fn is_domain_like(text: &str) -> bool {
    text.contains(['.', ':'])
        || text == "localhost"
        || text.chars().any(|it| it.is_ascii_uppercase())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |it: &str| {
        !it.is_empty()
            && it.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
            && !it.starts_with('-')
            && !it.ends_with('-')
    };
    let ipv6 = || {
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inner.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let ported = port.is_none_or(|it| !it.is_empty() && it.chars().all(|it| it.is_ascii_digit()));
    ported && (host.split('.').all(label) || ipv6())
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let alphanumeric = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let mut rest = text;
    loop {
        let end = rest.find(|it| !alphanumeric(it)).unwrap_or(rest.len());
        if end == 0 {
            return false;
        }
        rest = &rest[end..];
        if rest.is_empty() {
            return true;
        }
        let end = rest.find(alphanumeric).unwrap_or(rest.len());
        let joint = &rest[..end];
        if !(matches!(joint, "." | "_" | "__") || joint.chars().all(|it| it == '-')) {
            return false;
        }
        rest = &rest[end..];
    }
}

fn is_tag(text: &str) -> bool {
    let word = |it: char| it.is_ascii_alphanumeric() || it == '_';
    text.len() <= TAG_MAX
        && text.starts_with(word)
        && text.chars().all(|it| word(it) || it == '.' || it == '-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let part = |it: &str| {
        it.starts_with(|it: char| it.is_ascii_alphabetic())
            && it.chars().all(|it| it.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && hex.len() >= 32
        && hex.chars().all(|it| it.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn references() {
        let hex = "0".repeat(64);
        for good in [
            "nginx",
            "nginx:1.25",
            "library/nginx",
            "localhost:5000/a/b-c_d__e.f:Tag_1",
            "registry.example.com/team/app",
            "Registry/app",
            "[::1]:5000/app",
            "a--b",
            &format!("nginx@sha256:{hex}"),
            &format!("nginx:1@sha256:{hex}"),
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "Nginx",
            "a b",
            "nginx:",
            "nginx:a/b:c d",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a//b",
            "/a",
            "a/",
            "nginx@sha256:123",
            "-host.com/a",
            "host:x/a",
            "http://host/a",
            "nginx:-1",
            &hex,
            &"a".repeat(256),
            &format!("a:{}", "t".repeat(129)),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
