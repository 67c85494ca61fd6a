//! What requirements say of VPN Masquerade, a sentence a test.

use super::{Masquerade, MasqueradeSettings};
use crate::testing::{CLIENTS, PUBLIC, SERVERS, esp, ike, seconds, udp};
use crate::{Counters, DropReason, Nat, Packet, Side};
use std::net::IpAddr;
use std::time::Duration;

const SERVER: IpAddr = SERVERS[0];
const A: IpAddr = CLIENTS[0];
const B: IpAddr = CLIENTS[1];

/// A NAT and the time, so that a test reads as what was sent.
struct Router {
    nat: Masquerade,
    now: Duration,
}

impl Router {
    fn new() -> Self {
        Self::with(MasqueradeSettings::default())
    }

    fn guessing() -> Self {
        Self::with(MasqueradeSettings {
            guessing: true,
            ..MasqueradeSettings::default()
        })
    }

    fn with(settings: MasqueradeSettings) -> Self {
        Self {
            nat: Masquerade::new(PUBLIC, settings),
            now: Duration::ZERO,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn out(&mut self, packet: Packet) -> Result<(), DropReason> {
        let sent = self.nat.translate(self.now, Side::Inside, packet)?;
        assert_eq!(
            sent,
            Packet {
                source: PUBLIC,
                ..packet
            },
            "only the source changes"
        );
        Ok(())
    }

    /// Which client a packet to the public address goes to.
    fn back(&mut self, packet: Packet) -> Result<IpAddr, DropReason> {
        let sent = self.nat.translate(self.now, Side::Outside, packet)?;
        assert_eq!(
            sent,
            Packet {
                destination: sent.destination,
                ..packet
            }
        );
        Ok(sent.destination)
    }

    fn esp_out(&mut self, client: IpAddr, spi: u32) -> Result<(), DropReason> {
        self.out(esp(client, SERVER, spi))
    }

    fn esp_back(&mut self, spi: u32) -> Result<IpAddr, DropReason> {
        self.back(esp(SERVER, PUBLIC, spi))
    }

    /// A client's SA pair that the NAT has understood.
    fn tie(&mut self, client: IpAddr, outbound: u32, inbound: u32) {
        self.esp_out(client, outbound).unwrap();
        assert_eq!(self.esp_back(inbound), Ok(client));
    }
}

#[test]
fn ike_keeps_port_500_and_answers_find_their_client_by_the_initiator_spi() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    router.out(ike(B, SERVER, 0xb)).unwrap();
    assert_eq!(router.back(ike(SERVER, PUBLIC, 0xb)), Ok(B));
    assert_eq!(router.back(ike(SERVER, PUBLIC, 0xa)), Ok(A));
}

#[test]
fn an_exchange_that_the_server_starts_with_an_unseen_initiator_spi_is_dropped() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    let unseen = router.back(ike(SERVER, PUBLIC, 0xc));
    assert_eq!(unseen, Err(DropReason::UnknownInitiatorSpi));
    let elsewhere = router.back(ike(SERVERS[1], PUBLIC, 0xa));
    assert_eq!(elsewhere, Err(DropReason::UnknownInitiatorSpi));
}

#[test]
fn an_ike_sa_that_the_server_rekeyed_is_known_once_the_client_has_sent_on_it() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    router.back(ike(SERVER, PUBLIC, 0xd)).unwrap_err();
    router.out(ike(A, SERVER, 0xd)).unwrap();
    assert_eq!(router.back(ike(SERVER, PUBLIC, 0xd)), Ok(A));
}

#[test]
fn what_is_no_ike_between_two_ports_500_is_dropped() {
    let mut router = Router::new();
    let packet = udp((A, 500), (SERVER, 500));
    assert_eq!(router.out(packet), Err(DropReason::NotIke));
}

#[test]
fn nat_t_is_told_apart_by_its_ports_alone() {
    let mut router = Router::new();
    let mut port = |client| {
        let packet = udp((client, 4500), (SERVER, 4500));
        let sent = router.nat.translate(router.now, Side::Inside, packet);
        crate::testing::source_port(sent.unwrap())
    };
    let ports = [port(A), port(B)];
    assert_eq!(ports[0], 4500);
    assert_ne!(ports[1], 4500);
    for (port, client) in ports.into_iter().zip([A, B]) {
        let answer = udp((SERVER, 4500), (PUBLIC, port));
        let sent = router.nat.translate(router.now, Side::Outside, answer);
        assert_eq!(sent, Ok(udp((SERVER, 4500), (client, 4500))));
    }
}

