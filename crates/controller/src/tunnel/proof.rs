//! What proves an epoch: the replies to control pings ([`super::asking`] sends them), what arrives on
//! it, and what a waiting server waits for (R2, R4, R7, R8).

use std::net::IpAddr;
use std::time::Duration;

use super::epoch::{Check, Epoch, Probe, Proving, Stage, Usable};
use super::kernel::micros;
use super::ping::PingSeries;
use super::{Awaited, Context, Position, Tunnel};
use crate::Timestamp;
use crate::config::Proof;
use crate::event::{EpochNumber, EventKind};
use crate::ike::Side;
use crate::io::{PingNonce, SaId, XfrmOp};
use crate::outbox::Owner;
use crate::status::ProofBy;

/// As responder we have the new SAs before the initiator, who learns of them from our answer: a
/// first ping right behind that answer would find no SA there.
const RESPONDER_HEAD_START: Duration = Duration::from_millis(20);

/// Pings sent at once after a reply that came through another epoch: the peer switches when the
/// ping arrives, its kernel's reply may still be ahead of that switch.
const CHASES_MAX: u32 = 1;

/// How often a waiting server looks whether something arrived, in case the kernel's event was lost.
pub(super) const AWAIT_POLL: Duration = Duration::from_secs(1);

/// Silence on the open epoch after which a server asks whether its client lives, as a multiple of `ping.idle`: the client pings after one `idle` of its own.
const SERVER_SILENCE_IDLES: u32 = 3;

/// How long a server waits for the first packet on an epoch beside the one that carries its traffic:
/// its client has given it up.
pub(super) const AWAIT_PATIENCE: Duration = Duration::from_secs(60);

/// How long the first ping of a new epoch waits for the peer to end the ones before: an exchange, with
/// one retransmission.
const CLEAR_PATIENCE: Duration = Duration::from_secs(1);

/// How long an old epoch may outlive the switch on a server whose client does not delete it.
const RETIRE_AFTER: Duration = Duration::from_secs(30);

impl Tunnel {
    /// Both SAs are in the kernel.
    pub(super) fn installed(
        &mut self,
        number: EpochNumber,
        first_arrived: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let (session, child, started_by) = (epoch.session, epoch.child, epoch.started_by);
        let (inbound, outbound) = (epoch.inbound.spi, epoch.outbound.spi);
        self.event(
            cx,
            Some(number),
            EventKind::EpochInstalled { inbound, outbound },
        );
        let first_ping = match started_by {
            Side::Us => cx.now,
            Side::Peer => {
                cx.ike.child_ready(session, child, true, cx.now);
                cx.now + RESPONDER_HEAD_START
            }
        };
        if self.proves() {
            let first_ping = first_ping.max(self.clear_before(number, cx));
            let mut proving = Proving::from(Some(first_ping));
            proving.waits = first_ping > cx.now;
            self.set_stage(number, Stage::Proving(proving));
            self.follow_path(number, cx);
            if first_arrived && self.takes_anything() {
                self.first_arrived(number, cx);
            }
            self.epoch_timeout(number, cx);
            return;
        }
        let foreign = !self.peer_is_epochgate(number);
        let pings = (foreign && self.config.ping.target.is_some())
            .then(|| PingSeries::starting(first_ping));
        self.set_stage(
            number,
            Stage::Awaiting {
                poll_at: cx.now + AWAIT_POLL,
                ask_at: cx.now + self.silence_allowed(),
                pings,
            },
        );
        // The way may have changed while the SAs were on their way into the kernel: what is released
        // now must go the new one.
        self.follow_path(number, cx);
        self.relocate_epochs(cx);
        if first_arrived {
            self.first_arrived(number, cx);
            return;
        }
        if !self.awaits(started_by) && !self.is_to_be_ended(number) {
            self.make_usable(number, false, cx);
            return;
        }
        if foreign && started_by == Side::Us {
            // Such a peer answers on the old epoch until it is deleted.
            self.delete_replaced(number, cx);
        }
        self.epoch_timeout(number, cx);
    }

