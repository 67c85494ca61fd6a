//! Bytes to types and back. No socket, no state.
//!
//! The fixed structures are laid out by `netlink-packet-xfrm`; attributes are framed here, because
//! that crate's message parser panics on short bodies, drops the attributes of EXPIRE and MAPPING,
//! and copies keys into vectors that are never wiped. Every length is checked before a byte is read.

pub(crate) mod attribute;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod info;
pub(crate) mod policy;
pub(crate) mod sa;
pub(crate) mod writer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_xfrm::Address;

use crate::{DecodeError, PortMatch, Prefix, Selector, Spi, Usage};

/// `AF_INET` as the kernel's structures have it.
pub(crate) const FAMILY_V4: u16 = netlink_packet_xfrm::constants::AF_INET;
/// `AF_INET6` as the kernel's structures have it.
pub(crate) const FAMILY_V6: u16 = netlink_packet_xfrm::constants::AF_INET6;

pub(crate) fn family_of(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => FAMILY_V4,
        IpAddr::V6(_) => FAMILY_V6,
    }
}

/// Reads an `xfrm_address_t` of a family that is told beside it.
pub(crate) fn ip_address(
    what: &'static str,
    address: &Address,
    family: u16,
) -> Result<IpAddr, DecodeError> {
    let [a, b, c, d, ..] = address.addr;
    match family {
        FAMILY_V4 => Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        FAMILY_V6 => Ok(IpAddr::V6(Ipv6Addr::from(address.addr))),
        other => Err(DecodeError::value(what, other)),
    }
}

/// Takes a fixed structure of `length` bytes from the front; what follows are attributes.
pub(crate) fn split<'a>(
    what: &'static str,
    bytes: &'a [u8],
    length: usize,
) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
    bytes
        .split_at_checked(length)
        .ok_or(DecodeError::short(what, length, bytes.len()))
}

/// Takes an array of `N` bytes from the front.
pub(crate) fn array<const N: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], DecodeError> {
    bytes
        .first_chunk()
        .copied()
        .ok_or(DecodeError::short(what, N, bytes.len()))
}

pub(crate) fn u32_from(what: &'static str, bytes: &[u8]) -> Result<u32, DecodeError> {
    array(what, bytes).map(u32::from_ne_bytes)
}

pub(crate) fn u64_from(what: &'static str, bytes: &[u8]) -> Result<u64, DecodeError> {
    array(what, bytes).map(u64::from_ne_bytes)
}

/// The kernel's structures parse from their exact length, which [`split`] has checked.
pub(crate) fn parsed<T, E>(what: &'static str, result: Result<T, E>) -> Result<T, DecodeError> {
    result.map_err(|_| DecodeError::short(what, 0, 0))
}

pub(crate) fn selector_to_wire(selector: &Selector) -> netlink_packet_xfrm::Selector {
    netlink_packet_xfrm::Selector {
        daddr: Address::from_ip(&selector.destination().address()),
        saddr: Address::from_ip(&selector.source().address()),
        dport: selector.destination_port.port,
        dport_mask: selector.destination_port.mask,
        sport: selector.source_port.port,
        sport_mask: selector.source_port.mask,
        family: family_of(selector.source().address()),
        prefixlen_d: selector.destination().length(),
        prefixlen_s: selector.source().length(),
        proto: selector.protocol,
        ifindex: selector.interface_index,
        user: selector.user,
    }
}

pub(crate) fn selector_from_wire(
    wire: &netlink_packet_xfrm::Selector,
) -> Result<Selector, DecodeError> {
    const WHAT: &str = "xfrm_selector.family";
    let prefix = |address: &Address, length: u8| {
        Prefix::new(ip_address(WHAT, address, wire.family)?, length)
            .map_err(|_| DecodeError::value("xfrm_selector.prefixlen", length))
    };
    let source = prefix(&wire.saddr, wire.prefixlen_s)?;
    let destination = prefix(&wire.daddr, wire.prefixlen_d)?;
    let mut selector = Selector::new(source, destination)
        .map_err(|_| DecodeError::value(WHAT, wire.family))?
        .with_protocol(wire.proto)
        .with_ports(
            PortMatch {
                port: wire.sport,
                mask: wire.sport_mask,
            },
            PortMatch {
                port: wire.dport,
                mask: wire.dport_mask,
            },
        );
    selector.interface_index = wire.ifindex;
    selector.user = wire.user;
    Ok(selector)
}

/// An SA's selector: with family AF_UNSPEC there is none.
pub(crate) fn optional_selector_from_wire(
    wire: &netlink_packet_xfrm::Selector,
) -> Result<Option<Selector>, DecodeError> {
    match wire.family {
        0 => Ok(None),
        _ => selector_from_wire(wire).map(Some),
    }
}

pub(crate) fn usage_from_wire(wire: &netlink_packet_xfrm::Lifetime) -> Usage {
    Usage {
        bytes: wire.bytes,
        packets: wire.packets,
        added: wire.add_time,
        first_used: (wire.use_time != 0).then_some(wire.use_time),
    }
}

pub(crate) fn spi_to_wire(spi: Option<Spi>) -> u32 {
    spi.map_or(0, Spi::get)
}

mod limits {
    //! `xfrm_lifetime_cfg`: for bytes and packets `XFRM_INF` is unlimited, for times 0 is.

    use netlink_packet_xfrm::{LifetimeConfig, constants::XFRM_INF};

    use crate::{Limit, Limits};

    pub(crate) fn to_wire(limits: &Limits) -> LifetimeConfig {
        let Limits { soft, hard } = limits;
        LifetimeConfig {
            soft_byte_limit: soft.bytes.unwrap_or(XFRM_INF),
            hard_byte_limit: hard.bytes.unwrap_or(XFRM_INF),
            soft_packet_limit: soft.packets.unwrap_or(XFRM_INF),
            hard_packet_limit: hard.packets.unwrap_or(XFRM_INF),
            soft_add_expires_seconds: soft.seconds_since_added.unwrap_or(0),
            hard_add_expires_seconds: hard.seconds_since_added.unwrap_or(0),
            soft_use_expires_seconds: soft.seconds_since_used.unwrap_or(0),
            hard_use_expires_seconds: hard.seconds_since_used.unwrap_or(0),
        }
    }

    pub(crate) fn from_wire(wire: &LifetimeConfig) -> Limits {
        let count = |limit: u64| (limit != XFRM_INF).then_some(limit);
        let seconds = |limit: u64| (limit != 0).then_some(limit);
        Limits {
            soft: Limit {
                bytes: count(wire.soft_byte_limit),
                packets: count(wire.soft_packet_limit),
                seconds_since_added: seconds(wire.soft_add_expires_seconds),
                seconds_since_used: seconds(wire.soft_use_expires_seconds),
            },
            hard: Limit {
                bytes: count(wire.hard_byte_limit),
                packets: count(wire.hard_packet_limit),
                seconds_since_added: seconds(wire.hard_add_expires_seconds),
                seconds_since_used: seconds(wire.hard_use_expires_seconds),
            },
        }
    }
}
pub(crate) use limits::{from_wire as limits_from_wire, to_wire as limits_to_wire};

#[cfg(test)]
mod secrecy_tests;
#[cfg(test)]
mod tests;
