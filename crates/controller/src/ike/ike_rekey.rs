//! Rekeying an IKE SA (RFC 7296 §1.3.2, §2.8, §2.18) in both roles, and what happens when both ends
//! do it at once (§2.8.2, §2.25.2).
//!
//! The tunnels' name for an IKE SA goes on to name its successor, which takes over Child SAs and
//! waiting orders. The old SPIs live on without a name, in [`super::informational::Closing`], only
//! until whoever started the rekey has deleted them.

use std::sync::Arc;

use epochgate_ike_wire::{ExchangeType, IkeSpi, Nonce, Notify, NotifyType, Payload, Proposal};

use crate::config::TunnelConfig;
use crate::crypto::{Group, KeyExchange};
use crate::{Secret, Timestamp};

use super::context::{Context, Name};
use super::create_child::public_value;
use super::established::{Asked, ChildSeed, Established, Outstanding, Task};
use super::informational::{Closing, Lingering};
use super::init::{invalid_ke, only};
use super::keys::{IkeKeys, IkeSpis, Nonces, Part};
use super::limits::KE_RESTARTS_MAX;
use super::payloads::Payloads;
use super::proposal::{self, IkeAlgorithms};
use super::protect::SealError;
use super::sa::Next;
use super::session::{ReplyTo, Session};
use super::{CloseReason, IkeEvent, Refused, Side, child};

/// Our request to rekey an IKE SA. It can be concluded without the IKE SA's own state, so that an
/// IKE SA that is being closed can still take back what the peer made meanwhile.
pub(super) struct IkeRekeying {
    /// The SPI that the successor has on our side.
    spi: IkeSpi,
    nonce: Nonce,
    exchange: Box<dyn KeyExchange>,
    restarts: u32,
    config: Arc<TunnelConfig>,
    /// Of the old IKE SA (RFC 7296 §2.18).
    seed: ChildSeed,
    /// While it was under way the peer rekeyed the IKE SA too, and we agreed (RFC 7296 §2.25.2).
    crossing: Option<Box<Successor>>,
}

/// An IKE SA that was negotiated to succeed another one.
pub(super) struct Successor {
    spis: IkeSpis,
    /// Our part in the exchange that made it.
    part: Part,
    algorithms: IkeAlgorithms,
    keys: IkeKeys,
    /// The lower nonce of that exchange (RFC 7296 §2.8.2).
    lowest: Nonce,
}

impl Successor {
    /// Its session, with everything else like the one of the IKE SA that it succeeds.
    fn session(&self, old: &Session, now: Timestamp) -> Session {
        old.successor(
            self.spis,
            self.part,
            self.algorithms.cipher,
            &self.keys,
            now,
        )
    }
}

/// Why the peer's request is refused.
enum Denial {
    Notify(NotifyType),
    /// It wants another key exchange method (RFC 7296 §1.3).
    Group(Group),
    Syntax,
}

/// Whether a CREATE_CHILD_SA request is about the IKE SA itself (RFC 7296 §1.3.2).
pub(super) fn is_offered(payloads: &Payloads) -> bool {
    let mut proposals = payloads.proposals.iter().flatten();
    proposals.any(|proposal| proposal.protocol == epochgate_ike_wire::Protocol::Ike)
}

impl IkeRekeying {
    /// Checks the peer's answer and derives the successor's keys.
    fn complete(self, ctx: &Context<'_>, payloads: &Payloads) -> Option<Successor> {
        let answer = payloads.proposals.as_deref()?;
        let algorithms = proposal::accept_ike(&self.config.ike, answer)?;
        let theirs = answer.first().and_then(peer_spi)?;
        let nonce = payloads.nonce.as_ref()?;
        let value = payloads.key_exchange.as_ref()?;
        let group = self.exchange.group();
        if algorithms.group != group || value.method != proposal::method(group) {
            return None;
        }
        let shared = self.exchange.agree(&value.data).ok()?;
        let spis = IkeSpis {
            initiator: self.spi,
            responder: theirs,
        };
        let nonces = Nonces {
            initiator: self.nonce.as_bytes(),
            responder: nonce.as_bytes(),
        };
        Some(Successor {
            spis,
            part: Part::Initiator,
            algorithms,
            keys: succeed(ctx, &self.seed, algorithms, &shared, nonces, &spis),
            lowest: self.nonce.min(nonce.clone()),
        })
    }

