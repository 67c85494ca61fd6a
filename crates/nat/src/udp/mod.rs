//! A NAT that passes UDP by its ports, with the behaviours that RFC 4787 names, and no ESP.
//!
//! NAT-T lives behind these. What goes wrong there is a mapping that expires, or comes back with
//! another port, so that the server's packets are lost until the client has sent something.

mod settings;
mod table;
#[cfg(test)]
mod tests;

pub use settings::{Filtering, Mapping, PortAssignment, UdpSettings};
pub(crate) use table::UdpTable;

use crate::{Counters, DropReason, Nat, Packet, Payload, Side};
use std::net::IpAddr;
use std::time::Duration;

/// A NAT for UDP only.
#[derive(Debug, Clone)]
pub struct UdpNat {
    public: IpAddr,
    table: UdpTable,
    counters: Counters,
}

impl UdpNat {
    /// A NAT with an empty table that shows its clients as `public`.
    pub fn new(public: IpAddr, settings: UdpSettings) -> Self {
        Self {
            public,
            table: UdpTable::new(settings),
            counters: Counters::default(),
        }
    }

    /// Behaves differently from now on; mappings keep the ports and deadlines they have.
    pub fn set_settings(&mut self, settings: UdpSettings) {
        self.table.set_settings(settings);
    }

    /// Moves every mapping to another public port, as a NAT that lost them and chose anew: what is
    /// sent to the old ports is dropped from now on.
    pub fn change_ports(&mut self) {
        self.table.change_ports();
    }
}

impl Nat for UdpNat {
    fn translate(
        &mut self,
        now: Duration,
        from: Side,
        packet: Packet,
    ) -> Result<Packet, DropReason> {
        let result = match (from, packet.payload) {
            (_, Payload::Esp { .. }) => Err(DropReason::EspNotPassed),
            (Side::Inside, Payload::Udp { .. }) => self.table.outbound(now, self.public, packet),
            (Side::Outside, Payload::Udp { .. }) if packet.destination == self.public => {
                self.table.inbound(now, packet)
            }
            (Side::Outside, Payload::Udp { .. }) => Err(DropReason::NotTranslatable),
        };
        self.counters.count(from, &result);
        result
    }

    fn forget(&mut self) {
        self.table.forget();
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn public(&self) -> IpAddr {
        self.public
    }
}
