//! IKE_SA_INIT as initiator (RFC 7296 §1.2): algorithms, key exchange, nonces, NAT detection. Its
//! responses are not authenticated, so none of them ends an attempt at once (§2.21.1). The
//! responder's half is in [`super::respond`].

use std::net::SocketAddr;
use std::sync::Arc;

use epochgate_ike_wire::{
    ExchangeType, Flags, Header, IkeSpi, Message, Nonce, NotifyType, Payload,
};

use crate::Timestamp;
use crate::config::{NatTraversal, TunnelConfig};
use crate::crypto::{CryptoError, Group, KeyExchange};
use crate::io::Datagram;

use super::context::{Context, Name};
use super::fragment;
use super::keys::{IkeKeys, IkeSpis, Nonces, Part, SignedOctets};
use super::limits::INIT_RESTARTS_MAX;
use super::nat_detection::{self, NAT_T_PORT, Nat};
use super::payloads::{Payloads, notify, notify_with};
use super::proof::Abilities;
use super::proposal::{self, IkeAlgorithms};
use super::retransmit::{Due, Retransmit};
use super::sa::{IkeSa, Next};
use super::session::Session;
use super::{CloseReason, IkeEvent, Path, intermediate};

/// The payload types that an IKE_SA_INIT request is made of, and its octets.
struct Question<'a> {
    spi: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
    config: &'a TunnelConfig,
    nonce: &'a Nonce,
    exchange: &'a dyn KeyExchange,
    cookie: Option<&'a [u8]>,
}

/// We sent IKE_SA_INIT and wait.
pub(super) struct Initiating {
    pub(super) name: Name,
    config: Arc<TunnelConfig>,
    initial_contact: bool,
    spi: IkeSpi,
    local: SocketAddr,
    remote: SocketAddr,
    nonce: Nonce,
    exchange: Box<dyn KeyExchange>,
    cookie: Option<Vec<u8>>,
    request: Vec<u8>,
    timer: Retransmit,
    restarts: u32,
    /// What an unauthenticated response said, and until when we hope for a better one.
    refusal: Option<(CloseReason, Timestamp)>,
    since: Timestamp,
}

/// What an IKE_SA_INIT exchange gave, and AUTH will cover (RFC 7296 §2.15).
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    pub(super) algorithms: IkeAlgorithms,
    pub(super) keys: IkeKeys,
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) nonce_initiator: Nonce,
    pub(super) nonce_responder: Nonce,
    /// What the peer says of authentication.
    pub(super) abilities: Abilities,
    /// IntAuth of the IKE_INTERMEDIATE exchange, once it is done (RFC 9242 §3.3.2).
    pub(super) intermediate: Vec<u8>,
}

impl Handshake {
    /// Both nonces.
    pub(super) fn nonces(&self) -> Nonces<'_> {
        Nonces {
            initiator: self.nonce_initiator.as_bytes(),
            responder: self.nonce_responder.as_bytes(),
        }
    }

    /// What this part signs, saying this identity.
    pub(super) fn signed<'a>(&'a self, by: Part, id_body: &'a [u8]) -> SignedOctets<'a> {
        match by {
            Part::Initiator => SignedOctets {
                message: &self.request,
                nonce: self.nonce_responder.as_bytes(),
                id_body,
                prove: &self.keys.prove.initiator,
                intermediate: &self.intermediate,
            },
            Part::Responder => SignedOctets {
                message: &self.response,
                nonce: self.nonce_initiator.as_bytes(),
                id_body,
                prove: &self.keys.prove.responder,
                intermediate: &self.intermediate,
            },
        }
    }
}

