//! A model of what the controller relies on in a Linux kernel's XFRM: SAD, SPD, hold queues.
//!
//! Operations, packets and time come in; frames, deliveries, drops and events come out as
//! `Effect`s. Everything that is modelled was measured on a real kernel first; what was not is not
//! here (marks, interfaces, path MTU).

mod failure;
mod input;
mod intrusion;
mod operation;
mod output;
mod sa;
mod sad;
mod spd;
mod timing;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use epochgate_controller::io::{
    PolicyAction, PolicyDirection, PolicyKey, PolicySpec, SaId, SaSpec, XfrmEvent,
};
use epochgate_controller::{REQIDS, Timestamp};
use ipnet::IpNet;

use crate::packet::{Frame, Packet};
use crate::random::Random;
use sa::{Entry, Sa};
use sad::Sad;
use spd::Spd;

pub use failure::{Failure, OpKind};
pub(crate) use timing::{Slack, Timing};

/// Packets that a policy holds; the next is refused (`XFRM_MAX_QUEUE_LEN` is 100, checked before one
/// is added).
const HELD_MAX: usize = 101;

/// First wait before a held queue is tried again; doubles each time (`XFRM_QUEUE_TMO_MIN`, HZ/10).
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// A queue whose wait has grown to this is purged when it is tried again (`XFRM_QUEUE_TMO_MAX`): all
/// in all about 205 s after its first packet.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What the kernel does to the world.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A frame leaves.
    Transmit(Frame),
    /// A packet arrived on this inbound SA, authenticated.
    Authenticated(SaId),
    /// A packet arrived where it was meant for.
    Deliver(Packet),
    /// A packet ended here.
    Dropped(Packet, Drop),
    /// The kernel tells its listeners.
    Event(XfrmEvent),
}

/// Why a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The hold queue was full (EAGAIN for a local sender).
    QueueFull,
    /// The hold queue was purged, or its policy removed.
    QueuePurged,
    /// XfrmInNoStates.
    NoState,
    /// XfrmInStateMismatch: in UDP where the SA has none, or the other way round.
    Encapsulation,
    /// XfrmInStateProtoError: encrypted with another key.
    WrongKey,
    /// XfrmInStateSeqError: arrived already, or outside the replay window.
    Replayed,
    /// XfrmInTmplMismatch: came in clear or through an SA that the policy does not name.
    InboundPolicy,
    /// XfrmInNoPols: came through an SA, and no policy is for it.
    NoInboundPolicy,
    /// XfrmOutPolError: what has the pinned SPI is another SA: of another reqid or another source.
    OutboundPolicy,
    /// XfrmOutNoStates: it met a hold where the kernel does not queue: an ICMPv6 echo reply
    /// (`icmpv6_echo_reply` looks up without XFRM_LOOKUP_QUEUE), or a packet that a hold let go
    /// into another hold.
    NotQueued,
    /// Nobody here or behind has that address.
    NoRoute,
}

/// One kernel.
#[derive(Debug)]
pub struct Kernel {
    addresses: Vec<IpAddr>,
    behind: Vec<IpNet>,
    sas: Sad,
    /// Larval SAs without an SPI, by reqid and whether their addresses are IPv6, and their ends.
    unnumbered: BTreeMap<(u32, bool), Timestamp>,
    policies: Spd,
    /// Whether anybody listens to ACQUIRE: else there are no larval SAs (`km_query`).
    listening: bool,
    timing: Timing,
    failing: Vec<(OpKind, Failure)>,
    /// Events that the listeners' socket has no room for.
    overrun: u32,
    effects: VecDeque<Effect>,
    random: Random,
}

impl Kernel {
    pub(crate) fn new(addresses: Vec<IpAddr>, behind: Vec<IpNet>, random: Random) -> Self {
        Self {
            addresses,
            behind,
            sas: Sad::default(),
            policies: Spd::default(),
            unnumbered: BTreeMap::new(),
            listening: false,
            timing: Timing::default(),
            failing: Vec::new(),
            overrun: 0,
            effects: VecDeque::new(),
            random,
        }
    }

