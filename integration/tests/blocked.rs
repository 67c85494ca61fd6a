//! ESP alone is blocked, as many a NAT and firewall does, while IKE passes: only a control ping
//! finds out. And what the kernel holds meanwhile, and how much of it.
//!
//! ```text
//! client_lan ── client ── 10 ms ── router (masquerade, blocks ESP) ── 10 ms ── server ── server_lan
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::topology::{CLIENT, CLIENT_INNER, CLIENT_LAN, SERVER_INNER, SERVER_LAN};
use epochgate_integration::{
    Account, Epochgate, Packet, Packets, TcpFlow, Timestamp, Topology, UdpFlow, Watch, audit,
};
use serde_json::Value;
use std::thread;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const TCP_LIMIT: Duration = Duration::from_secs(30);
const UP: u16 = 4000;
const DOWN: u16 = 4001;

/// What the kernel holds per policy (`XFRM_MAX_QUEUE_LEN` is 100, and looked at before a packet is
/// added).
const HELD_AT_MOST: usize = 101;

/// Three pings 100 ms apart, and an idle tunnel is pinged after a second.
const QUICK_PING: &str = "[tunnel.net.ping]\ninterval = \"100ms\"\nattempts = 3\nidle = \"1s\"";
const ATTEMPTS: usize = 3;

/// IKE_SA_INIT and CREATE_CHILD_SA (RFC 7296 §3.1): what a new epoch begins with.
const NEGOTIATIONS: [u8; 2] = [34, 36];

fn plan(name: &str) -> epochgate_integration::topology::Plan {
    Topology::new(name).masquerade().round_trip(ROUND_TRIP)
}

/// Starts both daemons; the client's tunnel holds.
fn daemons(net: &Topology, client: &str) -> (Epochgate, Epochgate) {
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config(client));
    client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
    (client, server)
}

fn gate_is(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |tunnel| tunnel["gate"] == wanted
}

#[test]
fn while_the_new_epoch_is_blocked_the_old_one_carries_all_traffic() {
    let net = plan("blocked_new_epoch").build();
    let watch = Watch::start(&net);
    let (client, _server) = daemons(&net, QUICK_PING);
    client.run(&["up", "net"]);
    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let flow = |from, to, port| UdpFlow::new(from, to, port).rate(200).count(u64::MAX);
    let up = flow(ends[0], ends[1], UP).start();
    let down = flow(ends[1], ends[0], DOWN).start();
    let pairs = watch.client_pairs(CLIENT);
    let [(old_in, old_out)] = pairs[..] else {
        panic!("one epoch: {pairs:x?}")
    };

    let fault = net.block(&Packets::esp_except_on(&[old_in, old_out]));
    let blocked_at = Timestamp::now();
    let output = client.command(&["rekey", "net"]);
    assert_eq!(output.status.code(), Some(1), "a rekey without a switch");
    println!("{}", String::from_utf8_lossy(&output.stderr).trim());
    // It goes on trying by itself.
    let tried_again = |tunnel: &Value| tunnel["pings_sent"].as_u64() > Some(2 * ATTEMPTS as u64);
    let status = client.wait_for("net", LIMIT, tried_again);
    assert_eq!(status["gate"], "open", "{status:#}");
    assert_eq!(status["open_epoch"], 1, "{status:#}");
    let lifted_at = Timestamp::now();
    println!("{} packets blocked, all of them pings", fault.count());
    fault.lift();
    client.wait_for("net", LIMIT, |tunnel| {
        tunnel["gate"] == "open" && tunnel["open_epoch"] != 1
    });
    println!(
        "switched {:?} after it was unblocked",
        Timestamp::now().since(lifted_at)
    );
    thread::sleep(Duration::from_millis(200));

    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    println!("up:   {up}\ndown: {down}");
    up.assert_perfect();
    down.assert_perfect();
    let judged = watch.judge();
    // The old one and the new one; a further one where the next attempt had begun by then.
    let epochs = judged.proofs.len();
    assert!((2..=3).contains(&epochs), "{epochs} epochs carried traffic");

    // While ESP was blocked: a negotiation, its pings, and then the next negotiation.
    let mut story = Vec::new();
    for entry in judged.client.sent() {
        if entry.at < blocked_at || entry.at > lifted_at {
            continue;
        }
        let pinged = entry.inner.as_ref().and_then(|inner| inner.control_ping());
        match entry.packet {
            Packet::Ike {
                exchange,
                response: false,
                ..
            } if NEGOTIATIONS.contains(&exchange) => story.push("negotiation"),
            Packet::Esp { spi, .. } if pinged.is_some() && spi != old_out => story.push("ping"),
            _ => {}
        }
    }
    println!("{}", story.join(", "));
    let first_series = ["negotiation", "ping", "ping", "ping", "negotiation", "ping"];
    assert!(story.starts_with(&first_series), "{story:?}");
}

/// When each packet of the flow to [`UP`] left the client.
fn left(judged: &epochgate_integration::Judged) -> Vec<(u64, Timestamp)> {
    let numbers = audit::carried(&judged.client, UP);
    let times = judged.client.sent().filter(|entry| {
        let inner = entry.inner.as_ref();
        inner.is_some_and(|inner| inner.udp_port() == Some(UP))
    });
    let numbers = numbers.into_iter().map(|(number, _)| number);
    numbers.zip(times.map(|entry| entry.at)).collect()
}

