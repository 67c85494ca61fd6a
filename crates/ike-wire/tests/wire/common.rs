//! Hexadecimal vectors, and arbitrary messages for the property tests: everything that the public
//! types can say and the wire can carry, and nothing that has two spellings (an `Other` holding a
//! known number).

use epochgate_ike_wire::{
    AdditionalKind, AddressRange, AuthMethod, Authentication, Certificate, CertificateEncoding,
    CertificateRequest, Configuration, ConfigurationAttribute, ConfigurationAttributeType,
    ConfigurationType, DecodeError, DecodeErrorKind, Delete, EncryptedFragment, EncryptedPayload,
    EncryptionId, ExchangeType, Flags, Header, Identification, Identity, IkeSpi, IntegrityId,
    IpSelector, KeyExchange, KeyExchangeMethod, Message, Nonce, Notify, NotifyType, Payload,
    PayloadType, PortRange, PrfId, Proposal, Protocol, TrafficSelector, Transform, TransformType,
    decode_payloads, encode_payloads,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn octets(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=max)
}

pub(crate) fn header() -> impl Strategy<Value = Header> {
    let flags = any::<(bool, bool, bool)>().prop_map(|(initiator, response, version)| Flags {
        initiator,
        response,
        version,
    });
    (
        any::<[u8; 8]>(),
        any::<[u8; 8]>(),
        0..16u8,
        any::<u8>(),
        flags,
        any::<u32>(),
    )
        .prop_map(
            |(initiator, responder, minor, exchange, flags, message_id)| Header {
                minor,
                ..Header::new(
                    IkeSpi(initiator),
                    IkeSpi(responder),
                    ExchangeType::from(exchange),
                    flags,
                    message_id,
                )
            },
        )
}

fn protocol() -> impl Strategy<Value = Protocol> {
    any::<u8>().prop_map(Protocol::from)
}

fn transform() -> impl Strategy<Value = Transform> {
    prop_oneof![
        (any::<u16>(), option::of(any::<u16>())).prop_map(|(id, key_bits)| Transform::Encryption {
            id: EncryptionId(id),
            key_bits
        }),
        any::<u16>().prop_map(|id| Transform::Prf(PrfId(id))),
        any::<u16>().prop_map(|id| Transform::Integrity(IntegrityId(id))),
        any::<u16>().prop_map(|id| Transform::KeyExchange(KeyExchangeMethod(id))),
        any::<bool>().prop_map(Transform::Esn),
        (6..=12u8, any::<u16>()).prop_filter_map("ADDKE1 to ADDKE7", |(kind, id)| {
            Some(Transform::AdditionalKeyExchange {
                kind: AdditionalKind::new(TransformType(kind))?,
                method: KeyExchangeMethod(id),
            })
        }),
        (13..=u8::MAX, any::<u16>(), octets(12)).prop_map(|(kind, id, attributes)| {
            Transform::Unknown {
                kind: TransformType(kind),
                id,
                attributes,
            }
        }),
        (1..=12u8, any::<u16>(), vec(any::<u8>(), 5..12)).prop_map(|(kind, id, attributes)| {
            Transform::Unknown {
                kind: TransformType(kind),
                id,
                attributes,
            }
        }),
    ]
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<u8>(), protocol(), octets(255), vec(transform(), 0..8)).prop_map(
        |(number, protocol, spi, transforms)| Proposal {
            number,
            protocol,
            spi,
            transforms,
        },
    )
}

fn identification() -> impl Strategy<Value = Identification> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(Identity::Ipv4),
        any::<String>().prop_map(Identity::Fqdn),
        any::<String>().prop_map(Identity::Rfc822),
        any::<std::net::Ipv6Addr>().prop_map(Identity::Ipv6),
        octets(64).prop_map(Identity::Dn),
        octets(64).prop_map(Identity::KeyId),
        (12..=u8::MAX, octets(16)).prop_map(|(kind, data)| Identity::Other { kind, data }),
    ]
    .prop_map(Identification::new)
}

pub(crate) fn ip_selector() -> impl Strategy<Value = IpSelector> {
    let ports = prop_oneof![
        Just(PortRange::ANY),
        Just(PortRange::OPAQUE),
        any::<(u16, u16)>().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
    ];
    let v4 = any::<[std::net::Ipv4Addr; 2]>().prop_map(|pair| pair.map(std::net::IpAddr::from));
    let v6 = any::<[std::net::Ipv6Addr; 2]>().prop_map(|pair| pair.map(std::net::IpAddr::from));
    let range =
        prop_oneof![v4, v6].prop_map(|[a, b]| AddressRange::new(a.min(b), a.max(b)).unwrap());
    let prefix = (any::<std::net::IpAddr>(), 0..=32u8)
        .prop_map(|(address, len)| AddressRange::from_prefix(address, len).unwrap());
    (
        prop_oneof![Just(0), any::<u8>()],
        ports,
        prop_oneof![range, prefix],
    )
        .prop_map(|(protocol, ports, addresses)| IpSelector {
            protocol,
            ports,
            addresses,
        })
}

fn traffic_selector() -> impl Strategy<Value = TrafficSelector> {
    prop_oneof![
        4 => ip_selector().prop_map(TrafficSelector::Ip),
        1 => (9..=u8::MAX, any::<u8>(), octets(32)).prop_map(|(kind, protocol, body)| {
            TrafficSelector::Other { kind, protocol, body }
        }),
    ]
}

