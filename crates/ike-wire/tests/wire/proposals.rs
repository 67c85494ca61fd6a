//! Security Association payloads made by hand from the diagrams of RFC 7296 §3.3, and each way in
//! which they can be malformed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{hex, one, refused};
use epochgate_ike_wire::{
    AdditionalKind, DecodeErrorKind, EncryptionId, IkeSpi, KeyExchangeMethod, Payload, PayloadType,
    Proposal, Protocol, Transform, TransformType,
};

/// Two proposals of ESP with their SPI, the first with ENCR, KE and ESN (RFC 7296 §3.3).
const TWO_PROPOSALS: &str = "
    0000 0044
      0200 0028 01 03 04 03 c0000001
        0300 000c 0100 0014 800e 0100
        0300 0008 0400 001f
        0000 0008 0500 0000
      0000 0018 02 03 04 01 c0000001
        0000 000c 0100 000c 800e 0080";

#[test]
fn proposals_are_decoded_with_their_transforms() {
    let payload = one(PayloadType::SECURITY_ASSOCIATION, TWO_PROPOSALS);
    let spi = vec![0xc0, 0, 0, 1];
    let gcm = Transform::Encryption {
        id: EncryptionId::AES_GCM_16,
        key_bits: Some(256),
    };
    let cbc = Transform::Encryption {
        id: EncryptionId::AES_CBC,
        key_bits: Some(128),
    };
    let x25519 = Transform::KeyExchange(KeyExchangeMethod::X25519);
    let first = Proposal {
        number: 1,
        protocol: Protocol::Esp,
        spi: spi.clone(),
        transforms: vec![gcm, x25519, Transform::Esn(false)],
    };
    let second = Proposal {
        number: 2,
        protocol: Protocol::Esp,
        spi,
        transforms: vec![cbc],
    };
    assert_eq!(first.child_spi(), Some(0xc000_0001));
    assert_eq!(first.ike_spi(), None);
    assert_eq!(payload, Payload::SecurityAssociation(vec![first, second]));
}

#[test]
fn the_proposal_that_rekeys_an_ike_sa_has_an_spi_of_eight_octets() {
    let payload = one(
        PayloadType::SECURITY_ASSOCIATION,
        "0000 0014 0000 0010 01 01 08 00 0102030405060708",
    );
    let Payload::SecurityAssociation(proposals) = payload else {
        panic!("SA expected")
    };
    assert_eq!(
        proposals[0].ike_spi(),
        Some(IkeSpi([1, 2, 3, 4, 5, 6, 7, 8]))
    );
    assert_eq!(proposals[0].child_spi(), None);
}

#[test]
fn a_transform_that_cannot_be_understood_is_kept_apart() {
    let transform = |digits: &str| {
        let length = hex(digits).len() + 4;
        let proposal = format!(
            "0000 {:04x} 0000 {:04x} 01 03 00 01 0000 {length:04x} {digits}",
            length + 12,
            length + 8
        );
        let payload = one(PayloadType::SECURITY_ASSOCIATION, &proposal);
        let Payload::SecurityAssociation(mut proposals) = payload else {
            panic!("SA expected")
        };
        proposals.remove(0).transforms.remove(0)
    };
    let unknown = |kind, id, attributes: &[u8]| {
        let attributes = attributes.to_vec();
        Transform::Unknown {
            kind,
            id,
            attributes,
        }
    };
    // An additional key exchange (RFC 9370).
    let additional = Transform::AdditionalKeyExchange {
        kind: AdditionalKind::ONE,
        method: KeyExchangeMethod::ML_KEM_768,
    };
    assert_eq!(transform("0600 0024"), additional);
    assert_eq!(
        transform("0d00 0024"),
        unknown(TransformType(13), 0x24, &[])
    );
    // An attribute that is not Key Length, two of them, and one that is cut off.
    let encryption = TransformType::ENCRYPTION;
    assert_eq!(
        transform("0100 0014 800f 0080"),
        unknown(encryption, 20, &[0x80, 15, 0, 128])
    );
    let twice = [0x80, 14, 0, 128, 0x80, 14, 0, 128];
    assert_eq!(
        transform("0100 0014 800e 0080 800e 0080"),
        unknown(encryption, 20, &twice)
    );
    assert_eq!(
        transform("0100 0014 800e"),
        unknown(encryption, 20, &[0x80, 14])
    );
    // A PRF has no key length; sequence numbers are of two kinds.
    assert_eq!(
        transform("0200 0005 800e 0100"),
        unknown(TransformType::PRF, 5, &[0x80, 14, 1, 0])
    );
    let sequence_numbers = TransformType::EXTENDED_SEQUENCE_NUMBERS;
    assert_eq!(transform("0500 0002"), unknown(sequence_numbers, 2, &[]));
    // A cipher whose key has one length only.
    let chacha = Transform::Encryption {
        id: EncryptionId::CHACHA20_POLY1305,
        key_bits: None,
    };
    assert_eq!(transform("0100 001c"), chacha);
}

#[test]
fn proposals_whose_counts_or_lengths_disagree_are_refused() {
    let sa = |digits: &str| {
        let length = hex(digits).len() + 4;
        refused(
            PayloadType::SECURITY_ASSOCIATION,
            &format!("0000 {length:04x} {digits}"),
        )
    };
    // "More" behind the last proposal, "last" before another, an undefined value.
    assert_eq!(
        sa("0200 0008 01010000"),
        (4, DecodeErrorKind::LastSubstructure(2))
    );
    let two = "0000 0008 01010000 0000 0008 02010000";
    assert_eq!(sa(two), (4, DecodeErrorKind::LastSubstructure(0)));
    assert_eq!(
        sa("0700 0008 01010000"),
        (4, DecodeErrorKind::LastSubstructure(7))
    );
    let last_transform = "0000 0010 01010001 0300 0008 0200 0005";
    assert_eq!(
        sa(last_transform),
        (12, DecodeErrorKind::LastSubstructure(3))
    );

    let count = DecodeErrorKind::Count {
        what: "transforms",
        claimed: 2,
        actual: 1,
    };
    assert_eq!(sa("0000 0010 01010002 0000 0008 0200 0005"), (4, count));
    let short = DecodeErrorKind::LengthBelowMinimum {
        length: 7,
        minimum: 8,
    };
    assert_eq!(sa("0000 0007 010100"), (4, short.clone()));
    assert_eq!(sa("0000 0010 01010001 0000 0007 0200 0005"), (12, short));
    let spi = DecodeErrorKind::Truncated {
        needed: 8,
        available: 4,
    };
    assert_eq!(sa("0000 000c 01010800 01020304"), (12, spi));
    let beyond = DecodeErrorKind::Truncated {
        needed: 12,
        available: 4,
    };
    assert_eq!(sa("0000 0010 01010000"), (8, beyond));
}
