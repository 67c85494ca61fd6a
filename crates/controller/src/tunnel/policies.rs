//! A tunnel's policies: what they are called in the SPD and what they say for each position of the
//! gate.
//!
//! Only the `out` policies move. `in` and `fwd` policies accept what came through any SA with the
//! Child's reqid, so they stay as they are from the tunnel's start to its end.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::epoch::Epoch;
use crate::config::{AddressRequest, TunnelConfig};
use crate::io::{
    EXEMPT_AHEAD, IfId, NEIGHBOUR_DISCOVERY, PolicyAction, PolicyDirection, PolicyKey, PolicyScope,
    PolicySpec,
};

/// A local and a remote selector of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) local: IpNet,
    pub(crate) remote: IpNet,
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} === {}", self.local, self.remote)
    }
}

/// The reqids of a tunnel's Child (RFC 4301's PFP is not used: one Child, one reqid).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reqids {
    /// Shared by the SAs of all its epochs.
    pub(crate) child: u32,
    /// Never has an SA: what holds.
    pub(crate) hold: u32,
}

impl Reqids {
    /// The number of its xfrm interface, if it has one: the Child's reqid.
    pub(crate) fn if_id(self) -> Option<IfId> {
        NonZeroU32::new(self.child).map(IfId)
    }
}

/// A tunnel's policies.
#[derive(Debug)]
pub(crate) struct Policies {
    pairs: Vec<Pair>,
    /// What holds whatever the gate does: any source of a client that is assigned its address.
    guards: Vec<Pair>,
    reqids: Reqids,
    base: u32,
    forward: bool,
    exempt_neighbour_discovery: bool,
    /// Of a route-based tunnel.
    interface: Option<IfId>,
}

impl Policies {
    pub(crate) fn new(config: &TunnelConfig, reqids: Reqids) -> Self {
        let request = config.addressing.request();
        let anything = request.map(AddressRequest::everything);
        Self {
            pairs: pairs(&config.local_traffic, &config.remote_traffic),
            guards: pairs(&anything.unwrap_or_default(), &config.remote_traffic),
            reqids,
            base: config.template.priority,
            forward: config.template.forward,
            // What is routed to an xfrm interface has no neighbours.
            exempt_neighbour_discovery: config.template.exempt_neighbour_discovery
                && config.interface.is_none(),
            interface: config.interface.as_ref().and(reqids.if_id()),
        }
    }

    /// The pairs that an epoch's negotiated selectors do not contain: they stay held.
    pub(crate) fn refused_by<'a>(&'a self, epoch: &'a Epoch) -> impl Iterator<Item = Pair> + 'a {
        self.pairs
            .iter()
            .copied()
            .filter(|pair| !epoch.covers(*pair))
    }

    /// Every policy, the `out` ones holding.
    pub(crate) fn all_holding(&self) -> Vec<PolicySpec> {
        let mut policies = self.out(None);
        for pair in &self.pairs {
            let action = PolicyAction::Accept {
                reqid: self.reqids.child,
            };
            let mut inbound = |direction| {
                let scope = self
                    .interface
                    .map_or(PolicyScope::Everything, PolicyScope::Of);
                policies.push(PolicySpec {
                    key: key(direction, pair.remote, pair.local, scope),
                    priority: self.priority(*pair),
                    action,
                });
            };
            inbound(PolicyDirection::In);
            if self.forward {
                inbound(PolicyDirection::Fwd);
            }
        }
        policies.extend(self.pings(None));
        policies.extend(self.exemptions());
        policies
    }

    /// The `out` policies, pinned to `open` where its selectors cover them, else holding.
    ///
    /// A route-based tunnel has two for each pair. What is routed to the interface is held before it
    /// gets there, since an xfrm interface itself queues nothing (`xfrmi_xmit2`), or let through to
    /// the interface, whose own policy is the pinned one. They are written in an order that has
    /// nothing come to an interface that does not know where to send it.
    pub(crate) fn out(&self, open: Option<&Epoch>) -> Vec<PolicySpec> {
        let Some(interface) = self.interface else {
            return self.outbound(|_| PolicyScope::Everything, open);
        };
        let mut before = self.outbound(|pair| before(interface, pair), open);
        for policy in &mut before {
            if let PolicyAction::Pin { .. } = policy.action {
                policy.action = PolicyAction::Exempt;
            }
        }
        let within = self.outbound(|_| PolicyScope::Of(interface), open);
        match open {
            Some(_) => within.into_iter().chain(before).collect(),
            None => before.into_iter().chain(within).collect(),
        }
    }

    /// The policies that control pings meet at the interface, pinned to the epoch that is pinged.
    pub(crate) fn pings(&self, pinged: Option<&Epoch>) -> Vec<PolicySpec> {
        match self.interface {
            Some(interface) => {
                let mut pings = self.outbound(|_| PolicyScope::PingsOf(interface), pinged);
                for policy in &mut pings {
                    policy.priority = policy.priority.saturating_sub(EXEMPT_AHEAD);
                }
                pings
            }
            None => Vec::new(),
        }
    }

