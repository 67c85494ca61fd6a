//! The controller in simulated worlds: each test says what goes wrong, the world checks the
//! invariants after every step.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cold;
mod collisions;
mod crash;
mod defects;
mod doubt;
mod endurance;
mod ike_rekey;
mod incidents;
mod ladder;
mod lifecycle;
mod loss;
mod mixed_families;
mod mobility;
mod nat_traversal;
mod office;
mod refusals;
mod rekey;
mod scenarios;
mod search;
mod selectors;
mod siblings;
mod virtual_addresses;

use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::crypto::Crypto;
use epochgate_controller::event::EventKind;
use epochgate_crypto::Ring;
use epochgate_simulator::Violation;
use epochgate_simulator::pair::{Pair, Plan};

type Outcome = Result<(), Violation>;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn crypto() -> Arc<dyn Crypto> {
    Arc::new(Ring::new())
}

fn started(seed: u64) -> Result<Pair, Violation> {
    Plan::default().start(seed, crypto())
}

fn established(seed: u64) -> Result<Pair, Violation> {
    Plan::default().established(seed, crypto())
}

fn is_switch(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Switched { .. })
}

fn is_close(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Closed { .. })
}
