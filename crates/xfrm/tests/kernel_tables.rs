//! On a real kernel: what this crate writes, `ip xfrm` reads back, and the other way round.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::num::NonZeroU32;

use common::{address, assert_shows, gcm, in_own_namespace, ip, selector, spi, tunnel_sa};
use epochgate_xfrm::{
    AsyncSocket, Cause, Encap, EventThresholds, Key, Mark, Mode, Op, Policy, PolicyAction,
    PolicyDirection, PolicyFlags, PolicyId, PolicyKey, PortMatch, Protection, Protocol,
    ReplayState, ReplayWindow, Reqid, Sa, SaDirection, SaExtraFlags, SaFlags, SaId, Selector,
    Socket, SpiRequest, Template,
};

fn open() -> Socket {
    Socket::open().expect("a netlink socket")
}

fn id(destination: &str, number: u32) -> SaId {
    SaId::esp(address(destination), spi(number))
}

#[test]
fn ip_xfrm_shows_the_sa_that_was_added() {
    in_own_namespace(|| {
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        sa.protection = gcm(36);
        sa.encap = Some(Encap::udp(4500, 4501));
        sa.replay_window = ReplayWindow::extended(64);
        sa.mark = Some(Mark {
            value: 0x10,
            mask: 0xff,
        });
        sa.output_mark = Some(Mark {
            value: 0x20,
            mask: 0xf0,
        });
        sa.if_id = NonZeroU32::new(9);
        sa.flags = SaFlags::AF_UNSPEC;
        sa.limits.soft.bytes = Some(1000);
        sa.limits.hard.seconds_since_added = Some(3600);
        open().add_sa(&sa).expect("add");

        assert_shows(
            &ip("-s xfrm state"),
            &[
                "src 192.0.2.1 dst 192.0.2.2",
                "proto esp spi 0xc0000001",
                "reqid 7",
                "mode tunnel",
                "af-unspec",
                "esn",
                "replay_window 64",
                "mark 0x10/0xff",
                "output-mark 0x20/0xf0",
                "if_id 0x9",
                "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f10",
                "(288 bits) 128",
                "encap type espinudp sport 4500 dport 4501",
                "limit: soft 1000(bytes)",
                "hard 3600(sec)",
            ],
        );
    });
}

#[test]
fn an_sa_reads_back_as_it_was_added() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut v4 = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        v4.selector = Some(selector("10.1.0.0/16", "10.2.0.0/16").with_protocol(17));
        v4.encap = Some(Encap::udp(4500, 4501));
        v4.mark = Some(Mark::exactly(5));
        let mut v6 = tunnel_sa("2001:db8::1", "2001:db8::2", 0xc000_0002, 8);
        v6.protection = gcm(36);
        v6.replay_window = ReplayWindow::extended(128);
        v6.selector = Some(selector("::/0", "::/0"));
        v6.limits.soft.packets = Some(100);
        v6.limits.hard.packets = Some(200);
        let keys = |length| Key::new(vec![7; length]);
        let mut cbc = Sa::esp_transport(
            address("192.0.2.1"),
            address("192.0.2.3"),
            spi(3),
            Reqid(9),
            Protection::aes_cbc_hmac_sha256_128(keys(32), keys(32)),
        );
        cbc.selector = Some(selector("192.0.2.1/32", "192.0.2.3/32"));

        for sa in [&v4, &v6, &cbc] {
            socket.add_sa(sa).expect("add");
        }
        let marked = epochgate_xfrm::SaRef {
            id: v4.id().expect("an SPI"),
            mark: v4.mark,
        };
        assert_eq!(socket.sa(marked).expect("get").sa, v4);
        assert_eq!(socket.sa(v6.id().expect("an SPI")).expect("get").sa, v6);
        assert_eq!(socket.sa(cbc.id().expect("an SPI")).expect("get").sa, cbc);
        let mut listed: Vec<Sa> = socket
            .sas()
            .expect("list")
            .into_iter()
            .map(|it| it.sa)
            .collect();
        listed.sort_by_key(|sa| sa.reqid);
        assert_eq!(listed, [v4, v6, cbc]);
    });
}

