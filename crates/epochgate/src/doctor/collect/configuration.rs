//! The configuration file, read as the daemon would, also by a user who may not read its secrets:
//! for those something else stands in, and it is remembered.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use epochgate_config::{Disk, Files, SecretFile, load, read_text};
use epochgate_controller::pki::{Pki, UnixTime};

use crate::doctor::facts::{Configuration, ConfigurationState};
use crate::failure::Failure;

/// Stands in for a secret that may not be read; it is used for nothing.
const STAND_IN: &[u8] = b"a stand-in for a secret that this user may not read";
/// Permission bits of a secret that is kept well.
const KEPT_WELL: u32 = 0o600;

/// Reads the file. `required`: it is an error if it can't be read.
///
/// # Errors
/// The file can't be read, or it has no tunnel of a name in `only`.
pub(crate) fn read(
    file: &Path,
    required: bool,
    policies: Option<PathBuf>,
    now: UnixTime,
    only: &[String],
) -> Result<Configuration, Failure> {
    let mut configuration = Configuration {
        file: file.display().to_string(),
        ..Configuration::default()
    };
    let text = match read_text(file) {
        Ok(text) => text,
        Err(error) if required || !only.is_empty() => return Err(error.into()),
        Err(error) => {
            if error.error.kind() != io::ErrorKind::NotFound {
                configuration.state = ConfigurationState::Unreadable(error.error.to_string());
            }
            return Ok(configuration);
        }
    };
    let files = Lenient {
        disk: Disk {
            policies,
            now: Some(now),
            ..Disk::beside(file)
        },
        unread: RefCell::default(),
    };
    match load(&configuration.file, &text, &files) {
        Ok(loaded) => {
            configuration.state = ConfigurationState::Good;
            configuration.tunnels = loaded.config.tunnels;
        }
        Err(mistakes) => {
            configuration.state = ConfigurationState::Mistaken(mistakes.to_string());
        }
    }
    configuration.unread_secrets = files.unread.into_inner();
    if let ConfigurationState::Good = configuration.state {
        for name in only {
            if !configuration.tunnels.iter().any(|t| *t.name.0 == **name) {
                return Err(Failure::Mistakes(format!(
                    "there is no tunnel {name} in {}",
                    configuration.file
                )));
            }
        }
        configuration
            .tunnels
            .retain(|tunnel| only.is_empty() || only.iter().any(|name| *tunnel.name.0 == **name));
    }
    Ok(configuration)
}

struct Lenient {
    disk: Disk,
    unread: RefCell<BTreeSet<String>>,
}

impl Files for Lenient {
    fn secret(&self, path: &str) -> io::Result<SecretFile> {
        match self.disk.secret(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.unread.borrow_mut().insert(path.to_owned());
                Ok(SecretFile {
                    octets: STAND_IN.to_vec().into(),
                    mode: KEPT_WELL,
                })
            }
            read => read,
        }
    }

    fn private_key(&self, path: &str) -> io::Result<SecretFile> {
        self.disk.private_key(path)
    }

    fn certificates(&self, path: &str) -> io::Result<Vec<u8>> {
        self.disk.certificates(path)
    }

    fn pki(&self) -> &dyn Pki {
        self.disk.pki()
    }

    fn now(&self) -> Option<UnixTime> {
        self.disk.now()
    }

    fn template(&self, directory: &Path, name: &str) -> io::Result<Option<String>> {
        self.disk.template(directory, name)
    }

    fn template_names(&self, directory: &Path) -> Vec<String> {
        self.disk.template_names(directory)
    }
}
