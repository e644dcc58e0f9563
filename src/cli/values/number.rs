//! Durations, sizes, CPUs and other numbers.

use crate::domain::Nanos;

/// A duration as Go writes it: `1h30m`, `1.5s`, `300ms`; not negative.
///
/// # Errors
/// With Go's words.
pub(crate) fn duration(text: &str) -> Result<Nanos, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err("duration cannot be negative".to_owned());
    }
    if unsigned == "0" {
        return Ok(Nanos(0));
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut rest = unsigned;
    let mut total = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += scaled(number, scale).ok_or_else(invalid)?;
        rest = next;
    }
    u64::try_from(total).map(Nanos).map_err(|_| invalid())
}

/// A decimal number times a scale, rounded down.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        total += place * u128::from(digit.to_digit(10)?);
    }
    Some(total)
}

/// A size as Docker writes it: `64M`, `1.5GiB`, `1024`; binary multiples.
///
/// # Errors
/// With Docker's words.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(invalid)? + 1;
    let (number, unit) = text.split_at(end);
    let number = number.trim();
    let unit = unit.trim().to_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    let total = scaled_decimal(number, 1u128 << (10 * power)).ok_or_else(invalid)?;
    i64::try_from(total).map_err(|_| invalid())
}

/// A decimal number times a scale that is no power of ten.
fn scaled_decimal(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u128 = whole.parse().ok()?;
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let digits = u32::try_from(fraction.len()).ok()?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole.checked_mul(scale)? + part.checked_mul(scale)? / 10u128.pow(digits))
}

/// CPUs such as `0.5`, in billionths.
///
/// # Errors
/// With Docker's words.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let (_, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.trim_end_matches('0').len() > 9 {
        return Err("value is too precise".to_owned());
    }
    scaled(text, 1_000_000_000)
        .and_then(|nano| i64::try_from(nano).ok())
        .ok_or_else(|| format!("failed to parse {text} as a rational number"))
}

/// A share between 0 and 1.
///
/// # Errors
/// When it is no number or outside.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        Ok(_) => Err(format!("{text} is not between 0 and 1")),
        Err(_) => Err(format!("{text:?} is not a number")),
    }
}

/// Names that Docker accepts in `--ulimit` (go-units).
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024[:2048]`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn ulimit(text: &str) -> Result<crate::domain::container::Ulimit, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(crate::domain::container::Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("300ms", 300_000_000),
            (".5m", 30_000_000_000),
            ("1us", 1_000),
        ] {
            assert_eq!(duration(text), Ok(Nanos(nanos)), "{text}");
        }
        assert_eq!(duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(duration("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(duration("").unwrap_err(), "time: invalid duration \"\"");
        assert_eq!(duration("-1s").unwrap_err(), "duration cannot be negative");
        assert!(duration(".s").is_err());
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, size) in [
            ("64M", 67_108_864),
            ("64mb", 67_108_864),
            ("64MiB", 67_108_864),
            ("1.5g", 1_610_612_736),
            ("1024", 1_024),
            ("10 k", 10_240),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        assert_eq!(bytes("many").unwrap_err(), "invalid size: 'many'");
        assert_eq!(bytes("-1").unwrap_err(), "invalid size: '-1'");
        assert_eq!(bytes("1x").unwrap_err(), "invalid suffix: 'x'");
    }

    #[test]
    fn cpus_and_ulimits() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("0.0000000001").unwrap_err(), "value is too precise");
        assert!(cpus("x").is_err());
        let limit = ulimit("nofile=100").unwrap();
        assert_eq!((limit.soft, limit.hard), (100, 100));
        assert_eq!(ulimit("nofile=1:2").unwrap().hard, 2);
        assert_eq!(ulimit("files=1").unwrap_err(), "invalid ulimit type: files");
        assert!(ulimit("nofile=3:2").unwrap_err().contains("3 > 2"));
    }
}
