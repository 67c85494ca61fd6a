//! Certificates and requests for them (RFC 7296 §3.6, §3.7).

use core::fmt;

use crate::code_point::{Octets, code_points};
use crate::error::DecodeError;
use crate::reader::Reader;

/// Octets of the SHA-1 hash of a certification authority's public key (RFC 7296 §3.7).
const AUTHORITY_HASH_LEN: usize = 20;

code_points! {
    /// How a certificate is encoded (IANA: IKEv2 Certificate Encodings).
    pub struct CertificateEncoding(u8) {
        /// PKCS #7 wrapped X.509.
        PKCS7_WRAPPED_X509 = 1;
        /// X.509 certificate for signatures, in DER.
        X509_SIGNATURE = 4;
        /// Certificate revocation list.
        REVOCATION_LIST = 7;
        /// Hash and URL of an X.509 certificate.
        HASH_AND_URL_X509 = 12;
        /// Hash and URL of a bundle of X.509 certificates.
        HASH_AND_URL_BUNDLE = 13;
        /// OCSP content (RFC 4806).
        OCSP_CONTENT = 14;
        /// Raw public key (RFC 7670).
        RAW_PUBLIC_KEY = 15;
    }
}

/// A certificate or what leads to one.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What `data` is.
    pub encoding: CertificateEncoding,
    /// The certificate.
    pub data: Vec<u8>,
}

impl Certificate {
    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let encoding = CertificateEncoding(body.u8()?);
        Ok(Self {
            encoding,
            data: body.take_rest().to_vec(),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend(&self.data);
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Certificate({}, {:?})",
            self.encoding,
            Octets(&self.data)
        )
    }
}

/// Asks for a certificate that one of these authorities has issued.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// What kind of certificate is wanted.
    pub encoding: CertificateEncoding,
    /// SHA-1 hashes of the public keys of trusted authorities, one after the other; may be empty.
    pub authorities: Vec<u8>,
}

impl CertificateRequest {
    /// The hashes of the authorities' public keys; an incomplete one at the end is left out.
    pub fn authority_hashes(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.chunks_exact(AUTHORITY_HASH_LEN)
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let encoding = CertificateEncoding(body.u8()?);
        Ok(Self {
            encoding,
            authorities: body.take_rest().to_vec(),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend(&self.authorities);
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CertificateRequest({}, {:?})",
            self.encoding,
            Octets(&self.authorities)
        )
    }
}
