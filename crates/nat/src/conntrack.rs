//! Mainline netfilter's masquerading: UDP by ports, ESP by addresses only.
//!
//! Linux has no ESP tracker: an ESP flow is (source, destination, protocol 50). A second client's
//! flow to the same server would have the same answers, which connection tracking cannot allow, so
//! its packets are dropped for as long as the first client's flow lives.
//!
//! The model is of a router that drops what is for itself, as routers' firewalls do. Where one
//! accepts it, packets from outside that nobody asked for become connections of the router's own:
//! they take the ports, or the only ESP flow, that a client would have got.

use crate::masquerade::same_version;
use crate::udp::UdpTable;
use crate::{
    Counters, DropReason, Filtering, Mapping, Nat, Packet, Payload, PortAssignment, Side,
    UdpSettings,
};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How many ESP flows it tracks.
const MAX_ESP_FLOWS: usize = 4096;

/// How long a [`Conntrack`] keeps what it tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// An ESP flow after its last packet in either direction. Default: 10 min
    /// (`nf_conntrack_generic_timeout`).
    pub esp: Duration,
    /// A UDP flow after its last packet in either direction. Default: 2 min
    /// (`nf_conntrack_udp_timeout_stream`).
    pub udp: Duration,
}

impl Default for ConntrackSettings {
    fn default() -> Self {
        Self {
            esp: Duration::from_secs(600),
            udp: Duration::from_secs(120),
        }
    }
}

