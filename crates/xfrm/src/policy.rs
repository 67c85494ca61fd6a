//! Policies: which packets need which SA ([`Policy`]), and what the kernel reports ([`PolicyEntry`]).

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use bitflags::bitflags;

use crate::{
    Limits, Mark, Mode, Offload, Protocol, RawAttribute, Reqid, SecurityContext, Selector, Spi,
    Usage,
};

/// When a policy is consulted (kernel: `XFRM_POLICY_IN`, `_OUT`, `_FWD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyDirection {
    /// For packets to this host. An `in` policy selected by a mark that the inbound SA itself sets
    /// accepts cleartext: keep `in` policies unmarked.
    In,
    /// For packets that leave, own and forwarded.
    Out,
    /// For packets that are forwarded; a gateway needs it for the replies.
    Forward,
    /// A socket's own `in` policy. Only read: see [`socket_policy`](crate::socket_policy).
    SocketIn,
    /// A socket's own `out` policy. Only read: see [`socket_policy`](crate::socket_policy).
    SocketOut,
}

impl PolicyDirection {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::In => 0,
            Self::Out => 1,
            Self::Forward => 2,
            Self::SocketIn => 3,
            Self::SocketOut => 4,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::In),
            1 => Some(Self::Out),
            2 => Some(Self::Forward),
            3 => Some(Self::SocketIn),
            4 => Some(Self::SocketOut),
            _ => None,
        }
    }
}

impl fmt::Display for PolicyDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Forward => "fwd",
            Self::SocketIn => "socket in",
            Self::SocketOut => "socket out",
        })
    }
}

/// What happens to a packet that a policy covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// It passes, through the SAs of the templates; without templates in clear.
    ///
    /// Updating a policy that holds packets to this without a template releases them **in clear**.
    Allow,
    /// It is dropped. Updating a policy that holds packets to this discards them.
    Block,
}

bitflags! {
    /// Flags of a policy (kernel: `XFRM_POLICY_LOCALOK`, `_ICMP`, `_CPU_ACQUIRE`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PolicyFlags: u8 {
        /// A socket's own policy may override this one.
        const LOCAL_OK = 1;
        /// Cover ICMP errors about covered packets.
        const ICMP = 2;
        /// Raise an ACQUIRE for each CPU that has no SA of its own (RFC 9611, Linux 6.13).
        const CPU_ACQUIRE = 4;
        /// What a newer kernel may report.
        const _ = !0;
    }
}

/// A policy (kernel: `xfrm_userpolicy_info` and its attributes).
///
/// Selector, direction, mark and if_id are its identity: a second one with the same is EEXIST
/// whatever its priority. The kernel compares selectors as a whole, host bits and all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The packets it is for.
    pub selector: Selector,
    /// When it is consulted.
    pub direction: PolicyDirection,
    /// What happens to them.
    pub action: PolicyAction,
    /// The lower, the earlier it is consulted.
    pub priority: u32,
    /// The kernel's number for it; 0 lets the kernel choose.
    pub index: u32,
    /// The SAs that packets must go through, outermost last; at most 6.
    pub templates: Vec<Template>,
    /// The mark that packets need.
    pub mark: Option<Mark>,
    /// The xfrm interface it belongs to.
    pub if_id: Option<NonZeroU32>,
    /// When to warn of its end and when to end it.
    pub limits: Limits,
    /// Flags.
    pub flags: PolicyFlags,
    /// Who may share an SA (kernel: `XFRM_SHARE_*`), 0 for any.
    pub share: u8,
    /// It is in the table of sub-policies (Mobile IPv6).
    pub sub_policy: bool,
    /// Hardware offload, always of whole packets (Linux 6.2).
    pub offload: Option<Offload>,
    /// The label of a security module, such as SELinux.
    pub security_context: Option<SecurityContext>,
    /// Attributes this crate does not know, in the order read. They are written back as they are.
    pub other: Vec<RawAttribute>,
}

impl Policy {
    /// The most templates the kernel takes (`XFRM_MAX_DEPTH`).
    pub const MAX_TEMPLATES: usize = 6;

    /// A policy that lets packets pass, in clear as long as it has no template.
    #[must_use]
    pub fn allow(direction: PolicyDirection, selector: Selector, priority: u32) -> Self {
        Self {
            selector,
            direction,
            action: PolicyAction::Allow,
            priority,
            index: 0,
            templates: Vec::new(),
            mark: None,
            if_id: None,
            limits: Limits::default(),
            flags: PolicyFlags::default(),
            share: 0,
            sub_policy: false,
            offload: None,
            security_context: None,
            other: Vec::new(),
        }
    }

    /// A policy that drops packets.
    #[must_use]
    pub fn block(direction: PolicyDirection, selector: Selector, priority: u32) -> Self {
        Self {
            action: PolicyAction::Block,
            ..Self::allow(direction, selector, priority)
        }
    }

    /// A policy that lets packets pass through an SA that fits `template`.
    ///
    /// Without such an SA packets wait: in the kernel's queue for this policy (101 packets) where
    /// `net.core.xfrm_larval_drop` is 0, else they are dropped.
    #[must_use]
    pub fn protect(
        direction: PolicyDirection,
        selector: Selector,
        priority: u32,
        template: Template,
    ) -> Self {
        Self {
            templates: vec![template],
            ..Self::allow(direction, selector, priority)
        }
    }

