//! Fetches an image, with a user's credentials where there are some.
//!
//! A request of its own and not bollard's: that one writes credentials in base 64 with `+` and `/`,
//! the engine reads the alphabet for URLs, and what it cannot read it drops without a word: a
//! password with `?`, `~`, `>` or a letter beyond ASCII would fail as "unauthorized". Here the header
//! goes to the engine as the user sent it. Whether and when to pull is decided elsewhere.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::Error;
use super::docker::{Act, classify_answer};
use crate::domain::container::RegistryAuth;
use crate::env::Scope;

/// A line of progress is a few hundred bytes; what is longer than this is none.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A line of progress, or the engine's whole answer when it refuses at once.
#[derive(Deserialize)]
struct Progress {
    error: Option<String>,
    message: Option<String>,
}

/// Asks the engine for the image and reads its progress to the end.
pub(super) async fn pull(
    socket: &Path,
    scope: &Scope,
    image: &str,
    auth: Option<&RegistryAuth>,
) -> Result<(), Error> {
    let stream = UnixStream::connect(socket).await.map_err(|error| lost(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(&error))?;
    scope.spawn("pull", async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of a pull ended");
        }
    });
    let answer = sender.send_request(request(image, auth)?).await.map_err(|error| lost(&error))?;
    follow(answer).await
}

fn lost(error: &dyn std::fmt::Display) -> Error {
    Error::Unreachable(format!("the container engine cannot be reached: {error}"))
}

fn request(image: &str, auth: Option<&RegistryAuth>) -> Result<Request<Empty<Bytes>>, Error> {
    let image = escape(&with_tag(image));
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("/images/create?fromImage={image}"))
        .header(header::HOST, "docker");
    if let Some(auth) = auth {
        let mut value = HeaderValue::from_str(auth.expose())
            .map_err(|_| Error::Permanent("the registry credentials are malformed".to_owned()))?;
        value.set_sensitive(true);
        request = request.header("X-Registry-Auth", value);
    }
    request.body(Empty::new()).map_err(|error| Error::Permanent(error.to_string()))
}

async fn follow(answer: Response<Incoming>) -> Result<(), Error> {
    let status = answer.status();
    let mut body = answer.into_body();
    if status != StatusCode::OK {
        return Err(refusal(status, body).await);
    }
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| lost(&error))?.into_data() else { continue };
        for byte in data {
            if byte == b'\n' {
                judge(&line)?;
                line.clear();
            } else if line.len() < LINE_BYTES_MAX {
                line.push(byte);
            }
        }
    }
    judge(&line)
}

/// Fails if a line says that the pull has failed.
fn judge(line: &[u8]) -> Result<(), Error> {
    match serde_json::from_slice::<Progress>(line) {
        Ok(Progress { error: Some(error), .. }) => Err(Error::Permanent(error)),
        // Progress of whatever kind is of no interest.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn refusal(status: StatusCode, body: Incoming) -> Error {
    let bytes = match Limited::new(body, LINE_BYTES_MAX).collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(error) => return lost(&error),
    };
    let said = serde_json::from_slice::<Progress>(&bytes).ok().and_then(|said| said.message);
    let text = said.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
    classify_answer(status.as_u16(), &text, Act::Ask)
}

/// The reference with a tag: without one the engine would pull every tag there is.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// A reference as the value of a query.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@".contains(&byte);
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests;
