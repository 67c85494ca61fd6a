//! Reads `iptables-save` and `ip6tables-save` (iptables-save(8)).

use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::{Chains, Direction, Match, Ports, Rule, State, Verdict};
use super::{BaseChain, Hook, Tool};

/// Built-in chains: table, chain, hook and priority (kernel: `enum nf_ip_hook_priorities`).
const BUILT_IN: [(&str, &str, Hook, i64); 15] = [
    ("raw", "PREROUTING", Hook::Prerouting, -300),
    ("mangle", "PREROUTING", Hook::Prerouting, -150),
    ("nat", "PREROUTING", Hook::Prerouting, -100),
    ("mangle", "INPUT", Hook::Input, -150),
    ("filter", "INPUT", Hook::Input, 0),
    ("security", "INPUT", Hook::Input, 50),
    ("mangle", "FORWARD", Hook::Forward, -150),
    ("filter", "FORWARD", Hook::Forward, 0),
    ("security", "FORWARD", Hook::Forward, 50),
    ("raw", "OUTPUT", Hook::Output, -300),
    ("mangle", "OUTPUT", Hook::Output, -150),
    ("filter", "OUTPUT", Hook::Output, 0),
    ("security", "OUTPUT", Hook::Output, 50),
    ("mangle", "POSTROUTING", Hook::Postrouting, -150),
    ("nat", "POSTROUTING", Hook::Postrouting, 100),
];

/// The base chains of all tables. Lines that are not understood are passed over.
#[must_use]
pub fn read(text: &str, ipv6: bool) -> Vec<BaseChain> {
    let mut bases = Vec::new();
    let mut table = Table::default();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            bases.extend(std::mem::take(&mut table).into_bases(ipv6));
            table.name = name.trim().to_owned();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            if words.next() == Some("DROP") {
                table.dropping.push(name.clone());
            }
            table.chains.entry(name).or_default();
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let words = words(rule);
            if let Some((chain, options)) = words.split_first() {
                let rule = read_rule(options, line, &table.name, ipv6);
                table.chains.entry(chain.clone()).or_default().push(rule);
            }
        }
    }
    bases.extend(table.into_bases(ipv6));
    bases.sort_by_key(|chain| (chain.hook, chain.priority));
    bases
}

#[derive(Default)]
struct Table {
    name: String,
    chains: Chains,
    /// Chains whose policy is DROP.
    dropping: Vec<String>,
}

impl Table {
    fn into_bases(self, ipv6: bool) -> impl Iterator<Item = BaseChain> {
        BUILT_IN
            .into_iter()
            .filter(move |(table, ..)| *table == self.name)
            .filter_map(move |(table, name, hook, priority)| {
                self.chains.get(name)?;
                Some(BaseChain {
                    hook,
                    nat: table == "nat",
                    priority,
                    tool: Tool::Iptables {
                        program: program(ipv6),
                        table: table.to_owned(),
                    },
                    ipv6: Some(ipv6),
                    name: name.to_owned(),
                    drops: self.dropping.iter().any(|dropping| dropping == name),
                    device: None,
                    chains: self.chains.clone(),
                })
            })
    }
}

fn program(ipv6: bool) -> &'static str {
    if ipv6 { "ip6tables" } else { "iptables" }
}

fn read_rule(options: &[String], line: &str, table: &str, ipv6: bool) -> Rule {
    let mut matches = Vec::new();
    let mut verdict = Verdict::Continue;
    let mut policy = Policy::default();
    let mut negated = false;
    let mut words = options.iter().map(String::as_str);
    while let Some(word) = words.next() {
        // What is wanted of the word behind it; `None`: it is not understood.
        let mut value = |read: &dyn Fn(&str) -> Option<Match>| {
            words.next().and_then(read).unwrap_or(Match::Unknown)
        };
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-s" => matches.push(value(&|text| {
                let ranges = vec![network(text)?.into()];
                Some(Match::Source { negated, ranges })
            })),
            "-d" => matches.push(value(&|text| {
                let ranges = vec![network(text)?.into()];
                Some(Match::Destination { negated, ranges })
            })),
            "-i" | "-o" => matches.push(value(&|text| {
                Some(Match::Interface {
                    direction: if word == "-i" {
                        Direction::In
                    } else {
                        Direction::Out
                    },
                    negated,
                    names: vec![text.to_owned()],
                })
            })),
            "-p" => matches.push(value(&|text| {
                let protocols = vec![protocol(text)?];
                Some(Match::Protocol { negated, protocols })
            })),
            "--sport" | "--sports" => matches.push(value(&|text| {
                let ports = ports(text)?;
                Some(Match::SourcePort { negated, ports })
            })),
            "--dport" | "--dports" => matches.push(value(&|text| {
                let ports = ports(text)?;
                Some(Match::DestinationPort { negated, ports })
            })),
            "--ctstate" | "--state" => matches.push(value(&|text| {
                let states = text.split(',').map(state).collect();
                Some(Match::State { negated, states })
            })),
            "-m" | "--comment" | "--to-source" | "--to-destination" | "--to-ports"
            | "--reject-with" | "--log-prefix" | "--log-level" => {
                words.next();
            }
            "--dir" => {
                policy.direction = match words.next() {
                    Some("in") => Some(Direction::In),
                    Some("out") => Some(Direction::Out),
                    _ => None,
                }
            }
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
    Rule {
        matches,
        verdict,
        name: format!("{} -t {table} {line}", program(ipv6)),
    }
}

