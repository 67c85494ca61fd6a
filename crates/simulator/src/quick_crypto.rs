//! A provider that computes quickly and protects nothing, for searches through many worlds.
//!
//! **This is no cryptography.** Whoever sees its public values computes its secrets, and its tags
//! can be forged. What it has in common with a real provider is what a search relies on: both ends
//! agree on the same secret and nobody else's public value gives it, every octet of key, IV,
//! associated data and ciphertext counts for a tag, and everything has its real length. So a message
//! or a key of the wrong IKE SA, epoch or run is refused here as well.
//!
//! Private values come from the seed that it was made with, hence one provider for each world.

use std::sync::atomic::{AtomicU64, Ordering};

use epochgate_controller::Secret;
use epochgate_controller::crypto::{
    Cipher, Crypto, CryptoError, Decapsulation, Group, Kem, KeyExchange, Prf,
};

use crate::random::mix;

/// What public values are multiples of: odd, so that no private value is lost (modulo 2⁶⁴).
const GENERATOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Octets of every shared secret.
const SHARED_LEN: usize = 32;

/// Octets of the ciphertext of a key encapsulation, and of its key.
const KEM_LEN: usize = 32;

/// The provider.
#[derive(Debug)]
pub struct QuickCrypto {
    /// The next private value, before mixing.
    next: AtomicU64,
}

impl QuickCrypto {
    /// A provider for the world of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            next: AtomicU64::new(mix(seed)),
        }
    }

    /// A private value: never 0, which would make every secret 0.
    fn private(&self) -> u64 {
        mix(self.next.fetch_add(GENERATOR, Ordering::Relaxed)) | 1
    }
}

impl Crypto for QuickCrypto {
    fn random(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        for chunk in out.chunks_mut(8) {
            let drawn = self.private().rotate_left(17).to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        Ok(())
    }

    fn key_exchange(&self, group: Group) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let private = self.private();
        Ok(Box::new(Exchange {
            group,
            private,
            public: public_value(private, public_len(group)),
        }))
    }

    fn decapsulation(&self, kem: Kem) -> Result<Box<dyn Decapsulation>, CryptoError> {
        let Kem::MlKem768 = kem;
        let private = self.private();
        Ok(Box::new(KeyPair {
            private,
            public: public_value(private, KEM_LEN),
        }))
    }

    fn encapsulate(
        &self,
        kem: Kem,
        encapsulation_key: &[u8],
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        let Kem::MlKem768 = kem;
        let private = self.private();
        let secret = shared(private, encapsulation_key, KEM_LEN)?;
        Ok((public_value(private, KEM_LEN), secret))
    }

    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Secret {
        let mut hash = Hash::keyed(key);
        data.iter().for_each(|part| hash.add(part));
        hash.into_secret(prf.output_len())
    }

    fn seal(
        &self,
        cipher: Cipher,
        key: &Secret,
        iv: &[u8],
        associated: &[u8],
        payload: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if has_wrong_length(cipher, key, iv) || !payload.len().is_multiple_of(cipher.block_len()) {
            return Err(CryptoError::Provider);
        }
        encrypt(key, iv, payload);
        let tag = tag(cipher, key, iv, associated, payload);
        payload.extend_from_slice(&tag);
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
        let end = payload.len().checked_sub(cipher.icv_len());
        let Some(end) = end.filter(|_| !has_wrong_length(cipher, key, iv)) else {
            return Err(CryptoError::Forged);
        };
        let (ciphertext, icv) = payload.split_at(end);
        if tag(cipher, key, iv, associated, ciphertext) != icv {
            return Err(CryptoError::Forged);
        }
        payload.truncate(end);
        encrypt(key, iv, payload);
        Ok(())
    }

    fn equal(&self, left: &[u8], right: &[u8]) -> bool {
        left == right
    }

    fn sha1(&self, data: &[&[u8]]) -> [u8; 20] {
        let mut hash = Hash::keyed(b"sha1");
        data.iter().for_each(|part| hash.add(part));
        let mut digest = [0; 20];
        hash.write(&mut digest);
        digest
    }

    fn md4(&self, data: &[u8]) -> [u8; 16] {
        let mut hash = Hash::keyed(b"md4");
        hash.add(data);
        let mut digest = [0; 16];
        hash.write(&mut digest);
        digest
    }

    fn des(&self, key: &[u8; 8], block: &[u8; 8]) -> [u8; 8] {
        let mut hash = Hash::keyed(key);
        hash.add(block);
        let mut encrypted = [0; 8];
        hash.write(&mut encrypted);
        encrypted
    }
}

/// One side of a key exchange: private values multiply, in whichever order.
struct Exchange {
    group: Group,
    private: u64,
    public: Vec<u8>,
}

