//! The simulated half: an office behind a NAT for each seed, one fault, and ten minutes to see what
//! becomes of its tunnels.
//!
//! epochgate runs with every invariant checked after every step: a violation ends the evaluation.

mod fault;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::Controller;
use epochgate_controller::config::{NatTraversal, TunnelConfig};
use epochgate_controller::crypto::Crypto;
use epochgate_nat::{MasqueradeSettings, UdpSettings};
use epochgate_simulator::office::{NatKind, Office, OfficePlan};
use epochgate_simulator::random::Random;
use epochgate_simulator::trace::Recording;
use epochgate_simulator::{QuickCrypto, Violation};

use crate::outcome::{Contender, Fault, Place, Run};
use watch::Watch;

/// Clients of an office.
pub const CLIENTS: u8 = 4;

/// Time between an application's packets, each way.
pub const PACKET_INTERVAL: Duration = Duration::from_millis(100);

/// Time that is watched after the fault.
pub const WATCHED: Duration = Duration::from_secs(600);

/// One way between the NAT and the server, drawn for each seed.
const DELAY: std::ops::Range<Duration> = Duration::from_millis(5)..Duration::from_millis(60);

/// Clients start one after another, so that those without a gate get to work at all.
const START_APART: Duration = Duration::from_secs(4);

/// Quiet traffic before the fault.
const BEFORE: Duration = Duration::from_secs(20);

/// Plays one seed.
///
/// # Errors
/// A violation of an invariant by epochgate, or a tunnel that did not come up before the fault.
pub fn play(fault: Fault, contender: Contender, seed: u64) -> Result<Run, Violation> {
    let mut random = Random::new(seed);
    let mut office = office(fault, contender, seed, &mut random)?;
    for client in 0..office.clients.len() {
        // Applications do not send in step.
        office
            .world
            .run_for(random.between(Duration::ZERO, PACKET_INTERVAL))?;
        office.traffic_of(client, PACKET_INTERVAL);
    }
    office.world.run_for(BEFORE)?;
    // The fault comes at any moment of an application's interval and of the daemons' timers.
    let moment = random.between(Duration::ZERO, Duration::from_secs(10));
    office.world.run_for(moment)?;
    let prepared = fault::prepare(fault, &mut office)?;
    let mut watch = Watch::new(&office);
    fault::strike(fault, &prepared, &mut office, &mut watch, &mut random)?;
    watch.run_until(&mut office, WATCHED)?;
    let (misdelivered, tunnels) = watch.finish(&mut office)?;
    Ok(Run {
        place: Place::Simulator,
        fault,
        contender,
        number: seed,
        watched_s: WATCHED.as_secs(),
        misdelivered,
        tunnels,
    })
}

/// What epochgate promises with the settings of these offices, which are its defaults.
#[must_use]
pub fn recovery_bound() -> Duration {
    OfficePlan::default().client.recovery_bound()
}

/// An office whose tunnels are all open.
fn office(
    fault: Fault,
    contender: Contender,
    seed: u64,
    random: &mut Random,
) -> Result<Office, Violation> {
    let mut plan = OfficePlan {
        clients: CLIENTS,
        delay: random.between(DELAY.start, DELAY.end),
        ..OfficePlan::default()
    };
    let nat_traversal = match fault {
        Fault::MappingChange => {
            plan.nat = Some(NatKind::Udp(UdpSettings::symmetric()));
            NatTraversal::Auto
        }
        Fault::Crash
        | Fault::Collision
        | Fault::RaceDropped
        | Fault::RaceGiven
        | Fault::LateAnswer => {
            plan.nat = Some(NatKind::Masquerade(MasqueradeSettings::default()));
            NatTraversal::Off
        }
    };
    let both = |tunnel: TunnelConfig| TunnelConfig {
        nat_traversal,
        ..tunnel
    };
    plan.client = both(plan.client);
    plan.server = both(plan.server);
    let provider: Arc<dyn Crypto> = Arc::new(QuickCrypto::new(seed));
    let mut office = plan.build(seed, provider);
    office.world.set_recording(Recording::Off);
    match contender {
        Contender::NoGate => office.world.compare_with(Controller::ungated),
        Contender::Epochgate | Contender::Strongswan => {}
    }
    office.start_server();
    for client in 0..office.clients.len() {
        office.start_client(client);
        let name = format!("client {client} is open");
        office.await_that(&name, 10 * START_APART, |office| office.is_open(client))?;
        office.world.run_for(START_APART)?;
    }
    Ok(office)
}
