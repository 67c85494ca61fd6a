//! What network address translators do to IKE and ESP, as pure functions of time and packets.
//!
//! Packets come from whoever moves them: the simulator's network, or the forwarding program of the
//! test lab, which reads them off real interfaces. What [`Nat::translate`] returns goes on to the
//! other side. Nothing here has a clock, a socket or chance, so a run can be replayed.
//!
//! | model | ESP | UDP |
//! |---|---|---|
//! | [`Masquerade`] | guesses which inbound SPI answers which outbound one | 500 by initiator SPI |
//! | [`Conntrack`] | by addresses only: one client per server | port-restricted |
//! | [`UdpNat`] | dropped | any behaviour that RFC 4787 names |
//!
//! A reboot is the mover's business: it drops everything for a while, then calls [`Nat::forget`].
//! So is misdelivery: a NAT cannot know that it was wrong.

mod conntrack;
mod counters;
mod masquerade;
mod packet;
#[cfg(test)]
mod testing;
mod udp;

pub use conntrack::{Conntrack, ConntrackSettings};
pub use counters::{Counters, DropReason};
pub use masquerade::{Masquerade, MasqueradeSettings};
pub use packet::{IkeSpis, Packet, Payload, Side};
pub use udp::{Filtering, Mapping, PortAssignment, UdpNat, UdpSettings};

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A translator between an inside, with any number of clients, and an outside on which all of them
/// appear under one address.
///
/// Every packet is offered once. `now` is a time since any fixed start and must not run backwards.
pub trait Nat: fmt::Debug {
    /// Decides about one packet: how it goes on to the other side, or why it does not.
    ///
    /// From the inside the source becomes [`Nat::public`]; from the outside the destination, which
    /// must be that address, becomes a client's.
    fn translate(
        &mut self,
        now: Duration,
        from: Side,
        packet: Packet,
    ) -> Result<Packet, DropReason>;

    /// Crashes: every table is empty afterwards. Settings and counters stay.
    fn forget(&mut self);

    /// What has happened since this NAT was made.
    fn counters(&self) -> Counters;

    /// The address under which the outside sees every client.
    fn public(&self) -> IpAddr;
}
