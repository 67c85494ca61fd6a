//! Firewall rules that eat IKE or ESP, or what a tunnel carries.

use std::collections::BTreeSet;
use std::net::IpAddr;

use epochgate_controller::config::{NatTraversal, Role, TunnelConfig};
use epochgate_host::firewall::{BaseChain, Fate, Hook, Packet, State, protected_traffic};
use ipnet::IpNet;

use super::settings::forwarded;
use super::{AS_ROOT, family, listed, outer_ipv6};
use crate::doctor::facts::{Facts, Learnt};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// IANA's protocol numbers.
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;

/// Hooks that a packet for this host passes, in order.
const INBOUND: [Hook; 3] = [Hook::Ingress, Hook::Prerouting, Hook::Input];
/// Hooks that a packet of this host passes.
const OUTBOUND: [Hook; 3] = [Hook::Output, Hook::Postrouting, Hook::Egress];

/// Packets of one kind, and what an operator would write to let them pass.
struct Kind {
    check: &'static str,
    /// `IKE (UDP 500) from 192.0.2.1`.
    name: String,
    hooks: &'static [Hook],
    packet: Packet,
    /// A condition for `nft` and one for `iptables`.
    conditions: (String, String),
    meaning: &'static str,
}

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    unread(facts, findings);
    if facts.is_about_tunnels() {
        for tunnel in facts.tunnels() {
            let before = findings.len();
            for kind in outer_kinds(facts, Some(tunnel))
                .into_iter()
                .chain(inner_kinds(facts, tunnel))
            {
                findings.extend(eaten(facts, &kind).map(|finding| finding.of(&tunnel.name)));
            }
            source_nat(facts, tunnel, findings);
            if findings.len() == before && facts.firewall.unread.is_empty() {
                findings.push(good(facts).of(&tunnel.name));
            }
        }
    } else {
        let before = findings.len();
        for kind in outer_kinds(facts, None) {
            findings.extend(eaten(facts, &kind));
        }
        if findings.len() == before && facts.firewall.unread.is_empty() {
            findings.push(good(facts));
        }
    }
}

fn good(facts: &Facts) -> Finding {
    let summary = match facts.firewall.chains.len() {
        0 => "there are no firewall rules".to_owned(),
        1 => "the firewall (1 base chain) lets IKE and ESP pass".to_owned(),
        count => format!("the firewall ({count} base chains) lets IKE and ESP pass"),
    };
    Finding::new(Topic::Firewall, "firewall.rules", Verdict::Good, summary)
}

fn unread(facts: &Facts, findings: &mut Vec<Finding>) {
    let new = |summary: String| {
        Finding::new(
            Topic::Firewall,
            "firewall.unread",
            Verdict::Unknown,
            summary,
        )
    };
    let mut denied = Vec::new();
    for (program, why) in &facts.firewall.unread {
        match why {
            Learnt::NotAllowed => denied.push(program.as_str()),
            Learnt::Unknown(why) => findings.push(
                new(format!("the rules of {program} can't be listed"))
                    .because(format!(
                        "{why}. If there are rules, they may drop IKE or ESP."
                    ))
                    .cure(if program == "nft" {
                        "apt-get install nftables (or dnf install nftables)"
                    } else {
                        "apt-get install iptables (or dnf install iptables)"
                    }),
            ),
            Learnt::Known(()) => {}
        }
    }
    if !denied.is_empty() {
        findings.push(
            new("this user may not list the firewall's rules".to_owned())
                .because(format!(
                    "They may drop IKE or ESP. Refused by: {}.",
                    listed(denied)
                ))
                .cure(AS_ROOT)
                .essential(),
        );
    }
}

