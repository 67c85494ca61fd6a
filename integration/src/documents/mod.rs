//! The documents of this repository as tests read them: what their blocks say to type, and what
//! comes of it.
//!
//! A fenced block says behind its language what it is:
//!
//! | block | is |
//! |---|---|
//! | `console SCENARIO [HOST] [exit=N] [stop=SECONDS]` | commands after `$ `, each with what it prints, on a host (`branch` unless named) of a [`stage`] prepared for the scenario; each must end with that status (0), or is interrupted after that time |
//! | `LANGUAGE SCENARIO HOST PATH` | a file of that host, written before the commands that follow |
//! | `LANGUAGE [NAME]` | an example that other tests look at |
//!
//! Blocks of one scenario in one document are one story: they run one after the other in one world.
//! Output is compared without its numbers ([`blanks`]); a line `…` stands for any lines. Where a block
//! shows no output of a command, that is not compared.

pub mod blanks;
pub mod page;
pub mod stage;

pub use page::{Block, Command, Document, Kind};
pub use stage::{Scenario, Stage};

/// Commands that no stage runs, and why. What begins with one of these is only read: by `bash -n`,
/// and that the script is there.
pub const NOT_RUN: [(&str, &str); 3] = [
    (
        "scripts/",
        "makes a lab of its own, and a stage is inside one; scripts/test runs what they are made of",
    ),
    (
        "apt install ",
        "the packages are installed in a root of their own by the test of packages",
    ),
    (
        "dnf install ",
        "the packages are installed in a root of their own by the test of packages",
    ),
];

/// Why a command is not run, if it is not.
pub fn not_run(command: &str) -> Option<&'static str> {
    let mut all = NOT_RUN.iter();
    all.find(|(begin, _)| command.starts_with(begin))
        .map(|(_, why)| *why)
}
