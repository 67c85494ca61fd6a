//! What every handler of an IKE SA works with: cryptography, bounds, the peer authorization
//! database, the time, and where its results go.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use epochgate_ike_wire::{IkeSpi, Nonce};

use crate::Timestamp;
use crate::crypto::{Crypto, CryptoError};
use crate::io::{Datagram, Spi};
use crate::pki::UnixTime;

use super::limits::{Limits, NONCE_LEN};
use super::pad::Pad;
use super::rate::RateLimit;
use super::sa::{IkeSa, Next};
use super::sharing::Guests;
use super::{ChildId, Counters, IkeEvent, IkeOutput, IkeSaId, Peer, TunnelId};

/// SPIs below are reserved by IANA (RFC 4303 §2.1).
const RESERVED_SPIS: u32 = 0x100;

/// An IKE SA's names towards the tunnels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) id: IkeSaId,
    pub(super) tunnel: TunnelId,
}

/// One call's view of the endpoint.
pub(super) struct Context<'a> {
    pub(super) crypto: &'a dyn Crypto,
    pub(super) limits: &'a Limits,
    pub(super) pad: &'a Pad,
    pub(super) outputs: &'a mut VecDeque<IkeOutput>,
    pub(super) counters: &'a mut Counters,
    pub(super) strangers: &'a mut RateLimit,
    pub(super) guests: &'a mut Guests,
    pub(super) last_child: &'a mut u64,
    /// What a transition leaves behind beside its result.
    pub(super) beside: &'a mut Vec<IkeSa>,
    pub(super) now: Timestamp,
    /// The wall-clock time, which certificates are judged by, once it was told.
    pub(super) wall_clock: Option<UnixTime>,
}

impl Context<'_> {
    /// Tells the tunnel, and the IKE SA's other users what concerns them too.
    pub(super) fn event(&mut self, name: Name, event: IkeEvent) {
        let for_guests = match &event {
            IkeEvent::Established(peer) => Some(IkeEvent::Joined(Peer {
                initial_contact: false,
                ..peer.clone()
            })),
            IkeEvent::PathChanged(_)
            | IkeEvent::Rekeyed(_)
            | IkeEvent::AuthenticatedUntil(_)
            | IkeEvent::Alive
            | IkeEvent::Forgotten
            | IkeEvent::Closed(_) => Some(event.clone()),
            IkeEvent::Joined(_)
            | IkeEvent::Child(_)
            | IkeEvent::ChildRefused { .. }
            | IkeEvent::OfferRefused(_)
            | IkeEvent::AddressWanted
            | IkeEvent::ChildRedundant(_)
            | IkeEvent::ChildDeletedByPeer(_)
            | IkeEvent::ChildDeleted(_)
            | IkeEvent::ChildUnknownToPeer(_)
            | IkeEvent::KeepaliveDue(_)
            | IkeEvent::RekeyRefused(_)
            | IkeEvent::RekeyIgnored(_) => None,
        };
        let is_over = matches!(event, IkeEvent::Closed(_));
        let sa = name.id;
        let mut tell = |tunnel, event| {
            self.outputs
                .push_back(IkeOutput::Event { sa, tunnel, event });
        };
        tell(name.tunnel, event);
        if let Some(event) = for_guests {
            for guest in self.guests.of(sa) {
                tell(*guest, event.clone());
            }
        }
        if is_over {
            self.guests.dismiss(sa);
        }
    }

    /// An IKE SA that goes on by itself, without a name: the one that was rekeyed, or one too many.
    pub(super) fn leave_beside(&mut self, sa: Next) {
        self.beside.extend(sa);
    }

    /// Sends a message.
    pub(super) fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, payload: Vec<u8>) {
        self.outputs.push_back(IkeOutput::Transmit(Datagram {
            local,
            remote,
            payload,
        }));
    }

    /// Somebody without a tunnel was turned away; not told too often.
    pub(super) fn stranger(&mut self, remote: SocketAddr, reason: String) {
        if self.strangers.take(self.now) {
            self.outputs
                .push_back(IkeOutput::Stranger { remote, reason });
        }
    }

    pub(super) fn next_child(&mut self) -> ChildId {
        *self.last_child += 1;
        ChildId(*self.last_child)
    }

    /// A random nonce.
    pub(super) fn nonce(&self) -> Result<Nonce, CryptoError> {
        let mut octets = vec![0; NONCE_LEN];
        self.crypto.random(&mut octets)?;
        Nonce::new(octets).map_err(|_| CryptoError::Provider)
    }

    /// A random SPI for an IKE SA; never zero.
    pub(super) fn ike_spi(&self) -> Result<IkeSpi, CryptoError> {
        let mut octets = [0; 8];
        self.crypto.random(&mut octets)?;
        if octets == [0; 8] {
            return Err(CryptoError::Provider);
        }
        Ok(IkeSpi(octets))
    }

    /// A random SPI for what we receive. That nobody else on this host has it is found out when the
    /// SA goes into the kernel.
    pub(super) fn child_spi(&self) -> Result<Spi, CryptoError> {
        let mut octets = [0; 4];
        self.crypto.random(&mut octets)?;
        let spi = u32::from_be_bytes(octets);
        let spi = if spi < RESERVED_SPIS {
            spi + RESERVED_SPIS
        } else {
            spi
        };
        NonZeroU32::new(spi).map(Spi).ok_or(CryptoError::Provider)
    }
}
