//! CREATE_CHILD_SA (RFC 7296 §1.3, §2.8, §2.17): new Child SAs and rekeyed ones, with and without
//! a key exchange of their own, in both roles, and what happens when both ends rekey at once.

use std::net::IpAddr;
use std::time::Duration;

use epochgate_ike_wire::{
    ExchangeType, KeyExchange as KeyExchangePayload, Nonce, Notify, NotifyType, Payload, Protocol,
};

use crate::config::{Role, ServerRekey};
use crate::crypto::{Group, KeyExchange};
use crate::io::Spi;

use super::child::{self, Agreed, Circumstances, Offer, Refusal, child_error};
use super::context::Context;
use super::established::{Asked, Established, KeptAnswer, Outstanding};
use super::init::{invalid_ke, only};
use super::keys::{Nonces, Part};
use super::limits::{EARLY_DELETES_MAX, KE_RESTARTS_MAX};
use super::payloads::{Payloads, notify};
use super::proposal::{self, ChildKeyExchange};
use super::protect::SealError;
use super::sa::Next;
use super::session::ReplyTo;
use super::sharing::closeness;
use super::{Child, ChildError, ChildId, IkeEvent, Refused, TunnelId, announce};

/// How long the peer has to delete its redundant Child SA before we do it. A peer that got our
/// request only after its own exchange had ended does not know that they crossed.
const REDUNDANT_GRACE: Duration = Duration::from_secs(10);

/// Our request for a Child SA.
pub(super) struct Creating {
    /// Whose it will be.
    pub(super) tunnel: TunnelId,
    /// That tunnel has left meanwhile.
    pub(super) abandoned: bool,
    pub(super) replaces: Option<ChildId>,
    replaced_inbound: Option<Spi>,
    offer: Offer,
    nonce: Nonce,
    exchange: Option<Box<dyn KeyExchange>>,
    restarts: u32,
    /// While it was under way the peer rekeyed the same Child SA (RFC 7296 §2.8.1).
    crossing: Option<Crossing>,
    /// SPIs of the peer's that its Deletes named meanwhile and that we do not know: one of them may
    /// be what its answer, still on its way, offers.
    deleted_early: Vec<u32>,
}

/// The peer's crossing exchange.
struct Crossing {
    child: ChildId,
    lowest: Nonce,
    /// It has deleted the Child SA that both replace while its own stood: it uses its own, whatever
    /// the nonces say. It may have given ours up before we heard of it.
    settled_by_peer: bool,
}

impl Creating {
    /// The peer deletes a Child SA that we have never heard of: perhaps this one, whose answer is
    /// late.
    pub(super) fn deleted_unknown(&mut self, spi: u32) {
        if self.deleted_early.len() < EARLY_DELETES_MAX {
            self.deleted_early.push(spi);
        }
    }

    /// The peer deleted a Child SA; `alive` tells which ones are left.
    pub(super) fn peer_deleted(&mut self, deleted: ChildId, alive: impl Fn(ChildId) -> bool) {
        if self.replaces == Some(deleted)
            && let Some(crossing) = &mut self.crossing
        {
            crossing.settled_by_peer |= alive(crossing.child);
        }
    }
}

/// Why the peer's request is refused.
enum Denial {
    /// A rekey that the server began and that the client does by itself instead. TEMPORARY_FAILURE is
    /// the one refusal that ends nothing (RFC 7296 §2.25): NO_PROPOSAL_CHOSEN and NO_ADDITIONAL_SAS
    /// say that the Child SA cannot be rekeyed here at all, whereupon a peer may start the whole IKE
    /// SA anew.
    Ignored(TunnelId, ChildId),
    /// The tunnel hears of it: both configurations must change.
    Refused(NotifyType, Refused),
    Answer(Vec<Payload>),
    Syntax,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Notify(kind) => Self::Refused(kind, Refused::Child(child_error(kind))),
            Refusal::Syntax => Self::Syntax,
        }
    }
}

/// A request of the peer that we agree to.
struct Answering {
    tunnel: TunnelId,
    child: Child,
    payloads: Vec<Payload>,
    lowest: Nonce,
}

