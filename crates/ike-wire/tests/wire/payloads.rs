//! Payloads made by hand from the diagrams of RFC 7296 §3.5 to §3.15, and each way in which they can
//! be malformed, with the place where the mistake is found.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{hex, one, refused};
use epochgate_ike_wire::limits::MAX_SPIS_IN_DELETE;
use epochgate_ike_wire::{
    AuthMethod, Authentication, Configuration, ConfigurationAttribute, ConfigurationAttributeType,
    ConfigurationType, DecodeErrorKind, Delete, Identification, Identity, KeyExchangeMethod, Nonce,
    Notify, NotifyType, Payload, PayloadType, Protocol, decode_payloads,
};

#[test]
fn identifications_are_decoded_by_type_and_keep_their_octets_for_auth() {
    let cases = [
        (
            "0000 000c 01000000 c0000201",
            Identity::Ipv4([192, 0, 2, 1].into()),
        ),
        ("0000 000b 02000000 612e62", Identity::Fqdn("a.b".into())),
        ("0000 000b 03000000 614062", Identity::Rfc822("a@b".into())),
        (
            "0000 0018 05000000 20010db8000000000000000000000001",
            Identity::Ipv6("2001:db8::1".parse().unwrap()),
        ),
        ("0000 000a 09000000 3000", Identity::Dn(vec![0x30, 0])),
        ("0000 000a 0b000000 ff00", Identity::KeyId(vec![0xff, 0])),
        (
            "0000 000a 0c000000 ff00",
            Identity::Other {
                kind: 12,
                data: vec![0xff, 0],
            },
        ),
    ];
    for (digits, identity) in cases {
        let payload = one(PayloadType::ID_INITIATOR, digits);
        assert_eq!(payload, Payload::IdInitiator(Identification::new(identity)));
    }
    // Reserved octets that a peer has filled are covered by its AUTH.
    let Payload::IdResponder(id) = one(PayloadType::ID_RESPONDER, "0000 000b 02abcdef 612e62")
    else {
        panic!("IDr expected")
    };
    assert_eq!(id.identity, Identity::Fqdn("a.b".into()));
    assert_eq!(id.to_wire_body(), hex("02abcdef 612e62"));
}

#[test]
fn identifications_that_do_not_fit_their_type_are_refused() {
    let what = "identification address";
    let length = |length| (8, DecodeErrorKind::FieldLength { what, length });
    assert_eq!(
        refused(PayloadType::ID_INITIATOR, "0000 000b 01000000 c00002"),
        length(3)
    );
    assert_eq!(
        refused(PayloadType::ID_INITIATOR, "0000 000c 05000000 20010db8"),
        length(4)
    );
    let text = refused(PayloadType::ID_INITIATOR, "0000 000a 02000000 61ff");
    assert_eq!(text, (8, DecodeErrorKind::NotText));
    let cut = DecodeErrorKind::Truncated {
        needed: 3,
        available: 2,
    };
    assert_eq!(
        refused(PayloadType::ID_INITIATOR, "0000 0007 020000"),
        (5, cut)
    );
}

#[test]
fn an_identity_is_printed_so_that_it_cannot_forge_a_log_line() {
    assert_eq!(
        Identity::Fqdn("a\nb\u{1b}".into()).to_string(),
        "a\\nb\\u{1b}"
    );
    assert_eq!(Identity::KeyId(vec![0, 255]).to_string(), "key-id:00ff");
}

#[test]
fn nonces_have_sixteen_to_256_octets() {
    for (length, allowed) in [(15, false), (16, true), (256, true), (257, false)] {
        let octets = vec![7; length];
        assert_eq!(Nonce::new(octets.clone()).is_ok(), allowed);
        let chain = [vec![0, 0, 0, 0], octets].concat();
        let mut chain = chain;
        chain[2..4].copy_from_slice(&(length as u16 + 4).to_be_bytes());
        let decoded = decode_payloads(PayloadType::NONCE, &chain);
        match decoded {
            Ok(_) => assert!(allowed),
            Err(error) => {
                assert!(!allowed);
                assert_eq!(
                    (error.offset, error.kind),
                    (4, DecodeErrorKind::NonceLength(length))
                );
            }
        }
    }
}

#[test]
fn nonces_are_compared_octet_by_octet() {
    let nonce = |first| Nonce::new([vec![first], vec![0; 31]].concat()).unwrap();
    assert!(nonce(1) < nonce(2));
    assert!(Nonce::new([9; 16]).unwrap() > nonce(8));
}

