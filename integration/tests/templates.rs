//! The policy templates in the kernel: what each renders to, and that hosts go on finding their
//! neighbours, each other's IKE and the way to the server while everything else is held.
//!
//! The files in `xfrm-policies/golden/` are what `ip xfrm policy` shows of each template, at each
//! end, for each IP version. `UPDATE_GOLDEN=1 scripts/test kernel templates` writes them anew.
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{CLIENT_ID, SERVER_ID, policies};
use epochgate_integration::tables::{self, REQIDS};
use epochgate_integration::topology::{
    CLIENT, CLIENT_NET, CLIENT_NET_V6, CLIENT_V6, SERVER, SERVER_INNER, SERVER_INNER_V6,
    SERVER_NET, SERVER_NET_V6, SERVER_V6,
};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{
    Account, Capture, Epochgate, Host, Packet, Record, Topology, Trace, UdpFlow, World, audit,
};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(2);
const ENDLESS: u64 = 1_000_000;
/// The address of a road warrior inside its tunnel.
const INSIDE: &str = "10.9.0.5";
const INSIDE_V6: &str = "2001:db8:9::5";
/// ICMPv6, where its type is behind Ethernet's and IPv6's headers, and the types of neighbour
/// discovery (RFC 4861 §4).
const ICMPV6: u8 = 58;
const ICMPV6_TYPE_AT: usize = 14 + 40;
const DISCOVERY: RangeInclusive<u8> = 133..=137;
const IKE: [u16; 2] = [500, 4500];

/// One tunnel, as both ends see it.
#[derive(Clone, Copy)]
struct Tunnel<'a> {
    template: &'a str,
    client: &'a str,
    server: &'a str,
    /// The networks that the client names, local and remote; empty where the template knows.
    networks: (&'a [&'a str], &'a [&'a str]),
}

impl Tunnel<'_> {
    fn client(&self) -> String {
        self.end(
            "client",
            (self.client, CLIENT_ID),
            (self.server, SERVER_ID),
            self.networks,
        )
    }

    fn server(&self) -> String {
        let (local, remote) = self.networks;
        let ends = ((self.server, SERVER_ID), (self.client, CLIENT_ID));
        self.end("server", ends.0, ends.1, (remote, local))
    }

    fn end(
        &self,
        role: &str,
        own: (&str, &str),
        peer: (&str, &str),
        (local, remote): (&[&str], &[&str]),
    ) -> String {
        let mut config = format!(
            "[tunnel.net]\nrole = \"{role}\"\npolicy = \"{}\"\n\
             local = {{ address = \"{}\", id = \"{}\", psk-file = \"psk\" }}\n\
             remote = {{ address = \"{}\", id = \"{}\" }}\n",
            self.template, own.0, own.1, peer.0, peer.1
        );
        if role == "server" {
            config.push_str("start = \"listen\"\n");
        }
        for (side, networks) in [("local", local), ("remote", remote)] {
            if !networks.is_empty() {
                writeln!(config, "traffic.{side} = {networks:?}").expect("a string");
            }
        }
        config
    }
}

/// All policies of a host in a fixed order, with names for the numbers that differ from run to
/// run. The counters that `ip -s` shows are not in it.
fn rendered(host: &Host) -> String {
    let mut blocks: Vec<String> = Vec::new();
    for line in host.run("ip xfrm policy list nosock").lines() {
        let line = named(line);
        match blocks.last_mut() {
            Some(block) if line.starts_with('\t') => *block += &format!("\n{line}"),
            _ => blocks.push(line),
        }
    }
    blocks.sort();
    blocks.join("\n").replace('\t', "    ") + "\n"
}

fn named(line: &str) -> String {
    let mut shown = Vec::new();
    let mut words = line.trim_end().split(' ');
    while let Some(word) = words.next() {
        shown.push(word.to_owned());
        let number = match word {
            "reqid" | "spi" => words.next().unwrap_or_default(),
            _ => continue,
        };
        let reqid = number
            .parse::<u32>()
            .ok()
            .filter(|reqid| REQIDS.contains(reqid));
        shown.push(match (word, reqid) {
            ("spi", _) => "(the open epoch's)".to_owned(),
            (_, Some(reqid)) if reqid % 2 == 0 => "(the Child's)".to_owned(),
            (_, Some(_)) => "(the hold's)".to_owned(),
            (_, None) => number.to_owned(),
        });
    }
    shown.join(" ")
}

#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = policies().join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value != "0") {
        fs::write(&path, text).expect("xfrm-policies/golden");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} is different; UPDATE_GOLDEN=1 rewrites it\n--- golden\n{golden}\n--- kernel\n{text}",
        path.display()
    );
}

