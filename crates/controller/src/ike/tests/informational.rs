//! INFORMATIONAL: liveness, goodbyes, and requests that cannot be understood.

use epochgate_ike_wire::{Nonce, PayloadType};

use super::*;

fn unknown(critical: bool) -> Payload {
    Payload::Unknown {
        kind: PayloadType(200),
        critical,
        body: vec![1, 2, 3],
    }
}

#[test]
fn a_living_peer_answers() {
    let mut pair = Pair::established();
    let (sa, now, before) = (pair.client.sa(), pair.now, pair.client.alive);
    pair.client.endpoint.check_liveness(sa, now);
    pair.settle();
    assert_eq!(pair.client.alive, before + 1);
}

#[test]
fn a_dead_peer_is_given_up() {
    let mut pair = Pair::established();
    pair.lose_requests(End::Client, ExchangeType::Informational, 99);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.check_liveness(sa, now);
    pair.run(Duration::from_secs(32));
    assert_eq!(pair.client.closed(), Some(&CloseReason::NoAnswer));
    assert!(pair.server.is_established());
}

#[test]
fn a_goodbye_is_heard() {
    let mut pair = Pair::established();
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.close(sa, now);
    pair.settle();
    assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
    assert_eq!(pair.server.closed(), Some(&CloseReason::DeletedByPeer));
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.client.endpoint.next_timeout(), None);
    assert_eq!(pair.server.endpoint.next_timeout(), None);
}

#[test]
fn a_goodbye_whose_answer_is_lost_is_answered_again() {
    let mut pair = Pair::established();
    pair.lose_responses(End::Server, ExchangeType::Informational, 1);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.close(sa, now);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
    assert_eq!(pair.server.endpoint.counters().repeated, 1);
    assert_eq!(pair.server.endpoint.counters().unknown_sa, 0);
}

#[test]
fn nobody_waits_long_for_a_goodbye() {
    let mut pair = Pair::established();
    pair.lose_requests(End::Client, ExchangeType::Informational, 99);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.close(sa, now);
    pair.run(Duration::from_secs(4));
    assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
}

#[test]
fn a_goodbye_waits_for_what_is_under_way_but_not_for_ever() {
    let mut pair = Pair::established();
    let (sa, now, child) = (pair.client.sa(), pair.now, pair.client.child().id);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.client.endpoint.close(sa, now);
    pair.settle();
    assert_eq!(pair.server.closed(), Some(&CloseReason::DeletedByPeer));

    let mut pair = Pair::established();
    pair.lose_requests(End::Client, ExchangeType::CreateChildSa, 99);
    let (sa, now, child) = (pair.client.sa(), pair.now, pair.client.child().id);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.client.endpoint.close(sa, now);
    pair.run(Duration::from_secs(4));
    assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
}

#[test]
fn what_is_forgotten_says_nothing() {
    let mut pair = Pair::established();
    let sa = pair.client.sa();
    pair.client.endpoint.forget(sa, TUNNEL);
    pair.sent.clear();
    let events = pair.client.events.len();
    pair.settle();
    assert!(pair.sent.is_empty());
    assert_eq!(pair.client.events.len(), events);
    assert_eq!(pair.client.endpoint.next_timeout(), None);
}

#[test]
fn an_unknown_payload_follows_its_critical_bit() {
    let mut pair = Pair::established();
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[unknown(false)]);
    assert_eq!(answer, []);
    let answer = pair.ask(End::Client, ExchangeType::Informational, &[unknown(true)]);
    let [Payload::Notify(notify)] = answer.as_slice() else {
        panic!("{answer:?}")
    };
    assert_eq!(notify.kind, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);
    assert_eq!(notify.data, [200]);
    assert!(pair.server.is_established(), "only that exchange fails");
}

#[test]
fn a_malformed_request_ends_the_ike_sa_at_both_ends() {
    let mut pair = Pair::established();
    let nonce = || Payload::Nonce(Nonce::new(vec![1; 32]).unwrap());
    let answer = pair.ask(
        End::Client,
        ExchangeType::CreateChildSa,
        &[nonce(), nonce()],
    );
    assert_eq!(notifies(&answer), [NotifyType::INVALID_SYNTAX]);
    assert!(matches!(
        pair.server.closed(),
        Some(CloseReason::Failed(text)) if text.contains("malformed")
    ));
}

#[test]
fn an_exchange_that_nobody_knows_is_malformed() {
    let mut pair = Pair::established();
    let answer = pair.ask(End::Client, ExchangeType::Other(99), &[]);
    assert_eq!(notifies(&answer), [NotifyType::INVALID_SYNTAX]);
}

#[test]
fn an_initiator_that_cannot_verify_us_is_believed() {
    let mut pair = Pair::established();
    let notify = crate::ike::payloads::notify(NotifyType::AUTHENTICATION_FAILED);
    assert_eq!(
        pair.ask(End::Client, ExchangeType::Informational, &[notify]),
        []
    );
    assert!(matches!(
        pair.server.closed(),
        Some(CloseReason::AuthenticationFailed(_))
    ));
}

#[test]
fn a_changed_configuration_is_used_by_the_next_exchange() {
    let mut pair = Pair::established();
    for (end, host) in [
        (End::Client, &mut pair.client),
        (End::Server, &mut pair.server),
    ] {
        let mut changed = config(end);
        changed.esp.ciphers = vec![Cipher::AesGcm128];
        host.endpoint
            .configure(BTreeMap::from([(TUNNEL, Arc::new(changed))]));
    }
    let (sa, now, child) = (pair.client.sa(), pair.now, pair.client.child().id);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.settle();
    pair.assert_same_child();
    assert_eq!(pair.client.child().cipher, Cipher::AesGcm128);
}

#[test]
fn a_goodbye_before_the_answer_answers_first() {
    let mut pair = Pair::new();
    pair.server.installs = None;
    pair.connect();
    pair.run(Duration::from_millis(100));
    let (sa, now) = (pair.server.sa(), pair.now);
    pair.server.endpoint.close(sa, now);
    pair.settle();
    assert!(pair.client.peer().is_some());
    assert_eq!(pair.client.closed(), Some(&CloseReason::DeletedByPeer));
    assert_eq!(pair.server.closed(), Some(&CloseReason::Asked));
}
