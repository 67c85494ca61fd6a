//! Traffic through every tunnel of an office, and what became of it from the fault on.

use crate::contender::Daemons;
use epochgate_integration::office::{Office, OfficeWatch};
use epochgate_integration::traffic::RunningFlow;
use epochgate_integration::{Account, Timestamp, UdpFlow};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// Each way, in each tunnel.
const PACKETS_PER_SECOND: u32 = 10;
/// More than any run sends: it is ended by hand.
const PACKETS_MAX: u64 = 1_000_000;
/// The first port of the server's receivers; each tunnel has one of its own.
const PORT: u16 = 7000;
const SERVER_INNER: &str = "10.2.0.1";
/// Silence that counts: several packets in a row.
const SILENCE: Duration = Duration::from_secs(1);
/// What is under way when the traffic ends may land.
const LANDING: Duration = Duration::from_secs(1);

/// What must listen before the first daemon runs.
pub(crate) struct Prepared {
    watch: OfficeWatch,
}

/// A run's traffic.
pub(crate) struct Measure {
    watch: OfficeWatch,
    flows: Vec<[RunningFlow; 2]>,
    fault: Option<(Instant, Timestamp, Vec<u64>)>,
}

impl Measure {
    /// Before the daemons.
    pub(crate) fn prepare(office: &Office) -> Prepared {
        Prepared {
            watch: office.watch(),
        }
    }

    /// The fault comes now.
    pub(crate) fn fault(&mut self, daemons: &Daemons) {
        let clients = 0..self.flows.len();
        let pings = clients.map(|client| daemons.pings(client)).collect();
        self.fault = Some((Instant::now(), Timestamp::now(), pings));
    }

    /// Waits until so long after the fault.
    pub(crate) fn wait_until(&self, after: Duration) {
        if let Some((fault, ..)) = &self.fault {
            thread::sleep(after.saturating_sub(fault.elapsed()));
        }
    }

    /// Ends the traffic: ESP packets given to the wrong client, and each tunnel's outcome.
    pub(crate) fn finish(self, daemons: &Daemons) -> (u64, Vec<Value>) {
        let Some((_, fault, pings_before)) = self.fault else {
            return (0, Vec::new());
        };
        let end = Timestamp::now();
        // All stop at one moment; each is then waited for.
        for flow in self.flows.iter().flatten() {
            flow.end_at_multiple_of(1);
        }
        let mut tunnels = Vec::new();
        for (client, flows) in self.flows.into_iter().enumerate() {
            let ways = flows.map(|flow| Way::of(&flow.finish(LANDING), fault, end));
            let back = match ways.each_ref().map(|way| way.back) {
                [Some(up), Some(down)] => u64::try_from(up.max(down).as_millis()).ok(),
                [_, _] => None,
            };
            tunnels.push(json!({
                "back_ms": back,
                "sent": ways.iter().map(|way| way.sent).sum::<u64>(),
                "lost": ways.iter().map(|way| way.lost).sum::<u64>(),
                "pings": daemons.pings(client) - pings_before[client],
            }));
        }
        let misdelivered = self.watch.traces().misdelivered_after(fault);
        (misdelivered.iter().sum::<usize>() as u64, tunnels)
    }
}

impl Prepared {
    /// Starts the traffic, both ways through every tunnel.
    /// When each flow's packets are due within an interval follows from the run's number.
    pub(crate) fn start(self, office: &Office, number: u64) -> Measure {
        let mut phases = number;
        let flows = office.clients.iter().zip(PORT..).map(|(desk, port)| {
            let inner = desk.inner.to_string();
            let mut flow = |from, to| {
                thread::sleep(phase(&mut phases));
                let flow = UdpFlow::new(from, to, port);
                flow.rate(PACKETS_PER_SECOND).count(PACKETS_MAX).start()
            };
            let (client, server) = ((&desk.host, &*inner), (&office.server, SERVER_INNER));
            [flow(client, server), flow(server, client)]
        });
        Measure {
            flows: flows.collect(),
            watch: self.watch,
            fault: None,
        }
    }
}

/// The next of a sequence of pauses, up to the time between a flow's packets (SplitMix64's mixing).
fn phase(state: &mut u64) -> Duration {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let interval = 1_000_000 / u64::from(PACKETS_PER_SECOND);
    Duration::from_micros((mixed ^ (mixed >> 31)) % interval)
}

/// One direction of a tunnel, from the fault on.
struct Way {
    sent: u64,
    lost: u64,
    /// From the fault to the end of the last silence that counts.
    back: Option<Duration>,
}

impl Way {
    fn of(account: &Account, fault: Timestamp, end: Timestamp) -> Self {
        let before = account.sent.iter().filter(|(_, at)| *at < fault).count();
        let tried = account.sent.len() + account.refused.len() - before;
        let arrived: BTreeSet<u64> = account.arrivals.iter().map(|one| one.sequence).collect();
        let late = account.sent.iter().filter(|(_, at)| *at >= fault);
        let delivered = late
            .filter(|(sequence, _)| arrived.contains(sequence))
            .count();
        let mut last = fault;
        let mut back = Duration::ZERO;
        let mut times: Vec<Timestamp> = account.arrivals.iter().map(|one| one.at).collect();
        times.sort_unstable();
        for at in times.into_iter().filter(|at| *at > fault) {
            if at.since(last) > SILENCE {
                back = at.since(fault);
            }
            last = at;
        }
        Self {
            sent: tried as u64,
            lost: (tried - delivered) as u64,
            back: (end.since(last) <= SILENCE).then_some(back),
        }
    }
}
