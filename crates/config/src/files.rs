//! What a configuration needs besides its own text.

use std::fmt;
use std::io;
use std::path::Path;

use epochgate_controller::pki::{Pki, UnixTime};
use zeroize::Zeroizing;

/// Reads the files that a configuration names.
pub trait Files {
    /// The secret in the file that `psk-file` names, as it is written there.
    ///
    /// # Errors
    /// As the system says: not found, permission denied, not a regular file.
    fn secret(&self, path: &str) -> io::Result<SecretFile>;

    /// The private key in the file that `key` names.
    ///
    /// # Errors
    /// As the system says.
    fn private_key(&self, path: &str) -> io::Result<SecretFile>;

    /// A file of certificates or revocation lists.
    ///
    /// # Errors
    /// As the system says.
    fn certificates(&self, path: &str) -> io::Result<Vec<u8>>;

    /// Who understands such files.
    fn pki(&self) -> &dyn Pki;

    /// The time at which certificates must be valid; `None`: that is not looked at, and they are
    /// judged when they are used.
    fn now(&self) -> Option<UnixTime>;

    /// The text of the policy template `name` in `directory`; `None` if there is no such file.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    fn template(&self, directory: &Path, name: &str) -> io::Result<Option<String>>;

    /// The names of the policy templates in `directory`, in any order. Only for messages.
    fn template_names(&self, directory: &Path) -> Vec<String>;
}

/// A secret and who may read it.
pub struct SecretFile {
    /// The file's octets.
    pub octets: Zeroizing<Vec<u8>>,
    /// Its permission bits (`st_mode & 07777`).
    pub mode: u32,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SecretFile({} octets, mode {:04o})",
            self.octets.len(),
            self.mode
        )
    }
}
