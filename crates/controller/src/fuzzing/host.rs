//! A controller with a kernel that does what it is told, and notices what no controller may ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Config, TunnelConfig};
use crate::crypto::Crypto;
use crate::io::{
    ControlPing, Datagram, FoundSa, Input, Output, PolicyAction, PolicyKey, SaDirection, SaId,
    XfrmError, XfrmEvent, XfrmOp, XfrmReply,
};
use crate::{Controller, Timestamp};

/// Datagrams and pings that wait to be delivered; the oldest go.
const WAITING_MAX: usize = 48;
/// SAs that one tunnel may ever have in the kernel, in both directions: those of every IKE SA that a
/// tunnel may have, with every Child SA that an IKE SA may have.
const SAS_MAX: usize = 2 * 8 * 12;
/// Inputs that follow one from another before it counts as a loop.
const CHAIN_MAX: usize = 2000;

pub(super) struct Host {
    pub(super) controller: Controller,
    pub(super) sent: VecDeque<Datagram>,
    pub(super) pings: VecDeque<ControlPing>,
    pub(super) sas: BTreeMap<SaId, (SaDirection, u32)>,
    policies: BTreeSet<PolicyKey>,
    /// SAs that answered a ping, or reported a packet.
    pub(super) packets: u64,
    pub(super) wake_at: Option<Timestamp>,
    /// The kernel refuses the next operation.
    pub(super) refuse_next: bool,
    /// The policy that traffic leaves by is pinned to these.
    pub(super) pinned: BTreeMap<PolicyKey, SaId>,
    /// The address that its route to the peer has.
    pub(super) source: IpAddr,
}

impl Host {
    pub(super) fn new(
        crypto: Arc<dyn Crypto>,
        config: TunnelConfig,
        addresses: [IpAddr; 2],
        now: Timestamp,
    ) -> Self {
        let mut host = Self {
            controller: Controller::new(crypto),
            sent: VecDeque::new(),
            pings: VecDeque::new(),
            sas: BTreeMap::new(),
            policies: BTreeSet::new(),
            packets: 0,
            wake_at: None,
            refuse_next: false,
            pinned: BTreeMap::new(),
            source: addresses[0],
        };
        host.hear(Input::Addresses(addresses.to_vec()), now);
        let config = Config {
            tunnels: vec![Arc::new(config)],
            ..Config::default()
        };
        host.hear(Input::Configure(config), now);
        host
    }

    /// Gives one input to the controller and performs what follows.
    pub(super) fn hear(&mut self, input: Input, now: Timestamp) {
        let mut inputs = VecDeque::from([input]);
        let mut steps = 0;
        while let Some(input) = inputs.pop_front() {
            steps += 1;
            assert!(steps < CHAIN_MAX, "the controller goes round in circles");
            self.controller.handle(input, now);
            loop {
                match self.controller.poll_output() {
                    Output::Xfrm(op, what) => {
                        let result = self.perform(what);
                        inputs.push_back(Input::XfrmDone { op, result });
                    }
                    Output::Datagram(datagram) => push(&mut self.sent, datagram),
                    Output::Ping(ping) => push(&mut self.pings, ping),
                    Output::FindSource(destination) => inputs.push_back(Input::SourceFound {
                        destination,
                        source: Ok(self.source),
                    }),
                    Output::Wait(until, _) => {
                        self.wake_at = until;
                        break;
                    }
                    // Nothing here depends on routes, addresses and logs.
                    _ => {}
                }
            }
        }
        self.check();
    }

    fn perform(&mut self, op: XfrmOp) -> Result<XfrmReply, XfrmError> {
        if std::mem::take(&mut self.refuse_next) {
            return Err(XfrmError::Other("No buffer space available".into()));
        }
        match op {
            XfrmOp::ReadOurs => {
                let found = |(id, (_, reqid)): (&SaId, &(SaDirection, u32))| FoundSa {
                    id: *id,
                    reqid: *reqid,
                };
                return Ok(XfrmReply::Ours {
                    policies: self.policies.iter().copied().collect(),
                    sas: self.sas.iter().map(found).collect(),
                });
            }
            XfrmOp::AddSa(spec) => {
                if self.sas.contains_key(&spec.id) {
                    return Err(XfrmError::Exists("File exists".into()));
                }
                self.sas.insert(spec.id, (spec.direction, spec.reqid));
            }
            XfrmOp::MoveSa(change) => {
                let Some(sa) = self.sas.get(&change.from).copied() else {
                    return Err(XfrmError::Missing("No such process".into()));
                };
                if change.from != change.to && self.sas.contains_key(&change.to) {
                    return Err(XfrmError::Exists("File exists".into()));
                }
                // With another destination it is another SA, and the old one stays.
                self.sas.insert(change.to, sa);
                return Ok(XfrmReply::Packets(self.packets));
            }
            XfrmOp::RemoveSa(id) => {
                self.sas.remove(&id);
            }
            XfrmOp::CreatePolicies(specs) | XfrmOp::UpdatePolicies(specs) => {
                for spec in specs {
                    self.policies.insert(spec.key);
                    self.pinned.remove(&spec.key);
                    if let PolicyAction::Pin { sa, .. } = spec.action {
                        assert!(
                            self.sas.contains_key(&sa),
                            "pinned to an SA that is not there"
                        );
                        self.pinned.insert(spec.key, sa);
                    }
                }
            }
            XfrmOp::RemovePolicies(keys) => {
                for key in keys {
                    self.policies.remove(&key);
                    self.pinned.remove(&key);
                }
            }
            XfrmOp::ReadPackets(id) => {
                return match self.sas.contains_key(&id) {
                    true => Ok(XfrmReply::Packets(self.packets)),
                    false => Err(XfrmError::Missing("No such process".into())),
                };
            }
            // The model has no part in what else there is.
            _ => {}
        }
        Ok(XfrmReply::Done)
    }

    /// The `index`th SA that receives.
    pub(super) fn inbound(&self, index: usize) -> Option<SaId> {
        let mut inbound = self
            .sas
            .iter()
            .filter(|(_, (direction, _))| matches!(direction, SaDirection::Inbound { .. }));
        let count = inbound.clone().count();
        inbound.nth(index.checked_rem(count)?).map(|(id, _)| *id)
    }

    /// The kernel's news about one of its SAs.
    pub(super) fn event(&mut self, event: XfrmEvent, now: Timestamp) {
        self.hear(Input::Xfrm(event), now);
    }

    fn check(&self) {
        assert!(self.sas.len() <= SAS_MAX, "{} SAs", self.sas.len());
    }
}

/// Adds to a queue that forgets.
pub(super) fn push<T>(queue: &mut VecDeque<T>, it: T) {
    if queue.len() == WAITING_MAX {
        queue.pop_front();
    }
    queue.push_back(it);
}
