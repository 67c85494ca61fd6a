//! Finite-field Diffie-Hellman in the groups of RFC 3526: 2 to a private power, modulo a safe
//! prime. Every operation on a private value takes a time that tells nothing of it.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Encoding, Odd, U448, U2048, U3072, Uint};
use epochgate_controller::Secret;
use epochgate_controller::crypto::{CryptoError, Group, KeyExchange};
use ring::rand::SecureRandom;
use zeroize::{Zeroize, Zeroizing};

/// Octets of the longest private value.
const PRIVATE_LEN_MAX: usize = 448 / 8;

/// A group by its prime; its generator is 2.
trait Modulus: Send + 'static {
    const GROUP: Group;
    /// Bits of a private value: twice the strength of the group by the larger estimate of
    /// RFC 3526 §8, in whole limbs.
    const PRIVATE_BITS: u32;
    type Number: Number;
    fn params() -> &'static <Self::Number as Number>::Params;
}

/// A number below a prime.
trait Number: Copy + Zeroize + Send {
    type Params;
    /// `None`: not as many octets as the prime has (RFC 7296 §3.4).
    fn from_octets(octets: &[u8]) -> Option<Self>;
    fn to_octets(&self) -> Zeroizing<Vec<u8>>;
    fn two() -> Self;
    /// 1 < self < p - 1: in a group of a safe prime that leaves nothing of small order
    /// (RFC 6989 §2.1).
    fn is_valid(&self, params: &Self::Params) -> bool;
    fn power(&self, exponent: &U448, bits: u32, params: &Self::Params) -> Self;
}

impl<const LIMBS: usize> Number for Uint<LIMBS>
where
    Self: Encoding,
{
    type Params = FixedMontyParams<LIMBS>;

    fn from_octets(octets: &[u8]) -> Option<Self> {
        (octets.len() == Self::BYTES).then(|| Self::from_be_slice(octets))
    }

    fn to_octets(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.to_be_bytes().as_ref().to_vec())
    }

    fn two() -> Self {
        Self::from_u8(2)
    }

    fn is_valid(&self, params: &Self::Params) -> bool {
        let largest = params.modulus().as_ref().wrapping_sub(&Self::ONE);
        *self > Self::ONE && *self < largest
    }

    fn power(&self, exponent: &U448, bits: u32, params: &Self::Params) -> Self {
        FixedMontyForm::new(self, params)
            .pow_bounded_exp(exponent, bits)
            .retrieve()
    }
}

struct Modp2048;
struct Modp3072;

/// The 2048-bit prime, 2^2048 - 2^1984 - 1 + 2^64 * { [2^1918 pi] + 124476 } (RFC 3526 §3).
pub(super) static PARAMS_2048: FixedMontyParams<{ U2048::LIMBS }> =
    FixedMontyParams::new_vartime(Odd::<U2048>::from_be_hex(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
         020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
         4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
         98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
         9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
         E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
         3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    ));

/// The 3072-bit prime, 2^3072 - 2^3008 - 1 + 2^64 * { [2^2942 pi] + 1690314 } (RFC 3526 §4).
pub(super) static PARAMS_3072: FixedMontyParams<{ U3072::LIMBS }> =
    FixedMontyParams::new_vartime(Odd::<U3072>::from_be_hex(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
         020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
         4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
         EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
         98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
         9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
         E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
         3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33\
         A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
         ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
         D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2\
         08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    ));

impl Modulus for Modp2048 {
    const GROUP: Group = Group::Modp2048;
    const PRIVATE_BITS: u32 = 320;
    type Number = U2048;
    fn params() -> &'static FixedMontyParams<{ U2048::LIMBS }> {
        &PARAMS_2048
    }
}

impl Modulus for Modp3072 {
    const GROUP: Group = Group::Modp3072;
    const PRIVATE_BITS: u32 = 448;
    type Number = U3072;
    fn params() -> &'static FixedMontyParams<{ U3072::LIMBS }> {
        &PARAMS_3072
    }
}

/// Draws a private value and computes its public one, in the 2048-bit group.
pub(super) fn start_2048(random: &dyn SecureRandom) -> Result<Box<dyn KeyExchange>, CryptoError> {
    start::<Modp2048>(random)
}

/// Draws a private value and computes its public one, in the 3072-bit group.
pub(super) fn start_3072(random: &dyn SecureRandom) -> Result<Box<dyn KeyExchange>, CryptoError> {
    start::<Modp3072>(random)
}

fn start<M: Modulus>(random: &dyn SecureRandom) -> Result<Box<dyn KeyExchange>, CryptoError> {
    let mut octets = Zeroizing::new([0; PRIVATE_LEN_MAX]);
    let bits = M::PRIVATE_BITS;
    let drawn = octets
        .len()
        .checked_sub(bits.div_ceil(8) as usize)
        .and_then(|unused| octets.get_mut(unused..))
        .ok_or(CryptoError::Provider)?;
    random.fill(drawn).map_err(|_| CryptoError::Provider)?;
    let private = Zeroizing::new(U448::from_be_slice(octets.as_slice()));
    let public = M::Number::two().power(&private, bits, M::params());
    // Twice in 2^320 draws at most.
    if !public.is_valid(M::params()) {
        return Err(CryptoError::Provider);
    }
    Ok(Box::new(Ephemeral::<M> {
        private,
        public_value: public.to_octets().to_vec(),
        group: std::marker::PhantomData,
    }))
}

struct Ephemeral<M> {
    private: Zeroizing<U448>,
    public_value: Vec<u8>,
    group: std::marker::PhantomData<M>,
}

impl<M: Modulus> KeyExchange for Ephemeral<M> {
    fn group(&self) -> Group {
        M::GROUP
    }

    fn public_value(&self) -> &[u8] {
        &self.public_value
    }

    /// The secret is as long as the prime, with zeros before it if need be (RFC 7296 §2.14).
    fn agree(self: Box<Self>, peer_public_value: &[u8]) -> Result<Secret, CryptoError> {
        let params = M::params();
        let theirs = M::Number::from_octets(peer_public_value)
            .filter(|number| number.is_valid(params))
            .ok_or(CryptoError::InvalidPublicValue)?;
        let shared = Zeroizing::new(theirs.power(&self.private, M::PRIVATE_BITS, params));
        Ok(Secret::from(shared.to_octets().as_slice()))
    }
}
