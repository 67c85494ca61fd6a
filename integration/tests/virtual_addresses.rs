//! Clients that are assigned their addresses: by epochgate from a pool, by strongSwan from its
//! pools; and a strongSwan that asks epochgate for some.
//!
//! ```text
//! client ─────┐                                        10.2.0.1
//! second ── router (masquerades, or not) ─────── server
//! 10.99.0.x, 2001:db8:99::x                            2001:db8:b::1
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::net::Host;
use epochgate_integration::peer::{
    CLIENT_ID, SERVER_ID, is_open, strongswan_client, strongswan_server,
};
use epochgate_integration::tables::{our_policies, our_states};
use epochgate_integration::topology::{
    CLIENT, CLIENT_INNER, CLIENT_NET, SERVER, SERVER_INNER, SERVER_INNER_V6, SERVER_NET,
    SERVER_NET_V6,
};
use epochgate_integration::{
    Account, Epochgate, KeyLog, Selectors, StrongSwan, Topology, Trace, UdpFlow, audit,
};
use serde_json::Value;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
const POOL: &str = "[pool.staff]\n\
                    networks = [\"10.99.0.0/24\", \"2001:db8:99::/64\"]\n\
                    dns = [\"10.2.0.53\"]\n\
                    domains = [\"hq.example\"]\n";

/// A client that asks for both IP versions.
fn client_tunnel(name: &str, id: &str, more: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"client\"\n\
         local = {{ id = \"{id}\", psk-file = \"psk\" }}\n\
         remote = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ remote = [\"{SERVER_NET}\", \"{SERVER_NET_V6}\"] }}\n\
         virtual = {{ request = [\"ipv4\", \"ipv6\"] }}\n{more}\n"
    )
}

/// Its counterpart, with addresses from [`POOL`].
fn server_tunnel(name: &str, id: &str) -> String {
    format!(
        "[tunnel.{name}]\n\
         role = \"server\"\n\
         local = {{ address = \"{SERVER}\", id = \"{SERVER_ID}\", psk-file = \"psk\" }}\n\
         remote = {{ id = \"{id}\" }}\n\
         policy = \"site-to-site\"\n\
         traffic = {{ local = [\"{SERVER_NET}\", \"{SERVER_NET_V6}\"] }}\n\
         virtual = {{ pools = [\"staff\"] }}\n"
    )
}

/// The IPv4 and the IPv6 address of an open tunnel.
fn assigned(tunnel: &Value) -> [String; 2] {
    let addresses = tunnel["virtual_addresses"].as_array().expect("addresses");
    let of = |colon: bool| {
        let texts = addresses.iter().filter_map(Value::as_str);
        let mut found = texts.filter(|text| text.contains(':') == colon);
        found.next().expect("one of each IP version").to_owned()
    };
    [of(false), of(true)]
}

/// The addresses of ours that the kernel has: nobody else has any on the loopback interface.
fn in_kernel(host: &Host) -> String {
    host.run("ip -o address show dev lo scope global")
}