impl Established {
    /// Asks for a Child SA, with the first configured key exchange method or the one that the peer
    /// wants.
    pub(super) fn start_create(
        &mut self,
        ctx: &mut Context<'_>,
        tunnel: TunnelId,
        replaces: Option<(ChildId, Spi)>,
        group: Option<Group>,
        restarts: u32,
    ) -> Result<(), SealError> {
        let Some(config) = self.config_of(ctx, tunnel) else {
            return Ok(());
        };
        let group = group.or(config.esp.groups.first().copied());
        let exchange = group
            .map(|group| ctx.crypto.key_exchange(group))
            .transpose()?;
        let offer = Offer::new(ctx, &config, ChildKeyExchange::AsConfigured)?;
        let nonce = ctx.nonce()?;
        let mut payloads = Vec::new();
        payloads.extend(replaces.map(|(_, inbound)| {
            Payload::Notify(Notify::about_child(
                NotifyType::REKEY_SA,
                Protocol::Esp,
                inbound.0.get(),
            ))
        }));
        payloads.push(offer.proposal(&config));
        payloads.push(Payload::Nonce(nonce.clone()));
        payloads.extend(exchange.as_deref().map(public_value));
        payloads.extend(offer.selectors());
        payloads.extend(self.announcement(ctx, tunnel));
        let schedule = ctx.limits.retransmission;
        let in_flight =
            self.session
                .request(ctx, ExchangeType::CreateChildSa, &payloads, schedule)?;
        let creating = Creating {
            tunnel,
            abandoned: false,
            replaces: replaces.map(|(child, _)| child),
            replaced_inbound: replaces.map(|(_, inbound)| inbound),
            offer,
            nonce,
            exchange,
            restarts,
            crossing: None,
            deleted_early: Vec::new(),
        };
        self.outstanding = Some(Outstanding {
            in_flight,
            asked: Asked::Create(Box::new(creating)),
        });
        Ok(())
    }

    /// The peer answered our request.
    pub(super) fn conclude_create(
        mut self,
        ctx: &mut Context<'_>,
        creating: Creating,
        payloads: Payloads,
    ) -> Next {
        if let Some(error) = payloads.error() {
            let error = error.clone();
            return self.refused(ctx, creating, &error);
        }
        let Creating {
            tunnel, replaces, ..
        } = creating;
        let inbound = creating.offer.inbound();
        if creating.abandoned {
            self.delete_unwanted(inbound);
            return self.proceed(ctx);
        }
        let mut creating = creating;
        let deleted_early = std::mem::take(&mut creating.deleted_early);
        let crossing = match self.complete(ctx, creating, &payloads) {
            // Its Delete was faster than the answer: it is over before it began.
            Ok((child, _, _)) if deleted_early.contains(&child.outbound.0.get()) => {
                self.refuse(ctx, tunnel, replaces, ChildError::Temporary);
                None
            }
            Ok((child, lowest, crossing)) => {
                let id = child.id;
                self.add_child(tunnel, &child);
                ctx.event(self.name_for(tunnel), IkeEvent::Child(Box::new(child)));
                crossing.map(|theirs| (id, lowest, theirs))
            }
            Err(error) => {
                // The peer has made it and believes in it.
                self.delete_unwanted(inbound);
                self.refuse(ctx, tunnel, replaces, error);
                None
            }
        };
        if let Some((ours, our_lowest, theirs)) = crossing {
            self.settle(ctx, ours, &our_lowest, &theirs);
        }
        self.proceed(ctx)
    }

