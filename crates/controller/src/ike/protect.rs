//! The Encrypted payload (RFC 7296 §3.14; with an AEAD, RFC 5282) and its fragments (RFC 7383):
//! payloads to sealed datagrams and back.

use epochgate_ike_wire::{
    EncodeError, EncryptedFragment, Header, Message, Payload, PayloadType, encode_payloads,
    encrypted_fragment_header, encrypted_header,
};
use thiserror::Error;

use crate::Secret;
use crate::crypto::{Cipher, Crypto, CryptoError};

use super::fragment::Sealed;
use super::keys::{IkeKeys, Part};

/// The keys of both directions, and what makes each IV of ours unique.
#[derive(Debug)]
pub(super) struct Protection {
    cipher: Cipher,
    outbound: Secret,
    inbound: Secret,
    /// The next IV of an AEAD: a counter, as RFC 5282 §3 suggests. A new message takes a new one;
    /// a retransmission is the same octets.
    next_iv: u64,
}

/// Why a message could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SealError {
    #[error("the IKE SA has used all of its message IDs")]
    MessageIdsSpent,
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Why a message could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// There is no Encrypted payload, or its integrity check failed: drop and count.
    Forged,
}

/// What was, or is to be, encrypted: payloads in a chain that begins with this type.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) first: PayloadType,
    pub(super) text: Vec<u8>,
}

impl Default for Plain {
    /// No payloads.
    fn default() -> Self {
        Self {
            first: PayloadType::NONE,
            text: Vec::new(),
        }
    }
}

impl Plain {
    /// The octets of payloads.
    pub(super) fn encode(payloads: &[Payload]) -> Result<Self, EncodeError> {
        let (first, text) = encode_payloads(payloads)?;
        Ok(Self { first, text })
    }
}

impl Protection {
    pub(super) fn new(cipher: Cipher, keys: &IkeKeys, us: Part) -> Self {
        let (outbound, inbound) = keys.protect.clone().into_ours_and_theirs(us);
        Self {
            cipher,
            outbound,
            inbound,
            next_iv: 0,
        }
    }

    /// Makes the datagrams of a protected message: one, or, where that would have more than `limit`
    /// octets of IKE message, fragments (RFC 7383 §2.5).
    pub(super) fn seal(
        &mut self,
        crypto: &dyn Crypto,
        header: &Header,
        payloads: &[Payload],
        limit: Option<usize>,
    ) -> Result<Sealed, SealError> {
        let (first, text) = encode_payloads(payloads)?;
        let body_len = self.body_len(text.len());
        let whole = encrypted_header(header, first, body_len)?;
        let fits = limit.is_none_or(|limit| whole.len() + body_len <= limit);
        let Some(limit) = limit.filter(|_| !fits) else {
            return Ok(Sealed::whole(self.seal_text(crypto, whole, text)?));
        };
        let around = encrypted_fragment_header(header, first, 1, 1, 0)?.len();
        let room = self.room(limit.saturating_sub(around));
        let total = u16::try_from(text.len().div_ceil(room))
            .map_err(|_| EncodeError::MessageTooLong(text.len()))?;
        let mut sealed: Option<Sealed> = None;
        for (number, piece) in (1..=total).zip(text.chunks(room)) {
            // The others' Next Payload is 0: the first one tells what the message begins with.
            let first = if number == 1 {
                first
            } else {
                PayloadType::NONE
            };
            let len = self.body_len(piece.len());
            let start = encrypted_fragment_header(header, first, number, total, len)?;
            let datagram = self.seal_text(crypto, start, piece.to_vec())?;
            match &mut sealed {
                None => sealed = Some(Sealed::whole(datagram)),
                Some(sealed) => sealed.push(&datagram),
            }
        }
        sealed.ok_or_else(|| CryptoError::Provider.into())
    }

    /// Encrypts `text` behind `datagram`, the headers that it is bound to.
    fn seal_text(
        &mut self,
        crypto: &dyn Crypto,
        mut datagram: Vec<u8>,
        mut text: Vec<u8>,
    ) -> Result<Vec<u8>, SealError> {
        self.pad(&mut text);
        let iv = self.draw_iv(crypto)?;
        crypto.seal(self.cipher, &self.outbound, &iv, &datagram, &mut text)?;
        datagram.extend_from_slice(&iv);
        datagram.extend_from_slice(&text);
        Ok(datagram)
    }

