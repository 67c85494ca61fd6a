//! What is refused for its size, and what is not encoded because it could not be decoded.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{header_hex, hex, informational};
use epochgate_ike_wire::limits::{
    MAX_CONFIGURATION_ATTRIBUTES, MAX_MESSAGE_LEN, MAX_PAYLOADS, MAX_PROPOSALS, MAX_SPIS_IN_DELETE,
    MAX_TRAFFIC_SELECTORS, MAX_TRANSFORMS,
};
use epochgate_ike_wire::{
    Configuration, ConfigurationAttribute, ConfigurationAttributeType, ConfigurationType,
    DecodeError, DecodeErrorKind, Delete, EncodeError, EncryptedFragment, EncryptedPayload, Header,
    Message, Payload, PayloadType, Proposal, Protocol, TrafficSelector, Transform, decode_payloads,
    encode_payloads, encrypted_header,
};

#[test]
fn more_of_anything_than_its_limit_is_refused_both_ways() {
    let repeated = |kind: PayloadType, fixed: &str, item: &str, count: usize, what, limit| {
        let body = [hex(fixed), hex(item).repeat(count)].concat();
        let length = (body.len() + 4) as u16;
        let chain = [vec![0, 0], length.to_be_bytes().to_vec(), body].concat();
        let error = decode_payloads(kind, &chain).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::TooMany { what, limit });
    };
    let refused = |payload: Payload, what, limit| {
        assert_eq!(
            encode_payloads(&[payload]),
            Err(EncodeError::TooMany { what, limit })
        );
    };
    let proposal = Proposal {
        number: 1,
        protocol: Protocol::Ike,
        spi: vec![],
        transforms: vec![],
    };
    let limit = MAX_PROPOSALS;
    let more = "0200 0008 01010000";
    repeated(
        PayloadType::SECURITY_ASSOCIATION,
        "",
        more,
        limit + 1,
        "proposals",
        limit,
    );
    let proposals = vec![proposal.clone(); limit + 1];
    refused(Payload::SecurityAssociation(proposals), "proposals", limit);

    let limit = MAX_TRANSFORMS;
    let length = 8 + 8 * (limit + 1);
    let fixed = format!("0000 {length:04x} 010100ff");
    let more = "0300 0008 0200 0005";
    repeated(
        PayloadType::SECURITY_ASSOCIATION,
        &fixed,
        more,
        limit + 1,
        "transforms",
        limit,
    );
    let transforms = vec![Transform::Esn(true); limit + 1];
    let proposals = vec![Proposal {
        transforms,
        ..proposal
    }];
    refused(Payload::SecurityAssociation(proposals), "transforms", limit);

    let limit = MAX_TRAFFIC_SELECTORS;
    let (kind, what) = (
        PayloadType::TRAFFIC_SELECTORS_INITIATOR,
        "traffic selectors",
    );
    repeated(kind, "81000000", "0a00 0004", limit + 1, what, limit);
    let selector = TrafficSelector::Other {
        kind: 10,
        protocol: 0,
        body: vec![],
    };
    refused(
        Payload::TrafficSelectorsInitiator(vec![selector; limit + 1]),
        what,
        limit,
    );

    let limit = MAX_CONFIGURATION_ATTRIBUTES;
    let (kind, what) = (PayloadType::CONFIGURATION, "configuration attributes");
    repeated(kind, "01000000", "0001 0000", limit + 1, what, limit);

    let limit = MAX_SPIS_IN_DELETE;
    refused(
        Payload::Delete(Delete::Esp(vec![1; limit + 1])),
        "SPIs",
        limit,
    );

    let limit = MAX_PAYLOADS;
    let chain = hex("2b00 0004").repeat(limit + 1);
    let error = decode_payloads(PayloadType::VENDOR_ID, &chain).unwrap_err();
    let kind = DecodeErrorKind::TooMany {
        what: "payloads",
        limit,
    };
    assert_eq!(
        error,
        DecodeError {
            offset: limit * 4,
            kind
        }
    );
    let payloads = vec![Payload::VendorId(vec![]); limit + 1];
    let too_many = EncodeError::TooMany {
        what: "payloads",
        limit,
    };
    assert_eq!(encode_payloads(&payloads), Err(too_many));
}