/// The `policy` match (iptables-extensions(8)).
#[derive(Default)]
struct Policy {
    direction: Option<Direction>,
    protected: Option<bool>,
    more: bool,
}

impl Policy {
    fn into_match(self) -> Option<Match> {
        let protected = self.protected?;
        Some(match self.direction {
            // One reqid, SPI or address of protected packets.
            _ if protected && self.more => Match::Unknown,
            Some(Direction::Out) => Match::Protected(protected),
            Some(Direction::In) => Match::Decrypted(protected),
            None => Match::Unknown,
        })
    }
}

fn target(name: &str) -> Verdict {
    match name {
        "MASQUERADE" | "SNAT" | "NETMAP" | "DNAT" | "REDIRECT" => Verdict::Rewrite,
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        // Targets that are no chains (LOG, MARK) call nothing.
        other => Verdict::Jump(other.to_owned()),
    }
}

/// The protocols that iptables-save prints by name, from /etc/protocols.
fn protocol(text: &str) -> Option<u8> {
    Some(match text {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "gre" => 47,
        "esp" | "ipv6-crypt" => 50,
        "ah" | "ipv6-auth" => 51,
        "ipv6-icmp" | "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        other => return other.parse().ok(),
    })
}

/// `500`, `500:600`, and several of them with commas between.
fn ports(text: &str) -> Option<Vec<Ports>> {
    text.split(',')
        .map(|part| match part.split_once(':') {
            Some((first, last)) => Some(first.parse().ok()?..=last.parse().ok()?),
            None => part.parse().ok().map(|port: u16| port..=port),
        })
        .collect()
}

fn state(name: &str) -> Option<State> {
    match name {
        "NEW" => Some(State::New),
        "ESTABLISHED" => Some(State::Established),
        _ => None,
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
    use super::super::{Fate, Packet};
    use super::*;

    fn offender(rules: &str) -> Option<String> {
        let saved = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n:SUB - [0:0]\n{rules}\nCOMMIT\n");
        let found = read(&saved, false);
        assert_eq!(found.len(), 1);
        found[0].rewriting(&Packet {
            to_protect: Some(true),
            ..Packet::between(
                "10.1.0.0/16".parse().expect("network"),
                "10.2.0.0/16".parse().expect("network"),
            )
        })
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

    fn input(rules: &str, protocol: u8, state: State) -> Fate {
        let saved = format!("*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n");
        let found = read(&saved, false);
        let [input, output] = found.as_slice() else {
            panic!("{found:?}");
        };
        let packet = Packet {
            protocol: Some(protocol),
            destination_port: (protocol == 17).then_some(4500),
            input: Some("eth0".to_owned()),
            state: Some(state),
            ..Packet::default()
        };
        assert_eq!(output.fate(&packet), Fate::Passes);
        input.fate(&packet)
    }

    #[test]
    fn ports_states_and_protocols_are_understood() {
        let dropped = Fate::Dropped("the policy of iptables -t filter, chain INPUT".to_owned());
        let states = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        assert_eq!(input(states, 50, State::New), dropped);
        assert_eq!(input(states, 50, State::Established), Fate::Passes);
        let ports = "-A INPUT -i eth+ -p udp -m multiport --dports 500,4500 -j ACCEPT";
        assert_eq!(input(ports, 17, State::New), Fate::Passes);
        assert_eq!(input(ports, 50, State::New), dropped);
        assert_eq!(
            input("-A INPUT -p esp -j ACCEPT", 50, State::New),
            Fate::Passes
        );
    }

    #[test]
    fn a_rule_that_rejects_is_named_and_a_match_that_is_not_known_makes_it_unclear() {
        let reject =
            "-A INPUT -p udp -m udp --dport 4500 -j REJECT --reject-with icmp-port-unreachable";
        let by = format!("iptables -t filter {reject}");
        assert_eq!(
            input(&format!("{reject}\n-A INPUT -j ACCEPT"), 17, State::New),
            Fate::Dropped(by.clone())
        );
        let doubt = "-A INPUT -m mark --mark 0x5 -j ACCEPT";
        assert_eq!(
            input(&format!("{doubt}\n{reject}"), 17, State::New),
            Fate::Unclear {
                by,
                doubt: format!("iptables -t filter {doubt}")
            }
        );
    }
}
