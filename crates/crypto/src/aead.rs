//! AES-GCM as IKE and ESP use it: a key that ends with a salt, and an explicit IV that follows the
//! salt in the nonce (RFC 4106 §4, RFC 5282 §4).

use epochgate_controller::Secret;
use epochgate_controller::crypto::{Cipher, CryptoError, ICV_LEN, IV_LEN};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Encrypts in place and appends the ICV.
pub(super) fn seal(
    cipher: Cipher,
    key: &Secret,
    iv: [u8; IV_LEN],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let (key, nonce) = prepare(cipher, key, iv)?;
    key.seal_in_place_append_tag(nonce, Aad::from(associated), payload)
        .map_err(|_| CryptoError::Provider)
}

/// Checks, decrypts in place and cuts the ICV off.
pub(super) fn open(
    cipher: Cipher,
    key: &Secret,
    iv: [u8; IV_LEN],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let plain_len = payload
        .len()
        .checked_sub(ICV_LEN)
        .ok_or(CryptoError::Forged)?;
    let (key, nonce) = prepare(cipher, key, iv)?;
    key.open_in_place(nonce, Aad::from(associated), payload)
        .map_err(|_| CryptoError::Forged)?;
    payload.truncate(plain_len);
    Ok(())
}

/// Splits key material into cipher key and salt, and puts salt and IV together.
fn prepare(
    cipher: Cipher,
    key: &Secret,
    iv: [u8; IV_LEN],
) -> Result<(LessSafeKey, Nonce), CryptoError> {
    let algorithm = match cipher {
        Cipher::AesGcm128 => &AES_128_GCM,
        Cipher::AesGcm256 => &AES_256_GCM,
    };
    let (key, salt) = key
        .expose()
        .split_at_checked(cipher.key_len())
        .ok_or(CryptoError::Provider)?;
    let key = UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Provider)?;
    let mut nonce = [0; NONCE_LEN];
    let (salt_half, iv_half) = nonce.split_at_mut(NONCE_LEN - IV_LEN);
    if salt.len() != salt_half.len() {
        return Err(CryptoError::Provider);
    }
    salt_half.copy_from_slice(salt);
    iv_half.copy_from_slice(&iv);
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce)))
}
