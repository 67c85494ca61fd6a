//! NATs between hosts and the network: which host is behind which, what they translate, and how they
//! crash.
//!
//! A NAT stands at its hosts' site: what they send it translates when it leaves, what comes from the
//! network when it arrives.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::io::{Datagram, Encapsulation, SaId};
use epochgate_nat::{Counters, IkeSpis, Nat, Packet, Payload, Side};

use super::{NodeId, World};
use crate::packet::Frame;
use crate::trace::Happened;

/// Why nothing passes a NAT that starts anew.
const REBOOTING: &str = "the NAT is rebooting";

/// Names a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatId(usize);

/// A NAT and its power.
#[derive(Debug)]
pub(super) struct Router {
    nat: Box<dyn Nat + Send>,
    up_from: Timestamp,
}

impl World {
    /// Adds a NAT, with nobody behind it yet.
    pub fn add_nat(&mut self, nat: Box<dyn Nat + Send>) -> NatId {
        self.nats.push(Router {
            nat,
            up_from: self.now,
        });
        NatId(self.nats.len() - 1)
    }

    /// Puts a host behind a NAT: its outer address is known there alone from now on.
    pub fn put_behind(&mut self, node: NodeId, nat: NatId) {
        self.nodes[node.0].nat = Some(nat);
    }

    /// A NAT crashes: it has forgotten everything and goes on at once.
    pub fn forget_nat(&mut self, id: NatId) {
        self.whole = false;
        self.note(|| Happened::Done(None, format!("{id:?} forgets everything")));
        self.nats[id.0].nat.forget();
    }

    /// A NAT passes nothing for a while, and has forgotten everything then.
    pub fn reboot_nat(&mut self, id: NatId, down: Duration) {
        self.whole = false;
        self.note(|| Happened::Done(None, format!("{id:?} reboots for {down:?}")));
        let router = &mut self.nats[id.0];
        router.nat.forget();
        router.up_from = self.now + down;
    }

    /// What a NAT did so far.
    #[must_use]
    pub fn nat_counters(&self, id: NatId) -> Counters {
        self.nats[id.0].nat.counters()
    }

    /// The address under which a NAT shows its hosts.
    #[must_use]
    pub fn nat_public(&self, id: NatId) -> IpAddr {
        self.nats[id.0].nat.public()
    }

    /// The NAT that has this address outside.
    pub(super) fn nat_at(&self, public: IpAddr) -> Option<NatId> {
        let mut nats = self.nats.iter();
        nats.position(|router| router.nat.public() == public)
            .map(NatId)
    }

    /// A frame on the other side of a NAT, or why there is none. Clear packets pass as they are: that
    /// they left is seen where they left.
    pub(super) fn translate(
        &mut self,
        id: NatId,
        from: Side,
        frame: Frame,
    ) -> Result<Frame, &'static str> {
        let router = &mut self.nats[id.0];
        let Some(packet) = headers(&frame) else {
            return Ok(frame);
        };
        let translated = if self.now < router.up_from {
            Err(REBOOTING)
        } else {
            let now = self.now.since(Timestamp::ZERO);
            let translated = router.nat.translate(now, from, packet);
            translated.map_err(|reason| reason.name())
        };
        self.whole &= translated.is_ok();
        translated.map(|packet| rewritten(frame, &packet))
    }
}

/// What a NAT reads of a frame.
fn headers(frame: &Frame) -> Option<Packet> {
    let udp = |source: SocketAddr, destination: SocketAddr, ike| Packet {
        source: source.ip(),
        destination: destination.ip(),
        payload: Payload::Udp {
            source_port: source.port(),
            destination_port: destination.port(),
            ike,
        },
    };
    match frame {
        Frame::Ike(datagram) => {
            // The non-ESP marker is the shell's: it is not in a world's datagrams.
            let ike = IkeSpis::read(&datagram.payload, false);
            Some(udp(datagram.local, datagram.remote, ike))
        }
        Frame::Keepalive { local, remote } => Some(udp(*local, *remote, None)),
        Frame::Esp {
            source,
            sa,
            encapsulation,
            ..
        } => Some(Packet {
            source: *source,
            destination: sa.destination,
            payload: match encapsulation {
                None => Payload::Esp {
                    spi: sa.spi.0.get(),
                },
                Some(ports) => Payload::Udp {
                    source_port: ports.source_port,
                    destination_port: ports.destination_port,
                    ike: None,
                },
            },
        }),
        Frame::Clear(_) => None,
    }
}

/// The same frame with these headers.
fn rewritten(frame: Frame, packet: &Packet) -> Frame {
    let (source, destination) = (packet.source, packet.destination);
    let ports = match packet.payload {
        Payload::Esp { .. } => None,
        Payload::Udp {
            source_port,
            destination_port,
            ..
        } => Some(Encapsulation {
            source_port,
            destination_port,
        }),
    };
    let ends = |local: SocketAddr, remote: SocketAddr| {
        let local_port = ports.map_or(local.port(), |ports| ports.source_port);
        let remote_port = ports.map_or(remote.port(), |ports| ports.destination_port);
        (
            SocketAddr::new(source, local_port),
            SocketAddr::new(destination, remote_port),
        )
    };
    match frame {
        Frame::Ike(Datagram {
            local,
            remote,
            payload,
        }) => {
            let (local, remote) = ends(local, remote);
            Frame::Ike(Datagram {
                local,
                remote,
                payload,
            })
        }
        Frame::Keepalive { local, remote } => {
            let (local, remote) = ends(local, remote);
            Frame::Keepalive { local, remote }
        }
        Frame::Esp {
            sa,
            sequence,
            key,
            inner,
            ..
        } => Frame::Esp {
            source,
            sa: SaId { destination, ..sa },
            encapsulation: ports,
            sequence,
            key,
            inner,
        },
        Frame::Clear(packet) => Frame::Clear(packet),
    }
}
