//! Handshakes that cannot succeed, and those that somebody wants to fail.

use epochgate_ike_wire::{AuthMethod, Flags, IkeSpi};

use super::*;
use crate::config::AuthConfig;
use crate::ike::payloads::{notify, notify_with};

/// An unprotected response to the client's latest IKE_SA_INIT, as anybody on the way can send it.
fn forge(pair: &mut Pair, payloads: Vec<Payload>) {
    let request = pair
        .sent
        .iter()
        .rfind(|(from, _)| *from == End::Client)
        .map(|(_, datagram)| Header::decode(&datagram.payload).unwrap())
        .unwrap();
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    let header = Header::new(
        request.initiator_spi,
        IkeSpi::ZERO,
        ExchangeType::IkeSaInit,
        flags,
        0,
    );
    let datagram = Datagram {
        local: address(CLIENT, 500),
        remote: address(SERVER, 500),
        payload: Message { header, payloads }.encode().unwrap(),
    };
    pair.deliver(End::Client, &datagram);
    pair.drain(End::Client);
}

fn text(reason: Option<&CloseReason>) -> &str {
    match reason {
        Some(CloseReason::AuthenticationFailed(text) | CloseReason::Failed(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_server_is_given_up_after_the_last_retransmission() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeSaInit, 99);
    pair.connect();
    pair.run(Duration::from_secs(31));
    assert_eq!(pair.client.closed(), None);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.client.closed(), Some(&CloseReason::NoAnswer));
    assert_eq!(pair.sent.len(), 17);
    let first = pair.sent[0].1.payload.clone();
    assert!(pair.sent.iter().all(|(_, it)| it.payload == first));
}

#[test]
fn different_pre_shared_keys_are_named_at_both_ends() {
    let mut pair = Pair::with(
        |config| config.auth = AuthConfig::psk(Secret::from(&b"wrong"[..])),
        |_| (),
    );
    pair.connect();
    pair.settle();
    let (ours, theirs) = (text(pair.client.closed()), text(pair.server.closed()));
    assert!(
        ours.contains("check psk and ids of tunnel branch"),
        "{ours}"
    );
    assert!(theirs.contains("check psk of tunnel branch"), "{theirs}");
    for text in [ours, theirs] {
        assert!(!text.contains("wrong") && !text.contains("staple"));
    }
    assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
}

#[test]
fn an_unknown_identity_is_refused_and_reported() {
    let mut pair = Pair::with(
        |config| config.local.id = Identity::Fqdn("mallory.example".into()),
        |_| (),
    );
    pair.connect();
    pair.settle();
    assert!(text(pair.client.closed()).contains("as mallory.example"));
    assert_eq!(pair.server.closed(), None);
    assert_eq!(
        pair.server.strangers,
        ["IKE_AUTH refused: no tunnel has remote id mallory.example and local id server.example"]
    );
}

#[test]
fn an_address_that_no_tunnel_has_is_refused_at_once() {
    let mut pair = Pair::with(
        |_| (),
        |config| config.remote.address = Some("192.0.2.99".parse().unwrap()),
    );
    pair.connect();
    pair.settle();
    assert_eq!(pair.client.closed(), Some(&CloseReason::NoProposal));
    assert!(pair.server.strangers[0].contains("no tunnel is configured for its address"));
}

#[test]
fn algorithms_that_do_not_meet_end_the_attempt_after_a_while() {
    let mut pair = Pair::with(
        |config| config.ike.prfs = vec![Prf::HmacSha512],
        |config| config.ike.prfs = vec![Prf::HmacSha256],
    );
    pair.connect();
    pair.run(Duration::from_millis(1900));
    assert_eq!(pair.client.closed(), None, "a refusal may be forged");
    pair.run(Duration::from_millis(900));
    assert_eq!(pair.client.closed(), Some(&CloseReason::NoProposal));
}

#[test]
fn a_child_sa_that_cannot_be_agreed_on_is_named_at_both_ends() {
    let algorithms = Pair::with(
        |config| config.esp.ciphers = vec![Cipher::AesGcm256],
        |config| config.esp.ciphers = vec![Cipher::AesGcm128],
    );
    let selectors = Pair::with(
        |config| config.remote_traffic = vec!["10.3.0.0/16".parse().unwrap()],
        |_| (),
    );
    for (mut pair, wanted) in [
        (algorithms, ChildError::NoProposal),
        (selectors, ChildError::Selectors),
    ] {
        pair.connect();
        pair.settle();
        assert!(pair.client.events.iter().any(|event| matches!(
            event,
            IkeEvent::ChildRefused { replaces: None, error } if *error == wanted
        )));
        assert!(pair.server.events.iter().any(|event| matches!(
            event,
            IkeEvent::OfferRefused(Refused::Child(error)) if *error == wanted
        )));
        assert!(pair.client.is_established() && pair.server.is_established());
        assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
    }
}

#[test]
fn a_forged_refusal_changes_nothing() {
    let mut pair = Pair::new();
    pair.connect();
    pair.drain(End::Client);
    forge(&mut pair, vec![notify(NotifyType::NO_PROPOSAL_CHOSEN)]);
    forge(&mut pair, vec![notify(NotifyType::AUTHENTICATION_FAILED)]);
    pair.settle();
    pair.assert_same_child();
}

#[test]
fn cookies_without_end_are_not_followed_without_end() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeSaInit, 99);
    pair.connect();
    pair.drain(End::Client);
    for number in 0..100_u8 {
        let cookie = notify_with(NotifyType::COOKIE, vec![number; 8]);
        forge(&mut pair, vec![cookie]);
    }
    assert_eq!(pair.sent.len(), 5, "the first one and four restarts");
}

