//! RFC 4787's behaviours, a sentence a test.

use super::{Filtering, Mapping, PortAssignment, UdpNat, UdpSettings};
use crate::testing::{CLIENTS, PUBLIC, SERVERS, esp, seconds, source_port, udp};
use crate::{DropReason, Nat, Packet, Side};
use std::net::IpAddr;

const A: IpAddr = CLIENTS[0];
const B: IpAddr = CLIENTS[1];
const SERVER: IpAddr = SERVERS[0];

fn nat(change: impl FnOnce(&mut UdpSettings)) -> UdpNat {
    let mut settings = UdpSettings::port_restricted();
    change(&mut settings);
    UdpNat::new(PUBLIC, settings)
}

/// Sends from port 4500 at second 0 and returns the public port.
fn port(nat: &mut UdpNat, client: IpAddr, remote: (IpAddr, u16)) -> u16 {
    port_at(nat, 0, client, remote)
}

fn port_at(nat: &mut UdpNat, second: u64, client: IpAddr, remote: (IpAddr, u16)) -> u16 {
    let packet = udp((client, 4500), remote);
    source_port(
        nat.translate(seconds(second), Side::Inside, packet)
            .unwrap(),
    )
}

fn back(
    nat: &mut UdpNat,
    second: u64,
    from: (IpAddr, u16),
    port: u16,
) -> Result<Packet, DropReason> {
    nat.translate(seconds(second), Side::Outside, udp(from, (PUBLIC, port)))
}

/// Public ports for: a server's port, its other port, and another server.
fn ports_of(mapping: Mapping) -> [u16; 3] {
    let mut nat = nat(|settings| {
        settings.mapping = mapping;
        settings.ports = PortAssignment::Change;
    });
    [(SERVER, 4500), (SERVER, 500), (SERVERS[1], 4500)].map(|remote| port(&mut nat, A, remote))
}

#[test]
fn endpoint_independent_mapping_has_one_port_for_all_remotes() {
    let [first, other_port, other_address] = ports_of(Mapping::EndpointIndependent);
    assert_eq!((first, first), (other_port, other_address));
}

#[test]
fn address_dependent_mapping_has_one_port_for_each_address() {
    let [first, other_port, other_address] = ports_of(Mapping::AddressDependent);
    assert_eq!(first, other_port);
    assert_ne!(first, other_address);
}

#[test]
fn address_and_port_dependent_mapping_has_one_port_for_each_endpoint() {
    let [first, other_port, other_address] = ports_of(Mapping::AddressAndPortDependent);
    assert_ne!(first, other_port);
    assert_ne!(first, other_address);
    assert_ne!(other_port, other_address);
}

/// Who may answer what was sent to `SERVER`'s port 4500: that, its port 500, another server.
fn let_in(filtering: Filtering) -> [bool; 3] {
    let mut nat = nat(|settings| settings.filtering = filtering);
    let port = port(&mut nat, A, (SERVER, 4500));
    [(SERVER, 4500), (SERVER, 500), (SERVERS[1], 4500)].map(|from| {
        match back(&mut nat, 1, from, port) {
            Ok(packet) => packet == udp(from, (A, 4500)),
            Err(reason) => {
                assert_eq!(reason, DropReason::Filtered);
                false
            }
        }
    })
}

#[test]
fn filtering_lets_in_anybody_or_known_addresses_or_known_endpoints() {
    assert_eq!(let_in(Filtering::EndpointIndependent), [true, true, true]);
    assert_eq!(let_in(Filtering::AddressDependent), [true, true, false]);
    assert_eq!(
        let_in(Filtering::AddressAndPortDependent),
        [true, false, false]
    );
}

#[test]
fn nothing_comes_in_to_a_port_without_a_mapping() {
    let mut nat = nat(|_| {});
    assert_eq!(
        back(&mut nat, 0, (SERVER, 4500), 4500),
        Err(DropReason::NoUdpMapping)
    );
}

#[test]
fn a_preserved_port_is_the_first_client_s_and_the_second_gets_another() {
    let mut nat = nat(|_| {});
    assert_eq!(port(&mut nat, A, (SERVER, 4500)), 4500);
    assert_eq!(port(&mut nat, B, (SERVERS[1], 4500)), 1024);
    assert_eq!(
        back(&mut nat, 1, (SERVERS[1], 4500), 1024),
        Ok(udp((SERVERS[1], 4500), (B, 4500)))
    );
}

#[test]
fn a_changed_port_is_below_1024_if_the_client_s_own_is() {
    let mut nat = nat(|settings| settings.ports = PortAssignment::Change);
    let mut send = |port| {
        let packet = udp((A, port), (SERVER, 500));
        source_port(nat.translate(seconds(0), Side::Inside, packet).unwrap())
    };
    assert_eq!(
        [send(500), send(600), send(1024), send(4500)],
        [600, 601, 1025, 1026]
    );
}

