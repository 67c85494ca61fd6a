//! On a real kernel: lists of the SAD and SPD entry by entry, filtered, broken off, and while the
//! tables change under them.
#![cfg(feature = "kernel")]
#![allow(clippy::panic)] // In helpers of tests, too, a panic is a failed test.

mod common;

use std::collections::HashSet;
use std::ops::ControlFlow;

use common::{address, in_own_namespace, ip, selector, spi, tunnel_sa, udp};
use epochgate_xfrm::socket_policy::{Family, set_socket_bypass};
use epochgate_xfrm::{
    AsyncSocket, Cause, Op, Policy, PolicyDirection, Prefix, Protocol, Reqid, Sa, SaFilter, SaRef,
    Socket, Template,
};

/// Enough for several datagrams of a list, each of at most 32 KiB.
const MANY: u32 = 2000;

fn open() -> Socket {
    Socket::open().expect("a netlink socket")
}

fn many_sas() -> Vec<Sa> {
    (0..MANY)
        .map(|n| tunnel_sa("192.0.2.1", "192.0.2.2", 0x1000 + n, 1))
        .collect()
}

fn many_policies() -> Vec<Policy> {
    let template = Template::esp_tunnel(address("192.0.2.1"), address("192.0.2.2"), Reqid(1));
    (0..MANY)
        .map(|n| {
            let host = format!("10.{}.{}.1/32", n / 256, n % 256);
            let packets = selector("10.0.0.0/8", &host);
            Policy::protect(PolicyDirection::Out, packets, n, template)
        })
        .collect()
}

