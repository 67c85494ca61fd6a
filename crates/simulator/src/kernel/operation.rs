//! What the controller asks of the kernel.

use std::collections::VecDeque;

use epochgate_controller::io::{
    FoundSa, PolicyAction, PolicyKey, PolicySpec, SaDirection, SaId, SaMove, SaSpec, XfrmError,
    XfrmOp, XfrmReply,
};
use epochgate_controller::{REQIDS, Timestamp};

use super::sa::{Entry, Sa};
use super::{Drop, Effect, Kernel, OpKind, Policy, RELEASE, RETRY_FIRST, Retry};

impl Kernel {
    pub(crate) fn perform(&mut self, op: XfrmOp, now: Timestamp) -> Result<XfrmReply, XfrmError> {
        self.expire(now);
        self.injected(&op)?;
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
            XfrmOp::ReadPackets(id) => match self.packets(id) {
                Some(packets) => Ok(XfrmReply::Packets(packets)),
                None => Err(missing()),
            },
            XfrmOp::ReportFirst { sa, on } => {
                let sa = self.mature(sa).ok_or_else(missing)?;
                sa.report = on;
                Ok(XfrmReply::Done)
            }
            // The model has no xfrm interfaces: nothing is routed to them.
            XfrmOp::AddInterface(_) | XfrmOp::RemoveInterface(_) => Ok(XfrmReply::Done),
        }
    }

    fn injected(&mut self, op: &XfrmOp) -> Result<(), XfrmError> {
        let kind = match op {
            XfrmOp::AddSa(spec) => match spec.direction {
                SaDirection::Inbound { .. } => OpKind::AddInbound,
                SaDirection::Outbound => OpKind::AddOutbound,
            },
            XfrmOp::MoveSa(_) => OpKind::MoveSa,
            XfrmOp::RemoveSa(_) => OpKind::RemoveSa,
            XfrmOp::CreatePolicies(_) => OpKind::CreatePolicies,
            XfrmOp::UpdatePolicies(_) => OpKind::UpdatePolicies,
            XfrmOp::ReadPackets(_) => OpKind::ReadPackets,
            XfrmOp::ReadOurs
            | XfrmOp::RemovePolicies(_)
            | XfrmOp::ReportFirst { .. }
            | XfrmOp::AddInterface(_)
            | XfrmOp::RemoveInterface(_) => {
                return Ok(());
            }
        };
        let next = self
            .failing
            .iter()
            .position(|(failing, _)| *failing == kind);
        match next {
            Some(index) => Err(self.failing.remove(index).1),
            None => Ok(()),
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
        let id = spec.id;
        self.sas
            .insert(id, Entry::Mature(Box::new(Sa::new(spec, now))));
        Ok(XfrmReply::Done)
    }

    /// In its place where the destination stays, else beside the old one.
    fn move_sa(&mut self, change: &SaMove) -> Result<XfrmReply, XfrmError> {
        let moved = self.mature(change.from).ok_or_else(missing)?.moved(change);
        let taken = change.from != change.to && self.sas.contains_key(&change.to);
        if taken {
            return Err(XfrmError::Exists("File exists".into()));
        }
        let packets = moved.packets;
        self.sas.insert(change.to, Entry::Mature(Box::new(moved)));
        Ok(XfrmReply::Packets(packets))
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
            let policy = Policy {
                spec: *spec,
                held: VecDeque::new(),
                retry: None,
            };
            self.policies.insert(spec.key, policy);
        }
        Ok(XfrmReply::Done)
    }

    /// The shell removes the larval SA of a hold's last ACQUIRE when it writes the hold.
    fn let_hold_call(&mut self, spec: &PolicySpec) {
        if let PolicyAction::Hold { reqid } = spec.action {
            self.acquiring.remove(&reqid);
        }
    }

    /// Puts a policy in another's place: what that one held is tried at once, by a timer.
    fn update(&mut self, spec: PolicySpec, now: Timestamp) {
        self.let_hold_call(&spec);
        let release = self.random.between(RELEASE.start, RELEASE.end);
        let policy = self.policies.entry(spec.key).or_insert_with(|| Policy {
            spec,
            held: VecDeque::new(),
            retry: None,
        });
        policy.spec = spec;
        if !policy.held.is_empty() {
            policy.retry = Some(Retry {
                at: now + release,
                waited: RETRY_FIRST / 2,
            });
        }
    }

    fn remove_policy(&mut self, key: PolicyKey) {
        let Some(policy) = self.policies.remove(&key) else {
            return;
        };
        for packet in policy.held {
            self.effects
                .push_back(Effect::Dropped(packet, Drop::QueuePurged));
        }
    }

    /// Puts in a policy or SA of somebody else.
    pub(crate) fn add_foreign(&mut self, policy: PolicySpec, sa: SaSpec, now: Timestamp) {
        self.update(policy, now);
        self.sas
            .insert(sa.id, Entry::Mature(Box::new(Sa::new(sa, now))));
    }

    /// Takes a policy away as somebody else would.
    pub(crate) fn steal_policy(&mut self, key: PolicyKey) {
        self.remove_policy(key);
    }

    /// Takes an SA away as somebody else would; false if it was not there.
    pub(crate) fn steal_sa(&mut self, id: SaId) -> bool {
        self.sas.remove(&id).is_some()
    }
}

fn missing() -> XfrmError {
    XfrmError::Missing("No such process".into())
}

/// By reqid; an exemption has none and is known by its priority, which nobody else uses here.
pub(super) fn is_ours(spec: &PolicySpec) -> bool {
    match spec.action {
        PolicyAction::Exempt => true,
        PolicyAction::Hold { reqid }
        | PolicyAction::Pin { reqid, .. }
        | PolicyAction::Accept { reqid } => REQIDS.contains(&reqid),
    }
}
