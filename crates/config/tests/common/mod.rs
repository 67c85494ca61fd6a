//! Files in memory for the tests.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use epochgate_config::{Files, SecretFile};
use epochgate_controller::pki::{Pki, UnixTime};
use epochgate_pki::X509;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    date_time_ymd,
};
use zeroize::Zeroizing;

/// A secret that must never be seen in a message.
pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// "Permission denied" and "No such file or directory" of Linux, with the system's own texts.
const EACCES: i32 = 13;
const ENOENT: i32 = 2;

/// What `load` may read.
#[derive(Default)]
pub(crate) struct Memory {
    templates: BTreeMap<&'static str, &'static str>,
}

impl Memory {
    /// With a template file.
    pub(crate) fn with_template(mut self, name: &'static str, text: &'static str) -> Self {
        self.templates.insert(name, text);
        self
    }
}

impl Files for Memory {
    fn secret(&self, path: &str) -> io::Result<SecretFile> {
        if let Some(length) = path.strip_prefix("/octets/") {
            let length = length.parse().map_err(io::Error::other)?;
            return Ok(SecretFile {
                octets: Zeroizing::new(vec![b'x'; length]),
                mode: 0o600,
            });
        }
        let (octets, mode) = match path {
            "/good.psk" | "branch.psk" | "/etc/epochgate/branch.psk" => {
                (format!("{SECRET}\n"), 0o600)
            }
            "/good.ppk" | "/etc/epochgate/partner.ppk" => (format!("{SECRET}{SECRET}\n"), 0o600),
            "/good.password" | "/etc/epochgate/alice.password" => (format!("{SECRET}\n"), 0o600),
            "/crlf.psk" => (format!("{SECRET}\r\n"), 0o640),
            "/two-line-ends.psk" => (format!("{SECRET}\n\n"), 0o400),
            "/open.psk" => (format!("{SECRET}\n"), 0o644),
            "/open-and-short.psk" => ("short".to_owned(), 0o644),
            "/short.psk" => ("short".to_owned(), 0o600),
            "/long.psk" => ("x".repeat(1025), 0o600),
            "/locked.psk" => return Err(io::Error::from_raw_os_error(EACCES)),
            _ => return Err(io::Error::from_raw_os_error(ENOENT)),
        };
        Ok(SecretFile {
            octets: Zeroizing::new(octets.into_bytes()),
            mode,
        })
    }

    fn private_key(&self, path: &str) -> io::Result<SecretFile> {
        let (text, mode) = match path {
            "/gate.key" | "/etc/epochgate/gate.key" => (PKI.gate_key.clone(), 0o600),
            "/users" | "/etc/epochgate/users" => (
                format!("# staff\n\nalice:{SECRET}\nbob:{SECRET}:x\n"),
                0o600,
            ),
            "/open.users" => (format!("alice:{SECRET}\n"), 0o644),
            "/bad.users" => (format!("alice:{SECRET}\n{SECRET}\n"), 0o600),
            "/no.users" => ("# nobody\n".to_owned(), 0o600),
            "/open.key" => (PKI.gate_key.clone(), 0o644),
            "/other.key" => (PKI.other_key.clone(), 0o600),
            _ => return Err(io::Error::from_raw_os_error(ENOENT)),
        };
        Ok(SecretFile {
            octets: Zeroizing::new(text.into_bytes()),
            mode,
        })
    }

    fn certificates(&self, path: &str) -> io::Result<Vec<u8>> {
        let text = match path {
            "/gate.pem" | "/etc/epochgate/gate.pem" => PKI.gate.clone(),
            "/old.pem" => PKI.old.clone(),
            "/ca.pem" | "/etc/epochgate/ca.pem" => PKI.ca.clone(),
            "/etc/epochgate/ca.crl" => PKI.fresh_crl.clone(),
            "/stale.crl" => PKI.stale_crl.clone(),
            "/nonsense.pem" => "nonsense".to_owned(),
            _ => return Err(io::Error::from_raw_os_error(ENOENT)),
        };
        Ok(text.into_bytes())
    }

    fn pki(&self) -> &dyn Pki {
        &X509
    }

    fn now(&self) -> Option<UnixTime> {
        Some(NOW)
    }

    fn template(&self, _directory: &Path, name: &str) -> io::Result<Option<String>> {
        if name == "locked" {
            return Err(io::Error::from_raw_os_error(EACCES));
        }
        Ok(self.templates.get(name).map(|text| (*text).to_owned()))
    }

    fn template_names(&self, _directory: &Path) -> Vec<String> {
        self.templates
            .keys()
            .map(|name| (*name).to_owned())
            .collect()
    }
}

/// 2026-01-02.
const NOW: UnixTime = UnixTime(1_767_312_000);

/// An authority and what it issued.
struct MadePki {
    ca: String,
    gate: String,
    gate_key: String,
    other_key: String,
    /// The same key and names, expired.
    old: String,
    stale_crl: String,
    fresh_crl: String,
}

static PKI: LazyLock<MadePki> = LazyLock::new(|| make().expect("a PKI"));

fn make() -> Result<MadePki, rcgen::Error> {
    let subject = |name: &str| {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, "Test");
        subject.push(DnType::CommonName, name);
        subject
    };
    let mut ca = CertificateParams::default();
    ca.distinguished_name = subject("root");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let issue = |until: i32| {
        let mut gate = CertificateParams::default();
        gate.distinguished_name = subject("gate");
        gate.subject_alt_names = vec![SanType::DnsName("gate.example".try_into()?)];
        gate.not_before = date_time_ymd(2024, 1, 1);
        gate.not_after = date_time_ymd(until, 1, 1);
        Ok::<_, rcgen::Error>(gate.signed_by(&key, &issuer)?.pem())
    };
    let list = |until: i32| CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(MadePki {
        ca: ca_pem,
        gate: issue(2027)?,
        old: issue(2025)?,
        gate_key: key.serialize_pem(),
        other_key: KeyPair::generate()?.serialize_pem(),
        stale_crl: list(2026).signed_by(&issuer)?.pem()?,
        fresh_crl: list(2030).signed_by(&issuer)?.pem()?,
    })
}
