//! How one epochgate knows another, and learns what to ping: a vendor ID and a status notify from
//! the private-use range, in IKE_AUTH and CREATE_CHILD_SA, where they are authenticated (RFC 7296
//! §3.10.1, §3.12).

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
    ping_address(ctx, tunnel)
        .into_iter()
        .chain([Payload::VendorId(VENDOR_ID.to_vec())])
        .collect()
}

/// What of it each Child SA has its own of. Goes into CREATE_CHILD_SA too, to a peer that announced
/// itself in IKE_AUTH.
pub(super) fn ping_address(ctx: &Context<'_>, tunnel: TunnelId) -> Option<Payload> {
    let address = ctx.pad.announcements.get(&tunnel)?;
    Some(match address {
        IpAddr::V4(address) => notify_with(PING_ADDRESS, address.octets()),
        IpAddr::V6(address) => notify_with(PING_ADDRESS, address.octets()),
    })
}

/// What the peer announces. A malformed address is as none.
pub(super) fn read(payloads: &Payloads) -> Announcement {
    let epochgate = payloads.vendor_ids.iter().any(|id| id == VENDOR_ID);
    Announcement {
        epochgate,
        ping_address: epochgate.then(|| read_ping_address(payloads)).flatten(),
    }
}

/// The address to ping that a peer known as epochgate announces. A malformed one is as none.
pub(super) fn read_ping_address(payloads: &Payloads) -> Option<IpAddr> {
    let address = payloads.notify(PING_ADDRESS)?;
    parse(&address.data)
}

fn parse(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|it| Ipv4Addr::from(it).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|it| Ipv6Addr::from(it).into());
    v4().or_else(|_| v6()).ok()
}
