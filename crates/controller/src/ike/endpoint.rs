//! The endpoint: all IKE SAs of this host. Datagrams, timers and the tunnels' orders come in, are
//! brought to the IKE SA that they concern, and leave datagrams and events behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use epochgate_ike_wire::{
    DecodeErrorKind, ExchangeType, Flags, Header, IkeSpi, Message, NotifyType,
};

use crate::Timestamp;
use crate::config::{HalfOpenConfig, TunnelConfig};
use crate::crypto::Crypto;
use crate::io::Datagram;
use crate::pki::UnixTime;
use crate::status::IkeStatus;

use super::context::{Context, Name};
use super::cookie::Cookies;
use super::half_open::{HalfOpens, InitKey};
use super::informational::Closing;
use super::init::{Initiating, only, provider};
use super::limits::{INIT_REQUEST_MAX, Limits};
use super::pad::Pad;
use super::payloads::{Fault, Payloads};
use super::rate::RateLimit;
use super::respond::{self, Answer, Load};
use super::sa::{IkeSa, Next, Order};
use super::sharing::Guests;
use super::{ChildId, CloseReason, Counters, IkeEvent, IkeOutput, IkeSaId, Path, TunnelId};

/// Lines about strangers that the log gets per second.
const STRANGERS_PER_SECOND: u32 = 1;

/// All IKE SAs of this host.
pub(crate) struct Endpoint {
    crypto: Arc<dyn Crypto>,
    limits: Limits,
    pub(super) pad: Pad,
    pub(super) sas: BTreeMap<IkeSaId, Slot>,
    /// By the SPI that we chose.
    by_spi: BTreeMap<IkeSpi, IkeSaId>,
    /// Responder's IKE SAs before IKE_AUTH.
    half_open: HalfOpens,
    timers: BTreeSet<(Timestamp, IkeSaId)>,
    /// Those that are over: they repeat their last response and wait for the peer's Delete.
    lingering: BTreeSet<IkeSaId>,
    established: BTreeSet<(TunnelId, IkeSaId)>,
    cookies: Cookies,
    /// Unprotected answers, which anybody can provoke (RFC 7296 §2.21.4).
    unprotected: RateLimit,
    /// Reports of strangers, which anybody can provoke as well.
    strangers: RateLimit,
    pub(super) outputs: VecDeque<IkeOutput>,
    /// Tunnels that use IKE SAs which others made.
    pub(super) guests: Guests,
    counters: Counters,
    last_sa: u64,
    last_child: u64,
    wall_clock: Option<UnixTime>,
    /// What the transition under way leaves behind beside its result.
    beside: Vec<IkeSa>,
}

/// An IKE SA and what the indexes know of it.
pub(super) struct Slot {
    pub(super) sa: IkeSa,
    spi: IkeSpi,
    due: Option<Timestamp>,
    half_open: Option<InitKey>,
}

impl Endpoint {
    pub(crate) fn new(crypto: Arc<dyn Crypto>, limits: Limits) -> Self {
        let per_second = limits.unprotected_answers_per_second;
        Self {
            crypto,
            limits,
            pad: Pad::default(),
            sas: BTreeMap::new(),
            by_spi: BTreeMap::new(),
            half_open: HalfOpens::default(),
            timers: BTreeSet::new(),
            lingering: BTreeSet::new(),
            established: BTreeSet::new(),
            cookies: Cookies::default(),
            unprotected: RateLimit::per_second(per_second),
            strangers: RateLimit::per_second(STRANGERS_PER_SECOND),
            outputs: VecDeque::new(),
            guests: Guests::default(),
            counters: Counters::default(),
            last_sa: 0,
            last_child: 0,
            wall_clock: None,
            beside: Vec::new(),
        }
    }

    /// Replaces the peer authorization database (RFC 4301 §4.4.3). IKE SAs of tunnels that are
    /// still there go on with the new settings; the others are their owner's to close.
    pub(crate) fn configure(&mut self, tunnels: BTreeMap<TunnelId, Arc<TunnelConfig>>) {
        for slot in self.sas.values_mut() {
            if let IkeSa::Established(it) = &mut slot.sa
                && let Some(config) = tunnels.get(&it.name.tunnel)
                // A client's IKE SA has its virtual addresses as local side.
                && self.pad.tunnel(it.name.tunnel) != Some(config)
            {
                it.config = Arc::clone(config);
            }
        }
        self.pad.configure(tunnels);
    }

    /// Tells the wall-clock time, which certificates are judged by.
    pub(crate) fn set_wall_clock(&mut self, now: UnixTime) {
        self.wall_clock = Some(now);
    }

