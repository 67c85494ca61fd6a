//! What lies between the ends and changes: NATs that forget or move a client, and what keeps them
//! from forgetting.
//!
//! ```text
//! client 192.0.2.2 ── 192.0.2.1 router 203.0.113.254 ── 203.0.113.1 server
//! 10.1.0.1                      (masquerade)                     10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::capture::{Packet, Record};
use epochgate_integration::peer::{
    client_config, client_config_between, server_config, server_config_between,
};
use epochgate_integration::topology::{
    CLIENT_INNER, ROUTER, SERVER, SERVER_INNER, SERVER_NET, SERVER_V6,
};
use epochgate_integration::{Account, Epochgate, Topology, UdpFlow, Watch};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(20);
const ENDLESS: u64 = 1_000_000;
/// Another address of the router towards the server.
const ROUTER_SECOND: &str = "203.0.113.253";

/// All that was sent arrived once.
#[track_caller]
fn assert_complete(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

fn open(epochgate: &Epochgate) -> Value {
    epochgate.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

fn upward(net: &Topology, port: u16) -> UdpFlow {
    let from = (&net.client, CLIENT_INNER);
    UdpFlow::new(from, (&net.server, SERVER_INNER), port)
}

fn downward(net: &Topology, port: u16) -> UdpFlow {
    let from = (&net.server, SERVER_INNER);
    UdpFlow::new(from, (&net.client, CLIENT_INNER), port)
}

/// Lets the router forget every mapping and give the client another address and port.
///
/// The rules are exchanged in one step: a namespace without a rule that needs conntrack passes
/// packets by it (`nf_ct_netns_put`), and a mapping of untranslated addresses would stay for good.
fn remap(net: &Topology) {
    let iface = net.to_server.name();
    net.router
        .run(&format!("ip address add {ROUTER_SECOND}/24 dev {iface}"));
    net.router.nft(&format!(
        "flush chain ip nat post\n\
         table ip nat {{\nchain post {{\n\
         oifname \"{iface}\" meta l4proto udp snat to {ROUTER_SECOND}:30000-30100\n}}\n}}\n"
    ));
    net.router.forget_connections();
}

#[test]
fn a_server_follows_its_client_to_a_new_mapping_and_nothing_is_rekeyed() {
    let net = Topology::new("remapped").masquerade().build();
    let watch = Watch::start(&net);
    // Not because of an idle tunnel's pings, but because of its traffic.
    let server = Epochgate::start(
        &net.server,
        &server_config("[tunnel.net.ping]\nidle = \"1m\""),
    );
    let client = Epochgate::start(
        &net.client,
        &client_config("[tunnel.net.ping]\nidle = \"1m\""),
    );
    client.run(&["up", "net"]);
    open(&server);
    let up = upward(&net, 4000).count(ENDLESS).start();
    let down = downward(&net, 4001).count(ENDLESS).start();
    sleep(Duration::from_millis(500));
    remap(&net);
    let moved = |epochgate: &Epochgate| {
        epochgate.wait_for("net", LIMIT, |tunnel| {
            tunnel["ike"][0]["remote"]
                .as_str()
                .is_some_and(|remote| remote.starts_with(ROUTER_SECOND))
        })
    };
    let status = moved(&server);
    assert_eq!(status["gate"], "open");
    assert_eq!(status["switches"], 1, "the epoch stayed the same");
    let later = downward(&net, 4002).count(500).start();
    sleep(Duration::from_millis(500));
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    println!("up, across the change: {up}\ndown, across the change: {down}");
    assert_eq!((up.duplicated(), down.duplicated()), (0, 0));
    // The SA is away for the moment between its deletion and its addition.
    assert!(up.lost().len() <= 50, "{up}");
    assert_complete("down, after the change", &later.finish(SETTLE));
    assert_eq!(open(&client)["switches"], 1);
    let judged = watch.judge();
    let spis: std::collections::BTreeSet<u32> = judged
        .server
        .sent()
        .filter_map(|entry| match entry.packet {
            Packet::Esp { spi, dst, .. } if dst == address(ROUTER_SECOND) => Some(spi),
            _ => None,
        })
        .collect();
    assert_eq!(spis.len(), 1, "one outbound SPI, sent to the new mapping");
}

/// UDP datagrams from one address to another that carry one octet 0xff, on port 4500.
fn keepalives(records: &[Record], from: &str, to: &str) -> usize {
    const ETHERNET: usize = 14;
    const IPV4: usize = 20;
    const UDP: usize = 8;
    let octets = |address: &str| {
        let address: Ipv4Addr = address.parse().expect("an IPv4 address");
        address.octets()
    };
    let is_keepalive = |record: &&Record| {
        let Some(ip) = record.frame().get(ETHERNET..) else {
            return false;
        };
        ip.len() > IPV4 + UDP
            && ip[9] == 17
            && ip[12..16] == octets(from)
            && ip[16..20] == octets(to)
            && ip[IPV4 + 4..IPV4 + 6] == [0, 9]
            && ip[IPV4 + UDP] == 0xff
    };
    records.iter().filter(is_keepalive).count()
}

#[test]
fn an_idle_client_behind_a_nat_sends_keepalives_and_its_server_none() {
    let net = Topology::new("keepalives").masquerade().build();
    let quiet = "[tunnel.net.path]\nnat-keepalive = \"1s\"\n[tunnel.net.ping]\nidle = \"1h\"";
    let server = Epochgate::start(&net.server, &server_config(quiet));
    let client = Epochgate::start(&net.client, &client_config(quiet));
    client.run(&["up", "net"]);
    open(&server);
    let wire = net.capture_server();
    let seen = |record: &Record| keepalives(std::slice::from_ref(record), ROUTER, SERVER) == 1;
    wire.wait_for(LIMIT, seen).expect("a keepalive");
    // With traffic there is no need of any.
    let busy = upward(&net, 4000).count(ENDLESS).start();
    sleep(Duration::from_millis(1200));
    let before = keepalives(&wire.so_far(), ROUTER, SERVER);
    sleep(Duration::from_secs(4));
    let after = keepalives(&wire.so_far(), ROUTER, SERVER);
    assert_complete("up", &busy.stop(SETTLE));
    assert_eq!(before, after, "while ESP passes the NAT");
    let records = wire.stop();
    assert_eq!(keepalives(&records, SERVER, ROUTER), 0);
    assert_eq!(open(&client)["switches"], 1);
}

#[test]
fn without_a_nat_there_are_no_keepalives() {
    let net = Topology::new("no_keepalives").build();
    let quiet = "[tunnel.net.path]\nnat-keepalive = \"1s\"\n[tunnel.net.ping]\nidle = \"1h\"";
    let server = Epochgate::start(&net.server, &server_config(quiet));
    let client = Epochgate::start(&net.client, &client_config(quiet));
    let wire = net.capture_client();
    client.run(&["up", "net"]);
    open(&server);
    sleep(Duration::from_secs(3));
    let records = wire.stop();
    assert!(
        records
            .iter()
            .any(|it| matches!(it.packet(), Packet::Esp { udp: false, .. })),
        "the control pings went in plain ESP"
    );
    for (from, to) in [("192.0.2.2", SERVER), (SERVER, "192.0.2.2")] {
        assert_eq!(keepalives(&records, from, to), 0);
    }
}

/// Masquerades IPv6 as well.
fn masquerade_v6(net: &Topology) {
    let iface = net.to_server.name();
    net.router.nft(&format!(
        "table ip6 nat {{\nchain post {{\ntype nat hook postrouting priority srcnat;\n\
         oifname \"{iface}\" masquerade\n}}\n}}\n"
    ));
}

#[test]
fn a_nat_between_ipv6_addresses_is_found_and_esp_goes_through_it_in_udp() {
    let net = Topology::new("nat66").build();
    masquerade_v6(&net);
    let over_v6 = |config: String| config.replace(SERVER, SERVER_V6);
    let _server = Epochgate::start(&net.server, &over_v6(server_config("")));
    let client = Epochgate::start(&net.client, &over_v6(client_config("")));
    let wire = net.capture_server();
    client.run(&["up", "net"]);
    open(&client);
    assert_complete("up", &upward(&net, 4000).count(100).start().finish(SETTLE));
    assert_complete(
        "down",
        &downward(&net, 4001).count(100).start().finish(SETTLE),
    );
    let records = wire.stop();
    let esp: Vec<bool> = records
        .iter()
        .filter_map(|record| match record.packet() {
            Packet::Esp { udp, src, .. } => Some(udp && src.is_ipv6()),
            _ => None,
        })
        .collect();
    assert!(
        esp.len() >= 200 && esp.iter().all(|in_udp| *in_udp),
        "{}",
        esp.len()
    );
}

#[test]
fn long_ike_messages_go_in_fragments_that_ip_need_not_make() {
    let net = Topology::new("fragments").build();
    // 40 networks make an IKE_AUTH of more than 576 octets.
    let networks: Vec<String> = (0..40).map(|n| format!("10.1.{n}.0/24")).collect();
    let local: Vec<&str> = networks.iter().map(String::as_str).collect();
    let small = "[tunnel.net.path]\nfragment-size = 576\n";
    let server = server_config_between(&[SERVER_NET], &local, small);
    let _server = Epochgate::start(&net.server, &server);
    let client = client_config_between(&local, &[SERVER_NET], small);
    let client = Epochgate::start(&net.client, &client);
    let wire = net.capture_client();
    client.run(&["up", "net"]);
    open(&client);
    assert_complete("up", &upward(&net, 4000).count(100).start().finish(SETTLE));
    const ETHERNET: usize = 14;
    const IKE_AUTH: u8 = 35;
    let records = wire.stop();
    let auth: Vec<usize> = records
        .iter()
        .filter(|record| {
            matches!(
                record.packet(),
                Packet::Ike {
                    exchange: IKE_AUTH,
                    response: false,
                    ..
                }
            )
        })
        .map(|record| record.frame().len() - ETHERNET)
        .collect();
    assert!(auth.len() > 1, "fragments: {auth:?}");
    assert!(auth.iter().all(|octets| *octets <= 576), "{auth:?}");
}
