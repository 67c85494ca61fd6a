//! The same again, a hundred thousand times: what an endpoint keeps stays bounded, whoever asks, and
//! those who were there before notice nothing (RFC 7296 §2.6, §2.21).

use epochgate_ike_wire::{Delete, Identification, Identity as WireIdentity, Notify};

use crate::config::AuthConfig;

use super::super::fuzzing::Forgery;
use super::*;

/// How often.
const TIMES: u32 = 100_000;

/// The first message of a client, as the server gets it.
fn first_message(pair: &mut Pair) -> Datagram {
    let before = pair.sent.len();
    pair.connect();
    pair.drain(End::Client);
    let datagram = pair.sent[before].1.clone();
    pair.network.clear();
    let sa = pair.client.sa();
    pair.client.endpoint.forget(sa, TUNNEL);
    pair.translate(End::Client, datagram)
}

/// The same message from somebody else.
fn from_stranger(first: &Datagram, number: u32) -> Datagram {
    let mut datagram = first.clone();
    datagram.payload[4..8].copy_from_slice(&number.to_be_bytes());
    let [_, a, b, c] = number.to_be_bytes();
    datagram.remote = SocketAddr::new(IpAddr::from([10, a, b, c]), 500);
    datagram
}

#[test]
fn first_messages_from_a_hundred_thousand_addresses_are_bounded() {
    let limits = Limits::default();
    let mut pair = Pair::established();
    let (sa, first) = (pair.client.sa(), first_message(&mut pair));
    pair.client.sa = Some(sa);
    let before = pair.server.endpoint.kept();
    for number in 0..TIMES {
        pair.deliver(End::Server, &from_stranger(&first, number));
        while pair.server.endpoint.poll().is_some() {}
    }
    let counters = *pair.server.endpoint.counters();
    let kept = u64::from(TIMES) - counters.cookies_sent;
    assert_eq!(kept as usize, limits.half_open.cookie_threshold);
    // An IKE SA, its SPI, its request and its timer, of each.
    assert_eq!(pair.server.endpoint.kept(), before + 4 * kept as usize);

    // Who was there before is answered as ever.
    let alive = pair.client.alive;
    let now = pair.now;
    pair.client.endpoint.check_liveness(sa, now);
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.client.alive, alive + 1);
    // Beside the flood a new client gets through, with a cookie.
    pair.connect();
    pair.settle();
    assert!(pair.client.is_established());
    pair.assert_same_child();
    // And when it is over nothing is left of it.
    pair.run(limits.half_open.lifetime + limits.linger);
    assert_eq!(pair.server.endpoint.len(), 2);
}

#[test]
fn first_messages_with_cookies_from_one_address_stop_at_its_share() {
    let mut limits = Limits::default();
    limits.half_open.cookie_threshold = 0;
    let share = limits.half_open.per_address_max;
    let mut pair = Pair::limited(limits, |_| (), |_| ());
    // It really is there: each of its requests comes back with the cookie that it was told.
    for _ in 0..3 * share {
        pair.lose_requests(End::Client, ExchangeType::IkeAuth, 9);
        pair.connect();
        pair.run(LATENCY * 5);
    }
    assert_eq!(pair.server.endpoint.len(), share);
    let refused = pair.server.endpoint.counters().half_open_refused;
    assert!(refused >= 2 * share as u64, "{refused}");
}

#[test]
fn one_first_message_again_and_again_is_one_half_open_ike_sa() {
    let mut pair = Pair::new();
    let first = first_message(&mut pair);
    for _ in 0..TIMES {
        pair.deliver(End::Server, &first);
        while pair.server.endpoint.poll().is_some() {}
    }
    assert_eq!(pair.server.endpoint.len(), 1);
    let repeated = pair.server.endpoint.counters().repeated;
    assert_eq!(repeated, u64::from(TIMES) - 1);
}

#[test]
fn requests_of_an_authenticated_peer_leave_nothing_behind() {
    let mut pair = Pair::established();
    let before = pair.server.endpoint.kept();
    let junk = |kind| Payload::Notify(Notify::new(NotifyType(kind), vec![1; 100]));
    let requests: [(ExchangeType, Vec<Payload>); 5] = [
        (ExchangeType::Informational, vec![]),
        (
            ExchangeType::Informational,
            vec![junk(16_390), junk(40_960)],
        ),
        (
            ExchangeType::Informational,
            vec![Payload::Delete(Delete::Esp(vec![1, 2, 3]))],
        ),
        (
            ExchangeType::Informational,
            vec![
                Payload::VendorId(vec![3; 200]),
                Payload::Eap(vec![1, 2, 0, 4]),
            ],
        ),
        (
            ExchangeType::Informational,
            vec![junk(16_404), Payload::Delete(Delete::Ah(vec![7; 20]))],
        ),
    ];
    for time in 0..TIMES {
        let (exchange, payloads) = &requests[time as usize % requests.len()];
        let forgery = Forgery {
            sa: 0,
            exchange: *exchange,
            response: false,
            ahead: 0,
            counted: true,
            answers: 0,
            payloads,
            limit: None,
        };
        for datagram in pair.client.endpoint.forged(&forgery).unwrap() {
            let arrived = pair.translate(End::Client, datagram);
            pair.deliver(End::Server, &arrived);
        }
        while pair.server.endpoint.poll().is_some() {}
    }
    assert_eq!(pair.server.endpoint.kept(), before);
    assert!(pair.server.is_established());
    // Each was answered, and the next one is too.
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[]);
    assert_eq!(answer, []);
}

#[test]
fn strangers_who_fail_to_authenticate_are_forgotten() {
    let limits = Limits::default();
    let mut pair = Pair::with(
        |config| config.auth = AuthConfig::psk(Secret::from(&b"wrong"[..])),
        |_| (),
    );
    for _ in 0..2 * limits.lingering_max {
        pair.connect();
        pair.run(Duration::from_millis(50));
    }
    assert!(pair.server.peer().is_none());
    // Those who are gone only repeat their refusal, and not all of them.
    assert!(pair.server.endpoint.len() <= limits.lingering_max);
    pair.run(limits.linger);
    assert_eq!(pair.server.endpoint.len(), 0);
}

#[test]
fn a_half_open_ike_sa_never_lives_longer_for_being_talked_to() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
    pair.connect();
    pair.run(Duration::from_millis(100));
    assert_eq!(pair.server.endpoint.len(), 1);
    let id = WireIdentity::Fqdn("client.example".into());
    let payloads = [Payload::IdInitiator(Identification::new(id))];
    for _ in 0..40 {
        // One fragment of two: never whole.
        let forgery = Forgery {
            sa: 0,
            exchange: ExchangeType::IkeAuth,
            response: false,
            ahead: u32::MAX,
            counted: false,
            answers: 0,
            payloads: &payloads,
            limit: Some(70),
        };
        if let Some(datagrams) = pair.client.endpoint.forged(&forgery) {
            let arrived = pair.translate(End::Client, datagrams[0].clone());
            pair.deliver(End::Server, &arrived);
        }
        pair.run(Duration::from_secs(1));
    }
    assert_eq!(pair.server.endpoint.len(), 0);
    assert_eq!(pair.server.endpoint.counters().half_open_expired, 1);
}