#[test]
fn a_gate_in_doubt_closes_and_opens_again_and_what_it_held_is_delivered() {
    let net = plan("blocked_in_doubt").build();
    let watch = Watch::start(&net);
    let (client, _server) = daemons(&net, QUICK_PING);
    client.run(&["up", "net"]);
    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let flow = UdpFlow::new(ends[0], ends[1], UP);
    let flow = flow.rate(20).count(u64::MAX).start();
    let stream = TcpFlow::new(ends[0], ends[1], 5000).bytes(150_000);
    let stream = stream.pace(Duration::from_millis(20)).start(TCP_LIMIT);
    thread::sleep(Duration::from_millis(500));

    let before = Timestamp::now();
    let fault = net.block(&Packets::esp());
    let blocked = Timestamp::now();
    client.wait_for("net", LIMIT, gate_is("held"));
    let closed = Timestamp::now();
    thread::sleep(Duration::from_secs(1));
    let status = client.wait_for("net", LIMIT, gate_is("held"));
    println!("held: {}", status["reason"]);
    fault.lift();
    let lifted = Timestamp::now();
    client.wait_for("net", LIMIT, gate_is("open"));
    println!(
        "closed {:?} after ESP was blocked, open again {:?} after it was not",
        closed.since(blocked),
        Timestamp::now().since(lifted)
    );
    let report = stream.finish().expect("every byte of the stream");
    println!("TCP: {report:?}");
    let account = flow.stop(SETTLE);
    let judged = watch.judge();

    // What left before the gate closed went into the hole: that, and nothing else, is lost.
    let lost = account.lost();
    let left = left(&judged);
    let within = |from: Timestamp, to: Timestamp| -> Vec<u64> {
        let in_time = left.iter().filter(|(_, at)| *at >= from && *at <= to);
        in_time.map(|(number, _)| *number).collect()
    };
    println!("{account}: {lost:?} left before the gate closed");
    assert!(account.refused.is_empty(), "{account}");
    assert_eq!(account.duplicated(), 0, "{account}");
    let maybe_into_the_hole = within(before, closed);
    assert!(
        lost.iter()
            .all(|number| maybe_into_the_hole.contains(number)),
        "{lost:?} of {maybe_into_the_hole:?}"
    );
    let into_the_hole = within(blocked, closed);
    assert!(into_the_hole.iter().all(|number| lost.contains(number)));
    // From then on nothing left until ESP passed again.
    assert!(within(closed, lifted).is_empty());
    let held = account
        .sent
        .iter()
        .filter(|(_, at)| *at > closed && *at < lifted)
        .count();
    println!("{held} packets held, all delivered");
    assert!(held > 10);
}

#[test]
fn of_local_packets_the_102nd_is_refused_with_eagain() {
    let net = plan("full_local").build();
    let watch = Watch::start(&net);
    let (client, _server) = daemons(&net, "start = \"on-demand\"");
    let deaf = net.block(&Packets::ike());
    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let account = full_queue(ends, || {
        // An operator can read it while it happens.
        let status = client.status();
        assert_eq!(status["tunnels"][0]["held_packets_max"], HELD_AT_MOST);
        deaf.lift();
    });

    println!("local: {account}; {:?}", net.client.xfrm_errors());
    assert_eq!(account.sent.len(), HELD_AT_MOST);
    let (first, error) = account.refused.first().expect("a full queue");
    println!("number {first} was refused: {error}");
    assert_eq!(*first, HELD_AT_MOST as u64);
    assert!(
        error.contains("Resource temporarily unavailable"),
        "{error}"
    );
    assert!(account.lost().is_empty(), "what was taken is delivered");
    assert!(account.reordered().is_empty(), "in order");
    watch.judge();
}

#[test]
fn of_forwarded_packets_the_102nd_is_dropped() {
    let net = plan("full_forwarded").lans().build();
    let watch = Watch::start(&net);
    let (_client, _server) = daemons(&net, "start = \"on-demand\"");
    let deaf = net.block(&Packets::ike());
    let (Some(left), Some(right)) = (&net.client_lan, &net.server_lan) else {
        panic!("no LANs")
    };
    let account = full_queue([(left, CLIENT_LAN), (right, SERVER_LAN)], || deaf.lift());

    println!("forwarded: {account}; {:?}", net.client.xfrm_errors());
    assert!(account.refused.is_empty(), "its sender hears nothing");
    let beyond: Vec<u64> = (HELD_AT_MOST as u64..account.sent.len() as u64).collect();
    assert_eq!(account.lost(), beyond);
    assert!(account.reordered().is_empty(), "in order");
    watch.judge();
}

#[test]
fn all_flows_of_a_policy_share_one_queue() {
    let net = plan("full_shared").build();
    let watch = Watch::start(&net);
    let (_client, _server) = daemons(&net, "start = \"on-demand\"");
    let deaf = net.block(&Packets::ike());
    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let flow = |port| UdpFlow::new(ends[0], ends[1], port).rate(200).count(80);
    let (one, other) = (flow(UP).start(), flow(UP + 1).start());
    while one.tried() < 80 || other.tried() < 80 {
        thread::sleep(Duration::from_millis(10));
    }
    deaf.lift();
    let (one, other) = (one.finish(SETTLE), other.finish(SETTLE));
    println!("{one}\n{other}");
    assert_eq!(one.sent.len() + other.sent.len(), HELD_AT_MOST);
    assert!(one.lost().is_empty() && other.lost().is_empty());
    watch.judge();
}

/// Sends 150 packets into a tunnel that holds, then lets it open.
fn full_queue(
    [from, to]: [(&epochgate_integration::Host, &str); 2],
    open: impl FnOnce(),
) -> Account {
    const PACKETS: u64 = 150;
    let flow = UdpFlow::new(from, to, UP);
    let flow = flow.rate(300).count(PACKETS).start();
    while flow.tried() < PACKETS {
        thread::sleep(Duration::from_millis(10));
    }
    open();
    flow.finish(SETTLE)
}