    /// A reply with a nonce of ours arrived; false if it is not this tunnel's.
    pub(crate) fn ping_replied(
        &mut self,
        nonce: PingNonce,
        from: IpAddr,
        cx: &mut Context<'_>,
    ) -> bool {
        let found = self.epochs.iter_mut().find_map(|epoch| {
            let (number, inbound) = (epoch.number, epoch.inbound);
            let pings = epoch.pings_mut()?;
            let ping = pings.take(nonce, from)?;
            let lost = pings.lost_before(&ping);
            epoch.answers = true;
            Some((number, inbound, ping, lost))
        });
        let Some((epoch, inbound, ping, lost)) = found else {
            return false;
        };
        let round_trip = cx.now.since(ping.at);
        self.counters.ping_answered(nonce, round_trip);
        let awaited = Awaited::Proof {
            epoch,
            round_trip,
            lost,
        };
        cx.out.xfrm(
            Owner::Tunnel(self.id, awaited),
            XfrmOp::ReadPackets(inbound),
        );
        true
    }

    /// The inbound counter after a reply: it moved if the reply came through this epoch.
    pub(super) fn proof_read(
        &mut self,
        number: EpochNumber,
        (round_trip, lost): (Duration, usize),
        packets: Option<u64>,
        cx: &mut Context<'_>,
    ) {
        let quiet_until = cx.now + self.silence_allowed();
        let foreign = !self.peer_is_epochgate(number);
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let packets = packets.unwrap_or(0);
        let proven = packets > epoch.received;
        epoch.received = epoch.received.max(packets);
        let mut usable = false;
        let mut chase = false;
        match &mut epoch.stage {
            Stage::Proving(proving) => {
                if proven {
                    usable = true;
                } else {
                    proving.out_proven = true;
                    usable = proving.failed && foreign;
                    chase = !usable && proving.chases < CHASES_MAX;
                    proving.chases += u32::from(chase);
                }
            }
            Stage::Usable(state) => {
                if proven {
                    state.proven = true;
                    state.check = Check::Quiet { until: quiet_until };
                }
            }
            Stage::Installing(_) | Stage::Awaiting { .. } | Stage::Draining { .. } => {}
        }
        let round_trip_us = micros(round_trip);
        self.event(
            cx,
            Some(number),
            EventKind::PingAnswered {
                round_trip_us,
                proven,
            },
        );
        if proven {
            self.counters.proven(ProofBy::Reply, cx.now);
        }
        if usable {
            self.make_usable(number, proven, cx);
        } else if proven {
            self.untie_if_kept_out(number, lost, cx);
        }
        if chase {
            self.send_ping(number, cx);
        }
    }

    /// The inbound counter, read to see whether anything arrives at all.
    pub(super) fn arrival_read(
        &mut self,
        number: EpochNumber,
        packets: Option<u64>,
        cx: &mut Context<'_>,
    ) {
        let proves = self.proves();
        let lenient = !proves || self.takes_anything();
        let asks = self.asks_the_client(number, cx);
        let quiet_until = cx.now + self.silence_allowed();
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let Some(packets) = packets else {
            return;
        };
        let arrived = packets > epoch.received;
        epoch.received = epoch.received.max(packets);
        let (inbound, session) = (epoch.inbound, epoch.session);
        let lenient = lenient && !(proves && epoch.answers);
        match &mut epoch.stage {
            Stage::Awaiting { ask_at, .. } => {
                if arrived {
                    self.first_packet(inbound, cx);
                } else if *ask_at <= cx.now {
                    *ask_at = quiet_until;
                    cx.ike.check_liveness(session, cx.now);
                }
            }
            Stage::Proving(proving) => {
                let counted = !std::mem::take(&mut proving.uncounted);
                if counted && arrived && lenient {
                    self.first_packet(inbound, cx);
                }
            }
            Stage::Usable(usable) => {
                let alive = match &mut usable.check {
                    Check::Quiet { .. } => arrived,
                    Check::Pinging(probe) => {
                        probe.count(packets);
                        lenient && probe.busy
                    }
                    Check::Doubted(_) => lenient && arrived && !asks,
                };
                if alive {
                    usable.check = Check::Quiet { until: quiet_until };
                    self.settle(cx);
                } else if matches!(usable.check, Check::Quiet { .. }) {
                    self.silent(number, cx);
                }
            }
            Stage::Installing(_) | Stage::Draining { .. } => {}
        }
    }

    /// A server has heard nothing on its open epoch for long: it asks over IKE whether its client
    /// lives, and pings it where it knows how, since ESP may be lost where IKE passes.
    fn silent(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        cx.ike.check_liveness(epoch.session, cx.now);
        if self.gating.proves() && self.ping_addresses(epoch, cx).is_ok() {
            self.ask(number, cx);
        }
    }

