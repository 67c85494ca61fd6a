//! AES-CBC with HMAC over what it gave (RFC 3602, RFC 4868; RFC 7296 §3.14): encrypt, then
//! authenticate; on the way back the ICV is checked before anything is decrypted, so that padding
//! tells nobody anything.

use aes::{Aes128, Aes256};
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit,
    block_padding::NoPadding,
};
use cbc::{Decryptor, Encryptor};
use epochgate_controller::crypto::{AesKey, CryptoError, Integrity};
use ring::hmac;
use subtle::ConstantTimeEq;

use super::encryption::Material;

/// Encrypts whole blocks in place and appends the ICV.
pub(super) fn seal(
    bits: AesKey,
    integrity: Integrity,
    Material { key, rest: mac_key }: Material<'_>,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    match bits {
        AesKey::Bits128 => encrypt::<Aes128>(key, iv, payload),
        AesKey::Bits256 => encrypt::<Aes256>(key, iv, payload),
    }?;
    let tag = authenticate(integrity, mac_key, [associated, iv, payload]);
    payload.extend_from_slice(icv(&tag, integrity));
    Ok(())
}

/// Checks the ICV, cuts it off and decrypts in place.
pub(super) fn open(
    bits: AesKey,
    integrity: Integrity,
    Material { key, rest: mac_key }: Material<'_>,
    iv: &[u8],
    associated: &[u8],
    payload: &mut Vec<u8>,
) -> Result<(), CryptoError> {
    let text_len = payload
        .len()
        .checked_sub(integrity.icv_len())
        .ok_or(CryptoError::Forged)?;
    let (text, claimed) = payload.split_at(text_len);
    let tag = authenticate(integrity, mac_key, [associated, iv, text]);
    if !bool::from(icv(&tag, integrity).ct_eq(claimed)) {
        return Err(CryptoError::Forged);
    }
    payload.truncate(text_len);
    match bits {
        AesKey::Bits128 => decrypt::<Aes128>(key, iv, payload),
        AesKey::Bits256 => decrypt::<Aes256>(key, iv, payload),
    }
}

fn encrypt<A: BlockCipherEncrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    payload: &mut [u8],
) -> Result<(), CryptoError> {
    let cipher = Encryptor::<A>::new_from_slices(key, iv).map_err(|_| CryptoError::Provider)?;
    let length = payload.len();
    cipher
        .encrypt_padded::<NoPadding>(payload, length)
        .map(|_| ())
        .map_err(|_| CryptoError::Provider)
}

/// What is no whole number of blocks was made by who has the key, but not as it must be.
fn decrypt<A: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    iv: &[u8],
    payload: &mut [u8],
) -> Result<(), CryptoError> {
    let cipher = Decryptor::<A>::new_from_slices(key, iv).map_err(|_| CryptoError::Provider)?;
    cipher
        .decrypt_padded::<NoPadding>(payload)
        .map(|_| ())
        .map_err(|_| CryptoError::Forged)
}

fn authenticate(integrity: Integrity, key: &[u8], parts: [&[u8]; 3]) -> hmac::Tag {
    let algorithm = match integrity {
        Integrity::HmacSha256 => hmac::HMAC_SHA256,
        Integrity::HmacSha384 => hmac::HMAC_SHA384,
        Integrity::HmacSha512 => hmac::HMAC_SHA512,
    };
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

/// The half of the HMAC that is sent (RFC 4868 §2.3).
fn icv(tag: &hmac::Tag, integrity: Integrity) -> &[u8] {
    let tag = tag.as_ref();
    tag.get(..integrity.icv_len()).unwrap_or(tag)
}
