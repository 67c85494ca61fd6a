//! IKE_SA_INIT and IKE_AUTH.

use epochgate_ike_wire::{EncryptionId, Transform, TransformType};

use super::*;
use crate::config::{CIPHERS, GROUPS, PRFS};
use crate::crypto::{AesKey, Integrity};
use crate::ike::proposal;

#[test]
fn two_exchanges_make_an_ike_sa_and_its_first_child() {
    let pair = Pair::established();
    assert_eq!(
        pair.ladder(),
        [
            "--> IKE_SA_INIT request 0",
            "<-- IKE_SA_INIT response 0",
            "--> IKE_AUTH request 1",
            "<-- IKE_AUTH response 1",
        ]
    );
    pair.assert_same_child();
    assert!(pair.client.peer().unwrap().epochgate);
    assert!(!pair.client.peer().unwrap().nat);
    assert!(!pair.client.child().path.encapsulated);
}

/// Agrees on these and rekeys.
fn agree(cipher: Cipher, prf: Prf, group: Group) {
    let only = |config: &mut TunnelConfig| {
        config.ike.ciphers = vec![cipher];
        config.ike.prfs = vec![prf];
        config.ike.groups = vec![group];
        config.esp.ciphers = vec![cipher];
        config.esp.groups = vec![group];
    };
    let mut pair = Pair::with(only, only);
    pair.connect();
    pair.settle();
    pair.rekey(End::Client);
    pair.settle();
    pair.assert_same_child();
    let child = pair.client.child();
    assert_eq!(child.cipher, cipher);
    assert_eq!(child.outbound_key.len(), cipher.material_len());
    assert!(child.replaces.is_some());
}

#[test]
fn every_cipher_with_every_prf() {
    for cipher in CIPHERS {
        for prf in PRFS {
            agree(cipher, prf, Group::X25519);
        }
    }
}

#[test]
fn every_group() {
    for group in GROUPS {
        agree(Cipher::AesGcm128, Prf::HmacSha256, group);
    }
}

/// A peer's first acceptable proposal counts, whatever its number is.
#[test]
fn aeads_and_aes_cbc_stand_in_proposals_of_their_own() {
    let cbc = Cipher::AesCbc(AesKey::Bits128, Integrity::HmacSha256);
    for (offered, accepted, agreed) in [
        (CIPHERS.to_vec(), vec![cbc], cbc),
        (vec![cbc, Cipher::AesGcm128], CIPHERS.to_vec(), cbc),
        (
            vec![cbc, Cipher::AesGcm128],
            vec![Cipher::AesGcm256, Cipher::AesGcm128],
            Cipher::AesGcm128,
        ),
    ] {
        let mut pair = Pair::with(
            |config| {
                config.ike.ciphers.clone_from(&offered);
                config.esp.ciphers.clone_from(&offered);
            },
            |config| {
                config.ike.ciphers.clone_from(&accepted);
                config.esp.ciphers.clone_from(&accepted);
            },
        );
        pair.connect();
        pair.settle();
        pair.assert_same_child();
        assert_eq!(pair.client.child().cipher, agreed);
    }
    let offer = proposal::offer_ike(&IkeSuite::default(), &[]);
    for proposal in offer {
        let kinds = |kind: TransformType| {
            let of_kind = proposal.transforms.iter().filter(|it| it.kind() == kind);
            of_kind.count()
        };
        let is_cbc = proposal.transforms.iter().any(|transform| {
            matches!(transform, Transform::Encryption { id, .. } if *id == EncryptionId::AES_CBC)
        });
        assert_eq!(kinds(TransformType::INTEGRITY), usize::from(is_cbc));
    }
}

#[test]
fn a_lost_message_is_sent_again_and_a_lost_response_repeated() {
    for (from, exchange, response) in [
        (End::Client, ExchangeType::IkeSaInit, false),
        (End::Server, ExchangeType::IkeSaInit, true),
        (End::Client, ExchangeType::IkeAuth, false),
        (End::Server, ExchangeType::IkeAuth, true),
    ] {
        let mut pair = Pair::new();
        pair.rule(from, exchange, response, Fate::Lose, 2);
        pair.connect();
        pair.settle();
        pair.assert_same_child();
        assert_eq!(pair.client.children.len(), 1);
        assert_eq!(pair.server.children.len(), 1);
        let repeated = pair.server.endpoint.counters().repeated;
        assert_eq!(repeated, if response { 2 } else { 0 });
    }
}

