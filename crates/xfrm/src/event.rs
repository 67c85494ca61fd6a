//! What the kernel tells by itself: packets that wait for an SA, SAs that end, moved NAT mappings,
//! first packets, and every change that anybody makes to the SAD and SPD.
//!
//! The `wire` modules decode these from multicast messages; an event socket hands them out.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use bitflags::bitflags;

use crate::{
    DecodeError, Mark, PolicyEntry, PolicyId, Protocol, RawAttribute, ReplayState, Reqid,
    SaDirection, SaEntry, SaId, Selector, Template, Usage,
};

/// A multicast group of XFRM events (kernel: `XFRMNLGRP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventGroup {
    /// Packets that wait for an SA. With a listener here, held packets raise ACQUIRE, and each
    /// leaves a larval SA for `net.core.xfrm_acq_expires` (30 s).
    Acquire,
    /// SAs and policies that reached a limit.
    Expire,
    /// SAs added, updated, deleted, flushed.
    Sa,
    /// Policies added, updated, deleted, flushed.
    Policy,
    /// Traffic through SAs. By default every SA of everybody sends one every 2 packets while
    /// anybody listens: join only while awaiting something, and leave again.
    Aevents,
    /// Mobile IPv6 reports.
    Report,
    /// SAs and policies moved to other addresses.
    Migrate,
    /// NAT mappings that changed.
    Mapping,
}

impl EventGroup {
    /// All of them, in the kernel's order.
    pub const ALL: [Self; 8] = [
        Self::Acquire,
        Self::Expire,
        Self::Sa,
        Self::Policy,
        Self::Aevents,
        Self::Report,
        Self::Migrate,
        Self::Mapping,
    ];

    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Acquire => 1,
            Self::Expire => 2,
            Self::Sa => 3,
            Self::Policy => 4,
            Self::Aevents => 5,
            Self::Report => 6,
            Self::Migrate => 7,
            Self::Mapping => 8,
        }
    }
}

impl fmt::Display for EventGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acquire => "acquire",
            Self::Expire => "expire",
            Self::Sa => "sa",
            Self::Policy => "policy",
            Self::Aevents => "aevents",
            Self::Report => "report",
            Self::Migrate => "migrate",
            Self::Mapping => "mapping",
        })
    }
}

/// Something that happened in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XfrmEvent {
    /// A packet met a policy and no SA fits.
    Acquire(Box<Acquire>),
    /// An SA reached a limit.
    Expire(Box<Expire>),
    /// A policy reached a limit.
    PolicyExpire(Box<PolicyExpire>),
    /// ESP in UDP came from another address or port than the SA has.
    Mapping(Mapping),
    /// An SA's sequence numbers or counters passed a threshold, or someone changed them.
    NewAe(Box<EventState>),
    /// An SA was added.
    NewSa(Box<SaEntry>),
    /// An SA was updated.
    UpdSa(Box<SaEntry>),
    /// An SA was deleted: its identity and, where the kernel said it, what it was.
    DelSa(SaId, Option<Box<SaEntry>>),
    /// All SAs of a protocol were deleted (by somebody else: this crate can't).
    FlushSa(Protocol),
    /// A policy was added.
    NewPolicy(Box<PolicyEntry>),
    /// A policy was updated.
    UpdPolicy(Box<PolicyEntry>),
    /// A policy was deleted: its identity and, where the kernel said it, what it was.
    DelPolicy(Box<PolicyId>, Option<Box<PolicyEntry>>),
    /// All policies were deleted (by somebody else: this crate can't).
    FlushPolicy,
    /// Mobile IPv6: a packet of this protocol broke a rule.
    Report(Protocol, Option<Selector>),
    /// SAs and policies were moved to other addresses: look again.
    Migrate(Box<PolicyId>),
    /// Events were lost, because they came faster than they were read. List everything again.
    Overrun,
    /// A message that is not what its type says.
    Malformed {
        /// The message type (`XFRM_MSG_*`).
        message_type: u16,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// A message of a type that this crate does not know.
    Unknown {
        /// The message type (`XFRM_MSG_*`).
        message_type: u16,
        /// Its length in bytes.
        length: usize,
    },
}

/// A packet that met a policy without a fitting SA (kernel: `xfrm_user_acquire`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acquire {
    /// The outer source of the SA wanted.
    pub source: IpAddr,
    /// The outer destination of the SA wanted.
    pub destination: IpAddr,
    /// The protocol of the SA wanted.
    pub protocol: Protocol,
    /// The packet itself.
    pub packet: Selector,
    /// The policy it met, with its direction, index and templates.
    pub policy: PolicyEntry,
    /// The number to give to [`SpiRequest::acquire_sequence`](crate::SpiRequest).
    pub sequence: u32,
    /// The CPU that wants an SA of its own, counted from 0 (RFC 9611, Linux 6.13).
    pub cpu: Option<u32>,
}

impl Acquire {
    /// A packet that met `policy` and wants an SA between these two. What the kernel tells comes
    /// from an event socket; this is for tests of whatever reads it.
    #[must_use]
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        packet: Selector,
        policy: PolicyEntry,
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            packet,
            policy,
            sequence: 0,
            cpu: None,
        }
    }

    /// The template that no SA fits: the one with the addresses and protocol of the SA wanted.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        let templates = &self.policy.policy.templates;
        templates
            .iter()
            .find(|template| {
                template.protocol == self.protocol && template.destination == self.destination
            })
            .or_else(|| templates.first())
    }

    /// The reqid of the SA wanted.
    #[must_use]
    pub fn reqid(&self) -> Option<Reqid> {
        self.template().map(|template| template.reqid)
    }
}

