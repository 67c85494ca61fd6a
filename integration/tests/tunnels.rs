//! More than one: tunnels in one daemon, networks in one tunnel, clients of one server.
//!
//! ```text
//! client  10.1.0.1 ───────────┐                 10.2.0.1  server
//! second  10.3.0.1 ── router (masquerade) ───── 10.4.0.1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{client_config_between, server_config_between};
use epochgate_integration::tables::our_states;
use epochgate_integration::topology::{
    CLIENT_INNER, CLIENT_INNER_V6, CLIENT_NET, CLIENT_NET_V6, SERVER, SERVER_INNER,
    SERVER_INNER_V6, SERVER_NET, SERVER_NET_V6,
};
use epochgate_integration::{
    Account, Epochgate, KeyLog, Selectors, Topology, Trace, UdpFlow, Watch, audit,
};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
const ENDLESS: u64 = 1_000_000;

/// A tunnel of the configuration of a client of `SERVER`.
fn client_tunnel(name: &str, id: &str, server_id: &str, local: &str, remote: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"client\"\n\
         local = {{ id = \"{id}\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"{server_id}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{local}\"], remote = [\"{remote}\"] }}\n"
    )
}

/// Its counterpart.
fn server_tunnel(name: &str, id: &str, client_id: &str, local: &str, remote: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"{id}\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"{client_id}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{local}\"], remote = [\"{remote}\"] }}\n"
    )
}

fn spis(trace: &Trace, port: u16) -> BTreeSet<u32> {
    let carried = audit::carried(trace, port);
    carried.into_iter().map(|(_, spi)| spi).collect()
}

/// All that was sent arrived once; the first packets were held and may be behind a live one.
#[track_caller]
fn assert_complete(what: &str, account: &Account) {
    println!("{what}: {account}");
    assert!(account.refused.is_empty(), "{account}");
    assert!(account.lost().is_empty(), "{account}: {:?}", account.lost());
    assert_eq!(account.duplicated(), 0, "{account}");
}

#[test]
fn two_tunnels_of_one_daemon_live_their_own_lives() {
    let net = Topology::new("two_tunnels").masquerade().build();
    net.client.dummy("lan2", &["10.3.0.1/16"]);
    net.server.dummy("lan2", &["10.4.0.1/16"]);
    let watch = Watch::start(&net);
    let server = server_tunnel("a", "s-a", "c-a", SERVER_NET, CLIENT_NET)
        + &server_tunnel("b", "s-b", "c-b", "10.4.0.0/16", "10.3.0.0/16");
    let client = client_tunnel("a", "c-a", "s-a", CLIENT_NET, SERVER_NET)
        + &client_tunnel("b", "c-b", "s-b", "10.3.0.0/16", "10.4.0.0/16");
    let _server = Epochgate::start(&net.server, &server);
    let client = Epochgate::start(&net.client, &client);

    let flow = |from: &str, to: &str, port| {
        UdpFlow::new((&net.client, from), (&net.server, to), port).count(ENDLESS)
    };
    let a = flow(CLIENT_INNER, SERVER_INNER, 4000).start();
    sleep(Duration::from_millis(300));
    let status = client.wait_for("a", LIMIT, |tunnel| tunnel["gate"] == "open");
    assert_eq!(status["switches"], 1);
    let asleep = client.wait_for("b", LIMIT, |_| true);
    assert_eq!(
        asleep["gate"], "held",
        "traffic of one does not start the other"
    );

    let b = flow("10.3.0.1", "10.4.0.1", 4001).start();
    client.wait_for("b", LIMIT, |tunnel| tunnel["gate"] == "open");
    for _ in 0..3 {
        client.run(&["rekey", "a"]);
    }
    client.run(&["down", "b"]);
    // What b's traffic would do now is not asked; a goes on.
    let b = b.stop(Duration::ZERO);
    sleep(Duration::from_millis(300));
    let a = a.stop(SETTLE);
    assert_complete("a, rekeyed 3 times", &a);
    println!("b, taken down: {b}");
    let status = client.wait_for("b", LIMIT, |_| true);
    assert_eq!(
        (&status["gate"], &status["switches"]),
        (&"down".into(), &1.into())
    );

    let judged = watch.judge();
    let (of_a, of_b) = (spis(&judged.client, 4000), spis(&judged.client, 4001));
    assert_eq!((of_a.len(), of_b.len()), (4, 1));
    assert!(of_a.is_disjoint(&of_b));
}