    /// The lowest of the four nonces tells which of two crossing exchanges was one too many; who
    /// started it deletes its Child SA (RFC 7296 §2.8.1).
    fn settle(
        &mut self,
        ctx: &mut Context<'_>,
        ours: ChildId,
        our_lowest: &Nonce,
        theirs: &Crossing,
    ) {
        let name = self.name_for(self.tunnel_of(ours));
        if theirs.settled_by_peer {
            ctx.event(name, IkeEvent::ChildRedundant(ours));
            self.delete_soon(ours);
            return;
        }
        let Some(their_record) = self.children.get_mut(&theirs.child) else {
            return;
        };
        if *our_lowest < theirs.lowest {
            ctx.event(name, IkeEvent::ChildRedundant(ours));
            self.delete_soon(ours);
        } else {
            their_record.peer_deletes_until = Some(ctx.now + REDUNDANT_GRACE);
            ctx.event(name, IkeEvent::ChildRedundant(theirs.child));
        }
    }

    fn refused(mut self, ctx: &mut Context<'_>, creating: Creating, error: &Notify) -> Next {
        let Creating {
            tunnel, replaces, ..
        } = creating;
        // Another key exchange, if it is one that we offered (RFC 7296 §1.3).
        let current = creating.exchange.as_ref().map(|it| it.group());
        let wanted = error.wanted_key_exchange();
        let config = self.config_of(ctx, tunnel);
        let group = config.and_then(|config| {
            let mut others = config.esp.groups.iter().copied();
            others.find(|it| Some(*it) != current && Some(proposal::method(*it)) == wanted)
        });
        // Not beside a rekey of the peer's own, which then is the one that stays.
        let alone = creating.crossing.is_none();
        if group.is_some() && alone && creating.restarts < KE_RESTARTS_MAX {
            let replaced = replaces.zip(creating.replaced_inbound);
            return match self.start_create(ctx, tunnel, replaced, group, creating.restarts + 1) {
                Ok(()) => self.stay(),
                Err(error) => self.broken(ctx, &error),
            };
        }
        match (error.kind, replaces, &creating.crossing) {
            // The peer has deleted it after its own rekey, which we know of (§2.8.1).
            (NotifyType::CHILD_SA_NOT_FOUND, Some(_), Some(_)) => {
                self.refuse(ctx, tunnel, replaces, ChildError::Temporary);
            }
            // Gone at the peer: no Delete is needed (§2.25).
            (NotifyType::CHILD_SA_NOT_FOUND, Some(child), None) => {
                self.children.remove(&child);
                ctx.event(self.name_for(tunnel), IkeEvent::ChildUnknownToPeer(child));
            }
            (NotifyType::INVALID_KE_PAYLOAD, Some(_), Some(_)) => {
                self.refuse(ctx, tunnel, replaces, ChildError::Temporary);
            }
            (kind, _, _) => self.refuse(ctx, tunnel, replaces, child_error(kind)),
        }
        self.proceed(ctx)
    }

    /// Checks the peer's answer and derives the keys.
    fn complete(
        &self,
        ctx: &mut Context<'_>,
        creating: Creating,
        payloads: &Payloads,
    ) -> Result<(Child, Nonce, Option<Crossing>), ChildError> {
        let config = self.config_of(ctx, creating.tunnel);
        let config = config.ok_or(ChildError::Nonsense)?;
        let agreed = creating.offer.accept(&config, payloads)?;
        let theirs = payloads.nonce.as_ref().ok_or(ChildError::Nonsense)?;
        let shared = match (creating.exchange, &payloads.key_exchange) {
            (None, None) => None,
            // The peer took "NONE" and ignored our value (RFC 7296 §3.3.6).
            (Some(_), None) if agreed.algorithms.group.is_none() => None,
            (Some(exchange), Some(value))
                if agreed.algorithms.group == Some(exchange.group())
                    && value.method == proposal::method(exchange.group()) =>
            {
                let shared = exchange.agree(&value.data);
                Some(shared.map_err(|_| ChildError::Nonsense)?)
            }
            (None, Some(_)) | (Some(_), None | Some(_)) => return Err(ChildError::Nonsense),
        };
        let id = ctx.next_child();
        let child = agreed.into_child(
            ctx,
            &self.seed,
            Circumstances {
                id,
                path: self.session.path,
                replaces: creating.replaces,
                ping_address: self.announced(payloads),
                part: Part::Initiator,
                shared: shared.as_ref(),
                nonces: Nonces {
                    initiator: creating.nonce.as_bytes(),
                    responder: theirs.as_bytes(),
                },
            },
        );
        let lowest = creating.nonce.min(theirs.clone());
        Ok((child, lowest, creating.crossing))
    }

