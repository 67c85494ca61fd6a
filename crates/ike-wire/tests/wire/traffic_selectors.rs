//! Traffic selectors on the wire (RFC 7296 §3.13) and their arithmetic (§2.9).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{hex, one, refused};
use epochgate_ike_wire::{
    AddressRange, DecodeErrorKind, IpSelector, Payload, PayloadType, PortRange, TrafficSelector,
};

#[test]
fn traffic_selectors_are_ranges_of_addresses_and_ports() {
    let payload = one(
        PayloadType::TRAFFIC_SELECTORS_INITIATOR,
        "0000 0045 03000000
           07 06 0010 0050 0050 0a010000 0a01ffff
           08 00 0028 0000 ffff 20010db8000000000000000000000000
                                20010db8ffffffffffffffffffffffff
           0a 11 0005 ff",
    );
    let tcp_80 = IpSelector {
        protocol: 6,
        ports: PortRange::single(80),
        addresses: AddressRange::from_prefix([10, 1, 2, 3].into(), 16).unwrap(),
    };
    let v6 = IpSelector::from_prefix("2001:db8::".parse().unwrap(), 32).unwrap();
    let other = TrafficSelector::Other {
        kind: 10,
        protocol: 17,
        body: vec![0xff],
    };
    assert_eq!(tcp_80.to_string(), "10.1.0.0/16[6/80]");
    assert_eq!(v6.to_string(), "2001:db8::/32");
    assert_eq!(
        payload,
        Payload::TrafficSelectorsInitiator(vec![tcp_80.into(), v6.into(), other])
    );
}

#[test]
fn selectors_that_are_inverted_or_of_the_wrong_length_are_refused() {
    let ts = |selector: &str| {
        let length = hex(selector).len() + 8;
        let digits = format!("0000 {length:04x} 01000000 {selector}");
        refused(PayloadType::TRAFFIC_SELECTORS_RESPONDER, &digits)
    };
    let inverted = (12, DecodeErrorKind::InvertedRange);
    assert_eq!(ts("07 00 0010 0000 ffff 0a010001 0a010000"), inverted);
    assert_eq!(ts("07 00 0010 0002 0001 0a010000 0a010000"), inverted);
    let short = DecodeErrorKind::Truncated {
        needed: 4,
        available: 3,
    };
    assert_eq!(ts("07 00 000f 0000 ffff 0a010000 0a0100"), (20, short));
    let long = DecodeErrorKind::TrailingOctets(1);
    assert_eq!(ts("07 00 0011 0000 ffff 0a010000 0a010000 00"), (24, long));
    let minimum = DecodeErrorKind::LengthBelowMinimum {
        length: 3,
        minimum: 4,
    };
    assert_eq!(ts("07 00 0003"), (8, minimum));
    let count = DecodeErrorKind::Count {
        what: "traffic selectors",
        claimed: 2,
        actual: 0,
    };
    let none = refused(
        PayloadType::TRAFFIC_SELECTORS_RESPONDER,
        "0000 0008 02000000",
    );
    assert_eq!(none, (4, count));
}

#[test]
fn opaque_ports_are_within_any_and_nothing_else() {
    let payload = one(
        PayloadType::TRAFFIC_SELECTORS_RESPONDER,
        "0000 0018 01000000 07 11 0010 ffff 0000 0a010000 0a010000",
    );
    let Payload::TrafficSelectorsResponder(selectors) = payload else {
        panic!("TSr expected")
    };
    let opaque = selectors[0].as_ip().copied().unwrap();
    assert_eq!(opaque.ports, PortRange::OPAQUE);
    let any = IpSelector {
        ports: PortRange::ANY,
        ..opaque
    };
    let some = IpSelector {
        ports: PortRange::new(1, 65535).unwrap(),
        ..opaque
    };
    assert!(any.contains(&opaque));
    assert_eq!(opaque.intersect(&some), None);
    assert!(!some.contains(&any));
}

#[test]
fn selectors_are_narrowed_in_every_dimension() {
    let net = |text: &str, len| IpSelector::from_prefix(text.parse().unwrap(), len).unwrap();
    let offer = net("10.0.0.0", 8);
    let udp = IpSelector {
        protocol: 17,
        ports: PortRange::new(500, 4500).unwrap(),
        ..net("10.2.0.0", 16)
    };
    assert_eq!(offer.intersect(&udp), Some(udp));
    assert!(offer.contains(&udp) && !udp.contains(&offer));
    let tcp = IpSelector { protocol: 6, ..udp };
    assert_eq!(tcp.intersect(&udp), None);
    let high = IpSelector {
        ports: PortRange::new(4501, 5000).unwrap(),
        ..udp
    };
    assert_eq!(high.intersect(&udp), None);
    assert_eq!(offer.intersect(&net("11.0.0.0", 8)), None);
    assert_eq!(offer.intersect(&net("::", 0)), None);
}

#[test]
fn only_a_range_that_is_a_network_has_a_prefix() {
    let range = |start: &str, end: &str| {
        AddressRange::new(start.parse().unwrap(), end.parse().unwrap()).unwrap()
    };
    assert_eq!(range("0.0.0.0", "255.255.255.255").prefix().unwrap().1, 0);
    assert_eq!(range("10.0.0.7", "10.0.0.7").prefix().unwrap().1, 32);
    assert_eq!(
        range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
            .prefix()
            .unwrap()
            .1,
        0
    );
    assert_eq!(range("10.0.0.1", "10.0.0.2").prefix(), None);
    assert_eq!(range("10.0.0.0", "10.0.0.2").prefix(), None);
    assert_eq!(range("10.0.0.4", "10.0.0.11").prefix(), None);
    assert_eq!(
        AddressRange::new("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()),
        None
    );
    assert_eq!(
        AddressRange::from_prefix("10.0.0.1".parse().unwrap(), 33),
        None
    );
}
