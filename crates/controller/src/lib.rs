//! Every decision of epochgate, pure: IKE SAs and their exchanges, epochs, gate and recovery.
//!
//! [`Controller`] is the one type that decides. Its caller (the daemon's shell, or the simulator)
//! gives it each [`Input`] with the time, then performs every [`Output`] until it hears
//! [`Output::Wait`]. It reads no clock, no randomness and no socket; cryptography comes through
//! [`crypto::Crypto`].

pub mod config;
mod controller;
pub mod crypto;
pub mod distinguished_name;
mod eap;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod ike;
pub mod io;
mod leases;
mod outbox;
pub mod pki;
/// The daemon's reader of certificates, compiled in for the same reason.
#[cfg(test)]
#[path = "../../pki/src/lib.rs"]
#[allow(unreachable_pub, reason = "public in its own crate")]
mod pki_provider;
/// The daemon's provider, compiled into this crate's own tests: as a dependency it would implement
/// the traits of another copy of this crate.
#[cfg(test)]
#[path = "../../crypto/src/lib.rs"]
#[allow(unreachable_pub, reason = "public in its own crate")]
mod ring_provider;
mod secret;
pub mod status;
mod time;
mod tunnel;

#[cfg(test)]
extern crate self as epochgate_controller;

pub use controller::Controller;
pub use io::{Input, Output};
pub use secret::Secret;
pub use time::Timestamp;

/// The reqids that are ours in the kernel: policies and SAs outside this range are never touched.
///
/// The range is far from those that other key daemons count up from (strongSwan from 1, libreswan
/// from 16384).
pub const REQIDS: std::ops::RangeInclusive<u32> = 0x4547_0000..=0x4547_ffff;
