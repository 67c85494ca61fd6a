//! A tunnel: its policies, its gate, its epochs, and the efforts to get a proven one.
//!
//! Kernel results, IKE events, ping replies, timers and the operator come in; kernel operations,
//! pings, IKE requests and events go out. Where the gate ought to be follows from the epochs alone
//! ([`Tunnel::chosen`]); [`Tunnel::settle`] moves the kernel there.

mod addressing;
mod asking;
mod child;
pub(crate) mod epoch;
pub(crate) mod gate;
mod gating;
mod kernel;
mod ladder;
mod measure;
mod path;
mod ping;
pub(crate) mod policies;
mod proof;
mod put_off;
mod renewal;
mod report;
mod session;
mod spare;
mod untying;
mod upkeep;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use epoch::{Check, Epoch, Probe, Stage};
use gate::{Gate, Position};
pub(crate) use gating::Gating;
use ladder::Effort;
use measure::Counters;
use policies::{Policies, Reqids};
use upkeep::Upkeep;

use crate::Timestamp;
use crate::config::{Role, TunnelConfig};
use crate::crypto::Crypto;
use crate::event::{EpochNumber, EventKind};
use crate::host::Host;
use crate::ike::{Assigned, ChildId, Endpoint, IkeSaId, Path, Peer, Side, TunnelId};
use crate::io::{
    AddressSpec, CommandId, CommandOutcome, IfId, Output, PolicyKey, RouteSpec, SaId, Via, XfrmOp,
};
use crate::outbox::{Outbox, Owner};

/// Epochs that one tunnel may have at a time, draining ones included: an open one, its predecessor,
/// candidates of both ends and what drains.
pub(crate) const EPOCHS_MAX: usize = 8;

/// IKE SAs that one tunnel may have at a time: an old one until the new one's epoch is proven, and
/// one of each end when both start at once.
pub(crate) const SESSIONS_MAX: usize = 4;

/// Operators that may wait for one tunnel.
const WAITERS_MAX: usize = 32;

/// What a kernel operation of a tunnel was for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Awaited {
    /// All policies into the kernel.
    Creation,
    /// The `out` policies to a new position.
    Move(Position),
    /// Policies of newly assigned addresses into the kernel.
    Amendment,
    /// One SA of an epoch into the kernel.
    Addition { epoch: EpochNumber, sa: SaId },
    /// An inbound packet counter, after a reply to a ping.
    Proof {
        epoch: EpochNumber,
        round_trip: Duration,
        /// Pings before it that were not answered.
        lost: usize,
    },
    /// An inbound packet counter, to see whether anything arrives.
    Arrival(EpochNumber),
    /// An SA to its new outer addresses.
    Relocation {
        epoch: EpochNumber,
        from: SaId,
        to: SaId,
    },
    /// An outbound packet counter, to see whether ESP keeps a NAT's memory alive.
    Departure { epoch: EpochNumber, path: Path },
    /// The policies out of the kernel.
    Removal,
    /// A packet counter, to see whether the SA is there at all.
    Presence(SaId),
    /// Policies written anew in their places: refused, they are written once more.
    Upkeep,
    /// Something whose failure changes nothing: thresholds, interfaces.
    Tidying,
}

/// What an operator waits for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Open,
    SwitchBeyond(EpochNumber),
    IkeRekeyed,
    Removed,
}

/// An IKE SA of the tunnel.
#[derive(Debug)]
struct Session {
    id: IkeSaId,
    /// Known once it is established.
    peer: Option<Peer>,
    /// When a new one is to be made beside it.
    renew_at: Option<Timestamp>,
    /// When it is looked at because it has no epoch.
    look_at: Option<Timestamp>,
    /// The latest request was not answered in time: rekeys are no use until something comes.
    silent: bool,
}

impl Session {
    /// Whose peer is not authenticated yet.
    const fn unknown(id: IkeSaId) -> Self {
        Self {
            id,
            peer: None,
            renew_at: None,
            look_at: None,
            silent: false,
        }
    }
}

