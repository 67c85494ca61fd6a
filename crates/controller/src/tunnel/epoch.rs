//! An epoch: one generation of a tunnel's Child SA, and how far it is trusted.

use std::net::IpAddr;

use epochgate_ike_wire::TrafficSelector;

use super::ping::PingSeries;
use super::policies::Pair;
use crate::Timestamp;
use crate::crypto::Cipher;
use crate::event::EpochNumber;
use crate::ike::{Child, ChildId, IkeSaId, Path, Peer, Side, selectors};
use crate::io::{
    Encapsulation, IfId, SaDirection, SaId, SaMove, SaSpec, SequenceNumbers, XfrmError,
};

/// One ESP SA in each direction, and what is known of them.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) number: EpochNumber,
    pub(crate) session: IkeSaId,
    pub(crate) child: ChildId,
    pub(crate) replaces: Option<ChildId>,
    pub(crate) started_by: Side,
    pub(crate) inbound: SaId,
    pub(crate) outbound: SaId,
    pub(crate) path: Path,
    pub(crate) cipher: Cipher,
    /// The peer is epochgate. Known for as long as the epoch lives, which may be longer than its IKE SA.
    pub(crate) peer_is_epochgate: bool,
    /// NATs were looked for when its IKE SA was made.
    pub(crate) nat_asked: bool,
    /// What the peer wants pinged, if it said so: for this Child SA, else for all of its IKE SA.
    pub(crate) ping_addresses: [Option<IpAddr>; 2],
    pub(crate) created: Timestamp,
    pub(crate) stage: Stage,
    /// Which of its SAs the kernel has.
    pub(crate) in_kernel: InKernel,
    /// The inbound SA's packet counter when it was last read.
    pub(crate) received: u64,
    /// Whether a ping of it was ever answered: then its pings are, as long as it works.
    pub(crate) answers: bool,
    /// The outbound SA's packet counter when it was last read, if ever.
    pub(crate) sent: Option<u64>,
    /// Its SAs are on their way to other outer addresses.
    pub(crate) relocation: Option<Relocation>,
    /// Its outbound SA has other outer addresses than the `out` policies say.
    pub(crate) repin: bool,
    /// SAs whose place others have taken, which go when no policy names them.
    pub(crate) left_behind: Vec<SaId>,
    /// Server: when it ends although the client did not end it, once a later epoch is open.
    pub(crate) retire_at: Option<Timestamp>,
    /// The peer is to be told of its end as soon as no traffic uses it.
    pub(crate) delete_once_left: bool,
    /// The peer was told of its end and has not answered.
    pub(crate) delete_unanswered: bool,
    local_selectors: Vec<TrafficSelector>,
    remote_selectors: Vec<TrafficSelector>,
}

/// Which of an epoch's SAs the kernel has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InKernel {
    pub(crate) inbound: bool,
    pub(crate) outbound: bool,
}

/// SAs on their way to other outer addresses.
#[derive(Debug)]
pub(crate) struct Relocation {
    /// Where to.
    pub(crate) path: Path,
    /// Operations that the kernel has not answered; `None`: they were not given yet, because the
    /// gate still uses the epoch.
    pub(crate) unanswered: Option<u8>,
    /// The first refusal.
    pub(crate) refused: Option<String>,
}

/// How far an epoch is trusted, and what it waits for.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its SAs are on their way into the kernel.
    Installing(Installing),
    /// Client: pings go through it; nothing else may.
    Proving(Proving),
    /// Server: nothing authenticated has arrived on it yet (R8). Pings, where a peer that knows
    /// nothing of us must be provoked to send something.
    Awaiting {
        poll_at: Timestamp,
        /// When the client is asked over IKE whether it lives.
        ask_at: Timestamp,
        pings: Option<PingSeries>,
    },
    /// It may carry traffic.
    Usable(Usable),
    /// Its end is agreed or decided: the outbound SA goes as soon as the gate has left it, the
    /// inbound one when packets under way have landed (R10).
    Draining { inbound_until: Timestamp },
}

/// SAs on their way into the kernel.
#[derive(Debug)]
pub(crate) struct Installing {
    /// Operations that the kernel has not answered.
    pub(crate) unanswered: u8,
    /// The first refusal, and of which SA.
    pub(crate) refused: Option<(SaId, XfrmError)>,
    /// Something authenticated arrived already.
    pub(crate) first_arrived: bool,
}

/// An epoch that is being pinged for the first time.
#[derive(Debug)]
pub(crate) struct Proving {
    pub(crate) pings: PingSeries,
    /// A reply came, but not through the epoch's own inbound SA.
    pub(crate) out_proven: bool,
    /// Pings sent at once after such a reply.
    pub(crate) chases: u32,
    /// All attempts went unanswered; it is pinged on, slowly, until it is replaced.
    pub(crate) failed: bool,
    /// What it replaces was deleted, so that a peer which answers there moves here.
    pub(crate) cleared: bool,
    /// Its pings begin when the peer has ended what came before, or their time has come.
    pub(crate) waits: bool,
    /// Packets may have arrived, on another path or before a doubt, that were not counted yet.
    pub(crate) uncounted: bool,
}

