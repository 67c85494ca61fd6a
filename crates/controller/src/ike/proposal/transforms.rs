//! Our names for algorithms as transforms (RFC 7296 §3.3.2), and picking one of each type from an
//! offered proposal.

use epochgate_ike_wire::{
    AdditionalKind, EncryptionId, IntegrityId, KeyExchangeMethod, PrfId, Proposal, Transform,
    TransformType,
};

use crate::config::{Esn, PostQuantum};
use crate::crypto::{AesKey, Cipher, Group, Integrity, Kem, Prf};

pub(in crate::ike) const fn method(group: Group) -> KeyExchangeMethod {
    match group {
        Group::X25519 => KeyExchangeMethod::X25519,
        Group::P256 => KeyExchangeMethod::P256,
        Group::P384 => KeyExchangeMethod::P384,
        Group::P521 => KeyExchangeMethod::P521,
        Group::Modp3072 => KeyExchangeMethod::MODP_3072,
        Group::Modp2048 => KeyExchangeMethod::MODP_2048,
    }
}

pub(in crate::ike) const fn kem_method(kem: Kem) -> KeyExchangeMethod {
    match kem {
        Kem::MlKem768 => KeyExchangeMethod::ML_KEM_768,
    }
}

/// The first additional key exchange: the only one that we know (RFC 9370 §2.2.1).
pub(super) const fn additional(kem: Kem) -> Transform {
    Transform::AdditionalKeyExchange {
        kind: AdditionalKind::ONE,
        method: kem_method(kem),
    }
}

/// ChaCha20-Poly1305 has one key length and no attribute for it (RFC 7634 §5).
pub(super) const fn encryption(cipher: Cipher) -> Transform {
    let (id, key_bits) = match cipher {
        Cipher::AesGcm128 => (EncryptionId::AES_GCM_16, Some(128)),
        Cipher::AesGcm256 => (EncryptionId::AES_GCM_16, Some(256)),
        Cipher::ChaCha20Poly1305 => (EncryptionId::CHACHA20_POLY1305, None),
        Cipher::AesCbc(AesKey::Bits128, _) => (EncryptionId::AES_CBC, Some(128)),
        Cipher::AesCbc(AesKey::Bits256, _) => (EncryptionId::AES_CBC, Some(256)),
    };
    Transform::Encryption { id, key_bits }
}

pub(super) const fn integrity(integrity: Integrity) -> Transform {
    Transform::Integrity(match integrity {
        Integrity::HmacSha256 => IntegrityId::HMAC_SHA2_256_128,
        Integrity::HmacSha384 => IntegrityId::HMAC_SHA2_384_192,
        Integrity::HmacSha512 => IntegrityId::HMAC_SHA2_512_256,
    })
}

pub(super) fn pseudorandom(prf: Prf) -> Transform {
    Transform::Prf(match prf {
        Prf::HmacSha256 => PrfId::HMAC_SHA2_256,
        Prf::HmacSha384 => PrfId::HMAC_SHA2_384,
        Prf::HmacSha512 => PrfId::HMAC_SHA2_512,
    })
}

pub(super) fn key_exchange(group: Group) -> Transform {
    Transform::KeyExchange(method(group))
}

/// What is offered, best first (RFC 7296 §3.3.2: an offer has both values where both will do).
pub(super) fn sequence_numbers(esn: Esn) -> impl Iterator<Item = Transform> {
    let offered: &[bool] = match esn {
        Esn::Off => &[false],
        Esn::Prefer => &[true, false],
        Esn::Require => &[true],
    };
    offered.iter().copied().map(Transform::Esn)
}

/// Picks one transform of each type of an offered proposal.
pub(super) struct Picker<'a> {
    offered: &'a Proposal,
    /// Types that are decided.
    decided: Vec<TransformType>,
    picked: Vec<Transform>,
}

impl<'a> Picker<'a> {
    pub(super) fn new(offered: &'a Proposal) -> Self {
        Self {
            offered,
            decided: Vec::new(),
            picked: Vec::new(),
        }
    }

