//! IKE_AUTH as initiator (RFC 7296 §1.2, §2.15): both ends prove their identities, and the first
//! Child SA is made. The responder's half is in [`super::auth_respond`].

use std::net::IpAddr;
use std::sync::Arc;

use epochgate_ike_wire::{Delete, ExchangeType, Message, NotifyType, Payload};
use ipnet::IpNet;

use crate::Timestamp;
use crate::config::{LocalAuth, TunnelConfig};
use crate::io::Datagram;

use super::announce;
use super::auth_eap;
use super::child::{self, Circumstances, Offer};
use super::configuration;
use super::context::{Context, Name};
use super::established::{ChildSeed, Established};
use super::identity;
use super::informational::{Closing, Lingering};
use super::init::Handshake;
use super::keys::Part;
use super::mobike;
use super::payloads::{Fault, Payloads, notify};
use super::ppk;
use super::proof;
use super::proposal::ChildKeyExchange;
use super::sa::{IkeSa, Next};
use super::session::{InFlight, Received, Session};
use super::{CloseReason, IkeEvent, Peer};

/// We sent IKE_AUTH and wait.
#[derive(Debug)]
pub(super) struct Authenticating {
    pub(super) name: Name,
    pub(super) session: Session,
    pub(super) since: Timestamp,
    pub(super) config: Arc<TunnelConfig>,
    pub(super) handshake: Handshake,
    pub(super) stage: Stage,
    offer: Offer,
    pub(super) in_flight: InFlight,
}

/// What the response will tell.
#[derive(Debug)]
pub(super) enum Stage {
    /// Whether our AUTH convinces; with the keys that count if the responder has no PPK.
    Proving(Option<ppk::Without>),
    /// How EAP goes on.
    Eap(auth_eap::Conversation),
    /// Whether our AUTH by EAP's key convinces.
    Keyed(auth_eap::Keyed),
}

impl Authenticating {
    /// Sends the IKE_AUTH request.
    pub(super) fn start(
        ctx: &mut Context<'_>,
        name: Name,
        config: Arc<TunnelConfig>,
        mut session: Session,
        mut handshake: Handshake,
        initial_contact: bool,
        since: Timestamp,
    ) -> Next {
        let sent = Offer::new(ctx, &config, ChildKeyExchange::Never)
            .map_err(|error| error.to_string())
            .and_then(|offer| {
                let (mut request, stage) =
                    request_payloads(ctx, name, &config, &mut handshake, &offer, initial_contact)?;
                request.extend(mobike::offer(ctx, &config, session.path.local.ip()));
                let schedule = ctx.limits.retransmission;
                session
                    .request(ctx, ExchangeType::IkeAuth, &request, schedule)
                    .map(|in_flight| (offer, stage, in_flight))
                    .map_err(|error| error.to_string())
            });
        match sent {
            Ok((offer, stage, in_flight)) => Some(IkeSa::Authenticating(Box::new(Self {
                name,
                session,
                since,
                config,
                handshake,
                stage,
                offer,
                in_flight,
            }))),
            Err(error) => {
                let reason = CloseReason::Failed(format!("cannot make IKE_AUTH: {error}"));
                ctx.event(name, IkeEvent::Closed(reason));
                None
            }
        }
    }

    /// What proves who we are, without any Child SA (RFC 6023 §3), as some peers begin.
    #[cfg(test)]
    pub(super) fn childless_request(&self, ctx: &mut Context<'_>) -> Vec<Payload> {
        let id = identity::identification(&self.config.local.id);
        let body = id.to_wire_body();
        let proof = proof::prove(ctx, &self.config, &self.handshake, Part::Initiator, &body);
        let auth = proof.map(|proof| proof.auth);
        std::iter::once(Payload::IdInitiator(id))
            .chain(auth)
            .collect()
    }

    pub(super) fn algorithms(&self) -> super::proposal::IkeAlgorithms {
        self.handshake.algorithms
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.in_flight.due()
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        if self.in_flight.poll(ctx, &self.session.path) {
            return Some(IkeSa::Authenticating(Box::new(self)));
        }
        ctx.event(self.name, IkeEvent::Closed(CloseReason::NoAnswer));
        None
    }

