//! IKE_INTERMEDIATE (RFC 9242), between IKE_SA_INIT and IKE_AUTH, with an additional key exchange
//! in it (RFC 9370 §2.2.2): ML-KEM beside the first method's curve or prime. Its secret goes into
//! every key from IKE_AUTH on, and AUTH covers both of its messages.

use std::sync::Arc;

use epochgate_ike_wire::{
    ExchangeType, KeyExchange as KeyExchangePayload, Message, NotifyType, Payload,
};

use crate::config::{IkeSuite, PostQuantum, TunnelConfig};
use crate::crypto::{Crypto, Decapsulation, Kem, Prf};
use crate::io::Datagram;
use crate::{Secret, Timestamp};

use super::auth::{Authenticating, malformed};
use super::context::{Context, Name};
use super::init::Handshake;
use super::keys::{ByPart, IkeKeys, Nonces};
use super::payloads::{Payloads, notify};
use super::proposal::{IkeAlgorithms, kem_method};
use super::sa::{IkeSa, Next};
use super::session::{InFlight, Received, Request, Session};
use super::{CloseReason, IkeEvent};

/// Message ID of IKE_AUTH after IKE_SA_INIT and one IKE_INTERMEDIATE.
const IKE_AUTH_MESSAGE_ID: u32 = 2;

/// What says that we know IKE_INTERMEDIATE, in IKE_SA_INIT (RFC 9242 §3.1).
pub(super) fn offer(suite: &IkeSuite) -> Option<Payload> {
    match suite.post_quantum {
        PostQuantum::Off => None,
        PostQuantum::Prefer | PostQuantum::Require => {
            Some(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED))
        }
    }
}

/// Whether the peer says so.
pub(super) fn is_supported(payloads: &Payloads) -> bool {
    payloads
        .notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED)
        .is_some()
}

/// Whether an additional key exchange was agreed on and is still to come.
pub(super) fn is_missing(handshake: &Handshake) -> bool {
    handshake.algorithms.additional.is_some() && handshake.intermediate.is_empty()
}

/// We sent IKE_INTERMEDIATE and wait.
pub(super) struct Intermediate {
    pub(super) name: Name,
    pub(super) session: Session,
    pub(super) since: Timestamp,
    config: Arc<TunnelConfig>,
    handshake: Handshake,
    kem: Kem,
    exchange: Box<dyn Decapsulation>,
    covered: Vec<u8>,
    in_flight: InFlight,
    initial_contact: bool,
}

/// What an initiator does after IKE_SA_INIT: IKE_INTERMEDIATE if that was agreed on, and else
/// IKE_AUTH.
pub(super) fn go_on(
    ctx: &mut Context<'_>,
    name: Name,
    config: Arc<TunnelConfig>,
    mut session: Session,
    handshake: Handshake,
    initial_contact: bool,
    since: Timestamp,
) -> Next {
    let Some(kem) = handshake.algorithms.additional else {
        return Authenticating::start(
            ctx,
            name,
            config,
            session,
            handshake,
            initial_contact,
            since,
        );
    };
    let sent = ctx
        .crypto
        .decapsulation(kem)
        .map_err(|error| error.to_string())
        .and_then(|exchange| {
            let request = [value(kem, exchange.encapsulation_key())];
            let schedule = ctx.limits.retransmission;
            let covered = session.covered_request(&request);
            let covered = covered.map_err(|error| error.to_string())?;
            session
                .request(ctx, ExchangeType::IkeIntermediate, &request, schedule)
                .map(|in_flight| (exchange, covered, in_flight))
                .map_err(|error| error.to_string())
        });
    match sent {
        Ok((exchange, covered, in_flight)) => Some(IkeSa::Intermediate(Box::new(Intermediate {
            name,
            session,
            since,
            config,
            handshake,
            kem,
            exchange,
            covered,
            in_flight,
            initial_contact,
        }))),
        Err(error) => {
            let reason = format!("cannot make IKE_INTERMEDIATE: {error}");
            ctx.event(name, IkeEvent::Closed(CloseReason::Failed(reason)));
            None
        }
    }
}

impl Intermediate {
    pub(super) fn algorithms(&self) -> IkeAlgorithms {
        self.handshake.algorithms
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.in_flight.due()
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        if self.in_flight.poll(ctx, &self.session.path) {
            return Some(IkeSa::Intermediate(Box::new(self)));
        }
        ctx.event(self.name, IkeEvent::Closed(CloseReason::NoAnswer));
        None
    }

