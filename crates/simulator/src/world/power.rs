//! Hosts that lose power and come back.

use std::time::Duration;

use epochgate_controller::config::Config;

use super::{NodeId, World};
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
        let (policy, sa) = &node.foreign;
        kernel.add_foreign(*policy, sa.clone(), self.now);
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
}
