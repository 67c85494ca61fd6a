//! Traffic selectors: which packets go through a Child SA (RFC 7296 §2.9, §3.13).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::code_point::Octets;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::limits::MAX_TRAFFIC_SELECTORS;
use crate::reader::Reader;
use crate::writer::{check_count, with_length};

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;
/// Octets of TS Type, IP Protocol ID and Selector Length.
const SELECTOR_HEADER_LEN: usize = 4;

/// One entry of a Traffic Selector payload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum TrafficSelector {
    /// TS_IPV4_ADDR_RANGE or TS_IPV6_ADDR_RANGE.
    Ip(IpSelector),
    /// Any other type: it matches nothing that this program sends. Decoding never puts one of the
    /// above here.
    Other {
        /// TS Type field.
        kind: u8,
        /// The octet that is the IP Protocol ID in other selectors.
        protocol: u8,
        /// What follows the Selector Length field.
        body: Vec<u8>,
    },
}

impl TrafficSelector {
    /// The selector, if it is one of IP addresses.
    pub fn as_ip(&self) -> Option<&IpSelector> {
        match self {
            Self::Ip(selector) => Some(selector),
            Self::Other { .. } => None,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.offset();
        let kind = reader.u8()?;
        let protocol = reader.u8()?;
        let length = usize::from(reader.u16()?);
        let Some(body_len) = length.checked_sub(SELECTOR_HEADER_LEN) else {
            let minimum = SELECTOR_HEADER_LEN;
            let kind = DecodeErrorKind::LengthBelowMinimum { length, minimum };
            return Err(DecodeError {
                offset: start,
                kind,
            });
        };
        let mut body = reader.sub(body_len)?;
        if !matches!(kind, TS_IPV4_ADDR_RANGE | TS_IPV6_ADDR_RANGE) {
            return Ok(Self::Other {
                kind,
                protocol,
                body: body.take_rest().to_vec(),
            });
        }
        let inverted = DecodeError {
            offset: body.offset(),
            kind: DecodeErrorKind::InvertedRange,
        };
        let (start_port, end_port) = (body.u16()?, body.u16()?);
        let (first, last): (IpAddr, IpAddr) = if kind == TS_IPV4_ADDR_RANGE {
            let (first, last): ([u8; 4], [u8; 4]) = (body.array()?, body.array()?);
            (first.into(), last.into())
        } else {
            let (first, last): ([u8; 16], [u8; 16]) = (body.array()?, body.array()?);
            (first.into(), last.into())
        };
        body.finish()?;
        let (Some(ports), Some(addresses)) = (
            PortRange::new(start_port, end_port),
            AddressRange::new(first, last),
        ) else {
            return Err(inverted);
        };
        Ok(Self::Ip(IpSelector {
            protocol,
            ports,
            addresses,
        }))
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        with_length(out, "traffic selector", 2, |out| {
            match self {
                Self::Ip(selector) => selector.write(out),
                Self::Other {
                    kind,
                    protocol,
                    body,
                } => {
                    out.extend([*kind, *protocol, 0, 0]);
                    out.extend(body);
                }
            }
            Ok(())
        })
    }
}

impl From<IpSelector> for TrafficSelector {
    fn from(selector: IpSelector) -> Self {
        Self::Ip(selector)
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(selector) => selector.fmt(f),
            Self::Other { kind, body, .. } => write!(f, "Other({kind}, {:?})", Octets(body)),
        }
    }
}

/// Packets whose address, protocol and port at one end are in these ranges. Which end is said by
/// the payload (TSi or TSr) that the selector stands in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpSelector {
    /// IP protocol number; 0 is any.
    pub protocol: u8,
    /// Ports, or for ICMP type × 256 + code (RFC 4301 §4.4.1.3).
    pub ports: PortRange,
    /// Addresses.
    pub addresses: AddressRange,
}

impl IpSelector {
    /// All packets of these addresses.
    pub fn any(addresses: AddressRange) -> Self {
        Self {
            protocol: 0,
            ports: PortRange::ANY,
            addresses,
        }
    }

    /// All packets of a network. Bits of `address` beyond the prefix are ignored. `None` if the
    /// prefix is longer than the address.
    pub fn from_prefix(address: IpAddr, prefix_len: u8) -> Option<Self> {
        AddressRange::from_prefix(address, prefix_len).map(Self::any)
    }

    /// The network that the addresses are, if they are exactly one: kernel policies know only
    /// prefixes (`struct xfrm_selector`).
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        self.addresses.prefix()
    }

    /// Whether every packet that `other` matches is matched by this one.
    pub fn contains(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*other)
    }

    /// What both match, if anything: what a responder narrows an offer to (RFC 7296 §2.9).
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let ports = self.ports.intersect(other.ports)?;
        let addresses = self.addresses.intersect(other.addresses)?;
        Some(Self {
            protocol,
            ports,
            addresses,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.addresses.start {
            IpAddr::V4(_) => TS_IPV4_ADDR_RANGE,
            IpAddr::V6(_) => TS_IPV6_ADDR_RANGE,
        };
        out.extend([kind, self.protocol, 0, 0]);
        out.extend(self.ports.start.to_be_bytes());
        out.extend(self.ports.end.to_be_bytes());
        for address in [self.addresses.start, self.addresses.end] {
            match address {
                IpAddr::V4(address) => out.extend(address.octets()),
                IpAddr::V6(address) => out.extend(address.octets()),
            }
        }
    }
}

