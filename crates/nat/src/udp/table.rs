//! The mappings of a NAT for UDP.

use super::{Filtering, Mapping, PortAssignment, UdpSettings};
use crate::masquerade::same_version;
use crate::{DropReason, Packet, Payload};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How many mappings a NAT keeps; a home router's memory is not larger.
const MAX_MAPPINGS: usize = 4096;

/// How many remote endpoints one mapping lets in; the oldest is forgotten for another.
const MAX_REMOTES: usize = 64;

/// Public ports for clients' ports below 1024, where they are not the client's own (RFC 4787
/// REQ-3: below 1024 too). The range is Linux's for ports from 512 on.
const LOW_PORTS: RangeInclusive<u16> = 600..=1023;
/// The same for other ports.
const PORTS: RangeInclusive<u16> = 1024..=65535;

/// What a mapping is for: the client's endpoint, and as much of the remote one as
/// [`Mapping`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: SocketAddr,
    remote: Option<IpAddr>,
    remote_port: Option<u16>,
}

#[derive(Debug, Clone)]
struct Entry {
    port: u16,
    expires_at: Duration,
    /// When its client last sent, in packets of this table.
    sent: u64,
    /// Whom its client has sent to, the oldest first.
    remotes: VecDeque<SocketAddr>,
}

impl Entry {
    fn lets_in(&self, filtering: Filtering, remote: SocketAddr) -> bool {
        match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                self.remotes.iter().any(|known| known.ip() == remote.ip())
            }
            Filtering::AddressAndPortDependent => self.remotes.contains(&remote),
        }
    }

    fn sent_to(&mut self, remote: SocketAddr) {
        if self.remotes.contains(&remote) {
            return;
        }
        if self.remotes.len() >= MAX_REMOTES {
            self.remotes.pop_front();
        }
        self.remotes.push_back(remote);
    }
}

/// Mappings of clients' endpoints to public ports.
#[derive(Debug, Clone)]
pub(crate) struct UdpTable {
    settings: UdpSettings,
    entries: BTreeMap<Key, Entry>,
    by_port: BTreeMap<u16, BTreeSet<Key>>,
    /// Where the searches for a free port go on. They survive a crash.
    next_low_port: u16,
    next_port: u16,
    /// How many packets clients have sent.
    sent: u64,
    /// No mapping expires before.
    sweep_at: Duration,
}

