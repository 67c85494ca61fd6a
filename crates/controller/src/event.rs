//! What the operator's log hears of: one line per event that they would act on.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::config::TunnelName;
use crate::io::Spi;

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Normal life.
    Info,
    /// Something is wrong; epochgate goes on by itself.
    Warning,
    /// Somebody must act.
    Error,
}

/// Number of an epoch in its tunnel's life, from 1 at the daemon's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct EpochNumber(pub u64);

impl fmt::Display for EpochNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The tunnel it is about, if any.
    pub tunnel: Option<TunnelName>,
    /// The epoch it is about, if any.
    pub epoch: Option<EpochNumber>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum EventKind {
    /// The tunnel's policies are in the kernel; its traffic is held.
    Holding,
    /// The first packet of an on-demand tunnel is held: negotiation starts.
    FirstPacketHeld,
    /// An IKE SA negotiation was started with the peer.
    Negotiating {
        /// The peer's address.
        peer: String,
    },
    /// The IKE SA is established (RFC 7296 §1.2); traffic is still held.
    IkeEstablished {
        /// The peer's identity.
        peer: String,
        /// Whether the peer is epochgate.
        epochgate: bool,
        /// Whether a NAT is between us.
        nat: bool,
    },
    /// The tunnel uses an IKE SA that another tunnel to the same peer made (RFC 7296 §1.3.1).
    IkeShared {
        /// The peer's identity.
        peer: String,
    },
    /// The IKE SA was rekeyed (RFC 7296 §2.18); epochs and traffic go on.
    IkeRekeyed {
        /// Whether the peer started it.
        by_peer: bool,
    },
    /// A new IKE SA is made beside the old one, to authenticate anew (RFC 7296 §2.8.3).
    Reauthenticating {
        /// Why.
        reason: String,
    },
    /// The IKE SA ended.
    IkeClosed {
        /// Why.
        reason: String,
        /// Whether this end wanted it, as after each switch to the epoch of a newer one.
        by_us: bool,
    },
    /// An epoch's SAs are in the kernel, unproven.
    EpochInstalled {
        /// SPI that we receive on.
        #[serde(rename = "in")]
        inbound: Spi,
        /// SPI that we send on.
        #[serde(rename = "out")]
        outbound: Spi,
    },
    /// The epoch's SAs have other outer addresses or ports: the way between the ends changed.
    EpochMoved {
        /// Our outer address and port.
        local: SocketAddr,
        /// The peer's outer address and port.
        remote: SocketAddr,
    },
    /// A control ping was sent through the epoch.
    PingSent {
        /// Its number in the series, from 1.
        attempt: u32,
    },
    /// A reply to a control ping came.
    PingAnswered {
        /// Round-trip time in microseconds.
        round_trip_us: u64,
        /// Whether it came through the epoch's own inbound SA.
        proven: bool,
    },
    /// Something authenticated arrived on an awaited epoch (server).
    FirstPacketArrived,
    /// The gate opened on the epoch: all outbound traffic uses it now.
    Switched {
        /// How long traffic was held before, in microseconds; `None` when it was not.
        held_us: Option<u64>,
    },
    /// The gate closed: outbound traffic is held.
    Closed {
        /// Why.
        reason: String,
    },
    /// The epoch's pings stayed unanswered.
    Unanswered {
        /// Pings that were sent.
        attempts: u32,
    },
    /// A rekey was started.
    Rekeying {
        /// Why.
        reason: String,
    },
    /// The kernel has another SA with the SPI that the peer chose to receive on, and the same
    /// destination. The peer was told to come back with another one (TEMPORARY_FAILURE).
    SpiTaken {
        /// Which.
        spi: Spi,
    },
    /// A NAT seems to have kept this client out. A Child SA is made and ended, for it to have one
    /// answer more.
    Untying,
    /// The epoch is gone.
    EpochRemoved,
    /// The server assigned virtual addresses (RFC 7296 §2.19).
    AddressesAssigned {
        /// Ours, one of each family at most.
        addresses: Vec<IpAddr>,
        /// DNS servers behind the server.
        dns: Vec<IpAddr>,
        /// Domains that they resolve.
        domains: Vec<String>,
    },
    /// A pool's addresses are the peer's now.
    AddressesLeased {
        /// Which.
        addresses: Vec<IpAddr>,
    },
    /// Something failed; epochgate goes on trying after the back-off.
    Retrying {
        /// What failed, and who must act.
        reason: String,
        /// Time until the next attempt, in milliseconds.
        after_ms: u64,
    },
    /// Something that the operator must mend.
    Attention {
        /// What is wrong and what to do.
        reason: String,
    },
    /// Leftovers of an earlier run were taken over or removed.
    TookOver {
        /// Policies that now hold.
        policies: usize,
        /// SAs that were removed.
        sas: usize,
    },
    /// The tunnel is down: no policies, no SAs.
    Down,
}

