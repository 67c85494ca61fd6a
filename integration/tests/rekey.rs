//! Rekeys under traffic in both directions: started by either end, with answers lost or late, and
//! with the new epoch's pings blocked. What matters to an application: nothing.
//!
//! ```text
//! client 10.1.0.1 ── 10 ms ── router (masquerade) ── 10 ms ── 10.2.0.1 server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER_INNER};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{
    Account, Epochgate, Judged, Packet, Packets, Topology, UdpFlow, Watch, audit,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::RangeBounds;
use std::thread;
use std::time::{Duration, Instant};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const UP: u16 = 4000;
const DOWN: u16 = 4001;

/// The load under which rekeys are judged, each way.
const PER_SECOND: f64 = 1_000.0;

/// With one CPU nothing leaves by the old epoch once the policies are written.
const SWITCH_GRACE: Duration = Duration::from_millis(5);
/// CREATE_CHILD_SA (RFC 7296 §1.3).
const CREATE_CHILD_SA: u8 = 36;

/// An open tunnel.
struct Open {
    net: Topology,
    watch: Watch,
    client: Epochgate,
    server: Epochgate,
}

/// Traffic in both directions.
struct BothWays {
    up: RunningFlow,
    down: RunningFlow,
}

impl Open {
    fn new(name: &str, client: &str, server: &str) -> Self {
        let net = Topology::new(name)
            .masquerade()
            .round_trip(ROUND_TRIP)
            .build();
        let watch = Watch::start(&net);
        let server = Epochgate::start(&net.server, &server_config(server));
        let client = Epochgate::start(&net.client, &client_config(client));
        client.run(&["up", "net"]);
        Self {
            net,
            watch,
            client,
            server,
        }
    }

    /// Begins traffic that goes on until it is stopped.
    fn traffic(&self, per_second: u32) -> BothWays {
        let client = (&self.net.client, CLIENT_INNER);
        let server = (&self.net.server, SERVER_INNER);
        let flow = |from, to, port| {
            UdpFlow::new(from, to, port)
                .rate(per_second)
                .count(u64::MAX)
        };
        BothWays {
            up: flow(client, server, UP).start(),
            down: flow(server, client, DOWN).start(),
        }
    }

