//! The ciphers that IKE negotiates, by the kernel's names (`xfrm_algo.c`).

use epochgate_controller::crypto::{Cipher, Integrity};
use epochgate_xfrm::{Key, Protection};

/// The algorithms of an SA. Key material is encryption key, then salt or integrity key, as
/// RFC 7296 §2.17 takes them; the kernel takes an AEAD's key and salt as one.
#[must_use]
pub fn protection(cipher: Cipher, material: &[u8]) -> Protection {
    match cipher {
        Cipher::AesGcm128 | Cipher::AesGcm256 => Protection::aes_gcm_16(Key::from(material)),
        Cipher::ChaCha20Poly1305 => Protection::chacha20_poly1305(Key::from(material)),
        Cipher::AesCbc(_, integrity) => {
            let at = cipher.key_len().min(material.len());
            let (encryption, authentication) = material.split_at(at);
            let keys = (Key::from(encryption), Key::from(authentication));
            match integrity {
                Integrity::HmacSha256 => Protection::aes_cbc_hmac_sha256_128(keys.0, keys.1),
                Integrity::HmacSha384 => Protection::aes_cbc_hmac_sha384_192(keys.0, keys.1),
                Integrity::HmacSha512 => Protection::aes_cbc_hmac_sha512_256(keys.0, keys.1),
            }
        }
    }
}
