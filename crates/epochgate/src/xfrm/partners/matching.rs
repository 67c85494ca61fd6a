//! Whether an SA fits a template, as the kernel decides it.
//!
//! Outbound the kernel looks for an SA (`xfrm_state_find`, `xfrm_state_look_at`); inbound it checks
//! the SAs that a packet came through (`xfrm_policy_ok`, `xfrm_state_ok`, and the SAs' selectors in
//! `__xfrm_policy_check`). Both decide packet by packet; here an SA fits a policy if it fits for any
//! packet that the policy is for. Not known here, and taken as fitting: security contexts, and
//! templates that allow some algorithms only (`aalgos`), which no key daemon writes.

use std::collections::HashSet;
use std::net::IpAddr;

use epochgate_xfrm::{
    Limit, Mode, OffloadFlags, Policy, PolicyDirection, PortMatch, Prefix, Protection, Protocol,
    SaEntry, SaFlags, Selector, Template,
};

use super::SaWay;
use crate::xfrm::filter::{contains, covers};

/// What of an SA decides which templates it fits.
#[derive(Clone, Debug)]
pub(crate) struct SaTraits {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// 0 for a larval SA without one.
    pub(crate) spi: u32,
    pub(crate) reqid: u32,
    pub(crate) protocol: u8,
    pub(crate) mode: u8,
    /// Seconds since 1970: of those that fit, the kernel takes the newest.
    pub(crate) added: u64,
    /// Its soft limit is reached: the kernel prefers any other that fits (`km.dying`).
    pub(crate) dying: bool,
    pub(crate) way: SaWay,
    /// The family that its selector is for.
    selector_is_v4: Option<bool>,
    /// What most SAs do not have: it must not take memory for each of 100,000.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    /// It waits for a key daemon (`XFRM_STATE_ACQ`).
    larval: bool,
    /// `XFRM_STATE_WILDRECV`: never used for sending.
    receives_only: bool,
    mark_value: u32,
    mark_mask: u32,
    if_id: u32,
    /// The device of a packet offload.
    offloaded_to: Option<i32>,
    /// Its selector, unless that is for everything.
    selector: Option<Selector>,
}

const _: () = assert!(size_of::<SaTraits>() <= 64, "one cache line for each SA");

static NOTHING_RARE: Rare = Rare {
    larval: false,
    receives_only: false,
    mark_value: 0,
    mark_mask: 0,
    if_id: 0,
    offloaded_to: None,
    selector: None,
};

impl SaTraits {
    /// `now` is in seconds since 1970, `ours` the host's addresses.
    pub(crate) fn of(entry: &SaEntry, now: u64, ours: &HashSet<IpAddr>) -> Self {
        let sa = &entry.sa;
        let mark = sa.mark.map_or((0, 0), |mark| (mark.value, mark.mask));
        let rare = Rare {
            larval: is_larval(entry),
            receives_only: sa.flags.contains(SaFlags::WILDCARD_RECEIVE),
            mark_value: mark.0,
            mark_mask: mark.1,
            if_id: sa.if_id.map_or(0, |id| id.get()),
            offloaded_to: sa
                .offload
                .filter(|offload| offload.flags.contains(OffloadFlags::PACKET))
                .map(|offload| offload.interface_index),
            selector: sa.selector.filter(is_restrictive),
        };
        Self {
            source: sa.source,
            destination: sa.destination,
            spi: sa.spi.map_or(0, |spi| spi.get()),
            reqid: sa.reqid.0,
            protocol: sa.protocol.number(),
            mode: sa.mode.number(),
            added: entry.usage.added,
            dying: is_reached(&sa.limits.soft, entry, now),
            way: SaWay::of(sa, ours),
            selector_is_v4: sa.selector.map(|s| s.source().address().is_ipv4()),
            rare: (rare != NOTHING_RARE).then(|| Box::new(rare)),
        }
    }

    /// It waits for a key daemon.
    pub(crate) fn is_larval(&self) -> bool {
        self.rare().larval
    }

    fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }
}

/// A larval SA: nobody has given it algorithms yet. (Those of Mobile IPv6 never have any.)
pub(crate) fn is_larval(entry: &SaEntry) -> bool {
    let needs_algorithms = !matches!(entry.sa.protocol, Protocol::Other(_));
    needs_algorithms && entry.sa.protection == Protection::Larval
}

/// Whether a limit is reached (kernel: `xfrm_state_check_expire` and `xfrm_timer_handler`).
pub(crate) fn is_reached(limit: &Limit, entry: &SaEntry, now: u64) -> bool {
    let usage = &entry.usage;
    let since = |from: u64| now.saturating_sub(from);
    limit.bytes.is_some_and(|most| usage.bytes >= most)
        || limit.packets.is_some_and(|most| usage.packets >= most)
        || limit
            .seconds_since_added
            .is_some_and(|most| since(usage.added) >= most)
        || limit
            .seconds_since_used
            .is_some_and(|most| usage.first_used.is_some_and(|first| since(first) >= most))
}

fn is_restrictive(selector: &Selector) -> bool {
    selector.source().length() != 0
        || selector.destination().length() != 0
        || selector.protocol != 0
        || selector.source_port.mask != 0
        || selector.destination_port.mask != 0
}

/// What of a policy decides which SAs fit its templates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyTraits {
    pub(crate) direction: PolicyDirection,
    pub(crate) selector: Selector,
    pub(crate) priority: u32,
    pub(crate) index: u32,
    mark: u32,
    if_id: u32,
    /// The device of a packet offload.
    offloaded_to: Option<i32>,
}

