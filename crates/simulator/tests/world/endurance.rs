//! Many epochs: nothing grows, nothing is left.

use epochgate_controller::io::Command;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::pair::Plan;

use crate::{MILLISECOND, Outcome, SECOND, crypto, established};

#[test]
fn two_hundred_rekeys_leave_one_epoch() -> Outcome {
    let mut pair = established(121)?;
    for round in 0..200 {
        let open = pair.open_epoch(pair.client).unwrap();
        let starter = [pair.client, pair.server][round % 2];
        pair.rekey(starter);
        pair.await_newer(open, 2 * SECOND)?;
        pair.world.run_for(300 * MILLISECOND)?;
        for node in [pair.client, pair.server] {
            let status = pair.status(node).unwrap();
            assert!(status.epochs.len() <= 8, "{round}");
            assert!(status.ike.len() <= 4, "{round}");
            assert!(pair.sas(node) <= 17, "{round}");
        }
    }
    pair.drain()?;
    assert!(pair.is_open());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    for node in [pair.client, pair.server] {
        let status = pair.status(node).unwrap();
        assert_eq!((status.epochs.len(), status.ike.len()), (1, 1));
    }
    Ok(())
}

#[test]
fn two_hundred_rekeys_in_a_hurry_stay_bounded() -> Outcome {
    let mut pair = established(122)?;
    for round in 0..200 {
        pair.rekey([pair.client, pair.server][round % 2]);
        pair.world.run_for(70 * MILLISECOND)?;
        for node in [pair.client, pair.server] {
            assert!(pair.status(node).unwrap().epochs.len() <= 8, "{round}");
            assert!(pair.sas(node) <= 17, "{round}");
        }
    }
    pair.drain()?;
    assert!(pair.is_open());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}

#[test]
fn the_kernel_does_not_report_every_packet() -> Outcome {
    for wait in [true, false] {
        let mut plan = Plan::default();
        plan.server.epoch.wait = wait;
        let mut pair = plan.established(125, crypto())?;
        pair.upward(10 * MILLISECOND);
        pair.world.run_for(SECOND)?;
        let open = pair.open_epoch(pair.client).unwrap();
        pair.rekey(pair.client);
        pair.await_newer(open, SECOND)?;
        let before = pair.world.node(pair.server).kernel_events();
        pair.world.run_for(5 * SECOND)?;
        assert_eq!(pair.world.node(pair.server).kernel_events(), before);
    }
    Ok(())
}

#[test]
fn fifty_new_ike_sas_leave_one() -> Outcome {
    let mut pair = established(123)?;
    for _ in 0..50 {
        let name = pair.name.clone();
        pair.world.command(pair.client, Command::Down(name.clone()));
        pair.world.run_for(200 * MILLISECOND)?;
        pair.world.command(pair.client, Command::Up(name));
        pair.await_open(2 * SECOND)?;
    }
    pair.drain()?;
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    for node in [pair.client, pair.server] {
        let status = pair.status(node).unwrap();
        assert_eq!((status.epochs.len(), status.ike.len()), (1, 1));
    }
    Ok(())
}

#[test]
fn an_hour_of_blocked_esp_grows_nothing() -> Outcome {
    let mut pair = established(124)?;
    pair.world.disturb(Rule::lose(None, Matching::Esp));
    pair.upward(10 * SECOND);
    for minute in 0..60 {
        pair.world.run_for(60 * SECOND)?;
        for node in [pair.client, pair.server] {
            let status = pair.status(node).unwrap();
            assert!(status.epochs.len() <= 8, "minute {minute}");
            assert!(status.ike.len() <= 4, "minute {minute}");
            assert!(pair.sas(node) <= 17, "minute {minute}");
        }
    }
    pair.world.heal();
    pair.await_open(30 * SECOND)?;
    pair.drain()?;
    assert!(pair.is_open());
    assert_eq!((pair.sas(pair.client), pair.sas(pair.server)), (2, 2));
    Ok(())
}
