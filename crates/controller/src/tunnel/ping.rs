//! Control pings of one epoch: a series with attempts and an interval (R4).

use std::net::IpAddr;
use std::time::Duration;

use crate::Timestamp;
use crate::io::PingNonce;

/// Pings whose replies are still recognised; older ones are forgotten.
const REMEMBERED: usize = 16;

/// A ping that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentPing {
    nonce: PingNonce,
    target: IpAddr,
    pub(crate) at: Timestamp,
}

/// Pings of one epoch since it was last in question.
#[derive(Debug, Default)]
pub(crate) struct PingSeries {
    sent: u32,
    remembered: Vec<SentPing>,
    next: Option<Timestamp>,
}

impl PingSeries {
    /// A series whose first ping is due at `first`.
    pub(crate) fn starting(first: Timestamp) -> Self {
        Self {
            sent: 0,
            remembered: Vec::new(),
            next: Some(first),
        }
    }

    /// When the next ping, or the end of the series, is due.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.next
    }

    /// Pings sent.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// Notes a ping; the next is due after `interval`.
    pub(crate) fn note(
        &mut self,
        nonce: PingNonce,
        target: IpAddr,
        now: Timestamp,
        interval: Duration,
    ) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.remove(0);
        }
        self.sent = self.sent.saturating_add(1);
        self.remembered.push(SentPing {
            nonce,
            target,
            at: now,
        });
        self.next = Some(now + interval);
    }

    /// Counts anew, while replies to earlier pings are still recognised.
    pub(crate) fn restart(&mut self, first: Timestamp) {
        self.sent = 0;
        self.next = Some(first);
    }

    /// Nothing is due until the series is restarted or hurried.
    pub(crate) fn pause(&mut self) {
        self.next = None;
    }

    /// Whether a ping with this nonce was sent and not answered.
    pub(crate) fn knows(&self, nonce: PingNonce) -> bool {
        self.remembered.iter().any(|ping| ping.nonce == nonce)
    }

    /// Pings before this one that were not answered, as far as they are remembered.
    pub(crate) fn lost_before(&self, ping: &SentPing) -> usize {
        let earlier = self.remembered.iter().filter(|other| other.at < ping.at);
        earlier.count()
    }

    /// Takes the ping with this nonce that `from` was to answer: each reply counts once.
    pub(crate) fn take(&mut self, nonce: PingNonce, from: IpAddr) -> Option<SentPing> {
        let index = self
            .remembered
            .iter()
            .position(|ping| ping.nonce == nonce && ping.target == from)?;
        Some(self.remembered.remove(index))
    }
}
