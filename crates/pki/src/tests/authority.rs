//! Authorities and certificates made for one test.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};

use epochgate_controller::pki::{KeyKind, UnixTime};

/// A time inside the validity of every certificate that [`Authority`] makes without being asked
/// for another: 2026-01-01.
pub(crate) const NOW: UnixTime = UnixTime(1_767_225_600);

/// An RSA key that protects nothing: generating one takes long.
const RSA_KEY: &str = include_str!("rsa-2048.pem");

/// An authority.
pub(crate) struct Authority {
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// Certificates between it and its root, its own first.
    chain: String,
}

/// A certificate with its key.
pub(crate) struct Issued {
    /// The certificate and those between it and the root.
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    pub(crate) fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority(name);
        change(&mut params);
        let key = key(KeyKind::EcdsaP256);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params.clone(), key),
            params,
            pem,
            chain: String::new(),
        }
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority(name);
        change(&mut params);
        let key = key(KeyKind::EcdsaP256);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            issuer: Issuer::new(params.clone(), key),
            params,
            chain: format!("{pem}{}", self.chain),
            pem,
        }
    }

    /// A certificate for the host name `name`.
    pub(crate) fn issue(&self, kind: KeyKind, name: &str) -> Issued {
        self.issue_with(kind, name, |_| ())
    }

    pub(crate) fn issue_with(
        &self,
        kind: KeyKind,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.serial_number = Some(SerialNumber::from(7_u64));
        params.not_before = date_time_ymd(2025, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        change(&mut params);
        let key = key(kind);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued {
            chain: format!("{pem}{}", self.chain),
            key: key.serialize_pem(),
        }
    }

    /// A revocation list, valid from 2025 until the first of January of `until`.
    pub(crate) fn revokes(&self, serials: &[u64], until: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 2, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Its subject's common name.
    #[allow(dead_code, reason = "not every user of this file asks")]
    pub(crate) fn subject(&self) -> &DistinguishedName {
        &self.params.distinguished_name
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Test");
    subject.push(DnType::CommonName, name);
    subject
}

fn key(kind: KeyKind) -> KeyPair {
    match kind {
        KeyKind::Rsa => KeyPair::from_pem_and_sign_algo(RSA_KEY, &PKCS_RSA_SHA256).unwrap(),
        KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyKind::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyKind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    }
}