#[test]
fn messages_and_payloads_that_are_too_long_are_refused() {
    let too_long = |payloads| {
        Message {
            header: informational(),
            payloads,
        }
        .encode()
    };
    let vendor = |length| Payload::VendorId(vec![0; length]);
    let what = "payload";
    let error = EncodeError::FieldTooLong {
        what,
        length: 65_536,
    };
    assert_eq!(too_long(vec![vendor(65_532)]), Err(error));
    let error = EncodeError::MessageTooLong(MAX_MESSAGE_LEN + 1);
    assert_eq!(
        too_long(vec![vendor(MAX_MESSAGE_LEN - 31)]),
        Err(error.clone())
    );
    assert!(too_long(vec![vendor(MAX_MESSAGE_LEN - 32)]).is_ok());
    let sealed = |length| encrypted_header(&informational(), PayloadType::NONE, length);
    assert_eq!(sealed(MAX_MESSAGE_LEN - 31), Err(error));
    assert!(sealed(MAX_MESSAGE_LEN - 32).is_ok());
    assert!(sealed(usize::MAX).is_err());
    let datagram = vec![0; MAX_MESSAGE_LEN + 1];
    let header = hex(&header_hex(0, MAX_MESSAGE_LEN as u32 + 1));
    let datagram = [header.as_slice(), &datagram[28..]].concat();
    let kind = DecodeErrorKind::MessageTooLong(MAX_MESSAGE_LEN + 1);
    assert_eq!(
        Message::decode(&datagram),
        Err(DecodeError { offset: 24, kind })
    );
}

#[test]
fn what_could_not_be_decoded_is_not_encoded() {
    let encode = |payloads: &[Payload]| {
        Message {
            header: informational(),
            payloads: payloads.to_vec(),
        }
        .encode()
    };
    let sk = Payload::Encrypted(EncryptedPayload {
        first_inner: PayloadType::NONE,
        body: vec![],
    });
    let skf = Payload::EncryptedFragment(EncryptedFragment {
        first_inner: PayloadType::NONE,
        number: 1,
        total: 1,
        body: vec![],
    });
    let vendor = Payload::VendorId(vec![]);
    for (payload, kind) in [
        (sk, PayloadType::ENCRYPTED),
        (skf, PayloadType::ENCRYPTED_FRAGMENT),
    ] {
        let misplaced = Err(EncodeError::Misplaced(kind));
        assert_eq!(encode(&[payload.clone(), vendor.clone()]), misplaced);
        assert!(encode(&[vendor.clone(), payload.clone()]).is_ok());
        assert_eq!(
            encode_payloads(&[payload]),
            Err(EncodeError::Misplaced(kind))
        );
    }
    let none = Payload::Unknown {
        kind: PayloadType::NONE,
        critical: false,
        body: vec![],
    };
    assert_eq!(
        encode(&[none]),
        Err(EncodeError::Misplaced(PayloadType::NONE))
    );

    let version = |major, minor| {
        let header = Header {
            major,
            minor,
            ..informational()
        };
        Message {
            header,
            payloads: vec![],
        }
        .encode()
    };
    assert_eq!(
        version(3, 0),
        Err(EncodeError::Version { major: 3, minor: 0 })
    );
    assert_eq!(
        version(2, 16),
        Err(EncodeError::Version {
            major: 2,
            minor: 16
        })
    );

    let kind = ConfigurationAttributeType(0x8001);
    let attributes = vec![ConfigurationAttribute {
        kind,
        value: vec![],
    }];
    let configuration = Configuration {
        kind: ConfigurationType::SET,
        attributes,
    };
    let refused = encode(&[Payload::Configuration(configuration)]);
    assert_eq!(refused, Err(EncodeError::AttributeType(0x8001)));
}