/// Linux 6.10 and later know which way an SA goes, and refuse what makes no sense for its way.
#[test]
fn an_sa_with_a_direction_reads_back_as_it_was_added() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut inbound = tunnel_sa("192.0.2.2", "192.0.2.1", 0xc000_0001, 7);
        inbound.direction = Some(SaDirection::In);
        inbound.encap = Some(Encap::udp(4500, 4500));
        inbound.mapping_interval_seconds = Some(5);
        inbound.selector = Some(Selector::ANY_V4);
        inbound.cpu = Some(0);
        let mut outbound = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0002, 7);
        outbound.direction = Some(SaDirection::Out);
        outbound.replay_window = ReplayWindow::extended(0);
        outbound.encap = Some(Encap::udp(4500, 4500));
        outbound.nat_keepalive_interval_seconds = Some(20);
        outbound.tfc_padding = Some(1200);
        outbound.extra_flags = SaExtraFlags::DONT_ENCAP_DSCP;
        outbound.selector = Some(Selector::ANY_V4);
        outbound.cpu = Some(0);
        for sa in [&inbound, &outbound] {
            socket.add_sa(sa).expect("add");
            let read = socket.sa(sa.id().expect("an SPI")).expect("get").sa;
            assert_eq!(&read, sa);
            assert!(read.other.is_empty(), "{:?}", read.other);
        }
        assert_shows(&ip("xfrm state"), &["flag", "esn", "tfcpad 1200"]);
        let state = socket.event_state(outbound.id().expect("an SPI"));
        let state = state.expect("get");
        assert_eq!((state.direction, state.cpu), (outbound.direction, Some(0)));
        assert!(state.other.is_empty(), "{:?}", state.other);

        outbound.spi = Some(spi(0xc000_0003));
        outbound.replay_window = ReplayWindow::packets(32);
        let error = socket.add_sa(&outbound).expect_err("a window to send");
        assert_eq!(
            error.message(),
            Some("Replay window should be 0 for output SA")
        );
    });
}

#[test]
fn a_policy_for_an_sa_on_each_cpu_reads_back() {
    in_own_namespace(|| {
        let mut socket = open();
        let template = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(7));
        let packets = selector("10.1.0.0/16", "10.2.0.0/16");
        let mut policy = Policy::protect(PolicyDirection::Out, packets, 1, template);
        policy.flags = PolicyFlags::CPU_ACQUIRE | PolicyFlags::ICMP;
        socket.add_policy(&policy).expect("add");
        let read = socket.policy(&policy.id()).expect("get").policy;
        assert_eq!(read.flags, policy.flags);
    });
}

#[test]
fn an_sa_added_by_ip_xfrm_is_understood() {
    in_own_namespace(|| {
        ip(
            "xfrm state add src 2001:db8::1 dst 2001:db8::2 proto esp spi 0x1234 reqid 3 \
            mode transport replay-window 32 flag decap-dscp \
            auth-trunc hmac(sha512) 0x00112233445566778899aabbccddeeff 256 \
            enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f \
            encap espinudp 4500 4501 2001:db8::9 \
            limit packet-soft 5 limit packet-hard 6 limit time-soft 7 limit byte-hard 8",
        );
        ip(
            "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x300 mode tunnel \
            auth hmac(sha256) 0x00112233445566778899aabbccddeeff",
        );
        let mut socket = open();
        let entry = socket.sa(id("2001:db8::2", 0x1234)).expect("get");
        let sa = &entry.sa;
        assert_eq!((sa.reqid, sa.mode), (Reqid(3), Mode::Transport));
        assert_eq!(sa.flags, SaFlags::DECAP_DSCP);
        assert_eq!(sa.replay_window, ReplayWindow::packets(32));
        let encap = sa.encap.expect("encapsulated");
        assert_eq!((encap.source_port, encap.destination_port), (4500, 4501));
        assert_eq!(encap.original_address, Some(address("2001:db8::9")));
        assert_eq!(sa.limits.soft.packets, Some(5));
        assert_eq!(sa.limits.hard.packets, Some(6));
        assert_eq!(sa.limits.soft.seconds_since_added, Some(7));
        assert_eq!(sa.limits.hard.bytes, Some(8));
        assert!(sa.other.is_empty(), "{:?}", sa.other);
        let Protection::Encryption {
            cipher,
            integrity: Some(integrity),
        } = &sa.protection
        else {
            panic!("{:?}", sa.protection);
        };
        assert_eq!((cipher.name.as_str(), cipher.key.bits()), ("cbc(aes)", 128));
        assert_eq!(integrity.name, "hmac(sha512)");
        assert_eq!(integrity.truncation_bits, Some(256));
        assert_eq!(
            integrity.key.expose().get(..3),
            Some(&[0x00, 0x11, 0x22][..])
        );
        assert!(entry.usage.added > 0);

        let ah = SaId {
            protocol: Protocol::Ah,
            ..id("192.0.2.2", 0x300)
        };
        let ah = socket.sa(ah).expect("get").sa;
        let Protection::Integrity(integrity) = &ah.protection else {
            panic!("{:?}", ah.protection);
        };
        assert_eq!(
            (integrity.name.as_str(), integrity.truncation_bits),
            ("hmac(sha256)", Some(96))
        );
    });
}

