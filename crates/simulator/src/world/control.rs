//! What a test does to a world: starts and stops daemons, asks them, breaks and mends things, sends
//! traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use epochgate_controller::config::Config;
use epochgate_controller::crypto::Crypto;
use epochgate_controller::io::{Command, CommandId, PolicyKey, SaId, Spi, XfrmError};
use epochgate_controller::{Controller, Input};

use super::{Happening, NodeId, World};
use crate::crypto::Seeded;
use crate::invariants::Violation;
use crate::kernel::{Failure, OpKind};
use crate::network::{Rule, RuleId};
use crate::packet::{FlowId, Packet};
use crate::trace::{Happened, Recording, Trace};
use crate::traffic::{Account, Flow};

/// Within which time the controller writes policies again that somebody removed.
const MENDED_WITHIN: Duration = Duration::from_secs(2);

impl World {
    /// How much of what happens is recorded from now on; what was is forgotten.
    pub fn set_recording(&mut self, recording: Recording) {
        self.trace = Trace::new(recording);
    }

    /// Daemons that start from now on are made by `make`: what a product is compared with may break
    /// the invariants, so their violations are counted from now on and do not end the run.
    pub fn compare_with(&mut self, make: fn(Arc<dyn Crypto>) -> Controller) {
        self.controllers = make;
        self.tolerated = Some(BTreeMap::new());
    }

