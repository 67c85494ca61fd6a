//! Proposals: from configured suites to what is offered, and from offers to one set of algorithms
//! (RFC 7296 §2.7, §3.3).

mod transforms;

use epochgate_ike_wire::{KeyExchangeMethod, Proposal, Protocol, Transform, TransformType};

use crate::config::{EspSuite, IkeSuite, Pfs, PostQuantum};
use crate::crypto::{Cipher, Group, Kem, Prf};

use transforms::{
    Picker, additional, encryption, integrity, key_exchange, pseudorandom, sequence_numbers,
};
pub(super) use transforms::{kem_method, method};

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IkeAlgorithms {
    pub(super) cipher: Cipher,
    pub(super) prf: Prf,
    pub(super) group: Group,
    /// An additional key exchange in IKE_INTERMEDIATE (RFC 9370).
    pub(super) additional: Option<Kem>,
}

/// The algorithms of a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EspAlgorithms {
    pub(super) cipher: Cipher,
    /// A key exchange of its own (RFC 7296 §1.3).
    pub(super) group: Option<Group>,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub(super) extended_sequence: bool,
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

/// The proposals for a new IKE SA, best first; `spi` is empty in IKE_SA_INIT and our new SPI when
/// an IKE SA is rekeyed (RFC 7296 §3.3.1). An additional key exchange is required by a proposal that
/// has it, and unknown to old peers, who skip that proposal: where it is only preferred the same
/// follows without it. A rekey has none: its keys come from SK_d, which the first one protects.
pub(super) fn offer_ike(suite: &IkeSuite, spi: &[u8]) -> Vec<Proposal> {
    let prfs = suite.prfs.iter().copied().map(pseudorandom);
    let groups = suite.groups.iter().copied().map(key_exchange);
    let others: Vec<Transform> = prfs.chain(groups).collect();
    let hybrid: Vec<Transform> = [&others[..], &[additional(Kem::MlKem768)]].concat();
    let wanted = if spi.is_empty() {
        suite.post_quantum
    } else {
        PostQuantum::Off
    };
    let variants: &[&[Transform]] = match wanted {
        PostQuantum::Off => &[&others],
        PostQuantum::Prefer => &[&hybrid, &others],
        PostQuantum::Require => &[&hybrid],
    };
    let mut offers: Vec<Proposal> = variants
        .iter()
        .flat_map(|others| offer(Protocol::Ike, spi, &suite.ciphers, others))
        .collect();
    number(&mut offers);
    offers
}

/// From 1, without a gap (RFC 7296 §3.3.1).
fn number(proposals: &mut [Proposal]) {
    for (number, proposal) in (1..).zip(proposals) {
        proposal.number = number;
    }
}

/// The proposals for a Child SA, best first. Where a key exchange of its own is wished for but not
/// required, "NONE" stands beside the groups (RFC 7296 §3.3.6).
pub(super) fn offer_esp(suite: &EspSuite, exchange: ChildKeyExchange, spi: u32) -> Vec<Proposal> {
    let groups: &[Group] = match exchange {
        ChildKeyExchange::Never => &[],
        ChildKeyExchange::AsConfigured => &suite.groups,
    };
    let none = (!groups.is_empty() && suite.pfs == Pfs::Prefer)
        .then_some(Transform::KeyExchange(KeyExchangeMethod::NONE));
    let groups = groups.iter().copied().map(key_exchange);
    let others: Vec<Transform> = groups
        .chain(none)
        .chain(sequence_numbers(suite.esn))
        .collect();
    offer(Protocol::Esp, &spi.to_be_bytes(), &suite.ciphers, &others)
}

/// One proposal for each run of ciphers with the same integrity: an AEAD has none (RFC 5282 §8),
/// and transforms of one proposal combine freely, so what is together here is what is configured.
fn offer(
    protocol: Protocol,
    spi: &[u8],
    ciphers: &[Cipher],
    others: &[Transform],
) -> Vec<Proposal> {
    let runs = ciphers.chunk_by(|one, next| one.integrity() == next.integrity());
    (1..)
        .zip(runs)
        .map(|(number, run)| {
            let shared = run.first().and_then(|cipher| cipher.integrity());
            let ciphers = run.iter().copied().map(encryption);
            Proposal {
                number,
                protocol,
                spi: spi.to_vec(),
                transforms: ciphers
                    .chain(shared.map(integrity))
                    .chain(others.iter().cloned())
                    .collect(),
            }
        })
        .collect()
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
            let cipher = picker.cipher(&suite.ciphers)?;
            let prf = picker.pick(&suite.prfs, pseudorandom)?;
            let group = picker.pick(&groups, key_exchange)?;
            let additional = picker.additional(if proposal.spi.is_empty() {
                suite.post_quantum
            } else {
                PostQuantum::Off
            })?;
            Some(Chosen {
                algorithms: IkeAlgorithms {
                    cipher,
                    prf,
                    group,
                    additional,
                },
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
    let required = suite.pfs == Pfs::Require && !groups.is_empty();
    offer
        .iter()
        .filter(|proposal| proposal.child_spi().is_some_and(|spi| spi != 0))
        .filter(|proposal| proposal.protocol == Protocol::Esp)
        .find_map(|proposal| {
            let mut picker = Picker::new(proposal);
            let cipher = picker.cipher(&suite.ciphers)?;
            let group = match exchange {
                ChildKeyExchange::Never => {
                    picker.skip(TransformType::KEY_EXCHANGE);
                    None
                }
                ChildKeyExchange::AsConfigured => picker.group(&groups, required)?,
            };
            let extended_sequence = picker.sequence_numbers(suite.esn)?;
            Some(Chosen {
                algorithms: EspAlgorithms {
                    cipher,
                    group,
                    extended_sequence,
                },
                proposal: picker.finish()?,
            })
        })
}

/// Reads an answer to our own offer, which must be one of its proposals with one transform of each
/// type (RFC 7296 §3.3.6).
pub(super) fn accept_ike(suite: &IkeSuite, answer: &[Proposal]) -> Option<IkeAlgorithms> {
    let answer = sole(answer)?;
    let chosen = choose_ike(suite, std::slice::from_ref(answer), None)?;
    answers(&chosen.proposal, answer, &offer_ike(suite, &answer.spi)).then_some(chosen.algorithms)
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
    answers(&chosen.proposal, answer, &offer_esp(suite, exchange, spi))
        .then_some((chosen.algorithms, spi))
}

/// Whether all of the answer was understood, and it takes from the proposal that it names only
/// what stood there. "NONE" need not have been offered.
fn answers(understood: &Proposal, answer: &Proposal, offered: &[Proposal]) -> bool {
    let stood_there = |transform: &Transform| {
        matches!(transform, Transform::Integrity(id) if id.0 == 0)
            || offered
                .iter()
                .filter(|proposal| proposal.number == answer.number)
                .any(|proposal| proposal.transforms.contains(transform))
    };
    understood.transforms.len() == answer.transforms.len()
        && understood.transforms.iter().all(stood_there)
}

fn guessed_first(groups: &[Group], guess: Option<KeyExchangeMethod>) -> Vec<Group> {
    let mut groups = groups.to_vec();
    // Stable: false (guessed) sorts before true.
    groups.sort_by_key(|group| Some(method(*group)) != guess);
    groups
}

fn sole(answer: &[Proposal]) -> Option<&Proposal> {
    match answer {
        [proposal] => Some(proposal),
        _ => None,
    }
}