    /// Its owner gives it up. To the responder it was half open, and ends by itself.
    pub(super) fn close(self, ctx: &mut Context<'_>) -> Next {
        ctx.event(self.name, IkeEvent::Closed(CloseReason::Asked));
        None
    }

    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        let received = self
            .session
            .receive(ctx, message, datagram, Some(&self.in_flight));
        match received {
            Received::Response(Ok(payloads)) => self.conclude(ctx, &payloads),
            Received::Response(Err(fault)) => {
                let reason = malformed(&self.config, fault);
                fail(ctx, self.name, reason)
            }
            // The responder is not authenticated yet: it may not ask for anything.
            Received::Request(_) | Received::Nothing => Some(IkeSa::Intermediate(Box::new(self))),
        }
    }

    fn conclude(mut self, ctx: &mut Context<'_>, payloads: &Payloads) -> Next {
        let tunnel = &self.config.name;
        if let Some(error) = payloads.error() {
            let kind = error.kind;
            let reason =
                format!("the peer of tunnel {tunnel} refuses IKE_INTERMEDIATE with {kind}");
            return fail(ctx, self.name, reason);
        }
        let shared = payloads
            .key_exchange
            .as_ref()
            .filter(|value| value.method == kem_method(self.kem))
            .and_then(|value| self.exchange.decapsulate(&value.data).ok());
        let Some(shared) = shared else {
            let reason = format!(
                "the peer of tunnel {tunnel} does not answer the additional key exchange that was \
                 agreed on ({})",
                self.kem
            );
            return fail(ctx, self.name, reason);
        };
        let messages = [self.covered.as_slice(), payloads.covered.as_slice()];
        fold(
            ctx.crypto,
            &mut self.session,
            &mut self.handshake,
            &shared,
            messages,
        );
        Authenticating::start(
            ctx,
            self.name,
            self.config,
            self.session,
            self.handshake,
            self.initial_contact,
            self.since,
        )
    }
}

fn fail(ctx: &mut Context<'_>, name: Name, reason: String) -> Next {
    ctx.event(name, IkeEvent::Closed(CloseReason::Failed(reason)));
    None
}

/// Answers the request of an initiator that is not authenticated yet. What is wrong with it is told
/// under the keys of IKE_SA_INIT, and the IKE SA stays half open.
pub(super) fn answer(
    ctx: &mut Context<'_>,
    kem: Kem,
    session: &mut Session,
    handshake: &mut Handshake,
    request: Request,
) {
    let reply_to = request.reply_to;
    let agreed = match &request.payloads {
        Err(fault) => Err(fault.notify()),
        Ok(payloads) => payloads
            .key_exchange
            .as_ref()
            .filter(|theirs| theirs.method == kem_method(kem))
            .and_then(|theirs| ctx.crypto.encapsulate(kem, &theirs.data).ok())
            .map(|(ciphertext, shared)| (value(kem, &ciphertext), shared, &payloads.covered))
            .ok_or_else(|| notify(NotifyType::INVALID_SYNTAX)),
    };
    let (response, shared) = match agreed {
        Ok((response, shared, theirs)) => ([response], Some((shared, theirs))),
        Err(refusal) => ([refusal], None),
    };
    let ours = session.covered_response(reply_to, &response);
    if session.respond(ctx, reply_to, &response).is_ok()
        && let (Some((shared, theirs)), Ok(ours)) = (shared, ours)
    {
        let messages = [theirs.as_slice(), ours.as_slice()];
        fold(ctx.crypto, session, handshake, &shared, messages);
    }
}

fn value(kem: Kem, octets: &[u8]) -> Payload {
    Payload::KeyExchange(KeyExchangePayload {
        method: kem_method(kem),
        data: octets.to_vec(),
    })
}

/// Takes the additional secret into the keys, and both messages, the initiator's first, into what
/// AUTH covers. The messages are authenticated with the SK_p under which they were sent
/// (RFC 9242 §3.3.2); `SKEYSEED(1) = prf(SK_d(0), SK(1) | Ni | Nr)` (RFC 9370 §2.2.2).
fn fold(
    crypto: &dyn Crypto,
    session: &mut Session,
    handshake: &mut Handshake,
    shared: &Secret,
    [initiator, responder]: [&[u8]; 2],
) {
    let IkeAlgorithms { prf, cipher, .. } = handshake.algorithms;
    let prove = &handshake.keys.prove;
    handshake.intermediate = int_auth(crypto, prf, prove, [initiator, responder]);
    let nonces = Nonces {
        initiator: handshake.nonce_initiator.as_bytes(),
        responder: handshake.nonce_responder.as_bytes(),
    };
    handshake.keys = IkeKeys::succeed(
        crypto,
        (prf, &handshake.keys.derive),
        (prf, cipher),
        shared,
        nonces,
        &session.spis,
    );
    session.renew_keys(cipher, &handshake.keys);
}

/// `IntAuth_i1 | IntAuth_r1 | IKE_AUTH_MID` (RFC 9242 §3.3.2).
pub(super) fn int_auth(
    crypto: &dyn Crypto,
    prf: Prf,
    prove: &ByPart<Secret>,
    [initiator, responder]: [&[u8]; 2],
) -> Vec<u8> {
    [
        crypto
            .prf(prf, prove.initiator.expose(), &[initiator])
            .expose(),
        crypto
            .prf(prf, prove.responder.expose(), &[responder])
            .expose(),
        &IKE_AUTH_MESSAGE_ID.to_be_bytes(),
    ]
    .concat()
}