/// What a tunnel needs of the world while it decides.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) ike: &'a mut Endpoint,
    pub(crate) out: &'a mut Outbox,
    pub(crate) host: &'a Host,
    pub(crate) crypto: &'a dyn Crypto,
}

/// One tunnel.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) id: TunnelId,
    /// As configured.
    pub(crate) configured: Arc<TunnelConfig>,
    /// The same, with virtual addresses as they are now.
    pub(crate) config: Arc<TunnelConfig>,
    reqids: Reqids,
    policies: Policies,
    gating: Gating,
    gate: Gate,
    epochs: Vec<Epoch>,
    last_number: EpochNumber,
    sessions: Vec<Session>,
    effort: Effort,
    /// Efforts that failed in a row.
    failures: u32,
    /// TEMPORARY_FAILUREs in a row.
    busy_answers: u32,
    /// Epochs that failed in a row on the newest session.
    failed_epochs: u32,
    /// Whether this end wants the tunnel to be open.
    wanted: bool,
    /// Whether an IKE SA was ever established in this run.
    contacted: bool,
    /// Time from us to the peer and back, as the latest IKE SA's exchanges took it.
    ike_round_trip: Option<Duration>,
    /// The peer refused to have this tunnel's Child SA on the IKE SA of another tunnel: the next
    /// attempt makes one of its own.
    solitary: bool,
    /// Why it comes to its end, once it does: nothing is started or accepted any more.
    ending: Option<&'static str>,
    routes: BTreeSet<RouteSpec>,
    /// The host's virtual addresses that are this tunnel's.
    addresses: BTreeSet<AddressSpec>,
    /// What the server assigned last.
    assigned: Assigned,
    /// Policies on their way into the kernel beside those that are there.
    amending: BTreeSet<PolicyKey>,
    policies_changed: bool,
    upkeep: Upkeep,
    wishes: Vec<(CommandId, Wish)>,
    counters: Counters,
    last_error: Option<String>,
    /// What keeps epochs from being proven, if the configuration does.
    cannot_ping: Option<String>,
}

impl Tunnel {
    /// `leased` is what the tunnel's pools have for its peer.
    pub(crate) fn new(
        id: TunnelId,
        configured: Arc<TunnelConfig>,
        reqids: Reqids,
        leased: &[IpAddr],
        gating: Gating,
    ) -> Self {
        let config = addressing::with_addresses(&configured, leased);
        Self {
            id,
            reqids,
            policies: Policies::new(&config, reqids),
            configured,
            config,
            gating,
            gate: Gate::Down,
            epochs: Vec::new(),
            last_number: EpochNumber(0),
            sessions: Vec::new(),
            effort: Effort::Rest,
            failures: 0,
            busy_answers: 0,
            failed_epochs: 0,
            wanted: false,
            contacted: false,
            ike_round_trip: None,
            solitary: false,
            ending: None,
            routes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            assigned: Assigned::default(),
            amending: BTreeSet::new(),
            policies_changed: false,
            upkeep: Upkeep::default(),
            wishes: Vec::new(),
            counters: Counters::default(),
            last_error: None,
            cannot_ping: None,
        }
    }

    pub(crate) fn reqids(&self) -> Reqids {
        self.reqids
    }

    pub(crate) fn policy_keys(&self) -> Vec<PolicyKey> {
        self.policies.keys()
    }

    /// The operator wants it open.
    pub(crate) fn up(&mut self, command: CommandId, cx: &mut Context<'_>) {
        if self.gate.open_epoch().is_some() {
            cx.out.push(Output::Answer(command, CommandOutcome::Done));
            return;
        }
        if self.config.remote.address.is_none() && self.epochs.is_empty() {
            let text = format!(
                "tunnel {} waits for its peer: remote.address is %any, so only the peer can start",
                self.config.name
            );
            self.start(&BTreeSet::new(), cx);
            cx.out
                .push(Output::Answer(command, CommandOutcome::Failed(text)));
            return;
        }
        self.wish(command, Wish::Open, cx);
        self.start(&BTreeSet::new(), cx);
        self.wanted = true;
        self.failures = 0;
        self.pursue("asked for", cx);
        self.tell_hopeless(cx);
    }

