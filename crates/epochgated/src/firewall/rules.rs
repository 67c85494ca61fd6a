//! Source NAT rules, as much of them as decides whether they rewrite a tunnel's traffic.
//!
//! The readers ([`super::nft`], [`super::iptables`]) translate; here it is decided, in the order in
//! which the kernel visits the rules. What a reader does not understand is taken as "may match".

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Jumps that are followed; the kernel's own limit is 16 (`NFT_JUMP_STACK_SIZE`).
const JUMPS_MAX: usize = 16;

/// Traffic of a tunnel on its way out: from a local selector to a remote one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) source: IpNet,
    pub(super) destination: IpNet,
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

impl From<IpNet> for Range {
    fn from(network: IpNet) -> Self {
        Self {
            first: network.network(),
            last: network.broadcast(),
        }
    }
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The source address is (or is not) in one of these.
    Source { negated: bool, ranges: Vec<Range> },
    /// The destination address is (or is not) in one of these.
    Destination { negated: bool, ranges: Vec<Range> },
    /// Only packets that IPsec will not protect: `rt ipsec missing`, `--pol none`.
    Unprotected,
    /// Only packets that IPsec will protect: `rt ipsec exists`, `--pol ipsec`.
    Protected,
    /// Only IPv6 (true) or only IPv4 (false).
    Ipv6(bool),
    /// Never a packet that leaves the host.
    Never,
    /// Something else.
    Unknown,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Rewrites the source address.
    Rewrite,
    /// Ends the chain's whole visit: accept, drop.
    Stop,
    /// Goes back to where the chain was called from.
    Return,
    /// Visits another chain and comes back.
    Jump(String),
    /// Visits another chain and does not come back.
    Goto(String),
    /// Goes on with the next rule.
    Continue,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
    /// How an operator finds it.
    pub(super) name: String,
}

/// The chains of one table, by name.
pub(super) type Chains = HashMap<String, Vec<Rule>>;

/// Whether a condition holds for the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Never,
    Maybe,
    Always,
}

/// How the visit of a chain ended.
enum Visit<'a> {
    Rewritten(&'a Rule),
    Stopped,
    FellThrough,
}

/// The first rule that may rewrite the traffic, beginning at the chain `base`.
pub(super) fn rewriting<'a>(chains: &'a Chains, base: &str, traffic: Traffic) -> Option<&'a Rule> {
    match visit(chains, base, traffic, JUMPS_MAX) {
        Visit::Rewritten(rule) => Some(rule),
        Visit::Stopped | Visit::FellThrough => None,
    }
}

fn visit<'a>(chains: &'a Chains, name: &str, traffic: Traffic, jumps: usize) -> Visit<'a> {
    let (Some(rules), Some(jumps)) = (chains.get(name), jumps.checked_sub(1)) else {
        return Visit::FellThrough;
    };
    for rule in rules {
        let fit = rule
            .matches
            .iter()
            .map(|condition| fit(condition, traffic))
            .min()
            .unwrap_or(Fit::Always);
        if fit == Fit::Never {
            continue;
        }
        let always = fit == Fit::Always;
        match &rule.verdict {
            Verdict::Rewrite => return Visit::Rewritten(rule),
            Verdict::Stop if always => return Visit::Stopped,
            Verdict::Return if always => return Visit::FellThrough,
            Verdict::Stop | Verdict::Return | Verdict::Continue => {}
            Verdict::Jump(target) | Verdict::Goto(target) => {
                match visit(chains, target, traffic, jumps) {
                    Visit::Rewritten(rule) => return Visit::Rewritten(rule),
                    Visit::Stopped if always => return Visit::Stopped,
                    Visit::FellThrough if always && matches!(rule.verdict, Verdict::Goto(_)) => {
                        return Visit::FellThrough;
                    }
                    Visit::Stopped | Visit::FellThrough => {}
                }
            }
        }
    }
    Visit::FellThrough
}

fn fit(condition: &Match, traffic: Traffic) -> Fit {
    match condition {
        Match::Source { negated, ranges } => address_fit(traffic.source, *negated, ranges),
        Match::Destination { negated, ranges } => {
            address_fit(traffic.destination, *negated, ranges)
        }
        Match::Unprotected | Match::Never => Fit::Never,
        Match::Protected => Fit::Always,
        Match::Ipv6(ipv6) if *ipv6 == traffic.source.addr().is_ipv6() => Fit::Always,
        Match::Ipv6(_) => Fit::Never,
        Match::Unknown => Fit::Maybe,
    }
}

