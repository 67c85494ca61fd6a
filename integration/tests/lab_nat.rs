//! The lab's own VPN Masquerade, on a real kernel: what it passes, and what its faults do.
//!
//! ```text
//! client 192.0.2.2 ── router (VPN Masquerade) 203.0.113.254 ── 203.0.113.1 server
//! ```
#![cfg(feature = "kernel")]

use epochgate_integration::topology::{CLIENT, ROUTER, SERVER};
use epochgate_integration::{Host, Packet, Topology, UdpFlow};
use epochgate_nat::{DropReason, MasqueradeSettings};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(20);
/// A port that is neither IKE's nor NAT-T's.
const PORT: u16 = 4000;

fn network(name: &str) -> Topology {
    let settings = MasqueradeSettings::default();
    Topology::new(name).vpn_masquerade(settings).build()
}

fn flow(net: &Topology) -> UdpFlow {
    UdpFlow::new((&net.client, CLIENT), (&net.server, SERVER), PORT)
}

#[test]
fn what_the_client_sends_comes_from_the_public_address_with_its_checksum_right() {
    let net = network("lab_nat_address");
    let wire = net.capture_server();
    // The receiving kernel drops what has a wrong checksum.
    flow(&net).count(20).start().finish(SETTLE).assert_perfect();
    let public: IpAddr = ROUTER.parse().expect("an address");
    let server: IpAddr = SERVER.parse().expect("an address");
    for record in wire.stop() {
        if let Packet::Clear { src, dst, .. } = record.packet()
            && dst == server
        {
            assert_eq!(src, public);
        }
    }
}

#[test]
fn fragments_are_put_together_and_cross() {
    let net = network("lab_nat_fragments");
    let large = flow(&net).payload(4000).count(20);
    large.start().finish(SETTLE).assert_perfect();
    let counters = net.nat.as_ref().expect("asked for").counters();
    assert_eq!((counters.nat.outbound, counters.unreadable), (20, 0));
}

#[test]
fn icmp_is_forwarded_untranslated() {
    let net = network("lab_nat_icmp");
    net.client.run("ping -c 3 -i 0.2 -W 5 203.0.113.1");
    let counters = net.nat.as_ref().expect("asked for").counters();
    assert_eq!(counters.nat.outbound, 0);
}

/// Looks again until it is so.
#[track_caller]
fn until(wanted: impl Fn() -> bool) {
    let began = Instant::now();
    while !wanted() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends an ESP packet from outside the kernel's IPsec: an SPI, and any octets behind it.
fn send_esp(host: &Host, to: &str, spi: u32) {
    let to: IpAddr = to.parse().expect("an address");
    host.within(|| {
        let protocol = Protocol::from(libc::IPPROTO_ESP);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).expect("root");
        let packet = [spi.to_be_bytes(), [0; 4]].concat();
        let address = SocketAddr::new(to, 0).into();
        socket.send_to(&packet, &address).expect("a route");
    });
}

#[test]
fn nothing_passes_while_it_reboots_and_everything_afterwards() {
    let net = network("lab_nat_reboot");
    let nat = net.nat.as_ref().expect("asked for");
    nat.reboot(Duration::from_millis(500));
    let running = flow(&net).rate(100).count(u64::MAX).start();
    until(|| running.arrived() > 0);
    let account = running.stop(SETTLE);
    println!("{account}");
    let lost = account.lost();
    assert!(!lost.is_empty());
    assert!(
        lost.iter().copied().eq(0..lost.len() as u64),
        "the first ones"
    );
    assert_eq!(nat.counters().while_down, lost.len() as u64);
}

#[test]
fn esp_is_understood_by_the_first_answer_and_lost_when_the_nat_forgets() {
    let net = network("lab_nat_esp");
    let nat = net.nat.as_ref().expect("asked for");
    let wire = net.capture_client();

    send_esp(&net.client, SERVER, 0x1001);
    until(|| nat.counters().nat.outbound == 1);
    send_esp(&net.server, ROUTER, 0x2001);
    let arrived = wire.wait_for(LIMIT, |record| {
        let packet = record.packet();
        record.outgoing && matches!(packet, Packet::Esp { spi: 0x2001, .. })
    });
    assert!(arrived.is_some());
    assert_eq!(nat.counters().nat.tied, 1);

    nat.forget();
    send_esp(&net.server, ROUTER, 0x2001);
    until(|| nat.counters().nat.dropped_for(DropReason::UnknownSpi) == 1);
}
