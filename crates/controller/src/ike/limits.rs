//! How much of anything an endpoint keeps and how long it waits: every bound in one place.

use std::time::Duration;

use crate::config::HalfOpenConfig;

/// Octets of our nonces: at least half of the largest PRF's key (RFC 7296 §2.10).
pub(super) const NONCE_LEN: usize = 32;

/// Restarts of one IKE_SA_INIT because of COOKIE or INVALID_KE_PAYLOAD, which are not
/// authenticated: a cookie, a group, and one more of each when the responder's secret or
/// configuration changed meanwhile.
pub(super) const INIT_RESTARTS_MAX: u32 = 4;

/// CREATE_CHILD_SA requests sent again because of INVALID_KE_PAYLOAD (RFC 7296 §1.3).
pub(super) const KE_RESTARTS_MAX: u32 = 2;

/// Octets of an IKE_SA_INIT request that is answered: the responder keeps it until IKE_AUTH, which
/// covers it (RFC 7296 §2.15), for somebody whom it does not know. The longest honest ones, with
/// every algorithm there is and a key exchange of 1,568 octets, take half of it.
pub(super) const INIT_REQUEST_MAX: usize = 4096;

/// Deleted SPIs that are remembered while an answer is awaited which may offer one of them.
pub(super) const EARLY_DELETES_MAX: usize = 16;

/// Queued requests of one IKE SA that wait for the window (RFC 7296 §2.3): some of each tunnel that
/// uses it.
pub(super) const TASKS_MAX: usize = 256;

/// Bounds of an endpoint and its timers.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The responder's IKE SAs before IKE_AUTH.
    pub(crate) half_open: HalfOpenConfig,
    /// How long one secret makes cookies; they are accepted for twice that.
    pub(crate) cookie_secret_lifetime: Duration,
    /// IKE SAs of one tunnel; one more established by the peer closes the oldest.
    pub(crate) sas_per_tunnel_max: usize,
    /// Child SAs that one tunnel has of one IKE SA; beyond, NO_ADDITIONAL_SAS (RFC 7296 §1.3).
    pub(crate) children_max: usize,
    /// How requests are retransmitted (RFC 7296 §2.1, §2.4).
    pub(crate) retransmission: Retransmission,
    /// How the Delete of an IKE SA is retransmitted: nobody waits long for a goodbye.
    pub(crate) farewell: Retransmission,
    /// How long a Delete of the IKE SA waits for the answer to an earlier request.
    pub(crate) farewell_patience: Duration,
    /// How long an initiator goes on after an unauthenticated refusal in IKE_SA_INIT, which may be
    /// forged (RFC 7296 §2.21.1): less than a tunnel waits for an IKE SA, so that it learns why.
    pub(crate) refusal_patience: Duration,
    /// How long a finished IKE SA still repeats its last response.
    pub(crate) linger: Duration,
    /// IKE SAs that linger; beyond, the oldest is dropped.
    pub(crate) lingering_max: usize,
    /// Unprotected answers per second (RFC 7296 §2.21: "rate limited").
    pub(crate) unprotected_answers_per_second: u32,
}

/// A retransmission schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retransmission {
    /// Time before the first retransmission; doubles each time.
    pub(crate) first: Duration,
    /// Longest time between two.
    pub(crate) longest: Duration,
    /// Transmissions in all, the first one included.
    pub(crate) transmissions: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_open: HalfOpenConfig::default(),
            cookie_secret_lifetime: Duration::from_secs(60),
            sas_per_tunnel_max: 8,
            children_max: 12,
            // Sent after 0, 0.5, 1.5, 3.5, 5.5 … 29.5 seconds, given up after 31.5: more than a dozen
            // times (RFC 7296 §2.4), and never so seldom that a network which is whole again waits
            // for it. Whoever waits for traffic does not wait so long (`tunnel::ladder`).
            retransmission: Retransmission {
                first: Duration::from_millis(500),
                longest: Duration::from_secs(2),
                transmissions: 17,
            },
            // Sent after 0, 0.5 and 1.5 seconds, given up after 3.5.
            farewell: Retransmission {
                first: Duration::from_millis(500),
                longest: Duration::from_secs(2),
                transmissions: 3,
            },
            farewell_patience: Duration::from_secs(3),
            refusal_patience: Duration::from_secs(2),
            linger: Duration::from_secs(35),
            lingering_max: 256,
            unprotected_answers_per_second: 16,
        }
    }
}
