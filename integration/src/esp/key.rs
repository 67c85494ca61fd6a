//! Opens ESP packets: AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634) with a 16-byte ICV here,
//! AES-CBC with an HMAC in [`super::cbc`].

use super::cbc::CbcKey;
use epochgate_xfrm::{Protection, Sa};
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

/// SPI and sequence number (RFC 4303 §2).
const ESP_HEADER_BYTES: usize = 8;
const SPI_BYTES: usize = 4;
/// The explicit initialisation vector in ESP, and the salt (RFC 4106 §3.1, §4).
const IV_BYTES: usize = 8;
const SALT_BYTES: usize = 4;
/// What the kernel calls the algorithms (net/xfrm/xfrm_algo.c).
const AES_GCM: &str = "rfc4106(gcm(aes))";
const CHACHA20: &str = "rfc7539esp(chacha20,poly1305)";

/// The key of one SA.
pub(super) enum EspKey {
    Aead(Box<AeadKey>),
    Cbc(Box<CbcKey>),
}

/// The key of an SA whose algorithm encrypts and authenticates in one.
pub(super) struct AeadKey {
    key: LessSafeKey,
    salt: [u8; SALT_BYTES],
    extended_sequence: bool,
}

impl EspKey {
    /// `None` for algorithms that it cannot open.
    pub(super) fn of(sa: &Sa) -> Option<Self> {
        let extended_sequence = sa.replay_window.extended;
        match &sa.protection {
            Protection::Aead(aead) => {
                AeadKey::new(&aead.name, aead.key.expose(), extended_sequence)
                    .map(|key| Self::Aead(Box::new(key)))
            }
            Protection::Encryption {
                cipher,
                integrity: Some(integrity),
            } => CbcKey::new(cipher, integrity, extended_sequence)
                .map(|key| Self::Cbc(Box::new(key))),
            Protection::Larval
            | Protection::Encryption {
                integrity: None, ..
            }
            | Protection::Integrity(_)
            | Protection::Compression(_) => None,
        }
    }

    /// The inner packet with padding and trailer removed, and its protocol; `None` if it is not
    /// authentic, or its padding is not what RFC 4303 §2.4 asks for.
    pub(super) fn open(&self, esp: &[u8]) -> Option<(u8, Vec<u8>)> {
        let plain = match self {
            Self::Aead(key) => key.open(esp)?,
            Self::Cbc(key) => key.open(esp)?,
        };
        let [inner @ .., pad_length, next_header] = plain.as_slice() else {
            return None;
        };
        let length = inner.len().checked_sub(usize::from(*pad_length))?;
        let (inner, padding) = inner.split_at(length);
        let counts_up = padding.iter().zip(1..).all(|(byte, count)| *byte == count);
        counts_up.then(|| (*next_header, inner.to_vec()))
    }
}

impl AeadKey {
    /// From the kernel's key material: the key, and then the salt.
    pub(super) fn new(algorithm: &str, material: &[u8], extended_sequence: bool) -> Option<Self> {
        let (key, salt) = material.split_last_chunk()?;
        let algorithm = match (algorithm, key.len()) {
            (AES_GCM, 16) => &AES_128_GCM,
            (AES_GCM, 32) => &AES_256_GCM,
            (CHACHA20, 32) => &CHACHA20_POLY1305,
            _ => return None,
        };
        Some(Self {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?),
            salt: *salt,
            extended_sequence,
        })
    }

    /// The plaintext with its padding and trailer.
    fn open(&self, esp: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = esp.split_at_checked(ESP_HEADER_BYTES)?;
        let (iv, sealed) = rest.split_first_chunk()?;
        let mut buffer = sealed.to_vec();
        let plain = self.key.open_in_place(
            self.nonce(*iv),
            Aad::from(self.authenticated(header)),
            &mut buffer,
        );
        Some(plain.ok()?.to_vec())
    }

    fn nonce(&self, iv: [u8; IV_BYTES]) -> Nonce {
        let mut nonce = [0; SALT_BYTES + IV_BYTES];
        nonce[..SALT_BYTES].copy_from_slice(&self.salt);
        nonce[SALT_BYTES..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }

    /// What is authenticated beside the ciphertext (RFC 4106 §5). The high half of an extended
    /// sequence number is not sent; it is 0, since no test sends 4 billion packets.
    fn authenticated(&self, header: &[u8]) -> Vec<u8> {
        let high: &[u8] = if self.extended_sequence { &[0; 4] } else { &[] };
        [&header[..SPI_BYTES], high, &header[SPI_BYTES..]].concat()
    }

    /// The other way round, for packets made by hand.
    #[cfg(test)]
    pub(super) fn seal(&self, spi: u32, seq: u32, next_header: u8, inner: &[u8]) -> Vec<u8> {
        const ALIGNMENT: usize = 4;
        let iv = u64::from(seq).to_be_bytes();
        let header = [spi.to_be_bytes(), seq.to_be_bytes()].concat();
        let mut plain = inner.to_vec();
        let padding = (ALIGNMENT - (plain.len() + 2) % ALIGNMENT) % ALIGNMENT;
        plain.extend((1..).take(padding));
        plain.extend([padding as u8, next_header]);
        self.key
            .seal_in_place_append_tag(
                self.nonce(iv),
                Aad::from(self.authenticated(&header)),
                &mut plain,
            )
            .expect("short enough");
        [header, iv.to_vec(), plain].concat()
    }
}
