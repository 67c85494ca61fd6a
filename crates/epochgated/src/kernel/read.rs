//! The kernel's SAs and policies as the controller's, and which of them are ours.

use std::collections::HashSet;
use std::num::NonZeroU32;

use epochgate_controller::REQIDS;
use epochgate_controller::io::{
    EXEMPT_AHEAD, IfId, NEIGHBOUR_DISCOVERY, PING_MARK, PolicyDirection, PolicyKey, PolicyScope,
    SaId, Spi,
};
use epochgate_xfrm::{Mark, Policy, PolicyAction, PolicyId, PortMatch, Prefix, Protocol, Selector};
use ipnet::IpNet;

use super::interface::Interfaces;

/// ICMPv6 (RFC 4443 §1).
const PROTOCOL_ICMPV6: u8 = 58;

/// An ESP SA's identity; `None` for other protocols.
pub(super) fn sa_id(id: epochgate_xfrm::SaId) -> Option<SaId> {
    if id.protocol != Protocol::Esp {
        return None;
    }
    Some(SaId {
        destination: id.destination,
        spi: Spi(NonZeroU32::new(id.spi.get())?),
    })
}

/// Our policies among all: those with a reqid of ours, and the exemptions beside them. An exemption
/// has no template and so no reqid; it is ours if it exempts neighbour discovery from a policy of ours
/// and comes before it by our own distance. What lets packets through to an interface of ours has none either; it is ours if the interface
/// has a policy with the same selector.
pub(super) fn our_policies(policies: &[&Policy], interfaces: &Interfaces) -> Vec<PolicyKey> {
    let mut ours = Vec::new();
    let mut priorities = HashSet::new();
    for policy in policies {
        if let Some(key) = policy_key(policy, interfaces)
            && (is_ours(policy) || key.scope != PolicyScope::Everything)
        {
            ours.push(key);
            priorities.insert((key, policy.priority));
        }
    }
    let exemptions = policies
        .iter()
        .filter(|policy| policy.action == PolicyAction::Allow && policy.templates.is_empty())
        .filter_map(|policy| {
            let key = policy_key(policy, interfaces)?;
            let exempted_from = PolicyKey {
                icmpv6_type: None,
                ..key
            };
            let before_interface = |ours: &PolicyKey| {
                let same = PolicyKey {
                    scope: PolicyScope::Everything,
                    ..*ours
                };
                matches!(ours.scope, PolicyScope::Of(_)) && same == key
            };
            priorities
                .iter()
                .any(|(ours, priority)| match key.icmpv6_type {
                    Some(icmpv6_type) => {
                        *ours == exempted_from
                            && NEIGHBOUR_DISCOVERY.contains(&icmpv6_type)
                            && policy.priority == priority.saturating_sub(EXEMPT_AHEAD)
                    }
                    None => before_interface(ours) && policy.priority == *priority,
                })
                .then_some(key)
        })
        .collect::<Vec<_>>();
    ours.extend(exemptions);
    ours
}

fn is_ours(policy: &Policy) -> bool {
    policy
        .templates
        .iter()
        .any(|template| REQIDS.contains(&template.reqid.0))
}

/// A policy's key; `None` if we make no such policies (other marks and interfaces, ports).
pub(super) fn policy_key(policy: &Policy, interfaces: &Interfaces) -> Option<PolicyKey> {
    if policy.sub_policy {
        return None;
    }
    let scope = scope(&policy.selector, policy.if_id, policy.mark, interfaces)?;
    key(policy.direction, &policy.selector, scope)
}

/// The key of a deleted policy of which the kernel told the selector alone.
pub(super) fn key_of_id(id: &PolicyId, interfaces: &Interfaces) -> Option<PolicyKey> {
    match id.key {
        epochgate_xfrm::PolicyKey::Selector(selector) if !id.sub_policy => {
            let scope = scope(&selector, id.if_id, id.mark, interfaces)?;
            key(id.direction, &selector, scope)
        }
        epochgate_xfrm::PolicyKey::Selector(_) | epochgate_xfrm::PolicyKey::Index(_) => None,
    }
}