/// An SA that reached a limit (kernel: `xfrm_user_expire`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expire {
    /// The SA, without its keys, and its counters. A larval SA that nobody completed expires too.
    pub entry: SaEntry,
    /// It is gone. Its policy then loses one packet with EINVAL and holds the next ones.
    pub hard: bool,
}

impl Expire {
    /// The end of an SA, or the warning of it, for tests of whatever reads it.
    #[must_use]
    pub fn new(entry: SaEntry, hard: bool) -> Self {
        Self { entry, hard }
    }
}

/// A policy that reached a limit (kernel: `xfrm_user_polexpire`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyExpire {
    /// The policy.
    pub entry: PolicyEntry,
    /// It is gone.
    pub hard: bool,
}

impl PolicyExpire {
    /// The end of a policy, or the warning of it, for tests of whatever reads it.
    #[must_use]
    pub fn new(entry: PolicyEntry, hard: bool) -> Self {
        Self { entry, hard }
    }
}

/// A NAT mapping that changed (kernel: `xfrm_user_mapping`).
///
/// The kernel says so again and again and does not update the SA. The packet that showed it was
/// authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapping {
    /// The inbound SA.
    pub id: SaId,
    /// Its reqid.
    pub reqid: Reqid,
    /// Where the SA says the peer is.
    pub old_address: IpAddr,
    /// The UDP port that the SA says, in host byte order.
    pub old_port: u16,
    /// Where the packet came from.
    pub new_address: IpAddr,
    /// The UDP port the packet came from, in host byte order.
    pub new_port: u16,
    /// Attributes behind the structure.
    pub other: Vec<RawAttribute>,
}

impl Mapping {
    /// A peer that moved from one address and port to another, for tests of whatever reads it.
    #[must_use]
    pub fn new(id: SaId, reqid: Reqid, old: (IpAddr, u16), new: (IpAddr, u16)) -> Self {
        Self {
            id,
            reqid,
            old_address: old.0,
            old_port: old.1,
            new_address: new.0,
            new_port: new.1,
            other: Vec::new(),
        }
    }
}

bitflags! {
    /// What a NEWAE carries and why it came (kernel: `XFRM_AE_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EventFlags: u32 {
        /// It carries the replay threshold.
        const REPLAY_THRESHOLD = 1;
        /// It carries the sequence numbers.
        const REPLAY_STATE = 2;
        /// It carries the counters.
        const USAGE = 4;
        /// It carries the timer threshold.
        const TIMER_THRESHOLD = 8;
        /// The replay threshold was passed.
        const CAUSE_REPLAY = 16;
        /// The timer threshold was passed.
        const CAUSE_TIMER = 32;
        /// Someone changed the SA's thresholds or numbers.
        const CAUSE_UPDATE = 64;
        /// What a newer kernel may report.
        const _ = !0;
    }
}

/// The numbers and thresholds of an SA (kernel: `xfrm_aevent_id` and its attributes): the content
/// of a NEWAE event, and the answer to GETAE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventState {
    /// The SA.
    pub id: SaId,
    /// Its outer source.
    pub source: IpAddr,
    /// Its reqid.
    pub reqid: Reqid,
    /// What is here, and why the event came.
    pub flags: EventFlags,
    /// The sequence numbers.
    pub replay: Option<ReplayState>,
    /// The counters. In the event that a packet raises, that packet is not counted yet; the
    /// sequence numbers have it already.
    pub usage: Option<Usage>,
    /// An event comes every so many packets, 0 for never.
    pub replay_threshold: Option<u32>,
    /// An event comes after so long, in units of 100 ms when read, 0 for never.
    pub timer_threshold: Option<u32>,
    /// The SA's mark.
    pub mark: Option<Mark>,
    /// The SA's xfrm interface.
    pub if_id: Option<NonZeroU32>,
    /// The SA's direction, where the kernel knows one (Linux 6.10).
    pub direction: Option<SaDirection>,
    /// The CPU that the SA is for, counted from 0 (Linux 6.13).
    pub cpu: Option<u32>,
    /// Attributes this crate does not know.
    pub other: Vec<RawAttribute>,
}

impl EventState {
    /// An SA of which nothing else is told, for tests of whatever reads it.
    #[must_use]
    pub fn new(id: SaId, source: IpAddr, reqid: Reqid) -> Self {
        Self {
            id,
            source,
            reqid,
            flags: EventFlags::default(),
            replay: None,
            usage: None,
            replay_threshold: None,
            timer_threshold: None,
            mark: None,
            if_id: None,
            direction: None,
            cpu: None,
            other: Vec::new(),
        }
    }
}

/// When an SA sends events (`XFRMA_REPLAY_THRESH`, `XFRMA_ETIMER_THRESH`); `None` leaves a
/// threshold as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventThresholds {
    /// Every so many packets, 0 for never.
    pub replay: Option<u32>,
    /// After so long, in kernel ticks (jiffies), 0 for never.
    pub timer: Option<u32>,
}

impl EventThresholds {
    /// No events.
    pub const SILENT: Self = Self {
        replay: Some(0),
        timer: Some(0),
    };
    /// An event at the next packet.
    pub const NEXT_PACKET: Self = Self {
        replay: Some(1),
        timer: Some(0),
    };
}
