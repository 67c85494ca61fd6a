//! What `status` shows of an IKE SA.

use std::net::SocketAddr;

use epochgate_ike_wire::IkeSpi;

use crate::Timestamp;
use crate::status::IkeStatus;

use super::keys::IkeSpis;
use super::proposal::IkeAlgorithms;
use super::sa::IkeSa;
use super::session::Session;

impl IkeSa {
    /// `None` for what has no tunnel yet, or whose end was told.
    pub(super) fn status(&self, now: Timestamp) -> Option<IkeStatus> {
        match self {
            Self::Initiating(it) => {
                let (spi, local, remote) = it.whereabouts();
                let spis = IkeSpis {
                    initiator: spi,
                    responder: IkeSpi::ZERO,
                };
                let mut status = blank("initiating", &spis, local, remote);
                status.age_ms = milliseconds(now, it.since());
                Some(status)
            }
            Self::Authenticating(it) => {
                let mut status = protected("authenticating", &it.session);
                status.suite = suite(it.algorithms());
                status.age_ms = milliseconds(now, it.since);
                Some(status)
            }
            Self::Intermediate(it) => {
                let mut status = protected("authenticating", &it.session);
                status.suite = suite(it.algorithms());
                status.age_ms = milliseconds(now, it.since);
                Some(status)
            }
            Self::Established(it) => {
                let mut status = protected("established", &it.session);
                status.suite = suite(it.algorithms);
                status.epochgate = it.epochgate;
                status.age_ms = milliseconds(now, it.since);
                let rekey_at = it.lifetime.rekey_at();
                status.rekey_in_ms = rekey_at.map(|at| milliseconds(at, now));
                Some(status)
            }
            Self::Closing(it) if it.is_untold() => Some(protected("deleting", &it.session)),
            Self::HalfOpen(_) | Self::Closing(_) | Self::Lingering(_) => None,
        }
    }
}

fn protected(state: &str, session: &Session) -> IkeStatus {
    let path = &session.path;
    let mut status = blank(state, &session.spis, path.local, path.remote);
    status.nat = session.nat.found();
    status
}

fn blank(state: &str, spis: &IkeSpis, local: SocketAddr, remote: SocketAddr) -> IkeStatus {
    IkeStatus {
        initiator_spi: spis.initiator.to_string(),
        responder_spi: spis.responder.to_string(),
        state: state.to_owned(),
        local,
        remote,
        nat: false,
        epochgate: false,
        suite: String::new(),
        peer_id: None,
        age_ms: 0,
        rekey_in_ms: None,
        reauthenticate_in_ms: None,
    }
}

fn suite(algorithms: IkeAlgorithms) -> String {
    let IkeAlgorithms {
        cipher,
        prf,
        group,
        additional,
    } = algorithms;
    match additional {
        None => format!("{cipher}/{prf}/{group}"),
        Some(kem) => format!("{cipher}/{prf}/{group}+{kem}"),
    }
}

fn milliseconds(now: Timestamp, since: Timestamp) -> u64 {
    u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
}
