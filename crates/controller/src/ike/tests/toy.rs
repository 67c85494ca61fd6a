//! Cryptography that protects nothing and costs nothing, and is the same in every run: for tests that
//! try a hundred thousand orders of messages.

use std::sync::Mutex;

use crate::Secret;
use crate::crypto::{Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf};
use crate::ike::limits::NONCE_LEN;

/// Multiplier and increment of the generator and of the hash (Knuth's MMIX).
const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
const INCREMENT: u64 = 1_442_695_040_888_963_407;

/// How the nonces of one end lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NonceOrder {
    /// Each is above the one before, and below all [`Self::Top`].
    Rising,
    /// Each is below the one before, and below all [`Self::Top`].
    Falling,
    Top,
}

/// A provider; the seed decides SPIs and nonces, but for how nonces lie to each other.
pub(super) struct Toy {
    state: Mutex<u64>,
    order: NonceOrder,
    /// How many nonces were drawn.
    nonces: Mutex<u8>,
}

impl Toy {
    pub(super) fn new(seed: u64, order: NonceOrder) -> Self {
        Self {
            state: Mutex::new(mix(seed, INCREMENT)),
            order,
            nonces: Mutex::new(0),
        }
    }

    fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state = mix(*state, INCREMENT);
        *state
    }

    /// The first octet of the next nonce, which puts it in order.
    fn place(&self) -> u8 {
        let mut nonces = self.nonces.lock().unwrap();
        *nonces += 1;
        assert!(*nonces < 0x80, "more nonces than places");
        match self.order {
            NonceOrder::Rising => *nonces,
            NonceOrder::Falling => 0x80 - *nonces,
            NonceOrder::Top => 0xff,
        }
    }
}

fn mix(state: u64, value: u64) -> u64 {
    let mixed = (state ^ value)
        .wrapping_mul(MULTIPLIER)
        .wrapping_add(INCREMENT);
    mixed ^ (mixed >> 29)
}

/// A hash of a list of octet strings, by words: it is most of what a search does.
pub(super) fn hash<'a>(data: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut state = INCREMENT;
    for octets in data {
        let (words, rest) = octets.as_chunks::<8>();
        for word in words {
            state = mix(state, u64::from_be_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = mix(state, u64::from_be_bytes(last));
        state = mix(state, octets.len() as u64);
    }
    state
}

fn stretch(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state = mix(state, INCREMENT);
        octets.extend_from_slice(&state.to_be_bytes());
    }
    octets.truncate(length);
    octets
}

struct Exchange {
    group: Group,
    private: u64,
    public: [u8; 8],
}

impl KeyExchange for Exchange {
    fn group(&self) -> Group {
        self.group
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        let octets = peer_public_value.try_into();
        let theirs = u64::from_be_bytes(octets.map_err(|_| CryptoError::InvalidPublicValue)?);
        let shared = self.private.wrapping_mul(theirs);
        Ok(Secret::from(&shared.to_be_bytes()[..]))
    }
}

impl Crypto for Toy {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        out.copy_from_slice(&stretch(self.draw(), out.len()));
        if out.len() == NONCE_LEN {
            out[0] = self.place();
        }
        Ok(())
    }

    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let private = self.draw() | 1;
        Ok(Box::new(Exchange {
            group,
            private,
            public: private.wrapping_mul(MULTIPLIER).to_be_bytes(),
        }))
    }

    fn decapsulation(&self, _kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError> {
        Err(CryptoError::Provider)
    }

    fn encapsulate(
        &self,
        _kem: Kem,
        _encapsulation_key: &[u8],
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        Err(CryptoError::Provider)
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret {
        let seed = hash(std::iter::once(key).chain(data.iter().copied()));
        Secret::from(stretch(seed, prf.output_len()))
    }

    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let tag = hash([key.expose(), iv, associated, payload]);
        payload.extend(stretch(tag, cipher.icv_len()));
        Ok(())
    }

    fn open(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let text = payload.len().checked_sub(cipher.icv_len());
        let tag = payload.split_off(text.ok_or(CryptoError::Forged)?);
        let expected = hash([key.expose(), iv, associated, payload]);
        (stretch(expected, cipher.icv_len()) == tag)
            .then_some(())
            .ok_or(CryptoError::Forged)
    }

    fn equal(&self, left: &[u8], right: &[u8]) -> bool {
        left == right
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        let mut digest = [0; 20];
        digest.copy_from_slice(&stretch(hash(data.iter().copied()), 20));
        digest
    }

    fn md4(&self, _data: &[u8]) -> [u8; 16] {
        [0; 16]
    }

    fn des(&self, _key: &[u8; 8], _block: &[u8; 8]) -> [u8; 8] {
        [0; 8]
    }
}