    /// The IKE SA is being closed: what came of this rekey is deleted at the peer as well. `response`
    /// is the peer's answer, if it came.
    pub(super) fn abandon(
        mut self,
        ctx: &mut Context<'_>,
        name: Name,
        old: &Session,
        response: Option<&Payloads>,
    ) {
        let theirs = self.crossing.take().map(|it| *it);
        let ours = response
            .filter(|payloads| payloads.error().is_none())
            .and_then(|payloads| self.complete(ctx, payloads));
        for successor in [theirs, ours].into_iter().flatten() {
            let next = Closing::unnamed(ctx, name, successor.session(old, ctx.now));
            ctx.leave_beside(next);
        }
    }
}

impl Established {
    /// Asks for a successor, with the key exchange method that this IKE SA was made with if that is
    /// still configured, or the one that the peer wants.
    pub(super) fn start_ike_rekey(
        &mut self,
        ctx: &mut Context<'_>,
        group: Option<Group>,
        restarts: u32,
    ) -> Result<(), SealError> {
        let groups = &self.config.ike.groups;
        let usual = Some(self.algorithms.group).filter(|group| groups.contains(group));
        let group = group
            .or(usual)
            .or(groups.first().copied())
            .unwrap_or(self.algorithms.group);
        let exchange = ctx.crypto.key_exchange(group)?;
        let (spi, nonce) = (ctx.ike_spi()?, ctx.nonce()?);
        let offer = proposal::offer_ike(&self.config.ike, spi.as_bytes());
        let payloads = [
            Payload::SecurityAssociation(offer),
            Payload::Nonce(nonce.clone()),
            public_value(exchange.as_ref()),
        ];
        let schedule = ctx.limits.retransmission;
        let in_flight =
            self.session
                .request(ctx, ExchangeType::CreateChildSa, &payloads, schedule)?;
        let rekeying = IkeRekeying {
            spi,
            nonce,
            exchange,
            restarts,
            config: Arc::clone(&self.config),
            seed: self.seed.clone(),
            crossing: None,
        };
        self.outstanding = Some(Outstanding {
            in_flight,
            asked: Asked::RekeyIke(Box::new(rekeying)),
        });
        Ok(())
    }

    /// The peer answered our request. Of two crossing exchanges the one with the lowest of the four
    /// nonces was one too many: who started it deletes what it made (RFC 7296 §2.8.2).
    pub(super) fn conclude_ike_rekey(
        mut self,
        ctx: &mut Context<'_>,
        mut rekeying: IkeRekeying,
        payloads: &Payloads,
    ) -> Next {
        if let Some(error) = payloads.error() {
            return self.ike_rekey_refused(ctx, rekeying, error);
        }
        let crossing = rekeying.crossing.take();
        let Some(ours) = rekeying.complete(ctx, payloads) else {
            // The peer believes in a successor that we have no keys for.
            let reason = format!(
                "the peer of tunnel {} answers a rekey of the IKE SA with what was not asked for",
                self.config.name
            );
            ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
            return Closing::start(ctx, self.name, self.session, None, None);
        };
        match crossing {
            Some(theirs) if ours.lowest < theirs.lowest => {
                let redundant =
                    Closing::unnamed(ctx, self.name, ours.session(&self.session, ctx.now));
                ctx.leave_beside(redundant);
                self.follow_peer(ctx, *theirs);
            }
            crossing => {
                let redundant = crossing.map(|theirs| theirs.session(&self.session, ctx.now));
                if let Some(redundant) = redundant {
                    let next = Closing::replaced(ctx, self.name, redundant);
                    ctx.leave_beside(next);
                }
                let old = self.adopt(ctx, ours, Side::Us);
                let next = Closing::unnamed(ctx, self.name, old);
                ctx.leave_beside(next);
            }
        }
        self.proceed(ctx)
    }

