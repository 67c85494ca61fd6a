//! What `epochgate status` looks like, for each thing that a tunnel can be in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use epochgate_controller::status::{
    EpochStatus, Failure, IkeStatus, ProofBy, RecentPings, Released, RoundTrips, STATUS_SCHEMA,
    SaTraffic,
};

use super::*;
use fixtures::{down, held};

// The tests of the built command have the same.
#[path = "../../tests/common/tunnels.rs"]
mod fixtures;

/// As on terminals of 80 and 200 columns.
fn report(tunnels: Vec<TunnelStatus>) -> String {
    screens(tunnels, false)
}

fn screens(tunnels: Vec<TunnelStatus>, in_detail: bool) -> String {
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels,
    };
    let screen = |width: usize| {
        let text = render(&report, in_detail, Paint::Plain, Some(width));
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{line}");
        }
        text
    };
    let (narrow, wide) = (screen(80), screen(200));
    format!("=== 80 columns\n{narrow}=== 200 columns\n{wide}")
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
        peer_id: Some("hq.example".into()),
        age_ms: 754_000,
        rekey_in_ms: Some(12_646_000),
        reauthenticate_in_ms: None,
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
        local: Some(socket(77)),
        remote: Some(socket(1)),
        received: None,
        sent: None,
        sas: None,
    }
}

fn open() -> TunnelStatus {
    TunnelStatus {
        gate: GateStatus::Open,
        reason: String::new(),
        open_epoch: Some(3),
        ike: vec![ike_sa()],
        peer: Some(socket(1)),
        epochs: vec![EpochStatus {
            rekey_in_ms: Some(2_846_000),
            received: Some(SaTraffic {
                packets: 1_234_567,
                bytes: 987_654_321,
                last_ms: Some(0),
            }),
            sent: Some(SaTraffic {
                packets: 1,
                bytes: 84,
                last_ms: Some(61_000),
            }),
            ..epoch(3, "open")
        }],
        ping_target: Some(IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1))),
        last_round_trip_us: Some(50_349),
        recent_pings: RecentPings {
            sent: 8,
            lost: 1,
            round_trips: Some(RoundTrips {
                min_us: 48_100,
                mean_us: 50_349,
                max_us: 61_000,
                jitter_us: 1_234,
            }),
        },
        last_proof_ms: Some(2_100),
        last_proof_by: Some(ProofBy::Reply),
        next_ping_ms: Some(900),
        pings_sent: 8,
        pings_answered: 7,
        pings_lost: 1,
        switches: 3,
        rekeys: 1,
        recoveries: 1,
        released: Some(Released {
            epoch: 3,
            packets: 17,
            within_ms: 51,
            ago_ms: 740_000,
        }),
        last_failure: Some(Failure {
            text: "epoch 2 does not answer: ESP or its way back is blocked".into(),
            ago_ms: 760_000,
        }),
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
    two_tunnels: report(vec![open(), named("hq", held("waiting for traffic"))]),
    two_tunnels_in_detail: screens(vec![open(), named("hq", held("waiting for traffic"))], true),
    rekeying: report(vec![TunnelStatus {
        ladder: "rekeying".into(),
        attempt: Some(1),
        next_step_ms: Some(1_400),
        ..open()
    }]),
    held_while_the_ladder_is_climbed: report(vec![climbing()]),
    a_tunnel_over_an_interface: report(vec![TunnelStatus {
        local_traffic: vec!["0.0.0.0/0".into(), "::/0".into()],
        remote_traffic: vec!["0.0.0.0/0".into(), "::/0".into()],
        ..open()
    }]),
    a_client_with_a_virtual_address: report(vec![TunnelStatus {
        local_traffic: vec!["10.9.0.7/32".into()],
        virtual_addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 9, 0, 7))],
        dns: vec![IpAddr::V4(Ipv4Addr::new(10, 2, 0, 53))],
        dns_domains: vec!["example".into()],
        ..open()
    }]),
    several_tunnels: report(vec![
        open(),
        named("berlin-warehouse-north-2", climbing()),
        named("lab", down()),
        named("paris", held("waiting for traffic")),
        named("tokyo", TunnelStatus {
            peer: Some(SocketAddr::from((
                [0x2001, 0xdb8, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666], 500,
            ))),
            ladder: "rekeying".into(),
            attempt: Some(1),
            ..open()
        }),
    ]),
    forty_tunnels: report((0..40).map(|number| {
        let name = format!("site-{number:02}");
        let status = if number % 6 == 5 { climbing() } else { open() };
        named(&name, status)
    }).collect()),
}

