//! `swarm events`: what happens, as it happens.

use clap::Args;
use serde_json::Value;

use super::client::Route;
use super::filters::Filters;
use super::os;
use super::reply;
use super::shell::Shell;
use super::text::eval::Absent;
use super::text::template::Template;
use super::text::units;
use super::values::number;
use crate::domain::Timestamp;

/// `swarm events`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  swarm events                                     what happens from now on, until Ctrl-C
  swarm events --since 10m --until 0s              the last ten minutes
  swarm events --filter type=service --format json")]
pub(crate) struct Events {
    /// Filter output based on conditions provided, such as type=service; may be repeated
    #[arg(short = 'f', long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// 'json', or a Go template such as '{{.Type}} {{.Action}} {{.Actor.ID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show all events created since timestamp (RFC 3339, Unix, or relative such as 10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// A time as the Engine API wants it: Unix seconds with a fraction. Relative times are in the past.
pub(crate) fn unix_time(text: &str, now: Timestamp) -> anyhow::Result<String> {
    let nanos = if let Ok(back) = number::duration(text)
        && text.chars().any(|char| char.is_ascii_alphabetic())
    {
        now.0.saturating_sub(back.0)
    } else if let Some(time) = units::parse_time(text)
        .or_else(|| units::parse_time(&format!("{text}Z")))
        .or_else(|| units::parse_time(&format!("{text}T00:00:00Z")))
    {
        time.0
    } else if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    } else {
        anyhow::bail!(
            "invalid time {text:?}: expected 2026-01-31T12:00:00Z, Unix seconds, or how long ago, \
             such as 10m"
        );
    };
    Ok(format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000))
}

impl Events {
    /// Prints events until the stream ends.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let now = os::now();
        let mut route = Route::new(["events"]).filters(&Filters::parse(&self.filters)?);
        if let Some(since) = &self.since {
            route = route.query("since", &unix_time(since, now)?);
        }
        if let Some(until) = &self.until {
            route = route.query("until", &unix_time(until, now)?);
        }
        let template = match self.format.as_deref() {
            None => None,
            Some("json") => Some(Template::parse("{{json .}}")?),
            Some(format) => Some(Template::parse(format)?),
        };
        let mut stream = shell.client.stream(&route).await?;
        let mut pending = Vec::new();
        // One for the whole time: a signal between two of them would reach nobody.
        let mut interrupted = std::pin::pin!(os::interrupted());
        loop {
            let bytes = tokio::select! {
                biased;
                () = &mut interrupted => return Ok(()),
                bytes = stream.next() => bytes?,
            };
            let Some(bytes) = bytes else { return Ok(()) };
            pending.extend_from_slice(&bytes);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                    let text = render(&line, template.as_ref())?;
                    shell.out.line(text)?;
                }
            }
        }
    }
}

fn render(line: &[u8], template: Option<&Template>) -> anyhow::Result<String> {
    if let Some(template) = template {
        let value: Value = serde_json::from_slice(line)?;
        return Ok(template.render(&value, Absent::Shown)?);
    }
    let event: reply::Event = serde_json::from_slice(line)?;
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let what = format!("{} {} {}", event.kind, event.action, event.actor.id);
    let time = Timestamp(event.time_nano);
    Ok(if attributes.is_empty() {
        format!("{time} {what}")
    } else {
        format!("{time} {what} ({})", attributes.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"Type":"service","Action":"update","Actor":{"ID":"b2","Attributes":{"name":"web","image.new":"b:2"}},"scope":"swarm","time":1795241536,"timeNano":1795241536899333853}"#;

    #[test]
    fn events_print_as_dockers() {
        assert_eq!(
            render(LINE.as_bytes(), None).unwrap(),
            "2026-11-21T06:12:16.899333853Z service update b2 (image.new=b:2, name=web)"
        );
        let template = Template::parse("{{.Type}} {{.Actor.Attributes.name}} {{.Time}}").unwrap();
        let text = render(LINE.as_bytes(), Some(&template)).unwrap();
        assert_eq!(text, "service web 1795241536");
    }

    #[test]
    fn times_are_relative_or_absolute() {
        let now = Timestamp(1_709_210_096_000_000_000);
        assert_eq!(unix_time("10s", now).unwrap(), "1709210086.000000000");
        assert_eq!(unix_time("0s", now).unwrap(), "1709210096.000000000");
        assert_eq!(unix_time("2024-02-29T12:34:56Z", now).unwrap(), "1709210096.000000000");
        assert_eq!(unix_time("2024-02-29", now).unwrap(), "1709164800.000000000");
        assert_eq!(unix_time("1709210096.5", now).unwrap(), "1709210096.5");
        assert!(unix_time("yesterday", now).is_err());
    }
}
