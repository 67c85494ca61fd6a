//! Negotiating one Child SA, whatever the exchange: IKE_AUTH and CREATE_CHILD_SA carry the same
//! payloads for it (RFC 7296 §1.2, §1.3).

use std::net::IpAddr;
use std::num::NonZeroU32;

use epochgate_ike_wire::{NotifyType, Payload, TrafficSelector};

use crate::Secret;
use crate::config::TunnelConfig;
use crate::crypto::CryptoError;
use crate::io::Spi;

use super::context::Context;
use super::established::ChildSeed;
use super::keys::{self, Nonces, Part};
use super::payloads::{Payloads, notify};
use super::proposal::{self, ChildKeyExchange, EspAlgorithms};
use super::{Child, ChildError, ChildId, Path, Side, selectors};

/// What we asked the peer for.
#[derive(Debug)]
pub(super) struct Offer {
    inbound: Spi,
    exchange: ChildKeyExchange,
    local_selectors: Vec<TrafficSelector>,
    remote_selectors: Vec<TrafficSelector>,
}

/// What both ends agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) algorithms: EspAlgorithms,
    pub(super) inbound: Spi,
    outbound: Spi,
    local_selectors: Vec<TrafficSelector>,
    remote_selectors: Vec<TrafficSelector>,
}

/// Why an offer cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// To be told with this notify.
    Notify(NotifyType),
    /// Payloads are missing.
    Syntax,
}

impl From<CryptoError> for Refusal {
    /// No randomness: not the peer's fault, and it may try again.
    fn from(_: CryptoError) -> Self {
        Self::Notify(NotifyType::TEMPORARY_FAILURE)
    }
}

impl Offer {
    /// All that the configuration says, with a fresh SPI.
    pub(super) fn new(
        ctx: &Context<'_>,
        config: &TunnelConfig,
        exchange: ChildKeyExchange,
    ) -> Result<Self, CryptoError> {
        Ok(Self {
            inbound: ctx.child_spi()?,
            exchange,
            local_selectors: selectors::from_networks(&config.local_traffic),
            remote_selectors: selectors::from_networks(&config.remote_traffic),
        })
    }

    /// SPI of what we would receive.
    pub(super) fn inbound(&self) -> Spi {
        self.inbound
    }

    /// The SA payload.
    pub(super) fn proposal(&self, config: &TunnelConfig) -> Payload {
        Payload::SecurityAssociation(proposal::offer_esp(
            &config.esp,
            self.exchange,
            self.inbound.0.get(),
        ))
    }

    /// The TSi and TSr payloads, and what goes with them. Tunnel mode is what is asked for when
    /// USE_TRANSPORT_MODE is not sent (RFC 7296 §1.3.1).
    pub(super) fn selectors(&self) -> [Payload; 3] {
        [
            Payload::TrafficSelectorsInitiator(self.local_selectors.clone()),
            Payload::TrafficSelectorsResponder(self.remote_selectors.clone()),
            notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED),
        ]
    }

    /// Reads the peer's answer, which must stay within what we asked for: also, transport mode is not
    /// the responder's to choose (RFC 7296 §1.3.1), and its SAs would not understand ours.
    pub(super) fn accept(
        &self,
        config: &TunnelConfig,
        answer: &Payloads,
    ) -> Result<Agreed, ChildError> {
        if let Some(error) = answer.error() {
            return Err(child_error(error.kind));
        }
        if answer.notify(NotifyType::USE_TRANSPORT_MODE).is_some() {
            return Err(ChildError::Nonsense);
        }
        let (Some(proposals), Some(ours), Some(theirs)) = (
            &answer.proposals,
            &answer.selectors_initiator,
            &answer.selectors_responder,
        ) else {
            return Err(ChildError::Nonsense);
        };
        let (algorithms, spi) = proposal::accept_esp(&config.esp, self.exchange, proposals)
            .ok_or(ChildError::Nonsense)?;
        let outbound = NonZeroU32::new(spi).ok_or(ChildError::Nonsense)?;
        if !selectors::within(ours, &self.local_selectors)
            || !selectors::within(theirs, &self.remote_selectors)
        {
            return Err(ChildError::Nonsense);
        }
        Ok(Agreed {
            algorithms,
            inbound: self.inbound,
            outbound: Spi(outbound),
            local_selectors: ours.clone(),
            remote_selectors: theirs.clone(),
        })
    }
}

