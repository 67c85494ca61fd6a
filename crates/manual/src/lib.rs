//! Man pages and shell completions, made from what the programs themselves say of their command
//! lines: a command that is added there has its page here.
//!
//! `clap` definitions of `epochgate` and `epochgated` → [`pages`] (one for each command, with what
//! clap does not know from [`sections`] and [`examples`]) and [`completions`] → files as packages
//! install them.

pub mod completions;
pub mod examples;
mod help;
pub mod licences;
mod page;
pub mod sections;

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};

pub use page::Page;

/// General commands, in the manual.
pub const USER_COMMANDS: u8 = 1;
/// Forms of files.
pub const FILE_FORMATS: u8 = 5;
/// Commands of the administrator.
pub const ADMINISTRATOR_COMMANDS: u8 = 8;

/// The definition of `epochgate`'s command line.
#[must_use]
pub fn command_line() -> Command {
    built(epochgate::cli::Arguments::command())
}

/// The definition of `epochgated`'s command line.
#[must_use]
pub fn daemon() -> Command {
    built(epochgated::cli::Arguments::command())
}

/// With the commands below it named in full, and without the `help` command, which has no page.
fn built(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// All man pages: `epochgate` and each command below it, `epochgated`, and the configuration file,
/// whose page the reader of configurations writes.
#[must_use]
pub fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    add_pages(&command_line(), USER_COMMANDS, &mut pages);
    add_pages(&daemon(), ADMINISTRATOR_COMMANDS, &mut pages);
    pages.push(Page {
        name: "epochgate.toml".to_owned(),
        section: FILE_FORMATS,
        text: epochgate_config::reference::roff(),
    });
    pages
}

fn add_pages(command: &Command, section: u8, pages: &mut Vec<Page>) {
    pages.push(Page::of(command, section));
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        add_pages(below, section, pages);
    }
}

/// Writes `man/manN/…`, and the completions where each shell looks for those of packages
/// (`bash-completion/completions`, `zsh/vendor-completions`, `fish/vendor_completions.d`), below
/// `directory`.
///
/// # Errors
/// Those of the file system.
pub fn write(directory: &Path) -> io::Result<()> {
    for page in pages() {
        let folder = directory.join(format!("man/man{}", page.section));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(page.file_name()), &page.text)?;
    }
    for completion in completions::all() {
        let folder = directory.join(completion.folder);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(completion.file), &completion.text)?;
    }
    Ok(())
}
