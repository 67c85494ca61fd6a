//! A capture as one host's story: who sent what when, and what was inside.

use super::inner::InnerPacket;
use super::key_log::{KeyLog, LoggedSa};
use crate::capture::{Packet, Record, Timestamp};
use std::fmt;

/// How many lines of a long trace are shown at its beginning, and how many at its end.
const SHOWN: usize = 200;

/// A captured packet, with what was inside.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the kernel saw it.
    pub at: Timestamp,
    /// Whether the observed host sent it, rather than received it.
    pub sent: bool,
    /// What it is on the wire.
    pub packet: Packet,
    /// Its inner packet, if it is ESP that a logged key opens: then it is authentic.
    pub inner: Option<InnerPacket>,
}

/// A capture, seen from one host, with its ESP opened.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In the order of time.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// Of a host that was observed at the *other* end of its link, such as the router's.
    /// One end's keys open both directions.
    pub fn of(records: Vec<Record>, keys: &KeyLog) -> Self {
        Self::build(records, &keys.sas(), false)
    }

    /// Of a host that was observed at its own interface. There the kernel shows inbound
    /// packets again after it decrypted them.
    pub fn of_own_end(records: Vec<Record>, keys: &KeyLog) -> Self {
        Self::build(records, &keys.sas(), true)
    }

    pub(super) fn build(records: Vec<Record>, sas: &[LoggedSa], own_end: bool) -> Self {
        let entries = records.into_iter().map(|record| {
            let packet = record.packet();
            let inner = match &packet {
                Packet::Esp { spi, .. } => record.esp().and_then(|esp| {
                    sas.iter()
                        .filter(|sa| sa.spi == *spi)
                        .filter_map(|sa| sa.key.as_ref()?.open(esp))
                        .find_map(|(next_header, inner)| InnerPacket::parse(next_header, &inner))
                }),
                Packet::EspFragment { .. }
                | Packet::Ike { .. }
                | Packet::Clear { .. }
                | Packet::Other => None,
            };
            Entry {
                at: record.at,
                sent: record.outgoing == own_end,
                packet,
                inner,
            }
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// What was on the wire between two moments, both included.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Self {
        let inside = |entry: &&Entry| (from..=to).contains(&entry.at);
        Self {
            entries: self.entries.iter().filter(inside).cloned().collect(),
        }
    }

    /// What the host sent.
    pub fn sent(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.sent)
    }

    /// What the host received.
    pub fn received(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.sent)
    }

    /// The SPIs on which the host sent, each once, in the order of their first packets.
    pub fn sent_spis(&self) -> Vec<u32> {
        let mut spis = Vec::new();
        for entry in self.sent() {
            if let Packet::Esp { spi, .. } = entry.packet
                && !spis.contains(&spi)
            {
                spis.push(spi);
            }
        }
        spis
    }
}

/// As a ladder: a line for each packet, with the seconds since the first one, `-->` for what the
/// host sent and `<--` for what it received. Of a long one the middle is left out.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self
            .entries
            .first()
            .map_or(Timestamp::default(), |entry| entry.at);
        let tail = self.entries.len().saturating_sub(SHOWN).max(SHOWN);
        for (index, entry) in self.entries.iter().enumerate() {
            if index < SHOWN || index >= tail {
                let seconds = entry.at.since(start).as_secs_f64();
                writeln!(f, "{:5} {seconds:10.6} {entry}", index + 1)?;
            } else if index == SHOWN {
                writeln!(f, "      … {} packets …", tail - SHOWN)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.sent { "-->" } else { "<--" };
        write!(f, "{arrow} {}", self.packet)?;
        match &self.inner {
            Some(inner) => write!(f, ": {inner}"),
            None => Ok(()),
        }
    }
}
