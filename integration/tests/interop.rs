//! Cells of the interoperation table that every run of the tests plays: one peer of each kind that
//! `scripts/setup` provides. See [`epochgate_integration::interop`] for the network.
#![cfg(feature = "kernel")]

use epochgate_integration::interop::{Cell, Program, Role};

#[track_caller]
fn plays(program: Program, ours: Role, row: &'static str) {
    let counts = Cell { program, ours, row }.play().passed();
    println!("{}, {}: {row}: {counts:?}", program.name(), ours.name());
    assert_eq!(counts.ours.lost, 0);
}

#[test]
fn libreswan_as_server_takes_our_key_and_carries_traffic_behind_nat() {
    plays(Program::Libreswan4, Role::Client, "nat");
}

#[test]
fn libreswan_as_client_gets_in_with_what_it_proposes_by_default() {
    plays(Program::Libreswan4, Role::Server, "defaults");
}

/// As initiator it signs with the strongest hash that we announce, whatever its key is.
#[test]
fn libreswan_as_client_proves_itself_by_an_ecdsa_certificate() {
    plays(Program::Libreswan4, Role::Server, "ecdsa");
}

#[test]
fn libreswan_rekeys_the_child_sa_under_traffic() {
    plays(Program::Libreswan4, Role::Client, "child-rekey-peers");
}

#[test]
fn libreswan_follows_our_rekey_of_the_child_sa_under_traffic() {
    plays(Program::Libreswan4, Role::Client, "child-rekey-ours");
}

/// libreswan takes its inbound SA away as soon as it reads our Delete.
#[test]
fn a_server_that_rekeys_sends_nothing_on_what_it_has_deleted() {
    plays(Program::Libreswan4, Role::Server, "child-rekey-ours");
}

#[test]
fn libreswan_notices_that_we_are_gone() {
    plays(Program::Libreswan4, Role::Client, "liveness-peers");
}

#[test]
fn strongswan_carries_ipv6_over_ipv4() {
    plays(Program::StrongSwan5, Role::Client, "6in4");
}

#[test]
fn strongswan_dies_and_the_tunnel_comes_back() {
    plays(Program::StrongSwan5, Role::Client, "liveness-ours");
}
