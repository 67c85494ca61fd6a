//! Route-based tunnels: what is routed to an xfrm interface goes through the tunnel, is held before
//! the interface while the tunnel is not proven, and never leaves in clear.
//!
//! ```text
//!  10.1.0.1, 10.3.0.1 ─ client ─ router ─ server ─ 10.2.0.1, 10.4.0.1
//!                net: by policy, 10.1 ↔ 10.2
//!             routed: ipsec0,    10.3 ↔ 10.4, 2001:db8:c:: ↔ 2001:db8:d::
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::tables::our_states;
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_NET};
use epochgate_integration::{Account, Epochgate, Selectors, Topology, Trace, UdpFlow, audit};
use std::thread::sleep;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const ENDLESS: u64 = 1_000_000;
const ROUTED_CLIENT: &str = "\"10.3.0.0/16\", \"2001:db8:c::/64\"";
const ROUTED_SERVER: &str = "\"10.4.0.0/16\", \"2001:db8:d::/64\"";

fn client_tunnel(name: &str, local: &str, remote: &str, more: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"client\"\n\
         local = {{ id = \"client.example\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"server.example\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [{local}], remote = [{remote}] }}\n{more}"
    )
}

fn server_tunnel(name: &str, local: &str, remote: &str, more: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"server.example\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"client.example\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [{local}], remote = [{remote}] }}\n{more}"
    )
}

const INTERFACE: &str = "interface = { name = \"ipsec0\" }\n";

/// Both tunnels at both ends.
fn daemons(net: &Topology) -> (Epochgate, Epochgate) {
    net.client
        .dummy("lan2", &["10.3.0.1/16", "2001:db8:c::1/64"]);
    net.server
        .dummy("lan2", &["10.4.0.1/16", "2001:db8:d::1/64"]);
    let quoted = |network: &str| format!("\"{network}\"");
    let server = server_tunnel("net", &quoted(SERVER_NET), &quoted(CLIENT_NET), "")
        + &server_tunnel("routed", ROUTED_SERVER, ROUTED_CLIENT, INTERFACE);
    let client = client_tunnel("net", &quoted(CLIENT_NET), &quoted(SERVER_NET), "")
        + &client_tunnel("routed", ROUTED_CLIENT, ROUTED_SERVER, INTERFACE);
    let server = Epochgate::start(&net.server, &server);
    let client = Epochgate::start(&net.client, &client);
    for daemon in [&server, &client] {
        for tunnel in ["net", "routed"] {
            daemon.wait_for(tunnel, LIMIT, |tunnel| tunnel["gate"] == "held");
        }
    }
    (client, server)
}

#[track_caller]
fn assert_complete(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert!(account.refused.is_empty(), "{what}: {account}");
    assert!(
        account.lost().is_empty(),
        "{what}: {account}: {:?}",
        account.lost()
    );
    assert_eq!(account.duplicated(), 0, "{what}: {account}");
}

fn in_esp(trace: &Trace) {
    for (local, remote) in [
        (CLIENT_NET, SERVER_NET),
        ("10.3.0.0/16", "10.4.0.0/16"),
        ("2001:db8:c::/64", "2001:db8:d::/64"),
    ] {
        audit::nothing_in_clear(trace, &Selectors::new(local, remote)).expect("all in ESP");
    }
}

#[test]
fn a_route_based_tunnel_and_a_policy_based_one_stand_side_by_side() {
    let net = Topology::new("routed_and_by_policy").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = daemons(&net);
    let link = net.client.run("ip -d link show ipsec0");
    assert!(link.contains("xfrm if_id 0x4547"), "{link}");
    assert!(link.contains("mtu 1400"), "{link}");

    // The first packets of all are held, and start both tunnels.
    let flow = |from: &str, to: &str, port| {
        UdpFlow::new((&net.client, from), (&net.server, to), port)
            .rate(50)
            .count(ENDLESS)
            .start()
    };
    let flows = [
        ("by policy", flow(CLIENT_INNER, SERVER_INNER, 4000)),
        ("routed", flow("10.3.0.1", "10.4.0.1", 4001)),
        ("routed, IPv6", flow("2001:db8:c::1", "2001:db8:d::1", 4002)),
    ];
    for tunnel in ["net", "routed"] {
        client.wait_for(tunnel, LIMIT, |tunnel| tunnel["gate"] == "open");
        server.wait_for(tunnel, LIMIT, |tunnel| tunnel["gate"] == "open");
    }
    let back = UdpFlow::new((&net.server, "10.4.0.1"), (&net.client, "10.3.0.1"), 4003)
        .rate(50)
        .count(ENDLESS)
        .start();
    for _ in 0..2 {
        client.run(&["rekey", "routed"]);
        server.run(&["rekey", "routed"]);
        client.run(&["rekey", "net"]);
    }
    sleep(Duration::from_millis(300));
    for (what, flow) in flows {
        assert_complete(what, &flow.stop(SETTLE));
    }
    assert_complete("routed, back", &back.stop(SETTLE));
    let ike = |tunnel: &str| {
        let status = client.wait_for(tunnel, LIMIT, |_| true);
        status["ike"][0]["initiator_spi"].clone()
    };
    assert_eq!(ike("net"), ike("routed"), "one IKE SA for both");

    let trace = Trace::of(wire.stop(), &keys);
    in_esp(&trace);
    audit::nothing_before_proof(&trace).expect("held until proven");
    let spis = |port| {
        let carried = audit::carried(&trace, port);
        let spis: std::collections::BTreeSet<u32> =
            carried.into_iter().map(|(_, spi)| spi).collect();
        spis
    };
    assert_eq!(spis(4001).len(), 5, "one epoch and four rekeys");
    assert!(spis(4000).is_disjoint(&spis(4001)));

    client.run(&["down", "routed"]);
    let links = net.client.run("ip -br link");
    assert!(!links.contains("ipsec0"), "{links}");
    let left = our_states(&net.client);
    assert!(left.iter().all(|sa| !sa.0.contains("if_id")), "{left:?}");
    assert!(!left.is_empty(), "the other tunnel has its own");
}