/// Which packets a policy is for, beside its selector.
fn scope(
    selector: &Selector,
    if_id: Option<NonZeroU32>,
    mark: Option<Mark>,
    interfaces: &Interfaces,
) -> Option<PolicyScope> {
    let if_id = match if_id {
        Some(number) if REQIDS.contains(&number.get()) => Some(IfId(number)),
        Some(_) => return None,
        None => None,
    };
    match (selector.interface_index, if_id, mark) {
        (0, None, None) => Some(PolicyScope::Everything),
        (0, Some(if_id), None) => Some(PolicyScope::Of(if_id)),
        (0, Some(if_id), Some(mark)) if mark == Mark::exactly(PING_MARK) => {
            Some(PolicyScope::PingsOf(if_id))
        }
        (index, None, None) => interfaces.with_index(index).map(PolicyScope::RoutedTo),
        (_, _, _) => None,
    }
}

fn key(
    direction: epochgate_xfrm::PolicyDirection,
    selector: &Selector,
    scope: PolicyScope,
) -> Option<PolicyKey> {
    let direction = match direction {
        epochgate_xfrm::PolicyDirection::In => PolicyDirection::In,
        epochgate_xfrm::PolicyDirection::Out => PolicyDirection::Out,
        epochgate_xfrm::PolicyDirection::Forward => PolicyDirection::Fwd,
        epochgate_xfrm::PolicyDirection::SocketIn | epochgate_xfrm::PolicyDirection::SocketOut => {
            return None;
        }
    };
    let icmpv6_type = match (selector.protocol, selector.source_port) {
        (0, PortMatch::ANY) => None,
        (
            PROTOCOL_ICMPV6,
            PortMatch {
                port,
                mask: u16::MAX,
            },
        ) => Some(u8::try_from(port).ok()?),
        _ => return None,
    };
    if selector.destination_port != PortMatch::ANY {
        return None;
    }
    Some(PolicyKey {
        direction,
        source: network(selector.source())?,
        destination: network(selector.destination())?,
        icmpv6_type,
        scope,
    })
}

fn network(prefix: Prefix) -> Option<IpNet> {
    IpNet::new(prefix.address(), prefix.length()).ok()
}

#[cfg(test)]
mod tests {
    use epochgate_controller::io::{PolicyAction as Action, PolicySpec};

    use super::super::spec;
    use super::*;

    fn spec_of(icmpv6_type: Option<u8>, priority: u32, action: Action) -> PolicySpec {
        PolicySpec {
            key: PolicyKey {
                direction: PolicyDirection::Out,
                source: "2001:db8:1::/48".parse().expect("network"),
                destination: "2001:db8:2::/48".parse().expect("network"),
                icmpv6_type,
                scope: PolicyScope::Everything,
            },
            priority,
            action,
        }
    }

    fn found(specs: &[PolicySpec]) -> Vec<PolicyKey> {
        let policies: Vec<Policy> = specs
            .iter()
            .map(|spec| spec::policy(spec, &Interfaces::default()).expect("a policy"))
            .collect();
        our_policies(&policies.iter().collect::<Vec<_>>(), &Interfaces::default())
    }

    #[test]
    fn policies_with_our_reqids_and_their_exemptions_are_ours() {
        let hold = spec_of(
            None,
            1000,
            Action::Hold {
                reqid: *REQIDS.start(),
            },
        );
        let exempt = spec_of(Some(135), 1000 - EXEMPT_AHEAD, Action::Exempt);
        assert_eq!(found(&[exempt, hold]), [hold.key, exempt.key]);
        // Somebody else's for the same networks.
        let echo = spec_of(Some(128), 1000 - EXEMPT_AHEAD, Action::Exempt);
        let earlier = spec_of(Some(136), 7, Action::Exempt);
        assert_eq!(found(&[echo, earlier, hold]), [hold.key]);
    }

    #[test]
    fn other_peoples_policies_and_exemptions_are_not() {
        let foreign = spec_of(None, 1000, Action::Hold { reqid: 1 });
        let exempt = spec_of(Some(135), 900, Action::Exempt);
        assert_eq!(found(&[exempt, foreign]), []);
    }
}
