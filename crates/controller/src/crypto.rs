//! The one narrow door to cryptography (RFC 7296 §2.13–2.15, RFC 5282).
//!
//! The controller names algorithms and holds keys; a provider computes. The daemon's provider is
//! `epochgate-crypto` (ring); the simulator may bring a cheap one.

use thiserror::Error;

use crate::Secret;

/// Key exchange methods that we offer and accept (IANA "Transform Type 4"). Weaker ones
/// (RFC 8247 §2.4: groups 1, 2, 5, 22, 23, 24) have no name here and so cannot be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Curve25519, method 31 (RFC 8031).
    X25519,
    /// 256-bit random ECP, method 19 (RFC 5903).
    P256,
    /// 384-bit random ECP, method 20 (RFC 5903).
    P384,
    /// 521-bit random ECP, method 21 (RFC 5903).
    P521,
    /// 3072-bit MODP, method 15 (RFC 3526 §4).
    Modp3072,
    /// 2048-bit MODP, method 14 (RFC 3526 §3).
    Modp2048,
}

/// Key encapsulation mechanisms that add to a key exchange (RFC 9370), so that who records traffic
/// today cannot read it with tomorrow's quantum computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kem {
    /// ML-KEM-768, method 36 (FIPS 203).
    MlKem768,
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

/// Encryption with its integrity, for IKE and for ESP. There is no encryption without integrity
/// here (RFC 7296 §3.3.2), and nothing that RFC 8221 and RFC 8247 forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cipher {
    /// AES-GCM with a 16-octet ICV, transform 20, 128-bit key (RFC 4106, RFC 5282).
    AesGcm128,
    /// AES-GCM with a 16-octet ICV, transform 20, 256-bit key (RFC 4106, RFC 5282).
    AesGcm256,
    /// ChaCha20-Poly1305, transform 28, 256-bit key (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC, transform 12 (RFC 3602), then HMAC over the ciphertext (RFC 4868).
    AesCbc(AesKey, Integrity),
}

/// Key lengths of AES-CBC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AesKey {
    /// 128 bits.
    Bits128,
    /// 256 bits.
    Bits256,
}

/// Integrity algorithms beside AES-CBC (IANA "Transform Type 3", RFC 4868 §2): HMAC cut to half
/// of the hash, keyed with as many octets as the hash has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Integrity {
    /// AUTH_HMAC_SHA2_256_128, 12.
    HmacSha256,
    /// AUTH_HMAC_SHA2_384_192, 13.
    HmacSha384,
    /// AUTH_HMAC_SHA2_512_256, 14.
    HmacSha512,
}

/// Octets of salt that the key material of an AEAD ends with (RFC 4106 §8.1, RFC 5282 §7.1,
/// RFC 7634 §2).
const SALT_LEN: usize = 4;
/// Octets of an AEAD's explicit IV in each message (RFC 5282 §3, RFC 7634 §2).
const AEAD_IV_LEN: usize = 8;
/// Octets of an AEAD's integrity check value (RFC 5282 §3: 16 is a MUST).
const AEAD_ICV_LEN: usize = 16;
/// Octets of AES's block, and so of the IV of AES-CBC (RFC 3602 §2.4, §3).
const AES_BLOCK_LEN: usize = 16;

impl Cipher {
    /// Octets of the encryption key, without salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesCbc(AesKey::Bits128, _) => 16,
            Self::AesGcm256 | Self::ChaCha20Poly1305 | Self::AesCbc(AesKey::Bits256, _) => 32,
        }
    }

    /// Octets of salt that follow an AEAD's key (RFC 5282 §7.1).
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 | Self::ChaCha20Poly1305 => SALT_LEN,
            Self::AesCbc(..) => 0,
        }
    }

    /// The integrity algorithm beside it; an AEAD has none (RFC 5282 §8).
    #[must_use]
    pub const fn integrity(self) -> Option<Integrity> {
        match self {
            Self::AesGcm128 | Self::AesGcm256 | Self::ChaCha20Poly1305 => None,
            Self::AesCbc(_, integrity) => Some(integrity),
        }
    }

    /// Octets of the integrity key; 0 for an AEAD.
    #[must_use]
    pub const fn integrity_key_len(self) -> usize {
        match self.integrity() {
            None => 0,
            Some(integrity) => integrity.key_len(),
        }
    }

    /// Octets of all key material of one direction: encryption key, then salt or integrity key,
    /// as RFC 7296 §2.17 takes them for a Child SA.
    #[must_use]
    pub const fn material_len(self) -> usize {
        self.key_len() + self.salt_len() + self.integrity_key_len()
    }

    /// Octets of IV in each message.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 | Self::ChaCha20Poly1305 => AEAD_IV_LEN,
            Self::AesCbc(..) => AES_BLOCK_LEN,
        }
    }

    /// Octets of integrity check value in each message.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 | Self::ChaCha20Poly1305 => AEAD_ICV_LEN,
            Self::AesCbc(_, integrity) => integrity.icv_len(),
        }
    }

    /// Octets that a plaintext with its padding is a multiple of (RFC 7296 §3.14).
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::AesGcm128 | Self::AesGcm256 | Self::ChaCha20Poly1305 => 1,
            Self::AesCbc(..) => AES_BLOCK_LEN,
        }
    }
}