    /// The kernel of the same host after it was without power, with these addresses.
    pub(crate) fn restarted(&self, addresses: Vec<IpAddr>, random: Random) -> Self {
        Self::new(addresses, self.behind.clone(), random)
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let larval = self.unnumbered.values().copied().min();
        let ends = [self.policies.next_retry(), self.sas.no_end_before(), larval];
        ends.into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        self.expire(now);
        for key in self.policies.due(now) {
            self.try_queue(key, now);
        }
    }

    /// Whether a daemon listens to the kernel's events.
    pub(crate) fn set_listening(&mut self, listening: bool) {
        self.listening = listening;
    }

    /// Sets what its timers do.
    pub(crate) fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// The SAs that have keys, whoever owns them.
    pub fn sas(&self) -> impl Iterator<Item = SaId> + '_ {
        let mature = self.sas.iter().filter(|(_, entry)| entry.sa().is_some());
        mature.map(|(id, _)| *id)
    }

    /// The SAs whose reqid is in our range.
    pub fn our_sas(&self) -> impl Iterator<Item = SaId> + '_ {
        let sas = self.sas.values().filter_map(Entry::sa);
        sas.filter(|sa| REQIDS.contains(&sa.spec.reqid))
            .map(|sa| sa.spec.id)
    }

    /// The policies whose reqid is in our range, and the exemptions beside them.
    pub fn our_policies(&self) -> impl Iterator<Item = &PolicySpec> {
        self.policies().filter(|spec| self.is_ours(spec))
    }

    /// Packets that passed an SA.
    #[must_use]
    pub fn packets(&self, id: SaId) -> Option<u64> {
        self.sas.get(&id)?.sa().map(|sa| sa.packets)
    }

    /// The policy with this selector.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&PolicySpec> {
        self.policies.get(key).map(|policy| &policy.spec)
    }

    /// The policies.
    pub fn policies(&self) -> impl Iterator<Item = &PolicySpec> {
        self.policies.values().map(|policy| &policy.spec)
    }

    /// The packets that wait beneath policies that hold. What waits beneath an open one is on its way:
    /// the timer that releases it runs.
    pub(crate) fn held_packets(&self) -> impl Iterator<Item = &Packet> {
        let policies = self.policies.values();
        let holding =
            policies.filter(|policy| matches!(policy.spec.action, PolicyAction::Hold { .. }));
        holding.flat_map(|policy| &policy.held)
    }

    /// An SA that has keys, as it was added or moved.
    #[must_use]
    pub fn sa(&self, id: SaId) -> Option<&SaSpec> {
        self.sas.get(&id)?.sa().map(|sa| &sa.spec)
    }

    /// Packets that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.policies.values().map(|policy| policy.held.len()).sum()
    }

    /// The addresses of the host.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether an address lies behind this host.
    pub(crate) fn serves(&self, address: IpAddr) -> bool {
        self.behind.iter().any(|network| network.contains(&address))
    }

    /// Gives the host another address, or takes it away.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.addresses = addresses;
    }

    /// The policy that a packet meets: the one with the lowest priority value that fits.
    fn lookup(&self, direction: PolicyDirection, packet: &Packet) -> Option<PolicySpec> {
        self.policies.met_by(direction, packet)
    }

    fn mature(&mut self, id: SaId) -> Option<&mut Sa> {
        self.sas.get_mut(&id).and_then(Entry::sa_mut)
    }

    /// Tells the listeners, unless their socket is full.
    fn tell(&mut self, event: XfrmEvent) {
        if !self.listening {
            return;
        }
        let lost = self.overrun > 0;
        self.overrun = self.overrun.saturating_sub(1);
        let told = if lost { XfrmEvent::Overrun } else { event };
        self.effects.push_back(Effect::Event(told));
    }

    fn drop_packet(&mut self, packet: Packet, why: Drop) {
        self.effects.push_back(Effect::Dropped(packet, why));
    }

    /// Ends SAs that are over. A larval one expires like any other (`xfrm_timer_handler`); without
    /// an SPI it is nobody's business.
    fn expire(&mut self, now: Timestamp) {
        if self.unnumbered.values().any(|until| *until <= now) {
            self.unnumbered.retain(|_, until| *until > now);
        }
        for id in self.sas.take_ended(now) {
            self.tell(XfrmEvent::Expired(id));
        }
    }
}
