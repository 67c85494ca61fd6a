//! What each event looks like.

use std::num::NonZeroU32;

use epochgate_xfrm::{
    Acquire, DecodeError, EventFlags, EventState, Expire, Mapping, PolicyDirection, PolicyExpire,
    Protocol, ReplayState, Reqid, SaId,
};
use epochgate_xfrm::{PolicyEntry, SaEntry};

use super::*;
use crate::xfrm::arguments::FilterArguments;
use crate::xfrm::fixtures::{self, address, selector, spi};

fn at() -> Timestamp {
    Timestamp::from_millisecond(1_795_882_831_123).expect("a time")
}

fn state(number: u32) -> SaEntry {
    let states = fixtures::states();
    let found = states
        .into_iter()
        .find(|entry| entry.sa.spi == epochgate_xfrm::Spi::new(number));
    found.expect("a fixture")
}

fn policy(index: u32) -> PolicyEntry {
    let policies = fixtures::policies();
    policies
        .into_iter()
        .find(|entry| entry.policy.index == index)
        .expect("a fixture")
}

/// Some error of reading.
fn unreadable() -> DecodeError {
    let parsed = epochgate_xfrm::counters::Counters::parse("no number");
    parsed.expect_err("it is not well formed")
}

/// One of each.
fn events() -> Vec<XfrmEvent> {
    let packet = selector("10.1.0.5/32", "10.9.0.9/32")
        .with_protocol(17)
        .with_ports(
            epochgate_xfrm::PortMatch::exactly(40_000),
            epochgate_xfrm::PortMatch::exactly(53),
        );
    let acquire = Acquire::new(
        address("203.0.113.9"),
        address("198.51.100.9"),
        Protocol::Esp,
        packet,
        policy(25),
    );
    let inbound = SaId::esp(address("203.0.113.9"), spi(0xc22a_7cc1));
    let mapping = Mapping::new(
        inbound,
        Reqid(1),
        (address("192.0.2.33"), 10_452),
        (address("192.0.2.33"), 61_003),
    );
    let mut aevent = EventState::new(inbound, address("192.0.2.33"), Reqid(1));
    aevent.flags = EventFlags::CAUSE_REPLAY;
    aevent.replay = Some(ReplayState {
        outbound: 0,
        inbound: 8_877,
        bitmap: vec![3],
    });
    let larval = fixtures::states().swap_remove(0);
    let bare = PolicyId::new(PolicyDirection::Out, selector("10.1.0.0/16", "10.2.0.0/16"));
    vec![
        XfrmEvent::Acquire(Box::new(acquire)),
        XfrmEvent::Expire(Box::new(Expire::new(state(0xc5f3_a001), false))),
        XfrmEvent::Expire(Box::new(Expire::new(state(0xc5f3_a001), true))),
        XfrmEvent::Expire(Box::new(Expire::new(larval.clone(), true))),
        XfrmEvent::PolicyExpire(Box::new(PolicyExpire::new(policy(33), false))),
        XfrmEvent::PolicyExpire(Box::new(PolicyExpire::new(policy(33), true))),
        XfrmEvent::Mapping(mapping),
        XfrmEvent::NewAe(Box::new(aevent)),
        XfrmEvent::NewSa(Box::new(state(0xcafe_0001))),
        XfrmEvent::NewSa(Box::new(larval)),
        XfrmEvent::UpdSa(Box::new(state(0xc22a_7cc1))),
        XfrmEvent::DelSa(inbound, Some(Box::new(state(0xc22a_7cc1)))),
        XfrmEvent::DelSa(inbound, None),
        XfrmEvent::FlushSa(Protocol::Esp),
        XfrmEvent::FlushSa(Protocol::Other(255)),
        XfrmEvent::NewPolicy(Box::new(policy(25))),
        XfrmEvent::NewPolicy(Box::new(policy(72))),
        XfrmEvent::NewPolicy(Box::new(policy(80))),
        XfrmEvent::UpdPolicy(Box::new(policy(1))),
        XfrmEvent::DelPolicy(Box::new(bare), Some(Box::new(policy(1)))),
        XfrmEvent::DelPolicy(Box::new(bare), None),
        XfrmEvent::FlushPolicy,
        XfrmEvent::Report(Protocol::Other(60), Some(selector("::/0", "::/0"))),
        XfrmEvent::Migrate(Box::new(bare)),
        XfrmEvent::Overrun,
        XfrmEvent::Malformed {
            message_type: 23,
            error: unreadable(),
        },
        XfrmEvent::Unknown {
            message_type: 99,
            length: 12,
        },
    ]
}

fn shown(width: usize) -> String {
    let host = fixtures::host();
    let lines = |event: &XfrmEvent| render(event, at(), &host, Some(width), Paint::Plain);
    let text: String = events().iter().map(lines).collect();
    for line in text.lines() {
        assert!(line.chars().count() <= width, "{line}");
    }
    text
}

fn names(filter: &Filter) -> Vec<String> {
    let host = fixtures::host();
    let events = events();
    let wanted = events
        .iter()
        .filter(|event| is_wanted(event, filter, &host));
    wanted
        .map(|event| words::telling(event, &host).name)
        .collect()
}

#[test]
fn events_on_80_columns() {
    insta::assert_snapshot!(shown(80));
}

#[test]
fn events_on_200_columns() {
    insta::assert_snapshot!(shown(200));
}

#[test]
fn without_a_width_an_event_is_one_line() {
    let host = fixtures::host();
    for event in events() {
        let text = render(&event, at(), &host, None, Paint::Plain);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
    }
}

#[test]
fn events_as_json() {
    let host = fixtures::host();
    let line = |event: &XfrmEvent| json(event, at(), &host, false).expect("JSON");
    let lines: Vec<String> = events().iter().map(line).collect();
    for line in &lines {
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["schema"], 1);
        assert_eq!(value["time"], "2026-11-28T16:20:31.123Z");
    }
    let first: serde_json::Value = serde_json::from_str(lines.first().expect("one")).expect("JSON");
    insta::assert_snapshot!(serde_json::to_string_pretty(&first).expect("JSON"));
}

#[test]
fn a_filter_leaves_what_concerns_everything() {
    let nobody = Filter::from(&FilterArguments {
        if_id: NonZeroU32::new(12_345).map(NonZeroU32::get),
        ..FilterArguments::default()
    });
    assert_eq!(
        names(&nobody),
        [
            "SA flush",
            "SA flush",
            "policy flush",
            "report",
            "events lost",
            "unreadable",
            "unknown"
        ]
    );
}

#[test]
fn a_filter_takes_the_events_of_an_sa_and_of_the_policies_that_ask_for_it() {
    let one = Filter::from(&FilterArguments {
        reqid: Some(1),
        spi: Some(0xc22a_7cc1),
        ..FilterArguments::default()
    });
    let names = names(&one);
    assert!(names.contains(&"mapping".to_owned()), "{names:?}");
    assert!(names.contains(&"SA updated".to_owned()), "{names:?}");
    assert!(!names.contains(&"SA added".to_owned()), "{names:?}");
    assert!(!names.contains(&"policy added".to_owned()), "{names:?}");
}

#[test]
fn aevents_come_only_when_they_are_asked_for() {
    assert!(!groups(&[], false).contains(&EventGroup::Aevents));
    assert_eq!(groups(&[], false).len(), 7);
    assert!(groups(&[], true).contains(&EventGroup::Aevents));
    assert_eq!(groups(&[Group::Expire], false), [EventGroup::Expire]);
    let both = groups(&[Group::Expire], true);
    assert_eq!(both, [EventGroup::Expire, EventGroup::Aevents]);
}
