//! Identities: the configuration's and the wire's (RFC 7296 §3.5, RFC 7815 §2.1).

use std::net::IpAddr;

use epochgate_ike_wire::{Identification, Identity as WireIdentity};

use crate::config::Identity;
use crate::distinguished_name::DistinguishedName;

/// The ID payload that says this identity.
pub(super) fn identification(identity: &Identity) -> Identification {
    Identification::new(match identity {
        Identity::Address(IpAddr::V4(address)) => WireIdentity::Ipv4(*address),
        Identity::Address(IpAddr::V6(address)) => WireIdentity::Ipv6(*address),
        Identity::Fqdn(name) => WireIdentity::Fqdn(name.clone()),
        Identity::Mail(address) => WireIdentity::Rfc822(address.clone()),
        Identity::KeyId(octets) => WireIdentity::KeyId(octets.clone()),
        Identity::Dn(name) => WireIdentity::Dn(name.der().to_vec()),
    })
}

/// Whether the peer says this identity. Host names are compared without regard to case
/// (RFC 4945 §3.1.2).
pub(super) fn is(said: &WireIdentity, identity: &Identity) -> bool {
    wire_key(said).is_some_and(|said| said == key(identity))
}

/// An identity in the form in which equal ones are equal: its type and its octets, those of host
/// names in lower case (RFC 4945 §3.1.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Identity);

/// The key of a configured identity.
pub(super) fn key(identity: &Identity) -> Key {
    Key(match identity {
        Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
        Identity::Address(_) | Identity::Mail(_) | Identity::KeyId(_) | Identity::Dn(_) => {
            identity.clone()
        }
    })
}

/// The key of what a peer says, if it is of a type that can be configured.
pub(super) fn wire_key(said: &WireIdentity) -> Option<Key> {
    let said = match said {
        WireIdentity::Ipv4(address) => Identity::Address(IpAddr::V4(*address)),
        WireIdentity::Ipv6(address) => Identity::Address(IpAddr::V6(*address)),
        WireIdentity::Fqdn(name) => Identity::Fqdn(name.clone()),
        WireIdentity::Rfc822(address) => Identity::Mail(address.clone()),
        WireIdentity::KeyId(octets) => Identity::KeyId(octets.clone()),
        WireIdentity::Dn(der) => Identity::Dn(DistinguishedName::from_der(der)?),
        WireIdentity::Other { .. } => return None,
    };
    Some(key(&said))
}
