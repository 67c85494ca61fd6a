//! What an SA does to a packet: the algorithms, by the kernel's crypto names, and their keys.

use crate::Key;

/// The algorithms of an SA.
///
/// Names are those of the kernel's crypto API, as `ip xfrm state` prints them. A name the kernel
/// does not have is refused with ENOSYS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// None yet: a larval SA, made by ALLOCSPI or by an ACQUIRE. Only read, never written.
    Larval,
    /// One algorithm that encrypts and authenticates.
    Aead(Aead),
    /// Encryption, with integrity protection of its own beside it.
    Encryption {
        /// The cipher.
        cipher: Cipher,
        /// The integrity algorithm. ESP without one protects from no active attacker.
        integrity: Option<Integrity>,
    },
    /// Integrity protection alone (AH; ESP needs a cipher, `ecb(cipher_null)`, beside it).
    Integrity(Integrity),
    /// IPComp.
    Compression(Compression),
}

/// An AEAD algorithm (kernel: `xfrm_algo_aead`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aead {
    /// The kernel's name, at most 63 bytes.
    pub name: String,
    /// Key and salt.
    pub key: Key,
    /// Length of the integrity check value in bits.
    pub icv_bits: u32,
}

/// A cipher (kernel: `xfrm_algo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// The kernel's name, at most 63 bytes.
    pub name: String,
    /// The key.
    pub key: Key,
}

/// An integrity algorithm (kernel: `xfrm_algo_auth`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// The kernel's name, at most 63 bytes.
    pub name: String,
    /// The key.
    pub key: Key,
    /// Length of the integrity check value in bits; `None` takes the kernel's default, which for
    /// `hmac(sha256)` is 96 and not RFC 4868's 128. The kernel always reports it.
    pub truncation_bits: Option<u32>,
}

/// A compression algorithm (kernel: `xfrm_algo`, without a key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The kernel's name, at most 63 bytes.
    pub name: String,
}

impl Protection {
    /// AES-GCM with a 16-byte ICV (RFC 4106, IKEv2 transform 20). The length of `key_and_salt`
    /// chooses the cipher: 20, 28 or 36 bytes.
    #[must_use]
    pub fn aes_gcm_16(key_and_salt: Key) -> Self {
        Self::aead("rfc4106(gcm(aes))", key_and_salt, 128)
    }

    /// ChaCha20-Poly1305 (RFC 7634): 36 bytes of key and salt.
    #[must_use]
    pub fn chacha20_poly1305(key_and_salt: Key) -> Self {
        Self::aead("rfc7539esp(chacha20,poly1305)", key_and_salt, 128)
    }

    /// AES-CBC (RFC 3602) with HMAC-SHA-256-128 (RFC 4868).
    #[must_use]
    pub fn aes_cbc_hmac_sha256_128(cipher_key: Key, integrity_key: Key) -> Self {
        Self::aes_cbc(cipher_key, "hmac(sha256)", integrity_key, 128)
    }

    /// AES-CBC (RFC 3602) with HMAC-SHA-384-192 (RFC 4868).
    #[must_use]
    pub fn aes_cbc_hmac_sha384_192(cipher_key: Key, integrity_key: Key) -> Self {
        Self::aes_cbc(cipher_key, "hmac(sha384)", integrity_key, 192)
    }

    /// AES-CBC (RFC 3602) with HMAC-SHA-512-256 (RFC 4868).
    #[must_use]
    pub fn aes_cbc_hmac_sha512_256(cipher_key: Key, integrity_key: Key) -> Self {
        Self::aes_cbc(cipher_key, "hmac(sha512)", integrity_key, 256)
    }

    fn aes_cbc(cipher_key: Key, integrity: &str, integrity_key: Key, icv_bits: u32) -> Self {
        Self::Encryption {
            cipher: Cipher {
                name: "cbc(aes)".to_owned(),
                key: cipher_key,
            },
            integrity: Some(Integrity {
                name: integrity.to_owned(),
                key: integrity_key,
                truncation_bits: Some(icv_bits),
            }),
        }
    }

    fn aead(name: &str, key: Key, icv_bits: u32) -> Self {
        Self::Aead(Aead {
            name: name.to_owned(),
            key,
            icv_bits,
        })
    }
}
