//! Opens ESP packets of AES-CBC (RFC 3602) with HMAC-SHA-2 (RFC 4868).

use aes::{Aes128, Aes256};
use cbc::Decryptor;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit, KeyIvInit};
use epochgate_xfrm::{Cipher, Integrity};
use ring::hmac;

/// AES's block, and so the IV (RFC 3602 §3).
const IV_BYTES: usize = 16;
/// SPI and sequence number (RFC 4303 §2).
const ESP_HEADER_BYTES: usize = 8;

/// The keys of one SA.
pub(super) struct CbcKey {
    encryption: Vec<u8>,
    authentication: hmac::Key,
    icv_bytes: usize,
    extended_sequence: bool,
}

impl CbcKey {
    /// `None` for algorithms that it cannot open. Names are those of net/xfrm/xfrm_algo.c.
    pub(super) fn new(
        cipher: &Cipher,
        integrity: &Integrity,
        extended_sequence: bool,
    ) -> Option<Self> {
        let algorithm = match integrity.name.as_str() {
            "hmac(sha256)" => hmac::HMAC_SHA256,
            "hmac(sha384)" => hmac::HMAC_SHA384,
            "hmac(sha512)" => hmac::HMAC_SHA512,
            _ => return None,
        };
        (cipher.name == "cbc(aes)").then_some(())?;
        Some(Self {
            encryption: cipher.key.expose().to_vec(),
            authentication: hmac::Key::new(algorithm, integrity.key.expose()),
            icv_bytes: usize::try_from(integrity.truncation_bits? / 8).ok()?,
            extended_sequence,
        })
    }

    /// The plaintext with its padding and trailer; `None` if it is not authentic.
    pub(super) fn open(&self, esp: &[u8]) -> Option<Vec<u8>> {
        let covered = esp.len().checked_sub(self.icv_bytes)?;
        let (covered, icv) = esp.split_at(covered);
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(covered);
        if self.extended_sequence {
            // The high half, which is not sent, comes last (RFC 4303 §2.2.1); it is 0, since no
            // test sends 4 billion packets.
            context.update(&[0; 4]);
        }
        if context.sign().as_ref().get(..self.icv_bytes)? != icv {
            return None;
        }
        let (iv, sealed) = covered
            .get(ESP_HEADER_BYTES..)?
            .split_at_checked(IV_BYTES)?;
        let mut text = sealed.to_vec();
        match self.encryption.len() {
            16 => decrypt::<Aes128>(&self.encryption, iv, &mut text)?,
            32 => decrypt::<Aes256>(&self.encryption, iv, &mut text)?,
            _ => return None,
        }
        Some(text)
    }
}

fn decrypt<A: BlockCipherDecrypt + KeyInit>(key: &[u8], iv: &[u8], text: &mut [u8]) -> Option<()> {
    let cipher = Decryptor::<A>::new_from_slices(key, iv).ok()?;
    cipher.decrypt_padded::<NoPadding>(text).ok()?;
    Some(())
}
