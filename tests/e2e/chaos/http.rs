//! Requests to the API's socket of a host, with a deadline, and what may be concluded from an answer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Who has not answered then is taken for silent.
const PATIENCE: Duration = Duration::from_secs(8);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The request was not sent: nothing can have happened.
    NotSent,
    /// It was sent: anything can have happened.
    NoAnswer,
}

/// One request on a connection of its own.
pub(crate) fn ask(
    socket: &Path,
    line: &str,
    headers: &str,
    body: Option<&Value>,
) -> Result<Reply, Failure> {
    let mut stream = UnixStream::connect(socket).map_err(|_| Failure::NotSent)?;
    let limits =
        [stream.set_read_timeout(Some(PATIENCE)), stream.set_write_timeout(Some(PATIENCE))];
    if limits.iter().any(Result::is_err) {
        return Err(Failure::NotSent);
    }
    let body = body.map_or_else(String::new, Value::to_string);
    let request = format!(
        "{line} HTTP/1.1\r\nHost: swarm\r\nConnection: close\r\nContent-Type: application/json\r\n\
         {headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(|_| Failure::NoAnswer)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|_| Failure::NoAnswer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or(Failure::NoAnswer)
}

fn parse(text: &str) -> Option<Reply> {
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let head = head.to_ascii_lowercase();
    let rest = if head.contains("transfer-encoding: chunked") {
        unchunk(rest)?
    } else {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(Some(0), |digits| digits.trim().parse().ok())?;
        rest.get(..length)?.to_owned() // an answer that was cut off is none
    };
    let body = serde_json::from_str(&rest).unwrap_or(Value::Null);
    Some(Reply { status, head, body })
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(after.get(..length)?);
        rest = after.get(length + 2..)?;
    }
}

impl Reply {
    /// The error's text.
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}