impl KeyExchange for Exchange {
    fn group(&self) -> Group {
        self.group
    }

    fn public_value(&self) -> &[u8] {
        &self.public
    }

    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        shared(self.private, peer_public_value, self.public.len())
    }
}

/// The initiator's side of a key encapsulation.
struct KeyPair {
    private: u64,
    public: Vec<u8>,
}

impl Decapsulation for KeyPair {
    fn encapsulation_key(&self) -> &[u8] {
        &self.public
    }

    fn decapsulate(self: Box<Self>, ciphertext: &[u8]) -> Result<Secret, CryptoError> {
        shared(self.private, ciphertext, KEM_LEN)
    }
}

/// Octets of a public value as it stands in the KE payload (RFC 8031 §3, RFC 5903 §7, RFC 3526);
/// those of MODP are shorter here than they are, because they decide nothing and cost time.
fn public_len(group: Group) -> usize {
    match group {
        Group::X25519 => 32,
        Group::P256 => 64,
        Group::P384 => 96,
        Group::P521 => 132,
        Group::Modp3072 | Group::Modp2048 => 128,
    }
}

fn public_value(private: u64, len: usize) -> Vec<u8> {
    let mut octets = private.wrapping_mul(GENERATOR).to_le_bytes().to_vec();
    octets.resize(len, 0);
    octets
}

fn shared(private: u64, peer: &[u8], len: usize) -> Result<Secret, CryptoError> {
    let (value, padding) = peer
        .split_first_chunk::<8>()
        .ok_or(CryptoError::InvalidPublicValue)?;
    let value = u64::from_le_bytes(*value);
    // An even value is no multiple that anybody has drawn.
    if peer.len() != len || value.is_multiple_of(2) || padding.iter().any(|octet| *octet != 0) {
        return Err(CryptoError::InvalidPublicValue);
    }
    let product = value.wrapping_mul(private).to_le_bytes();
    Ok(Hash::keyed(&product).into_secret(SHARED_LEN))
}

fn has_wrong_length(cipher: Cipher, key: &Secret, iv: &[u8]) -> bool {
    key.len() != cipher.material_len() || iv.len() != cipher.iv_len()
}

/// Encrypts and decrypts: a stream of the key and the IV, added to the text.
fn encrypt(key: &Secret, iv: &[u8], text: &mut [u8]) {
    let mut hash = Hash::keyed(key.expose());
    hash.add(iv);
    let mut stream = hash.into_stream();
    for chunk in text.chunks_mut(8) {
        let octets = stream.next_word().to_le_bytes();
        let pairs = chunk.iter_mut().zip(octets);
        pairs.for_each(|(octet, stream)| *octet ^= stream);
    }
}

fn tag(cipher: Cipher, key: &Secret, iv: &[u8], associated: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let mut hash = Hash::keyed(key.expose());
    hash.add(b"tag");
    hash.add(iv);
    // What is whose is told by their lengths.
    hash.add(&associated.len().to_le_bytes());
    hash.add(associated);
    hash.add(ciphertext);
    let mut tag = vec![0; cipher.icv_len()];
    hash.write(&mut tag);
    tag
}

/// A hash of 64 bits over octets, however they are cut into parts.
struct Hash {
    state: u64,
    /// Octets that do not fill a word yet, the first one lowest.
    pending: u64,
    len: u64,
}

impl Hash {
    fn keyed(key: &[u8]) -> Self {
        let mut hash = Self {
            state: GENERATOR,
            pending: 0,
            len: 0,
        };
        hash.add(key);
        // Where the key ends matters.
        Self {
            state: hash.finish(),
            pending: 0,
            len: 0,
        }
    }

    fn add(&mut self, mut octets: &[u8]) {
        while !self.len.is_multiple_of(8)
            && let Some((first, rest)) = octets.split_first()
        {
            self.add_octet(*first);
            octets = rest;
        }
        let (words, rest) = octets.as_chunks::<8>();
        for word in words {
            self.add_word(u64::from_le_bytes(*word));
            self.len += 8;
        }
        rest.iter().for_each(|octet| self.add_octet(*octet));
    }

    fn add_octet(&mut self, octet: u8) {
        self.pending |= u64::from(octet) << (8 * (self.len % 8));
        self.len += 1;
        if self.len.is_multiple_of(8) {
            let word = std::mem::take(&mut self.pending);
            self.add_word(word);
        }
    }

    fn add_word(&mut self, word: u64) {
        self.state = mix((self.state ^ word).wrapping_add(GENERATOR));
    }

    fn finish(&self) -> u64 {
        mix(mix(self.state ^ self.pending).wrapping_add(self.len))
    }

