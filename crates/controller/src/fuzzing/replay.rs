//! The corpora of `fuzz/`, once each, on any toolchain.

#![allow(
    clippy::disallowed_methods,
    reason = "a corpus is files, and these tests are their caller"
)]

use std::path::PathBuf;
use std::sync::Arc;

use crate::crypto::Crypto;
use crate::ring_provider::Ring;

use super::seeded::crypto::Seeded;
use super::seeded::random::Random;

/// Runs every file of a corpus and says how many there were.
fn replay(corpus: &str, target: impl Fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(corpus);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        // A failing test shows what was printed: the file that it fails on comes last.
        println!("{}", file.display());
        target(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn the_corpus_of_datagrams_is_read_without_a_fault() {
    replay("codec", super::codec);
}

#[test]
fn the_corpus_of_decrypted_payloads_is_read_without_a_fault() {
    replay("payloads", super::payloads);
}

#[test]
fn the_corpus_of_conversations_is_survived() {
    replay("conversation", converse);
}

/// What the fuzzer found: such an epoch was left unproven for ever, and nothing else was tried.
#[test]
fn a_peer_that_once_agreed_to_no_pings_does_not_shut_the_tunnel_for_ever() {
    let script = "../../fuzz/corpus/conversation/a-rekey-whose-selectors-leave-no-room-for-pings";
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(script);
    converse(&std::fs::read(script).unwrap());
}

/// What the fuzzer found: with an epoch in use, and no IKE SA any more, no other was tried.
#[test]
fn a_rekey_that_is_never_answered_does_not_leave_an_epoch_alone_for_ever() {
    let script = "../../fuzz/corpus/conversation/a-rekey-that-is-never-answered";
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(script);
    converse(&std::fs::read(script).unwrap());
}

fn converse(script: &[u8]) {
    let random = Random::new(super::SEED);
    let crypto: Arc<dyn Crypto> = Arc::new(Seeded::new(Arc::new(Ring::new()), random));
    super::conversation(&crypto, script);
}

#[test]
fn every_configuration_that_a_fuzzer_may_choose_connects() {
    for variant in (0..=u8::MAX).filter(|variant| variant & 4 == 0) {
        println!("{variant:#04x}");
        // Nothing but the client's roaming, and time.
        converse(&[variant, 31, 6, 40, 31, 6, 40]);
    }
}