#[test]
fn notifications_know_what_they_are_about() {
    let rekey = one(PayloadType::NOTIFY, "0000 000c 03 04 4009 c0000001");
    let expected = Notify::about_child(NotifyType::REKEY_SA, Protocol::Esp, 0xc000_0001);
    assert_eq!(rekey, Payload::Notify(expected.clone()));
    assert_eq!(expected.child_spi(), Some(0xc000_0001));
    assert_eq!(expected.wanted_key_exchange(), None);

    let group = one(PayloadType::NOTIFY, "0000 000a 00 00 0011 0014");
    let Payload::Notify(group) = group else {
        panic!("N expected")
    };
    assert_eq!(group.wanted_key_exchange(), Some(KeyExchangeMethod::P384));
    assert_eq!(group, Notify::new(NotifyType::INVALID_KE_PAYLOAD, [0, 20]));

    let spi = DecodeErrorKind::Truncated {
        needed: 4,
        available: 2,
    };
    assert_eq!(
        refused(PayloadType::NOTIFY, "0000 000a 03 04 4009 c000"),
        (8, spi)
    );
}

#[test]
fn errors_and_statuses_are_told_apart_by_number() {
    assert!(NotifyType::NO_PROPOSAL_CHOSEN.is_error());
    assert!(NotifyType(16383).is_error());
    assert!(!NotifyType::INITIAL_CONTACT.is_error());
    assert!(!NotifyType(NotifyType::FIRST_PRIVATE_STATUS).is_error());
}

#[test]
fn deletes_name_the_ike_sa_or_child_sas() {
    assert_eq!(
        one(PayloadType::DELETE, "0000 0008 01 00 0000"),
        Payload::Delete(Delete::IkeSa)
    );
    let esp = one(
        PayloadType::DELETE,
        "0000 0010 03 04 0002 00000100 c0000001",
    );
    assert_eq!(esp, Payload::Delete(Delete::Esp(vec![0x100, 0xc000_0001])));

    let size = DecodeErrorKind::DeleteSpiSize {
        protocol: 3,
        spi_size: 8,
    };
    assert_eq!(
        refused(PayloadType::DELETE, "0000 0008 03 08 0000"),
        (4, size)
    );
    let protocol = DecodeErrorKind::DeleteSpiSize {
        protocol: 4,
        spi_size: 4,
    };
    assert_eq!(
        refused(PayloadType::DELETE, "0000 0008 04 04 0000"),
        (4, protocol)
    );
    let count = DecodeErrorKind::Count {
        what: "SPIs",
        claimed: 1,
        actual: 0,
    };
    assert_eq!(
        refused(PayloadType::DELETE, "0000 0008 01 00 0001"),
        (4, count)
    );
    // A count of 256 with one SPI behind it takes memory for one.
    let missing = DecodeErrorKind::Truncated {
        needed: 4,
        available: 0,
    };
    assert_eq!(
        refused(PayloadType::DELETE, "0000 000c 03 04 0100 00000100"),
        (12, missing)
    );
    let limit = MAX_SPIS_IN_DELETE;
    let many = DecodeErrorKind::TooMany {
        what: "SPIs",
        limit,
    };
    assert_eq!(
        refused(PayloadType::DELETE, "0000 000c 03 04 0101 00000100"),
        (4, many)
    );
    assert_eq!(
        refused(PayloadType::DELETE, "0000 000d 03 04 0001 00000100 00"),
        (12, DecodeErrorKind::TrailingOctets(1))
    );
}

#[test]
fn configuration_attributes_are_decoded() {
    let payload = one(
        PayloadType::CONFIGURATION,
        "0000 0014 01000000 0001 0000 0003 0004 c0000235",
    );
    let attribute = |kind, value: &[u8]| ConfigurationAttribute {
        kind,
        value: value.to_vec(),
    };
    let expected = Configuration {
        kind: ConfigurationType::REQUEST,
        attributes: vec![
            attribute(ConfigurationAttributeType::INTERNAL_IP4_ADDRESS, &[]),
            attribute(
                ConfigurationAttributeType::INTERNAL_IP4_DNS,
                &[192, 0, 2, 53],
            ),
        ],
    };
    assert_eq!(payload, Payload::Configuration(expected));
    let cut = DecodeErrorKind::Truncated {
        needed: 5,
        available: 4,
    };
    let digits = "0000 0010 01000000 0003 0005 c0000235";
    assert_eq!(refused(PayloadType::CONFIGURATION, digits), (12, cut));
}

#[test]
fn debug_output_has_lengths_in_place_of_octets() {
    let data = vec![0xaa; 32];
    let payload = Payload::Authentication(Authentication {
        method: AuthMethod::SHARED_KEY_MIC,
        data,
    });
    assert_eq!(
        format!("{payload:?}"),
        "Authentication(SHARED_KEY_MIC, <32 octets>)"
    );
    let cookie = Payload::Notify(Notify::new(NotifyType::COOKIE, [1; 20]));
    assert_eq!(format!("{cookie:?}"), "Notify(COOKIE, <20 octets>)");
    let unknown = Payload::Notify(Notify::new(NotifyType(50000), []));
    assert_eq!(format!("{unknown:?}"), "Notify(50000)");
}