#[test]
fn every_pair_of_a_tunnels_networks_is_carried_by_one_epoch() {
    let net = Topology::new("pairs").masquerade().build();
    net.client.dummy("lan2", &["10.3.0.1/16"]);
    net.server.dummy("lan2", &["10.4.0.1/16"]);
    let watch = Watch::start(&net);
    let local = [CLIENT_NET, "10.3.0.0/16", CLIENT_NET_V6];
    let remote = [SERVER_NET, "10.4.0.0/16", SERVER_NET_V6];
    let _server = Epochgate::start(&net.server, &server_config_between(&remote, &local, ""));
    let client = Epochgate::start(&net.client, &client_config_between(&local, &remote, ""));

    // The first packets of all five at once: five hold queues, one negotiation.
    let pairs = [
        (CLIENT_INNER, SERVER_INNER),
        (CLIENT_INNER, "10.4.0.1"),
        ("10.3.0.1", SERVER_INNER),
        ("10.3.0.1", "10.4.0.1"),
        (CLIENT_INNER_V6, SERVER_INNER_V6),
    ];
    let ports = 4000..;
    let flows: Vec<_> = pairs
        .into_iter()
        .zip(ports)
        .map(|((from, to), port)| {
            UdpFlow::new((&net.client, from), (&net.server, to), port)
                .count(60)
                .start()
        })
        .collect();
    for (flow, (from, to)) in flows.into_iter().zip(pairs) {
        assert_complete(&format!("{from} to {to}"), &flow.finish(SETTLE));
    }
    let status = client.wait_for("net", LIMIT, |tunnel| tunnel["gate"] == "open");
    assert_eq!(status["switches"], 1);
    assert_eq!(status["refused_traffic"], serde_json::json!([]));
    assert_eq!(our_states(&net.client).len(), 2);
    let judged = watch.judge();
    let used: BTreeSet<_> = (4000..4005)
        .map(|port| spis(&judged.client, port))
        .collect();
    assert_eq!(used.len(), 1, "all in the same epoch: {used:x?}");
    audit::nothing_in_clear(
        &judged.client,
        &Selectors::new("10.3.0.0/16", "10.4.0.0/16"),
    )
    .expect("all in ESP");
}

#[test]
fn two_clients_behind_one_nat_have_a_tunnel_each_with_one_server() {
    let net = Topology::new("two_clients").masquerade().build();
    let second = net.world().host("second");
    net.world().link(
        (&second, &["198.51.100.2/24"]),
        (&net.router, &["198.51.100.1/24"]),
    );
    second.route("default", "198.51.100.1");
    second.dummy("lan", &["10.3.0.1/16"]);
    let watch = Watch::start(&net);
    let second_keys = KeyLog::start(&second);

    let server = server_tunnel("one", "server", "one", SERVER_NET, CLIENT_NET)
        + &server_tunnel("two", "server", "two", SERVER_NET, "10.3.0.0/16");
    let server = Epochgate::start(&net.server, &server);
    let config = client_tunnel("one", "one", "server", CLIENT_NET, SERVER_NET);
    let one = Epochgate::start(&net.client, &config);
    let config = client_tunnel("two", "two", "server", "10.3.0.0/16", SERVER_NET);
    let two = Epochgate::start(&second, &config);

    let flow = |host: &Host, inner: &str, port| {
        let up = UdpFlow::new((host, inner), (&net.server, SERVER_INNER), port);
        let down = UdpFlow::new((&net.server, SERVER_INNER), (host, inner), port + 100);
        (up.count(ENDLESS).start(), down)
    };
    let (up_one, down_one) = flow(&net.client, CLIENT_INNER, 4000);
    let (up_two, down_two) = flow(&second, "10.3.0.1", 4001);
    for (client, name) in [(&one, "one"), (&two, "two")] {
        client.wait_for(name, LIMIT, |tunnel| tunnel["gate"] == "open");
        server.wait_for(name, LIMIT, |tunnel| tunnel["gate"] == "open");
    }
    let (down_one, down_two) = (
        down_one.count(ENDLESS).start(),
        down_two.count(ENDLESS).start(),
    );
    one.run(&["rekey", "one"]);
    two.run(&["rekey", "two"]);
    server.run(&["rekey", "one"]);
    server.run(&["rekey", "two"]);
    sleep(Duration::from_millis(500));
    for (what, flow) in [
        ("one, up", up_one),
        ("two, up", up_two),
        ("one, down", down_one),
        ("two, down", down_two),
    ] {
        assert_complete(what, &flow.stop(SETTLE));
    }
    assert_eq!(
        one.run(&["status", "--json"])
            .matches("\"nat\": true")
            .count(),
        1
    );
    let second_sas = second_keys.sas();
    assert!(second_sas.len() >= 6, "three epochs: {}", second_sas.len());
    let judged = watch.judge();
    for port in [4100, 4101] {
        assert_eq!(spis(&judged.server, port).len(), 3, "one SPI per epoch");
    }
    audit::nothing_in_clear(&judged.server, &Selectors::new("10.3.0.0/16", SERVER_NET))
        .expect("all in ESP");
}
