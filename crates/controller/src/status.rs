//! What `status` tells: plain data, for the command line and as JSON.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::io::SaId;

/// Version of this report's form; changes when a field's meaning does.
pub const STATUS_SCHEMA: u32 = 1;

/// Packets that the kernel holds per policy before it refuses more (`XFRM_MAX_QUEUE_LEN` is 100,
/// checked before one is added).
pub const HELD_PACKETS_MAX: u32 = 101;

/// Control pings that [`RecentPings`] tells of: a minute of an idle tunnel.
pub const RECENT_PINGS_MAX: usize = 20;

/// Time after which an unanswered control ping counts as lost: five times the longest round trip
/// that recovery reckons with ([`crate::config::ROUND_TRIP_MAX`]). One that is answered later counts
/// as answered all the same.
pub const PING_LOST_AFTER: Duration = Duration::from_secs(2);

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
    /// Which attempt of that step it is, from 1: control pings in `pinging`, else efforts since
    /// traffic last flowed. Absent where nothing is tried.
    pub attempt: Option<u32>,
    /// How many attempts the step has; absent where it has no end.
    pub attempts: Option<u32>,
    /// Milliseconds until the next attempt or the next step, if nothing comes before.
    pub next_step_ms: Option<u64>,
    /// Efforts to get a new epoch that failed in a row.
    #[serde(default)]
    pub failures: u32,
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
    /// The peer's outer address and port as now in use; the configured one before there is an SA.
    pub peer: Option<SocketAddr>,
    /// The IKE SAs.
    pub ike: Vec<IkeStatus>,
    /// The epochs.
    pub epochs: Vec<EpochStatus>,
    /// Address that is pinged, when known.
    pub ping_target: Option<IpAddr>,
    /// Round-trip time of the latest answered control ping, microseconds.
    pub last_round_trip_us: Option<u64>,
    /// The control pings of late.
    #[serde(default)]
    pub recent_pings: RecentPings,
    /// Milliseconds until the next control ping, if it is known.
    pub next_ping_ms: Option<u64>,
    /// Milliseconds since the latest proof.
    pub last_proof_ms: Option<u64>,
    /// What that was.
    pub last_proof_by: Option<ProofBy>,
    /// Milliseconds since traffic is held; absent when it is not.
    pub held_ms: Option<u64>,
    /// Milliseconds since the first packet met the hold, as the kernel told by XFRM_MSG_ACQUIRE: at
    /// least one waits. Absent when none has. How many wait is not known: the kernel has no message
    /// for the length of a policy's queue (`xfrm_policy_queue`).
    pub waiting_ms: Option<u64>,
    /// What left when the gate opened last after it had held.
    pub released: Option<Released>,
    /// Control pings sent since the daemon started.
    pub pings_sent: u64,
    /// Control pings answered since the daemon started.
    pub pings_answered: u64,
    /// Control pings that nobody answered, since the daemon started: sent, without those answered
    /// and those under way.
    #[serde(default)]
    pub pings_lost: u64,
    /// Switches since the daemon started.
    pub switches: u64,
    /// Those of them from one open epoch to another.
    #[serde(default)]
    pub rekeys: u64,
    /// Those of them that opened a gate which had been open before and had closed.
    #[serde(default)]
    pub recoveries: u64,
    /// Packets that the kernel holds per policy at most; more are refused (local senders get
    /// EAGAIN) or dropped (forwarded).
    pub held_packets_max: u32,
    /// What keeps traffic from flowing, or needs somebody; absent once traffic has switched since.
    pub last_error: Option<String>,
    /// The latest failure, also one that is mended.
    pub last_failure: Option<Failure>,
}

/// Control pings of late: [`RECENT_PINGS_MAX`] at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentPings {
    /// Answered, or given up: unanswered for [`PING_LOST_AFTER`].
    pub sent: u32,
    /// Those of them that were not answered.
    pub lost: u32,
    /// Round-trip times of those that were.
    pub round_trips: Option<RoundTrips>,
}

/// Round-trip times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min_us: u64,
    /// Their mean.
    pub mean_us: u64,
    /// The longest.
    pub max_us: u64,
    /// Mean difference from one to the next; 0 where there is one only.
    pub jitter_us: u64,
}

/// What proved an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofBy {
    /// The reply to a control ping, through the epoch's own inbound SA.
    Reply,
    /// Something authenticated arrived on the epoch.
    Arrival,
}

/// What left on an epoch just after the gate had opened: what was held, and what was sent anew in
/// that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The epoch.
    pub epoch: u64,
    /// Packets that its outbound SA has counted in that time, without our control pings.
    pub packets: u64,
    /// The time, in milliseconds from just before the gate opened.
    pub within_ms: u64,
    /// Milliseconds since then.
    pub ago_ms: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What, and who must act.
    pub text: String,
    /// Milliseconds since.
    pub ago_ms: u64,
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
    /// The peer's identity, once it is authenticated.
    pub peer_id: Option<String>,
    /// Age in milliseconds; a rekey begins a new one.
    pub age_ms: u64,
    /// Milliseconds until this end rekeys it, if that is to come.
    pub rekey_in_ms: Option<u64>,
    /// Milliseconds until this end makes a new one beside it to authenticate anew, if it does so.
    pub reauthenticate_in_ms: Option<u64>,
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
    /// Our outer address and port.
    pub local: Option<SocketAddr>,
    /// The peer's outer address and port.
    pub remote: Option<SocketAddr>,
    /// What the kernel has counted on the inbound SA; absent where it was not asked or has none.
    pub received: Option<SaTraffic>,
    /// What the kernel has counted on the outbound SA.
    pub sent: Option<SaTraffic>,
    /// Its inbound and outbound SA, for whoever reads what they have carried; not part of what is
    /// told.
    #[serde(skip)]
    pub sas: Option<[SaId; 2]>,
}

/// What an SA has carried, control pings included (XFRM_MSG_GETSA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaTraffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of the inner packets with their IP headers (`xfrm_lifetime_cur`, measured).
    pub bytes: u64,
    /// Milliseconds since the last packet, to the second; absent where the kernel does not say.
    pub last_ms: Option<u64>,
}
