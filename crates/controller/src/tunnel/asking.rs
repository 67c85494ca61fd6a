//! Control pings as they are sent: when one is due, from where to where, and what follows when there
//! is nothing to ping (R4, R7). Their replies are judged in [`super::proof`].

use std::net::IpAddr;
use std::time::Duration;

use super::epoch::{Check, Epoch, Probe, Stage};
use super::ladder::Effort;
use super::policies::Pair;
use super::proof::{AWAIT_PATIENCE, AWAIT_POLL, random};
use super::{Awaited, Context, Tunnel, Wish};
use crate::Timestamp;
use crate::config::BUSY_PATIENCE;
use crate::event::{EpochNumber, EventKind};
use crate::ike::Side;
use crate::io::{CommandOutcome, ControlPing, Output, PingNonce, XfrmOp};
use crate::outbox::Owner;

/// How many times `ping.attempts` pings an epoch gets that the peer started, while another is open.
const RESPONDER_PATIENCE: u32 = 4;

/// The first half of a new epoch's pings wait no longer than so many round trips, if the time of one
/// is known: the first ping of an IPv6 tunnel is lost on a server that holds (its kernel does not
/// queue echo replies, `icmpv6_echo_reply`), and one that comes before the peer's SAs is too.
const HASTE_ROUND_TRIPS: u32 = 3;

/// But at least this long, for hosts that are busy.
const HASTE_MIN: Duration = Duration::from_millis(20);

/// Neither the peer nor the configuration says what to ping.
const NOTHING_TO_PING: &str = "there is nothing to ping: the peer announces no address; set \
                               `ping.target` to an address behind the peer that answers pings";

/// Interval of pings on an epoch that failed, is in doubt or is awaited in vain, if `ping.interval` is shorter.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

impl Tunnel {
    /// What is due on one epoch.
    pub(super) fn epoch_timeout(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let now = cx.now;
        let attempts = self.config.ping.attempts;
        let patient = self.attempts_of(number);
        let idle = self.silence_allowed();
        let proves = self.proves();
        let is_chosen = self.chosen() == super::Position::Open(number);
        let is_spare = !is_chosen && self.chosen() != super::Position::Held;
        let past = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        if epoch.relocation.is_some() {
            return;
        }
        if !epoch.is_draining() && past(epoch.retire_at) {
            self.retire(number, cx);
            return;
        }
        let (inbound, created) = (epoch.inbound, epoch.created);
        let mut read = false;
        let mut next = Next::Nothing;
        match &mut epoch.stage {
            Stage::Installing(_) | Stage::Draining { .. } => {}
            Stage::Proving(proving) => {
                if past(proving.pings.due()) {
                    next = if proving.failed || proving.pings.sent() < patient {
                        Next::Ping
                    } else {
                        Next::Unanswered
                    };
                }
            }
            Stage::Awaiting { poll_at, pings, .. } => {
                if *poll_at <= now {
                    *poll_at = now + AWAIT_POLL;
                    read = true;
                }
                if is_spare && created + AWAIT_PATIENCE <= now {
                    self.retire(number, cx);
                    return;
                }
                if let Some(series) = pings
                    && past(series.due())
                {
                    next = Next::Ping;
                }
            }
            Stage::Usable(usable) => {
                match &mut usable.check {
                    Check::Quiet { until } if *until <= now && proves => {
                        usable.check = Check::Pinging(Probe::starting(now));
                        next = Next::Ping;
                    }
                    Check::Quiet { until } => {
                        if *until <= now {
                            *until = now + idle;
                            read = true;
                        }
                    }
                    Check::Pinging(probe) => {
                        if past(probe.pings.due()) {
                            let patience = if probe.busy { BUSY_PATIENCE } else { 1 };
                            let attempts = attempts.saturating_mul(patience);
                            next = if probe.pings.sent() < attempts {
                                Next::Ping
                            } else {
                                Next::Unanswered
                            };
                        }
                    }
                    Check::Doubted(series) => {
                        if past(series.due()) {
                            next = Next::Ping;
                        }
                    }
                }
                if usable.rekey_at <= now {
                    usable.rekey_at = now + idle;
                    if is_chosen {
                        self.pursue("its lifetime is nearly over", cx);
                    }
                }
            }
        }
        if read {
            cx.out.xfrm(
                Owner::Tunnel(self.id, Awaited::Arrival(number)),
                XfrmOp::ReadPackets(inbound),
            );
        }
        match next {
            Next::Nothing => {}
            Next::Ping => self.send_ping(number, cx),
            Next::Unanswered => self.unanswered(number, cx),
        }
    }

