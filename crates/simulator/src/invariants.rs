//! What must hold after every step, whatever happens. Each invariant is stated once, here.

use std::fmt;

use epochgate_controller::config::{Proof, Role};
use epochgate_controller::io::SaId;
use epochgate_controller::status::GateStatus;
use epochgate_controller::{Controller, Timestamp};

use crate::kernel::Drop;
use crate::node::Node;
use crate::packet::{Body, Packet};
use crate::trace::Trace;
use crate::world::{NodeId, World};

/// Steps that the world may take without its time moving on: more are a loop.
const STEPS_AT_ONCE_MAX: u32 = 20_000;

/// Something that left a node, or ended in one, in the step under check.
#[derive(Clone, Debug)]
pub(crate) enum Observed {
    /// Left through an SA.
    Encrypted(NodeId, SaId, Packet),
    /// Left in clear.
    InClear(NodeId, Packet),
    Ended(NodeId, Packet, Drop),
    /// Arrived once more, or after a later one without excuse.
    Misplaced(NodeId, Packet),
}

/// An invariant that does not hold, with what replays it.
#[derive(Clone)]
pub struct Violation {
    /// The world's seed.
    pub seed: u64,
    /// When.
    pub at: Timestamp,
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// What happened before, as far as it was recorded.
    pub trace: Trace,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.trace, f)?;
        let at = self.at.since(Timestamp::ZERO);
        write!(
            f,
            "seed {}, {at:?}: {} violated: {}",
            self.seed, self.invariant, self.what
        )
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

pub(crate) fn check_all(world: &World) -> Result<(), Violation> {
    if !world.observed.is_empty() {
        nothing_but_pings_leaves_a_client_on_an_unproven_epoch(world)?;
        no_packet_leaves_in_clear(world)?;
        a_waiting_server_sends_nothing_before_something_arrived(world)?;
        a_switch_loses_and_duplicates_nothing(world)?;
    }
    nothing_foreign_is_touched(world)?;
    time_moves_on(world)
}

/// I1: on a client no packet but a control ping leaves on an epoch that is not at least out-proven,
/// or, where the tunnel takes any packet for a proof, before one has arrived on it.
fn nothing_but_pings_leaves_a_client_on_an_unproven_epoch(world: &World) -> Result<(), Violation> {
    for (node, sa, packet) in left_through_epochs(world) {
        let unproven = role(node, sa) == Some(Role::Client) && !node.out_proven.contains(&sa);
        let unproven = unproven && !is_proven_by_arrival(node, sa);
        if unproven && !is_control_ping(node, packet) {
            return Err(world.violation("I1", format!("{packet:?} left on unproven {sa:?}")));
        }
    }
    Ok(())
}

/// I2: no packet that a tunnel's policy covers leaves in clear, from the first time that its
/// policies are in the kernel until it is taken down or is no longer configured.
fn no_packet_leaves_in_clear(world: &World) -> Result<(), Violation> {
    for observed in &world.observed {
        let Observed::InClear(id, packet) = observed else {
            continue;
        };
        let node = world.node(*id);
        if world.now() < node.exposed_until {
            continue;
        }
        let covered = node.protected.values().flatten();
        let mut covered = covered.filter(|(local, remote)| {
            local.contains(&packet.source) && remote.contains(&packet.destination)
        });
        if packet.icmpv6_type().is_none() && covered.next().is_some() {
            return Err(world.violation("I2", format!("{packet:?} left in clear")));
        }
    }
    Ok(())
}

/// I3: a waiting server sends nothing on an epoch on which nothing authenticated has arrived.
fn a_waiting_server_sends_nothing_before_something_arrived(world: &World) -> Result<(), Violation> {
    for (node, sa, packet) in left_through_epochs(world) {
        let Some(epoch) = node.epochs.get(&sa) else {
            return Err(world.violation("I3", format!("{packet:?} left on unknown {sa:?}")));
        };
        let Some(tunnel) = node.tunnel(&epoch.tunnel) else {
            continue;
        };
        let waits = tunnel.role == Role::Server && tunnel.epoch.wait;
        if waits && !node.arrived.contains(&epoch.inbound) && !is_control_ping(node, packet) {
            return Err(world.violation("I3", format!("{packet:?} left on awaited {sa:?}")));
        }
    }
    Ok(())
}

