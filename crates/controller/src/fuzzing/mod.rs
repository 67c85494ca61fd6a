//! What fuzzers run: one function for each target in `fuzz/`, from a fuzzer's bytes to a panic if
//! something is wrong. Their corpora are replayed by this crate's tests, on any toolchain.
//!
//! Only there with the feature `fuzzing` and in tests; it offers nothing that a daemon could use.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a fuzz target fails by panicking, and nobody else calls it"
)]

mod bytes;
mod conversation;
mod host;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod seeded;

use epochgate_ike_wire::{Header, Message, PayloadType, decode_payloads, encode_payloads};

pub use conversation::conversation;

/// Where the randomness of a conversation begins.
pub const SEED: u64 = 1;

/// Any datagram: it is refused, or what was read from it can be written and read again as the same.
pub fn codec(datagram: &[u8]) {
    let header = Header::decode(datagram);
    let Ok(message) = Message::decode(datagram) else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(&message.header));
    let again = message.encode().expect("what was decoded can be encoded");
    assert!(again.len() <= datagram.len());
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    // What is written is canonical: the second time round changes no octet.
    assert_eq!(message.encode().as_deref(), Ok(again.as_slice()));
    // Showing it must not fail either: it may be logged.
    assert!(!format!("{message:?}").is_empty());
}

/// Any plaintext of an Encrypted payload, its first octet the type of the first payload.
pub fn payloads(plaintext: &[u8]) {
    let Some((first, chain)) = plaintext.split_first() else {
        return;
    };
    let Ok(payloads) = decode_payloads(PayloadType(*first), chain) else {
        return;
    };
    let (kind, again) = encode_payloads(&payloads).expect("what was decoded can be encoded");
    assert!(again.len() <= chain.len());
    let decoded = decode_payloads(kind, &again);
    assert_eq!(decoded.as_ref(), Ok(&payloads));
    assert!(!format!("{payloads:?}").is_empty());
    crate::ike::fuzzing::read(payloads);
}