impl Initiating {
    /// Sends the first IKE_SA_INIT request.
    pub(super) fn start(
        ctx: &mut Context<'_>,
        name: Name,
        config: Arc<TunnelConfig>,
        spi: IkeSpi,
        (local, remote): (SocketAddr, SocketAddr),
        initial_contact: bool,
    ) -> Result<Self, CloseReason> {
        let &group = config.ike.groups.first().ok_or_else(|| {
            CloseReason::Failed("no key exchange method is configured for IKE".to_owned())
        })?;
        let exchange = ctx.crypto.key_exchange(group).map_err(provider)?;
        let nonce = ctx.nonce().map_err(provider)?;
        let request = Question {
            spi,
            local,
            remote,
            config: &config,
            nonce: &nonce,
            exchange: exchange.as_ref(),
            cookie: None,
        }
        .encode(ctx)?;
        ctx.transmit(local, remote, request.clone());
        Ok(Self {
            name,
            config,
            initial_contact,
            spi,
            local,
            remote,
            nonce,
            exchange,
            cookie: None,
            request,
            timer: Retransmit::start(ctx.limits.retransmission, ctx.now),
            restarts: 0,
            refusal: None,
            since: ctx.now,
        })
    }

    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Our SPI, and the addresses.
    pub(super) fn whereabouts(&self) -> (IkeSpi, SocketAddr, SocketAddr) {
        (self.spi, self.local, self.remote)
    }

    /// The IKE SA is given up by its owner.
    pub(super) fn close(self, ctx: &mut Context<'_>) -> Next {
        ctx.event(self.name, IkeEvent::Closed(CloseReason::Asked));
        None
    }

    pub(super) fn next_timeout(&self) -> Timestamp {
        match &self.refusal {
            Some((_, until)) => self.timer.due().min(*until),
            None => self.timer.due(),
        }
    }

    pub(super) fn handle_timeout(mut self, ctx: &mut Context<'_>) -> Next {
        let patience_over = matches!(&self.refusal, Some((_, until)) if *until <= ctx.now);
        match self.timer.poll(ctx.now) {
            Due::GiveUp => self.give_up(ctx),
            Due::Later | Due::Again if patience_over => self.give_up(ctx),
            Due::Later => self.stay(),
            Due::Again => {
                ctx.counters.retransmissions += 1;
                ctx.transmit(self.local, self.remote, self.request.clone());
                self.stay()
            }
        }
    }

