//! The packet filter's rules for the networks of a node, as text; pure.
//!
//! Two tables, owned whole: `inet swarm` (DNS redirect, isolation, who may send tunnel packets) and
//! `bridge swarm` (no frame of a task is switched from port to port: everything goes up to the host's
//! IP layer, in both directions). One transaction replaces both, so that there is no moment without
//! rules. Rules name our interfaces one by one: `ov*` would also mean somebody else's `ovs-system`.
//!
//! Not here yet: virtual addresses and ingress ports (a map per kind and a chain per service port will
//! join `dnat_pre` and `snat_post`), policy (a jump at the end of `filt_fwd`), and rules that bind a
//! task to its own address (`origin` only binds it to its network).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{Desired, VXLAN_PORT, bridge_name, vxlan_name};

/// The tables that are ours, as `nft` names them.
pub(super) const TABLES: [&str; 2] = ["inet swarm", "bridge swarm"];

/// A transaction that removes our tables, whether they are there or not.
pub(super) fn removal() -> String {
    TABLES.iter().fold(String::new(), |text, table| {
        text + "table " + table + "\ndelete table " + table + "\n"
    })
}

/// The transaction that replaces our tables; removes them if there is no network.
pub(super) fn ruleset(desired: &Desired, dns_port: u16) -> String {
    let mut text = removal();
    if !desired.segments.is_empty() {
        // Writing to a string cannot fail.
        let _infallible = write_inet(&mut text, desired, dns_port);
        let _infallible = write_bridge(&mut text, desired);
    }
    text
}

fn set(name: &str, kind: &str, elements: &[String]) -> String {
    let elements = match elements {
        [] => String::new(),
        some => format!("\t\telements = {{ {} }}\n", some.join(", ")),
    };
    format!("\tset {name} {{\n\t\ttype {kind}\n{elements}\t}}\n")
}

fn write_inet(text: &mut String, desired: &Desired, dns_port: u16) -> std::fmt::Result {
    let each = |line: &dyn Fn(&str, u32) -> String| -> Vec<String> {
        desired.segments.keys().map(|vni| line(&bridge_name(*vni), *vni)).collect()
    };
    let members = |four: bool| -> Vec<String> {
        let family = desired.members.iter().filter(|addr| addr.is_ipv4() == four);
        family.map(IpAddr::to_string).collect()
    };
    let bridges = each(&|bridge, _| format!("\"{bridge}\""));
    let same = each(&|bridge, _| format!("\"{bridge}\" . \"{bridge}\""));
    // What comes from a bridge has an address of its network: nobody poses as another network.
    let origins: String = desired
        .segments
        .values()
        .map(|segment| {
            let (bridge, (base, prefix)) = (bridge_name(segment.vni), segment.subnet);
            format!("\t\tiifname \"{bridge}\" ip saddr != {base}/{prefix} drop\n")
        })
        .collect();
    let own = each(&|bridge, vni| format!("\"{bridge}\" . {}", desired.segments[&vni].gateway));
    text.push_str("table inet swarm {\n");
    text.push_str(&set("bridges", "ifname", &bridges));
    // Bridge pairs between which packets may pass: each with itself.
    text.push_str(&set("samenet", "ifname . ifname", &same));
    // This node's gateway on each bridge: the only address of the host that its tasks may talk to,
    // but for ports that tasks publish.
    text.push_str(&set("mygw", "ifname . ipv4_addr", &own));
    let published: Vec<String> = desired
        .published
        .iter()
        .map(|(protocol, port)| format!("{} . {port}", protocol.as_str()))
        .collect();
    // What this host's tasks publish; where the engine has a proxy for its ports, tasks meet it here.
    text.push_str(&set("published", "inet_proto . inet_service", &published));
    text.push_str(&set("nodes", "ipv4_addr", &members(true)));
    text.push_str(&set("nodes6", "ipv6_addr", &members(false)));
    write!(
        text,
        "\tchain origin {{
\t\ttype filter hook prerouting priority raw; policy accept;
{origins}\t}}
\tchain dnat_pre {{
\t\ttype nat hook prerouting priority dstnat - 5; policy accept;
\t\tiifname . ip daddr @mygw meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns_port}
\t}}
\tchain filt_fwd {{
\t\ttype filter hook forward priority filter - 10; policy accept;
\t\tct state established,related accept
\t\tiifname @bridges ct state invalid drop
\t\toifname @bridges ct state invalid drop
\t\tiifname @bridges oifname @bridges iifname . oifname != @samenet ct status & dnat == 0 drop
\t\tiifname != @bridges oifname @bridges ct status & dnat == 0 drop
\t}}
\tchain filt_in {{
\t\ttype filter hook input priority filter - 10; policy accept;
\t\tudp dport {VXLAN_PORT} ip saddr != @nodes drop
\t\tudp dport {VXLAN_PORT} ip6 saddr != @nodes6 drop
\t\tiifname != @bridges iifname != \"lo\" meta l4proto {{ tcp, udp }} th dport {dns_port} drop
\t\tiifname != @bridges accept
\t\tct state established,related accept
\t\tmeta l4proto . th dport @published accept
\t\tiifname . ip daddr != @mygw drop
\t\tip protocol icmp accept
\t\tmeta l4proto {{ tcp, udp }} th dport {dns_port} accept
\t\tdrop
\t}}
}}
"
    )
}

