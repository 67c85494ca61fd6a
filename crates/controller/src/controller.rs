//! The one type that decides: routes inputs to IKE and to the tunnels, and collects their effects.

mod addresses;
mod registry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, OnStop, TunnelConfig, TunnelName};
use crate::crypto::Crypto;
use crate::event::{Event, EventKind};
use crate::host::Host;
use crate::ike::{Endpoint, IkeEvent, IkeOutput, Limits, TunnelId};
use crate::io::{
    AddressSpec, Command, CommandId, CommandOutcome, FoundSa, IfId, Input, OpId, Output, PolicyKey,
    PolicyScope, RouteSpec, SaId, WakeReason, XfrmError, XfrmEvent, XfrmOp, XfrmReply,
};
use crate::leases::Leases;
use crate::outbox::{Outbox, Owner};
use crate::pki::UnixTime;
use crate::status::{STATUS_SCHEMA, StatusReport};
use crate::tunnel::{Context, Gating, Tunnel};
use crate::{REQIDS, Timestamp};

use registry::Registry;

/// A timer that is so late means that the machine was suspended, or this program was not run.
const OVERSLEPT: Duration = Duration::from_secs(5);

/// How long a stop waits for the peers' and the kernel's answers.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Decides everything; performs nothing.
pub struct Controller {
    crypto: Arc<dyn Crypto>,
    ike: Endpoint,
    out: Outbox,
    host: Host,
    tunnels: Registry,
    leases: Leases,
    /// Virtual addresses that an earlier run left.
    left_addresses: BTreeSet<AddressSpec>,
    last_id: u32,
    gating: Gating,
    phase: Phase,
    now: Timestamp,
    /// When the shell was asked to come back at the latest.
    wake_at: Option<Timestamp>,
}

/// Time until the kernel is asked again for what an earlier run left: a dump fails where somebody
/// changes what is dumped (NLM_F_DUMP_INTR), or for want of memory.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The run's course.
#[derive(Debug)]
enum Phase {
    /// No configuration yet.
    Fresh,
    /// What an earlier run left is being read, or will be again.
    TakingOver {
        config: Config,
        again: Option<Timestamp>,
    },
    Running,
    /// Everything ends; the answer is given at the latest at `until`.
    Stopping {
        answer: CommandId,
        until: Timestamp,
    },
    Stopped,
}

/// What is in the kernel already when tunnels are set up.
struct Left {
    /// Policies of an earlier run or configuration.
    policies: BTreeSet<PolicyKey>,
    /// Routes of tunnels that changed or vanished.
    routes: BTreeMap<TunnelName, BTreeSet<RouteSpec>>,
    /// Virtual addresses of those.
    addresses: BTreeMap<TunnelName, BTreeSet<AddressSpec>>,
}

impl Controller {
    /// A controller without tunnels; [`Input::Configure`] comes first.
    #[must_use]
    pub fn new(crypto: Arc<dyn Crypto>) -> Self {
        Self {
            ike: Endpoint::new(Arc::clone(&crypto), Limits::default()),
            crypto,
            out: Outbox::default(),
            host: Host::default(),
            tunnels: Registry::default(),
            leases: Leases::default(),
            left_addresses: BTreeSet::new(),
            last_id: 0,
            gating: Gating::Proven,
            phase: Phase::Fresh,
            now: Timestamp::ZERO,
            wake_at: None,
        }
    }

    /// A controller whose tunnels use SAs as soon as they are negotiated, without proof: what
    /// `scripts/evaluate` compares with.
    #[cfg(feature = "ungated")]
    #[must_use]
    pub fn ungated(crypto: Arc<dyn Crypto>) -> Self {
        Self {
            gating: Gating::Negotiated,
            ..Self::new(crypto)
        }
    }

    /// Tells the wall-clock time, which certificates are judged by; it may jump. Before the first
    /// time nobody is believed by a certificate.
    pub fn set_wall_clock(&mut self, now: UnixTime) {
        self.ike.set_wall_clock(now);
    }