#[test]
fn ip_xfrm_shows_the_policy_that_was_added() {
    in_own_namespace(|| {
        let packets = selector("10.1.0.0/16", "10.2.0.0/16")
            .with_protocol(17)
            .with_ports(PortMatch::ANY, PortMatch::exactly(53));
        let template = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(7))
            .pinned_to(spi(0xc000_0001));
        let mut policy = Policy::protect(PolicyDirection::Out, packets, 1234, template);
        policy.mark = Some(Mark { value: 1, mask: 3 });
        policy.if_id = NonZeroU32::new(5);
        let mut socket = open();
        socket.add_policy(&policy).expect("add");
        assert_shows(
            &ip("xfrm policy"),
            &[
                "src 10.1.0.0/16 dst 10.2.0.0/16 proto udp dport 53",
                "dir out priority 1234",
                "mark 0x1/0x3",
                "if_id 0x5",
                "tmpl src 192.0.2.1 dst 192.0.2.2",
                "proto esp spi 0xc0000001 reqid 7 mode tunnel",
            ],
        );
        socket.delete_policy(&policy.id()).expect("delete");
        assert_eq!(ip("xfrm policy"), "");
    });
}

#[test]
fn a_policy_reads_back_as_it_was_added() {
    in_own_namespace(|| {
        let mut socket = open();
        let v4 = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(7));
        let v6 = Template::esp_tunnel(address("2001:db8::1"), address("2001:db8::2"), Reqid(8));
        let transport = Template::esp_transport(address("::"), Reqid(9));
        let mut policies = [
            Policy::protect(
                PolicyDirection::Out,
                selector("10.1.0.0/16", "10.2.0.0/16"),
                1,
                v4,
            ),
            Policy::protect(
                PolicyDirection::Forward,
                selector("::/0", "2001:db8:2::/48"),
                2,
                v6,
            ),
            Policy::protect(PolicyDirection::In, selector("::/0", "::/0"), 3, transport),
            Policy::block(PolicyDirection::Out, selector("0.0.0.0/0", "0.0.0.0/0"), 4),
            Policy::allow(
                PolicyDirection::Out,
                selector("::/0", "::/0").with_protocol(58),
                5,
            ),
        ];
        for policy in &mut policies {
            socket.add_policy(policy).expect("add");
            let entry = socket.policy(&policy.id()).expect("get");
            policy.index = entry.policy.index;
            assert_eq!(&entry.policy, policy);
            assert!(entry.usage.added > 0);
            let by_index = PolicyId {
                key: PolicyKey::Index(NonZeroU32::new(policy.index).expect("an index")),
                ..policy.id()
            };
            assert_eq!(&socket.policy(&by_index).expect("get").policy, policy);
        }
        let mut listed: Vec<Policy> = socket
            .policies()
            .expect("list")
            .into_iter()
            .map(|it| it.policy)
            .collect();
        listed.sort_by_key(|policy| policy.priority);
        assert_eq!(listed, policies);
    });
}

