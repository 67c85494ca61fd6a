//! What others do to the same kernel: their own policies and SAs, and what they take of ours
//! or harm.

use std::collections::VecDeque;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{PolicyKey, PolicySpec, SaId, SaSpec, XfrmEvent};

use super::sa::{Entry, Sa};
use super::{Drop, Kernel};
use crate::packet::Packet;

impl Kernel {
    /// Puts in a policy of somebody else.
    pub(crate) fn add_foreign_policy(&mut self, policy: PolicySpec, now: Timestamp) {
        self.update(policy, now);
    }

    /// Puts in an SA of somebody else.
    pub(crate) fn add_foreign_sa(&mut self, sa: SaSpec, now: Timestamp) {
        let sa = Sa::new(sa, &self.timing, now);
        self.sas.insert(sa.spec.id, Entry::Mature(Box::new(sa)));
    }

    /// Takes a policy away as somebody else would; false if it was not there.
    pub(crate) fn steal_policy(&mut self, key: PolicyKey) -> bool {
        let found = self.policies.contains_key(&key);
        if found {
            self.remove_policy(key);
            self.tell(XfrmEvent::PolicyRemoved(key));
        }
        found
    }

    /// The packets that a policy holds, for a defect to harm.
    pub(crate) fn held_by(&mut self, key: &PolicyKey) -> Option<&mut VecDeque<Packet>> {
        self.policies.held_by(key)
    }

    /// Drops them.
    pub(crate) fn drop_held(&mut self, key: &PolicyKey) {
        let held = self.policies.held_by(key).map(std::mem::take);
        for packet in held.unwrap_or_default() {
            self.drop_packet(packet, Drop::QueuePurged);
        }
    }

    /// Takes an SA away as somebody else would; false if it was not there.
    pub(crate) fn steal_sa(&mut self, id: SaId) -> bool {
        let found = self.sas.remove(&id).is_some();
        if found {
            self.tell(XfrmEvent::SaRemoved(id));
        }
        found
    }

    /// An SA reaches its hard limit; false if it was not there.
    pub(crate) fn expire_sa(&mut self, id: SaId) -> bool {
        let found = self.sas.remove(&id).is_some();
        if found {
            self.tell(XfrmEvent::Expired(id));
        }
        found
    }

    /// `ip xfrm state flush`: everybody's, and the larval ones. One event tells of all.
    pub(crate) fn flush_sas(&mut self) {
        if self.sas.is_empty() && self.unnumbered.is_empty() {
            return;
        }
        self.sas.clear();
        self.unnumbered.clear();
        self.tell(XfrmEvent::Overrun);
    }

    /// `ip xfrm policy flush`: everybody's, with what they hold. One event tells of all.
    pub(crate) fn flush_policies(&mut self) {
        if self.policies.is_empty() {
            return;
        }
        let keys: Vec<PolicyKey> = self.policies.keys().copied().collect();
        for key in keys {
            self.remove_policy(key);
        }
        self.tell(XfrmEvent::Overrun);
    }
}
