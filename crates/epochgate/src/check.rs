//! `epochgate check`: a configuration file without a daemon.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use epochgate_config::{Disk, load, read_text};
use epochgate_controller::pki::UnixTime;

use crate::failure::Failure;
use crate::terminal::Paint;

/// Tunnels that are named at most; of more only the number is of interest.
const NAMED_MAX: usize = 16;

/// The time at which certificates must be valid.
pub(crate) fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}

/// One line that says that all is well, or every mistake.
pub(crate) fn check(file: &Path, policies: Option<PathBuf>) -> Result<String, Failure> {
    let text = read_text(file)?;
    let disk = Disk {
        policies,
        now: Some(now()),
        ..Disk::beside(file)
    };
    let name = file.display().to_string();
    let loaded = load(&name, &text, &disk).map_err(|mistakes| {
        let shown = match Paint::for_stderr() {
            Paint::Coloured => mistakes.coloured(),
            Paint::Plain => mistakes.to_string(),
        };
        let count = match mistakes.count() {
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        Failure::Mistakes(format!("{shown}\n\n{name}: {count}"))
    })?;
    let tunnels = loaded.config.tunnels.iter();
    let names: Vec<_> = tunnels.map(|tunnel| tunnel.name.to_string()).collect();
    Ok(match names.as_slice() {
        [] => format!("{name}: no mistakes, and no tunnels\n"),
        [only] => format!("{name}: no mistakes; 1 tunnel: {only}\n"),
        many if many.len() > NAMED_MAX => format!(
            "{name}: no mistakes; {} tunnels: {} and {} more\n",
            many.len(),
            many[..NAMED_MAX].join(", "),
            many.len() - NAMED_MAX
        ),
        all => format!(
            "{name}: no mistakes; {} tunnels: {}\n",
            all.len(),
            all.join(", ")
        ),
    })
}
