//! COOKIE (RFC 7296 §2.6): a responder under load keeps nothing until an initiator has shown that
//! it receives what is sent to its address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use epochgate_ike_wire::IkeSpi;

use crate::crypto::{Crypto, CryptoError, Prf};
use crate::{Secret, Timestamp};

/// Octets of the secret that cookies are made with.
const SECRET_LEN: usize = 32;
/// The hash of a cookie.
const COOKIE_PRF: Prf = Prf::HmacSha256;

/// Makes and recognises cookies without a memory of them. A cookie is a version octet and a MAC of
/// Ni, IPi and SPIi; the secret is replaced in time, and the one before it accepted as well.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    current: Option<Generation>,
    previous: Option<Generation>,
}

#[derive(Debug)]
struct Generation {
    version: u8,
    secret: Secret,
    since: Timestamp,
}

impl Cookies {
    /// The cookie for this initiator.
    pub(super) fn make(
        &mut self,
        crypto: &dyn Crypto,
        lifetime: Duration,
        from: &Claim<'_>,
        now: Timestamp,
    ) -> Result<Vec<u8>, CryptoError> {
        self.rotate(crypto, lifetime, now)?;
        self.current
            .as_ref()
            .map(|generation| generation.cookie(crypto, from))
            .ok_or(CryptoError::Provider)
    }

    /// Whether we made this cookie for this initiator, not long ago.
    pub(super) fn recognise(
        &mut self,
        crypto: &dyn Crypto,
        lifetime: Duration,
        from: &Claim<'_>,
        cookie: &[u8],
        now: Timestamp,
    ) -> Result<bool, CryptoError> {
        self.rotate(crypto, lifetime, now)?;
        Ok([&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(|generation| now.since(generation.since) < 2 * lifetime)
            .any(|generation| crypto.equal(&generation.cookie(crypto, from), cookie)))
    }

    fn rotate(
        &mut self,
        crypto: &dyn Crypto,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<(), CryptoError> {
        let version = match &self.current {
            Some(current) if now.since(current.since) < lifetime => return Ok(()),
            Some(current) => current.version.wrapping_add(1),
            None => 0,
        };
        let mut secret = vec![0; SECRET_LEN];
        crypto.random(&mut secret)?;
        let generation = Generation {
            version,
            secret: secret.into(),
            since: now,
        };
        self.previous = self.current.replace(generation);
        Ok(())
    }
}

/// What an initiator says of itself.
pub(super) struct Claim<'a> {
    pub(super) nonce: &'a [u8],
    pub(super) address: SocketAddr,
    pub(super) spi: IkeSpi,
}

impl Generation {
    fn cookie(&self, crypto: &dyn Crypto, from: &Claim<'_>) -> Vec<u8> {
        let mac = |address: &[u8]| {
            crypto.prf(
                COOKIE_PRF,
                self.secret.expose(),
                &[from.nonce, address, from.spi.as_bytes()],
            )
        };
        // Without the port: a NAT may choose another one for the second datagram.
        let mac = match from.address.ip() {
            IpAddr::V4(ip) => mac(&ip.octets()),
            IpAddr::V6(ip) => mac(&ip.octets()),
        };
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(mac.expose());
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring_provider::Ring;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn claim<'a>(nonce: &'a [u8], address: &str, spi: u8) -> Claim<'a> {
        Claim {
            nonce,
            address: address.parse().expect("an address"),
            spi: IkeSpi([spi; 8]),
        }
    }

    #[test]
    fn a_cookie_is_for_one_nonce_one_address_and_one_spi() {
        let (crypto, now) = (Ring::new(), Timestamp::ZERO);
        let mut cookies = Cookies::default();
        let whose = claim(b"nonce", "192.0.2.1:500", 1);
        let cookie = cookies
            .make(&crypto, LIFETIME, &whose, now)
            .expect("a cookie");
        assert!((1..=64).contains(&cookie.len()));
        let mut known = |from: &Claim<'_>, cookie: &[u8]| {
            cookies
                .recognise(&crypto, LIFETIME, from, cookie, now)
                .expect("an answer")
        };
        assert!(known(&whose, &cookie));
        // A NAT may choose another port for the second datagram.
        assert!(known(&claim(b"nonce", "192.0.2.1:4500", 1), &cookie));
        assert!(!known(&claim(b"other", "192.0.2.1:500", 1), &cookie));
        assert!(!known(&claim(b"nonce", "192.0.2.2:500", 1), &cookie));
        assert!(!known(&claim(b"nonce", "192.0.2.1:500", 2), &cookie));
        assert!(!known(&whose, &cookie[1..]));
        assert!(!known(&whose, &[]));
    }

    #[test]
    fn a_cookie_outlives_one_change_of_the_secret_and_not_two() {
        let crypto = Ring::new();
        let mut cookies = Cookies::default();
        let whose = claim(b"nonce", "192.0.2.1:500", 1);
        let cookie = cookies
            .make(&crypto, LIFETIME, &whose, Timestamp::ZERO)
            .expect("a cookie");
        let mut known = |seconds| {
            let now = Timestamp::ZERO + Duration::from_secs(seconds);
            cookies
                .recognise(&crypto, LIFETIME, &whose, &cookie, now)
                .expect("an answer")
        };
        assert!(known(59) && known(61) && known(119));
        assert!(!known(121));
    }
}