/// IKE and ESP themselves.
fn outer_kinds(facts: &Facts, tunnel: Option<&TunnelConfig>) -> Vec<Kind> {
    let ipv6 = tunnel.is_some_and(outer_ipv6);
    let peer = tunnel.and_then(|tunnel| tunnel.remote.address);
    let own = tunnel.and_then(|tunnel| {
        let chosen = || facts.network.route_to(peer?)?.source;
        tunnel.local.address.or_else(chosen)
    });
    let interface = tunnel.and_then(|tunnel| facts.network.outer_interface(tunnel));
    // Whoever begins sees answers only; a server sees first packets. In general: an end that
    // begins, which every tunnel needs.
    let is_server = tunnel.is_some_and(|tunnel| tunnel.role == Role::Server);
    let (inbound, outbound) = if is_server {
        (State::New, State::Established)
    } else {
        (State::Established, State::New)
    };
    let has_nat_traversal = tunnel.is_none_or(|tunnel| tunnel.nat_traversal == NatTraversal::Auto);
    let ports: &[u16] = if has_nat_traversal {
        &[500, 4500]
    } else {
        &[500]
    };
    let mut kinds = Vec::new();
    let inbound_packet = Packet {
        ipv6,
        source: peer.map(IpNet::from),
        destination: own.map(IpNet::from),
        input: interface.map(str::to_owned),
        state: Some(inbound),
        decrypted: Some(false),
        ..Packet::default()
    };
    let outbound_packet = Packet {
        ipv6,
        source: own.map(IpNet::from),
        destination: peer.map(IpNet::from),
        output: interface.map(str::to_owned),
        state: Some(outbound),
        to_protect: Some(false),
        ..Packet::default()
    };
    let shown = |word: &str| {
        peer.map_or_else(
            || format!(" {word} peers over {}", family(ipv6)),
            |peer| format!(" {word} {peer}"),
        )
    };
    for port in ports {
        let (check, meaning) = match port {
            500 => ("firewall.ike", "No IKE SA can be made."),
            _ => (
                "firewall.nat-traversal",
                "Through a NAT neither IKE nor ESP arrives.",
            ),
        };
        // A NAT on the way may change the peer's port, and an initiator's is its own choice.
        let theirs = peer.filter(|_| !is_server).map(|_| *port);
        let name = if *port == 500 {
            "IKE (UDP 500)"
        } else {
            "IKE and ESP in UDP 4500"
        };
        kinds.push(Kind {
            check,
            name: format!("{name}{}", shown("from")),
            hooks: &INBOUND,
            packet: Packet {
                protocol: Some(UDP),
                source_port: theirs,
                destination_port: Some(*port),
                ..inbound_packet.clone()
            },
            conditions: (
                format!("udp dport {port}"),
                format!("-p udp --dport {port}"),
            ),
            meaning,
        });
        kinds.push(Kind {
            check,
            name: format!("{name}{}", shown("to")),
            hooks: &OUTBOUND,
            packet: Packet {
                protocol: Some(UDP),
                source_port: Some(*port),
                destination_port: theirs,
                ..outbound_packet.clone()
            },
            conditions: (
                format!("udp sport {port}"),
                format!("-p udp --sport {port}"),
            ),
            meaning,
        });
    }
    for (hooks, packet, word) in [
        (&INBOUND, inbound_packet, "from"),
        (&OUTBOUND, outbound_packet, "to"),
    ] {
        kinds.push(Kind {
            check: "firewall.esp",
            name: format!("ESP (protocol 50){}", shown(word)),
            hooks,
            packet: Packet {
                protocol: Some(ESP),
                ..packet
            },
            conditions: ("meta l4proto esp".to_owned(), "-p esp".to_owned()),
            meaning: "Without a NAT on the way IKE says \"established\", and no packet passes.",
        });
    }
    kinds
}

/// What the tunnel carries: control pings, and what this host forwards.
fn inner_kinds(facts: &Facts, tunnel: &TunnelConfig) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let (inbound, outbound) = match tunnel.role {
        Role::Server => (State::New, State::Established),
        Role::Client => (State::Established, State::New),
    };
    let interface = match &tunnel.interface {
        Some(interface) => Some(interface.name.to_string()),
        None => facts.network.outer_interface(tunnel).map(str::to_owned),
    };
    for (local, remote) in protected_traffic(tunnel) {
        let ipv6 = local.addr().is_ipv6();
        let own: Vec<&IpAddr> = facts
            .network
            .addresses
            .iter()
            .filter(|address| local.contains(*address) && !address.is_loopback())
            .collect();
        if let Some(address) = own.first() {
            let (protocol, nft, iptables) = if ipv6 {
                (ICMPV6, "icmpv6", "ipv6-icmp")
            } else {
                (ICMP, "icmp", "icmp")
            };
            kinds.push(Kind {
                check: "firewall.ping",
                name: format!("control pings out of the tunnel, from {remote} to {address},"),
                hooks: &[Hook::Prerouting, Hook::Input],
                packet: Packet {
                    protocol: Some(protocol),
                    input: interface.clone(),
                    state: Some(inbound),
                    decrypted: Some(true),
                    ..Packet::between(remote, IpNet::from(**address))
                },
                conditions: (
                    format!("meta ipsec exists meta l4proto {nft}"),
                    format!("-p {iptables} -m policy --dir in --pol ipsec"),
                ),
                meaning: "No epoch is proven, and the traffic stays held.",
            });
        }
        if forwarded(facts, tunnel, ipv6).is_none() {
            continue;
        }
        let (sources, destinations) = (family_word(local), family_word(remote));
        kinds.push(Kind {
            check: "firewall.forward",
            name: format!("what is forwarded into the tunnel, from {local} to {remote},"),
            hooks: &[Hook::Forward, Hook::Postrouting],
            packet: Packet {
                output: interface.clone(),
                state: Some(outbound),
                decrypted: Some(false),
                to_protect: Some(true),
                ..Packet::between(local, remote)
            },
            conditions: (
                format!("{sources} saddr {local} {destinations} daddr {remote}"),
                format!("-s {local} -d {remote}"),
            ),
            meaning: "Hosts behind this gateway don't reach the other side.",
        });
        kinds.push(Kind {
            check: "firewall.forward",
            name: format!("what is forwarded out of the tunnel, from {remote} to {local},"),
            hooks: &[Hook::Prerouting, Hook::Forward],
            packet: Packet {
                input: interface.clone(),
                state: Some(inbound),
                decrypted: Some(true),
                to_protect: Some(false),
                ..Packet::between(remote, local)
            },
            conditions: (
                format!("{destinations} saddr {remote} {sources} daddr {local} meta ipsec exists"),
                format!("-s {remote} -d {local} -m policy --dir in --pol ipsec"),
            ),
            meaning: "Hosts behind this gateway get no packets of the other side.",
        });
    }
    kinds
}

