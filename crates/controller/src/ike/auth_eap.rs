//! EAP in IKE_AUTH as initiator (RFC 7296 §2.16): the responder proves itself first, by a
//! certificate; then we answer its EAP requests; then both ends prove that they have EAP's key.

use epochgate_ike_wire::{ExchangeType, NotifyType, Payload};

use crate::Secret;
use crate::config::{EapUser, LocalAuth};
use crate::eap::{Client, ClientStep};

use super::CloseReason;
use super::auth::{Authenticating, Stage, malformed, refusal};
use super::context::Context;
use super::identity;
use super::keys::Part;
use super::payloads::{Fault, Payloads};
use super::proof;
use super::sa::{IkeSa, Next};

/// A conversation with a responder.
#[derive(Debug)]
pub(super) struct Conversation {
    client: Client,
    /// The body of its ID payload, once it has proven that it is itself.
    responder: Option<Vec<u8>>,
}

/// EAP has succeeded; both AUTH payloads by its key are left.
#[derive(Debug)]
pub(super) struct Keyed {
    msk: Secret,
    responder: Vec<u8>,
}

impl Conversation {
    pub(super) fn new() -> Self {
        Self {
            client: Client::new(),
            responder: None,
        }
    }
}

impl Authenticating {
    /// A response during EAP.
    pub(super) fn converse(
        self,
        ctx: &mut Context<'_>,
        mut conversation: Conversation,
        payloads: &Payloads,
    ) -> Next {
        if conversation.responder.is_none() {
            match self.believe(ctx, payloads) {
                Ok(body) => conversation.responder = Some(body),
                Err(reason) => return self.refuse(ctx, reason),
            }
        }
        let LocalAuth::Eap(user) = &self.config.auth.local else {
            // EAP began because the tunnel says so, and its configuration is kept.
            let reason = malformed(&self.config, Fault::Syntax);
            return self.not_authentic(ctx, reason);
        };
        let Some(packet) = &payloads.eap else {
            let reason = refusal(&self.config, payloads);
            return self.refuse(ctx, reason);
        };
        let user = EapUser::clone(user);
        match conversation.client.handle(ctx.crypto, &user, packet) {
            ClientStep::Answer(packet) => {
                self.ask(ctx, &[Payload::Eap(packet)], Stage::Eap(conversation))
            }
            ClientStep::Done(msk) => {
                let id = identity::identification(&self.config.local.id).to_wire_body();
                let auth = proof::prove_by_key(ctx, &self.handshake, Part::Initiator, &id, &msk);
                let responder = conversation.responder.unwrap_or_default();
                self.ask(ctx, &[auth], Stage::Keyed(Keyed { msk, responder }))
            }
            ClientStep::Failed(reason) => {
                let reason = format!("EAP failed for tunnel {}: {reason}", self.config.name);
                self.not_authentic(ctx, reason)
            }
        }
    }

    /// The responder's AUTH by EAP's key.
    pub(super) fn finish(self, ctx: &mut Context<'_>, keyed: &Keyed, payloads: Payloads) -> Next {
        let Some(auth) = &payloads.authentication else {
            let reason = refusal(&self.config, &payloads);
            return self.refuse(ctx, reason);
        };
        let Keyed { msk, responder } = keyed;
        let part = Part::Responder;
        match proof::judge_by_key(ctx, &self.handshake, part, responder, msk, auth) {
            Ok(()) => self.establish(ctx, payloads),
            Err(_) => {
                let tunnel = &self.config.name;
                let reason = format!("the peer of tunnel {tunnel} has not got the key of EAP");
                self.not_authentic(ctx, reason)
            }
        }
    }

    /// Who the responder proves to be; EAP goes on with nobody else.
    fn believe(&self, ctx: &Context<'_>, payloads: &Payloads) -> Result<Vec<u8>, CloseReason> {
        if payloads.id_responder.is_none() || payloads.authentication.is_none() {
            return Err(refusal(&self.config, payloads));
        }
        self.judge(ctx, payloads)
            .map_err(CloseReason::AuthenticationFailed)
    }

    /// The next request.
    fn ask(mut self, ctx: &mut Context<'_>, payloads: &[Payload], stage: Stage) -> Next {
        let schedule = ctx.limits.retransmission;
        let sent = self
            .session
            .request(ctx, ExchangeType::IkeAuth, payloads, schedule);
        match sent {
            Ok(in_flight) => {
                self.in_flight = in_flight;
                self.stage = stage;
                Some(IkeSa::Authenticating(Box::new(self)))
            }
            Err(error) => {
                let reason = CloseReason::Failed(format!("cannot make IKE_AUTH: {error}"));
                self.abandon(ctx, reason, NotifyType::AUTHENTICATION_FAILED)
            }
        }
    }

    fn refuse(self, ctx: &mut Context<'_>, reason: CloseReason) -> Next {
        self.abandon(ctx, reason, NotifyType::AUTHENTICATION_FAILED)
    }
}