fn notify() -> impl Strategy<Value = Notify> {
    let about = (1..=u8::MAX).prop_map(Protocol::from);
    (option::of(about), octets(255), any::<u16>(), octets(64)).prop_map(
        |(protocol, spi, kind, data)| Notify {
            protocol,
            spi,
            kind: NotifyType(kind),
            data,
        },
    )
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let attribute = (0..0x8000u16, octets(32)).prop_map(|(kind, value)| ConfigurationAttribute {
        kind: ConfigurationAttributeType(kind),
        value,
    });
    (any::<u8>(), vec(attribute, 0..6)).prop_map(|(kind, attributes)| Configuration {
        kind: ConfigurationType(kind),
        attributes,
    })
}

/// Any payload that may stand anywhere in a chain.
pub(crate) fn payload() -> impl Strategy<Value = Payload> {
    let certificate = || (any::<u8>(), octets(64));
    let unknown = prop_oneof![1..33u8, 49..53u8, 54..=u8::MAX].prop_map(PayloadType);
    prop_oneof![
        vec(proposal(), 0..4).prop_map(Payload::SecurityAssociation),
        (any::<u16>(), octets(64)).prop_map(|(method, data)| {
            Payload::KeyExchange(KeyExchange {
                method: KeyExchangeMethod(method),
                data,
            })
        }),
        identification().prop_map(Payload::IdInitiator),
        identification().prop_map(Payload::IdResponder),
        certificate().prop_map(|(encoding, data)| {
            Payload::Certificate(Certificate {
                encoding: CertificateEncoding(encoding),
                data,
            })
        }),
        certificate().prop_map(|(encoding, authorities)| {
            let encoding = CertificateEncoding(encoding);
            Payload::CertificateRequest(CertificateRequest {
                encoding,
                authorities,
            })
        }),
        (any::<u8>(), octets(64)).prop_map(|(method, data)| {
            Payload::Authentication(Authentication {
                method: AuthMethod(method),
                data,
            })
        }),
        vec(any::<u8>(), 16..=256).prop_map(|octets| Payload::Nonce(Nonce::new(octets).unwrap())),
        notify().prop_map(Payload::Notify),
        Just(Payload::Delete(Delete::IkeSa)),
        vec(any::<u32>(), 0..8).prop_map(|spis| Payload::Delete(Delete::Ah(spis))),
        vec(any::<u32>(), 0..8).prop_map(|spis| Payload::Delete(Delete::Esp(spis))),
        octets(32).prop_map(Payload::VendorId),
        vec(traffic_selector(), 0..6).prop_map(Payload::TrafficSelectorsInitiator),
        vec(traffic_selector(), 0..6).prop_map(Payload::TrafficSelectorsResponder),
        configuration().prop_map(Payload::Configuration),
        octets(32).prop_map(Payload::Eap),
        (unknown, any::<bool>(), octets(32)).prop_map(|(kind, critical, body)| {
            Payload::Unknown {
                kind,
                critical,
                body,
            }
        }),
    ]
}

fn encrypted() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (any::<u8>(), octets(256)).prop_map(|(first_inner, body)| {
            Payload::Encrypted(EncryptedPayload {
                first_inner: PayloadType(first_inner),
                body,
            })
        }),
        (any::<u8>(), 1..=u16::MAX, 1..=u16::MAX, octets(256)).prop_map(
            |(first_inner, a, b, body)| {
                Payload::EncryptedFragment(EncryptedFragment {
                    first_inner: PayloadType(first_inner),
                    number: a.min(b),
                    total: a.max(b),
                    body,
                })
            }
        ),
    ]
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    (header(), vec(payload(), 0..8), option::of(encrypted())).prop_map(
        |(header, mut payloads, encrypted)| {
            payloads.extend(encrypted);
            Message { header, payloads }
        },
    )
}

/// Octets from hexadecimal digits; white space is skipped.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// A header for a message whose first payload has type `first` and that is `length` octets long.
pub(crate) fn header_hex(first: u8, length: u32) -> String {
    format!("0102030405060708 1112131415161718 {first:02x} 20 25 08 00000005 {length:08x}")
}

pub(crate) fn informational() -> Header {
    Header::new(
        IkeSpi([1, 2, 3, 4, 5, 6, 7, 8]),
        IkeSpi([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]),
        ExchangeType::Informational,
        Flags {
            initiator: true,
            ..Flags::default()
        },
        5,
    )
}

/// The only payload of a chain, and that encoding it gives the same octets.
pub(crate) fn one(kind: PayloadType, digits: &str) -> Payload {
    let octets = hex(digits);
    let mut payloads = decode_payloads(kind, &octets).unwrap();
    assert_eq!(encode_payloads(&payloads).unwrap(), (kind, octets));
    assert_eq!(payloads.len(), 1);
    payloads.remove(0)
}

pub(crate) fn refused(kind: PayloadType, digits: &str) -> (usize, DecodeErrorKind) {
    let DecodeError { offset, kind } = decode_payloads(kind, &hex(digits)).unwrap_err();
    (offset, kind)
}

pub(crate) fn message_refused(digits: &str) -> (usize, DecodeErrorKind) {
    let DecodeError { offset, kind } = Message::decode(&hex(digits)).unwrap_err();
    (offset, kind)
}
