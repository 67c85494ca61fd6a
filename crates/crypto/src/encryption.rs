//! Which algorithm encrypts: the AEADs of [`super::aead`] or AES-CBC with HMAC of [`super::cbc`].

use epochgate_controller::Secret;
use epochgate_controller::crypto::{Cipher, CryptoError};
use ring::aead::{AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305};

use super::{aead, cbc};

/// Encrypts in place and appends the ICV.
pub(super) fn seal(
    cipher: Cipher,
    key: &Secret,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let key = material(cipher, key)?;
    match cipher {
        Cipher::AesGcm128 => aead::seal(&AES_128_GCM, key, iv, associated, payload),
        Cipher::AesGcm256 => aead::seal(&AES_256_GCM, key, iv, associated, payload),
        Cipher::ChaCha20Poly1305 => aead::seal(&CHACHA20_POLY1305, key, iv, associated, payload),
        Cipher::AesCbc(bits, integrity) => cbc::seal(bits, integrity, key, iv, associated, payload),
    }
}

/// Checks, decrypts in place and cuts the ICV off.
pub(super) fn open(
    cipher: Cipher,
    key: &Secret,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let key = material(cipher, key)?;
    match cipher {
        Cipher::AesGcm128 => aead::open(&AES_128_GCM, key, iv, associated, payload),
        Cipher::AesGcm256 => aead::open(&AES_256_GCM, key, iv, associated, payload),
        Cipher::ChaCha20Poly1305 => aead::open(&CHACHA20_POLY1305, key, iv, associated, payload),
        Cipher::AesCbc(bits, integrity) => cbc::open(bits, integrity, key, iv, associated, payload),
    }
}

/// The encryption key, and the salt or integrity key that follows it.
#[derive(Clone, Copy)]
pub(super) struct Material<'a> {
    pub(super) key: &'a [u8],
    pub(super) rest: &'a [u8],
}

fn material(cipher: Cipher, material: &Secret) -> Result<Material<'_>, CryptoError> {
    if material.len() != cipher.material_len() {
        return Err(CryptoError::Provider);
    }
    let (key, rest) = material
        .expose()
        .split_at_checked(cipher.key_len())
        .ok_or(CryptoError::Provider)?;
    Ok(Material { key, rest })
}
