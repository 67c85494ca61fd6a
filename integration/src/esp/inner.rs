//! What was inside ESP packets.

use crate::capture::{Network, network};
use crate::traffic::sequence_of;
use etherparse::{Icmpv4Type, Icmpv6Type, LaxSlicedPacket, TransportSlice};
use std::fmt;
use std::net::IpAddr;

/// What the payload of a control ping begins with; a nonce of 8 bytes follows.
pub const CONTROL_PING: &[u8; 8] = b"EPOCHGAT";
/// How much of the payload is that and the nonce.
const CONTROL_PING_BYTES: usize = 16;

/// A packet that came out of ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerPacket {
    /// Inner source.
    pub src: IpAddr,
    /// Inner destination.
    pub dst: IpAddr,
    /// What it carries.
    pub content: Content,
}

/// What an inner packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An ICMP or ICMPv6 echo request or reply.
    Echo {
        /// Whether it is a reply.
        reply: bool,
        /// The identifier.
        id: u16,
        /// The sequence number.
        seq: u16,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A UDP datagram.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
        /// The datagram's payload.
        payload: Vec<u8>,
    },
    /// A TCP segment.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Its first byte's sequence number.
        seq: u32,
        /// How many bytes it carries.
        length: usize,
    },
    /// Another protocol, by its number.
    Other(u8),
}

impl InnerPacket {
    pub(super) fn parse(next_header: u8, bytes: &[u8]) -> Option<Self> {
        // IPv4 and IPv6, as tunnel mode's next header (RFC 4303 §2.6).
        if !matches!(next_header, 4 | 41) {
            return None;
        }
        let sliced = LaxSlicedPacket::from_ip(bytes).ok()?;
        let Network {
            src, dst, protocol, ..
        } = network(&sliced)?;
        let content = match &sliced.transport {
            Some(TransportSlice::Udp(udp)) => Content::Udp {
                ports: (udp.source_port(), udp.destination_port()),
                payload: udp.payload().to_vec(),
            },
            Some(TransportSlice::Tcp(tcp)) => Content::Tcp {
                ports: (tcp.source_port(), tcp.destination_port()),
                seq: tcp.sequence_number(),
                length: tcp.payload().len(),
            },
            Some(TransportSlice::Icmpv4(icmp)) => match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => Content::echo(false, echo, icmp.payload()),
                Icmpv4Type::EchoReply(echo) => Content::echo(true, echo, icmp.payload()),
                _ => Content::Other(protocol),
            },
            Some(TransportSlice::Icmpv6(icmp)) => match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(echo) => Content::echo(false, echo, icmp.payload()),
                Icmpv6Type::EchoReply(echo) => Content::echo(true, echo, icmp.payload()),
                _ => Content::Other(protocol),
            },
            Some(TransportSlice::Igmp(_)) | None => Content::Other(protocol),
        };
        Some(Self { src, dst, content })
    }

    /// The destination port of a UDP datagram.
    pub fn udp_port(&self) -> Option<u16> {
        match self.content {
            Content::Udp { ports: (_, to), .. } => Some(to),
            Content::Echo { .. } | Content::Tcp { .. } | Content::Other(_) => None,
        }
    }

    /// Whether it is the reply, and all of the payload, if it is a control ping. A request and
    /// its reply have one payload.
    pub fn control_ping(&self) -> Option<(bool, &[u8])> {
        match &self.content {
            Content::Echo { reply, payload, .. } if payload.starts_with(CONTROL_PING) => {
                payload.get(..CONTROL_PING_BYTES).map(|ping| (*reply, ping))
            }
            _ => None,
        }
    }
}

impl Content {
    fn echo(reply: bool, header: etherparse::IcmpEchoHeader, payload: &[u8]) -> Self {
        Self::Echo {
            reply,
            id: header.id,
            seq: header.seq,
            payload: payload.to_vec(),
        }
    }
}

impl fmt::Display for InnerPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, content } = self;
        match (content, self.control_ping()) {
            (_, Some((reply, nonce))) => {
                let word = if reply { "reply" } else { "request" };
                write!(f, "control ping {word} ")?;
                let nonce = &nonce[CONTROL_PING.len()..];
                nonce.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            }
            (Content::Echo { reply, seq, .. }, None) => {
                let word = if *reply { "reply" } else { "request" };
                write!(f, "echo {word} {seq}")?;
            }
            (Content::Udp { ports, payload }, None) => {
                let (from, to) = ports;
                write!(f, "UDP {from} > {to}, {} bytes", payload.len())?;
                if let Some(sequence) = sequence_of(payload) {
                    write!(f, ", datagram {sequence}")?;
                }
            }
            (Content::Tcp { ports, seq, length }, None) => {
                let (from, to) = ports;
                write!(f, "TCP {from} > {to}, {length} bytes from {seq}")?;
            }
            (Content::Other(protocol), None) => write!(f, "IP protocol {protocol}")?,
        }
        write!(f, " ({src} > {dst})")
    }
}
