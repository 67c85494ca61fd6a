//! Cryptography whose choices come from the seed.
//!
//! SPIs, nonces, ping nonces and jitter decide how a run goes, so they are drawn from the world's
//! seed. What a real provider computes (key agreement, PRF, AEAD) stays the provider's: its results
//! differ from run to run where its ephemeral keys do, but nothing decides by them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf,
};
use epochgate_controller::io::Spi;

use super::random::Random;

/// A provider with the seed's randomness.
pub(crate) struct Seeded {
    provider: Arc<dyn Crypto>,
    pub(crate) drawn: Mutex<Drawn>,
}

/// Where draws come from.
pub(crate) struct Drawn {
    random: Random,
    /// What comes instead of the next draws of four octets: SPIs of ESP, which alone are as long.
    pub(crate) spis: VecDeque<Spi>,
}

impl Seeded {
    pub(crate) fn new(provider: Arc<dyn Crypto>, random: Random) -> Self {
        Self {
            provider,
            drawn: Mutex::new(Drawn {
                random,
                spis: VecDeque::new(),
            }),
        }
    }
}

impl Crypto for Seeded {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if out.len() == 4
            && let Some(forced) = drawn.spis.pop_front()
        {
            out.copy_from_slice(&forced.0.get().to_be_bytes());
            return Ok(());
        }
        drawn.random.fill(out);
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
