//! Signatures in AUTH payloads: which algorithm, and how it is written on the wire
//! (RFC 7427, RFC 4754, RFC 8420).

use epochgate_ike_wire::{AuthMethod, Authentication};

use crate::pki::{Hash, KeyKind, RsaPadding, SignatureScheme};

/// Identifier of Ed25519's "no hash" (RFC 8420 §2).
const IDENTITY_HASH: u16 = 5;
/// Every hash that we sign and verify with, by preference.
const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
/// Those that a peer may choose from (RFC 7427 §4), whatever its key is: ECDSA with SHA2-512 on the
/// curves that we have is verified by no provider, and libreswan as initiator takes the strongest
/// hash that it is offered.
const ANNOUNCED: [Hash; 2] = [Hash::Sha256, Hash::Sha384];

const SEQUENCE: u8 = 0x30;
const NULL: [u8; 2] = [0x05, 0x00];

/// The hash algorithms of a SIGNATURE_HASH_ALGORITHMS notify (RFC 7427 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hashes {
    sha256: bool,
    sha384: bool,
    sha512: bool,
    identity: bool,
}

impl Hashes {
    /// All that we verify with keys of every kind.
    pub(super) fn ours() -> Vec<u8> {
        let known = ANNOUNCED.map(number).into_iter().chain([IDENTITY_HASH]);
        known.flat_map(u16::to_be_bytes).collect()
    }

    /// What a peer says that it knows. Unknown ones and a half number at the end are skipped.
    pub(super) fn read(data: &[u8]) -> Self {
        let mut hashes = Self::default();
        for pair in data.chunks_exact(2) {
            match u16::from_be_bytes([pair[0], pair[1]]) {
                2 => hashes.sha256 = true,
                3 => hashes.sha384 = true,
                4 => hashes.sha512 = true,
                IDENTITY_HASH => hashes.identity = true,
                _ => {}
            }
        }
        hashes
    }

    fn has(self, hash: Hash) -> bool {
        match hash {
            Hash::Sha256 => self.sha256,
            Hash::Sha384 => self.sha384,
            Hash::Sha512 => self.sha512,
        }
    }
}

/// Number of a hash (IANA: IKEv2 Hash Algorithms).
const fn number(hash: Hash) -> u16 {
    match hash {
        Hash::Sha256 => 2,
        Hash::Sha384 => 3,
        Hash::Sha512 => 4,
    }
}

/// How an AUTH payload says its algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) method: AuthMethod,
    pub(super) scheme: SignatureScheme,
}

/// How a key of this kind signs for a peer that knows these hashes; `None`: the peer does not
/// speak RFC 7427. Nothing where no algorithm fits both.
pub(super) fn choose(kind: KeyKind, padding: RsaPadding, peer: Option<Hashes>) -> Option<Choice> {
    let Some(hashes) = peer else {
        // RSA signatures (method 1) name their hash inside; SHA-1, which RFC 7296 §3.8 suggests,
        // is not made.
        let (method, scheme) = match kind {
            KeyKind::Rsa => (
                AuthMethod::RSA_SIGNATURE,
                SignatureScheme::RsaPkcs1(Hash::Sha256),
            ),
            KeyKind::EcdsaP256 => (
                AuthMethod::ECDSA_SHA256_P256,
                SignatureScheme::EcdsaConcatenated(Hash::Sha256),
            ),
            KeyKind::EcdsaP384 => (
                AuthMethod::ECDSA_SHA384_P384,
                SignatureScheme::EcdsaConcatenated(Hash::Sha384),
            ),
            KeyKind::Ed25519 => return None,
        };
        return Some(Choice { method, scheme });
    };
    let scheme = match kind {
        KeyKind::Rsa => {
            let hash = HASHES.into_iter().find(|hash| hashes.has(*hash))?;
            match padding {
                RsaPadding::Pss => SignatureScheme::RsaPss(hash),
                RsaPadding::Pkcs1 => SignatureScheme::RsaPkcs1(hash),
            }
        }
        // A hash as strong as the curve.
        KeyKind::EcdsaP256 if hashes.sha256 => SignatureScheme::Ecdsa(Hash::Sha256),
        KeyKind::EcdsaP384 if hashes.sha384 => SignatureScheme::Ecdsa(Hash::Sha384),
        KeyKind::Ed25519 if hashes.identity => SignatureScheme::Ed25519,
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::Ed25519 => return None,
    };
    let method = AuthMethod::DIGITAL_SIGNATURE;
    Some(Choice { method, scheme })
}

