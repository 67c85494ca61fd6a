//! `net.core.xfrm_larval_drop`, the one kernel setting that holding needs.
//!
//! With 1, the kernel's default, packets that meet a policy whose SA is missing are dropped; with 0
//! it queues them (`xfrm_lookup_with_ifid`). It is set before the first policy, per network
//! namespace. What it was before is recorded in the state directory, so that a crash does not lose
//! it, and restored at exit unless somebody else has changed it meanwhile. Restoring is safe with
//! hold policies left behind (`on-stop = "block"`): they then drop instead of queueing, and block
//! either way.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

const SETTING: &str = "/proc/sys/net/core/xfrm_larval_drop";
/// Name of the record in the state directory.
const RECORD: &str = "xfrm_larval_drop.before";
/// Queue, do not drop.
const QUEUE: &str = "0";

/// Why the setting could not be changed.
#[derive(Debug, Error)]
#[error("cannot {action} {path}: {source}", path = path.display())]
pub struct SettingError {
    /// `read` or `write`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The changed setting.
#[derive(Debug)]
pub struct LarvalDrop {
    setting: PathBuf,
    record: PathBuf,
}

impl LarvalDrop {
    /// Makes the kernel queue, and records what it did before.
    ///
    /// # Errors
    /// [`SettingError`]: no XFRM in the kernel, or the file is read-only.
    pub fn queue_packets(state_directory: &Path) -> Result<Self, SettingError> {
        Self::change(Path::new(SETTING), state_directory)
    }

    /// What an earlier run has recorded in this directory, if it could not put it back itself.
    #[must_use]
    pub fn of_earlier_run(state_directory: &Path) -> Self {
        Self {
            setting: SETTING.into(),
            record: state_directory.join(RECORD),
        }
    }

    fn change(setting: &Path, state_directory: &Path) -> Result<Self, SettingError> {
        let record = state_directory.join(RECORD);
        let before = read(setting)?;
        if before != QUEUE {
            write(&record, &before)?;
            write(setting, QUEUE)?;
        }
        Ok(Self {
            setting: setting.to_owned(),
            record,
        })
    }

    /// Puts back what was there, if it is still as we left it.
    ///
    /// # Errors
    /// [`SettingError`]; the record then stays for the next run.
    pub fn restore(self) -> Result<(), SettingError> {
        let before = match std::fs::read_to_string(&self.record) {
            Ok(before) => before,
            // It was 0 before us: there is nothing to restore.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(SettingError {
                    action: "read",
                    path: self.record,
                    source,
                });
            }
        };
        if read(&self.setting)? == QUEUE {
            write(&self.setting, before.trim())?;
        }
        std::fs::remove_file(&self.record).map_err(|source| SettingError {
            action: "remove",
            path: self.record,
            source,
        })
    }
}

fn read(path: &Path) -> Result<String, SettingError> {
    match std::fs::read_to_string(path) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(source) => Err(SettingError {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(path: &Path, value: &str) -> Result<(), SettingError> {
    std::fs::write(path, value).map_err(|source| SettingError {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(value: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("directory");
        let setting = directory.path().join("larval_drop");
        std::fs::write(&setting, format!("{value}\n")).expect("write");
        (directory, setting)
    }

    fn value(setting: &Path) -> String {
        read(setting).expect("read")
    }

    #[test]
    fn the_setting_is_restored_at_exit() {
        let (directory, setting) = setting("1");
        let changed = LarvalDrop::change(&setting, directory.path()).expect("change");
        assert_eq!(value(&setting), "0");
        changed.restore().expect("restore");
        assert_eq!(value(&setting), "1");
        assert!(!directory.path().join(RECORD).exists());
    }

    #[test]
    fn the_run_after_a_crash_restores_what_the_first_run_found() {
        let (directory, setting) = setting("1");
        let crashed = LarvalDrop::change(&setting, directory.path()).expect("change");
        drop(crashed);
        let second = LarvalDrop::change(&setting, directory.path()).expect("change");
        second.restore().expect("restore");
        assert_eq!(value(&setting), "1");
    }

    #[test]
    fn what_somebody_else_has_set_meanwhile_stays() {
        let (directory, setting) = setting("1");
        let changed = LarvalDrop::change(&setting, directory.path()).expect("change");
        std::fs::write(&setting, "2").expect("write");
        changed.restore().expect("restore");
        assert_eq!(value(&setting), "2");
    }

    #[test]
    fn a_setting_that_was_right_already_is_left_alone() {
        let (directory, setting) = setting("0");
        let changed = LarvalDrop::change(&setting, directory.path()).expect("change");
        changed.restore().expect("restore");
        assert_eq!(value(&setting), "0");
    }
}
