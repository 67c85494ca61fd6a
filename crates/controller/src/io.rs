//! All that goes into the controller and comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use thiserror::Error;

use crate::config::{Config, TunnelName};
use crate::crypto::Cipher;
use crate::event::Event;
use crate::status::StatusReport;
use crate::{Secret, Timestamp};

/// A UDP datagram of IKE. The non-ESP marker of port 4500 (RFC 3948 §2.2) is the shell's: it is
/// neither in received payloads nor in those to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Our address and port (500 or 4500).
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// The IKE message.
    pub payload: Vec<u8>,
}

/// A security parameters index (RFC 4301 §4.1); never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Spi(pub NonZeroU32);

/// An SA as the kernel finds it (`struct xfrm_usersa_id`; the protocol is always ESP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SaId {
    /// Outer destination address.
    pub destination: IpAddr,
    /// SPI, chosen by that destination.
    pub spi: Spi,
}

/// UDP encapsulation of an SA (`struct xfrm_encap_tmpl`, UDP_ENCAP_ESPINUDP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Port of the SA's source.
    pub source_port: u16,
    /// Port of the SA's destination.
    pub destination_port: u16,
}

/// What is particular to each direction of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaDirection {
    /// We decrypt. `report_first`: the first packet raises XFRM_MSG_NEWAE
    /// (XFRMA_REPLAY_THRESH 1), reported as [`XfrmEvent::FirstPacket`]. Else the SA is silent.
    Inbound {
        /// Whether the first packet is reported.
        report_first: bool,
    },
    /// We encrypt.
    Outbound,
}

/// An SA's sequence numbers (RFC 4303 §2.2, §3.4.3; `struct xfrm_replay_state_esn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceNumbers {
    /// 64-bit extended ones.
    pub extended: bool,
    /// Packets of the anti-replay window; of an inbound SA only.
    pub window: u32,
}

/// An ESP SA in tunnel mode to be put into the SAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaSpec {
    /// Destination and SPI.
    pub id: SaId,
    /// Outer source address.
    pub source: IpAddr,
    /// Inbound or outbound.
    pub direction: SaDirection,
    /// The Child's reqid, shared by all its epochs.
    pub reqid: u32,
    /// The xfrm interface that it belongs to.
    pub if_id: Option<IfId>,
    /// Cipher with its integrity.
    pub cipher: Cipher,
    /// Key material: encryption key, then salt or integrity key ([`Cipher::material_len`]).
    pub key: Secret,
    /// Sequence numbers and the window against replays.
    pub sequence: SequenceNumbers,
    /// UDP encapsulation, where there is a NAT.
    pub encapsulation: Option<Encapsulation>,
    /// Hard limit in the kernel's own account; far beyond our rekeying (a safety net).
    pub hard_lifetime: Duration,
}

/// An SA's new outer addresses and ports. SPI, keys, replay window and sequence numbers stay
/// (RFC 4555 §3.5, RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaMove {
    /// The SA as it is.
    pub from: SaId,
    /// The SA as it will be: of the same SPI.
    pub to: SaId,
    /// Its new outer source address.
    pub source: IpAddr,
    /// Inbound or outbound, as it was added.
    pub direction: SaDirection,
    /// Its new UDP encapsulation.
    pub encapsulation: Option<Encapsulation>,
}

/// Direction of a policy (`XFRM_POLICY_IN`, `_OUT`, `_FWD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyDirection {
    /// Received for this host.
    In,
    /// Sent or forwarded outwards.
    Out,
    /// Received to be forwarded.
    Fwd,
}

/// ICMPv6 types of neighbour discovery: router solicitation to redirect (RFC 4861 §4).
pub const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// How far the exemption of neighbour discovery comes before the policy that it exempts from; more
/// than two IPv6 prefix lengths, so that it comes before every policy of the same template. Having no
/// reqid, it is known as ours by this distance.
pub const EXEMPT_AHEAD: u32 = 512;

/// Number of an xfrm interface (`XFRMA_IF_ID`, `IFLA_XFRM_IF_ID`): its tunnel's reqid, so that it is
/// in [`crate::REQIDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IfId(pub NonZeroU32);

