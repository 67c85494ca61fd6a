//! Security associations: what a key daemon installs ([`Sa`]) and what the kernel reports back
//! ([`SaEntry`]: the same with its counters).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use crate::{
    Iptfs, Mark, Mode, Offload, Protection, Protocol, RawAttribute, Reqid, SaId, SecurityContext,
    Selector, Spi,
};
use bitflags::bitflags;

bitflags! {
    /// Flags of an SA (kernel: `XFRM_STATE_*`).
    ///
    /// ESN has no flag here: it is [`ReplayWindow::extended`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SaFlags: u8 {
        /// Leave the outer ECN field alone when decapsulating.
        const NO_ECN = 1;
        /// Copy the outer DSCP to the inner header when decapsulating.
        const DECAP_DSCP = 2;
        /// Never set "don't fragment" on the outer header.
        const NO_PMTU_DISCOVERY = 4;
        /// Take packets to any destination address (Mobile IPv6).
        const WILDCARD_RECEIVE = 8;
        /// Pass ICMP errors about packets inside through the reverse policy check (RFC 4301 §6).
        const ICMP = 16;
        /// The inner address family may differ from the outer one (6in4, 4in6). Without it such
        /// an SA ends in EEXIST or in XfrmOutPolError.
        const AF_UNSPEC = 32;
        /// Pad AH to 4 bytes for IPv6 too.
        const ALIGN4 = 64;
        /// What a newer kernel may report.
        const _ = !0;
    }
}

bitflags! {
    /// More flags of an SA (kernel: `XFRM_SA_XFLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SaExtraFlags: u32 {
        /// Do not copy the inner DSCP to the outer header.
        const DONT_ENCAP_DSCP = 1;
        /// Let outbound sequence numbers wrap instead of failing.
        const OUTBOUND_SEQUENCE_MAY_WRAP = 2;
        /// What a newer kernel may report.
        const _ = !0;
    }
}