    /// What identifies the policy, for looking it up and deleting it.
    #[must_use]
    pub fn id(&self) -> PolicyId {
        PolicyId {
            direction: self.direction,
            key: PolicyKey::Selector(self.selector),
            mark: self.mark,
            if_id: self.if_id,
            sub_policy: self.sub_policy,
        }
    }
}

/// What an SA must look like to serve a policy (kernel: `xfrm_user_tmpl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// The outer source; unspecified in transport mode.
    pub source: IpAddr,
    /// The outer destination; unspecified in transport mode.
    pub destination: IpAddr,
    /// The SPI, to pin one SA. `None` takes the newest SA that fits, so that merely installing an
    /// SA switches traffic to it. With an SPI both it and the reqid must match.
    pub spi: Option<Spi>,
    /// The reqid of the SA. In an `out` policy, changing it to one that no SA of the pinned SPI
    /// has gives XfrmOutPolError and purges what the policy holds.
    pub reqid: Reqid,
    /// The SA's mode.
    pub mode: Mode,
    /// The SA's protocol.
    pub protocol: Protocol,
    /// Packets that did not come through such an SA are accepted too.
    pub optional: bool,
    /// Who may share the SA (kernel: `XFRM_SHARE_*`), 0 for any.
    pub share: u8,
    /// Which algorithms are allowed; all by default.
    pub algorithms: AlgorithmMasks,
}

/// Which algorithms a template allows, one bit each (kernel: `aalgos`, `ealgos`, `calgos`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AlgorithmMasks {
    /// Integrity.
    pub integrity: u32,
    /// Encryption.
    pub encryption: u32,
    /// Compression.
    pub compression: u32,
}

impl AlgorithmMasks {
    /// Everything.
    pub const ALL: Self = Self {
        integrity: u32::MAX,
        encryption: u32::MAX,
        compression: u32::MAX,
    };
}

impl Template {
    /// An ESP SA in tunnel mode between these two, of this reqid.
    #[must_use]
    pub const fn esp_tunnel(source: IpAddr, destination: IpAddr, reqid: Reqid) -> Self {
        Self {
            source,
            destination,
            spi: None,
            reqid,
            mode: Mode::Tunnel,
            protocol: Protocol::Esp,
            optional: false,
            share: 0,
            algorithms: AlgorithmMasks::ALL,
        }
    }

    /// An ESP SA in transport mode of this reqid, between the packet's own addresses.
    ///
    /// `family` is any address of the packets' family, for instance [`Ipv4Addr::UNSPECIFIED`].
    ///
    /// [`Ipv4Addr::UNSPECIFIED`]: std::net::Ipv4Addr::UNSPECIFIED
    #[must_use]
    pub const fn esp_transport(family: IpAddr, reqid: Reqid) -> Self {
        let unspecified = match family {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        Self {
            mode: Mode::Transport,
            ..Self::esp_tunnel(unspecified, unspecified, reqid)
        }
    }

    /// The same, pinned to one SPI.
    ///
    /// ```
    /// use epochgate_xfrm::{Reqid, Spi, Template};
    ///
    /// let (us, peer) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    /// let spi = Spi::new(0xc000_0001).ok_or("an SPI is not zero")?;
    /// let template = Template::esp_tunnel(us, peer, Reqid(1)).pinned_to(spi);
    /// assert_eq!(template.spi, Some(spi));
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub const fn pinned_to(self, spi: Spi) -> Self {
        Self {
            spi: Some(spi),
            ..self
        }
    }
}

/// A policy to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId {
    /// Its direction.
    pub direction: PolicyDirection,
    /// Which one.
    pub key: PolicyKey,
    /// Its mark; must be the same as the policy's.
    pub mark: Option<Mark>,
    /// Its xfrm interface; must be the same as the policy's.
    pub if_id: Option<NonZeroU32>,
    /// It is in the table of sub-policies.
    pub sub_policy: bool,
}

impl PolicyId {
    /// The policy without mark and interface that has this selector.
    #[must_use]
    pub const fn new(direction: PolicyDirection, selector: Selector) -> Self {
        Self {
            direction,
            key: PolicyKey::Selector(selector),
            mark: None,
            if_id: None,
            sub_policy: false,
        }
    }
}

/// What a policy is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyKey {
    /// Its selector, which must be the same as a whole.
    Selector(Selector),
    /// The kernel's number for it.
    Index(NonZeroU32),
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            PolicyKey::Selector(selector) => write!(f, "{} {selector}", self.direction),
            PolicyKey::Index(index) => write!(f, "{} index {index}", self.direction),
        }
    }
}

/// An entry of the SPD: a policy and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyEntry {
    /// The policy.
    pub policy: Policy,
    /// When it was added and first used.
    pub usage: Usage,
    /// When a packet last met it, in seconds since 1970.
    pub last_used: Option<u64>,
}

impl PolicyEntry {
    /// A policy that nothing met yet. What the kernel reports comes from a socket; this is for
    /// tests of whatever reads it.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            usage: Usage::default(),
            last_used: None,
        }
    }
}
