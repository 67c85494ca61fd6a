//! One IP version inside the other: what is inside does not depend on what is outside.
//!
//! ```text
//! client 2001:db8:1::2 ── router ── 2001:db8:2::1 server      outside, or IPv4
//! 10.1.0.1, 2001:db8:a::1           10.2.0.1, 2001:db8:b::1   inside
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{
    client_config_between, is_open, server_config_between, strongswan_client, strongswan_server,
};
use epochgate_integration::topology::{
    CLIENT_INNER, CLIENT_INNER_V6, CLIENT_NET, CLIENT_NET_V6, SERVER, SERVER_INNER,
    SERVER_INNER_V6, SERVER_NET, SERVER_NET_V6, SERVER_V6,
};
use epochgate_integration::{
    Account, Epochgate, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit,
};
use std::thread::sleep;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(15);
const CLIENT_NETS: [&str; 2] = [CLIENT_NET, CLIENT_NET_V6];
const SERVER_NETS: [&str; 2] = [SERVER_NET, SERVER_NET_V6];

/// The same with another outer address of the server.
fn outside(config: String, server: &str) -> String {
    config.replace(SERVER, server)
}

fn flows(net: &Topology, port: u16) -> Vec<UdpFlow> {
    let v4 = (CLIENT_INNER, SERVER_INNER);
    let v6 = (CLIENT_INNER_V6, SERVER_INNER_V6);
    let both = [(v4, port), (v6, port + 2)].into_iter();
    both.flat_map(|((client, server), port)| {
        let (client, server) = ((&net.client, client), (&net.server, server));
        [
            UdpFlow::new(client, server, port).count(60),
            UdpFlow::new(server, client, port + 1).count(60),
        ]
    })
    .collect()
}

#[track_caller]
fn assert_complete(account: &Account) {
    println!("{account}");
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

#[track_caller]
fn assert_nothing_in_clear(trace: &Trace) {
    for (client, server) in CLIENT_NETS.into_iter().zip(SERVER_NETS) {
        audit::nothing_in_clear(trace, &Selectors::new(client, server)).expect("all in ESP");
    }
}

#[test]
fn both_ip_versions_go_inside_ipv6() {
    both_inside("inside_v6", SERVER_V6);
}

#[test]
fn both_ip_versions_go_inside_ipv4_without_nat() {
    both_inside("inside_v4", SERVER);
}

fn both_inside(name: &str, outer: &str) {
    let net = Topology::new(name).build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = server_config_between(&SERVER_NETS, &CLIENT_NETS, "");
    let _server = Epochgate::start(&net.server, &outside(server, outer));
    let client = client_config_between(&CLIENT_NETS, &SERVER_NETS, "");
    let client = Epochgate::start(&net.client, &outside(client, outer));
    // All four directions at once into a cold tunnel, and through a rekey.
    let endless = |flow: UdpFlow| flow.count(1_000_000).start();
    let running: Vec<_> = flows(&net, 4000).into_iter().map(endless).collect();
    let tunnel = client.wait_for("net", LIMIT, is_open);
    assert_eq!(tunnel["epochs"][0]["udp_encapsulated"], false);
    client.run(&["rekey", "net"]);
    sleep(Duration::from_millis(300));
    for flow in running {
        assert_complete(&flow.stop(SETTLE));
    }
    let trace = Trace::of(wire.stop(), &keys);
    assert_nothing_in_clear(&trace);
    let used = audit::nothing_before_proof(&trace).expect("held until proven");
    assert_eq!(used.len(), 2, "two epochs");
}

/// strongSwan's configuration with networks of both IP versions, over IPv6.
fn strongswan_over_v6(conf: String) -> String {
    let both = |conf: String, side: &str, v4: &str, v6: &str| {
        conf.replace(&format!("{side} = {v4}"), &format!("{side} = {v4},{v6}"))
    };
    let mut conf = outside(conf, SERVER_V6);
    for side in ["local_ts", "remote_ts"] {
        conf = both(conf, side, CLIENT_NET, CLIENT_NET_V6);
        conf = both(conf, side, SERVER_NET, SERVER_NET_V6);
    }
    conf
}

#[test]
fn both_ip_versions_go_inside_ipv6_to_a_strongswan_server() {
    let net = Topology::new("inside_v6_to_strongswan").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = strongswan_over_v6(strongswan_server(""));
    let _server = StrongSwan::start(&net.server, &server);
    let ping = format!("ping = {{ target = \"{SERVER_INNER}\" }}");
    let client = client_config_between(&CLIENT_NETS, &SERVER_NETS, &ping);
    let client = Epochgate::start(&net.client, &outside(client, SERVER_V6));
    client.run(&["up", "net"]);
    client.wait_for("net", LIMIT, is_open);
    for flow in flows(&net, 4000) {
        assert_complete(&flow.start().finish(SETTLE));
    }
    assert_nothing_in_clear(&Trace::of(wire.stop(), &keys));
}

#[test]
fn both_ip_versions_go_inside_ipv6_from_a_strongswan_client() {
    let net = Topology::new("inside_v6_from_strongswan").build();
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let server = server_config_between(&SERVER_NETS, &CLIENT_NETS, "");
    let server = Epochgate::start(&net.server, &outside(server, SERVER_V6));
    let client = strongswan_over_v6(strongswan_client(""));
    let client = StrongSwan::start(&net.client, &client);
    client.initiate();
    for flow in flows(&net, 4000) {
        assert_complete(&flow.start().finish(SETTLE));
    }
    server.wait_for("net", LIMIT, is_open);
    assert_nothing_in_clear(&Trace::of(wire.stop(), &keys));
}
