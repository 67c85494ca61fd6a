//! Whom to trust: authorities and revocation lists, and the judgement of what a peer shows
//! (RFC 5280 §6, RFC 4945 §5).

use epochgate_controller::pki::{
    Authorities, AuthorityFiles, CERTIFICATE_LEN_MAX, Culprit, Distrust, Evidence, Hash,
    PATH_LEN_MAX, SignatureScheme, UnixTime, Unusable,
};
use ring::digest;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use std::time::Duration;
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder,
    UnknownStatusPolicy, ring as algorithms,
};

use super::certificate::{self, Described, PublicKeyKind};
use super::{der, pem};

/// Authorities of one tunnel at most.
const ANCHORS_MAX: usize = 64;

/// What certificates may be signed with: SHA-2 alone, and RSA of 2048 bits at least.
const CERTIFICATE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Authorities, revocation lists and rules.
#[derive(Debug)]
pub(crate) struct Trusted {
    anchors: Vec<Anchor>,
    key_hashes: Vec<[u8; 20]>,
    revocation_lists: Vec<CertRevocationList<'static>>,
    accept_stale: bool,
    fingerprint: [u8; 32],
}

#[derive(Debug)]
struct Anchor {
    anchor: TrustAnchor<'static>,
    validity: (UnixTime, UnixTime),
}

/// Reads files.
pub(crate) fn read(files: &AuthorityFiles<'_>) -> Result<Trusted, Unusable> {
    let mut anchors = Vec::new();
    let mut key_hashes = Vec::new();
    let mut fingerprint = digest::Context::new(&digest::SHA256);
    fingerprint.update(&[u8::from(files.accept_stale)]);
    for (index, file) in files.authorities.iter().enumerate() {
        let unusable = |reason| Unusable {
            culprit: Culprit::Authority(index),
            reason,
        };
        let certificates = pem::certificates(file).map_err(unusable)?;
        if certificates.is_empty() {
            return Err(unusable("there is no certificate in it".to_owned()));
        }
        if anchors.len() + certificates.len() > ANCHORS_MAX {
            return Err(unusable(format!("more than {ANCHORS_MAX} authorities")));
        }
        for der in certificates {
            let described = Described::read(&der).map_err(unusable)?;
            certificate::check_time(described.validity, files.now).map_err(unusable)?;
            let certificate = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| unusable(format!("no certificate of an authority: {error}")))?
                .to_owned();
            let hash = digest::digest(
                &digest::SHA1_FOR_LEGACY_USE_ONLY,
                &described.public_key_info,
            );
            key_hashes.extend(<[u8; 20]>::try_from(hash.as_ref()));
            fingerprint.update(digest::digest(&digest::SHA256, &der).as_ref());
            let validity = described.validity;
            anchors.push(Anchor { anchor, validity });
        }
    }
    let mut revocation_lists = Vec::new();
    for (index, file) in files.revocation_lists.iter().enumerate() {
        let unusable = |reason| Unusable {
            culprit: Culprit::RevocationList(index),
            reason,
        };
        let lists = pem::revocation_lists(file).map_err(unusable)?;
        if lists.is_empty() {
            return Err(unusable("there is no revocation list in it".to_owned()));
        }
        for der in lists {
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| unusable(format!("no revocation list: {error}")))?;
            check_next_update(&der, files).map_err(unusable)?;
            fingerprint.update(digest::digest(&digest::SHA256, &der).as_ref());
            revocation_lists.push(CertRevocationList::from(list));
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(fingerprint.finish().as_ref());
    Ok(Trusted {
        anchors,
        key_hashes,
        revocation_lists,
        accept_stale: files.accept_stale,
        fingerprint: digest,
    })
}

