//! NAT detection (RFC 7296 §2.23): each end says as hashes which addresses it believes in, and
//! the other compares them with those that the datagram really had.

use std::net::{IpAddr, SocketAddr};

use epochgate_ike_wire::{NotifyType, Payload};

use crate::crypto::Crypto;
use crate::io::Datagram;

use super::keys::IkeSpis;
use super::payloads::{Payloads, notify_with};

/// IKE and UDP-encapsulated ESP behind a NAT (RFC 7296 §2.23, RFC 3948).
pub(super) const NAT_T_PORT: u16 = 4500;

/// What the notifies of IKE_SA_INIT showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nat {
    /// Both ends sent them: there is no other NAT than those that were found.
    pub(super) asked: bool,
    /// Our address is translated on the way.
    pub(super) ours: bool,
    /// The peer's address is translated on the way.
    pub(super) theirs: bool,
}

impl Nat {
    /// A peer that sends no such notifies does not speak NAT traversal: nothing was found.
    pub(super) fn detect(
        crypto: &dyn Crypto,
        spis: &IkeSpis,
        datagram: &Datagram,
        payloads: &Payloads,
    ) -> Option<Self> {
        Self::detect_between(crypto, spis, datagram.local, datagram.remote, payloads)
    }

    /// The same for a message that came from `remote` to `local`.
    pub(super) fn detect_between(
        crypto: &dyn Crypto,
        spis: &IkeSpis,
        local: SocketAddr,
        remote: SocketAddr,
        payloads: &Payloads,
    ) -> Option<Self> {
        let says = |kind, address| {
            let actual = hash(crypto, spis, address);
            let mut any = false;
            // A host with several addresses sends a source notify for each.
            let matches = payloads
                .notified(kind)
                .inspect(|_| any = true)
                .any(|claimed| claimed == actual);
            any.then_some(matches)
        };
        let source = says(NotifyType::NAT_DETECTION_SOURCE_IP, remote)?;
        let destination = says(NotifyType::NAT_DETECTION_DESTINATION_IP, local)?;
        Some(Self {
            asked: true,
            ours: !destination,
            theirs: !source,
        })
    }

    /// Whether there is any, so that ESP is put into UDP.
    pub(super) fn found(self) -> bool {
        self.ours || self.theirs
    }
}

/// The two notifies of a message that goes from `local` to `remote`.
pub(super) fn notifies(
    crypto: &dyn Crypto,
    spis: &IkeSpis,
    local: SocketAddr,
    remote: SocketAddr,
) -> [Payload; 2] {
    [
        notify_with(
            NotifyType::NAT_DETECTION_SOURCE_IP,
            hash(crypto, spis, local),
        ),
        notify_with(
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            hash(crypto, spis, remote),
        ),
    ]
}

/// SHA-1 of SPIs, address and port as they stand on the wire.
fn hash(crypto: &dyn Crypto, spis: &IkeSpis, address: SocketAddr) -> [u8; 20] {
    let port = address.port().to_be_bytes();
    let spis = [spis.initiator.0, spis.responder.0].concat();
    match address.ip() {
        IpAddr::V4(ip) => crypto.sha1(&[&spis, &ip.octets(), &port]),
        IpAddr::V6(ip) => crypto.sha1(&[&spis, &ip.octets(), &port]),
    }
}
