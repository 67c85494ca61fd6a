//! ESP is lost while IKE passes: every IKE exchange is answered, and nothing else arrives. Only a
//! control ping finds out. Peers whose liveness checks are IKE exchanges stay established and dead.
//!
//! ```text
//! client 192.0.2.2 ── router (masquerade; drops ESP) ── 203.0.113.1 server     20 ms round trip
//! 10.1.0.1                                                        10.2.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::audit::{aftermath, exchanges};
use epochgate_integration::peer::{
    client_config, is_open, server_config, strongswan_client, strongswan_server,
};
use epochgate_integration::topology::{CLIENT, CLIENT_INNER, SERVER_INNER};
use epochgate_integration::traffic::{RunningFlow, wait_for_traffic};
use epochgate_integration::{
    Epochgate, Packet, Packets, Stalls, StrongSwan, Timestamp, Topology, Trace, UdpFlow, Watch,
};
use serde_json::Value;
use std::thread::sleep;
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(1);
const UP: u16 = 4000;
const DOWN: u16 = 4001;
const ENDLESS: u64 = 1_000_000;
const INFORMATIONAL: u8 = 37;

/// The defaults of `ping.idle`, `ping.attempts` and `ping.interval`.
const IDLE: Duration = Duration::from_secs(3);
const ATTEMPTS: u32 = 4;
const INTERVAL: Duration = Duration::from_millis(250);
/// What a machine that runs the tests well may add; what more it adds is measured.
const MACHINE: Duration = Duration::from_millis(500);
/// How long ESP is lost.
const LOST_FOR: Duration = Duration::from_secs(60);

fn network(name: &str) -> Topology {
    Topology::new(name)
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build()
}

fn up(net: &Topology, per_second: u32) -> RunningFlow {
    let ends = ((&net.client, CLIENT_INNER), (&net.server, SERVER_INNER));
    let flow = UdpFlow::new(ends.0, ends.1, UP).rate(per_second);
    flow.count(ENDLESS).start()
}

fn down(net: &Topology, per_second: u32) -> RunningFlow {
    let ends = ((&net.server, SERVER_INNER), (&net.client, CLIENT_INNER));
    let flow = UdpFlow::new(ends.0, ends.1, DOWN).rate(per_second);
    flow.count(ENDLESS).start()
}

fn epochgates(net: &Topology) -> (Epochgate, Epochgate) {
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    client.wait_for("net", LIMIT, is_open);
    server.wait_for("net", LIMIT, is_open);
    (client, server)
}

#[test]
fn a_minute_without_esp_is_noticed_held_and_over_two_pings_after_esp_passes() {
    let net = network("esp_lost_for_a_minute");
    let watch = Watch::start(&net);
    let (client, _server) = epochgates(&net);
    let stalls = Stalls::start();
    // One a second: the kernel holds 101.
    let (up, down) = (up(&net, 1), down(&net, 1));
    wait_for_traffic([&up, &down], LIMIT);
    let began = Timestamp::now();
    let fault = net.block(&Packets::esp());
    client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
    let noticed = Timestamp::now().since(began);
    while Timestamp::now().since(began) < LOST_FOR {
        sleep(Duration::from_secs(1));
        let status = client.wait_for("net", LIMIT, |tunnel| !is_open(tunnel));
        assert_eq!(status["gate"], "held", "{status:#}");
    }
    let status = client.wait_for("net", LIMIT, |_| true);
    let blocked = fault.count();
    fault.lift();
    let whole = Timestamp::now();
    client.wait_for("net", LIMIT, is_open);
    wait_for_traffic([&up, &down], LIMIT);
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    let judged = watch.judge();
    let upward = aftermath(&judged.client, UP, &up, began, whole).expect("what was held arrives");
    let downward = aftermath(&judged.server, DOWN, &down, began, whole).expect("it resumes");
    let epochs = status["epochs"].as_array().map_or(0, Vec::len);
    println!(
        "noticed after {noticed:?}; {blocked} packets blocked in {LOST_FOR:?}, {epochs} epochs at \
         the end of it, {} pings\nup {upward:?}: {up}\ndown {downward:?}: {down}",
        status["pings_sent"]
    );
    let stalled = stalls.within(began, noticed);
    assert!(
        noticed <= IDLE + ATTEMPTS * INTERVAL + MACHINE + stalled,
        "{noticed:?}, of that {stalled:?} the machine's"
    );
    assert!(
        upward.into_the_hole_for <= noticed,
        "nothing left once it was noticed"
    );
    assert!(up.refused.is_empty(), "{up}");
    assert!(
        up.sent.len() - upward.lost > 50,
        "held for most of a minute"
    );
    let stalled = stalls.within(whole, downward.resumed_after);
    let resumed = 2 * INTERVAL + MACHINE + stalled;
    assert!(upward.resumed_after <= resumed, "{upward:?}");
    // The next of one a second.
    assert!(
        downward.resumed_after <= resumed + Duration::from_secs(1),
        "{downward:?}"
    );
}

