//! A hundred thousand strangers at once: IKE_SA_INIT requests with as many spoofed sources, while a
//! tunnel carries traffic (RFC 7296 §2.6).
//!
//! ```text
//! client ─────── router ─────── server
//!                   └── spoofed requests ──▶
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::capture::Record;
use epochgate_integration::peer::{client_config, server_config};
use epochgate_integration::topology::{CLIENT_INNER, SERVER, SERVER_INNER};
use epochgate_integration::{Epochgate, Host, Packet, Topology, UdpFlow};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(10);

/// Requests, each from an address of its own.
const REQUESTS: u32 = 100_000;
/// Sent at once, and the pause after that: the daemon has a CPU to share with everything else here.
const BURST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);
/// What the daemon's memory may grow by: 64 half-open IKE SAs before cookies are demanded, and the
/// buffers of a busy moment.
const GROWTH_MAX_KIB: u64 = 2_048;

#[test]
fn a_hundred_thousand_first_messages_cost_an_open_tunnel_nothing() {
    let net = Topology::new("flood").build();
    // Where the answers go.
    net.router.run("ip route add blackhole 100.64.0.0/10");
    let wire = net.capture_server();
    let server = Epochgate::start(&net.server, &server_config(""));
    let client = Epochgate::start(&net.client, &client_config("start = \"always\""));
    for daemon in [&client, &server] {
        daemon.wait_for("net", START_LIMIT, |tunnel| tunnel["gate"] == "open");
    }
    let first = wire.stop().iter().find_map(first_message);
    let first = first.expect("the client's IKE_SA_INIT request");

    let ends = [(&net.client, CLIENT_INNER), (&net.server, SERVER_INNER)];
    let flow = UdpFlow::new(ends[0], ends[1], 4000)
        .rate(200)
        .count(u64::MAX)
        .start();
    let open = server.status()["tunnels"][0]["open_epoch"].clone();
    // Once before, so that buffers that are kept for good are there.
    flood(&net.router, &first, 0..REQUESTS / 10);
    let before = Footprint::of(&server);
    let began = Instant::now();
    flood(&net.router, &first, REQUESTS..2 * REQUESTS);
    server.run(&["status"]);
    let after = Footprint::of(&server);
    let took = began.elapsed();
    let dropped = dropped(&net.server);
    println!(
        "{REQUESTS} requests in {took:.1?}: {} KiB -> {} KiB resident, {} ms of CPU, {dropped} not \
         even read",
        before.resident_kib,
        after.resident_kib,
        after.cpu_ms - before.cpu_ms,
    );

    flow.stop(SETTLE).assert_perfect();
    assert_eq!(server.status()["tunnels"][0]["open_epoch"], open);
    let growth = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(growth <= GROWTH_MAX_KIB, "grew by {growth} KiB");
    // IKE itself still works, for who was there before and for who comes anew.
    client.run(&["rekey", "net"]);
    client.run(&["down", "net"]);
    client.run(&["up", "net"]);
}

/// The UDP payload of a captured IKE_SA_INIT request.
fn first_message(record: &Record) -> Option<Vec<u8>> {
    let Packet::Ike { dst, .. } = record.packet() else {
        return None;
    };
    let packet = SlicedPacket::from_ethernet(record.frame()).ok()?;
    match packet.transport? {
        TransportSlice::Udp(udp) if dst.to_string() == SERVER => Some(udp.payload().to_vec()),
        TransportSlice::Udp(_)
        | TransportSlice::Tcp(_)
        | TransportSlice::Icmpv4(_)
        | TransportSlice::Icmpv6(_)
        | TransportSlice::Igmp(_) => None,
    }
}

/// Sends `first` from an address and with an initiator SPI of its own for each number.
fn flood(from: &Host, first: &[u8], numbers: std::ops::Range<u32>) {
    let socket = from
        .within(|| {
            // IPPROTO_RAW: the headers are ours, the source too.
            Socket::new(
                Domain::IPV4,
                Type::RAW,
                Some(Protocol::from(libc::IPPROTO_RAW)),
            )
        })
        .expect("a raw socket");
    let server: Ipv4Addr = SERVER.parse().expect("an address");
    let to = SockAddr::from(SocketAddrV4::new(server, 0));
    for number in numbers {
        // 100.64.0.0/10 has four million addresses.
        let source = Ipv4Addr::from(0x6440_0000 + number);
        let mut request = first.to_vec();
        request[4..8].copy_from_slice(&number.to_be_bytes());
        let builder = PacketBuilder::ipv4(source.octets(), server.octets(), 64).udp(500, 500);
        let mut packet = Vec::with_capacity(builder.size(request.len()));
        builder.write(&mut packet, &request).expect("a packet");
        // A full queue loses one of them, which is what happens to floods.
        let _ = socket.send_to(&packet, &to);
        if number % BURST == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    // What waits in the daemon's sockets is read before anybody measures.
    std::thread::sleep(Duration::from_millis(500));
}

/// Datagrams that found the IKE socket's buffer full (`/proc/net/udp`, last column).
fn dropped(host: &Host) -> u64 {
    let table = host.run("cat /proc/net/udp");
    let rows = table.lines().filter(|line| line.contains(":01F4 "));
    rows.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

/// What a process occupies and has used.
struct Footprint {
    resident_kib: u64,
    cpu_ms: u64,
}

impl Footprint {
    fn of(daemon: &Epochgate) -> Self {
        let read = |file| {
            fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).expect("a running daemon")
        };
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let digits = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        // Behind the name in parentheses utime and stime are the 12th and 13th field, in 10 ms.
        let stat = read("stat");
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        Self {
            resident_kib: digits.and_then(|text| text.parse().ok()).expect("VmRSS"),
            cpu_ms: ticks * 10,
        }
    }
}
