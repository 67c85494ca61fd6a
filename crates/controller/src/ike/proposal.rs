//! Proposals: from configured suites to what is offered, and from offers to one set of algorithms
//! (RFC 7296 §2.7, §3.3).

use epochgate_ike_wire::{
    EncryptionId, IntegrityId, KeyExchangeMethod, PrfId, Proposal, Protocol, Transform,
    TransformType,
};

use crate::config::{EspSuite, IkeSuite};
use crate::crypto::{Cipher, Group, Prf};

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IkeAlgorithms {
    pub(super) cipher: Cipher,
    pub(super) prf: Prf,
    pub(super) group: Group,
}

/// The algorithms of a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EspAlgorithms {
    pub(super) cipher: Cipher,
    /// A key exchange of its own (RFC 7296 §1.3).
    pub(super) group: Option<Group>,
}

/// What a peer's offer gave.
#[derive(Clone, Debug)]
pub(super) struct Chosen<T> {
    pub(super) algorithms: T,
    /// The answer; its SPI is still to be filled in.
    pub(super) proposal: Proposal,
}

/// Whether a Child SA's exchange can have a key exchange: that of IKE_AUTH cannot
/// (RFC 7296 §1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildKeyExchange {
    Never,
    AsConfigured,
}

pub(super) const fn method(group: Group) -> KeyExchangeMethod {
    match group {
        Group::X25519 => KeyExchangeMethod::X25519,
        Group::P256 => KeyExchangeMethod::P256,
        Group::P384 => KeyExchangeMethod::P384,
    }
}

fn encryption(cipher: Cipher) -> Transform {
    let key_bits = match cipher {
        Cipher::AesGcm128 => 128,
        Cipher::AesGcm256 => 256,
    };
    Transform::Encryption {
        id: EncryptionId::AES_GCM_16,
        key_bits: Some(key_bits),
    }
}

fn pseudorandom(prf: Prf) -> Transform {
    Transform::Prf(match prf {
        Prf::HmacSha256 => PrfId::HMAC_SHA2_256,
        Prf::HmacSha384 => PrfId::HMAC_SHA2_384,
        Prf::HmacSha512 => PrfId::HMAC_SHA2_512,
    })
}

fn key_exchange(group: Group) -> Transform {
    Transform::KeyExchange(method(group))
}

/// The proposal for a new IKE SA. An AEAD cipher goes without an integrity transform
/// (RFC 5282 §8).
pub(super) fn offer_ike(suite: &IkeSuite) -> Proposal {
    let ciphers = suite.ciphers.iter().copied().map(encryption);
    let prfs = suite.prfs.iter().copied().map(pseudorandom);
    let groups = suite.groups.iter().copied().map(key_exchange);
    Proposal {
        number: 1,
        protocol: Protocol::Ike,
        spi: Vec::new(),
        transforms: ciphers.chain(prfs).chain(groups).collect(),
    }
}

/// The proposal for a Child SA. Extended sequence numbers are not offered.
pub(super) fn offer_esp(suite: &EspSuite, exchange: ChildKeyExchange, spi: u32) -> Proposal {
    let ciphers = suite.ciphers.iter().copied().map(encryption);
    let groups: &[Group] = match exchange {
        ChildKeyExchange::Never => &[],
        ChildKeyExchange::AsConfigured => &suite.groups,
    };
    let groups = groups.iter().copied().map(key_exchange);
    Proposal {
        number: 1,
        protocol: Protocol::Esp,
        spi: spi.to_be_bytes().to_vec(),
        transforms: ciphers
            .chain(groups)
            .chain([Transform::Esn(false)])
            .collect(),
    }
}

/// Chooses from an offer for an IKE SA: the offer's first proposal that we can accept, of it what
/// stands first in our own suite. Of the key exchange methods the one whose public value is
/// already there (`guess`) saves a round trip, so it comes before our own order.
pub(super) fn choose_ike(
    suite: &IkeSuite,
    offer: &[Proposal],
    guess: Option<KeyExchangeMethod>,
) -> Option<Chosen<IkeAlgorithms>> {
    let groups = guessed_first(&suite.groups, guess);
    offer
        .iter()
        .filter(|proposal| proposal.protocol == Protocol::Ike)
        .find_map(|proposal| {
            let mut picker = Picker::new(proposal);
            let cipher = picker.pick(&suite.ciphers, encryption)?;
            let prf = picker.pick(&suite.prfs, pseudorandom)?;
            let group = picker.pick(&groups, key_exchange)?;
            picker.integrity_none()?;
            Some(Chosen {
                algorithms: IkeAlgorithms { cipher, prf, group },
                proposal: picker.finish()?,
            })
        })
}

