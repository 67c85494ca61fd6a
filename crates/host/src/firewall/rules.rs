//! Rules, as much of them as decides what becomes of a packet.
//!
//! The readers ([`super::nft`], [`super::iptables`]) translate; here it is decided, in the order in
//! which the kernel visits the rules. What a reader does not understand is taken as "may match".

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Jumps that are followed; the kernel's own limit is 16 (`NFT_JUMP_STACK_SIZE`).
const JUMPS_MAX: usize = 16;
/// Rules that are looked at for one packet: a chain can be jumped to again and again, and a ruleset
/// may be hostile.
const STEPS_MAX: usize = 200_000;
/// TCP, UDP, SCTP, DCCP and UDP-Lite have ports (IANA's protocol numbers).
const PROTOCOLS_WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What conntrack says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The first of its connection.
    New,
    /// One of a connection that has been answered, or that this answers.
    Established,
}

/// Which way of a packet a condition asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It came in.
    In,
    /// It leaves.
    Out,
}

/// A packet, or many of a kind: what is `None` is any or not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// IPv6 or IPv4.
    pub ipv6: bool,
    /// Where it comes from.
    pub source: Option<IpNet>,
    /// Where it goes to.
    pub destination: Option<IpNet>,
    /// The protocol above IP.
    pub protocol: Option<u8>,
    /// The source port.
    pub source_port: Option<u16>,
    /// The destination port.
    pub destination_port: Option<u16>,
    /// The interface that it came in by.
    pub input: Option<String>,
    /// The interface that it leaves by.
    pub output: Option<String>,
    /// What conntrack says.
    pub state: Option<State>,
    /// Whether it came through an SA.
    pub decrypted: Option<bool>,
    /// Whether an SA will take it.
    pub to_protect: Option<bool>,
}

impl Packet {
    /// Everything from one network to another of the same family.
    #[must_use]
    pub fn between(source: IpNet, destination: IpNet) -> Self {
        Self {
            ipv6: source.addr().is_ipv6(),
            source: Some(source),
            destination: Some(destination),
            ..Self::default()
        }
    }
}

/// What becomes of a packet in a chain. Names are an operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Passes,
    /// This drops it.
    Dropped(String),
    /// This drops it, or not: that depends on a rule that can't be judged.
    Unclear {
        /// What may drop it.
        by: String,
        /// What decides.
        doubt: String,
    },
}

/// Addresses from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
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
    /// The protocol is (or is not) one of these.
    Protocol { negated: bool, protocols: Vec<u8> },
    /// The source port is (or is not) in one of these.
    SourcePort { negated: bool, ports: Vec<Ports> },
    /// The destination port is (or is not) in one of these.
    DestinationPort { negated: bool, ports: Vec<Ports> },
    /// The interface is (or is not) one of these; a final `*` or `+` stands for any rest.
    Interface {
        direction: Direction,
        negated: bool,
        names: Vec<String>,
    },
    /// Conntrack's state is (or is not) one of these; `None` stands for those not modelled.
    State {
        negated: bool,
        states: Vec<Option<State>>,
    },
    /// Only packets that IPsec will (or will not) protect: `rt ipsec`, `--dir out --pol`.
    Protected(bool),
    /// Only packets that came (or did not come) through IPsec: `meta ipsec`, `--dir in --pol`.
    Decrypted(bool),
    /// Only IPv6 (true) or only IPv4 (false).
    Ipv6(bool),
    /// Something else.
    Unknown,
}

/// Ports from the first to the last.
pub(super) type Ports = RangeInclusive<u16>;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Changes an address.
    Rewrite,
    /// Ends the chain's whole visit.
    Accept,
    /// Ends the packet.
    Drop,
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

/// Whether a condition holds for the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Never,
    Maybe,
    Always,
}

impl Fit {
    fn of(value: bool) -> Self {
        if value { Self::Always } else { Self::Never }
    }

