//! The protected message layer of one IKE SA: message IDs and the window of one request each way
//! (RFC 7296 §2.2, §2.3), replayed responses (§2.1), and where messages go (§2.11, §2.23).

use std::net::SocketAddr;

use epochgate_ike_wire::{
    EncodeError, EncryptedFragment, ExchangeType, Flags, Header, IkeSpi, Message, NotifyType,
    Payload, decode_payloads, encrypted_header,
};

use crate::Timestamp;
use crate::config::PathConfig;
use crate::crypto::Cipher;
use crate::io::Datagram;

use super::Path;
use super::context::Context;
use super::fragment::{self, Collected, Reassembly, Sealed};
use super::keys::{IkeKeys, IkeSpis, Part};
use super::limits::Retransmission;
use super::mobike::Mobility;
use super::nat_detection::Nat;
use super::payloads::{Fault, Payloads};
use super::protect::{OpenError, Plain, Protection, SealError};
use super::retransmit::{Due, Retransmit};

/// The message ID that is never used: an IKE SA ends before its message IDs begin again, as a replay
/// could not be told from a new message then (RFC 7296 §2.2).
const MESSAGE_ID_END: u32 = u32::MAX;

/// Keys, SPIs, path and message IDs of an IKE SA.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) spis: IkeSpis,
    /// Our part in the exchange that made the IKE SA.
    pub(super) part: Part,
    pub(super) path: Path,
    pub(super) nat: Nat,
    pub(super) protection: Protection,
    /// The keys of the request that was answered last, while they are not those of the next.
    retired: Option<Box<Protection>>,
    /// Message ID of our next request.
    pub(super) next_request: u32,
    /// Message ID that the peer's next request must have.
    expected_request: u32,
    /// Our latest response, for a peer that has not got it.
    answered: Option<Sealed>,
    /// What both ends agreed on for the way between them.
    pub(super) transport: Transport,
    /// Both ends speak MOBIKE.
    pub(super) mobility: Option<Box<Mobility>>,
    /// Of the peer's next request and of the response to ours.
    partial_request: Option<Box<Reassembly>>,
    partial_response: Option<Box<Reassembly>>,
    /// When we last sent something, or looked whether to.
    quiet_since: Timestamp,
}

/// What both ends agreed on for the way between them; an IKE SA that replaces another keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transport {
    /// Octets of the longest IP datagram that carries a fragment; `None`: no fragments either way
    /// (RFC 7383 §2.3).
    pub(super) fragment_size: Option<u16>,
}

/// A request of ours that waits for its response.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) exchange: ExchangeType,
    message_id: u32,
    sealed: Sealed,
    timer: Retransmit,
}

impl InFlight {
    /// Whether a message says that nobody knows the IKE SA of this request. Anybody can say that who
    /// has seen the request.
    pub(super) fn is_disowned_by(&self, message: &Message) -> bool {
        let header = &message.header;
        let is_disowning = |payload: &Payload| matches!(payload, Payload::Notify(it) if it.kind == NotifyType::INVALID_IKE_SPI);
        header.flags.response
            && header.message_id == self.message_id
            && header.exchange == self.exchange
            && message.payloads.iter().any(is_disowning)
    }
}

/// A request of the peer that was opened.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) exchange: ExchangeType,
    pub(super) payloads: Result<Payloads, Fault>,
    pub(super) reply_to: ReplyTo,
}

/// Where and as which message a response goes (RFC 7296 §2.11: to where the request came from).
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyTo {
    exchange: ExchangeType,
    message_id: u32,
    local: SocketAddr,
    remote: SocketAddr,
}

/// What a received message was.
pub(super) enum Received {
    /// A request that must be answered.
    Request(Request),
    /// The response to the request in flight.
    Response(Result<Payloads, Fault>),
    /// Nothing to be done: forged, old, or repeated and dealt with.
    Nothing,
}

impl Session {
    /// The session of a new IKE SA. IKE_SA_INIT was the first exchange, message ID 0, of the
    /// initiator; the responder has made no request yet.
    pub(super) fn new(
        spis: IkeSpis,
        part: Part,
        cipher: Cipher,
        keys: &IkeKeys,
        path: Path,
        nat: Nat,
    ) -> Self {
        let (next_request, expected_request) = match part {
            Part::Initiator => (1, 0),
            Part::Responder => (0, 1),
        };
        Self {
            spis,
            part,
            path,
            nat,
            protection: Protection::new(cipher, keys, part),
            retired: None,
            next_request,
            expected_request,
            answered: None,
            transport: Transport::default(),
            mobility: None,
            partial_request: None,
            partial_response: None,
            quiet_since: Timestamp::ZERO,
        }
    }

