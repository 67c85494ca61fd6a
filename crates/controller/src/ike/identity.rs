//! Identities: the configuration's and the wire's (RFC 7296 §3.5, RFC 7815 §2.1).

use std::net::IpAddr;

use epochgate_ike_wire::{Identification, Identity as WireIdentity};

use crate::config::Identity;

/// The ID payload that says this identity.
pub(super) fn identification(identity: &Identity) -> Identification {
    Identification::new(match identity {
        Identity::Address(IpAddr::V4(address)) => WireIdentity::Ipv4(*address),
        Identity::Address(IpAddr::V6(address)) => WireIdentity::Ipv6(*address),
        Identity::Fqdn(name) => WireIdentity::Fqdn(name.clone()),
        Identity::Mail(address) => WireIdentity::Rfc822(address.clone()),
        Identity::KeyId(octets) => WireIdentity::KeyId(octets.clone()),
    })
}

/// Whether the peer says this identity. Host names are compared without regard to case
/// (RFC 4945 §3.1.2).
pub(super) fn is(said: &WireIdentity, identity: &Identity) -> bool {
    match (said, identity) {
        (WireIdentity::Ipv4(said), Identity::Address(IpAddr::V4(address))) => said == address,
        (WireIdentity::Ipv6(said), Identity::Address(IpAddr::V6(address))) => said == address,
        (WireIdentity::Fqdn(said), Identity::Fqdn(name)) => said.eq_ignore_ascii_case(name),
        (WireIdentity::Rfc822(said), Identity::Mail(address)) => said == address,
        (WireIdentity::KeyId(said), Identity::KeyId(octets)) => said == octets,
        (
            WireIdentity::Ipv4(_)
            | WireIdentity::Ipv6(_)
            | WireIdentity::Fqdn(_)
            | WireIdentity::Rfc822(_)
            | WireIdentity::KeyId(_)
            | WireIdentity::Dn(_)
            | WireIdentity::Other { .. },
            _,
        ) => false,
    }
}
