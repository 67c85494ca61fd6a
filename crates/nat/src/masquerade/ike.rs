//! IKE between two ports 500: which client an initiator SPI belongs to.
//!
//! Entries come from what clients send; answers find their client by them. A server that starts
//! an IKE SA (or makes one by rekeying) uses an initiator SPI that no client has sent, so what it
//! sends under it is lost until the client sends under it too.

use crate::DropReason;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How many IKE SAs a NAT follows; a home router's memory is not larger.
const MAX_IKE_SAS: usize = 4096;

#[derive(Debug, Clone, Copy)]
struct Entry {
    client: IpAddr,
    idle_at: Duration,
}

/// The IKE SAs that clients have begun.
#[derive(Debug, Clone, Default)]
pub(super) struct IkeTable {
    /// By server and initiator SPI.
    entries: BTreeMap<(IpAddr, u64), Entry>,
    /// By server: the client of the latest IKE message to or from it.
    latest: BTreeMap<IpAddr, Entry>,
    /// No entry is idle before.
    sweep_at: Duration,
}

impl IkeTable {
    /// A client's message: its SPI is known from now on. A second client's messages with the same
    /// SPI pass, but their answers go to the first.
    pub(super) fn outbound(
        &mut self,
        now: Duration,
        idle_at: Duration,
        client: IpAddr,
        server: IpAddr,
        initiator_spi: u64,
    ) -> Result<(), DropReason> {
        self.sweep(now);
        let key = (server, initiator_spi);
        if self.entries.len() >= MAX_IKE_SAS && !self.entries.contains_key(&key) {
            return Err(DropReason::TableFull);
        }
        let entry = self.entries.entry(key).or_insert(Entry { client, idle_at });
        entry.idle_at = idle_at;
        self.sweep_at = self.sweep_at.min(idle_at);
        self.latest.insert(server, Entry { client, idle_at });
        Ok(())
    }

    /// A server's message: the client it is for.
    pub(super) fn inbound(
        &mut self,
        now: Duration,
        idle_at: Duration,
        server: IpAddr,
        initiator_spi: u64,
    ) -> Result<IpAddr, DropReason> {
        self.sweep(now);
        let entry = self
            .entries
            .get_mut(&(server, initiator_spi))
            .ok_or(DropReason::UnknownInitiatorSpi)?;
        entry.idle_at = idle_at;
        self.latest.insert(server, *entry);
        Ok(entry.client)
    }

    /// The client whose IKE exchange with this server was the latest.
    pub(super) fn latest(&mut self, now: Duration, server: IpAddr) -> Option<IpAddr> {
        self.sweep(now);
        self.latest.get(&server).map(|entry| entry.client)
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn sweep(&mut self, now: Duration) {
        if now < self.sweep_at {
            return;
        }
        self.entries.retain(|_, entry| now < entry.idle_at);
        self.latest.retain(|_, entry| now < entry.idle_at);
        let deadlines = self.entries.values().chain(self.latest.values());
        self.sweep_at = deadlines
            .map(|entry| entry.idle_at)
            .min()
            .unwrap_or(Duration::MAX);
    }
}