    /// The session of the IKE SA that a rekey of this one made: same ends, same path, everything
    /// that was negotiated about the way of messages; message IDs begin at 0 on both sides
    /// (RFC 7296 §2.2, §2.18).
    pub(super) fn successor(
        &self,
        spis: IkeSpis,
        part: Part,
        cipher: Cipher,
        keys: &IkeKeys,
        now: Timestamp,
    ) -> Self {
        Self {
            spis,
            part,
            path: self.path,
            nat: self.nat,
            protection: Protection::new(cipher, keys, part),
            retired: None,
            next_request: 0,
            expected_request: 0,
            answered: None,
            transport: self.transport,
            mobility: self.mobility.clone(),
            partial_request: None,
            partial_response: None,
            quiet_since: now,
        }
    }

    /// The SPI that we chose.
    pub(super) fn our_spi(&self) -> IkeSpi {
        match self.part {
            Part::Initiator => self.spis.initiator,
            Part::Responder => self.spis.responder,
        }
    }

    /// Seals a request and sends it for the first time.
    pub(super) fn request(
        &mut self,
        ctx: &mut Context<'_>,
        exchange: ExchangeType,
        payloads: &[Payload],
        schedule: Retransmission,
    ) -> Result<InFlight, SealError> {
        let message_id = self.next_request;
        if message_id == MESSAGE_ID_END {
            return Err(SealError::MessageIdsSpent);
        }
        let header = self.header(exchange, message_id, false);
        let sealed = self.seal(ctx, &header, payloads, self.path.local)?;
        self.next_request = message_id.saturating_add(1);
        self.quiet_since = ctx.now;
        transmit(ctx, self.path.local, self.path.remote, &sealed);
        Ok(InFlight {
            exchange,
            message_id,
            sealed,
            timer: Retransmit::start(schedule, ctx.now),
        })
    }

    /// Seals a response, sends it, and keeps it for a peer that asks again.
    pub(super) fn respond(
        &mut self,
        ctx: &mut Context<'_>,
        to: ReplyTo,
        payloads: &[Payload],
    ) -> Result<(), SealError> {
        let header = self.header(to.exchange, to.message_id, true);
        let sealed = self.seal(ctx, &header, payloads, to.local)?;
        self.retired = None;
        self.expected_request = to.message_id.saturating_add(1);
        self.quiet_since = ctx.now;
        transmit(ctx, to.local, to.remote, &sealed);
        self.answered = Some(sealed);
        Ok(())
    }

    /// Protects what follows with these keys (RFC 9370 §2.2.2). A repetition of the request that was
    /// answered before comes with the old ones.
    pub(super) fn renew_keys(&mut self, cipher: Cipher, keys: &IkeKeys) {
        let fresh = Protection::new(cipher, keys, self.part);
        self.retired = Some(Box::new(std::mem::replace(&mut self.protection, fresh)));
    }

    /// What AUTH covers of an IKE_INTERMEDIATE request that is about to be sent.
    pub(super) fn covered_request(&self, payloads: &[Payload]) -> Result<Vec<u8>, SealError> {
        let header = self.header(ExchangeType::IkeIntermediate, self.next_request, false);
        Ok(covered(&header, &Plain::encode(payloads)?)?)
    }

    /// What AUTH covers of an IKE_INTERMEDIATE response that is about to be sent.
    pub(super) fn covered_response(
        &self,
        to: ReplyTo,
        payloads: &[Payload],
    ) -> Result<Vec<u8>, SealError> {
        let header = self.header(to.exchange, to.message_id, true);
        Ok(covered(&header, &Plain::encode(payloads)?)?)
    }

    fn seal(
        &mut self,
        ctx: &Context<'_>,
        header: &Header,
        payloads: &[Payload],
        local: SocketAddr,
    ) -> Result<Sealed, SealError> {
        let size = self.transport.fragment_size;
        let limit = size.map(|size| fragment::message_limit(size, local));
        self.protection.seal(ctx.crypto, header, payloads, limit)
    }

