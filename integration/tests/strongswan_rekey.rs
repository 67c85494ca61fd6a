//! Rekeys between epochgate and strongSwan, started by either, under traffic.
//!
//! ```text
//! client ─────── router (masquerades, or not) ─────── server        50 ms round trip
//! 10.1.0.1                                          10.2.0.1
//! ```
//!
//! As responder of a rekey strongSwan sends over its old SA until that is deleted; as initiator
//! it deletes the old one at once. Neither may cost a packet of ours, or send one unproven.
#![cfg(feature = "kernel")]

use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::{
    Account, Epochgate, Packet, Selectors, Topology, Trace, UdpFlow, audit,
};
use serde_json::Value;
use std::thread;
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(50);
const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
/// A second CPU may use the old bundle for a moment after the switch.
const GRACE: Duration = Duration::from_millis(10);
/// Packets per second: the kernel's 101 held ones last for two seconds, on however slow a machine.
const RATE: u32 = 50;
/// Default of `ping.attempts`.
const ATTEMPTS: usize = 4;

fn network(name: &str, nat: bool) -> Topology {
    let plan = Topology::new(name).round_trip(ROUND_TRIP);
    if nat { plan.masquerade() } else { plan }.build()
}

fn protected() -> Selectors {
    Selectors::new(CLIENT_NET, SERVER_NET)
}

fn from_client(net: &Topology) -> UdpFlow {
    let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    UdpFlow::new(ends.0, ends.1, 4000).rate(RATE).count(100_000)
}

fn from_server(net: &Topology) -> UdpFlow {
    let ends = ((&net.server, SERVER_INNER), (&net.client, CLIENT_INNER));
    UdpFlow::new(ends.0, ends.1, 4001).rate(RATE).count(100_000)
}

