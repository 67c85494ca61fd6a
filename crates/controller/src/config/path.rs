//! How IKE messages and ESP get along the way between the two ends.

/// IKE messages in fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathConfig {
    /// Octets of the longest IP datagram that carries a piece of an IKE message (RFC 7383 §2.5.1):
    /// a longer message goes in several. `None`: messages are neither sent nor taken in fragments.
    pub fragment_size: Option<u16>,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            // What every IPv6 path carries (RFC 8200 §5), and nearly every IPv4 one.
            fragment_size: Some(1280),
        }
    }
}
