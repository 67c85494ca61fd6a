//! The Extensible Authentication Protocol inside IKE_AUTH (RFC 3748, RFC 7296 §2.16): packets, and
//! one method, MSCHAPv2. Packets come from peers who are not authenticated yet; everything about
//! them is bounded and nothing is guessed: a packet that is not exactly what is due ends the
//! attempt.

mod client;
mod mschapv2;
mod packet;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, ClientStep};
pub(crate) use server::{Server, ServerStep};

/// Requests that a client answers in one EAP conversation at most; MSCHAPv2 with an identity takes
/// three, and Success.
pub(crate) const ROUNDS_MAX: u32 = 10;
