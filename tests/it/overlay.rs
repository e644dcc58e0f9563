//! The overlay on the real kernel: hosts and containers are network namespaces, bridges are made as
//! the engine would make them. Needs root and `nft`; elsewhere it says so and passes.

mod lab;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use lab::{
    DNS_PORT, Lab, addr, assignments, connects, node, publish, resolve, run, transfer, within,
};
use swarm::dns;
use swarm::domain::assignment::{Item, Peer};
use swarm::env::{Env, Scope};
use swarm::overlay::{Error, Report};
use tokio::sync::watch;

#[test]
fn tasks_reach_each_other_wherever_they_are_and_nobody_else_does() {
    let Some(mut lab) = Lab::new(3) else { return };
    let set = assignments(3);
    lab.container(0, 1, 2);
    for host in 1..=3 {
        assert!(lab.apply(host, &set).rules_loaded);
    }
    let client = lab.in_container(0, 1, 1);
    // On the same host, on others, on a remote gateway; and back. `.1.2` does not serve.
    for (host, number) in [(1, 2), (2, 1), (3, 1)] {
        let there = lab.in_container(0, host, number);
        assert!(lab.pings(&client, addr(0, host, number)), "to host {host}");
        assert!(lab.pings(&there, addr(0, 1, 1)), "from host {host}");
        assert_eq!(transfer(&client, &there, addr(0, host, number)), 1 << 20);
    }
    assert!(lab.pings(&client, [10, 200, 255, 1].into()), "own gateway");
    assert!(lab.pings(&client, [10, 200, 255, 2].into()), "a remote gateway of its network");
    assert!(lab.pings(&lab.host(1), addr(0, 2, 1)), "a host to a remote task");
    assert!(lab.pings(&lab.in_container(1, 1, 1), addr(1, 3, 1)), "the other network works, too");
    assert_eq!(lab.exec(&lab.host(1), "cat /sys/class/net/ov4097/mtu").trim(), "1450");

    // Another network: neither its tasks nor its gateways.
    for target in [addr(1, 1, 1), addr(1, 2, 1), [10, 201, 255, 1].into(), [10, 201, 255, 2].into()]
    {
        assert!(!lab.pings(&client, target), "{target} is of another network");
    }
    // Nor does another network's address help, be it that of a task on another host.
    let foreign = lab.in_container(1, 2, 1);
    run(&format!(
        "ip -n {client} addr add 10.201.1.99/16 dev eth0 && \
         ip -n {client} neigh add 10.201.2.1 lladdr 02:42:0a:c8:ff:01 dev eth0"
    ));
    let before = lab.echoes(&foreign);
    assert!(!lab.pings(&client, addr(1, 2, 1)));
    assert_eq!(lab.echoes(&foreign), before, "a forged address passed");
    run(&format!("ip -n {client} addr del 10.201.1.99/16 dev eth0"));
    // The host: nothing but ping and names.
    let listener = within(&lab.host(1), || TcpListener::bind("0.0.0.0:7001").unwrap());
    for host in ["10.200.255.1:7001", "10.99.0.1:7001"] {
        assert!(!connects(&client, host.parse().unwrap()), "{host} is open to tasks");
    }
    assert!(connects(&format!("{}out", lab.prefix), "10.99.0.1:7001".parse().unwrap()));
    // What a task of the host publishes is open to its neighbours as it is to the world.
    let mut publishing = set.clone();
    publish(&mut publishing, 7001);
    lab.apply(1, &publishing);
    assert!(connects(&client, "10.99.0.1:7001".parse().unwrap()), "a published port is closed");
    lab.apply(1, &set);
    assert!(!connects(&client, "10.99.0.1:7001".parse().unwrap()), "it is open for ever");
    drop(listener);
    // A machine of the underlay that routes into the network.
    let outsider = format!("{}out", lab.prefix);
    run(&format!("ip -n {outsider} route add 10.200.0.0/16 via 10.99.0.1"));
    assert!(!lab.pings(&outsider, addr(0, 1, 1)));
    // A short cut past the host: the neighbour's own hardware address.
    let other = lab.in_container(0, 1, 2);
    let mac = lab.exec(&other, "cat /sys/class/net/eth0/address");
    run(&format!("ip -n {client} neigh replace 10.200.1.2 lladdr {} dev eth0", mac.trim()));
    assert!(!lab.pings(&client, addr(0, 1, 2)), "a frame was switched past the rules");
    lab.exec(&lab.host(1), "nft flush chain bridge swarm guard");
    assert!(lab.pings(&client, addr(0, 1, 2)), "the short cut leads nowhere anyway");
}

