//! Stock Docker clients against our socket: every one that this machine has.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::process::Command;

use super::super::service_spec;
use super::golden::assert_kept;
use super::*;

/// Where distributions and Docker's own packages put the client.
const PLACES: [&str; 3] = ["/usr/local/bin/docker", "/usr/bin/docker", "/opt/docker/docker"];

fn clients() -> Vec<&'static str> {
    let found: Vec<_> = PLACES.into_iter().filter(|place| Path::new(place).exists()).collect();
    if found.is_empty() {
        println!("SKIPPED: no docker client on this machine");
    }
    found
}

/// What a command said and whether it went well.
struct Said {
    good: bool,
    text: String,
}

async fn docker(client: &str, socket: &Path, arguments: &[&str]) -> Said {
    let folder = socket.parent().unwrap();
    let run = Command::new(client)
        .arg("-H")
        .arg(format!("unix://{}", socket.display()))
        .args(arguments)
        .env("DOCKER_CONFIG", folder.join("config"))
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_API_VERSION")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let clock = Env::system().clock;
    let output = clock.timeout(Duration::from_secs(30), run).await;
    let output = output.unwrap_or_else(|_| panic!("{client} {arguments:?} hangs")).unwrap();
    let text = [output.stdout, output.stderr].concat();
    Said { good: output.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
}

/// A client at a bench.
struct Cli<'a> {
    client: &'a str,
    bench: &'a Bench,
}

