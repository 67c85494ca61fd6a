//! ML-KEM-768 (FIPS 203), which ring lacks: randomness drawn here, everything else by the crate
//! `ml-kem`.

use epochgate_controller::Secret;
use epochgate_controller::crypto::{CryptoError, Decapsulation};
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Seed};
use ring::rand::SecureRandom;
use zeroize::{Zeroize, Zeroizing};

/// Draws a key pair.
pub(super) fn start(random: &dyn SecureRandom) -> Result<Box<dyn Decapsulation>, CryptoError> {
    let mut seed = Seed::default();
    random.fill(&mut seed).map_err(|_| CryptoError::Provider)?;
    let private = DecapsulationKey::from_seed(seed);
    seed.as_mut_slice().zeroize();
    let public = private.encapsulation_key().to_bytes().to_vec();
    Ok(Box::new(KeyPair { private, public }))
}

/// Encapsulates a fresh secret: the ciphertext and the secret.
pub(super) fn encapsulate(
    random: &dyn SecureRandom,
    encapsulation_key: &[u8],
) -> Result<(Vec<u8>, Secret), CryptoError> {
    let octets = encapsulation_key
        .try_into()
        .map_err(|_| CryptoError::InvalidPublicValue)?;
    let theirs = EncapsulationKey::new(octets).map_err(|_| CryptoError::InvalidPublicValue)?;
    let mut message = Zeroizing::new([0; 32]);
    random
        .fill(message.as_mut_slice())
        .map_err(|_| CryptoError::Provider)?;
    let mut message = B32::from(*message);
    // What `encapsulate_with_rng` does once its generator has given 32 octets.
    let (ciphertext, mut shared) = theirs.encapsulate_deterministic(&message);
    message.as_mut_slice().zeroize();
    let secret = Secret::from(shared.as_slice());
    shared.as_mut_slice().zeroize();
    Ok((ciphertext.to_vec(), secret))
}

struct KeyPair {
    private: DecapsulationKey,
    public: Vec<u8>,
}

impl Decapsulation for KeyPair {
    fn encapsulation_key(&self) -> &[u8] {
        &self.public
    }

    /// A ciphertext that was changed gives another secret, which AUTH shows (FIPS 203 §6.3).
    fn decapsulate(self: Box<Self>, ciphertext: &[u8]) -> Result<Secret, CryptoError> {
        let ciphertext = ciphertext
            .try_into()
            .map_err(|_| CryptoError::InvalidPublicValue)?;
        let mut shared = self.private.decapsulate(ciphertext);
        let secret = Secret::from(shared.as_slice());
        shared.as_mut_slice().zeroize();
        Ok(secret)
    }
}
