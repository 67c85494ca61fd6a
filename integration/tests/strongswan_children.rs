//! A strongSwan with two children on one connection: two tunnels here, one IKE SA.
//!
//! ```text
//! 10.1.0.1, 10.3.0.1 ─ client ─ router ─ server ─ 10.2.0.1, 10.4.0.1
//!                  net: 10.1 ↔ 10.2, annex: 10.3 ↔ 10.4
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::peer::{
    client_config, is_open, server_config, strongswan_client, strongswan_server,
};
use epochgate_integration::topology::{CLIENT_INNER, CLIENT_NET, SERVER_INNER, SERVER_NET};
use epochgate_integration::{
    Account, Epochgate, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit,
};
use serde_json::Value;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const CLIENT_ANNEX: &str = "10.3.0.0/16";
const SERVER_ANNEX: &str = "10.4.0.0/16";

/// IKE_SA_INIT and IKE_AUTH (RFC 7296 §3.1).
const HANDSHAKE: [u8; 2] = [34, 35];

/// The tunnel of a configuration, and a second one between other networks.
fn both(tunnel: &str, local: (&str, &str), remote: (&str, &str), pings: (&str, &str)) -> String {
    let ping = |target: &str| format!("\n[tunnel.net.ping]\ntarget = \"{target}\"\n");
    let first = format!("{tunnel}{}", ping(pings.0));
    let second = format!("{tunnel}{}", ping(pings.1))
        .replace(local.0, local.1)
        .replace(remote.0, remote.1)
        .replace("[tunnel.net", "[tunnel.annex");
    first + &second
}

/// A second child in the connection of a `swanctl.conf`.
fn two_children(conf: &str, local: &str, remote: &str) -> String {
    let annex = format!(
        "children {{\n annex {{\n local_ts = {local}\n remote_ts = {remote}\n \
         esp_proposals = aes256gcm16,aes128gcm16\n rekey_time = 0\n }}\n"
    );
    conf.replacen("children {", &annex, 1)
}

fn network(name: &str) -> Topology {
    let net = Topology::new(name).build();
    net.client.dummy("lan2", &["10.3.0.1/16"]);
    net.server.dummy("lan2", &["10.4.0.1/16"]);
    net
}

fn ike_sa(daemon: &Epochgate, tunnel: &str) -> Value {
    let status = daemon.wait_for(tunnel, LIMIT, is_open);
    let sas = status["ike"].as_array().expect("IKE SAs");
    assert_eq!(sas.len(), 1, "{status:#}");
    sas[0]["initiator_spi"].clone()
}

#[track_caller]
fn assert_complete(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert!(account.refused.is_empty(), "{what}: {account}");
    assert!(account.lost().is_empty(), "{what}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{what}: {account}");
}

fn audited(trace: &Trace) {
    for (local, remote) in [(CLIENT_NET, SERVER_NET), (CLIENT_ANNEX, SERVER_ANNEX)] {
        audit::nothing_in_clear(trace, &Selectors::new(local, remote)).expect("all in ESP");
    }
    let handshakes: Vec<_> = audit::exchanges(trace)
        .into_iter()
        .filter(|(exchange, _)| HANDSHAKE.contains(exchange))
        .collect();
    assert_eq!(handshakes, [(34, 1), (35, 1)], "one IKE SA for both");
}

#[test]
fn two_tunnels_to_a_strongswan_server_are_two_child_sas_of_one_ike_sa() {
    let net = network("children_of_server");
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let conf = strongswan_server("rekey_time = 0");
    let _server = StrongSwan::start(
        &net.server,
        &two_children(&conf, SERVER_ANNEX, CLIENT_ANNEX),
    );
    let config = both(
        &client_config(""),
        (CLIENT_NET, CLIENT_ANNEX),
        (SERVER_NET, SERVER_ANNEX),
        (SERVER_INNER, "10.4.0.1"),
    );
    let client = Epochgate::start(&net.client, &config);
    for tunnel in ["net", "annex"] {
        client.wait_for(tunnel, LIMIT, |tunnel| tunnel["gate"] == "held");
    }
    let flow = |from: &str, to: &str, port| {
        UdpFlow::new((&net.client, from), (&net.server, to), port)
            .rate(50)
            .count(1_000_000)
            .start()
    };
    let first = flow(CLIENT_INNER, SERVER_INNER, 4000);
    let second = flow("10.3.0.1", "10.4.0.1", 4001);
    assert_eq!(ike_sa(&client, "net"), ike_sa(&client, "annex"));
    client.run(&["rekey", "annex"]);
    client.run(&["rekey", "net"]);
    let second = second.stop(SETTLE);
    client.run(&["down", "annex"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_complete("the first", &first.stop(SETTLE));
    assert_complete("the second", &second);
    client.wait_for("net", LIMIT, is_open);
    audited(&Trace::of(wire.stop(), &keys));
}

#[test]
fn two_children_of_a_strongswan_client_are_two_tunnels_of_one_ike_sa() {
    let net = network("children_of_client");
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let config = both(
        &server_config(""),
        (SERVER_NET, SERVER_ANNEX),
        (CLIENT_NET, CLIENT_ANNEX),
        (CLIENT_INNER, "10.3.0.1"),
    );
    let server = Epochgate::start(&net.server, &config);
    for tunnel in ["net", "annex"] {
        server.wait_for(tunnel, LIMIT, |tunnel| tunnel["gate"] == "held");
    }
    let conf = strongswan_client("rekey_time = 0");
    let client = StrongSwan::start(
        &net.client,
        &two_children(&conf, CLIENT_ANNEX, SERVER_ANNEX),
    );
    for child in ["net", "annex"] {
        client.swanctl(&["--initiate", "--child", child, "--timeout", "20"]);
    }
    assert_eq!(ike_sa(&server, "net"), ike_sa(&server, "annex"));
    let flow = |from: &str, to: &str, port| {
        UdpFlow::new((&net.server, from), (&net.client, to), port)
            .count(100)
            .start()
    };
    let first = flow(SERVER_INNER, CLIENT_INNER, 4000);
    let second = flow("10.4.0.1", "10.3.0.1", 4001);
    client.rekey_child("annex");
    assert_complete("the first", &first.finish(SETTLE));
    assert_complete("the second", &second.finish(SETTLE));
    client.swanctl(&["--terminate", "--child", "annex"]);
    server.wait_for("annex", LIMIT, |tunnel| tunnel["gate"] == "held");
    server.wait_for("net", LIMIT, is_open);
    audited(&Trace::of(wire.stop(), &keys));
}