#[test]
fn ports_that_the_engine_publishes_are_open_and_tasks_reach_the_world() {
    let Some(lab) = Lab::new(1) else { return };
    lab.apply(1, &assignments(1));
    let (host, task) = (lab.host(1), lab.in_container(0, 1, 1));
    // The engine's rules for a bridge with a published port.
    for rule in [
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT \
         --to-destination 10.200.1.1:7000",
        "-t nat -A POSTROUTING -s 10.200.0.0/16 ! -o ov4097 -j MASQUERADE",
        "-A FORWARD -o ov4097 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD ! -i ov4097 -o ov4097 -d 10.200.1.1 -p tcp --dport 7000 -j ACCEPT",
        "-A FORWARD -i ov4097 ! -o ov4097 -j ACCEPT",
    ] {
        lab.exec(&host, &format!("iptables {rule}"));
    }
    let outsider = format!("{}out", lab.prefix);
    let server = within(&task, || TcpListener::bind("0.0.0.0:7000").unwrap());
    assert!(connects(&outsider, "10.99.0.1:8080".parse().unwrap()));
    assert!(lab.pings(&task, [10, 99, 0, 250].into()), "a task to the world");
    drop(server);
}

#[test]
fn an_outsider_cannot_send_tunnel_packets() {
    let Some(mut lab) = Lab::new(2) else { return };
    let set = assignments(2);
    // A third machine that plays a node, but is none: the first host does not list it.
    let intruder = lab.machine("bad", 66);
    for host in 1..=2 {
        lab.apply(host, &set);
    }
    let target = lab.in_container(0, 1, 1);
    run(&format!(
        "ip -n {intruder} link add vx0 type vxlan id 4097 local 10.99.0.66 remote 10.99.0.1 \
         dstport 4789 && ip -n {intruder} link set vx0 address 02:42:0a:c8:ff:42 up && \
         ip -n {intruder} addr add 10.200.0.66/16 dev vx0 && \
         ip -n {intruder} neigh add 10.200.1.1 lladdr 02:42:0a:c8:ff:01 dev vx0"
    ));
    let count = |lab: &Lab| -> u64 {
        let before = lab.echoes(&target);
        for _ in 0..3 {
            lab.pings(&intruder, addr(0, 1, 1));
        }
        lab.echoes(&target) - before
    };
    assert_eq!(count(&lab), 0, "frames of a stranger arrive");
    // The same without the rule, so that the test shows what it says.
    let host = lab.host(1);
    lab.exec(&host, "nft flush chain inet swarm filt_in");
    assert!(count(&lab) >= 3, "the intruder sends nothing");
}

#[test]
fn names_are_served_at_the_gateway_and_nowhere_else() {
    let Some(lab) = Lab::new(2) else { return };
    let set = assignments(2);
    lab.apply(1, &set);
    lab.apply(2, &set);
    let stop = Arc::new(tokio::sync::Notify::new());
    let (stopped, host) = (Arc::clone(&stop), lab.host(1));
    let (ready, wait) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        within(&host, move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (_assignments, watched) = watch::channel(Arc::new(set));
                let (_local, local) = watch::channel(Arc::new(BTreeMap::new()));
                let sources = dns::Sources { assignments: watched, local };
                let upstreams = Some(Vec::new());
                let settings = dns::Settings { port: DNS_PORT, node: node(1), upstreams };
                let scope = Scope::root("dns");
                dns::start(settings, Env::system(), sources, scope).await.unwrap();
                ready.send(()).unwrap();
                stopped.notified().await;
            });
        });
    });
    wait.recv().unwrap();
    let client = lab.in_container(0, 1, 1);
    let gateway = SocketAddr::from(([10, 200, 255, 1], 53));
    let web = vec!["10.200.1.1".to_owned(), "10.200.2.1".to_owned()];
    assert_eq!(resolve(&client, gateway, "web0."), Some(web));
    assert_eq!(resolve(&client, gateway, "web1."), Some(Vec::new()), "of another network");
    assert!(connects(&client, gateway), "over TCP, too");
    for closed in ["10.201.255.1:53", "10.99.0.1:53", "10.99.0.1:10053"] {
        assert_eq!(resolve(&client, closed.parse().unwrap(), "web0."), None, "{closed}");
    }
    let outsider = format!("{}out", lab.prefix);
    let port = SocketAddr::from(([10, 99, 0, 1], DNS_PORT));
    assert_eq!(resolve(&outsider, port, "web0."), None, "open to the underlay");
    assert!(!connects(&outsider, port));
    let loopback = SocketAddr::from(([127, 0, 0, 1], DNS_PORT));
    assert_eq!(resolve(&lab.host(1), loopback, "web1.").unwrap().len(), 2, "the host sees all");
    stop.notify_one();
    server.join().unwrap();
}