    /// The operator wants a new epoch.
    pub(crate) fn rekey(&mut self, command: CommandId, cx: &mut Context<'_>) {
        if self.gate.is_down() {
            let text = format!(
                "tunnel {0} is down: run `epochgate up {0}`",
                self.config.name
            );
            cx.out
                .push(Output::Answer(command, CommandOutcome::Failed(text)));
            return;
        }
        let open = self.gate.open_epoch().unwrap_or(EpochNumber(0));
        self.wish(command, Wish::SwitchBeyond(open), cx);
        self.wanted |= self.config.remote.address.is_some();
        self.failures = 0;
        self.pursue("asked for", cx);
    }

    /// The operator, or a configuration without it, wants it gone.
    pub(crate) fn down(&mut self, command: Option<CommandId>, cx: &mut Context<'_>) {
        self.answer_all(
            |_| true,
            &CommandOutcome::Failed(format!("tunnel {} was taken down", self.config.name)),
            cx,
        );
        let was_down = self.gate.is_down();
        let own = self.own_policies();
        self.wanted = false;
        self.effort = Effort::Rest;
        self.gate = Gate::Down;
        match command {
            Some(command) if own.is_empty() => {
                cx.out.push(Output::Answer(command, CommandOutcome::Done));
            }
            Some(command) => self.wish(command, Wish::Removed, cx),
            None => {}
        }
        if !own.is_empty() {
            cx.out.xfrm(
                Owner::Tunnel(self.id, Awaited::Removal),
                XfrmOp::RemovePolicies(own.into_iter().collect()),
            );
        }
        self.remove_all_sas(cx);
        self.close_sessions(cx);
        self.sync_routes(cx);
        self.forget_addresses(cx);
        if !was_down && let Some(if_id) = self.if_id() {
            cx.out.xfrm(Owner::Nobody, XfrmOp::RemoveInterface(if_id));
        }
        if !was_down {
            self.event(cx, None, EventKind::Down);
        }
    }

    /// The daemon stops: policies hold on, or go, as `on-stop` says; SAs go.
    pub(crate) fn stop(&mut self, cx: &mut Context<'_>) {
        self.ending = Some("the daemon stops");
        if matches!(self.config.on_stop, crate::config::OnStop::Remove) {
            if !self.gate.is_down() {
                self.down(None, cx);
            }
            return;
        }
        self.halt("the daemon stops", cx);
    }

    /// Ends all negotiation and all SAs; the policies hold, and the routes stay: without them the
    /// host would send from another address, past the policies and in clear.
    fn halt(&mut self, why: &'static str, cx: &mut Context<'_>) {
        self.ending = Some(why);
        let outcome = CommandOutcome::Failed(format!("tunnel {}: {why}", self.config.name));
        self.answer_all(|_| true, &outcome, cx);
        self.wanted = false;
        self.effort = Effort::Rest;
        self.drain_all(cx);
        self.settle(cx);
        self.remove_all_sas(cx);
        self.close_sessions(cx);
    }

    /// Its configuration changed or vanished. Its policies stay, holding, and its routes stay, for
    /// whoever takes them over: both are returned.
    pub(crate) fn leave(
        &mut self,
        why: &'static str,
        cx: &mut Context<'_>,
    ) -> (BTreeSet<PolicyKey>, BTreeSet<RouteSpec>) {
        self.halt(why, cx);
        (self.own_policies(), std::mem::take(&mut self.routes))
    }

    /// Routes of its former configuration, which stay until it is known which it needs.
    pub(crate) fn inherit_routes(&mut self, routes: BTreeSet<RouteSpec>) {
        self.routes.extend(routes);
    }

    /// Whether it has no policies in the kernel.
    pub(crate) fn is_down(&self) -> bool {
        self.gate.is_down()
    }

    /// A route of this tunnel could not be added.
    pub(crate) fn route_failed(&mut self, route: RouteSpec, error: &str, cx: &mut Context<'_>) {
        if self.routes.contains(&route) {
            self.attention(format!("no route to {}: {error}", route.destination), cx);
        }
    }

