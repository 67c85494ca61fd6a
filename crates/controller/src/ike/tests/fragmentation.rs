//! IKE messages in fragments (RFC 7383), in both directions and against a network and peers that
//! mean harm.

use epochgate_ike_wire::{EncryptedFragment, PayloadType};

use super::*;

/// Small enough that an IKE_AUTH with a pre-shared key takes several.
const SIZE: u16 = 150;

fn fragmenting() -> Pair {
    let small = |config: &mut TunnelConfig| config.path.fragment_size = Some(SIZE);
    Pair::with(small, small)
}

/// The fragment that a datagram is.
fn fragment(datagram: &Datagram) -> Option<EncryptedFragment> {
    match Message::decode(&datagram.payload).unwrap().payloads.pop()? {
        Payload::EncryptedFragment(it) => Some(it),
        _ => None,
    }
}

/// Number and total of the fragments that an end has sent.
fn fragments(pair: &Pair, of: End) -> Vec<(u16, u16)> {
    let sent = pair.sent.iter().filter(|(from, _)| *from == of);
    sent.filter_map(|(_, datagram)| fragment(datagram))
        .map(|it| (it.number, it.total))
        .collect()
}

/// The fragments of the client's IKE_AUTH request, which the server has not got.
fn auth_request_kept_back(pair: &mut Pair) -> Vec<Datagram> {
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, u32::MAX);
    pair.connect();
    pair.run(Duration::from_millis(100));
    let sent = pair.sent.iter().filter(|(from, _)| *from == End::Client);
    let auth = sent.filter(|(_, datagram)| fragment(datagram).is_some());
    let kept: Vec<Datagram> = auth
        .map(|(_, datagram)| pair.translate(End::Client, datagram.clone()))
        .collect();
    assert!(kept.len() >= 3);
    kept
}

#[test]
fn a_long_message_goes_in_fragments_both_ways() {
    let mut pair = fragmenting();
    pair.connect();
    pair.settle();
    assert!(pair.client.is_established() && pair.server.is_established());
    pair.assert_same_child();
    for end in [End::Client, End::Server] {
        let sent = fragments(&pair, end);
        let total = sent[0].1;
        assert!(total > 1);
        assert_eq!(sent, (1..=total).map(|n| (n, total)).collect::<Vec<_>>());
    }
    let limit = usize::from(SIZE) - 20 - 8;
    for (_, datagram) in &pair.sent {
        let header = Header::decode(&datagram.payload).unwrap();
        let is_init = header.exchange == ExchangeType::IkeSaInit;
        assert!(is_init || datagram.payload.len() <= limit);
    }
}

#[test]
fn a_message_that_fits_goes_whole() {
    let mut pair = Pair::established();
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    assert_eq!(pair.client.alive, 1);
    assert_eq!(fragments(&pair, End::Client), []);
    assert_eq!(fragments(&pair, End::Server), []);
}

#[test]
fn without_the_consent_of_both_ends_nothing_is_fragmented() {
    let small = |config: &mut TunnelConfig| config.path.fragment_size = Some(SIZE);
    let never = |config: &mut TunnelConfig| config.path.fragment_size = None;
    for mut pair in [Pair::with(small, never), Pair::with(never, small)] {
        pair.connect();
        pair.settle();
        pair.assert_same_child();
        assert_eq!(fragments(&pair, End::Client), []);
        assert_eq!(fragments(&pair, End::Server), []);
    }
}

#[test]
fn a_lost_fragment_makes_the_sender_send_all_of_them_again() {
    let mut pair = fragmenting();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    let sent = fragments(&pair, End::Client);
    let total = usize::from(sent[0].1);
    assert_eq!(sent.len(), 2 * total);
    assert_eq!(sent[..total], sent[total..], "the same octets again");
}

#[test]
fn doubled_and_overtaking_fragments_do_no_harm() {
    let mut pair = fragmenting();
    let slow = Fate::Delay(Duration::from_millis(50));
    pair.rule(End::Client, ExchangeType::IkeAuth, false, slow, 1);
    pair.rule(End::Client, ExchangeType::IkeAuth, false, Fate::Double, 9);
    pair.rule(End::Server, ExchangeType::IkeAuth, true, slow, 1);
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    assert_eq!(pair.server.children.len(), 1);
}

#[test]
fn a_repeated_request_in_fragments_is_answered_once_with_the_same_octets() {
    let mut pair = fragmenting();
    pair.lose_responses(End::Server, ExchangeType::IkeAuth, 20);
    pair.connect();
    pair.run(Duration::from_millis(300));
    let first: Vec<Datagram> = answers(&pair);
    assert!(first.len() > 1);
    pair.run(Duration::from_millis(400));
    let again = answers(&pair).split_off(first.len());
    assert_eq!(again, first, "not once for each of the request's fragments");
}

