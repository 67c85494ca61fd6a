//! What one certificate says: names, key, time, and what its key may be used for
//! (RFC 5280 §4, RFC 4945 §5.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use epochgate_controller::config::Identity;
use epochgate_controller::distinguished_name::DistinguishedName;
use epochgate_controller::pki::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// Alternative names that are read of one certificate.
const NAMES_MAX: usize = 64;

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_ED25519: &str = "1.3.101.112";

/// A certificate's contents, as far as they matter.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) subject: Identity,
    /// Who its owner may be: subject, alternative names, subject key identifier.
    pub(crate) names: Vec<Identity>,
    pub(crate) validity: (UnixTime, UnixTime),
    pub(crate) public_key: PublicKey,
    /// DER of the SubjectPublicKeyInfo.
    pub(crate) public_key_info: Vec<u8>,
    /// Whether its key may sign AUTH: keyUsage has digitalSignature or nonRepudiation, or is
    /// absent (RFC 4945 §5.1.3.2).
    pub(crate) may_sign: bool,
}

/// A public key as its certificate has it.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    pub(crate) kind: PublicKeyKind,
    /// The contents of subjectPublicKey.
    pub(crate) octets: Vec<u8>,
}

/// Kinds of keys that can sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Described {
    /// Reads a certificate in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, String> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| format!("a certificate is malformed: {error}"))?;
        if !rest.is_empty() {
            return Err("octets stand behind a certificate".to_owned());
        }
        let subject = DistinguishedName::from_der(certificate.subject().as_raw());
        let mut names: Vec<Identity> = subject.iter().cloned().map(Identity::Dn).collect();
        let mut may_sign = true;
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(alternative) => {
                    let known = alternative.general_names.iter().filter_map(identity);
                    names.extend(known.take(NAMES_MAX));
                }
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    names.push(Identity::KeyId(id.0.to_vec()));
                }
                ParsedExtension::KeyUsage(usage) => {
                    may_sign = usage.digital_signature() || usage.non_repudiation();
                }
                _ => {}
            }
        }
        let time = |seconds: i64| UnixTime(u64::try_from(seconds).unwrap_or(0));
        let validity = certificate.validity();
        let subject = match subject {
            Some(name) => Identity::Dn(name),
            // An empty subject: the first other name (RFC 5280 §4.1.2.6).
            None => names
                .first()
                .cloned()
                .ok_or_else(|| "a certificate names nobody".to_owned())?,
        };
        Ok(Self {
            subject,
            names,
            validity: (
                time(validity.not_before.timestamp()),
                time(validity.not_after.timestamp()),
            ),
            public_key: public_key(&certificate)?,
            public_key_info: certificate.public_key().raw.to_vec(),
            may_sign,
        })
    }
}

/// Whether the names say this identity. Host names are compared without regard to case; a wildcard
/// stands for nothing but itself (RFC 4945 §5.1.1, §3.1.2).
pub(crate) fn says(names: &[Identity], identity: &Identity) -> bool {
    names.iter().any(|name| match (name, identity) {
        (Identity::Fqdn(name), Identity::Fqdn(wanted)) => name.eq_ignore_ascii_case(wanted),
        (Identity::Mail(name), Identity::Mail(wanted)) => name == wanted,
        (Identity::Address(name), Identity::Address(wanted)) => name == wanted,
        (Identity::Dn(name), Identity::Dn(wanted)) => name == wanted,
        (Identity::KeyId(name), Identity::KeyId(wanted)) => name == wanted,
        (
            Identity::Fqdn(_)
            | Identity::Mail(_)
            | Identity::Address(_)
            | Identity::Dn(_)
            | Identity::KeyId(_),
            _,
        ) => false,
    })
}

/// Whether a certificate is valid at this time, in words if not.
pub(crate) fn check_time(
    (first, last): (UnixTime, UnixTime),
    now: Option<UnixTime>,
) -> Result<(), String> {
    match now {
        Some(now) if last < now => Err("the certificate has expired".to_owned()),
        Some(now) if now < first => Err("the certificate is not valid yet".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn identity(name: &GeneralName<'_>) -> Option<Identity> {
    match name {
        GeneralName::DNSName(name) => Some(Identity::Fqdn((*name).to_owned())),
        GeneralName::RFC822Name(name) => Some(Identity::Mail((*name).to_owned())),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(|it| IpAddr::V4(Ipv4Addr::from(it)));
            let v6 = <[u8; 16]>::try_from(*octets).map(|it| IpAddr::V6(Ipv6Addr::from(it)));
            v4.or(v6).ok().map(Identity::Address)
        }
        _ => None,
    }
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<PublicKey, String> {
    let info = certificate.public_key();
    let parameters = info.algorithm.parameters.as_ref();
    let curve = || {
        parameters
            .and_then(|it| it.as_oid().ok())
            .map(|it| it.to_id_string())
    };
    let kind = match info.algorithm.algorithm.to_id_string().as_str() {
        OID_RSA => PublicKeyKind::Rsa,
        OID_ED25519 => PublicKeyKind::Ed25519,
        OID_EC => match curve().as_deref() {
            Some(OID_P256) => PublicKeyKind::P256,
            Some(OID_P384) => PublicKeyKind::P384,
            _ => return Err("its key is on a curve other than P-256 and P-384".to_owned()),
        },
        _ => return Err("its key is neither RSA, ECDSA nor Ed25519".to_owned()),
    };
    Ok(PublicKey {
        kind,
        octets: info.subject_public_key.data.to_vec(),
    })
}
