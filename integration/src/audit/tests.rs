//! Traces made by hand, good and bad: an audit that cannot fail proves nothing.

use super::*;
use crate::esp::CONTROL_PING;
use crate::traffic::Arrival;

const OLD: u32 = 0x0a;
const NEW: u32 = 0x0b;
const BACK: u32 = 0x1b;
const PORT: u16 = 4000;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn inner(content: Content) -> InnerPacket {
    InnerPacket {
        src: address("10.1.0.1"),
        dst: address("10.2.0.1"),
        content,
    }
}

fn ping(reply: bool, nonce: u64) -> InnerPacket {
    inner(Content::Echo {
        reply,
        id: 1,
        seq: 1,
        payload: [CONTROL_PING, &nonce.to_be_bytes()[..]].concat(),
    })
}

fn data() -> InnerPacket {
    inner(Content::Udp {
        ports: (PORT, PORT),
        payload: b"data".to_vec(),
    })
}

/// A numbered datagram of a flow.
fn datagram(number: u64) -> InnerPacket {
    let header = [*crate::traffic::MAGIC, number.to_be_bytes(), [0; 8]].concat();
    inner(Content::Udp {
        ports: (PORT, PORT),
        payload: header,
    })
}

/// The entries, one millisecond apart from zero on.
fn trace(entries: impl IntoIterator<Item = Entry>) -> Trace {
    let entries = entries.into_iter().zip(0..);
    let timed = entries.map(|(entry, at)| Entry {
        at: Timestamp(at * 1_000_000),
        ..entry
    });
    Trace {
        entries: timed.collect(),
    }
}

fn entry(sent: bool, packet: Packet, inner: Option<InnerPacket>) -> Entry {
    Entry {
        at: Timestamp::default(),
        sent,
        packet,
        inner,
    }
}

fn esp(sent: bool, spi: u32, inner: impl Into<Option<InnerPacket>>) -> Entry {
    let packet = Packet::Esp {
        src: address("192.0.2.2"),
        dst: address("203.0.113.1"),
        spi,
        seq: 1,
        udp: false,
    };
    entry(sent, packet, inner.into())
}

fn sends(spi: u32, inner: impl Into<Option<InnerPacket>>) -> Entry {
    esp(true, spi, inner)
}

fn receives(spi: u32, inner: impl Into<Option<InnerPacket>>) -> Entry {
    esp(false, spi, inner)
}

fn clear(sent: bool, src: &str, dst: &str) -> Entry {
    let packet = Packet::Clear {
        src: address(src),
        dst: address(dst),
        protocol: 17,
        ports: None,
    };
    entry(sent, packet, None)
}

fn sends_a_fragment() -> Entry {
    let packet = Packet::EspFragment {
        src: address("192.0.2.2"),
        dst: address("203.0.113.1"),
    };
    entry(true, packet, None)
}

fn ike(sent: bool, exchange: u8, message_id: u32, response: bool) -> Entry {
    let packet = Packet::Ike {
        src: address("192.0.2.2"),
        dst: address("203.0.113.1"),
        initiator_spi: 99,
        exchange,
        message_id,
        from_initiator: sent,
        response,
        fragment: false,
    };
    entry(sent, packet, None)
}

#[test]
fn protected_packets_in_clear_are_found_in_both_directions() {
    let protected = Selectors::new("10.1.0.0/16", "10.2.0.0/16");
    for bad in [
        clear(true, "10.1.0.1", "10.2.0.1"),
        clear(false, "10.2.9.9", "10.1.0.1"),
    ] {
        let found = nothing_in_clear(&trace([sends(OLD, data()), bad]), &protected);
        let violation = found.expect_err("the second packet");
        assert_eq!(violation.at, Timestamp(1_000_000));
    }
    let others = [
        clear(true, "10.1.0.1", "10.3.0.1"),
        clear(true, "192.0.2.2", "203.0.113.1"),
        sends(OLD, data()),
    ];
    assert_eq!(nothing_in_clear(&trace(others), &protected), Ok(3));
}

#[test]
fn an_answered_ping_lets_traffic_go_on_its_own_spi_alone() {
    let proven = [
        sends(NEW, ping(false, 1)),
        receives(BACK, ping(true, 1)),
        sends(NEW, data()),
    ];
    let used = nothing_before_proof(&trace(proven.clone())).expect("it was proven");
    assert_eq!(used, BTreeMap::from([(NEW, Timestamp(1_000_000))]));
    let elsewhere = proven.into_iter().chain([sends(OLD, data())]);
    nothing_before_proof(&trace(elsewhere)).expect_err("the other was not");
}

