//! A strongSwan at the other end: what we send is held, proven and never in clear, although the
//! peer knows nothing of that.
//!
//! ```text
//! client ─────── router (masquerades, or not) ─────── server        50 ms round trip
//! 10.1.0.1                                          10.2.0.1
//! ```
//!
//! Either end is epochgate and the other strongSwan, as docs/strongswan.md configures them.
#![cfg(feature = "kernel")]

use epochgate_integration::capture::Packet;
use epochgate_integration::manual::{changed, sample};
use epochgate_integration::peer::is_open;
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::{Account, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(50);
const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(15);

fn network(name: &str, nat: bool) -> Topology {
    let plan = Topology::new(name).round_trip(ROUND_TRIP);
    if nat { plan.masquerade() } else { plan }.build()
}

fn protected() -> Selectors {
    Selectors::new(CLIENT_NET, SERVER_NET)
}

fn from_client(net: &Topology, port: u16) -> UdpFlow {
    UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        port,
    )
}

fn from_server(net: &Topology, port: u16) -> UdpFlow {
    UdpFlow::new(
        (&net.server, SERVER_INNER),
        (&net.client, CLIENT_INNER),
        port,
    )
}

/// All was delivered, once; after the switch a live packet may have overtaken held ones.
#[track_caller]
fn assert_all_delivered(account: &Account) {
    assert!(account.refused.is_empty(), "{:?}", account.refused);
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

/// Whether the only epoch of the tunnel is in UDP.
fn in_udp(tunnel: &Value) -> bool {
    let epochs = tunnel["epochs"].as_array().expect("epochs");
    assert_eq!(epochs.len(), 1, "{tunnel:#}");
    epochs[0]["udp_encapsulated"].as_bool().expect("a flag")
}

#[test]
fn traffic_to_a_strongswan_server_waits_for_the_proof() {
    a_cold_tunnel_to_strongswan("to_strongswan", false);
}

#[test]
fn traffic_to_a_strongswan_server_waits_for_the_proof_behind_nat() {
    a_cold_tunnel_to_strongswan("to_strongswan_nat", true);
}

fn a_cold_tunnel_to_strongswan(name: &str, nat: bool) {
    let net = network(name, nat);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, _server) = net.with_strongswan_server();

    let sent = from_client(&net, 4000).start().finish(SETTLE);
    println!("client, NAT {nat}: {sent}");
    assert_all_delivered(&sent);
    from_server(&net, 4001)
        .count(20)
        .start()
        .finish(SETTLE)
        .assert_perfect();
    let tunnel = client.wait_for("branch", LIMIT, is_open);
    assert_eq!(in_udp(&tunnel), nat);

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let used = audit::nothing_before_proof(&trace).expect("held until proven");
    assert_eq!(used.len(), 1);
    assert_eq!(audit::carried(&trace, 4000).len(), 100);
    // IKE_SA_INIT and IKE_AUTH.
    assert_eq!(audit::exchanges(&trace), [(34, 1), (35, 1)]);
}

#[test]
fn traffic_to_a_strongswan_client_waits_for_its_answer() {
    a_tunnel_that_strongswan_starts("from_strongswan", false);
}

#[test]
fn traffic_to_a_strongswan_client_waits_for_its_answer_behind_nat() {
    a_tunnel_that_strongswan_starts("from_strongswan_nat", true);
}

fn a_tunnel_that_strongswan_starts(name: &str, nat: bool) {
    let net = network(name, nat);
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let server = net.documented_server(&sample("epochgate-server"));

    // Nobody is there yet: the kernel holds it.
    let early = from_server(&net, 4001).count(50).start();
    while early.sent() < 50 {
        thread::sleep(Duration::from_millis(20));
    }
    let _client = StrongSwan::start(&net.client, &sample("swanctl-client"));
    let tunnel = server.wait_for("branch", LIMIT, is_open);
    assert_eq!(in_udp(&tunnel), nat);
    let early = early.finish(SETTLE);
    println!("server, NAT {nat}: {early}");
    early.assert_perfect();
    from_client(&net, 4000)
        .count(20)
        .start()
        .finish(SETTLE)
        .assert_perfect();

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let pairs = keys.pairs(SERVER.parse().expect("an address"));
    assert_eq!(
        audit::server_waits_or_pings(&trace, &pairs).expect("held"),
        1
    );
    assert_eq!(audit::exchanges(&trace), [(34, 1), (35, 1)]);
}