impl fmt::Display for IpSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix() {
            Some((address, prefix_len)) => write!(f, "{address}/{prefix_len}")?,
            None => write!(f, "{}-{}", self.addresses.start, self.addresses.end)?,
        }
        if self.protocol == 0 && self.ports == PortRange::ANY {
            return Ok(());
        }
        write!(f, "[{}", self.protocol)?;
        match self.ports {
            PortRange::ANY => {}
            PortRange::OPAQUE => f.write_str("/opaque")?,
            PortRange { start, end } if start == end => write!(f, "/{start}")?,
            PortRange { start, end } => write!(f, "/{start}-{end}")?,
        }
        f.write_str("]")
    }
}

impl fmt::Debug for IpSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ports from `start` to `end`, both included, or [`PortRange::OPAQUE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl PortRange {
    /// Any port, and packets whose port cannot be seen.
    pub const ANY: Self = Self {
        start: 0,
        end: u16::MAX,
    };

    /// Only packets whose port cannot be seen, such as later fragments (RFC 4301 §4.4.1.1); on
    /// the wire a range from 65535 to 0 (RFC 7296 §3.13.1).
    pub const OPAQUE: Self = Self {
        start: u16::MAX,
        end: 0,
    };

    /// The range from `start` to `end`. `None` if it starts above its end and is not OPAQUE.
    pub fn new(start: u16, end: u16) -> Option<Self> {
        let range = Self { start, end };
        (start <= end || range == Self::OPAQUE).then_some(range)
    }

    /// One port.
    pub fn single(port: u16) -> Self {
        Self {
            start: port,
            end: port,
        }
    }

    /// First port.
    pub fn start(self) -> u16 {
        self.start
    }

    /// Last port.
    pub fn end(self) -> u16 {
        self.end
    }

    fn intersect(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::ANY, range) | (range, Self::ANY) => Some(range),
            (Self::OPAQUE, Self::OPAQUE) => Some(Self::OPAQUE),
            (Self::OPAQUE, _) | (_, Self::OPAQUE) => None,
            _ => {
                let (start, end) = (self.start.max(other.start), self.end.min(other.end));
                (start <= end).then_some(Self { start, end })
            }
        }
    }
}

/// Addresses of one family from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: IpAddr,
    end: IpAddr,
}

impl AddressRange {
    /// The range from `start` to `end`. `None` if they are of two families or inverted.
    pub fn new(start: IpAddr, end: IpAddr) -> Option<Self> {
        (start.is_ipv4() == end.is_ipv4() && start <= end).then_some(Self { start, end })
    }

    /// A network. Bits of `address` beyond the prefix are ignored. `None` if the prefix is longer
    /// than the address.
    pub fn from_prefix(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let host_bits = width(address).checked_sub(u32::from(prefix_len))?;
        let host_mask = low_bits(host_bits);
        let (start, end) = (bits(address) & !host_mask, bits(address) | host_mask);
        Some(Self {
            start: like(address, start),
            end: like(address, end),
        })
    }

    /// One address.
    pub fn single(address: IpAddr) -> Self {
        Self {
            start: address,
            end: address,
        }
    }

    /// First address.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// Last address.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// The network that this is, if it is exactly one.
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        let (start, end) = (bits(self.start), bits(self.end));
        let host_mask = start ^ end;
        let host_bits = host_mask.count_ones();
        let is_prefix = host_mask == low_bits(host_bits) && start & host_mask == 0;
        let prefix_len = u8::try_from(width(self.start) - host_bits).ok()?;
        is_prefix.then_some((self.start, prefix_len))
    }

    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }

    /// The addresses in both, if there are any.
    pub fn intersect(&self, other: Self) -> Option<Self> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// How many bits an address of this family has.
fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with these bits in the family of `family`.
fn like(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        // The high bits of a 32-bit address are zero.
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

/// `count` ones, at most 128.
fn low_bits(count: u32) -> u128 {
    u128::MAX.checked_shr(u128::BITS - count).unwrap_or(0)
}

/// Reads the body of a Traffic Selector payload.
pub(crate) fn read_selectors(body: &mut Reader<'_>) -> Result<Vec<TrafficSelector>, DecodeError> {
    let offset = body.offset();
    let claimed = usize::from(body.u8()?);
    body.take(3)?;
    let mut selectors = Vec::new();
    while !body.is_empty() {
        if selectors.len() == MAX_TRAFFIC_SELECTORS {
            return Err(body.fail(DecodeErrorKind::TooMany {
                what: "traffic selectors",
                limit: MAX_TRAFFIC_SELECTORS,
            }));
        }
        selectors.push(TrafficSelector::read(body)?);
    }
    if claimed != selectors.len() {
        let actual = selectors.len();
        let kind = DecodeErrorKind::Count {
            what: "traffic selectors",
            claimed,
            actual,
        };
        return Err(DecodeError { offset, kind });
    }
    Ok(selectors)
}

/// Writes the body of a Traffic Selector payload.
pub(crate) fn write_selectors(
    out: &mut Vec<u8>,
    selectors: &[TrafficSelector],
) -> Result<(), EncodeError> {
    check_count("traffic selectors", selectors.len(), MAX_TRAFFIC_SELECTORS)?;
    // At most MAX_TRAFFIC_SELECTORS, which an octet holds.
    out.extend([selectors.len() as u8, 0, 0, 0]);
    selectors
        .iter()
        .try_for_each(|selector| selector.write(out))
}
