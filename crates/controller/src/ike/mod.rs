//! IKEv2 (RFC 7296): IKE SAs and their exchanges, without any idea of gates and pings.
//!
//! The tunnels' side of the controller tells an [`Endpoint`] what to negotiate and hears of the
//! Child SAs that came out; the endpoint never touches the kernel. As responder it keeps its answer
//! until the tunnel says whether the Child SA is in the kernel ([`Endpoint::child_ready`]), so that
//! what the peer then sends finds its SA.

mod announce;
mod auth;
mod auth_eap;
mod auth_respond;
mod auth_respond_eap;
mod child;
mod configuration;
mod context;
mod cookie;
mod create_child;
mod endpoint;
mod established;
mod fragment;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod half_open;
mod identity;
mod ike_rekey;
mod informational;
mod init;
mod intermediate;
mod keys;
mod lifetime;
mod limits;
mod mobike;
mod nat_detection;
mod pad;
mod payloads;
mod ppk;
mod proof;
mod proposal;
mod protect;
mod rate;
mod report;
mod respond;
mod retransmit;
mod sa;
pub(crate) mod selectors;
mod session;
mod sharing;
mod signature;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use epochgate_ike_wire::TrafficSelector;

use crate::config::Identity;
use crate::crypto::Cipher;
use crate::io::{Datagram, Spi};
use crate::{Secret, Timestamp};

pub(crate) use configuration::Assigned;
pub(crate) use endpoint::Endpoint;
pub(crate) use limits::Limits;

/// Names a tunnel between the two sides of the controller: stable while it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TunnelId(pub(crate) u32);

/// Names an IKE SA of an [`Endpoint`]; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct IkeSaId(pub(crate) u64);

/// Names a Child SA of an [`Endpoint`]; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChildId(pub(crate) u64);

/// Where an IKE SA's messages and its ESP go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Our address and port.
    pub(crate) local: SocketAddr,
    /// The peer's address and port.
    pub(crate) remote: SocketAddr,
    /// Whether ESP is encapsulated in UDP between these (RFC 7296 §2.23).
    pub(crate) encapsulated: bool,
}

/// A negotiated Child SA (RFC 7296 §2.17).
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) id: ChildId,
    /// The SPI that we chose.
    pub(crate) inbound: Spi,
    /// The SPI that the peer chose.
    pub(crate) outbound: Spi,
    pub(crate) cipher: Cipher,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub(crate) extended_sequence: bool,
    /// Key material of what we receive, [`Cipher::material_len`] octets.
    pub(crate) inbound_key: Secret,
    /// Key material of what we send.
    pub(crate) outbound_key: Secret,
    /// Selectors of our side, as narrowed.
    pub(crate) local_selectors: Vec<TrafficSelector>,
    /// Selectors of the peer's side, as narrowed.
    pub(crate) remote_selectors: Vec<TrafficSelector>,
    pub(crate) path: Path,
    /// The Child SA that this one rekeys.
    pub(crate) replaces: Option<ChildId>,
    /// Who started the exchange.
    pub(crate) started_by: Side,
    /// The address that an epochgate peer answers pings on through it, if it announced one in the
    /// exchange (authenticated; not yet checked against selectors).
    pub(crate) ping_address: Option<IpAddr>,
}

/// Us or the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Us,
    Peer,
}

/// What IKE_AUTH told of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) id: Identity,
    /// It sent our vendor ID.
    pub(crate) epochgate: bool,
    /// The address that it wants pinged, said once for the whole IKE SA (authenticated; not yet
    /// checked against selectors).
    pub(crate) ping_address: Option<IpAddr>,
    /// A NAT was detected on either side.
    pub(crate) nat: bool,
    /// NATs were looked for. An end that does not speak NAT traversal leaves it open whether one that
    /// looks into IPsec stands in between.
    pub(crate) nat_asked: bool,
    /// It says that it has no other IKE SA with us (INITIAL_CONTACT, RFC 7296 §2.4): older ones
    /// between these identities are dead.
    pub(crate) initial_contact: bool,
    /// What it assigned to us, if we asked for addresses (RFC 7296 §2.19).
    pub(crate) assigned: Option<Assigned>,
}

/// What comes out of an endpoint.
#[derive(Clone, Debug)]
pub(crate) enum IkeOutput {
    /// Send this.
    Transmit(Datagram),
    /// Something happened to a tunnel's IKE SA. Of an IKE SA that a peer starts the first event is
    /// `Established`, or `Closed` when the peer could not prove that it is this tunnel's.
    Event {
        sa: IkeSaId,
        tunnel: TunnelId,
        event: IkeEvent,
    },
    /// Somebody was turned away before a tunnel was found for it; for the log. Not more often than
    /// once a second.
    Stranger { remote: SocketAddr, reason: String },
}