/// A list past its next update makes every peer of its authority be refused.
fn check_next_update(der: &[u8], files: &AuthorityFiles<'_>) -> Result<(), String> {
    use x509_parser::prelude::{CertificateRevocationList, FromDer};
    let Some(now) = files.now else { return Ok(()) };
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|error| format!("no revocation list: {error}"))?;
    let next = list.next_update().map(|next| next.timestamp());
    let is_stale = next.is_some_and(|next| u64::try_from(next).unwrap_or(0) < now.0);
    if is_stale && !files.accept_stale {
        return Err("the revocation list is past its next update: fetch a new one".to_owned());
    }
    Ok(())
}

impl Authorities for Trusted {
    fn key_hashes(&self) -> &[[u8; 20]] {
        &self.key_hashes
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn judge(&self, evidence: &Evidence<'_>) -> Result<(), Distrust> {
        let [own, others @ ..] = evidence.certificates else {
            return Err(Distrust::NoCertificate);
        };
        let is_too_long = |der: &Vec<u8>| der.len() > CERTIFICATE_LEN_MAX;
        if others.len() >= PATH_LEN_MAX || evidence.certificates.iter().any(is_too_long) {
            return Err(Distrust::TooLarge);
        }
        let der = CertificateDer::from(own.as_slice());
        let certificate = EndEntityCert::try_from(&der).map_err(distrust)?;
        let described = Described::read(own).map_err(|_| Distrust::Malformed)?;
        self.check_path(&certificate, others, evidence.now)?;
        if !described.may_sign {
            return Err(Distrust::WrongUsage);
        }
        if !certificate::says(&described.names, evidence.identity) {
            return Err(Distrust::WrongIdentity(evidence.identity.to_string()));
        }
        let kind = described.public_key.kind;
        check_signature(&certificate, kind, evidence)
    }
}

impl Trusted {
    fn check_path(
        &self,
        certificate: &EndEntityCert<'_>,
        others: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<(), Distrust> {
        let others: Vec<CertificateDer<'_>> = others
            .iter()
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let anchors: Vec<TrustAnchor<'_>> = self
            .anchors
            .iter()
            .filter(|it| it.validity.0 <= now && now <= it.validity.1)
            .map(|it| it.anchor.clone())
            .collect();
        let lists: Vec<&CertRevocationList<'_>> = self.revocation_lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(if self.accept_stale {
                    ExpirationPolicy::Ignore
                } else {
                    ExpirationPolicy::Enforce
                })
                .build()
        });
        let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        certificate
            .verify_for_usage(
                CERTIFICATE_ALGORITHMS,
                &anchors,
                &others,
                time,
                Usage,
                revocation,
                None,
            )
            .map(|_| ())
            .map_err(distrust)
    }
}

/// Extended key usages that are good for IKE: none at all, any, id-kp-ipsecIKE
/// (RFC 4945 §5.1.3.12), and, as authorities do in practice, those of TLS servers and clients and
/// the three that RFC 4945 retired.
struct Usage;

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        const ANY: &[usize] = &[2, 5, 29, 37, 0];
        const KP: [usize; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
        const SERVER_AUTH: usize = 1;
        const CLIENT_AUTH: usize = 2;
        const IPSEC_RETIRED: std::ops::RangeInclusive<usize> = 5..=7;
        const IPSEC_IKE: usize = 17;
        let mut is_empty = true;
        for usage in usages {
            is_empty = false;
            let oid = usage?.to_decoded_oid();
            let fits = match oid.strip_prefix(&KP) {
                Some([SERVER_AUTH | CLIENT_AUTH | IPSEC_IKE]) => true,
                Some([other]) => IPSEC_RETIRED.contains(other),
                Some(_) | None => oid == ANY,
            };
            if fits {
                return Ok(());
            }
        }
        if is_empty {
            return Ok(());
        }
        #[expect(
            deprecated,
            reason = "the one with context can't be made outside webpki"
        )]
        Err(Error::RequiredEkuNotFound)
    }
}

