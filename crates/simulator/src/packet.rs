//! What travels: inner packets, and the frames that carry them over the network.
//!
//! Nothing is encrypted here: an ESP frame names its key, and a receiver with another key drops it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use epochgate_controller::Secret;
use epochgate_controller::io::{Datagram, Encapsulation, PingNonce, SaId};
use epochgate_ike_wire::Header;

/// An application's stream of numbered packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId(pub(crate) usize);

/// What an inner packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// An application's packet.
    Data {
        /// Its flow.
        flow: FlowId,
        /// Its number in the flow, from 0.
        sequence: u64,
    },
    /// An ICMP echo request with a control ping's nonce.
    EchoRequest(PingNonce),
    /// The reply to one.
    EchoReply(PingNonce),
    /// ICMPv6 neighbour discovery (RFC 4861 §4).
    NeighbourDiscovery {
        /// 133 to 137.
        icmpv6_type: u8,
    },
}

/// An inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Inner source.
    pub source: IpAddr,
    /// Inner destination.
    pub destination: IpAddr,
    /// What it is.
    pub body: Body,
    /// Whether it waited in a hold queue on its way.
    pub waited: bool,
}

impl Packet {
    /// The ICMPv6 type, if it is neighbour discovery.
    #[must_use]
    pub fn icmpv6_type(&self) -> Option<u8> {
        match self.body {
            Body::NeighbourDiscovery { icmpv6_type } => Some(icmpv6_type),
            Body::Data { .. } | Body::EchoRequest(_) | Body::EchoReply(_) => None,
        }
    }
}

/// A packet as the network carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IKE message.
    Ike(Datagram),
    /// A tunnel-mode ESP packet.
    Esp {
        /// Outer source address.
        source: IpAddr,
        /// Outer destination and SPI.
        sa: SaId,
        /// The UDP ports that it is in, if it is in UDP (RFC 3948 §2.1).
        encapsulation: Option<Encapsulation>,
        /// Sequence number (RFC 4303 §2.2).
        sequence: u64,
        /// What it is encrypted with.
        key: Arc<Secret>,
        /// What it carries.
        inner: Packet,
    },
    /// A NAT keepalive: one octet 0xff in UDP (RFC 3948 §2.3).
    Keepalive {
        /// The sender's address and port.
        local: SocketAddr,
        /// The receiver's.
        remote: SocketAddr,
    },
    /// A packet that no SA protects.
    Clear(Packet),
}

impl Frame {
    /// The address that it comes from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::Ike(datagram) => datagram.local.ip(),
            Self::Esp { source, .. } => *source,
            Self::Keepalive { local, .. } => local.ip(),
            Self::Clear(packet) => packet.source,
        }
    }

    /// The address that it is routed to.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::Ike(datagram) => datagram.remote.ip(),
            Self::Esp { sa, .. } => sa.destination,
            Self::Keepalive { remote, .. } => remote.ip(),
            Self::Clear(packet) => packet.destination,
        }
    }

    /// The outer address that it leaves with, where that is the host's own.
    #[must_use]
    pub fn outer_source(&self) -> Option<IpAddr> {
        match self {
            Self::Ike(datagram) => Some(datagram.local.ip()),
            Self::Esp { source, .. } => Some(*source),
            Self::Keepalive { local, .. } => Some(local.ip()),
            Self::Clear(_) => None,
        }
    }

    /// The IKE header, if it is IKE.
    #[must_use]
    pub fn ike_header(&self) -> Option<Header> {
        match self {
            Self::Ike(datagram) => Header::decode(&datagram.payload).ok(),
            Self::Esp { .. } | Self::Keepalive { .. } | Self::Clear(_) => None,
        }
    }
}
