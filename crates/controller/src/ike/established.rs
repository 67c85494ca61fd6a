//! An authenticated IKE SA: the window of one request each way, what waits for it, and the Child
//! SAs that it has (RFC 7296 §1.3, §1.4, §2.3, §2.4).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use epochgate_ike_wire::{Delete, ExchangeType, Message, NotifyType, Payload};

use crate::config::TunnelConfig;
use crate::crypto::Prf;
use crate::io::{Datagram, Spi};
use crate::{Secret, Timestamp};

use super::auth::malformed;
use super::context::{Context, Name};
use super::create_child::Creating;
use super::ike_rekey::{self, IkeRekeying};
use super::informational::{Closing, Earlier, Lingering};
use super::init::only;
use super::lifetime::{Due, Lifetime};
use super::limits::TASKS_MAX;
use super::payloads::{Fault, Payloads};
use super::proposal::IkeAlgorithms;
use super::protect::SealError;
use super::sa::{IkeSa, Next, Order};
use super::session::{InFlight, Received, ReplyTo, Request, Session};
use super::{Child, ChildError, ChildId, CloseReason, IkeEvent, Path, Peer, TunnelId};

/// What Child SAs' keys are derived with (RFC 7296 §2.17).
#[derive(Clone, Debug)]
pub(super) struct ChildSeed {
    pub(super) prf: Prf,
    /// SK_d.
    pub(super) derive: Secret,
}

/// A Child SA as its IKE SA knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChildRecord {
    /// Whose it is: its owner's, or a guest's ([`super::sharing`]).
    pub(super) tunnel: TunnelId,
    pub(super) inbound: Spi,
    pub(super) outbound: Spi,
    /// Redundant after crossing rekeys, and the peer's to delete until then.
    pub(super) peer_deletes_until: Option<Timestamp>,
}

/// Something to ask the peer when the window allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Rekey(ChildId),
    RekeyIke,
    New(TunnelId),
    Delete(ChildId),
    /// A Child SA that only the peer believes in.
    DeleteUnwanted(Spi),
    CheckLiveness,
    /// Tell the peer which addresses are used now (RFC 4555 §3.5).
    UpdateAddresses,
    /// See whether the peer is where it says (RFC 4555 §3.7).
    CheckRoute,
    /// Tell the peer our other addresses (RFC 4555 §3.6).
    TellAddresses,
}

/// What was asked.
pub(super) enum Asked {
    Create(Box<Creating>),
    RekeyIke(Box<IkeRekeying>),
    Delete(ChildId),
    DeleteUnwanted,
    Liveness,
    /// For this path.
    Update(Path),
    /// With this COOKIE2.
    Route([u8; 16]),
    Listing,
}

/// The request that waits for its response: one at a time (RFC 7296 §2.3).
pub(super) struct Outstanding {
    pub(super) in_flight: InFlight,
    pub(super) asked: Asked,
}

impl From<Outstanding> for Earlier {
    fn from(outstanding: Outstanding) -> Self {
        let Outstanding { in_flight, asked } = outstanding;
        let rekeying = match asked {
            Asked::RekeyIke(rekeying) => Some(rekeying),
            Asked::Create(_)
            | Asked::Delete(_)
            | Asked::DeleteUnwanted
            | Asked::Liveness
            | Asked::Update(_)
            | Asked::Route(_)
            | Asked::Listing => None,
        };
        Self {
            in_flight,
            rekeying,
        }
    }
}

/// An answer that waits until the kernel has the Child SA.
#[derive(Debug)]
pub(super) struct KeptAnswer {
    pub(super) child: ChildId,
    pub(super) reply_to: ReplyTo,
    pub(super) accepted: Vec<Payload>,
    /// With TEMPORARY_FAILURE (RFC 7296 §2.25).
    pub(super) refused: Vec<Payload>,
}