    /// Pings a usable epoch at once, unless it is being pinged.
    pub(super) fn ask(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        if let Some(epoch) = self.epoch_mut(number)
            && let Stage::Usable(usable) = &mut epoch.stage
            && matches!(usable.check, Check::Quiet { .. })
        {
            usable.check = Check::Pinging(Probe::starting(cx.now));
            self.epoch_timeout(number, cx);
        }
    }

    /// Something authenticated arrived on an inbound SA that was to report it (R8, `ping.proof`).
    pub(super) fn first_packet(&mut self, inbound: SaId, cx: &mut Context<'_>) {
        let quiet_until = cx.now + self.silence_allowed();
        let mut epochs = self.epochs.iter();
        let Some(epoch) = epochs.find(|epoch| epoch.inbound == inbound) else {
            return;
        };
        let number = epoch.number;
        let asks = self.asks_the_client(number, cx);
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let mut asked = false;
        let awaiting = match &mut epoch.stage {
            Stage::Installing(installing) if installing.first_arrived => return,
            Stage::Installing(installing) => {
                installing.first_arrived = true;
                false
            }
            Stage::Awaiting { .. } | Stage::Proving(_) => true,
            Stage::Usable(usable) => {
                match &mut usable.check {
                    Check::Doubted(pings) if asks => {
                        pings.restart(cx.now);
                        asked = true;
                    }
                    Check::Doubted(_) => usable.check = Check::Quiet { until: quiet_until },
                    Check::Quiet { .. } | Check::Pinging(_) => {}
                }
                false
            }
            Stage::Draining { .. } => return,
        };
        cx.out.xfrm(
            Owner::Tunnel(self.id, Awaited::Tidying),
            XfrmOp::ReportFirst {
                sa: inbound,
                on: false,
            },
        );
        if awaiting {
            self.first_arrived(number, cx);
        }
        if asked {
            self.epoch_timeout(number, cx);
        }
    }

    /// Whether a server that doubts its open epoch asks whoever is heard from on it again, before it
    /// releases what it holds: that something comes does not show that anything arrives there, and a
    /// NAT that forgot the epoch may give it to somebody else. A client that is epochgate answers.
    fn asks_the_client(&self, number: EpochNumber, cx: &Context<'_>) -> bool {
        let asks = |epoch: &Epoch| self.ping_addresses(epoch, cx).is_ok();
        !self.proves() && self.peer_is_epochgate(number) && self.epoch(number).is_some_and(asks)
    }

    /// The epoch that a server's traffic used is over, and nothing younger is usable. Its client may
    /// have left what came before at the switch, without its Delete having got here, or be there
    /// still: it is asked, and what is sent meanwhile is held. It would be lost; and a NAT that looks
    /// into IPsec takes it for the answer to the first ping of the client's next epoch (requirement
    /// R11).
    pub(super) fn ask_before_going_back(&mut self, cx: &mut Context<'_>) {
        while let Position::Open(number) = self.chosen() {
            let was_left = self.epoch(number).is_some_and(|it| it.retire_at.is_some());
            if !was_left || !self.gating.proves() || !self.asks_the_client(number, cx) {
                return;
            }
            let interval = self.config.ping.interval;
            let Some(epoch) = self.epoch_mut(number) else {
                return;
            };
            // Through such a NAT the client's own next ping goes first.
            let wait = if epoch.is_trackable() {
                interval
            } else {
                Duration::ZERO
            };
            epoch.retire_at = None;
            let (sa, session) = (epoch.inbound, epoch.session);
            if let Stage::Usable(usable) = &mut epoch.stage {
                usable.check = Check::Doubted(PingSeries::starting(cx.now + wait));
            }
            cx.ike.check_liveness(session, cx.now);
            let owner = Owner::Tunnel(self.id, Awaited::Tidying);
            cx.out.xfrm(owner, XfrmOp::ReportFirst { sa, on: true });
            self.epoch_timeout(number, cx);
        }
    }

    fn first_arrived(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        self.event(cx, Some(number), EventKind::FirstPacketArrived);
        self.counters.proven(ProofBy::Arrival, cx.now);
        self.make_usable(number, true, cx);
    }