impl Proving {
    /// Whose first ping is due at `first`; `None`: not before the series is restarted.
    pub(crate) fn from(first: Option<Timestamp>) -> Self {
        Self {
            pings: first.map_or_else(PingSeries::default, PingSeries::starting),
            out_proven: false,
            chases: 0,
            failed: false,
            cleared: false,
            waits: false,
            uncounted: false,
        }
    }

    /// Of an epoch that was proven before.
    pub(crate) fn anew(first: Option<Timestamp>) -> Self {
        Self {
            uncounted: true,
            ..Self::from(first)
        }
    }
}

/// An epoch that may carry traffic.
#[derive(Debug)]
pub(crate) struct Usable {
    /// False while only the way out is proven (client), see requirements of peers that answer on
    /// the old epoch.
    pub(crate) proven: bool,
    pub(crate) check: Check,
    /// When it is to be replaced.
    pub(crate) rekey_at: Timestamp,
}

/// Whether a usable epoch still works.
#[derive(Debug)]
pub(crate) enum Check {
    /// No reason to ask before then.
    Quiet { until: Timestamp },
    /// Its last proof is a while ago: it is pinged (R7).
    Pinging(Probe),
    /// Its pings went unanswered: it carries nothing, but may come back to life.
    Doubted(PingSeries),
}

/// Pings of a usable epoch, and what arrives on it meanwhile.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) pings: PingSeries,
    /// The inbound SA's packet counter at the first ping.
    baseline: Option<u64>,
    /// Something arrived since.
    pub(crate) busy: bool,
    /// Traffic waits for the answer.
    pub(crate) holds: bool,
}

impl Probe {
    /// Whose first ping is due now.
    pub(crate) fn starting(now: Timestamp) -> Self {
        Self {
            pings: PingSeries::starting(now),
            baseline: None,
            busy: false,
            holds: false,
        }
    }

    /// The same, while traffic waits for its end.
    pub(crate) fn holding(now: Timestamp) -> Self {
        Self {
            holds: true,
            ..Self::starting(now)
        }
    }

    /// The inbound SA's packet counter, as it was read now.
    pub(crate) fn count(&mut self, packets: u64) {
        let baseline = *self.baseline.get_or_insert(packets);
        self.busy |= packets > baseline;
    }
}

impl Epoch {
    pub(crate) fn new(
        number: EpochNumber,
        session: IkeSaId,
        child: &Child,
        peer: &Peer,
        now: Timestamp,
    ) -> Self {
        Self {
            number,
            session,
            child: child.id,
            replaces: child.replaces,
            started_by: child.started_by,
            inbound: SaId {
                destination: child.path.local.ip(),
                spi: child.inbound,
            },
            outbound: SaId {
                destination: child.path.remote.ip(),
                spi: child.outbound,
            },
            path: child.path,
            cipher: child.cipher,
            peer_is_epochgate: peer.epochgate,
            nat_asked: peer.nat_asked,
            ping_addresses: [child.ping_address, peer.ping_address],
            created: now,
            stage: Stage::Installing(Installing {
                unanswered: 2,
                refused: None,
                first_arrived: false,
            }),
            in_kernel: InKernel::default(),
            received: 0,
            answers: false,
            sent: None,
            relocation: None,
            repin: false,
            left_behind: Vec::new(),
            retire_at: None,
            delete_once_left: false,
            delete_unanswered: false,
            local_selectors: child.local_selectors.clone(),
            remote_selectors: child.remote_selectors.clone(),
        }
    }

    /// Whether the negotiated selectors contain a pair of the configuration, for all protocols and
    /// ports.
    pub(crate) fn covers(&self, pair: Pair) -> bool {
        selectors::contain(&self.local_selectors, pair.local)
            && selectors::contain(&self.remote_selectors, pair.remote)
    }

    /// Whether it is plain ESP, and nobody knows whether through a NAT that looks into it.
    pub(crate) fn is_trackable(&self) -> bool {
        !self.nat_asked && !self.path.encapsulated
    }

    /// Whether traffic may use it now.
    pub(crate) fn is_usable(&self) -> bool {
        match &self.stage {
            Stage::Usable(usable) => match &usable.check {
                Check::Quiet { .. } => true,
                Check::Pinging(probe) => !probe.holds,
                Check::Doubted(_) => false,
            },
            Stage::Installing(_)
            | Stage::Proving(_)
            | Stage::Awaiting { .. }
            | Stage::Draining { .. } => false,
        }
    }