    /// The peer asks for a Child SA.
    pub(super) fn answer_create(
        mut self,
        ctx: &mut Context<'_>,
        reply_to: ReplyTo,
        payloads: Payloads,
    ) -> Next {
        let Answering {
            tunnel,
            child,
            payloads,
            lowest,
        } = match self.consider(ctx, &payloads) {
            Ok(answering) => answering,
            Err(Denial::Refused(kind, what)) => {
                ctx.event(self.name, IkeEvent::OfferRefused(what));
                return self.respond(ctx, reply_to, &only(kind));
            }
            Err(Denial::Ignored(tunnel, child)) => {
                ctx.event(self.name_for(tunnel), IkeEvent::RekeyIgnored(child));
                return self.respond(ctx, reply_to, &only(NotifyType::TEMPORARY_FAILURE));
            }
            Err(Denial::Answer(payloads)) => return self.respond(ctx, reply_to, &payloads),
            Err(Denial::Syntax) => return self.malformed_request(ctx, reply_to),
        };
        if let Some(Outstanding {
            asked: Asked::Create(ours),
            ..
        }) = &mut self.outstanding
            && ours.replaces.is_some()
            && ours.replaces == child.replaces
        {
            ours.crossing = Some(Crossing {
                child: child.id,
                lowest,
                settled_by_peer: false,
            });
        }
        if tunnel != self.name.tunnel && ctx.guests.add(self.name.id, tunnel) {
            let name = self.name_for(tunnel);
            ctx.event(name, IkeEvent::Joined(self.peer()));
            if let Some(until) = self.lifetime.authenticated_until() {
                ctx.event(name, IkeEvent::AuthenticatedUntil(until));
            }
        }
        self.add_child(tunnel, &child);
        self.keep_answer(KeptAnswer {
            child: child.id,
            reply_to,
            accepted: payloads,
            refused: only(NotifyType::TEMPORARY_FAILURE),
        });
        ctx.event(self.name_for(tunnel), IkeEvent::Child(Box::new(child)));
        self.stay()
    }

    /// Whether and how we agree.
    fn consider(&self, ctx: &mut Context<'_>, payloads: &Payloads) -> Result<Answering, Denial> {
        let replaces = payloads
            .notify(NotifyType::REKEY_SA)
            .map(|rekey| self.rekeyed(rekey))
            .transpose()?;
        let tunnel = match replaces {
            Some(replaced) => self.tunnel_of(replaced),
            None => self.tunnel_for(ctx, payloads),
        };
        if self.children_of(tunnel) >= ctx.limits.children_max {
            return Err(Refusal::Notify(NotifyType::NO_ADDITIONAL_SAS).into());
        }
        let config = self.config_of(ctx, tunnel);
        let config = config.ok_or(Refusal::Notify(NotifyType::TEMPORARY_FAILURE))?;
        if let Some(child) = replaces
            && config.role == Role::Client
            && config.epoch.server_rekey == ServerRekey::Ignore
        {
            return Err(Denial::Ignored(tunnel, child));
        }
        let (agreed, proposal, selectors) =
            child::answer(ctx, &config, payloads, ChildKeyExchange::AsConfigured)?;
        let theirs = payloads.nonce.as_ref().ok_or(Denial::Syntax)?;
        let exchange = accept_exchange(ctx, &agreed, payloads)?;
        let nonce = ctx.nonce().map_err(Refusal::from)?;

        let mut answer = vec![proposal, Payload::Nonce(nonce.clone())];
        let shared = match exchange {
            None => None,
            Some((exchange, value)) => {
                answer.push(public_value(exchange.as_ref()));
                let shared = exchange.agree(value);
                Some(shared.map_err(|_| Denial::Syntax)?)
            }
        };
        answer.extend(selectors);
        answer.extend(self.announcement(ctx, tunnel));
        let id = ctx.next_child();
        let child = agreed.into_child(
            ctx,
            &self.seed,
            Circumstances {
                id,
                path: self.session.path,
                replaces,
                ping_address: self.announced(payloads),
                part: Part::Responder,
                shared: shared.as_ref(),
                nonces: Nonces {
                    initiator: theirs.as_bytes(),
                    responder: nonce.as_bytes(),
                },
            },
        );
        Ok(Answering {
            tunnel,
            child,
            payloads: answer,
            lowest: nonce.min(theirs.clone()),
        })
    }