impl From<&Policy> for PolicyTraits {
    fn from(policy: &Policy) -> Self {
        Self {
            direction: policy.direction,
            selector: policy.selector,
            priority: policy.priority,
            index: policy.index,
            mark: policy.mark.map_or(0, |mark| mark.value & mark.mask),
            if_id: policy.if_id.map_or(0, |id| id.get()),
            offloaded_to: policy.offload.map(|offload| offload.interface_index),
        }
    }
}

impl PolicyTraits {
    /// Its packets go out: the kernel looks for SAs. Else it checks the SAs they came through.
    pub(crate) fn looks_for_sas(&self) -> bool {
        match self.direction {
            PolicyDirection::Out | PolicyDirection::SocketOut => true,
            PolicyDirection::In | PolicyDirection::Forward | PolicyDirection::SocketIn => false,
        }
    }
}

/// The outer addresses that an SA for a template needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// These; an unspecified source is the one that routing gives.
    Fixed(IpAddr, IpAddr),
    /// Those of the packet (`xfrm_tmpl_resolve_one`).
    OfPacket,
}

impl Ends {
    /// Of the template in this place: transport mode takes the addresses of the tunnel inside which
    /// it is, or the packet's.
    pub(crate) fn of(templates: &[Template], place: usize) -> Self {
        let inner = templates.get(..=place).unwrap_or_default();
        let tunnel = inner
            .iter()
            .rev()
            .find(|template| has_own_ends(template.mode));
        tunnel.map_or(Self::OfPacket, |t| Self::Fixed(t.source, t.destination))
    }
}

fn has_own_ends(mode: Mode) -> bool {
    matches!(mode, Mode::Tunnel | Mode::Beet | Mode::Iptfs)
}

/// Whether the kernel, looking for an SA for a packet of `policy`, may take this one
/// (`xfrm_state_find`). A larval one fits too: the kernel then waits for it.
pub(crate) fn fits_outbound(
    sa: &SaTraits,
    template: &Template,
    ends: Ends,
    policy: &PolicyTraits,
) -> bool {
    let rare = sa.rare();
    let spi_fits = template.spi.is_none_or(|spi| spi.get() == sa.spi);
    sa.reqid == template.reqid.0
        && spi_fits
        && sa.protocol == template.protocol.number()
        && sa.mode == template.mode.number()
        && policy.mark & rare.mark_mask == rare.mark_value
        && rare.if_id == policy.if_id
        && !rare.receives_only
        && rare.offloaded_to == policy.offloaded_to
        && fits_ends(sa, ends, &policy.selector)
        && (rare.larval || fits_selector(sa, &policy.selector, true))
}

/// Whether this SA, which does not fit, keeps the kernel from asking for one with the pinned SPI
/// (`__xfrm_state_lookup_all` in `xfrm_state_find`).
pub(crate) fn occupies(sa: &SaTraits, template: &Template, policy: &PolicyTraits) -> bool {
    let rare = sa.rare();
    sa.protocol == template.protocol.number() && policy.mark & rare.mark_mask == rare.mark_value
}

fn fits_ends(sa: &SaTraits, ends: Ends, selector: &Selector) -> bool {
    match ends {
        Ends::Fixed(source, destination) => {
            sa.destination == destination
                && (sa.source == source || source.is_unspecified() || sa.source.is_unspecified())
        }
        Ends::OfPacket => {
            contains(selector.destination(), sa.destination)
                && (sa.source.is_unspecified() || contains(selector.source(), sa.source))
        }
    }
}

/// Whether packets that came through this SA pass the template (`xfrm_state_ok`), and whether any
/// packet of the policy passes the SA's selector.
pub(crate) fn passes_inbound(sa: &SaTraits, template: &Template, policy: &PolicyTraits) -> bool {
    let goes_out = matches!(sa.way, SaWay::Out(_));
    let ends_fit = if template.mode == Mode::Transport {
        // A packet in transport mode has the SA's own addresses.
        fits_ends(sa, Ends::OfPacket, &policy.selector)
    } else {
        template.source.is_unspecified() || template.source == sa.source
    };
    !sa.is_larval()
        && !goes_out
        && sa.protocol == template.protocol.number()
        && template.spi.is_none_or(|spi| spi.get() == sa.spi)
        && (template.reqid.0 == 0 || sa.reqid == template.reqid.0)
        && sa.mode == template.mode.number()
        && (policy.if_id == 0 || policy.if_id == sa.rare().if_id)
        && ends_fit
        && fits_selector(sa, &policy.selector, false)
}

/// Some packet fits both selectors. Outbound an SA's selector without a family fits every packet,
/// and another family none; inbound the family is not looked at (`xfrm_selector_match`).
fn fits_selector(sa: &SaTraits, packets: &Selector, outbound: bool) -> bool {
    let packets_are_v4 = packets.source().address().is_ipv4();
    if outbound
        && sa
            .selector_is_v4
            .is_some_and(|is_v4| is_v4 != packets_are_v4)
    {
        return false;
    }
    let Some(own) = &sa.rare().selector else {
        return true;
    };
    overlap(own.source(), packets.source())
        && overlap(own.destination(), packets.destination())
        && (own.protocol == 0 || packets.protocol == 0 || own.protocol == packets.protocol)
        && ports_overlap(own.source_port, packets.source_port)
        && ports_overlap(own.destination_port, packets.destination_port)
}

fn overlap(one: Prefix, other: Prefix) -> bool {
    covers(one, other) || covers(other, one)
}

fn ports_overlap(one: PortMatch, other: PortMatch) -> bool {
    (one.port ^ other.port) & one.mask & other.mask == 0
}
