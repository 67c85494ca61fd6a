//! The narrow door to certificates (RFC 7296 §3.6–3.8, RFC 4945, RFC 7427).
//!
//! The controller decides whom to believe and when; a provider reads certificates and computes
//! signatures. The daemon's provider is `epochgate-pki`. Both traits' objects are made where the
//! configuration is read and reach the controller inside it.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::Secret;
use crate::config::Identity;
use crate::crypto::CryptoError;

/// Certificates of one path at most, the end's own included.
pub const PATH_LEN_MAX: usize = 8;

/// Octets of one certificate at most; beyond, a CERT payload is refused unread.
pub const CERTIFICATE_LEN_MAX: usize = 16 << 10;

/// Wall-clock time: seconds since 1970-01-01 00:00 UTC. Only certificates need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub u64);

/// What kind of key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of 2048 to 4096 bits.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// Ed25519 (RFC 8420).
    Ed25519,
}

/// Hash functions that signatures are made with (RFC 7427 §7). SHA-1 is absent on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA2-256, 2.
    Sha256,
    /// SHA2-384, 3.
    Sha384,
    /// SHA2-512, 4.
    Sha512,
}

/// How a signature is computed and encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2).
    RsaPkcs1(Hash),
    /// RSASSA-PSS, MGF1 with the same hash, salt as long as the hash (RFC 8017 §8.1).
    RsaPss(Hash),
    /// ECDSA; the signature is a DER `Ecdsa-Sig-Value` (RFC 7427 Appendix A.3).
    Ecdsa(Hash),
    /// ECDSA; the signature is r | s at the curve's length (RFC 4754 §7).
    EcdsaConcatenated(Hash),
    /// Ed25519, which hashes by itself (RFC 8420 §2).
    Ed25519,
}

/// A private key that signs AUTH.
pub trait SigningKey: fmt::Debug + Send + Sync {
    /// What kind it is.
    fn kind(&self) -> KeyKind;

    /// Signs.
    ///
    /// # Errors
    /// [`CryptoError::Provider`] for a scheme that this kind of key has not, or without randomness.
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, CryptoError>;
}

/// What a peer shows for its identity.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Certificates in DER as they came, the peer's own first.
    pub certificates: &'a [Vec<u8>],
    /// Who the peer must be.
    pub identity: &'a Identity,
    /// How it signed.
    pub scheme: SignatureScheme,
    /// What it must have signed.
    pub message: &'a [u8],
    /// Its signature.
    pub signature: &'a [u8],
    /// The time at which all must be valid.
    pub now: UnixTime,
}

/// Why a peer's certificates are not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Distrust {
    /// No certificate came.
    #[error("no certificate came with it")]
    NoCertificate,
    /// More than [`PATH_LEN_MAX`], or longer than [`CERTIFICATE_LEN_MAX`].
    #[error("its certificates are too many or too long")]
    TooLarge,
    /// A certificate is no X.509 certificate.
    #[error("its certificate is malformed")]
    Malformed,
    /// No path leads to a configured authority.
    #[error("no configured authority issued its certificate")]
    UnknownAuthority,
    /// The time of a certificate is over.
    #[error("its certificate has expired")]
    Expired,
    /// The time of a certificate has not come.
    #[error("its certificate is not valid yet: are both clocks right?")]
    NotYetValid,
    /// A revocation list names a certificate.
    #[error("its certificate is revoked")]
    Revoked,
    /// Revocation lists are configured, but none speaks for an authority of the path.
    #[error("no configured revocation list speaks for its certificate")]
    RevocationUnknown,
    /// A revocation list is past its next update.
    #[error("the revocation list of its authority is out of date: fetch a new one and reload")]
    StaleRevocationList,
    /// The names in the certificate are others.
    #[error("its certificate does not name {0}")]
    WrongIdentity(String),
    /// The extended key usage allows something else only.
    #[error("its certificate is not meant for IPsec (extended key usage)")]
    WrongUsage,
    /// An authority may not issue for such names.
    #[error("its certificate violates a name constraint of its authority")]
    NameConstraints,
    /// The signature does not fit.
    #[error("its signature is wrong")]
    BadSignature,
    /// Anything else, in the provider's words.
    #[error("its certificate is refused: {0}")]
    Other(String),
}

