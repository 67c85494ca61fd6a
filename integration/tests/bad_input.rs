//! What the daemon makes of input that is wrong: configurations, a host that lacks what it needs,
//! and whatever anybody sends to its IKE ports.
//!
//! ```text
//! client ─────── router ─────── server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::capture::Record;
use epochgate_integration::peer::{
    Refusal, built, client_config, daemon_options, policies, server_config,
};
use epochgate_integration::topology::{CLIENT_INNER, SERVER, SERVER_INNER};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Epochgate, Host, Packet, Topology, UdpFlow, Watch};
use etherparse::{SlicedPacket, TransportSlice};
use std::fs;
use std::net::UdpSocket;
use std::process::{Command, Output};
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(10);

/// Datagrams of the storm.
const STORM: usize = 10_000;
/// What the daemon's memory may grow by under it: what its limits allow it to keep.
const GROWTH_MAX_KIB: u64 = 4_096;

fn endless(net: &Topology) -> RunningFlow {
    UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    )
    .rate(200)
    .count(u64::MAX)
    .start()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// A tunnel between two daemons that is open.
fn open(net: &Topology) -> (Epochgate, Epochgate) {
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    for daemon in [&client, &server] {
        daemon.wait_for("net", START_LIMIT, |tunnel| tunnel["gate"] == "open");
    }
    (client, server)
}

/// One mistake of each kind: the good configuration with one text replaced, and what must be said.
const MISTAKES: [(&str, &str, &str, &str); 6] = [
    ("syntax", "[tunnel.net]", "[tunnel.net", "epochgate.toml:1:"),
    ("unknown key", "policy =", "polcy =", "policy"),
    ("wrong type", "role = \"client\"", "role = 7", "role"),
    (
        "wrong value",
        "site-to-site",
        "site-to-sight",
        "site-to-site",
    ),
    ("bad network", "10.2.0.0/16", "10.2.0.1/16", "10.2.0.0/16"),
    (
        "missing file",
        "psk-file = \"psk\"",
        "psk-file = \"nothing\"",
        "nothing",
    ),
];

#[test]
fn each_mistake_in_a_configuration_is_shown_with_its_line_and_ends_with_2() {
    let net = Topology::new("mistakes").build();
    for (kind, right, wrong, said) in MISTAKES {
        let config = client_config("").replacen(right, wrong, 1);
        let Err(Refusal { status, log }) = Epochgate::try_start(&net.client, &config) else {
            panic!("{kind}: the daemon started");
        };
        let file = net.client.folder().join("epochgate.toml");
        let check = net.client.output(
            Command::new(built("epochgate"))
                .arg("check")
                .arg(&file)
                .arg("--policies")
                .arg(policies()),
        );
        println!("{kind}:\n{log}");
        for (who, code, words) in [
            ("epochgated", status.code(), &log),
            ("epochgate check", check.status.code(), &text(&check)),
        ] {
            assert_eq!(code, Some(2), "{kind}: {who}\n{words}");
            for wanted in ["error: ", "epochgate.toml:", "^", said] {
                assert!(
                    words.contains(wanted),
                    "{kind}: {who} says no {wanted}\n{words}"
                );
            }
        }
    }
}

#[test]
fn a_running_daemon_that_is_told_to_reload_a_mistake_keeps_what_it_had() {
    let net = Topology::new("reload_mistake").build();
    let watch = Watch::start(&net);
    let (client, _server) = open(&net);
    let before = client.status()["tunnels"][0]["open_epoch"].clone();
    let flow = endless(&net);
    for (kind, right, wrong, said) in MISTAKES {
        client.rewrite_config(&client_config("start = \"always\"").replacen(right, wrong, 1));
        let reload = client.command(&["reload"]);
        let words = text(&reload);
        assert!(!reload.status.success(), "{kind}: {words}");
        for wanted in ["epochgate.toml:", "^", said] {
            assert!(words.contains(wanted), "{kind}: no {wanted}\n{words}");
        }
    }
    flow.stop(SETTLE).assert_perfect();
    assert_eq!(client.status()["tunnels"][0]["open_epoch"], before);
    watch.judge();
}