    /// A response that carries our SPI.
    pub(super) fn handle_response(
        self,
        ctx: &mut Context<'_>,
        message: Message,
        datagram: &Datagram,
    ) -> Next {
        let header = message.header;
        if header.message_id != 0 || header.flags.initiator {
            ctx.counters.outside_window += 1;
            return self.stay();
        }
        let Ok(payloads) = Payloads::sort(message.payloads) else {
            ctx.counters.malformed += 1;
            return self.stay();
        };
        // A responder that wants a cookie says nothing else (RFC 7296 §2.6).
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
            let cookie = cookie.data.clone();
            return self.restart(ctx, None, Some(cookie));
        }
        if let Some(error) = payloads.error() {
            let wanted = error.wanted_key_exchange();
            let kind = error.kind;
            // The group must be one that we offered, or the hint is a downgrade (§2.7).
            let group = self
                .config
                .ike
                .groups
                .iter()
                .copied()
                .filter(|group| *group != self.exchange.group())
                .find(|group| Some(proposal::method(*group)) == wanted);
            return match group {
                Some(group) => {
                    let cookie = self.cookie.clone();
                    self.restart(ctx, Some(group), cookie)
                }
                None => self.refused(ctx, kind),
            };
        }
        self.agree(ctx, header.responder_spi, payloads, datagram)
    }

    /// The request again, with a cookie (RFC 7296 §2.6) or another key exchange (§1.2) or both
    /// (§2.6.1). SPI and nonce stay: the cookie is bound to them.
    fn restart(
        mut self,
        ctx: &mut Context<'_>,
        group: Option<Group>,
        cookie: Option<Vec<u8>>,
    ) -> Next {
        if self.restarts == INIT_RESTARTS_MAX || cookie.as_ref().is_some_and(Vec::is_empty) {
            ctx.counters.malformed += 1;
            return self.stay();
        }
        if let Some(group) = group {
            match ctx.crypto.key_exchange(group) {
                Ok(exchange) => self.exchange = exchange,
                Err(error) => return self.fail(ctx, provider(error)),
            }
        }
        let question = Question {
            spi: self.spi,
            local: self.local,
            remote: self.remote,
            config: &self.config,
            nonce: &self.nonce,
            exchange: self.exchange.as_ref(),
            cookie: cookie.as_deref(),
        };
        match question.encode(ctx) {
            Ok(request) => self.request = request,
            Err(reason) => return self.fail(ctx, reason),
        }
        self.cookie = cookie;
        self.restarts += 1;
        self.timer = Retransmit::start(ctx.limits.retransmission, ctx.now);
        ctx.transmit(self.local, self.remote, self.request.clone());
        self.stay()
    }

    /// Anybody can send an error notify: remember it, but go on for a while (RFC 7296 §2.21.1).
    fn refused(mut self, ctx: &mut Context<'_>, kind: NotifyType) -> Next {
        let tunnel = &self.config.name;
        let reason = match kind {
            NotifyType::NO_PROPOSAL_CHOSEN => CloseReason::NoProposal,
            other => CloseReason::Failed(format!(
                "{} refuses IKE_SA_INIT with {other}: check tunnel {tunnel} on both ends",
                self.remote
            )),
        };
        if self.refusal.is_none() {
            self.refusal = Some((reason, ctx.now + ctx.limits.refusal_patience));
        }
        self.stay()
    }

    /// A complete response: derive the keys and go on to IKE_AUTH.
    fn agree(
        mut self,
        ctx: &mut Context<'_>,
        responder_spi: IkeSpi,
        payloads: Payloads,
        datagram: &Datagram,
    ) -> Next {
        let algorithms = payloads
            .proposals
            .as_deref()
            .and_then(|answer| proposal::accept_ike(&self.config.ike, answer));
        let (Some(algorithms), Some(theirs), Some(nonce_responder)) =
            (algorithms, &payloads.key_exchange, &payloads.nonce)
        else {
            ctx.counters.malformed += 1;
            return self.stay();
        };
        if responder_spi.is_zero()
            || algorithms.group != self.exchange.group()
            || theirs.method != proposal::method(algorithms.group)
            || (algorithms.additional.is_some() && !intermediate::is_supported(&payloads))
        {
            ctx.counters.malformed += 1;
            return self.stay();
        }
        let spis = IkeSpis {
            initiator: self.spi,
            responder: responder_spi,
        };
        let nat = match self.config.nat_traversal {
            NatTraversal::Auto => Nat::detect(ctx.crypto, &spis, datagram, &payloads),
            NatTraversal::Off => None,
        };
        let Ok(shared) = self.exchange.agree(&theirs.data) else {
            // The value may be forged, but our private value is spent: begin again.
            let reason = format!("{} sent an invalid key exchange value", self.remote);
            let fresh = ctx.crypto.key_exchange(algorithms.group);
            return match fresh {
                Ok(exchange) if self.restarts < INIT_RESTARTS_MAX => {
                    self.exchange = exchange;
                    let cookie = self.cookie.clone();
                    self.restart(ctx, None, cookie)
                }
                Ok(_) | Err(_) => {
                    ctx.event(self.name, IkeEvent::Closed(CloseReason::Failed(reason)));
                    None
                }
            };
        };
        let nonces = Nonces {
            initiator: self.nonce.as_bytes(),
            responder: nonce_responder.as_bytes(),
        };
        let keys = IkeKeys::derive(
            ctx.crypto,
            algorithms.prf,
            algorithms.cipher,
            &shared,
            nonces,
            &spis,
        );
        let path = float(self.local, self.remote, nat, self.config.path.mobike);
        let mut session = Session::new(
            spis,
            Part::Initiator,
            algorithms.cipher,
            &keys,
            path,
            nat.unwrap_or_default(),
        );
        session.transport.fragment_size = fragment::agreed(&self.config, &payloads);
        let handshake = Handshake {
            algorithms,
            keys,
            request: self.request,
            response: datagram.payload.clone(),
            nonce_initiator: self.nonce,
            nonce_responder: nonce_responder.clone(),
            abilities: Abilities::read(&payloads),
            intermediate: Vec::new(),
        };
        intermediate::go_on(
            ctx,
            self.name,
            self.config,
            session,
            handshake,
            self.initial_contact,
            self.since,
        )
    }

    fn give_up(self, ctx: &mut Context<'_>) -> Next {
        let reason = match self.refusal {
            Some((reason, _)) => reason,
            None => CloseReason::NoAnswer,
        };
        ctx.event(self.name, IkeEvent::Closed(reason));
        None
    }

    fn fail(self, ctx: &mut Context<'_>, reason: CloseReason) -> Next {
        ctx.event(self.name, IkeEvent::Closed(reason));
        None
    }

    fn stay(self) -> Next {
        Some(IkeSa::Initiating(Box::new(self)))
    }
}