    /// Whether its pings are unanswered, so that it carries nothing.
    pub(crate) fn is_dead(&self) -> bool {
        let failed = matches!(self.stage, Stage::Proving(Proving { failed: true, .. }));
        failed || self.is_doubted()
    }

    /// Whether it carried traffic, and carries none because its pings are unanswered.
    pub(crate) fn is_doubted(&self) -> bool {
        matches!(
            &self.stage,
            Stage::Usable(Usable {
                check: Check::Doubted(_),
                ..
            })
        )
    }

    /// Whether it may yet become usable by itself: installing, awaited, or pinged and not failed.
    pub(crate) fn is_candidate(&self) -> bool {
        match &self.stage {
            Stage::Installing(_) | Stage::Awaiting { .. } => true,
            Stage::Proving(proving) => !proving.failed,
            Stage::Usable(usable) => match &usable.check {
                Check::Pinging(probe) => probe.holds,
                Check::Quiet { .. } | Check::Doubted(_) => false,
            },
            Stage::Draining { .. } => false,
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    /// The pings that are under way on it.
    pub(crate) fn pings_mut(&mut self) -> Option<&mut PingSeries> {
        match &mut self.stage {
            Stage::Proving(proving) => Some(&mut proving.pings),
            Stage::Awaiting { pings, .. } => pings.as_mut(),
            Stage::Usable(usable) => match &mut usable.check {
                Check::Pinging(probe) => Some(&mut probe.pings),
                Check::Doubted(pings) => Some(pings),
                Check::Quiet { .. } => None,
            },
            Stage::Installing(_) | Stage::Draining { .. } => None,
        }
    }

    pub(crate) fn state_name(&self, open: bool) -> &'static str {
        match &self.stage {
            Stage::Installing(_) => "installing",
            Stage::Proving(Proving { failed: true, .. }) => "failed",
            Stage::Proving(_) => "proving",
            Stage::Awaiting { .. } => "awaiting",
            Stage::Usable(usable) => match (&usable.check, open, usable.proven) {
                (Check::Doubted(_), _, _) => "doubted",
                (_, true, _) => "open",
                (_, false, true) => "proven",
                (_, false, false) => "out-proven",
            },
            Stage::Draining { .. } => "draining",
        }
    }

    /// What moves the SAs that the kernel has to another path: inbound first. The outbound one of an
    /// epoch that drains is not needed any more.
    pub(crate) fn moves_to(&self, path: &Path) -> Vec<SaMove> {
        let awaited = match &self.stage {
            Stage::Awaiting { .. } => true,
            Stage::Installing(_)
            | Stage::Proving(_)
            | Stage::Usable(_)
            | Stage::Draining { .. } => false,
        };
        let (here, there) = (path.local, path.remote);
        let change = |from: SaId, to: IpAddr, source, direction, ports: (u16, u16)| SaMove {
            from,
            to: SaId {
                destination: to,
                spi: from.spi,
            },
            source,
            direction,
            encapsulation: path.encapsulated.then_some(Encapsulation {
                source_port: ports.0,
                destination_port: ports.1,
            }),
        };
        let inbound = self.in_kernel.inbound.then(|| {
            let direction = SaDirection::Inbound {
                report_first: awaited,
            };
            let ports = (there.port(), here.port());
            change(self.inbound, here.ip(), there.ip(), direction, ports)
        });
        let outbound = (self.in_kernel.outbound && !self.is_draining()).then(|| {
            let ports = (here.port(), there.port());
            let direction = SaDirection::Outbound;
            change(self.outbound, there.ip(), here.ip(), direction, ports)
        });
        inbound.into_iter().chain(outbound).collect()
    }

    /// The SAs as the kernel gets them: inbound first.
    pub(crate) fn sa_specs(
        &self,
        child: &Child,
        reqid: u32,
        if_id: Option<IfId>,
        report_first: bool,
        replay_window: u32,
        hard_lifetime: std::time::Duration,
    ) -> [SaSpec; 2] {
        let (here, there) = (self.path.local, self.path.remote);
        let encapsulation = |source_port, destination_port| {
            self.path.encapsulated.then_some(Encapsulation {
                source_port,
                destination_port,
            })
        };
        let spec = |id, source, direction, key, encapsulation| SaSpec {
            id,
            source,
            direction,
            reqid,
            if_id,
            cipher: self.cipher,
            key,
            sequence: SequenceNumbers {
                extended: child.extended_sequence,
                window: replay_window,
            },
            encapsulation,
            hard_lifetime,
        };
        [
            spec(
                self.inbound,
                there.ip(),
                SaDirection::Inbound { report_first },
                child.inbound_key.clone(),
                encapsulation(there.port(), here.port()),
            ),
            spec(
                self.outbound,
                here.ip(),
                SaDirection::Outbound,
                child.outbound_key.clone(),
                encapsulation(here.port(), there.port()),
            ),
        ]
    }
}
