//! Strangers at port 2377: garbage, and ten thousand connections that never say anything.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::{TcpSocket, TcpStream};

use crate::lab::Lab;

const MANAGER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), 2377);
const CONNECTIONS: usize = 10_000;
/// Addresses that they come from: one alone would be held down by the bound per address.
const SOURCES: u8 = 50;

/// Files that the manager's daemon has open, and its resident memory in KiB.
fn weight(lab: &Lab) -> (usize, usize) {
    // The supervisor of the lab knows the process; its number is the host's own.
    let line = "pid=$(cat /run/lab-swarm.pid); ls /proc/$pid/fd | wc -l; \
                sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$pid/status";
    let said = lab.exec(1, &["sh", "-c", line]);
    let mut numbers = said.out.lines().map(|line| line.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Connects from one of the addresses, without a word after that.
async fn knock(number: usize) -> std::io::Result<TcpStream> {
    let last = 100 + u8::try_from(number % usize::from(SOURCES)).unwrap();
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(10, 99, 0, last), 0)))?;
    socket.connect(MANAGER).await
}

/// Opens all connections, and opens again those that the manager closes, until told to end.
fn flood(opened: &AtomicUsize, ends: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut held: Vec<Option<TcpStream>> = (0..CONNECTIONS).map(|_| None).collect();
        while !ends.load(Ordering::Relaxed) {
            for (number, place) in held.iter_mut().enumerate() {
                let is_open = place.as_ref().is_some_and(|stream| {
                    let nothing_yet = stream.try_read(&mut [0; 16]);
                    matches!(nothing_yet, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
                });
                if is_open {
                    continue;
                }
                *place = knock(number).await.ok();
                opened.fetch_add(usize::from(place.is_some()), Ordering::Relaxed);
                if ends.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    });
}

/// What is no TLS, what begins like it, and much of it.
fn garbage() {
    let hello = [&b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"[..], &[0xff; 4096]].concat();
    let mebibyte = vec![0x5a; 1 << 20];
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 64], &hello, &mebibyte] {
        for _ in 0..50 {
            let mut stream = std::net::TcpStream::connect(MANAGER).unwrap();
            // The manager may have hung up before it has all.
            stream.write_all(bytes).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
            assert!(answer.len() < 64, "an alert at most: {answer:?}");
        }
    }
}

#[test]
fn strangers_at_the_port_cost_little_and_hold_up_nobody() {
    let lab = Lab::cluster(2, 1);
    lab.web(1, "web", 2, &[]);
    let me = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &me, "--nofile=20000"]).status().unwrap();
    assert!(raised.success(), "no room for {CONNECTIONS} connections");
    let last = 100 + SOURCES - 1;
    let line = format!("for n in $(seq 100 {last}); do ip addr add 10.99.0.$n/24 dev eth0; done");
    assert!(lab.exec(2, &["sh", "-c", &line]).ok);
    lab.within(2, garbage);
    let calm = weight(&lab);
    let (opened, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| lab.within(2, || flood(&opened, &ends)));
        let stop = StopOnDrop(&ends);
        lab.until("all have knocked", || opened.load(Ordering::Relaxed) >= CONNECTIONS);
        // Everything that goes through this port goes on: sessions, new sessions, enrolment.
        lab.swarm(1, &["service", "scale", "web=4"]);
        assert!(!lab.containers(2, "web").is_empty());
        lab.act(&["kill", "2", "daemon"]);
        lab.act(&["start", "2", "daemon"]);
        lab.until("a node comes back through the crowd", || {
            lab.ready() == 2 && lab.try_swarm(2, &["info"]).out.contains("Swarm: active")
        });
        lab.swarm(1, &["service", "scale", "web=6"]);
        assert_eq!(lab.replicas(1, "web"), "6/6");
        let (files, memory) = weight(&lab);
        // 1024 in their handshake and 256 without a certificate are the most, beside those of nodes.
        assert!(files < calm.0 + 1024 + 256 + 100, "{files} files are open, {} before", calm.0);
        assert!(memory < calm.1 + 200 * 1024, "{memory} KiB are used, {} before", calm.1);
        drop(stop);
        flooding.join().unwrap();
    });
    lab.until("the crowd is gone", || weight(&lab).0 < calm.0 + 50);
    assert_eq!(lab.ready(), 2);
}

/// Ends the flood even if the test fails before.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