impl EventKind {
    /// How loud it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Holding
            | Self::FirstPacketHeld
            | Self::Negotiating { .. }
            | Self::IkeEstablished { .. }
            | Self::IkeShared { .. }
            | Self::IkeRekeyed { .. }
            | Self::Reauthenticating { .. }
            | Self::EpochInstalled { .. }
            | Self::EpochMoved { .. }
            | Self::PingSent { .. }
            | Self::PingAnswered { .. }
            | Self::FirstPacketArrived
            | Self::Switched { .. }
            | Self::Rekeying { .. }
            | Self::SpiTaken { .. }
            | Self::Untying
            | Self::EpochRemoved
            | Self::AddressesAssigned { .. }
            | Self::AddressesLeased { .. }
            | Self::TookOver { .. }
            | Self::IkeClosed { by_us: true, .. }
            | Self::Down => Severity::Info,
            Self::IkeClosed { by_us: false, .. }
            | Self::Closed { .. }
            | Self::Unanswered { .. }
            | Self::Retrying { .. } => Severity::Warning,
            Self::Attention { .. } => Severity::Error,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holding => f.write_str("traffic is held until an epoch is proven"),
            Self::FirstPacketHeld => f.write_str("first packet held; negotiating"),
            Self::Negotiating { peer } => write!(f, "IKE_SA_INIT to {peer}"),
            Self::IkeEstablished {
                peer,
                epochgate,
                nat,
            } => {
                write!(f, "IKE SA established with {peer}")?;
                f.write_str(if *epochgate { " (epochgate)" } else { "" })?;
                f.write_str(if *nat { ", behind NAT" } else { "" })
            }
            Self::IkeShared { peer } => write!(f, "uses the IKE SA with {peer}"),
            Self::IkeRekeyed { by_peer } => write!(
                f,
                "IKE SA rekeyed by {}",
                if *by_peer { "the peer" } else { "this end" }
            ),
            Self::Reauthenticating { reason } => write!(f, "authenticating anew: {reason}"),
            Self::IkeClosed { reason, .. } => write!(f, "IKE SA closed: {reason}"),
            Self::EpochInstalled { inbound, outbound } => write!(
                f,
                "epoch installed, unproven: in {:#010x}, out {:#010x}",
                inbound.0, outbound.0
            ),
            Self::EpochMoved { local, remote } => {
                write!(
                    f,
                    "epoch moved: its packets go from {local} to {remote} now"
                )
            }
            Self::PingSent { attempt } => write!(f, "control ping {attempt} sent"),
            Self::PingAnswered {
                round_trip_us,
                proven,
            } => write!(
                f,
                "control ping answered after {:?}, {}",
                Duration::from_micros(*round_trip_us),
                if *proven {
                    "through the epoch itself: proven"
                } else {
                    "through another epoch: outbound proven"
                }
            ),
            Self::FirstPacketArrived => f.write_str("something authenticated arrived"),
            Self::Switched { held_us: None } => f.write_str("switched"),
            Self::Switched { held_us: Some(us) } => write!(
                f,
                "switched; traffic had been held for {:?}",
                Duration::from_micros(*us)
            ),
            Self::Closed { reason } => write!(f, "gate closed, traffic is held: {reason}"),
            Self::Unanswered { attempts } => write!(f, "{attempts} control pings unanswered"),
            Self::Rekeying { reason } => write!(f, "rekeying: {reason}"),
            Self::SpiTaken { spi } => write!(
                f,
                "the peer chose an SPI that another SA of this kernel has ({:#010x}); it will choose \
                 another one",
                spi.0
            ),
            Self::Untying => f.write_str(
                "a NAT seems to have kept this client out for a while; a Child SA is made and ended \
                 for it to have one answer more",
            ),
            Self::EpochRemoved => f.write_str("epoch removed"),
            Self::AddressesAssigned { addresses, dns, .. } => {
                write!(f, "the server assigned {}", listed(addresses))?;
                match dns.as_slice() {
                    [] => Ok(()),
                    servers => write!(f, ", DNS at {}", listed(servers)),
                }
            }
            Self::AddressesLeased { addresses } => {
                write!(f, "leased to the peer: {}", listed(addresses))
            }
            Self::Retrying { reason, after_ms } => write!(
                f,
                "{reason}; next attempt in {:?}",
                Duration::from_millis(*after_ms)
            ),
            Self::Attention { reason } => f.write_str(reason),
            Self::TookOver { policies, sas } => write!(
                f,
                "took over {policies} policies and removed {sas} SAs that an earlier run left"
            ),
            Self::Down => f.write_str("down: no policies, no SAs"),
        }
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