/// The AUTH payload of a signature.
pub(super) fn write(choice: Choice, signature: &[u8]) -> Authentication {
    let mut data = Vec::new();
    if choice.method == AuthMethod::DIGITAL_SIGNATURE {
        // One octet of length, the AlgorithmIdentifier, the signature (RFC 7427 §3). The longest
        // identifier that is written has 67 octets.
        let identifier = identifier(choice.scheme, Form::WRITTEN);
        data.push(u8::try_from(identifier.len()).unwrap_or(u8::MAX));
        data.extend(identifier);
    }
    data.extend_from_slice(signature);
    Authentication {
        method: choice.method,
        data,
    }
}

/// The schemes by which a signature in an AUTH payload may have been made, and the signature.
/// Nothing for a method or an algorithm that is not accepted.
pub(super) fn read(auth: &Authentication) -> Option<(Vec<SignatureScheme>, &[u8])> {
    let data = auth.data.as_slice();
    match auth.method {
        AuthMethod::DIGITAL_SIGNATURE => {
            let (&length, rest) = data.split_first()?;
            let (identifier, signature) = rest.split_at_checked(usize::from(length))?;
            Some((vec![recognise(identifier)?], signature))
        }
        // The hash is named inside the signature.
        AuthMethod::RSA_SIGNATURE => Some((HASHES.map(SignatureScheme::RsaPkcs1).to_vec(), data)),
        AuthMethod::ECDSA_SHA256_P256 => {
            Some((vec![SignatureScheme::EcdsaConcatenated(Hash::Sha256)], data))
        }
        AuthMethod::ECDSA_SHA384_P384 => {
            Some((vec![SignatureScheme::EcdsaConcatenated(Hash::Sha384)], data))
        }
        _ => None,
    }
}

/// The scheme that an AlgorithmIdentifier names: compared with every form that is in use, so that
/// nothing of it needs to be parsed.
fn recognise(wanted: &[u8]) -> Option<SignatureScheme> {
    let schemes = HASHES
        .into_iter()
        .flat_map(|hash| {
            [
                SignatureScheme::RsaPss(hash),
                SignatureScheme::RsaPkcs1(hash),
                SignatureScheme::Ecdsa(hash),
            ]
        })
        .chain([SignatureScheme::Ed25519]);
    schemes
        .into_iter()
        .find(|scheme| Form::all().any(|form| identifier(*scheme, form).as_slice() == wanted))
}

/// What encoders of an AlgorithmIdentifier do differently (RFC 4055 §2.1, §3.1).
#[derive(Clone, Copy)]
struct Form {
    /// NULL parameters are written.
    null: bool,
    /// NULL parameters of the hash inside MGF1 are written.
    mgf_null: bool,
    /// The trailer field is written though it has its default.
    trailer: bool,
}

impl Form {
    /// As in the examples of RFC 7427 Appendix A, but for the trailer, which DER leaves out.
    const WRITTEN: Self = Self {
        null: true,
        mgf_null: true,
        trailer: false,
    };

    fn all() -> impl Iterator<Item = Self> {
        (0..8_u8).map(|bits| Self {
            null: bits & 1 == 0,
            mgf_null: bits & 2 == 0,
            trailer: bits & 4 != 0,
        })
    }
}

