//! Epochs and the control pings that prove them.

use std::net::IpAddr;
use std::time::Duration;

/// Control pings (R4, R7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingConfig {
    /// Source address; `None`: an address of this host inside the local selectors.
    pub source: Option<IpAddr>,
    /// Address to ping when the peer announces none.
    pub target: Option<IpAddr>,
    /// Time to wait for a reply before the next ping.
    pub interval: Duration,
    /// Pings sent before the epoch counts as failed.
    pub attempts: u32,
    /// Time from one proof of the open epoch until it is pinged again.
    pub idle: Duration,
    /// What proves an epoch.
    pub proof: Proof,
}

/// What a client takes for the proof that an epoch works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The reply to a control ping.
    Icmp,
    /// Anything authenticated that arrives on the epoch's own inbound SA, for peers behind which
    /// nothing answers pings. It proves the way in, and that the peer has the epoch; the way out it
    /// does not prove.
    AnyInbound,
}

impl Default for PingConfig {
    /// Four pings in a second find out that an epoch fails; a quiet link carries one in three seconds.
    fn default() -> Self {
        Self {
            source: None,
            target: None,
            interval: Duration::from_millis(250),
            attempts: 4,
            idle: Duration::from_secs(3),
            proof: Proof::Icmp,
        }
    }
}

/// Epochs: how long they live and who may replace them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochConfig {
    /// Age at which an epoch is rekeyed, before jitter.
    pub lifetime: Duration,
    /// R8: a server's outbound traffic waits for something authenticated on a new epoch.
    pub wait: bool,
    /// How long an old epoch's inbound SA stays after its last use was agreed.
    pub drain: Duration,
    /// R9: what a client does when its server rekeys an epoch.
    pub server_rekey: ServerRekey,
}

/// What a client does when its server starts to rekey an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRekey {
    /// Takes part.
    Accept,
    /// Refuses, and rekeys by itself at once: behind a NAT that looks into IPsec, the first packet
    /// of a new epoch must come from the client.
    Ignore,
}

impl Default for EpochConfig {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            wait: true,
            drain: Duration::from_secs(2),
            server_rekey: ServerRekey::Accept,
        }
    }
}