    /// How many strangers may begin at once, from now on.
    pub(crate) fn limit_half_open(&mut self, limits: &HalfOpenConfig) {
        self.limits.half_open.clone_from(limits);
    }

    /// Sets the address that the tunnel's peer is told to ping, in every IKE_AUTH from now on.
    pub(crate) fn set_announcement(&mut self, tunnel: TunnelId, ping_address: Option<IpAddr>) {
        match ping_address {
            Some(address) => self.pad.announcements.insert(tunnel, address),
            None => self.pad.announcements.remove(&tunnel),
        };
    }

    /// Gives a tunnel other networks, as its peer's virtual addresses change; IKE SAs that are
    /// authenticated already keep what they have.
    pub(crate) fn set_traffic(&mut self, tunnel: TunnelId, config: Arc<TunnelConfig>) {
        self.pad.set_traffic(tunnel, config);
    }

    /// The virtual addresses to ask the tunnel's server for in every IKE_AUTH from now on.
    pub(crate) fn set_addresses(&mut self, tunnel: TunnelId, addresses: Vec<IpAddr>) {
        self.pad.set_addresses(tunnel, addresses);
    }

    /// Starts an IKE SA. `local` and `remote` have port 500, or 4500 to begin there. What cannot
    /// even be started ends in [`IkeEvent::Closed`] like everything else.
    pub(crate) fn connect(
        &mut self,
        tunnel: TunnelId,
        local: SocketAddr,
        remote: SocketAddr,
        initial_contact: bool,
        now: Timestamp,
    ) -> IkeSaId {
        let id = self.next_id();
        let name = Name { id, tunnel };
        // Siblings have the same identities: their IKE SAs count (RFC 7296 §2.4).
        let initial_contact = initial_contact && !self.sibling_is_connected(tunnel);
        let Some(config) = self.pad.tunnel(tunnel).map(Arc::clone) else {
            let reason = CloseReason::Failed("the tunnel is not configured".to_owned());
            self.closed(name, reason);
            return id;
        };
        let mut ctx = self.context(now);
        let started = ctx.ike_spi().map_err(provider).and_then(|spi| {
            let addresses = (local, remote);
            Initiating::start(&mut ctx, name, config, spi, addresses, initial_contact)
        });
        match started {
            Ok(it) => self.put(id, Some(IkeSa::Initiating(Box::new(it)))),
            Err(reason) => self.closed(name, reason),
        }
        id
    }