    /// Takes one input. Drain [`Self::poll_output`] afterwards.
    ///
    /// Time never goes back: an earlier `now` than before counts as the one before.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        self.now = self.now.max(now);
        let wake_at = self.wake_at.take();
        if wake_at.is_some_and(|at| self.now > at + OVERSLEPT) {
            self.each_tunnel(Tunnel::resumed);
        }
        match input {
            Input::Datagram(datagram) => self.ike.handle_datagram(&datagram, self.now),
            Input::XfrmDone { op, result } => self.xfrm_done(op, result),
            Input::Xfrm(event) => self.xfrm_event(event),
            Input::PingReply { nonce, from } => {
                let replied = |tunnel: &mut Tunnel, cx: &mut Context<'_>| {
                    tunnel.ping_replied(nonce, from, cx)
                };
                if let Some(id) = self.tunnels.with_ping(nonce)
                    && self.with_tunnel(id, replied) == Some(true)
                {
                    self.tunnels.forget_ping(nonce);
                }
            }
            Input::PingFailed { nonce, error } => {
                if let Some(id) = self.tunnels.with_ping(nonce) {
                    self.with_tunnel(id, |tunnel, cx| {
                        tunnel.ping_failed(nonce, &error, cx.now);
                    });
                }
            }
            Input::SourceFound {
                destination,
                source,
            } => {
                if let Some(id) = self.tunnels.take_seeker(destination) {
                    self.with_tunnel(id, |tunnel, cx| {
                        tunnel.source_found(destination, &source, cx);
                    });
                }
            }
            Input::RouteFailed { route, error } => self.each_tunnel(|tunnel, cx| {
                tunnel.route_failed(route, &error, cx);
            }),
            Input::LeftAddresses(addresses) => self.left_addresses.extend(addresses),
            Input::AddressFailed { address, error } => self.each_tunnel(|tunnel, cx| {
                tunnel.address_failed(&address, &error, cx);
            }),
            Input::Addresses(addresses) => {
                self.ike.host_addresses_changed(addresses.clone(), self.now);
                self.host.set_addresses(addresses);
                self.each_tunnel(Tunnel::addresses_changed);
            }
            Input::Configure(config) => self.configure(config),
            Input::Command(id, command) => self.command(id, command),
            Input::Timeout => {
                self.read_again();
                self.out.handle_timeout(self.now);
                self.ike.handle_timeout(self.now);
                for id in self.tunnels.due(self.now) {
                    self.with_tunnel(id, Tunnel::handle_timeout);
                }
            }
        }
        self.drain_ike();
        self.check_stopped();
    }

    /// The next effect; [`Output::Wait`] when there is none for now.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.out.pop() {
            return output;
        }
        let ike = self.ike.next_timeout().map(|at| (at, WakeReason::Ike));
        let tunnel = self.tunnels.next_timeout();
        let tunnel = tunnel.map(|at| (at, WakeReason::Tunnel));
        let stop = match &self.phase {
            Phase::Stopping { until, .. } => Some((*until, WakeReason::Tunnel)),
            Phase::TakingOver { again, .. } => again.map(|again| (again, WakeReason::Tunnel)),
            Phase::Fresh | Phase::Running | Phase::Stopped => None,
        };
        let removal = self.out.next_timeout();
        let removal = removal.map(|at| (at, WakeReason::Tunnel));
        let earliest = [ike, tunnel, removal, stop]
            .into_iter()
            .flatten()
            .min_by_key(|due| due.0);
        self.wake_at = earliest.map(|(at, _)| at);
        match earliest {
            Some((at, why)) => Output::Wait(Some(at), why),
            None => Output::Wait(None, WakeReason::Idle),
        }
    }

    /// Hands a tunnel everything that it needs to decide.
    fn with_tunnel<R>(
        &mut self,
        id: TunnelId,
        act: impl FnOnce(&mut Tunnel, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let tunnel = self.tunnels.get_mut(id)?;
        let before = self.out.len();
        let mut cx = Context {
            now: self.now,
            ike: &mut self.ike,
            out: &mut self.out,
            host: &self.host,
            crypto: &*self.crypto,
        };
        let result = act(tunnel, &mut cx);
        self.tunnels.refresh(id);
        self.tunnels.note(id, self.out.since(before), self.now);
        Some(result)
    }

    fn each_tunnel(&mut self, mut act: impl FnMut(&mut Tunnel, &mut Context<'_>)) {
        for id in self.tunnels.ids() {
            self.with_tunnel(id, &mut act);
        }
    }

    fn drain_ike(&mut self) {
        while let Some(output) = self.ike.poll() {
            match output {
                IkeOutput::Transmit(datagram) => self.out.push(Output::Datagram(datagram)),
                IkeOutput::Event { sa, tunnel, event } => {
                    if matches!(event, IkeEvent::AddressWanted) {
                        self.find_address(tunnel);
                    }
                    self.with_tunnel(tunnel, |tunnel, cx| tunnel.handle_ike(sa, event, cx));
                }
                IkeOutput::Stranger { remote, reason } => {
                    let reason = format!("{remote}: {reason}");
                    self.tell(EventKind::Attention { reason });
                }
            }
        }
    }

    fn xfrm_done(&mut self, op: OpId, result: Result<XfrmReply, XfrmError>) {
        match self.out.finished(op) {
            Some(Owner::TakeOver) => self.take_over(result),
            Some(Owner::Tunnel(id, awaited)) => {
                self.with_tunnel(id, |tunnel, cx| tunnel.xfrm_done(awaited, result, cx));
            }
            Some(Owner::Leftovers(id)) => self.leftovers_read(id, result),
            Some(Owner::SaRemoval { sa, attempt }) => {
                let error = result.err();
                let last =
                    error.and_then(|error| self.out.sa_not_removed(sa, attempt, error, self.now));
                if let Some(error) = last {
                    let reason = format!("an SA could not be removed: {error}");
                    self.tell(EventKind::Attention { reason });
                }
            }
            Some(Owner::Nobody) | None => {}
        }
    }

    /// Lets a tunnel take over what of its policies is in the kernel, other tunnels' excepted.
    fn leftovers_read(&mut self, id: TunnelId, result: Result<XfrmReply, XfrmError>) {
        let Ok(XfrmReply::Ours { policies, .. }) = result else {
            // It asks again.
            return;
        };
        let mut found: BTreeSet<PolicyKey> = policies.into_iter().collect();
        for (other, tunnel) in self.tunnels.iter() {
            if other != id {
                for key in tunnel.own_policies() {
                    found.remove(&key);
                }
            }
        }
        self.with_tunnel(id, |tunnel, cx| tunnel.leftovers_read(&found, cx));
    }

    fn xfrm_event(&mut self, event: XfrmEvent) {
        let concerned = match event {
            XfrmEvent::Acquire { reqid } => self.tunnels.with_hold_reqid(reqid),
            XfrmEvent::FirstPacket(sa)
            | XfrmEvent::Expired(sa)
            | XfrmEvent::SaRemoved(sa)
            | XfrmEvent::MappingChanged { sa, .. } => self.tunnels.with_sa(sa),
            XfrmEvent::PolicyRemoved(key) => self.tunnels.with_policy(key),
            XfrmEvent::Overrun => {
                self.each_tunnel(|tunnel, cx| tunnel.xfrm_event(event, cx));
                None
            }
        };
        if let Some(id) = concerned {
            self.with_tunnel(id, |tunnel, cx| tunnel.xfrm_event(event, cx));
        }
    }

    fn configure(&mut self, config: Config) {
        match &mut self.phase {
            Phase::Fresh => {
                self.out.xfrm(Owner::TakeOver, XfrmOp::ReadOurs);
                let again = None;
                self.phase = Phase::TakingOver { config, again };
            }
            Phase::TakingOver {
                config: waiting, ..
            } => *waiting = config,
            Phase::Running => self.reconfigure(config),
            Phase::Stopping { .. } | Phase::Stopped => {}
        }
    }

    /// Reads what an earlier run left, where that failed before.
    fn read_again(&mut self) {
        if let Phase::TakingOver { again, .. } = &mut self.phase
            && again.take_if(|again| *again <= self.now).is_some()
        {
            self.out.xfrm(Owner::TakeOver, XfrmOp::ReadOurs);
        }
    }

    /// Starts on top of what an earlier run left: its policies are updated to hold, what nobody
    /// configures any more is removed, and so are its SAs (their keys' counters are lost).
    fn take_over(&mut self, left: Result<XfrmReply, XfrmError>) {
        let Phase::TakingOver { config, again } = &mut self.phase else {
            return;
        };
        let (policies, sas) = match left {
            Ok(XfrmReply::Ours { policies, sas }) => (policies, sas),
            Ok(XfrmReply::Done | XfrmReply::Packets(_)) => (Vec::new(), Vec::new()),
            Err(error) => {
                // Without it SAs would stay, and policies be taken for somebody else's.
                *again = Some(self.now + READ_AGAIN);
                let reason = format!("what an earlier run left could not be read yet: {error}");
                self.tell(EventKind::Attention { reason });
                return;
            }
        };
        let config = std::mem::take(config);
        self.phase = Phase::Running;
        let policies: BTreeSet<PolicyKey> = policies.into_iter().collect();
        let found = policies.len();
        let routes = BTreeMap::new();
        let addresses = self.owner_of_left_addresses(&config);
        let left = Left {
            policies,
            routes,
            addresses,
        };
        let stale = self.set_tunnels(config, left);
        let sas: Vec<FoundSa> = sas
            .into_iter()
            .filter(|sa| REQIDS.contains(&sa.reqid))
            .collect();
        for sa in &sas {
            self.out.remove_sa(sa.id);
        }
        if found > 0 || !sas.is_empty() {
            self.tell(EventKind::TookOver {
                policies: found - stale,
                sas: sas.len(),
            });
        }
    }

    /// Tunnels that did not change go on undisturbed; those that did start anew without a moment
    /// in clear; those that vanished go down, unless another one now has their traffic: then their
    /// policies are its.
    fn reconfigure(&mut self, config: Config) {
        let mut policies = BTreeSet::new();
        let mut routes = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        let wanted: BTreeMap<TunnelName, Arc<TunnelConfig>> = config
            .tunnels
            .iter()
            .map(|tunnel| (tunnel.name.clone(), Arc::clone(tunnel)))
            .collect();
        for id in self.tunnels.ids() {
            let Some(tunnel) = self.tunnels.get(id) else {
                continue;
            };
            let name = tunnel.config.name.clone();
            let new = wanted.get(&name);
            if new.is_some_and(|new| *new == tunnel.configured) {
                continue;
            }
            let why = match new {
                Some(_) => "its configuration changed",
                None => "the configuration does not name it any more",
            };
            let taken = self.with_tunnel(id, |tunnel, cx| {
                let left = tunnel.leave(why, cx);
                (left, tunnel.take_addresses())
            });
            if let Some((left, host_addresses)) = taken {
                policies.extend(left.0);
                routes.insert(name.clone(), left.1);
                addresses.insert(name, host_addresses);
            }
            self.leases.release(id);
            self.out.disown(id);
            self.tunnels.remove(id);
        }
        let left = Left {
            policies,
            routes,
            addresses,
        };
        self.set_tunnels(config, left);
    }

    /// Adds the tunnels that are not there yet, on top of what is `left`, and removes what of that
    /// nobody took over. Returns how many policies those are.
    fn set_tunnels(&mut self, config: Config, mut left: Left) -> usize {
        let mut added = Vec::new();
        for tunnel in config.tunnels {
            if self.tunnels.named(&tunnel.name).is_some() {
                continue;
            }
            self.last_id += 1;
            let id = TunnelId(self.last_id);
            let reqids = self.tunnels.free_reqids(&tunnel.name);
            let routes = left.routes.remove(&tunnel.name).unwrap_or_default();
            let leased = self.leases.take(id, &tunnel, &self.host);
            let asks = tunnel.addressing.request().is_some();
            let addresses = asks.then(|| left.addresses.remove(&tunnel.name)).flatten();
            let mut tunnel = Tunnel::new(id, tunnel, reqids, &leased, self.gating);
            tunnel.inherit_routes(routes);
            tunnel.inherit_addresses(addresses.unwrap_or_default());
            self.tunnels.insert(id, tunnel);
            added.push(id);
        }
        let pad: BTreeMap<TunnelId, Arc<TunnelConfig>> = self
            .tunnels
            .iter()
            .map(|(id, tunnel)| (id, Arc::clone(tunnel.negotiated_by())))
            .collect();
        self.ike.configure(pad);
        self.ike.limit_half_open(&config.half_open);
        for id in added {
            self.with_tunnel(id, |tunnel, cx| tunnel.start(&left.policies, cx));
        }
        let kept: BTreeSet<PolicyKey> = self
            .tunnels
            .values()
            .flat_map(Tunnel::policy_keys)
            .collect();
        let stale: Vec<PolicyKey> = left.policies.difference(&kept).copied().collect();
        let count = stale.len();
        let interface_of = |key: &PolicyKey| match key.scope {
            PolicyScope::RoutedTo(if_id) | PolicyScope::Of(if_id) => Some(if_id),
            PolicyScope::Everything | PolicyScope::PingsOf(_) => None,
        };
        let used: BTreeSet<IfId> = kept.iter().filter_map(interface_of).collect();
        let unused: BTreeSet<IfId> = stale.iter().filter_map(interface_of).collect();
        if count > 0 {
            self.out.xfrm(Owner::Nobody, XfrmOp::RemovePolicies(stale));
        }
        for if_id in unused.difference(&used) {
            self.out
                .xfrm(Owner::Nobody, XfrmOp::RemoveInterface(*if_id));
        }
        for address in left.addresses.into_values().flatten() {
            self.out.push(Output::RemoveAddress(address));
        }
        for (name, routes) in left.routes {
            for route in routes {
                self.out.push(Output::RemoveRoute(route));
            }
            self.out.event(&name, None, EventKind::Down);
        }
        count
    }

    fn command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Up(name) => self.named(id, &name, |tunnel, cx| tunnel.up(id, cx)),
            Command::Down(name) => self.named(id, &name, |tunnel, cx| tunnel.down(Some(id), cx)),
            Command::Rekey(name) => self.named(id, &name, |tunnel, cx| tunnel.rekey(id, cx)),
            Command::RekeyIke(name) => {
                self.named(id, &name, |tunnel, cx| tunnel.rekey_ike(id, cx));
            }
            Command::Reauthenticate(name) => {
                self.named(id, &name, |tunnel, cx| tunnel.reauthenticate(id, cx));
            }
            Command::Status => {
                let report = Box::new(self.status());
                self.out
                    .push(Output::Answer(id, CommandOutcome::Status(report)));
            }
            Command::Shutdown => {
                self.each_tunnel(Tunnel::stop);
                self.phase = Phase::Stopping {
                    answer: id,
                    until: self.now + STOP_PATIENCE,
                };
            }
        }
    }

    fn named(
        &mut self,
        command: CommandId,
        name: &TunnelName,
        act: impl FnOnce(&mut Tunnel, &mut Context<'_>),
    ) {
        let found = self.tunnels.named(name);
        if let (Phase::Running, Some(id)) = (&self.phase, found) {
            self.with_tunnel(id, act);
            return;
        }
        let text = match (&self.phase, found) {
            (Phase::Fresh | Phase::TakingOver { .. }, _) => {
                "the daemon is still starting".to_owned()
            }
            (Phase::Stopping { .. } | Phase::Stopped, _) => "the daemon is stopping".to_owned(),
            (Phase::Running, _) => format!(
                "there is no tunnel {name}; configured are: {}",
                self.names().join(", ")
            ),
        };
        self.out
            .push(Output::Answer(command, CommandOutcome::Failed(text)));
    }

    fn names(&self) -> Vec<String> {
        self.tunnels
            .values()
            .map(|tunnel| tunnel.config.name.to_string())
            .collect()
    }

    /// What `status` tells.
    #[must_use]
    pub fn status(&self) -> StatusReport {
        StatusReport {
            schema: STATUS_SCHEMA,
            tunnels: self
                .tunnels
                .values()
                .map(|tunnel| tunnel.status(&self.ike, self.now))
                .collect(),
        }
    }

    fn check_stopped(&mut self) {
        let Phase::Stopping { answer, until } = self.phase else {
            return;
        };
        let quiet = self.tunnels.values().all(Tunnel::is_quiet) && !self.out.is_busy();
        if quiet || until <= self.now {
            self.out.push(Output::Answer(answer, CommandOutcome::Done));
            self.phase = Phase::Stopped;
        }
    }

    /// Whether a policy of ours stays in the kernel when this controller has stopped.
    #[must_use]
    pub fn leaves_policies(&self) -> bool {
        self.tunnels
            .values()
            .any(|tunnel| tunnel.config.on_stop == OnStop::Block && !tunnel.is_down())
    }

    /// The SAs that are in use, for a shell that watches the kernel.
    #[must_use]
    pub fn owns_sa(&self, sa: SaId) -> bool {
        self.tunnels.with_sa(sa).is_some()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.ike
    }

    fn tell(&mut self, kind: EventKind) {
        self.out.push(Output::Event(Event {
            tunnel: None,
            epoch: None,
            kind,
        }));
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("phase", &self.phase)
            .field("tunnels", &self.names())
            .finish_non_exhaustive()
    }
}
