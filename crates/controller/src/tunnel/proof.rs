//! Proving epochs: control pings, what their replies prove, and what a waiting server waits for
//! (R2, R4, R7, R8).

use std::net::IpAddr;
use std::time::Duration;

use super::epoch::{Check, Epoch, Proving, Stage, Usable};
use super::kernel::micros;
use super::ping::PingSeries;
use super::policies::Pair;
use super::{Awaited, Context, Tunnel};
use crate::Timestamp;
use crate::event::{EpochNumber, EventKind};
use crate::ike::Side;
use crate::io::{ControlPing, Output, PingNonce, SaId, XfrmOp};
use crate::outbox::Owner;

/// As responder we have the new SAs before the initiator, who learns of them from our answer: a
/// first ping right behind that answer would find no SA there.
const RESPONDER_HEAD_START: Duration = Duration::from_millis(20);

/// How many times `ping.attempts` pings an epoch gets that the peer started, while another is open.
const RESPONDER_PATIENCE: u32 = 4;

/// Pings sent at once after a reply that came through another epoch: the peer switches when the
/// ping arrives, its kernel's reply may still be ahead of that switch.
const CHASES_MAX: u32 = 1;

/// The first half of a new epoch's pings wait no longer than so many round trips, if the time of one
/// is known: the first ping of an IPv6 tunnel is lost on a server that holds (its kernel does not
/// queue echo replies, `icmpv6_echo_reply`), and one that comes before the peer's SAs is too.
const HASTE_ROUND_TRIPS: u32 = 3;

/// But at least this long, for hosts that are busy.
const HASTE_MIN: Duration = Duration::from_millis(20);

/// Interval of pings on an epoch that failed, is in doubt or is awaited in vain, if `ping.interval` is shorter.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// How often a waiting server looks whether something arrived, in case the kernel's event was lost.
const AWAIT_POLL: Duration = Duration::from_secs(1);

