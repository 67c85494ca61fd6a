//! Ephemeral key exchanges: on ring's curves here, on P-521 in [`super::p521`], modulo primes in
//! [`super::modp`].

use epochgate_controller::Secret;
use epochgate_controller::crypto::{CryptoError, Group, KeyExchange};
use ring::agreement::{
    Algorithm, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519,
    agree_ephemeral,
};
use ring::rand::SecureRandom;

use super::{modp, p521};

/// What an uncompressed point begins with in SEC 1 §2.3.3, and so in ring, but not in a KE
/// payload, which carries x | y alone (RFC 5903 §7).
pub(super) const UNCOMPRESSED: u8 = 0x04;

/// Draws a private value and computes its public one.
pub(super) fn start(
    group: Group,
    random: &dyn SecureRandom,
) -> Result<Box<dyn KeyExchange>, CryptoError> {
    match group {
        Group::X25519 => curve(Curve::X25519, random),
        Group::P256 => curve(Curve::P256, random),
        Group::P384 => curve(Curve::P384, random),
        Group::P521 => p521::start(random),
        Group::Modp2048 => modp::start_2048(random),
        Group::Modp3072 => modp::start_3072(random),
    }
}

/// ring's curves.
#[derive(Clone, Copy)]
enum Curve {
    X25519,
    P256,
    P384,
}

impl Curve {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::X25519 => &X25519,
            Self::P256 => &ECDH_P256,
            Self::P384 => &ECDH_P384,
        }
    }
}

fn curve(curve: Curve, random: &dyn SecureRandom) -> Result<Box<dyn KeyExchange>, CryptoError> {
    let algorithm = curve.algorithm();
    let private =
        EphemeralPrivateKey::generate(algorithm, random).map_err(|_| CryptoError::Provider)?;
    let public = private
        .compute_public_key()
        .map_err(|_| CryptoError::Provider)?;
    let public_value = match curve {
        Curve::X25519 => public.as_ref(),
        Curve::P256 | Curve::P384 => match public.as_ref() {
            [UNCOMPRESSED, point @ ..] => point,
            _ => return Err(CryptoError::Provider),
        },
    };
    Ok(Box::new(Ephemeral {
        curve,
        public_value: public_value.to_vec(),
        private,
    }))
}

struct Ephemeral {
    curve: Curve,
    public_value: Vec<u8>,
    private: EphemeralPrivateKey,
}

impl KeyExchange for Ephemeral {
    fn group(&self) -> Group {
        match self.curve {
            Curve::X25519 => Group::X25519,
            Curve::P256 => Group::P256,
            Curve::P384 => Group::P384,
        }
    }

    fn public_value(&self) -> &[u8] {
        &self.public_value
    }

    /// ring refuses points that are not on the curve and, for X25519, an all-zero result
    /// (RFC 6989 §2.3, RFC 7748 §6.1). The secret of a P curve is the x coordinate
    /// (RFC 5903 §9).
    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        let mut encoded = Vec::with_capacity(1 + peer_public_value.len());
        match self.curve {
            Curve::X25519 => {}
            Curve::P256 | Curve::P384 => encoded.push(UNCOMPRESSED),
        }
        encoded.extend_from_slice(peer_public_value);
        let peer = UnparsedPublicKey::new(self.curve.algorithm(), encoded);
        agree_ephemeral(self.private, &peer, |shared| Secret::from(shared))
            .map_err(|_| CryptoError::InvalidPublicValue)
    }
}
