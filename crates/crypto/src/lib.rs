//! The controller's cryptography, done by ring and, for what ring lacks, by RustCrypto's crates:
//! AES-CBC (`aes`, `cbc`), the MODP groups (`crypto-bigint`), P-521 (`p521`), ML-KEM (`ml-kem`).
//!
//! [`Ring`] implements [`epochgate_controller::crypto::Crypto`]: keys and octets come in as the
//! controller holds them, results go back. Nothing is kept between calls. ring itself wipes
//! nothing; what passes through this crate's own hands (a shared secret, a MAC that is a key) is
//! moved straight into a [`Secret`], which does.

mod aead;
mod cbc;
mod encryption;
mod kem;
mod key_exchange;
mod modp;
mod p521;
#[cfg(test)]
mod tests;

use des::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf,
};
use md4::Digest as _;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// The provider.
#[derive(Clone, Debug)]
pub struct Ring {
    random: SystemRandom,
}

impl Ring {
    /// A provider that draws from the system's randomness.
    #[must_use]
    pub fn new() -> Self {
        Self {
            random: SystemRandom::new(),
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

impl Crypto for Ring {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        self.random.fill(out).map_err(|_| CryptoError::Provider)
    }

    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        key_exchange::start(group, &self.random)
    }

    fn decapsulation(&self, kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError> {
        match kem {
            Kem::MlKem768 => kem::start(&self.random),
        }
    }

    fn encapsulate(
        &self,
        kem: Kem,
        encapsulation_key: &[u8],
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        match kem {
            Kem::MlKem768 => kem::encapsulate(&self.random, encapsulation_key),
        }
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret {
        let algorithm = match prf {
            Prf::HmacSha256 => hmac::HMAC_SHA256,
            Prf::HmacSha384 => hmac::HMAC_SHA384,
            Prf::HmacSha512 => hmac::HMAC_SHA512,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        data.iter().for_each(|part| context.update(part));
        Secret::from(context.sign().as_ref())
    }

    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        encryption::seal(cipher, key, iv, associated, payload)
    }

    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        encryption::open(cipher, key, iv, associated, payload)
    }

    fn equal(&self, left: &[u8], right: &[u8]) -> bool {
        left.ct_eq(right).into()
    }

    fn md4(&self, data: &[u8]) -> [u8; 16] {
        md4::Md4::digest(data).into()
    }

    fn des(&self, key: &[u8; 8], block: &[u8; 8]) -> [u8; 8] {
        let mut block = (*block).into();
        des::Des::new(key.into()).encrypt_block(&mut block);
        block.into()
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        data.iter().for_each(|part| context.update(part));
        let mut hash = [0; 20];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}