#[test]
fn an_epoch_that_a_tracker_has_lost_is_replaced_within_the_bound() {
    let net = network("esp_lost_on_one_spi");
    let watch = Watch::start(&net);
    let (client, _server) = epochgates(&net);
    let (up, down) = (up(&net, 5), down(&net, 5));
    wait_for_traffic([&up, &down], LIMIT);
    let pairs = watch.client_pairs(CLIENT);
    let [(inbound, outbound)] = pairs[..] else {
        panic!("one epoch: {pairs:x?}")
    };
    let began = Timestamp::now();
    let fault = net.block(&Packets::esp_on(&[inbound, outbound]));
    // What was under way has arrived.
    sleep(ROUND_TRIP);
    let lost_from = Timestamp::now();
    let on_another = |tunnel: &Value| is_open(tunnel) && tunnel["open_epoch"] != 1;
    let status = client.wait_for("net", LIMIT, on_another);
    wait_for_traffic([&up, &down], LIMIT);
    let (up, down) = (up.stop(SETTLE), down.stop(SETTLE));
    assert!(fault.count() > 0);
    let judged = watch.judge();
    let bound = status["recovery_bound_ms"].as_u64().expect("a bound");
    let bound = Duration::from_millis(bound);
    for (what, trace, port, account) in [
        ("up", &judged.client, UP, &up),
        ("down", &judged.server, DOWN, &down),
    ] {
        let aftermath = aftermath(trace, port, account, began, lost_from);
        let aftermath = aftermath.expect("what was held arrives");
        println!("{what} {aftermath:?} of {bound:?}: {account}");
        assert!(account.refused.is_empty(), "{account}");
        assert!(aftermath.resumed_after <= bound, "{aftermath:?}");
    }
    // The IKE SA was never in doubt.
    println!("exchanges of the client: {:?}", exchanges(&judged.client));
    assert_eq!(judged.proofs.len(), 2, "{:x?}", judged.proofs);
}

/// Liveness checks by IKE (RFC 7296 §2.4) every second.
fn with_liveness_checks(config: String) -> String {
    config.replacen("version = 2\n", "version = 2\ndpd_delay = 1s\n", 1)
}

#[test]
fn two_strongswans_with_liveness_checks_stay_established_and_dead() {
    let net = network("esp_lost_strongswan");
    let keys = net.client_keys();
    let wire = net.capture_client();
    let _server = StrongSwan::start(&net.server, &with_liveness_checks(strongswan_server("")));
    let client = with_liveness_checks(strongswan_client("start_action = trap\n"));
    let client = StrongSwan::start(&net.client, &client);
    client.initiate();
    let (up, down) = (up(&net, 5), down(&net, 5));
    wait_for_traffic([&up, &down], LIMIT);
    let pairs = keys.pairs(CLIENT.parse().expect("an address"));
    let [(inbound, outbound)] = pairs[..] else {
        panic!("one Child SA: {pairs:x?}")
    };
    let fault = net.block(&Packets::esp_on(&[inbound, outbound]));
    sleep(ROUND_TRIP);
    let lost_from = Timestamp::now();
    let (up_before, down_before) = (up.arrived(), down.arrived());
    // Longer than epochgate takes at most.
    sleep(Duration::from_secs(12));
    assert_eq!(up.arrived(), up_before, "nothing arrives");
    assert_eq!(down.arrived(), down_before, "nothing arrives");
    println!("{}, {} packets blocked", client.version(), fault.count());
    assert_eq!(client.installed(), 1, "{}", client.sas());
    assert!(client.sas().contains("ESTABLISHED"), "{}", client.sas());
    let (up, down) = (up.stop(Duration::ZERO), down.stop(Duration::ZERO));
    assert!(
        up.lost().len() > 50 && down.lost().len() > 50,
        "{up}; {down}"
    );
    let trace = Trace::of(wire.stop(), &keys).between(lost_from, Timestamp::now());
    // Whichever end asked: one that was asked just now does not ask.
    let answered = trace.entries.iter().filter(|entry| {
        matches!(
            entry.packet,
            Packet::Ike {
                exchange: INFORMATIONAL,
                response: true,
                ..
            }
        )
    });
    let answered = answered.count();
    println!("{answered} liveness checks answered meanwhile");
    assert!(answered >= 5, "IKE passes");
}
