//! Whatever the types can say survives the way over the wire, and bytes from anyone are survived.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

use crate::common::{header, ip_selector, message, payload};
use epochgate_ike_wire::{
    DecodeErrorKind, EncryptedPayload, Header, Message, Payload, PayloadType, decode_payloads,
    encode_payloads, encrypted_fragment_header, encrypted_header,
};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_encoded_message_decodes_to_itself(message in message()) {
        let datagram = message.encode().unwrap();
        prop_assert_eq!(Header::decode(&datagram).unwrap(), message.header);
        prop_assert_eq!(Message::decode(&datagram).unwrap(), message);
    }

    #[test]
    fn an_encoded_inner_chain_decodes_to_itself(payloads in vec(payload(), 0..8)) {
        let (first, plaintext) = encode_payloads(&payloads).unwrap();
        prop_assert_eq!(decode_payloads(first, &plaintext).unwrap(), payloads);
    }

    /// With the length field as it was, and with one that agrees, so that payloads are cut.
    #[test]
    fn a_message_cut_anywhere_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
        let mut datagram = message.encode().unwrap();
        datagram.truncate(cut.index(datagram.len()));
        prop_assert!(Message::decode(&datagram).is_err());
        let length = datagram.len() as u32;
        if let Some(field) = datagram.get_mut(24..28) {
            field.copy_from_slice(&length.to_be_bytes());
            let error = Message::decode(&datagram).unwrap_err();
            let payload_cut = !matches!(error.kind, DecodeErrorKind::MessageLength { .. });
            prop_assert!(payload_cut, "{}", error);
        }
    }

    #[test]
    fn an_inner_chain_cut_anywhere_is_refused(
        payloads in vec(payload(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (first, plaintext) = encode_payloads(&payloads).unwrap();
        let cut = cut.index(plaintext.len());
        prop_assert!(decode_payloads(first, &plaintext[..cut]).is_err());
    }

    #[test]
    fn random_bytes_are_survived(bytes in vec(any::<u8>(), 0..600), first in any::<u8>()) {
        let _ = Header::decode(&bytes);
        let _ = Message::decode(&bytes);
        let _ = decode_payloads(PayloadType(first), &bytes);
    }

    /// What mutation makes of a message is refused, or is a message that means the same after
    /// another round trip: nothing is accepted that could not be encoded.
    #[test]
    fn mutated_messages_are_survived(
        message in message(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut datagram = message.encode().unwrap();
        for (place, value) in mutations {
            let place = place.index(datagram.len());
            datagram[place] = value;
        }
        match Message::decode(&datagram) {
            Ok(decoded) => {
                let again = decoded.encode().unwrap();
                prop_assert_eq!(Message::decode(&again).unwrap(), decoded);
                prop_assert_eq!(again.len(), datagram.len());
            }
            Err(error) => prop_assert!(error.offset <= datagram.len()),
        }
    }

    #[test]
    fn what_is_before_the_body_is_the_associated_data(
        header in header(),
        first_inner in any::<u8>(),
        body in vec(any::<u8>(), 0..200),
    ) {
        let first_inner = PayloadType(first_inner);
        let prefix = encrypted_header(&header, first_inner, body.len()).unwrap();
        let datagram = [prefix.as_slice(), &body].concat();
        let received = Message::decode(&datagram).unwrap();
        prop_assert_eq!(received.header, header);
        let expected = EncryptedPayload { first_inner, body };
        prop_assert_eq!(&received.payloads, &[Payload::Encrypted(expected.clone())]);
        prop_assert_eq!(expected.associated_data(&datagram), Some(prefix.as_slice()));
    }

    #[test]
    fn what_is_before_a_fragments_body_is_its_associated_data(
        header in header(),
        (number, total) in (1..=u16::MAX).prop_flat_map(|total| (1..=total, Just(total))),
        body in vec(any::<u8>(), 0..200),
    ) {
        let prefix =
            encrypted_fragment_header(&header, PayloadType::NONE, number, total, body.len())
                .unwrap();
        let datagram = [prefix.as_slice(), &body].concat();
        let received = Message::decode(&datagram).unwrap();
        let [Payload::EncryptedFragment(fragment)] = received.payloads.as_slice() else {
            return Err(TestCaseError::fail("one fragment expected"));
        };
        prop_assert_eq!((fragment.number, fragment.total), (number, total));
        prop_assert_eq!(&fragment.body, &body);
        prop_assert_eq!(fragment.associated_data(&datagram), Some(prefix.as_slice()));
    }

    #[test]
    fn an_intersection_is_contained_in_both(a in ip_selector(), b in ip_selector()) {
        prop_assert_eq!(a.intersect(&b), b.intersect(&a));
        prop_assert!(a.contains(&a));
        if let Some(both) = a.intersect(&b) {
            prop_assert!(a.contains(&both) && b.contains(&both));
        }
    }

    #[test]
    fn a_prefix_is_recognised_as_one(address in any::<std::net::IpAddr>(), len in 0..=128u8) {
        use epochgate_ike_wire::IpSelector;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let Some(selector) = IpSelector::from_prefix(address, len) else {
            prop_assert!(len > longest);
            return Ok(());
        };
        prop_assert!(selector.addresses.contains(address));
        prop_assert_eq!(selector.prefix(), Some((selector.addresses.start(), len)));
    }
}
