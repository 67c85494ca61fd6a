//! How IKE messages and ESP get along the way between the two ends.

use std::time::Duration;

/// Fragments and NATs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathConfig {
    /// Octets of the longest IP datagram that carries a piece of an IKE message (RFC 7383 §2.5.1):
    /// a longer message goes in several. `None`: messages are neither sent nor taken in fragments.
    pub fragment_size: Option<u16>,
    /// Silence after which an end that is behind a NAT sends a keepalive (RFC 3948 §2.3), so that
    /// the NAT goes on knowing it. `None`: never.
    pub nat_keepalive: Option<Duration>,
    /// Whether addresses may change under a tunnel (MOBIKE, RFC 4555).
    pub mobike: bool,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            // What every IPv6 path carries (RFC 8200 §5), and nearly every IPv4 one.
            fragment_size: Some(1280),
            // The default of RFC 3948 §4, below the shortest idle times of common NATs (30 s).
            nat_keepalive: Some(Duration::from_secs(20)),
            mobike: true,
        }
    }
}
