//! Reads `iptables-save -t nat` and `ip6tables-save -t nat` (iptables-save(8)).

use std::net::IpAddr;

use ipnet::IpNet;

use super::SourceNat;
use super::rules::{Chains, Match, Rule, Verdict};

/// The nat table's POSTROUTING chain, with what it calls.
pub(super) fn read(text: &str, ipv6: bool) -> SourceNat {
    let mut chains = Chains::new();
    for line in text.lines() {
        if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split_whitespace().next().unwrap_or_default();
            chains.entry(name.to_owned()).or_default();
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            if let Some((chain, options)) = words.split_first() {
                let rule = read_rule(options, line, ipv6);
                chains.entry(chain.clone()).or_default().push(rule);
            }
        }
    }
    SourceNat {
        chains,
        base: "POSTROUTING".to_owned(),
        ipv6: Some(ipv6),
        cure: "add `-m policy --dir out --pol none` to that rule",
    }
}

fn read_rule(options: &[String], line: &str, ipv6: bool) -> Rule {
    let mut matches = Vec::new();
    let mut verdict = Verdict::Continue;
    let mut policy = Policy::default();
    let mut negated = false;
    let mut words = options.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-s" | "-d" => {
                let ranges = words
                    .next()
                    .and_then(network)
                    .map(|network| vec![network.into()]);
                matches.push(match ranges {
                    Some(ranges) if word == "-s" => Match::Source { negated, ranges },
                    Some(ranges) => Match::Destination { negated, ranges },
                    None => Match::Unknown,
                });
            }
            "-o" => match (words.next(), negated) {
                (Some("lo"), false) => matches.push(Match::Never),
                (Some("lo"), true) => {}
                _ => matches.push(Match::Unknown),
            },
            "-m" | "--comment" | "--to-source" => {
                words.next();
            }
            "--dir" => policy.out = words.next() == Some("out"),
            "--pol" => policy.protected = words.next().map(|value| (value == "ipsec") != negated),
            "-j" => verdict = target(words.next().unwrap_or_default()),
            "-g" => verdict = Verdict::Goto(words.next().unwrap_or_default().to_owned()),
            option if option.starts_with('-') => {
                policy.more = policy.protected.is_some();
                matches.push(Match::Unknown);
            }
            // A value of an option that is not read.
            _ => {}
        }
        negated = false;
    }
    matches.extend(policy.into_match());
    let program = if ipv6 { "ip6tables" } else { "iptables" };
    Rule {
        matches,
        verdict,
        name: format!("{program} -t nat {line}"),
    }
}

/// The `policy` match (iptables-extensions(8)).
#[derive(Default)]
struct Policy {
    out: bool,
    protected: Option<bool>,
    more: bool,
}

impl Policy {
    fn into_match(self) -> Option<Match> {
        Some(match self.protected? {
            false if self.out => Match::Unprotected,
            true if self.out && !self.more => Match::Protected,
            _ => Match::Unknown,
        })
    }
}

fn target(name: &str) -> Verdict {
    match name {
        "MASQUERADE" | "SNAT" | "NETMAP" => Verdict::Rewrite,
        "ACCEPT" | "DROP" => Verdict::Stop,
        "RETURN" => Verdict::Return,
        // Targets that are no chains (LOG, MARK) call nothing.
        other => Verdict::Jump(other.to_owned()),
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Words, where quotes hold several together (a comment).
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Traffic, rewriting};
    use super::*;

    fn offender(rules: &str) -> Option<String> {
        let saved = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n:SUB - [0:0]\n{rules}\nCOMMIT\n");
        let found = read(&saved, false);
        let traffic = Traffic {
            source: "10.1.0.0/16".parse().expect("network"),
            destination: "10.2.0.0/16".parse().expect("network"),
        };
        rewriting(&found.chains, &found.base, traffic).map(|rule| rule.name.clone())
    }

    #[test]
    fn a_masquerade_is_found_and_named_as_it_was_written() {
        let rule = "-A POSTROUTING -s 10.1.0.0/16 -o eth0 -m comment --comment \"to \\\"net\\\"\" -j SNAT --to-source 1.2.3.4";
        assert_eq!(offender(rule), Some(format!("iptables -t nat {rule}")));
    }

    #[test]
    fn the_policy_match_excludes_protected_traffic() {
        assert_eq!(
            offender(
                "-A POSTROUTING -s 10.1.0.0/16 ! -o lo -m policy --dir out --pol none -j MASQUERADE"
            ),
            None
        );
        assert_eq!(
            offender(
                "-A POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT\n-A POSTROUTING -j MASQUERADE"
            ),
            None
        );
    }

    #[test]
    fn an_exemption_of_one_reqid_alone_does_not() {
        let rules = "-A POSTROUTING -m policy --dir out --pol ipsec --reqid 1 -j ACCEPT\n-A POSTROUTING -j MASQUERADE";
        assert!(offender(rules).is_some());
    }

    #[test]
    fn negated_networks_and_jumps_are_understood() {
        assert_eq!(
            offender("-A POSTROUTING ! -d 10.0.0.0/8 -j MASQUERADE"),
            None
        );
        assert!(offender("-A POSTROUTING -j SUB\n-A SUB -j MASQUERADE").is_some());
        assert_eq!(
            offender(
                "-A POSTROUTING -j SUB\n-A SUB -s 10.1.0.0/16 -j ACCEPT\n-A POSTROUTING -j MASQUERADE"
            ),
            None
        );
    }

    #[test]
    fn noise_is_no_rule() {
        assert_eq!(offender("-A \n-A POSTROUTING -s\n\"\\"), None);
    }
}
