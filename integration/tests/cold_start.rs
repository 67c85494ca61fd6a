//! A cold tunnel: nothing is negotiated when the first packet comes. What the first packets of
//! each kind of traffic meet, and how long they wait.
//!
//! ```text
//! client_lan ── client ── 25 ms ── router (masquerade) ── 25 ms ── server ── server_lan
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{
    client_config, client_config_between, server_config, server_config_between,
};
use epochgate_integration::topology::{
    CLIENT_INNER, CLIENT_INNER_V6, CLIENT_LAN, CLIENT_NET, CLIENT_NET_V6, SERVER_INNER,
    SERVER_INNER_V6, SERVER_LAN, SERVER_NET, SERVER_NET_V6,
};
use epochgate_integration::watch::times;
use epochgate_integration::{
    Account, Epochgate, Judged, Packet, Packets, Stalls, TcpFlow, Topology, UdpFlow, Watch, audit,
};
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(50);
const PORT: u16 = 4000;
const SETTLE: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(10);
const TCP_LIMIT: Duration = Duration::from_secs(10);

/// How long after the switch a live packet may leave ahead of a held one (R3).
const UNORDERED_AT_MOST: Duration = Duration::from_millis(50);
/// The shortest timer of the protocols: IKE's first retransmission. The control ping's interval is
/// the default of 250 ms.
const SHORTEST_TIMER: Duration = Duration::from_millis(250);
/// A SYN is sent again after this time (RFC 6298 §2.1).
const SYN_TIMER: Duration = Duration::from_secs(1);

/// Daemons at both ends, the client's tunnel holding and nothing negotiated.
struct Cold {
    net: Topology,
    watch: Watch,
    client: Epochgate,
    stalls: Stalls,
    _server: Epochgate,
}

impl Cold {
    fn new(net: Topology, client: &str, server: &str) -> Self {
        let watch = Watch::start(&net);
        let server = Epochgate::start(&net.server, server);
        let client = Epochgate::start(&net.client, client);
        client.wait_for("net", START_LIMIT, |tunnel| tunnel["gate"] == "held");
        Self {
            net,
            watch,
            client,
            stalls: Stalls::start(),
            _server: server,
        }
    }

    fn on_demand(name: &str) -> Self {
        let net = Topology::new(name)
            .masquerade()
            .round_trip(ROUND_TRIP)
            .build();
        let client = client_config("start = \"on-demand\"");
        Self::new(net, &client, &server_config(""))
    }
}

/// All of it arrived; what was held kept its order, and a live packet was ahead only for a moment.
/// Returns how many had been held.
#[track_caller]
fn assert_nothing_lost(name: &str, account: &Account, judged: &Judged, stalls: &Stalls) -> u64 {
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
    let proof = *judged.proofs.values().next().expect("a proven epoch");
    let release = audit::release(&judged.client, PORT, &account.sent, proof)
        .expect("held packets and live ones in order");
    println!(
        "{name}: delivered {} of {}, {} of them held; {} live ahead of held ones, for {:?}",
        account.delivered(),
        account.sent.len(),
        release.held,
        release.ahead.len(),
        release.unordered_for,
    );
    // Each left in one piece: a fragment names no port.
    assert_eq!(release.packets, account.sent.len(), "{release:?}");
    let opened = judged.first_use().expect("traffic");
    let stalled = stalls.within(opened, release.unordered_for);
    assert!(
        release.unordered_for <= UNORDERED_AT_MOST + stalled,
        "{release:?}, of that {stalled:?} the machine's"
    );
    release.held
}

#[test]
fn a_hundred_packets_from_the_very_first_are_all_delivered() {
    let cold = Cold::on_demand("cold_udp");
    let flow = UdpFlow::new(
        (&cold.net.client, CLIENT_INNER),
        (&cold.net.server, SERVER_INNER),
        PORT,
    );
    let account = flow.rate(100).count(100).start().finish(SETTLE);
    let judged = cold.watch.judge();
    let held = assert_nothing_lost("UDP", &account, &judged, &cold.stalls);
    assert!(held > 10, "three round trips at 100 packets/s: {held}");
}

