//! Cryptography whose choices come from the seed.
//!
//! SPIs, nonces, ping nonces and jitter decide how a run goes, so they are drawn from the world's
//! seed. What a real provider computes (key agreement, PRF, AEAD) stays the provider's: its results
//! differ from run to run where its ephemeral keys do, but nothing decides by them.

use std::sync::{Arc, Mutex, PoisonError};

use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf,
};

use super::random::Random;

/// A provider with the seed's randomness.
pub(crate) struct Seeded {
    provider: Arc<dyn Crypto>,
    random: Mutex<Random>,
}

impl Seeded {
    pub(crate) fn new(provider: Arc<dyn Crypto>, random: Random) -> Self {
        Self {
            provider,
            random: Mutex::new(random),
        }
    }
}

impl Crypto for Seeded {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.fill(out);
        Ok(())
    }

    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.provider.key_exchange(group)
    }

    fn decapsulation(&self, kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError> {
        self.provider.decapsulation(kem)
    }

    fn encapsulate(
        &self,
        kem: Kem,
        encapsulation_key: &[u8],
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        self.provider.encapsulate(kem, encapsulation_key)
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret {
        self.provider.prf(prf, key, data)
    }

    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.provider.seal(cipher, key, iv, associated, payload)
    }

    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.provider.open(cipher, key, iv, associated, payload)
    }

    fn equal(&self, left: &[u8], right: &[u8]) -> bool {
        self.provider.equal(left, right)
    }

    fn md4(&self, data: &[u8]) -> [u8; 16] {
        self.provider.md4(data)
    }

    fn des(&self, key: &[u8; 8], block: &[u8; 8]) -> [u8; 8] {
        self.provider.des(key, block)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        self.provider.sha1(data)
    }
}