    /// Whether nothing of it is left with the peer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The addresses of this host changed.
    pub(crate) fn addresses_changed(&mut self, cx: &mut Context<'_>) {
        self.announce(cx);
        self.sync_routes(cx);
        self.look_for_paths(cx);
        self.hurry(cx);
        let blocked: Vec<EpochNumber> = self
            .epochs
            .iter()
            .filter(|epoch| self.cannot_ping.is_some() && epoch.is_candidate())
            .map(|epoch| epoch.number)
            .collect();
        for number in blocked {
            if let Some(pings) = self.epoch_mut(number).and_then(Epoch::pings_mut) {
                pings.restart(cx.now);
            }
        }
    }

    /// The machine slept, or this program did not run: nobody knows what became of the epochs.
    pub(crate) fn resumed(&mut self, cx: &mut Context<'_>) {
        let proves = self.proves();
        for epoch in &mut self.epochs {
            if let Stage::Usable(usable) = &mut epoch.stage {
                usable.check = if proves {
                    Check::Pinging(Probe::holding(cx.now))
                } else {
                    Check::Quiet { until: cx.now }
                };
            }
        }
        self.hurry(cx);
        self.settle(cx);
        self.handle_timeout(cx);
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let mut due = match &self.gate {
            Gate::Down | Gate::Creating { .. } => None,
            Gate::Refused { again, .. } => Some(*again),
            Gate::Present(present) => Some(present.again),
        };
        let mut at = |time: Timestamp| due = Some(due.map_or(time, |due| due.min(time)));
        let others = [
            self.effort.due(),
            self.renewal_due(),
            self.upkeep_due(),
            self.spare_due(),
        ];
        others.into_iter().flatten().for_each(&mut at);
        for epoch in &self.epochs {
            if epoch.relocation.is_some() {
                // Its pings begin when the kernel has its SAs where they belong.
                continue;
            }
            if !epoch.is_draining() {
                epoch.retire_at.into_iter().for_each(&mut at);
            }
            match &epoch.stage {
                Stage::Installing(_) => {}
                Stage::Proving(proving) => {
                    proving.pings.due().into_iter().for_each(&mut at);
                }
                Stage::Awaiting { poll_at, pings, .. } => {
                    at(*poll_at);
                    pings
                        .iter()
                        .filter_map(|pings| pings.due())
                        .for_each(&mut at);
                }
                Stage::Usable(usable) => {
                    at(usable.rekey_at);
                    match &usable.check {
                        Check::Quiet { until } => at(*until),
                        Check::Pinging(probe) => {
                            probe.pings.due().into_iter().for_each(&mut at);
                        }
                        Check::Doubted(pings) => {
                            pings.due().into_iter().for_each(&mut at);
                        }
                    }
                }
                // What the gate has not left yet goes when it has, whenever that is.
                Stage::Draining { inbound_until } => {
                    if !self.gate.uses(epoch.number) {
                        at(*inbound_until);
                    }
                }
            }
        }
        due
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.gate_timeout(cx);
        let numbers: Vec<EpochNumber> = self.epochs.iter().map(|epoch| epoch.number).collect();
        for number in numbers {
            self.epoch_timeout(number, cx);
        }
        self.settle(cx);
        self.sweep(cx);
        self.effort_timeout(cx);
        self.renewal_timeout(cx);
        self.spare_timeout(cx);
    }

    fn epoch(&self, number: EpochNumber) -> Option<&Epoch> {
        self.epochs.iter().find(|epoch| epoch.number == number)
    }

    fn epoch_mut(&mut self, number: EpochNumber) -> Option<&mut Epoch> {
        self.epochs.iter_mut().find(|epoch| epoch.number == number)
    }

    fn number_of(&self, child: ChildId) -> Option<EpochNumber> {
        let epoch = self.epochs.iter().find(|epoch| epoch.child == child)?;
        Some(epoch.number)
    }

    fn peer_of(&self, session: IkeSaId) -> Option<&Peer> {
        let session = self.sessions.iter().find(|known| known.id == session)?;
        session.peer.as_ref()
    }

    fn is_client(&self) -> bool {
        match self.config.role {
            Role::Client => true,
            Role::Server => false,
        }
    }

