//! VPN Masquerade, the IPsec heuristics that Linux IP Masquerade had and that live on in the ESP
//! trackers ("IPsec passthrough") of consumer routers.
//!
//! IKE on UDP port 500 keeps its port and is told apart by the initiator SPI (`ike`). ESP has no
//! ports: `esp` takes the first unknown SPI from a server for the answer to the first unknown SPI
//! to that server. All other UDP, NAT-T on port 4500 included, is a plain UDP NAT's.

mod esp;
mod ike;
#[cfg(test)]
mod tests;

use crate::udp::UdpTable;
use crate::{Counters, DropReason, Nat, Packet, Payload, Side, UdpSettings};
use esp::EspTable;
use ike::IkeTable;
use std::net::IpAddr;
use std::time::Duration;

/// IKE's port, which such a NAT must not change (RFC 2408 §2.5.1).
const IKE_PORT: u16 = 500;

/// How a [`Masquerade`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MasqueradeSettings {
    /// How long a client's first ESP packet waits for its answer, and keeps first packets of other
    /// clients to the same server out. Retransmissions do not prolong it. Default: 5 s.
    pub pending: Duration,
    /// How long an IKE or ESP entry lives without a packet in either direction. Default: 30 min,
    /// as in Linux 2.2 (`CONFIG_IP_MASQUERADE_IPSEC_EXPIRE`).
    pub idle: Duration,
    /// Whether ESP with an unknown SPI, when nothing is outstanding, goes to the client whose IKE
    /// exchange with that server was the latest. Default: no.
    pub guessing: bool,
    /// What happens to UDP that is not IKE on port 500. Default: port-restricted, see
    /// [`UdpSettings::port_restricted`].
    pub udp: UdpSettings,
}

impl Default for MasqueradeSettings {
    fn default() -> Self {
        Self {
            pending: Duration::from_secs(5),
            idle: Duration::from_secs(30 * 60),
            guessing: false,
            udp: UdpSettings::port_restricted(),
        }
    }
}

/// A NAT with VPN Masquerade.
#[derive(Debug, Clone)]
pub struct Masquerade {
    public: IpAddr,
    settings: MasqueradeSettings,
    ike: IkeTable,
    esp: EspTable,
    udp: UdpTable,
    counters: Counters,
}

impl Masquerade {
    /// A NAT with empty tables that shows its clients as `public`.
    pub fn new(public: IpAddr, settings: MasqueradeSettings) -> Self {
        Self {
            public,
            settings,
            ike: IkeTable::default(),
            esp: EspTable::default(),
            udp: UdpTable::new(settings.udp),
            counters: Counters::default(),
        }
    }

    /// Behaves differently from now on; entries keep the deadlines they have.
    pub fn set_settings(&mut self, settings: MasqueradeSettings) {
        self.settings = settings;
        self.udp.set_settings(settings.udp);
    }

    /// How it behaves.
    pub fn settings(&self) -> MasqueradeSettings {
        self.settings
    }

    fn outbound(&mut self, now: Duration, packet: Packet) -> Result<Packet, DropReason> {
        let (client, server) = (packet.source, packet.destination);
        if server == self.public || !same_version(client, self.public) {
            return Err(DropReason::NotTranslatable);
        }
        match packet.payload {
            Payload::Udp {
                source_port: IKE_PORT,
                destination_port: IKE_PORT,
                ike,
            } => {
                let spis = ike.ok_or(DropReason::NotIke)?;
                let idle_at = now + self.settings.idle;
                self.ike
                    .outbound(now, idle_at, client, server, spis.initiator)?;
                Ok(packet.with_source(self.public))
            }
            Payload::Udp { .. } => self.udp.outbound(now, self.public, packet),
            Payload::Esp { spi } => {
                self.esp
                    .outbound(now, &self.settings, client, server, spi)?;
                Ok(packet.with_source(self.public))
            }
        }
    }

    fn inbound(&mut self, now: Duration, packet: Packet) -> Result<Packet, DropReason> {
        let server = packet.source;
        if packet.destination != self.public {
            return Err(DropReason::NotTranslatable);
        }
        match packet.payload {
            Payload::Udp {
                source_port: IKE_PORT,
                destination_port: IKE_PORT,
                ike,
            } => {
                let spis = ike.ok_or(DropReason::NotIke)?;
                let idle_at = now + self.settings.idle;
                let client = self.ike.inbound(now, idle_at, server, spis.initiator)?;
                Ok(packet.with_destination(client))
            }
            Payload::Udp { .. } => self.udp.inbound(now, packet),
            Payload::Esp { spi } => {
                let known = self.esp.inbound(now, &self.settings, server, spi);
                let client = match known {
                    Some(client) => client,
                    None if self.settings.guessing => {
                        let latest = self.ike.latest(now, server);
                        let client = latest.ok_or(DropReason::UnknownSpi)?;
                        self.counters.guessed += 1;
                        client
                    }
                    None => return Err(DropReason::UnknownSpi),
                };
                Ok(packet.with_destination(client))
            }
        }
    }
}

/// Whether a packet of this address can be shown under that one at all.
pub(crate) fn same_version(address: IpAddr, other: IpAddr) -> bool {
    address.is_ipv4() == other.is_ipv4()
}

impl Nat for Masquerade {
    fn translate(
        &mut self,
        now: Duration,
        from: Side,
        packet: Packet,
    ) -> Result<Packet, DropReason> {
        let result = match from {
            Side::Inside => self.outbound(now, packet),
            Side::Outside => self.inbound(now, packet),
        };
        self.counters.count(from, &result);
        result
    }

    fn forget(&mut self) {
        self.ike.forget();
        self.esp.forget();
        self.udp.forget();
    }

    fn counters(&self) -> Counters {
        Counters {
            tied: self.esp.tied(),
            unanswered: self.esp.unanswered(),
            ..self.counters.clone()
        }
    }

    fn public(&self) -> IpAddr {
        self.public
    }
}
