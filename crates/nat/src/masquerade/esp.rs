//! ESP without ports: which client an inbound SPI belongs to.
//!
//! Nothing in the encrypted negotiation tells a NAT which inbound SPI goes with which outbound one.
//! So a client's first packet with an SPI makes an *outstanding* entry, and the first packet from
//! that server with an unknown SPI is taken for its answer and *tied* to it, rightly or not.

use super::MasqueradeSettings;
use crate::DropReason;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How many outbound SPIs a NAT follows; a home router's memory is not larger.
const MAX_ESP_SAS: usize = 4096;

/// Server, client, outbound SPI.
type Key = (IpAddr, IpAddr, u32);

#[derive(Debug, Clone, Copy)]
enum Entry {
    Outstanding { until: Duration },
    Tied { inbound: u32, idle_at: Duration },
}

impl Entry {
    fn deadline(&self) -> Duration {
        match *self {
            Self::Outstanding { until } => until,
            Self::Tied { idle_at, .. } => idle_at,
        }
    }
}

/// The ESP SAs that clients have sent on.
#[derive(Debug, Clone)]
pub(super) struct EspTable {
    entries: BTreeMap<Key, Entry>,
    /// By server and inbound SPI: the entry it is tied to.
    by_inbound: BTreeMap<(IpAddr, u32), Key>,
    /// By server: its outstanding entries, the oldest first. All are of one client.
    outstanding: BTreeMap<IpAddr, VecDeque<Key>>,
    /// No entry's deadline is before.
    sweep_at: Duration,
    tied: u64,
    unanswered: u64,
}

impl Default for EspTable {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_inbound: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            sweep_at: Duration::MAX,
            tied: 0,
            unanswered: 0,
        }
    }
}

impl EspTable {
    /// A client's packet: passes unless it is a first one that must wait for another client's.
    pub(super) fn outbound(
        &mut self,
        now: Duration,
        settings: &MasqueradeSettings,
        client: IpAddr,
        server: IpAddr,
        spi: u32,
    ) -> Result<(), DropReason> {
        self.sweep(now);
        let key = (server, client, spi);
        match self.entries.get_mut(&key) {
            Some(Entry::Tied { idle_at, .. }) => *idle_at = now + settings.idle,
            // It waits no longer for being sent again.
            Some(Entry::Outstanding { .. }) => {}
            None => {
                let outstanding = self.outstanding.get(&server);
                if let Some((_, other, _)) = outstanding.and_then(VecDeque::front)
                    && *other != client
                {
                    return Err(DropReason::Serialised);
                }
                if self.entries.len() >= MAX_ESP_SAS {
                    return Err(DropReason::TableFull);
                }
                let until = now + settings.pending;
                self.entries.insert(key, Entry::Outstanding { until });
                self.outstanding.entry(server).or_default().push_back(key);
                self.sweep_at = self.sweep_at.min(until);
            }
        }
        Ok(())
    }

    /// A server's packet: the client it goes to, unless its SPI is unknown and nothing waits.
    pub(super) fn inbound(
        &mut self,
        now: Duration,
        settings: &MasqueradeSettings,
        server: IpAddr,
        spi: u32,
    ) -> Option<IpAddr> {
        self.sweep(now);
        let idle_at = now + settings.idle;
        let tied = Entry::Tied {
            inbound: spi,
            idle_at,
        };
        let key = match self.by_inbound.get(&(server, spi)) {
            Some(key) => *key,
            None => {
                let waiting = self.outstanding.get_mut(&server)?;
                let key = waiting.pop_front()?;
                if waiting.is_empty() {
                    self.outstanding.remove(&server);
                }
                self.by_inbound.insert((server, spi), key);
                self.tied += 1;
                key
            }
        };
        self.entries.insert(key, tied);
        self.sweep_at = self.sweep_at.min(idle_at);
        let (_, client, _) = key;
        Some(client)
    }

    /// Entries that got an answer, ever.
    pub(super) fn tied(&self) -> u64 {
        self.tied
    }

    /// Entries that got none in time, ever.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    pub(super) fn forget(&mut self) {
        *self = Self {
            tied: self.tied,
            unanswered: self.unanswered,
            ..Self::default()
        };
    }

    fn sweep(&mut self, now: Duration) {
        if now < self.sweep_at {
            return;
        }
        let (by_inbound, unanswered) = (&mut self.by_inbound, &mut self.unanswered);
        self.entries.retain(|key, entry| {
            if now < entry.deadline() {
                return true;
            }
            let (server, _, _) = *key;
            match *entry {
                Entry::Tied { inbound, .. } => {
                    by_inbound.remove(&(server, inbound));
                }
                Entry::Outstanding { .. } => *unanswered += 1,
            }
            false
        });
        let entries = &self.entries;
        self.outstanding.retain(|_, waiting| {
            waiting.retain(|key| entries.contains_key(key));
            !waiting.is_empty()
        });
        let deadlines = self.entries.values().map(Entry::deadline);
        self.sweep_at = deadlines.min().unwrap_or(Duration::MAX);
    }
}
