//! How many seeds a CPU second runs, of the world that a search is about: two clients behind VPN
//! Masquerade, a minute of trouble, and then none.
//!
//! `cargo run --release -p epochgate-simulator --example rate -- 500`
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::config::NatTraversal;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::office::OfficePlan;
use epochgate_simulator::random::Random;
use epochgate_simulator::trace::Recording;
use epochgate_simulator::{QuickCrypto, Violation};

const SECOND: Duration = Duration::from_secs(1);

/// How long a world may take to come back. Nothing is judged here: this is about speed.
const RECOVERY: Duration = Duration::from_secs(60);

fn run(seed: u64) -> Result<(), Violation> {
    let mut random = Random::new(seed);
    let mut plan = OfficePlan::default();
    if random.chance(500) {
        plan.client.nat_traversal = NatTraversal::Off;
        plan.server.nat_traversal = NatTraversal::Off;
    }
    let mut office = plan.start(seed, Arc::new(QuickCrypto::new(seed)));
    office.world.set_recording(Recording::Off);
    office.world.run_for(SECOND)?;
    office.traffic(Duration::from_millis(500));
    for _ in 0..6 {
        let client = usize::from(random.chance(500));
        match random.below(6) {
            0 => office.world.forget_nat(office.nat.unwrap()),
            1 => drop(office.rekey(client)),
            2 => drop(office.rekey_by_server(client)),
            3 => drop(
                office
                    .world
                    .disturb(Rule::lose(None, Matching::Esp).next(20)),
            ),
            4 => office.world.crash(office.clients[client].node),
            _ => drop(
                office
                    .world
                    .disturb(Rule::lose(None, Matching::Anything).next(30)),
            ),
        }
        office.world.run_for(random.between(SECOND, 18 * SECOND))?;
        if office
            .world
            .node(office.clients[client].node)
            .controller()
            .is_none()
        {
            office.start_client(client);
        }
    }
    office.world.heal();
    let end = office.world.now() + RECOVERY;
    while office.world.now() < end && !office.all_open() {
        office.world.run_for(SECOND / 10)?;
    }
    office.world.run_for(20 * SECOND)
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let nanoseconds: f64 = stat.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

fn main() -> Result<(), Violation> {
    let seeds: u32 = std::env::args()
        .nth(1)
        .map_or(500, |arg| arg.parse().unwrap());
    let before = cpu_seconds();
    (0..seeds).try_for_each(|seed| run(u64::from(seed)))?;
    let took = cpu_seconds() - before;
    let rate = f64::from(seeds) / took;
    println!("{seeds} seeds in {took:.2} CPU seconds: {rate:.0} seeds per CPU second");
    Ok(())
}