/// An authenticated IKE SA.
pub(super) struct Established {
    pub(super) name: Name,
    pub(super) session: Session,
    pub(super) config: Arc<TunnelConfig>,
    pub(super) algorithms: IkeAlgorithms,
    pub(super) seed: ChildSeed,
    pub(super) epochgate: bool,
    pub(super) since: Timestamp,
    pub(super) lifetime: Lifetime,
    pub(super) children: BTreeMap<ChildId, ChildRecord>,
    pub(super) outstanding: Option<Outstanding>,
    pub(super) tasks: VecDeque<Task>,
    pub(super) kept: Option<KeptAnswer>,
}

impl Established {
    #[allow(
        clippy::too_many_arguments,
        reason = "what the exchanges before gave, each thing once"
    )]
    pub(super) fn new(
        ctx: &Context<'_>,
        name: Name,
        session: Session,
        config: Arc<TunnelConfig>,
        algorithms: IkeAlgorithms,
        seed: ChildSeed,
        peer: &Peer,
        since: Timestamp,
    ) -> Self {
        let lifetime = Lifetime::begin(ctx, &config);
        Self {
            name,
            session,
            config,
            algorithms,
            seed,
            epochgate: peer.epochgate,
            since,
            lifetime,
            children: BTreeMap::new(),
            outstanding: None,
            tasks: VecDeque::new(),
            kept: None,
        }
    }

    /// Who the peer is, as a tunnel hears of it that joins.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            id: self.config.remote.id.clone(),
            epochgate: self.epochgate,
            ping_address: None,
            nat: self.session.nat.found(),
            nat_asked: self.session.nat.asked,
            initial_contact: false,
            assigned: None,
        }
    }

    /// Takes note of the peer's AUTH_LIFETIME, in seconds from now (RFC 4478 §3).
    pub(super) fn hear_auth_lifetime(&mut self, ctx: &mut Context<'_>, payloads: &Payloads) {
        let Some(notify) = payloads.notify(NotifyType::AUTH_LIFETIME) else {
            return;
        };
        let Ok(seconds) = notify.data.as_slice().try_into() else {
            return;
        };
        let until = ctx.now + Duration::from_secs(u32::from_be_bytes(seconds).into());
        self.lifetime.limit(until);
        ctx.event(self.name, IkeEvent::AuthenticatedUntil(until));
    }

    pub(super) fn add_child(&mut self, tunnel: TunnelId, child: &Child) {
        self.children.insert(
            child.id,
            ChildRecord {
                tunnel,
                inbound: child.inbound,
                outbound: child.outbound,
                peer_deletes_until: None,
            },
        );
    }

    pub(super) fn keep_answer(&mut self, answer: KeptAnswer) {
        self.kept = Some(answer);
    }

    /// The peer believes in a Child SA that we cannot use.
    pub(super) fn delete_unwanted(&mut self, inbound: Spi) {
        self.enqueue(Task::DeleteUnwanted(inbound));
    }

    pub(super) fn obey(mut self, ctx: &mut Context<'_>, order: Order) -> Next {
        match order {
            Order::Rekey(child) if !self.children.contains_key(&child) => {
                self.tell_unknown(ctx, child);
            }
            Order::Rekey(child) => {
                let asking = self.is_asking(
                    |asked| matches!(asked, Asked::Create(it) if it.replaces == Some(child)),
                );
                if !asking && !self.enqueue(Task::Rekey(child)) {
                    let tunnel = self.tunnel_of(child);
                    self.refuse(ctx, tunnel, Some(child), ChildError::Temporary);
                }
            }
            Order::RekeyIke => {
                // A full queue is no reason to forget it: the IKE SA's own timer comes.
                if !self.is_asking(|asked| matches!(asked, Asked::RekeyIke(_))) {
                    self.enqueue(Task::RekeyIke);
                }
            }
            Order::New(tunnel) => {
                if !self.enqueue(Task::New(tunnel)) {
                    self.refuse(ctx, tunnel, None, ChildError::Temporary);
                }
            }
            Order::Leave(tunnel) => return self.part_with(ctx, tunnel),
            // It never came into being.
            Order::Delete(child) if self.kept.as_ref().is_some_and(|it| it.child == child) => {
                return self.release(ctx, child, false);
            }
            Order::Delete(child) => {
                let asking =
                    self.is_asking(|asked| matches!(asked, Asked::Delete(it) if *it == child));
                if self.children.contains_key(&child) && !asking {
                    // Rekeying it has no point any more.
                    self.tasks.retain(|task| *task != Task::Rekey(child));
                    self.enqueue(Task::Delete(child));
                }
            }
            Order::CheckLiveness => {
                // Any answer shows that the peer lives (RFC 7296 §2.4).
                if self.outstanding.is_none() {
                    self.enqueue(Task::CheckLiveness);
                }
            }
            Order::Mapping(source) => {
                if self.session.follow_esp(source) {
                    ctx.event(self.name, IkeEvent::PathChanged(self.session.path));
                }
            }
            Order::Move(local) => self.move_to(ctx, local),
            Order::ListAddresses => self.list_addresses(ctx),
            Order::Ready { child, installed } => return self.release(ctx, child, installed),
            Order::Close => {
                // Who waits for an answer would not understand a Delete before it.
                if let Some(kept) = self.kept.take()
                    && let Err(error) = self.session.respond(ctx, kept.reply_to, &kept.refused)
                {
                    return self.broken(ctx, &error);
                }
                let earlier = self.outstanding.map(Into::into);
                let tell = Some(CloseReason::Asked);
                return Closing::start(ctx, self.name, self.session, earlier, tell);
            }
        }
        self.proceed(ctx)
    }

    /// A tunnel uses the IKE SA no longer: its Child SAs end, the others stay.
    fn part_with(mut self, ctx: &mut Context<'_>, tunnel: TunnelId) -> Next {
        self.tasks.retain(|task| *task != Task::New(tunnel));
        if let Some(Outstanding {
            asked: Asked::Create(creating),
            ..
        }) = &mut self.outstanding
            && creating.tunnel == tunnel
        {
            creating.abandoned = true;
        }
        let kept = self.kept.as_ref().map(|kept| kept.child);
        let mut unanswered = None;
        let theirs: Vec<ChildId> = self
            .children
            .iter()
            .filter(|(_, record)| record.tunnel == tunnel)
            .map(|(id, _)| *id)
            .collect();
        for child in theirs {
            self.tasks.retain(|task| *task != Task::Rekey(child));
            if kept == Some(child) {
                unanswered = Some(child);
            } else if !self.is_deleting(child) {
                self.enqueue(Task::Delete(child));
            }
        }
        match unanswered {
            Some(child) => self.release(ctx, child, false),
            None => self.proceed(ctx),
        }
    }

    /// A Child SA that is to be rekeyed is gone. Whose it was is not known any more; its tunnel
    /// recognises it.
    fn tell_unknown(&self, ctx: &mut Context<'_>, child: ChildId) {
        let guests = ctx.guests.of(self.name.id).to_vec();
        for user in guests.into_iter().chain([self.name.tunnel]) {
            ctx.event(self.name_for(user), IkeEvent::ChildUnknownToPeer(child));
        }
    }

    /// Whose a Child SA is; its owner's if nobody knows.
    pub(super) fn tunnel_of(&self, child: ChildId) -> TunnelId {
        let record = self.children.get(&child);
        record.map_or(self.name.tunnel, |record| record.tunnel)
    }

    /// This IKE SA as one of its tunnels knows it.
    pub(super) fn name_for(&self, tunnel: TunnelId) -> Name {
        Name {
            tunnel,
            ..self.name
        }
    }

    /// What a tunnel that uses this IKE SA is configured to have; `None` once it is not configured
    /// any more.
    pub(super) fn config_of(
        &self,
        ctx: &Context<'_>,
        tunnel: TunnelId,
    ) -> Option<Arc<TunnelConfig>> {
        if tunnel == self.name.tunnel {
            Some(Arc::clone(&self.config))
        } else {
            ctx.pad.tunnel(tunnel).map(Arc::clone)
        }
    }

    /// Sends the answer that waited for the kernel.
    fn release(mut self, ctx: &mut Context<'_>, child: ChildId, installed: bool) -> Next {
        match self.kept.take() {
            Some(kept) if kept.child == child => {
                let payloads = if installed {
                    kept.accepted
                } else {
                    self.children.remove(&child);
                    kept.refused
                };
                self.respond(ctx, kept.reply_to, &payloads)
            }
            other => {
                self.kept = other;
                self.stay()
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        let retransmission = self.outstanding.as_ref().map(|it| it.in_flight.due());
        let redundant = self
            .children
            .values()
            .filter_map(|it| it.peer_deletes_until);
        retransmission
            .into_iter()
            .chain(redundant)
            .chain(Some(self.lifetime.next_timeout()))
            .chain(self.session.next_timeout(&self.config.path))
            .min()
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        if let Some(outstanding) = &mut self.outstanding
            && !outstanding
                .in_flight
                .poll(ctx, &self.session.retry_path(outstanding.in_flight.tries()))
        {
            // No answer to a request means that the peer is gone (RFC 7296 §2.4).
            ctx.event(self.name, IkeEvent::Closed(CloseReason::NoAnswer));
            return None;
        }
        self.session.handle_timeout(ctx.now);
        if self.session.take_keepalive(&self.config.path, ctx.now) {
            ctx.event(self.name, IkeEvent::KeepaliveDue(self.session.path));
        }
        match self.lifetime.poll(ctx.now) {
            Due::Nothing => {}
            Due::Rekey => {
                self.enqueue(Task::RekeyIke);
            }
            Due::Expiry => {
                let reason = "its lifetime is over, and the peer did not rekey it".to_owned();
                ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
                let earlier = self.outstanding.map(Into::into);
                return Closing::start(ctx, self.name, self.session, earlier, None);
            }
        }
        let mut overdue = Vec::new();
        for (id, child) in &mut self.children {
            if child
                .peer_deletes_until
                .is_some_and(|until| until <= ctx.now)
            {
                child.peer_deletes_until = None;
                overdue.push(*id);
            }
        }
        for child in overdue {
            self.enqueue(Task::Delete(child));
        }
        self.proceed(ctx)
    }

    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        if self.kept.is_some() && self.session.is_expected(&message.header) {
            // The peer repeats the request that is being answered.
            ctx.counters.repeated += 1;
            return self.stay();
        }
        let in_flight = self.outstanding.as_ref().map(|it| &it.in_flight);
        if in_flight.is_some_and(|it| it.is_disowned_by(message)) {
            ctx.event(self.name, IkeEvent::Forgotten);
        }
        match self.session.receive(ctx, message, datagram, in_flight) {
            Received::Nothing => self.stay(),
            Received::Request(request) => {
                self.heard(ctx, datagram);
                self.answer(ctx, request)
            }
            Received::Response(payloads) => {
                self.heard(ctx, datagram);
                let outstanding = self.outstanding.take();
                self.answered_by(ctx, datagram);
                match outstanding {
                    Some(outstanding) => self.conclude(ctx, outstanding.asked, payloads),
                    None => self.stay(),
                }
            }
        }
    }

    /// An authentic message that is no repetition came.
    fn heard(&mut self, ctx: &mut Context<'_>, datagram: &Datagram) {
        if self.session.follow(datagram) {
            let path = self.session.path;
            ctx.event(self.name, IkeEvent::PathChanged(path));
        }
        ctx.event(self.name, IkeEvent::Alive);
    }

    fn answer(self, ctx: &mut Context<'_>, request: Request) -> Next {
        let payloads = match request.payloads {
            Ok(payloads) => payloads,
            // Only this exchange fails (RFC 7296 §2.5).
            Err(fault @ Fault::Critical(_)) => {
                return self.respond(ctx, request.reply_to, &[fault.notify()]);
            }
            Err(Fault::Syntax) => return self.malformed_request(ctx, request.reply_to),
        };
        match request.exchange {
            ExchangeType::CreateChildSa if ike_rekey::is_offered(&payloads) => {
                self.answer_ike_rekey(ctx, request.reply_to, &payloads)
            }
            // While we rekey the IKE SA, no Child SA is made on it (RFC 7296 §2.25.2).
            ExchangeType::CreateChildSa
                if self.is_asking(|asked| matches!(asked, Asked::RekeyIke(_))) =>
            {
                let busy = only(NotifyType::TEMPORARY_FAILURE);
                self.respond(ctx, request.reply_to, &busy)
            }
            ExchangeType::CreateChildSa => self.answer_create(ctx, request.reply_to, payloads),
            ExchangeType::Informational => {
                self.answer_informational(ctx, request.reply_to, &payloads)
            }
            ExchangeType::IkeSaInit
            | ExchangeType::IkeIntermediate
            | ExchangeType::IkeAuth
            | ExchangeType::Other(_) => self.malformed_request(ctx, request.reply_to),
        }
    }

    fn conclude(
        mut self,
        ctx: &mut Context<'_>,
        asked: Asked,
        payloads: Result<Payloads, Fault>,
    ) -> Next {
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(fault) => {
                // A response cannot be refused: the IKE SA has no use any more.
                let reason = CloseReason::Failed(malformed(&self.config, fault));
                ctx.event(self.name, IkeEvent::Closed(reason));
                return Closing::start(ctx, self.name, self.session, None, None);
            }
        };
        if payloads.notify(NotifyType::INVALID_SYNTAX).is_some() {
            // Both ends delete the IKE SA, without a Delete (RFC 7296 §2.21.3).
            let reason = format!(
                "the peer of tunnel {} takes our message for malformed (INVALID_SYNTAX)",
                self.config.name
            );
            ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
            return None;
        }
        match asked {
            Asked::Create(creating) => return self.conclude_create(ctx, *creating, payloads),
            Asked::RekeyIke(rekeying) => {
                return self.conclude_ike_rekey(ctx, *rekeying, &payloads);
            }
            Asked::Delete(child) => {
                if let Some(record) = self.children.remove(&child) {
                    let name = self.name_for(record.tunnel);
                    ctx.event(name, IkeEvent::ChildDeleted(child));
                }
            }
            Asked::Update(path) => return self.conclude_update(ctx, path, &payloads),
            Asked::Route(cookie) => return self.conclude_route_check(ctx, &cookie, &payloads),
            Asked::DeleteUnwanted | Asked::Liveness | Asked::Listing => {}
        }
        self.proceed(ctx)
    }

    /// Answers, then goes on with what waits.
    pub(super) fn respond(
        mut self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: &[Payload],
    ) -> Next {
        match self.session.respond(ctx, reply_to, payloads) {
            Ok(()) => self.proceed(ctx),
            Err(error) => self.broken(ctx, &error),
        }
    }

    /// Starts what waits, if the window is free and the peer is ready: the initiator of the IKE SA
    /// is not before it has our IKE_AUTH response.
    pub(super) fn proceed(mut self, ctx: &mut Context<'_>) -> Next {
        let authenticating = self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.reply_to.exchange() == ExchangeType::IkeAuth);
        while self.outstanding.is_none() && !authenticating {
            // A Child SA that is being made is finished first: the peer would refuse (§2.25.1).
            if self.kept.is_some() && self.tasks.front() == Some(&Task::RekeyIke) {
                break;
            }
            let Some(task) = self.tasks.pop_front() else {
                break;
            };
            if let Err(error) = self.start(ctx, task) {
                return self.broken(ctx, &error);
            }
        }
        self.stay()
    }

    fn start(&mut self, ctx: &mut Context<'_>, task: Task) -> Result<(), SealError> {
        match task {
            Task::Rekey(child) => match self.children.get(&child) {
                Some(record) => {
                    let (tunnel, inbound) = (record.tunnel, record.inbound);
                    self.start_create(ctx, tunnel, Some((child, inbound)), None, 0)
                }
                // The peer deleted it while this waited.
                None => {
                    self.tell_unknown(ctx, child);
                    Ok(())
                }
            },
            Task::RekeyIke => self.start_ike_rekey(ctx, None, 0),
            Task::New(tunnel) => self.start_create(ctx, tunnel, None, None, 0),
            Task::Delete(child) => match self.children.get(&child) {
                Some(record) => {
                    let delete = Payload::Delete(Delete::Esp(vec![record.inbound.0.get()]));
                    self.inform(ctx, &[delete], Asked::Delete(child))
                }
                None => Ok(()),
            },
            Task::DeleteUnwanted(inbound) => {
                let delete = Payload::Delete(Delete::Esp(vec![inbound.0.get()]));
                self.inform(ctx, &[delete], Asked::DeleteUnwanted)
            }
            Task::CheckLiveness => self.inform(ctx, &[], Asked::Liveness),
            Task::UpdateAddresses => self.start_update(ctx),
            Task::CheckRoute => self.start_route_check(ctx),
            Task::TellAddresses => self.start_listing(ctx),
        }
    }

    /// Starts an INFORMATIONAL exchange.
    pub(super) fn inform(
        &mut self,
        ctx: &mut Context<'_>,
        payloads: &[Payload],
        asked: Asked,
    ) -> Result<(), SealError> {
        let schedule = ctx.limits.retransmission;
        let in_flight =
            self.session
                .request(ctx, ExchangeType::Informational, payloads, schedule)?;
        self.outstanding = Some(Outstanding { in_flight, asked });
        Ok(())
    }

    /// Queues what goes before everything else that waits. It has room of its own.
    pub(super) fn enqueue_first(&mut self, task: Task) {
        self.tasks.retain(|queued| *queued != task);
        self.tasks.push_front(task);
    }

    /// Queues what is not queued yet. False: there is no room.
    fn enqueue(&mut self, task: Task) -> bool {
        if self.tasks.contains(&task) {
            return true;
        }
        if self.tasks.len() >= TASKS_MAX {
            return false;
        }
        self.tasks.push_back(task);
        true
    }

    pub(super) fn delete_soon(&mut self, child: ChildId) {
        self.enqueue(Task::Delete(child));
    }

    /// Whether we are deleting this Child SA or are about to.
    pub(super) fn is_deleting(&self, child: ChildId) -> bool {
        self.tasks.contains(&Task::Delete(child))
            || self.is_asking(|asked| matches!(asked, Asked::Delete(it) if *it == child))
    }

    pub(super) fn is_asking(&self, what: impl FnOnce(&Asked) -> bool) -> bool {
        self.outstanding.as_ref().is_some_and(|it| what(&it.asked))
    }

    pub(super) fn refuse(
        &self,
        ctx: &mut Context<'_>,
        tunnel: TunnelId,
        replaces: Option<ChildId>,
        error: ChildError,
    ) {
        let name = self.name_for(tunnel);
        ctx.event(name, IkeEvent::ChildRefused { replaces, error });
    }

    pub(super) fn malformed_request(self, ctx: &mut Context<'_>, reply_to: ReplyTo) -> Next {
        let reason = CloseReason::Failed(malformed(&self.config, Fault::Syntax));
        self.fatal(ctx, reply_to, Fault::Syntax, reason)
    }

    /// Answers with an error that ends the IKE SA at both ends (RFC 7296 §2.21.3).
    pub(super) fn fatal(
        self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        fault: Fault,
        reason: CloseReason,
    ) -> Next {
        self.finish(ctx, reply_to, &[fault.notify()], reason)
    }

    /// Gives the last answer of this IKE SA.
    pub(super) fn finish(
        mut self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: &[Payload],
        reason: CloseReason,
    ) -> Next {
        ctx.event(self.name, IkeEvent::Closed(reason));
        match self.session.respond(ctx, reply_to, payloads) {
            Ok(()) => Lingering::start(ctx, self.session),
            Err(_) => None,
        }
    }

    /// We cannot make a message of our own.
    pub(super) fn broken(self, ctx: &mut Context<'_>, error: &SealError) -> Next {
        let reason = CloseReason::Failed(format!("cannot make an IKE message: {error}"));
        ctx.event(self.name, IkeEvent::Closed(reason));
        None
    }

    pub(super) fn stay(self) -> Next {
        Some(IkeSa::Established(Box::new(self)))
    }
}
