//! Deliberate defects, so that tests can show that each invariant can fail.
//!
//! All of them are outside the controller: a kernel that does not do what it says, or does more, and
//! a shell that calls too often. The controller that is searched is the daemon's own.

use std::collections::VecDeque;
use std::time::Duration;

use epochgate_controller::Input;
use epochgate_controller::config::Role;
use epochgate_controller::event::{Event, EventKind};
use epochgate_controller::io::{
    PolicyAction, PolicyDirection, PolicySpec, SaDirection, XfrmError, XfrmEvent, XfrmOp, XfrmReply,
};

use super::{Happening, NodeId, World};
use crate::packet::{Body, Frame, Packet};

/// From the addition of a server's inbound SA to the forged report of a packet on it: its outbound
/// SA is there, and the client's first ping has not come.
const FORGED_AFTER: Duration = Duration::from_millis(1);

/// Something in the world that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Clients' policies send through an epoch as soon as its SAs are there.
    OpensUnproven,
    /// What is to be held is exempt.
    ExemptsInsteadOfHolding,
    /// Outbound policies are said to be created, and are not.
    CreatesNothingOutbound,
    /// Servers are told of a first packet that never came.
    ForgesFirstPackets,
    /// What is held is dropped when a policy opens.
    DropsHeld,
    /// What is held is gone when a policy opens, and nothing tells of it.
    ForgetsHeld,
    /// What is held is released twice.
    DoublesHeld,
    /// What is held is released last first.
    ReversesHeld,
    /// Control pings vanish from the time at which everything else is healed.
    LosesPingsOnceHealed,
    /// Packets of applications vanish from the time at which everything else is healed.
    LosesDataOnceHealed,
    /// SAs are said to be removed, and stay.
    KeepsSas,
    /// Policies of others go when ours are written.
    RemovesPoliciesOfOthers,
    /// Policies of others become as ours when those are written.
    ChangesPoliciesOfOthers,
    /// SAs of others go when one of ours does.
    RemovesSasOfOthers,
    /// The daemon is called again at once, for ever.
    NeverSleeps,
}

impl World {
    /// Breaks this world.
    pub fn break_by(&mut self, defect: Defect) {
        self.defect = Some(defect);
    }

    /// Performs an operation in a node's kernel, as a defect has it.
    pub(super) fn operate(&mut self, id: NodeId, op: XfrmOp) -> Result<XfrmReply, XfrmError> {
        let op = match self.defect {
            None => op,
            Some(defect) => match self.tamper(defect, id, op) {
                Some(op) => op,
                None => return Ok(XfrmReply::Done),
            },
        };
        self.nodes[id.0].kernel_mut().perform(op, self.now)
    }

    /// What becomes of an operation; `None`: nothing, although it is said to be done.
    fn tamper(&mut self, defect: Defect, id: NodeId, op: XfrmOp) -> Option<XfrmOp> {
        match (defect, op) {
            (Defect::ExemptsInsteadOfHolding, XfrmOp::CreatePolicies(specs)) => {
                Some(XfrmOp::CreatePolicies(exempt(specs)))
            }
            (Defect::ExemptsInsteadOfHolding, XfrmOp::UpdatePolicies(specs)) => {
                Some(XfrmOp::UpdatePolicies(exempt(specs)))
            }
            (Defect::CreatesNothingOutbound, XfrmOp::CreatePolicies(mut specs)) => {
                specs.retain(|spec| spec.key.direction != PolicyDirection::Out);
                Some(XfrmOp::CreatePolicies(specs))
            }
            (Defect::ForgesFirstPackets, XfrmOp::AddSa(spec)) => {
                if matches!(spec.direction, SaDirection::Inbound { .. }) && self.serves(id) {
                    let forged = Input::Xfrm(XfrmEvent::FirstPacket(spec.id));
                    let run = self.nodes[id.0].run;
                    let at = self.now + FORGED_AFTER;
                    self.schedule(at, Happening::Input(id, run, Box::new(forged)));
                }
                Some(XfrmOp::AddSa(spec))
            }
            (
                Defect::DropsHeld
                | Defect::ForgetsHeld
                | Defect::DoublesHeld
                | Defect::ReversesHeld,
                XfrmOp::UpdatePolicies(specs),
            ) => {
                self.harm_held(defect, id, &specs);
                Some(XfrmOp::UpdatePolicies(specs))
            }
            (Defect::KeepsSas, XfrmOp::RemoveSa(_)) => None,
            (Defect::RemovesPoliciesOfOthers, XfrmOp::UpdatePolicies(specs)) => {
                let node = &mut self.nodes[id.0];
                for policy in node.foreign.policies().to_vec() {
                    node.kernel_mut().steal_policy(policy.key);
                }
                Some(XfrmOp::UpdatePolicies(specs))
            }
            (Defect::ChangesPoliciesOfOthers, XfrmOp::UpdatePolicies(mut specs)) => {
                if let Some(action) = specs.first().map(|spec| spec.action) {
                    let others = self.nodes[id.0].foreign.policies();
                    specs.extend(others.iter().map(|policy| PolicySpec { action, ..*policy }));
                }
                Some(XfrmOp::UpdatePolicies(specs))
            }
            (Defect::RemovesSasOfOthers, XfrmOp::RemoveSa(sa)) => {
                let node = &mut self.nodes[id.0];
                for other in node.foreign.sas().to_vec() {
                    node.kernel_mut().steal_sa(other.id);
                }
                Some(XfrmOp::RemoveSa(sa))
            }
            (_, op) => Some(op),
        }
    }

