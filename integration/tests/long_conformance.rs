//! The simulator's kernel model against this kernel where the kernel takes minutes: back-off and purge
//! of held queues, larval SAs of the default age, in a guest whose clock jumps ahead
//! (`scripts/lab --virtual-time`).
//!
//! ```text
//! LAN 10.1.9.5 ── 10.1.0.1 host 203.0.113.1 ── 203.0.113.2 peer 10.2.0.1
//! ```
#![cfg(feature = "kernel")]
#![allow(clippy::panic, reason = "a difference is reported by failing the test")]

#[path = "conformance/packet.rs"]
mod packet;
#[path = "conformance/place.rs"]
mod place;
#[path = "conformance/verdict.rs"]
mod verdict;

use epochgate_simulator::conformance;
use place::Place;
use verdict::assert_same;

#[test]
fn what_the_kernel_takes_minutes_for_is_the_same_in_the_model() {
    let mut place = Place::new("long_conformance");
    assert_same(&mut place, &conformance::slow_facts());
}