    /// Checks a message that came for this IKE SA. `in_flight` is our request that waits. Nothing
    /// that is not authentic changes anything (RFC 7296 §2.21).
    pub(super) fn receive(
        &mut self,
        ctx: &mut Context<'_>,
        message: &Message,
        datagram: &Datagram,
        in_flight: Option<&InFlight>,
    ) -> Received {
        let header = &message.header;
        let spis = IkeSpis {
            initiator: header.initiator_spi,
            responder: header.responder_spi,
        };
        if spis != self.spis {
            ctx.counters.unknown_sa += 1;
            return Received::Nothing;
        }
        let awaited = if header.flags.response {
            in_flight.is_some_and(|it| {
                it.message_id == header.message_id && it.exchange == header.exchange
            })
        } else {
            let repeated = self.answered.is_some()
                && header.message_id.checked_add(1) == Some(self.expected_request);
            repeated || header.message_id == self.expected_request
        };
        if !awaited || header.message_id == MESSAGE_ID_END {
            ctx.counters.outside_window += 1;
            return Received::Nothing;
        }
        let is_repeated = !header.flags.response && header.message_id != self.expected_request;
        let opened = match message.payloads.as_slice() {
            [Payload::EncryptedFragment(piece)] => {
                match self.collect(ctx, header, piece, datagram, is_repeated) {
                    Some(opened) => opened,
                    None => return Received::Nothing,
                }
            }
            _ => self
                .protecting(is_repeated)
                .open(ctx.crypto, message, &datagram.payload),
        };
        let payloads = match opened {
            Err(OpenError::Forged) => {
                ctx.counters.forged += 1;
                return Received::Nothing;
            }
            Ok(plain) => match decode_payloads(plain.first, &plain.text) {
                Err(_) => {
                    ctx.counters.malformed += 1;
                    Err(Fault::Syntax)
                }
                Ok(payloads) => Payloads::sort(payloads).map(|sorted| Payloads {
                    covered: match header.exchange {
                        ExchangeType::IkeIntermediate => {
                            covered(header, &plain).unwrap_or_default()
                        }
                        ExchangeType::IkeSaInit
                        | ExchangeType::IkeAuth
                        | ExchangeType::CreateChildSa
                        | ExchangeType::Informational
                        | ExchangeType::Other(_) => Vec::new(),
                    },
                    ..sorted
                }),
            },
        };
        if header.flags.response {
            self.partial_response = None;
            return Received::Response(payloads);
        }
        if is_repeated {
            if let Some(sealed) = &self.answered {
                ctx.counters.repeated += 1;
                transmit(ctx, datagram.local, datagram.remote, sealed);
            }
            return Received::Nothing;
        }
        self.partial_request = None;
        Received::Request(Request {
            exchange: header.exchange,
            payloads,
            reply_to: ReplyTo {
                exchange: header.exchange,
                message_id: header.message_id,
                local: datagram.local,
                remote: datagram.remote,
            },
        })
    }