#[test]
fn a_policy_added_by_ip_xfrm_is_understood() {
    in_own_namespace(|| {
        ip(
            "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp sport 80 dir fwd \
            priority 77 mark 6 mask 7 \
            tmpl src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x99 reqid 4 mode tunnel level use",
        );
        ip("xfrm policy add src ::/0 dst ::/0 dir in action block");
        let mut listed = open().policies().expect("list");
        listed.sort_by_key(|entry| entry.policy.priority);
        let [block, protect] = listed.as_slice() else {
            panic!("{listed:?}")
        };
        assert_eq!(block.policy.action, PolicyAction::Block);
        assert_eq!(block.policy.selector, selector("::/0", "::/0"));
        let policy = &protect.policy;
        assert_eq!(
            (policy.direction, policy.priority),
            (PolicyDirection::Forward, 77)
        );
        assert_eq!(policy.mark, Some(Mark { value: 6, mask: 7 }));
        assert_eq!(policy.selector.source_port, PortMatch::exactly(80));
        assert_eq!(policy.selector.protocol, 6);
        let [template] = policy.templates.as_slice() else {
            panic!("{policy:?}")
        };
        assert_eq!((template.spi, template.reqid), (Some(spi(0x99)), Reqid(4)));
        assert!(template.optional);
        assert!(policy.other.is_empty(), "{:?}", policy.other);
    });
}

#[test]
fn updating_a_policy_replaces_its_template() {
    in_own_namespace(|| {
        let mut socket = open();
        let hold = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(1));
        let packets = selector("10.1.0.0/16", "10.2.0.0/16");
        let mut policy = Policy::protect(PolicyDirection::Out, packets, 10, hold);
        socket
            .update_policy(&policy)
            .expect("an update adds what is not there");
        policy.templates = vec![
            Template {
                reqid: Reqid(2),
                ..hold
            }
            .pinned_to(spi(0x500)),
        ];
        socket.update_policy(&policy).expect("update");
        let read = socket.policy(&policy.id()).expect("get").policy;
        assert_eq!(read.templates, policy.templates);

        policy.priority = 11;
        let error = socket
            .add_policy(&policy)
            .expect_err("the same selector again");
        assert!(error.is_exists(), "{error}");
    });
}

#[test]
fn an_allocated_spi_is_completed_by_an_update() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut wanted =
            SpiRequest::esp_tunnel(address("192.0.2.2"), address("192.0.2.1"), Reqid(7));
        wanted.range = 0xc000_0000..=0xcfff_ffff;
        let larval = socket.allocate_spi(&wanted).expect("an SPI");
        let spi = larval.sa.spi.expect("an SPI");
        assert!(wanted.range.contains(&spi.get()), "{spi}");
        assert_eq!(larval.sa.protection, Protection::Larval);

        let sa = Sa::esp_tunnel(
            wanted.source,
            wanted.destination,
            spi,
            wanted.reqid,
            gcm(20),
        );
        let error = socket.add_sa(&sa).expect_err("the larval SA is in the way");
        assert!(error.is_exists(), "{error}");
        socket.update_sa(&sa).expect("update");
        let complete = socket.sa(sa.id().expect("an SPI")).expect("get");
        assert_eq!(complete.sa.protection, sa.protection);
        socket.delete_sa(sa.id().expect("an SPI")).expect("delete");
        assert!(socket.sas().expect("list").is_empty());

        wanted.range = 0x1000..=0x1000;
        let first = socket
            .allocate_spi(&wanted)
            .expect("the one SPI of the range");
        assert_eq!(first.sa.spi.map(|spi| spi.get()), Some(0x1000));
        let error = socket.allocate_spi(&wanted).expect_err("it is taken");
        assert!(error.is_missing(), "{error}");
    });
}

#[test]
fn an_update_moves_the_ports_of_an_sa_and_nothing_else() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        sa.encap = Some(Encap::udp(4500, 4500));
        sa.selector = Some(selector("10.1.0.0/16", "10.2.0.0/16"));
        socket.add_sa(&sa).expect("add");
        let id = sa.id().expect("an SPI");

        let mut moved = sa.clone();
        moved.encap = Some(Encap::udp(4500, 61_000));
        moved.limits.hard.packets = Some(1000);
        moved.protection = gcm(36);
        moved.selector = Some(selector("10.9.0.0/16", "10.9.0.0/16"));
        socket.update_sa(&moved).expect("update");
        (sa.encap, sa.limits) = (moved.encap, moved.limits);
        assert_eq!(socket.sa(id).expect("get").sa, sa);

        moved.encap = None;
        let error = socket
            .update_sa(&moved)
            .expect_err("encapsulation can't go");
        assert_eq!(error.errno(), Some(22), "{error}");
    });
}

