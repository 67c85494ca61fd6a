//! ECDH on P-521, which ring lacks (RFC 5903 §3.3): private scalars drawn here, points checked
//! and multiplied by the crate `p521`.

use ::p521::elliptic_curve::sec1::ToSec1Point;
use ::p521::{PublicKey, SecretKey};
use epochgate_controller::Secret;
use epochgate_controller::crypto::{CryptoError, Group, KeyExchange};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::key_exchange::UNCOMPRESSED;

/// Octets of a coordinate and of a private value: 521 bits.
const FIELD_LEN: usize = 66;
/// Of the first octet only this bit belongs to the number.
const FIRST_OCTET: u8 = 0x01;
/// Draws until a private value must have been below the order of the group, which is just below
/// 2^521: the first one is, but for a chance of 2^-261.
const DRAWS_MAX: usize = 4;

/// Draws a private value and computes its public one.
pub(super) fn start(random: &dyn SecureRandom) -> Result<Box<dyn KeyExchange>, CryptoError> {
    let private = (0..DRAWS_MAX)
        .find_map(|_| draw(random).transpose())
        .ok_or(CryptoError::Provider)??;
    let point = private.public_key().to_sec1_point(false);
    let public_value = match point.as_bytes() {
        [UNCOMPRESSED, point @ ..] => point.to_vec(),
        _ => return Err(CryptoError::Provider),
    };
    Ok(Box::new(Ephemeral {
        private,
        public_value,
    }))
}

/// `None`: the number is not below the group's order.
fn draw(random: &dyn SecureRandom) -> Result<Option<SecretKey>, CryptoError> {
    let mut octets = Zeroizing::new([0; FIELD_LEN]);
    random
        .fill(octets.as_mut_slice())
        .map_err(|_| CryptoError::Provider)?;
    octets[0] &= FIRST_OCTET;
    Ok(SecretKey::from_slice(octets.as_slice()).ok())
}

struct Ephemeral {
    private: SecretKey,
    public_value: Vec<u8>,
}

impl KeyExchange for Ephemeral {
    fn group(&self) -> Group {
        Group::P521
    }

    fn public_value(&self) -> &[u8] {
        &self.public_value
    }

    /// Points that are not on the curve are refused (RFC 6989 §2.3); the secret is the x
    /// coordinate (RFC 5903 §9).
    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public_value.len() != 2 * FIELD_LEN {
            return Err(CryptoError::InvalidPublicValue);
        }
        let encoded = [&[UNCOMPRESSED], peer_public_value].concat();
        let theirs =
            PublicKey::from_sec1_bytes(&encoded).map_err(|_| CryptoError::InvalidPublicValue)?;
        let shared =
            ::p521::ecdh::diffie_hellman(self.private.to_nonzero_scalar(), theirs.as_affine());
        Ok(Secret::from(shared.raw_secret_bytes().as_slice()))
    }
}