    pub(super) fn make_usable(&mut self, number: EpochNumber, proven: bool, cx: &mut Context<'_>) {
        let lifetime = self.lifetime(cx);
        let quiet_until = cx.now + self.silence_allowed();
        let proves = self.proves();
        let now = cx.now;
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        // Out-proven alone: the proof is asked for again as soon as traffic has switched.
        let check = if proven || !proves {
            Check::Quiet { until: quiet_until }
        } else {
            Check::Pinging(Probe::starting(now))
        };
        epoch.stage = Stage::Usable(Usable {
            proven,
            check,
            rekey_at: epoch.created + lifetime,
        });
        let session = epoch.session;
        self.settle(cx);
        self.close_unused(session, cx);
    }

    /// All pings of a series went unanswered.
    pub(super) fn unanswered(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let slowly = cx.now + self.slow_interval();
        let soon = cx.now + self.config.ping.interval;
        let proves = self.proves();
        let holds = self.chosen() == Position::Held;
        let foreign = !self.peer_is_epochgate(number);
        let may_clear = foreign && self.takes_anything() && self.replaces_usable(number);
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let (inbound, session) = (epoch.inbound, epoch.session);
        let trackable = epoch.is_trackable();
        match &mut epoch.stage {
            Stage::Proving(proving) => {
                if proving.out_proven && foreign {
                    self.make_usable(number, false, cx);
                    return;
                }
                if may_clear && !proving.cleared {
                    // Such a peer sends on the old epoch until that is deleted.
                    proving.cleared = true;
                    proving.pings.restart(cx.now);
                    self.delete_replaced(number, cx);
                    return;
                }
                proving.failed = true;
                let attempts = proving.pings.sent();
                if holds {
                    proving.pings.restart(soon);
                } else {
                    // Another one works. A NAT that looks into IPsec would keep other clients out for
                    // each ping that is not answered.
                    proving.pings.pause();
                }
                self.event(cx, Some(number), EventKind::Unanswered { attempts });
                if holds && trackable && !self.is_silent(session) {
                    // The server may have heard the ping: what it sends here now would be taken for
                    // the answer to the next one, or to another client's.
                    self.retire(number, cx);
                }
                self.epoch_failed(blocked(number), cx);
            }
            Stage::Usable(usable) => {
                let attempts = match &mut usable.check {
                    Check::Pinging(probe) => {
                        let attempts = probe.pings.sent();
                        let mut pings = std::mem::take(&mut probe.pings);
                        pings.restart(if proves { soon } else { slowly });
                        usable.check = Check::Doubted(pings);
                        attempts
                    }
                    Check::Quiet { .. } | Check::Doubted(_) => return,
                };
                self.event(cx, Some(number), EventKind::Unanswered { attempts });
                self.settle(cx);
                if proves {
                    self.ping_failed_ones(soon);
                    self.hurry(cx);
                    self.epoch_failed(blocked(number), cx);
                } else {
                    // What the client sends opens the gate again. The ladder is the client's, but
                    // one that is not epochgate knows nothing of it.
                    if foreign {
                        self.hurry(cx);
                        self.epoch_failed(blocked(number), cx);
                    }
                    cx.ike.check_liveness(session, cx.now);
                    let sa = inbound;
                    let owner = Owner::Tunnel(self.id, Awaited::Tidying);
                    cx.out.xfrm(owner, XfrmOp::ReportFirst { sa, on: true });
                }
            }
            Stage::Installing(_) | Stage::Awaiting { .. } | Stage::Draining { .. } => {}
        }
    }

    /// Ends what came before a new epoch and does not answer. Until the peer has heard of it, it may
    /// send there; and a NAT that has forgotten us takes whatever it sends next for the answer to the
    /// new epoch's first ping (requirement R11). Returns when that ping is due at the latest.
    fn clear_before(&mut self, number: EpochNumber, cx: &mut Context<'_>) -> Timestamp {
        if self.chosen() != Position::Held {
            return cx.now;
        }
        let dead: Vec<EpochNumber> = self
            .epochs
            .iter()
            .filter(|epoch| epoch.number < number && epoch.is_dead())
            .map(|epoch| epoch.number)
            .collect();
        for dead in dead {
            self.retire(dead, cx);
        }
        if self.epochs.iter().any(|epoch| epoch.delete_unanswered) {
            cx.now + CLEAR_PATIENCE
        } else {
            cx.now
        }
    }