fn apply_all(socket: &mut Socket, ops: &[Op<'_>]) {
    for result in socket.batch(ops) {
        result.expect("the kernel does it");
    }
}

fn add_sas(socket: &mut Socket, sas: &[Sa]) {
    let ops: Vec<Op<'_>> = sas.iter().map(Op::AddSa).collect();
    apply_all(socket, &ops);
}

fn add_policies(socket: &mut Socket, policies: &[Policy]) {
    let ops: Vec<Op<'_>> = policies.iter().map(Op::AddPolicy).collect();
    apply_all(socket, &ops);
}

#[test]
fn every_entry_is_visited_once() {
    in_own_namespace(|| {
        let mut socket = open();
        add_sas(&mut socket, &many_sas());
        add_policies(&mut socket, &many_policies());
        // A socket's own policies are in the list and in the kernel's count of it.
        let exempt = udp("127.0.0.1", 500);
        set_socket_bypass(&exempt, Family::V4).expect("CAP_NET_ADMIN");

        let mut spis = HashSet::new();
        let end = socket.for_each_sa(&SaFilter::ALL, |entry| {
            assert!(spis.insert(entry.sa.spi), "{:?} again", entry.sa.spi);
            ControlFlow::Continue(())
        });
        let end = end.expect("list");
        assert_eq!(spis.len(), MANY as usize);
        assert_eq!((end.visited, end.unreadable), (u64::from(MANY), 0));
        assert!(!end.changed && !end.stopped, "{end:?}");

        let mut indexes = HashSet::new();
        let end = socket.for_each_policy(|entry| {
            assert!(indexes.insert(entry.policy.index), "{:?}", entry.policy);
            ControlFlow::Continue(())
        });
        let end = end.expect("list");
        assert_eq!(end.visited, u64::from(MANY) + 2);
        assert!(!end.changed && !end.stopped, "{end:?}");
        let size = socket.spd_info().expect("the size of the SPD");
        assert_eq!(size.policies(), end.visited);
    });
}

#[test]
fn empty_tables_have_lists_that_end() {
    in_own_namespace(|| {
        let mut socket = open();
        let nothing = socket.for_each_sa(&SaFilter::ALL, |_| panic!("there is no SA"));
        assert_eq!(nothing.expect("list"), epochgate_xfrm::DumpEnd::default());
        let nothing = socket.for_each_policy(|_| panic!("there is no policy"));
        assert_eq!(nothing.expect("list"), epochgate_xfrm::DumpEnd::default());
    });
}

#[test]
fn a_list_that_was_broken_off_leaves_the_socket_usable() {
    in_own_namespace(|| {
        let mut socket = open();
        let sas = many_sas();
        add_sas(&mut socket, &sas);
        add_policies(&mut socket, &many_policies());
        for _ in 0..3 {
            let mut visits = 0;
            let end = socket.for_each_sa(&SaFilter::ALL, |_| {
                visits += 1;
                ControlFlow::Break(())
            });
            let end = end.expect("list");
            assert_eq!((visits, end.visited, end.stopped), (1, 1, true));
            let end = socket.for_each_policy(|_| ControlFlow::Break(()));
            assert!(end.expect("list").stopped);
        }
        // Whatever comes next gets its own answer, not what was left of the list.
        let _end = socket
            .for_each_sa(&SaFilter::ALL, |_| ControlFlow::Break(()))
            .expect("list");
        let id = sas[7].id().expect("an SPI");
        assert_eq!(socket.sa(id).expect("get").sa.id(), Some(id));
        let _end = socket
            .for_each_policy(|_| ControlFlow::Break(()))
            .expect("list");
        socket.delete_sa(id).expect("delete");
        assert_eq!(socket.sas().expect("list").len(), MANY as usize - 1);
    });
}

#[test]
fn the_kernel_leaves_out_what_is_filtered() {
    in_own_namespace(|| {
        let mut socket = open();
        let mut sas = [
            tunnel_sa("192.0.2.1", "192.0.2.2", 1, 1),
            tunnel_sa("192.0.2.1", "198.51.100.7", 2, 1),
            tunnel_sa("203.0.113.1", "192.0.2.2", 3, 1),
            tunnel_sa("2001:db8::1", "2001:db8::2", 4, 1),
            tunnel_sa("2001:db8::1", "2001:db8:7::2", 5, 1),
        ];
        sas[1].reqid = Reqid(9);
        add_sas(&mut socket, &sas);
        ip(
            "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 6 mode tunnel \
            auth hmac(sha256) 0x00112233445566778899aabbccddeeff",
        );
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        let mut numbers = |filter: SaFilter| {
            let mut numbers = Vec::new();
            let end = socket.for_each_sa(&filter, |entry| {
                numbers.push(entry.sa.spi.expect("an SPI").get());
                ControlFlow::Continue(())
            });
            let end = end.expect("list");
            assert!(!end.changed, "{end:?}");
            assert_eq!(end.visited, numbers.len() as u64);
            numbers.sort_unstable();
            numbers
        };
        let all = SaFilter::ALL;
        assert_eq!(numbers(all), [1, 2, 3, 4, 5, 6]);
        assert_eq!(numbers(all.with_protocol(Protocol::Esp)), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(all.with_protocol(Protocol::Ah)), [6]);
        assert_eq!(numbers(all.from_source(Prefix::ANY_V6)), [4, 5]);
        assert_eq!(numbers(all.to_destination(Prefix::ANY_V4)), [1, 2, 3, 6]);
        assert_eq!(numbers(all.from_source(prefix("192.0.2.0/24"))), [1, 2, 6]);
        assert_eq!(numbers(all.to_destination(prefix("192.0.2.2"))), [1, 3, 6]);
        assert_eq!(numbers(all.to_destination(prefix("2001:db8:7::/48"))), [5]);
        let both = all
            .from_source(prefix("192.0.2.1/31"))
            .to_destination(prefix("192.0.0.0/12"));
        assert_eq!(numbers(both.with_protocol(Protocol::Esp)), [1]);
        assert_eq!(numbers(all.from_source(prefix("10.0.0.0/8"))), []);

        let mixed = all
            .from_source(Prefix::ANY_V4)
            .to_destination(Prefix::ANY_V6);
        let error = socket
            .for_each_sa(&mixed, |_| ControlFlow::Continue(()))
            .expect_err("two families");
        assert!(matches!(error.cause(), Cause::Invalid(_)), "{error}");
    });
}

#[test]
fn sas_that_come_and_go_during_a_list_are_no_error_and_are_told() {
    in_own_namespace(|| {
        let (mut socket, mut other) = (open(), open());
        let sas = many_sas();
        add_sas(&mut socket, &sas);

        // The kernel lists the newest first, so the oldest has not had its turn.
        let oldest: SaRef = sas[0].id().expect("an SPI").into();
        let mut seen = HashSet::new();
        let end = socket.for_each_sa(&SaFilter::ALL, |entry| {
            if seen.is_empty() {
                other.delete_sa(oldest).expect("delete");
            }
            seen.insert(entry.sa.spi);
            ControlFlow::Continue(())
        });
        assert!(end.expect("list").changed);
        assert_eq!(seen.len(), MANY as usize - 1);

        let mut is_first = true;
        let end = socket.for_each_sa(&SaFilter::ALL, |_| {
            if std::mem::take(&mut is_first) {
                other.add_sa(&sas[0]).expect("add");
            }
            ControlFlow::Continue(())
        });
        let end = end.expect("list");
        assert!(end.changed, "{end:?}");
        assert_eq!(end.visited, u64::from(MANY) - 1, "what came is not listed");
    });
}

#[test]
fn a_policy_that_is_replaced_during_a_list_is_missing_and_that_is_told() {
    in_own_namespace(|| {
        let (mut socket, mut other) = (open(), open());
        let mut policies = many_policies();
        add_policies(&mut socket, &policies);
        // Policies are listed newest first too: the first one's turn is last.
        policies[0].templates[0].spi = Some(spi(0x77));
        let mut is_first = true;
        let mut indexes = HashSet::new();
        let end = socket.for_each_policy(|entry| {
            if std::mem::take(&mut is_first) {
                other.update_policy(&policies[0]).expect("update");
            }
            indexes.insert(entry.policy.index);
            ControlFlow::Continue(())
        });
        let end = end.expect("list");
        assert!(end.changed, "{end:?}");
        assert_eq!(indexes.len(), MANY as usize - 1);
        // A list that is not disturbed has it.
        assert_eq!(socket.policies().expect("list").len(), MANY as usize);
    });
}

#[test]
fn the_asynchronous_socket_lists_the_same() {
    in_own_namespace(|| {
        add_sas(&mut open(), &many_sas());
        add_policies(&mut open(), &many_policies());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut socket = AsyncSocket::open().expect("open");
            let mut visits = 0;
            let mut until = |limit: u32| {
                visits = 0;
                move |_| {
                    visits += 1;
                    if visits == limit {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                }
            };
            let end = socket.for_each_sa(&SaFilter::ALL, until(100)).await;
            let end = end.expect("list");
            assert_eq!((end.visited, end.stopped), (100, true));
            let to_nobody = SaFilter::ALL.to_destination(Prefix::ANY_V6);
            let end = socket.for_each_sa(&to_nobody, until(1)).await;
            let end = end.expect("list");
            assert_eq!((end.visited, end.stopped, end.changed), (0, false, false));
            let end = socket.for_each_policy(|_| ControlFlow::Continue(())).await;
            let end = end.expect("list");
            assert_eq!((end.visited, end.changed), (u64::from(MANY), false));
        });
    });
}
