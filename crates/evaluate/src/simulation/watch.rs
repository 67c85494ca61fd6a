//! Watching an office's traffic from the fault on: when it is silent, and what is lost.

use std::time::Duration;

use epochgate_controller::Timestamp;
use epochgate_simulator::Violation;
use epochgate_simulator::office::Office;

use crate::outcome::TunnelOutcome;

/// How often is looked: what a time until traffic flows may be wrong by.
const LOOK: Duration = Duration::from_millis(50);

/// Silence that counts: several packets in a row.
const SILENCE: Duration = Duration::from_secs(1);

/// What is under way when the traffic ends may land.
const LANDING: Duration = Duration::from_secs(1);

/// An office under watch.
pub(super) struct Watch {
    since: Timestamp,
    misdelivered: u64,
    tunnels: Vec<Watched>,
}

/// One tunnel.
struct Watched {
    ways: [Way; 2],
    sent: u64,
    lost: u64,
    pings: u64,
}

/// One direction of a tunnel.
#[derive(Clone, Copy)]
struct Way {
    delivered: u64,
    last: Timestamp,
    /// When the last silence that counts ended.
    back: Option<Timestamp>,
}

impl Watch {
    /// From now on.
    pub(super) fn new(office: &Office) -> Self {
        let now = office.world.now();
        let way = |delivered| Way {
            delivered,
            last: now,
            back: None,
        };
        let watched = |client| {
            let [up, down] = ways(office, client);
            Watched {
                ways: [way(up.delivered), way(down.delivered)],
                sent: up.sent + down.sent,
                lost: up.missing() + down.missing(),
                pings: pings(office, client),
            }
        };
        Self {
            since: now,
            misdelivered: office.world.misdelivered(),
            tunnels: (0..office.clients.len()).map(watched).collect(),
        }
    }

    /// Lets time go on.
    pub(super) fn run_for(
        &mut self,
        office: &mut Office,
        duration: Duration,
    ) -> Result<(), Violation> {
        let end = office.world.now() + duration;
        self.run_to(office, end)
    }

    /// The same until so long after the beginning.
    pub(super) fn run_until(
        &mut self,
        office: &mut Office,
        after: Duration,
    ) -> Result<(), Violation> {
        self.run_to(office, self.since + after)
    }

    fn run_to(&mut self, office: &mut Office, end: Timestamp) -> Result<(), Violation> {
        while office.world.now() < end {
            let step = LOOK.min(end.since(office.world.now()));
            office.world.run_for(step)?;
            self.look(office);
        }
        Ok(())
    }

    fn look(&mut self, office: &Office) {
        let now = office.world.now();
        for (client, watched) in self.tunnels.iter_mut().enumerate() {
            let flows = ways(office, client);
            for (way, flow) in watched.ways.iter_mut().zip(flows) {
                if flow.delivered == way.delivered {
                    continue;
                }
                if now.since(way.last) > SILENCE {
                    way.back = Some(now);
                }
                way.delivered = flow.delivered;
                way.last = now;
            }
        }
    }

    /// Ends the traffic, and says what became of it: ESP packets given to the wrong host, and each
    /// tunnel's outcome.
    pub(super) fn finish(
        self,
        office: &mut Office,
    ) -> Result<(u64, Vec<TunnelOutcome>), Violation> {
        let end = office.world.now();
        office.stop_traffic();
        office.world.run_for(LANDING)?;
        let outcome = |(client, watched): (usize, &Watched)| {
            let [up, down] = ways(office, client);
            TunnelOutcome {
                back_ms: self.back_ms(watched, end),
                sent: up.sent + down.sent - watched.sent,
                lost: (up.missing() + down.missing()).saturating_sub(watched.lost),
                pings: pings(office, client) - watched.pings,
            }
        };
        let tunnels = self.tunnels.iter().enumerate().map(outcome).collect();
        Ok((office.world.misdelivered() - self.misdelivered, tunnels))
    }

    /// When traffic flowed again for good, both ways.
    fn back_ms(&self, watched: &Watched, end: Timestamp) -> Option<u64> {
        let mut latest = self.since;
        for way in &watched.ways {
            if end.since(way.last) > SILENCE {
                return None;
            }
            latest = latest.max(way.back.unwrap_or(self.since));
        }
        let back = latest.since(self.since);
        Some(u64::try_from(back.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Numbers of one direction.
#[derive(Clone, Copy)]
struct Flow {
    sent: u64,
    delivered: u64,
}

impl Flow {
    fn missing(self) -> u64 {
        self.sent - self.delivered
    }
}

fn ways(office: &Office, client: usize) -> [Flow; 2] {
    let accounts = office.accounts(client);
    [accounts.up, accounts.down].map(|account| Flow {
        sent: account.sent,
        delivered: account.delivered,
    })
}

fn pings(office: &Office, client: usize) -> u64 {
    office.status(client).map_or(0, |status| status.pings_sent)
}
