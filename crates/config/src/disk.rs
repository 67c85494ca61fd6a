//! The files of this host, for the daemon and the command line. The one impure part, behind the
//! feature `disk`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use epochgate_controller::pki::{Pki, UnixTime};
use epochgate_pki::X509;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::{Files, SecretFile};
use crate::keys::{FILE_LEN_MAX, PSK_LEN_MAX};

/// Octets of a line end behind a secret (CR LF), and one that shows that it is too long.
const PSK_EXTRA: usize = 3;
/// Octets of a file with a private key at most.
const KEY_LEN_MAX: usize = 64 << 10;
/// Octets of a file with certificates or revocation lists at most.
const CERTIFICATES_LEN_MAX: usize = 16 << 20;
/// Octets of a policy template at most.
const TEMPLATE_LEN_MAX: usize = 64 << 10;
/// Names of templates that are listed at most.
const TEMPLATES_LISTED_MAX: usize = 64;

/// Reads from this host's file system. A relative `psk-file` is looked for beside the
/// configuration file.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Directory of the configuration file.
    pub base: PathBuf,
    /// Directory of policy templates instead of the configuration's.
    pub policies: Option<PathBuf>,
    /// The time at which certificates must be valid; `None`: that is not looked at.
    pub now: Option<UnixTime>,
}

impl Disk {
    /// For the configuration file at `config`.
    #[must_use]
    pub fn beside(config: &Path) -> Self {
        Self {
            base: config.parent().map(Path::to_owned).unwrap_or_default(),
            policies: None,
            now: None,
        }
    }

    fn policies<'d>(&'d self, configured: &'d Path) -> &'d Path {
        self.policies.as_deref().unwrap_or(configured)
    }
}

impl Files for Disk {
    fn secret(&self, path: &str) -> io::Result<SecretFile> {
        let (file, mode) = open_regular(&self.base.join(path))?;
        let most = PSK_LEN_MAX + PSK_EXTRA;
        // All at once, so that no shorter copy stays behind when the vector grows.
        let mut octets = Zeroizing::new(Vec::with_capacity(most));
        file.take(most as u64).read_to_end(&mut octets)?;
        Ok(SecretFile { octets, mode })
    }

    fn private_key(&self, path: &str) -> io::Result<SecretFile> {
        let (file, mode) = open_regular(&self.base.join(path))?;
        let octets = read_octets(file, KEY_LEN_MAX)?;
        Ok(SecretFile { octets, mode })
    }

    fn certificates(&self, path: &str) -> io::Result<Vec<u8>> {
        let (file, _) = open_regular(&self.base.join(path))?;
        read_octets(file, CERTIFICATES_LEN_MAX).map(|octets| octets.to_vec())
    }

    fn pki(&self) -> &dyn Pki {
        &X509
    }

    fn now(&self) -> Option<UnixTime> {
        self.now
    }

    fn template(&self, directory: &Path, name: &str) -> io::Result<Option<String>> {
        let path = self.policies(directory).join(format!("{name}.toml"));
        match open_regular(&path) {
            Ok((file, _)) => read_limited(file, TEMPLATE_LEN_MAX).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn template_names(&self, directory: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.policies(directory)) else {
            return Vec::new();
        };
        entries
            .take(TEMPLATES_LISTED_MAX)
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_suffix(".toml").map(str::to_owned)
            })
            .collect()
    }
}

/// Why a configuration file could not be read.
#[derive(Debug, Error)]
#[error("can't read {}: {error}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the system says.
    pub error: io::Error,
}

/// The text of the configuration file at `path`.
///
/// # Errors
/// [`ReadError`]: not there, no permission, too long, or not UTF-8.
pub fn read_text(path: &Path) -> Result<String, ReadError> {
    open_regular(path)
        .and_then(|(file, _)| read_limited(file, FILE_LEN_MAX))
        .map_err(|error| ReadError {
            path: path.to_owned(),
            error,
        })
}

/// Opens a regular file (not a device or FIFO, which could go on for ever) and tells its
/// permission bits.
fn open_regular(path: &Path) -> io::Result<(File, u32)> {
    /// Permission bits of `st_mode`.
    const PERMISSIONS: u32 = 0o7777;
    // Opening a FIFO must not wait for a writer.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((file, metadata.mode() & PERMISSIONS));
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not a regular file",
    ))
}

/// The octets of a file, which are wiped when they are dropped; no copy of them stays behind while
/// the vector grows.
fn read_octets(file: File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let claimed = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let too_long = || {
        let text = format!("longer than {most} octets");
        io::Error::new(io::ErrorKind::FileTooLarge, text)
    };
    if claimed > most {
        return Err(too_long());
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(claimed + 1));
    let limit = u64::try_from(claimed).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut octets)?;
    Ok(octets)
}

fn read_limited(file: File, most: usize) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1))
        .read_to_string(&mut text)?;
    if text.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("longer than {most} octets"),
        ));
    }
    Ok(text)
}
