//! The way between the ends: what keeps a NAT on it from forgetting us.

use super::{Awaited, Context, Tunnel};
use crate::event::EpochNumber;
use crate::ike::Path;
use crate::io::{Output, XfrmOp};
use crate::outbox::Owner;

impl Tunnel {
    /// IKE has been quiet on a path through a NAT of ours. ESP on the same ports keeps the NAT's
    /// memory alive as well: only where there was none a keepalive goes out (RFC 3948 §4).
    pub(super) fn keepalive_due(&mut self, path: Path, cx: &mut Context<'_>) {
        let open = self.gate.open_epoch().and_then(|open| self.epoch(open));
        match open.filter(|epoch| epoch.path == path && epoch.path.encapsulated) {
            Some(epoch) => {
                let awaited = Awaited::Departure {
                    epoch: epoch.number,
                    path,
                };
                let op = XfrmOp::ReadPackets(epoch.outbound);
                cx.out.xfrm(Owner::Tunnel(self.id, awaited), op);
            }
            None => send_keepalive(path, cx),
        }
    }

    /// The open epoch's outbound counter, `None` where it could not be read.
    pub(super) fn departure_read(
        &mut self,
        number: EpochNumber,
        path: Path,
        packets: Option<u64>,
        cx: &mut Context<'_>,
    ) {
        let Some(epoch) = self.epoch_mut(number) else {
            return send_keepalive(path, cx);
        };
        let was_busy = epoch.sent.is_some() && packets.is_some() && packets != epoch.sent;
        epoch.sent = packets;
        if !was_busy {
            send_keepalive(path, cx);
        }
    }
}

fn send_keepalive(path: Path, cx: &mut Context<'_>) {
    cx.out.push(Output::Keepalive {
        local: path.local,
        remote: path.remote,
    });
}