    fn outbound(
        &self,
        scope: impl Fn(Pair) -> PolicyScope,
        open: Option<&Epoch>,
    ) -> Vec<PolicySpec> {
        let hold = PolicyAction::Hold {
            reqid: self.reqids.hold,
        };
        let action = |pair: Pair| match open {
            Some(epoch) if epoch.covers(pair) => PolicyAction::Pin {
                reqid: self.reqids.child,
                sa: epoch.outbound,
                source: epoch.path.local.ip(),
            },
            Some(_) | None => hold,
        };
        let pinned = self.pairs.iter().map(|&pair| (pair, action(pair)));
        let guards = self.guards.iter().map(|&pair| (pair, hold));
        pinned
            .chain(guards)
            .map(|(pair, action)| PolicySpec {
                key: key(PolicyDirection::Out, pair.local, pair.remote, scope(pair)),
                priority: self.priority(pair),
                action,
            })
            .collect()
    }

    pub(crate) fn keys(&self) -> Vec<PolicyKey> {
        self.all_holding()
            .into_iter()
            .map(|policy| policy.key)
            .collect()
    }

    /// Each stands beside a policy with the same selector for all protocols: that is how they are
    /// known again after a crash. Guards have none inbound, where nothing needs to be exempted.
    fn exemptions(&self) -> impl Iterator<Item = PolicySpec> + '_ {
        const BOTH: &[PolicyDirection] = &[PolicyDirection::Out, PolicyDirection::In];
        const OUT: &[PolicyDirection] = &[PolicyDirection::Out];
        let pairs = self.pairs.iter().map(|pair| (pair, BOTH));
        let guards = self.guards.iter().map(|pair| (pair, OUT));
        let exempt = pairs
            .chain(guards)
            .filter(|(pair, _)| self.exempt_neighbour_discovery && pair.local.addr().is_ipv6());
        exempt.flat_map(move |(pair, directions)| {
            let priority = self.priority(*pair).saturating_sub(EXEMPT_AHEAD);
            NEIGHBOUR_DISCOVERY.flat_map(move |icmpv6_type| {
                directions.iter().map(move |&direction| {
                    let (source, destination) = match direction {
                        PolicyDirection::Out => (pair.local, pair.remote),
                        PolicyDirection::In | PolicyDirection::Fwd => (pair.remote, pair.local),
                    };
                    PolicySpec {
                        key: PolicyKey {
                            icmpv6_type: Some(icmpv6_type),
                            ..key(direction, source, destination, PolicyScope::Everything)
                        },
                        priority,
                        action: PolicyAction::Exempt,
                    }
                })
            })
        })
    }

    /// The wider a pair, the later it is looked at.
    fn priority(&self, pair: Pair) -> u32 {
        let width = |net: IpNet| u32::from(net.max_prefix_len() - net.prefix_len());
        self.base + width(pair.local) + width(pair.remote)
    }
}

/// Each local network with each remote one of its own family.
fn pairs(local: &[IpNet], remote: &[IpNet]) -> Vec<Pair> {
    let mut pairs = BTreeSet::new();
    for &local in local {
        for &remote in remote {
            if local.addr().is_ipv4() == remote.addr().is_ipv4() {
                pairs.insert(Pair { local, remote });
            }
        }
    }
    pairs.into_iter().collect()
}

/// What is looked at before it comes to the interface.
///
/// For IPv6 packets of this host the kernel looks for policies before it knows where they leave
/// (`ip6_dst_lookup_flow`), so that a policy for the interface alone would miss them; their selector
/// tells them, unless it covers everything.
fn before(interface: IfId, pair: Pair) -> PolicyScope {
    if pair.remote.addr().is_ipv6() && pair.remote.prefix_len() > 0 {
        PolicyScope::Everything
    } else {
        PolicyScope::RoutedTo(interface)
    }
}

fn key(
    direction: PolicyDirection,
    source: IpNet,
    destination: IpNet,
    scope: PolicyScope,
) -> PolicyKey {
    PolicyKey {
        direction,
        source,
        destination,
        icmpv6_type: None,
        scope,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use crate::Secret;
    use crate::config::{Addressing, End, Identity, Role};

    use super::*;

    #[test]
    fn every_exemption_stands_beside_a_policy_that_it_exempts_from() {
        let end = |id: &str| End {
            address: None,
            id: Identity::Fqdn(id.into()),
        };
        let request = AddressRequest {
            ipv4: true,
            ipv6: true,
            interface: "lo".into(),
        };
        let config = TunnelConfig {
            local_traffic: vec!["2001:db8:99::7/128".parse().unwrap()],
            remote_traffic: vec!["::/0".parse().unwrap()],
            addressing: Addressing::Request(request),
            ..TunnelConfig::new(
                "laptop",
                Role::Client,
                end("laptop.example"),
                end("hq.example"),
                Secret::from(vec![0; 32]),
            )
        };
        let reqids = Reqids { child: 1, hold: 2 };
        let policies = Policies::new(&config, reqids).all_holding();
        let exempted: Vec<_> = policies
            .iter()
            .filter(|policy| policy.action == PolicyAction::Exempt)
            .collect();
        assert!(!exempted.is_empty());
        for exemption in exempted {
            let key = PolicyKey {
                icmpv6_type: None,
                ..exemption.key
            };
            let beside = policies.iter().find(|policy| policy.key == key).unwrap();
            assert!(exemption.priority < beside.priority, "{key:?}");
        }
    }
}