    /// Pings that a new epoch gets. The peer that started it has no SAs until it has our answer,
    /// which IKE may have to repeat for seconds; while another epoch carries all traffic that is no
    /// reason to start over.
    fn attempts_of(&self, number: EpochNumber) -> u32 {
        let attempts = self.config.ping.attempts;
        let ours_alone = self
            .epoch(number)
            .is_none_or(|epoch| epoch.started_by == Side::Us);
        if ours_alone || self.chosen() == super::Position::Held {
            attempts
        } else {
            attempts.saturating_mul(RESPONDER_PATIENCE)
        }
    }

    /// Interval of pings on an epoch from which not much is hoped.
    pub(super) fn slow_interval(&self) -> Duration {
        self.config.ping.interval.max(DOUBT_INTERVAL)
    }

    pub(super) fn send_ping(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let (source, target) = match self.ping_addresses(epoch, cx) {
            Ok(addresses) => addresses,
            Err(why) => return self.cannot_ping(number, why, cx),
        };
        let ping = self.control_ping(epoch, (source, target), cx);
        let pinned = self.policies.pings(Some(epoch));
        if !pinned.is_empty() {
            let owner = Owner::Tunnel(self.id, Awaited::Tidying);
            cx.out.xfrm(owner, XfrmOp::UpdatePolicies(pinned));
        }
        self.cannot_ping = None;
        let interval = self.config.ping.interval;
        let attempts = self.config.ping.attempts;
        let now = cx.now;
        let round_trip = self.counters.last_round_trip.or(self.ike_round_trip);
        let slow_interval = self.slow_interval();
        let dead = self.epochs.iter().filter(|epoch| epoch.is_dead());
        let hope = dead.map(|epoch| epoch.number).max();
        let hope = hope.filter(|_| self.proves());
        let anything = self.takes_anything();
        let owner = Owner::Tunnel(self.id, Awaited::Arrival(number));
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let reads = match &epoch.stage {
            Stage::Usable(_) => true,
            Stage::Proving(_) => anything,
            Stage::Installing(_) | Stage::Awaiting { .. } | Stage::Draining { .. } => false,
        };
        let inbound = epoch.inbound;
        let slow = match &epoch.stage {
            // The latest is what both ends have if either has any.
            Stage::Proving(_) | Stage::Usable(_) => epoch.is_dead() && hope != Some(epoch.number),
            Stage::Awaiting { pings, .. } => {
                pings.as_ref().is_some_and(|pings| pings.sent() >= attempts)
            }
            Stage::Installing(_) | Stage::Draining { .. } => false,
        };
        let proving = matches!(epoch.stage, Stage::Proving(_));
        let Some(pings) = epoch.pings_mut() else {
            return;
        };
        let interval = match round_trip {
            _ if slow => slow_interval,
            Some(time) if proving && pings.sent() < attempts / 2 => {
                (time * HASTE_ROUND_TRIPS).max(HASTE_MIN).min(interval)
            }
            Some(_) | None => interval,
        };
        pings.note(ping.nonce, target, now, interval);
        let attempt = pings.sent();
        self.counters.ping_sent(ping.nonce, now);
        if reads {
            cx.out.xfrm(owner, XfrmOp::ReadPackets(inbound));
        }
        cx.out.push(Output::Ping(ping));
        if attempt <= attempts && !slow {
            self.event(cx, Some(number), EventKind::PingSent { attempt });
        }
    }

    fn control_ping(
        &self,
        epoch: &Epoch,
        (source, target): (IpAddr, IpAddr),
        cx: &Context<'_>,
    ) -> ControlPing {
        ControlPing {
            nonce: PingNonce(random(cx)),
            source,
            target,
            reqid: self.reqids.child,
            sa: epoch.outbound,
            outer_source: epoch.path.local.ip(),
            if_id: self.if_id(),
        }
    }

    /// A server ends an epoch on which its client never got through. A NAT that tracks ESP by guesses
    /// may be waiting for the answer to another client's first packet, one that never comes, because
    /// that client is answered on an SPI that was taken for an earlier packet's; as long as it sends,
    /// every new client's first packet is dropped (requirement R11). A ping on the SPI that nobody
    /// will use any more is taken for that answer, and the next client is let through.
    pub(super) fn part_from(&self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let never_heard = matches!(epoch.stage, Stage::Awaiting { .. });
        let tracked = !epoch.path.encapsulated && self.peer_is_epochgate(number);
        if !never_heard || !tracked || self.if_id().is_some() || self.proves() {
            return;
        }
        if let Ok(addresses) = self.ping_addresses(epoch, cx) {
            let ping = self.control_ping(epoch, addresses, cx);
            cx.out.push(Output::Ping(ping));
        }
    }

