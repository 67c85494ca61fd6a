//! Datagrams as anybody can send them.

#![no_main]

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| epochgate_controller::fuzzing::codec(datagram));