    /// Whether this end proves paths before it uses them.
    fn proves(&self) -> bool {
        self.is_client() && self.gating.proves()
    }

    /// Whether this end sends on a new epoch only when something has arrived on it (R8).
    ///
    /// One that need not wait does when its client rekeys while an epoch is open: it moves when
    /// something arrives, or when the old epoch is deleted, as other IKE daemons do.
    fn awaits(&self, started_by: Side) -> bool {
        let is_rekeyed = started_by == Side::Peer && self.chosen() != Position::Held;
        !self.is_client() && self.gating.proves() && (self.config.epoch.wait || is_rekeyed)
    }

    /// Where the gate ought to be: at the latest epoch that may carry traffic.
    fn chosen(&self) -> Position {
        let usable = self.epochs.iter().filter(|epoch| epoch.is_usable());
        usable
            .map(|epoch| epoch.number)
            .max()
            .map_or(Position::Held, Position::Open)
    }

    fn wish(&mut self, command: CommandId, wish: Wish, cx: &mut Context<'_>) {
        if self.wishes.len() >= WAITERS_MAX {
            let text = format!("too many requests wait for tunnel {}", self.config.name);
            cx.out
                .push(Output::Answer(command, CommandOutcome::Failed(text)));
            return;
        }
        self.wishes.push((command, wish));
    }

    fn answer_all(
        &mut self,
        which: impl Fn(Wish) -> bool,
        outcome: &CommandOutcome,
        cx: &mut Context<'_>,
    ) {
        self.wishes.retain(|&(command, wish)| {
            let answered = which(wish);
            if answered {
                cx.out.push(Output::Answer(command, outcome.clone()));
            }
            !answered
        });
    }

    fn event(&self, cx: &mut Context<'_>, epoch: Option<EpochNumber>, kind: EventKind) {
        cx.out.event(&self.config.name, epoch, kind);
    }

    /// Tells the peers-to-be which address of ours answers pings.
    fn announce(&mut self, cx: &mut Context<'_>) {
        let address = cx.host.inside(&self.config.local_traffic, None);
        cx.ike.set_announcement(self.id, address);
    }

    fn sync_routes(&mut self, cx: &mut Context<'_>) {
        let wanted = if self.config.template.routes && !self.gate.is_down() {
            self.wanted_routes(cx.host)
        } else {
            BTreeSet::new()
        };
        for route in self.routes.difference(&wanted) {
            cx.out.push(Output::RemoveRoute(*route));
        }
        for route in wanted.difference(&self.routes) {
            cx.out.push(Output::AddRoute(*route));
        }
        self.routes = wanted;
    }

    /// The number of its xfrm interface, if it is route-based.
    fn if_id(&self) -> Option<IfId> {
        self.config.interface.as_ref().and(self.reqids.if_id())
    }

    fn wanted_routes(&self, host: &Host) -> BTreeSet<RouteSpec> {
        let peer = self.peer_address();
        let interface = self.if_id();
        let route = |&destination: &ipnet::IpNet| {
            let source = host.inside(&self.config.local_traffic, Some(destination.addr()));
            let via = match interface {
                Some(interface) => Via::Interface(interface),
                // Without a source of ours the host's own route does as well.
                None => {
                    source?;
                    Via::Peer(peer?)
                }
            };
            Some(RouteSpec {
                destination,
                source,
                via,
            })
        };
        let remote = &self.config.remote_traffic;
        // The way to the peer itself must not lead into the tunnel.
        let within = |peer: &IpAddr| remote.iter().any(|network| network.contains(peer));
        let around = peer.filter(|peer| interface.is_some() && within(peer));
        let around = around.map(|peer| RouteSpec {
            destination: peer.into(),
            source: None,
            via: Via::Peer(peer),
        });
        around
            .into_iter()
            .chain(remote.iter().filter_map(route))
            .collect()
    }

    /// The peer's outer address: configured, or the one that it came from.
    fn peer_address(&self) -> Option<IpAddr> {
        let mut last = self.epochs.iter().map(|epoch| epoch.outbound.destination);
        self.config.remote.address.or_else(|| last.next_back())
    }
}
