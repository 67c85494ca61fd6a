//! The framework is tested on the real kernel too: an audit that cannot fail proves nothing.
#![cfg(feature = "kernel")]

use epochgate_integration::esp::CONTROL_PING;
use epochgate_integration::topology::{
    CLIENT, CLIENT_INNER, CLIENT_LAN, CLIENT_NET, SERVER, SERVER_INNER, SERVER_LAN, SERVER_NET,
};
use epochgate_integration::{
    KeyLog, Packet, Packets, Selectors, TcpFlow, Topology, Trace, UdpFlow, World, audit,
};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use socket2::{Domain, Protocol, Socket, Type};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(2);
const TCP_LIMIT: Duration = Duration::from_secs(20);

const OUT: u32 = 0x1000;
const IN: u32 = 0x2000;

fn protected() -> Selectors {
    Selectors::new(CLIENT_NET, SERVER_NET)
}

/// A tunnel with fixed keys, made with `ip xfrm` at both ends: client → server on [`OUT`].
fn static_tunnel(net: &Topology) {
    for (host, local, remote) in [
        (&net.client, CLIENT_NET, SERVER_NET),
        (&net.server, SERVER_NET, CLIENT_NET),
    ] {
        let (own, peer) = if host.name() == "client" {
            (CLIENT, SERVER)
        } else {
            (SERVER, CLIENT)
        };
        let mut batch = String::new();
        for (src, dst, spi, key) in [(CLIENT, SERVER, OUT, "11"), (SERVER, CLIENT, IN, "22")] {
            batch += &format!(
                "xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid 7 mode tunnel \
                 replay-window 32 aead rfc4106(gcm(aes)) 0x{} 128\n",
                key.repeat(20)
            );
        }
        for (dir, from, to, src, dst) in [
            ("out", local, remote, own, peer),
            ("in", remote, local, peer, own),
            ("fwd", remote, local, peer, own),
        ] {
            batch += &format!(
                "xfrm policy add src {from} dst {to} dir {dir} \
                 tmpl src {src} dst {dst} proto esp reqid 7 mode tunnel\n"
            );
        }
        host.ip_batch(&batch);
        host.run(&format!(
            "ip route replace {remote} dev router src {} via {}",
            inner(host.name()),
            gateway(host.name())
        ));
    }
}

fn inner(host: &str) -> &'static str {
    if host == "client" {
        CLIENT_INNER
    } else {
        SERVER_INNER
    }
}

fn gateway(host: &str) -> &'static str {
    if host == "client" {
        "192.0.2.1"
    } else {
        "203.0.113.254"
    }
}

#[test]
fn captured_esp_shows_its_inner_packets() {
    // client 10.1.0.1 ── router ── 10.2.0.1 server, ESP with keys that the kernels tell
    let net = Topology::new("inner_packets").build();
    let keys = net.client_keys();
    let wire = net.capture_client();
    static_tunnel(&net);

    let flow = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    let account = flow.rate(200).count(50).start().finish(SETTLE);
    account.assert_perfect();

    assert_eq!(keys.pairs(CLIENT.parse().unwrap()), [(IN, OUT)]);
    let trace = Trace::of(wire.stop(), &keys);
    let expected: Vec<_> = (0..50).map(|sequence| (sequence, OUT)).collect();
    assert_eq!(audit::carried(&trace, 4000), expected);
    assert_eq!(trace.sent_spis(), [OUT]);
    audit::nothing_in_clear(&trace, &protected()).expect("all of it was in ESP");
}

#[test]
fn the_key_log_knows_an_sa_that_lived_for_a_moment_and_its_successor() {
    let net = Topology::new("short_lived").build();
    let add = |key: &str| {
        format!(
            "xfrm state add src {CLIENT} dst {SERVER} proto esp spi {OUT:#x} reqid 7 mode tunnel \
             aead rfc4106(gcm(aes)) 0x{} 128\n",
            key.repeat(20)
        )
    };
    let delete = format!("xfrm state delete dst {SERVER} proto esp spi {OUT:#x}\n");
    net.client.ip_batch(&add("11"));
    let keys = net.client_keys();
    assert_eq!(keys.sas().len(), 1, "what was there already");
    net.client
        .ip_batch(&format!("{delete}{}{delete}{}", add("22"), add("33")));
    let sas = keys.sas();
    assert!(
        sas.iter().all(|sa| (sa.spi, sa.reqid) == (OUT, 7)),
        "{sas:?}"
    );
    assert_eq!(sas.len(), 3);
}

