//! What is asked of an engine, and what its answers mean; the engine is a socket of the test.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// Lets one pull run against an engine that gives a fixed answer; returns what it was asked.
async fn against(
    answer: &'static str,
    image: &str,
    auth: Option<&RegistryAuth>,
) -> (String, Result<(), Error>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = Arc::new(dir.path().join("engine.sock"));
    let listener = UnixListener::bind(&*socket).unwrap();
    let scope = Scope::root("test");
    let engine = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0, "the request is cut off");
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    };
    let (asked, pulled) = tokio::join!(engine, pull(&socket, &scope, image, auth));
    (asked, pulled)
}

const DONE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
                    {\"status\":\"Pulling from a/b\"}\r\n{\"status\":\"Download complete\"}\r\n";

#[tokio::test]
async fn credentials_reach_the_engine_as_they_came() {
    // The JSON ends in "?~>": in base 64 that is where the two alphabets differ.
    let auth = RegistryAuth::new("eyJwYXNzd29yZCI6ICI_fj4ifQ==".to_owned());
    let (asked, pulled) = against(DONE, "localhost:5000/a/b", Some(&auth)).await;
    assert_eq!(pulled, Ok(()));
    let first = "POST /images/create?fromImage=localhost:5000/a/b:latest HTTP/1.1\r\n";
    assert!(asked.starts_with(first), "{asked}");
    let header = "x-registry-auth: eyJwYXNzd29yZCI6ICI_fj4ifQ==\r\n";
    assert!(asked.to_lowercase().contains(&header.to_lowercase()), "{asked}");
    let (asked, _) = against(DONE, "a/b:1", None).await;
    assert!(!asked.to_lowercase().contains("registry-auth"), "{asked}");
}

#[tokio::test]
async fn failed_pulls_say_what_the_engine_said() {
    let late = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"status\":\"Pulling\"}\r\n\
                {\"errorDetail\":{\"message\":\"no match\"},\"error\":\"no match\"}\r\n";
    let (_, pulled) = against(late, "a", None).await;
    assert_eq!(pulled, Err(Error::Permanent("no match".to_owned())));
    let denied = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n\
                  {\"message\":\"pull access denied for a\"}\n";
    let (_, pulled) = against(denied, "a", None).await;
    assert!(matches!(&pulled, Err(error) if error.to_string() == "pull access denied for a"));
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\":\"Pulling\"}\r\n";
    let (_, pulled) = against(cut, "a", None).await;
    assert!(matches!(pulled, Err(Error::Unreachable(_))), "{pulled:?}");
}

#[test]
fn reference_without_tag_means_latest() {
    for (given, wanted) in [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("host:5000/nginx", "host:5000/nginx:latest"),
        ("nginx@sha256:00", "nginx@sha256:00"),
    ] {
        assert_eq!(with_tag(given), wanted);
    }
    assert_eq!(escape("[::1]:5000/a@x+y:0&b"), "%5B::1%5D:5000/a@x%2By:0%26b");
}
