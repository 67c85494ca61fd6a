//! The way between the ends: what becomes of the epochs when it changes, and what keeps a NAT on it
//! from forgetting us.
//!
//! A new path is an unproven path. A client holds its traffic, moves the SAs, pings, and opens again;
//! a server follows what was authenticated, and its SAs move beneath an open gate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::epoch::{Epoch, Proving, Relocation, Stage};
use super::gate::{Gate, Position};
use super::kernel::may_be_there;
use super::{Awaited, Context, Tunnel};
use crate::event::{EpochNumber, EventKind};
use crate::ike::{IkeSaId, Path};
use crate::io::{Output, SaId, XfrmError, XfrmOp, XfrmReply};
use crate::outbox::Owner;

/// How long an epoch whose local address is gone waits for MOBIKE before it is pinged, in vain, and
/// the recovery ladder is climbed.
const STRANDED_PATIENCE: Duration = Duration::from_secs(4);

impl Tunnel {
    /// The host's addresses or routes changed: IKE SAs whose addresses this end may choose go where
    /// the route to the peer leaves from (RFC 4555 §3.5). What is sent from an address that is gone
    /// is lost: a client holds until then. An IKE SA that can't move is made anew.
    pub(super) fn look_for_paths(&mut self, cx: &mut Context<'_>) {
        let sessions: Vec<IkeSaId> = self.sessions.iter().map(|known| known.id).collect();
        for session in sessions {
            let Some(path) = cx.ike.path(session) else {
                continue;
            };
            let is_gone = is_listed(path.local.ip()) && !cx.host.owns(path.local.ip());
            if cx.ike.may_move(session) {
                if is_gone {
                    self.strand(session, cx);
                }
                match self.config.local.address {
                    Some(fixed) if cx.host.owns(fixed) => self.use_source(session, fixed, cx),
                    Some(_) => {}
                    None => cx.out.push(Output::FindSource(path.remote.ip())),
                }
            } else if is_gone && self.is_client() {
                self.forget_session(session, "its address is gone from this host", cx);
                self.settle(cx);
                self.replace_lost("our address changed", cx);
            }
        }
    }

    /// The shell's answer to where the route to a peer leaves from.
    pub(super) fn source_for_paths(
        &mut self,
        destination: IpAddr,
        source: &Result<IpAddr, String>,
        cx: &mut Context<'_>,
    ) {
        // Without a route there will be another change.
        let Ok(source) = source else {
            return;
        };
        // A route into the tunnel itself says nothing.
        let mut inner = self.config.local_traffic.iter();
        if inner.any(|network| network.contains(source)) {
            return;
        }
        let concerned: Vec<IkeSaId> = self
            .sessions
            .iter()
            .map(|known| known.id)
            .filter(|id| cx.ike.may_move(*id))
            .filter(|id| {
                let path = cx.ike.path(*id);
                path.is_some_and(|path| path.remote.ip() == destination)
            })
            .collect();
        for session in concerned {
            self.use_source(session, *source, cx);
        }
    }

    fn use_source(&mut self, session: IkeSaId, source: IpAddr, cx: &mut Context<'_>) {
        let path = cx.ike.path(session);
        if path.is_some_and(|path| path.local.ip() != source) {
            cx.ike.move_to(session, source, cx.now);
            return;
        }
        self.ask_stranded(session, source, cx);
    }

    /// What was stranded is asked at once when its address is in use again, or still is.
    fn ask_stranded(&mut self, session: IkeSaId, source: IpAddr, cx: &Context<'_>) {
        for epoch in &mut self.epochs {
            if let Stage::Proving(proving) = &mut epoch.stage
                && epoch.session == session
                && epoch.path.local.ip() == source
                && epoch.relocation.is_none()
                && proving.pings.sent() == 0
            {
                proving.pings.restart(cx.now);
            }
        }
    }

