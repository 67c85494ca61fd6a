//! ESP packets made by hand; the kernel's own are opened in `tests/framework.rs`.

use super::key::{AeadKey, EspKey};
use super::*;
use crate::capture::{Packet, Record, Timestamp};
use etherparse::{IpNumber, PacketBuilder};
use std::sync::Arc;

const AES_GCM: &str = "rfc4106(gcm(aes))";
const CHACHA20: &str = "rfc7539esp(chacha20,poly1305)";
const SPI: u32 = 0x1001;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn key(algorithm: &str, bytes: usize) -> AeadKey {
    AeadKey::new(algorithm, &vec![0x11; bytes], false).unwrap()
}

fn sa(key: AeadKey) -> LoggedSa {
    LoggedSa {
        src: "192.0.2.2".parse().unwrap(),
        dst: "203.0.113.1".parse().unwrap(),
        spi: SPI,
        reqid: 7,
        at: Timestamp::default(),
        algorithm: AES_GCM.to_owned(),
        key: Some(Arc::new(EspKey::Aead(Box::new(key)))),
    }
}

/// An echo request between the LANs: next header and packet.
fn inner_v4(payload: &[u8]) -> (u8, Vec<u8>) {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 1], [10, 2, 0, 1], 64)
        .icmpv4_echo_request(1, 2)
        .write(&mut packet, payload)
        .unwrap();
    (4, packet)
}

fn inner_v6(payload: &[u8]) -> (u8, Vec<u8>) {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .icmpv6_echo_request(1, 2)
        .write(&mut packet, payload)
        .unwrap();
    (41, packet)
}

fn outer_v4(esp: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC, MAC)
        .ipv4([192, 0, 2, 2], [203, 0, 113, 1], 64)
        .write(&mut frame, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, esp)
        .unwrap();
    frame
}

fn outer_v6(esp: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC, MAC)
        .ipv6([3; 16], [4; 16], 64)
        .write(&mut frame, IpNumber::ENCAPSULATING_SECURITY_PAYLOAD, esp)
        .unwrap();
    frame
}

fn opened(frame: &[u8], sas: &[LoggedSa]) -> Option<InnerPacket> {
    let records = vec![Record::new(Timestamp(1), false, frame)];
    let trace = Trace::build(records, sas, false);
    assert!(matches!(trace.entries[0].packet, Packet::Esp { .. }));
    trace.entries[0].inner.clone()
}

#[test]
fn each_algorithm_opens_what_it_sealed() {
    for (algorithm, bytes) in [(AES_GCM, 20), (AES_GCM, 36), (CHACHA20, 36)] {
        for length in 0..8 {
            let (next_header, inner) = inner_v4(&vec![0xaa; length]);
            let esp = key(algorithm, bytes).seal(SPI, 5, next_header, &inner);
            let inner = opened(&outer_v4(&esp), &[sa(key(algorithm, bytes))]);
            let content = inner.expect("authentic").content;
            assert!(matches!(content, Content::Echo { payload, .. } if payload.len() == length));
        }
    }
}

#[test]
fn inner_and_outer_families_mix() {
    let sas = [sa(key(AES_GCM, 20))];
    for (next_header, inner) in [inner_v4(b"x"), inner_v6(b"x")] {
        let esp = key(AES_GCM, 20).seal(SPI, 1, next_header, &inner);
        for frame in [outer_v4(&esp), outer_v6(&esp)] {
            let inner = opened(&frame, &sas).expect("authentic");
            assert_eq!(inner.src.is_ipv4(), next_header == 4);
            assert!(matches!(inner.content, Content::Echo { reply: false, .. }));
        }
    }
}

#[test]
fn an_spi_that_came_again_is_opened_by_the_key_that_fits() {
    let second = AeadKey::new(AES_GCM, &[0x22; 20], false).unwrap();
    let (next_header, inner) = inner_v4(b"x");
    let esp = second.seal(SPI, 1, next_header, &inner);
    let sas = [sa(key(AES_GCM, 20)), sa(second)];
    assert!(opened(&outer_v4(&esp), &sas).is_some());
    assert!(opened(&outer_v4(&esp), &sas[..1]).is_none());
}

#[test]
fn a_changed_or_shortened_packet_stays_closed() {
    let sas = [sa(key(AES_GCM, 20))];
    let (next_header, inner) = inner_v4(b"x");
    let esp = key(AES_GCM, 20).seal(SPI, 1, next_header, &inner);
    for place in 4..esp.len() {
        let mut changed = esp.clone();
        changed[place] ^= 1;
        assert!(opened(&outer_v4(&changed), &sas).is_none(), "byte {place}");
    }
    for length in 8..esp.len() {
        assert!(opened(&outer_v4(&esp[..length]), &sas).is_none());
    }
}

#[test]
fn a_dummy_packet_shows_nothing() {
    const NO_NEXT_HEADER: u8 = 59;
    let esp = key(AES_GCM, 20).seal(SPI, 1, NO_NEXT_HEADER, &[0; 40]);
    assert!(opened(&outer_v4(&esp), &[sa(key(AES_GCM, 20))]).is_none());
}

#[test]
fn a_control_ping_needs_its_whole_nonce() {
    let sas = [sa(key(AES_GCM, 20))];
    let ping_of = |payload: &[u8]| {
        let (next_header, inner) = inner_v4(payload);
        let esp = key(AES_GCM, 20).seal(SPI, 1, next_header, &inner);
        let inner = opened(&outer_v4(&esp), &sas).expect("authentic");
        inner
            .control_ping()
            .map(|(reply, ping)| (reply, ping.to_vec()))
    };
    let ping = b"EPOCHGAT\x01\x02\x03\x04\x05\x06\x07\x08";
    let padded = [ping, &[0xff; 40][..]].concat();
    assert_eq!(ping_of(&padded), Some((false, ping.to_vec())));
    assert_eq!(ping_of(&ping[..15]), None);
    assert_eq!(
        ping_of(b"EPOCHGATE is a product"),
        Some((false, b"EPOCHGATE is a p".to_vec()))
    );
}
