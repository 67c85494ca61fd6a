//! Several clients behind one NAT with VPN Masquerade send plain ESP to one server. All tunnels
//! come up although the NAT has to guess, and nobody gets what is another's.
//!
//! ```text
//! client0 192.0.2.2 ─┐
//! client1 192.0.2.6 ─┤ router (VPN Masquerade) 203.0.113.254 ── 203.0.113.1 server
//! …                  ┘                                20 ms round trip
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::office::{Desk, OfficeTraces};
use epochgate_integration::peer::{PSK, SERVER_ID, is_open};
use epochgate_integration::topology::{SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{
    Account, Epochgate, Office, Packet, Packets, StrongSwan, UdpFlow, audit,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(3);
/// How long a tunnel may take on a slow one-CPU guest; what it took is printed.
const LIMIT: Duration = Duration::from_secs(60);
/// Traffic of client N goes to port `UP + N` of the server, and comes to port `DOWN + N`.
const UP: u16 = 4000;
const DOWN: u16 = 5000;
/// What is sent each way by each client: packets, and how many of them a second.
const COUNT: u64 = 50;
const PER_SECOND: u32 = 50;

/// Begins all tunnels at one instant. Returns how long each took until its gate was open.
fn all_at_once(clients: &[Epochgate]) -> Vec<Duration> {
    let line = Barrier::new(clients.len());
    thread::scope(|scope| {
        let runners: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(|| {
                    line.wait();
                    let began = Instant::now();
                    // It fails if the first attempt does; the tunnel goes on by itself.
                    client.command(&["up", "net"]);
                    client.wait_for("net", LIMIT, is_open);
                    began.elapsed()
                })
            })
            .collect();
        let times = runners
            .into_iter()
            .map(|runner| runner.join().expect("an open tunnel"));
        times.collect()
    })
}

/// Traffic of all clients at once, both ways.
fn talk(net: &Office) -> Vec<(Account, Account)> {
    let inner: Vec<String> = net
        .clients
        .iter()
        .map(|desk| desk.inner.to_string())
        .collect();
    let flows: Vec<_> = (net.clients.iter().zip(&inner).zip(0..))
        .map(|((desk, inner), number)| {
            let client = (&desk.host, inner.as_str());
            let server = (&net.server, SERVER_INNER);
            let up = UdpFlow::new(client, server, UP + number).rate(PER_SECOND);
            let down = UdpFlow::new(server, client, DOWN + number).rate(PER_SECOND);
            (up.count(COUNT).start(), down.count(COUNT).start())
        })
        .collect();
    let finish = |(up, down): (RunningFlow, RunningFlow)| (up.finish(SETTLE), down.finish(SETTLE));
    flows.into_iter().map(finish).collect()
}

/// Everybody got all of their own traffic and nothing else.
#[track_caller]
fn assert_each_its_own(traces: &OfficeTraces, clients: &[Desk]) {
    for ((trace, desk), number) in traces.clients.iter().zip(clients).zip(0..) {
        let own = audit::nothing_of_others(trace).expect("nothing but its own");
        println!("{}: got {own} ESP packets, all its own", desk.name());
        assert!(own as u64 > COUNT, "its traffic and the answer to a ping");
        let up = audit::carried(trace, UP + number).len() as u64;
        assert_eq!(up, COUNT, "{}", desk.name());
    }
}

#[test]
fn two_clients_that_start_at_the_same_instant_are_both_proven() {
    clients_that_start_at_the_same_instant("masquerade_two", 2);
}

#[test]
fn eight_clients_that_start_at_the_same_instant_are_all_proven() {
    clients_that_start_at_the_same_instant("masquerade_eight", 8);
}

fn clients_that_start_at_the_same_instant(name: &str, count: usize) {
    let net = Office::new(name)
        .clients(count)
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let _server = Epochgate::start(&net.server, &net.server_config(""));
    let clients: Vec<Epochgate> = net
        .clients
        .iter()
        .map(|desk| Epochgate::start(&desk.host, &desk.config("")))
        .collect();

    let times = all_at_once(&clients);
    println!("{count} clients, open after {times:?}");
    for (up, down) in talk(&net) {
        up.assert_perfect();
        down.assert_perfect();
    }
    let counters = net.nat.counters();
    println!("{counters:?}");
    assert!(counters.nat.tied >= count as u64);
    assert_eq!(counters.unreadable, 0);

    let traces = watch.judge();
    assert_each_its_own(&traces, &net.clients);
    let encapsulated = traces
        .server
        .entries
        .iter()
        .any(|entry| matches!(entry.packet, Packet::Esp { udp: true, .. }));
    assert!(!encapsulated, "plain ESP");
}

/// The inbound SPI that all clients choose for their first epoch.
const COLLIDING_SPI: u32 = 0x0c01_11de;

#[test]
fn a_second_client_that_chose_the_same_inbound_spi_is_refused_and_comes_back_with_another() {
    clients_that_chose_the_same_inbound_spi("masquerade_collision", 2);
}

#[test]
fn seven_of_eight_clients_that_chose_the_same_inbound_spi_come_back_with_others() {
    clients_that_chose_the_same_inbound_spi("masquerade_collisions", 8);
}