#[test]
fn a_packet_in_clear_fails_the_audit() {
    let net = Topology::new("in_clear").build();
    let keys = net.client_keys();
    let wire = net.capture_client();
    // No policy: it leaves as it is, and the router has no way for it.
    let flow = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    let account = flow.count(1).start().finish(Duration::from_millis(200));
    assert_eq!(account.lost(), [0]);
    let trace = Trace::of(wire.stop(), &keys);
    let violation = audit::nothing_in_clear(&trace, &protected()).expect_err("one was in clear");
    assert!(violation.what.contains(SERVER_INNER), "{violation}");
}

#[test]
fn traffic_on_an_unproven_spi_fails_the_audit_and_a_ping_cures_it() {
    let net = Topology::new("unproven").build();
    let keys = net.client_keys();
    let wire = net.capture_client();
    static_tunnel(&net);
    net.client.run("ping -c 1 -W 2 -I 10.1.0.1 10.2.0.1");
    let unproven = Trace::of(wire.stop(), &keys);
    audit::nothing_before_proof(&unproven).expect_err("a plain ping proves nothing");

    let wire = net.capture_client();
    control_ping(&net);
    net.client.run("ping -c 1 -W 2 -I 10.1.0.1 10.2.0.1");
    let proven = Trace::of(wire.stop(), &keys);
    let used = audit::nothing_before_proof(&proven).expect("the control ping came first");
    assert_eq!(used.into_keys().collect::<Vec<_>>(), [OUT]);
}

/// Sends a control ping from the client and waits for its reply.
fn control_ping(net: &Topology) {
    let payload = [CONTROL_PING, &7_u64.to_be_bytes()[..]].concat();
    let echo = IcmpEchoHeader { id: 1, seq: 1 };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &payload);
    let request = [header.to_bytes().as_slice(), &payload].concat();
    let address = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 0).into();
    net.client.within(|| {
        let socket =
            Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("a raw socket");
        socket.bind(&address(CLIENT_INNER)).expect("its address");
        socket.set_read_timeout(Some(SETTLE)).expect("a time limit");
        socket
            .send_to(&request, &address(SERVER_INNER))
            .expect("a way");
        let mut reply = [MaybeUninit::uninit(); 100];
        socket.recv(&mut reply).expect("a reply");
    });
}

#[test]
fn a_server_that_speaks_first_fails_the_audit() {
    let net = Topology::new("speaks_first").build();
    let keys = net.server_keys();
    let wire = net.capture_server();
    static_tunnel(&net);
    net.server.run("ping -c 1 -W 2 -I 10.2.0.1 10.1.0.1");
    let trace = Trace::of(wire.stop(), &keys);
    let pairs = keys.pairs(SERVER.parse().unwrap());
    assert_eq!(pairs, [(OUT, IN)]);
    audit::server_waits(&trace, &pairs).expect_err("nothing had arrived");

    let wire = net.capture_server();
    net.client.run("ping -c 1 -W 2 -I 10.1.0.1 10.2.0.1");
    let trace = Trace::of(wire.stop(), &keys);
    assert_eq!(audit::server_waits(&trace, &pairs), Ok(1));
}

#[test]
fn fast_traffic_both_ways_is_neither_lost_nor_missed_by_the_captures() {
    let net = Topology::new("fast")
        .masquerade()
        .round_trip(Duration::from_millis(20))
        .build();
    let keys = KeyLog::start(&net.client);
    let (left, right) = (net.capture_client(), net.capture_server());
    static_tunnel_without_nat(&net);
    let up = UdpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        4000,
    );
    let down = UdpFlow::new(
        (&net.server, SERVER_INNER),
        (&net.client, CLIENT_INNER),
        4001,
    );
    let began = Instant::now();
    let (up, down) = (
        up.rate(1_500).count(6_000).start(),
        down.rate(1_500).count(6_000).start(),
    );
    let (up, down) = (up.finish(SETTLE), down.finish(SETTLE));
    let took = began.elapsed();
    println!("up: {up}\ndown: {down}\nin {took:?}");
    up.assert_perfect();
    down.assert_perfect();
    assert_eq!(
        audit::carried(&Trace::of(left.stop(), &keys), 4000).len(),
        6_000
    );
    assert_eq!(
        audit::carried(&Trace::of(right.stop(), &keys), 4001).len(),
        6_000
    );
}