/// A security association to install (kernel: `xfrm_usersa_info` and its attributes).
///
/// Build one with [`Sa::esp_tunnel`], [`Sa::esp_transport`] or [`Sa::new`] and set what differs. `Debug` shows
/// the lengths of keys only, and keys are wiped when the value is dropped.
///
/// ```
/// use epochgate_xfrm::{Encap, Key, Protection, ReplayWindow, Reqid, Sa, Spi};
///
/// let (peer, us) = ([192, 0, 2, 2].into(), [192, 0, 2, 1].into());
/// let spi = Spi::new(0xc000_0001).ok_or("an SPI is not zero")?;
/// let key = Key::new(vec![0x42; 36]); // AES-256 key and salt, from a key exchange.
/// let mut sa = Sa::esp_tunnel(peer, us, spi, Reqid(1), Protection::aes_gcm_16(key));
/// sa.replay_window = ReplayWindow::extended(128);
/// sa.encap = Some(Encap::udp(4500, 4500));
/// sa.limits.hard.seconds_since_added = Some(3600);
/// assert_eq!(sa.id().ok_or("it has an SPI")?.to_string(), "esp 0xc0000001 to 192.0.2.1");
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sa {
    /// The outer source.
    pub source: IpAddr,
    /// The outer destination, of the source's family.
    pub destination: IpAddr,
    /// ESP, AH or IPComp.
    pub protocol: Protocol,
    /// The SPI. `None` only in the larval SAs that the kernel makes for an ACQUIRE.
    pub spi: Option<Spi>,
    /// Ties the SA to policy templates.
    pub reqid: Reqid,
    /// Transport or tunnel.
    pub mode: Mode,
    /// Algorithms and keys.
    pub protection: Protection,
    /// UDP encapsulation (NAT traversal).
    pub encap: Option<Encap>,
    /// Anti-replay window and extended sequence numbers.
    pub replay_window: ReplayWindow,
    /// Sequence numbers to start from; `None` starts afresh. Never read back: see
    /// [`SaEntry::replay`].
    pub initial_replay: Option<ReplayState>,
    /// When to warn of the SA's end and when to end it.
    pub limits: Limits,
    /// Which inner packets may use the SA. `None` leaves it to the kernel, which fills in
    /// everything in the outer family unless [`SaFlags::AF_UNSPEC`] is set.
    pub selector: Option<Selector>,
    /// The mark that a packet needs to use the SA. It is part of the SA's identity in lookups.
    pub mark: Option<Mark>,
    /// The mark that packets get after the SA has processed them (`XFRMA_SET_MARK`).
    pub output_mark: Option<Mark>,
    /// The xfrm interface the SA belongs to.
    pub if_id: Option<NonZeroU32>,
    /// Flags.
    pub flags: SaFlags,
    /// More flags.
    pub extra_flags: SaExtraFlags,
    /// The direction, where the kernel knows one (Linux 6.10). It then refuses what makes no sense
    /// for the direction: an outbound SA has a replay window of 0, for instance.
    pub direction: Option<SaDirection>,
    /// After how many packets an aevent is sent; `Some(0)` for never. `None` takes
    /// `net.core.xfrm_aevent_rseqth` (2). Awaiting the first packet: `Some(1)`, which works with
    /// replay windows from 1 up and with ESN, and never fires for window 0. Not reported in
    /// dumps: read it with GETAE.
    pub replay_threshold: Option<u32>,
    /// After what time an aevent is sent, in kernel ticks (jiffies) when written; `Some(0)` for
    /// never. `None` takes `net.core.xfrm_aevent_etime`. Not reported in dumps.
    pub timer_threshold: Option<u32>,
    /// Limits how often a changed NAT mapping is reported, in seconds (`XFRMA_MTIMER_THRESH`).
    pub mapping_interval_seconds: Option<u32>,
    /// Traffic-flow-confidentiality padding: pad up to this many bytes.
    pub tfc_padding: Option<u32>,
    /// The care-of address (Mobile IPv6), of the outer family.
    pub care_of: Option<IpAddr>,
    /// Hardware offload.
    pub offload: Option<Offload>,
    /// The CPU that the SA is for (RFC 9611), counted from 0. It needs a
    /// [`direction`](Self::direction) (`XFRMA_SA_PCPU`, Linux 6.13).
    pub cpu: Option<u32>,
    /// How long the peer may hear nothing until the kernel sends a NAT keepalive (RFC 3948 §4), in
    /// seconds; for outbound SAs with encapsulation (`XFRMA_NAT_KEEPALIVE_INTERVAL`, Linux 6.11).
    pub nat_keepalive_interval_seconds: Option<u32>,
    /// The label of a security module, such as SELinux.
    pub security_context: Option<SecurityContext>,
    /// How packets are aggregated and fragmented, in [`Mode::Iptfs`] (RFC 9347, Linux 6.14).
    pub iptfs: Option<Iptfs>,
    /// Attributes this crate does not know, in the order read. They are written back as they are.
    pub other: Vec<RawAttribute>,
}

impl Sa {
    /// An ESP SA in tunnel mode with a replay window of 32 and no limits.
    #[must_use]
    pub fn esp_tunnel(
        source: IpAddr,
        destination: IpAddr,
        spi: Spi,
        reqid: Reqid,
        protection: Protection,
    ) -> Self {
        let mut sa = Self::new(source, destination, Protocol::Esp);
        sa.spi = Some(spi);
        sa.reqid = reqid;
        sa.mode = Mode::Tunnel;
        sa.protection = protection;
        sa.replay_window = ReplayWindow::packets(ReplayWindow::DEFAULT_PACKETS);
        sa
    }

    /// An ESP SA in transport mode with a replay window of 32 and no limits.
    #[must_use]
    pub fn esp_transport(
        source: IpAddr,
        destination: IpAddr,
        spi: Spi,
        reqid: Reqid,
        protection: Protection,
    ) -> Self {
        Self {
            mode: Mode::Transport,
            ..Self::esp_tunnel(source, destination, spi, reqid, protection)
        }
    }

