//! `epochgate-manual DIRECTORY`: writes man pages, shell completions and the file `copyright` there, for
//! the packages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use epochgate_manual::licences;

/// Writes the man pages and the shell completions of epochgate and epochgated.
#[derive(Debug, Parser)]
#[command(name = "epochgate-manual", version)]
struct Arguments {
    /// Where they go, below directories as they have under /usr/share; made if it is missing.
    directory: PathBuf,

    /// The output of `cargo metadata --format-version 1`: writes doc/epochgate/copyright too, with the
    /// licences of all that is linked.
    #[arg(long, value_name = "FILE", requires = "licence")]
    metadata: Option<PathBuf>,

    /// The file with our own MIT licence.
    #[arg(long, value_name = "FILE")]
    licence: Option<PathBuf>,
}

fn main() -> ExitCode {
    match write(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epochgate-manual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(arguments: &Arguments) -> io::Result<()> {
    let directory = &arguments.directory;
    epochgate_manual::write(directory)?;
    if let (Some(metadata), Some(licence)) = (&arguments.metadata, &arguments.licence) {
        write_copyright(directory, metadata, licence)?;
    }
    Ok(())
}

fn write_copyright(directory: &Path, metadata: &Path, licence: &Path) -> io::Result<()> {
    let own = fs::read_to_string(licence)?;
    let metadata = serde_json::from_slice(&fs::read(metadata)?)?;
    let folder = directory.join("doc/epochgate");
    fs::create_dir_all(&folder)?;
    let text = licences::copyright(&own, &metadata)?;
    fs::write(folder.join("copyright"), text)
}