    /// Waits until both ends use an epoch that is not the one with the outbound SPI `before` on
    /// the client, and lets it carry traffic for a while. Returns the client's outbound SPI.
    #[track_caller]
    fn wait_for_switch(&self, before: &str) -> String {
        let switched = |tunnel: &Value| open_spi(tunnel, "outbound_spi") != before;
        loop {
            let client = self.client.wait_for("net", LIMIT, switched);
            let now = open_spi(&client, "outbound_spi");
            let server = self.server.wait_for("net", LIMIT, |_| true);
            if !now.is_empty() && open_spi(&server, "inbound_spi") == now {
                thread::sleep(Duration::from_millis(50));
                return now;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The SPI of one direction of the open epoch; empty if there is none.
fn open_spi(tunnel: &Value, direction: &str) -> String {
    let mut epochs = tunnel["epochs"].as_array().into_iter().flatten();
    let open = epochs.find(|epoch| epoch["number"] == tunnel["open_epoch"]);
    let spi = open.and_then(|epoch| epoch[direction].as_str());
    spi.unwrap_or_default().to_owned()
}

impl BothWays {
    /// Ends it. Fails the test if anything was lost, doubled or displaced.
    #[track_caller]
    fn stop_perfect(self) -> (Account, Account) {
        let up = self.up.stop(SETTLE);
        let down = self.down.stop(SETTLE);
        println!("up:   {up}\ndown: {down}");
        up.assert_perfect();
        down.assert_perfect();
        (up, down)
    }
}

fn per_second(account: &Account) -> f64 {
    let times = account.sent.first().zip(account.sent.last());
    let lasted = times.map_or(Duration::ZERO, |((_, first), (_, last))| last.since(*first));
    account.sent.len() as f64 / lasted.as_secs_f64()
}

/// So many epochs carried traffic, at both ends, and no end went back to one that it had left.
#[track_caller]
fn assert_switches(judged: &Judged, epochs: impl RangeBounds<usize>) {
    for (trace, port) in [(&judged.client, UP), (&judged.server, DOWN)] {
        let order = audit::switches_are_clean(trace, SWITCH_GRACE).expect("clean switches");
        assert!(epochs.contains(&order.len()), "{order:x?}");
        let used: BTreeSet<_> = audit::carried(trace, port)
            .into_iter()
            .map(|(_, spi)| spi)
            .collect();
        assert_eq!(used.len(), order.len(), "{used:x?} of {order:x?}");
    }
}

/// At each attempt nothing may go wrong. One in which the machine was too busy to send fast enough
/// shows too little: it is made once more.
fn twenty_rekeys(name: &str, started_by: fn(&Open) -> &Epochgate) {
    const ATTEMPTS: usize = 2;
    for _ in 0..ATTEMPTS {
        let rate = twenty_rekeys_at(name, started_by);
        println!("at {rate:.0} packets/s each way");
        if rate >= PER_SECOND {
            break;
        }
    }
}

/// Returns the lower rate of the two directions.
fn twenty_rekeys_at(name: &str, started_by: fn(&Open) -> &Epochgate) -> f64 {
    const REKEYS: usize = 20;
    let open = Open::new(name, "", "");
    let flows = open.traffic(1_200);
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    let mut epoch = open.wait_for_switch("");
    for _ in 0..REKEYS {
        started_by(&open).run(&["rekey", "net"]);
        epoch = open.wait_for_switch(&epoch);
    }
    println!("{REKEYS} rekeys in {:?}", began.elapsed());
    let (up, down) = flows.stop_perfect();
    let judged = open.watch.judge();
    assert_switches(&judged, REKEYS + 1..=REKEYS + 1);
    per_second(&up).min(per_second(&down))
}

#[test]
fn twenty_rekeys_by_the_client_lose_double_and_displace_nothing() {
    twenty_rekeys("rekeys_by_client", |open| &open.client);
}

#[test]
fn twenty_rekeys_by_the_server_lose_double_and_displace_nothing() {
    twenty_rekeys("rekeys_by_server", |open| &open.server);
}

/// Runs `epochgate rekey net` at one end, and meanwhile something else.
fn during_rekey<T>(daemon: &Epochgate, meanwhile: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let rekey = scope.spawn(|| daemon.run(&["rekey", "net"]));
        let result = meanwhile();
        rekey.join().expect("the rekey succeeds");
        result
    })
}

fn is_create_child_request(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::Ike {
            exchange: CREATE_CHILD_SA,
            response: false,
            ..
        }
    )
}

#[test]
fn a_lost_answer_to_create_child_sa_costs_no_packet() {
    let open = Open::new("rekey_answer_lost", "", "");
    let flows = open.traffic(200);
    let mut epoch = open.wait_for_switch("");
    for daemon in [&open.client, &open.server] {
        let fault = open.net.block(&Packets::ike_responses_of(CREATE_CHILD_SA));
        during_rekey(daemon, || {
            let began = Instant::now();
            while fault.count() == 0 && began.elapsed() < LIMIT {
                thread::sleep(Duration::from_millis(20));
            }
            assert!(fault.count() > 0, "an answer was lost");
            fault.lift();
        });
        epoch = open.wait_for_switch(&epoch);
    }
    flows.stop_perfect();
    let judged = open.watch.judge();
    assert_switches(&judged, 3..);
    let requests = judged
        .client
        .entries
        .iter()
        .filter(|entry| is_create_child_request(&entry.packet));
    println!("{} CREATE_CHILD_SA requests for 2 rekeys", requests.count());
}

#[test]
fn an_answer_to_create_child_sa_that_is_a_second_late_costs_no_packet() {
    const LATE: Duration = Duration::from_secs(1);
    let open = Open::new("rekey_answer_late", "", "");
    let flows = open.traffic(200);
    let ends = [
        (&open.client, &open.net.to_client),
        (&open.server, &open.net.to_server),
    ];
    let mut epoch = open.wait_for_switch("");
    for (daemon, way_back) in ends {
        let answers = Packets::ike_responses_of(CREATE_CHILD_SA);
        let fault = way_back.delay_packets(&answers, LATE);
        let began = Instant::now();
        daemon.run(&["rekey", "net"]);
        let took = began.elapsed();
        println!("{} rekeyed in {took:?}", daemon.host().name());
        assert!(took >= LATE, "{took:?}");
        assert!(fault.count() > 0, "an answer was late");
        fault.lift();
        epoch = open.wait_for_switch(&epoch);
    }
    // Answers to retransmissions are still under way.
    thread::sleep(LATE);
    flows.stop_perfect();
    assert_switches(&open.watch.judge(), 3..);
}

#[test]
fn a_server_uses_the_old_epoch_until_a_ping_comes_on_the_new_one() {
    // The client goes on pinging as long as the way is blocked.
    let open = Open::new(
        "rekey_server_waits",
        "[tunnel.net.ping]\ninterval = \"100ms\"\nattempts = 50",
        "",
    );
    let flows = open.traffic(200);
    let epoch = open.wait_for_switch("");
    let pairs = open.watch.client_pairs("192.0.2.2");
    let [(_, old)] = pairs[..] else {
        panic!("one epoch: {pairs:x?}")
    };
    let to_server = Packets::esp_except_on(&[old]).to("203.0.113.1".parse().expect("an address"));
    let fault = open.net.block(&to_server);
    during_rekey(&open.client, || {
        let awaiting = |tunnel: &Value| {
            let mut epochs = tunnel["epochs"].as_array().into_iter().flatten();
            epochs.any(|epoch| epoch["state"] == "awaiting")
        };
        open.server.wait_for("net", LIMIT, awaiting);
        thread::sleep(Duration::from_millis(500));
        let status = open.server.wait_for("net", LIMIT, awaiting);
        assert_eq!(status["gate"], "open", "{status:#}");
        assert_eq!(status["open_epoch"], 1, "{status:#}");
        println!("{} packets and pings blocked", fault.count());
        assert!(fault.count() > 1, "pings were blocked");
        fault.lift();
    });
    open.wait_for_switch(&epoch);
    flows.stop_perfect();
    // I3 is judged on the server's capture.
    assert_switches(&open.watch.judge(), 2..=2);
}

#[test]
fn a_cold_server_holds_its_own_traffic_until_the_ping_comes() {
    let net = Topology::new("server_cold")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build();
    let watch = Watch::start(&net);
    let server = Epochgate::start(&net.server, &server_config(""));
    server.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "held");
    let flow = UdpFlow::new(
        (&net.server, SERVER_INNER),
        (&net.client, CLIENT_INNER),
        DOWN,
    );
    let flow = flow.rate(50).count(100).start();
    while flow.sent() < 10 {
        thread::sleep(Duration::from_millis(10));
    }
    let client = Epochgate::start(&net.client, &client_config(""));
    client.run(&["up", "net"]);
    let account = flow.finish(SETTLE);
    println!("server first: {account}");
    assert!(
        account.refused.is_empty() && account.lost().is_empty(),
        "{account}"
    );
    assert_eq!(account.duplicated(), 0);
    assert!(
        account.longest_latency() > Duration::from_millis(100),
        "some were held"
    );

    let judged = watch.judge();
    let ping = judged.server.received().find(|entry| {
        let inner = entry.inner.as_ref();
        inner.is_some_and(|inner| inner.control_ping().is_some())
    });
    let first = judged
        .server
        .sent()
        .find(|entry| matches!(entry.packet, Packet::Esp { .. }));
    let (ping, first) = (ping.expect("a ping"), first.expect("traffic"));
    println!(
        "the server's first ESP packet left {:?} after the ping",
        first.at.since(ping.at)
    );
    assert!(first.at > ping.at);
    let release = audit::release(&judged.server, DOWN, &account.sent, ping.at)
        .expect("held packets and live ones in order");
    println!(
        "{} held, {} live ones ahead of them",
        release.held,
        release.ahead.len()
    );
    assert!(release.held >= 10, "{release:?}");
}