    /// An SA in transport mode that lacks what it needs to be installed: an SPI and
    /// [`protection`](Self::protection). For AH, IPComp and the other modes; ESP has
    /// [`esp_tunnel`](Self::esp_tunnel) and [`esp_transport`](Self::esp_transport).
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, protocol: Protocol) -> Self {
        Self {
            source,
            destination,
            protocol,
            spi: None,
            reqid: Reqid::ANY,
            mode: Mode::Transport,
            protection: Protection::Larval,
            encap: None,
            replay_window: ReplayWindow::default(),
            initial_replay: None,
            limits: Limits::default(),
            selector: None,
            mark: None,
            output_mark: None,
            if_id: None,
            flags: SaFlags::default(),
            extra_flags: SaExtraFlags::default(),
            direction: None,
            replay_threshold: None,
            timer_threshold: None,
            mapping_interval_seconds: None,
            tfc_padding: None,
            care_of: None,
            offload: None,
            cpu: None,
            nat_keepalive_interval_seconds: None,
            security_context: None,
            iptfs: None,
            other: Vec::new(),
        }
    }

    /// What identifies the SA; `None` for a larval one without an SPI.
    #[must_use]
    pub fn id(&self) -> Option<SaId> {
        self.spi.map(|spi| SaId {
            destination: self.destination,
            protocol: self.protocol,
            spi,
        })
    }
}

/// Which way packets go through an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaDirection {
    /// Packets come in.
    In,
    /// Packets go out.
    Out,
}

/// UDP or TCP encapsulation of ESP (kernel: `xfrm_encap_tmpl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encap {
    /// The framing.
    pub kind: EncapKind,
    /// Source port of the outer header, in host byte order.
    pub source_port: u16,
    /// Destination port of the outer header, in host byte order.
    pub destination_port: u16,
    /// The peer's address before translation, for transport mode checksums.
    pub original_address: Option<IpAddr>,
}

impl Encap {
    /// ESP in UDP as RFC 3948 has it.
    #[must_use]
    pub const fn udp(source_port: u16, destination_port: u16) -> Self {
        Self {
            kind: EncapKind::EspInUdp,
            source_port,
            destination_port,
            original_address: None,
        }
    }
}

/// The framing of encapsulated ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncapKind {
    /// RFC 3948, with the non-ESP marker on IKE messages.
    EspInUdp,
    /// RFC 8229.
    EspInTcp,
    /// Another number of the kernel's.
    Other(u16),
}

/// Anti-replay protection (RFC 4303 §3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplayWindow {
    /// The size of the window in packets; 0 turns protection off. The kernel takes up to 4,096.
    pub packets: u32,
    /// 64-bit extended sequence numbers. They need a window of at least 1, except in an SA whose
    /// [`direction`](Sa::direction) is out: that one needs a window of 0.
    pub extended: bool,
}

impl ReplayWindow {
    /// What RFC 4303 §3.4.3 asks for at least.
    pub const DEFAULT_PACKETS: u32 = 32;

    /// A window of this many packets, with 32-bit sequence numbers.
    #[must_use]
    pub const fn packets(packets: u32) -> Self {
        Self {
            packets,
            extended: false,
        }
    }

    /// A window of this many packets, with extended sequence numbers.
    #[must_use]
    pub const fn extended(packets: u32) -> Self {
        Self {
            packets,
            extended: true,
        }
    }
}

/// Where an SA's sequence numbers stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayState {
    /// The last sequence number sent.
    pub outbound: u64,
    /// The highest sequence number received.
    pub inbound: u64,
    /// Which of the last packets were received, as the kernel keeps them.
    pub bitmap: Vec<u32>,
}

/// Limits of an SA or a policy (kernel: `xfrm_lifetime_cfg`). `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// When to send a soft EXPIRE.
    pub soft: Limit,
    /// When to end it and send a hard EXPIRE.
    pub hard: Limit,
}