    /// Takes a fragment of an awaited message (RFC 7383 §2.6): what it makes whole, if anything.
    /// Fragments of a request that was answered are one request to repeat the answer: the first of
    /// them counts (§2.6.1).
    fn collect(
        &mut self,
        ctx: &mut Context<'_>,
        header: &Header,
        piece: &EncryptedFragment,
        datagram: &Datagram,
        is_repeated: bool,
    ) -> Option<Result<Plain, OpenError>> {
        let slot = if header.flags.response {
            &self.partial_response
        } else {
            &self.partial_request
        };
        let id = header.message_id;
        let wanted = if is_repeated {
            piece.number == 1
        } else {
            Reassembly::wants(slot.as_deref(), id, piece, ctx.now)
        };
        if self.transport.fragment_size.is_none() || !wanted {
            ctx.counters.outside_window += 1;
            return None;
        }
        let opened =
            self.protecting(is_repeated)
                .open_fragment(ctx.crypto, piece, &datagram.payload);
        let text = match opened {
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        if is_repeated {
            return Some(Ok(Plain::default()));
        }
        let slot = if header.flags.response {
            &mut self.partial_response
        } else {
            &mut self.partial_request
        };
        match Reassembly::collect(slot, id, piece, text, ctx.now) {
            Collected::Whole(first, text) => Some(Ok(Plain { first, text })),
            Collected::Waiting => None,
            Collected::Refused => {
                ctx.counters.malformed += 1;
                None
            }
        }
    }

    /// The keys that a message was protected with.
    fn protecting(&self, is_repeated: bool) -> &Protection {
        match &self.retired {
            Some(retired) if is_repeated => retired,
            Some(_) | None => &self.protection,
        }
    }

    /// When something of this layer is due by itself.
    pub(super) fn next_timeout(&self, config: &PathConfig) -> Option<Timestamp> {
        let partial = [&self.partial_request, &self.partial_response];
        let partial = partial.into_iter().flatten().map(|it| it.due());
        partial.chain(self.keepalive_due(config)).min()
    }

    /// When a keepalive is due: on the way out of a NAT that we are behind (RFC 7296 §2.23).
    fn keepalive_due(&self, config: &PathConfig) -> Option<Timestamp> {
        let interval = config.nat_keepalive.filter(|_| self.nat.ours)?;
        Some(self.quiet_since + interval)
    }

    /// Whether a keepalive is due unless ESP was sent; not again before the next interval.
    pub(super) fn take_keepalive(&mut self, config: &PathConfig, now: Timestamp) -> bool {
        let due = self.keepalive_due(config).is_some_and(|due| due <= now);
        if due {
            self.quiet_since = now;
        }
        due
    }

    /// Drops what did not become whole in time.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        for slot in [&mut self.partial_request, &mut self.partial_response] {
            if slot.as_ref().is_some_and(|it| it.due() <= now) {
                *slot = None;
            }
        }
    }

    /// Follows a peer behind a NAT to where its latest authentic message came from; we ourselves
    /// must not be behind one (RFC 7296 §2.23). True when the path changed.
    pub(super) fn follow(&mut self, datagram: &Datagram) -> bool {
        let (local, remote) = (datagram.local, datagram.remote);
        let moved = (self.path.local, self.path.remote) != (local, remote);
        // With MOBIKE the other end says so (RFC 4555 §3.8).
        let may_follow = self.nat.theirs && !self.nat.ours && self.mobility.is_none();
        if moved && may_follow {
            self.path.local = local;
            self.path.remote = remote;
        }
        moved && may_follow
    }

    /// Follows a peer behind a NAT to where its authentic ESP comes from: its IKE and its ESP share
    /// a port (RFC 7296 §2.23, RFC 3948 §3.1). True when the path changed.
    pub(super) fn follow_esp(&mut self, source: SocketAddr) -> bool {
        let may_follow = self.nat.theirs && !self.nat.ours && self.path.encapsulated;
        let moved = self.path.remote != source;
        if moved && may_follow {
            self.path.remote = source;
        }
        moved && may_follow
    }

    /// Whether this is the request that is being answered, or was answered last.
    pub(super) fn is_expected(&self, header: &Header) -> bool {
        !header.flags.response && header.message_id == self.expected_request
    }

    pub(super) fn header(&self, exchange: ExchangeType, message_id: u32, response: bool) -> Header {
        let flags = Flags {
            initiator: self.part == Part::Initiator,
            response,
            version: false,
        };
        let IkeSpis {
            initiator,
            responder,
        } = self.spis;
        Header::new(initiator, responder, exchange, flags, message_id)
    }
}

impl ReplyTo {
    /// Our end and the peer's, as the request had them.
    pub(super) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    /// The exchange that is answered.
    pub(super) fn exchange(&self) -> ExchangeType {
        self.exchange
    }
}

impl InFlight {
    /// When it wants to be retransmitted or given up.
    pub(super) fn due(&self) -> Timestamp {
        self.timer.due()
    }

    /// How often it was sent.
    pub(super) fn tries(&self) -> u32 {
        self.timer.sent()
    }

    /// Sends it again at once, along the path as it is now, and begins to wait anew.
    pub(super) fn restart(&mut self, ctx: &mut Context<'_>, path: &Path) {
        ctx.counters.retransmissions += 1;
        self.timer.restart(ctx.now);
        transmit(ctx, path.local, path.remote, &self.sealed);
    }

    /// Retransmits if that is due, along the path as it is now. False: no answer will come.
    pub(super) fn poll(&mut self, ctx: &mut Context<'_>, path: &Path) -> bool {
        match self.timer.poll(ctx.now) {
            Due::Later => true,
            Due::Again => {
                ctx.counters.retransmissions += 1;
                transmit(ctx, path.local, path.remote, &self.sealed);
                true
            }
            Due::GiveUp => false,
        }
    }
}

/// The part of IntAuth that one message is (RFC 9242 §3.3.2): headers as if there were neither
/// fragments nor IV, padding and ICV, and then the plaintext.
pub(super) fn covered(header: &Header, plain: &Plain) -> Result<Vec<u8>, EncodeError> {
    let mut octets = encrypted_header(header, plain.first, plain.text.len())?;
    octets.extend_from_slice(&plain.text);
    Ok(octets)
}

/// Sends a message, or all fragments of it (RFC 7383 §2.6.1).
fn transmit(ctx: &mut Context<'_>, local: SocketAddr, remote: SocketAddr, sealed: &Sealed) {
    for datagram in sealed.datagrams() {
        ctx.transmit(local, remote, datagram.to_vec());
    }
}