fn address_fit(network: IpNet, negated: bool, ranges: &[Range]) -> Fit {
    let wanted = Range::from(network);
    let covered = ranges.iter().any(|range| {
        same_family(range, &wanted) && range.first <= wanted.first && wanted.last <= range.last
    });
    let touched = ranges.iter().any(|range| {
        same_family(range, &wanted) && range.first <= wanted.last && wanted.first <= range.last
    });
    match (covered, touched, negated) {
        (true, _, false) | (_, false, true) => Fit::Always,
        (true, _, true) | (_, false, false) => Fit::Never,
        (false, true, _) => Fit::Maybe,
    }
}

fn same_family(left: &Range, right: &Range) -> bool {
    left.first.is_ipv4() == right.first.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        Traffic {
            source: "10.1.0.0/16".parse().expect("network"),
            destination: "10.2.0.0/16".parse().expect("network"),
        }
    }

    fn ranges(network: &str) -> Vec<Range> {
        vec![network.parse::<IpNet>().expect("network").into()]
    }

    fn from(network: &str) -> Match {
        Match::Source {
            negated: false,
            ranges: ranges(network),
        }
    }

    fn not_to(network: &str) -> Match {
        Match::Destination {
            negated: true,
            ranges: ranges(network),
        }
    }

    fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
        Rule {
            matches,
            verdict,
            name: String::new(),
        }
    }

    fn rewrites(rules: Vec<Rule>) -> bool {
        let chains = HashMap::from([
            ("base".to_owned(), rules),
            ("sub".to_owned(), vec![rule(Vec::new(), Verdict::Rewrite)]),
        ]);
        rewriting(&chains, "base", traffic()).is_some()
    }

    #[test]
    fn a_bare_masquerade_rewrites() {
        assert!(rewrites(vec![rule(vec![Match::Unknown], Verdict::Rewrite)]));
    }

    #[test]
    fn a_masquerade_of_other_networks_does_not() {
        assert!(!rewrites(vec![rule(
            vec![from("10.9.0.0/16")],
            Verdict::Rewrite
        )]));
        assert!(!rewrites(vec![rule(
            vec![not_to("10.2.0.0/15")],
            Verdict::Rewrite
        )]));
    }

    #[test]
    fn a_masquerade_of_a_part_of_the_network_does() {
        assert!(rewrites(vec![rule(
            vec![from("10.1.7.0/24")],
            Verdict::Rewrite
        )]));
        assert!(rewrites(vec![rule(
            vec![not_to("10.2.7.0/24")],
            Verdict::Rewrite
        )]));
    }

    #[test]
    fn one_for_unprotected_packets_alone_does_not() {
        assert!(!rewrites(vec![rule(
            vec![Match::Unprotected],
            Verdict::Rewrite
        )]));
    }

    #[test]
    fn an_exemption_before_it_counts_if_it_covers_everything() {
        let masquerade = rule(Vec::new(), Verdict::Rewrite);
        assert!(!rewrites(vec![
            rule(vec![from("10.0.0.0/8")], Verdict::Stop),
            masquerade.clone()
        ]));
        assert!(!rewrites(vec![
            rule(vec![Match::Protected], Verdict::Stop),
            masquerade.clone()
        ]));
        assert!(rewrites(vec![
            rule(vec![from("10.1.0.0/24")], Verdict::Stop),
            masquerade.clone()
        ]));
        assert!(rewrites(vec![
            rule(vec![Match::Unknown], Verdict::Return),
            masquerade
        ]));
    }

    #[test]
    fn jumps_are_followed_and_loops_end() {
        assert!(rewrites(vec![rule(
            Vec::new(),
            Verdict::Jump("sub".to_owned())
        )]));
        assert!(!rewrites(vec![rule(
            Vec::new(),
            Verdict::Jump("base".to_owned())
        )]));
    }

    #[test]
    fn rules_of_the_other_family_do_not_count() {
        assert!(!rewrites(vec![rule(
            vec![Match::Ipv6(true)],
            Verdict::Rewrite
        )]));
        assert!(!rewrites(vec![rule(
            vec![from("fd00::/8")],
            Verdict::Rewrite
        )]));
    }
}