/// Chooses from an offer for a Child SA, as [`choose_ike`] does. `Never` treats an offered key
/// exchange as not offered.
pub(super) fn choose_esp(
    suite: &EspSuite,
    exchange: ChildKeyExchange,
    offer: &[Proposal],
    guess: Option<KeyExchangeMethod>,
) -> Option<Chosen<EspAlgorithms>> {
    let groups = guessed_first(&suite.groups, guess);
    offer
        .iter()
        .filter(|proposal| proposal.child_spi().is_some_and(|spi| spi != 0))
        .filter(|proposal| proposal.protocol == Protocol::Esp)
        .find_map(|proposal| {
            let mut picker = Picker::new(proposal);
            let cipher = picker.pick(&suite.ciphers, encryption)?;
            let group = match exchange {
                ChildKeyExchange::Never => {
                    picker.skip(TransformType::KEY_EXCHANGE);
                    None
                }
                ChildKeyExchange::AsConfigured if groups.is_empty() => {
                    picker.optional(&Transform::KeyExchange(KeyExchangeMethod::NONE))?;
                    None
                }
                ChildKeyExchange::AsConfigured => Some(picker.pick(&groups, key_exchange)?),
            };
            picker.integrity_none()?;
            picker.optional(&Transform::Esn(false))?;
            Some(Chosen {
                algorithms: EspAlgorithms { cipher, group },
                proposal: picker.finish()?,
            })
        })
}

/// Reads an answer to our own offer, which must be one proposal with one transform of each type
/// that we offered (RFC 7296 §3.3.6).
pub(super) fn accept_ike(suite: &IkeSuite, answer: &[Proposal]) -> Option<IkeAlgorithms> {
    let answer = sole(answer)?;
    let chosen = choose_ike(suite, std::slice::from_ref(answer), None)?;
    (chosen.proposal.transforms.len() == answer.transforms.len()).then_some(chosen.algorithms)
}

/// As [`accept_ike`], for a Child SA; with the SPI that the peer chose.
pub(super) fn accept_esp(
    suite: &EspSuite,
    exchange: ChildKeyExchange,
    answer: &[Proposal],
) -> Option<(EspAlgorithms, u32)> {
    let answer = sole(answer)?;
    let spi = answer.child_spi()?;
    let chosen = choose_esp(suite, exchange, std::slice::from_ref(answer), None)?;
    (chosen.proposal.transforms.len() == answer.transforms.len())
        .then_some((chosen.algorithms, spi))
}

fn guessed_first(groups: &[Group], guess: Option<KeyExchangeMethod>) -> Vec<Group> {
    let mut groups = groups.to_vec();
    // Stable: false (guessed) sorts before true.
    groups.sort_by_key(|group| Some(method(*group)) != guess);
    groups
}

fn sole(answer: &[Proposal]) -> Option<&Proposal> {
    match answer {
        [proposal] if proposal.number == 1 => Some(proposal),
        _ => None,
    }
}

/// Picks one transform of each type of an offered proposal.
struct Picker<'a> {
    offered: &'a Proposal,
    /// Types that are decided.
    decided: Vec<TransformType>,
    picked: Vec<Transform>,
}

impl<'a> Picker<'a> {
    fn new(offered: &'a Proposal) -> Self {
        Self {
            offered,
            decided: Vec::new(),
            picked: Vec::new(),
        }
    }

    /// The first of our choices that is offered.
    fn pick<T: Copy>(&mut self, choices: &[T], transform: fn(T) -> Transform) -> Option<T> {
        let choice = choices
            .iter()
            .copied()
            .find(|choice| self.offered.transforms.contains(&transform(*choice)))?;
        self.take(transform(choice));
        Some(choice)
    }

    /// A type that may be left out, but if it is there must offer this.
    fn optional(&mut self, transform: &Transform) -> Option<()> {
        if self.offers(transform.kind()) {
            self.offered
                .transforms
                .contains(transform)
                .then(|| self.take(transform.clone()))
        } else {
            Some(())
        }
    }

    /// "NONE" is the same as no integrity transform (RFC 7296 §3.3.3).
    fn integrity_none(&mut self) -> Option<()> {
        self.optional(&Transform::Integrity(IntegrityId::NONE))
    }

    /// Whatever is offered of this type is not answered.
    fn skip(&mut self, kind: TransformType) {
        self.decided.push(kind);
    }

    fn take(&mut self, transform: Transform) {
        self.decided.push(transform.kind());
        self.picked.push(transform);
    }

    fn offers(&self, kind: TransformType) -> bool {
        self.offered.transforms.iter().any(|it| it.kind() == kind)
    }

    /// The answer, unless the proposal has a type that nobody decided about: what is unknown is
    /// not accepted (RFC 7296 §3.3.6).
    fn finish(self) -> Option<Proposal> {
        let all_decided = self
            .offered
            .transforms
            .iter()
            .all(|it| self.decided.contains(&it.kind()));
        all_decided.then(|| Proposal {
            number: self.offered.number,
            protocol: self.offered.protocol,
            spi: Vec::new(),
            transforms: self.picked,
        })
    }
}
