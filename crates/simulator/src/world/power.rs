//! Hosts that lose power and come back, and hosts that are suspended.

use std::time::Duration;

use epochgate_controller::config::Config;

use super::{NodeId, World};
use crate::foreign::Foreign;
use crate::trace::Happened;

/// From the start of a host's daemon to that of its applications: the daemon's unit is ordered before
/// the network is up (`network-pre.target`), so that policies are there first.
const APPLICATIONS_AFTER: Duration = Duration::from_secs(1);

impl World {
    /// A host loses power: daemon, SAs, policies, what was held and virtual addresses are gone, and
    /// what comes to it is lost. Its applications are silent until it is back.
    pub fn halt(&mut self, id: NodeId) {
        self.crash(id);
        self.note(|| Happened::Done(Some(id), "the host loses power".into()));
        let random = self.random.fork();
        let node = &mut self.nodes[id.0];
        let addresses = node.kernel.addresses().iter().copied();
        let kept = addresses.filter(|address| !node.assigned.contains(address));
        let mut kernel = node.kernel.restarted(kept.collect(), random);
        // The other key daemon comes back too.
        node.foreign = Foreign::of(node.outer);
        node.foreign.put_into(&mut kernel, self.now);
        *node.kernel_mut() = kernel;
        node.is_off = true;
        node.assigned.clear();
        node.routes.clear();
        node.protected.clear();
        node.busy_until = self.now;
    }

    /// It has power again, and its daemon starts.
    pub fn boot(&mut self, id: NodeId, config: Config) {
        let node = &mut self.nodes[id.0];
        node.is_off = false;
        node.applications_from = self.now + APPLICATIONS_AFTER;
        self.start(id, config);
    }
    /// A host stands still: nothing in it runs, and what comes to it is lost. Its clock goes on
    /// (`CLOCK_BOOTTIME`).
    pub fn suspend(&mut self, id: NodeId) {
        self.whole = false;
        self.note(|| Happened::Done(Some(id), "the host is suspended".into()));
        self.nodes[id.0].is_suspended = true;
    }

    /// It goes on where it stood.
    pub fn resume(&mut self, id: NodeId) {
        self.note(|| Happened::Done(Some(id), "the host goes on".into()));
        self.nodes[id.0].is_suspended = false;
        for owed in std::mem::take(&mut self.owed) {
            // What another host owes itself is put back when it comes up.
            self.schedule(self.now, owed);
        }
    }
}