/// Mark of the control pings that are sent through an xfrm interface, by which alone the interface
/// tells them from other traffic while it holds ("EGPN").
pub const PING_MARK: u32 = 0x4547_504e;

/// Which packets a policy is for, beside its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyScope {
    /// Whatever the selector covers: no mark, no if_id.
    Everything,
    /// What is routed to the xfrm interface (the selector's `ifindex`), before it gets there.
    RoutedTo(IfId),
    /// What the xfrm interface sends and receives.
    Of(IfId),
    /// What of that has [`PING_MARK`].
    PingsOf(IfId),
}

/// What makes a policy unique in the SPD: direction, selector, if_id and mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyKey {
    /// Direction.
    pub direction: PolicyDirection,
    /// Inner source network.
    pub source: IpNet,
    /// Inner destination network.
    pub destination: IpNet,
    /// Only this ICMPv6 type (a selector of protocol 58 with the type as source port).
    pub icmpv6_type: Option<u8>,
    /// Which packets.
    pub scope: PolicyScope,
}

/// An xfrm interface of a route-based tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Its number.
    pub if_id: IfId,
    /// Octets of its largest packets.
    pub mtu: u32,
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Passes without IPsec (allow, no template). Only for ICMPv6 neighbour discovery, and for what
    /// is routed to an xfrm interface, whose own policies then decide.
    Exempt,
    /// Holds: a template whose reqid no SA has, so that the kernel queues
    /// (`net.core.xfrm_larval_drop` 0). Outer addresses are placeholders.
    Hold {
        /// The Child's hold reqid.
        reqid: u32,
    },
    /// Sends through exactly one SA: template with reqid and SPI.
    Pin {
        /// The Child's reqid.
        reqid: u32,
        /// The open epoch's outbound SA.
        sa: SaId,
        /// Outer source address.
        source: IpAddr,
    },
    /// Accepts what came through any SA of the Child: template with reqid, without SPI and with
    /// wildcard outer addresses (in, fwd).
    Accept {
        /// The Child's reqid.
        reqid: u32,
    },
}

/// A policy as we want it in the SPD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Selector and direction.
    pub key: PolicyKey,
    /// Priority; lower comes first.
    pub priority: u32,
    /// What it does.
    pub action: PolicyAction,
}

/// Names an operation so that its result can come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What is asked of the kernel. Each is answered by exactly one [`Input::XfrmDone`]; they are
/// performed in the order in which they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XfrmOp {
    /// Reads the policies and SAs whose reqid is in our range ([`crate::REQIDS`]), and Exempt
    /// policies by our priorities. Answered by [`XfrmReply::Ours`].
    ReadOurs,
    /// Makes an xfrm interface, and sets it up; one that is there already with this number is ours.
    AddInterface(InterfaceSpec),
    /// Removes an xfrm interface; one that is gone already counts as removed.
    RemoveInterface(IfId),
    /// XFRM_MSG_NEWSA.
    AddSa(SaSpec),
    /// Gives an SA other outer addresses. Answered by [`XfrmReply::Packets`]: what its counter says
    /// then.
    ///
    /// With another destination it is another SA to the kernel: `from` stays until it is removed, so
    /// that a policy may go on naming it, and what is sent on the new one has sequence numbers that
    /// are well beyond. With the same destination it is changed in its place; where the kernel can't
    /// do that the SA is gone for a moment, so that nothing should be sent on it meanwhile.
    MoveSa(SaMove),
    /// XFRM_MSG_DELSA; an SA that is gone already counts as removed.
    RemoveSa(SaId),
    /// XFRM_MSG_NEWPOLICY for each, exclusive, all or none: a policy that exists with such a
    /// selector is somebody else's and fails the operation with [`XfrmError::Exists`].
    CreatePolicies(Vec<PolicySpec>),
    /// XFRM_MSG_UPDPOLICY for each, in one batch. A hold that is written makes the next packet that
    /// meets it raise an ACQUIRE, and those that wait already, however fresh the last one is.
    UpdatePolicies(Vec<PolicySpec>),
    /// XFRM_MSG_DELPOLICY for each; one that is gone already counts as removed.
    RemovePolicies(Vec<PolicyKey>),
    /// XFRM_MSG_GETSA: the packet counter of one SA. Answered by [`XfrmReply::Packets`].
    ReadPackets(SaId),
    /// Sets the inbound SA's event threshold (XFRM_MSG_NEWAE): reporting or silent.
    ReportFirst {
        /// The inbound SA.
        sa: SaId,
        /// Whether the next packet is to be reported.
        on: bool,
    },
}

