//! The configuration file, with what the command line overrides.

use std::path::PathBuf;

use epochgate_config::{DaemonSettings, Diagnostics, Disk, Loaded, ReadError};
use epochgate_controller::config::Config;
use thiserror::Error;

use crate::cli::Arguments;

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file has mistakes; each is shown with its place.
    #[error("{0}")]
    Wrong(Diagnostics),
}

/// Where the daemon's things are, and how its configuration is read again.
#[derive(Clone, Debug)]
pub struct Settings {
    file: PathBuf,
    policies: Option<PathBuf>,
    /// Settings of the process; those of its start stay until its end.
    pub daemon: DaemonSettings,
}

impl Settings {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn load(arguments: &Arguments) -> Result<(Self, Config), SettingsError> {
        let mut settings = Self {
            file: arguments.config.clone(),
            policies: arguments.policies.clone(),
            daemon: DaemonSettings::default(),
        };
        let Loaded { config, mut daemon } = settings.read()?;
        if let Some(state) = &arguments.state {
            daemon.state_dir.clone_from(state);
        }
        if let Some(socket) = &arguments.socket {
            daemon.socket.clone_from(socket);
        }
        settings.daemon = daemon;
        Ok((settings, config))
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// [`SettingsError`]; what is in force stays.
    pub fn reload(&self) -> Result<Config, SettingsError> {
        Ok(self.read()?.config)
    }

    fn read(&self) -> Result<Loaded, SettingsError> {
        let text = epochgate_config::read_text(&self.file)?;
        let mut disk = Disk::beside(&self.file);
        disk.policies.clone_from(&self.policies);
        let name = self.file.display().to_string();
        epochgate_config::load(&name, &text, &disk).map_err(SettingsError::Wrong)
    }
}