fn renders(tunnel: &Tunnel<'_>, family: &str) {
    let net = Topology::new(&format!("golden_{}_{family}", tunnel.template)).build();
    net.client.dummy(
        "inside",
        &[&format!("{INSIDE}/32"), &format!("{INSIDE_V6}/128")],
    );
    let server = Epochgate::start(&net.server, &tunnel.server());
    let client = Epochgate::start(&net.client, &tunnel.client());
    for daemon in [&client, &server] {
        daemon.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
    }
    let ends = [("client", &net.client), ("server", &net.server)];
    let held = ends.map(|(_, host)| rendered(host));
    client.run(&["up", "net"]);
    server.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open");
    for ((role, host), held) in ends.into_iter().zip(held) {
        let template = tunnel.template;
        let open = rendered(host);
        assert_golden(
            &format!("{template}.{role}.{family}"),
            &format!(
                "# {template}, {role}, {family}\n\n## While traffic is held\n\n{held}\n\
                 ## With an epoch open\n\n{open}"
            ),
        );
    }
}

#[test]
fn site_to_site_renders_as_its_golden_files_say() {
    renders(
        &Tunnel {
            template: "site-to-site",
            client: CLIENT,
            server: SERVER,
            networks: (&[CLIENT_NET], &[SERVER_NET]),
        },
        "ipv4",
    );
    renders(
        &Tunnel {
            template: "site-to-site",
            client: CLIENT_V6,
            server: SERVER_V6,
            networks: (&[CLIENT_NET_V6], &[SERVER_NET_V6]),
        },
        "ipv6",
    );
}

#[test]
fn host_to_host_renders_as_its_golden_files_say() {
    for (client, server, family) in [(CLIENT, SERVER, "ipv4"), (CLIENT_V6, SERVER_V6, "ipv6")] {
        let tunnel = Tunnel {
            template: "host-to-host",
            client,
            server,
            networks: (&[], &[]),
        };
        renders(&tunnel, family);
    }
}

#[test]
fn road_warrior_renders_as_its_golden_files_say() {
    for (client, server, inside, family) in [
        (CLIENT, SERVER, "10.9.0.5/32", "ipv4"),
        (CLIENT_V6, SERVER_V6, "2001:db8:9::5/128", "ipv6"),
    ] {
        let tunnel = Tunnel {
            template: "road-warrior",
            client,
            server,
            networks: (&[inside], &[]),
        };
        renders(&tunnel, family);
    }
}

/// All that was sent arrived once.
#[track_caller]
fn assert_complete(account: &Account) {
    println!("{account}");
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

/// What went over the wire outside ESP between two addresses was IKE and neighbour discovery.
/// Returns how many packets were of the latter.
#[track_caller]
fn only_ike_and_discovery_in_clear<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    ends: [&str; 2],
) -> usize {
    let ends = ends.map(|end| end.parse::<IpAddr>().expect("an address"));
    let mut discovery = 0;
    for record in records {
        let packet = record.packet();
        let Packet::Clear {
            src,
            dst,
            protocol,
            ports,
        } = packet
        else {
            continue;
        };
        let message_type = record.frame().get(ICMPV6_TYPE_AT);
        if protocol == ICMPV6 && message_type.is_some_and(|of| DISCOVERY.contains(of)) {
            discovery += 1;
            continue;
        }
        let between = ends.contains(&src) && ends.contains(&dst);
        let ike = ports.is_some_and(|(from, _)| IKE.contains(&from));
        assert!(!between || ike, "in clear: {packet:?}");
    }
    discovery
}

#[test]
fn two_hosts_on_one_link_find_each_other_while_everything_between_them_is_held() {
    // left 2001:db8:1::1 ─── 2001:db8:1::2 right, neither knows the other's hardware address
    let (left_v6, right_v6) = ("2001:db8:1::1", "2001:db8:1::2");
    let world = World::new("one_link");
    let [left, right] = ["left", "right"].map(|name| world.host(name));
    let (left_end, right_end) = world.link(
        (&left, &["192.0.2.1/24", "2001:db8:1::1/64"]),
        (&right, &["192.0.2.2/24", "2001:db8:1::2/64"]),
    );
    for (own, peer) in [(left_v6, right_v6), ("192.0.2.1", "192.0.2.2")] {
        for host in [&left, &right] {
            host.forget_neighbours();
        }
        let captures = [&left_end, &right_end].map(Capture::start);
        let tunnel = Tunnel {
            template: "host-to-host",
            client: own,
            server: peer,
            networks: (&[], &[]),
        };
        let server = Epochgate::start(&right, &tunnel.server());
        let client = Epochgate::start(&left, &tunnel.client());
        client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
        let flow = UdpFlow::new((&left, own), (&right, peer), 4000)
            .count(ENDLESS)
            .start();
        client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open");
        // Again, now that the gate is open.
        left.run("ip neighbour flush all");
        right.run("ip neighbour flush all");
        arrives(&flow, 50);
        client.run(&["rekey", "net"]);
        assert_complete(&flow.stop(SETTLE));

        // At its own interface a host also sees what it has decrypted: only what it sent counts.
        let records = captures.map(Capture::stop).concat();
        let sent = records.iter().filter(|record| record.outgoing);
        let discovery = only_ike_and_discovery_in_clear(sent, [own, peer]);
        println!("{own} to {peer}: {discovery} packets of neighbour discovery");
        assert_eq!(discovery > 0, own.contains(':'), "IPv4 asks by ARP");
        for daemon in [client, server] {
            daemon.run(&["down", "net"]);
            assert!(daemon.stop().success());
        }
    }
}