/// Authorities, revocation lists and rules that peers' certificates are judged by.
pub trait Authorities: fmt::Debug + Send + Sync {
    /// SHA-1 of each authority's SubjectPublicKeyInfo, for CERTREQ (RFC 7296 §3.7).
    fn key_hashes(&self) -> &[[u8; 20]];

    /// Judges a peer: path, time, revocation, usage, identity, signature.
    ///
    /// # Errors
    /// The first reason found not to believe it.
    fn judge(&self, evidence: &Evidence<'_>) -> Result<(), Distrust>;

    /// What tells two of them apart: a digest of everything that was read.
    fn fingerprint(&self) -> [u8; 32];
}

/// What we show for our identity, and the key behind it.
#[derive(Clone)]
pub struct Credential {
    /// Certificates in DER, our own first, without the root; at most [`PATH_LEN_MAX`].
    pub certificates: Vec<Vec<u8>>,
    /// The key of the first certificate.
    pub key: Arc<dyn SigningKey>,
    /// How an RSA key signs for a peer that speaks RFC 7427.
    pub rsa_padding: RsaPadding,
    /// The time in which our own certificate is valid, first and last second.
    pub validity: (UnixTime, UnixTime),
}

/// How an RSA key signs (RFC 8247 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaPadding {
    /// RSASSA-PSS.
    Pss,
    /// RSASSA-PKCS1-v1_5, for peers that have no PSS.
    Pkcs1,
}

impl PartialEq for Credential {
    /// The first certificate holds the key's public half.
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates && self.rsa_padding == other.rsa_padding
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            certificates,
            key,
            rsa_padding,
            validity: _,
        } = self;
        write!(
            f,
            "Credential({} certificates, {:?}, {rsa_padding:?})",
            certificates.len(),
            key.kind()
        )
    }
}

/// Authorities as a configuration's value.
#[derive(Clone, Debug)]
pub struct TrustedAuthorities(pub Arc<dyn Authorities>);

impl PartialEq for TrustedAuthorities {
    fn eq(&self, other: &Self) -> bool {
        self.0.fingerprint() == other.0.fingerprint()
    }
}

impl Eq for TrustedAuthorities {}

/// Makes credentials and authorities of files' contents. The reader of the configuration holds
/// one.
pub trait Pki {
    /// Our certificates and private key, each in PEM. They must belong together, and be valid at
    /// `now` where that is known.
    ///
    /// # Errors
    /// What is wrong, and in which of the two.
    fn credential(
        &self,
        certificates: &[u8],
        key: &[u8],
        now: Option<UnixTime>,
    ) -> Result<OwnCertificate, Unusable>;

    /// Authorities and revocation lists, each file in PEM (a revocation list also in DER).
    ///
    /// # Errors
    /// What is wrong, and in which of the files.
    fn authorities(&self, files: &AuthorityFiles<'_>) -> Result<TrustedAuthorities, Unusable>;
}

/// A credential and what its certificate says of us.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// Certificates and key. Its padding is PSS.
    pub credential: Credential,
    /// The subject's distinguished name: our identity if none is configured.
    pub subject: Identity,
    /// The names that it may stand for, for messages.
    pub names: Vec<Identity>,
}

/// Contents of the files that say whom to trust.
#[derive(Clone, Copy, Debug)]
pub struct AuthorityFiles<'a> {
    /// Certificates of authorities, PEM.
    pub authorities: &'a [Vec<u8>],
    /// Revocation lists, PEM or DER.
    pub revocation_lists: &'a [Vec<u8>],
    /// Whether a revocation list past its next update still counts.
    pub accept_stale: bool,
    /// The time at which all must be valid, where that is known.
    pub now: Option<UnixTime>,
}

/// Why a file of certificates or keys is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Unusable {
    /// Which file.
    pub culprit: Culprit,
    /// What is wrong with it.
    pub reason: String,
}

/// Which of several files is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// Our certificates.
    Certificate,
    /// Our private key.
    Key,
    /// The authority file with this index.
    Authority(usize),
    /// The revocation list with this index.
    RevocationList(usize),
}

/// A post-quantum pre-shared key (RFC 8784).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ppk {
    /// PPK_ID, as both ends know it.
    pub id: Vec<u8>,
    /// The key: at least 256 bits (RFC 8784 §6).
    pub key: Secret,
    /// Whether a peer that has not got it is refused.
    pub required: bool,
}