#[test]
fn the_first_unknown_spi_from_a_server_is_tied_to_the_outstanding_entry() {
    let mut router = Router::new();
    router.esp_out(A, 0x1a).unwrap();
    assert_eq!(router.esp_back(0x2a), Ok(A));
    assert_eq!(router.nat.counters().tied, 1);
    router.tie(B, 0x1b, 0x2b);
    assert_eq!(router.esp_back(0x2a), Ok(A));
    assert_eq!(router.esp_back(0x2b), Ok(B));
}

#[test]
fn while_an_entry_is_outstanding_first_packets_of_other_clients_to_that_server_are_dropped() {
    let mut router = Router::new();
    router.tie(B, 0x1b, 0x2b);
    router.esp_out(A, 0x1a).unwrap();
    assert_eq!(router.esp_out(B, 0x3b), Err(DropReason::Serialised));
    assert_eq!(router.esp_out(B, 0x1b), Ok(()), "not a first packet");
    assert_eq!(
        router.out(esp(B, SERVERS[1], 0x3b)),
        Ok(()),
        "another server"
    );
    assert_eq!(router.esp_out(A, 0x4a), Ok(()), "the same client");
    router.esp_back(0x2a).unwrap();
    assert_eq!(
        router.esp_out(B, 0x3b),
        Err(DropReason::Serialised),
        "A has two"
    );
    router.esp_back(0x5a).unwrap();
    assert_eq!(router.esp_out(B, 0x3b), Ok(()));
}

#[test]
fn an_outstanding_entry_times_out_after_seconds_however_often_it_is_sent_again() {
    let mut router = Router::new();
    router.esp_out(A, 0x1a).unwrap();
    router.wait(Duration::from_millis(4999));
    router.esp_out(A, 0x1a).unwrap();
    assert_eq!(router.esp_out(B, 0x1b), Err(DropReason::Serialised));
    router.wait(Duration::from_millis(1));
    assert_eq!(router.esp_out(B, 0x1b), Ok(()));
    assert_eq!(router.nat.counters().unanswered, 1);
    assert_eq!(router.esp_out(A, 0x1a), Err(DropReason::Serialised));
}

#[test]
fn a_tied_entry_times_out_after_half_an_hour_without_a_packet_either_way() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x2a);
    router.wait(seconds(1799));
    router.esp_out(A, 0x1a).unwrap();
    router.wait(seconds(1799));
    assert_eq!(router.esp_back(0x2a), Ok(A));
    router.wait(seconds(1800));
    assert_eq!(router.esp_back(0x2a), Err(DropReason::UnknownSpi));
}

#[test]
fn an_idle_ike_entry_times_out_too() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    router.wait(seconds(1800));
    let late = router.back(ike(SERVER, PUBLIC, 0xa));
    assert_eq!(late, Err(DropReason::UnknownInitiatorSpi));
}

#[test]
fn an_unknown_spi_with_nothing_outstanding_is_dropped() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    assert_eq!(router.esp_back(0x2a), Err(DropReason::UnknownSpi));
}

#[test]
fn with_guessing_it_goes_to_the_client_of_the_latest_ike_exchange_with_that_server() {
    let mut router = Router::guessing();
    assert_eq!(router.esp_back(0x2a), Err(DropReason::UnknownSpi));
    router.out(ike(A, SERVER, 0xa)).unwrap();
    router.out(ike(B, SERVER, 0xb)).unwrap();
    router.out(ike(A, SERVERS[1], 0xc)).unwrap();
    assert_eq!(router.esp_back(0x2a), Ok(B));
    router.back(ike(SERVER, PUBLIC, 0xa)).unwrap();
    assert_eq!(router.esp_back(0x2a), Ok(A), "a guess is not remembered");
    assert_eq!(router.nat.counters().guessed, 2);
    assert_eq!(router.nat.counters().tied, 0);
}

#[test]
fn collision_the_second_client_s_packets_go_to_the_first_while_both_live() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x77);
    router.esp_out(B, 0x1b).unwrap();
    assert_eq!(router.esp_back(0x77), Ok(A), "it was for B");
    router.wait(seconds(5));
    router.esp_out(B, 0x1b).unwrap();
    assert_eq!(router.esp_back(0x77), Ok(A), "and it stays so");
    assert_eq!(router.nat.counters().tied, 1);
}