    /// Whose a new Child SA will be that the peer asks for: of this IKE SA's tunnel and its siblings
    /// the one that the selectors fit best, first those that have none here.
    fn tunnel_for(&self, ctx: &Context<'_>, payloads: &Payloads) -> TunnelId {
        let owner = self.name.tunnel;
        let siblings = ctx.pad.siblings(owner).iter();
        let rated = siblings.copied().chain([owner]).filter_map(|tunnel| {
            let config = self.config_of(ctx, tunnel)?;
            let fits = closeness(&config, payloads);
            (fits > 0).then_some((fits, self.children_of(tunnel) == 0, tunnel))
        });
        let best = rated.max_by_key(|(fits, vacant, _)| (*fits, *vacant));
        best.map_or(owner, |(_, _, tunnel)| tunnel)
    }

    /// How many Child SAs a tunnel has here.
    fn children_of(&self, tunnel: TunnelId) -> usize {
        let records = self.children.values();
        records.filter(|record| record.tunnel == tunnel).count()
    }

    /// What an epochgate peer is told to ping through a Child SA of this tunnel.
    fn announcement(&self, ctx: &Context<'_>, tunnel: TunnelId) -> Option<Payload> {
        if self.epochgate {
            announce::ping_address(ctx, tunnel)
        } else {
            None
        }
    }

    /// What an epochgate peer wants pinged through this Child SA.
    fn announced(&self, payloads: &Payloads) -> Option<IpAddr> {
        if self.epochgate {
            announce::read_ping_address(payloads)
        } else {
            None
        }
    }

    /// The Child SA that REKEY_SA names by the SPI that its sender receives on (§1.3.3).
    fn rekeyed(&self, rekey: &Notify) -> Result<ChildId, Denial> {
        let spi = rekey.child_spi().ok_or(Denial::Syntax)?;
        let found = self
            .children
            .iter()
            .find(|(_, child)| child.outbound.0.get() == spi)
            .map(|(id, _)| *id);
        match found {
            Some(child) if self.is_deleting(child) => {
                Err(Denial::Answer(vec![notify(NotifyType::TEMPORARY_FAILURE)]))
            }
            Some(child) => Ok(child),
            None => Err(Denial::Answer(vec![Payload::Notify(Notify::about_child(
                NotifyType::CHILD_SA_NOT_FOUND,
                Protocol::Esp,
                spi,
            ))])),
        }
    }
}

/// Our side of a key exchange, and the peer's public value.
type Exchange<'a> = (Box<dyn KeyExchange>, &'a [u8]);

/// The key exchange that the agreed algorithms ask for, if the peer's value is of that method.
fn accept_exchange<'a>(
    ctx: &Context<'_>,
    agreed: &Agreed,
    payloads: &'a Payloads,
) -> Result<Option<Exchange<'a>>, Denial> {
    let Some(group) = agreed.algorithms.group else {
        return Ok(None);
    };
    match &payloads.key_exchange {
        Some(value) if value.method == proposal::method(group) => {
            let exchange = ctx.crypto.key_exchange(group).map_err(Refusal::from)?;
            Ok(Some((exchange, &value.data)))
        }
        Some(_) | None => Err(Denial::Answer(vec![invalid_ke(group)])),
    }
}

/// The KE payload with our public value.
pub(super) fn public_value(exchange: &dyn KeyExchange) -> Payload {
    Payload::KeyExchange(KeyExchangePayload {
        method: proposal::method(exchange.group()),
        data: exchange.public_value().to_vec(),
    })
}
