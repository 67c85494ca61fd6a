//! What the controller asks of the kernel.

use epochgate_controller::io::{
    EXEMPT_AHEAD, FoundSa, NEIGHBOUR_DISCOVERY, PolicyAction, PolicyKey, PolicyScope, PolicySpec,
    SaId, SaMove, SaSpec, XfrmError, XfrmOp, XfrmReply,
};
use epochgate_controller::{REQIDS, Timestamp};

use super::sa::{Entry, Sa};
use super::spd::Retry;
use super::{Drop, Failure, Kernel, RETRY_FIRST};

impl Kernel {
    pub(crate) fn perform(&mut self, op: XfrmOp, now: Timestamp) -> Result<XfrmReply, XfrmError> {
        self.expire(now);
        match self.failure_of(&op) {
            None => self.complete(op, now),
            Some(Failure::Refused(error)) => Err(error),
            Some(Failure::Unanswered(error)) => {
                let _ = self.complete(op, now);
                Err(error)
            }
            Some(Failure::Halfway(error)) => {
                // Creation is all or none; the other batches stop where they are.
                match op {
                    XfrmOp::UpdatePolicies(mut specs) => {
                        specs.truncate(specs.len() / 2);
                        let _ = self.complete(XfrmOp::UpdatePolicies(specs), now);
                    }
                    XfrmOp::RemovePolicies(mut keys) => {
                        keys.truncate(keys.len() / 2);
                        let _ = self.complete(XfrmOp::RemovePolicies(keys), now);
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    fn complete(&mut self, op: XfrmOp, now: Timestamp) -> Result<XfrmReply, XfrmError> {
        match op {
            XfrmOp::ReadOurs => Ok(self.ours()),
            XfrmOp::AddSa(spec) => self.add_sa(spec, now),
            XfrmOp::MoveSa(change) => self.move_sa(&change),
            XfrmOp::RemoveSa(id) => {
                self.sas.remove(&id);
                Ok(XfrmReply::Done)
            }
            XfrmOp::CreatePolicies(specs) => self.create(&specs),
            XfrmOp::UpdatePolicies(specs) => {
                for spec in specs {
                    self.update(spec, now);
                }
                Ok(XfrmReply::Done)
            }
            XfrmOp::RemovePolicies(keys) => {
                for key in keys {
                    self.remove_policy(key);
                }
                Ok(XfrmReply::Done)
            }
            XfrmOp::ReadPackets(id) => match self.sas.get(&id) {
                Some(Entry::Mature(sa)) => Ok(XfrmReply::Packets(sa.packets)),
                Some(Entry::Larval { .. }) => Ok(XfrmReply::Packets(0)),
                None => Err(missing()),
            },
            XfrmOp::ReportFirst { sa, on } => {
                self.complete_one(sa)?.set_report(on);
                Ok(XfrmReply::Done)
            }
            // The model has no xfrm interfaces: nothing is routed to them.
            XfrmOp::AddInterface(_) | XfrmOp::RemoveInterface(_) => Ok(XfrmReply::Done),
        }
    }

    fn ours(&self) -> XfrmReply {
        let found = |(id, entry): (&SaId, &Entry)| FoundSa {
            id: *id,
            reqid: entry.reqid(),
        };
        XfrmReply::Ours {
            policies: self.our_policies().map(|spec| spec.key).collect(),
            sas: self
                .sas
                .iter()
                .map(found)
                .filter(|sa| REQIDS.contains(&sa.reqid))
                .collect(),
        }
    }

    fn add_sa(&mut self, spec: SaSpec, now: Timestamp) -> Result<XfrmReply, XfrmError> {
        if self.sas.contains_key(&spec.id) {
            return Err(XfrmError::Exists("File exists".into()));
        }
        let sa = Sa::new(spec, &self.timing, now);
        self.sas.insert(sa.spec.id, Entry::Mature(Box::new(sa)));
        Ok(XfrmReply::Done)
    }

    /// In its place where the destination stays, else beside the old one.
    fn move_sa(&mut self, change: &SaMove) -> Result<XfrmReply, XfrmError> {
        let moved = self.complete_one(change.from)?.moved(change);
        let taken = change.from != change.to && self.sas.contains_key(&change.to);
        if taken {
            return Err(XfrmError::Exists("File exists".into()));
        }
        let packets = moved.packets;
        self.sas.insert(change.to, Entry::Mature(Box::new(moved)));
        Ok(XfrmReply::Packets(packets))
    }

    /// An SA that has keys. A larval one can be read and removed, and nothing else.
    fn complete_one(&mut self, id: SaId) -> Result<&mut Sa, XfrmError> {
        match self.sas.get_mut(&id) {
            Some(Entry::Mature(sa)) => Ok(sa),
            Some(Entry::Larval { .. }) => Err(XfrmError::Other("Invalid argument".into())),
            None => Err(missing()),
        }
    }

    /// All or none.
    fn create(&mut self, specs: &[PolicySpec]) -> Result<XfrmReply, XfrmError> {
        if specs
            .iter()
            .any(|spec| self.policies.contains_key(&spec.key))
        {
            return Err(XfrmError::Exists("File exists".into()));
        }
        for spec in specs {
            self.let_hold_call(spec);
            self.policies.put(*spec);
        }
        Ok(XfrmReply::Done)
    }

    /// The shell removes the larval SA of a hold's last ACQUIRE when it writes the hold.
    fn let_hold_call(&mut self, spec: &PolicySpec) {
        if let PolicyAction::Hold { reqid } = spec.action {
            self.unnumbered.remove(&(reqid, is_ipv6(&spec.key)));
        }
    }

    /// Puts a policy in another's place: what that one held is tried at once, by a timer.
    pub(super) fn update(&mut self, spec: PolicySpec, now: Timestamp) {
        self.let_hold_call(&spec);
        let release = self.timing.release();
        let release = self.random.between(release.start, release.end);
        if self.policies.put(spec) {
            let retry = Retry {
                at: now + release,
                waited: RETRY_FIRST,
            };
            self.policies.try_at(spec.key, retry);
        }
    }

    pub(super) fn remove_policy(&mut self, key: PolicyKey) {
        let Some(policy) = self.policies.remove(&key) else {
            return;
        };
        for packet in policy.held {
            self.drop_packet(packet, Drop::QueuePurged);
        }
    }

    /// By reqid. An exemption has none; it is ours if it exempts from a policy of ours and comes
    /// before it by our own distance, or stands before an interface of ours (as the daemon itself reads the SPD).
    pub(super) fn is_ours(&self, spec: &PolicySpec) -> bool {
        let key = &spec.key;
        match spec.action {
            PolicyAction::Exempt if key.scope != PolicyScope::Everything => true,
            PolicyAction::Exempt
                if key
                    .icmpv6_type
                    .is_some_and(|icmpv6_type| NEIGHBOUR_DISCOVERY.contains(&icmpv6_type)) =>
            {
                let exempted_from = PolicyKey {
                    icmpv6_type: None,
                    ..*key
                };
                let beside = self.policies.get(&exempted_from);
                beside.is_some_and(|beside| {
                    let ours = beside.spec.priority.saturating_sub(EXEMPT_AHEAD);
                    has_our_reqid(&beside.spec) && spec.priority == ours
                })
            }
            PolicyAction::Exempt if key.icmpv6_type.is_some() => false,
            PolicyAction::Exempt => self.policies().any(|other| {
                let everything = PolicyScope::Everything;
                let same = PolicyKey {
                    scope: everything,
                    ..other.key
                };
                matches!(other.key.scope, PolicyScope::Of(_))
                    && same == *key
                    && other.priority == spec.priority
            }),
            PolicyAction::Hold { .. } | PolicyAction::Pin { .. } | PolicyAction::Accept { .. } => {
                has_our_reqid(spec)
            }
        }
    }
}

fn has_our_reqid(spec: &PolicySpec) -> bool {
    match spec.action {
        PolicyAction::Exempt => false,
        PolicyAction::Hold { reqid }
        | PolicyAction::Pin { reqid, .. }
        | PolicyAction::Accept { reqid } => REQIDS.contains(&reqid),
    }
}

fn missing() -> XfrmError {
    XfrmError::Missing("No such process".into())
}

/// Whose placeholder addresses a hold has.
pub(super) fn is_ipv6(key: &PolicyKey) -> bool {
    key.source.addr().is_ipv6()
}
