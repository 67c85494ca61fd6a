//! What the comparison compares with: a controller without a gate really sends on what nobody has
//! proven, and stays dead where a gated one comes back.
#![cfg(feature = "ungated")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use epochgate_controller::Controller;
use epochgate_controller::config::Start;
use epochgate_controller::crypto::Crypto;
use epochgate_controller::event::EventKind;
use epochgate_crypto::Ring;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::{Pair, Plan};
use epochgate_simulator::{Violation, World};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(100);

fn crypto() -> Arc<dyn Crypto> {
    Arc::new(Ring::new())
}

fn established(make: Option<fn(Arc<dyn Crypto>) -> Controller>) -> Result<Pair, Violation> {
    let mut plan = Plan::default();
    plan.client.start = Start::Always;
    let mut pair = plan.start_with(1, crypto(), |world: &mut World| {
        if let Some(make) = make {
            world.compare_with(make);
        }
    })?;
    pair.await_open(10 * SECOND)?;
    Ok(pair)
}

/// ESP on one SPI never arrives, as after a NAT that guessed wrong: how much arrives in the tenth
/// minute?
fn delivered_in_the_tenth_minute(pair: &mut Pair) -> Result<u64, Violation> {
    let spi = pair.open(pair.client).unwrap().outbound.spi;
    let flow = pair.upward(INTERVAL);
    pair.world.disturb(Rule::lose(None, Matching::EspOn(spi)));
    pair.world.run_for(9 * MINUTE)?;
    let before = pair.world.account(flow).delivered;
    pair.world.run_for(MINUTE)?;
    Ok(pair.world.account(flow).delivered - before)
}

#[test]
fn without_a_gate_traffic_leaves_before_any_ping_and_no_ping_is_ever_sent() -> Result<(), Violation>
{
    let mut pair = established(Some(Controller::ungated))?;
    let up = pair.upward(INTERVAL);
    let down = pair.downward(INTERVAL);
    pair.world.run_for(MINUTE)?;
    assert!(pair.world.account(up).lost() <= 1 && pair.world.account(down).lost() <= 1);
    assert!(pair.world.violations()["I1"] > 0);
    let pinged = |kind: &EventKind| matches!(kind, EventKind::PingSent { .. });
    assert_eq!(pair.world.node(pair.client).count(pinged), 0);
    Ok(())
}

#[test]
fn without_a_gate_a_tunnel_stays_dead_while_its_ike_sa_is_established() -> Result<(), Violation> {
    let mut pair = established(Some(Controller::ungated))?;
    let alive = pair.status(pair.client).unwrap().ike.len();
    assert_eq!(delivered_in_the_tenth_minute(&mut pair)?, 0);
    assert_eq!(pair.status(pair.client).unwrap().ike.len(), alive);
    let closed = |kind: &EventKind| matches!(kind, EventKind::IkeClosed { .. });
    assert_eq!(pair.world.node(pair.client).count(closed), 0);
    Ok(())
}

#[test]
fn with_a_gate_the_same_tunnel_delivers_everything_again() -> Result<(), Violation> {
    let mut pair = established(None)?;
    let a_minute = 600;
    let delivered = delivered_in_the_tenth_minute(&mut pair)?;
    assert!(delivered.abs_diff(a_minute) <= 1, "{delivered}");
    assert!(pair.world.violations().is_empty());
    Ok(())
}

#[test]
fn without_a_gate_a_peer_that_vanished_is_noticed_by_liveness_checks_alone() -> Result<(), Violation>
{
    let mut pair = established(Some(Controller::ungated))?;
    pair.upward(INTERVAL);
    let rule = pair.world.disturb(Rule::lose(None, Matching::Anything));
    let closed = |kind: &EventKind| matches!(kind, EventKind::IkeClosed { .. });
    pair.world.run_for(5 * MINUTE)?;
    assert!(pair.world.node(pair.client).count(closed) > 0);
    pair.world.mend(rule);
    pair.await_open(2 * MINUTE)
}