#[test]
fn a_refused_member_of_a_batch_stops_none_after_it() {
    in_own_namespace(|| {
        let mut socket = open();
        let sas: Vec<Sa> = (0..300)
            .map(|n| tunnel_sa("192.0.2.1", "192.0.2.2", 0x1000 + n, 1))
            .collect();
        let mut mixed = sas[5].clone();
        mixed.source = address("2001:db8::1");
        let mut ops: Vec<Op<'_>> = sas.iter().map(Op::AddSa).collect();
        ops.insert(150, Op::AddSa(&sas[3]));
        ops.insert(200, Op::UpdateSa(&mixed));
        ops.insert(250, Op::DeleteSa(id("192.0.2.9", 9).into()));
        ops.push(Op::AddSa(&sas[7]));
        let results = socket.batch(&ops);

        assert_eq!(results.len(), ops.len());
        let refused: Vec<usize> = (0..results.len())
            .filter(|place| results[*place].is_err())
            .collect();
        assert_eq!(refused, [150, 200, 250, 303]);
        let error = |place: usize| results[place].as_ref().expect_err("refused");
        assert!(error(150).is_exists(), "{}", error(150));
        assert!(
            matches!(error(200).cause(), Cause::Invalid(_)),
            "{}",
            error(200)
        );
        assert!(error(250).is_missing(), "{}", error(250));
        assert!(error(303).is_exists(), "{}", error(303));
        assert_eq!(socket.sas().expect("list").len(), 300);
    });
}

#[test]
fn a_batch_of_refusals_alone_has_every_result() {
    in_own_namespace(|| {
        let ops = vec![Op::DeleteSa(id("192.0.2.9", 9).into()); 2000];
        let results = open().batch(&ops);
        assert_eq!(results.len(), 2000);
        for result in results {
            assert!(result.expect_err("there is no such SA").is_missing());
        }
    });
}

#[test]
fn thousands_of_policies_are_listed_whole() {
    in_own_namespace(|| {
        let mut socket = open();
        let template = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(1));
        let policies: Vec<Policy> = (0..5000_u32)
            .map(|n| {
                let host = format!("10.{}.{}.1/32", n / 256, n % 256);
                let packets = selector("10.0.0.0/8", &host);
                Policy::protect(PolicyDirection::Out, packets, n, template)
            })
            .collect();
        let add: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
        for result in socket.batch(&add) {
            result.expect("add");
        }
        let mut listed = socket.policies().expect("list");
        listed.sort_by_key(|entry| entry.policy.priority);
        assert_eq!(listed.len(), policies.len());
        for (entry, policy) in listed.iter().zip(&policies) {
            assert_eq!(entry.policy.selector, policy.selector);
        }
        let spd = socket.spd_info().expect("the size of the SPD");
        assert_eq!((spd.outbound, spd.inbound), (5000, 0));
        let delete: Vec<Op<'_>> = policies
            .iter()
            .map(|policy| Op::DeletePolicy(policy.id()))
            .collect();
        for result in socket.batch(&delete) {
            result.expect("delete");
        }
        assert!(socket.policies().expect("list").is_empty());
    });
}

#[test]
fn errors_carry_the_kernels_own_words_and_no_key() {
    in_own_namespace(|| {
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        let Protection::Aead(aead) = &mut sa.protection else {
            panic!("AES-GCM is an AEAD")
        };
        aead.name = "rfc4106(gcm(rot13))".to_owned();
        let error = open().add_sa(&sa).expect_err("no such algorithm");
        assert!(error.is_unsupported(), "{error}");
        assert_eq!(error.message(), Some("Requested AEAD algorithm not found"));
        assert_eq!(
            error.to_string(),
            "cannot add SA esp 0xc0000001 to 192.0.2.2: the kernel says \
             \"Requested AEAD algorithm not found\", ENOSYS: Function not implemented \
             (the kernel does not have this algorithm)"
        );
        assert!(format!("{sa:?}").contains("Key(160 bits)"));
    });
}