    /// Harms what policies hold that open.
    fn harm_held(&mut self, defect: Defect, id: NodeId, specs: &[PolicySpec]) {
        let kernel = self.nodes[id.0].kernel_mut();
        let opening = specs.iter().filter(|spec| is_pin(spec));
        for key in opening.map(|spec| spec.key) {
            if defect == Defect::DropsHeld {
                kernel.drop_held(&key);
            } else if let Some(held) = kernel.held_by(&key) {
                harm(defect, held);
            }
        }
    }

    /// Whether a node is the server of all its tunnels.
    fn serves(&self, id: NodeId) -> bool {
        let mut tunnels = self.nodes[id.0].config.tunnels.iter();
        tunnels.all(|tunnel| tunnel.role == Role::Server)
    }

    /// A daemon has told its log; a broken kernel opens the gate then.
    pub(super) fn tamper_after(&mut self, id: NodeId, event: &Event) {
        let installed = matches!(event.kind, EventKind::EpochInstalled { .. });
        if self.defect != Some(Defect::OpensUnproven) || !installed || self.serves(id) {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[id.0];
        let epochs = node.epochs.values();
        let mut epochs = epochs.filter(|epoch| Some(epoch.number) == event.epoch);
        let Some(sa) = epochs.find_map(|epoch| node.kernel.sa(epoch.outbound)) else {
            return;
        };
        let action = PolicyAction::Pin {
            reqid: sa.reqid,
            sa: sa.id,
            source: sa.source,
        };
        let ours = node.kernel.our_policies();
        let out = ours.filter(|policy| policy.key.direction == PolicyDirection::Out);
        let held = out.filter(|policy| matches!(policy.action, PolicyAction::Hold { .. }));
        let opened = held.map(|policy| PolicySpec { action, ..*policy });
        for policy in opened.collect::<Vec<_>>() {
            node.kernel_mut().add_foreign_policy(policy, now);
        }
    }

    /// Whether a control ping that was asked for vanishes.
    pub(super) fn loses_pings(&self) -> bool {
        self.healed && self.defect == Some(Defect::LosesPingsOnceHealed)
    }

    /// Whether a frame that leaves vanishes.
    pub(super) fn loses(&self, frame: &Frame) -> bool {
        let data = match frame {
            Frame::Esp { inner, .. } => matches!(inner.body, Body::Data { .. }),
            Frame::Ike(_) | Frame::Keepalive { .. } | Frame::Clear(_) => false,
        };
        data && self.healed && self.defect == Some(Defect::LosesDataOnceHealed)
    }

    /// Whether a daemon is to be called again at once.
    pub(super) fn never_sleeps(&self) -> bool {
        self.defect == Some(Defect::NeverSleeps)
    }
}

fn is_pin(spec: &PolicySpec) -> bool {
    matches!(spec.action, PolicyAction::Pin { .. })
}

fn exempt(mut specs: Vec<PolicySpec>) -> Vec<PolicySpec> {
    for spec in &mut specs {
        if let PolicyAction::Hold { .. } = spec.action {
            spec.action = PolicyAction::Exempt;
        }
    }
    specs
}

fn harm(defect: Defect, held: &mut VecDeque<Packet>) {
    match defect {
        Defect::ForgetsHeld => held.clear(),
        Defect::DoublesHeld => held.extend(held.clone()),
        Defect::ReversesHeld => held.make_contiguous().reverse(),
        _ => {}
    }
}
