//! The Encrypted payload with an AEAD cipher (RFC 7296 §3.14, RFC 5282): payloads to sealed
//! datagrams and back.

use epochgate_ike_wire::{
    DecodeError, EncodeError, Header, Message, Payload, decode_payloads, encode_payloads,
    encrypted_header,
};
use thiserror::Error;

use crate::Secret;
use crate::crypto::{Cipher, Crypto, CryptoError, ICV_LEN, IV_LEN};

use super::keys::{IkeKeys, Part};

/// The keys of both directions, and what makes each IV of ours unique.
#[derive(Debug)]
pub(super) struct Protection {
    cipher: Cipher,
    outbound: Secret,
    inbound: Secret,
    /// The next IV: a counter, as RFC 5282 §3 suggests. A new message takes a new one; a
    /// retransmission is the same octets.
    next_iv: u64,
}

/// Why a message could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SealError {
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
    /// The peer itself made it, and it is malformed: INVALID_SYNTAX (RFC 7296 §2.21.3).
    Malformed(DecodeError),
}

impl Protection {
    pub(super) fn new(cipher: Cipher, keys: &IkeKeys, us: Part) -> Self {
        let (outbound, inbound) = keys.encrypt.clone().into_ours_and_theirs(us);
        Self {
            cipher,
            outbound,
            inbound,
            next_iv: 0,
        }
    }

    /// Makes the datagram of a protected message.
    pub(super) fn seal(
        &mut self,
        crypto: &dyn Crypto,
        header: &Header,
        payloads: &[Payload],
    ) -> Result<Vec<u8>, SealError> {
        let (first, mut text) = encode_payloads(payloads)?;
        // No padding: its length alone (RFC 5282 §3).
        text.push(0);
        let mut datagram = encrypted_header(header, first, IV_LEN + text.len() + ICV_LEN)?;
        // 2^64 messages are never reached: message IDs have 32 bits.
        let iv = self.next_iv.to_be_bytes();
        self.next_iv = self.next_iv.checked_add(1).ok_or(CryptoError::Provider)?;
        crypto.seal(self.cipher, &self.outbound, iv, &datagram, &mut text)?;
        datagram.extend_from_slice(&iv);
        datagram.extend_from_slice(&text);
        Ok(datagram)
    }

    /// Checks and decrypts. `datagram` are the octets that `message` was decoded from. Payloads
    /// beside the Encrypted one are ignored: nobody needs to send any.
    pub(super) fn open(
        &self,
        crypto: &dyn Crypto,
        message: &Message,
        datagram: &[u8],
    ) -> Result<Vec<Payload>, OpenError> {
        let Some(Payload::Encrypted(encrypted)) = message.payloads.last() else {
            return Err(OpenError::Forged);
        };
        let associated = encrypted
            .associated_data(datagram)
            .ok_or(OpenError::Forged)?;
        let (iv, sealed) = encrypted
            .body
            .split_first_chunk::<IV_LEN>()
            .ok_or(OpenError::Forged)?;
        let mut text = sealed.to_vec();
        crypto
            .open(self.cipher, &self.inbound, *iv, associated, &mut text)
            .map_err(|_| OpenError::Forged)?;
        // Padding and its length end the plaintext (RFC 7296 §3.14).
        let padding = text.pop().ok_or(OpenError::Forged)?;
        let length = text
            .len()
            .checked_sub(usize::from(padding))
            .ok_or(OpenError::Forged)?;
        text.truncate(length);
        decode_payloads(encrypted.first_inner, &text).map_err(OpenError::Malformed)
    }
}
