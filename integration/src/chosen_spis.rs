//! Cryptography that draws chosen SPIs first, so that two clients can be made to collide.
//!
//! It is *ring*'s, as the product has it, except that the first draws of four octets, which is how
//! a controller draws an inbound SPI, give what `EPOCHGATE_LAB_SPIS` lists. Only the lab's program
//! `epochgate-lab-daemon` uses it.

use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf,
};
use epochgate_crypto::Ring;
use std::collections::VecDeque;
use std::sync::Mutex;

use crate::net::locked;

/// The variable that lists SPIs: decimal numbers with commas between them.
pub const CHOSEN_SPIS: &str = "EPOCHGATE_LAB_SPIS";
/// Numbers below are reserved (RFC 4303 §2.1).
const RESERVED_SPIS: u32 = 256;

/// A provider that draws chosen SPIs first.
#[derive(Debug)]
pub struct ChosenSpis {
    ring: Ring,
    left: Mutex<VecDeque<u32>>,
}

impl ChosenSpis {
    /// Draws these first, in this order.
    pub fn new(spis: impl IntoIterator<Item = u32>) -> Self {
        Self {
            ring: Ring::new(),
            left: Mutex::new(spis.into_iter().collect()),
        }
    }

    /// Draws those that the environment lists.
    ///
    /// # Errors
    ///
    /// If the variable is missing, or something in it is not an SPI.
    pub fn from_environment() -> Result<Self, String> {
        let list = std::env::var(CHOSEN_SPIS).map_err(|error| format!("{CHOSEN_SPIS}: {error}"))?;
        let spis = list.split(',').map(|word| match word.parse() {
            Ok(spi) if spi >= RESERVED_SPIS => Ok(spi),
            Ok(_) | Err(_) => Err(format!("{CHOSEN_SPIS}: {word:?} is no SPI")),
        });
        spis.collect::<Result<Vec<u32>, _>>().map(Self::new)
    }
}

impl Crypto for ChosenSpis {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        if out.len() == size_of::<u32>()
            && let Some(spi) = locked(&self.left).pop_front()
        {
            out.copy_from_slice(&spi.to_be_bytes());
            return Ok(());
        }
        self.ring.random(out)
    }

    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        self.ring.key_exchange(group)
    }

    fn decapsulation(&self, kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError> {
        self.ring.decapsulation(kem)
    }

    fn encapsulate(&self, kem: Kem, key: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        self.ring.encapsulate(kem, key)
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret {
        self.ring.prf(prf, key, data)
    }

    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.ring.seal(cipher, key, iv, associated, payload)
    }

    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.ring.open(cipher, key, iv, associated, payload)
    }

    fn equal(&self, left: &[u8], right: &[u8]) -> bool {
        self.ring.equal(left, right)
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        self.ring.sha1(data)
    }

    fn md4(&self, data: &[u8]) -> [u8; 16] {
        self.ring.md4(data)
    }

    fn des(&self, key: &[u8; 8], block: &[u8; 8]) -> [u8; 8] {
        self.ring.des(key, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_spis_come_first_and_other_draws_are_random() {
        let crypto = ChosenSpis::new([0x1234_5678, 0x9abc_def0]);
        let mut nonce = [0; 32];
        crypto.random(&mut nonce).unwrap();
        assert_ne!(nonce, [0; 32]);
        let draw = || {
            let mut spi = [0; 4];
            crypto.random(&mut spi).unwrap();
            u32::from_be_bytes(spi)
        };
        assert_eq!([draw(), draw()], [0x1234_5678, 0x9abc_def0]);
        assert_ne!([draw(), draw()], [0, 0]);
    }
}
