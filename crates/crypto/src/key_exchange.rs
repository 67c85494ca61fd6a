//! Ephemeral key exchanges on curves.

use epochgate_controller::Secret;
use epochgate_controller::crypto::{CryptoError, Group, KeyExchange};
use ring::agreement::{
    Algorithm, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519,
    agree_ephemeral,
};
use ring::rand::SecureRandom;

/// What an uncompressed point begins with in SEC 1 §2.3.3, and so in ring, but not in a KE
/// payload, which carries x | y alone (RFC 5903 §7).
const UNCOMPRESSED: u8 = 0x04;

/// Draws a private value and computes its public one.
pub(super) fn start(
    group: Group,
    random: &dyn SecureRandom,
) -> Result<Box<dyn KeyExchange>, CryptoError> {
    let algorithm = match group {
        Group::X25519 => &X25519,
        Group::P256 => &ECDH_P256,
        Group::P384 => &ECDH_P384,
    };
    let private =
        EphemeralPrivateKey::generate(algorithm, random).map_err(|_| CryptoError::Provider)?;
    let public = private
        .compute_public_key()
        .map_err(|_| CryptoError::Provider)?;
    let public_value = match group {
        Group::X25519 => public.as_ref(),
        Group::P256 | Group::P384 => match public.as_ref() {
            [UNCOMPRESSED, point @ ..] => point,
            _ => return Err(CryptoError::Provider),
        },
    };
    Ok(Box::new(Ephemeral {
        group,
        algorithm,
        public_value: public_value.to_vec(),
        private,
    }))
}

struct Ephemeral {
    group: Group,
    algorithm: &'static Algorithm,
    public_value: Vec<u8>,
    private: EphemeralPrivateKey,
}

impl KeyExchange for Ephemeral {
    fn group(&self) -> Group {
        self.group
    }

    fn public_value(&self) -> &[u8] {
        &self.public_value
    }

    /// ring refuses points that are not on the curve and, for X25519, an all-zero result
    /// (RFC 6989 §2.3, RFC 7748 §6.1). The secret of a P curve is the x coordinate
    /// (RFC 5903 §9).
    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        let mut encoded = Vec::with_capacity(1 + peer_public_value.len());
        match self.group {
            Group::X25519 => {}
            Group::P256 | Group::P384 => encoded.push(UNCOMPRESSED),
        }
        encoded.extend_from_slice(peer_public_value);
        let peer = UnparsedPublicKey::new(self.algorithm, encoded);
        agree_ephemeral(self.private, &peer, |shared| Secret::from(shared))
            .map_err(|_| CryptoError::InvalidPublicValue)
    }
}
