//! Several clients behind one NAT, with NAT traversal: UDP-encapsulated ESP (RFC 7296 §2.23).

use epochgate_controller::config::NatTraversal;
use epochgate_nat::{
    ConntrackSettings, DropReason, Filtering, Mapping, MasqueradeSettings, UdpSettings,
};
use epochgate_simulator::office::{NatKind, Office, OfficePlan};

use crate::office::all_traffic_arrives;
use crate::{MILLISECOND, Outcome, SECOND, crypto};

/// Every kind of NAT that UDP can pass.
fn nats() -> Vec<NatKind> {
    let port_restricted = UdpSettings::port_restricted();
    vec![
        NatKind::Masquerade(MasqueradeSettings::default()),
        NatKind::Conntrack(ConntrackSettings::default()),
        NatKind::Udp(port_restricted),
        NatKind::Udp(UdpSettings::symmetric()),
        NatKind::Udp(UdpSettings {
            mapping: Mapping::AddressDependent,
            filtering: Filtering::AddressDependent,
            ..port_restricted
        }),
    ]
}

fn open_behind(nat: NatKind, seed: u64) -> Result<Office, epochgate_simulator::Violation> {
    let plan = OfficePlan {
        nat: Some(nat),
        ..OfficePlan::default()
    };
    let mut office = plan.start(seed, crypto());
    office.await_all_open(5 * SECOND)?;
    Ok(office)
}

#[test]
fn two_clients_are_open_behind_every_nat_and_get_their_own_traffic_alone() -> Outcome {
    for (seed, nat) in (8100..).zip(nats()) {
        let mut office = open_behind(nat, seed)?;
        all_traffic_arrives(&mut office)?;
        let counters = office.world.nat_counters(office.nat.unwrap());
        assert_eq!(counters.dropped_total(), 0, "{nat:?}: {counters:?}");
    }
    Ok(())
}

#[test]
fn a_nat_that_forgets_its_mappings_under_traffic_is_recovered_from() -> Outcome {
    for (seed, nat) in (8200..).zip(nats()) {
        let mut office = open_behind(nat, seed)?;
        office.traffic(20 * MILLISECOND);
        office.world.run_for(3 * SECOND)?;
        office.world.forget_nat(office.nat.unwrap());
        office.world.run_for(20 * SECOND)?;
        office.await_all_open(10 * SECOND)?;
        all_traffic_arrives(&mut office)?;
    }
    Ok(())
}

#[test]
fn keepalives_keep_the_mappings_of_silent_tunnels() -> Outcome {
    let nat = NatKind::Udp(UdpSettings {
        expiry: 40 * SECOND,
        ..UdpSettings::port_restricted()
    });
    let mut office = open_behind(nat, 8300)?;
    office.world.run_for(600 * SECOND)?;
    let counters = office.world.nat_counters(office.nat.unwrap());
    assert_eq!(counters.dropped_total(), 0, "{counters:?}");
    all_traffic_arrives(&mut office)
}

#[test]
fn plain_esp_of_a_second_client_does_not_pass_a_nat_that_goes_by_addresses() -> Outcome {
    let mut plan = OfficePlan {
        nat: Some(NatKind::Conntrack(ConntrackSettings::default())),
        ..OfficePlan::default()
    };
    plan.client.nat_traversal = NatTraversal::Off;
    plan.server.nat_traversal = NatTraversal::Off;
    let mut office = plan.start(8400, crypto());
    office.world.run_for(30 * SECOND)?;
    let open = [office.is_open(0), office.is_open(1)];
    assert_eq!(open.iter().filter(|open| **open).count(), 1);
    let counters = office.world.nat_counters(office.nat.unwrap());
    assert!(counters.dropped_for(DropReason::AddressesTaken) > 0);
    Ok(())
}