    fn negated(self, negated: bool) -> Self {
        match self {
            Self::Never if negated => Self::Always,
            Self::Always if negated => Self::Never,
            other => other,
        }
    }
}

/// How the visit of a base chain is sure to end.
enum End<'a> {
    Accepted,
    Dropped(&'a Rule),
}

/// A visit of a base chain and of what it calls.
struct Walk<'a> {
    chains: &'a Chains,
    packet: &'a Packet,
    steps: usize,
    /// The first rules that may end it, where that is not sure.
    may_accept: Option<&'a Rule>,
    may_drop: Option<&'a Rule>,
    may_rewrite: Option<&'a Rule>,
}

/// The first rule that may change an address of the packet, beginning at the chain `base`.
pub(super) fn rewriting(chains: &Chains, base: &str, packet: &Packet) -> Option<String> {
    let mut walk = Walk::new(chains, packet);
    walk.visit(base, true, JUMPS_MAX);
    walk.may_rewrite.map(|rule| rule.name.clone())
}

/// What becomes of the packet, beginning at the chain `base`; `policy` names what drops what no rule
/// decides.
pub(super) fn fate(
    chains: &Chains,
    base: &str,
    packet: &Packet,
    policy: impl FnOnce() -> Option<String>,
) -> Fate {
    let mut walk = Walk::new(chains, packet);
    let end = walk.visit(base, true, JUMPS_MAX);
    let dropped_by = match end {
        Some(End::Dropped(rule)) => Some(rule.name.clone()),
        Some(End::Accepted) => None,
        None => policy(),
    };
    match (dropped_by, walk.may_accept, walk.may_drop) {
        (Some(by), None, _) => Fate::Dropped(by),
        (Some(by), Some(doubt), _) => Fate::Unclear {
            by,
            doubt: doubt.name.clone(),
        },
        (None, _, Some(rule)) => Fate::Unclear {
            by: rule.name.clone(),
            doubt: rule.name.clone(),
        },
        (None, _, None) => Fate::Passes,
    }
}

impl<'a> Walk<'a> {
    fn new(chains: &'a Chains, packet: &'a Packet) -> Self {
        Self {
            chains,
            packet,
            steps: 0,
            may_accept: None,
            may_drop: None,
            may_rewrite: None,
        }
    }