/// Silence on the open epoch after which a server asks over IKE whether its client lives, as a
/// multiple of `ping.idle`: the client pings after one `idle` of its own.
const SERVER_SILENCE_IDLES: u32 = 3;

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
            self.set_stage(
                number,
                Stage::Proving(Proving {
                    pings: PingSeries::starting(first_ping),
                    out_proven: false,
                    chases: 0,
                    failed: false,
                }),
            );
            self.follow_path(number, cx);
            self.epoch_timeout(number, cx);
            return;
        }
        self.follow_path(number, cx);
        if first_arrived {
            self.first_arrived(number, cx);
            return;
        }
        if !self.awaits() {
            self.make_usable(number, false, cx);
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
        if foreign && started_by == Side::Us {
            // Such a peer answers on the old epoch until it is deleted.
            self.delete_replaced(number, cx);
        }
        self.epoch_timeout(number, cx);
    }

    /// What is due on one epoch.
    pub(super) fn epoch_timeout(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let now = cx.now;
        let attempts = self.config.ping.attempts;
        let patient = self.attempts_of(number);
        let idle = self.silence_allowed();
        let is_chosen = self.chosen() == super::Position::Open(number);
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
        let inbound = epoch.inbound;
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
                if let Some(series) = pings
                    && past(series.due())
                {
                    next = Next::Ping;
                }
            }
            Stage::Usable(usable) => {
                match &mut usable.check {
                    Check::Quiet { until } => {
                        if *until <= now {
                            *until = now + idle;
                            read = true;
                        }
                    }
                    Check::Pinging(series) => {
                        if past(series.due()) {
                            next = if series.sent() < attempts {
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

    fn send_ping(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        let (source, target) = match self.ping_addresses(epoch, cx) {
            Ok(addresses) => addresses,
            Err(why) => return self.cannot_ping(number, why, cx),
        };
        let ping = ControlPing {
            nonce: PingNonce(random(cx)),
            source,
            target,
            reqid: self.reqids.child,
            sa: epoch.outbound,
            outer_source: epoch.path.local.ip(),
            if_id: self.if_id(),
        };
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
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let slow = match &epoch.stage {
            Stage::Proving(proving) => proving.failed,
            Stage::Usable(usable) => matches!(usable.check, Check::Doubted(_)),
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
            _ if slow => interval.max(DOUBT_INTERVAL),
            Some(time) if proving && pings.sent() < attempts / 2 => {
                (time * HASTE_ROUND_TRIPS).max(HASTE_MIN).min(interval)
            }
            Some(_) | None => interval,
        };
        pings.note(ping.nonce, target, now, interval);
        let attempt = pings.sent();
        self.counters.pings_sent += 1;
        cx.out.push(Output::Ping(ping));
        if attempt <= attempts && !slow {
            self.event(cx, Some(number), EventKind::PingSent { attempt });
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
    }

    /// Who pings whom: what the peer announces when it is epochgate, else `ping.target`.
    fn ping_addresses(&self, epoch: &Epoch, cx: &Context<'_>) -> Result<(IpAddr, IpAddr), NoPing> {
        let target = self.ping_target(Some(epoch)).ok_or_else(|| {
            NoPing::NotHere(
                "there is nothing to ping: the peer announces no address; set `ping.target` to an \
                 address behind the peer that answers pings"
                    .into(),
            )
        })?;
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
            let peer = self.peer_of(epoch.session).filter(|peer| peer.epochgate)?;
            let said = [epoch.ping_address, peer.ping_address];
            let mut fit = said.into_iter().flatten();
            fit.find(|address| inside(*address, &self.config.remote_traffic))
        };
        let announced = epoch.and_then(announced);
        announced.or(self.config.ping.target)
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
            let ping = epoch.pings_mut()?.take(nonce, from)?;
            Some((number, inbound, ping))
        });
        let Some((epoch, inbound, ping)) = found else {
            return false;
        };
        let round_trip = cx.now.since(ping.at);
        self.counters.pings_answered += 1;
        self.counters.last_round_trip = Some(round_trip);
        cx.out.xfrm(
            Owner::Tunnel(self.id, Awaited::Proof { epoch, round_trip }),
            XfrmOp::ReadPackets(inbound),
        );
        true
    }

    /// A control ping could not even be sent; false if it is not this tunnel's.
    pub(crate) fn ping_failed(&mut self, nonce: PingNonce, error: &str) {
        let mine = self
            .epochs
            .iter_mut()
            .filter_map(Epoch::pings_mut)
            .any(|pings| pings.knows(nonce));
        if mine {
            self.last_error = Some(format!("a control ping could not be sent: {error}"));
        }
    }

    /// The inbound counter after a reply: it moved if the reply came through this epoch.
    pub(super) fn proof_read(
        &mut self,
        number: EpochNumber,
        round_trip: Duration,
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
            self.counters.last_proof = Some(cx.now);
        }
        if usable {
            self.make_usable(number, proven, cx);
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
        let ask_again = cx.now + self.silence_allowed();
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let Some(packets) = packets else {
            return;
        };
        let arrived = packets > epoch.received;
        epoch.received = epoch.received.max(packets);
        let (inbound, session) = (epoch.inbound, epoch.session);
        match &mut epoch.stage {
            Stage::Awaiting { ask_at, .. } => {
                if arrived {
                    self.first_packet(inbound, cx);
                } else if *ask_at <= cx.now {
                    *ask_at = ask_again;
                    cx.ike.check_liveness(session, cx.now);
                }
            }
            Stage::Usable(usable) => {
                if arrived || !matches!(usable.check, Check::Quiet { .. }) {
                    return;
                }
                if proves {
                    usable.check = Check::Pinging(PingSeries::starting(cx.now));
                    self.epoch_timeout(number, cx);
                } else {
                    cx.ike.check_liveness(session, cx.now);
                }
            }
            Stage::Installing(_) | Stage::Proving(_) | Stage::Draining { .. } => {}
        }
    }

    /// Server: something authenticated arrived on an inbound SA (R8).
    pub(super) fn first_packet(&mut self, inbound: SaId, cx: &mut Context<'_>) {
        let Some(epoch) = self
            .epochs
            .iter_mut()
            .find(|epoch| epoch.inbound == inbound)
        else {
            return;
        };
        let number = epoch.number;
        let awaiting = match &mut epoch.stage {
            Stage::Installing(installing) if installing.first_arrived => return,
            Stage::Installing(installing) => {
                installing.first_arrived = true;
                false
            }
            Stage::Awaiting { .. } => true,
            Stage::Proving(_) | Stage::Usable(_) | Stage::Draining { .. } => return,
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
    }

    fn first_arrived(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        self.event(cx, Some(number), EventKind::FirstPacketArrived);
        self.counters.last_proof = Some(cx.now);
        self.make_usable(number, true, cx);
    }

    fn make_usable(&mut self, number: EpochNumber, proven: bool, cx: &mut Context<'_>) {
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
            Check::Pinging(PingSeries::starting(now))
        };
        epoch.stage = Stage::Usable(Usable {
            proven,
            check,
            rekey_at: epoch.created + lifetime,
        });
        self.settle(cx);
    }

    /// All pings of a series went unanswered.
    fn unanswered(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let slowly = cx.now + self.config.ping.interval.max(DOUBT_INTERVAL);
        let foreign = !self.peer_is_epochgate(number);
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        match &mut epoch.stage {
            Stage::Proving(proving) => {
                if proving.out_proven && foreign {
                    self.make_usable(number, false, cx);
                    return;
                }
                proving.failed = true;
                let attempts = proving.pings.sent();
                proving.pings.restart(slowly);
                self.event(cx, Some(number), EventKind::Unanswered { attempts });
                self.epoch_failed(blocked(number), cx);
            }
            Stage::Usable(usable) => {
                let attempts = match &mut usable.check {
                    Check::Pinging(series) => {
                        let attempts = series.sent();
                        let mut series = std::mem::take(series);
                        series.restart(slowly);
                        usable.check = Check::Doubted(series);
                        attempts
                    }
                    Check::Quiet { .. } | Check::Doubted(_) => return,
                };
                self.event(cx, Some(number), EventKind::Unanswered { attempts });
                self.settle(cx);
                self.epoch_failed(blocked(number), cx);
            }
            Stage::Installing(_) | Stage::Awaiting { .. } | Stage::Draining { .. } => {}
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
            .and_then(|epoch| self.peer_of(epoch.session))
            .is_some_and(|peer| peer.epochgate)
    }

    fn silence_allowed(&self) -> Duration {
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

/// Why an epoch cannot be pinged.
enum NoPing {
    /// This host has no address for it, or the configuration names none.
    NotHere(String),
    /// The selectors that the peer agreed to do not let pings through.
    NotAgreed(String),
}

/// Why an epoch whose pings were not answered has failed.
fn blocked(number: EpochNumber) -> String {
    format!("epoch {number} does not answer: ESP or its way back is blocked")
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

/// An unpredictable number; zero where the provider fails, which costs predictability of pings and
/// jitter, never a proof: a reply is only read when it was decrypted.
pub(super) fn random(cx: &Context<'_>) -> u64 {
    let mut octets = [0; 8];
    match cx.crypto.random(&mut octets) {
        Ok(()) => u64::from_be_bytes(octets),
        Err(_) => 0,
    }
}