impl Question<'_> {
    fn encode(&self, ctx: &Context<'_>) -> Result<Vec<u8>, CloseReason> {
        let mut payloads = Vec::new();
        payloads.extend(
            self.cookie
                .map(|cookie| notify_with(NotifyType::COOKIE, cookie)),
        );
        payloads.push(Payload::SecurityAssociation(proposal::offer_ike(
            &self.config.ike,
            &[],
        )));
        payloads.push(Payload::KeyExchange(epochgate_ike_wire::KeyExchange {
            method: proposal::method(self.exchange.group()),
            data: self.exchange.public_value().to_vec(),
        }));
        payloads.push(Payload::Nonce(self.nonce.clone()));
        payloads.extend(intermediate::offer(&self.config.ike));
        let spis = IkeSpis {
            initiator: self.spi,
            responder: IkeSpi::ZERO,
        };
        match self.config.nat_traversal {
            NatTraversal::Auto => payloads.extend(nat_detection::notifies(
                ctx.crypto,
                &spis,
                self.local,
                self.remote,
            )),
            NatTraversal::Off => {}
        }
        payloads.extend(fragment::offer(self.config));
        payloads.extend(Abilities::offer(self.config));
        let flags = Flags {
            initiator: true,
            ..Flags::default()
        };
        let header = Header::new(self.spi, IkeSpi::ZERO, ExchangeType::IkeSaInit, flags, 0);
        Message { header, payloads }
            .encode()
            .map_err(|error| CloseReason::Failed(format!("cannot encode IKE_SA_INIT: {error}")))
    }
}

/// Where an initiator goes on: behind a NAT both ports become 4500 (RFC 7296 §2.23), and they do where
/// a NAT may come in between later (RFC 4555 §3.3).
fn float(mut local: SocketAddr, mut remote: SocketAddr, nat: Option<Nat>, mobike: bool) -> Path {
    let speaks_nat = nat.is_some();
    let nat = nat.unwrap_or_default();
    if nat.found() || (speaks_nat && mobike) {
        local.set_port(NAT_T_PORT);
        remote.set_port(NAT_T_PORT);
    }
    Path {
        local,
        remote,
        encapsulated: nat.found(),
    }
}

/// The provider failed, which is nobody's fault but this host's.
pub(super) fn provider(error: CryptoError) -> CloseReason {
    CloseReason::Failed(error.to_string())
}

/// The payload that asks for another key exchange method (RFC 7296 §1.2).
pub(super) fn invalid_ke(group: Group) -> Payload {
    notify_with(
        NotifyType::INVALID_KE_PAYLOAD,
        proposal::method(group).0.to_be_bytes(),
    )
}

/// An error notify alone.
pub(super) fn only(kind: NotifyType) -> Vec<Payload> {
    vec![notify(kind)]
}