    /// Steps after which an invariant did not hold, by invariant, where that does not end the run
    /// ([`Self::compare_with`]). Of several that one step violates the first counts.
    #[must_use]
    pub fn violations(&self) -> BTreeMap<&'static str, u64> {
        self.tolerated.clone().unwrap_or_default()
    }

    pub(super) fn judge(&mut self, checked: Result<(), Violation>) -> Result<(), Violation> {
        match (checked, &mut self.tolerated) {
            (Err(violation), Some(tolerated)) => {
                *tolerated.entry(violation.invariant).or_default() += 1;
                Ok(())
            }
            (checked, _) => checked,
        }
    }

    /// Starts a node's daemon with a configuration.
    pub fn start(&mut self, id: NodeId, config: Config) {
        self.note(|| Happened::Done(Some(id), "the daemon starts".into()));
        let node = &mut self.nodes[id.0];
        node.run += 1;
        node.kernel_mut().set_listening(true);
        let crypto = Arc::<Seeded>::clone(&node.crypto);
        node.controller = Some((self.controllers)(crypto));
        let addresses = node.kernel.addresses().to_vec();
        node.note_config(&config);
        self.feed(id, Input::Configure(config));
        self.feed(id, Input::Addresses(addresses));
    }

    /// A node's daemon is gone at once, without a word to anybody; its kernel goes on.
    pub fn crash(&mut self, id: NodeId) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), "the daemon is gone".into()));
        let exposed = self.now < self.nodes[id.0].exposed_until;
        let node = &mut self.nodes[id.0];
        node.controller = None;
        node.kernel_mut().set_listening(false);
        node.run += 1;
        node.wake_at = None;
        if exposed {
            // What somebody took away nobody puts back before the next start.
            node.protected.clear();
        }
    }

    /// A new configuration for a running daemon.
    pub fn configure(&mut self, id: NodeId, config: Config) {
        self.whole = false;
        self.nodes[id.0].note_config(&config);
        self.feed(id, Input::Configure(config));
    }

    /// An operator asks.
    pub fn command(&mut self, id: NodeId, command: Command) -> CommandId {
        match &command {
            Command::Down(_) | Command::Shutdown => self.whole = false,
            Command::Up(_)
            | Command::Rekey(_)
            | Command::RekeyIke(_)
            | Command::Reauthenticate(_)
            | Command::Status => {}
        }
        self.note(|| Happened::Done(Some(id), format!("asked for {command:?}")));
        let node = &mut self.nodes[id.0];
        node.last_command += 1;
        let number = CommandId(node.last_command);
        node.note_command(&command);
        self.feed(id, Input::Command(number, command));
        number
    }

    /// The next SPI of ESP that a node's daemon draws for itself; called again, the one after. A NAT
    /// may know it for another host's.
    pub fn force_spi(&mut self, id: NodeId, spi: Spi) {
        self.whole = false;
        let drawn = self.nodes[id.0].crypto.drawn.lock();
        let mut drawn = drawn.unwrap_or_else(PoisonError::into_inner);
        drawn.spis.push_back(spi);
    }

    /// Changes a host's own addresses.
    pub fn set_addresses(&mut self, id: NodeId, inner: &[IpAddr]) {
        let node = &mut self.nodes[id.0];
        let addresses: Vec<IpAddr> = std::iter::once(node.outer)
            .chain(inner.iter().copied())
            .collect();
        node.kernel_mut().set_addresses(addresses.clone());
        self.feed(id, Input::Addresses(addresses));
    }

    /// A host's outer address is another from now on: what is under way to the old one is lost, and
    /// nothing leaves with it as its source.
    pub fn move_to(&mut self, id: NodeId, outer: IpAddr) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), format!("moves to {outer}")));
        let node = &mut self.nodes[id.0];
        let inner = node.kernel.addresses().iter().copied();
        let addresses: Vec<IpAddr> = std::iter::once(outer)
            .chain(inner.filter(|address| *address != node.outer))
            .collect();
        node.outer = outer;
        node.outers.insert(outer);
        node.kernel_mut().set_addresses(addresses.clone());
        self.feed(id, Input::Addresses(addresses));
    }

    /// Somebody else removes one of our SAs.
    pub fn steal_sa(&mut self, id: NodeId, sa: SaId) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), format!("somebody removes SA {:08x}", sa.spi.0)));
        self.nodes[id.0].kernel_mut().steal_sa(sa);
        self.take_effects(id);
    }

    /// One of our SAs reaches its hard limit (XFRM_MSG_EXPIRE with `hard` set).
    pub fn expire_sa(&mut self, id: NodeId, sa: SaId) {
        self.whole = false;
        self.note(|| {
            Happened::Done(
                Some(id),
                format!("SA {:08x} reaches its hard limit", sa.spi.0),
            )
        });
        self.nodes[id.0].kernel_mut().expire_sa(sa);
        self.take_effects(id);
    }

    /// Somebody else removes one of our policies.
    pub fn steal_policy(&mut self, id: NodeId, key: PolicyKey) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), "somebody removes a policy".into()));
        self.nodes[id.0].kernel_mut().steal_policy(key);
        self.expose(id);
    }

    /// Somebody removes all SAs (`ip xfrm state flush`), their own and ours.
    pub fn flush_sas(&mut self, id: NodeId) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), "somebody flushes all SAs".into()));
        let node = &mut self.nodes[id.0];
        node.foreign.forget_sas();
        node.kernel_mut().flush_sas();
        self.take_effects(id);
    }

    /// Somebody removes all policies (`ip xfrm policy flush`), their own and ours.
    pub fn flush_policies(&mut self, id: NodeId) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), "somebody flushes all policies".into()));
        let node = &mut self.nodes[id.0];
        node.foreign.forget_policies();
        node.kernel_mut().flush_policies();
        self.expose(id);
    }

    /// What leaves until the controller has mended it is not its fault.
    fn expose(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        node.exposed_until = self.now + MENDED_WITHIN;
        if node.controller.is_none() {
            // It will say when it holds again.
            node.protected.clear();
        }
        self.take_effects(id);
    }

    /// The kernel would not take back what somebody removed, or tell what is there: it is asked again.
    pub(super) fn stay_exposed(&mut self, id: NodeId) {
        let node = &mut self.nodes[id.0];
        if self.now < node.exposed_until {
            node.exposed_until = self.now + MENDED_WITHIN;
        }
    }

    /// The next so many events of a node's kernel find no room in the daemon's socket (ENOBUFS).
    pub fn lose_events(&mut self, id: NodeId, events: u32) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), format!("the next {events} events are lost")));
        self.nodes[id.0].kernel_mut().lose_events(events);
    }

    /// The next operation of this kind is refused by a node's kernel.
    pub fn fail_next(&mut self, id: NodeId, kind: OpKind, error: XfrmError) {
        self.fail_next_by(id, kind, Failure::Refused(error));
    }

    /// The next operation of this kind fails in this way in a node's kernel.
    pub fn fail_next_by(&mut self, id: NodeId, kind: OpKind, failure: Failure) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), format!("next {kind:?} fails: {failure:?}")));
        self.nodes[id.0].kernel_mut().fail_next(kind, failure);
    }

    /// Disturbs the network.
    pub fn disturb(&mut self, rule: Rule) -> RuleId {
        self.whole = false;
        self.note(|| Happened::Done(None, format!("{rule:?}")));
        self.network.add(rule)
    }

    /// Ends one disturbance.
    pub fn mend(&mut self, id: RuleId) {
        self.network.remove(id);
        self.note(|| Happened::Done(None, "a rule ends".into()));
    }

    /// Ends all disturbances, those of the kernels too.
    pub fn heal(&mut self) {
        for node in &mut self.nodes {
            node.kernel_mut().fail_no_more();
        }
        self.network.rules.clear();
        self.network.jitter = Duration::ZERO;
        self.healed = true;
        self.note(|| Happened::Done(None, "whole again".into()));
    }

    /// Adds up to `jitter` to each frame's delay: frames overtake each other.
    pub fn set_jitter(&mut self, jitter: Duration) {
        self.whole = false;
        self.network.in_order = false;
        self.network.jitter = jitter;
    }

    /// Starts an application's stream.
    pub fn flow(
        &mut self,
        from: NodeId,
        source: IpAddr,
        destination: IpAddr,
        interval: Duration,
    ) -> FlowId {
        let id = FlowId(self.flows.len());
        self.flows
            .push(Flow::new(from, source, destination, interval));
        self.schedule(self.now, Happening::Departure(id));
        id
    }

    /// Who sends a flow's packets.
    pub(crate) fn sender(&self, flow: FlowId) -> NodeId {
        self.flows[flow.0].from
    }

    /// Ends it.
    pub fn stop_flow(&mut self, flow: FlowId) {
        self.flows[flow.0].running = false;
    }

    /// What became of its packets.
    #[must_use]
    pub fn account(&self, flow: FlowId) -> Account {
        self.flows[flow.0].account
    }

    /// Whether a packet of a stream has arrived.
    pub(crate) fn has_arrived(&self, flow: FlowId, sequence: u64) -> bool {
        self.flows[flow.0].has_arrived(sequence)
    }

    /// Sends one packet that belongs to no flow.
    pub fn send(&mut self, from: NodeId, packet: Packet) -> Result<(), Violation> {
        self.nodes[from.0].passing().send(packet, self.now);
        self.finish_step()
    }
}