/// One set of limits; whichever comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Bytes carried.
    pub bytes: Option<u64>,
    /// Packets carried.
    pub packets: Option<u64>,
    /// Seconds since it was added.
    pub seconds_since_added: Option<u64>,
    /// Seconds since it was first used.
    pub seconds_since_used: Option<u64>,
}

/// An entry of the SAD: an SA and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaEntry {
    /// The SA.
    pub sa: Sa,
    /// What it has carried.
    pub usage: Usage,
    /// What it has refused.
    pub faults: SaFaults,
    /// The sequence numbers, where the kernel reported them.
    pub replay: Option<ReplayState>,
    /// When a packet last used it, in seconds since 1970 (reported in dumps and by GETSA).
    pub last_used: Option<u64>,
    /// The number of the ACQUIRE that the SA answers, 0 for none.
    pub acquire_sequence: u32,
}

impl SaEntry {
    /// An SA that nothing became of yet. What the kernel reports comes from a socket; this is for
    /// tests of whatever reads it.
    #[must_use]
    pub fn new(sa: Sa) -> Self {
        Self {
            sa,
            usage: Usage::default(),
            faults: SaFaults::default(),
            replay: None,
            last_used: None,
            acquire_sequence: 0,
        }
    }
}

/// What an SA or a policy has carried (kernel: `xfrm_lifetime_cur`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Bytes. The kernel does not count them for policies.
    pub bytes: u64,
    /// Packets. The kernel does not count them for policies.
    pub packets: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// When it was first used, in seconds since 1970.
    pub first_used: Option<u64>,
}

/// What an SA has refused (kernel: `xfrm_stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SaFaults {
    /// Packets older than the replay window.
    pub outside_window: u32,
    /// Packets that came twice.
    pub replayed: u32,
    /// Packets whose integrity check failed.
    pub integrity: u32,
}

/// A request for an SPI (XFRM_MSG_ALLOCSPI).
///
/// The kernel picks a free SPI from the range and keeps it in a larval SA, which `update_sa`
/// completes; else it goes after `net.core.xfrm_acq_expires` (30 s). A larval SA without an SPI
/// that fits (same addresses, reqid, mode) is taken over, which is how an ACQUIRE is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpiRequest {
    /// The outer source: the peer.
    pub source: IpAddr,
    /// The outer destination: us, for an inbound SA.
    pub destination: IpAddr,
    /// ESP, AH or IPComp.
    pub protocol: Protocol,
    /// The SA's mode.
    pub mode: Mode,
    /// The SA's reqid.
    pub reqid: Reqid,
    /// The SPIs to choose from. One SPI alone: that one or EEXIST/ENOENT.
    pub range: RangeInclusive<u32>,
    /// The SA's mark.
    pub mark: Option<Mark>,
    /// The SA's xfrm interface.
    pub if_id: Option<NonZeroU32>,
    /// The number of the ACQUIRE to answer, 0 for none.
    pub acquire_sequence: u32,
    /// The SA's direction, where the kernel knows one (Linux 6.10).
    pub direction: Option<SaDirection>,
    /// The CPU that the SA is for, counted from 0 (Linux 6.13): that of the ACQUIRE.
    pub cpu: Option<u32>,
}

impl SpiRequest {
    /// All SPIs that are not reserved (RFC 4303 §2.1).
    pub const ALL_SPIS: RangeInclusive<u32> = 0x100..=u32::MAX;

    /// An SPI for an inbound ESP SA in tunnel mode from `source` to `destination`.
    #[must_use]
    pub fn esp_tunnel(source: IpAddr, destination: IpAddr, reqid: Reqid) -> Self {
        Self {
            source,
            destination,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            reqid,
            range: Self::ALL_SPIS,
            mark: None,
            if_id: None,
            acquire_sequence: 0,
            direction: None,
            cpu: None,
        }
    }
}
