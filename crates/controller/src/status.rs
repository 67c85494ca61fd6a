//! What `status` tells: plain data, for the command line and as JSON.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Version of this report's form; changes when a field's meaning does.
pub const STATUS_SCHEMA: u32 = 1;

/// Packets that the kernel holds per policy before it refuses more (`XFRM_MAX_QUEUE_LEN` is 100,
/// checked before one is added).
pub const HELD_PACKETS_MAX: u32 = 101;

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    /// Every configured tunnel, also those that are down.
    pub tunnels: Vec<TunnelStatus>,
}

/// One tunnel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Its name.
    pub name: String,
    /// `client` or `server`.
    pub role: String,
    /// `down`, `held` or `open`.
    pub gate: GateStatus,
    /// Why traffic is held and what to do; empty when it is not.
    pub reason: String,
    /// The step of the recovery ladder that the tunnel is on: `idle`, `proving`, `pinging 2 of 4`,
    /// `looking for a source`, `rekeying`, `put off`, `connecting`, `backing off`.
    #[serde(default)]
    pub ladder: String,
    /// Milliseconds from the end of all faults until traffic flows again, at most
    /// ([`crate::config::TunnelConfig::recovery_bound`]).
    #[serde(default)]
    pub recovery_bound_ms: u64,
    /// Number of the open epoch.
    pub open_epoch: Option<u64>,
    /// Local selectors.
    pub local_traffic: Vec<String>,
    /// Remote selectors.
    pub remote_traffic: Vec<String>,
    /// Pairs of selectors that the peer did not agree to, so that they stay held.
    pub refused_traffic: Vec<String>,
    /// Client: addresses that the server assigned; server: addresses leased to the peer.
    #[serde(default)]
    pub virtual_addresses: Vec<IpAddr>,
    /// Client: DNS servers that the server told.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Client: domains that they resolve.
    #[serde(default)]
    pub dns_domains: Vec<String>,
    /// The IKE SAs.
    pub ike: Vec<IkeStatus>,
    /// The epochs.
    pub epochs: Vec<EpochStatus>,
    /// Address that is pinged, when known.
    pub ping_target: Option<IpAddr>,
    /// Round-trip time of the latest answered control ping, microseconds.
    pub last_round_trip_us: Option<u64>,
    /// Milliseconds since the latest proof.
    pub last_proof_ms: Option<u64>,
    /// Milliseconds since traffic is held; absent when it is not.
    pub held_ms: Option<u64>,
    /// Control pings sent since the daemon started.
    pub pings_sent: u64,
    /// Control pings answered since the daemon started.
    pub pings_answered: u64,
    /// Switches since the daemon started.
    pub switches: u64,
    /// Packets that the kernel holds per policy at most; more are refused (local senders get
    /// EAGAIN) or dropped (forwarded).
    pub held_packets_max: u32,
    /// The latest error, if any.
    pub last_error: Option<String>,
}

/// Whether outbound traffic passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateStatus {
    /// No policies in the kernel.
    Down,
    /// Traffic is held.
    Held,
    /// Traffic passes through an epoch.
    Open,
}

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IkeStatus {
    /// Initiator's SPI, hexadecimal.
    pub initiator_spi: String,
    /// Responder's SPI, hexadecimal.
    pub responder_spi: String,
    /// `initiating`, `authenticating`, `established`, `deleting`.
    pub state: String,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// Whether a NAT was detected.
    pub nat: bool,
    /// Whether the peer is epochgate.
    pub epochgate: bool,
    /// Cipher, PRF and key exchange method.
    pub suite: String,
    /// Age in milliseconds.
    pub age_ms: u64,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochStatus {
    /// Its number.
    pub number: u64,
    /// `installing`, `proving`, `awaiting`, `proven`, `open`, `draining`, `failed`.
    pub state: String,
    /// SPI that we receive on, hexadecimal.
    pub inbound_spi: String,
    /// SPI that we send on, hexadecimal.
    pub outbound_spi: String,
    /// Cipher.
    pub cipher: String,
    /// Whether ESP is encapsulated in UDP.
    pub udp_encapsulated: bool,
    /// Age in milliseconds.
    pub age_ms: u64,
    /// Milliseconds until it is rekeyed, if it is the open one.
    pub rekey_in_ms: Option<u64>,
}
