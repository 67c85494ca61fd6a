//! Policies of others (strongSwan, `ip xfrm`) that get a tunnel's traffic before the tunnel does.

use epochgate_controller::REQIDS;
use epochgate_controller::config::TunnelConfig;
use epochgate_host::firewall::protected_traffic;
use epochgate_xfrm::{Policy, PolicyAction, PolicyDirection, Prefix};
use ipnet::IpNet;

use super::AS_ROOT;
use crate::doctor::facts::{Facts, Learnt};
use crate::doctor::finding::{Finding, Topic, Verdict};

/// ICMPv6, which policies exempt for neighbour discovery (RFC 4861).
const ICMPV6: u8 = 58;

fn new(check: &'static str, verdict: Verdict, summary: impl Into<String>) -> Finding {
    Finding::new(Topic::Policies, check, verdict, summary)
}

pub(super) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    let policies = match &facts.policies {
        Learnt::Known(policies) => policies,
        Learnt::NotAllowed => {
            findings.push(
                new(
                    "policies.read",
                    Verdict::Unknown,
                    "this user may not list the kernel's policies",
                )
                .because("Others may have policies for the same traffic.")
                .cure(AS_ROOT),
            );
            return;
        }
        Learnt::Unknown(why) => {
            let summary = "the kernel's policies can't be listed";
            findings.push(new("policies.read", Verdict::Unknown, summary).because(why.clone()));
            return;
        }
    };
    let others: Vec<&Policy> = policies
        .iter()
        .map(|entry| &entry.policy)
        .filter(|policy| is_of_others(policy))
        .collect();
    let before = findings.len();
    for tunnel in facts.tunnels() {
        // A route-based tunnel's policies are its interface's.
        if tunnel.interface.is_some() {
            continue;
        }
        for policy in &others {
            findings.extend(conflict(tunnel, policy));
        }
    }
    if findings.len() == before {
        let summary = match (others.len(), facts.is_about_tunnels()) {
            (0, _) => "nobody else has policies".to_owned(),
            (1, true) => "one policy of others, for other traffic".to_owned(),
            (count, true) => format!("{count} policies of others, for other traffic"),
            (1, false) => {
                "there is one policy of others; ours must be for other traffic".to_owned()
            }
            (count, false) => {
                format!("there are {count} policies of others; ours must be for other traffic")
            }
        };
        findings.push(new("policies.conflict", Verdict::Good, summary));
    }
}

fn is_of_others(policy: &Policy) -> bool {
    let of_socket = match policy.direction {
        PolicyDirection::In | PolicyDirection::Out | PolicyDirection::Forward => false,
        PolicyDirection::SocketIn | PolicyDirection::SocketOut => true,
    };
    let is_ours = policy
        .templates
        .iter()
        .any(|template| REQIDS.contains(&template.reqid.0));
    let exempts_discovery = policy.templates.is_empty() && policy.selector.protocol == ICMPV6;
    !of_socket && !is_ours && !exempts_discovery && policy.if_id.is_none()
}

fn network(prefix: Prefix) -> Option<IpNet> {
    let network = IpNet::new(prefix.address(), prefix.length()).ok()?;
    Some(network.trunc())
}

fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right) || right.contains(&left)
}

/// What a policy of somebody else's does to the tunnel, if anything.
fn conflict(tunnel: &TunnelConfig, policy: &Policy) -> Option<Finding> {
    let source = network(policy.selector.source())?;
    let destination = network(policy.selector.destination())?;
    let direction = match policy.direction {
        PolicyDirection::Out => "out",
        PolicyDirection::In => "in",
        PolicyDirection::Forward => "fwd",
        PolicyDirection::SocketIn | PolicyDirection::SocketOut => return None,
    };
    let found = protected_traffic(tunnel).find_map(|(local, remote)| {
        let (ours, theirs) = match policy.direction {
            PolicyDirection::Out => (local, remote),
            _ => (remote, local),
        };
        let meets = overlap(ours, source) && overlap(theirs, destination);
        meets.then_some((local, remote, ours == source && theirs == destination))
    });
    let (local, remote, equal) = found?;
    let whole = policy.selector.protocol == 0 && policy.mark.is_none();
    let cure = |finding: Finding| {
        finding
            .cure(format!(
                "ip xfrm policy delete src {source} dst {destination} dir {direction}"
            ))
            .cure("and stop who made it from making it again, or choose other `traffic`")
    };
    let shown = format!(
        "{direction} {source} -> {destination}, priority {}",
        policy.priority
    );
    if equal && whole {
        let finding = new(
            "policies.conflict",
            Verdict::Bad,
            format!("somebody else has the tunnel's policy already: {shown}"),
        )
        .of(&tunnel.name)
        .because("The kernel takes one policy of one selector, and refuses ours (EEXIST).");
        return Some(cure(finding));
    }
    let width = |net: IpNet| u32::from(net.max_prefix_len() - net.prefix_len());
    let ours = tunnel
        .template
        .priority
        .saturating_add(width(local) + width(remote));
    if policy.priority > ours {
        return None;
    }
    let covers = source.contains(&local) && destination.contains(&remote)
        || source.contains(&remote) && destination.contains(&local);
    let verdict = if covers && whole {
        Verdict::Bad
    } else {
        Verdict::Warn
    };
    let does = match (policy.action, policy.templates.is_empty()) {
        (PolicyAction::Allow, true) => "lets pass in clear",
        (PolicyAction::Allow, false) => "gives to other SAs",
        _ => "blocks",
    };
    let finding = new(
        "policies.conflict",
        verdict,
        format!("a policy of somebody else comes before the tunnel's: {shown}"),
    )
    .of(&tunnel.name)
    .because(format!(
        "It {does} traffic of {local} and {remote}; the tunnel's policy has priority {ours}, and the \
         lower number wins."
    ));
    Some(cure(finding))
}
