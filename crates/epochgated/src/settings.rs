//! The configuration file, with what the command line overrides.

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
    arguments: Arguments,
    /// Settings of the process; those of its start stay until its end.
    pub daemon: DaemonSettings,
}

impl Settings {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn load(arguments: &Arguments) -> Result<(Self, Config), SettingsError> {
        let (daemon, config) = read(arguments)?;
        let arguments = arguments.clone();
        Ok((Self { arguments, daemon }, config))
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// [`SettingsError`]; what is in force stays.
    pub fn reload(&self) -> Result<(DaemonSettings, Config), SettingsError> {
        read(&self.arguments)
    }
}

fn read(arguments: &Arguments) -> Result<(DaemonSettings, Config), SettingsError> {
    let text = epochgate_config::read_text(&arguments.config)?;
    let mut disk = Disk::beside(&arguments.config);
    disk.policies.clone_from(&arguments.policies);
    let name = arguments.config.display().to_string();
    let Loaded { config, mut daemon } =
        epochgate_config::load(&name, &text, &disk).map_err(SettingsError::Wrong)?;
    if let Some(state) = &arguments.state {
        daemon.state_dir.clone_from(state);
    }
    if let Some(socket) = &arguments.socket {
        daemon.socket.clone_from(socket);
    }
    Ok((daemon, config))
}
