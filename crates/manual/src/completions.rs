//! Shell completions, named and placed as each shell looks for those of packages.

use clap::Command;
use clap_complete::{Shell, generate};

use crate::{command_line, daemon};

/// A file of completions.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Its shell.
    pub shell: Shell,
    /// The program whose arguments it completes.
    pub program: &'static str,
    /// Where it goes, below /usr/share.
    pub folder: &'static str,
    /// Its name.
    pub file: String,
    /// What it consists of.
    pub text: String,
}

/// The completions of both programs for bash, zsh and fish.
#[must_use]
pub fn all() -> Vec<Completion> {
    [("epochgate", command_line()), ("epochgated", daemon())]
        .into_iter()
        .flat_map(|(program, command)| {
            [
                (
                    Shell::Bash,
                    "bash-completion/completions",
                    program.to_owned(),
                ),
                (Shell::Zsh, "zsh/vendor-completions", format!("_{program}")),
                (
                    Shell::Fish,
                    "fish/vendor_completions.d",
                    format!("{program}.fish"),
                ),
            ]
            .map(|(shell, folder, file)| Completion {
                shell,
                program,
                folder,
                file,
                text: text(shell, program, command.clone()),
            })
        })
        .collect()
}

fn text(shell: Shell, program: &str, mut command: Command) -> String {
    let mut text = Vec::new();
    generate(shell, &mut command, program, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
