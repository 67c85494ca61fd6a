//! Looks into captured ESP with the keys that the hosts' own kernels use.
//!
//! A [`KeyLog`] watches a host's SAs and keeps the keys of each, also after it is deleted. A
//! [`Trace`] is a capture in which every ESP packet that such a key opens shows its inner
//! packet: so a test can say exactly what went out on which SPI.

mod cbc;
mod inner;
mod key;
mod key_log;
mod trace;

pub use inner::{CONTROL_PING, Content, InnerPacket};
pub use key_log::{KeyLog, LoggedSa};
pub use trace::{Entry, Trace};

#[cfg(test)]
mod tests;