fn check_signature(
    certificate: &EndEntityCert<'_>,
    kind: PublicKeyKind,
    evidence: &Evidence<'_>,
) -> Result<(), Distrust> {
    use Hash::{Sha256, Sha384, Sha512};
    use PublicKeyKind::{P256, P384};
    let algorithm = match (evidence.scheme, kind) {
        (SignatureScheme::RsaPkcs1(Sha256), PublicKeyKind::Rsa) => {
            algorithms::RSA_PKCS1_2048_8192_SHA256
        }
        (SignatureScheme::RsaPkcs1(Sha384), PublicKeyKind::Rsa) => {
            algorithms::RSA_PKCS1_2048_8192_SHA384
        }
        (SignatureScheme::RsaPkcs1(Sha512), PublicKeyKind::Rsa) => {
            algorithms::RSA_PKCS1_2048_8192_SHA512
        }
        (SignatureScheme::RsaPss(Sha256), PublicKeyKind::Rsa) => {
            algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY
        }
        (SignatureScheme::RsaPss(Sha384), PublicKeyKind::Rsa) => {
            algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY
        }
        (SignatureScheme::RsaPss(Sha512), PublicKeyKind::Rsa) => {
            algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY
        }
        (SignatureScheme::Ecdsa(Sha256), P256)
        | (SignatureScheme::EcdsaConcatenated(Sha256), P256) => algorithms::ECDSA_P256_SHA256,
        (SignatureScheme::Ecdsa(Sha384), P256) => algorithms::ECDSA_P256_SHA384,
        (SignatureScheme::Ecdsa(Sha256), P384) => algorithms::ECDSA_P384_SHA256,
        (SignatureScheme::Ecdsa(Sha384), P384)
        | (SignatureScheme::EcdsaConcatenated(Sha384), P384) => algorithms::ECDSA_P384_SHA384,
        (SignatureScheme::Ed25519, PublicKeyKind::Ed25519) => algorithms::ED25519,
        (
            SignatureScheme::RsaPkcs1(_)
            | SignatureScheme::RsaPss(_)
            | SignatureScheme::Ecdsa(_)
            | SignatureScheme::EcdsaConcatenated(_)
            | SignatureScheme::Ed25519,
            _,
        ) => return Err(Distrust::BadSignature),
    };
    let halves = match (evidence.scheme, kind) {
        (SignatureScheme::EcdsaConcatenated(_), P256) => Some(64),
        (SignatureScheme::EcdsaConcatenated(_), _) => Some(96),
        _ => None,
    };
    let signature = match halves {
        Some(length) if evidence.signature.len() == length => {
            der::signature_from_halves(evidence.signature).ok_or(Distrust::BadSignature)?
        }
        Some(_) => return Err(Distrust::BadSignature),
        None => evidence.signature.to_vec(),
    };
    certificate
        .verify_signature(algorithm, evidence.message, &signature)
        .map_err(|_| Distrust::BadSignature)
}

/// The library's verdict in our words.
fn distrust(error: Error) -> Distrust {
    #[allow(deprecated, reason = "both forms may come")]
    match error {
        Error::CertExpired { .. } => Distrust::Expired,
        Error::CertNotValidYet { .. } => Distrust::NotYetValid,
        Error::CertRevoked => Distrust::Revoked,
        Error::CrlExpired { .. } => Distrust::StaleRevocationList,
        Error::UnknownRevocationStatus => Distrust::RevocationUnknown,
        // The second: an authority of that name, but with another key.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Distrust::UnknownAuthority,
        Error::NameConstraintViolation => Distrust::NameConstraints,
        Error::RequiredEkuNotFound | Error::RequiredEkuNotFoundContext(_) => Distrust::WrongUsage,
        Error::BadDer
        | Error::BadDerTime
        | Error::TrailingData(_)
        | Error::MalformedExtensions
        | Error::ExtensionValueInvalid => Distrust::Malformed,
        other => Distrust::Other(other.to_string()),
    }
}