impl Cli<'_> {
    async fn good(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let said = docker(self.client, &self.bench.socket(), &arguments).await;
        assert!(said.good, "{} {line}:\n{}", self.client, said.text);
        said.text
    }

    async fn bad(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let said = docker(self.client, &self.bench.socket(), &arguments).await;
        assert!(!said.good, "{} {line}:\n{}", self.client, said.text);
        said.text
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn swarm_and_nodes() {
    for client in clients() {
        let bench = Bench::inactive().await;
        let cli = Cli { client, bench: &bench };
        has(
            &cli.bad("node ls").await,
            &["Error response from daemon: This node is not a swarm manager."],
        );
        let text = cli.good("swarm init --advertise-addr 10.77.0.1").await;
        has(&text, &["Swarm initialized: current node (", "docker swarm join --token SWMTKN-1-"]);
        has(&cli.bad("swarm init").await, &["This node is already part of a swarm."]);
        has(&cli.good("info").await, &["Swarm: active", "Is Manager: true", "10.77.0.1:2377"]);
        has(&cli.good("version").await, &["Server:", "1.41 (minimum version 1.24)"]);
        has(&cli.good("node ls").await, &[" *   vm ", "Ready", "Active", "Leader"]);
        let text = cli.good("node inspect self --pretty").await;
        has(&text, &["Hostname:", "Raft Status:", "Reachable", "23.54GiB", "BEGIN CERTIFICATE"]);
        cli.good("node update --label-add zone=a vm").await;
        cli.good("node update --availability drain vm").await;
        has(&cli.good("node ls").await, &["Drain"]);
        has(
            &cli.good("node inspect vm").await,
            &["\"zone\": \"a\"", "\"Availability\": \"drain\""],
        );
        has(&cli.good("node promote vm").await, &["is already a manager"]);
        has(&cli.bad("node demote vm").await, &["attempting to demote the last manager"]);
        has(&cli.bad("node rm vm").await, &["is a cluster manager and is a member"]);
        has(&cli.good("swarm join-token worker").await, &["SWMTKN-1-digest-worker1"]);
        has(&cli.good("swarm join-token --rotate -q worker").await, &["SWMTKN-1-digest-worker2"]);
        let text = "swarm update --task-history-limit 3 --cert-expiry 720h";
        has(&cli.good(text).await, &["Swarm updated."]);
        has(&cli.good("swarm ca").await, &["BEGIN CERTIFICATE"]);
        has(&cli.bad("swarm unlock-key").await, &["no unlock key is set"]);
        has(&cli.bad("swarm leave").await, &["Use `--force` to ignore this message."]);
        has(&cli.good("swarm leave --force").await, &["Node left the swarm."]);
        let text = cli.bad("swarm join --token SWMTKN-1-bad 127.0.0.1:2377").await;
        has(&text, &["invalid join token"]);
    }
}

#[tokio::test]
async fn services_and_tasks() {
    for client in clients() {
        let bench = Bench::manager().await;
        let cli = Cli { client, bench: &bench };
        let create = "service create -d --no-resolve-image --name web --replicas 2 --network default --publish mode=host,target=80,published=8080 busybox:latest sleep 3600";
        cli.good(create).await;
        has(
            &cli.bad(create).await,
            &["name conflicts with an existing object: service web already exists"],
        );
        let web = Arc::clone(bench.store().view().service_named("web").unwrap());
        put(&bench.store(), vec![Object::Task(Arc::new(running(&web, 1)))]).await;
        has(&cli.good("service ls").await, &["web", "replicated", "1/2", "busybox:latest"]);
        let text = cli.good("service ps web").await;
        has(&text, &["web.1", "vm", "Running", "busybox:latest"]);
        has(&cli.good("node ps vm").await, &["web.1"]);
        let text = cli.good("service inspect --pretty web").await;
        has(
            &text,
            &[
                "Replicated",
                " Replicas:\t2",
                "stop-first",
                "PublishedPort = 8080",
                "Networks: default",
            ],
        );
        cli.good("service inspect web").await;
        cli.good("service scale -d web=3").await;
        cli.good(
            "service update -d --no-resolve-image --image busybox:2 --env-add A=1 --force web",
        )
        .await;
        has(&cli.good("service ls").await, &["1/3", "busybox:2"]);
        has(&cli.good("service rollback -d web").await, &["web"]);
        has(&cli.good("service ls").await, &["busybox:latest"]);
        let text = cli.good("service inspect --pretty web").await;
        has(&text, &["UpdateStatus:", "rollback_started", "manually requested rollback"]);
        bench.logs.items.lock().unwrap().push(LogItem {
            task: running(&web, 1).id,
            node: NodeId::from_bytes(id(1)),
            stream: LogStream::Stdout,
            at: Timestamp(1_795_241_615_736_396_488),
            data: Bytes::from_static(b"hello\n"),
        });
        let text = cli.good("service logs --timestamps web").await;
        has(&text, &["web.1.", "@vm", "| hello", "2026-11-21T06:13:35"]);
        has(&cli.good("service logs --raw web").await, &["hello"]);
        let task = running(&web, 1).id.to_string();
        has(
            &cli.good(&format!("inspect --type task {task}")).await,
            &["\"DesiredState\": \"running\""],
        );
        has(&cli.bad("service inspect nosuch").await, &["no such service: nosuch"]);
        has(&cli.good("service rm web").await, &["web"]);
        assert!(!cli.good("service ls").await.contains("web"));
        has(&cli.bad("service rm web").await, &["web"]); // the text is the client's own
        let all = serde_json::to_value(crate::domain::SpecPolicy::everything()).unwrap();
        assert_eq!(policy::set_policy(&bench, all).await.status, StatusCode::OK);
        cli.good(
            "service create -d --no-resolve-image --name glob --mode global --network host busybox",
        )
        .await;
        let text = "service create -d --no-resolve-image --name in -p 8080:80 busybox";
        has(&cli.bad(text).await, &["mode=host"]);
    }
}

/// Starts the tasks of the first service, as the leader and the agents would.
async fn run_tasks(store: Store) {
    let mut views = store.watch();
    views.wait_for(|view| !view.services.is_empty()).await.unwrap();
    let service = Arc::clone(store.view().services.values().next().unwrap());
    let tasks = (1..=2).map(|number| Object::Task(Arc::new(running(&service, number))));
    put(&store, tasks.collect()).await;
}

#[tokio::test]
async fn an_attached_create_waits_until_the_service_has_converged() {
    for client in clients() {
        let bench = Bench::manager().await;
        let cli = Cli { client, bench: &bench };
        bench.scope.spawn("tasks", run_tasks(bench.store()));
        let line =
            "service create --no-resolve-image --update-monitor 1s --name web --replicas 2 busybox";
        let text = cli.good(line).await;
        has(&text, &["2 out of 2 tasks", "converged"]);
    }
}

#[tokio::test]
async fn payloads() {
    for client in clients() {
        let bench = Bench::manager().await;
        let cli = Cli { client, bench: &bench };
        let file = bench.folder.path().join("payload");
        std::fs::write(&file, "s3cret").unwrap();
        let file = file.to_str().unwrap();
        for kind in ["secret", "config"] {
            cli.good(&format!("{kind} create -l a=b one {file}")).await;
            let text = cli.bad(&format!("{kind} create one {file}")).await;
            has(&text, &[&format!("{kind} one already exists")]);
            has(&cli.good(&format!("{kind} ls")).await, &["one"]);
            has(&cli.good(&format!("{kind} ls --filter name=on")).await, &["one"]);
            has(&cli.good(&format!("{kind} inspect --pretty one")).await, &["one"]);
            has(&cli.good(&format!("{kind} inspect one")).await, &["\"Name\": \"one\""]);
        }
        let create = "service create -d --no-resolve-image --name web --secret source=one,target=x,mode=0400 --config source=one,target=/etc/c busybox:latest";
        cli.good(create).await;
        let text = cli.bad("secret rm one").await;
        has(&text, &["secret 'one' is in use by the following service: web"]);
        cli.good("service update -d --no-resolve-image --secret-rm one --config-rm one web").await;
        cli.good("config rm one").await;
        has(&cli.bad("config inspect one").await, &["one"]);
    }
}

/// Takes the body of the service that a client wants to create, and refuses it.
async fn captured(client: &str, arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let said = docker(client, &socket, arguments);
    tokio::pin!(said);
    let mut bodies = Vec::new();
    loop {
        tokio::select! {
            said = &mut said => {
                assert!(said.text.contains("captured"), "{}", said.text);
                return bodies.pop().unwrap();
            }
            accepted = listener.accept() => {
                let (mut stream, _) = accepted.unwrap();
                let request = read_request(&mut stream).await;
                let (head, body) = request.split_once("\r\n\r\n").unwrap();
                let create = head.starts_with("POST") && head.contains("/services/create");
                if create {
                    bodies.push(serde_json::from_str(body).unwrap());
                }
                let (status, body) = if create { ("500 no", r#"{"message":"captured"}"#) } else { ("200 OK", "") };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }
}

async fn read_request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    loop {
        bytes.push(stream.read_u8().await.unwrap());
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(bytes.clone()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    bytes.extend_from_slice(&body);
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn nothing_that_a_client_can_say_of_a_service_is_lost() {
    let line = "service create -d --no-resolve-image --name all --publish mode=host,target=81,published=8081,protocol=udp --mount type=volume,src=vv,dst=/data,volume-nocopy,volume-label=a=b --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount type=bind,src=/b,dst=/b,ro,bind-propagation=rshared --health-cmd true --health-interval 5s --health-retries 3 --health-timeout 2s --health-start-period 9s --host a:1.2.3.4 --dns 1.1.1.1 --dns-search s --dns-option o --hostname {{.Node.Hostname}} --label l=1 --container-label cl=1 --user 0 --workdir /srv --stop-grace-period 5s --stop-signal SIGINT --restart-condition on-failure --restart-delay 3s --restart-max-attempts 4 --restart-window 9s --ulimit nofile=100 --cap-add NET_ADMIN --cap-drop MKNOD --sysctl net.core.somaxconn=100 --init --tty --read-only --log-driver json-file --log-opt max-size=1m --placement-pref spread=node.labels.zone --constraint node.role==manager --replicas-max-per-node 2 --replicas 5 --limit-cpu 0.5 --limit-memory 64M --limit-pids 7 --reserve-cpu 0.1 --reserve-memory 32M --generic-resource gpu=2 --update-order start-first --update-parallelism 2 --update-delay 1s --update-failure-action rollback --update-max-failure-ratio 0.2 --update-monitor 2s --rollback-parallelism 0 --rollback-delay 4s --rollback-order start-first --endpoint-mode dnsrr --group g --env A=1 --entrypoint sh busybox:latest -c true";
    for client in clients() {
        let arguments: Vec<&str> = line.split(' ').collect();
        let body = captured(client, &arguments).await;
        let spec = service_spec::decode(body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{client}: {error}\n{body:#}"));
        assert_kept(&body, &serde_json::to_value(&spec).unwrap());
        assert!(spec.task_template.container_spec.healthcheck.is_some());
        assert_eq!(spec.replicas(), Some(5));
        assert_eq!(body["Name"], json!("all"));
    }
}

#[tokio::test]
async fn alarms_print_like_any_other_event() {
    for client in clients() {
        let bench = Bench::manager().await;
        bench.control.vitals.lock().unwrap().local.degraded = "no container engine".to_owned();
        assert_eq!(bench.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
        let cli = Cli { client, bench: &bench };
        // The client sends whole seconds.
        let until = Env::system().clock.now().0 / 1_000_000_000 + 2;
        let line = format!("events --since 1m --until {until} --filter type=alarm");
        let text = cli.good(&line).await;
        has(&text, &["alarm raise node-degraded/vm (", "severity=warning"]);
        has(&text, &["text=it cannot run tasks: no container engine"]);
    }
}