#[test]
fn what_the_daemon_lacks_is_said_in_one_sentence() {
    let net = Topology::new("lacks").build();
    let host = &net.client;
    let taken = host
        .within(|| UdpSocket::bind("0.0.0.0:500"))
        .expect("the port");
    let refusal = refused(host);
    println!("port taken: {}", refusal.log);
    assert_eq!(refusal.status.code(), Some(1), "{}", refusal.log);
    assert!(
        refusal.log.contains("UDP port 500 is taken by"),
        "{}",
        refusal.log
    );
    assert_eq!(refusal.log.lines().count(), 1, "{}", refusal.log);
    drop(taken);

    let first = Epochgate::start(host, &client_config(""));
    let refusal = refused(host);
    // The log is the one that the first has written to before.
    let last = refusal.log.lines().last().unwrap_or_default();
    println!("second instance: {last}");
    assert_eq!(refusal.status.code(), Some(1), "{last}");
    assert!(last.contains("another epochgated runs already"), "{last}");
    assert!(first.stop().success());

    for capability in ["net_admin", "net_raw"] {
        let output = without(host, capability);
        let words = text(&output);
        println!("without {capability}: {words}");
        assert_eq!(output.status.code(), Some(1), "{words}");
        let name = format!("CAP_{}", capability.to_uppercase());
        assert!(words.contains(&name), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}

fn refused(host: &Host) -> Refusal {
    let started = Epochgate::try_start(host, &client_config(""));
    started.expect_err("a refusal")
}

/// Runs the daemon as root without one capability.
fn without(host: &Host, capability: &str) -> Output {
    host.output(
        Command::new("setpriv")
            .arg(format!("--bounding-set=-{capability}"))
            .arg(format!("--inh-caps=-{capability}"))
            .arg(built("epochgated"))
            .args(daemon_options(host)),
    )
}

#[test]
fn ten_thousand_hostile_datagrams_cost_no_packet_and_no_memory() {
    let net = Topology::new("storm").build();
    let watch = Watch::start(&net);
    let wire = net.capture_server();
    let (client, server) = open(&net);
    client.run(&["rekey", "net"]);
    let seeds: Vec<(u16, Vec<u8>)> = wire.stop().iter().filter_map(ike_datagram).collect();
    assert!(
        seeds.len() >= 3,
        "IKE_SA_INIT, IKE_AUTH and CREATE_CHILD_SA: {}",
        seeds.len()
    );

    let flow = endless(&net);
    // Once before, so that buffers that are kept for good are there.
    storm(&net.router, &seeds, 1, STORM / 10);
    let before = Footprint::of(&server);
    storm(&net.router, &seeds, 2, STORM);
    server.run(&["status"]);
    // The daemon takes leave of the command when it gets to it.
    std::thread::sleep(Duration::from_millis(500));
    let after = Footprint::of(&server);
    println!("{STORM} datagrams: {before:?} -> {after:?}");

    flow.stop(SETTLE).assert_perfect();
    for daemon in [&client, &server] {
        assert_eq!(daemon.status()["tunnels"][0]["gate"], "open");
        assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    }
    client.run(&["rekey", "net"]);
    assert_eq!(after.descriptors, before.descriptors);
    let growth = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(growth <= GROWTH_MAX_KIB, "grew by {growth} KiB");
    watch.judge();
}

/// The UDP payload of a captured IKE message to the server, and the port it went to.
fn ike_datagram(record: &Record) -> Option<(u16, Vec<u8>)> {
    let Packet::Ike { dst, .. } = record.packet() else {
        return None;
    };
    if dst.to_string() != SERVER {
        return None;
    }
    match SlicedPacket::from_ethernet(record.frame())
        .ok()?
        .transport?
    {
        TransportSlice::Udp(udp) => Some((udp.destination_port(), udp.payload().to_vec())),
        TransportSlice::Tcp(_)
        | TransportSlice::Icmpv4(_)
        | TransportSlice::Icmpv6(_)
        | TransportSlice::Igmp(_) => None,
    }
}

/// Sends random datagrams and mutations of `seeds` to the server's IKE ports.
fn storm(from: &Host, seeds: &[(u16, Vec<u8>)], seed: u64, count: usize) {
    let socket = from
        .within(|| UdpSocket::bind("203.0.113.254:0"))
        .expect("a port");
    let mut chance = Chance(seed);
    for number in 0..count {
        let (port, datagram) = if number % 4 == 0 {
            let port = if chance.below(2) == 0 { 500 } else { 4500 };
            let length = chance.below(1_400);
            (port, (0..length).map(|_| chance.octet()).collect())
        } else {
            let (port, octets) = &seeds[chance.below(seeds.len())];
            (*port, mutated(octets, &mut chance))
        };
        // An ICMP error of an earlier one may be reported here.
        let _ = socket.send_to(&datagram, (SERVER, port));
        if number % 50 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // What waits in the daemon's sockets is read before anybody measures.
    std::thread::sleep(Duration::from_millis(500));
}

fn mutated(octets: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut datagram = octets.to_vec();
    for _ in 0..=chance.below(4) {
        let place = chance.below(datagram.len().max(1));
        match chance.below(5) {
            0 => datagram.truncate(place),
            1 => datagram.extend((0..chance.below(64)).map(|_| 0xa5)),
            2 => datagram.rotate_left(place),
            _ => {
                if let Some(octet) = datagram.get_mut(place) {
                    *octet ^= chance.octet() | 1;
                }
            }
        }
        if datagram.is_empty() {
            break;
        }
    }
    datagram
}

/// SplitMix64: the same storm in each run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// What a process occupies.
#[derive(Debug)]
struct Footprint {
    resident_kib: u64,
    descriptors: usize,
}

impl Footprint {
    fn of(daemon: &Epochgate) -> Self {
        let folder = format!("/proc/{}", daemon.pid());
        let status = fs::read_to_string(format!("{folder}/status")).expect("a running daemon");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let digits = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        Self {
            resident_kib: digits.and_then(|text| text.parse().ok()).expect("VmRSS"),
            descriptors: fs::read_dir(format!("{folder}/fd"))
                .expect("its files")
                .count(),
        }
    }
}
