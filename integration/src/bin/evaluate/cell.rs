//! One run: an office whose tunnels all work, a fault, and what came of it.

use crate::contender::{Contender, Daemons};
use crate::measure::Measure;
use epochgate_integration::{Office, Packets};
use epochgate_nat::{MasqueradeSettings, UdpSettings};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// Clients of an office, as in the simulator.
pub(crate) const CLIENTS: usize = 4;
/// From a client to the server and back.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Quiet traffic before the fault.
const BEFORE: Duration = Duration::from_secs(5);
/// Time between one tunnel's rekey and the next one's, where they are to be alone.
const APART: Duration = Duration::from_secs(5);
/// How late ESP from the server arrives: the NAT waits 5 s for an answer.
const LATE: Duration = Duration::from_secs(7);
/// How long that goes on.
const LATE_FOR: Duration = Duration::from_secs(20);
/// Time between the clients' rekeys meanwhile.
const LATE_APART: Duration = Duration::from_millis(700);

/// Time after which nothing of a replaced epoch is left in any kernel.
const RETIRED: Duration = Duration::from_secs(40);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    Collision,
    RaceDropped,
    RaceGiven,
    LateAnswer,
    MappingChange,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::Crash,
        Self::Collision,
        Self::RaceDropped,
        Self::RaceGiven,
        Self::LateAnswer,
        Self::MappingChange,
    ];

    /// As in the evaluation's JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Collision => "collision",
            Self::RaceDropped => "race-dropped",
            Self::RaceGiven => "race-given",
            Self::LateAnswer => "late-answer",
            Self::MappingChange => "mapping-change",
        }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) fault: Fault,
    pub(crate) contender: Contender,
}

impl Cell {
    pub(crate) fn title(self) -> String {
        format!("{}, {}", self.fault.name(), self.contender.name())
    }

    /// Plays it, and watches for so long after the fault. Runs of different numbers differ in when
    /// packets are sent.
    pub(crate) fn play(self, watched: Duration, number: u64) -> Value {
        let nat_t = self.fault == Fault::MappingChange;
        let settings = MasqueradeSettings {
            udp: if nat_t {
                UdpSettings::symmetric()
            } else {
                UdpSettings::port_restricted()
            },
            ..MasqueradeSettings::default()
        };
        let office = Office::new(&format!("evaluate-{}", self.fault.name()))
            .clients(CLIENTS)
            .settings(settings)
            .round_trip(ROUND_TRIP)
            .build();
        // What is to be late later needs a queue that can tell packets apart.
        office.from_server.impair(Duration::ZERO, 0.0);
        let measure = Measure::prepare(&office);
        let daemons = Daemons::start(self.contender, &office, nat_t);
        let mut measure = measure.start(&office, number);
        if self.fault == Fault::Collision {
            // The NAT keeps an SPI for half an hour after its tunnel has replaced it.
            rekey_each(&daemons);
            thread::sleep(RETIRED);
        }
        thread::sleep(BEFORE);
        measure.fault(&daemons);
        self.strike(&office, &daemons, &measure);
        measure.wait_until(watched);
        let (misdelivered, tunnels) = measure.finish(&daemons);
        json!({
            "place": "kernel",
            "fault": self.fault.name(),
            "contender": self.contender.name(),
            "number": number,
            "watched_s": watched.as_secs(),
            "misdelivered": misdelivered,
            "tunnels": tunnels,
        })
    }

    fn strike(self, office: &Office, daemons: &Daemons, measure: &Measure) {
        match self.fault {
            Fault::Crash | Fault::MappingChange => office.nat.forget(),
            // Each chooses the SPI that the one before it had at first.
            Fault::Collision => rekey_each(daemons),
            Fault::RaceDropped => {
                for client in 0..CLIENTS {
                    daemons.rekey_by_server(client);
                    thread::sleep(APART);
                }
            }
            Fault::RaceGiven => {
                thread::scope(|scope| {
                    for client in 0..CLIENTS {
                        scope.spawn(move || daemons.rekey_by_server(client));
                    }
                });
            }
            Fault::LateAnswer => {
                let late = office.from_server.delay_packets(&Packets::esp(), LATE);
                for client in 0..CLIENTS {
                    daemons.rekey_by_client(client);
                    thread::sleep(LATE_APART);
                }
                measure.wait_until(LATE_FOR);
                late.lift();
            }
        }
    }
}

/// One client after another starts a rekey.
fn rekey_each(daemons: &Daemons) {
    for client in 0..CLIENTS {
        daemons.rekey_by_client(client);
        thread::sleep(APART);
    }
}
