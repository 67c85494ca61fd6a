//! Two controllers, and a peer that has the keys of both between them.

#![no_main]

use std::sync::Arc;

use epochgate_controller::crypto::Crypto;
use epochgate_controller::fuzzing::{SEED, conversation};
use epochgate_crypto::Ring;

use crate::crypto::Seeded;
use crate::random::Random;

#[path = "../../crates/simulator/src/crypto.rs"]
mod crypto;
#[path = "../../crates/simulator/src/random.rs"]
#[allow(dead_code, reason = "the simulator draws more than this")]
mod random;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    // SPIs and nonces are the same in every run: what was found can be found again.
    let crypto: Arc<dyn Crypto> = Arc::new(Seeded::new(Arc::new(Ring::new()), Random::new(SEED)));
    conversation(&crypto, script);
});
