//! Addresses that change under a tunnel (MOBIKE, RFC 4555), with real addresses on a real kernel.
//!
//! ```text
//! client 192.0.2.2, then 192.0.2.3 ── router ── 203.0.113.1 server
//! 10.1.0.1                                                10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::capture::Packet;
use epochgate_integration::manual::sample;
use epochgate_integration::peer::{client_config, is_open, server_config};
use epochgate_integration::topology::{
    CLIENT, CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET,
};
use epochgate_integration::{
    Account, Epochgate, Selectors, StrongSwan, Topology, Trace, UdpFlow, Watch, audit,
};
use serde_json::Value;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(30);
const ENDLESS: u64 = 1_000_000;
/// Where the client goes.
const ELSEWHERE: &str = "192.0.2.3";

/// Whether this end of its newest IKE SA has this address.
fn is_at<'a>(end: &'a str, address: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |tunnel| {
        let text = tunnel["ike"][0][end].as_str().unwrap_or_default();
        is_open(tunnel) && text.starts_with(address)
    }
}

fn upward(net: &Topology, port: u16) -> UdpFlow {
    let from = (&net.client, CLIENT_INNER);
    UdpFlow::new(from, (&net.server, SERVER_INNER), port)
}

fn downward(net: &Topology, port: u16) -> UdpFlow {
    let from = (&net.server, SERVER_INNER);
    UdpFlow::new(from, (&net.client, CLIENT_INNER), port)
}

/// Takes the client's address away and gives it another one, as DHCP in another network does.
fn readdress(net: &Topology) {
    let route = net.client.run(&format!("ip -o route get {SERVER}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
    let dev = words.nth(1).expect("an interface").to_owned();
    net.client.ip_batch(&format!(
        "address del {CLIENT}/24 dev {dev}\n\
         address add {ELSEWHERE}/24 dev {dev}\n\
         route replace default via 192.0.2.1\n"
    ));
}

/// What was lost was under way, or left before the gate had closed.
#[track_caller]
fn assert_nearly_all(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert_eq!(account.duplicated(), 0, "{account}");
    assert!(account.lost().len() <= 60, "{account}");
}

#[track_caller]
fn assert_complete(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
}

#[test]
fn a_client_with_another_address_goes_on_with_the_same_epoch() {
    let net = Topology::new("readdressed").build();
    let watch = Watch::start(&net);
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(""));
    client.run(&["up", "net"]);
    server.wait_for("net", LIMIT, is_open);
    let before = client.wait_for("net", LIMIT, is_open);
    let up = upward(&net, 4000).rate(50).count(ENDLESS).start();
    let down = downward(&net, 4001).rate(50).count(ENDLESS).start();
    sleep(Duration::from_millis(500));
    readdress(&net);
    client.wait_for("net", LIMIT, is_at("local", ELSEWHERE));
    server.wait_for("net", LIMIT, is_at("remote", ELSEWHERE));
    let later = downward(&net, 4002).count(200).start();
    sleep(Duration::from_secs(1));
    assert_nearly_all("up, across the move", &up.stop(SETTLE));
    assert_nearly_all("down, across the move", &down.stop(SETTLE));
    assert_complete("down, after the move", &later.finish(SETTLE));
    let after = client.wait_for("net", LIMIT, is_open);
    assert_eq!(
        before["open_epoch"], after["open_epoch"],
        "nothing was rekeyed"
    );
    let judged = watch.judge();
    let spis: std::collections::BTreeSet<u32> = judged
        .client
        .sent()
        .filter_map(|entry| match entry.packet {
            Packet::Esp { spi, src, .. } if src == address(ELSEWHERE) => Some(spi),
            _ => None,
        })
        .collect();
    assert_eq!(spis.len(), 1);
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

fn protected() -> Selectors {
    Selectors::new(CLIENT_NET, SERVER_NET)
}

#[test]
fn a_strongswan_server_follows_a_client_to_another_address() {
    let net = Topology::new("readdressed_to_strongswan").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = StrongSwan::start(&net.server, &sample("swanctl-server"));
    let client = net.documented_client(&sample("epochgate-client"));
    let up = upward(&net, 4000).rate(50).count(ENDLESS).start();
    let before = client.wait_for("branch", LIMIT, is_open);
    sleep(Duration::from_millis(500));
    readdress(&net);
    let after = client.wait_for("branch", LIMIT, is_at("local", ELSEWHERE));
    assert_eq!(
        before["open_epoch"], after["open_epoch"],
        "nothing was rekeyed"
    );
    let down = downward(&net, 4001).count(200).start();
    sleep(Duration::from_secs(1));
    assert_nearly_all("up, across the move", &up.stop(SETTLE));
    assert_complete("down, after the move", &down.finish(SETTLE));
    assert!(server.sas().contains(ELSEWHERE), "{}", server.sas());
    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    audit::nothing_before_proof(&trace).expect("held until proven");
}

#[test]
fn a_strongswan_client_that_moves_is_followed() {
    let net = Topology::new("readdressed_strongswan").build();
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let server = net.documented_server(&sample("epochgate-server"));
    let _client = StrongSwan::start(&net.client, &sample("swanctl-client"));
    let before = server.wait_for("branch", LIMIT, is_open);
    let up = upward(&net, 4000).rate(50).count(ENDLESS).start();
    sleep(Duration::from_millis(500));
    readdress(&net);
    let after = server.wait_for("branch", LIMIT, is_at("remote", ELSEWHERE));
    assert_eq!(
        before["open_epoch"], after["open_epoch"],
        "nothing was rekeyed"
    );
    let down = downward(&net, 4001).count(200).start();
    sleep(Duration::from_secs(1));
    println!("up, across the move: {}", up.stop(SETTLE));
    assert_complete("down, after the move", &down.finish(SETTLE));
    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
}
