//! The one narrow door to cryptography (RFC 7296 §2.13–2.15, RFC 5282).
//!
//! The controller names algorithms and holds keys; a provider computes. The daemon's provider is
//! `epochgate-crypto` (ring); the simulator may bring a cheap one.

use thiserror::Error;

use crate::Secret;

/// Key exchange methods that we offer and accept (IANA "Transform Type 4").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Curve25519, method 31 (RFC 8031).
    X25519,
    /// 256-bit random ECP, method 19 (RFC 5903).
    P256,
    /// 384-bit random ECP, method 20 (RFC 5903).
    P384,
}

/// Pseudorandom functions (IANA "Transform Type 2", RFC 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256, 5.
    HmacSha256,
    /// PRF_HMAC_SHA2_384, 6.
    HmacSha384,
    /// PRF_HMAC_SHA2_512, 7.
    HmacSha512,
}

/// Combined-mode ciphers, for IKE and for ESP (IANA "Transform Type 1", RFC 4106, RFC 5282).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cipher {
    /// AES-GCM with a 16-octet ICV, transform 20, 128-bit key.
    AesGcm128,
    /// AES-GCM with a 16-octet ICV, transform 20, 256-bit key.
    AesGcm256,
}

/// Octets of salt that the key material of an AEAD ends with (RFC 4106 §8.1, RFC 5282 §7.1).
pub const SALT_LEN: usize = 4;
/// Octets of explicit IV in each message (RFC 5282 §3).
pub const IV_LEN: usize = 8;
/// Octets of integrity check value (RFC 5282 §3: 16 is a MUST).
pub const ICV_LEN: usize = 16;

impl Cipher {
    /// Octets of key material without the salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesGcm128 => 16,
            Self::AesGcm256 => 32,
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AesGcm128 => "AES-GCM-128",
            Self::AesGcm256 => "AES-GCM-256",
        })
    }
}

impl Prf {
    /// Octets of output, and of SK_d, SK_pi, SK_pr (RFC 7296 §2.14).
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

/// What a provider can fail with. None of it says anything of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The peer's public value is no valid point or has the wrong length (RFC 6989).
    #[error("the peer's key exchange value is invalid")]
    InvalidPublicValue,
    /// The integrity check of a message failed.
    #[error("the integrity check failed")]
    Forged,
    /// The provider itself failed (no randomness, wrong key length).
    #[error("the cryptographic provider failed")]
    Provider,
}

/// One side of an ephemeral key exchange whose private value is used once.
pub trait KeyExchange: Send {
    /// The method of this exchange.
    fn group(&self) -> Group;
    /// Our public value as it stands in the KE payload (RFC 8031 §3, RFC 5903 §7).
    fn public_value(&self) -> &[u8];
    /// The shared secret g^ir.
    ///
    /// # Errors
    /// [`CryptoError::InvalidPublicValue`] for a value that is no point of the curve.
    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError>;
}

/// Computes what the controller decides.
pub trait Crypto: Send + Sync {
    /// Fills `out` with unpredictable octets: SPIs, nonces, cookies' secret, jitter.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] when the system gives none.
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError>;

    /// Starts an ephemeral key exchange.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] when no private value could be made.
    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// `prf(key, data[0] | data[1] | …)` (RFC 7296 §2.13).
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret;

    /// Encrypts `payload` in place and appends the ICV. `key` is cipher key and salt.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] for a key of the wrong length.
    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: [u8; IV_LEN],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Checks and decrypts `payload` (ciphertext and ICV) in place and cuts the ICV off.
    ///
    /// # Errors
    /// [`CryptoError::Forged`] when the check fails; `payload` is then worthless.
    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: [u8; IV_LEN],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Compares in constant time; lengths may differ and are not secret.
    fn equal(&self, left: &[u8], right: &[u8]) -> bool;

    /// SHA-1 of the concatenation, for NAT detection alone (RFC 7296 §2.23).
    fn sha1(&self, data: &[&[u8]]) -> [u8; 20];
}