#[test]
fn a_group_that_was_not_offered_is_not_used() {
    let mut pair = Pair::with(|config| config.ike.groups = vec![Group::X25519], |_| ());
    pair.lose_requests(End::Client, ExchangeType::IkeSaInit, 99);
    pair.connect();
    pair.drain(End::Client);
    // MODP-1024, which nobody should be talked into.
    let hint = notify_with(NotifyType::INVALID_KE_PAYLOAD, 2_u16.to_be_bytes());
    forge(&mut pair, vec![hint]);
    assert_eq!(pair.sent.len(), 1);
    pair.run(Duration::from_secs(6));
    assert!(text(pair.client.closed()).contains("INVALID_KE_PAYLOAD"));
}

#[test]
fn a_peer_that_wants_eap_or_certificates_is_told_apart() {
    for (method, expected) in [
        (None, "by EAP"),
        (Some(AuthMethod::DIGITAL_SIGNATURE), "by DIGITAL_SIGNATURE"),
    ] {
        let mut pair = Pair::new();
        pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
        pair.connect();
        pair.run(Duration::from_millis(100));
        let (sa, now) = (pair.client.sa(), pair.now);
        let id = crate::ike::identity::identification(&config(End::Client).local.id);
        let mut payloads = vec![Payload::IdInitiator(id)];
        payloads.extend(method.map(|method| {
            Payload::Authentication(epochgate_ike_wire::Authentication {
                method,
                data: vec![1; 64],
            })
        }));
        pair.client.endpoint.step(sa, now, |sa, ctx| {
            let IkeSa::Authenticating(mut it) = sa else {
                panic!("not authenticating")
            };
            it.session.next_request = 1;
            let schedule = Limits::default().retransmission;
            it.session
                .request(ctx, ExchangeType::IkeAuth, &payloads, schedule)
                .unwrap();
            Some(IkeSa::Authenticating(it))
        });
        pair.settle();
        assert!(matches!(
            pair.server.closed(),
            Some(CloseReason::AuthenticationFailed(text)) if text.contains(expected)
        ));
        assert!(matches!(
            pair.client.closed(),
            Some(CloseReason::AuthenticationFailed(_))
        ));
    }
}

#[test]
fn an_initiator_that_disappears_leaves_nothing_behind() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
    pair.connect();
    pair.run(Duration::from_secs(40));
    assert_eq!(pair.server.endpoint.counters().half_open_expired, 1);
    assert_eq!(pair.server.endpoint.next_timeout(), None);
    assert_eq!(pair.client.closed(), Some(&CloseReason::NoAnswer));
}

#[test]
fn half_open_ike_sas_are_limited() {
    let mut limits = Limits::default();
    limits.half_open.max = 3;
    let mut pair = Pair::limited(limits, |_| (), |_| ());
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 99);
    for _ in 0..5 {
        pair.connect();
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(pair.server.endpoint.counters().half_open_refused, 2);
}

#[test]
fn a_peer_that_always_comes_back_has_its_oldest_ike_sa_closed() {
    let mut pair = Pair::new();
    for _ in 0..9 {
        pair.connect();
        pair.run(Duration::from_secs(1));
    }
    let closed = pair
        .server
        .events
        .iter()
        .filter(|event| matches!(event, IkeEvent::Closed(CloseReason::Failed(_))))
        .count();
    assert_eq!(closed, 1);
    assert_eq!(pair.client.closed(), Some(&CloseReason::DeletedByPeer));
}

#[test]
fn refused_peers_are_remembered_only_so_many() {
    let limits = Limits {
        lingering_max: 4,
        ..Limits::default()
    };
    let mut pair = Pair::limited(
        limits,
        |config| config.auth = AuthConfig::psk(Secret::from(&b"wrong"[..])),
        |_| (),
    );
    for _ in 0..20 {
        pair.connect();
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(pair.server.endpoint.len(), 4);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.server.endpoint.len(), 0);
}
