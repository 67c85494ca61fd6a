//! No key is shown: not by the types that carry one, nor by what is said of a message that carries
//! one and can't be read.

use std::fmt::Debug;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::writer::Writer;
use super::{event, frame, sa};
use crate::exchange::Exchange;
use crate::{
    Acquire, Cipher, EventState, Expire, Integrity, Key, Mapping, Op, Operation, Policy,
    PolicyDirection, PolicyEntry, PolicyExpire, Protection, Protocol, RawAttribute, Reqid, Sa,
    SaEntry, SaId, Selector, Spi, XfrmEvent,
};

/// Every pair of neighbours in the key.
const PATTERN: [u8; 2] = [0xed, 0xfe];

fn secret() -> Vec<u8> {
    PATTERN.repeat(10)
}

fn raw() -> RawAttribute {
    RawAttribute {
        kind: 99,
        value: secret(),
    }
}

fn spi() -> Spi {
    Spi::new(5).expect("not zero")
}

fn keyed_sa() -> Sa {
    let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let protection = Protection::aes_gcm_16(Key::new(secret()));
    let mut sa = Sa::esp_tunnel(source, destination, spi(), Reqid(1), protection);
    sa.other = vec![raw()];
    sa
}

/// Whether a text has the key, in decimal or in hexadecimal, whatever stands between its bytes.
fn shows_key(text: &str) -> bool {
    let digits = |radix: u32| -> String {
        let kept = text.to_ascii_lowercase();
        kept.chars().filter(|it| it.is_digit(radix)).collect()
    };
    digits(10).contains("237254237254") || digits(16).contains("edfeedfe")
}

fn assert_hides_key(value: &impl Debug) {
    for shown in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!shows_key(&shown), "{shown}");
    }
}

#[test]
fn a_shown_key_would_be_noticed() {
    let key = secret();
    assert!(shows_key(&format!("{key:?}")));
    assert!(shows_key(&format!("{key:#?}")));
    assert!(shows_key(&format!("{key:02x?}")));
    let joined: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
    assert!(shows_key(&joined));
}

#[test]
fn no_type_that_carries_a_key_shows_it() {
    let sa = keyed_sa();
    let key = || Key::new(secret());
    assert_hides_key(&key());
    assert_hides_key(&raw());
    assert_hides_key(&sa);
    assert_hides_key(&sa.protection);
    assert_hides_key(&SaEntry::new(sa.clone()));
    assert_hides_key(&Op::AddSa(&sa));
    assert_hides_key(&Op::UpdateSa(&sa));
    assert_hides_key(&Protection::aes_cbc_hmac_sha256_128(key(), key()));
    let name = || "ecb(cipher_null)".to_owned();
    assert_hides_key(&Cipher {
        name: name(),
        key: key(),
    });
    let integrity = Integrity {
        name: name(),
        key: key(),
        truncation_bits: None,
    };
    assert_hides_key(&integrity);
    assert_hides_key(&Protection::Integrity(integrity));
}

#[test]
fn no_event_shows_a_key() {
    let entry = || SaEntry::new(keyed_sa());
    let mut policy = Policy::allow(PolicyDirection::Out, Selector::ANY_V4, 1);
    policy.other = vec![raw()];
    let policy = || PolicyEntry::new(policy.clone());
    let address = [192, 0, 2, 1].into();
    let id = SaId::esp(address, spi());
    let mut state = EventState::new(id, address, Reqid(1));
    state.other = vec![raw()];
    let mut mapping = Mapping::new(id, Reqid(1), (address, 1), (address, 2));
    mapping.other = vec![raw()];
    let acquire = Acquire::new(address, address, Protocol::Esp, Selector::ANY_V4, policy());
    for event in [
        XfrmEvent::NewSa(Box::new(entry())),
        XfrmEvent::UpdSa(Box::new(entry())),
        XfrmEvent::DelSa(id, Some(Box::new(entry()))),
        XfrmEvent::Expire(Box::new(Expire::new(entry(), true))),
        XfrmEvent::NewPolicy(Box::new(policy())),
        XfrmEvent::UpdPolicy(Box::new(policy())),
        XfrmEvent::PolicyExpire(Box::new(PolicyExpire::new(policy(), false))),
        XfrmEvent::Acquire(Box::new(acquire)),
        XfrmEvent::NewAe(Box::new(state)),
        XfrmEvent::Mapping(mapping),
    ] {
        assert_hides_key(&event);
    }
}

/// The kernel may send a refused request back with its refusal (without NETLINK_CAP_ACK it does).
#[test]
fn a_refusal_with_the_request_in_it_shows_no_key() {
    let mut request = Writer::new();
    sa::put_sa(&mut request, &keyed_sa()).expect("it can be said");
    for flags in [0, 0x200] {
        let mut answer = Writer::new();
        let start = frame::begin_message(&mut answer, frame::ERROR, flags, 1);
        answer.put(&(-libc::EINVAL).to_ne_bytes());
        let length = u32::try_from(16 + request.len()).expect("short");
        answer.put(&length.to_ne_bytes());
        answer.zeros(12);
        answer.put(request.bytes());
        frame::end_message(&mut answer, start);
        let operation = Operation::AddSa(Protocol::Esp, keyed_sa().id());
        let mut exchange = Exchange::acknowledged(1, vec![operation]);
        exchange
            .absorb(answer.bytes(), &mut ControlFlow::Continue)
            .expect("well framed");
        let error = exchange.into_results().next().expect("one result");
        let error = error.expect_err("refused");
        assert_hides_key(&error);
        assert!(!shows_key(&error.to_string()), "{error}");
    }
}

proptest! {
    /// Whatever is wrong with the message, what is said of it has no key in it.
    #[test]
    fn a_damaged_message_shows_no_key(
        kind in 0x10..=0x30_u16,
        head in prop_oneof![Just(0_usize), Just(8), Just(24), Just(96)],
        cut in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut body = vec![0; head];
        let mut writer = Writer::new();
        sa::put_sa(&mut writer, &keyed_sa()).expect("it can be said");
        body.extend_from_slice(writer.bytes());
        body.truncate(cut.index(body.len() + 1));
        for (place, value) in damage {
            if !body.is_empty() {
                let place = place.index(body.len());
                body[place] = value;
            }
        }
        let event = event::event(kind, &body);
        prop_assert!(!shows_key(&format!("{event:?}")), "{:?}", event);
        if let XfrmEvent::Malformed { error, .. } = event {
            prop_assert!(!shows_key(&error.to_string()), "{}", error);
        }
        if let Err(error) = sa::entry(&body) {
            prop_assert!(!shows_key(&format!("{error} {error:?}")), "{}", error);
        }
    }
}
