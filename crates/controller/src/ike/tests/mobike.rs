//! Addresses that change under an IKE SA (RFC 4555).

use super::*;
use crate::ike::payloads::{notify, notify_with};

/// Where the client goes.
const ELSEWHERE: &str = "198.51.100.99";

fn moved_to(pair: &mut Pair, address: &str) {
    let (sa, now) = (pair.client.sa(), pair.now);
    let local = address.parse().unwrap();
    pair.client.endpoint.move_to(sa, local, now);
}

fn path(pair: &mut Pair, end: End) -> crate::ike::Path {
    let host = pair.host(end);
    let sa = host.sa();
    host.endpoint.path(sa).unwrap()
}

fn path_changes(host: &Host) -> usize {
    let changed = |event: &&IkeEvent| matches!(event, IkeEvent::PathChanged(_));
    host.events.iter().filter(changed).count()
}

#[test]
fn both_ends_go_on_where_the_initiator_went() {
    let mut pair = Pair::established();
    moved_to(&mut pair, ELSEWHERE);
    pair.settle();
    let (client, server) = (path(&mut pair, End::Client), path(&mut pair, End::Server));
    assert_eq!(client.local, address(ELSEWHERE, 4500));
    assert_eq!(server.remote, client.local);
    assert_eq!(
        (path_changes(&pair.client), path_changes(&pair.server)),
        (1, 1)
    );
    assert!(!client.encapsulated && !server.encapsulated);
    assert_eq!(pair.server.sa, Some(pair.server.sa()));
    assert!(pair.client.closed().is_none() && pair.server.closed().is_none());
    // UPDATE_SA_ADDRESSES by the client, COOKIE2 by the server.
    let informational = pair
        .ladder()
        .into_iter()
        .filter(|line| line.contains("INFORMATIONAL"));
    assert_eq!(informational.count(), 4);
}

#[test]
fn a_nat_on_the_new_path_is_found() {
    let mut pair = Pair::established();
    pair.nat = true;
    moved_to(&mut pair, INSIDE);
    pair.settle();
    let (client, server) = (path(&mut pair, End::Client), path(&mut pair, End::Server));
    assert!(client.encapsulated && server.encapsulated);
    assert_eq!(client.local, address(INSIDE, 4500));
    assert_eq!(server.remote, address(NAT, 24_500));
}

#[test]
fn what_waits_for_an_answer_is_sent_again_from_the_new_address() {
    let mut pair = Pair::established();
    pair.lose_requests(End::Client, ExchangeType::Informational, 1);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.run(Duration::from_millis(50));
    moved_to(&mut pair, ELSEWHERE);
    pair.run(Duration::from_millis(100));
    assert!(
        pair.client.alive >= 1,
        "at once, not after the retransmission's interval"
    );
    assert_eq!(
        path(&mut pair, End::Server).remote,
        address(ELSEWHERE, 4500)
    );
}

#[test]
fn a_second_move_before_the_first_is_answered_is_told_too() {
    let mut pair = Pair::established();
    moved_to(&mut pair, "198.51.100.98");
    pair.run(Duration::from_millis(5));
    moved_to(&mut pair, ELSEWHERE);
    pair.settle();
    let client = path(&mut pair, End::Client);
    assert_eq!(client.local, address(ELSEWHERE, 4500));
    assert_eq!(path(&mut pair, End::Server).remote, client.local);
}

#[test]
fn a_responder_moves_nobody_and_a_peer_without_mobike_is_not_told() {
    let mut pair = Pair::established();
    let (sa, now) = (pair.server.sa(), pair.now);
    assert!(!pair.server.endpoint.may_move(sa));
    pair.server
        .endpoint
        .move_to(sa, "203.0.113.9".parse().unwrap(), now);
    pair.settle();
    assert_eq!(path(&mut pair, End::Server).local.ip().to_string(), SERVER);

    let mut pair = Pair::with(|_| (), |server| server.path.mobike = false);
    pair.connect();
    pair.settle();
    let sa = pair.client.sa();
    assert!(!pair.client.endpoint.may_move(sa));
}

#[test]
fn an_address_that_the_configuration_excludes_is_refused() {
    let mut pair = Pair::with(
        |_| (),
        |server| server.remote.address = Some(CLIENT.parse().unwrap()),
    );
    pair.connect();
    pair.settle();
    moved_to(&mut pair, ELSEWHERE);
    pair.settle();
    assert_eq!(path_changes(&pair.server), 0);
    let Some(CloseReason::Failed(reason)) = pair.client.closed() else {
        panic!("{:?}", pair.client.closed())
    };
    assert!(reason.contains("UNACCEPTABLE_ADDRESSES"), "{reason}");
}

#[test]
fn a_cookie_is_echoed_and_a_nat_that_is_not_allowed_is_reported() {
    let mut pair = Pair::established();
    let cookie = notify_with(NotifyType::COOKIE2, [7; 16]);
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[cookie]);
    assert!(matches!(&answer[..], [Payload::Notify(echo)] if echo.data == [7; 16]));
    let long = notify_with(NotifyType::COOKIE2, [7; 65]);
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[long]);
    assert_eq!(answer, [], "RFC 4555 §4.2.5 has 64 octets at most");

    let honest = [
        [192, 0, 2, 1, 198, 51, 100, 1].as_slice(),
        &4500_u16.to_be_bytes(),
        &4500_u16.to_be_bytes(),
    ];
    for (data, refused) in [(honest.concat(), false), (vec![0; 12], true)] {
        let claim = notify_with(NotifyType::NO_NATS_ALLOWED, data);
        let answer = pair.ask(End::Client, ExchangeType::Informational, &[claim]);
        let kinds = notifies(&answer);
        assert_eq!(
            kinds.contains(&NotifyType::UNEXPECTED_NAT_DETECTED),
            refused
        );
    }
}

#[test]
fn an_initiator_tries_the_other_addresses_of_its_peer() {
    let mut pair = Pair::established();
    let other = "198.51.100.2";
    let listed = notify_with(NotifyType::ADDITIONAL_IP4_ADDRESS, [198, 51, 100, 2]);
    pair.ask(End::Server, ExchangeType::Informational, &[listed]);
    // Requests to the server's first address get lost from now on.
    pair.lose_requests(End::Client, ExchangeType::Informational, 2);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    let tried: Vec<String> = pair
        .sent
        .iter()
        .filter(|(from, _)| *from == End::Client)
        .map(|(_, datagram)| datagram.remote.ip().to_string())
        .collect();
    assert!(tried.iter().any(|address| address == other), "{tried:?}");
    pair.ask(
        End::Server,
        ExchangeType::Informational,
        &[notify(NotifyType::NO_ADDITIONAL_ADDRESSES)],
    );
    assert!(pair.client.is_established());
}
