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