/// Answers the peer's offer: what we agree on, our SA payload, and our selectors.
pub(super) fn answer(
    ctx: &Context<'_>,
    config: &TunnelConfig,
    offer: &Payloads,
    exchange: ChildKeyExchange,
) -> Result<(Agreed, Payload, [Payload; 3]), Refusal> {
    let (Some(proposals), Some(theirs), Some(ours)) = (
        &offer.proposals,
        &offer.selectors_initiator,
        &offer.selectors_responder,
    ) else {
        return Err(Refusal::Syntax);
    };
    let guess = offer.key_exchange.as_ref().map(|it| it.method);
    let chosen = proposal::choose_esp(&config.esp, exchange, proposals, guess)
        .ok_or(Refusal::Notify(NotifyType::NO_PROPOSAL_CHOSEN))?;
    let outbound = proposals
        .iter()
        .find(|offered| offered.number == chosen.proposal.number)
        .and_then(|offered| offered.child_spi())
        .and_then(NonZeroU32::new)
        .ok_or(Refusal::Syntax)?;
    let local_selectors = selectors::narrow(ours, &config.local_traffic);
    let remote_selectors = selectors::narrow(theirs, &config.remote_traffic);
    if local_selectors.is_empty() || remote_selectors.is_empty() {
        return Err(Refusal::Notify(NotifyType::TS_UNACCEPTABLE));
    }
    let inbound = ctx.child_spi()?;
    let mut proposal = chosen.proposal;
    proposal.spi = inbound.0.get().to_be_bytes().to_vec();
    let selectors = [
        Payload::TrafficSelectorsInitiator(remote_selectors.clone()),
        Payload::TrafficSelectorsResponder(local_selectors.clone()),
        notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED),
    ];
    let agreed = Agreed {
        algorithms: chosen.algorithms,
        inbound,
        outbound: Spi(outbound),
        local_selectors,
        remote_selectors,
    };
    Ok((
        agreed,
        Payload::SecurityAssociation(vec![proposal]),
        selectors,
    ))
}

/// What is known of a Child SA beside what was agreed.
pub(super) struct Circumstances<'a> {
    pub(super) id: ChildId,
    pub(super) path: Path,
    pub(super) replaces: Option<ChildId>,
    pub(super) ping_address: Option<IpAddr>,
    /// Our part in this exchange.
    pub(super) part: Part,
    pub(super) shared: Option<&'a Secret>,
    pub(super) nonces: Nonces<'a>,
}

impl Agreed {
    /// Derives the keys: the Child SA is complete.
    pub(super) fn into_child(
        self,
        ctx: &Context<'_>,
        seed: &ChildSeed,
        of: Circumstances<'_>,
    ) -> Child {
        let keys = keys::child_keys(
            ctx.crypto,
            seed.prf,
            &seed.derive,
            self.algorithms.cipher,
            of.shared,
            of.nonces,
        );
        // Each end encrypts with the key of its own part.
        let (outbound_key, inbound_key) = keys.into_ours_and_theirs(of.part);
        Child {
            id: of.id,
            inbound: self.inbound,
            outbound: self.outbound,
            cipher: self.algorithms.cipher,
            extended_sequence: self.algorithms.extended_sequence,
            inbound_key,
            outbound_key,
            local_selectors: self.local_selectors,
            remote_selectors: self.remote_selectors,
            path: of.path,
            replaces: of.replaces,
            ping_address: of.ping_address,
            started_by: match of.part {
                Part::Initiator => Side::Us,
                Part::Responder => Side::Peer,
            },
        }
    }
}

/// What an error notify about a Child SA means for the tunnel.
pub(super) fn child_error(kind: NotifyType) -> ChildError {
    match kind {
        NotifyType::TEMPORARY_FAILURE => ChildError::Temporary,
        NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => ChildError::NoProposal,
        NotifyType::TS_UNACCEPTABLE => ChildError::Selectors,
        NotifyType::SINGLE_PAIR_REQUIRED => ChildError::SinglePair,
        NotifyType::NO_ADDITIONAL_SAS => ChildError::NoAdditionalSas,
        other => ChildError::Notify(other.0),
    }
}