#[test]
fn without_anything_to_ping_the_tunnel_stays_held_and_says_what_to_set() {
    let net = network("nothing_to_ping", false);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = StrongSwan::start(&net.server, &sample("swanctl-server"));
    let config = changed(&sample("epochgate-client"), "target  = \"10.2.0.1\"\n", "");
    let client = net.documented_client(&config);

    let held = from_client(&net, 4000).count(20).start();
    let up = client.command(&["up", "branch"]);
    assert_eq!(up.status.code(), Some(1), "not when its time is over");
    let tunnel = client.wait_for("branch", LIMIT, |tunnel| {
        let reason = tunnel["reason"].as_str().unwrap_or_default();
        reason.contains("set `ping.target`")
    });
    assert_eq!(tunnel["gate"], "held");
    assert_eq!(server.installed(), 1);
    // It waits: nothing is torn down or begun anew meanwhile.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(held.arrived(), 0);
    let tunnel = client.wait_for("branch", LIMIT, |_| true);
    assert_eq!(tunnel["gate"], "held");
    let reason = tunnel["reason"].as_str().expect("a reason");
    println!("status: {reason}");
    let up = client.command(&["up", "branch"]);
    assert_eq!(up.status.code(), Some(1), "not when its time is over");
    let said = String::from_utf8_lossy(&up.stderr);
    assert_eq!(said.trim_end(), format!("tunnel branch: {reason}"));

    // Told what to ping, it opens without losing what it held.
    client.rewrite_config(&sample("epochgate-client"));
    client.run(&["reload"]);
    from_client(&net, 4002)
        .count(1)
        .start()
        .finish(SETTLE)
        .assert_perfect();
    held.finish(SETTLE).assert_perfect();

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    audit::nothing_before_proof(&trace).expect("held until proven");
}

#[test]
fn a_server_without_anything_to_ping_opens_when_strongswan_sends() {
    let net = network("silent_server", false);
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let config = changed(&sample("epochgate-server"), "target  = \"10.1.0.1\"\n", "");
    let server = net.documented_server(&config);
    let client = StrongSwan::start(&net.client, &sample("swanctl-client"));
    let held = from_server(&net, 4001).count(20).start();
    let tunnel = server.wait_for("branch", LIMIT, |tunnel| {
        let reason = tunnel["reason"].as_str().unwrap_or_default();
        reason.contains("`ping.target`")
    });
    println!("status: {}", tunnel["reason"]);
    assert_eq!(client.installed(), 1);
    assert_eq!(held.arrived(), 0);

    from_client(&net, 4000)
        .count(5)
        .start()
        .finish(SETTLE)
        .assert_perfect();
    held.finish(SETTLE).assert_perfect();
    server.wait_for("branch", LIMIT, is_open);

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let pairs = keys.pairs(SERVER.parse().expect("an address"));
    assert_eq!(audit::server_waits(&trace, &pairs).expect("held"), 1);
}

#[test]
fn strongswans_liveness_checks_are_answered() {
    let net = network("liveness", true);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let config = changed(
        &sample("swanctl-server"),
        "dpd_delay = 30s",
        "dpd_delay = 1s",
    );
    let server = StrongSwan::start(&net.server, &config);
    let client = net.documented_client(&sample("epochgate-client"));
    client.run(&["up", "branch"]);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(server.installed(), 1);
    assert!(!server.log().contains("retransmit"), "{}", server.log());

    let trace = Trace::of(wire.stop(), &keys);
    let informational = |wanted: bool| -> BTreeSet<u32> {
        let ids = trace.entries.iter().filter_map(|entry| match entry.packet {
            Packet::Ike {
                exchange: 37,
                message_id,
                response,
                ..
            } if response == wanted && entry.sent == wanted => Some(message_id),
            _ => None,
        });
        ids.collect()
    };
    let (asked, answered) = (informational(false), informational(true));
    println!(
        "liveness checks: {} asked, {} answered",
        asked.len(),
        answered.len()
    );
    assert!(asked.len() >= 3, "{asked:?}");
    assert_eq!(asked, answered);
}