/// An AlgorithmIdentifier in DER (RFC 7427 Appendix A, RFC 8420 §3).
fn identifier(scheme: SignatureScheme, form: Form) -> Vec<u8> {
    const RSA_PKCS1: [u8; 10] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: [u8; 9] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
    const PSS: u8 = 0x0a;
    const MGF1: u8 = 0x08;
    let null = |written: bool| if written { &NULL[..] } else { &[] };
    match scheme {
        SignatureScheme::RsaPkcs1(hash) => {
            let last = match hash {
                Hash::Sha256 => 0x0b,
                Hash::Sha384 => 0x0c,
                Hash::Sha512 => 0x0d,
            };
            sequence(&[&RSA_PKCS1, &[last], null(form.null)])
        }
        SignatureScheme::RsaPss(hash) => {
            let (last, salt) = match hash {
                Hash::Sha256 => (0x01, 32),
                Hash::Sha384 => (0x02, 48),
                Hash::Sha512 => (0x03, 64),
            };
            let sha2 = |written| {
                let oid = [
                    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last,
                ];
                sequence(&[&oid, null(written)])
            };
            let mask = sequence(&[&RSA_PKCS1, &[MGF1], &sha2(form.mgf_null)]);
            let trailer: &[u8] = if form.trailer {
                &[0xa3, 0x03, 0x02, 0x01, 0x01]
            } else {
                &[]
            };
            let parameters = sequence(&[
                &tagged(0xa0, &sha2(form.null)),
                &tagged(0xa1, &mask),
                &[0xa2, 0x03, 0x02, 0x01, salt],
                trailer,
            ]);
            sequence(&[&RSA_PKCS1, &[PSS], &parameters])
        }
        SignatureScheme::Ecdsa(hash) | SignatureScheme::EcdsaConcatenated(hash) => {
            let last = match hash {
                Hash::Sha256 => 0x02,
                Hash::Sha384 => 0x03,
                Hash::Sha512 => 0x04,
            };
            sequence(&[&ECDSA_SHA2, &[last]])
        }
        SignatureScheme::Ed25519 => sequence(&[&ED25519]),
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(SEQUENCE, &parts.concat())
}

/// An element whose contents are shorter than 128 octets.
fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u8::try_from(contents.len()).unwrap_or(u8::MAX);
    [&[tag, length], contents].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let octet = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default();
        digits.chunks_exact(2).map(octet).collect()
    }

    #[test]
    fn algorithm_identifiers_are_those_of_rfc_7427_appendix_a() {
        let pkcs1 = hex("300d 0609 2a86 4886 f70d 0101 0b05 00");
        let ecdsa = hex("300a 0608 2a86 48ce 3d04 0302");
        let ed25519 = hex("3005 0603 2b65 70");
        let written = |scheme| identifier(scheme, Form::WRITTEN);
        assert_eq!(written(SignatureScheme::RsaPkcs1(Hash::Sha256)), pkcs1);
        assert_eq!(written(SignatureScheme::Ecdsa(Hash::Sha256)), ecdsa);
        assert_eq!(written(SignatureScheme::Ed25519), ed25519);
        // A.4.3, which writes the trailer.
        let pss = hex(
            "3046 0609 2a86 4886 f70d 0101 0a30 39a0 0f30 0d06 0960 8648 0165 0304 0201 0500 a11c
             301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20a3
             0302 0101",
        );
        assert_eq!(recognise(&pss), Some(SignatureScheme::RsaPss(Hash::Sha256)));
    }

    #[test]
    fn a_peer_is_offered_only_hashes_that_its_key_of_whatever_kind_can_be_verified_with() {
        let offered = Hashes::read(&Hashes::ours());
        assert!(offered.sha256 && offered.sha384 && offered.identity);
        assert!(!offered.sha512);
    }

    #[test]
    fn every_form_of_an_identifier_is_recognised_and_no_other_octets() {
        for hash in HASHES {
            for scheme in [
                SignatureScheme::RsaPss(hash),
                SignatureScheme::RsaPkcs1(hash),
                SignatureScheme::Ecdsa(hash),
            ] {
                for form in Form::all() {
                    assert_eq!(recognise(&identifier(scheme, form)), Some(scheme));
                }
                let written = identifier(scheme, Form::WRITTEN);
                for cut in 0..written.len() {
                    assert_eq!(recognise(&written[..cut]), None);
                }
            }
        }
        // sha1WithRSAEncryption.
        assert_eq!(
            recognise(&hex("300d 0609 2a86 4886 f70d 0101 0505 00")),
            None
        );
    }

    #[test]
    fn an_auth_payload_survives_the_wire() {
        for kind in [
            KeyKind::Rsa,
            KeyKind::EcdsaP256,
            KeyKind::EcdsaP384,
            KeyKind::Ed25519,
        ] {
            let all = Hashes::read(&Hashes::ours());
            let choice = choose(kind, RsaPadding::Pss, Some(all));
            let choice = choice.unwrap_or_else(|| unreachable!("all hashes are known"));
            let auth = write(choice, b"signature");
            assert_eq!(read(&auth), Some((vec![choice.scheme], &b"signature"[..])));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for data in [&[][..], &[1], &[255, 0x30], &[0], &[15, 0x30, 0x0d]] {
            let auth = Authentication {
                method: AuthMethod::DIGITAL_SIGNATURE,
                data: data.to_vec(),
            };
            assert_eq!(read(&auth), None, "{data:?}");
        }
    }

    #[test]
    fn only_hashes_that_the_peer_knows_are_used() {
        let only = |number: u16| Some(Hashes::read(&number.to_be_bytes()));
        let scheme = |kind, peer| choose(kind, RsaPadding::Pkcs1, peer).map(|it| it.scheme);
        assert_eq!(
            scheme(KeyKind::Rsa, only(4)),
            Some(SignatureScheme::RsaPkcs1(Hash::Sha512))
        );
        // SHA-1 alone.
        assert_eq!(scheme(KeyKind::Rsa, only(1)), None);
        assert_eq!(scheme(KeyKind::EcdsaP256, only(4)), None);
        assert_eq!(scheme(KeyKind::Ed25519, only(2)), None);
        assert_eq!(scheme(KeyKind::Ed25519, None), None);
    }
}