/// I4: nothing arrives twice or out of order without excuse, ever; and nothing is lost while the
/// world is whole.
fn a_switch_loses_and_duplicates_nothing(world: &World) -> Result<(), Violation> {
    for observed in &world.observed {
        match observed {
            Observed::Encrypted(..) | Observed::InClear(..) => {}
            Observed::Misplaced(node, packet) => {
                let what = format!("{packet:?} twice or out of order at {node:?}");
                return Err(world.violation("I4", what));
            }
            Observed::Ended(node, packet, why) => {
                let data = matches!(packet.body, Body::Data { .. });
                let lost = data && world.is_whole() && *why != Drop::QueueFull;
                if lost && !(*why == Drop::NoState && is_ahead_of_its_sas(world, *node, packet)) {
                    let what = format!("{packet:?} ended at {node:?}: {why:?}");
                    return Err(world.violation("I4", what));
                }
            }
        }
    }
    Ok(())
}

/// Whether a packet comes from a server that does not wait, and to a client that has opened nothing
/// yet: such a server sends as soon as it has the SAs, and its client gets them when its answer
/// arrives. `wait` is there to avoid that (R8).
fn is_ahead_of_its_sas(world: &World, to: NodeId, packet: &Packet) -> bool {
    let Body::Data { flow, .. } = packet.body else {
        return false;
    };
    let mut tunnels = world.node(world.sender(flow)).config.tunnels.iter();
    let is_ahead = tunnels.any(|tunnel| {
        let remote = &tunnel.remote_traffic;
        tunnel.role == Role::Server
            && !tunnel.epoch.wait
            && remote
                .iter()
                .any(|network| network.contains(&packet.destination))
    });
    let reports = world.node(to).controller().map(Controller::status);
    let mut there = reports.into_iter().flat_map(|report| report.tunnels);
    is_ahead && there.all(|tunnel| tunnel.gate != GateStatus::Open)
}

/// I6: policies and SAs of others are as they were.
fn nothing_foreign_is_touched(world: &World) -> Result<(), Violation> {
    // In the other kernels nothing but packets passed in this step.
    for node in world.nodes().filter(|node| node.rewritten) {
        if let Some(what) = node.foreign.touched_in(&node.kernel) {
            return Err(world.violation("I6", what));
        }
    }
    Ok(())
}

/// No step leads to the next at the same moment for ever.
fn time_moves_on(world: &World) -> Result<(), Violation> {
    if world.steps_at_once() > STEPS_AT_ONCE_MAX {
        return Err(world.violation("progress", "time stands still: a busy loop".into()));
    }
    Ok(())
}

/// What left through SAs of ours in this step.
fn left_through_epochs(world: &World) -> impl Iterator<Item = (&Node, SaId, &Packet)> {
    world.observed.iter().filter_map(|observed| match observed {
        Observed::Encrypted(id, sa, inner) => Some((world.node(*id), *sa, inner)),
        Observed::InClear(..) | Observed::Ended(..) | Observed::Misplaced(..) => None,
    })
}

fn role(node: &Node, outbound: SaId) -> Option<Role> {
    let epoch = node.epochs.get(&outbound)?;
    node.role(&epoch.tunnel)
}

fn is_proven_by_arrival(node: &Node, outbound: SaId) -> bool {
    node.epochs.get(&outbound).is_some_and(|epoch| {
        let tunnel = node.tunnel(&epoch.tunnel);
        tunnel.is_some_and(|tunnel| tunnel.ping.proof == Proof::AnyInbound)
            && node.arrived.contains(&epoch.inbound)
    })
}

fn is_control_ping(node: &Node, packet: &Packet) -> bool {
    match packet.body {
        Body::EchoRequest(nonce) => node.pings.contains_key(&nonce),
        Body::Data { .. } | Body::EchoReply(_) | Body::NeighbourDiscovery { .. } => false,
    }
}
