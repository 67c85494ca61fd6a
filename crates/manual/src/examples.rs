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
        "epochgate events",
        &[
            (
                "epochgate events --follow",
                "Tells what happens to the tunnels, as it happens.",
            ),
            (
                "epochgate events --since 10m --json",
                "Tells of the last ten minutes, for programs.",
            ),
        ],
    ),
    (
        "epochgate doctor",
        &[(
            "epochgate doctor",
            "Can a tunnel work on this machine, and if not, what is to be done? As root it sees more.",
        )],
    ),
    (
        "epochgate xfrm",
        &[(
            "epochgate xfrm state",
            "Lists all SAs in the kernel, whoever made them.",
        )],
    ),
    (
        "epochgate xfrm state",
        &[
            (
                "epochgate xfrm state --dst 203.0.113.1",
                "Lists the SAs to one peer, with the policies that lead to them.",
            ),
            (
                "epochgate xfrm state --wide --spi 0xc0ffee00",
                "Shows every attribute of one SA, but for its keys.",
            ),
        ],
    ),
    (
        "epochgate xfrm policy",
        &[(
            "epochgate xfrm policy --dir out",
            "Lists the policies for what leaves, with the SAs that they would use now.",
        )],
    ),
    (
        "epochgate xfrm stat",
        &[
            (
                "epochgate xfrm stat",
                "Explains the kernel's IPsec counters that are not zero.",
            ),
            (
                "epochgate xfrm stat --watch",
                "Shows which of them grow, and how fast, until Ctrl-C.",
            ),
        ],
    ),
    (
        "epochgate xfrm monitor",
        &[(
            "epochgate xfrm monitor --group sa,policy,expire",
            "Says what happens to SAs and policies, without making the kernel ask for SAs.",
        )],
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