    fn ike_rekey_refused(
        mut self,
        ctx: &mut Context<'_>,
        rekeying: IkeRekeying,
        error: &Notify,
    ) -> Next {
        if let Some(theirs) = rekeying.crossing {
            // The peer had finished its own before it heard of ours (RFC 7296 §2.8.2).
            self.follow_peer(ctx, *theirs);
            return self.proceed(ctx);
        }
        let current = rekeying.exchange.group();
        let wanted = error.wanted_key_exchange();
        let mut groups = self.config.ike.groups.iter().copied();
        let group =
            groups.find(|group| *group != current && Some(proposal::method(*group)) == wanted);
        if group.is_some() && rekeying.restarts < KE_RESTARTS_MAX {
            return match self.start_ike_rekey(ctx, group, rekeying.restarts + 1) {
                Ok(()) => self.stay(),
                Err(error) => self.broken(ctx, &error),
            };
        }
        let again = error.kind == NotifyType::TEMPORARY_FAILURE && self.lifetime.postpone(ctx);
        if !again {
            let error = child::child_error(error.kind);
            ctx.event(self.name, IkeEvent::RekeyRefused(error));
        }
        self.proceed(ctx)
    }

    /// The peer asks for a successor.
    pub(super) fn answer_ike_rekey(
        mut self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: &Payloads,
    ) -> Next {
        let busy = match self.outstanding.as_ref().map(|it| &it.asked) {
            // Creating, rekeying or closing a Child SA (RFC 7296 §2.25.1).
            Some(Asked::Create(_) | Asked::Delete(_) | Asked::DeleteUnwanted) => true,
            // Its answer is about this IKE SA.
            Some(Asked::Update(_) | Asked::Route(_) | Asked::Listing) => true,
            // A second one, before the first is settled.
            Some(Asked::RekeyIke(ours)) => ours.crossing.is_some(),
            Some(Asked::Liveness) | None => false,
        };
        if busy {
            return self.respond(ctx, reply_to, &only(NotifyType::TEMPORARY_FAILURE));
        }
        let (successor, answer) = match self.consider_successor(ctx, payloads) {
            Ok(agreed) => agreed,
            Err(Denial::Notify(kind)) => {
                if kind == NotifyType::NO_PROPOSAL_CHOSEN {
                    ctx.event(self.name, IkeEvent::OfferRefused(Refused::IkeRekey));
                }
                return self.respond(ctx, reply_to, &only(kind));
            }
            Err(Denial::Group(group)) => {
                return self.respond(ctx, reply_to, &[invalid_ke(group)]);
            }
            Err(Denial::Syntax) => return self.malformed_request(ctx, reply_to),
        };
        if let Err(error) = self.session.respond(ctx, reply_to, &answer) {
            return self.broken(ctx, &error);
        }
        match &mut self.outstanding {
            Some(Outstanding {
                asked: Asked::RekeyIke(ours),
                ..
            }) => ours.crossing = Some(Box::new(successor)),
            Some(_) | None => self.follow_peer(ctx, successor),
        }
        self.proceed(ctx)
    }