    /// Its owner gives it up; the responder hears of it if it has got so far.
    pub(super) fn close(self, ctx: &mut Context<'_>) -> Next {
        Closing::start(
            ctx,
            self.name,
            self.session,
            Some(self.in_flight.into()),
            Some(CloseReason::Asked),
        )
    }

    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        if self.in_flight.is_disowned_by(message) {
            ctx.event(self.name, IkeEvent::Forgotten);
        }
        let received = self
            .session
            .receive(ctx, message, datagram, Some(&self.in_flight));
        match received {
            Received::Response(Ok(payloads)) => self.conclude(ctx, payloads),
            Received::Response(Err(fault)) => {
                let reason = malformed(&self.config, fault);
                self.abandon(ctx, CloseReason::Failed(reason), NotifyType::INVALID_SYNTAX)
            }
            // The responder is not authenticated yet: it may not ask for anything.
            Received::Request(_) | Received::Nothing => Some(IkeSa::Authenticating(Box::new(self))),
        }
    }

    fn conclude(mut self, ctx: &mut Context<'_>, payloads: Payloads) -> Next {
        let without = match std::mem::replace(&mut self.stage, Stage::Proving(None)) {
            Stage::Proving(without) => without,
            Stage::Eap(conversation) => return self.converse(ctx, conversation, &payloads),
            Stage::Keyed(keyed) => return self.finish(ctx, &keyed, payloads),
        };
        if payloads.id_responder.is_none() || payloads.authentication.is_none() {
            // Without AUTH it can only be a refusal, and the peer has nothing to delete
            // (RFC 7296 §2.21.2).
            let reason = refusal(&self.config, &payloads);
            ctx.event(self.name, IkeEvent::Closed(reason));
            return None;
        }
        let proven = ppk::conclude(&self.config, &mut self.handshake, without, &payloads)
            .and_then(|()| self.judge(ctx, &payloads));
        match proven {
            Ok(_) => self.establish(ctx, payloads),
            Err(reason) => self.not_authentic(ctx, reason),
        }
    }

    /// Whether the responder is who the tunnel expects; the body of its ID payload.
    pub(super) fn judge(&self, ctx: &Context<'_>, payloads: &Payloads) -> Result<Vec<u8>, String> {
        let tunnel = &self.config.name;
        let Some(id) = &payloads.id_responder else {
            return Err(malformed(&self.config, Fault::Syntax));
        };
        if !identity::is(&id.identity, &self.config.remote.id) {
            return Err(format!(
                "the peer is {}, but tunnel {tunnel} expects {}: check the remote id here or the \
                 local id there",
                id.identity, self.config.remote.id
            ));
        }
        let body = id.to_wire_body();
        proof::judge(
            ctx,
            &self.config,
            &self.handshake,
            Part::Responder,
            &body,
            payloads,
            payloads.authentication.as_ref(),
        )
        .map_err(|doubt| doubt.explain("the peer", &self.config))?;
        Ok(body)
    }

    pub(super) fn establish(mut self, ctx: &mut Context<'_>, payloads: Payloads) -> Next {
        let local = self.session.path.local.ip();
        self.session.mobility = mobike::agreed(ctx, &self.config, &payloads, local, true);
        let announcement = announce::read(&payloads);
        let assigned = configuration::assigned(&self.config, &payloads);
        let peer = Peer {
            id: self.config.remote.id.clone(),
            epochgate: announcement.epochgate,
            ping_address: announcement.ping_address,
            nat: self.session.nat.found(),
            nat_asked: self.session.nat.asked,
            initial_contact: false,
            assigned: assigned.clone(),
        };
        ctx.event(self.name, IkeEvent::Established(peer.clone()));
        let seed = ChildSeed {
            prf: self.handshake.algorithms.prf,
            derive: self.handshake.keys.derive.clone(),
        };
        let agreed = self.offer.accept(&self.config, &payloads);
        let addresses = assigned.map(|it| it.addresses);
        let agreed = match &addresses {
            // Without an address of its own there is nothing that this end could send from.
            Some(none) if none.is_empty() && agreed.is_ok() => {
                Err(child::child_error(NotifyType::INTERNAL_ADDRESS_FAILURE))
            }
            Some(_) | None => agreed,
        };
        let mut established = Established::new(
            ctx,
            self.name,
            self.session,
            with_local(self.config, addresses),
            self.handshake.algorithms,
            seed,
            &peer,
            self.since,
        );
        established.hear_auth_lifetime(ctx, &payloads);
        match agreed {
            Ok(agreed) => {
                let id = ctx.next_child();
                let child = agreed.into_child(
                    ctx,
                    &established.seed,
                    Circumstances {
                        id,
                        path: established.session.path,
                        replaces: None,
                        ping_address: announcement.ping_address,
                        part: Part::Initiator,
                        shared: None,
                        nonces: self.handshake.nonces(),
                    },
                );
                established.add_child(self.name.tunnel, &child);
                ctx.event(self.name, IkeEvent::Child(Box::new(child)));
            }
            Err(error) => {
                // The peer believes in a Child SA that we cannot use.
                if payloads.error().is_none() && payloads.proposals.is_some() {
                    established.delete_unwanted(self.offer.inbound());
                }
                ctx.event(
                    self.name,
                    IkeEvent::ChildRefused {
                        replaces: None,
                        error,
                    },
                );
            }
        }
        established.proceed(ctx)
    }

    pub(super) fn not_authentic(self, ctx: &mut Context<'_>, reason: String) -> Next {
        self.abandon(
            ctx,
            CloseReason::AuthenticationFailed(reason),
            NotifyType::AUTHENTICATION_FAILED,
        )
    }

    /// The responder believes that the IKE SA exists: it is told in an exchange of its own that it
    /// does not (RFC 7296 §2.21.2), and the tunnel at once.
    pub(super) fn abandon(
        mut self,
        ctx: &mut Context<'_>,
        reason: CloseReason,
        kind: NotifyType,
    ) -> Next {
        ctx.event(self.name, IkeEvent::Closed(reason));
        let payloads = [notify(kind), Payload::Delete(Delete::IkeSa)];
        let schedule = ctx.limits.farewell;
        let in_flight = self
            .session
            .request(ctx, ExchangeType::Informational, &payloads, schedule);
        match in_flight {
            Ok(in_flight) => Closing::told(self.name, self.session, in_flight),
            Err(_) => Lingering::start(ctx, self.session),
        }
    }
}