/// A static tunnel needs addresses that no NAT rewrites.
fn static_tunnel_without_nat(net: &Topology) {
    net.router.run("nft delete table ip nat");
    static_tunnel(net);
}

#[test]
fn rules_drop_what_they_name_and_nothing_else() {
    let net = Topology::new("rules").build();
    static_tunnel(&net);
    let ping = "ping -c 1 -W 1 -I 10.1.0.1 10.2.0.1";
    let passes = || {
        let mut words = ping.split(' ');
        let mut command = Command::new(words.next().unwrap());
        net.client.output(command.args(words)).status.success()
    };
    assert!(passes());

    let fault = net.block(&Packets::esp());
    assert!(!passes());
    assert_eq!(fault.count(), 1);
    net.client.run("ping -c 1 -W 1 203.0.113.1");
    fault.lift();
    assert!(passes());

    let fault = net.block(&Packets::esp_except_on(&[OUT]));
    assert!(!passes(), "the reply comes on the other SPI");
    fault.lift();
    let fault = net.block(&Packets::esp_except_on(&[OUT, IN]));
    assert!(passes());
    fault.lift();
    let fault = net.block(&Packets::esp_on(&[IN]).from(SERVER.parse().unwrap()));
    assert!(!passes());
    fault.lift();
    for rules in [
        Packets::ike(),
        Packets::ike_responses(),
        Packets::ike_responses_of(36),
        Packets::ike_requests_of(36),
    ] {
        let fault = net.block(&rules);
        assert!(passes());
        assert_eq!(fault.count(), 0);
        fault.lift();
    }
}

#[test]
fn ike_rules_tell_responses_and_exchanges_apart() {
    let net = Topology::new("ike_rules").build();
    let keys = net.client_keys();
    let wire = net.capture_server();
    let fault = net.block(&Packets::ike_responses_of(36));
    // An IKE header: SPIs, next payload, version 2.0, exchange type, flags, message ID, length.
    let message = |exchange: u8, flags: u8| {
        let mut message = [7; 28];
        message[16..20].copy_from_slice(&[0, 0x20, exchange, flags]);
        message[20..28].copy_from_slice(&[0, 0, 0, 5, 0, 0, 0, 28]);
        message.to_vec()
    };
    let send = |port: u16, bytes: Vec<u8>| {
        net.client.within(|| {
            let socket = std::net::UdpSocket::bind((CLIENT, port)).unwrap();
            socket.send_to(&bytes, (SERVER, port)).unwrap();
        });
    };
    let behind_marker = |bytes: Vec<u8>| [vec![0; 4], bytes].concat();
    for (exchange, flags) in [(36, 0x20), (36, 0x08), (35, 0x20)] {
        send(500, message(exchange, flags));
        send(4500, behind_marker(message(exchange, flags)));
    }
    assert_eq!(fault.count(), 2);
    let trace = Trace::of(wire.stop(), &keys);
    // The server's side of the router saw what it let pass, as received.
    let passed: Vec<_> = trace
        .received()
        .filter_map(|entry| match entry.packet {
            Packet::Ike {
                exchange,
                response,
                message_id: 5,
                ..
            } => Some((exchange, response)),
            _ => None,
        })
        .collect();
    assert_eq!(passed, [(36, false), (36, false), (35, true), (35, true)]);
}

#[test]
fn a_tcp_stream_arrives_byte_for_byte_through_loss() {
    let net = Topology::new("tcp")
        .round_trip(Duration::from_millis(10))
        .loss(5.0)
        .build();
    static_tunnel(&net);
    let flow = TcpFlow::new(
        (&net.client, CLIENT_INNER),
        (&net.server, SERVER_INNER),
        5000,
    );
    let report = flow
        .bytes(200_000)
        .start(TCP_LIMIT)
        .finish()
        .expect("TCP repairs what is lost");
    assert_eq!(report.bytes, 200_000);
    assert!(report.retransmissions > 0, "{report:?}");
}

