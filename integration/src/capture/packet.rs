//! From a frame's bytes to what the packet is, seen from outside: clear text, ESP, IKE.
//!
//! An IP packet that is not understood is [`Packet::Clear`], however broken it is: an audit that
//! looks for clear text must not miss a packet because it is malformed.

use etherparse::{IpNumber, Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, UdpSlice};
use std::fmt;
use std::net::IpAddr;

/// UDP ports of IKE and of IKE and ESP behind NAT (RFC 7296 §2.23, RFC 3948).
const IKE_PORT: u16 = 500;
const NAT_T_PORT: u16 = 4500;
/// Stands before an IKE message on port 4500, where ESP has its SPI (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// All that a datagram carries which keeps a NAT's mapping alive (RFC 3948 §2.3).
const NAT_KEEPALIVE: [u8; 1] = [0xff];
/// SPI and sequence number (RFC 4303 §2).
const ESP_HEADER_BYTES: usize = 8;
/// The header of an IKE message (RFC 7296 §3.1).
const IKE_HEADER_BYTES: usize = 28;
const IKE_MAJOR_VERSION: u8 = 2;
/// Flags in the IKE header: response, and sent by the end that began the IKE SA.
const IKE_FLAG_RESPONSE: u8 = 0x20;
const IKE_FLAG_INITIATOR: u8 = 0x08;
/// The first payload of a fragment (RFC 7383 §2.5).
const ENCRYPTED_FRAGMENT: u8 = 53;

/// What a packet is, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// ESP, plain (protocol 50) or in UDP (RFC 3948).
    Esp {
        /// Outer source.
        src: IpAddr,
        /// Outer destination.
        dst: IpAddr,
        /// The SPI, chosen by the destination.
        spi: u32,
        /// The sequence number.
        seq: u32,
        /// Whether it is inside UDP.
        udp: bool,
    },
    /// A part of an ESP packet that was fragmented after it was encrypted: nobody here puts it
    /// together, so no audit can judge it. Of one in UDP only the first part is known as such;
    /// the others, which have no ports, are [`Packet::Clear`] between the outer addresses.
    EspFragment {
        /// Outer source.
        src: IpAddr,
        /// Outer destination.
        dst: IpAddr,
    },
    /// An IKE message (RFC 7296 §3.1).
    Ike {
        /// Outer source.
        src: IpAddr,
        /// Outer destination.
        dst: IpAddr,
        /// The initiator's SPI.
        initiator_spi: u64,
        /// The exchange type: 34 IKE_SA_INIT, 35 IKE_AUTH, 36 CREATE_CHILD_SA, 37 INFORMATIONAL.
        exchange: u8,
        /// The message ID.
        message_id: u32,
        /// Whether the sender began the IKE SA (the I flag).
        from_initiator: bool,
        /// Whether it is a response (the R flag).
        response: bool,
        /// Whether it is a part of a message (RFC 7383 §2.5).
        fragment: bool,
    },
    /// Any other IP packet, neighbour discovery included.
    Clear {
        /// Source.
        src: IpAddr,
        /// Destination.
        dst: IpAddr,
        /// The IP protocol's number.
        protocol: u8,
        /// UDP's or TCP's ports, source first.
        ports: Option<(u16, u16)>,
    },
    /// What carries nobody's data: NAT keepalives, ARP, and whatever else is not IP.
    Other,
}

/// The parts of an IP packet that matter here.
pub(crate) struct Network<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// Where in the whole packet the payload belongs, in bytes, if it is a fragment.
    fragment: Option<u32>,
    pub(crate) payload: &'a [u8],
}

/// Reads the IP header of a sliced packet; `None` if it has none.
pub(crate) fn network<'a>(sliced: &LaxSlicedPacket<'a>) -> Option<Network<'a>> {
    match sliced.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let offset = u32::from(ip.header().fragments_offset().value()) * 8;
            Some(Network {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                protocol: ip.payload().ip_number.0,
                fragment: ip.is_payload_fragmented().then_some(offset),
                payload: ip.payload().payload,
            })
        }
        LaxNetSlice::Ipv6(ip) => {
            let mut extensions = ip.extensions().clone().into_iter();
            let offset = extensions.find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(part) => {
                    Some(u32::from(part.fragment_offset().value()) * 8)
                }
                _ => None,
            });
            Some(Network {
                src: ip.header().source_addr().into(),
                dst: ip.header().destination_addr().into(),
                protocol: ip.payload().ip_number.0,
                fragment: offset.filter(|_| ip.is_payload_fragmented()),
                payload: ip.payload().payload,
            })
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// What a frame with an Ethernet header is, and the ESP packet in it, from its SPI on.
pub(super) fn parse_frame(frame: &[u8]) -> (Packet, Option<&[u8]>) {
    let sliced = LaxSlicedPacket::from_ethernet(frame).ok();
    match sliced.and_then(|sliced| network(&sliced)) {
        Some(ip) => parse_ip(&ip),
        None => (Packet::Other, None),
    }
}

