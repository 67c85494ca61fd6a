//! The names of things in the SAD and SPD: SPIs, reqids, marks, and what identifies an SA.
//!
//! Callers build these; the `wire` modules turn them into the kernel's structures and back.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// A Security Parameter Index, in host byte order (RFC 4303 §2.1).
///
/// Zero is not an SPI: the kernel shows it for larval SAs that wait for a key daemon, which is why
/// [`Sa::spi`](crate::Sa::spi) is optional. 1 to 255 are reserved by IANA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(NonZeroU32);

impl Spi {
    /// The SPI with this number, unless it is zero.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, in host byte order.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl From<NonZeroU32> for Spi {
    fn from(number: NonZeroU32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.get())
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi(0x{:08x})", self.get())
    }
}

/// What ties a policy's template to the SAs that may serve it (kernel: `reqid`).
///
/// Zero ties nothing: a template with reqid 0 takes any SA that fits otherwise, and an `in`
/// template with reqid 0 accepts packets that came through anybody's SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reqid(pub u32);

impl Reqid {
    /// No tie between template and SA.
    pub const ANY: Self = Self(0);
}

impl fmt::Display for Reqid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The protocol of an SA (kernel: `xfrm_id.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Encapsulating Security Payload, IP protocol 50 (RFC 4303).
    Esp,
    /// Authentication Header, IP protocol 51 (RFC 4302).
    Ah,
    /// IP Payload Compression, IP protocol 108 (RFC 3173).
    Comp,
    /// Any other number the kernel reports: 43 and 60 (Mobile IPv6), 255 (any IPsec protocol).
    Other(u8),
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Esp => 50,
            Self::Ah => 51,
            Self::Comp => 108,
            Self::Other(number) => number,
        }
    }

    /// The protocol with this IP protocol number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            50 => Self::Esp,
            51 => Self::Ah,
            108 => Self::Comp,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp => f.write_str("esp"),
            Self::Ah => f.write_str("ah"),
            Self::Comp => f.write_str("comp"),
            Self::Other(number) => write!(f, "proto {number}"),
        }
    }
}

/// How an SA wraps packets (kernel: `XFRM_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// The payload alone is protected, the IP header stays (RFC 4301 §4.1).
    Transport,
    /// A whole packet is protected inside a new one (RFC 4301 §4.1).
    Tunnel,
    /// Route optimization (Mobile IPv6, RFC 6275).
    RouteOptimization,
    /// Inbound trigger (Mobile IPv6).
    InTrigger,
    /// Bound End-to-End Tunnel.
    Beet,
    /// Whole packets, aggregated and fragmented (IP-TFS, RFC 9347; Linux 6.14).
    Iptfs,
    /// Any other number the kernel reports.
    Other(u8),
}

impl Mode {
    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Transport => 0,
            Self::Tunnel => 1,
            Self::RouteOptimization => 2,
            Self::InTrigger => 3,
            Self::Beet => 4,
            Self::Iptfs => 5,
            Self::Other(number) => number,
        }
    }

    /// The mode with the kernel's number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Transport,
            1 => Self::Tunnel,
            2 => Self::RouteOptimization,
            3 => Self::InTrigger,
            4 => Self::Beet,
            5 => Self::Iptfs,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport => f.write_str("transport"),
            Self::Tunnel => f.write_str("tunnel"),
            Self::RouteOptimization => f.write_str("ro"),
            Self::InTrigger => f.write_str("in_trigger"),
            Self::Beet => f.write_str("beet"),
            Self::Iptfs => f.write_str("iptfs"),
            Self::Other(number) => write!(f, "mode {number}"),
        }
    }
}

/// A packet mark to match or to set: a packet matches when `packet_mark & mask == value`
/// (kernel: `xfrm_mark`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The bits wanted.
    pub value: u32,
    /// The bits looked at.
    pub mask: u32,
}

impl Mark {
    /// A mark that is compared whole.
    #[must_use]
    pub const fn exactly(value: u32) -> Self {
        Self {
            value,
            mask: u32::MAX,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// What tells one SA from another (kernel: `xfrm_usersa_id`).
///
/// Two peers that choose one SPI for one destination collide: the kernel refuses the second with
/// EEXIST, whatever the UDP ports of their encapsulation are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId {
    /// The outer destination, which is also who chose the SPI.
    pub destination: IpAddr,
    /// ESP, AH or IPComp.
    pub protocol: Protocol,
    /// The SPI.
    pub spi: Spi,
}

impl SaId {
    /// The ESP SA with this destination and SPI.
    #[must_use]
    pub const fn esp(destination: IpAddr, spi: Spi) -> Self {
        Self {
            destination,
            protocol: Protocol::Esp,
            spi,
        }
    }
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} to {}", self.protocol, self.spi, self.destination)
    }
}

/// An SA to look up: its identity and, where it was installed with one, its mark.
///
/// The kernel does not find a marked SA by its identity alone (`xfrm_user_state_lookup`). For an
/// SA without a mark a [`SaId`] is enough, wherever `impl Into<SaRef>` is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SaRef {
    /// The SA's identity.
    pub id: SaId,
    /// The SA's own mark, if it has one.
    pub mark: Option<Mark>,
}

impl From<SaId> for SaRef {
    fn from(id: SaId) -> Self {
        Self { id, mark: None }
    }
}

impl From<&SaId> for SaRef {
    fn from(id: &SaId) -> Self {
        Self::from(*id)
    }
}
