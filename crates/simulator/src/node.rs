//! A host: the real controller, the kernel model under it, and what an observer knows of both.
//!
//! The observer's knowledge (which ping went through which SA, what was answered, what arrived) is
//! gathered from the kernel's side alone. The invariants compare it with what leaves, so they do not
//! take the controller's word for anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use epochgate_controller::config::{Config, OnStop, Role, TunnelConfig, TunnelName};
use epochgate_controller::event::{EpochNumber, Event, EventKind};
use epochgate_controller::io::{
    Command, CommandId, CommandOutcome, PingNonce, PolicyAction, RouteSpec, SaDirection, SaId,
    SaMove,
};
use epochgate_controller::{Controller, Timestamp};
use ipnet::IpNet;

use crate::crypto::Seeded;
use crate::foreign::Foreign;
use crate::kernel::Kernel;
use crate::world::NatId;

/// An epoch as it was announced.
#[derive(Clone, Debug)]
pub struct KnownEpoch {
    /// Its tunnel.
    pub tunnel: TunnelName,
    /// Its number.
    pub number: EpochNumber,
    /// What it receives on.
    pub inbound: SaId,
    /// What it sends on.
    pub outbound: SaId,
}

/// A host.
pub struct Node {
    pub(crate) outer: IpAddr,
    /// The NAT between it and the network.
    pub(crate) nat: Option<NatId>,
    /// All outer addresses that it ever had.
    pub(crate) outers: BTreeSet<IpAddr>,
    /// The kernel. What changes it goes through `kernel_mut`.
    pub kernel: Kernel,
    /// Something happened in the kernel in this step.
    pub(crate) touched: bool,
    /// Policies or SAs may have changed in this step.
    pub(crate) rewritten: bool,
    /// The kernel's next timer, as it was after the last step that touched it.
    pub(crate) kernel_due: Option<Timestamp>,
    pub(crate) crypto: Arc<Seeded>,
    /// `None` while the daemon does not run.
    pub(crate) controller: Option<Controller>,
    /// Counts the daemon's runs: what belongs to an earlier one is void.
    pub(crate) run: u32,
    pub(crate) wake_at: Option<Timestamp>,
    /// When the kernel is done with the operations that it was given.
    pub(crate) busy_until: Timestamp,
    pub(crate) config: Config,
    pub(crate) last_command: u64,
    pub(crate) answers: BTreeMap<CommandId, CommandOutcome>,
    pub(crate) events: Vec<(Timestamp, Event)>,
    pub(crate) routes: BTreeSet<RouteSpec>,
    /// Selectors that must not leave in clear, by tunnel: local and remote.
    pub(crate) protected: BTreeMap<TunnelName, BTreeSet<(IpNet, IpNet)>>,
    /// Control pings and the outbound SA that each went through.
    pub(crate) pings: BTreeMap<PingNonce, SaId>,
    /// Outbound SAs one of whose control pings was answered.
    pub(crate) out_proven: BTreeSet<SaId>,
    /// Inbound SAs on which something authenticated arrived.
    pub(crate) arrived: BTreeSet<SaId>,
    /// By outbound SA.
    pub(crate) epochs: BTreeMap<SaId, KnownEpoch>,
    /// Data packets that left, by outbound SA.
    pub(crate) data_sent: BTreeMap<SaId, u64>,
    /// Virtual addresses that the controller asked for.
    pub(crate) assigned: BTreeSet<IpAddr>,
    /// The host has no power.
    pub(crate) is_off: bool,
    /// It stands still: what its kernel and daemon owe each other waits in the world.
    pub(crate) is_suspended: bool,
    /// When its applications begin to send.
    pub(crate) applications_from: Timestamp,
    pub(crate) kernel_events: u64,
    pub(crate) keepalives: u64,
    pub(crate) foreign: Foreign,
    /// Until when somebody else's doing excuses what leaves in clear.
    pub(crate) exposed_until: Timestamp,
}