#[test]
fn a_server_under_load_demands_a_cookie() {
    let mut limits = Limits::default();
    limits.half_open.cookie_threshold = 0;
    let mut pair = Pair::limited(limits, |_| (), |_| ());
    pair.connect();
    pair.settle();
    assert_eq!(
        pair.ladder(),
        [
            "--> IKE_SA_INIT request 0",
            "<-- IKE_SA_INIT response 0", // N(COOKIE)
            "--> IKE_SA_INIT request 0",  // N(COOKIE), SA, KE, Ni
            "<-- IKE_SA_INIT response 0",
            "--> IKE_AUTH request 1",
            "<-- IKE_AUTH response 1",
        ]
    );
    pair.assert_same_child();
    assert_eq!(pair.server.endpoint.counters().cookies_sent, 1);
}

#[test]
fn a_wrong_guess_of_the_group_is_corrected() {
    let mut pair = Pair::with(
        |config| config.ike.groups = vec![Group::P384, Group::X25519],
        |config| config.ike.groups = vec![Group::X25519],
    );
    pair.connect();
    pair.settle();
    // SA, KE(P-384) --> <-- N(INVALID_KE_PAYLOAD, X25519), SA, KE(X25519) -->
    assert_eq!(pair.sent.len(), 6);
    pair.assert_same_child();
}

#[test]
fn a_cookie_and_a_wrong_guess_together_take_three_attempts() {
    let mut limits = Limits::default();
    limits.half_open.cookie_threshold = 0;
    let mut pair = Pair::limited(
        limits,
        |config| config.ike.groups = vec![Group::P256, Group::X25519],
        |config| config.ike.groups = vec![Group::X25519],
    );
    pair.connect();
    pair.settle();
    // RFC 7296 §2.6.1: the cookie comes along with the other group.
    assert_eq!(pair.sent.len(), 8);
    pair.assert_same_child();
}

#[test]
fn a_guess_that_is_acceptable_costs_no_round_trip() {
    let mut pair = Pair::with(
        |config| config.ike.groups = vec![Group::P384, Group::X25519],
        |config| config.ike.groups = vec![Group::X25519, Group::P384],
    );
    pair.connect();
    pair.settle();
    assert_eq!(pair.sent.len(), 4);
    let suite = pair
        .client
        .endpoint
        .status(pair.client.sa(), pair.now)
        .unwrap()
        .suite;
    assert_eq!(suite, "AES-GCM-256/HMAC-SHA-256/P-384");
}

#[test]
fn the_address_to_ping_is_announced_both_ways() {
    let mut pair = Pair::new();
    let (ours, theirs): (IpAddr, IpAddr) =
        ("10.1.0.1".parse().unwrap(), "fd00:2::1".parse().unwrap());
    pair.client.endpoint.set_announcement(TUNNEL, Some(ours));
    pair.server.endpoint.set_announcement(TUNNEL, Some(theirs));
    pair.connect();
    pair.settle();
    assert_eq!(pair.client.peer().unwrap().ping_address, Some(theirs));
    assert_eq!(pair.server.peer().unwrap().ping_address, Some(ours));
}

#[test]
fn initial_contact_is_told_only_when_asked_for() {
    let mut pair = Pair::established();
    assert!(!pair.server.peer().unwrap().initial_contact);
    let (local, remote) = (address(CLIENT, 500), address(SERVER, 500));
    let now = pair.now;
    pair.server.events.clear();
    pair.client
        .endpoint
        .connect(TUNNEL, local, remote, true, now);
    pair.settle();
    assert!(pair.server.peer().unwrap().initial_contact);
}

#[test]
fn the_responder_answers_only_when_the_kernel_is_ready() {
    let mut pair = Pair::new();
    pair.server.installs = None;
    pair.connect();
    pair.run(Duration::from_secs(4));
    // The request came, was repeated, and stays unanswered.
    assert!(pair.server.is_established() && !pair.client.is_established());
    assert!(pair.server.endpoint.counters().repeated >= 2);
    let answered = |pair: &Pair| {
        pair.ladder()
            .iter()
            .filter(|line| *line == "<-- IKE_AUTH response 1")
            .count()
    };
    assert_eq!(answered(&pair), 0);
    let (sa, child, now) = (pair.server.sa(), pair.server.child().id, pair.now);
    pair.server.endpoint.child_ready(sa, child, true, now);
    pair.settle();
    assert_eq!(answered(&pair), 1);
    pair.assert_same_child();
}

#[test]
fn a_child_that_the_kernel_refuses_leaves_the_ike_sa() {
    let mut pair = Pair::new();
    pair.server.installs = Some(false);
    pair.connect();
    pair.settle();
    assert!(pair.client.is_established() && pair.server.is_established());
    assert!(pair.client.children.is_empty());
    assert!(matches!(
        pair.client.events.as_slice(),
        [
            IkeEvent::Established(_),
            IkeEvent::ChildRefused {
                replaces: None,
                error: ChildError::Temporary
            }
        ]
    ));
    // The next attempt needs no new IKE SA.
    pair.server.installs = Some(true);
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.settle();
    assert_eq!(pair.client.children.len(), 1);
}