/// One SA of ours that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSa {
    /// Destination and SPI.
    pub id: SaId,
    /// Its reqid.
    pub reqid: u32,
}

/// What an operation answers when it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XfrmReply {
    /// Done.
    Done,
    /// Packets that passed the SA (`xfrm_lifetime_cur.packets`).
    Packets(u64),
    /// What of ours is in the kernel.
    Ours {
        /// Policies.
        policies: Vec<PolicyKey>,
        /// SAs, also larval ones.
        sas: Vec<FoundSa>,
    },
}

/// Why the kernel refused. The text is the shell's, with the kernel's extended ack.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum XfrmError {
    /// EEXIST.
    #[error("{0}")]
    Exists(String),
    /// ESRCH or ENOENT.
    #[error("{0}")]
    Missing(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What the kernel tells by itself. Events that our own operations caused are not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XfrmEvent {
    /// XFRM_MSG_ACQUIRE: a packet met the hold with this reqid.
    Acquire {
        /// The template's reqid: a hold reqid of ours.
        reqid: u32,
    },
    /// XFRM_MSG_NEWAE of an SA that reports: something authenticated arrived on it.
    FirstPacket(SaId),
    /// XFRM_MSG_EXPIRE, hard or soft.
    Expired(SaId),
    /// XFRM_MSG_DELSA or FLUSHSA by somebody else.
    SaRemoved(SaId),
    /// XFRM_MSG_DELPOLICY by somebody else.
    PolicyRemoved(PolicyKey),
    /// XFRM_MSG_MAPPING: the inbound SA's peer now sends from another address or port.
    MappingChanged {
        /// The inbound SA.
        sa: SaId,
        /// The new source.
        source: SocketAddr,
    },
    /// Events were lost (ENOBUFS on the multicast socket, or a flush by somebody else).
    Overrun,
}

/// A control ping: an ICMP echo request sent through one epoch's outbound SA by a per-socket
/// policy, whatever the tunnel's own policies do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlPing {
    /// What the reply must carry.
    pub nonce: PingNonce,
    /// Inner source address.
    pub source: IpAddr,
    /// Inner destination address.
    pub target: IpAddr,
    /// The Child's reqid.
    pub reqid: u32,
    /// The epoch's outbound SA.
    pub sa: SaId,
    /// Outer source address.
    pub outer_source: IpAddr,
    /// The xfrm interface that it is sent through, with [`PING_MARK`]; its marked policy is pinned
    /// to the epoch already.
    pub if_id: Option<IfId>,
}

/// Unpredictable number in a control ping; ties the reply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingNonce(pub u64);

/// First octets of a control ping's data, before the nonce (8 octets, network order).
pub const PING_MAGIC: [u8; 8] = *b"EPOCHGAT";

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// To where packets to the peer's outer address leave.
    Peer(IpAddr),
    /// To an xfrm interface.
    Interface(IfId),
}

/// A route for a remote selector, or around such a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSpec {
    /// The remote selector.
    pub destination: IpNet,
    /// The preferred source: an address of this host inside a local selector.
    pub source: Option<IpAddr>,
    /// Where packets leave.
    pub via: Via,
}

/// A virtual address that this host owns while its tunnel is there (RFC 7296 §2.19).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressSpec {
    /// The address, as a host of its own (prefix length 32 or 128).
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: Arc<str>,
}

/// What a server told a tunnel's client of name resolution; nothing of the host's own is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSpec {
    /// The tunnel.
    pub tunnel: TunnelName,
    /// DNS servers behind the server, best first; none: there is nothing to tell any more.
    pub dns: Vec<IpAddr>,
    /// Domains that they resolve (RFC 8598).
    pub domains: Vec<String>,
}