    /// The first of our choices that is offered.
    pub(super) fn pick<T: Copy>(
        &mut self,
        choices: &[T],
        transform: fn(T) -> Transform,
    ) -> Option<T> {
        let choice = choices
            .iter()
            .copied()
            .find(|choice| self.has(&transform(*choice)))?;
        self.take(transform(choice));
        Some(choice)
    }

    /// The first of our ciphers that is offered with its integrity. An AEAD goes with none, and
    /// "NONE" is the same as no integrity transform (RFC 7296 §3.3.3, RFC 5282 §8).
    pub(super) fn cipher(&mut self, choices: &[Cipher]) -> Option<Cipher> {
        let none = Transform::Integrity(IntegrityId::NONE);
        let choice = choices.iter().copied().find(|choice| {
            self.has(&encryption(*choice))
                && match choice.integrity() {
                    None => !self.offers(TransformType::INTEGRITY) || self.has(&none),
                    Some(wanted) => self.has(&integrity(wanted)),
                }
        })?;
        self.take(encryption(choice));
        match choice.integrity() {
            Some(wanted) => self.take(integrity(wanted)),
            None if self.offers(TransformType::INTEGRITY) => self.take(none),
            None => {}
        }
        Some(choice)
    }

    /// The first of our groups that is offered; else, if that will do, none at all, which the
    /// peer offers by "NONE" or by silence (RFC 7296 §3.3.6).
    pub(super) fn group(&mut self, groups: &[Group], required: bool) -> Option<Option<Group>> {
        if let Some(group) = self.pick(groups, key_exchange) {
            return Some(Some(group));
        }
        if required {
            return None;
        }
        self.optional(&Transform::KeyExchange(KeyExchangeMethod::NONE))?;
        Some(None)
    }

    /// Additional key exchanges: the first one if it is wanted; of those that are not, each must
    /// be one that may be left out ("NONE", RFC 9370 §2.2.1).
    pub(super) fn additional(&mut self, wanted: PostQuantum) -> Option<Option<Kem>> {
        let kem = match wanted {
            PostQuantum::Off => None,
            PostQuantum::Prefer | PostQuantum::Require => self.pick(&[Kem::MlKem768], additional),
        };
        if kem.is_none() && wanted == PostQuantum::Require {
            return None;
        }
        let offered = self.offered;
        for transform in &offered.transforms {
            if let Transform::AdditionalKeyExchange { kind, .. } = *transform
                && !self.decided.contains(&transform.kind())
            {
                self.optional(&Transform::AdditionalKeyExchange {
                    kind,
                    method: KeyExchangeMethod::NONE,
                })?;
            }
        }
        Some(kem)
    }

    /// Extended sequence numbers or not; a proposal without the type has none of them.
    pub(super) fn sequence_numbers(&mut self, esn: Esn) -> Option<bool> {
        let extended = match esn {
            Esn::Off => false,
            Esn::Prefer => self.has(&Transform::Esn(true)),
            Esn::Require => true,
        };
        if extended {
            self.pick(&[true], Transform::Esn)?;
        } else {
            self.optional(&Transform::Esn(false))?;
        }
        Some(extended)
    }

    /// A type that may be left out, but if it is there must offer this.
    fn optional(&mut self, transform: &Transform) -> Option<()> {
        if self.offers(transform.kind()) {
            self.has(transform).then(|| self.take(transform.clone()))
        } else {
            Some(())
        }
    }

    /// Whatever is offered of this type is not answered.
    pub(super) fn skip(&mut self, kind: TransformType) {
        self.decided.push(kind);
    }

    fn take(&mut self, transform: Transform) {
        self.decided.push(transform.kind());
        self.picked.push(transform);
    }

    fn has(&self, transform: &Transform) -> bool {
        self.offered.transforms.contains(transform)
    }

    fn offers(&self, kind: TransformType) -> bool {
        self.offered.transforms.iter().any(|it| it.kind() == kind)
    }

    /// The answer, unless the proposal has a type that nobody decided about: what is unknown is
    /// not accepted (RFC 7296 §3.3.6).
    pub(super) fn finish(self) -> Option<Proposal> {
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
