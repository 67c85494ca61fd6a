//! How one epochgate knows another, and learns what to ping: a vendor ID and a status notify from
//! the private-use range, both in IKE_AUTH, where they are authenticated (RFC 7296 §3.10.1, §3.12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use epochgate_ike_wire::{NotifyType, Payload};

use super::TunnelId;
use super::context::Context;
use super::payloads::{Payloads, notify_with};

/// Our vendor ID.
const VENDOR_ID: &[u8; 16] = b"epochgate.ike.v1";

/// The address that its sender answers control pings on, 4 or 16 octets. Has a meaning only beside
/// [`VENDOR_ID`]. ("EG", each octet with its high bit set, which is in the private-use range.)
const PING_ADDRESS: NotifyType = NotifyType(0xc5c7);

/// What a peer announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) epochgate: bool,
    pub(super) ping_address: Option<IpAddr>,
}

/// What we announce for a tunnel.
pub(super) fn payloads(ctx: &Context<'_>, tunnel: TunnelId) -> Vec<Payload> {
    let address = ctx
        .pad
        .announcements
        .get(&tunnel)
        .map(|address| match address {
            IpAddr::V4(address) => notify_with(PING_ADDRESS, address.octets()),
            IpAddr::V6(address) => notify_with(PING_ADDRESS, address.octets()),
        });
    address
        .into_iter()
        .chain([Payload::VendorId(VENDOR_ID.to_vec())])
        .collect()
}

/// What the peer announces. A malformed address is as none.
pub(super) fn read(payloads: &Payloads) -> Announcement {
    let epochgate = payloads.vendor_ids.iter().any(|id| id == VENDOR_ID);
    let address = payloads.notify(PING_ADDRESS).filter(|_| epochgate);
    Announcement {
        epochgate,
        ping_address: address.and_then(|it| parse(&it.data)),
    }
}

fn parse(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|it| Ipv4Addr::from(it).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|it| Ipv6Addr::from(it).into());
    v4().or_else(|_| v6()).ok()
}