#[test]
fn the_first_packet_waits_for_three_exchanges_and_no_timer() {
    let cold = Cold::on_demand("cold_exchanges");
    let flow = UdpFlow::new(
        (&cold.net.client, CLIENT_INNER),
        (&cold.net.server, SERVER_INNER),
        PORT,
    );
    let account = flow.count(20).start().finish(SETTLE);
    let judged = cold.watch.judge();
    assert_nothing_lost("exchanges", &account, &judged, &cold.stalls);

    let (_, held_at) = account.sent[0];
    let delivered_at = account.arrivals[0].at;
    let first_use = judged.first_use().expect("traffic");
    let exchanges = judged.exchanges_until(first_use);
    let kinds: Vec<_> = exchanges.iter().map(|exchange| exchange.kind).collect();
    assert_eq!(kinds, ["IKE_SA_INIT", "IKE_AUTH", "control ping"]);

    // From each answer to what it leads to: what the hosts themselves take.
    let mut before = held_at;
    for exchange in &exchanges {
        let thought = exchange.asked.since(before);
        let took = exchange.answered.since(exchange.asked);
        println!("{thought:?}, then {} in {took:?}", exchange.kind);
        assert!(thought < SHORTEST_TIMER, "{}: {thought:?}", exchange.kind);
        assert!(took < ROUND_TRIP + SHORTEST_TIMER, "{took:?}");
        before = exchange.answered;
    }
    let released = first_use.since(before);
    assert!(released < SHORTEST_TIMER, "released after {released:?}");
    let took = delivered_at.since(held_at);
    println!(
        "released after {released:?}; the first packet was delivered after {took:?}, \
         {:.1} round trips",
        times(took, ROUND_TRIP)
    );
    // Nothing else was on the wire but multicast: links that came up join groups (RFC 3810).
    let others = judged.client.entries.iter().filter(|entry| {
        entry.at < first_use
            && match entry.packet {
                Packet::Clear { dst, .. } => !dst.is_multicast(),
                Packet::EspFragment { .. } | Packet::Other => true,
                Packet::Esp { .. } | Packet::Ike { .. } => false,
            }
    });
    assert_eq!(others.count(), 0);
}

#[test]
fn a_tcp_connection_opens_through_a_cold_tunnel_without_a_lost_segment() {
    let cold = Cold::on_demand("cold_tcp");
    let flow = TcpFlow::new(
        (&cold.net.client, CLIENT_INNER),
        (&cold.net.server, SERVER_INNER),
        PORT,
    );
    let report = flow.start(TCP_LIMIT).finish().expect("every byte");
    cold.watch.judge();
    println!("TCP: {report:?}");
    assert_eq!(report.retransmissions, 0);
    assert!(report.connected_in < SYN_TIMER, "{report:?}");
}

/// Segments that fit through ESP. A host in a LAN learns the path MTU only when its first larger
/// segments are dropped (RFC 1191), which would count as retransmissions.
fn small_segments(flow: TcpFlow) -> TcpFlow {
    flow.bytes(10_000).pace(Duration::from_millis(2))
}

#[test]
fn forwarded_traffic_waits_on_the_client_and_none_is_lost() {
    let net = Topology::new("cold_forwarded")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .lans()
        .build();
    let cold = Cold::new(
        net,
        &client_config("start = \"on-demand\""),
        &server_config(""),
    );
    let lans = (&cold.net.client_lan, &cold.net.server_lan);
    let (Some(client_lan), Some(server_lan)) = lans else {
        panic!("no LANs")
    };
    let up = UdpFlow::new((client_lan, CLIENT_LAN), (server_lan, SERVER_LAN), PORT);
    let account = up.rate(100).count(100).start().finish(SETTLE);
    // And back, byte for byte.
    let tcp = small_segments(TcpFlow::new(
        (server_lan, SERVER_LAN),
        (client_lan, CLIENT_LAN),
        5000,
    ));
    let report = tcp.start(TCP_LIMIT).finish().expect("every byte");
    let judged = cold.watch.judge();
    let held = assert_nothing_lost("forwarded", &account, &judged, &cold.stalls);
    assert!(held > 10, "three round trips at 100 packets/s: {held}");
    assert_eq!(report.retransmissions, 0);
}

