//! How a tunnel comes back by itself: waits between attempts, and how long all of it takes at most.

use std::time::Duration;

use super::{LocalAuth, PostQuantum, RemoteAuth, TunnelConfig};

/// Longest time from a packet of ours to the peer's answer that [`TunnelConfig::recovery_bound`]
/// reckons with: the network's round trip and what both ends compute and ask their kernels for it.
pub const ROUND_TRIP_MAX: Duration = Duration::from_millis(400);

/// Longest time until a kernel that would not create a tunnel's policies is asked again. Nothing is
/// held before it has, so it is short.
pub const POLICIES_RETRY_MAX: Duration = Duration::from_secs(4);

/// How long an unanswered rekey may hold traffic up before a new IKE SA is tried beside it: three
/// transmissions, after 0, 0.5 and 1.5 seconds.
pub(crate) const REKEY_PATIENCE: Duration = Duration::from_secs(2);

/// How long a new IKE SA may take before another one is tried beside it. Long enough for three
/// transmissions; one that is slow, and not lost, still counts when it comes.
pub(crate) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Longest wait between attempts with its jitter, in percent of the wait.
pub(crate) const BACK_OFF_PERCENT_MAX: u32 = 125;

/// An open epoch gets so many times `ping.attempts` pings while other packets still arrive on it: a
/// full queue on the way delays replies, and only the way out can have failed.
pub(crate) const BUSY_PATIENCE: u32 = 2;

/// Round trips from the first packet of a new IKE SA to the proof of its epoch: IKE_SA_INIT, the
/// same with a cookie, the same with another group, IKE_AUTH, and a control ping.
const ROUND_TRIPS: u32 = 5;

/// Round trips more with ML-KEM (RFC 9370): IKE_INTERMEDIATE.
const ROUND_TRIPS_POST_QUANTUM: u32 = 1;

/// Round trips more with EAP-MSCHAPv2: identity, response, success, and AUTH (RFC 7296 §2.16).
const ROUND_TRIPS_EAP: u32 = 4;

/// Waits between attempts to get a new epoch (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Wait after the first failure, before jitter of a quarter; doubles with each failure.
    pub back_off: Duration,
    /// Longest wait, before jitter.
    pub back_off_max: Duration,
}

impl Default for RecoveryConfig {
    /// A server that was away for an hour is asked every five seconds or so.
    fn default() -> Self {
        Self {
            back_off: Duration::from_millis(250),
            back_off_max: Duration::from_secs(2),
        }
    }
}

impl TunnelConfig {
    /// The longest time from the end of all faults until a client's traffic flows again (I5).
    ///
    /// "The end of all faults": from then on every packet arrives, the kernel does what it is asked,
    /// both daemons run, and no round trip takes longer than [`ROUND_TRIP_MAX`]; but either end, or
    /// a NAT, may have forgotten everything at that moment. A kernel that has just refused to create
    /// policies is asked again within [`POLICIES_RETRY_MAX`], and then does it. One of these is the
    /// worst:
    ///
    /// 1. *Nobody has noticed.* The open epoch is dead. Within `ping.idle` of its last proof it is
    ///    pinged, `ping.attempts` times at `ping.interval`, twice as often where packets arrive
    ///    still. The first wait of the back-off follows, and a rekey, which a peer that has
    ///    forgotten us does not answer. Then there is a new IKE SA.
    /// 2. *A new epoch is dead*: the peer has forgotten it before it was proven. Its pings are
    ///    unanswered; the wait, after many failures, is the longest one. Then a rekey as before.
    /// 3. *A new IKE SA is dead*: the peer answered IKE_SA_INIT and has forgotten that. Another
    ///    attempt follows after the longest wait, and begins with a rekey where an older IKE SA
    ///    seemed to live.
    ///
    /// Each ends with the round trips of a new IKE SA and its epoch's first ping. The second ping is
    /// reckoned with as well: a server that holds does not answer the first one of an IPv6 tunnel.
    /// A retransmission under way costs less than the patience it belongs to.
    ///
    /// A server's traffic flows when its client's does: its bound is the same if both ends have the
    /// same settings.
    #[must_use]
    pub fn recovery_bound(&self) -> Duration {
        let RecoveryConfig {
            back_off,
            back_off_max,
        } = self.recovery;
        let jittered = |wait: Duration| wait.saturating_mul(BACK_OFF_PERCENT_MAX) / 100;
        let series = self.ping.interval.saturating_mul(self.ping.attempts);
        let connected = ROUND_TRIP_MAX
            .saturating_mul(self.round_trips())
            .saturating_add(self.ping.interval);
        let sum = |times: [Duration; 4]| {
            let whole = times.into_iter().reduce(Duration::saturating_add);
            whole.unwrap_or_default().saturating_add(connected)
        };
        let unnoticed = sum([
            self.ping.idle,
            series.saturating_mul(BUSY_PATIENCE),
            jittered(back_off.min(back_off_max)),
            REKEY_PATIENCE,
        ]);
        let dead_epoch = sum([
            series,
            jittered(back_off_max),
            REKEY_PATIENCE,
            Duration::ZERO,
        ]);
        let dead_session = sum([
            CONNECT_PATIENCE,
            jittered(back_off_max),
            REKEY_PATIENCE,
            Duration::ZERO,
        ]);
        unnoticed.max(dead_epoch).max(dead_session)
    }

    /// Round trips that a new IKE SA takes until its epoch is proven.
    fn round_trips(&self) -> u32 {
        let eap = matches!(self.auth.local, LocalAuth::Eap(_))
            || matches!(self.auth.remote, RemoteAuth::Eap(_));
        let post_quantum = match self.ike.post_quantum {
            PostQuantum::Off => 0,
            PostQuantum::Prefer | PostQuantum::Require => ROUND_TRIPS_POST_QUANTUM,
        };
        ROUND_TRIPS + post_quantum + if eap { ROUND_TRIPS_EAP } else { 0 }
    }
}
