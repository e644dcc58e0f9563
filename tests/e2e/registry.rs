//! A registry of images for tests: in this process, on the loopback address inside a host, where
//! engines speak plain HTTP. Who has not the password gets nothing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, image_tar};

/// Where engines find it.
pub(crate) const ADDRESS: &str = "127.0.0.1:5000";
/// `me` and a password whose base 64 differs between the alphabets: `me:p???w~>`.
pub(crate) const LOGIN: &str = "bWU6cD8/P3d+Pg==";

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What it has: paths, and type and bytes of each.
type Content = BTreeMap<String, (&'static str, Vec<u8>)>;

/// A running registry; ends when dropped.
pub(crate) struct Registry {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A registry's content in the making.
#[derive(Default)]
pub(crate) struct Shelf(Content, Option<String>);

impl Shelf {
    /// An image of the tests' root file system that says to be for an architecture.
    pub(crate) fn image(mut self, name: &str, architecture: &str) -> Self {
        let layer = std::fs::read(image_tar()).unwrap();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": blob("application/vnd.docker.container.image.v1+json", &config),
            "layers": [blob("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer)],
        });
        for bytes in [config, layer] {
            let path = format!("/v2/{name}/blobs/{}", digest(&bytes));
            self.0.insert(path, ("application/octet-stream", bytes));
        }
        self.manifest(name, MANIFEST, &manifest)
    }

    /// An image that is there for one architecture only.
    pub(crate) fn list(self, name: &str, architecture: &str) -> Self {
        let mut entry = blob(MANIFEST, b"{}");
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]});
        self.manifest(name, LIST, &list)
    }

    fn manifest(mut self, name: &str, kind: &'static str, manifest: &Value) -> Self {
        let bytes = manifest.to_string().into_bytes();
        for reference in ["1".to_owned(), digest(&bytes)] {
            self.0.insert(format!("/v2/{name}/manifests/{reference}"), (kind, bytes.clone()));
        }
        self
    }

    /// Another login than [`LOGIN`], in base 64.
    pub(crate) fn login(mut self, login: &str) -> Self {
        self.1 = Some(login.to_owned());
        self
    }

    /// Opens the registry inside a host.
    pub(crate) fn open(self, lab: &Lab, host: usize) -> Registry {
        let listener = lab.within(host, || TcpListener::bind(ADDRESS).unwrap());
        listener.set_nonblocking(true).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => self.answer(stream),
                    Err(_) => sleep(Duration::from_millis(5)),
                }
            }
        });
        Registry { ends, thread: Some(thread) }
    }

    /// One request and its answer; a client that goes away is no matter.
    fn answer(&self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        let mut asked = Vec::new();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
            asked.push(byte[0]);
        }
        let asked = String::from_utf8_lossy(&asked);
        let mut words = asked.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let login = self.1.as_deref().unwrap_or(LOGIN).to_lowercase();
        let login = format!("authorization: basic {login}");
        let (status, kind, body) = if !asked.to_lowercase().contains(&login) {
            ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"", "", &b""[..])
        } else if path == "/v2/" {
            ("200 OK", "application/json", &b"{}"[..])
        } else {
            self.0.get(path).map_or(("404 Not Found", "", &b""[..]), |(kind, bytes)| {
                ("200 OK", kind, bytes.as_slice())
            })
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nDocker-Distribution-API-Version: registry/2.0\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\
             Connection: close\r\n\r\n",
            body.len(),
            digest(body)
        );
        let body = if method == "HEAD" { &b""[..] } else { body };
        stream.write_all(&[head.as_bytes(), body].concat()).ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn blob(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)})
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