#[test]
fn a_forwarded_tcp_connection_opens_through_a_cold_tunnel() {
    let net = Topology::new("cold_forwarded_tcp")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .lans()
        .build();
    let cold = Cold::new(
        net,
        &client_config("start = \"on-demand\""),
        &server_config(""),
    );
    let lans = (&cold.net.client_lan, &cold.net.server_lan);
    let (Some(client_lan), Some(server_lan)) = lans else {
        panic!("no LANs")
    };
    let flow = small_segments(TcpFlow::new(
        (client_lan, CLIENT_LAN),
        (server_lan, SERVER_LAN),
        PORT,
    ));
    let report = flow.start(TCP_LIMIT).finish().expect("every byte");
    cold.watch.judge();
    println!("forwarded TCP: {report:?}");
    assert_eq!(report.retransmissions, 0);
    assert!(report.connected_in < SYN_TIMER, "{report:?}");
}

#[test]
fn ipv6_and_ipv4_share_a_cold_tunnel() {
    let net = Topology::new("cold_v6")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build();
    let (left, right) = ([CLIENT_NET, CLIENT_NET_V6], [SERVER_NET, SERVER_NET_V6]);
    let cold = Cold::new(
        net,
        &client_config_between(&left, &right, "start = \"on-demand\""),
        &server_config_between(&right, &left, ""),
    );
    let (client, server) = (&cold.net.client, &cold.net.server);
    let v6 = UdpFlow::new((client, CLIENT_INNER_V6), (server, SERVER_INNER_V6), PORT);
    let v4 = UdpFlow::new((client, CLIENT_INNER), (server, SERVER_INNER), PORT + 1);
    let (v6, v4) = (v6.count(100).start(), v4.count(100).start());
    let (v6, v4) = (v6.finish(SETTLE), v4.finish(SETTLE));
    let judged = cold.watch.judge();
    let held = assert_nothing_lost("IPv6", &v6, &judged, &cold.stalls);
    assert!(held > 10, "three round trips at 100 packets/s: {held}");
    assert!(v4.refused.is_empty() && v4.lost().is_empty(), "IPv4: {v4}");
    assert_eq!(judged.proofs.len(), 1, "one epoch for both");
}

#[test]
fn a_tunnel_that_starts_by_itself_holds_what_comes_before_it_is_open() {
    let net = Topology::new("cold_always")
        .masquerade()
        .round_trip(ROUND_TRIP)
        .build();
    // The first IKE_SA_INIT is lost, so that traffic comes while the tunnel is being started.
    let deaf = net.block(&Packets::ike());
    let cold = Cold::new(
        net,
        &client_config("start = \"always\""),
        &server_config(""),
    );
    let flow = UdpFlow::new(
        (&cold.net.client, CLIENT_INNER),
        (&cold.net.server, SERVER_INNER),
        PORT,
    );
    let init = cold.watch.client.wait_for(START_LIMIT, |record| {
        matches!(record.packet(), Packet::Ike { .. })
    });
    init.expect("it starts without traffic");
    let flow = flow.rate(50).count(50).start();
    while flow.sent() == 0 {
        std::thread::yield_now();
    }
    deaf.lift();
    let account = flow.finish(SETTLE);
    let status = cold.client.status();
    let judged = cold.watch.judge();
    assert_nothing_lost("always", &account, &judged, &cold.stalls);
    assert_eq!(status["tunnels"][0]["gate"], "open", "{status:#}");
}
