//! Sizes and times in Docker's words.

use std::time::Duration;

use crate::domain::Timestamp;

/// `About a minute`, `3 hours`: go-units `HumanDuration`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (seconds + 1_800) / 3_600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (_, _, ..=1) => "About an hour".to_owned(),
        (_, _, 2..48) => format!("{hours} hours"),
        (_, _, 48..336) => format!("{} days", hours / 24),
        (_, _, 336..1_440) => format!("{} weeks", hours / 24 / 7),
        (_, _, 1_440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago an RFC 3339 time was: `5 seconds ago`; empty for a time that cannot be read.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    parse_time(time)
        .map_or_else(String::new, |then| format!("{} ago", human_duration(now.since(then))))
}

/// Reads an RFC 3339 time.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, format).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok().map(Timestamp)
}

/// `64MiB`, `23.54GiB`: go-units `BytesSize`, four significant digits.
pub(crate) fn bytes_size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1_024.0 && unit + 1 < UNITS.len() {
        size /= 1_024.0;
        unit += 1;
    }
    format!("{}{}", significant(size), UNITS[unit])
}

/// Go's `%.4g` for numbers below 10000.
fn significant(size: f64) -> String {
    let digits = if size >= 1_000.0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{size:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// CPUs of billionths: `2`, `0.25`.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn cpus(nano: i64) -> String {
    format!("{}", nano as f64 / 1e9)
}

/// A duration as Go prints it: `1h30m0s`, `1.5s`, `250ms`.
pub(crate) fn go_duration(nanos: u64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let fraction = |value: u64, unit: u64| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            whole.to_string()
        } else {
            let width = unit.ilog10() as usize;
            format!("{whole}.{}", format!("{rest:0width$}").trim_end_matches('0'))
        }
    };
    match nanos {
        ..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// The first 12 characters of an id.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The first letter in upper case: `Running`.
pub(crate) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// At most `most` characters; what is cut is shown as `…`.
pub(crate) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (5_400, "2 hours"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (730 * 86_400, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn go_durations_print_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (1_500_000_000, "1.5s"),
            (250_000_000, "250ms"),
            (90_000_000_000, "1m30s"),
            (5_400_000_000_000, "1h30m0s"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(go_duration(nanos), text);
        }
    }

    #[test]
    fn sizes_have_four_digits() {
        assert_eq!(bytes_size(67_108_864), "64MiB");
        assert_eq!(bytes_size(25_276_510_208), "23.54GiB");
        assert_eq!(bytes_size(500), "500B");
        assert_eq!(cpus(250_000_000), "0.25");
        assert_eq!(cpus(2_000_000_000), "2");
    }

    #[test]
    fn times_ago() {
        let now = Timestamp(1_709_210_096_000_000_000);
        assert_eq!(ago("2024-02-29T12:34:51.5Z", now), "4 seconds ago");
        assert_eq!(ago("nonsense", now), "");
    }
}
