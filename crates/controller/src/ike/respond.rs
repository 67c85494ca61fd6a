//! IKE_SA_INIT as responder (RFC 7296 §1.2, §2.6): nothing is kept for a request that cannot be
//! agreed to, and nothing at all before a cookie when many are half open.

use std::net::IpAddr;

use epochgate_ike_wire::{
    ExchangeType, Flags, Header, IkeSpi, Message, Nonce, NotifyType, Payload,
};

use crate::Timestamp;
use crate::config::{NatTraversal, TunnelConfig};
use crate::crypto::CryptoError;
use crate::io::Datagram;

use super::auth_respond_eap::Conversation;
use super::context::Context;
use super::cookie::{Claim, Cookies};
use super::fragment;
use super::half_open::{Admission, InitKey};
use super::init::{Handshake, invalid_ke, only};
use super::keys::{IkeKeys, IkeSpis, Nonces, Part};
use super::nat_detection::{self, Nat};
use super::payloads::{Payloads, notify, notify_with};
use super::proof::Abilities;
use super::proposal::{self, Chosen, IkeAlgorithms};
use super::sa::{IkeSa, Next};
use super::session::{Received, Session};
use super::{IkeSaId, Path, auth_respond, intermediate};

/// We answered IKE_SA_INIT and wait for IKE_AUTH.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) id: IkeSaId,
    pub(super) session: Session,
    pub(super) handshake: Handshake,
    pub(super) since: Timestamp,
    expires: Timestamp,
    /// EAP, between the first IKE_AUTH request and the last.
    pub(super) conversation: Option<Box<Conversation>>,
}

/// What comes of an IKE_SA_INIT request.
pub(super) enum Answer {
    /// Only a message.
    Stateless(Vec<u8>),
    /// A half-open IKE SA, its response sent.
    HalfOpen(Box<HalfOpen>),
    /// Dropped.
    Nothing,
}

/// Whether cookies are demanded now.
pub(super) struct Load<'a> {
    pub(super) admission: Admission,
    pub(super) cookies: &'a mut Cookies,
}

/// Handles a request whose responder SPI is zero and which is no retransmission. `payloads` are
/// its payloads, `nonce` its nonce.
pub(super) fn respond(
    ctx: &mut Context<'_>,
    id: IkeSaId,
    load: &mut Load<'_>,
    initiator: IkeSpi,
    payloads: &Payloads,
    datagram: &Datagram,
) -> Result<Answer, CryptoError> {
    let (Some(offer), Some(theirs), Some(nonce)) =
        (&payloads.proposals, &payloads.key_exchange, &payloads.nonce)
    else {
        ctx.counters.malformed += 1;
        return Ok(Answer::Nothing);
    };
    if load.admission == Admission::Full {
        ctx.counters.half_open_refused += 1;
        return Ok(Answer::Nothing);
    }
    let claim = Claim {
        nonce: nonce.as_bytes(),
        address: datagram.remote,
        spi: initiator,
    };
    if load.admission == Admission::WithCookie {
        let lifetime = ctx.limits.cookie_secret_lifetime;
        let known = match payloads.notify(NotifyType::COOKIE) {
            Some(cookie) => {
                load.cookies
                    .recognise(ctx.crypto, lifetime, &claim, &cookie.data, ctx.now)?
            }
            None => false,
        };
        if !known {
            let cookie = load.cookies.make(ctx.crypto, lifetime, &claim, ctx.now)?;
            ctx.counters.cookies_sent += 1;
            return Ok(stateless(
                initiator,
                vec![notify_with(NotifyType::COOKIE, cookie)],
            ));
        }
    }
    let guess = Some(theirs.method);
    let candidates: Vec<_> = ctx
        .pad
        .distinct(datagram.local.ip(), datagram.remote.ip())
        .map(|(_, config)| config)
        .collect();
    let Some((config, chosen)) = candidates.iter().find_map(|config| {
        proposal::choose_ike(&config.ike, offer, guess).map(|chosen| (config, chosen))
    }) else {
        let reason = if candidates.is_empty() {
            "no tunnel is configured for its address"
        } else {
            "its IKE algorithms meet none of ours (NO_PROPOSAL_CHOSEN): make `algorithms.ike` of both \
             ends meet"
        };
        ctx.stranger(datagram.remote, format!("IKE_SA_INIT refused: {reason}"));
        return Ok(stateless(initiator, only(NotifyType::NO_PROPOSAL_CHOSEN)));
    };
    let Chosen {
        algorithms,
        proposal: mut answer,
    } = chosen;
    if theirs.method != proposal::method(algorithms.group) {
        return Ok(stateless(initiator, vec![invalid_ke(algorithms.group)]));
    }
    if algorithms.additional.is_some() && !intermediate::is_supported(payloads) {
        let reason = "IKE_SA_INIT refused: it offers an additional key exchange, but not \
                      IKE_INTERMEDIATE for it (RFC 9370 §2.2.2)";
        ctx.stranger(datagram.remote, reason.to_owned());
        return Ok(stateless(initiator, only(NotifyType::NO_PROPOSAL_CHOSEN)));
    }
    answer.spi = Vec::new();
    // Which tunnel it will be is not known yet: a peer that speaks NAT traversal is answered if any
    // of them allows it. One whose tunnel is to be without does not ask for it.
    let speaks_nat = candidates
        .iter()
        .any(|config| config.nat_traversal == NatTraversal::Auto);
    let abilities = Abilities::read(payloads);
    let authentication = abilities.answer(candidates.iter().map(|config| config.as_ref()));
    half_open(
        ctx,
        HalfOpenParts {
            id,
            initiator,
            nonce: nonce.clone(),
            public_value: &theirs.data,
            algorithms,
            answer: Payload::SecurityAssociation(vec![answer]),
            speaks_nat,
            config,
            abilities,
            authentication,
        },
        payloads,
        datagram,
    )
}

