//! What the daemon does beside performing outputs, by its own clock: it counts what left when a gate
//! opened, and tells the service manager how many tunnels pass.
//!
//! Data comes from the shell's outputs and the kernel's counters, and goes to `status`, the log and
//! `sd_notify(3)`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_controller::config::TunnelName;
use epochgate_controller::event::{Event, EventKind};
use epochgate_controller::io::{OpId, PolicyAction, PolicyScope, PolicySpec, SaId};
use epochgate_controller::status::{Released, StatusReport};

/// Time from the switch until what left is counted. The kernel releases a queue from a timer, within
/// 30 ms (`xfrm_policy_queue_process`, measured).
const RELEASE_TIME: Duration = Duration::from_millis(50);

/// Switches of which what left is counted at one time; of more it is not.
const RELEASES_MAX: usize = 256;

/// The service manager hears of changes this often at most.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Names of tunnels that do not pass, in what the service manager is told.
const NAMED_MAX: usize = 3;

/// Things to do later.
#[derive(Debug, Default)]
pub(super) struct Chores {
    /// Packet counters just before a gate was moved to an SA, by the operation that moves it.
    moves: HashMap<OpId, (SaId, u64)>,
    /// Switches whose release is to be counted.
    releases: VecDeque<Release>,
    /// What left at each tunnel's last switch.
    released: HashMap<TunnelName, (Released, Timestamp)>,
    /// Which tunnels pass.
    gates: BTreeMap<TunnelName, bool>,
    /// When the service manager is told of a change.
    tell_at: Option<Timestamp>,
    told: Option<Timestamp>,
}

/// A switch whose release is to be counted.
#[derive(Debug)]
pub(super) struct Release {
    tunnel: TunnelName,
    epoch: u64,
    pub(super) sa: SaId,
    before: u64,
    pings: u64,
    switched: Timestamp,
}

impl Release {
    fn due(&self) -> Timestamp {
        self.switched + RELEASE_TIME
    }
}

impl Chores {
    /// The SA that these policies send through, if they move a gate there.
    pub(super) fn target(policies: &[PolicySpec]) -> Option<SaId> {
        policies
            .iter()
            .find_map(|policy| match (policy.action, policy.key.scope) {
                (_, PolicyScope::PingsOf(_)) => None,
                (PolicyAction::Pin { sa, .. }, _) => Some(sa),
                (
                    PolicyAction::Exempt | PolicyAction::Hold { .. } | PolicyAction::Accept { .. },
                    _,
                ) => None,
            })
    }

    /// An SA has carried so many packets just before this operation moved a gate to it.
    pub(super) fn moving(&mut self, op: OpId, sa: SaId, packets: u64) {
        self.moves.insert(op, (sa, packets));
    }

    /// An operation is done: what was counted before it.
    pub(super) fn moved(&mut self, op: OpId) -> Option<(SaId, u64)> {
        self.moves.remove(&op)
    }

    /// A control ping was sent on an SA: it is not one of those released.
    pub(super) fn pinged(&mut self, sa: SaId) {
        for release in self.releases.iter_mut().filter(|release| release.sa == sa) {
            release.pings += 1;
        }
    }

    /// An event of a tunnel, and the gate's move that it followed from.
    pub(super) fn event(&mut self, event: &Event, moved: Option<(SaId, u64)>, now: Timestamp) {
        let Some(tunnel) = &event.tunnel else { return };
        let passes = match &event.kind {
            EventKind::Switched { held_us } => {
                if let (Some((sa, before)), Some(epoch), Some(_)) = (moved, event.epoch, held_us)
                    && self.releases.len() < RELEASES_MAX
                {
                    self.releases.push_back(Release {
                        tunnel: tunnel.clone(),
                        epoch: epoch.0,
                        sa,
                        before,
                        pings: 0,
                        switched: now,
                    });
                }
                Some(true)
            }
            EventKind::Holding | EventKind::Closed { .. } => Some(false),
            EventKind::Down => None,
            EventKind::FirstPacketHeld
            | EventKind::Negotiating { .. }
            | EventKind::IkeEstablished { .. }
            | EventKind::IkeShared { .. }
            | EventKind::IkeRekeyed { .. }
            | EventKind::Reauthenticating { .. }
            | EventKind::IkeClosed { .. }
            | EventKind::EpochInstalled { .. }
            | EventKind::EpochMoved { .. }
            | EventKind::PingSent { .. }
            | EventKind::PingAnswered { .. }
            | EventKind::FirstPacketArrived
            | EventKind::Unanswered { .. }
            | EventKind::Rekeying { .. }
            | EventKind::SpiTaken { .. }
            | EventKind::Untying
            | EventKind::EpochRemoved
            | EventKind::AddressesAssigned { .. }
            | EventKind::AddressesLeased { .. }
            | EventKind::Retrying { .. }
            | EventKind::Attention { .. }
            | EventKind::TookOver { .. } => return,
        };
        let before = match passes {
            Some(passes) => self.gates.insert(tunnel.clone(), passes),
            None => self.gates.remove(tunnel),
        };
        if before != passes {
            self.tell_soon(now);
        }
    }

    /// The tunnels of the configuration are these: what is known of others is forgotten.
    pub(super) fn keep(&mut self, tunnels: &HashSet<TunnelName>, now: Timestamp) {
        self.gates.retain(|tunnel, _| tunnels.contains(tunnel));
        self.released.retain(|tunnel, _| tunnels.contains(tunnel));
        self.tell_soon(now);
    }

    /// A release that is to be counted now.
    pub(super) fn next_release(&mut self, now: Timestamp) -> Option<Release> {
        if self.releases.front()?.due() > now {
            return None;
        }
        self.releases.pop_front()
    }