#[test]
fn a_second_apply_does_nothing_and_drift_is_repaired() {
    let Some(lab) = Lab::new(2) else { return };
    let set = assignments(2);
    lab.apply(2, &set);
    let (client, host) = (lab.in_container(0, 1, 1), lab.host(1));
    let damages = [
        "ip link del vx4097",
        "ip link set vx4097 nomaster",
        "ip link set vx4097 down",
        "ip link set ov4097 address 02:11:22:33:44:55",
        "ip neigh del 10.200.2.1 dev ov4097",
        "ip neigh replace 10.200.2.1 lladdr 02:11:22:33:44:55 dev ov4097 nud permanent",
        "bridge fdb del 02:42:0a:c8:ff:02 dev vx4097 master",
        "bridge fdb del 02:42:0a:c8:ff:02 dev vx4097 self",
        "sysctl -qw net.ipv4.conf.ov4097.proxy_arp_pvlan=0",
        "iptables -F DOCKER-USER",
        "nft delete table inet swarm",
        "nft add rule inet swarm filt_fwd drop",
        "nft insert rule bridge swarm guard accept",
        "nft delete element inet swarm nodes { 10.99.0.2 }",
    ];
    let nothing = Report::default();
    lab.with_overlay(1, async move |overlay| {
        assert_ne!(overlay.reconcile(&set).await.unwrap(), nothing);
        assert_eq!(overlay.reconcile(&set).await.unwrap(), nothing);
        assert_eq!(overlay.mtu([10, 99, 0, 1].into()), 1450);
        for damage in damages {
            run(&format!("ip netns exec {host} {damage}"));
            let report = overlay.reconcile(&set).await.unwrap();
            assert_ne!(report, nothing, "{damage}: not seen");
            assert_eq!(overlay.reconcile(&set).await.unwrap(), nothing, "{damage}: not repaired");
        }
        // What is new is not there by chance: what others made stays.
        run(&format!("ip netns exec {host} ip neigh replace 10.99.0.77 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"));
        assert_eq!(overlay.reconcile(&set).await.unwrap(), nothing);
    });
    assert!(lab.pings(&client, addr(0, 2, 1)));
    // An agent that starts again finds all as it must be, and loads its rules once.
    let again = lab.apply(1, &assignments(2));
    assert_eq!(again, Report { operations: 0, rules_loaded: true });
}

#[test]
fn nodes_and_tasks_that_leave_are_forgotten_and_teardown_leaves_nothing() {
    let Some(lab) = Lab::new(3) else { return };
    for host in 1..=3 {
        lab.apply(host, &assignments(3));
    }
    let (host, client) = (lab.host(1), lab.in_container(0, 1, 1));
    assert!(lab.pings(&client, addr(0, 3, 1)));
    lab.apply(1, &assignments(2));
    assert!(!lab.pings(&client, addr(0, 3, 1)) && lab.pings(&client, addr(0, 2, 1)));
    assert!(!lab.exec(&host, "bridge fdb show").contains("10.99.0.3"));
    assert!(!lab.exec(&host, "nft list table inet swarm").contains("10.99.0.3"));

    lab.with_overlay(1, async |overlay| overlay.teardown().await.unwrap());
    assert!(!lab.exec(&host, "ip -o link").contains("vx40"));
    assert_eq!(lab.exec(&host, "ip neigh show nud permanent dev ov4097"), "");
    assert!(!lab.exec(&host, "nft list tables").contains("swarm"));
    assert!(!lab.exec(&host, "iptables -S").contains("swarm"));
    let twice = lab.with_overlay(1, async |overlay| overlay.teardown().await);
    assert_eq!(twice, Ok(()));
}

#[test]
fn what_is_missing_is_named_and_the_rest_works() {
    let Some(lab) = Lab::new(2) else { return };
    let host = lab.host(1);
    lab.exec(&host, "ip link del ov4098");
    lab.apply(2, &assignments(2));
    let error = lab.with_overlay(1, async |overlay| overlay.apply(&assignments(2)).await);
    let (bridge, network) = ("ov4098".to_owned(), "net1".to_owned());
    assert_eq!(error, Err(Error::BridgeMissing { bridge, network }));
    assert!(lab.pings(&lab.in_container(0, 1, 1), addr(0, 2, 1)));

    let mut moved = assignments(2);
    let (hostname, addr) = ("h1".to_owned(), IpAddr::V4([10, 99, 7, 7].into()));
    moved.insert(Item::Peer(Arc::new(Peer { node: node(1), hostname, addr })));
    lab.exec(&host, "ip link add ov4098 type bridge");
    let error = lab.with_overlay(1, async move |overlay| overlay.apply(&moved).await);
    assert_eq!(error, Err(Error::AddressMissing { addr }));
}
