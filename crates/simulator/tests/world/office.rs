//! Several clients behind one NAT, with plain ESP: what VPN Masquerade does to them.

use epochgate_controller::config::{NatTraversal, ServerRekey};
use epochgate_controller::event::EventKind;
use epochgate_controller::io::Spi;
use epochgate_nat::MasqueradeSettings;
use epochgate_simulator::Violation;
use epochgate_simulator::network::{Matching, Rule};
use epochgate_simulator::office::{Accounts, NatKind, Office, OfficePlan};
use epochgate_simulator::trace::Recording;
use std::num::NonZeroU32;

use crate::{MILLISECOND, Outcome, SECOND, crypto};

fn plain_esp(clients: u8) -> OfficePlan {
    let mut plan = OfficePlan {
        clients,
        ..OfficePlan::default()
    };
    plan.client.nat_traversal = NatTraversal::Off;
    plan.server.nat_traversal = NatTraversal::Off;
    plan
}

fn start(plan: OfficePlan, seed: u64) -> Office {
    plan.start(seed, crypto())
}

/// Traffic of all clients both ways for a while; then whether each one's came to itself alone.
pub(crate) fn all_traffic_arrives(office: &mut Office) -> Outcome {
    office.traffic(20 * MILLISECOND);
    office.world.run_for(10 * SECOND)?;
    office.stop_traffic();
    office.world.run_for(SECOND)?;
    for client in 0..office.clients.len() {
        let accounts = office.accounts(client);
        let refused = accounts.up.refused + accounts.down.refused;
        let astray = (accounts.lost(), refused, accounts.misdelivered());
        assert_eq!(astray, (0, 0, 0), "client {client}: {accounts:?}");
        assert!(accounts.up.sent > 400, "client {client}: {accounts:?}");
    }
    Ok(())
}

#[test]
fn clients_that_start_at_one_instant_are_all_proven_and_get_their_own_traffic_alone() -> Outcome {
    for (clients, limit) in [(2, 10 * SECOND), (8, 30 * SECOND)] {
        for seed in 0..10 {
            let mut office = start(plain_esp(clients), 7100 + seed);
            office.await_all_open(limit)?;
            all_traffic_arrives(&mut office)?;
        }
    }
    Ok(())
}

#[test]
fn the_second_client_with_an_spi_that_the_server_has_comes_back_with_another() -> Outcome {
    let mut office = plain_esp(2).build(7200, crypto());
    let spi = Spi(NonZeroU32::new(0x1234_5678).unwrap());
    for client in 0..2 {
        let node = office.clients[client].node;
        office.world.force_spi(node, spi);
    }
    office.start_server();
    office.start_client(0);
    office.start_client(1);
    office.await_all_open(20 * SECOND)?;
    let taken = |kind: &EventKind| *kind == EventKind::SpiTaken { spi };
    assert!(office.world.told(office.server, taken));
    let warned = |kind: &EventKind| matches!(kind, EventKind::Attention { .. });
    assert!(!office.world.told(office.server, warned));
    all_traffic_arrives(&mut office)
}

#[test]
fn a_nat_that_forgets_everything_under_traffic_is_recovered_from() -> Outcome {
    let mut office = start(plain_esp(2), 7300);
    office.await_all_open(10 * SECOND)?;
    let nat = office.nat.unwrap();
    for _ in 0..5 {
        office.traffic(50 * MILLISECOND);
        office.world.run_for(20 * SECOND)?;
        office.world.forget_nat(nat);
        office.world.run_for(20 * SECOND)?;
        office.await_all_open(20 * SECOND)?;
        all_traffic_arrives(&mut office)?;
    }
    Ok(())
}

#[test]
fn a_nat_that_reboots_is_recovered_from() -> Outcome {
    for (seed, pause) in [(7400, 500), (7401, 50), (7402, 5)] {
        let mut office = start(plain_esp(2), seed);
        office.await_all_open(10 * SECOND)?;
        let nat = office.nat.unwrap();
        office.traffic(pause * MILLISECOND);
        office.world.reboot_nat(nat, 5 * SECOND);
        office.world.run_for(30 * SECOND)?;
        office.await_all_open(20 * SECOND)?;
        all_traffic_arrives(&mut office)?;
    }
    Ok(())
}

#[test]
fn hosts_that_lose_power_come_back() -> Outcome {
    let mut office = start(plain_esp(2), 7500);
    office.await_all_open(10 * SECOND)?;
    office.traffic(50 * MILLISECOND);
    let (server, client) = (office.server, office.clients[0].node);
    office.world.halt(server);
    office.world.run_for(7 * SECOND)?;
    office.boot_server();
    office.world.run_for(30 * SECOND)?;
    office.await_all_open(30 * SECOND)?;
    office.world.halt(client);
    office.world.run_for(7 * SECOND)?;
    office.boot_client(0);
    office.await_all_open(30 * SECOND)?;
    all_traffic_arrives(&mut office)
}