#[test]
fn what_is_no_proof_lets_nothing_go() {
    let no_proofs = [
        vec![],
        vec![sends(NEW, ping(false, 1))],
        vec![sends(NEW, ping(false, 1)), receives(BACK, ping(true, 2))],
        vec![sends(NEW, ping(false, 1)), receives(BACK, None)],
        vec![sends(NEW, ping(false, 1)), receives(BACK, data())],
        vec![receives(BACK, ping(true, 1)), sends(NEW, ping(false, 1))],
        vec![sends(OLD, ping(false, 1)), receives(BACK, ping(true, 1))],
    ];
    for before in no_proofs {
        let shown = trace(before.clone()).to_string();
        nothing_before_proof(&trace(before.clone())).expect("pings alone are allowed");
        let with_data = before.into_iter().chain([sends(NEW, data())]);
        nothing_before_proof(&trace(with_data)).expect_err(&shown);
    }
}

#[test]
fn what_a_client_sends_and_nobody_can_open_is_a_violation_even_after_proof() {
    for unknown in [sends(NEW, None), sends_a_fragment()] {
        let entries = [
            sends(NEW, ping(false, 1)),
            receives(BACK, ping(true, 1)),
            unknown,
        ];
        nothing_before_proof(&trace(entries)).expect_err("it may be anything");
    }
}

#[test]
fn a_waiting_server_speaks_only_after_it_was_spoken_to() {
    let pairs = [(BACK, NEW)];
    let good = [receives(BACK, data()), sends(NEW, data())];
    assert_eq!(server_waits(&trace(good), &pairs), Ok(1));
    for bad in [
        vec![sends(NEW, data()), receives(BACK, data())],
        vec![receives(BACK, None), sends(NEW, data())],
        vec![receives(OLD, data()), sends(NEW, data())],
        vec![receives(BACK, data()), sends(OLD, data())],
        vec![receives(BACK, data()), sends_a_fragment()],
    ] {
        server_waits(&trace(bad.clone()), &pairs).expect_err(&trace(bad).to_string());
    }
}

#[test]
fn a_waiting_server_parts_from_an_epoch_with_one_ping_and_nothing_else() {
    let pairs = [(BACK, NEW)];
    let parts = |entries| server_waits_and_parts(&trace(entries), &pairs);
    assert_eq!(parts(vec![sends(NEW, ping(false, 1))]), Ok(0));
    let heard = vec![
        receives(BACK, data()),
        sends(NEW, ping(false, 1)),
        sends(NEW, ping(false, 2)),
        sends(NEW, data()),
    ];
    assert_eq!(parts(heard), Ok(1));
    let other_echo = inner(Content::Echo {
        reply: false,
        id: 1,
        seq: 1,
        payload: b"a ping of somebody else".to_vec(),
    });
    for bad in [
        vec![sends(NEW, other_echo)],
        vec![in_udp(sends(NEW, ping(false, 1)))],
        vec![
            sends(NEW, ping(false, 1)),
            receives(BACK, data()),
            sends(NEW, data()),
        ],
        vec![sends(NEW, ping(false, 1)), sends(NEW, ping(false, 2))],
        vec![sends(NEW, ping(true, 1))],
        vec![sends(NEW, data())],
        vec![sends(NEW, ping(false, 1)), sends(NEW, data())],
    ] {
        parts(bad.clone()).expect_err(&trace(bad).to_string());
    }
}

#[test]
fn a_switch_is_clean_when_no_data_goes_back_to_the_old_spi() {
    let clean = [
        sends(OLD, data()),
        sends(NEW, ping(false, 1)),
        sends(OLD, data()),
        sends(NEW, data()),
        sends(OLD, ping(false, 2)),
        sends(NEW, data()),
    ];
    let none = Duration::ZERO;
    assert_eq!(
        switches_are_clean(&trace(clean.clone()), none),
        Ok(vec![OLD, NEW])
    );
    let back = clean.into_iter().chain([sends(OLD, data())]);
    let trace = trace(back);
    switches_are_clean(&trace, none).expect_err("three milliseconds after the switch");
    switches_are_clean(&trace, Duration::from_millis(3)).expect("within the grace");
}

#[test]
fn requests_count_once_however_often_they_are_sent() {
    let trace = trace([
        ike(true, 34, 0, false),
        ike(true, 34, 0, false),
        ike(false, 34, 0, true),
        ike(true, 35, 1, false),
        ike(false, 35, 1, true),
        // Both ends rekey at once, with the same message ID.
        ike(true, 36, 2, false),
        ike(false, 36, 2, false),
    ]);
    assert_eq!(exchanges(&trace), [(34, 1), (35, 1), (36, 2)]);
    let first = trace.between(Timestamp::default(), Timestamp(2_000_000));
    assert_eq!(exchanges(&first), [(34, 1)]);
}

/// The same ESP packet inside UDP.
fn in_udp(mut entry: Entry) -> Entry {
    if let Packet::Esp { udp, .. } = &mut entry.packet {
        *udp = true;
    }
    entry
}

/// Numbers in the order in which they left, a millisecond apart from zero on.
fn leaves(numbers: &[u64]) -> Trace {
    trace(numbers.iter().map(|number| sends(NEW, datagram(*number))))
}

