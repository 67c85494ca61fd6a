//! Tests of the codec through its public interface, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken assumption fails the test"
)]

mod common;
mod limits;
mod messages;
mod payloads;
mod proposals;
mod round_trip;
mod strongswan;
mod traffic_selectors;