#[track_caller]
fn assert_all_delivered(account: &Account) {
    assert!(account.refused.is_empty(), "{:?}", account.refused);
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

/// Waits until the open epoch is a later one than `before`, and the only one; returns it.
fn settled(daemon: &Epochgate, before: u64) -> u64 {
    let tunnel = daemon.wait_for("branch", LIMIT, |tunnel| {
        let epochs = tunnel["epochs"].as_array().map_or(0, Vec::len);
        tunnel["gate"] == "open" && open_epoch(tunnel) > before && epochs == 1
    });
    open_epoch(&tunnel)
}

fn open_epoch(tunnel: &Value) -> u64 {
    tunnel["open_epoch"].as_u64().unwrap_or_default()
}

/// How many control pings left on this SPI before anything else did.
fn pings_before_traffic(trace: &Trace, spi: u32) -> usize {
    let on_it = trace
        .sent()
        .filter(|entry| matches!(entry.packet, Packet::Esp { spi: on, .. } if on == spi))
        .filter_map(|entry| entry.inner.as_ref());
    on_it
        .take_while(|inner| inner.control_ping().is_some())
        .count()
}

#[test]
fn a_client_and_strongswan_rekey_from_both_sides() {
    a_client_rekeys("client_rekeys", false);
}

#[test]
fn a_client_behind_nat_and_strongswan_rekey_from_both_sides() {
    a_client_rekeys("client_rekeys_nat", true);
}

fn a_client_rekeys(name: &str, nat: bool) {
    let net = network(name, nat);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = net.with_strongswan_server();
    client.run(&["up", "branch"]);
    let there = from_client(&net).start();
    let back = from_server(&net).start();
    let first = settled(&client, 0);

    let began = Instant::now();
    client.run(&["rekey", "branch"]);
    println!("NAT {nat}: our rekey switched after {:?}", began.elapsed());
    let second = settled(&client, first);
    let began = Instant::now();
    server.rekey_child("branch");
    let third = settled(&client, second);
    println!(
        "NAT {nat}: strongSwan's rekey was over after {:?}",
        began.elapsed()
    );
    assert_eq!([first, second, third], [1, 2, 3]);
    assert_eq!(server.installed(), 1, "{}", server.sas());

    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("NAT {nat}: client to server {there}");
    println!("NAT {nat}: server to client {back}");
    assert_all_delivered(&there);
    assert_all_delivered(&back);

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let used = audit::nothing_before_proof(&trace).expect("held until proven");
    assert_eq!(used.len(), 3);
    let order = audit::switches_are_clean(&trace, GRACE).expect("clean");
    assert_eq!(order.len(), 3);
    // Of our rekey only the way out was proven, by every ping that we had. Then traffic switched,
    // and perhaps the ping that follows at once was ahead of it.
    let pings = pings_before_traffic(&trace, order[1]);
    assert!((ATTEMPTS..=ATTEMPTS + 1).contains(&pings), "{pings}");
    let log = client.log();
    assert!(log.contains("branch/2: control ping answered"), "{log}");
    assert!(
        log.contains("through another epoch: outbound proven"),
        "{log}"
    );
}

#[test]
fn a_server_and_strongswan_rekey_from_both_sides() {
    a_server_rekeys("server_rekeys", false);
}

#[test]
fn a_server_and_strongswan_behind_nat_rekey_from_both_sides() {
    a_server_rekeys("server_rekeys_nat", true);
}

fn a_server_rekeys(name: &str, nat: bool) {
    let net = network(name, nat);
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let (client, server) = net.with_strongswan_client();
    let first = settled(&server, 0);
    // Only what we send: it must not take strongSwan's traffic for the proof.
    let back = from_server(&net).start();

    let began = Instant::now();
    server.run(&["rekey", "branch"]);
    println!("NAT {nat}: our rekey switched after {:?}", began.elapsed());
    let second = settled(&server, first);
    let there = from_client(&net).start();
    let began = Instant::now();
    client.rekey_child("branch");
    let third = settled(&server, second);
    println!(
        "NAT {nat}: strongSwan's rekey was over after {:?}",
        began.elapsed()
    );
    assert_eq!([first, second, third], [1, 2, 3]);
    assert_eq!(client.installed(), 1, "{}", client.sas());

    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("NAT {nat}: server to client {back}");
    println!("NAT {nat}: client to server {there}");
    assert_all_delivered(&back);
    assert_all_delivered(&there);

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let pairs = keys.pairs(SERVER.parse().expect("an address"));
    let used = audit::server_waits_or_pings(&trace, &pairs).expect("held until it is answered");
    assert_eq!(used, 3);
    assert_eq!(
        audit::switches_are_clean(&trace, GRACE)
            .expect("clean")
            .len(),
        3
    );
}

#[test]
fn after_a_rekey_there_is_quiet() {
    const QUIET: Duration = Duration::from_secs(20);
    let net = network("quiet", true);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = net.with_strongswan_server();
    client.run(&["up", "branch"]);
    client.run(&["rekey", "branch"]);
    settled(&client, 1);
    let flow = from_client(&net).rate(20).start();
    thread::sleep(QUIET);
    let account = flow.stop(SETTLE);
    account.assert_perfect();
    assert_eq!(settled(&client, 1), 2);
    assert_eq!(server.installed(), 1);

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_before_proof(&trace).expect("held until proven");
    let exchanges = audit::exchanges(&trace);
    println!("{QUIET:?} after a rekey: {account}; exchanges {exchanges:?}");
    // IKE_SA_INIT, IKE_AUTH, one CREATE_CHILD_SA, and one INFORMATIONAL, the Delete.
    assert_eq!(exchanges, [(34, 1), (35, 1), (36, 1), (37, 1)]);
}

#[test]
fn rekeys_of_the_ike_sa_by_either_end_cost_no_packet_and_no_epoch() {
    let net = network("ike_rekey", true);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = net.with_strongswan_server();
    client.run(&["up", "branch"]);
    let there = from_client(&net).start();
    let back = from_server(&net).start();
    let first = settled(&client, 0);

    let mut spis = vec![ike_spis(&client)];
    for by_us in [true, false, true, false] {
        if by_us {
            client.run(&["rekey", "branch", "--ike"]);
        } else {
            server.swanctl(&["--rekey", "--ike", "branch"]);
        }
        let before = spis.last().cloned().unwrap_or_default();
        client.wait_for("branch", LIMIT, |tunnel| spis_of(tunnel) != before);
        spis.push(ike_spis(&client));
    }
    println!("IKE SPIs: {spis:?}");
    assert_eq!(settled(&client, 0), first, "the epoch is the same");
    // The IKE SA as it is now serves: either end rekeys the Child SA over it.
    client.run(&["rekey", "branch"]);
    let second = settled(&client, first);
    server.rekey_child("branch");
    settled(&client, second);

    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("client to server {there}\nserver to client {back}");
    assert_all_delivered(&there);
    assert_all_delivered(&back);
    assert_eq!(server.installed(), 1, "{}", server.sas());

    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let used = audit::nothing_before_proof(&trace).expect("held until proven");
    assert_eq!(used.len(), 3, "{used:?}");
}

#[test]
fn a_new_ike_sa_with_strongswan_costs_no_packet() {
    let net = network("reauthentication", true);
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = net.with_strongswan_server();
    client.run(&["up", "branch"]);
    let there = from_client(&net).start();
    let back = from_server(&net).start();
    let first = settled(&client, 0);
    let before = ike_spis(&client);

    client.run(&["rekey", "branch", "--reauthenticate"]);
    settled(&client, first);
    assert_ne!(ike_spis(&client), before);

    let (there, back) = (there.stop(SETTLE), back.stop(SETTLE));
    println!("client to server {there}\nserver to client {back}");
    assert_all_delivered(&there);
    assert_eq!(server.installed(), 1, "{}", server.sas());

    let trace = Trace::of(wire.stop(), &keys);
    let early = before_our_ping_on_the_latest(&trace, 4001);
    let lost = back.lost();
    assert!(
        lost.iter().all(|lost| early.contains(lost)),
        "{back}: {early:?}"
    );
    assert_eq!(back.duplicated(), 0, "{back}");
    audit::nothing_in_clear(&trace, &protected()).expect("all in ESP");
    let used = audit::nothing_before_proof(&trace).expect("held until proven");
    assert_eq!(used.len(), 2, "{used:?}");
}

/// A flow's datagrams that the server sent on its latest outbound SA before our first ping on that
/// epoch was on the wire. strongSwan uses an SA from the moment that it sends its IKE_AUTH response,
/// so that what follows at once can be at the client before the response has been read.
fn before_our_ping_on_the_latest(trace: &Trace, port: u16) -> Vec<u64> {
    let arrivals: Vec<_> = trace
        .received()
        .filter_map(|entry| match entry.packet {
            Packet::Esp { spi, .. } => Some((audit::number_of(entry, port)?, spi, entry.at)),
            _ => None,
        })
        .collect();
    let latest = arrivals.last().map(|(_, spi, _)| *spi);
    let on_latest = arrivals.iter().filter(|(_, spi, _)| Some(*spi) == latest);
    // Each epoch is pinged as soon as it is installed, before anything else leaves on its SPI.
    let last_sent = trace.sent().filter_map(|entry| match entry.packet {
        Packet::Esp { spi, .. } => Some((spi, entry.at)),
        _ => None,
    });
    let last_sent: Vec<_> = last_sent.collect();
    let ours = last_sent.last().map(|(spi, _)| *spi);
    let ping = last_sent.iter().find(|(spi, _)| Some(*spi) == ours);
    on_latest
        .filter(|(_, _, at)| ping.is_some_and(|(_, ping)| at < ping))
        .map(|(number, _, _)| *number)
        .collect()
}

/// Both SPIs of the newest IKE SA.
fn spis_of(tunnel: &Value) -> String {
    let newest = tunnel["ike"].as_array().and_then(|all| all.last());
    newest.map_or_else(String::new, |sa| {
        format!("{} {}", sa["initiator_spi"], sa["responder_spi"])
    })
}

fn ike_spis(daemon: &Epochgate) -> String {
    spis_of(&daemon.wait_for("branch", LIMIT, |_| true))
}