impl Node {
    /// The kernel, in which something happens now: its effects and its timer are looked at, and its
    /// invariants checked, at the end of the step.
    pub(crate) fn kernel_mut(&mut self) -> &mut Kernel {
        self.touched = true;
        self.rewritten = true;
        &mut self.kernel
    }

    /// The same, where packets pass and timers fire, which write no policies and no SAs.
    pub(crate) fn passing(&mut self) -> &mut Kernel {
        self.touched = true;
        &mut self.kernel
    }

    /// When it wants to do something by itself.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        if self.is_suspended {
            return None;
        }
        match (self.wake_at, self.kernel_due) {
            (Some(wake_at), Some(kernel_due)) => Some(wake_at.min(kernel_due)),
            (wake_at, kernel_due) => wake_at.or(kernel_due),
        }
    }

    /// What the daemon told its log.
    #[must_use]
    pub fn events(&self) -> &[(Timestamp, Event)] {
        &self.events
    }

    /// How many events of a kind the daemon told.
    pub fn count(&self, which: impl Fn(&EventKind) -> bool) -> usize {
        let events = self.events.iter();
        events.filter(|(_, event)| which(&event.kind)).count()
    }

    /// The answer to a command, once it is there.
    #[must_use]
    pub fn answer(&self, command: CommandId) -> Option<&CommandOutcome> {
        self.answers.get(&command)
    }

    /// The controller, while the daemon runs.
    #[must_use]
    pub fn controller(&self) -> Option<&Controller> {
        self.controller.as_ref()
    }

    /// The epochs that were announced, in the order of their numbers.
    #[must_use]
    pub fn known_epochs(&self) -> Vec<&KnownEpoch> {
        let mut epochs: Vec<&KnownEpoch> = self.epochs.values().collect();
        epochs.sort_by_key(|epoch| epoch.number);
        epochs
    }

    /// The epoch that a tunnel's `out` policies send through, as the kernel has them.
    #[must_use]
    pub fn open_epoch(&self, tunnel: &TunnelName) -> Option<&KnownEpoch> {
        let mut pinned = self.kernel.policies().filter_map(|spec| match spec.action {
            PolicyAction::Pin { sa, .. } => Some(sa),
            PolicyAction::Exempt | PolicyAction::Hold { .. } | PolicyAction::Accept { .. } => None,
        });
        pinned.find_map(|sa| {
            let epoch = self.epochs.get(&sa);
            epoch.filter(|epoch| epoch.tunnel == *tunnel && self.kernel.packets(sa).is_some())
        })
    }

    /// Data packets that left through an SA.
    #[must_use]
    pub fn data_sent_on(&self, outbound: SaId) -> u64 {
        self.data_sent.get(&outbound).copied().unwrap_or(0)
    }

    /// How often the kernel told the daemon something by itself.
    #[must_use]
    pub fn kernel_events(&self) -> u64 {
        self.kernel_events
    }

    /// NAT keepalives that the daemon sent.
    #[must_use]
    pub fn keepalives(&self) -> u64 {
        self.keepalives
    }

    /// The routes that the controller asked for.
    pub fn routes(&self) -> impl Iterator<Item = &RouteSpec> {
        self.routes.iter()
    }

    pub(crate) fn tunnel(&self, name: &TunnelName) -> Option<&TunnelConfig> {
        let mut tunnels = self.config.tunnels.iter();
        tunnels.find(|tunnel| tunnel.name == *name).map(Arc::as_ref)
    }

    pub(crate) fn role(&self, name: &TunnelName) -> Option<Role> {
        self.tunnel(name).map(|tunnel| tunnel.role)
    }

    /// Takes note of a command before the controller hears of it: what may leave in clear from now
    /// on.
    pub(crate) fn note_command(&mut self, command: &Command) {
        match command {
            Command::Down(name) => {
                self.protected.remove(name);
            }
            Command::Shutdown => {
                let config = &self.config;
                self.protected.retain(|name, _| {
                    let mut tunnels = config.tunnels.iter();
                    tunnels
                        .find(|tunnel| tunnel.name == *name)
                        .is_some_and(|tunnel| tunnel.on_stop == OnStop::Block)
                });
            }
            Command::Up(_)
            | Command::Rekey(_)
            | Command::RekeyIke(_)
            | Command::Reauthenticate(_)
            | Command::Status => {}
        }
    }

    /// Takes note of a configuration: only what it still covers must not leave in clear.
    pub(crate) fn note_config(&mut self, config: &Config) {
        self.protected.retain(|name, pairs| {
            let mut tunnels = config.tunnels.iter();
            let Some(tunnel) = tunnels.find(|tunnel| tunnel.name == *name) else {
                return false;
            };
            let still = selectors(tunnel);
            // What pools lease is known by events alone.
            let leased = tunnel.addressing.pools().is_some();
            pairs.retain(|pair| leased || still.contains(pair));
            true
        });
        self.config = config.clone();
    }

    /// Takes note of an SA at new outer addresses. On a client the new path is unproven.
    pub(crate) fn note_move(&mut self, change: &SaMove) {
        let SaMove { from, to, .. } = *change;
        match change.direction {
            SaDirection::Inbound { .. } => {
                if self.arrived.contains(&from) {
                    self.arrived.insert(to);
                }
                for epoch in self.epochs.values_mut() {
                    if epoch.inbound == from {
                        epoch.inbound = to;
                    }
                }
            }
            SaDirection::Outbound => {
                self.out_proven.remove(&from);
                self.pings.retain(|_, sa| *sa != from);
                if let Some(epoch) = self.epochs.get(&from).cloned() {
                    let outbound = to;
                    self.epochs.insert(to, KnownEpoch { outbound, ..epoch });
                }
            }
        }
    }

    /// Takes note of an event.
    pub(crate) fn note_event(&mut self, event: &Event) {
        let Some(name) = &event.tunnel else { return };
        match (&event.kind, event.epoch) {
            (EventKind::Holding, _) => {
                if let Some(tunnel) = self.tunnel(name) {
                    let pairs = selectors(tunnel);
                    self.protected
                        .entry(name.clone())
                        .or_default()
                        .extend(pairs);
                }
            }
            (EventKind::AddressesLeased { addresses }, _) => {
                let local = self.tunnel(name).map(|tunnel| tunnel.local_traffic.clone());
                let pairs = local.into_iter().flatten().flat_map(|local| {
                    let leased = addresses.iter().copied().map(IpNet::from);
                    leased.map(move |remote| (local, remote))
                });
                let pairs: Vec<(IpNet, IpNet)> = pairs.collect();
                self.protected
                    .entry(name.clone())
                    .or_default()
                    .extend(pairs);
            }
            (EventKind::EpochInstalled { inbound, outbound }, Some(number)) => {
                let outers = &self.outers;
                let sa = |spi, ours: bool| {
                    let mut sas = self.kernel.sas();
                    sas.find(|sa| sa.spi == spi && outers.contains(&sa.destination) == ours)
                };
                // Without the outbound one nothing leaves. The other may be gone already, by somebody
                // else's hand or its hard limit.
                if let Some(outbound) = sa(*outbound, false) {
                    let inbound = sa(*inbound, true).unwrap_or(SaId {
                        destination: self.outer,
                        spi: *inbound,
                    });
                    let epoch = KnownEpoch {
                        tunnel: name.clone(),
                        number,
                        inbound,
                        outbound,
                    };
                    self.epochs.insert(outbound, epoch);
                }
            }
            (_, _) => {}
        }
    }
}

fn selectors(tunnel: &TunnelConfig) -> BTreeSet<(IpNet, IpNet)> {
    let locals = tunnel.local_traffic.iter();
    locals
        .flat_map(|local| {
            let remotes = tunnel.remote_traffic.iter();
            remotes.map(move |remote| (*local, *remote))
        })
        .collect()
}
