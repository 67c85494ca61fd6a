//! Whether everything came back once it was healed (I5), and left nothing behind.

use std::collections::BTreeSet;
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::config::POLICIES_RETRY_MAX;

use super::perform::milliseconds;
use super::run::Play;
use super::{Act, Action, End, Harm, NatPlan, Operation};
use crate::invariants::Violation;
use crate::packet::{Body, FlowId};

/// How often it is looked whether a tunnel is back.
const LOOK: Duration = Duration::from_millis(100);

/// How long traffic is watched once it ought to flow.
const WATCH: Duration = Duration::from_secs(3);

/// Between two watched packets.
const WATCH_INTERVAL: Duration = Duration::from_millis(41);

/// Longest way of a packet that is not held.
const WAY_MAX: Duration = Duration::from_secs(1);

/// By then old epochs and IKE SAs are gone: the longest wait is IKE's patience with a peer that
/// vanished.
const TIDY: Duration = Duration::from_secs(200);

/// How much longer it may take where several servers race: each client's tries are a random walk
/// against the other's. The longest one that a search has found took 2.8 times the bound.
const RACE_ROUNDS: u32 = 4;

/// How often it is looked whether all is tidy.
const TIDY_LOOK: Duration = Duration::from_millis(500);

impl Play<'_> {
    pub(super) fn recovery(&mut self) -> Result<(), Violation> {
        let healed = self.office.world.now();
        // The answer to an earlier ping may be under way, although who sent it has since been killed
        // or suspended, or the way there has died: what a proof of then releases may be lost.
        let round_trip = Duration::from_millis(2 * u64::from(self.scenario.delay_ms));
        self.office.world.run_for(round_trip + self.lag())?;
        let held = self.held();
        self.await_open(healed)?;
        self.await_flowing(healed)?;
        self.expect_delivered(&held)?;
        self.await_tidy()
    }

    /// How much longer than a way takes there may be something under way that was held up.
    fn lag(&self) -> Duration {
        let mut longest = 0;
        for act in &self.scenario.acts {
            if let Action::Jitter { up_to_ms: more, .. }
            | Action::Disturb {
                harm: Harm::Delay(more),
                ..
            } = act.action
            {
                longest = longest.max(more);
            }
        }
        milliseconds(longest)
    }

    /// Waits for every tunnel, each within its own bound.
    fn await_open(&mut self, healed: Timestamp) -> Result<(), Violation> {
        let count = self.scenario.tunnels.len();
        let mut open = vec![None; count];
        while open.contains(&None) {
            self.office.world.run_for(LOOK)?;
            let passed = self.office.world.now().since(healed);
            for (number, reached) in open.iter_mut().enumerate() {
                if reached.is_none() && self.is_open(number) {
                    *reached = Some(passed);
                }
                let bound = self.bound(number);
                if reached.is_none() && passed >= bound {
                    let what = format!(
                        "tunnel {number} is not open {bound:?} after everything was healed; \
                         client: {}; server: {}",
                        self.summary(End::Client(number)),
                        self.summary(End::Server(number)),
                    );
                    return Err(self.office.world.violation("I5 (open)", what));
                }
            }
        }
        self.recovered = open.into_iter().flatten().collect();
        Ok(())
    }

    /// A tunnel's own promise. Behind VPN Masquerade one client at a time may begin, for as long as
    /// the NAT awaits the answer, and what it guesses wrong costs another round: there each client
    /// has the others' time besides its own. An address that a client has left is one more client to
    /// such a NAT, which goes on taking it for the latest one while the IKE SA of then still sends.
    /// Where servers race each has [`RACE_ROUNDS`] times that.
    fn bound(&self, number: usize) -> Duration {
        let own = self.office.branches[number].client.recovery_bound();
        let own = own.saturating_add(self.asked_again());
        let acts = self.scenario.acts.iter();
        let moves = acts.filter(|act| matches!(act.action, Action::Move { .. }));
        let clients = self.scenario.tunnels.len().saturating_add(moves.count());
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        match self.scenario.nat {
            Some(NatPlan::Masquerade { pending_s, .. }) if clients > 1 => {
                let pending = Duration::from_secs(pending_s.into());
                let rounds = if self.servers_race() { RACE_ROUNDS } else { 1 };
                own.saturating_add(pending)
                    .saturating_mul(clients.saturating_mul(rounds))
            }
            Some(NatPlan::Masquerade { .. } | NatPlan::Conntrack | NatPlan::Udp { .. }) | None => {
                own
            }
        }
    }

    /// How long after everything was healed a kernel may yet be asked for what it refused to create.
    fn asked_again(&self) -> Duration {
        let refuses = |act: &Act| {
            matches!(
                act.action,
                Action::Fail {
                    operation: Operation::CreatePolicies,
                    ..
                }
            )
        };
        if self.scenario.acts.iter().any(refuses) {
            POLICIES_RETRY_MAX
        } else {
            Duration::ZERO
        }
    }

    /// Whether several tunnels' servers send on a new epoch before its client does (`wait = false`).
    /// VPN Masquerade takes what one sends for the answer to the other client's ping, which is the race
    /// that `wait` is there to avoid (R8). Two clients that try in turn spoil each other's epochs so,
    /// until the jitter of their back-offs lets one of them try twice in a row.
    fn servers_race(&self) -> bool {
        let plans = self.scenario.tunnels.iter();
        let hasty = plans.filter(|plan| plan.plain_esp && plan.no_wait);
        hasty.count() > 1
    }

    /// Watches traffic until all of it arrives. Both ends may have opened an epoch that no longer
    /// works, which they need not know before the bound.
    fn await_flowing(&mut self, healed: Timestamp) -> Result<(), Violation> {
        let count = self.scenario.tunnels.len();
        (0..count).for_each(|number| self.stop_streams(number));
        let bound = (0..count).map(|number| self.bound(number)).max();
        let bound = bound.unwrap_or_default();
        let ends: Vec<End> = self.office.ends().collect();
        let Some(lost) = self.await_whole(&ends, healed + bound)? else {
            return Ok(());
        };
        if !self.takes_turns() {
            return Err(self.office.world.violation("I5 (traffic)", lost));
        }
        self.office.world.run_for(bound)?;
        if self.watch(&ends)?.is_none() {
            return Ok(());
        }
        // A rekey under the traffic of others begins it anew: each tunnel alone works at least.
        for number in 0..count {
            let own = [End::Client(number), End::Server(number)];
            let until = self.office.world.now() + bound;
            if let Some(lost) = self.await_whole(&own, until)? {
                return Err(self.office.world.violation("I5 (traffic)", lost));
            }
        }
        Ok(())
    }

    /// Watches traffic of these ends until all of it arrives, or the time has come: which are lost?
    fn await_whole(&mut self, ends: &[End], until: Timestamp) -> Result<Option<String>, Violation> {
        loop {
            let began = self.office.world.now();
            let lost = self.watch(ends)?;
            if lost.is_none() || began >= until {
                return Ok(lost);
            }
        }
    }

    /// Whether clients may take turns at losing their traffic for as long as there is any. What a NAT
    /// that guesses lets through on an SPI that it does not know proves an epoch; the next packet on
    /// that SPI is taken for the answer to another client's first ping, whose own SPI stays unknown
    /// for it. Only a pause of a round trip ends that, and no end can see it.
    fn takes_turns(&self) -> bool {
        match self.scenario.nat {
            Some(NatPlan::Masquerade { guessing, .. }) => {
                guessing && self.scenario.tunnels.len() > 1
            }
            Some(NatPlan::Conntrack | NatPlan::Udp { .. }) | None => false,
        }
    }

    /// Both ends send through one epoch, each on what the other receives on.
    fn is_open(&self, number: usize) -> bool {
        match (
            self.open(End::Client(number)),
            self.open(End::Server(number)),
        ) {
            (Some(client), Some(server)) => {
                client.outbound.spi == server.inbound.spi
                    && server.outbound.spi == client.inbound.spi
            }
            (_, _) => false,
        }
    }

    /// Sends packets from these ends for a while: which are lost?
    fn watch(&mut self, ends: &[End]) -> Result<Option<String>, Violation> {
        let flows: Vec<(End, FlowId)> = ends
            .iter()
            .map(|end| (*end, self.office.stream(*end, WATCH_INTERVAL)))
            .collect();
        self.office.world.run_for(WATCH)?;
        for (_, flow) in &flows {
            self.office.world.stop_flow(*flow);
        }
        self.office.world.run_for(WAY_MAX)?;
        let lost = flows.into_iter().find_map(|(end, flow)| {
            let account = self.office.world.account(flow);
            let whole = (account.lost(), account.refused) == (0, 0);
            (!whole).then(|| {
                format!(
                    "packets from {end:?} are lost after everything was healed: {account:?}; {}",
                    self.summary(end)
                )
            })
        });
        Ok(lost)
    }

    /// The packets that wait now at clients which let nothing go before a ping was answered. A server
    /// opens when its client's ping arrives: its own way out is not proven by that.
    fn held(&self) -> BTreeSet<(FlowId, u64)> {
        let clients = self.office.branches.iter().zip(&self.scenario.tunnels);
        let clients = clients.filter(|(_, plan)| !plan.any_inbound);
        let kernels = clients.map(|(branch, _)| &self.office.world.node(branch.node).kernel);
        let packets = kernels.flat_map(|kernel| kernel.held_packets());
        packets
            .filter_map(|packet| match packet.body {
                Body::Data { flow, sequence } => Some((flow, sequence)),
                Body::EchoRequest(_) | Body::EchoReply(_) | Body::NeighbourDiscovery { .. } => None,
            })
            .collect()
    }

    /// What was held when everything was healed has arrived.
    fn expect_delivered(&self, held: &BTreeSet<(FlowId, u64)>) -> Result<(), Violation> {
        let missing: Vec<_> = held
            .iter()
            .filter(|(flow, sequence)| !self.office.world.has_arrived(*flow, *sequence))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("what was held has not arrived: {missing:?}");
        Err(self.office.world.violation("I4 (held)", what))
    }

    fn await_tidy(&mut self) -> Result<(), Violation> {
        let end = self.office.world.now() + TIDY;
        while let Some(untidy) = self.untidy() {
            if self.office.world.now() >= end {
                let what = format!("{untidy} is left over {TIDY:?} after everything was healed");
                return Err(self.office.world.violation("I5 (left over)", what));
            }
            self.office.world.run_for(TIDY_LOOK)?;
        }
        Ok(())
    }

    /// What there is besides one epoch and one IKE SA of each tunnel.
    fn untidy(&self) -> Option<String> {
        for end in self.office.ends() {
            let node = self.office.node(end);
            let sas = self.office.world.node(node).kernel.our_sas().count();
            let tunnels = match end {
                End::Client(_) => 1,
                End::Server(_) => self.office.branches.len(),
            };
            let status = self
                .office
                .world
                .status(node, &self.office.tunnel(end).name);
            let counts = status.map(|status| (status.epochs.len(), status.ike.len()));
            if sas != 2 * tunnels || counts != Some((1, 1)) || !self.is_open(end.tunnel()) {
                return Some(format!("{end:?}: {}", self.summary(end)));
            }
        }
        None
    }

    /// An end's state in a line.
    fn summary(&self, end: End) -> String {
        let node = self.office.node(end);
        let Some(status) = self
            .office
            .world
            .status(node, &self.office.tunnel(end).name)
        else {
            return "not running".into();
        };
        let epochs = status.epochs.iter();
        let epochs: Vec<String> = epochs
            .map(|epoch| format!("{} {}", epoch.number, epoch.state))
            .collect();
        let ike: Vec<&str> = status.ike.iter().map(|ike| ike.state.as_str()).collect();
        format!(
            "{:?}, {} SAs, epochs {epochs:?}, IKE SAs {ike:?} {}",
            status.gate,
            self.office.world.node(node).kernel.our_sas().count(),
            status.reason
        )
    }
}