fn write_bridge(text: &mut String, desired: &Desired) -> std::fmt::Result {
    let subnets: Vec<String> = desired
        .segments
        .values()
        .map(|segment| format!("{}/{}", segment.subnet.0, segment.subnet.1))
        .collect();
    let subnets = subnets.join(", ");
    let tunnels: Vec<String> =
        desired.segments.keys().map(|vni| format!("\"{}\"", vxlan_name(*vni))).collect();
    text.push_str("table bridge swarm {\n");
    text.push_str(&set("tunnels", "ifname", &tunnels));
    write!(
        text,
        "\tchain guard {{
\t\ttype filter hook forward priority -300; policy accept;
\t\tarp saddr ip {{ {subnets} }} drop
\t\tip saddr {{ {subnets} }} drop
\t\tip daddr {{ {subnets} }} drop
\t\tiifname @tunnels drop
\t\toifname @tunnels drop
\t}}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::plan::Segment;
    use std::collections::BTreeMap;

    fn desired() -> Desired {
        let mut desired = Desired::default();
        for vni in [4097, 4098] {
            let segment = Segment {
                network: String::new(),
                vni,
                subnet: ([10, 200, 0, 0].into(), 16),
                gateway: [10, 200, 255, 1].into(),
                local: [10, 99, 0, 1].into(),
                peers: BTreeMap::new(),
                neighbours: BTreeMap::new(),
            };
            desired.segments.insert(vni, segment);
        }
        desired.members = [[10, 99, 0, 1].into(), "fd00::1".parse().unwrap()].into();
        desired
    }

    #[test]
    fn no_network_no_tables() {
        assert_eq!(ruleset(&Desired::default(), 10053), removal());
    }

    #[test]
    fn each_network_may_talk_to_itself_and_its_gateway_only() {
        let text = ruleset(&desired(), 10053);
        for part in [
            "elements = { \"ov4097\" . \"ov4097\", \"ov4098\" . \"ov4098\" }",
            "elements = { \"ov4097\" . 10.200.255.1, \"ov4098\" . 10.200.255.1 }",
            "elements = { 10.99.0.1 }",
            "elements = { fd00::1 }",
            "dport 53 redirect to :10053",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.starts_with("table inet swarm\ndelete table inet swarm\n"));
        // Rules by prefix would mean other programs' interfaces (`ovs-system`), too.
        assert!(!text.contains('*'), "{text}");
    }
}
