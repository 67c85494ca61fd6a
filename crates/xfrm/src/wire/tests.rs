//! Round trips of whatever can be said, and survival of whatever can be received.

use std::num::NonZeroU32;
use std::ops::ControlFlow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::writer::Writer;
use super::{event, frame, info, policy, sa};
use crate::event_socket::read_events;
use crate::exchange::Exchange;
use crate::request;
use crate::{
    Aead, Cipher, DecodeError, Encap, EventFlags, EventThresholds, Integrity, Iptfs, Key, Limit,
    Limits, Mark, Mode, Offload, OffloadFlags, Operation, Policy, PolicyDirection, PortMatch,
    Prefix, Protection, Protocol, RawAttribute, ReplayWindow, Reqid, Sa, SaDirection, SaFlags,
    SaRef, SecurityContext, Selector, Spi, Template, XfrmEvent,
};

/// Every message type from XFRM_MSG_NEWSA on, and some that no kernel has yet.
const MESSAGE_TYPES: std::ops::RangeInclusive<u16> = 0x10..=0x30;

fn spi() -> impl Strategy<Value = Spi> {
    (1..=u32::MAX).prop_map(|number| Spi::new(number).expect("not zero"))
}

fn prefix_pair() -> impl Strategy<Value = (Prefix, Prefix)> {
    let v4 = || (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(a, n)| Prefix::new(a.into(), n));
    let v6 = || (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(a, n)| Prefix::new(a.into(), n));
    let both = |(a, b): (Result<Prefix, _>, Result<Prefix, crate::InvalidSelector>)| {
        (a.expect("short enough"), b.expect("short enough"))
    };
    prop_oneof![(v4(), v4()).prop_map(both), (v6(), v6()).prop_map(both)]
}