    /// The peer has ended epochs: those that waited for it are pinged.
    pub(super) fn cleared(&mut self, cx: &mut Context<'_>) {
        if self.epochs.iter().any(|epoch| epoch.delete_unanswered) {
            return;
        }
        for epoch in &mut self.epochs {
            if let Stage::Proving(proving) = &mut epoch.stage
                && std::mem::take(&mut proving.waits)
                && proving.pings.sent() == 0
            {
                proving.pings.restart(cx.now);
            }
        }
    }

    /// Nothing is open any more: epochs that failed beside what was are pinged again.
    fn ping_failed_ones(&mut self, first: Timestamp) {
        for epoch in &mut self.epochs {
            if let Stage::Proving(proving) = &mut epoch.stage
                && proving.failed
                && proving.pings.due().is_none()
            {
                proving.pings.restart(first);
            }
        }
    }

    /// Whether an epoch replaces one that may still carry traffic.
    fn replaces_usable(&self, number: EpochNumber) -> bool {
        let replaced = self.epoch(number).and_then(|epoch| epoch.replaces);
        let mut epochs = self.epochs.iter();
        replaced.is_some_and(|child| {
            epochs.any(|epoch| epoch.child == child && matches!(epoch.stage, Stage::Usable(_)))
        })
    }

    /// Whether anything authenticated proves an epoch, and not the reply to a ping alone.
    pub(super) fn takes_anything(&self) -> bool {
        self.proves()
            && match self.config.ping.proof {
                Proof::Icmp => false,
                Proof::AnyInbound => true,
            }
    }

    /// Old epochs end once a later one carries all traffic (R10). The client deletes them; a server
    /// waits for that, and does it itself only when the client does not.
    pub(super) fn retire_before(&mut self, open: EpochNumber, cx: &mut Context<'_>) {
        // A later one may have been open for a moment.
        if let Some(epoch) = self.epoch_mut(open) {
            epoch.retire_at = None;
        }
        let older: Vec<EpochNumber> = self
            .epochs
            .iter()
            .filter(|epoch| epoch.number < open && !epoch.is_draining())
            .map(|epoch| epoch.number)
            .collect();
        for number in older {
            if self.is_client() {
                self.retire(number, cx);
            } else if let Some(epoch) = self.epoch_mut(number) {
                epoch.retire_at.get_or_insert(cx.now + RETIRE_AFTER);
                if let Stage::Usable(Usable {
                    check: Check::Doubted(pings),
                    ..
                }) = &mut epoch.stage
                {
                    // Nothing waits for it any more.
                    pings.pause();
                }
            }
        }
    }

    pub(super) fn set_stage(&mut self, number: EpochNumber, stage: Stage) {
        if let Some(epoch) = self.epoch_mut(number) {
            epoch.stage = stage;
        }
    }

    pub(super) fn peer_is_epochgate(&self, number: EpochNumber) -> bool {
        self.epoch(number)
            .is_some_and(|epoch| epoch.peer_is_epochgate)
    }

    pub(super) fn silence_allowed(&self) -> Duration {
        let idle = self.config.ping.idle;
        if self.is_client() {
            idle
        } else {
            idle.saturating_mul(SERVER_SILENCE_IDLES)
        }
    }

    /// The lifetime with jitter: a client between 90 and 100 percent of it, a server between 105 and
    /// 115, so that where both ends agree on a lifetime the client is first.
    fn lifetime(&self, cx: &Context<'_>) -> Duration {
        let percent = if self.is_client() { 90 } else { 105 };
        let jitter = u32::try_from(random(cx) % 1000).unwrap_or(0);
        let thousandths = percent * 10 + jitter / 10;
        self.config.epoch.lifetime.saturating_mul(thousandths) / 1000
    }
}

/// Why an epoch whose pings were not answered has failed.
fn blocked(number: EpochNumber) -> String {
    format!("epoch {number} does not answer: ESP or its way back is blocked")
}

/// An unpredictable number; zero where the provider fails, which costs predictability of pings and
/// jitter, never a proof: a reply is only read when it was decrypted.
pub(super) fn random(cx: &Context<'_>) -> u64 {
    let mut octets = [0; 8];
    match cx.crypto.random(&mut octets) {
        Ok(()) => u64::from_be_bytes(octets),
        Err(_) => 0,
    }
}
