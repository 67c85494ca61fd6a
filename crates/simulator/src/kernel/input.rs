//! The way in: decapsulation, inbound policies, echo replies.

use std::net::{IpAddr, SocketAddr};

use epochgate_controller::Timestamp;
use epochgate_controller::io::{Encapsulation, PolicyAction, PolicyDirection, SaId, XfrmEvent};

use super::{Drop, Effect, Kernel};
use crate::packet::{Body, Frame, Packet};

impl Kernel {
    /// ESP or a clear packet from the network. (IKE is the shell's.)
    pub(crate) fn receive(&mut self, frame: Frame, now: Timestamp) {
        match frame {
            Frame::Ike(_) | Frame::Keepalive { .. } => {}
            Frame::Clear(packet) => self.admit(packet, None, now),
            Frame::Esp {
                source,
                sa: id,
                encapsulation,
                sequence,
                key,
                inner,
            } => match self.decapsulate(id, (source, encapsulation), sequence, key.expose(), now) {
                Ok(reqid) => self.admit(inner, Some(reqid), now),
                Err(why) => self.drop_packet(inner, why),
            },
        }
    }

    fn decapsulate(
        &mut self,
        id: SaId,
        (source, encapsulation): (IpAddr, Option<Encapsulation>),
        sequence: u64,
        key: &[u8],
        now: Timestamp,
    ) -> Result<u32, Drop> {
        self.expire(now);
        let sa = self.mature(id).ok_or(Drop::NoState)?;
        if sa.spec.encapsulation.is_some() != encapsulation.is_some() {
            return Err(Drop::Encapsulation);
        }
        if !sa.is_new(sequence) {
            return Err(Drop::Replayed);
        }
        if sa.spec.key.expose() != key {
            return Err(Drop::WrongKey);
        }
        sa.take_sequence(sequence);
        sa.packets += 1;
        let (reqid, report) = (sa.spec.reqid, sa.report_due());
        let peer = |source, ports: Option<Encapsulation>| {
            ports.map(|ports| SocketAddr::new(source, ports.source_port))
        };
        let (known, seen) = (
            peer(sa.spec.source, sa.spec.encapsulation),
            peer(source, encapsulation),
        );
        self.effects.push_back(Effect::Authenticated(id));
        if report {
            self.tell(XfrmEvent::FirstPacket(id));
        }
        // Again with every packet: the SA stays as it is (`km_new_mapping`).
        if let Some(source) = seen.filter(|_| seen != known) {
            self.tell(XfrmEvent::MappingChanged { sa: id, source });
        }
        Ok(reqid)
    }

    /// Checks the inbound policy against the reqid of the SA that a packet came through.
    fn admit(&mut self, packet: Packet, reqid: Option<u32>, now: Timestamp) {
        let here = self.addresses.contains(&packet.destination);
        let direction = if here {
            PolicyDirection::In
        } else {
            PolicyDirection::Fwd
        };
        let policy = self.lookup(direction, &packet);
        let admitted = match (policy.map(|policy| policy.action), reqid) {
            (Some(PolicyAction::Accept { reqid: wanted }), Some(reqid)) => wanted == reqid,
            (Some(PolicyAction::Exempt) | None, None) => true,
            (
                Some(PolicyAction::Accept { .. })
                | Some(PolicyAction::Exempt)
                | Some(PolicyAction::Hold { .. })
                | Some(PolicyAction::Pin { .. })
                | None,
                _,
            ) => false,
        };
        let behind = self.serves(packet.destination);
        let effect = match packet.body {
            _ if !admitted && policy.is_none() => Effect::Dropped(packet, Drop::NoInboundPolicy),
            _ if !admitted => Effect::Dropped(packet, Drop::InboundPolicy),
            _ if !here && !behind => Effect::Dropped(packet, Drop::NoRoute),
            Body::EchoRequest(nonce) if here => {
                self.send(
                    Packet {
                        source: packet.destination,
                        destination: packet.source,
                        body: Body::EchoReply(nonce),
                        waited: false,
                    },
                    now,
                );
                return;
            }
            Body::Data { .. }
            | Body::EchoRequest(_)
            | Body::EchoReply(_)
            | Body::NeighbourDiscovery { .. } => Effect::Deliver(packet),
        };
        self.effects.push_back(effect);
    }
}
