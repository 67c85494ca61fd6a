//! What control pings have told of the way, for `status`: round trips, losses, the latest proof and
//! the latest failure. Nothing is decided by it.

use std::collections::VecDeque;
use std::time::Duration;

use super::kernel::micros;
use crate::Timestamp;
use crate::io::PingNonce;
use crate::status::{PING_LOST_AFTER, ProofBy, RECENT_PINGS_MAX, RecentPings, RoundTrips};

/// Numbers for `status`, since the daemon started.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) pings_sent: u64,
    pub(super) pings_answered: u64,
    pub(super) switches: u64,
    pub(super) rekeys: u64,
    pub(super) recoveries: u64,
    pub(super) last_round_trip: Option<Duration>,
    pub(super) last_proof: Option<Timestamp>,
    pub(super) last_proof_by: Option<ProofBy>,
    pub(super) last_failure: Option<(String, Timestamp)>,
    recent: VecDeque<Ping>,
}

/// A control ping of late.
#[derive(Debug)]
struct Ping {
    nonce: PingNonce,
    at: Timestamp,
    round_trip: Option<Duration>,
}

impl Counters {
    /// A control ping is sent.
    pub(super) fn ping_sent(&mut self, nonce: PingNonce, now: Timestamp) {
        self.pings_sent += 1;
        if self.recent.len() == RECENT_PINGS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Ping {
            nonce,
            at: now,
            round_trip: None,
        });
    }

    /// A control ping is answered.
    pub(super) fn ping_answered(&mut self, nonce: PingNonce, round_trip: Duration) {
        self.pings_answered += 1;
        self.last_round_trip = Some(round_trip);
        let mut latest = self.recent.iter_mut().rev();
        if let Some(ping) = latest.find(|ping| ping.nonce == nonce) {
            ping.round_trip = Some(round_trip);
        }
    }

    /// An epoch is proven.
    pub(super) fn proven(&mut self, by: ProofBy, now: Timestamp) {
        self.last_proof = Some(now);
        self.last_proof_by = Some(by);
    }

    /// Pings that are neither answered nor under way any more.
    pub(super) fn pings_lost(&self, now: Timestamp) -> u64 {
        let under_way = self.recent.iter().filter(|ping| !ping.is_over(now)).count();
        let known = self.pings_answered.saturating_add(under_way as u64);
        self.pings_sent.saturating_sub(known)
    }

    /// The pings of late, without those under way.
    pub(super) fn recent(&self, now: Timestamp) -> RecentPings {
        let over = self.recent.iter().filter(|ping| ping.is_over(now));
        let times: Vec<u64> = self
            .recent
            .iter()
            .filter_map(|ping| ping.round_trip.map(micros))
            .collect();
        let sent = u32::try_from(over.count()).unwrap_or(u32::MAX);
        let answered = u32::try_from(times.len()).unwrap_or(u32::MAX);
        RecentPings {
            sent,
            lost: sent.saturating_sub(answered),
            round_trips: round_trips(&times),
        }
    }
}

impl Ping {
    fn is_over(&self, now: Timestamp) -> bool {
        self.round_trip.is_some() || now.since(self.at) >= PING_LOST_AFTER
    }
}

fn round_trips(times: &[u64]) -> Option<RoundTrips> {
    let count = u64::try_from(times.len()).ok()?;
    let (min_us, max_us) = (*times.iter().min()?, *times.iter().max()?);
    let differences: u64 = times.windows(2).map(|two| two[0].abs_diff(two[1])).sum();
    Some(RoundTrips {
        min_us,
        mean_us: times.iter().sum::<u64>() / count,
        max_us,
        jitter_us: differences.checked_div(count - 1).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_ping_is_lost_once_it_was_unanswered_for_long_and_not_before() {
        let mut counters = Counters::default();
        for nonce in 0..4 {
            counters.ping_sent(PingNonce(nonce), at(nonce * 1000));
        }
        counters.ping_answered(PingNonce(0), Duration::from_millis(30));
        counters.ping_answered(PingNonce(2), Duration::from_millis(50));
        let recent = counters.recent(at(3500));
        assert_eq!((recent.sent, recent.lost), (3, 1), "the last is under way");
        assert_eq!(counters.pings_lost(at(3500)), 1);
        assert_eq!(counters.pings_lost(at(5000)), 2);
        // It was late, and not lost.
        counters.ping_answered(PingNonce(3), Duration::from_millis(3000));
        assert_eq!(counters.pings_lost(at(6000)), 1);
    }

    #[test]
    fn round_trips_are_told_by_their_bounds_mean_and_jitter() {
        let told = round_trips(&[10, 30, 20]);
        let want = RoundTrips {
            min_us: 10,
            mean_us: 20,
            max_us: 30,
            jitter_us: 15,
        };
        assert_eq!(told, Some(want));
        assert_eq!(round_trips(&[7]).map(|told| told.jitter_us), Some(0));
        assert_eq!(round_trips(&[]), None);
    }

    #[test]
    fn a_bounded_number_of_pings_is_remembered_and_all_are_counted() {
        let mut counters = Counters::default();
        for nonce in 0..1000 {
            counters.ping_sent(PingNonce(nonce), at(nonce));
        }
        assert_eq!(counters.recent.len(), RECENT_PINGS_MAX);
        assert_eq!(counters.pings_lost(at(60_000)), 1000);
        assert_eq!(counters.recent(at(60_000)).lost, RECENT_PINGS_MAX as u32);
    }
}
