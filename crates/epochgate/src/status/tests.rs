//! What `epochgate status` looks like, for each thing that a tunnel can be in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use epochgate_controller::status::{HELD_PACKETS_MAX, STATUS_SCHEMA};

use super::*;

fn report(tunnels: Vec<TunnelStatus>) -> String {
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels,
    };
    let text = render(&report, Paint::Plain);
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
    text
}

fn socket(last: u8) -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, last), 4500).into()
}

fn ike_sa() -> IkeStatus {
    IkeStatus {
        initiator_spi: "0123456789abcdef".into(),
        responder_spi: "fedcba9876543210".into(),
        state: "established".into(),
        local: socket(77),
        remote: socket(1),
        nat: true,
        epochgate: true,
        suite: "aes256gcm16, hmac-sha256, x25519".into(),
        age_ms: 754_000,
    }
}

fn epoch(number: u64, state: &str) -> EpochStatus {
    EpochStatus {
        number,
        state: state.into(),
        inbound_spi: format!("0xc0ffee{number:02x}"),
        outbound_spi: format!("0xdeadbe{number:02x}"),
        cipher: "aes256gcm16".into(),
        udp_encapsulated: true,
        age_ms: 754_000,
        rekey_in_ms: None,
    }
}

fn down() -> TunnelStatus {
    TunnelStatus {
        name: "branch".into(),
        role: "client".into(),
        gate: GateStatus::Down,
        reason: "down: run `epochgate up branch`".into(),
        ladder: "idle".into(),
        recovery_bound_ms: 9_562,
        open_epoch: None,
        local_traffic: vec!["10.1.0.0/16".into()],
        remote_traffic: vec!["10.2.0.0/16".into()],
        refused_traffic: vec![],
        virtual_addresses: Vec::new(),
        dns: Vec::new(),
        dns_domains: Vec::new(),
        ike: vec![],
        epochs: vec![],
        ping_target: None,
        last_round_trip_us: None,
        last_proof_ms: None,
        held_ms: None,
        pings_sent: 0,
        pings_answered: 0,
        switches: 0,
        held_packets_max: HELD_PACKETS_MAX,
        last_error: None,
    }
}

fn held(reason: &str) -> TunnelStatus {
    TunnelStatus {
        gate: GateStatus::Held,
        reason: reason.into(),
        held_ms: Some(12_345),
        ..down()
    }
}

fn open() -> TunnelStatus {
    TunnelStatus {
        gate: GateStatus::Open,
        reason: String::new(),
        open_epoch: Some(3),
        ike: vec![ike_sa()],
        epochs: vec![EpochStatus {
            rekey_in_ms: Some(2_846_000),
            ..epoch(3, "open")
        }],
        ping_target: Some(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1))),
        last_round_trip_us: Some(50_349),
        last_proof_ms: Some(754_000),
        pings_sent: 8,
        pings_answered: 7,
        switches: 3,
        ..down()
    }
}

/// One look of the report a test.
macro_rules! looks {
    ($($name:ident: $report:expr,)*) => {$(
        #[test]
        fn $name() {
            insta::with_settings!({omit_expression => true}, {
                insta::assert_snapshot!(stringify!($name), $report);
            });
        }
    )*};
}

looks! {
    no_tunnels: report(vec![]),
    a_tunnel_that_is_down: report(vec![down()]),
    a_tunnel_that_is_open: report(vec![open()]),
    several_epochs_while_one_is_proved: report(vec![TunnelStatus {
        epochs: vec![
            epoch(2, "draining"),
            EpochStatus { rekey_in_ms: Some(1_000), ..epoch(3, "open") },
            EpochStatus { age_ms: 90, ..epoch(4, "proving") },
        ],
        ..open()
    }]),
    held_for_want_of_traffic: report(vec![held("waiting for traffic")]),
    held_while_ike_is_negotiated: report(vec![TunnelStatus {
        ike: vec![IkeStatus {
            state: "initiating".into(),
            responder_spi: "0000000000000000".into(),
            nat: false,
            epochgate: false,
            suite: String::new(),
            age_ms: 40,
            ..ike_sa()
        }],
        ..held("negotiating IKE with the peer; last error: no response from 203.0.113.1 in 31 s")
    }]),
    held_while_a_ping_is_not_answered: report(vec![TunnelStatus {
        ike: vec![ike_sa()],
        epochs: vec![epoch(1, "proving")],
        ping_target: Some(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1))),
        pings_sent: 3,
        ..held("a control ping is not answered yet")
    }]),
    held_for_want_of_a_ping_target: report(vec![TunnelStatus {
        ike: vec![IkeStatus { epochgate: false, ..ike_sa() }],
        epochs: vec![epoch(1, "proving")],
        ..held("the peer announces no address to ping and none is configured: set ping.target \
                of this tunnel to an address inside its remote traffic that answers pings")
    }]),
    held_by_an_awaiting_server: report(vec![TunnelStatus {
        role: "server".into(),
        ike: vec![ike_sa()],
        epochs: vec![epoch(1, "awaiting")],
        ..held("nothing authenticated has arrived from the client on the new epoch yet")
    }]),
    traffic_that_the_peer_refused: report(vec![TunnelStatus {
        local_traffic: vec!["10.1.0.0/16".into(), "10.5.0.0/16".into()],
        refused_traffic: vec!["10.5.0.0/16 to 10.2.0.0/16".into()],
        last_error: Some("the peer closed the IKE SA".into()),
        ..open()
    }]),
    addresses_of_ipv6: report(vec![TunnelStatus {
        local_traffic: vec!["2001:db8:aaaa:bbbb::/64".into(), "2001:db8:aaaa:cccc::/64".into()],
        remote_traffic: vec!["2001:db8:1111:2222::/64".into()],
        ike: vec![IkeStatus {
            local: SocketAddr::from(([0x2001, 0xdb8, 0xaaaa, 0xbbbb, 0xcccc, 0xdddd, 0xeeee, 0xffff], 500)),
            remote: SocketAddr::from(([0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666], 500)),
            ..ike_sa()
        }],
        ..open()
    }]),
    two_tunnels: report(vec![open(), held("waiting for traffic")]),
}

#[test]
fn colours_say_the_same() {
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels: vec![open(), down()],
    };
    let coloured = render(&report, Paint::Coloured);
    let codes = ["\x1b[1m", "\x1b[1;32m", "\x1b[1;31m", "\x1b[0m"];
    let plain = codes
        .iter()
        .fold(coloured.clone(), |text, code| text.replace(code, ""));
    assert_ne!(coloured, plain);
    assert_eq!(plain, render(&report, Paint::Plain));
}

#[test]
fn escape_sequences_in_a_peer_s_words_are_not_shown() {
    let text = render(
        &StatusReport {
            schema: STATUS_SCHEMA,
            tunnels: vec![held("the peer says \x1b]0;owned\x07")],
        },
        Paint::Plain,
    );
    assert!(!text.contains('\x1b'));
    assert!(text.contains("owned"));
}

#[test]
fn times_are_told_in_two_units() {
    let told = [0, 999, 1000, 61_000, 3_600_000, 90_061_000].map(time);
    assert_eq!(told, ["0ms", "999ms", "1s", "1m 1s", "1h 0m", "1d 1h"]);
    assert_eq!(milliseconds(50_349), "50.3 ms");
    assert_eq!(milliseconds(49), "0.0 ms");
}