fn named(name: &str, status: TunnelStatus) -> TunnelStatus {
    TunnelStatus {
        name: name.into(),
        ..status
    }
}

/// Its second attempt at a new IKE SA has failed.
fn climbing() -> TunnelStatus {
    let error = "no response from 203.0.113.1 in 3 s";
    TunnelStatus {
        ladder: "backing off".into(),
        attempt: Some(3),
        next_step_ms: Some(870),
        failures: 2,
        waiting_ms: Some(11_900),
        last_error: Some(error.into()),
        last_failure: Some(Failure {
            text: error.into(),
            ago_ms: 130,
        }),
        open_epoch: None,
        gate: GateStatus::Held,
        reason: format!("waiting to try again; last error: {error}"),
        held_ms: Some(12_345),
        recoveries: 0,
        next_ping_ms: Some(130),
        recent_pings: RecentPings {
            sent: 20,
            lost: 12,
            ..open().recent_pings
        },
        epochs: vec![epoch(3, "doubted")],
        ..open()
    }
}

#[test]
fn a_narrow_terminal_still_shows_which_tunnel_has_trouble() {
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels: vec![open(), named("hq", climbing())],
    };
    let text = render(&report, false, Paint::Plain, Some(40));
    assert!(
        text.lines().all(|line| line.chars().count() <= 40),
        "{text}"
    );
    assert!(text.contains("hq"), "{text}");
    assert!(text.contains("backing off"), "{text}");
    // No width at all: nothing is cut, as for grep.
    let text = render(&report, false, Paint::Plain, None);
    assert!(
        text.contains("no response from 203.0.113.1 in 3 s\n"),
        "{text}"
    );
}

#[test]
fn what_does_not_fit_on_a_terminal_is_counted() {
    let drawn = redrawn("a\nb\nc\nd\n", Some(4));
    let want = "\x1b[Ha\x1b[K\nb\x1b[K\n… and 2 lines more\x1b[K\n\x1b[J";
    assert_eq!(drawn, want);
    assert!(redrawn("a\nb\n", Some(4)).contains("b\x1b[K\n\x1b[J"));
}

#[test]
fn colours_say_the_same() {
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels: vec![open(), down()],
    };
    let coloured = render(&report, false, Paint::Coloured, Some(80));
    let codes = ["\x1b[1m", "\x1b[1;32m", "\x1b[1;31m", "\x1b[0m"];
    let plain = codes
        .iter()
        .fold(coloured.clone(), |text, code| text.replace(code, ""));
    assert_ne!(coloured, plain);
    assert_eq!(plain, render(&report, false, Paint::Plain, Some(80)));
}

#[test]
fn escape_sequences_in_a_peer_s_words_are_not_shown() {
    let text = render(
        &StatusReport {
            schema: STATUS_SCHEMA,
            tunnels: vec![held("the peer says \x1b]0;owned\x07")],
        },
        false,
        Paint::Plain,
        None,
    );
    assert!(!text.contains('\x1b'));
    assert!(text.contains("owned"));
}

/// Every name of a field in a report.
fn fields(value: &serde_json::Value, names: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                fields(value, names);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|it| fields(it, names)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[test]
fn every_field_of_the_json_is_described() {
    let manual = include_str!("../../../../docs/daemon.md");
    let report = StatusReport {
        schema: STATUS_SCHEMA,
        tunnels: vec![open()],
    };
    let mut names = std::collections::BTreeSet::new();
    let report = serde_json::to_value(&report).expect("JSON");
    fields(&report, &mut names);
    assert!(names.len() > 60, "{names:?}");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !manual.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "docs/daemon.md lacks {missing:?}");
}