/// The times, in microseconds, at which sending datagrams 0, 1, 2… began. Those of
/// [`leaves`] leave from 0 on.
fn began(micros: &[i64]) -> Vec<(u64, Timestamp)> {
    // Moved by a second, so that there are times before the first that left.
    let at = |micros: &i64| Timestamp((1_000_000_000 + micros * 1_000) as u64);
    (0..).zip(micros.iter().map(at)).collect()
}

fn a_second_later(mut trace: Trace) -> Trace {
    for entry in &mut trace.entries {
        entry.at.0 += 1_000_000_000;
    }
    trace
}

/// A millisecond before the first left.
const PROOF: Timestamp = Timestamp(999_000_000);

fn released(left: &[u64], times: &[i64]) -> Result<Release, Violation> {
    release(&a_second_later(leaves(left)), PORT, &began(times), PROOF)
}

#[test]
fn live_packets_may_leave_before_held_ones_but_those_keep_their_order() {
    // 0, 1 and 2 were held, since the clock was read for 3 before the proof. 4 and 5 were sent
    // when the first had left.
    let times = [-30_000, -20_000, -10_000, -1_000, 500, 3_500];
    let clean = released(&[0, 1, 2, 3, 4, 5], &times).unwrap();
    assert_eq!((clean.packets, clean.ahead), (6, vec![]));
    let ahead = released(&[0, 3, 1, 2, 4, 5], &times).unwrap();
    assert_eq!((ahead.packets, ahead.held, ahead.ahead), (6, 3, vec![3]));
    assert_eq!(ahead.unordered_for, Duration::from_millis(3));
    released(&[3, 0, 4, 1, 2, 5], &times).expect("two live ones ahead");
    released(&[0, 2, 1, 3, 4, 5], &times).expect_err("1 was overtaken by 2");
    released(&[0, 1, 2, 3, 5, 4], &times).expect_err("4 was overtaken by 5, both live");
}

#[test]
fn a_sender_that_was_kept_waiting_between_the_clock_and_the_kernel_sent_a_live_packet() {
    // The clock was read for 2 before the proof, but 2 and 3 were given to the kernel after the
    // gate had opened.
    let times = [-30_000, -20_000, -1_500, -1_500, 3_500];
    let ahead = released(&[2, 3, 0, 1, 4], &times).unwrap();
    assert_eq!((ahead.held, ahead.ahead), (2, vec![2, 3]));
    // What was sent between the proof and the switch was held too.
    let late = [-30_000, -20_000, -500, 500, 3_500];
    let ahead = released(&[3, 0, 1, 2, 4], &late).unwrap();
    assert_eq!((ahead.held, ahead.ahead), (3, vec![3]));
    released(&[3, 0, 2, 1, 4], &late).expect_err("no place of the switch explains it");
}

#[test]
fn what_an_outage_may_lose_is_what_left_into_it() {
    let trace = a_second_later(leaves(&[0, 1, 2, 3]));
    let at = |micros: i64| Timestamp((1_000_000_000 + micros * 1_000) as u64);
    let account = |numbers: &[u64]| Account {
        sent: began(&[-100, 900, 1_900, 2_900, 3_000]),
        refused: Vec::new(),
        arrivals: numbers
            .iter()
            .map(|number| Arrival {
                sequence: *number,
                sent_at: PROOF,
                at: at(*number as i64 * 1_000 + 500),
            })
            .collect(),
    };
    let judged = |numbers: &[u64]| aftermath(&trace, PORT, &account(numbers), at(500), at(3_000));
    let good = judged(&[0, 3, 4]).expect("1 and 2 left into the hole");
    assert_eq!(good.lost, 2);
    assert_eq!(good.into_the_hole_for, Duration::from_micros(1_500));
    assert_eq!(good.resumed_after, Duration::from_micros(500));
    judged(&[3, 4]).expect("0 was under way when it began");
    let later = aftermath(&trace, PORT, &account(&[1, 3, 4]), at(1_500), at(3_000));
    later.expect_err("0 was lost, and 1 behind it was not");
    judged(&[0, 1, 2, 3]).expect_err("4 never left");
    judged(&[0, 1, 2, 4]).expect("3 left into the hole");
    judged(&[0, 1]).expect_err("nothing arrived when it was over");
}

#[test]
fn a_ladder_shows_direction_and_content() {
    let trace = trace([
        ike(true, 34, 0, false),
        sends(NEW, ping(false, 0x0102)),
        receives(BACK, ping(true, 0x0102)),
    ]);
    let shown = trace.to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "    1   0.000000 --> IKE_SA_INIT request 0",
            "    2   0.001000 --> ESP 0x0000000b #1: control ping request 0000000000000102 \
             (10.1.0.1 > 10.2.0.1)",
            "    3   0.002000 <-- ESP 0x0000001b #1: control ping reply 0000000000000102 \
             (10.1.0.1 > 10.2.0.1)",
        ]
    );
}