    /// Whether and how we agree.
    fn consider_successor(
        &self,
        ctx: &Context<'_>,
        payloads: &Payloads,
    ) -> Result<(Successor, Vec<Payload>), Denial> {
        let (Some(offer), Some(theirs), Some(value)) =
            (&payloads.proposals, &payloads.nonce, &payloads.key_exchange)
        else {
            return Err(Denial::Syntax);
        };
        let chosen = proposal::choose_ike(&self.config.ike, offer, Some(value.method))
            .ok_or(Denial::Notify(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let mut accepted = chosen.proposal;
        let initiator = offer
            .iter()
            .find(|offered| offered.number == accepted.number)
            .and_then(peer_spi)
            .ok_or(Denial::Syntax)?;
        let group = chosen.algorithms.group;
        if value.method != proposal::method(group) {
            return Err(Denial::Group(group));
        }
        // No randomness is not the peer's fault, and it may try again.
        let provider = |_| Denial::Notify(NotifyType::TEMPORARY_FAILURE);
        let exchange = ctx.crypto.key_exchange(group).map_err(provider)?;
        let (responder, nonce) = (
            ctx.ike_spi().map_err(provider)?,
            ctx.nonce().map_err(provider)?,
        );
        accepted.spi = responder.as_bytes().to_vec();
        let answer = vec![
            Payload::SecurityAssociation(vec![accepted]),
            Payload::Nonce(nonce.clone()),
            public_value(exchange.as_ref()),
        ];
        let shared = exchange.agree(&value.data).map_err(|_| Denial::Syntax)?;
        let spis = IkeSpis {
            initiator,
            responder,
        };
        let nonces = Nonces {
            initiator: theirs.as_bytes(),
            responder: nonce.as_bytes(),
        };
        let successor = Successor {
            spis,
            part: Part::Responder,
            algorithms: chosen.algorithms,
            keys: succeed(ctx, &self.seed, chosen.algorithms, &shared, nonces, &spis),
            lowest: nonce.min(theirs.clone()),
        };
        Ok((successor, answer))
    }

    /// The peer deletes the IKE SA. If that is because it has rekeyed it without hearing of our own
    /// rekey, its successor is the one, and ours is forgotten (RFC 7296 §2.8.2).
    pub(super) fn ike_deleted(mut self, ctx: &mut Context<'_>, reply_to: ReplyTo) -> Next {
        let crossing = match &mut self.outstanding {
            Some(Outstanding {
                asked: Asked::RekeyIke(ours),
                ..
            }) => ours.crossing.take(),
            Some(_) | None => None,
        };
        let Some(theirs) = crossing else {
            return self.finish(ctx, reply_to, &[], CloseReason::DeletedByPeer);
        };
        if let Err(error) = self.session.respond(ctx, reply_to, &[]) {
            return self.broken(ctx, &error);
        }
        let old = self.adopt(ctx, *theirs, Side::Peer);
        let lingering = Lingering::start(ctx, old);
        ctx.leave_beside(lingering);
        self.proceed(ctx)
    }

    /// Goes on as the peer's successor; the old IKE SA is the peer's to delete.
    fn follow_peer(&mut self, ctx: &mut Context<'_>, theirs: Successor) {
        let old = self.adopt(ctx, theirs, Side::Peer);
        let replaced = Closing::replaced(ctx, self.name, old);
        ctx.leave_beside(replaced);
    }

    /// Goes on as this successor, with all Child SAs and what waits to be asked. Gives the old
    /// session. A liveness check that was under way needs no answer any more.
    fn adopt(&mut self, ctx: &mut Context<'_>, successor: Successor, by: Side) -> Session {
        let session = successor.session(&self.session, ctx.now);
        let old = std::mem::replace(&mut self.session, session);
        self.algorithms = successor.algorithms;
        self.seed = ChildSeed {
            prf: successor.algorithms.prf,
            derive: successor.keys.derive,
        };
        self.since = ctx.now;
        self.lifetime = self.lifetime.succeed(ctx, &self.config);
        self.outstanding = None;
        self.tasks.retain(|task| *task != Task::RekeyIke);
        ctx.event(self.name, IkeEvent::Rekeyed(by));
        old
    }
}

/// The keys of a successor (RFC 7296 §2.18).
fn succeed(
    ctx: &Context<'_>,
    old: &ChildSeed,
    algorithms: IkeAlgorithms,
    shared: &Secret,
    nonces: Nonces<'_>,
    spis: &IkeSpis,
) -> IkeKeys {
    IkeKeys::succeed(
        ctx.crypto,
        (old.prf, &old.derive),
        (algorithms.prf, algorithms.cipher),
        shared,
        nonces,
        spis,
    )
}

/// The SPI that the peer chose for its side of the successor; never zero (RFC 7296 §3.1).
fn peer_spi(proposal: &Proposal) -> Option<IkeSpi> {
    proposal.ike_spi().filter(|spi| !spi.is_zero())
}
