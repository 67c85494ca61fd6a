//! The simulator's provider, compiled into this crate's tests: SPIs and nonces are the same in every
//! run, and in the fuzzer's.

#[path = "../../../simulator/src/crypto.rs"]
pub(super) mod crypto;
#[path = "../../../simulator/src/random.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the simulator draws more than this"
)]
pub(super) mod random;