#[track_caller]
fn arrives(flow: &RunningFlow, more: u64) {
    let wanted = flow.arrived() + more;
    let began = Instant::now();
    while flow.arrived() < wanted {
        assert!(began.elapsed() < LIMIT, "{} arrived", flow.arrived());
        sleep(Duration::from_millis(10));
    }
}

/// A road warrior, everything through its server, in one IP version.
fn travels(net: &Topology, inside: &str, target: &str, unbound: &str) {
    let v6 = inside.contains(':');
    let (outer, prefix) = if v6 { (CLIENT_V6, 128) } else { (CLIENT, 32) };
    let network = format!("{inside}/{prefix}");
    // The address of either end may change: only the server's is given.
    let config = |template: &Tunnel<'_>| template.client().replace(outer, "%any");
    let local = [network.as_str()];
    let tunnel = Tunnel {
        template: "road-warrior",
        client: outer,
        server: if v6 { SERVER_V6 } else { SERVER },
        networks: (&local, &[]),
    };
    net.client.dummy("inside", &[&network]);
    // The router, which has no link-local address to ask from, keeps what it knows.
    net.client.forget_neighbours();
    let keys = net.client_keys();
    let wire = net.capture_client();
    let server = Epochgate::start(&net.server, &tunnel.server());
    let client = Epochgate::start(&net.client, &config(&tunnel));
    client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
    let family = if v6 { "-6" } else { "-4" };
    let routes = || net.client.run(&format!("ip {family} route show proto 69"));
    assert_eq!(routes().lines().count(), 2, "{}", routes());

    // From no address in particular: the route chooses the one inside the tunnel.
    let flow = UdpFlow::new((&net.client, unbound), (&net.server, target), 4000);
    let flow = flow.count(ENDLESS).start();
    arrives(&flow, 50);
    client.run(&["rekey", "net"]);
    arrives(&flow, 20);
    // A new IKE SA from a host whose routes all lead into the tunnel.
    client.kill();
    let client = Epochgate::start(&net.client, &config(&tunnel));
    arrives(&flow, 50);
    // Stopped, what chooses its address by the routes is blocked as well.
    assert!(client.stop().success());
    sleep(Duration::from_millis(200));
    let before = flow.arrived();
    sleep(Duration::from_millis(500));
    assert_eq!(flow.arrived(), before);
    assert_eq!(routes().lines().count(), 2, "{}", routes());
    let client = Epochgate::start(&net.client, &config(&tunnel));
    arrives(&flow, 50);
    println!("{}", flow.stop(SETTLE));

    let records = wire.stop();
    let discovery = only_ike_and_discovery_in_clear(&records, [outer, tunnel.server]);
    let trace = Trace::of(records, &keys);
    assert_eq!(discovery > 0, v6);
    let target: IpAddr = target.parse().expect("an address");
    for entry in &trace.entries {
        if let Packet::Clear { src, dst, .. } = entry.packet {
            assert!(
                src != target && dst != target,
                "in clear: {:?}",
                entry.packet
            );
        }
    }
    let own: IpAddr = outer.parse().expect("an address");
    let mut inner_esp = trace.sent().filter_map(|entry| entry.inner.as_ref());
    assert!(
        inner_esp.all(|inner| inner.src != own),
        "ESP or IKE inside ESP"
    );
    assert!(audit::carried(&trace, 4000).len() > 150);
    audit::nothing_before_proof(&trace).expect("held until proven");

    client.run(&["down", "net"]);
    assert_eq!(routes(), "");
    assert_eq!(tables::our_policies(&net.client), []);
    net.client.run(&format!("ping -c 1 -W 2 {}", tunnel.server));
    assert!(server.stop().success());
}

#[test]
fn a_road_warrior_sends_everything_through_its_server_but_ike() {
    let net = Topology::new("road_warrior").build();
    travels(&net, INSIDE, SERVER_INNER, "0.0.0.0");
}

#[test]
fn an_ipv6_road_warrior_still_finds_its_router() {
    let net = Topology::new("road_warrior_v6").build();
    travels(&net, INSIDE_V6, SERVER_INNER_V6, "::");
}