    fn into_stream(self) -> Stream {
        Stream(self.finish())
    }

    fn write(self, out: &mut [u8]) {
        let mut stream = self.into_stream();
        for chunk in out.chunks_mut(8) {
            let word = stream.next_word().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn into_secret(self, len: usize) -> Secret {
        let mut octets = vec![0; len];
        self.write(&mut octets);
        Secret::from(octets)
    }
}

/// As many words as are wanted.
struct Stream(u64);

impl Stream {
    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GENERATOR);
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIPHER: Cipher = Cipher::AesGcm256;

    fn sealed(key: u8) -> (Secret, Vec<u8>) {
        let key = Secret::from(vec![key; CIPHER.material_len()]);
        let mut payload = b"an IKE message".to_vec();
        QuickCrypto::new(1)
            .seal(CIPHER, &key, &[7; 8], b"header", &mut payload)
            .unwrap();
        (key, payload)
    }

    fn open(key: &Secret, iv: &[u8], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut payload = sealed.to_vec();
        QuickCrypto::new(2)
            .open(CIPHER, key, iv, associated, &mut payload)
            .ok()?;
        Some(payload)
    }

    #[test]
    fn what_was_sealed_opens_and_was_not_readable() {
        let (key, payload) = sealed(1);
        assert_ne!(&payload[..14], b"an IKE message");
        let opened = open(&key, &[7; 8], b"header", &payload);
        assert_eq!(opened.as_deref(), Some(&b"an IKE message"[..]));
    }

    #[test]
    fn every_octet_of_a_sealed_message_counts() {
        let (key, payload) = sealed(1);
        for index in 0..payload.len() {
            let mut changed = payload.clone();
            changed[index] ^= 0x10;
            assert_eq!(open(&key, &[7; 8], b"header", &changed), None);
        }
        let (other, _) = sealed(2);
        assert_eq!(open(&other, &[7; 8], b"header", &payload), None);
        assert_eq!(open(&key, &[8; 8], b"header", &payload), None);
        assert_eq!(open(&key, &[7; 8], b"heade", &payload), None);
        assert_eq!(open(&key, &[7; 8], b"header", &payload[..15]), None);
    }

    #[test]
    fn both_ends_agree_and_a_third_does_not() {
        let crypto = QuickCrypto::new(3);
        for group in [Group::X25519, Group::P384, Group::Modp2048] {
            let [one, other, third] = [(); 3].map(|()| crypto.key_exchange(group).unwrap());
            let values = [&one, &other].map(|side| side.public_value().to_vec());
            let secret = one.agree(&values[1]).unwrap();
            assert_eq!(other.agree(&values[0]).unwrap(), secret);
            assert_ne!(third.agree(&values[0]).unwrap(), secret);
        }
        let (pair, wrong) = (
            crypto.decapsulation(Kem::MlKem768).unwrap(),
            crypto.decapsulation(Kem::MlKem768).unwrap(),
        );
        let (ciphertext, secret) = crypto
            .encapsulate(Kem::MlKem768, pair.encapsulation_key())
            .unwrap();
        assert_eq!(pair.decapsulate(&ciphertext).unwrap(), secret);
        assert_ne!(wrong.decapsulate(&ciphertext).unwrap(), secret);
    }

    #[test]
    fn a_public_value_of_another_group_is_refused() {
        let crypto = QuickCrypto::new(4);
        let ours = crypto.key_exchange(Group::X25519).unwrap();
        let theirs = crypto.key_exchange(Group::P256).unwrap();
        let refused = ours.agree(theirs.public_value());
        assert_eq!(refused, Err(CryptoError::InvalidPublicValue));
    }

    #[test]
    fn a_prf_sees_octets_and_not_parts() {
        let crypto = QuickCrypto::new(5);
        let prf = |key: &[u8], data: &[&[u8]]| crypto.prf(Prf::HmacSha512, key, data);
        let whole = prf(b"key", &[b"one two three"]);
        assert_eq!(whole.len(), 64);
        assert_eq!(prf(b"key", &[b"one ", b"", b"two thre", b"e"]), whole);
        assert_ne!(prf(b"kez", &[b"one two three"]), whole);
        assert_ne!(prf(b"key", &[b"one two three", b"\0"]), whole);
        assert_ne!(prf(b"keyone ", &[b"two three"]), whole);
    }

    #[test]
    fn a_seed_repeats_itself() {
        let drawn = |seed| {
            let exchange = QuickCrypto::new(seed).key_exchange(Group::X25519).unwrap();
            exchange.public_value().to_vec()
        };
        assert_eq!(drawn(6), drawn(6));
        assert_ne!(drawn(6), drawn(7));
    }
}
