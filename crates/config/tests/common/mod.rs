//! Files in memory for the tests.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use epochgate_config::{Files, SecretFile};
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
        let (octets, mode) = match path {
            "/good.psk" | "/etc/epochgate/branch.psk" => (format!("{SECRET}\n"), 0o600),
            "/crlf.psk" => (format!("{SECRET}\r\n"), 0o640),
            "/two-line-ends.psk" => (format!("{SECRET}\n\n"), 0o400),
            "/open.psk" => (format!("{SECRET}\n"), 0o644),
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