impl UdpTable {
    pub(crate) fn new(settings: UdpSettings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            by_port: BTreeMap::new(),
            next_low_port: *LOW_PORTS.start(),
            next_port: *PORTS.start(),
            sent: 0,
            sweep_at: Duration::MAX,
        }
    }

    pub(crate) fn set_settings(&mut self, settings: UdpSettings) {
        self.settings = settings;
    }

    pub(crate) fn forget(&mut self) {
        self.entries.clear();
        self.by_port.clear();
    }

    pub(crate) fn change_ports(&mut self) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            let Some(port) = self.free_port(key.client.port()) else {
                return;
            };
            self.move_to(key, port);
        }
    }

    /// A client's datagram: how it looks outside.
    pub(crate) fn outbound(
        &mut self,
        now: Duration,
        public: IpAddr,
        packet: Packet,
    ) -> Result<Packet, DropReason> {
        if packet.destination == public || !same_version(packet.source, public) {
            return Err(DropReason::NotTranslatable);
        }
        let Payload::Udp {
            source_port,
            destination_port,
            ike,
        } = packet.payload
        else {
            return Err(DropReason::EspNotPassed);
        };
        self.sweep(now);
        let client = SocketAddr::new(packet.source, source_port);
        let remote = SocketAddr::new(packet.destination, destination_port);
        let key = self.key(client, remote);
        if !self.entries.contains_key(&key) {
            self.insert(now, key, remote)?;
        }
        self.sent += 1;
        let entry = self.entries.get_mut(&key).ok_or(DropReason::TableFull)?;
        entry.sent = self.sent;
        entry.expires_at = now + self.settings.expiry;
        entry.sent_to(remote);
        Ok(Packet {
            source: public,
            payload: Payload::Udp {
                source_port: entry.port,
                destination_port,
                ike,
            },
            ..packet
        })
    }

    /// A datagram to the public address: how it looks inside.
    pub(crate) fn inbound(&mut self, now: Duration, packet: Packet) -> Result<Packet, DropReason> {
        let Payload::Udp {
            source_port,
            destination_port,
            ike,
        } = packet.payload
        else {
            return Err(DropReason::EspNotPassed);
        };
        self.sweep(now);
        let remote = SocketAddr::new(packet.source, source_port);
        let keys = self.by_port.get(&destination_port);
        let keys = keys.ok_or(DropReason::NoUdpMapping)?;
        // Several mappings can have one port; whoever talks to this remote comes before whoever
        // lets anybody in, and among those whoever sent last.
        let key = keys
            .iter()
            .filter_map(|key| Some((key, self.entries.get(key)?)))
            .filter(|(_, entry)| entry.lets_in(self.settings.filtering, remote))
            .max_by_key(|(_, entry)| (entry.remotes.contains(&remote), entry.sent))
            .map(|(key, _)| *key)
            .ok_or(DropReason::Filtered)?;
        if self.settings.inbound_refreshes
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.expires_at = now + self.settings.expiry;
        }
        Ok(Packet {
            destination: key.client.ip(),
            payload: Payload::Udp {
                source_port,
                destination_port: key.client.port(),
                ike,
            },
            ..packet
        })
    }

    fn key(&self, client: SocketAddr, remote: SocketAddr) -> Key {
        let (address, port) = match self.settings.mapping {
            Mapping::EndpointIndependent => (None, None),
            Mapping::AddressDependent => (Some(remote.ip()), None),
            Mapping::AddressAndPortDependent => (Some(remote.ip()), Some(remote.port())),
        };
        Key {
            client,
            remote: address,
            remote_port: port,
        }
    }

    fn insert(&mut self, now: Duration, key: Key, remote: SocketAddr) -> Result<(), DropReason> {
        if self.entries.len() >= MAX_MAPPINGS {
            return Err(DropReason::TableFull);
        }
        let own = key.client.port();
        let kept = match self.settings.ports {
            PortAssignment::Preserve => (!self.by_port.contains_key(&own)).then_some(own),
            PortAssignment::PreservePerRemote => {
                let shown_before = self.port_of(key.client);
                let candidates = shown_before.into_iter().chain([own]);
                let mut free = candidates.filter(|port| !self.talks_to(*port, remote));
                free.next()
            }
            PortAssignment::Overload => Some(own),
            PortAssignment::Change => None,
        };
        let port = match kept {
            Some(port) => port,
            None => self.free_port(own).ok_or(DropReason::NoPortLeft)?,
        };
        let expires_at = now + self.settings.expiry;
        self.entries.insert(
            key,
            Entry {
                port,
                expires_at,
                sent: self.sent,
                remotes: VecDeque::new(),
            },
        );
        self.by_port.entry(port).or_default().insert(key);
        self.sweep_at = self.sweep_at.min(expires_at);
        Ok(())
    }

    /// Whether a mapping of this public port talks to this remote endpoint.
    fn talks_to(&self, port: u16, remote: SocketAddr) -> bool {
        let keys = self.by_port.get(&port).into_iter().flatten();
        keys.filter_map(|key| self.entries.get(key))
            .any(|entry| entry.remotes.contains(&remote))
    }

    /// The public port of the mapping by which this client port sent last.
    fn port_of(&self, client: SocketAddr) -> Option<u16> {
        let first = Key {
            client,
            remote: None,
            remote_port: None,
        };
        let own = self.entries.range(first..);
        let own = own.take_while(|(key, _)| key.client == client);
        let latest = own.max_by_key(|(_, entry)| entry.sent);
        latest.map(|(_, entry)| entry.port)
    }

    /// The next port in turn that no mapping has and that may stand for this one, but not itself.
    fn free_port(&mut self, own: u16) -> Option<u16> {
        let (ports, next) = if own < *PORTS.start() {
            (LOW_PORTS, &mut self.next_low_port)
        } else {
            (PORTS, &mut self.next_port)
        };
        for _ in ports.clone() {
            let port = *next;
            *next = if port == *ports.end() {
                *ports.start()
            } else {
                port + 1
            };
            if port != own && !self.by_port.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    fn move_to(&mut self, key: Key, port: u16) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        let old = std::mem::replace(&mut entry.port, port);
        self.release(old, key);
        self.by_port.entry(port).or_default().insert(key);
    }

    fn release(&mut self, port: u16, key: Key) {
        if let Some(keys) = self.by_port.get_mut(&port) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    fn sweep(&mut self, now: Duration) {
        if now < self.sweep_at {
            return;
        }
        let over: Vec<(Key, u16)> = self
            .entries
            .iter()
            .filter(|(_, entry)| now >= entry.expires_at)
            .map(|(key, entry)| (*key, entry.port))
            .collect();
        for (key, port) in over {
            self.entries.remove(&key);
            self.release(port, key);
        }
        let deadlines = self.entries.values().map(|entry| entry.expires_at);
        self.sweep_at = deadlines.min().unwrap_or(Duration::MAX);
    }
}