    /// A client's epochs of an IKE SA are in doubt at once.
    fn strand(&mut self, session: IkeSaId, cx: &mut Context<'_>) {
        if !self.proves() {
            return;
        }
        for epoch in &mut self.epochs {
            if epoch.session == session && matches!(epoch.stage, Stage::Usable(_)) {
                let first = cx.now + STRANDED_PATIENCE;
                epoch.stage = Stage::Proving(Proving::anew(Some(first)));
            }
        }
        self.settle(cx);
    }

    /// An IKE SA goes another way now, and its Child SAs with it.
    pub(super) fn path_changed(&mut self, session: IkeSaId, path: Path, cx: &mut Context<'_>) {
        let concerned: Vec<EpochNumber> = self
            .epochs
            .iter()
            .filter(|epoch| epoch.session == session)
            .map(|epoch| epoch.number)
            .collect();
        for number in concerned {
            self.relocate(number, path);
        }
        self.ask_stranded(session, path.local.ip(), cx);
        self.settle(cx);
        self.sync_routes(cx);
    }

    /// Brings an epoch to where its IKE SA went while it was being installed or moved.
    pub(super) fn follow_path(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch(number) else {
            return;
        };
        if let Some(path) = cx.ike.path(epoch.session) {
            self.relocate(number, path);
        }
    }

    /// An epoch's SAs are to go another way. On a client nothing but pings goes there before it is
    /// proven.
    fn relocate(&mut self, number: EpochNumber, path: Path) {
        let proves = self.proves();
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        // What is under way is brought to an end first: `follow_path` looks again then.
        let busy = matches!(epoch.stage, Stage::Installing(_)) || epoch.relocation.is_some();
        if epoch.path == path || busy {
            return;
        }
        let must_prove = match &epoch.stage {
            Stage::Proving(_) | Stage::Usable(_) => proves,
            Stage::Installing(_) | Stage::Awaiting { .. } | Stage::Draining { .. } => false,
        };
        if must_prove {
            epoch.stage = Stage::Proving(Proving::anew(None));
        }
        epoch.relocation = Some(Relocation {
            path,
            unanswered: None,
            refused: None,
        });
    }

    /// Gives the kernel the moves that can be made. A client's outbound SA is replaced in its place,
    /// so the gate must have left it; a server's gate stays open.
    pub(super) fn relocate_epochs(&mut self, cx: &mut Context<'_>) {
        let proves = self.proves();
        let mut done = Vec::new();
        for epoch in &mut self.epochs {
            let waits = proves && self.gate.uses(epoch.number);
            let Some(relocation) = &mut epoch.relocation else {
                continue;
            };
            if waits || relocation.unanswered.is_some() {
                continue;
            }
            let path = relocation.path;
            let moves = epoch.moves_to(&path);
            let count = u8::try_from(moves.len()).unwrap_or(u8::MAX);
            if let Some(relocation) = &mut epoch.relocation {
                relocation.unanswered = Some(count);
            }
            for change in &moves {
                let awaited = Awaited::Relocation {
                    epoch: epoch.number,
                    from: change.from,
                    to: change.to,
                };
                let op = XfrmOp::MoveSa(*change);
                cx.out.xfrm(Owner::Tunnel(self.id, awaited), op);
            }
            if moves.is_empty() {
                done.push(epoch.number);
            }
        }
        for number in done {
            self.relocated(number, cx);
        }
        self.drop_left_behind(cx);
    }

    /// The kernel has moved an SA, or has not.
    pub(super) fn sa_moved(
        &mut self,
        number: EpochNumber,
        (from, to): (SaId, SaId),
        result: Result<XfrmReply, XfrmError>,
        cx: &mut Context<'_>,
    ) {
        let Some(epoch) = self.epoch_mut(number) else {
            // Forgotten meanwhile: nothing of it may stay.
            if may_be_there(result.as_ref().err()) {
                cx.out.remove_sa(to);
            }
            return;
        };
        match result {
            Ok(reply) => {
                let packets = match reply {
                    XfrmReply::Packets(packets) => packets,
                    XfrmReply::Done | XfrmReply::Ours { .. } => 0,
                };
                if epoch.inbound == from {
                    epoch.inbound = to;
                    epoch.received = packets;
                } else {
                    epoch.outbound = to;
                    epoch.sent = None;
                }
                if from != to {
                    epoch.left_behind.push(from);
                }
            }
            Err(error) => {
                if from != to && may_be_there(Some(&error)) {
                    epoch.left_behind.push(to);
                }
                if let Some(relocation) = &mut epoch.relocation {
                    relocation.refused.get_or_insert(error.to_string());
                }
            }
        }
        let Some(Relocation {
            unanswered: Some(unanswered),
            ..
        }) = &mut epoch.relocation
        else {
            return;
        };
        *unanswered = unanswered.saturating_sub(1);
        if *unanswered == 0 {
            self.relocated(number, cx);
        }
    }

