//! Private keys: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017) and SEC 1 (RFC 5915) in PEM → a key that
//! signs.

use std::fmt;

use epochgate_controller::crypto::CryptoError;
use epochgate_controller::pki::{Hash, KeyKind, SignatureScheme, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};

use super::certificate::{PublicKey, PublicKeyKind};
use super::der::{self, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element};
use super::pem;

/// A private key, ready to sign.
pub(crate) struct Key {
    pair: Pair,
    random: SystemRandom,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

const NOT_FOR_CERTIFICATE: &str = "it is not the key of the certificate";

/// Reads the private key in a file, which must be that of `public`.
pub(crate) fn read(file: &[u8], public: &PublicKey) -> Result<Key, String> {
    let blocks = pem::blocks(file)?;
    let block = blocks
        .iter()
        .find(|block| block.label.ends_with("PRIVATE KEY"))
        .ok_or_else(|| "there is no private key in it (PEM is wanted)".to_owned())?;
    let octets = block.der.as_slice();
    let is_pkcs8 = block.label == "PRIVATE KEY";
    let random = SystemRandom::new();
    let pair = match public.kind {
        PublicKeyKind::Rsa => {
            let key = match is_pkcs8 {
                true => RsaKeyPair::from_pkcs8(octets),
                false => RsaKeyPair::from_der(octets),
            };
            let key = key.map_err(|error| {
                format!("no RSA key of 2048 to 4096 bits, as the certificate has: {error}")
            })?;
            if key.public_key().as_ref() != public.octets {
                return Err(NOT_FOR_CERTIFICATE.to_owned());
            }
            Pair::Rsa(Box::new(key))
        }
        PublicKeyKind::P256 => {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            Pair::P256(elliptic(algorithm, octets, is_pkcs8, public, &random)?)
        }
        PublicKeyKind::P384 => {
            let algorithm = &ECDSA_P384_SHA384_ASN1_SIGNING;
            Pair::P384(elliptic(algorithm, octets, is_pkcs8, public, &random)?)
        }
        PublicKeyKind::Ed25519 => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(octets)
                .map_err(|error| format!("no Ed25519 key, as the certificate has: {error}"))?;
            if key.public_key().as_ref() != public.octets {
                return Err(NOT_FOR_CERTIFICATE.to_owned());
            }
            Pair::Ed25519(key)
        }
    };
    Ok(Key { pair, random })
}

/// A key on a curve. Its public half is the certificate's: files need not have it, and *ring*
/// checks that the two belong together.
fn elliptic(
    algorithm: &'static EcdsaSigningAlgorithm,
    octets: &[u8],
    is_pkcs8: bool,
    public: &PublicKey,
    random: &SystemRandom,
) -> Result<EcdsaKeyPair, String> {
    let scalar = scalar(octets, is_pkcs8)
        .ok_or_else(|| "no key on a curve, as the certificate has".to_owned())?;
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, &public.octets, random)
        .map_err(|_| NOT_FOR_CERTIFICATE.to_owned())
}

/// The private value of an ECPrivateKey (RFC 5915 §3), which PKCS#8 wraps.
fn scalar(octets: &[u8], is_pkcs8: bool) -> Option<&[u8]> {
    let key = if is_pkcs8 {
        let (info, _) = element(octets, SEQUENCE)?;
        let (_version, rest) = element(info, der::INTEGER)?;
        let (algorithm, rest) = element(rest, SEQUENCE)?;
        element(algorithm, OBJECT_IDENTIFIER)?;
        let (key, _) = element(rest, OCTET_STRING)?;
        key
    } else {
        octets
    };
    let (fields, _) = element(key, SEQUENCE)?;
    let (_version, rest) = element(fields, der::INTEGER)?;
    let (scalar, _) = element(rest, OCTET_STRING)?;
    Some(scalar)
}

impl SigningKey for Key {
    fn kind(&self) -> KeyKind {
        match self.pair {
            Pair::Rsa(_) => KeyKind::Rsa,
            Pair::P256(_) => KeyKind::EcdsaP256,
            Pair::P384(_) => KeyKind::EcdsaP384,
            Pair::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match (&self.pair, scheme) {
            (Pair::Rsa(key), SignatureScheme::RsaPkcs1(hash)) => {
                let encoding: &dyn RsaEncoding = match hash {
                    Hash::Sha256 => &RSA_PKCS1_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_SHA512,
                };
                self.sign_rsa(key, encoding, message)
            }
            (Pair::Rsa(key), SignatureScheme::RsaPss(hash)) => {
                let encoding: &dyn RsaEncoding = match hash {
                    Hash::Sha256 => &RSA_PSS_SHA256,
                    Hash::Sha384 => &RSA_PSS_SHA384,
                    Hash::Sha512 => &RSA_PSS_SHA512,
                };
                self.sign_rsa(key, encoding, message)
            }
            (Pair::P256(key), SignatureScheme::Ecdsa(Hash::Sha256))
            | (Pair::P384(key), SignatureScheme::Ecdsa(Hash::Sha384)) => {
                self.sign_ecdsa(key, message)
            }
            (Pair::P256(key), SignatureScheme::EcdsaConcatenated(Hash::Sha256)) => {
                let signature = self.sign_ecdsa(key, message)?;
                der::halves_from_signature(&signature, 32).ok_or(CryptoError::Provider)
            }
            (Pair::P384(key), SignatureScheme::EcdsaConcatenated(Hash::Sha384)) => {
                let signature = self.sign_ecdsa(key, message)?;
                der::halves_from_signature(&signature, 48).ok_or(CryptoError::Provider)
            }
            (Pair::Ed25519(key), SignatureScheme::Ed25519) => {
                Ok(key.sign(message).as_ref().to_vec())
            }
            (Pair::Rsa(_) | Pair::P256(_) | Pair::P384(_) | Pair::Ed25519(_), _) => {
                Err(CryptoError::Provider)
            }
        }
    }
}

impl Key {
    fn sign_rsa(
        &self,
        key: &RsaKeyPair,
        encoding: &'static dyn RsaEncoding,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(encoding, &self.random, message, &mut signature)
            .map_err(|_| CryptoError::Provider)?;
        Ok(signature)
    }

    fn sign_ecdsa(&self, key: &EcdsaKeyPair, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        key.sign(&self.random, message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| CryptoError::Provider)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.kind())
    }
}
