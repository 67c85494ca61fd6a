//! The faults: how each is brought about.

use std::time::Duration;

use epochgate_controller::io::Spi;
use epochgate_simulator::Violation;
use epochgate_simulator::network::{Matching, Rule, Verdict};
use epochgate_simulator::office::Office;
use epochgate_simulator::pair::SERVER_OUTER;
use epochgate_simulator::random::Random;

use super::watch::Watch;
use crate::outcome::Fault;

/// Time between one client's rekey and the next one's, where they are to be alone.
const APART: Duration = Duration::from_secs(5);

/// How much later than usual ESP from the server arrives: the NAT waits 5 s for an answer.
const LATE: Duration = Duration::from_secs(7);

/// How long that goes on.
const LATE_FOR: Duration = Duration::from_secs(20);

/// Time after which nothing of a replaced epoch is left in any kernel.
const RETIRED: Duration = Duration::from_secs(40);

/// What was prepared for a fault.
#[derive(Default)]
pub(super) struct Prepared {
    /// SPIs that the NAT still has for each client, and the client no longer.
    spis: Vec<Spi>,
}

/// What has to be so before a fault can happen: nothing of it disturbs anybody.
///
/// # Errors
/// A violation of an invariant.
pub(super) fn prepare(fault: Fault, office: &mut Office) -> Result<Prepared, Violation> {
    let mut prepared = Prepared::default();
    match fault {
        Fault::Collision => {
            // The NAT keeps an SPI for half an hour after its tunnel has replaced it.
            for client in 0..office.clients.len() {
                prepared.spis.extend(inbound_spi(office, client));
                office.rekey(client);
                office.world.run_for(APART)?;
            }
            office.world.run_for(RETIRED)?;
        }
        Fault::Crash
        | Fault::RaceDropped
        | Fault::RaceGiven
        | Fault::LateAnswer
        | Fault::MappingChange => {}
    }
    Ok(prepared)
}

/// What each client received on before its latest rekey.
fn inbound_spi(office: &Office, client: usize) -> Option<Spi> {
    let client = &office.clients[client];
    let epoch = office.world.node(client.node).open_epoch(&client.name)?;
    Some(epoch.inbound.spi)
}

/// Brings a fault about, while traffic is watched.
///
/// # Errors
/// A violation of an invariant.
pub(super) fn strike(
    fault: Fault,
    prepared: &Prepared,
    office: &mut Office,
    watch: &mut Watch,
    random: &mut Random,
) -> Result<(), Violation> {
    let clients = office.clients.len();
    match fault {
        Fault::Crash | Fault::MappingChange => {
            if let Some(nat) = office.nat {
                office.world.forget_nat(nat);
            }
        }
        Fault::Collision => {
            for (client, spi) in prepared.spis.iter().enumerate() {
                // The next client chooses it.
                let chooser = (client + 1) % clients;
                office.world.force_spi(office.clients[chooser].node, *spi);
                office.rekey(chooser);
                watch.run_for(office, APART)?;
            }
        }
        Fault::RaceDropped => {
            for client in 0..clients {
                office.rekey_by_server(client);
                watch.run_for(office, APART)?;
            }
        }
        Fault::RaceGiven => {
            // All at once, but for what machines differ by.
            for client in 0..clients {
                office.rekey_by_server(client);
                watch.run_for(
                    office,
                    random.between(Duration::ZERO, Duration::from_millis(5)),
                )?;
            }
        }
        Fault::LateAnswer => {
            let rule = office.world.disturb(Rule {
                from: Some(SERVER_OUTER),
                verdict: Verdict::Delay(LATE),
                ..Rule::lose(None, Matching::Esp)
            });
            for client in 0..clients {
                office.rekey(client);
                let apart = random.between(Duration::ZERO, LATE_FOR / 8);
                watch.run_for(office, apart)?;
            }
            watch.run_until(office, LATE_FOR)?;
            office.world.mend(rule);
        }
    }
    Ok(())
}
