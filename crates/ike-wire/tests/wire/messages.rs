//! Messages and chains of payloads made by hand from the diagrams of RFC 7296 §3.1, §3.2 and §3.14
//! and RFC 7383 §2.5, and each way in which they can be malformed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{header_hex, hex, informational, message_refused, one, refused};
use epochgate_ike_wire::{
    DecodeErrorKind, EncodeError, EncryptedPayload, ExchangeType, Header, Message, Payload,
    PayloadType, decode_payloads, encode_payloads, encrypted_fragment_header, encrypted_header,
};

#[test]
fn a_header_is_decoded_field_by_field() {
    let datagram = hex(&header_hex(0, 28));
    let message = Message::decode(&datagram).unwrap();
    assert_eq!(
        message,
        Message {
            header: informational(),
            payloads: Vec::new()
        }
    );
    assert_eq!(message.encode().unwrap(), datagram);
}

#[test]
fn reserved_flags_and_the_minor_version_do_not_matter() {
    let datagram = hex("0102030405060708 1112131415161718 00 2f 25 cf 00000005 0000001c");
    let header = Message::decode(&datagram).unwrap().header;
    assert_eq!(
        header,
        Header {
            minor: 15,
            ..informational()
        }
    );
}

#[test]
fn a_newer_major_version_is_told_apart_and_its_header_can_still_be_answered() {
    let datagram = "0102030405060708 0000000000000000 00 30 22 08 00000000 0000001c";
    let newer = DecodeErrorKind::NewerMajorVersion { major: 3 };
    assert_eq!(message_refused(datagram), (17, newer));
    let header = Header::decode(&hex(datagram)).unwrap();
    assert_eq!((header.major, header.message_id), (3, 0));
    assert_eq!(header.exchange, ExchangeType::IkeSaInit);
    let version_1 = "0102030405060708 0000000000000000 01 10 02 00 00000000 0000001c";
    let older = DecodeErrorKind::OlderMajorVersion { major: 1 };
    assert_eq!(message_refused(version_1), (17, older));
}

#[test]
fn the_length_field_must_be_that_of_the_datagram() {
    for claimed in [0, 27, 29, u32::MAX] {
        let kind = DecodeErrorKind::MessageLength {
            claimed,
            actual: 28,
        };
        assert_eq!(message_refused(&header_hex(0, claimed)), (24, kind));
    }
    let kind = DecodeErrorKind::Truncated {
        needed: 28,
        available: 27,
    };
    assert_eq!(
        message_refused(header_hex(0, 28).strip_suffix("1c").unwrap()),
        (0, kind)
    );
}

#[test]
fn octets_that_no_payload_accounts_for_are_refused() {
    let datagram = header_hex(0, 30) + "0000";
    assert_eq!(
        message_refused(&datagram),
        (28, DecodeErrorKind::TrailingOctets(2))
    );
    let behind_nothing = refused(PayloadType::NONE, "00");
    assert_eq!(behind_nothing, (0, DecodeErrorKind::TrailingOctets(1)));
}

#[test]
fn an_empty_plaintext_is_an_empty_chain() {
    assert_eq!(decode_payloads(PayloadType::NONE, &[]), Ok(Vec::new()));
    assert_eq!(encode_payloads(&[]), Ok((PayloadType::NONE, Vec::new())));
}

#[test]
fn a_payload_cannot_be_shorter_than_its_header_or_longer_than_the_message() {
    let short = DecodeErrorKind::LengthBelowMinimum {
        length: 3,
        minimum: 4,
    };
    assert_eq!(refused(PayloadType::VENDOR_ID, "0000 0003"), (0, short));
    let long = DecodeErrorKind::Truncated {
        needed: 5,
        available: 4,
    };
    assert_eq!(
        refused(PayloadType::VENDOR_ID, "0000 0009 01020304"),
        (4, long)
    );
    // The payload that is announced is missing altogether.
    let missing = DecodeErrorKind::Truncated {
        needed: 1,
        available: 0,
    };
    assert_eq!(refused(PayloadType::VENDOR_ID, "2b00 0004"), (4, missing));
}

#[test]
fn an_unknown_payload_keeps_its_critical_bit() {
    for (octet, critical) in [("00", false), ("80", true)] {
        let payload = one(PayloadType(200), &format!("00{octet} 0006 abcd"));
        let body = vec![0xab, 0xcd];
        assert_eq!(
            payload,
            Payload::Unknown {
                kind: PayloadType(200),
                critical,
                body
            }
        );
    }
    // Of a known payload the bit is ignored, and reserved bits are ignored always.
    let vendor = decode_payloads(PayloadType::VENDOR_ID, &hex("00ff 0005 aa")).unwrap();
    assert_eq!(vendor, [Payload::VendorId(vec![0xaa])]);
}

#[test]
fn the_encrypted_payload_ends_the_message() {
    let datagram = hex(&(header_hex(46, 36) + "2900 0008 01020304"));
    let message = Message::decode(&datagram).unwrap();
    let encrypted = EncryptedPayload {
        first_inner: PayloadType::NOTIFY,
        body: vec![1, 2, 3, 4],
    };
    assert_eq!(encrypted.associated_data(&datagram), Some(&datagram[..32]));
    assert_eq!(encrypted.associated_data(&[0; 3]), None);
    assert_eq!(message.payloads, [Payload::Encrypted(encrypted)]);
    let prefix = encrypted_header(&message.header, PayloadType::NOTIFY, 4).unwrap();
    assert_eq!(prefix, datagram[..32]);

    let followed = header_hex(46, 40) + "2b00 0008 01020304 0000 0004";
    assert_eq!(
        message_refused(&followed),
        (36, DecodeErrorKind::EncryptedNotLast)
    );
    // One that stands behind a payload in clear is found as well.
    let behind = hex(&(header_hex(43, 36) + "2e00 0004 0000 0004"));
    assert_eq!(Message::decode(&behind).unwrap().payloads.len(), 2);
}

#[test]
fn an_encrypted_payload_inside_another_is_refused() {
    let nested = refused(PayloadType::ENCRYPTED, "0000 0004");
    assert_eq!(nested, (0, DecodeErrorKind::NestedEncrypted));
    let nested = refused(PayloadType::VENDOR_ID, "3500 0004 0000 0008 00010001");
    assert_eq!(nested, (4, DecodeErrorKind::NestedEncrypted));
}

#[test]
fn a_fragment_has_a_number_within_its_total() {
    let datagram = hex(&(header_hex(53, 38) + "0000 000a 0002 0003 abcd"));
    let message = Message::decode(&datagram).unwrap();
    let [Payload::EncryptedFragment(fragment)] = message.payloads.as_slice() else {
        panic!("SKF expected: {message:?}");
    };
    assert_eq!((fragment.number, fragment.total), (2, 3));
    assert_eq!(fragment.body, [0xab, 0xcd]);
    assert_eq!(fragment.associated_data(&datagram), Some(&datagram[..36]));
    let prefix = encrypted_fragment_header(&message.header, PayloadType::NONE, 2, 3, 2).unwrap();
    assert_eq!(prefix, datagram[..36]);

    for (number, total) in [(0, 0), (0, 1), (2, 1)] {
        let datagram = header_hex(53, 36) + &format!("0000 0008 {number:04x} {total:04x}");
        let kind = DecodeErrorKind::FragmentNumber { number, total };
        assert_eq!(message_refused(&datagram), (32, kind));
        let refused =
            encrypted_fragment_header(&message.header, PayloadType::NONE, number, total, 2);
        assert_eq!(refused, Err(EncodeError::FragmentNumber { number, total }));
    }
}