impl ConntrackSettings {
    fn udp_behaviour(self) -> UdpSettings {
        UdpSettings {
            mapping: Mapping::AddressAndPortDependent,
            filtering: Filtering::AddressAndPortDependent,
            ports: PortAssignment::PreservePerRemote,
            expiry: self.udp,
            inbound_refreshes: true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct EspFlow {
    client: IpAddr,
    expires_at: Duration,
}

/// A NAT like Linux's `masquerade` of today.
#[derive(Debug, Clone)]
pub struct Conntrack {
    public: IpAddr,
    settings: ConntrackSettings,
    /// By server, which has one client at a time.
    esp: BTreeMap<IpAddr, EspFlow>,
    udp: UdpTable,
    counters: Counters,
}

impl Conntrack {
    /// A NAT with empty tables that shows its clients as `public`.
    pub fn new(public: IpAddr, settings: ConntrackSettings) -> Self {
        Self {
            public,
            settings,
            esp: BTreeMap::new(),
            udp: UdpTable::new(settings.udp_behaviour()),
            counters: Counters::default(),
        }
    }

    fn esp_outbound(
        &mut self,
        now: Duration,
        client: IpAddr,
        server: IpAddr,
    ) -> Result<(), DropReason> {
        if server == self.public || !same_version(client, self.public) {
            return Err(DropReason::NotTranslatable);
        }
        match self.esp.get(&server) {
            Some(flow) if now < flow.expires_at && flow.client != client => {
                return Err(DropReason::AddressesTaken);
            }
            Some(_) => {}
            None if self.esp.len() >= MAX_ESP_FLOWS => {
                self.esp.retain(|_, flow| now < flow.expires_at);
                if self.esp.len() >= MAX_ESP_FLOWS {
                    return Err(DropReason::TableFull);
                }
            }
            None => {}
        }
        let expires_at = now + self.settings.esp;
        self.esp.insert(server, EspFlow { client, expires_at });
        Ok(())
    }

    fn esp_inbound(&mut self, now: Duration, server: IpAddr) -> Result<IpAddr, DropReason> {
        let flow = self.esp.get_mut(&server);
        let flow = flow.filter(|flow| now < flow.expires_at);
        let flow = flow.ok_or(DropReason::NoEspMapping)?;
        flow.expires_at = now + self.settings.esp;
        Ok(flow.client)
    }

    fn decide(&mut self, now: Duration, from: Side, packet: Packet) -> Result<Packet, DropReason> {
        match (from, packet.payload) {
            (Side::Inside, Payload::Udp { .. }) => self.udp.outbound(now, self.public, packet),
            (Side::Inside, Payload::Esp { .. }) => {
                self.esp_outbound(now, packet.source, packet.destination)?;
                Ok(packet.with_source(self.public))
            }
            (Side::Outside, _) if packet.destination != self.public => {
                Err(DropReason::NotTranslatable)
            }
            (Side::Outside, Payload::Udp { .. }) => self.udp.inbound(now, packet),
            (Side::Outside, Payload::Esp { .. }) => {
                let client = self.esp_inbound(now, packet.source)?;
                Ok(packet.with_destination(client))
            }
        }
    }
}

impl Nat for Conntrack {
    fn translate(
        &mut self,
        now: Duration,
        from: Side,
        packet: Packet,
    ) -> Result<Packet, DropReason> {
        let result = self.decide(now, from, packet);
        self.counters.count(from, &result);
        result
    }

    fn forget(&mut self) {
        self.esp.clear();
        self.udp.forget();
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn public(&self) -> IpAddr {
        self.public
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLIENTS, PUBLIC, SERVERS, esp, seconds, source_port, udp};
    use Side::{Inside, Outside};

    fn conntrack() -> Conntrack {
        Conntrack::new(PUBLIC, ConntrackSettings::default())
    }

    #[test]
    fn a_second_client_s_esp_to_the_same_server_is_dropped_while_the_first_one_s_lives() {
        let mut nat = conntrack();
        let [a, b] = [CLIENTS[0], CLIENTS[1]];
        assert!(
            nat.translate(seconds(0), Inside, esp(a, SERVERS[0], 1))
                .is_ok()
        );
        let second = nat.translate(seconds(599), Inside, esp(b, SERVERS[0], 2));
        assert_eq!(second, Err(DropReason::AddressesTaken));
        let other = nat.translate(seconds(599), Inside, esp(b, SERVERS[1], 2));
        assert!(other.is_ok(), "another server is another flow");
        assert!(
            nat.translate(seconds(600), Inside, esp(b, SERVERS[0], 2))
                .is_ok()
        );
    }

    #[test]
    fn esp_from_a_server_goes_to_its_only_client_whatever_the_spi() {
        let mut nat = conntrack();
        let first = nat.translate(seconds(0), Outside, esp(SERVERS[0], PUBLIC, 7));
        assert_eq!(first, Err(DropReason::NoEspMapping));
        nat.translate(seconds(0), Inside, esp(CLIENTS[0], SERVERS[0], 1))
            .unwrap();
        for spi in [7, 8] {
            let packet = nat.translate(seconds(1), Outside, esp(SERVERS[0], PUBLIC, spi));
            assert_eq!(packet.unwrap().destination, CLIENTS[0]);
        }
    }

    #[test]
    fn a_second_client_s_ike_gets_another_port_and_is_shown_by_it_to_other_servers_too() {
        let mut nat = conntrack();
        let mut port = |client, server| {
            let packet = udp((client, 500), (server, 500));
            source_port(nat.translate(seconds(0), Inside, packet).unwrap())
        };
        assert_eq!(port(CLIENTS[0], SERVERS[0]), 500);
        let changed = port(CLIENTS[1], SERVERS[0]);
        assert_ne!(changed, 500);
        assert_eq!(port(CLIENTS[1], SERVERS[1]), changed);
        assert_eq!(port(CLIENTS[2], SERVERS[1]), 500);
    }

    #[test]
    fn a_crash_leaves_nothing_of_esp_or_udp() {
        let mut nat = conntrack();
        nat.translate(seconds(0), Inside, esp(CLIENTS[0], SERVERS[0], 1))
            .unwrap();
        nat.translate(
            seconds(0),
            Inside,
            udp((CLIENTS[0], 4500), (SERVERS[0], 4500)),
        )
        .unwrap();
        nat.forget();
        let answers = [
            esp(SERVERS[0], PUBLIC, 7),
            udp((SERVERS[0], 4500), (PUBLIC, 4500)),
        ];
        let dropped = answers.map(|answer| nat.translate(seconds(1), Outside, answer).unwrap_err());
        assert_eq!(
            dropped,
            [DropReason::NoEspMapping, DropReason::NoUdpMapping]
        );
        assert_eq!(nat.counters().dropped_total(), 2);
    }
}