#[test]
fn what_is_routed_to_the_interface_waits_while_the_peer_is_silent_and_leaves_in_order() {
    let net = Topology::new("routed_hold").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, _server) = daemons(&net);
    let fault = net.block(&epochgate_integration::Packets::esp());
    let held = UdpFlow::new((&net.client, "10.3.0.1"), (&net.server, "10.4.0.1"), 4000)
        .rate(20)
        .count(40)
        .start();
    sleep(Duration::from_secs(3));
    let status = client.wait_for("routed", LIMIT, |tunnel| {
        tunnel["pings_sent"].as_u64() > Some(0)
    });
    assert_eq!(status["gate"], "held", "{status:#}");
    fault.lift();
    client.wait_for("routed", LIMIT, |tunnel| tunnel["gate"] == "open");
    assert_complete("held", &held.finish(SETTLE));
    let trace = Trace::of(wire.stop(), &keys);
    in_esp(&trace);
    audit::nothing_before_proof(&trace).expect("held until proven");
}

#[test]
fn a_killed_daemon_leaves_the_interface_holding_and_the_next_one_takes_it_over() {
    let net = Topology::new("routed_killed").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (client, server) = daemons(&net);
    client.run(&["up", "routed"]);
    let before = net.client.run("ip -br link show ipsec0");
    client.kill();
    let flow = UdpFlow::new((&net.client, "10.3.0.1"), (&net.server, "10.4.0.1"), 4000)
        .rate(20)
        .count(ENDLESS)
        .start();
    sleep(Duration::from_secs(1));
    let quoted = |network: &str| format!("\"{network}\"");
    let config = client_tunnel("net", &quoted(CLIENT_NET), &quoted(SERVER_NET), "")
        + &client_tunnel("routed", ROUTED_CLIENT, ROUTED_SERVER, INTERFACE);
    let client = Epochgate::start(&net.client, &config);
    client.run(&["up", "routed"]);
    sleep(Duration::from_millis(500));
    let account = flow.stop(SETTLE);
    println!("over a kill: {account}");
    assert!(account.delivered() > 0, "{account}");
    let after = net.client.run("ip -br link show ipsec0");
    assert_eq!(before, after, "the same interface");
    in_esp(&Trace::of(wire.stop(), &keys));
    server.wait_for("routed", LIMIT, |tunnel| tunnel["gate"] == "open");
}

#[test]
fn everything_may_be_routed_to_the_interface_but_the_way_to_the_peer() {
    let net = Topology::new("routed_everything").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = server_tunnel("routed", "\"0.0.0.0/0\"", "\"10.1.0.0/16\"", INTERFACE);
    let client = client_tunnel("routed", "\"10.1.0.0/16\"", "\"0.0.0.0/0\"", INTERFACE);
    let _server = Epochgate::start(&net.server, &server);
    let client = Epochgate::start(&net.client, &client);
    client.wait_for("routed", LIMIT, |tunnel| tunnel["gate"] == "held");
    let sent = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    )
    .count(60)
    .start()
    .finish(SETTLE);
    assert_complete("through a default route", &sent);
    client.wait_for("routed", LIMIT, |tunnel| tunnel["gate"] == "open");
    let trace = Trace::of(wire.stop(), &keys);
    audit::nothing_in_clear(&trace, &Selectors::new(CLIENT_NET, "0.0.0.0/0")).expect("all in ESP");
}