fn answers(pair: &Pair) -> Vec<Datagram> {
    let sent = pair.sent.iter().filter(|(from, _)| *from == End::Server);
    sent.filter(|(_, datagram)| fragment(datagram).is_some())
        .map(|(_, datagram)| datagram.clone())
        .collect()
}

#[test]
fn a_forged_fragment_cannot_take_the_place_of_the_true_one() {
    let mut pair = fragmenting();
    let request = auth_request_kept_back(&mut pair);
    for forge in [flipped, fewer, more] {
        for datagram in &request {
            pair.deliver(End::Server, &forge(datagram));
        }
    }
    for datagram in &request {
        pair.deliver(End::Server, datagram);
    }
    pair.drain(End::Server);
    assert!(pair.server.is_established());
}

/// The last octet of the ICV changed.
fn flipped(datagram: &Datagram) -> Datagram {
    let mut forged = datagram.clone();
    *forged.payload.last_mut().unwrap() ^= 1;
    forged
}

fn with_total(datagram: &Datagram, change: impl Fn(u16) -> u16) -> Datagram {
    const TOTAL_OFFSET: usize = 28 + 4 + 2;
    let mut forged = datagram.clone();
    let total = fragment(datagram).unwrap().total;
    let changed = change(total).to_be_bytes();
    forged.payload[TOTAL_OFFSET..TOTAL_OFFSET + 2].copy_from_slice(&changed);
    forged
}

fn fewer(datagram: &Datagram) -> Datagram {
    with_total(datagram, |_| 1)
}

fn more(datagram: &Datagram) -> Datagram {
    with_total(datagram, |total| total + 1)
}

#[test]
fn impossible_numbers_and_lengths_are_dropped() {
    const NUMBER_OFFSET: usize = 28 + 4;
    let mut pair = fragmenting();
    let request = auth_request_kept_back(&mut pair);
    let mut hostile = Vec::new();
    for (number, total) in [(0, 3), (4, 3), (0, 0), (1, u16::MAX), (u16::MAX, u16::MAX)] {
        let mut forged = request[0].clone();
        forged.payload[NUMBER_OFFSET..NUMBER_OFFSET + 2].copy_from_slice(&number_octets(number));
        forged.payload[NUMBER_OFFSET + 2..NUMBER_OFFSET + 4].copy_from_slice(&number_octets(total));
        hostile.push(forged);
    }
    // A payload that ends before its own fields, its IV, its ICV.
    for body in 0..40 {
        let header = Message::decode(&request[0].payload).unwrap().header;
        let fragment = EncryptedFragment {
            first_inner: PayloadType::NONE,
            number: 1,
            total: 2,
            body: vec![0; body],
        };
        let payloads = vec![Payload::EncryptedFragment(fragment)];
        let mut forged = request[0].clone();
        forged.payload = Message { header, payloads }.encode().unwrap();
        hostile.push(forged);
    }
    for datagram in &hostile {
        pair.deliver(End::Server, datagram);
    }
    assert!(!pair.server.is_established());
    for datagram in &request {
        pair.deliver(End::Server, datagram);
    }
    pair.drain(End::Server);
    assert!(pair.server.is_established());
}

fn number_octets(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

#[test]
fn a_fragment_beside_other_payloads_is_no_message() {
    let mut pair = fragmenting();
    let request = auth_request_kept_back(&mut pair);
    for datagram in &request {
        let mut mixed = Message::decode(&datagram.payload).unwrap();
        mixed
            .payloads
            .insert(0, Payload::VendorId(b"in front".to_vec()));
        let mut forged = datagram.clone();
        forged.payload = mixed.encode().unwrap();
        pair.deliver(End::Server, &forged);
    }
    pair.drain(End::Server);
    assert!(!pair.server.is_established());
    let counters = pair.server.endpoint.counters();
    assert_eq!(counters.forged, u64::try_from(request.len()).unwrap());
}

#[test]
fn fragments_that_nobody_agreed_to_are_dropped() {
    let mut pair = fragmenting();
    let request = auth_request_kept_back(&mut pair);
    let never = |config: &mut TunnelConfig| config.path.fragment_size = None;
    let mut other = Pair::with(never, never);
    other.connect();
    other.settle();
    let spis = Message::decode(&other.sent[1].1.payload).unwrap().header;
    for datagram in &request {
        let mut moved = datagram.clone();
        moved.payload[..16].copy_from_slice(&[spis.initiator_spi.0, spis.responder_spi.0].concat());
        // The next request that the server waits for.
        moved.payload[20..24].copy_from_slice(&2_u32.to_be_bytes());
        other.deliver(End::Server, &moved);
    }
    let counters = other.server.endpoint.counters();
    assert_eq!(
        counters.outside_window,
        u64::try_from(request.len()).unwrap()
    );
}