#[test]
fn what_is_not_there_is_reported_missing() {
    in_own_namespace(|| {
        let mut socket = open();
        let nobody = id("192.0.2.9", 9);
        let errors = [
            socket.sa(nobody).map(|_| ()),
            socket.delete_sa(nobody),
            socket.update_sa(&tunnel_sa("192.0.2.1", "192.0.2.9", 9, 1)),
            socket.event_state(nobody).map(|_| ()),
            socket.set_event_thresholds(nobody, EventThresholds::SILENT),
        ];
        let packets = selector("10.0.0.0/8", "10.0.0.0/8");
        let policy = PolicyId::new(PolicyDirection::Out, packets);
        let policies = [
            socket.policy(&policy).map(|_| ()),
            socket.delete_policy(&policy),
        ];
        for result in errors.into_iter().chain(policies) {
            let error = result.expect_err("nothing is there");
            assert!(error.is_missing(), "{error}");
        }
    });
}

#[test]
fn sequence_numbers_can_be_handed_over() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        sa.replay_window = ReplayWindow::extended(64);
        let start = ReplayState {
            outbound: 0x1_0000_0005,
            inbound: 77,
            bitmap: vec![3, 0],
        };
        sa.initial_replay = Some(start.clone());
        socket.add_sa(&sa).expect("add");
        let entry = socket.sa(sa.id().expect("an SPI")).expect("get");
        assert_eq!(entry.replay, Some(start));
    });
}

#[test]
fn event_thresholds_read_back() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
        (sa.replay_threshold, sa.timer_threshold) = (Some(0), Some(0));
        socket.add_sa(&sa).expect("add");
        let id = sa.id().expect("an SPI");
        let state = socket.event_state(id).expect("get");
        assert_eq!((state.id, state.reqid), (id, Reqid(7)));
        assert_eq!(
            (state.replay_threshold, state.timer_threshold),
            (Some(0), Some(0))
        );
        socket
            .set_event_thresholds(id, EventThresholds::NEXT_PACKET)
            .expect("set");
        assert_eq!(
            socket.event_state(id).expect("get").replay_threshold,
            Some(1)
        );
    });
}

#[test]
fn the_size_of_the_sad_is_counted() {
    in_own_namespace(|| {
        let mut socket = open();
        socket
            .add_sa(&tunnel_sa("192.0.2.1", "192.0.2.2", 5, 7))
            .expect("add");
        let sad = socket.sad_info().expect("the size of the SAD");
        assert_eq!(sad.sas, 1);
        assert!(sad.hash_buckets > 0);
        let counters = epochgate_xfrm::counters::Counters::read().expect("counters");
        assert_eq!(counters.get("XfrmOutPolError"), Some(0));
    });
}

#[test]
fn what_happens_without_a_policy_is_known() {
    in_own_namespace(|| {
        let mut socket = open();
        let actions = socket.default_actions().expect("Linux 5.15");
        assert_eq!(actions.outbound, PolicyAction::Allow);
        ip("xfrm policy setdefault out block in accept");
        let actions = socket.default_actions().expect("Linux 5.15");
        assert_eq!(actions.outbound, PolicyAction::Block);
        assert_eq!(
            (actions.inbound, actions.forward),
            (PolicyAction::Allow, PolicyAction::Allow)
        );
    });
}

#[test]
fn the_asynchronous_socket_does_the_same() {
    in_own_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut socket = AsyncSocket::open().expect("open");
            let sa = tunnel_sa("192.0.2.1", "192.0.2.2", 0xc000_0001, 7);
            socket.add_sa(&sa).await.expect("add");
            assert!(socket.add_sa(&sa).await.expect_err("again").is_exists());
            assert_eq!(socket.sas().await.expect("list").len(), 1);

            // A list that is given up must not break the next one.
            let many: Vec<Sa> = (0..1000)
                .map(|n| tunnel_sa("192.0.2.1", "192.0.2.2", 0x1000 + n, 1))
                .collect();
            let ops: Vec<Op<'_>> = many.iter().map(Op::AddSa).collect();
            for result in socket.batch(&ops).await {
                result.expect("add");
            }
            tokio::select! {
                biased;
                listed = socket.sas() => assert_eq!(listed.expect("list").len(), 1001),
                () = tokio::task::yield_now() => {}
            }
            assert_eq!(socket.sas().await.expect("list").len(), 1001);
            socket
                .delete_sa(sa.id().expect("an SPI"))
                .await
                .expect("delete");
            assert!(
                socket
                    .sa(sa.id().expect("an SPI"))
                    .await
                    .expect_err("gone")
                    .is_missing()
            );
        });
    });
}