    /// Padding, of any value, and its length fill the last block (RFC 7296 §3.14): for an AEAD
    /// the length alone (RFC 5282 §3).
    fn pad(&self, text: &mut Vec<u8>) {
        let padded_len = self.padded_len(text.len());
        let padding = padded_len - text.len() - 1;
        text.resize(padded_len, 0);
        if let (Some(last), Ok(padding)) = (text.last_mut(), u8::try_from(padding)) {
            *last = padding;
        }
    }

    /// Unique for an AEAD (RFC 5282 §3), unpredictable for AES-CBC (RFC 7296 §3.14).
    fn draw_iv(&mut self, crypto: &dyn Crypto) -> Result<Vec<u8>, CryptoError> {
        match self.cipher {
            Cipher::AesGcm128 | Cipher::AesGcm256 | Cipher::ChaCha20Poly1305 => {
                // 2^64 messages are never reached: message IDs have 32 bits.
                let iv = self.next_iv.to_be_bytes();
                self.next_iv = self.next_iv.checked_add(1).ok_or(CryptoError::Provider)?;
                Ok(iv.to_vec())
            }
            Cipher::AesCbc(..) => {
                let mut iv = vec![0; self.cipher.iv_len()];
                crypto.random(&mut iv)?;
                Ok(iv)
            }
        }
    }

    /// Checks and decrypts. `datagram` are the octets that `message` was decoded from. Payloads
    /// beside the Encrypted one are ignored: nobody needs to send any.
    pub(super) fn open(
        &self,
        crypto: &dyn Crypto,
        message: &Message,
        datagram: &[u8],
    ) -> Result<Plain, OpenError> {
        let Some(Payload::Encrypted(encrypted)) = message.payloads.last() else {
            return Err(OpenError::Forged);
        };
        let associated = encrypted
            .associated_data(datagram)
            .ok_or(OpenError::Forged)?;
        Ok(Plain {
            first: encrypted.first_inner,
            text: self.open_text(crypto, &encrypted.body, associated)?,
        })
    }

    /// Checks and decrypts one fragment (RFC 7383 §2.6). `datagram` are the octets that it was
    /// decoded from.
    pub(super) fn open_fragment(
        &self,
        crypto: &dyn Crypto,
        fragment: &EncryptedFragment,
        datagram: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let associated = fragment
            .associated_data(datagram)
            .ok_or(OpenError::Forged)?;
        self.open_text(crypto, &fragment.body, associated)
    }

    /// Opens the body of a payload (IV, ciphertext, ICV) and cuts the padding off.
    fn open_text(
        &self,
        crypto: &dyn Crypto,
        body: &[u8],
        associated: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let (iv, sealed) = body
            .split_at_checked(self.cipher.iv_len())
            .ok_or(OpenError::Forged)?;
        let mut text = sealed.to_vec();
        crypto
            .open(self.cipher, &self.inbound, iv, associated, &mut text)
            .map_err(|_| OpenError::Forged)?;
        // Padding and its length end the plaintext (RFC 7296 §3.14).
        let padding = text.pop().ok_or(OpenError::Forged)?;
        let length = text
            .len()
            .checked_sub(usize::from(padding))
            .ok_or(OpenError::Forged)?;
        text.truncate(length);
        Ok(text)
    }

    /// Octets of the body of an Encrypted payload: IV, plaintext with its padding, ICV.
    const fn body_len(&self, text_len: usize) -> usize {
        self.cipher.iv_len() + self.padded_len(text_len) + self.cipher.icv_len()
    }

    /// Octets of a plaintext with padding and its length.
    const fn padded_len(&self, text_len: usize) -> usize {
        (text_len + 1).next_multiple_of(self.cipher.block_len())
    }

    /// Octets of plaintext that have room in a body of `body_len` octets; at least one.
    fn room(&self, body_len: usize) -> usize {
        let padded_max = body_len.saturating_sub(self.cipher.iv_len() + self.cipher.icv_len());
        let whole_blocks = padded_max - padded_max % self.cipher.block_len();
        whole_blocks.saturating_sub(1).max(1)
    }
}