    /// A datagram arrived on an IKE port, without the non-ESP marker.
    pub(crate) fn handle_datagram(&mut self, datagram: &Datagram, now: Timestamp) {
        self.counters.received += 1;
        let Ok(header) = Header::decode(&datagram.payload) else {
            self.counters.malformed += 1;
            return;
        };
        let message = match Message::decode(&datagram.payload) {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed += 1;
                if matches!(error.kind, DecodeErrorKind::NewerMajorVersion { .. }) {
                    let kind = NotifyType::INVALID_MAJOR_VERSION;
                    self.answer_unprotected(&header, kind, datagram, now);
                }
                return;
            }
        };
        let is_first = header.exchange == ExchangeType::IkeSaInit
            && header.responder_spi.is_zero()
            && !header.flags.response;
        if is_first {
            self.handle_init_request(message, datagram, now);
            return;
        }
        // The I flag says whose part the sender has, and so which SPI is ours (RFC 7296 §3.1).
        let spi = if header.flags.initiator {
            header.responder_spi
        } else {
            header.initiator_spi
        };
        let Some(&id) = self.by_spi.get(&spi) else {
            self.counters.unknown_sa += 1;
            let kind = NotifyType::INVALID_IKE_SPI;
            self.answer_unprotected(&header, kind, datagram, now);
            return;
        };
        self.step(id, now, |sa, ctx| sa.handle_message(ctx, message, datagram));
    }

    /// The time that [`Self::next_timeout`] named has come.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        let due: Vec<IkeSaId> = self
            .timers
            .iter()
            .take_while(|(due, _)| *due <= now)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.step(id, now, IkeSa::handle_timeout);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// What came out, in order; call until there is nothing.
    pub(crate) fn poll(&mut self) -> Option<IkeOutput> {
        self.outputs.pop_front()
    }

    /// Releases the answer that waits for this Child SA. `installed` false: TEMPORARY_FAILURE; in
    /// IKE_AUTH too, and then the IKE SA stays. Nothing for a Child SA that we started ourselves.
    pub(crate) fn child_ready(
        &mut self,
        sa: IkeSaId,
        child: ChildId,
        installed: bool,
        now: Timestamp,
    ) {
        self.order(sa, Order::Ready { child, installed }, now);
    }

    /// Rekeys a Child SA (RFC 7296 §1.3.3), with a key exchange of its own if ESP groups are
    /// configured. Ends in `Child`, `ChildRefused`, `ChildUnknownToPeer` or `Closed`.
    pub(crate) fn rekey_child(&mut self, sa: IkeSaId, child: ChildId, now: Timestamp) {
        self.order(sa, Order::Rekey(child), now);
    }

    /// Rekeys the IKE SA (RFC 7296 §1.3.2); it keeps its name. Ends in `Rekeyed`, `RekeyRefused` or
    /// `Closed`; while the peer has no time for it, it is tried again.
    pub(crate) fn rekey_ike(&mut self, sa: IkeSaId, now: Timestamp) {
        self.order(sa, Order::RekeyIke, now);
    }

    /// Makes another Child SA (RFC 7296 §1.3.1). Ends in `Child`, `ChildRefused` or `Closed`.
    pub(crate) fn new_child(&mut self, sa: IkeSaId, tunnel: TunnelId, now: Timestamp) {
        self.order(sa, Order::New(tunnel), now);
    }

    /// Deletes a Child SA (RFC 7296 §1.4.1). Ends in `ChildDeleted`, `ChildDeletedByPeer` or
    /// `Closed`; nothing happens for one that is gone already.
    pub(crate) fn delete_child(&mut self, sa: IkeSaId, child: ChildId, now: Timestamp) {
        self.order(sa, Order::Delete(child), now);
    }

    /// Deletes the IKE SA with its Child SAs. Ends in `Closed(Asked)` within seconds, whether the
    /// peer answers or not.
    pub(crate) fn close(&mut self, sa: IkeSaId, now: Timestamp) {
        self.order(sa, Order::Close, now);
    }

    /// The kernel saw this IKE SA's ESP come from another address or port (XFRM_MSG_MAPPING). Ends in
    /// `PathChanged` where the peer may be followed (RFC 7296 §2.23).
    pub(crate) fn mapping_changed(&mut self, sa: IkeSaId, source: SocketAddr, now: Timestamp) {
        self.order(sa, Order::Mapping(source), now);
    }

    /// Whether this end decides which addresses an IKE SA uses (MOBIKE, RFC 4555 §3.1).
    pub(crate) fn may_move(&self, sa: IkeSaId) -> bool {
        self.sas.get(&sa).is_some_and(|slot| slot.sa.may_move())
    }

    /// Goes on from another of our addresses. Ends in `PathChanged` or `Closed`.
    pub(crate) fn move_to(&mut self, sa: IkeSaId, local: IpAddr, now: Timestamp) {
        self.order(sa, Order::Move(local), now);
    }

    /// The addresses of this host are these now: peers that may choose among them hear of it.
    pub(crate) fn host_addresses_changed(&mut self, addresses: Vec<IpAddr>, now: Timestamp) {
        self.pad.set_host_addresses(addresses);
        let ids: Vec<IkeSaId> = self.sas.keys().copied().collect();
        for id in ids {
            self.order(id, Order::ListAddresses, now);
        }
    }

    /// Where its messages and its ESP go, once it is established.
    pub(crate) fn path(&self, sa: IkeSaId) -> Option<Path> {
        self.sas.get(&sa).and_then(|slot| slot.sa.path())
    }

    /// Asks the peer whether it lives (RFC 7296 §2.4), unless a request waits for its answer
    /// anyway. Ends in `Alive` or `Closed(NoAnswer)`.
    pub(crate) fn check_liveness(&mut self, sa: IkeSaId, now: Timestamp) {
        self.order(sa, Order::CheckLiveness, now);
    }

    /// Whether both ends are authenticated and nobody is deleting it.
    pub(crate) fn is_established(&self, sa: IkeSaId) -> bool {
        let slot = self.sas.get(&sa);
        slot.is_some_and(|slot| slot.sa.established().is_some())
    }

    /// What `status` shows of it; nothing once its end was told.
    pub(crate) fn status(&self, sa: IkeSaId, now: Timestamp) -> Option<IkeStatus> {
        self.sas.get(&sa).and_then(|slot| slot.sa.status(now))
    }

    /// What happened so far.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// IKE SAs in any state.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sas.len()
    }

    /// Entries of everything that it keeps.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        [
            self.sas.len(),
            self.by_spi.len(),
            self.half_open.len(),
            self.timers.len(),
            self.lingering.len(),
            self.established.len(),
            self.outputs.len(),
        ]
        .iter()
        .sum()
    }

    /// All IKE SAs, oldest first.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn states(&mut self) -> impl Iterator<Item = &mut IkeSa> {
        self.sas.values_mut().map(|slot| &mut slot.sa)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn provider(&self) -> Arc<dyn Crypto> {
        Arc::clone(&self.crypto)
    }

    fn handle_init_request(&mut self, message: Message, datagram: &Datagram, now: Timestamp) {
        let header = message.header;
        let well_formed =
            header.flags.initiator && header.message_id == 0 && !header.initiator_spi.is_zero();
        let well_formed = well_formed && datagram.payload.len() <= INIT_REQUEST_MAX;
        if !well_formed {
            self.counters.malformed += 1;
            return;
        }
        let initiator = header.initiator_spi;
        let payloads = match Payloads::sort(message.payloads) {
            Ok(payloads) => payloads,
            Err(fault) => return self.refuse_init(initiator, fault, datagram),
        };
        let Some(nonce) = payloads.nonce.clone() else {
            return self.refuse_init(initiator, Fault::Syntax, datagram);
        };
        if let Some(id) = self.half_open.find(&(initiator, nonce)) {
            self.step(id, now, |sa, ctx| {
                if let IkeSa::HalfOpen(it) = &sa {
                    it.repeat(ctx, datagram);
                }
                Some(sa)
            });
            return;
        }
        let id = self.next_id();
        let remote = datagram.remote.ip();
        let admission = self.half_open.admission(remote, &self.limits.half_open);
        let mut cookies = std::mem::take(&mut self.cookies);
        let mut load = Load {
            admission,
            cookies: &mut cookies,
        };
        let mut ctx = self.context(now);
        let answer = respond::respond(&mut ctx, id, &mut load, initiator, &payloads, datagram);
        self.cookies = cookies;
        match answer {
            Ok(Answer::HalfOpen(it)) => self.put(id, Some(IkeSa::HalfOpen(it))),
            Ok(Answer::Stateless(octets)) => self.transmit_back(datagram, octets),
            // The provider has no randomness: the peer will ask again.
            Ok(Answer::Nothing) | Err(_) => {}
        }
    }

    /// An unknown critical payload is named (RFC 7296 §2.5); what is malformed is dropped, as
    /// INVALID_SYNTAX may only be said under protection (§3.10.1).
    fn refuse_init(&mut self, initiator: IkeSpi, fault: Fault, datagram: &Datagram) {
        self.counters.malformed += 1;
        if fault == Fault::Syntax {
            return;
        }
        if let Answer::Stateless(octets) = respond::stateless(initiator, vec![fault.notify()]) {
            self.transmit_back(datagram, octets);
        }
    }

    /// Answers a request that no IKE SA can answer, without protection and without any change
    /// (RFC 7296 §2.5, §2.21.4).
    fn answer_unprotected(
        &mut self,
        header: &Header,
        kind: NotifyType,
        datagram: &Datagram,
        now: Timestamp,
    ) {
        if header.flags.response || header.initiator_spi.is_zero() || !self.unprotected.take(now) {
            return;
        }
        let flags = Flags {
            initiator: !header.flags.initiator,
            response: true,
            version: false,
        };
        let header = Header::new(
            header.initiator_spi,
            header.responder_spi,
            header.exchange,
            flags,
            header.message_id,
        );
        let payloads = only(kind);
        if let Ok(octets) = (Message { header, payloads }).encode() {
            self.counters.unprotected_answers += 1;
            self.transmit_back(datagram, octets);
        }
    }

    fn transmit_back(&mut self, datagram: &Datagram, payload: Vec<u8>) {
        self.outputs.push_back(IkeOutput::Transmit(Datagram {
            local: datagram.local,
            remote: datagram.remote,
            payload,
        }));
    }

    fn order(&mut self, id: IkeSaId, order: Order, now: Timestamp) {
        self.step(id, now, |sa, ctx| sa.obey(ctx, order));
    }

    /// One transition of one IKE SA.
    pub(super) fn step(
        &mut self,
        id: IkeSaId,
        now: Timestamp,
        transition: impl FnOnce(IkeSa, &mut Context<'_>) -> Next,
    ) {
        let Some(sa) = self.take(id) else {
            return;
        };
        let was_half_open = matches!(sa, IkeSa::HalfOpen(_));
        let next = transition(sa, &mut self.context(now));
        let admitted = match &next {
            Some(IkeSa::Established(it)) if was_half_open => Some(it.name.tunnel),
            Some(_) | None => None,
        };
        self.put(id, next);
        while let Some(sa) = self.beside.pop() {
            let id = self.next_id();
            self.put(id, Some(sa));
        }
        if let Some(tunnel) = admitted {
            self.limit_sas(tunnel, now);
        }
    }

    /// The established IKE SAs that a tunnel owns, oldest first.
    pub(super) fn established_of(&self, tunnel: TunnelId) -> impl Iterator<Item = IkeSaId> {
        let of_tunnel = (tunnel, IkeSaId(0))..=(tunnel, IkeSaId(u64::MAX));
        self.established.range(of_tunnel).map(|(_, id)| *id)
    }

    /// A peer that comes back again and again without a goodbye leaves its old IKE SAs behind.
    fn limit_sas(&mut self, tunnel: TunnelId, now: Timestamp) {
        let mut established = self.established_of(tunnel);
        let oldest = established.next();
        let others = established.count();
        if let Some(oldest) = oldest
            && others >= self.limits.sas_per_tunnel_max
        {
            let limit = self.limits.sas_per_tunnel_max;
            let reason = format!("the peer has more than {limit} IKE SAs: the oldest is closed");
            self.step(oldest, now, |sa, ctx| match sa {
                IkeSa::Established(it) => {
                    ctx.event(it.name, IkeEvent::Closed(CloseReason::Failed(reason)));
                    let earlier = it.outstanding.map(Into::into);
                    Closing::start(ctx, it.name, it.session, earlier, None)
                }
                other => Some(other),
            });
        }
    }

    pub(super) fn take(&mut self, id: IkeSaId) -> Option<IkeSa> {
        let slot = self.sas.remove(&id)?;
        self.by_spi.remove(&slot.spi);
        if let Some(due) = slot.due {
            self.timers.remove(&(due, id));
        }
        if let Some(key) = &slot.half_open {
            self.half_open.remove(key);
        }
        self.lingering.remove(&id);
        if let Some(it) = slot.sa.established() {
            self.established.remove(&(it.name.tunnel, id));
        }
        Some(slot.sa)
    }

    fn put(&mut self, id: IkeSaId, next: Next) {
        let Some(sa) = next else {
            return;
        };
        let slot = Slot {
            spi: sa.spi(),
            due: sa.next_timeout(),
            half_open: match &sa {
                IkeSa::HalfOpen(it) => Some(it.key()),
                IkeSa::Initiating(_)
                | IkeSa::Intermediate(_)
                | IkeSa::Authenticating(_)
                | IkeSa::Established(_)
                | IkeSa::Closing(_)
                | IkeSa::Lingering(_) => None,
            },
            sa,
        };
        self.by_spi.insert(slot.spi, id);
        if let Some(due) = slot.due {
            self.timers.insert((due, id));
        }
        if let IkeSa::HalfOpen(it) = &slot.sa {
            self.half_open.insert(it.key(), id, it.source());
        }
        if slot.sa.is_over() {
            self.lingering.insert(id);
        }
        match &slot.sa {
            IkeSa::Established(it) => {
                self.established.insert((it.name.tunnel, id));
            }
            IkeSa::Initiating(_)
            | IkeSa::HalfOpen(_)
            | IkeSa::Intermediate(_)
            | IkeSa::Authenticating(_)
            | IkeSa::Closing(_)
            | IkeSa::Lingering(_) => {}
        }
        self.sas.insert(id, slot);
        if self.lingering.len() > self.limits.lingering_max
            && let Some(oldest) = self.lingering.first().copied()
        {
            self.take(oldest);
        }
    }

    fn context(&mut self, now: Timestamp) -> Context<'_> {
        Context {
            crypto: self.crypto.as_ref(),
            limits: &self.limits,
            pad: &self.pad,
            outputs: &mut self.outputs,
            counters: &mut self.counters,
            strangers: &mut self.strangers,
            guests: &mut self.guests,
            last_child: &mut self.last_child,
            beside: &mut self.beside,
            now,
            wall_clock: self.wall_clock,
        }
    }

    fn closed(&mut self, name: Name, reason: CloseReason) {
        self.outputs.push_back(IkeOutput::Event {
            sa: name.id,
            tunnel: name.tunnel,
            event: IkeEvent::Closed(reason),
        });
    }

    fn next_id(&mut self) -> IkeSaId {
        self.last_sa += 1;
        IkeSaId(self.last_sa)
    }
}