fn selector() -> impl Strategy<Value = Selector> {
    let port = || any::<(u16, u16)>().prop_map(|(port, mask)| PortMatch { port, mask });
    (prefix_pair(), any::<u8>(), port(), port()).prop_map(|((from, to), protocol, sport, dport)| {
        let selector = Selector::new(from, to).expect("one family");
        selector.with_protocol(protocol).with_ports(sport, dport)
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    any::<(u32, u32)>().prop_map(|(value, mask)| Mark { value, mask })
}

fn limit() -> impl Strategy<Value = Limit> {
    let count = || option::of(0..u64::MAX);
    let seconds = || option::of(1..=u64::MAX);
    (count(), count(), seconds(), seconds()).prop_map(|(bytes, packets, added, used)| Limit {
        bytes,
        packets,
        seconds_since_added: added,
        seconds_since_used: used,
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (limit(), limit()).prop_map(|(soft, hard)| Limits { soft, hard })
}

fn protection() -> impl Strategy<Value = Protection> {
    let key = || vec(any::<u8>(), 0..80).prop_map(Key::new);
    let name = || "[a-z(),0-9]{1,63}";
    let integrity = || {
        (name(), key(), any::<u32>()).prop_map(|(name, key, bits)| Integrity {
            name,
            key,
            truncation_bits: Some(bits),
        })
    };
    prop_oneof![
        (name(), key(), any::<u32>()).prop_map(|(name, key, icv_bits)| Protection::Aead(Aead {
            name,
            key,
            icv_bits
        })),
        (name(), key(), option::of(integrity())).prop_map(|(name, key, integrity)| {
            Protection::Encryption {
                cipher: Cipher { name, key },
                integrity,
            }
        }),
        integrity().prop_map(Protection::Integrity),
    ]
}

/// Attributes that no kernel has yet.
fn unknown_attributes() -> impl Strategy<Value = Vec<RawAttribute>> {
    let attribute = (100..200_u16, vec(any::<u8>(), 0..20));
    vec(
        attribute.prop_map(|(kind, value)| RawAttribute { kind, value }),
        0..3,
    )
}

fn offload() -> impl Strategy<Value = Offload> {
    any::<(i32, u8)>().prop_map(|(interface_index, flags)| Offload {
        interface_index,
        flags: OffloadFlags::from_bits_retain(flags),
    })
}

fn security_context() -> impl Strategy<Value = SecurityContext> {
    (any::<(u8, u8)>(), vec(any::<u8>(), 0..40)).prop_map(|((domain, algorithm), label)| {
        SecurityContext {
            domain,
            algorithm,
            label,
        }
    })
}

/// Without any setting there is no IP-TFS to read back.
fn iptfs() -> impl Strategy<Value = Option<Iptfs>> {
    let number = || option::of(any::<u32>());
    let numbers = (number(), number(), number(), number());
    (numbers, option::of(any::<u16>()), any::<bool>()).prop_map(|(numbers, window, whole)| {
        let settings = Iptfs {
            drop_time_microseconds: numbers.0,
            reorder_window_packets: window,
            dont_fragment: whole,
            initial_delay_microseconds: numbers.1,
            queue_octets_max: numbers.2,
            packet_octets: numbers.3,
        };
        (settings != Iptfs::default()).then_some(settings)
    })
}

prop_compose! {
    fn any_sa()(
        (source, destination) in prefix_pair(),
        (spi, reqid, mode, protocol) in (spi(), any::<u32>(), any::<u8>(), any::<u8>()),
        protection in protection(),
        ports in option::of(any::<(u16, u16)>()),
        (window, extended) in (1..=4096_u32, any::<bool>()),
        limits in limits(),
        selector in option::of(selector()),
        (mark, output_mark, if_id) in (option::of(mark()), option::of(mark()), any::<u32>()),
        (flags, outbound) in (any::<u8>(), option::of(any::<bool>())),
        thresholds in option::of(any::<(u32, u32, u32)>()),
        newer in option::of(any::<(u32, u32, u32)>()),
        (offload, label, iptfs) in (option::of(offload()), option::of(security_context()), iptfs()),
        other in unknown_attributes(),
    ) -> Sa {
        let (source, destination) = (source.address(), destination.address());
        let mut sa = Sa::esp_tunnel(source, destination, spi, Reqid(reqid), protection);
        sa.mode = Mode::from_number(mode);
        sa.protocol = Protocol::from_number(protocol);
        sa.encap = ports.map(|(source, destination)| Encap::udp(source, destination));
        sa.replay_window = ReplayWindow { packets: window, extended };
        sa.limits = limits;
        sa.selector = selector;
        sa.mark = mark;
        sa.output_mark = output_mark;
        sa.if_id = NonZeroU32::new(if_id);
        sa.flags = SaFlags::from_bits_retain(flags & 0x7f);
        sa.direction = outbound.map(|out| if out { SaDirection::Out } else { SaDirection::In });
        sa.replay_threshold = thresholds.map(|(replay, _, _)| replay);
        sa.timer_threshold = thresholds.map(|(_, timer, _)| timer);
        sa.mapping_interval_seconds = thresholds.map(|(_, _, seconds)| seconds);
        sa.cpu = newer.map(|(cpu, _, _)| cpu);
        sa.nat_keepalive_interval_seconds = newer.map(|(_, seconds, _)| seconds);
        sa.tfc_padding = newer.map(|(_, _, bytes)| bytes);
        sa.care_of = newer.map(|_| sa.source);
        sa.offload = offload;
        sa.security_context = label;
        sa.iptfs = iptfs;
        sa.other = other;
        sa
    }
}

prop_compose! {
    fn any_template()(
        (source, destination) in prefix_pair(),
        (spi, reqid) in (option::of(spi()), any::<u32>()),
        (optional, share) in any::<(bool, u8)>(),
    ) -> Template {
        let (source, destination) = (source.address(), destination.address());
        let template = Template::esp_tunnel(source, destination, Reqid(reqid));
        Template { spi, optional, share, ..template }
    }
}

prop_compose! {
    fn any_policy()(
        selector in selector(),
        (direction, block, priority, index) in (0..3_u8, any::<bool>(), any::<u32>(), any::<u32>()),
        templates in vec(any_template(), 0..=Policy::MAX_TEMPLATES),
        (mark, if_id, sub_policy) in (option::of(mark()), any::<u32>(), any::<bool>()),
        (offload, label) in (option::of(offload()), option::of(security_context())),
        limits in limits(),
        other in unknown_attributes(),
    ) -> Policy {
        let direction = PolicyDirection::from_number(direction).expect("a direction");
        let make = if block { Policy::block } else { Policy::allow };
        let mut policy = make(direction, selector, priority);
        policy.index = index;
        policy.templates = templates;
        policy.mark = mark;
        policy.if_id = NonZeroU32::new(if_id);
        policy.sub_policy = sub_policy;
        policy.offload = offload;
        policy.security_context = label;
        policy.limits = limits;
        policy.other = other;
        policy
    }
}

proptest! {
    #[test]
    fn an_sa_reads_back_as_it_was_written(written in any_sa()) {
        let mut writer = Writer::new();
        sa::put_sa(&mut writer, &written).expect("it can be said");
        prop_assert_eq!(sa::entry(writer.bytes()).expect("well formed").sa, written);
    }

    #[test]
    fn a_policy_reads_back_as_it_was_written(written in any_policy()) {
        let mut writer = Writer::new();
        policy::put_policy(&mut writer, &written).expect("it can be said");
        let read = policy::entry(writer.bytes()).expect("well formed").policy;
        prop_assert_eq!(read, written);
    }

    #[test]
    fn a_policy_id_reads_back_as_it_was_written(policy in any_policy()) {
        let mut writer = Writer::new();
        policy::put_id(&mut writer, &policy.id());
        let (read, _) = policy::split_id(writer.bytes()).expect("well formed");
        prop_assert_eq!(read, policy.id());
    }

    #[test]
    fn random_bodies_of_every_type_are_survived(
        kind in MESSAGE_TYPES,
        body in vec(any::<u8>(), 0..600),
    ) {
        read_everything(kind, &body);
    }

    #[test]
    fn cut_and_damaged_messages_are_survived(
        kind in MESSAGE_TYPES,
        body in well_formed_body(),
        cut in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut body = body;
        body.truncate(cut.index(body.len() + 1));
        for (place, value) in damage {
            if !body.is_empty() {
                let place = place.index(body.len());
                body[place] = value;
            }
        }
        read_everything(kind, &body);
    }

    #[test]
    fn random_datagrams_are_survived(datagram in vec(any::<u8>(), 0..200)) {
        read_events(&datagram, &mut std::collections::VecDeque::new());
        let operations = vec![Operation::ListSas; 3];
        let _refused = Exchange::acknowledged(1, operations)
            .absorb(&datagram, &mut ControlFlow::Continue);
    }

    /// A list of whatever bytes ends, or fails; it never panics, and hides no entry that is good.
    #[test]
    fn a_list_of_random_entries_is_survived(
        bodies in vec(prop_oneof![vec(any::<u8>(), 0..300), well_formed_body()], 0..6),
        stop_after in option::of(0..4_u64),
        tail in vec(any::<u8>(), 0..40),
    ) {
        let mut writer = Writer::new();
        let mut readable = 0;
        for body in &bodies {
            let start = frame::begin_message(&mut writer, 0x10, 2, 1);
            writer.put(body);
            frame::end_message(&mut writer, start);
            readable += u64::from(sa::entry(body).is_ok());
        }
        let well_framed = writer.len();
        writer.put(&tail);
        for bytes in [&writer.bytes()[..well_framed], writer.bytes()] {
            let mut list = request::list_sas()
                .begin(&mut Writer::new(), &mut 0, request::body::none)
                .expect("it can be said");
            let mut visited = 0;
            let mut visit = |_| {
                visited += 1;
                if Some(visited) == stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let _malformed = list.absorb(bytes, &mut visit);
            let wanted = stop_after.filter(|it| *it > 0).unwrap_or(u64::MAX);
            prop_assert!(visited >= readable.min(wanted));
            let end = list.into_end();
            prop_assert!(end.is_err() || end.is_ok_and(|end| end.visited == visited));
        }
    }

    #[test]
    fn framed_random_answers_are_survived(
        kind in 0..5_u16,
        flags in any::<u16>(),
        sequence in 0..4_u32,
        body in vec(any::<u8>(), 0..100),
    ) {
        let mut writer = Writer::new();
        let start = frame::begin_message(&mut writer, kind, flags, sequence);
        writer.put(&body);
        frame::end_message(&mut writer, start);
        let _refused = Exchange::acknowledged(1, vec![Operation::ListSas; 3])
            .absorb(writer.bytes(), &mut ControlFlow::Continue);
    }
}

/// Bodies of SAs and policies, alone and behind the structures that carry them in events.
fn well_formed_body() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![Just(0_usize), Just(8), Just(24), Just(96)];
    let sa = any_sa().prop_map(|sa| {
        let mut writer = Writer::new();
        sa::put_sa(&mut writer, &sa).expect("it can be said");
        writer.bytes().to_vec()
    });
    let policy = any_policy().prop_map(|policy| {
        let mut writer = Writer::new();
        policy::put_policy(&mut writer, &policy).expect("it can be said");
        writer.bytes().to_vec()
    });
    (head, prop_oneof![sa, policy]).prop_map(|(head, body)| {
        let mut bytes = vec![0; head];
        bytes.extend_from_slice(&body);
        bytes
    })
}

/// Gives a body to every decoder there is. What they say of it is their business.
fn read_everything(kind: u16, body: &[u8]) {
    let event = event::event(kind, body);
    let _shown = format!("{event:?}");
    let _results = (
        sa::entry(body).is_ok(),
        policy::entry(body).is_ok(),
        event::event_state(body).is_ok(),
        info::sad(body).is_ok(),
        info::spd(body).is_ok(),
        frame::refusal(u16::MAX, body).is_ok(),
        frame::refusal(0, body).is_ok(),
        frame::done(u16::MAX, body).is_some(),
    );
}

#[test]
fn every_known_type_without_a_body_is_malformed() {
    use netlink_packet_xfrm::constants as c;
    let with_body = [
        c::XFRM_MSG_NEWSA,
        c::XFRM_MSG_DELSA,
        c::XFRM_MSG_UPDSA,
        c::XFRM_MSG_NEWPOLICY,
        c::XFRM_MSG_DELPOLICY,
        c::XFRM_MSG_UPDPOLICY,
        c::XFRM_MSG_ACQUIRE,
        c::XFRM_MSG_EXPIRE,
        c::XFRM_MSG_POLEXPIRE,
        c::XFRM_MSG_FLUSHSA,
        c::XFRM_MSG_NEWAE,
        c::XFRM_MSG_REPORT,
        c::XFRM_MSG_MIGRATE,
        c::XFRM_MSG_MAPPING,
    ];
    for kind in with_body {
        let event = event::event(kind, &[]);
        assert!(matches!(event, XfrmEvent::Malformed { message_type, .. } if message_type == kind));
    }
    assert_eq!(
        event::event(0x30, &[1]),
        XfrmEvent::Unknown {
            message_type: 0x30,
            length: 1
        }
    );
}

#[test]
fn thresholds_read_back_as_they_were_written() {
    let spi = Spi::new(5).expect("not zero");
    let id = crate::SaId::esp([192, 0, 2, 1].into(), spi);
    let reference = SaRef {
        id,
        mark: Some(Mark::exactly(7)),
    };
    let mut writer = Writer::new();
    let flags = EventFlags::CAUSE_REPLAY;
    event::put_event_state(&mut writer, &reference, flags, EventThresholds::NEXT_PACKET);
    let state = event::event_state(writer.bytes()).expect("well formed");
    assert_eq!(
        (state.id, state.mark, state.flags),
        (id, reference.mark, flags)
    );
    assert_eq!(
        (state.replay_threshold, state.timer_threshold),
        (Some(1), Some(0))
    );
}

#[test]
fn what_the_kernel_has_no_words_for_is_refused_before_it_is_sent() {
    let spi = Spi::new(5).expect("not zero");
    let sa = |source: [u8; 4]| {
        let key = Key::new(vec![0; 20]);
        let destination = [192, 0, 2, 2].into();
        Sa::esp_tunnel(
            source.into(),
            destination,
            spi,
            Reqid(1),
            Protection::aes_gcm_16(key),
        )
    };
    let good = sa([192, 0, 2, 1]);
    let mut mixed = good.clone();
    mixed.source = [0_u16; 8].into();
    let mut larval = good.clone();
    larval.protection = Protection::Larval;
    let mut anonymous = good.clone();
    anonymous.spi = None;
    let mut windowless = good.clone();
    windowless.replay_window = ReplayWindow::extended(0);
    let mut wide = good.clone();
    wide.replay_window = ReplayWindow::packets(4097);
    let mut long_name = good.clone();
    long_name.protection = Protection::Aead(Aead {
        name: "x".repeat(64),
        key: Key::new(vec![0; 20]),
        icv_bits: 128,
    });
    let refused = |sa: &Sa| sa::put_sa(&mut Writer::new(), sa).is_err();
    assert!(!refused(&good));
    for sa in [mixed, larval, anonymous, windowless, wide, long_name] {
        assert!(refused(&sa), "{sa:?}");
    }
}

#[test]
fn the_kernels_words_are_found_with_and_without_the_request() {
    let words = b"no such thing\0";
    let answer = |echo: &[u8]| {
        let mut writer = Writer::new();
        writer.put(&(-22_i32).to_ne_bytes());
        writer.put(&(16 + u32::try_from(echo.len()).expect("short")).to_ne_bytes());
        writer.zeros(12);
        writer.put(echo);
        writer.attribute_bytes(1, words);
        writer.bytes().to_vec()
    };
    let expected = Ok(Some((22, Some("no such thing".to_owned()))));
    assert_eq!(frame::refusal(0x300, &answer(&[])), expected);
    assert_eq!(frame::refusal(0x200, &answer(&[7; 8])), expected);
    assert_eq!(frame::refusal(0, &answer(&[])), Ok(Some((22, None))));
    assert_eq!(frame::refusal(0, &0_i32.to_ne_bytes()), Ok(None));
    let short = DecodeError::short("nlmsgerr", 4, 2);
    assert_eq!(frame::refusal(0, &[0, 0]), Err(short));
}

/// What kernels newer than the guest's say, as their headers lay it out (`linux/xfrm.h` of 6.16).
#[test]
fn attributes_of_newer_kernels_are_read_by_their_numbers() {
    let spi = Spi::new(5).expect("not zero");
    let key = Protection::aes_gcm_16(Key::new(vec![0; 20]));
    let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let mut expected = Sa::esp_tunnel(source, destination, spi, Reqid(1), key);
    let mut writer = Writer::new();
    sa::put_sa(&mut writer, &expected).expect("it can be said");
    writer.attribute_u32(35, 3);
    writer.attribute_u32(36, 1_000_000);
    writer.attribute_bytes(37, &3_u16.to_ne_bytes());
    writer.attribute_bytes(38, &[]);
    writer.attribute_u32(39, 50);
    writer.attribute_u32(40, 0x10_0000);
    writer.attribute_u32(41, 1400);
    writer.attribute(28, |writer| {
        writer.put(&7_i32.to_ne_bytes());
        writer.put(&[2 | 4, 0, 0, 0]);
    });
    let label = b"system_u:object_r:ipsec_spd_t:s0\0";
    let length = u16::try_from(label.len()).expect("short");
    writer.attribute(8, |writer| {
        writer.put(&(8 + length).to_ne_bytes());
        writer.put(&8_u16.to_ne_bytes());
        writer.put(&[1, 1]);
        writer.put(&length.to_ne_bytes());
        writer.put(label);
    });
    expected.cpu = Some(3);
    expected.iptfs = Some(Iptfs {
        drop_time_microseconds: Some(1_000_000),
        reorder_window_packets: Some(3),
        dont_fragment: true,
        initial_delay_microseconds: Some(50),
        queue_octets_max: Some(0x10_0000),
        packet_octets: Some(1400),
    });
    expected.offload = Some(Offload {
        interface_index: 7,
        flags: OffloadFlags::INBOUND | OffloadFlags::PACKET,
    });
    let context = SecurityContext::selinux("system_u:object_r:ipsec_spd_t:s0");
    assert_eq!(context.to_string(), "system_u:object_r:ipsec_spd_t:s0");
    expected.security_context = Some(context);
    assert_eq!(sa::entry(writer.bytes()).expect("well formed").sa, expected);
}