    /// Visits a chain; `sure` is whether the packet certainly comes here. Gives back how the whole
    /// visit ends, if that is sure.
    fn visit(&mut self, name: &str, sure: bool, jumps: usize) -> Option<End<'a>> {
        let rules = self.chains.get(name)?;
        let jumps = jumps.checked_sub(1)?;
        let mut may_have_returned = false;
        for rule in rules {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            let fits = rule.matches.iter().map(|condition| self.fit(condition));
            let fit = fits.min().unwrap_or(Fit::Always);
            if fit == Fit::Never {
                continue;
            }
            let always = fit == Fit::Always;
            let ends = sure && always && !may_have_returned;
            match &rule.verdict {
                Verdict::Rewrite => {
                    self.may_rewrite.get_or_insert(rule);
                    if ends {
                        return Some(End::Accepted);
                    }
                    self.may_accept.get_or_insert(rule);
                }
                Verdict::Accept if ends => return Some(End::Accepted),
                Verdict::Drop if ends => return Some(End::Dropped(rule)),
                Verdict::Accept => {
                    self.may_accept.get_or_insert(rule);
                }
                Verdict::Drop => {
                    self.may_drop.get_or_insert(rule);
                }
                Verdict::Return if always => return None,
                Verdict::Return => {
                    may_have_returned = true;
                    continue;
                }
                Verdict::Continue => continue,
                Verdict::Jump(target) | Verdict::Goto(target) => {
                    if let Some(end) = self.visit(target, ends, jumps) {
                        return Some(end);
                    }
                    if always && matches!(rule.verdict, Verdict::Goto(_)) {
                        return None;
                    }
                    continue;
                }
            }
            // Its end was reached, in the case that the packet came here at all.
            if always {
                return None;
            }
        }
        None
    }

    fn fit(&self, condition: &Match) -> Fit {
        let packet = self.packet;
        match condition {
            Match::Source { negated, ranges } => address_fit(packet.source, *negated, ranges),
            Match::Destination { negated, ranges } => {
                address_fit(packet.destination, *negated, ranges)
            }
            Match::Protocol { negated, protocols } => packet
                .protocol
                .map_or(Fit::Maybe, |protocol| {
                    Fit::of(protocols.contains(&protocol))
                })
                .negated(*negated),
            Match::SourcePort { negated, ports } => {
                self.port_fit(packet.source_port, *negated, ports)
            }
            Match::DestinationPort { negated, ports } => {
                self.port_fit(packet.destination_port, *negated, ports)
            }
            Match::Interface {
                direction,
                negated,
                names,
            } => {
                let interface = match direction {
                    Direction::In => &packet.input,
                    Direction::Out => &packet.output,
                };
                match interface {
                    Some(interface) => Fit::of(names.iter().any(|name| is_called(interface, name)))
                        .negated(*negated),
                    // What matters here is never local traffic.
                    None if names.iter().all(|name| name == "lo") => Fit::Never.negated(*negated),
                    None => Fit::Maybe,
                }
            }
            Match::State { negated, states } => packet
                .state
                .map_or(Fit::Maybe, |state| Fit::of(states.contains(&Some(state))))
                .negated(*negated),
            Match::Protected(wanted) => flag_fit(packet.to_protect, *wanted),
            Match::Decrypted(wanted) => flag_fit(packet.decrypted, *wanted),
            Match::Ipv6(ipv6) => Fit::of(*ipv6 == packet.ipv6),
            Match::Unknown => Fit::Maybe,
        }
    }

    fn port_fit(&self, port: Option<u16>, negated: bool, ports: &[Ports]) -> Fit {
        match (self.packet.protocol, port) {
            (Some(protocol), _) if !PROTOCOLS_WITH_PORTS.contains(&protocol) => Fit::Never,
            (_, Some(port)) => {
                Fit::of(ports.iter().any(|range| range.contains(&port))).negated(negated)
            }
            (_, None) => Fit::Maybe,
        }
    }
}

fn flag_fit(flag: Option<bool>, wanted: bool) -> Fit {
    flag.map_or(Fit::Maybe, |flag| Fit::of(flag == wanted))
}

fn is_called(interface: &str, name: &str) -> bool {
    match name.strip_suffix(['*', '+']) {
        Some(beginning) => interface.starts_with(beginning),
        None => interface == name,
    }
}

fn address_fit(network: Option<IpNet>, negated: bool, ranges: &[Range]) -> Fit {
    let Some(network) = network else {
        return Fit::Maybe;
    };
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

    fn traffic() -> Packet {
        Packet {
            to_protect: Some(true),
            ..Packet::between(
                "10.1.0.0/16".parse().expect("network"),
                "10.2.0.0/16".parse().expect("network"),
            )
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
        rewriting(&chains, "base", &traffic()).is_some()
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
            vec![Match::Protected(false)],
            Verdict::Rewrite
        )]));
    }

    #[test]
    fn an_exemption_before_it_counts_if_it_covers_everything() {
        let masquerade = rule(Vec::new(), Verdict::Rewrite);
        assert!(!rewrites(vec![
            rule(vec![from("10.0.0.0/8")], Verdict::Accept),
            masquerade.clone()
        ]));
        assert!(!rewrites(vec![
            rule(vec![Match::Protected(true)], Verdict::Accept),
            masquerade.clone()
        ]));
        assert!(rewrites(vec![
            rule(vec![from("10.1.0.0/24")], Verdict::Accept),
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