fn both_ways(client: &Host, addresses: &[String; 2], server: &Host, port: u16) -> Vec<UdpFlow> {
    let [v4, v6] = addresses;
    let pairs = [(v4, SERVER_INNER), (v6, SERVER_INNER_V6)];
    let ports = (port..).step_by(2);
    pairs
        .into_iter()
        .zip(ports)
        .flat_map(|((inner, target), port)| {
            [
                UdpFlow::new((client, inner), (server, target), port).count(60),
                UdpFlow::new((server, target), (client, inner), port + 1).count(60),
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

/// Nothing to the server's networks left the client but in ESP, from whatever address.
#[track_caller]
fn assert_nothing_in_clear(trace: &Trace) {
    for (any, net) in [("0.0.0.0/0", SERVER_NET), ("::/0", SERVER_NET_V6)] {
        audit::nothing_in_clear(trace, &Selectors::new(any, net)).expect("all in ESP");
    }
}

#[test]
fn two_clients_behind_one_nat_have_addresses_of_one_pool() {
    let net = Topology::new("virtual_two").masquerade().build();
    let second = net.world().host("second");
    net.world().link(
        (&second, &["198.51.100.2/24"]),
        (&net.router, &["198.51.100.1/24"]),
    );
    second.route("default", "198.51.100.1");
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let (server_keys, server_wire) = (net.server_keys(), net.capture_server());
    let second_keys = KeyLog::start(&second);

    let config = format!(
        "{POOL}{}{}",
        server_tunnel("one", "one.example"),
        server_tunnel("two", "two.example")
    );
    let server = Epochgate::start(&net.server, &config);
    let one = Epochgate::start(&net.client, &client_tunnel("one", "one.example", ""));
    let two = Epochgate::start(&second, &client_tunnel("two", "two.example", ""));
    let of_one = assigned(&one.wait_for("one", LIMIT, is_open));
    let of_two = assigned(&two.wait_for("two", LIMIT, is_open));
    assert!(of_one[0] != of_two[0] && of_one[1] != of_two[1]);
    for (name, addresses) in [("one", &of_one), ("two", &of_two)] {
        let leased = server.wait_for(name, LIMIT, is_open);
        assert_eq!(assigned(&leased), *addresses);
    }

    let mut flows = both_ways(&net.client, &of_one, &net.server, 4000);
    flows.extend(both_ways(&second, &of_two, &net.server, 4010));
    let running: Vec<_> = flows.into_iter().map(UdpFlow::start).collect();
    one.run(&["rekey", "one"]);
    // From another address of the client nothing passes, in whatever form.
    let stray = UdpFlow::new((&net.client, CLIENT), (&net.server, SERVER_INNER), 4020);
    let stray = stray.count(5).start().finish(Duration::ZERO);
    for flow in running {
        assert_complete(&flow.finish(SETTLE));
    }
    assert_eq!(stray.delivered(), 0);
    assert!(second_keys.sas().len() >= 2);

    let trace = Trace::of(wire.stop(), &keys);
    assert_nothing_in_clear(&trace);
    audit::nothing_before_proof(&trace).expect("held until proven");
    let trace = Trace::of(server_wire.stop(), &server_keys);
    assert_nothing_in_clear(&trace);
}

#[test]
fn an_assigned_address_is_the_hosts_while_policies_are_and_is_asked_for_again() {
    let net = Topology::new("virtual_life").build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let config = format!("{POOL}{}", server_tunnel("laptop", CLIENT_ID));
    let _server = Epochgate::start(&net.server, &config);
    let config = client_tunnel("laptop", CLIENT_ID, "");
    let client = Epochgate::start(&net.client, &config);
    let addresses = assigned(&client.wait_for("laptop", LIMIT, is_open));
    let kernel = in_kernel(&net.client);
    for address in &addresses {
        assert!(kernel.contains(address.as_str()), "{kernel}");
    }
    // A program that binds no address sends from the assigned one.
    for (target, address) in [SERVER_INNER, SERVER_INNER_V6].into_iter().zip(&addresses) {
        assert_sends_from(&net.client, target, address);
    }
    let resolver = net.client.folder().join("state/laptop.resolv.conf");
    let told = fs::read_to_string(&resolver).expect("a file");
    assert!(
        told.contains("search hq.example\nnameserver 10.2.0.53\n"),
        "{told}"
    );

    // A crash leaves it where it was, and the next run asks for it again.
    client.kill();
    assert_eq!(in_kernel(&net.client), kernel);
    let client = Epochgate::start(&net.client, &config);
    let again = assigned(&client.wait_for("laptop", LIMIT, is_open));
    assert_eq!(again, addresses);
    for flow in both_ways(&net.client, &addresses, &net.server, 4000) {
        assert_complete(&flow.start().finish(SETTLE));
    }

    client.run(&["down", "laptop"]);
    assert_eq!(in_kernel(&net.client), "");
    assert!(!resolver.exists());
    assert!(our_policies(&net.client).is_empty());
    assert!(our_states(&net.client).is_empty());
    assert_nothing_in_clear(&Trace::of(wire.stop(), &keys));
}

/// The route follows when the kernel has told the daemon of the address, which may be after the gate
/// has opened; until then the guards hold what a program sends from elsewhere.
#[track_caller]
fn assert_sends_from(host: &Host, target: &str, address: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let route = host.run(&format!("ip route get {target}"));
        if route.contains(&format!("src {address}")) {
            return;
        }
        assert!(Instant::now() < deadline, "{route}");
        thread::sleep(POLL);
    }
}

#[test]
fn an_exhausted_pool_is_told_and_no_child_sa_is_made() {
    let net = Topology::new("virtual_exhausted").build();
    let second = net.world().host("second");
    net.world().link(
        (&second, &["198.51.100.2/24"]),
        (&net.router, &["198.51.100.1/24"]),
    );
    second.route("default", "198.51.100.1");
    let pool = "[pool.staff]\nnetworks = [\"10.99.0.9/32\", \"2001:db8:99::9/128\"]\n";
    let config = format!(
        "{pool}{}{}",
        server_tunnel("one", "one.example"),
        server_tunnel("two", "two.example")
    );
    let server = Epochgate::start(&net.server, &config);
    let one = Epochgate::start(&net.client, &client_tunnel("one", "one.example", ""));
    one.wait_for("one", LIMIT, is_open);
    let two = Epochgate::start(&second, &client_tunnel("two", "two.example", ""));
    let refused = |tunnel: &Value| {
        let error = tunnel["last_error"].as_str().unwrap_or_default();
        error.contains("INTERNAL_ADDRESS_FAILURE")
    };
    two.wait_for("two", LIMIT, refused);
    assert!(our_states(&second).is_empty());
    assert_eq!(in_kernel(&second), "");
    // It becomes free, and the other one's next attempts get it.
    one.run(&["down", "one"]);
    let addresses = assigned(&two.wait_for("two", LIMIT, is_open));
    assert_eq!(addresses, ["10.99.0.9", "2001:db8:99::9"]);
    server.wait_for("two", LIMIT, is_open);
    for flow in both_ways(&second, &addresses, &net.server, 4000) {
        assert_complete(&flow.start().finish(SETTLE));
    }
}

/// strongSwan with networks of both IP versions, as a server with pools of its own.
fn strongswan_with_pools() -> String {
    let pools = "pools {
    v4 {
        addrs = 10.99.0.0/24
        dns = 10.2.0.53
    }
    v6 {
        addrs = 2001:db8:99::/120
    }
}
";
    let server = strongswan_server("").replace(
        &format!("local_ts = {SERVER_NET}"),
        &format!("local_ts = {SERVER_NET},{SERVER_NET_V6}"),
    );
    let server = server.replace(&format!("remote_ts = {CLIENT_NET}"), "remote_ts = dynamic");
    server.replace("version = 2", "version = 2\n        pools = v4, v6") + pools
}

#[test]
fn a_strongswan_server_assigns_addresses_to_epochgate() {
    let net = Topology::new("virtual_from_strongswan")
        .masquerade()
        .build();
    let (keys, wire) = (net.client_keys(), net.capture_client());
    let server = StrongSwan::start(&net.server, &strongswan_with_pools());
    let ping = format!("ping = {{ target = \"{SERVER_INNER}\" }}");
    let client = Epochgate::start(&net.client, &client_tunnel("laptop", CLIENT_ID, &ping));
    let tunnel = client.wait_for("laptop", LIMIT, is_open);
    let addresses = assigned(&tunnel);
    assert!(addresses[0].starts_with("10.99.0."), "{addresses:?}");
    assert!(addresses[1].starts_with("2001:db8:99::"), "{addresses:?}");
    assert_eq!(tunnel["dns"][0], "10.2.0.53");
    let flows = both_ways(&net.client, &addresses, &net.server, 4000);
    let running: Vec<_> = flows.into_iter().map(UdpFlow::start).collect();
    client.run(&["rekey", "laptop"]);
    for flow in running {
        assert_complete(&flow.finish(SETTLE));
    }
    client.run(&["down", "laptop"]);
    assert_eq!(in_kernel(&net.client), "");
    // strongSwan has heard of it and keeps nothing.
    assert_eq!(server.installed(), 0);
    let trace = Trace::of(wire.stop(), &keys);
    assert_nothing_in_clear(&trace);
    audit::nothing_before_proof(&trace).expect("held until proven");
}

#[test]
fn epochgate_assigns_addresses_to_a_strongswan_client() {
    let net = Topology::new("virtual_to_strongswan").masquerade().build();
    let (keys, wire) = (net.server_keys(), net.capture_server());
    let config = format!("{POOL}{}", server_tunnel("laptop", CLIENT_ID));
    let server = Epochgate::start(&net.server, &config);
    let conf = strongswan_client("")
        .replace(&format!("local_ts = {CLIENT_NET}"), "local_ts = dynamic")
        .replace(
            &format!("remote_ts = {SERVER_NET}"),
            &format!("remote_ts = {SERVER_NET},{SERVER_NET_V6}"),
        )
        .replace("version = 2", "version = 2\n        vips = 0.0.0.0, ::");
    let client = StrongSwan::start(&net.client, &conf);
    client.initiate();
    let leased = |tunnel: &Value| tunnel["epochs"].as_array().is_some_and(|it| !it.is_empty());
    let addresses = assigned(&server.wait_for("laptop", LIMIT, leased));
    let kernel = net.client.run("ip -o address");
    for address in &addresses {
        assert!(kernel.contains(address.as_str()), "{kernel}");
    }
    // The client's own traffic proves the way, and opens the server's gate.
    for flow in both_ways(&net.client, &addresses, &net.server, 4000) {
        assert_complete(&flow.start().finish(SETTLE));
    }
    server.wait_for("laptop", LIMIT, is_open);
    client.terminate();
    assert_nothing_in_clear(&Trace::of(wire.stop(), &keys));
    // What the client's LAN would be is not in it.
    assert_eq!(
        net.client
            .run(&format!("ip -o address show to {CLIENT_INNER}"))
            .lines()
            .count(),
        1
    );
}
