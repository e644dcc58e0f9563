//! `swarm service logs`: the daemon's frames, line by line, each after the name of its task.
//!
//! Frames are `[stream, 0, 0, 0][length, big-endian][payload]`; a payload is one line, before it the
//! time if asked for, and the task's attributes. A service with a terminal sends bytes without frames.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::client::{Route, Stream, is_not_found};
use crate::cli::events::unix_time;
use crate::cli::os;
use crate::cli::reply;
use crate::cli::shell::Shell;
use crate::cli::tasks::Names;
use crate::cli::text::units;

/// Longest frame that makes sense; a longer one means that the stream is not understood.
const FRAME_MOST: usize = 16 * 1024 * 1024;

/// `swarm service logs`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one per flag")]
#[command(after_help = "Examples:
  swarm service logs web
  swarm service logs --follow --tail 20 web
  swarm service logs --since 10m --timestamps web")]
pub(crate) struct Logs {
    /// Name or id of a service, or id of a task
    #[arg(value_name = "SERVICE|TASK")]
    target: String,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. 2026-01-02T13:23:37Z) or relative (e.g. 42m for 42 minutes)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "all")]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Do not map ids to names
    #[arg(long)]
    no_resolve: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    /// Do not include task ids
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
}

/// Whose logs.
struct Source {
    kind: &'static str,
    id: String,
    terminal: bool,
    replicas: u64,
}

impl Logs {
    /// Prints lines until the stream ends or Ctrl-C.
    pub(crate) async fn run(self, shell: &mut Shell) -> anyhow::Result<()> {
        let source = self.source(shell).await?;
        let mut stream = shell.client.stream(&self.route(&source)?).await?;
        let mut prefixes = Prefixes {
            names: if self.no_resolve {
                Names::ids(shell.client.clone())
            } else {
                Names::asked(shell.client.clone())
            },
            digits: source.replicas.max(1).to_string().len(),
            known: BTreeMap::new(),
        };
        let mut frames = Frames::default();
        // One for the whole time: a signal between two of them would reach nobody.
        let mut interrupted = std::pin::pin!(os::interrupted());
        loop {
            let bytes = tokio::select! {
                biased;
                () = &mut interrupted => return Ok(()),
                bytes = Stream::next(&mut stream) => bytes?,
            };
            let Some(bytes) = bytes else { return frames.end() };
            if source.terminal {
                shell.out.bytes(&bytes)?;
                continue;
            }
            frames.add(&bytes);
            while let Some(frame) = frames.next()? {
                self.print(shell, &mut prefixes, &frame).await?;
            }
        }
    }

    async fn source(&self, shell: &Shell) -> anyhow::Result<Source> {
        let target = self.target.as_str();
        match shell.client.get::<reply::Service>(&Route::new(["services", target])).await {
            Ok(service) => Ok(Source {
                kind: "services",
                terminal: service.spec.task_template.container_spec.tty,
                replicas: service.spec.replicas().unwrap_or(1),
                id: service.id,
            }),
            Err(error) if is_not_found(&error) => {
                let route = Route::new(["tasks", target]);
                let task = shell.client.get::<serde_json::Value>(&route).await;
                let task = task.map_err(|error| {
                    if is_not_found(&error) {
                        anyhow::anyhow!("no such task or service: {target}")
                    } else {
                        error
                    }
                })?;
                let tty = task.pointer("/Spec/ContainerSpec/TTY");
                let id = task.get("ID").and_then(serde_json::Value::as_str);
                Ok(Source {
                    kind: "tasks",
                    id: id.unwrap_or(target).to_owned(),
                    terminal: tty.and_then(serde_json::Value::as_bool).unwrap_or_default(),
                    replicas: task.get("Slot").and_then(serde_json::Value::as_u64).unwrap_or(1),
                })
            }
            Err(error) => Err(error),
        }
    }

    fn route(&self, source: &Source) -> anyhow::Result<Route> {
        if self.tail != "all" && self.tail.parse::<u64>().is_err() {
            bail!("invalid value for --tail: {:?}: expected a number or 'all'", self.tail);
        }
        let mut route = Route::new([source.kind, &source.id, "logs"])
            .query("stdout", "1")
            .query("stderr", "1")
            .query("tail", &self.tail);
        if !self.raw {
            route = route.query("details", "1");
        } else if self.details {
            bail!("--raw and --details cannot be used together");
        }
        if self.follow {
            route = route.query("follow", "1");
        }
        if self.timestamps {
            route = route.query("timestamps", "1");
        }
        if let Some(since) = &self.since {
            route = route.query("since", &unix_time(since, os::now())?);
        }
        Ok(route)
    }

    const fn times(&self) -> Times {
        if self.timestamps { Times::Shown } else { Times::Absent }
    }