#[test]
fn collisions_need_the_same_server() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x77);
    router.out(esp(B, SERVERS[1], 0x1b)).unwrap();
    assert_eq!(router.back(esp(SERVERS[1], PUBLIC, 0x77)), Ok(B));
    assert_eq!(router.esp_back(0x77), Ok(A));
}

#[test]
fn race_a_server_that_sends_on_a_new_epoch_first_is_dropped() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x2a);
    assert_eq!(router.esp_back(0x3a), Err(DropReason::UnknownSpi));
}

#[test]
fn race_it_is_given_to_another_client_whose_first_packet_is_outstanding() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x2a);
    router.esp_out(B, 0x1b).unwrap();
    assert_eq!(router.esp_back(0x3a), Ok(B), "A's new epoch");
    assert_eq!(
        router.esp_back(0x2b),
        Err(DropReason::UnknownSpi),
        "B's own"
    );
    router.esp_out(A, 0x4a).unwrap();
    assert_eq!(router.esp_back(0x3a), Ok(B), "A's sending comes too late");
}

#[test]
fn late_answer_a_reply_after_the_time_out_is_tied_to_whoever_is_outstanding_then() {
    let mut router = Router::new();
    router.esp_out(A, 0x1a).unwrap();
    router.wait(seconds(5));
    router.esp_out(B, 0x1b).unwrap();
    assert_eq!(router.esp_back(0x2a), Ok(B), "A's answer");
    assert_eq!(
        router.esp_back(0x2b),
        Err(DropReason::UnknownSpi),
        "B's own"
    );
}

#[test]
fn crash_the_table_is_empty_and_counters_stay() {
    let mut router = Router::new();
    router.out(ike(A, SERVER, 0xa)).unwrap();
    router.tie(A, 0x1a, 0x2a);
    router.esp_out(A, 0x3a).unwrap();
    router.nat.forget();
    let ike = router.back(ike(SERVER, PUBLIC, 0xa));
    assert_eq!(ike, Err(DropReason::UnknownInitiatorSpi));
    assert_eq!(router.esp_back(0x2a), Err(DropReason::UnknownSpi));
    assert_eq!(router.esp_out(B, 0x1b), Ok(()), "nothing is outstanding");
    let expected = Counters {
        outbound: 4,
        inbound: 1,
        tied: 1,
        dropped: [
            (DropReason::UnknownInitiatorSpi, 1),
            (DropReason::UnknownSpi, 1),
        ]
        .into(),
        ..Counters::default()
    };
    assert_eq!(router.nat.counters(), expected);
}

#[test]
fn after_a_crash_a_client_that_sends_on_its_old_epoch_is_understood_again() {
    let mut router = Router::new();
    router.tie(A, 0x1a, 0x2a);
    router.nat.forget();
    router.tie(A, 0x1a, 0x2a);
}

#[test]
fn shorter_times_hold_for_what_comes_after_they_were_set() {
    let mut router = Router::new();
    router.nat.set_settings(MasqueradeSettings {
        pending: seconds(1),
        ..router.nat.settings()
    });
    router.esp_out(A, 0x1a).unwrap();
    router.wait(seconds(1));
    assert_eq!(router.esp_out(B, 0x1b), Ok(()));
}

#[test]
fn what_is_sent_to_the_public_address_or_to_another_host_is_not_translated() {
    let mut router = Router::new();
    let hairpin = router.out(esp(A, PUBLIC, 1));
    let foreign = router.back(esp(SERVER, A, 1));
    let other_version = router.out(esp("2001:db8::1".parse().unwrap(), SERVER, 1));
    for result in [hairpin, foreign.map(drop), other_version] {
        assert_eq!(result, Err(DropReason::NotTranslatable));
    }
}

#[test]
fn the_tables_are_bounded_and_room_comes_back_with_time() {
    let mut router = Router::new();
    for spi in 0..4096 {
        router.esp_out(A, spi).unwrap();
        router.out(ike(A, SERVER, u64::from(spi))).unwrap();
    }
    assert_eq!(router.esp_out(A, 4096), Err(DropReason::TableFull));
    assert_eq!(router.out(ike(A, SERVER, 4096)), Err(DropReason::TableFull));
    assert_eq!(router.out(ike(A, SERVER, 4095)), Ok(()), "a known one");
    router.wait(seconds(1800));
    assert_eq!(router.esp_out(A, 4096), Ok(()));
    assert_eq!(router.out(ike(A, SERVER, 4096)), Ok(()));
}
