//! What strongSwan 5.9.8 sent, captured between two charons in network namespaces: decoding it
//! gives what charon's log said it put in, and encoding that gives the same octets.
//!
//! The client proposed `aes128gcm16-prfsha256-x25519` and
//! `aes256-sha384-prfsha384-ecp384-modp3072` for IKE, `aes128gcm16-noesn` and `aes256gcm16-esn`
//! for ESP, and authenticated with a preshared key.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::hex;
use epochgate_ike_wire::{
    AddressRange, AuthMethod, EncryptionId, ExchangeType, Flags, Identity, IntegrityId, IpSelector,
    KeyExchangeMethod, Message, NotifyType, Payload, PayloadType, PrfId, Protocol, TrafficSelector,
    Transform, decode_payloads, encode_payloads,
};

const REQUEST: &str = include_str!("strongswan/ike_sa_init_request.hex");
const RESPONSE: &str = include_str!("strongswan/ike_sa_init_response.hex");
const AUTH_REQUEST: &str = include_str!("strongswan/ike_auth_request.hex");
const AUTH_REQUEST_PLAINTEXT: &str = include_str!("strongswan/ike_auth_request_plaintext.hex");

fn notifies(payloads: &[Payload]) -> Vec<NotifyType> {
    let kind = |payload: &Payload| match payload {
        Payload::Notify(notify) => Some(notify.kind),
        _ => None,
    };
    payloads.iter().filter_map(kind).collect()
}

#[test]
fn the_ike_sa_init_request_says_what_charon_was_configured_with() {
    let message = Message::decode(&hex(REQUEST)).unwrap();
    assert_eq!(message.header.exchange, ExchangeType::IkeSaInit);
    let flags = Flags {
        initiator: true,
        response: false,
        version: false,
    };
    assert_eq!(message.header.flags, flags);
    assert_eq!(message.header.initiator_spi.to_string(), "d2405fbe359a4be1");
    assert!(message.header.responder_spi.is_zero());
    assert_eq!(message.header.message_id, 0);

    let [
        Payload::SecurityAssociation(proposals),
        Payload::KeyExchange(exchange),
        Payload::Nonce(nonce),
        rest @ ..,
    ] = message.payloads.as_slice()
    else {
        panic!("SA, KE and Ni expected: {message:?}");
    };
    let [first, second] = proposals.as_slice() else {
        panic!("two proposals: {proposals:?}")
    };
    assert_eq!(
        (first.number, first.protocol, first.spi.len()),
        (1, Protocol::Ike, 0)
    );
    assert_eq!(
        first.transforms,
        [
            Transform::Encryption {
                id: EncryptionId::AES_GCM_16,
                key_bits: Some(128)
            },
            Transform::Prf(PrfId::HMAC_SHA2_256),
            Transform::KeyExchange(KeyExchangeMethod::X25519),
        ]
    );
    assert_eq!(
        second.transforms,
        [
            Transform::Encryption {
                id: EncryptionId::AES_CBC,
                key_bits: Some(256)
            },
            Transform::Integrity(IntegrityId::HMAC_SHA2_384_192),
            Transform::Prf(PrfId::HMAC_SHA2_384),
            Transform::KeyExchange(KeyExchangeMethod::P384),
            Transform::KeyExchange(KeyExchangeMethod::MODP_3072),
        ]
    );
    assert_eq!(
        (exchange.method, exchange.data.len()),
        (KeyExchangeMethod::X25519, 32)
    );
    assert_eq!(nonce.as_bytes().len(), 32);
    assert_eq!(
        notifies(rest),
        [
            NotifyType::NAT_DETECTION_SOURCE_IP,
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
            NotifyType::SIGNATURE_HASH_ALGORITHMS,
            NotifyType::REDIRECT_SUPPORTED,
        ]
    );
}

#[test]
fn the_ike_sa_init_response_chooses_one_proposal() {
    let message = Message::decode(&hex(RESPONSE)).unwrap();
    assert!(message.header.flags.response && !message.header.flags.initiator);
    assert_eq!(message.header.responder_spi.to_string(), "bef880bb2d9ef0db");
    let Some(Payload::SecurityAssociation(proposals)) = message.payloads.first() else {
        panic!("SA expected: {message:?}");
    };
    assert_eq!(proposals.len(), 1);
    assert!(notifies(&message.payloads).contains(&NotifyType::CHILDLESS_IKEV2_SUPPORTED));
}

