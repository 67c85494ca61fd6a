//! The way out: policies, hold queues, control pings.

use epochgate_controller::Timestamp;
use epochgate_controller::io::{
    ControlPing, PolicyAction, PolicyDirection, PolicyKey, SaId, XfrmEvent,
};

use super::sa::Entry;
use super::{Drop, Effect, HELD_MAX, Kernel, LARVAL, RETRY_FIRST, RETRY_MAX, Retry};
use crate::packet::{Body, Frame, Packet};

/// What a policy does with a packet now.
enum Way {
    Clear,
    Through(SaId),
    /// No SA fits: it waits, and this reqid is asked for.
    Hold(u32),
    Refuse,
}

impl Kernel {
    /// A packet from an application, forwarded, or the kernel's own.
    pub(crate) fn send(&mut self, packet: Packet, now: Timestamp) {
        let Some(spec) = self.lookup(PolicyDirection::Out, &packet) else {
            self.transmit_clear(packet);
            return;
        };
        match self.way(spec.action, now) {
            Way::Clear => self.transmit_clear(packet),
            Way::Through(sa) => self.encapsulate(sa, packet),
            Way::Hold(reqid) => {
                self.acquire(reqid, now);
                self.hold(spec.key, packet, now);
            }
            Way::Refuse => {
                self.effects
                    .push_back(Effect::Dropped(packet, Drop::OutboundPolicy));
                self.purge(spec.key);
            }
        }
    }

    /// A control ping: through the named SA by a policy of its socket alone.
    pub(crate) fn ping(&mut self, ping: &ControlPing) -> Result<(), String> {
        if !self.addresses.contains(&ping.source) {
            return Err("Cannot assign requested address".into());
        }
        match self.mature(ping.sa) {
            Some(sa) if sa.spec.reqid == ping.reqid => {}
            Some(_) | None => return Err("Resource temporarily unavailable".into()),
        }
        let packet = Packet {
            source: ping.source,
            destination: ping.target,
            body: Body::EchoRequest(ping.nonce),
            waited: false,
        };
        self.encapsulate(ping.sa, packet);
        Ok(())
    }

    fn way(&mut self, action: PolicyAction, now: Timestamp) -> Way {
        self.expire(now);
        match action {
            PolicyAction::Exempt => Way::Clear,
            PolicyAction::Hold { reqid } => Way::Hold(reqid),
            PolicyAction::Accept { .. } => Way::Refuse,
            PolicyAction::Pin { reqid, sa, .. } => match self.sas.get(&sa) {
                Some(Entry::Mature(found)) if found.spec.reqid == reqid => Way::Through(sa),
                Some(Entry::Mature(_)) => Way::Refuse,
                Some(Entry::Larval { .. }) => Way::Hold(reqid),
                None => {
                    // The larval SA of the ACQUIRE takes the pinned SPI.
                    let until = now + LARVAL;
                    self.sas.insert(sa, Entry::Larval { reqid, until });
                    Way::Hold(reqid)
                }
            },
        }
    }

    fn acquire(&mut self, reqid: u32, now: Timestamp) {
        if self.acquiring.get(&reqid).is_none_or(|until| *until <= now) {
            self.acquiring.insert(reqid, now + LARVAL);
            self.effects
                .push_back(Effect::Event(XfrmEvent::Acquire { reqid }));
        }
    }

    fn hold(&mut self, key: PolicyKey, packet: Packet, now: Timestamp) {
        let Some(policy) = self.policies.get_mut(&key) else {
            return;
        };
        if policy.held.len() >= HELD_MAX {
            self.effects
                .push_back(Effect::Dropped(packet, Drop::QueueFull));
            return;
        }
        policy.held.push_back(Packet {
            waited: true,
            ..packet
        });
        policy.retry.get_or_insert(Retry {
            at: now + RETRY_FIRST,
            waited: RETRY_FIRST,
        });
    }

    /// A held queue's timer (`xfrm_policy_queue_process`).
    pub(super) fn try_queue(&mut self, key: PolicyKey, now: Timestamp) {
        let Some(policy) = self.policies.get_mut(&key) else {
            return;
        };
        let action = policy.spec.action;
        let Some(retry) = policy.retry.take() else {
            return;
        };
        match self.way(action, now) {
            Way::Clear => {
                for packet in self.take_held(key) {
                    self.transmit_clear(packet);
                }
            }
            Way::Through(sa) => {
                for packet in self.take_held(key) {
                    self.encapsulate(sa, packet);
                }
            }
            Way::Hold(_) if retry.waited >= RETRY_MAX => self.purge(key),
            Way::Hold(reqid) => {
                self.acquire(reqid, now);
                let waited = retry.waited * 2;
                if let Some(policy) = self.policies.get_mut(&key) {
                    policy.retry = Some(Retry {
                        at: now + waited,
                        waited,
                    });
                }
            }
            Way::Refuse => self.purge(key),
        }
    }

    fn take_held(&mut self, key: PolicyKey) -> Vec<Packet> {
        let policy = self.policies.get_mut(&key);
        policy
            .map(|policy| policy.held.drain(..).collect())
            .unwrap_or_default()
    }

    fn purge(&mut self, key: PolicyKey) {
        for packet in self.take_held(key) {
            self.effects
                .push_back(Effect::Dropped(packet, Drop::QueuePurged));
        }
        if let Some(policy) = self.policies.get_mut(&key) {
            policy.retry = None;
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
            key: sa.spec.key.clone(),
            inner,
        };
        self.effects.push_back(Effect::Transmit(frame));
    }
}
