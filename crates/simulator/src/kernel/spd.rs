//! The SPD: policies, the packets that they hold, and the timers of those that hold some.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{PolicyDirection, PolicyKey, PolicyScope, PolicySpec};

use crate::packet::Packet;

/// A policy and the packets that it holds.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) spec: PolicySpec,
    pub(super) held: VecDeque<Packet>,
}

/// When a held queue is tried next, and how long it waited for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Timestamp,
    pub(super) waited: Duration,
}

/// The policies of a kernel. They are read as a map.
#[derive(Debug, Default)]
pub(super) struct Spd {
    policies: BTreeMap<PolicyKey, Policy>,
    /// Those that packets of the host and its networks meet, the lowest priority value first.
    inward: Vec<PolicySpec>,
    outward: Vec<PolicySpec>,
    forward: Vec<PolicySpec>,
    retries: BTreeMap<PolicyKey, Retry>,
}

impl Deref for Spd {
    type Target = BTreeMap<PolicyKey, Policy>;

    fn deref(&self) -> &Self::Target {
        &self.policies
    }
}

impl Spd {
    /// The policy that a packet meets: the one with the lowest priority value that fits.
    pub(super) fn met_by(&self, direction: PolicyDirection, packet: &Packet) -> Option<PolicySpec> {
        let icmpv6_type = packet.icmpv6_type();
        let met = match direction {
            PolicyDirection::In => &self.inward,
            PolicyDirection::Out => &self.outward,
            PolicyDirection::Fwd => &self.forward,
        };
        let found = met.iter().find(|PolicySpec { key, .. }| {
            key.source.contains(&packet.source)
                && key.destination.contains(&packet.destination)
                && (key.icmpv6_type.is_none() || key.icmpv6_type == icmpv6_type)
        });
        found.copied()
    }

    /// Puts a policy in its place, or into another's, whose packets it then holds. Whether there are
    /// any.
    pub(super) fn put(&mut self, spec: PolicySpec) -> bool {
        let policy = self.policies.entry(spec.key).or_insert_with(|| Policy {
            spec,
            held: VecDeque::new(),
        });
        policy.spec = spec;
        let holds = !policy.held.is_empty();
        self.sort(spec.key.direction);
        holds
    }

    /// Takes a policy away, with what it holds.
    pub(super) fn remove(&mut self, key: &PolicyKey) -> Option<Policy> {
        let policy = self.policies.remove(key)?;
        self.retries.remove(key);
        self.sort(key.direction);
        Some(policy)
    }

    /// The packets that a policy holds.
    pub(super) fn held_by(&mut self, key: &PolicyKey) -> Option<&mut VecDeque<Packet>> {
        self.policies.get_mut(key).map(|policy| &mut policy.held)
    }

    /// Sets the timer of a policy's queue.
    pub(super) fn try_at(&mut self, key: PolicyKey, retry: Retry) {
        self.retries.insert(key, retry);
    }

    /// Sets it if it is not set.
    pub(super) fn try_unless_set(&mut self, key: PolicyKey, retry: Retry) {
        self.retries.entry(key).or_insert(retry);
    }

    /// Takes it out of the clockwork.
    pub(super) fn take_retry(&mut self, key: &PolicyKey) -> Option<Retry> {
        self.retries.remove(key)
    }

    /// When the next queue is tried.
    pub(super) fn next_retry(&self) -> Option<Timestamp> {
        self.retries.values().map(|retry| retry.at).min()
    }

    /// The policies whose queues are to be tried.
    pub(super) fn due(&self, now: Timestamp) -> Vec<PolicyKey> {
        let due = self.retries.iter().filter(|(_, retry)| retry.at <= now);
        due.map(|(key, _)| *key).collect()
    }

    fn sort(&mut self, direction: PolicyDirection) {
        let specs = self.policies.values().map(|policy| policy.spec);
        let mut met: Vec<PolicySpec> = specs
            .filter(|spec| {
                spec.key.direction == direction && spec.key.scope == PolicyScope::Everything
            })
            .collect();
        met.sort_by_key(|spec| spec.priority);
        match direction {
            PolicyDirection::In => self.inward = met,
            PolicyDirection::Out => self.outward = met,
            PolicyDirection::Fwd => self.forward = met,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use epochgate_controller::io::{PingNonce, PolicyAction};
    use ipnet::IpNet;

    use super::*;
    use crate::packet::Body;

    const PACKET: Packet = Packet {
        source: IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1)),
        destination: IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 1)),
        body: Body::EchoRequest(PingNonce(1)),
        waited: false,
    };

    fn policy(direction: PolicyDirection, source: &str, priority: u32, reqid: u32) -> PolicySpec {
        PolicySpec {
            key: PolicyKey {
                direction,
                source: source.parse().unwrap(),
                destination: IpNet::new_assert(IpAddr::from([10, 2, 0, 0]), 16),
                icmpv6_type: None,
                scope: PolicyScope::Everything,
            },
            priority,
            action: PolicyAction::Hold { reqid },
        }
    }

    fn met(spd: &Spd) -> Option<PolicyAction> {
        let met = spd.met_by(PolicyDirection::Out, &PACKET);
        met.map(|spec| spec.action)
    }

    #[test]
    fn a_packet_meets_the_fitting_policy_with_the_lowest_priority_value() {
        let mut spd = Spd::default();
        let wide = policy(PolicyDirection::Out, "10.0.0.0/8", 20, 1);
        let narrow = policy(PolicyDirection::Out, "10.1.0.0/16", 30, 2);
        let elsewhere = policy(PolicyDirection::Out, "10.3.0.0/16", 10, 3);
        let inward = policy(PolicyDirection::In, "10.1.0.0/16", 5, 4);
        for spec in [narrow, elsewhere, inward, wide] {
            spd.put(spec);
        }
        assert_eq!(met(&spd), Some(PolicyAction::Hold { reqid: 1 }));
        spd.put(PolicySpec {
            priority: 40,
            ..wide
        });
        assert_eq!(met(&spd), Some(PolicyAction::Hold { reqid: 2 }));
        spd.remove(&narrow.key);
        assert_eq!(met(&spd), Some(PolicyAction::Hold { reqid: 1 }));
        spd.remove(&wide.key);
        assert_eq!(met(&spd), None);
    }

    #[test]
    fn a_policy_in_anothers_place_holds_what_that_one_held() {
        let mut spd = Spd::default();
        let spec = policy(PolicyDirection::Out, "10.1.0.0/16", 10, 1);
        assert!(!spd.put(spec));
        spd.held_by(&spec.key).unwrap().push_back(PACKET);
        assert!(spd.put(spec));
        assert_eq!(spd.remove(&spec.key).unwrap().held, [PACKET]);
    }
}
