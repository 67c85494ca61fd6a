//! Certificates and private keys (RFC 5280, RFC 4945), for the controller.
//!
//! PEM comes from the configuration's files and leaves as values behind the traits of
//! [`epochgate_controller::pki`]. Paths are `rustls-webpki`'s, names `x509-parser`'s, signatures
//! *ring*'s. Nothing here reads a file or a clock. *ring* wipes no keys; copies made on the way to
//! it are wiped.

mod authorities;
mod certificate;
mod der;
mod key;
mod pem;
#[cfg(test)]
pub(crate) mod tests;

use epochgate_controller::pki::{
    AuthorityFiles, Credential, Culprit, OwnCertificate, PATH_LEN_MAX, Pki, RsaPadding,
    TrustedAuthorities, UnixTime, Unusable,
};
use std::sync::Arc;

use self::certificate::Described;

/// The provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct X509;

impl Pki for X509 {
    fn credential(
        &self,
        certificates: &[u8],
        key: &[u8],
        now: Option<UnixTime>,
    ) -> Result<OwnCertificate, Unusable> {
        let unusable = |reason: String| Unusable {
            culprit: Culprit::Certificate,
            reason,
        };
        let certificates = pem::certificates(certificates).map_err(unusable)?;
        if certificates.len() > PATH_LEN_MAX {
            return Err(unusable(format!("more than {PATH_LEN_MAX} certificates")));
        }
        let [own, ..] = certificates.as_slice() else {
            return Err(unusable("there is no certificate in it".to_owned()));
        };
        let described = Described::read(own).map_err(unusable)?;
        certificate::check_time(described.validity, now).map_err(unusable)?;
        let key = key::read(key, &described.public_key).map_err(|reason| Unusable {
            culprit: Culprit::Key,
            reason,
        })?;
        Ok(OwnCertificate {
            subject: described.subject,
            names: described.names,
            credential: Credential {
                validity: described.validity,
                certificates,
                key: Arc::new(key),
                rsa_padding: RsaPadding::Pss,
            },
        })
    }

    fn authorities(&self, files: &AuthorityFiles<'_>) -> Result<TrustedAuthorities, Unusable> {
        authorities::read(files).map(|it| TrustedAuthorities(Arc::new(it)))
    }
}