fn request_payloads(
    ctx: &Context<'_>,
    name: Name,
    config: &TunnelConfig,
    handshake: &mut Handshake,
    offer: &Offer,
    initial_contact: bool,
) -> Result<(Vec<Payload>, Stage), String> {
    let id = identity::identification(&config.local.id);
    let body = id.to_wire_body();
    let mut payloads = vec![Payload::IdInitiator(id)];
    payloads.extend(proof::certificate_request(std::iter::once(config)));
    // Which of its identities we want (RFC 7296 §1.2).
    payloads.push(Payload::IdResponder(identity::identification(
        &config.remote.id,
    )));
    let stage = match &config.auth.local {
        // No AUTH: that asks for EAP (RFC 7296 §2.16).
        LocalAuth::Eap(_) => Stage::Eap(auth_eap::Conversation::new()),
        LocalAuth::Psk(_) | LocalAuth::Certificate(_) => {
            let without = ppk::begin(ctx, config, handshake)?;
            let proof = proof::prove(ctx, config, handshake, Part::Initiator, &body)?;
            payloads.extend(proof.certificates);
            payloads.push(proof.auth);
            if let Some(without) = &without {
                payloads.extend(ppk::present(ctx, config, handshake, without, &body)?);
            }
            Stage::Proving(without)
        }
    };
    payloads.push(offer.proposal(config));
    payloads.extend(offer.selectors());
    payloads.extend(configuration::request(
        config,
        ctx.pad.addresses(name.tunnel),
    ));
    if initial_contact {
        payloads.push(notify(NotifyType::INITIAL_CONTACT));
    }
    payloads.extend(announce::payloads(ctx, name.tunnel));
    Ok((payloads, stage))
}

/// The tunnel with what was assigned to us as its local side: what rekeys and the peer's own
/// exchanges are about from now on.
fn with_local(config: Arc<TunnelConfig>, addresses: Option<Vec<IpAddr>>) -> Arc<TunnelConfig> {
    match addresses {
        Some(addresses) if !addresses.is_empty() => Arc::new(TunnelConfig {
            local_traffic: addresses.into_iter().map(IpNet::from).collect(),
            ..TunnelConfig::clone(&config)
        }),
        Some(_) | None => config,
    }
}

/// What an IKE_AUTH response without AUTH means.
pub(super) fn refusal(config: &TunnelConfig, payloads: &Payloads) -> CloseReason {
    let tunnel = &config.name;
    match payloads.error().map(|error| error.kind) {
        Some(NotifyType::AUTHENTICATION_FAILED) => CloseReason::AuthenticationFailed(format!(
            "the peer refuses our authentication as {}: check psk and ids of tunnel {tunnel} on \
             both ends",
            config.local.id
        )),
        Some(kind @ (NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::TS_UNACCEPTABLE)) => {
            CloseReason::Failed(format!(
                "the peer refuses IKE_AUTH with {kind}: check algorithms and traffic of tunnel \
                 {tunnel} on both ends ({:?})",
                child::child_error(kind)
            ))
        }
        Some(kind) => CloseReason::Failed(format!(
            "the peer refuses IKE_AUTH with {kind}: its log says why"
        )),
        None => CloseReason::AuthenticationFailed(format!(
            "the peer does not authenticate itself: check tunnel {tunnel} there"
        )),
    }
}

/// What a response that cannot be read means.
pub(super) fn malformed(config: &TunnelConfig, fault: Fault) -> String {
    let tunnel = &config.name;
    match fault {
        Fault::Critical(kind) => format!(
            "the peer of tunnel {tunnel} demands that payload type {kind} is understood, which \
             epochgate does not"
        ),
        Fault::Syntax => format!("the peer of tunnel {tunnel} sent a malformed message"),
    }
}