    async fn print(
        &self,
        shell: &mut Shell,
        prefixes: &mut Prefixes,
        frame: &Frame,
    ) -> anyhow::Result<()> {
        let text = if self.raw {
            frame.payload.clone()
        } else {
            let line = Line::parse(&frame.payload, self.times())?;
            let prefix = prefixes.of(shell, &line.attributes, self).await?;
            let mut text = Vec::new();
            if let Some(time) = line.time {
                text.extend_from_slice(time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(b"    | ");
            if self.details {
                text.extend_from_slice(line.details().as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line.message);
            text
        };
        match frame.stream {
            2 => shell.out.error_bytes(&text)?,
            _ => shell.out.bytes(&text)?,
        }
        Ok(())
    }
}

/// A frame of the stream.
struct Frame {
    stream: u8,
    payload: Vec<u8>,
}

/// Bytes until they make frames.
#[derive(Default)]
struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    fn add(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        let Some((&[stream, _, _, _, a, b, c, d], rest)) = self.pending.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        if stream > 3 || length > FRAME_MOST {
            bail!("the daemon's log stream is not understood: is it of another version?");
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { stream, payload: payload.to_vec() };
        self.pending.drain(..8 + length);
        Ok(Some(frame))
    }

    fn end(&self) -> anyhow::Result<()> {
        if self.pending.is_empty() {
            Ok(())
        } else {
            bail!("the log stream broke off in the middle of a line")
        }
    }
}

/// Whether lines begin with their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Shown,
    Absent,
}

/// A line with what the daemon says about it.
struct Line<'a> {
    time: Option<&'a str>,
    attributes: BTreeMap<String, String>,
    message: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(payload: &'a [u8], times: Times) -> anyhow::Result<Self> {
        let mut rest = payload;
        let mut word = || -> anyhow::Result<&'a str> {
            let end = rest.iter().position(|byte| *byte == b' ');
            let end = end.with_context(|| {
                format!("invalid context in log message: {}", String::from_utf8_lossy(payload))
            })?;
            let (word, after) = rest.split_at(end);
            rest = &after[1..];
            Ok(std::str::from_utf8(word)?)
        };
        let time = match times {
            Times::Shown => Some(word()?),
            Times::Absent => None,
        };
        let attributes = word()?
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (unescape(key), unescape(value))
            })
            .collect();
        Ok(Self { time, attributes, message: rest })
    }

    /// Attributes of the user's: all but the task's own.
    fn details(&self) -> String {
        let own = self.attributes.iter().filter(|(key, _)| !key.starts_with("com.docker.swarm."));
        own.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    }
}

/// Undoes URL escapes.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (escaped, *first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (None, b'+') => {
                bytes.push(b' ');
                rest = after;
            }
            (None, byte) => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Names of tasks before their lines, each asked for once.
struct Prefixes {
    names: Names,
    /// Digits of the highest slot.
    digits: usize,
    known: BTreeMap<String, String>,
}

impl Prefixes {
    async fn of(
        &mut self,
        shell: &Shell,
        attributes: &BTreeMap<String, String>,
        flags: &Logs,
    ) -> anyhow::Result<String> {
        let attribute = |name: &str| {
            let key = format!("com.docker.swarm.{name}");
            attributes.get(&key).with_context(|| format!("missing {key} in a log message"))
        };
        let (task, service, node) =
            (attribute("task.id")?, attribute("service.id")?, attribute("node.id")?);
        if let Some(prefix) = self.known.get(task) {
            return Ok(prefix.clone());
        }
        let found = shell.client.get::<reply::Task>(&Route::new(["tasks", task])).await;
        let slot = match &found {
            Ok(found) => found.slot,
            Err(error) if is_not_found(error) => 0,
            Err(_) => return found.map(|_| String::new()),
        };
        let mut prefix = self.names.service(service).await?;
        if slot == 0 {
            prefix.push_str(&format!(".{node}"));
        } else {
            prefix.push_str(&format!(".{slot}"));
        }
        if !flags.no_task_ids {
            let id = if flags.no_trunc { task.as_str() } else { units::short_id(task) };
            prefix.push_str(&format!(".{id}"));
        }
        prefix.push_str(&format!("@{}", self.names.node(node).await?));
        if slot != 0 {
            let missing = self.digits.saturating_sub(slot.to_string().len());
            prefix.extend(std::iter::repeat_n(' ', missing));
        }
        self.known.insert(task.clone(), prefix.clone());
        Ok(prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_come_in_pieces() {
        let mut frames = Frames::default();
        let bytes =
            [&[2, 0, 0, 0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0, 0, 0, 1], b"d"].concat();
        let mut found = Vec::new();
        for byte in bytes {
            frames.add(&[byte]);
            while let Some(frame) = frames.next().unwrap() {
                found.push((frame.stream, frame.payload));
            }
        }
        assert_eq!(found, [(2, b"abc".to_vec()), (1, b"d".to_vec())]);
        assert!(frames.end().is_ok());
        frames.add(&[1, 0]);
        assert!(frames.end().is_err());
        let mut wrong = Frames::default();
        wrong.add(b"hello world");
        assert!(wrong.next().is_err());
    }

    #[test]
    fn lines_carry_time_and_attributes() {
        let payload = b"2026-11-21T06:13:35.7Z com.docker.swarm.task.id=t,k=a%20b+c hello world\n";
        let line = Line::parse(payload, Times::Shown).unwrap();
        assert_eq!(line.time, Some("2026-11-21T06:13:35.7Z"));
        assert_eq!(line.details(), "k=a b c");
        assert_eq!(line.message, b"hello world\n");
        assert!(Line::parse(b"nospace", Times::Absent).is_err());
    }
}