fn family_word(network: IpNet) -> &'static str {
    if network.addr().is_ipv6() {
        "ip6"
    } else {
        "ip"
    }
}

/// The first thing that eats these packets.
fn eaten(facts: &Facts, kind: &Kind) -> Option<Finding> {
    let mut unclear = None;
    for hook in kind.hooks {
        let chains = facts.firewall.chains.iter();
        for chain in chains.filter(|chain| chain.hook == *hook) {
            if let Some(found) = diverted(chain, kind) {
                return Some(found);
            }
            if chain.nat {
                continue;
            }
            match chain.fate(&kind.packet) {
                Fate::Passes => {}
                Fate::Dropped(by) => {
                    let (nft, iptables) = &kind.conditions;
                    let summary = format!("{} is dropped by {by}", kind.name);
                    let finding = Finding::new(Topic::Firewall, kind.check, Verdict::Bad, summary)
                        .because(kind.meaning)
                        .cure(chain.exemption(nft, iptables))
                        .cure("and write it where your firewall keeps its rules");
                    return Some(finding);
                }
                Fate::Unclear { by, doubt } => {
                    unclear.get_or_insert((by, doubt));
                }
            }
        }
    }
    let (by, doubt) = unclear?;
    let reason = if by == doubt {
        "This rule could not be judged: it asks for what is not known here.".to_owned()
    } else {
        format!("This rule, which may accept it before, could not be judged: {doubt}.")
    };
    let summary = format!("{} may be dropped by {by}", kind.name);
    Some(
        Finding::new(Topic::Firewall, kind.check, Verdict::Unknown, summary)
            .because(reason)
            .cure("look at it yourself: nft list ruleset, iptables-save"),
    )
}

/// A rule that sends what is for this host to another one, or to another port.
fn diverted(chain: &BaseChain, kind: &Kind) -> Option<Finding> {
    // Answers of a connection that this host began are for it, whatever the rules say.
    let asked = chain.hook == Hook::Prerouting
        && kind.packet.decrypted == Some(false)
        && kind.packet.state == Some(State::New);
    let rule = chain.rewriting(&kind.packet).filter(|_| asked)?;
    let summary = format!("{} may be sent elsewhere by {rule}", kind.name);
    Some(
        Finding::new(Topic::Firewall, kind.check, Verdict::Bad, summary)
            .because("It changes the destination of what is meant for this host.")
            .cure("take that rule away, or except UDP 500 and 4500 and ESP from it"),
    )
}

/// Rules that take traffic out of its tunnel.
fn source_nat(facts: &Facts, tunnel: &TunnelConfig, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (source, destination) in protected_traffic(tunnel) {
        let packet = Packet {
            to_protect: Some(true),
            ..Packet::between(source, destination)
        };
        let chains = facts.firewall.chains.iter();
        for chain in chains.filter(|chain| chain.hook == Hook::Postrouting) {
            if let Some(rule) = chain.rewriting(&packet)
                && seen.insert(rule.clone())
            {
                findings.push(
                    Finding::new(
                        Topic::Firewall,
                        "firewall.source-nat",
                        Verdict::Bad,
                        format!(
                            "traffic from {source} to {destination} may leave in clear: {rule}"
                        ),
                    )
                    .of(&tunnel.name)
                    .because(
                        "The rule changes the source address, and the packet then meets no policy.",
                    )
                    .cure(chain.source_nat_cure())
                    .cure(chain.spared()),
                );
            }
        }
    }
}