fn clients_that_chose_the_same_inbound_spi(name: &str, count: usize) {
    let net = Office::new(name)
        .clients(count)
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let server = Epochgate::start(&net.server, &net.server_config(""));
    let clients: Vec<Epochgate> = net
        .clients
        .iter()
        .map(|desk| Epochgate::start_with_spis(&desk.host, &desk.config(""), &[COLLIDING_SPI]))
        .collect();

    let times = all_at_once(&clients);
    println!("{count} clients, one SPI: open after {times:?}");
    let spis: Vec<Vec<u32>> = (net.clients.iter().enumerate())
        .map(|(number, desk)| watch.inbound_spis(number, desk.address))
        .collect();
    let colliding = spis.iter().flatten().filter(|spi| **spi == COLLIDING_SPI);
    assert_eq!(colliding.count(), 1, "one client has it: {spis:x?}");
    let refusals = server
        .log()
        .matches("an SPI that another SA of this kernel has")
        .count();
    assert_eq!(refusals, count - 1, "the server's kernel holds one");
    // How a client words TEMPORARY_FAILURE.
    let busy = clients
        .iter()
        .filter(|client| client.log().contains("busy"));
    assert_eq!(busy.count(), count - 1, "the others were told to try again");

    for (up, down) in talk(&net) {
        up.assert_perfect();
        down.assert_perfect();
    }
    let traces = watch.judge_with_refusals(&server);
    assert_each_its_own(&traces, &net.clients);
}

/// A client cannot know that a NAT kept it out; lost pings look the same.
#[test]
fn a_client_that_was_kept_out_makes_a_child_sa_from_which_its_server_parts() {
    const LOST: u32 = 3;
    let net = Office::new("masquerade_untied")
        .clients(1)
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let server = Epochgate::start(&net.server, &net.server_config(""));
    // So many that the epoch is not given up before one is answered.
    let patient = "[tunnel.net.ping]\nidle = \"1s\"\nattempts = 20";
    let client = Epochgate::start(&net.clients[0].host, &net.clients[0].config(patient));
    client.run(&["up", "net"]);
    client.wait_for("net", LIMIT, is_open);
    server.wait_for("client0", LIMIT, is_open);
    let to_server = SERVER.parse().expect("an IP address");
    let fault = net
        .server
        .drop_packets(&Packets::esp().to(to_server).first(LOST));
    let untying = "a NAT seems to have kept this client out";
    client.wait_for("net", LIMIT, |_| client.log().contains(untying));
    fault.lift();
    let parted =
        |tunnel: &Value| is_open(tunnel) && tunnel["epochs"].as_array().map(Vec::len) == Some(1);
    let status = client.wait_for("net", LIMIT, is_open);
    assert_eq!(status["open_epoch"], 1, "{status:#}");
    for (up, down) in talk(&net) {
        up.assert_perfect();
        down.assert_perfect();
    }
    let status = server.wait_for("client0", LIMIT, parted);
    assert_eq!(status["open_epoch"], 1, "{status:#}");
    println!("{:?}", net.nat.counters());

    // It says too that the server sent one ping, and nothing else, on what it parted from.
    let traces = watch.judge();
    let mut sent: BTreeMap<u32, usize> = BTreeMap::new();
    for entry in traces.server.sent() {
        if let Packet::Esp { spi, .. } = entry.packet {
            *sent.entry(spi).or_default() += 1;
        }
    }
    println!("ESP that the server sent, by SPI: {sent:x?}");
    assert_eq!(sent.len(), 2);
    assert_eq!(sent.values().min(), Some(&1));
}

/// A strongSwan for two clients that keeps their outbound SAs apart by marks, so that its kernel
/// holds two with the same destination and SPI.
fn strongswan_with_marks(net: &Office) -> StrongSwan {
    let mut marks = String::new();
    let mut connections = String::new();
    for (desk, mark) in net.clients.iter().zip(1..) {
        let (name, id, network) = (desk.name(), desk.id(), desk.network());
        marks += &format!("ip daddr {network} meta mark set {mark}\n");
        connections += &format!(
            "{name} {{
                version = 2
                local_addrs = {SERVER}
                local {{
                    auth = psk
                    id = {SERVER_ID}
                }}
                remote {{
                    auth = psk
                    id = {id}
                }}
                children {{
                    {name} {{
                        local_ts = {SERVER_NET}
                        remote_ts = {network}
                        mark_out = {mark}
                    }}
                }}
            }}\n"
        );
    }
    net.server.nft(&format!(
        "table ip marks {{\nchain out {{\ntype route hook output priority mangle;\n{marks}}}\n}}\n"
    ));
    let secrets = format!("secrets {{\nike-all {{\nsecret = \"{PSK}\"\n}}\n}}\n");
    StrongSwan::start(
        &net.server,
        &format!("connections {{\n{connections}}}\n{secrets}"),
    )
}

#[test]
fn where_both_colliding_sas_exist_the_second_client_rekeys_until_the_nat_is_right() {
    let net = Office::new("masquerade_marks")
        .round_trip(ROUND_TRIP)
        .build();
    let watch = net.watch();
    let _server = strongswan_with_marks(&net);
    let ping = format!("[tunnel.NAME.ping]\ntarget = \"{SERVER_INNER}\"");
    let clients: Vec<Epochgate> = net
        .clients
        .iter()
        .map(|desk| Epochgate::start_with_spis(&desk.host, &desk.config(&ping), &[COLLIDING_SPI]))
        .collect();

    for (client, desk) in clients.iter().zip(&net.clients) {
        let began = Instant::now();
        client.command(&["up", "net"]);
        client.wait_for("net", LIMIT, is_open);
        println!("{}: open after {:?}", desk.name(), began.elapsed());
    }
    for (up, down) in talk(&net) {
        up.assert_perfect();
        down.assert_perfect();
    }
    println!("{:?}", net.nat.counters());
    let misdelivered = watch.judge_beside_server().misdelivered();
    println!("{misdelivered:?} ESP packets went to the wrong client");
    assert!(
        misdelivered[0] > 0,
        "the NAT took them for the first client's"
    );
    assert_eq!(misdelivered[1], 0);
}