    /// All that an epoch has in the kernel goes the new way.
    fn relocated(&mut self, number: EpochNumber, cx: &mut Context<'_>) {
        let Some(epoch) = self.epoch_mut(number) else {
            return;
        };
        let Some(relocation) = epoch.relocation.take() else {
            return;
        };
        let outer = |path: &Path| (path.local.ip(), path.remote.ip());
        epoch.repin |= outer(&epoch.path) != outer(&relocation.path);
        epoch.path = relocation.path;
        let (session, child) = (epoch.session, epoch.child);
        let was_draining = epoch.is_draining();
        if let Some(reason) = relocation.refused {
            if !was_draining {
                self.attention(format!("epoch {number} could not be moved: {reason}"), cx);
                cx.ike.delete_child(session, child, cx.now);
                self.drain(number, cx);
                self.settle(cx);
                self.replace_lost("its SAs could not be moved", cx);
            }
            return;
        }
        if let Stage::Proving(proving) = &mut epoch.stage {
            proving.pings.restart(cx.now);
        }
        if !was_draining {
            let Path { local, remote, .. } = relocation.path;
            self.event(cx, Some(number), EventKind::EpochMoved { local, remote });
        }
        self.follow_path(number, cx);
        self.settle(cx);
        self.epoch_timeout(number, cx);
    }

    /// Whether the `out` policies name the epoch that they stand at by other outer addresses than it
    /// has.
    pub(super) fn is_mispinned(&self, position: Position) -> bool {
        match position {
            Position::Held => false,
            Position::Open(number) => self.epoch(number).is_some_and(|epoch| epoch.repin),
        }
    }

    /// Removes the SAs whose places others have taken, once no policy names them.
    fn drop_left_behind(&mut self, cx: &mut Context<'_>) {
        let is_moving = match &self.gate {
            Gate::Present(present) => present.moving.is_some(),
            Gate::Down | Gate::Creating { .. } | Gate::Refused { .. } => false,
        };
        for epoch in &mut self.epochs {
            let is_named = self.gate.uses(epoch.number) && (epoch.repin || is_moving);
            if !is_named {
                for sa in std::mem::take(&mut epoch.left_behind) {
                    cx.out.remove_sa(sa);
                }
            }
        }
    }

    /// The kernel saw the peer's ESP come from another address or port. Where the peer may be
    /// followed, the path changes. Else a client asks its open epoch at once; a server's client does
    /// so by itself, and rekeys over the new path when it must.
    pub(super) fn mapping_changed(&mut self, sa: SaId, source: SocketAddr, cx: &mut Context<'_>) {
        let mut epochs = self.epochs.iter();
        let Some(epoch) = epochs.find(|epoch: &&Epoch| epoch.inbound == sa) else {
            return;
        };
        let number = epoch.number;
        cx.ike.mapping_changed(epoch.session, source, cx.now);
        if self.proves() && self.chosen() == Position::Open(number) {
            self.ask(number, cx);
        }
    }

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

/// Whether an address would be among those that the shell tells of: not loopback, not link-local.
fn is_listed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !it.is_loopback() && !it.is_link_local(),
        IpAddr::V6(it) => !it.is_loopback() && !it.is_unicast_link_local(),
    }
}

fn send_keepalive(path: Path, cx: &mut Context<'_>) {
    cx.out.push(Output::Keepalive {
        local: path.local,
        remote: path.remote,
    });
}
