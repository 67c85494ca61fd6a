//! Plaintexts as a peer that has the keys can send them.

#![no_main]

libfuzzer_sys::fuzz_target!(|plaintext: &[u8]| epochgate_controller::fuzzing::payloads(plaintext));