struct HalfOpenParts<'a> {
    id: IkeSaId,
    initiator: IkeSpi,
    nonce: Nonce,
    public_value: &'a [u8],
    algorithms: IkeAlgorithms,
    answer: Payload,
    speaks_nat: bool,
    /// The likeliest tunnel; which it will be IKE_AUTH tells.
    config: &'a TunnelConfig,
    abilities: Abilities,
    /// What we say of authentication.
    authentication: Vec<Payload>,
}

fn half_open(
    ctx: &mut Context<'_>,
    parts: HalfOpenParts<'_>,
    payloads: &Payloads,
    datagram: &Datagram,
) -> Result<Answer, CryptoError> {
    let HalfOpenParts {
        id,
        initiator,
        nonce,
        public_value,
        algorithms,
        answer,
        speaks_nat,
        config,
        abilities,
        authentication,
    } = parts;
    let exchange = ctx.crypto.key_exchange(algorithms.group)?;
    let ours = exchange.public_value().to_vec();
    let Ok(shared) = exchange.agree(public_value) else {
        ctx.counters.malformed += 1;
        return Ok(Answer::Nothing);
    };
    let spis = IkeSpis {
        initiator,
        responder: ctx.ike_spi()?,
    };
    // The initiator hashed a responder SPI of zero (RFC 7296 §2.23).
    let asked = IkeSpis {
        responder: IkeSpi::ZERO,
        ..spis
    };
    let nat = if speaks_nat {
        Nat::detect(ctx.crypto, &asked, datagram, payloads)
    } else {
        None
    };
    let nonce_responder = ctx.nonce()?;
    let mut response = vec![
        answer,
        Payload::KeyExchange(epochgate_ike_wire::KeyExchange {
            method: proposal::method(algorithms.group),
            data: ours,
        }),
        Payload::Nonce(nonce_responder.clone()),
    ];
    if nat.is_some() {
        response.extend(nat_detection::notifies(
            ctx.crypto,
            &spis,
            datagram.local,
            datagram.remote,
        ));
    }
    let fragment_size = fragment::agreed(config, payloads);
    if fragment_size.is_some() {
        response.extend(fragment::offer(config));
    }
    // The first Child SA may come later, by CREATE_CHILD_SA (RFC 6023 §3).
    response.push(notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED));
    response.extend(authentication);
    if algorithms.additional.is_some() {
        response.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED));
    }
    let header = response_header(spis);
    let Ok(response) = (Message {
        header,
        payloads: response,
    })
    .encode() else {
        return Err(CryptoError::Provider);
    };
    let keys = IkeKeys::derive(
        ctx.crypto,
        algorithms.prf,
        algorithms.cipher,
        &shared,
        Nonces {
            initiator: nonce.as_bytes(),
            responder: nonce_responder.as_bytes(),
        },
        &spis,
    );
    let nat = nat.unwrap_or_default();
    let path = Path {
        local: datagram.local,
        remote: datagram.remote,
        encapsulated: nat.found(),
    };
    let mut session = Session::new(spis, Part::Responder, algorithms.cipher, &keys, path, nat);
    session.transport.fragment_size = fragment_size;
    ctx.transmit(datagram.local, datagram.remote, response.clone());
    Ok(Answer::HalfOpen(Box::new(HalfOpen {
        id,
        session,
        handshake: Handshake {
            algorithms,
            keys,
            request: datagram.payload.clone(),
            response,
            nonce_initiator: nonce,
            nonce_responder,
            abilities,
            intermediate: Vec::new(),
        },
        since: ctx.now,
        expires: ctx.now + ctx.limits.half_open.lifetime,
        conversation: None,
    })))
}

