//! What a NAT did, and why it did not forward what it dropped.

use std::collections::BTreeMap;
use std::fmt;

/// Why a packet went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Not for the public address from outside, for it from inside, or of another IP version.
    NotTranslatable,
    /// UDP between two ports 500 that is too short for an IKE header.
    NotIke,
    /// IKE from outside with an initiator SPI that no client has sent to that server.
    UnknownInitiatorSpi,
    /// A client's first ESP packet while another client's to that server is outstanding.
    Serialised,
    /// ESP from outside with an unknown SPI while nothing is outstanding (and no guess).
    UnknownSpi,
    /// ESP of a second client to a server, by a tracker that goes by addresses only.
    AddressesTaken,
    /// ESP from a server to which no client has sent any, by such a tracker.
    NoEspMapping,
    /// ESP at a NAT that passes UDP only.
    EspNotPassed,
    /// UDP from outside to a port that no mapping has.
    NoUdpMapping,
    /// UDP from outside to a mapped port, from where the mapping's client has not sent.
    Filtered,
    /// UDP for which no public port is free.
    NoPortLeft,
    /// A new entry in a table that is full.
    TableFull,
}

impl DropReason {
    /// Every reason, in order.
    pub const ALL: [Self; 12] = [
        Self::NotTranslatable,
        Self::NotIke,
        Self::UnknownInitiatorSpi,
        Self::Serialised,
        Self::UnknownSpi,
        Self::AddressesTaken,
        Self::NoEspMapping,
        Self::EspNotPassed,
        Self::NoUdpMapping,
        Self::Filtered,
        Self::NoPortLeft,
        Self::TableFull,
    ];

    /// Its name in counters and diagrams.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTranslatable => "not-translatable",
            Self::NotIke => "not-ike",
            Self::UnknownInitiatorSpi => "unknown-initiator-spi",
            Self::Serialised => "serialised",
            Self::UnknownSpi => "unknown-spi",
            Self::AddressesTaken => "addresses-taken",
            Self::NoEspMapping => "no-esp-mapping",
            Self::EspNotPassed => "esp-not-passed",
            Self::NoUdpMapping => "no-udp-mapping",
            Self::Filtered => "filtered",
            Self::NoPortLeft => "no-port-left",
            Self::TableFull => "table-full",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers of packets, except where said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Forwarded from inside to outside.
    pub outbound: u64,
    /// Forwarded from outside to inside.
    pub inbound: u64,
    /// ESP entries whose inbound SPI was learnt from a packet taken for their answer.
    pub tied: u64,
    /// ESP entries that got no answer in time.
    pub unanswered: u64,
    /// ESP from outside with an unknown SPI that was sent to a guessed client.
    pub guessed: u64,
    /// Dropped, by reason; reasons that did not occur are absent.
    pub dropped: BTreeMap<DropReason, u64>,
}

impl Counters {
    /// How many packets were dropped for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped.get(&reason).copied().unwrap_or(0)
    }

    /// How many packets were dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    pub(crate) fn count<T>(&mut self, from: crate::Side, result: &Result<T, DropReason>) {
        let counter = match result {
            Ok(_) => match from {
                crate::Side::Inside => &mut self.outbound,
                crate::Side::Outside => &mut self.inbound,
            },
            Err(reason) => self.dropped.entry(*reason).or_default(),
        };
        *counter += 1;
    }
}
