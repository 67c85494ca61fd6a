//! The way out: policies, hold queues, control pings.

use std::sync::Arc;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{
    ControlPing, PolicyAction, PolicyDirection, PolicyKey, PolicySpec, SaId, XfrmEvent,
};

use super::operation::is_ipv6;
use super::sa::Entry;
use super::spd::Retry;
use super::{Drop, Effect, HELD_MAX, Kernel, RETRY_FIRST, RETRY_MAX};
use crate::packet::{Body, Frame, Packet};

/// What a policy does with a packet now.
enum Way {
    Clear,
    Through(SaId),
    /// No SA fits: whoever can wait waits.
    Hold,
    Refuse,
}

impl Kernel {
    /// A packet from an application, forwarded, or the kernel's own.
    pub(crate) fn send(&mut self, packet: Packet, now: Timestamp) {
        self.expire(now);
        let Some(spec) = self.lookup(PolicyDirection::Out, &packet) else {
            self.transmit_clear(packet);
            return;
        };
        match self.way(&spec, now) {
            Way::Clear => self.transmit_clear(packet),
            Way::Through(sa) => self.encapsulate(sa, packet),
            Way::Hold if is_icmpv6_echo_reply(&packet) => self.drop_packet(packet, Drop::NotQueued),
            Way::Hold => self.hold(spec.key, packet, now),
            Way::Refuse => self.drop_packet(packet, Drop::OutboundPolicy),
        }
    }

    /// A control ping: through the named SA by a policy of its socket alone.
    ///
    /// Where there is no such SA it fails, and the larval SA of its ACQUIRE takes the SPI.
    pub(crate) fn ping(&mut self, ping: &ControlPing, now: Timestamp) -> Result<(), String> {
        self.expire(now);
        if !self.addresses.contains(&ping.source) {
            return Err("Cannot assign requested address".into());
        }
        let packet = Packet {
            source: ping.source,
            destination: ping.target,
            body: Body::EchoRequest(ping.nonce),
            waited: false,
        };
        match self.through(ping.reqid, ping.sa, ping.outer_source, now) {
            Way::Through(sa) => {
                self.encapsulate(sa, packet);
                Ok(())
            }
            Way::Hold => Err("Resource temporarily unavailable".into()),
            Way::Clear | Way::Refuse => {
                self.drop_packet(packet, Drop::OutboundPolicy);
                Err("File exists".into())
            }
        }
    }

    fn way(&mut self, spec: &PolicySpec, now: Timestamp) -> Way {
        match spec.action {
            PolicyAction::Exempt => Way::Clear,
            PolicyAction::Hold { reqid } => {
                self.acquire(reqid, is_ipv6(&spec.key), now);
                Way::Hold
            }
            PolicyAction::Accept { .. } => Way::Refuse,
            PolicyAction::Pin { reqid, sa, source } => self.through(reqid, sa, source, now),
        }
    }

    /// By a template with an SPI (`xfrm_state_find`): the SA must have its reqid and addresses, else
    /// whatever has its SPI is in the way.
    fn through(&mut self, reqid: u32, id: SaId, source: std::net::IpAddr, now: Timestamp) -> Way {
        match self.sas.get(&id) {
            Some(Entry::Mature(sa)) if sa.spec.reqid == reqid && sa.spec.source == source => {
                Way::Through(id)
            }
            Some(Entry::Larval { reqid: larval, .. }) if *larval == reqid => Way::Hold,
            Some(Entry::Mature(_) | Entry::Larval { .. }) => Way::Refuse,
            None => {
                if self.listening {
                    // The larval SA of the ACQUIRE takes the pinned SPI.
                    let until = now + self.timing.lifetime(self.timing.larval);
                    self.sas.insert(id, Entry::Larval { reqid, until });
                    self.tell(XfrmEvent::Acquire { reqid });
                }
                Way::Hold
            }
        }
    }

    fn acquire(&mut self, reqid: u32, ipv6: bool, now: Timestamp) {
        let until = now + self.timing.lifetime(self.timing.larval);
        if self.listening && !self.unnumbered.contains_key(&(reqid, ipv6)) {
            self.unnumbered.insert((reqid, ipv6), until);
            self.tell(XfrmEvent::Acquire { reqid });
        }
    }

    fn hold(&mut self, key: PolicyKey, packet: Packet, now: Timestamp) {
        let first = self.timing.queue(RETRY_FIRST);
        let Some(held) = self.policies.held_by(&key) else {
            return;
        };
        if held.len() >= HELD_MAX {
            self.drop_packet(packet, Drop::QueueFull);
            return;
        }
        held.push_back(Packet {
            waited: true,
            ..packet
        });
        let retry = Retry {
            at: now + first,
            waited: RETRY_FIRST,
        };
        self.policies.try_unless_set(key, retry);
    }

    /// A held queue's timer (`xfrm_policy_queue_process`): what its first packet meets now decides
    /// for all, and then each goes its own way, which holds it no more.
    pub(super) fn try_queue(&mut self, key: PolicyKey, now: Timestamp) {
        self.expire(now);
        let Some(held) = self.policies.held_by(&key) else {
            return;
        };
        let first = held.front().copied();
        let Some((first, retry)) = first.zip(self.policies.take_retry(&key)) else {
            return;
        };
        match self.route(&first, now) {
            Way::Clear | Way::Through(_) => {
                for packet in self.take_held(key) {
                    match self.route(&packet, now) {
                        Way::Clear => self.transmit_clear(packet),
                        Way::Through(sa) => self.encapsulate(sa, packet),
                        Way::Hold => self.drop_packet(packet, Drop::NotQueued),
                        Way::Refuse => self.drop_packet(packet, Drop::OutboundPolicy),
                    }
                }
            }
            Way::Hold if retry.waited >= RETRY_MAX => self.purge(key),
            Way::Hold => {
                let waited = retry.waited * 2;
                let at = now + self.timing.queue(waited);
                self.policies.try_at(key, Retry { at, waited });
            }
            Way::Refuse => {
                let held = self.policies.held_by(&key);
                let looked_at = held.and_then(|held| held.pop_front());
                if let Some(packet) = looked_at {
                    self.drop_packet(packet, Drop::OutboundPolicy);
                }
                self.purge(key);
            }
        }
    }

    fn route(&mut self, packet: &Packet, now: Timestamp) -> Way {
        match self.lookup(PolicyDirection::Out, packet) {
            Some(spec) => self.way(&spec, now),
            None => Way::Clear,
        }
    }

    fn take_held(&mut self, key: PolicyKey) -> Vec<Packet> {
        let held = self.policies.held_by(&key);
        held.map(|held| held.drain(..).collect())
            .unwrap_or_default()
    }

    fn purge(&mut self, key: PolicyKey) {
        for packet in self.take_held(key) {
            self.drop_packet(packet, Drop::QueuePurged);
        }
    }

    fn transmit_clear(&mut self, packet: Packet) {
        self.effects
            .push_back(Effect::Transmit(Frame::Clear(packet)));
    }

    fn encapsulate(&mut self, id: SaId, inner: Packet) {
        let Some(sa) = self.mature(id) else {
            return;
        };
        sa.packets += 1;
        sa.sequence += 1;
        let frame = Frame::Esp {
            source: sa.spec.source,
            sa: id,
            encapsulation: sa.spec.encapsulation,
            sequence: sa.sequence,
            key: Arc::clone(&sa.key),
            inner,
        };
        self.effects.push_back(Effect::Transmit(frame));
    }
}

fn is_icmpv6_echo_reply(packet: &Packet) -> bool {
    packet.source.is_ipv6() && matches!(packet.body, Body::EchoReply(_))
}
