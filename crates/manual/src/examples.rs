//! Examples for man pages: from the text behind a command's help, where it has some, else from here.

use clap::Command;

use crate::help::{self, Block, Entry};

/// Lines to be typed, by the command that they are examples of, and what each does.
pub const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "epochgate",
        &[
            (
                "epochgate status",
                "Does traffic pass, and if not, why, and what is to be done?",
            ),
            (
                "epochgate check /etc/epochgate/epochgate.toml",
                "Are there mistakes in the configuration?",
            ),
        ],
    ),
    (
        "epochgate up",
        &[(
            "epochgate up branch --timeout 1m",
            "Starts the tunnel [tunnel.branch], and waits at most a minute until its traffic passes.",
        )],
    ),
    (
        "epochgate down",
        &[(
            "epochgate down branch",
            "Ends the tunnel. Its traffic leaves unprotected from then on.",
        )],
    ),
    (
        "epochgate rekey",
        &[
            (
                "epochgate rekey branch",
                "Negotiates new keys for the traffic, and waits until it uses them.",
            ),
            (
                "epochgate rekey branch --reauthenticate",
                "Makes a new IKE SA, for which both ends prove their identities anew.",
            ),
        ],
    ),
    (
        "epochgate reload",
        &[(
            "epochgate reload",
            "Brings what was changed in the configuration into force; tunnels that did not change go \
             on.",
        )],
    ),
    (
        "epochgate status",
        &[
            ("epochgate status branch", "Tells of one tunnel."),
            (
                "epochgate status --json",
                "Tells of all tunnels, for programs.",
            ),
        ],
    ),
    (
        "epochgate check",
        &[
            (
                "epochgate check",
                "Looks through the installed configuration.",
            ),
            (
                "epochgate check new.toml --policies xfrm-policies",
                "Looks through another one, with policy templates from another directory.",
            ),
        ],
    ),
    (
        "epochgated",
        &[
            (
                "epochgated --check",
                "Says what is wrong with the configuration, as the daemon understands it.",
            ),
            (
                "epochgated --config ./epochgate.toml --state /run/try --socket /run/try/socket",
                "Runs in the foreground with another configuration, beside nothing else of epochgate \
                 in this network namespace.",
            ),
            (
                "epochgated --remove-leftovers",
                "Takes away what a daemon that does not run any more has left. Traffic that is held \
                 leaves unprotected then.",
            ),
        ],
    ),
];

/// The examples of a command whose definition is built.
#[must_use]
pub fn of(command: &Command, blocks: &[Block]) -> Vec<Entry> {
    let stated = blocks
        .iter()
        .find(|block| block.title.to_lowercase() == help::EXAMPLES);
    if let Some(block) = stated {
        return block.entries.clone();
    }
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let listed = EXAMPLES.iter().find(|(of, _)| *of == name);
    let entry = |(line, text): &(&str, &str)| Entry {
        term: (*line).to_owned(),
        text: (*text).to_owned(),
    };
    listed
        .map(|(_, lines)| lines.iter().map(entry).collect())
        .unwrap_or_default()
}
