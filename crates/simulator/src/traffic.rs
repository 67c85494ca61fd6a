//! Applications: numbered packets at a steady rate, and what became of each.

use std::net::IpAddr;
use std::time::Duration;

use crate::packet::Packet;
use crate::world::NodeId;

/// What became of a flow's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Handed to the kernel.
    pub sent: u64,
    /// Refused or dropped at once because the hold queue was full.
    pub refused: u64,
    /// Arrived, each counted once.
    pub delivered: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Held packets that arrived after a later, live one (R3 allows that for a moment).
    pub overtaken: u64,
    /// Packets that arrived after a later one for which there is no such excuse.
    pub reordered: u64,
    /// Left in clear.
    pub clear: u64,
    /// Came, encrypted, to a host that they were not for and that has no key for them.
    pub misdelivered: u64,
}

impl Account {
    /// Neither arrived nor refused. Packets that are held or under way count as lost until they
    /// arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.refused - self.delivered
    }
}

/// A stream of packets.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) from: NodeId,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) interval: Duration,
    pub(crate) running: bool,
    pub(crate) account: Account,
    seen: Vec<bool>,
    next_expected: u64,
    next_expected_held: u64,
}

impl Flow {
    pub(crate) fn new(
        from: NodeId,
        source: IpAddr,
        destination: IpAddr,
        interval: Duration,
    ) -> Self {
        Self {
            from,
            source,
            destination,
            interval,
            running: true,
            account: Account::default(),
            seen: Vec::new(),
            next_expected: 0,
            next_expected_held: 0,
        }
    }

    /// The number of the next packet, which counts as sent.
    pub(crate) fn number_next(&mut self) -> u64 {
        let sequence = self.account.sent;
        self.account.sent += 1;
        self.seen.push(false);
        sequence
    }

    /// Whether a packet has arrived.
    pub(crate) fn has_arrived(&self, sequence: u64) -> bool {
        usize::try_from(sequence).is_ok_and(|index| self.seen.get(index) == Some(&true))
    }

    /// Accounts for an arrival.
    pub(crate) fn arrived(&mut self, sequence: u64, packet: &Packet) {
        let seen = usize::try_from(sequence)
            .ok()
            .and_then(|index| self.seen.get_mut(index));
        match seen {
            Some(seen) if !*seen => *seen = true,
            Some(_) | None => {
                self.account.duplicated += 1;
                return;
            }
        }
        self.account.delivered += 1;
        let behind_held = packet.waited && sequence < self.next_expected_held;
        if packet.waited {
            self.next_expected_held = self.next_expected_held.max(sequence + 1);
        }
        if sequence >= self.next_expected {
            self.next_expected = sequence + 1;
        } else if packet.waited && !behind_held {
            self.account.overtaken += 1;
        } else {
            self.account.reordered += 1;
        }
    }
}