#[test]
fn only_chosen_packets_are_late() {
    let net = Topology::new("late")
        .round_trip(Duration::from_millis(20))
        .build();
    let fault = net.to_server.delay_packets(
        &Packets::all().from("10.9.9.9".parse().unwrap()),
        Duration::from_millis(300),
    );
    let took = |line: &str| {
        let began = Instant::now();
        net.client.run(line);
        began.elapsed()
    };
    let usual = took("ping -c 1 -W 2 203.0.113.1");
    assert!(
        usual > Duration::from_millis(20) && usual < Duration::from_millis(200),
        "{usual:?}"
    );
    net.client.run("ip address add 10.9.9.9/32 dev lan");
    net.router.run("ip route add 10.9.9.9/32 via 192.0.2.2");
    let late = took("ping -c 1 -W 2 -I 10.9.9.9 203.0.113.1");
    assert!(late > Duration::from_millis(300), "{late:?}");
    assert_eq!(fault.count(), 1);
    fault.lift();
    let usual = took("ping -c 1 -W 2 -I 10.9.9.9 203.0.113.1");
    assert!(usual < Duration::from_millis(200), "{usual:?}");
}

#[test]
fn a_router_that_restarts_forgets_its_connections() {
    let net = Topology::new("restart").masquerade().build();
    net.client.run("ping -c 1 -W 2 203.0.113.1");
    let known = || -> u32 {
        let path = "/proc/sys/net/netfilter/nf_conntrack_count";
        let count = net.router.within(|| std::fs::read_to_string(path));
        count.unwrap().trim().parse().unwrap()
    };
    assert!(known() > 0);
    net.router.forget_connections();
    assert_eq!(known(), 0);
}

#[test]
fn a_capture_keeps_esp_as_it_passed_though_its_receiver_decrypts_in_place() {
    let net = Topology::new("in_place").masquerade().lans().build();
    let keys = net.client_keys();
    let (left, right) = (net.capture_client(), net.capture_server());
    static_tunnel_without_nat(&net);
    let lans = net.client_lan.as_ref().zip(net.server_lan.as_ref());
    let (client_lan, server_lan) = lans.expect("both");
    // Forwarded TCP segments lie in pages that sender, captures and receiver share.
    let flow = TcpFlow::new((client_lan, CLIENT_LAN), (server_lan, SERVER_LAN), 5000);
    flow.start(TCP_LIMIT).finish().expect("every byte");
    for wire in [left, right] {
        let trace = Trace::of(wire.stop(), &keys);
        let mut esp = trace
            .entries
            .iter()
            .filter(|entry| matches!(entry.packet, Packet::Esp { .. }));
        assert!(esp.clone().count() > 100_000 / 1_500);
        assert!(esp.all(|entry| entry.inner.is_some()));
    }
}

fn namespaces_of(prefix: &str) -> usize {
    let output = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .expect("ip");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with(prefix)).count()
}

#[test]
fn a_panicking_test_leaves_no_namespace_and_no_process() {
    let mut prefix = String::new();
    let mut pid = 0;
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let world = World::new("panicking");
        prefix = world.prefix().to_owned();
        let host = world.host("alone");
        pid = host.spawn(Command::new("sleep").arg("1000")).id();
        assert_eq!(namespaces_of(&prefix), 1);
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_eq!(namespaces_of(&prefix), 0);
    let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(state.is_empty() || state.contains("zombie"), "{state}");
}

/// Not a test of its own: what the next test runs in a process that it kills.
#[test]
fn a_world_that_waits_to_be_killed() {
    if std::env::var_os("EPOCHGATE_WAIT_TO_BE_KILLED").is_some() {
        let world = World::new("killed");
        let _host = world.host("alone");
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_killed_test_leaves_no_namespace() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_world_that_waits_to_be_killed"])
        .env("EPOCHGATE_WAIT_TO_BE_KILLED", "yes")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("eg{}x", test.id());
    let within = |wanted: usize| {
        let began = Instant::now();
        while namespaces_of(&prefix) != wanted && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        namespaces_of(&prefix)
    };
    assert_eq!(within(1), 1);
    test.kill().unwrap();
    test.wait().unwrap();
    assert_eq!(within(0), 0);
}