/// The server rekeys one client's tunnel while another client's first ESP packet is outstanding: what
/// comes to the NAT with an unknown SPI then is the other one's. Returns what became of the first
/// one's traffic.
fn raced(wait: bool, server_rekey: ServerRekey) -> Result<Accounts, Violation> {
    let mut plan = plain_esp(2);
    plan.server.epoch.wait = wait;
    plan.client.epoch.server_rekey = server_rekey;
    let mut office = start(plan, 7600);
    office.await_all_open(10 * SECOND)?;
    office.traffic_of(0, 5 * MILLISECOND);
    office.world.run_for(SECOND)?;
    let other = office.clients[1].outer;
    let lost = Rule::lose(Some(other), Matching::Ping);
    let lost = office.world.disturb(lost);
    office.rekey(1);
    office.world.run_for(100 * MILLISECOND)?;
    office.rekey_by_server(0);
    office.world.run_for(SECOND)?;
    office.world.mend(lost);
    office.world.run_for(20 * SECOND)?;
    office.await_all_open(20 * SECOND)?;
    office.stop_traffic();
    office.world.run_for(2 * SECOND)?;
    Ok(office.accounts(0))
}

#[test]
fn a_rekey_that_a_waiting_server_starts_costs_no_packet() -> Outcome {
    let accounts = raced(true, ServerRekey::Accept)?;
    assert_eq!((accounts.lost(), accounts.misdelivered()), (0, 0));
    Ok(())
}

#[test]
fn a_rekey_that_a_hasty_server_starts_gives_packets_to_another_client() -> Outcome {
    let accounts = raced(false, ServerRekey::Accept)?;
    assert!(accounts.down.misdelivered > 0, "{accounts:?}");
    Ok(())
}

#[test]
fn a_rekey_that_a_hasty_server_starts_costs_no_packet_where_its_client_ignores_it() -> Outcome {
    let accounts = raced(false, ServerRekey::Ignore)?;
    assert_eq!((accounts.lost(), accounts.misdelivered()), (0, 0));
    Ok(())
}

#[test]
fn a_guessing_nat_gives_what_a_hasty_server_sends_to_another_client() -> Outcome {
    let settings = MasqueradeSettings {
        guessing: true,
        ..MasqueradeSettings::default()
    };
    let mut plan = OfficePlan {
        nat: Some(NatKind::Masquerade(settings)),
        ..plain_esp(2)
    };
    plan.server.epoch.wait = false;
    let mut office = start(plan, 7700);
    office.await_all_open(10 * SECOND)?;
    office.traffic(5 * MILLISECOND);
    for gap in 0..20 {
        // The other client's first packet keeps the first one's out, is answered, and its IKE
        // exchange is the latest.
        office.rekey(1);
        office.world.run_for(gap * 5 * MILLISECOND)?;
        office.rekey_by_server(0);
        office.world.run_for(3 * SECOND)?;
    }
    assert!(office.accounts(0).down.misdelivered > 0);
    Ok(())
}

/// How often a client made a Child SA to end it.
fn untyings(office: &Office, client: usize) -> usize {
    let node = office.world.node(office.clients[client].node);
    node.count(|kind| matches!(kind, EventKind::Untying))
}

/// The same where so many of its pings are lost before one is answered.
fn untyings_after(plan: OfficePlan, seed: u64, lost: u32) -> Result<usize, Violation> {
    let mut office = start(plan, seed);
    office.await_all_open(10 * SECOND)?;
    let open = office.status(0).unwrap().open_epoch;
    office.traffic(20 * MILLISECOND);
    let from = office.clients[0].outer;
    office.world.disturb(Rule {
        times: Some(lost),
        ..Rule::lose(Some(from), Matching::Ping)
    });
    office.world.run_for(20 * SECOND)?;
    office.stop_traffic();
    office.world.run_for(SECOND)?;
    let accounts = office.accounts(0);
    assert_eq!((accounts.lost(), accounts.misdelivered()), (0, 0));
    assert_eq!(office.status(0).unwrap().open_epoch, open);
    assert!(office.is_open(0));
    let sas = |node| office.world.node(node).kernel.our_sas().count();
    assert_eq!((sas(office.clients[0].node), sas(office.server)), (2, 2));
    Ok(untyings(&office, 0))
}

#[test]
fn only_a_client_that_was_kept_out_makes_a_child_sa_to_end_it() -> Outcome {
    assert_eq!(untyings_after(plain_esp(1), 8000, 1)?, 0);
    assert_eq!(untyings_after(plain_esp(1), 8001, 2)?, 1);
    assert_eq!(untyings_after(plain_esp(1), 8002, 3)?, 1);
    let encapsulated = OfficePlan {
        clients: 1,
        ..OfficePlan::default()
    };
    assert_eq!(untyings_after(encapsulated, 8003, 3)?, 0);
    Ok(())
}

#[test]
fn a_hasty_server_sends_nothing_on_what_is_made_to_be_ended() -> Outcome {
    let mut plan = plain_esp(1);
    plan.server.epoch.wait = false;
    assert_eq!(untyings_after(plan, 8004, 3)?, 1);
    Ok(())
}

#[test]
fn a_seed_replays_exactly() -> Outcome {
    let run = |seed| -> Result<String, Violation> {
        let quick = std::sync::Arc::new(epochgate_simulator::QuickCrypto::new(seed));
        let mut office = plain_esp(2).start(seed, quick);
        office.world.set_recording(Recording::All);
        office.traffic(100 * MILLISECOND);
        office.world.set_jitter(5 * MILLISECOND);
        office.world.run_for(5 * SECOND)?;
        office.world.forget_nat(office.nat.unwrap());
        office.world.run_for(20 * SECOND)?;
        let seen = office.world.violation("none", String::new());
        Ok(seen.trace.to_string())
    };
    let seen = run(7800)?;
    assert!(seen.contains("forgets everything"));
    assert_eq!(run(7800)?, seen);
    assert_ne!(run(7801)?, seen);
    Ok(())
}
