//! How many strangers may begin to talk to this host at once (RFC 7296 §2.6): for all tunnels
//! together, as nobody knows yet whom a stranger wants.

use std::time::Duration;

/// Bounds of half-open IKE SAs: those whose IKE_SA_INIT was answered and whose IKE_AUTH has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HalfOpenConfig {
    /// Half-open IKE SAs from which on a COOKIE is demanded of everybody (RFC 7296 §2.6); 0 demands
    /// it always.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs at most; further IKE_SA_INIT requests are dropped.
    pub max: usize,
    /// Half-open IKE SAs of one IPv4 address, or one IPv6 network of 64 bits (what one host can
    /// have), at most. From half of it on a COOKIE is demanded of that address, so that nobody can
    /// use it up who only pretends to have it.
    pub per_address_max: usize,
    /// How long IKE_AUTH is waited for.
    pub lifetime: Duration,
}

impl Default for HalfOpenConfig {
    fn default() -> Self {
        Self {
            cookie_threshold: 64,
            max: 1024,
            per_address_max: 64,
            lifetime: Duration::from_secs(30),
        }
    }
}
