//! EAP in IKE_AUTH as responder (RFC 7296 §2.16): we prove ourselves by a certificate, ask the
//! initiator for its user and that user's proof, and let it in once it has shown that it has EAP's
//! key. Until then its IKE SA is half open, and counted and timed as such; whatever is not exactly
//! what is due ends it.

use std::sync::Arc;

use epochgate_ike_wire::{NotifyType, Payload};

use crate::Secret;
use crate::config::{RemoteAuth, TunnelConfig};
use crate::eap::{Server, ServerStep};

use super::auth_respond::{Admitted, Half, deny};
use super::context::{Context, Name};
use super::identity;
use super::init::only;
use super::keys::Part;
use super::payloads::Payloads;
use super::proof;
use super::respond::HalfOpen;
use super::sa::{IkeSa, Next};
use super::session::{ReplyTo, Request};
use super::{CloseReason, IkeEvent, TunnelId};

/// A conversation with an initiator.
#[derive(Debug)]
pub(super) struct Conversation {
    tunnel: TunnelId,
    config: Arc<TunnelConfig>,
    /// Its first IKE_AUTH request: what it wants, should it be let in.
    first: Payloads,
    /// The body of its ID payload.
    initiator: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Our EAP request waits for its response.
    Asking(Server),
    /// EAP has succeeded; its AUTH by this key is due.
    Keyed(Secret),
}

/// Proves ourselves and asks the first question.
pub(super) fn begin(
    ctx: &mut Context<'_>,
    mut half_open: HalfOpen,
    admitted: Admitted,
    first: Payloads,
    reply_to: ReplyTo,
) -> Next {
    let Admitted { tunnel, config, .. } = admitted;
    let our_id = identity::identification(&config.local.id);
    let body = our_id.to_wire_body();
    let proof = proof::prove(ctx, &config, &half_open.handshake, Part::Responder, &body);
    let proof = match proof {
        Ok(proof) => proof,
        Err(reason) => {
            let name = Name {
                id: half_open.id,
                tunnel,
            };
            if ctx.strangers.take(ctx.now) {
                ctx.event(name, IkeEvent::Closed(CloseReason::Failed(reason)));
            }
            return conclude(
                ctx,
                half_open,
                reply_to,
                &only(NotifyType::AUTHENTICATION_FAILED),
            );
        }
    };
    let (server, packet) = Server::begin(&config.local.id.to_string());
    let mut answer = vec![Payload::IdResponder(our_id)];
    answer.extend(proof.certificates);
    answer.extend([proof.auth, Payload::Eap(packet)]);
    let id = first.id_initiator.as_ref();
    half_open.conversation = Some(Box::new(Conversation {
        initiator: id.map(|id| id.to_wire_body()).unwrap_or_default(),
        tunnel,
        config,
        first,
        state: State::Asking(server),
    }));
    go_on(ctx, half_open, reply_to, &answer)
}

impl Conversation {
    /// The next IKE_AUTH request.
    pub(super) fn handle(
        mut self: Box<Self>,
        ctx: &mut Context<'_>,
        mut half_open: HalfOpen,
        request: Request,
    ) -> Next {
        let reply_to = request.reply_to;
        let payloads = match request.payloads {
            Ok(payloads) => payloads,
            Err(fault) => return conclude(ctx, half_open, reply_to, &[fault.notify()]),
        };
        let RemoteAuth::Eap(users) = &self.config.auth.remote else {
            return conclude(
                ctx,
                half_open,
                reply_to,
                &only(NotifyType::AUTHENTICATION_FAILED),
            );
        };
        match (&mut self.state, &payloads.eap, &payloads.authentication) {
            (State::Asking(server), Some(packet), None) => {
                match server.handle(ctx.crypto, users, packet) {
                    ServerStep::Ask(packet) => {
                        half_open.conversation = Some(self);
                        go_on(ctx, half_open, reply_to, &[Payload::Eap(packet)])
                    }
                    ServerStep::Done { success, msk, .. } => {
                        self.state = State::Keyed(msk);
                        half_open.conversation = Some(self);
                        go_on(ctx, half_open, reply_to, &[Payload::Eap(success)])
                    }
                    ServerStep::Failed { failure, reason } => {
                        self.tell(ctx, &half_open, &reason);
                        conclude(ctx, half_open, reply_to, &[Payload::Eap(failure)])
                    }
                }
            }
            (State::Keyed(msk), None, Some(auth)) => {
                let (handshake, part) = (&half_open.handshake, Part::Initiator);
                let verdict = proof::judge_by_key(ctx, handshake, part, &self.initiator, msk, auth);
                if verdict.is_err() {
                    self.tell(ctx, &half_open, "it has not got the key of EAP");
                    let answer = only(NotifyType::AUTHENTICATION_FAILED);
                    return conclude(ctx, half_open, reply_to, &answer);
                }
                let msk = msk.clone();
                let Self {
                    tunnel,
                    config,
                    first,
                    ..
                } = *self;
                Half {
                    name: Name {
                        id: half_open.id,
                        tunnel,
                    },
                    session: half_open.session,
                    handshake: half_open.handshake,
                    config,
                    since: half_open.since,
                    ppk: false,
                    msk: Some(msk),
                }
                .establish(ctx, reply_to, &first)
            }
            (State::Asking(_) | State::Keyed(_), _, _) => {
                self.tell(ctx, &half_open, "it sent something that is not due");
                let answer = only(NotifyType::AUTHENTICATION_FAILED);
                conclude(ctx, half_open, reply_to, &answer)
            }
        }
    }

    /// Tells the tunnel why; not too often, since anybody can provoke it.
    fn tell(&self, ctx: &mut Context<'_>, half_open: &HalfOpen, reason: &str) {
        if !ctx.strangers.take(ctx.now) {
            return;
        }
        let who = self.first.id_initiator.as_ref();
        let who = who.map_or_else(String::new, |id| id.identity.to_string());
        let text = format!(
            "EAP failed for {who} of tunnel {}: {reason}",
            self.config.name
        );
        let name = Name {
            id: half_open.id,
            tunnel: self.tunnel,
        };
        let reason = CloseReason::AuthenticationFailed(text);
        ctx.event(name, IkeEvent::Closed(reason));
    }
}

fn go_on(
    ctx: &mut Context<'_>,
    mut half_open: HalfOpen,
    reply_to: ReplyTo,
    answer: &[Payload],
) -> Next {
    match half_open.session.respond(ctx, reply_to, answer) {
        Ok(()) => Some(IkeSa::HalfOpen(Box::new(half_open))),
        Err(_) => None,
    }
}

/// The last answer; a peer that does not get it asks again.
fn conclude(
    ctx: &mut Context<'_>,
    half_open: HalfOpen,
    reply_to: ReplyTo,
    answer: &[Payload],
) -> Next {
    deny(ctx, half_open.session, reply_to, answer)
}