fn response_header(spis: IkeSpis) -> Header {
    let flags = Flags {
        response: true,
        ..Flags::default()
    };
    Header::new(
        spis.initiator,
        spis.responder,
        ExchangeType::IkeSaInit,
        flags,
        0,
    )
}

/// A response that leaves nothing behind: its responder SPI is zero.
pub(super) fn stateless(initiator: IkeSpi, payloads: Vec<Payload>) -> Answer {
    let header = response_header(IkeSpis {
        initiator,
        responder: IkeSpi::ZERO,
    });
    match (Message { header, payloads }).encode() {
        Ok(octets) => Answer::Stateless(octets),
        // A notify always fits.
        Err(_) => Answer::Nothing,
    }
}

impl HalfOpen {
    pub(super) fn key(&self) -> InitKey {
        (
            self.session.spis.initiator,
            self.handshake.nonce_initiator.clone(),
        )
    }

    /// Where IKE_SA_INIT came from.
    pub(super) fn source(&self) -> IpAddr {
        self.session.path.remote.ip()
    }

    pub(super) fn spi(&self) -> IkeSpi {
        self.session.spis.responder
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        self.expires
    }

    pub(super) fn handle_timeout(self, ctx: &mut Context<'_>) -> Next {
        if ctx.now < self.expires {
            return self.stay();
        }
        ctx.counters.half_open_expired += 1;
        None
    }

    /// The initiator has not got our response: the same octets again, to the same octets only
    /// (RFC 7296 §2.1).
    pub(super) fn repeat(&self, ctx: &mut Context<'_>, datagram: &Datagram) {
        if datagram.payload == self.handshake.request {
            ctx.counters.repeated += 1;
            ctx.transmit(
                datagram.local,
                datagram.remote,
                self.handshake.response.clone(),
            );
        }
    }

    /// A message for this IKE SA: only IKE_AUTH may come, and before it the IKE_INTERMEDIATE that
    /// was agreed on (RFC 9242 §3.2), or the repetition of that.
    pub(super) fn handle_message(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        let awaited = match message.header.exchange {
            ExchangeType::IkeIntermediate => self.handshake.algorithms.additional,
            ExchangeType::IkeAuth if intermediate::is_missing(&self.handshake) => None,
            ExchangeType::IkeAuth => {
                return self.authenticate(ctx, message, datagram);
            }
            ExchangeType::IkeSaInit
            | ExchangeType::CreateChildSa
            | ExchangeType::Informational
            | ExchangeType::Other(_) => None,
        };
        let Some(kem) = awaited else {
            ctx.counters.outside_window += 1;
            return self.stay();
        };
        match self.session.receive(ctx, message, datagram, None) {
            Received::Request(request) if intermediate::is_missing(&self.handshake) => {
                self.session.path.local = datagram.local;
                self.session.path.remote = datagram.remote;
                intermediate::answer(ctx, kem, &mut self.session, &mut self.handshake, request);
            }
            Received::Request(_) | Received::Response(_) | Received::Nothing => {}
        }
        self.stay()
    }

    fn authenticate(
        mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
    ) -> Next {
        match self.session.receive(ctx, message, datagram, None) {
            Received::Request(request) => {
                // Where IKE_AUTH comes from is where the initiator floated to (§2.23).
                self.session.path.local = datagram.local;
                self.session.path.remote = datagram.remote;
                match self.conversation.take() {
                    None => auth_respond::answer(ctx, self, request),
                    Some(conversation) => conversation.handle(ctx, self, request),
                }
            }
            Received::Response(_) | Received::Nothing => self.stay(),
        }
    }

    fn stay(self) -> Next {
        Some(IkeSa::HalfOpen(Box::new(self)))
    }
}