#[test]
fn the_ike_auth_request_is_one_encrypted_payload_with_idi_in_front() {
    let datagram = hex(AUTH_REQUEST);
    let message = Message::decode(&datagram).unwrap();
    let [Payload::Encrypted(encrypted)] = message.payloads.as_slice() else {
        panic!("SK expected: {message:?}");
    };
    assert_eq!(encrypted.first_inner, PayloadType::ID_INITIATOR);
    assert_eq!(encrypted.associated_data(&datagram), Some(&datagram[..32]));
    // IV, plaintext with its padding length, ICV.
    assert_eq!(
        encrypted.body.len(),
        8 + hex(AUTH_REQUEST_PLAINTEXT).len() + 1 + 16
    );
}

#[test]
fn the_ike_auth_plaintext_says_what_charon_was_configured_with() {
    let plaintext = hex(AUTH_REQUEST_PLAINTEXT);
    let payloads = decode_payloads(PayloadType::ID_INITIATOR, &plaintext).unwrap();
    let [
        Payload::IdInitiator(ours),
        Payload::Notify(initial_contact),
        Payload::IdResponder(theirs),
        Payload::Authentication(authentication),
        Payload::SecurityAssociation(proposals),
        Payload::TrafficSelectorsInitiator(ours_selectors),
        Payload::TrafficSelectorsResponder(theirs_selectors),
        rest @ ..,
    ] = payloads.as_slice()
    else {
        panic!("another order: {payloads:?}");
    };
    assert_eq!(ours.identity, Identity::Fqdn("client.example".into()));
    assert_eq!(theirs.identity, Identity::Fqdn("server.example".into()));
    // RestOfInitIDPayload: all of the first payload but its generic header.
    assert_eq!(ours.to_wire_body(), plaintext[4..0x16]);
    assert_eq!(initial_contact.kind, NotifyType::INITIAL_CONTACT);
    assert_eq!(authentication.method, AuthMethod::SHARED_KEY_MIC);
    assert_eq!(authentication.data.len(), 32);

    assert_eq!(proposals.len(), 2);
    assert_eq!(proposals[0].child_spi(), Some(0xc382_3cfe));
    assert_eq!(proposals[0].transforms[1], Transform::Esn(false));
    assert_eq!(proposals[1].transforms[1], Transform::Esn(true));

    let network = |address: &str, len| {
        let range = AddressRange::from_prefix(address.parse().unwrap(), len).unwrap();
        TrafficSelector::Ip(IpSelector::any(range))
    };
    assert_eq!(*ours_selectors, [network("10.1.0.0", 16)]);
    assert_eq!(
        *theirs_selectors,
        [network("10.2.0.0", 16), network("2001:db8::", 32)]
    );
    assert_eq!(notifies(rest)[0], NotifyType::MOBIKE_SUPPORTED);
}

#[test]
fn what_charon_sent_is_encoded_to_the_same_octets() {
    for capture in [REQUEST, RESPONSE, AUTH_REQUEST] {
        let datagram = hex(capture);
        assert_eq!(
            Message::decode(&datagram).unwrap().encode().unwrap(),
            datagram
        );
    }
    let plaintext = hex(AUTH_REQUEST_PLAINTEXT);
    let payloads = decode_payloads(PayloadType::ID_INITIATOR, &plaintext).unwrap();
    assert_eq!(
        encode_payloads(&payloads).unwrap(),
        (PayloadType::ID_INITIATOR, plaintext)
    );
}

#[test]
fn a_captured_message_is_refused_at_every_shorter_length() {
    let datagram = hex(REQUEST);
    for length in 0..datagram.len() {
        assert!(
            Message::decode(&datagram[..length]).is_err(),
            "{length} octets"
        );
    }
    let plaintext = hex(AUTH_REQUEST_PLAINTEXT);
    for length in 0..plaintext.len() {
        let cut = &plaintext[..length];
        assert!(
            decode_payloads(PayloadType::ID_INITIATOR, cut).is_err(),
            "{length} octets"
        );
    }
}

/// None of these changes makes the decoder panic, and what it accepts is encoded to something
/// that decodes to the same.
#[test]
fn a_captured_message_with_any_one_octet_changed_is_survived() {
    let datagram = hex(REQUEST);
    let plaintext = hex(AUTH_REQUEST_PLAINTEXT);
    let changes = (0..8).map(|bit| 1 << bit).chain([0x03, 0x55, 0xff]);
    for change in changes {
        for place in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[place] ^= change;
            if let Ok(message) = Message::decode(&changed) {
                let again = message.encode().unwrap();
                assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
            }
        }
        for place in 0..plaintext.len() {
            let mut changed = plaintext.clone();
            changed[place] ^= change;
            if let Ok(payloads) = decode_payloads(PayloadType::ID_INITIATOR, &changed) {
                let (first, again) = encode_payloads(&payloads).unwrap();
                assert_eq!(decode_payloads(first, &again).as_ref(), Ok(&payloads));
            }
        }
    }
}
