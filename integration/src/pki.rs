//! Certificates of a test: an authority, and an end-entity certificate for each end, made with
//! `openssl` when the test runs.

use crate::peer::{CLIENT_ID, SERVER_ID};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What kind of keys certificates are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with 2048 bits.
    Rsa,
    /// ECDSA on the curve P-256.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

/// An authority and what it has certified, in files.
#[derive(Debug, Clone)]
pub struct Pki {
    folder: PathBuf,
}

/// One certificate of a [`Pki`], with its key.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PKCS #8 in PEM, for its owner alone.
    pub key: PathBuf,
    /// Both and no password, PKCS #12, under the friendly name `own`.
    pub pkcs12: PathBuf,
}

impl Pki {
    /// Makes the authority and certificates for [`CLIENT_ID`] and [`SERVER_ID`] in a new folder.
    #[track_caller]
    pub fn new(folder: &Path, kind: KeyKind) -> Self {
        fs::create_dir_all(folder).expect("its folder");
        let pki = Self {
            folder: folder.to_owned(),
        };
        let mut authority = vec!["req", "-x509", "-noenc", "-days", "30"];
        authority.extend(kind.options());
        authority.extend(["-subj", "/O=Tests/CN=Authority"]);
        authority.extend(["-keyout", "ca.key", "-out", "ca.pem"]);
        authority.extend(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        pki.openssl(&authority);
        for id in [CLIENT_ID, SERVER_ID] {
            pki.certify(id, kind);
        }
        pki
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The certificate of a host name.
    pub fn of(&self, id: &str) -> Certified {
        let file = |end: &str| self.folder.join(format!("{id}.{end}"));
        Certified {
            certificate: file("pem"),
            key: file("key"),
            pkcs12: file("p12"),
        }
    }

    fn certify(&self, id: &str, kind: KeyKind) {
        let [key, request, pem, p12, extensions] =
            ["key", "csr", "pem", "p12", "ext"].map(|end| format!("{id}.{end}"));
        let text = format!(
            "subjectAltName = DNS:{id}\n\
             basicConstraints = CA:FALSE\n\
             keyUsage = critical,digitalSignature\n\
             extendedKeyUsage = serverAuth,clientAuth\n"
        );
        fs::write(self.folder.join(&extensions), text).expect("its folder");
        let subject = format!("/O=Tests/CN={id}");
        let mut ask = vec!["req", "-new", "-noenc"];
        ask.extend(kind.options());
        ask.extend(["-subj", &subject, "-keyout", &key, "-out", &request]);
        self.openssl(&ask);
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            &request,
            "-extfile",
            &extensions,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-out",
            &pem,
        ]);
        self.openssl(&[
            "pkcs12", "-export", "-name", "own", "-passout", "pass:", "-inkey", &key, "-in", &pem,
            "-out", &p12,
        ]);
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
    }
}

impl KeyKind {
    fn options(self) -> Vec<&'static str> {
        match self {
            Self::Rsa => vec!["-newkey", "rsa:2048"],
            Self::Ecdsa => vec!["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Ed25519 => vec!["-newkey", "ed25519"],
        }
    }
}
