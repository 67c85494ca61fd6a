//! AES-GCM and ChaCha20-Poly1305 as IKE and ESP use them: a key that ends with a salt, and an
//! explicit IV that follows the salt in the nonce (RFC 4106 §4, RFC 5282 §4, RFC 7634 §2).

use epochgate_controller::crypto::CryptoError;
use ring::aead::{Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::encryption::Material;

/// Encrypts in place and appends the ICV.
pub(super) fn seal(
    algorithm: &'static Algorithm,
    material: Material<'_>,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, nonce) = prepare(algorithm, material, iv)?;
    key.seal_in_place_append_tag(nonce, Aad::from(associated), payload)
        .map_err(|_| CryptoError::Provider)
}

/// Checks, decrypts in place and cuts the ICV off. ring compares the ICV in constant time.
pub(super) fn open(
    algorithm: &'static Algorithm,
    material: Material<'_>,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let plain_len = payload
        .len()
        .checked_sub(algorithm.tag_len())
        .ok_or(CryptoError::Forged)?;
    let (key, nonce) = prepare(algorithm, material, iv)?;
    key.open_in_place(nonce, Aad::from(associated), payload)
        .map_err(|_| CryptoError::Forged)?;
    payload.truncate(plain_len);
    Ok(())
}

/// Puts salt and IV together.
fn prepare(
    algorithm: &'static Algorithm,
    Material { key, rest: salt }: Material<'_>,
    iv: &[u8],
) -> Result<(LessSafeKey, Nonce), CryptoError> {
    let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Provider)?;
    let mut nonce = [0; NONCE_LEN];
    let (salt_half, iv_half) = nonce
        .split_at_mut_checked(salt.len())
        .ok_or(CryptoError::Provider)?;
    if iv.len() != iv_half.len() {
        return Err(CryptoError::Provider);
    }
    salt_half.copy_from_slice(salt);
    iv_half.copy_from_slice(iv);
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}