#[test]
fn a_client_port_is_shown_to_another_remote_as_it_was_to_the_first_where_linux_does_so() {
    let mut nat = nat(|settings| {
        settings.mapping = Mapping::AddressAndPortDependent;
        settings.ports = PortAssignment::PreservePerRemote;
    });
    assert_eq!(port(&mut nat, A, (SERVER, 4500)), 4500);
    let changed = port(&mut nat, B, (SERVER, 4500));
    assert_ne!(changed, 4500);
    assert_eq!(port(&mut nat, B, (SERVER, 500)), changed);
    assert_eq!(port(&mut nat, A, (SERVERS[1], 4500)), 4500);
}

#[test]
fn an_overloaded_port_is_whoever_s_sent_last_from_it() {
    let mut nat = nat(|settings| settings.ports = PortAssignment::Overload);
    for client in [A, B, A] {
        assert_eq!(port(&mut nat, client, (SERVER, 4500)), 4500);
        let answer = back(&mut nat, 0, (SERVER, 4500), 4500);
        assert_eq!(answer, Ok(udp((SERVER, 4500), (client, 4500))));
    }
}

#[test]
fn a_mapping_expires_two_minutes_after_its_client_sent_whatever_comes_in() {
    let mut nat = nat(|_| {});
    port_at(&mut nat, 0, A, (SERVER, 4500));
    port_at(&mut nat, 60, A, (SERVER, 4500));
    assert!(back(&mut nat, 179, (SERVER, 4500), 4500).is_ok());
    assert_eq!(
        back(&mut nat, 180, (SERVER, 4500), 4500),
        Err(DropReason::NoUdpMapping)
    );
}

#[test]
fn inbound_refresh_keeps_a_mapping_where_it_is_on() {
    let mut nat = nat(|settings| settings.inbound_refreshes = true);
    port_at(&mut nat, 0, A, (SERVER, 4500));
    assert!(back(&mut nat, 119, (SERVER, 4500), 4500).is_ok());
    assert!(back(&mut nat, 238, (SERVER, 4500), 4500).is_ok());
    assert_eq!(
        back(&mut nat, 358, (SERVER, 4500), 4500),
        Err(DropReason::NoUdpMapping)
    );
}

#[test]
fn a_mapping_that_expired_or_was_forgotten_comes_back_with_another_port() {
    let mut nat = nat(|settings| settings.ports = PortAssignment::Change);
    let first = port_at(&mut nat, 0, A, (SERVER, 4500));
    let second = port_at(&mut nat, 120, A, (SERVER, 4500));
    nat.forget();
    assert_eq!(
        back(&mut nat, 120, (SERVER, 4500), second),
        Err(DropReason::NoUdpMapping)
    );
    let third = port_at(&mut nat, 120, A, (SERVER, 4500));
    assert!(first != second && second != third && first != third);
}

#[test]
fn changed_ports_are_new_ones_for_the_same_mappings() {
    let mut nat = nat(|_| {});
    let old = port(&mut nat, A, (SERVER, 4500));
    nat.change_ports();
    assert_eq!(
        back(&mut nat, 1, (SERVER, 4500), old),
        Err(DropReason::NoUdpMapping)
    );
    let new = port_at(&mut nat, 1, A, (SERVER, 4500));
    assert_ne!(new, old);
    assert!(back(&mut nat, 1, (SERVER, 4500), new).is_ok());
}

#[test]
fn esp_does_not_pass() {
    let mut nat = nat(|_| {});
    let out = nat.translate(seconds(0), Side::Inside, esp(A, SERVER, 1));
    let back = nat.translate(seconds(0), Side::Outside, esp(SERVER, PUBLIC, 2));
    assert_eq!([out, back], [Err(DropReason::EspNotPassed); 2]);
    assert_eq!(nat.counters().dropped_for(DropReason::EspNotPassed), 2);
}

#[test]
fn the_table_is_bounded_and_room_comes_back_with_time() {
    let mut nat = nat(|_| {});
    let send = |nat: &mut UdpNat, second, port| {
        nat.translate(
            seconds(second),
            Side::Inside,
            udp((A, port), (SERVER, 4500)),
        )
    };
    for port in 1..=4096 {
        send(&mut nat, 0, port).unwrap();
    }
    assert_eq!(send(&mut nat, 0, 5000), Err(DropReason::TableFull));
    assert!(send(&mut nat, 120, 5000).is_ok());
}

#[test]
fn one_mapping_remembers_a_bounded_number_of_remotes() {
    let mut nat = nat(|_| {});
    for remote in 1..=65 {
        port(&mut nat, A, (SERVER, remote));
    }
    assert_eq!(
        back(&mut nat, 0, (SERVER, 1), 4500),
        Err(DropReason::Filtered)
    );
    assert!(back(&mut nat, 0, (SERVER, 2), 4500).is_ok());
}