    /// Its SA has carried so many packets by now. Returns what left.
    pub(super) fn counted(&mut self, release: Release, packets: u64, now: Timestamp) -> u64 {
        let left = packets
            .saturating_sub(release.before)
            .saturating_sub(release.pings);
        let within = now.since(release.switched).as_millis();
        let released = Released {
            epoch: release.epoch,
            packets: left,
            within_ms: u64::try_from(within).unwrap_or(u64::MAX),
            ago_ms: 0,
        };
        if left > 0 {
            tracing::info!(
                tunnel = &*release.tunnel.0,
                epoch = release.epoch,
                "packets that left within {} ms of the switch, held ones and new ones: {left}",
                released.within_ms
            );
        }
        self.released.insert(release.tunnel, (released, now));
        left
    }

    /// Adds what left at the last switch.
    pub(super) fn add_to(&self, report: &mut StatusReport, now: Timestamp) {
        for tunnel in &mut report.tunnels {
            let name = TunnelName(tunnel.name.as_str().into());
            tunnel.released = self.released.get(&name).map(|(released, at)| Released {
                ago_ms: u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX),
                ..*released
            });
        }
    }

    /// When something is to be done.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let release = self.releases.front().map(Release::due);
        [release, self.tell_at].into_iter().flatten().min()
    }

    fn tell_soon(&mut self, now: Timestamp) {
        let at = self.told.map_or(now, |told| now.max(told + TOLD_EVERY));
        self.tell_at.get_or_insert(at);
    }

    /// What the service manager is to be told now, if anything (`STATUS=`, sd_notify(3)).
    pub(super) fn summary(&mut self, now: Timestamp) -> Option<String> {
        if self.tell_at.is_none_or(|at| at > now) {
            return None;
        }
        self.tell_at = None;
        self.told = Some(now);
        let held: Vec<&str> = self
            .gates
            .iter()
            .filter(|(_, passes)| !**passes)
            .map(|(tunnel, _)| &*tunnel.0)
            .collect();
        let open = self.gates.len() - held.len();
        let mut text = format!("{open} of {} tunnels open", self.gates.len());
        if !held.is_empty() {
            let named = held.iter().take(NAMED_MAX).copied().collect::<Vec<_>>();
            let more = if held.len() > NAMED_MAX { ", …" } else { "" };
            text.push_str(&format!("; held: {}{more}", named.join(", ")));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use epochgate_controller::event::EpochNumber;
    use epochgate_controller::io::Spi;

    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(milliseconds)
    }

    fn sa() -> SaId {
        SaId {
            destination: [192, 0, 2, 1].into(),
            spi: Spi(NonZeroU32::new(0x1000).expect("not 0")),
        }
    }

    fn event(tunnel: &str, kind: EventKind) -> Event {
        Event {
            tunnel: Some(TunnelName(tunnel.into())),
            epoch: Some(EpochNumber(2)),
            kind,
        }
    }

    fn switched(held_us: Option<u64>) -> Event {
        event("branch", EventKind::Switched { held_us })
    }

    #[test]
    fn what_left_after_a_switch_is_counted_without_our_pings() {
        let mut chores = Chores::default();
        chores.moving(OpId(1), sa(), 10);
        let moved = chores.moved(OpId(1));
        chores.event(&switched(Some(5)), moved, at(0));
        chores.pinged(sa());
        assert!(chores.next_release(at(49)).is_none());
        let release = chores.next_release(at(51)).expect("due");
        assert_eq!(chores.counted(release, 31, at(51)), 20);
        let mut report = StatusReport {
            schema: 1,
            tunnels: vec![tunnel("branch"), tunnel("other")],
        };
        chores.add_to(&mut report, at(151));
        let want = Released {
            epoch: 2,
            packets: 20,
            within_ms: 51,
            ago_ms: 100,
        };
        let told: Vec<_> = report.tunnels.iter().map(|it| it.released).collect();
        assert_eq!(told, [Some(want), None]);
        chores.keep(&HashSet::new(), at(200));
        chores.add_to(&mut report, at(200));
        assert_eq!(report.tunnels[0].released, None);
    }

    fn tunnel(name: &str) -> epochgate_controller::status::TunnelStatus {
        let json = serde_json::json!({
            "name": name, "role": "client", "gate": "open", "reason": "",
            "local_traffic": [], "remote_traffic": [], "refused_traffic": [],
            "ike": [], "epochs": [], "pings_sent": 0, "pings_answered": 0, "switches": 0,
            "held_packets_max": 101,
        });
        serde_json::from_value(json).expect("a status")
    }

    #[test]
    fn a_switch_that_held_nothing_releases_nothing() {
        let mut chores = Chores::default();
        chores.event(&switched(None), Some((sa(), 10)), at(0));
        assert!(chores.next_release(at(1000)).is_none());
    }

    #[test]
    fn the_service_manager_hears_of_changes_once_a_second_at_most() {
        let mut chores = Chores::default();
        chores.event(&event("a", EventKind::Holding), None, at(0));
        let told = chores.summary(at(0)).expect("at once");
        assert_eq!(told, "0 of 1 tunnels open; held: a");
        chores.event(&switched(None), None, at(10));
        chores.event(&switched(None), None, at(20));
        assert_eq!(chores.summary(at(20)), None);
        assert_eq!(chores.due(), Some(at(1000)));
        let told = chores.summary(at(1000)).expect("a second later");
        assert_eq!(told, "1 of 2 tunnels open; held: a");
        assert_eq!(chores.due(), None, "nothing has changed since");
    }
}
