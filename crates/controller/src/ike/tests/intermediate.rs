//! IKE_INTERMEDIATE and ML-KEM-768 beside the first key exchange.

use epochgate_ike_wire::{AdditionalKind, KeyExchangeMethod, Transform};

use super::*;
use crate::config::PostQuantum;
use crate::ike::proposal;

fn with(client: PostQuantum, server: PostQuantum) -> Pair {
    Pair::with(
        |config| config.ike.post_quantum = client,
        |config| config.ike.post_quantum = server,
    )
}

fn connected(client: PostQuantum, server: PostQuantum) -> Pair {
    let mut pair = with(client, server);
    pair.connect();
    pair.settle();
    pair
}

#[test]
fn an_additional_key_exchange_goes_between_init_and_auth() {
    let wide = |config: &mut TunnelConfig| {
        config.ike.post_quantum = PostQuantum::Prefer;
        config.path.fragment_size = Some(1500);
    };
    let mut pair = Pair::with(wide, wide);
    pair.connect();
    pair.settle();
    assert_eq!(
        pair.ladder(),
        [
            "--> IKE_SA_INIT request 0",
            "<-- IKE_SA_INIT response 0",
            "--> IKE_INTERMEDIATE request 1",  // KE of 1184 octets
            "<-- IKE_INTERMEDIATE response 1", // KE of 1088 octets
            "--> IKE_AUTH request 2",
            "<-- IKE_AUTH response 2",
        ]
    );
    pair.assert_same_child();
    // The IKE SA goes on with the new keys, in both directions.
    for end in [End::Client, End::Server] {
        pair.rekey(end);
        pair.settle();
        pair.assert_same_child();
    }
}

#[test]
fn it_is_done_where_both_ends_have_it_and_refused_where_one_requires_it() {
    use PostQuantum::{Off, Prefer, Require};
    for (client, server, established, hybrid) in [
        (Prefer, Require, true, true),
        (Require, Prefer, true, true),
        (Require, Require, true, true),
        (Off, Prefer, true, false),
        (Prefer, Off, true, false),
        (Off, Require, false, false),
        (Require, Off, false, false),
    ] {
        let pair = connected(client, server);
        let states = [&pair.client, &pair.server].map(|host| host.peer().is_some());
        assert_eq!(states, [established; 2], "{client:?} {server:?}");
        let exchanged = pair
            .ladder()
            .iter()
            .any(|line| line.contains("INTERMEDIATE"));
        assert_eq!(exchanged, hybrid, "{client:?} {server:?}");
    }
}

#[test]
fn a_lost_message_of_it_is_sent_again_and_a_lost_response_repeated() {
    for response in [false, true] {
        let mut pair = with(PostQuantum::Prefer, PostQuantum::Prefer);
        let from = if response { End::Server } else { End::Client };
        let exchange = ExchangeType::IkeIntermediate;
        pair.rule(from, exchange, response, Fate::Lose, 2);
        pair.connect();
        pair.settle();
        pair.assert_same_child();
        let repeated = pair.server.endpoint.counters().repeated;
        assert_eq!(repeated, if response { 2 } else { 0 });
        assert_eq!(pair.server.endpoint.counters().forged, 0);
    }
}

#[test]
fn it_goes_in_fragments_where_the_path_is_narrow() {
    let narrow = |config: &mut TunnelConfig| {
        config.ike.post_quantum = PostQuantum::Require;
        config.path.fragment_size = Some(576);
    };
    let mut pair = Pair::with(narrow, narrow);
    pair.connect();
    pair.settle();
    pair.assert_same_child();
    let fragments = pair.sent.iter().filter(|(_, datagram)| {
        let message = Message::decode(&datagram.payload).unwrap();
        message.header.exchange == ExchangeType::IkeIntermediate
            && matches!(message.payloads.as_slice(), [Payload::EncryptedFragment(_)])
    });
    assert!(fragments.count() >= 6);
}

#[test]
fn a_responder_takes_no_auth_before_the_exchange_that_was_agreed_on() {
    let mut pair = with(PostQuantum::Require, PostQuantum::Require);
    let exchange = ExchangeType::IkeIntermediate;
    pair.rule(End::Client, exchange, false, Fate::Lose, 99);
    pair.connect();
    pair.run(Duration::from_secs(60));
    assert!(pair.server.peer().is_none());
    assert!(matches!(pair.client.closed(), Some(CloseReason::NoAnswer)));
}

#[test]
fn a_peer_that_has_more_exchanges_is_met_where_it_can_leave_them_out() {
    let mut suite = IkeSuite {
        post_quantum: PostQuantum::Prefer,
        ..IkeSuite::default()
    };
    let second = |method| Transform::AdditionalKeyExchange {
        kind: AdditionalKind::new(epochgate_ike_wire::TransformType(7)).unwrap(),
        method,
    };
    let mut offer = proposal::offer_ike(&suite, &[]);
    offer.truncate(1);
    offer[0]
        .transforms
        .push(second(KeyExchangeMethod::ML_KEM_1024));
    assert!(proposal::choose_ike(&suite, &offer, None).is_none());
    offer[0].transforms.push(second(KeyExchangeMethod::NONE));
    let chosen = proposal::choose_ike(&suite, &offer, None).unwrap();
    assert_eq!(
        chosen.algorithms.additional,
        Some(crate::crypto::Kem::MlKem768)
    );
    assert!(
        chosen
            .proposal
            .transforms
            .contains(&second(KeyExchangeMethod::NONE))
    );
    suite.post_quantum = PostQuantum::Off;
    assert!(proposal::choose_ike(&suite, &offer, None).is_none());
}

#[test]
fn a_rekey_offers_none() {
    let suite = IkeSuite {
        post_quantum: PostQuantum::Require,
        ..IkeSuite::default()
    };
    let additional = |offer: Vec<epochgate_ike_wire::Proposal>| {
        offer
            .iter()
            .flat_map(|proposal| &proposal.transforms)
            .any(|transform| matches!(transform, Transform::AdditionalKeyExchange { .. }))
    };
    assert!(additional(proposal::offer_ike(&suite, &[])));
    assert!(!additional(proposal::offer_ike(&suite, &[1; 8])));
}