fn parse_ip<'a>(ip: &Network<'a>) -> (Packet, Option<&'a [u8]>) {
    let parsed = match IpNumber(ip.protocol) {
        IpNumber::ENCAPSULATING_SECURITY_PAYLOAD => Some(parse_esp(ip, ip.payload, false)),
        IpNumber::UDP => parse_udp(ip),
        _ => None,
    };
    parsed.unwrap_or_else(|| (clear(ip), None))
}

fn parse_esp<'a>(ip: &Network<'_>, bytes: &'a [u8], udp: bool) -> (Packet, Option<&'a [u8]>) {
    let (src, dst) = (ip.src, ip.dst);
    if ip.fragment.is_some() {
        return (Packet::EspFragment { src, dst }, None);
    }
    let Some([a, b, c, d, e, f, g, h]) = bytes.first_chunk::<ESP_HEADER_BYTES>() else {
        return (clear(ip), None);
    };
    let packet = Packet::Esp {
        src,
        dst,
        spi: u32::from_be_bytes([*a, *b, *c, *d]),
        seq: u32::from_be_bytes([*e, *f, *g, *h]),
        udp,
    };
    (packet, Some(bytes))
}

/// IKE, ESP in UDP and keepalives; `None` for all other datagrams.
fn parse_udp<'a>(ip: &Network<'a>) -> Option<(Packet, Option<&'a [u8]>)> {
    // Only the first fragment has the ports.
    if ip.fragment.is_some_and(|offset| offset > 0) {
        return None;
    }
    let udp = UdpSlice::from_slice_lax(ip.payload).ok()?;
    let ports = [udp.source_port(), udp.destination_port()];
    let payload = udp.payload();
    if ports.contains(&NAT_T_PORT) {
        if payload == NAT_KEEPALIVE {
            Some((Packet::Other, None))
        } else if let Some(message) = payload.strip_prefix(&NON_ESP_MARKER) {
            Some((parse_ike(ip, message)?, None))
        } else {
            Some(parse_esp(ip, payload, true))
        }
    } else if ports.contains(&IKE_PORT) {
        Some((parse_ike(ip, payload)?, None))
    } else {
        None
    }
}

fn parse_ike(ip: &Network<'_>, message: &[u8]) -> Option<Packet> {
    let header = message.first_chunk::<IKE_HEADER_BYTES>()?;
    if header[17] >> 4 != IKE_MAJOR_VERSION {
        return None;
    }
    Some(Packet::Ike {
        src: ip.src,
        dst: ip.dst,
        initiator_spi: u64::from_be_bytes(*header.first_chunk()?),
        exchange: header[18],
        from_initiator: header[19] & IKE_FLAG_INITIATOR != 0,
        response: header[19] & IKE_FLAG_RESPONSE != 0,
        fragment: header[16] == ENCRYPTED_FRAGMENT,
        message_id: u32::from_be_bytes([header[20], header[21], header[22], header[23]]),
    })
}

fn clear(ip: &Network<'_>) -> Packet {
    Packet::Clear {
        src: ip.src,
        dst: ip.dst,
        protocol: ip.protocol,
        ports: ports(ip),
    }
}

fn ports(ip: &Network<'_>) -> Option<(u16, u16)> {
    if ip.fragment.is_some() {
        return None;
    }
    match IpNumber(ip.protocol) {
        IpNumber::UDP => {
            let udp = UdpSlice::from_slice_lax(ip.payload).ok()?;
            Some((udp.source_port(), udp.destination_port()))
        }
        IpNumber::TCP => {
            let tcp = TcpSlice::from_slice(ip.payload).ok()?;
            Some((tcp.source_port(), tcp.destination_port()))
        }
        _ => None,
    }
}

/// The name of an IKE exchange type (RFC 7296 §3.1, RFC 9242, RFC 9370).
pub(crate) fn exchange_name(exchange: u8) -> &'static str {
    match exchange {
        34 => "IKE_SA_INIT",
        35 => "IKE_AUTH",
        36 => "CREATE_CHILD_SA",
        37 => "INFORMATIONAL",
        43 => "IKE_INTERMEDIATE",
        44 => "IKE_FOLLOWUP_KE",
        _ => "unknown exchange",
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp { spi, seq, udp, .. } => {
                let carrier = if *udp { " in UDP" } else { "" };
                write!(f, "ESP{carrier} {spi:#010x} #{seq}")
            }
            Self::EspFragment { src, dst } => write!(f, "ESP fragment {src} > {dst}"),
            Self::Ike {
                exchange,
                message_id,
                response,
                ..
            } => {
                let word = if *response { "response" } else { "request" };
                write!(f, "{} {word} {message_id}", exchange_name(*exchange))
            }
            Self::Clear {
                src,
                dst,
                protocol,
                ports,
            } => {
                write!(f, "clear {src} > {dst} protocol {protocol}")?;
                match ports {
                    Some((from, to)) => write!(f, " {from} > {to}"),
                    None => Ok(()),
                }
            }
            Self::Other => f.write_str("other"),
        }
    }
}

#[cfg(test)]
mod tests;
