//! IKE_SA_INIT and IKE_AUTH.

use super::*;

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

#[test]
fn every_suite_with_every_group() {
    for cipher in [Cipher::AesGcm128, Cipher::AesGcm256] {
        for prf in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512] {
            for group in [Group::X25519, Group::P256, Group::P384] {
                let only = |config: &mut TunnelConfig| {
                    config.ike.ciphers = vec![cipher];
                    config.ike.prfs = vec![prf];
                    config.ike.groups = vec![group];
                    config.esp.ciphers = vec![cipher];
                };
                let mut pair = Pair::with(only, only);
                pair.connect();
                pair.settle();
                pair.assert_same_child();
                assert_eq!(pair.client.child().cipher, cipher);
                assert_eq!(pair.client.child().outbound_key.len(), cipher.key_len() + 4);
            }
        }
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