impl Integrity {
    /// Octets of key: those of the hash (RFC 4868 §2.1.1).
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Octets of integrity check value: half of the hash (RFC 4868 §2.3).
    #[must_use]
    pub const fn icv_len(self) -> usize {
        self.key_len() / 2
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AesGcm128 => f.write_str("AES-GCM-128"),
            Self::AesGcm256 => f.write_str("AES-GCM-256"),
            Self::ChaCha20Poly1305 => f.write_str("ChaCha20-Poly1305"),
            Self::AesCbc(AesKey::Bits128, integrity) => write!(f, "AES-CBC-128/{integrity}"),
            Self::AesCbc(AesKey::Bits256, integrity) => write!(f, "AES-CBC-256/{integrity}"),
        }
    }
}

impl std::fmt::Display for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HmacSha256 => "HMAC-SHA-256-128",
            Self::HmacSha384 => "HMAC-SHA-384-192",
            Self::HmacSha512 => "HMAC-SHA-512-256",
        })
    }
}

impl std::fmt::Display for Prf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HmacSha256 => "HMAC-SHA-256",
            Self::HmacSha384 => "HMAC-SHA-384",
            Self::HmacSha512 => "HMAC-SHA-512",
        })
    }
}

impl std::fmt::Display for Kem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MlKem768 => "ML-KEM-768",
        })
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::X25519 => "X25519",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Modp3072 => "MODP-3072",
            Self::Modp2048 => "MODP-2048",
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

/// The initiator's side of a key encapsulation: a key pair that is used once.
pub trait Decapsulation: Send {
    /// Our encapsulation key as it stands in the KE payload.
    fn encapsulation_key(&self) -> &[u8];
    /// The shared secret that the peer encapsulated.
    ///
    /// # Errors
    /// [`CryptoError::InvalidPublicValue`] for a ciphertext of the wrong length.
    fn decapsulate(self: Box<Self>, ciphertext: &[u8]) -> Result<Secret, CryptoError>;
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

    /// Makes a key pair for one key encapsulation.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] when none could be made.
    fn decapsulation(&self, kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError>;

    /// The responder's side: a ciphertext for who has the key pair, and the shared secret in it.
    ///
    /// # Errors
    /// [`CryptoError::InvalidPublicValue`] for what is no encapsulation key (FIPS 203 §7.2).
    fn encapsulate(
        &self,
        kem: Kem,
        encapsulation_key: &[u8],
    ) -> Result<(Vec<u8>, Secret), CryptoError>;

    /// `prf(key, data[0] | data[1] | …)` (RFC 7296 §2.13).
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret;

    /// Encrypts `payload` in place and appends the ICV, which covers `associated`, the IV and the
    /// ciphertext. `key` is [`Cipher::material_len`] octets, `iv` [`Cipher::iv_len`]; for AES-CBC
    /// the IV is unpredictable and `payload` whole blocks, for an AEAD no IV comes twice.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] for a key, IV or payload of the wrong length.
    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Checks and then decrypts `payload` (ciphertext and ICV) in place and cuts the ICV off. What
    /// fails the check is not decrypted, and how the check fails takes no telling time.
    ///
    /// # Errors
    /// [`CryptoError::Forged`] when the check fails; `payload` is then worthless.
    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// Compares in constant time; lengths may differ and are not secret.
    fn equal(&self, left: &[u8], right: &[u8]) -> bool;

    /// SHA-1 of the concatenation, for NAT detection alone (RFC 7296 §2.23).
    fn sha1(&self, data: &[&[u8]]) -> [u8; 20];

    /// MD4 (RFC 1320), for MSCHAPv2 alone (RFC 2759 §8.3).
    fn md4(&self, data: &[u8]) -> [u8; 16];

    /// DES of one block, for MSCHAPv2 alone (RFC 2759 §8.6).
    fn des(&self, key: &[u8; 8], block: &[u8; 8]) -> [u8; 8];
}