#[test]
fn an_offer_is_narrowed_to_what_the_server_has() {
    let mut pair = Pair::with(
        |config| {
            config.local_traffic = vec!["10.0.0.0/8".parse().unwrap()];
            config.remote_traffic = vec!["10.2.0.0/15".parse().unwrap()];
        },
        |_| (),
    );
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    let child = pair.client.child();
    let networks = config(End::Client);
    assert_eq!(
        child.local_selectors,
        crate::ike::selectors::from_networks(&networks.local_traffic)
    );
    assert_eq!(
        child.remote_selectors,
        crate::ike::selectors::from_networks(&networks.remote_traffic)
    );
}

#[test]
fn a_first_child_that_does_not_fit_leaves_the_ike_sa() {
    for (change, expected) in [
        (
            (|config: &mut TunnelConfig| {
                config.local_traffic = vec!["172.16.0.0/12".parse().unwrap()];
            }) as fn(&mut TunnelConfig),
            ChildError::Selectors,
        ),
        (
            |config| config.esp.ciphers = vec![Cipher::AesGcm128],
            ChildError::NoProposal,
        ),
    ] {
        let mut pair = Pair::with(change, |config| {
            config.esp.ciphers = vec![Cipher::AesGcm256];
        });
        pair.connect();
        pair.settle();
        assert!(pair.client.is_established() && pair.server.is_established());
        let last = pair.client.events.last().unwrap();
        let IkeEvent::ChildRefused { error, .. } = last else {
            panic!("{last:?}")
        };
        // Both are wrong in the first case: the server looks at the algorithms first.
        assert!(*error == expected || *error == ChildError::NoProposal);
    }
}

#[test]
fn status_tells_how_far_it_is() {
    let mut pair = Pair::new();
    pair.connect();
    let (sa, now) = (pair.client.sa(), pair.now);
    let state = |pair: &Pair| {
        let status = pair.client.endpoint.status(sa, pair.now);
        status.map(|status| status.state)
    };
    assert_eq!(state(&pair).as_deref(), Some("initiating"));
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.run(Duration::from_millis(100));
    assert_eq!(state(&pair).as_deref(), Some("authenticating"));
    pair.settle();
    let status = pair.client.endpoint.status(sa, pair.now).unwrap();
    assert_eq!(status.state, "established");
    assert_eq!(status.suite, "AES-GCM-256/HMAC-SHA-256/X25519");
    assert!(status.epochgate && !status.nat);
    assert_eq!(status.age_ms, pair.now.since(now).as_millis() as u64);
    let now = pair.now;
    pair.client.endpoint.close(sa, now);
    assert_eq!(state(&pair).as_deref(), Some("deleting"));
    pair.settle();
    assert_eq!(state(&pair), None);
}

#[test]
fn an_ike_sa_may_begin_without_a_child_that_comes_later() {
    let mut pair = Pair::new();
    pair.lose_requests(End::Client, ExchangeType::IkeAuth, 1);
    pair.connect();
    pair.run(Duration::from_millis(100));
    let (sa, now) = (pair.client.sa(), pair.now);
    pair.client.endpoint.step(sa, now, |sa, ctx| {
        let IkeSa::Authenticating(mut it) = sa else {
            panic!("not authenticating")
        };
        let payloads = it.childless_request(ctx);
        it.session.next_request = 1;
        let schedule = Limits::default().retransmission;
        it.session
            .request(ctx, ExchangeType::IkeAuth, &payloads, schedule)
            .unwrap();
        Some(IkeSa::Authenticating(it))
    });
    pair.run(Duration::from_millis(100));
    assert!(pair.server.is_established() && pair.client.is_established());
    assert!(pair.server.children.is_empty());
    let refused = |event: &IkeEvent| matches!(event, IkeEvent::OfferRefused(_));
    assert!(!pair.server.events.iter().any(refused));
    let now = pair.now;
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.settle();
    pair.assert_same_child();
}

#[test]
fn a_responder_says_that_an_ike_sa_may_begin_without_a_child() {
    let mut pair = Pair::new();
    pair.connect();
    pair.settle();
    let said = pair.sent.iter().any(|(from, datagram)| {
        let message = Message::decode(&datagram.payload).unwrap();
        *from == End::Server
            && message.header.exchange == ExchangeType::IkeSaInit
            && message.payloads.iter().any(|payload| {
                matches!(payload, Payload::Notify(it) if it.kind == NotifyType::CHILDLESS_IKEV2_SUPPORTED)
            })
    });
    assert!(said);
}
