//! The host that scripts are about.
//!
//! ```text
//! LAN 10.1.9.5 ── 10.1.0.1 host 203.0.113.1 ── 203.0.113.2 peer 10.2.0.1
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use epochgate_controller::crypto::Cipher;
use epochgate_controller::io::{
    ControlPing, Encapsulation, PingNonce, PolicyAction, PolicyDirection, PolicyKey, PolicyScope,
    PolicySpec, SaDirection, SaId, SaSpec, SequenceNumbers, Spi,
};
use epochgate_controller::{REQIDS, Secret};
use ipnet::IpNet;

use super::Family;

/// The host's outer address.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Another one.
pub const HOST_TOO: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 3));
/// The peer's.
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));
/// Another one of the peer's.
pub const PEER_TOO: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 4));
/// UDP port of IKE and ESP in UDP (RFC 3948 §2.1).
pub const NAT_T_PORT: u16 = 4500;
/// UDP port of the scripts' packets.
pub const PORT: u16 = 4000;
/// Reqid of the SAs.
pub const CHILD: u32 = *REQIDS.start() + 0x10;
/// Reqid of the holds.
pub const HOLD: u32 = CHILD + 1;
/// Reqid of another tunnel.
pub const OTHER: u32 = CHILD + 2;
/// Packets of the anti-replay window.
pub const WINDOW: u32 = 64;
/// Priority of the policies.
pub const PRIORITY: u32 = 1000;

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

/// The host's inner address.
#[must_use]
pub const fn inner(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
        Family::V6 => v6(1, 1),
    }
}

/// The address in the LAN.
#[must_use]
pub const fn lan(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 1, 9, 5)),
        Family::V6 => v6(1, 0x905),
    }
}

/// The peer's inner address.
#[must_use]
pub const fn remote(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
        Family::V6 => v6(2, 1),
    }
}

/// The protected network of the host or of the peer.
#[must_use]
pub fn network(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 16 } else { 48 };
    IpNet::new_assert(address, length).trunc()
}

/// The SA with this number, of the host's or of the peer's.
#[must_use]
pub fn sa_id(destination: IpAddr, spi: u32) -> SaId {
    SaId {
        destination,
        spi: Spi(NonZeroU32::new(spi).unwrap_or(NonZeroU32::MIN)),
    }
}

/// What an SA is encrypted with (AES-GCM-128 key and salt), known by its SPI.
#[must_use]
pub fn key(spi: Spi) -> [u8; 20] {
    let mut key = [0; 20];
    for (place, octet) in key.iter_mut().zip(spi.0.get().to_be_bytes().iter().cycle()) {
        *place = *octet;
    }
    key
}

/// An outbound SA.
#[must_use]
pub fn outbound(spi: u32, reqid: u32) -> SaSpec {
    let id = sa_id(PEER, spi);
    SaSpec {
        id,
        source: HOST,
        direction: SaDirection::Outbound,
        reqid,
        if_id: None,
        cipher: Cipher::AesGcm128,
        key: Secret::from(key(id.spi).to_vec()),
        sequence: SequenceNumbers {
            extended: false,
            window: WINDOW,
        },
        encapsulation: None,
        hard_lifetime: Duration::from_secs(3600),
    }
}

/// An inbound SA.
#[must_use]
pub fn inbound(spi: u32, reqid: u32, report_first: bool) -> SaSpec {
    let id = sa_id(HOST, spi);
    SaSpec {
        id,
        source: PEER,
        direction: SaDirection::Inbound { report_first },
        key: Secret::from(key(id.spi).to_vec()),
        ..outbound(spi, reqid)
    }
}

/// The same in UDP.
#[must_use]
pub fn encapsulated(sa: SaSpec) -> SaSpec {
    SaSpec {
        encapsulation: Some(Encapsulation {
            source_port: NAT_T_PORT,
            destination_port: NAT_T_PORT,
        }),
        ..sa
    }
}

/// A policy for all of the protected traffic one way.
#[must_use]
pub fn policy(direction: PolicyDirection, family: Family, action: PolicyAction) -> PolicySpec {
    let (own, peers) = (network(inner(family)), network(remote(family)));
    let (source, destination) = match direction {
        PolicyDirection::Out => (own, peers),
        PolicyDirection::In | PolicyDirection::Fwd => (peers, own),
    };
    PolicySpec {
        key: PolicyKey {
            direction,
            source,
            destination,
            icmpv6_type: None,
            scope: PolicyScope::Everything,
        },
        priority: PRIORITY,
        action,
    }
}

/// Sends through one SA.
#[must_use]
pub fn pin(spi: u32, reqid: u32) -> PolicyAction {
    PolicyAction::Pin {
        reqid,
        sa: sa_id(PEER, spi),
        source: HOST,
    }
}

/// A control ping through one SA.
#[must_use]
pub fn ping(nonce: u32, spi: u32, reqid: u32, family: Family) -> ControlPing {
    ControlPing {
        nonce: PingNonce(nonce.into()),
        source: inner(family),
        target: remote(family),
        reqid,
        sa: sa_id(PEER, spi),
        outer_source: HOST,
        if_id: None,
    }
}