/// What happened to datagrams since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Datagrams that came.
    pub(crate) received: u64,
    /// No IKE message, or one that says what cannot be.
    pub(crate) malformed: u64,
    /// Integrity check failed.
    pub(crate) forged: u64,
    /// For no IKE SA that we know.
    pub(crate) unknown_sa: u64,
    /// Not the message ID or exchange that is due.
    pub(crate) outside_window: u64,
    /// Requests that had been answered already.
    pub(crate) repeated: u64,
    /// Our own requests sent again.
    pub(crate) retransmissions: u64,
    /// COOKIE demanded.
    pub(crate) cookies_sent: u64,
    /// Half-open IKE SAs whose IKE_AUTH never came.
    pub(crate) half_open_expired: u64,
    /// IKE_SA_INIT dropped because too many were half open.
    pub(crate) half_open_refused: u64,
    /// INVALID_IKE_SPI and INVALID_MAJOR_VERSION sent.
    pub(crate) unprotected_answers: u64,
}

/// What an endpoint tells a tunnel.
#[derive(Clone, Debug)]
pub(crate) enum IkeEvent {
    /// Both ends are authenticated.
    Established(Peer),
    /// The tunnel uses an IKE SA that a sibling made; both ends are authenticated.
    Joined(Peer),
    /// A Child SA was negotiated. Started by the peer: its answer waits for `child_ready`.
    Child(Box<Child>),
    /// An attempt of ours to make or rekey a Child SA was refused or failed; the IKE SA lives.
    ChildRefused {
        replaces: Option<ChildId>,
        error: ChildError,
    },
    /// We refused what the peer asked for.
    OfferRefused(Refused),
    /// The peer wants an address of a pool, and the tunnel has none: it was refused
    /// (INTERNAL_ADDRESS_FAILURE), and may come again.
    AddressWanted,
    /// Of two Child SAs from crossing rekeys this one is redundant (RFC 7296 §2.8.1); its deletion
    /// is under way if that is our duty.
    ChildRedundant(ChildId),
    /// The peer deletes this Child SA; the answer went out with our own half.
    ChildDeletedByPeer(ChildId),
    /// The peer confirmed a deletion that we asked for (or the Child SA was unknown to it).
    ChildDeleted(ChildId),
    /// The peer proved that it has forgotten the Child SA that we wanted to rekey.
    ChildUnknownToPeer(ChildId),
    /// The peer answered a liveness check, or anything else that needed its keys.
    Alive,
    /// Somebody answered our request with INVALID_IKE_SPI. That is not protected: it may be a peer
    /// that has restarted, or a lie (RFC 7296 §2.21.4).
    Forgotten,
    /// We refused the server's rekey of this Child SA, as `epoch.server-rekey` says.
    RekeyIgnored(ChildId),
    /// The path changed: the peer's authenticated messages come from elsewhere (RFC 7296 §2.23).
    PathChanged(Path),
    /// We are behind a NAT and have sent no IKE message on this path for `path.nat-keepalive`: if
    /// no ESP was sent either, a keepalive is due (RFC 3948 §4).
    KeepaliveDue(Path),
    /// The IKE SA has new SPIs and keys; its Child SAs go on (RFC 7296 §2.18).
    Rekeyed(Side),
    /// The peer does not rekey the IKE SA: before its lifetime is over there must be another one.
    RekeyRefused(ChildError),
    /// The peer ends the IKE SA then, unless we authenticate anew before (RFC 4478).
    AuthenticatedUntil(Timestamp),
    /// The IKE SA is over, and all its Child SAs with it.
    Closed(CloseReason),
}

/// Why a Child SA did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildError {
    /// TEMPORARY_FAILURE: try again later (RFC 7296 §2.25).
    Temporary,
    /// NO_PROPOSAL_CHOSEN: algorithms of both configurations do not meet.
    NoProposal,
    /// TS_UNACCEPTABLE: selectors of both configurations do not meet.
    Selectors,
    /// SINGLE_PAIR_REQUIRED: the peer wants a Child SA for each pair of addresses (RFC 7296 §2.9).
    SinglePair,
    /// NO_ADDITIONAL_SAS.
    NoAdditionalSas,
    /// Another error notify.
    Notify(u16),
    /// The peer's answer does not fit what we asked for.
    Nonsense,
}

/// What we refused the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A Child SA, for this reason.
    Child(ChildError),
    /// A rekey of the IKE SA.
    IkeRekey,
}

/// Why an IKE SA ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// We closed it.
    Asked,
    /// The tunnel left it to others that use it.
    Left,
    /// The peer's Delete.
    DeletedByPeer,
    /// No answer to all retransmissions.
    NoAnswer,
    /// The peer did not prove its identity, or we did not (AUTHENTICATION_FAILED).
    AuthenticationFailed(String),
    /// NO_PROPOSAL_CHOSEN in IKE_SA_INIT.
    NoProposal,
    /// Anything else: what, and who must act.
    Failed(String),
}
