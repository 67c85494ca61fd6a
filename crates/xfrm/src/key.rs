//! Key material: comes from a key exchange, goes into the kernel, is shown to nobody.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The bytes of a key, wiped from memory when dropped and never printed.
///
/// For AES-GCM, AES-CCM, AES-CTR and ChaCha20-Poly1305 the kernel expects the salt behind the key
/// (RFC 4106 §8.1): 20 bytes for AES-GCM-128, 36 for AES-GCM-256.
///
/// ```
/// use epochgate_xfrm::Key;
///
/// let key = Key::new(vec![0x42; 20]);
/// assert_eq!(format!("{key:?}"), "Key(160 bits)");
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(Vec<u8>);

impl Key {
    /// Takes the bytes over; they are wiped when the key is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The length in bits, as the kernel counts it.
    #[must_use]
    pub fn bits(&self) -> u32 {
        u32::try_from(self.0.len().saturating_mul(8)).unwrap_or(u32::MAX)
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl PartialEq for Key {
    /// Takes a time that depends on the lengths alone.
    fn eq(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |found, (a, b)| found | (a ^ b));
        self.0.len() == other.0.len() && difference == 0
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bits)", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_shows_its_length_and_nothing_else() {
        let shown = format!("{:?}", Key::from(&[0xab; 20][..]));
        assert_eq!(shown, "Key(160 bits)");
    }

    #[test]
    fn keys_are_equal_only_when_every_byte_is() {
        let key = Key::from(&[1, 2, 3][..]);
        assert_eq!(key, Key::new(vec![1, 2, 3]));
        assert_ne!(key, Key::new(vec![1, 2, 4]));
        assert_ne!(key, Key::new(vec![1, 2]));
    }
}