/// Ties an operator's request to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// What an operator can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the tunnel; answered when it is open or the attempt failed.
    Up(TunnelName),
    /// Delete its SAs and take its policies away.
    Down(TunnelName),
    /// Negotiate a new epoch now; answered when traffic has switched or the attempt failed.
    Rekey(TunnelName),
    /// Rekey the IKE SA now (RFC 7296 §2.18); answered when it has new keys or was refused.
    RekeyIke(TunnelName),
    /// Make a new IKE SA beside the old one now (RFC 7296 §2.8.3); answered when traffic has switched
    /// to an epoch of it or the attempt failed.
    Reauthenticate(TunnelName),
    /// Tell all.
    Status,
    /// Delete all SAs, leave or remove the policies as `on-stop` says; answered when done.
    Shutdown,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandOutcome {
    /// It is done.
    Done,
    /// What `status` asked for.
    Status(Box<StatusReport>),
    /// It failed; the text says why and what to do.
    Failed(String),
}

/// What goes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// An IKE message arrived.
    Datagram(Datagram),
    /// An operation ended.
    XfrmDone {
        /// Which.
        op: OpId,
        /// How.
        result: Result<XfrmReply, XfrmError>,
    },
    /// The kernel says something.
    Xfrm(XfrmEvent),
    /// An echo reply with a control ping's magic arrived, from `from`.
    PingReply {
        /// Its nonce.
        nonce: PingNonce,
        /// Its inner source.
        from: IpAddr,
    },
    /// A control ping could not be sent.
    PingFailed {
        /// Its nonce.
        nonce: PingNonce,
        /// Why.
        error: String,
    },
    /// The answer to [`Output::FindSource`].
    SourceFound {
        /// The destination that was asked for.
        destination: IpAddr,
        /// The address that the host would send from, or why it can't.
        source: Result<IpAddr, String>,
    },
    /// A route could not be added or removed.
    RouteFailed {
        /// Which.
        route: RouteSpec,
        /// Why.
        error: String,
    },
    /// The addresses that this host owns now (all interfaces, without link-local ones).
    Addresses(Vec<IpAddr>),
    /// Virtual addresses that an earlier run left. Before the first [`Input::Configure`].
    LeftAddresses(Vec<AddressSpec>),
    /// A virtual address could not be added or removed.
    AddressFailed {
        /// Which.
        address: AddressSpec,
        /// Why.
        error: String,
    },
    /// A configuration, the first or a new one.
    Configure(Config),
    /// An operator asks.
    Command(CommandId, Command),
    /// A time that [`Output::Wait`] named has come (or an earlier one; harmless).
    Timeout,
}

/// Why the controller wants to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// Nothing is due.
    Idle,
    /// An IKE retransmission or other IKE timer.
    Ike,
    /// A tunnel's timer: ping, lifetime, drain, back-off, refresh of a held queue.
    Tunnel,
}

/// What comes out. Effects are performed in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send an IKE message.
    Datagram(Datagram),
    /// Send a NAT keepalive: one octet 0xff, without a non-ESP marker (RFC 3948 §2.3).
    Keepalive {
        /// Our address and port.
        local: SocketAddr,
        /// The peer's address and port.
        remote: SocketAddr,
    },
    /// Ask the kernel.
    Xfrm(OpId, XfrmOp),
    /// Send a control ping.
    Ping(ControlPing),
    /// Find the local address for a destination; answered by [`Input::SourceFound`].
    FindSource(IpAddr),
    /// Add a route.
    AddRoute(RouteSpec),
    /// Remove a route that was added.
    RemoveRoute(RouteSpec),
    /// Give this host a virtual address. [`Input::Addresses`] follows, as from any change.
    AddAddress(AddressSpec),
    /// Take a virtual address away that was added.
    RemoveAddress(AddressSpec),
    /// Tell whoever configures name resolution.
    Resolver(ResolverSpec),
    /// Something for the log.
    Event(Event),
    /// The answer to a command.
    Answer(CommandId, CommandOutcome),
    /// Nothing more now: come back at that time, or with the next input.
    Wait(Option<Timestamp>, WakeReason),
}