    /// There are no addresses to ping an epoch between. If the peer may yet agree to some, that epoch
    /// has failed, and another one is tried (R5, R6); else it stays unproven until the host or its
    /// configuration changes.
    fn cannot_ping(&mut self, number: EpochNumber, why: NoPing, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        if let Some(pings) = epoch.pings_mut() {
            pings.pause();
        }
        let (reason, failed) = match (why, &mut epoch.stage) {
            (NoPing::NotAgreed(reason), Stage::Proving(proving)) => {
                (reason, !std::mem::replace(&mut proving.failed, true))
            }
            (NoPing::NotAgreed(reason) | NoPing::NotHere(reason), _) => (reason, false),
        };
        if self.cannot_ping.as_ref() != Some(&reason) {
            self.attention(reason.clone(), cx);
        }
        self.cannot_ping = Some(reason.clone());
        if failed {
            self.epoch_failed(reason, cx);
        }
        self.tell_hopeless(cx);
    }

    /// Tells operators who wait for the gate to open that it won't, if that is certain: every epoch
    /// that there is could be proven by a ping alone, and neither its peer nor the configuration says
    /// what to ping. Who can't ping because an address of this host is missing is not told, since
    /// that may come by itself.
    pub(super) fn tell_hopeless(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.effort, Effort::Rest) || self.takes_anything() {
            return;
        }
        let is_hopeless = |epoch: &Epoch| {
            matches!(epoch.stage, Stage::Proving(_)) && self.ping_target(Some(epoch)).is_none()
        };
        let is_candidate = |epoch: &&Epoch| epoch.is_candidate();
        let mut candidates = self.epochs.iter().filter(is_candidate).peekable();
        if candidates.peek().is_none() || !candidates.all(is_hopeless) {
            return;
        }
        let text = format!("tunnel {}: {NOTHING_TO_PING}", self.config.name);
        self.answer_all(
            |wish| matches!(wish, Wish::Open),
            &CommandOutcome::Failed(text),
            cx,
        );
    }

    /// Who pings whom: what the peer announces when it is epochgate, else `ping.target`.
    pub(super) fn ping_addresses(
        &self,
        epoch: &Epoch,
        cx: &Context<'_>,
    ) -> Result<(IpAddr, IpAddr), NoPing> {
        let target = self
            .ping_target(Some(epoch))
            .ok_or_else(|| NoPing::NotHere(NOTHING_TO_PING.into()))?;
        let same_family = |source: &IpAddr| source.is_ipv4() == target.is_ipv4();
        let source = self
            .config
            .ping
            .source
            .filter(same_family)
            .or_else(|| cx.host.inside(&self.config.local_traffic, Some(target)))
            .ok_or_else(|| {
                NoPing::NotHere(
                    "there is nothing to ping from: no address of this host lies in \
                     `traffic.local`; give the host one, or set `ping.source` to an address of this \
                     host"
                        .into(),
                )
            })?;
        let pair = Pair {
            local: source.into(),
            remote: target.into(),
        };
        if epoch.covers(pair) {
            Ok((source, target))
        } else {
            Err(NoPing::NotAgreed(format!(
                "the peer did not agree to pings from {source} to {target}; make `traffic` of both \
                 ends meet, or set `ping.source` and `ping.target` inside it"
            )))
        }
    }

    pub(super) fn ping_target(&self, epoch: Option<&Epoch>) -> Option<IpAddr> {
        let announced = |epoch: &Epoch| {
            let said = epoch.peer_is_epochgate.then_some(epoch.ping_addresses)?;
            let mut fit = said.into_iter().flatten();
            fit.find(|address| inside(*address, &self.config.remote_traffic))
        };
        let announced = epoch.and_then(announced);
        announced.or(self.config.ping.target)
    }

    /// A control ping could not even be sent; false if it is not this tunnel's.
    pub(crate) fn ping_failed(&mut self, nonce: PingNonce, error: &str, now: Timestamp) {
        let mine = self
            .epochs
            .iter_mut()
            .filter_map(Epoch::pings_mut)
            .any(|pings| pings.knows(nonce));
        if mine {
            self.note_error(format!("a control ping could not be sent: {error}"), now);
        }
    }
}

/// Why an epoch cannot be pinged.
pub(super) enum NoPing {
    /// This host has no address for it, or the configuration names none.
    NotHere(String),
    /// The selectors that the peer agreed to do not let pings through.
    NotAgreed(String),
}

/// What an epoch's timer leads to.
enum Next {
    Nothing,
    Ping,
    Unanswered,
}

fn inside(address: IpAddr, networks: &[ipnet::IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
