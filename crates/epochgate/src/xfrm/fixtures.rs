//! What a gateway may have in its kernel, for tests of what is rendered: tunnels of epochgate and of
//! strongSwan, one that is held, one behind a NAT, one over an interface, IPv6, and what went wrong.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use epochgate_xfrm::{
    Cipher, Encap, Integrity, Key, Limit, Limits, Mark, Mode, Offload, OffloadFlags, Policy,
    PolicyDirection, PolicyEntry, PortMatch, Prefix, Protection, Protocol, RawAttribute,
    ReplayState, ReplayWindow, Reqid, Sa, SaDirection, SaEntry, SaFaults, SaFlags, Selector, Spi,
    Template, Usage,
};
use jiff::tz::TimeZone;

use super::partners::{PolicyIndex, StateIndex};
use super::surroundings::Surroundings;

/// The time of all fixtures: 2026-11-28 16:20:31 UTC.
pub(crate) const NOW: u64 = 1_795_882_831;
/// A reqid of epochgate's.
pub(crate) const OURS: u32 = 0x4547_0001;
/// The reqid of a held tunnel of epochgate's.
pub(crate) const HELD: u32 = 0x4547_0002;

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(crate) fn selector(source: &str, destination: &str) -> Selector {
    Selector::new(prefix(source), prefix(destination)).expect("one family")
}

pub(crate) fn spi(number: u32) -> Spi {
    Spi::new(number).expect("not zero")
}

fn key(bytes: usize) -> Key {
    Key::new(vec![0xab; bytes])
}

/// The host that has it all.
pub(crate) fn host() -> Surroundings {
    let ours = ["203.0.113.9", "10.1.0.1", "2001:db8:17::1"];
    Surroundings {
        now: NOW,
        zone: TimeZone::UTC,
        addresses: ours.map(address).into_iter().collect::<HashSet<_>>(),
        interfaces: HashMap::from([(2, "eth0".to_owned()), (5, "ipsec0".to_owned())]),
        xfrm_interfaces: HashMap::from([(9, "ipsec0".to_owned())]),
        larval_drop: Some(false),
        acquire_seconds: Some(30),
    }
}

/// An SA of AES-GCM-256 in tunnel mode that nobody has used.
pub(crate) fn sa(source: &str, destination: &str, number: u32, reqid: u32) -> SaEntry {
    let sa = Sa::esp_tunnel(
        address(source),
        address(destination),
        spi(number),
        Reqid(reqid),
        Protection::aes_gcm_16(key(36)),
    );
    let mut entry = SaEntry::new(sa);
    entry.usage.added = NOW - 725;
    entry.replay = Some(ReplayState {
        outbound: 0,
        inbound: 0,
        bitmap: vec![0],
    });
    entry
}

fn used(mut entry: SaEntry, packets: u64, bytes: u64, idle: u64) -> SaEntry {
    entry.usage = Usage {
        packets,
        bytes,
        first_used: Some(entry.usage.added + 2),
        ..entry.usage
    };
    entry.last_used = Some(NOW - idle);
    if let Some(replay) = &mut entry.replay {
        replay.outbound = packets;
        replay.inbound = packets;
    }
    entry
}

fn hourly(mut entry: SaEntry) -> SaEntry {
    let seconds = |seconds| Limit {
        seconds_since_added: Some(seconds),
        ..Limit::default()
    };
    entry.sa.limits = Limits {
        soft: seconds(3_000),
        hard: seconds(3_600),
    };
    entry
}

fn cbc() -> Protection {
    Protection::Encryption {
        cipher: Cipher {
            name: "cbc(aes)".into(),
            key: key(32),
        },
        integrity: Some(Integrity {
            name: "hmac(sha256)".into(),
            key: key(32),
            truncation_bits: Some(128),
        }),
    }
}

/// The SAD, the newest first, as the kernel lists it.
pub(crate) fn states() -> Vec<SaEntry> {
    let (local, peer, nat) = ("203.0.113.9", "198.51.100.7", "192.0.2.33");
    let v6_peer = "2001:db8:99:1234:5678:9abc:def0:2";
    // An epoch of epochgate's, and the one before it.
    let mut ours_out = hourly(used(
        sa(local, peer, 0xc5f3_a001, OURS),
        48_211,
        61_230_114,
        1,
    ));
    ours_out.sa.replay_window = ReplayWindow::extended(64);
    ours_out.sa.direction = Some(SaDirection::Out);
    let mut ours_in = hourly(used(
        sa(peer, local, 0xc0aa_0102, OURS),
        31_007,
        4_410_220,
        0,
    ));
    ours_in.sa.replay_window = ReplayWindow::extended(64);
    ours_in.sa.direction = Some(SaDirection::In);
    let mut draining = used(sa(local, peer, 0xc5f3_a0ff, OURS), 1_022, 90_114, 731);
    draining.usage.added = NOW - 4_200;
    // strongSwan's, behind a NAT, with packets that were refused.
    let mut nat_out = hourly(used(sa(local, nat, 0xc1f4_e55b, 1), 9_120, 1_204_553, 12));
    nat_out.sa.protection = cbc();
    nat_out.sa.encap = Some(Encap::udp(4500, 10_452));
    nat_out.sa.replay_window = ReplayWindow::packets(0);
    let mut nat_in = hourly(used(sa(nat, local, 0xc22a_7cc1, 1), 8_875, 15_224_001, 12));
    nat_in.sa.protection = cbc();
    nat_in.sa.encap = Some(Encap::udp(10_452, 4500));
    nat_in.sa.flags = SaFlags::AF_UNSPEC;
    nat_in.faults = SaFaults {
        outside_window: 14,
        replayed: 0,
        integrity: 3,
    };
    // IPv6 in transport mode.
    let mut v6 = used(
        sa("2001:db8:17::1", v6_peer, 0x0000_1234, 77),
        12,
        1_440,
        90_061,
    );
    v6.sa.mode = Mode::Transport;
    v6.sa.protection = Protection::chacha20_poly1305(key(36));
    v6.usage.added = NOW - 200_000;
    // Over an interface, with a mark and a device.
    let mut routed = used(sa(local, "198.51.100.44", 0xcafe_0001, 9), 5, 420, 3);
    routed.sa.if_id = NonZeroU32::new(9);
    routed.sa.output_mark = Some(Mark::exactly(0x20));
    routed.sa.offload = Some(Offload {
        interface_index: 2,
        flags: OffloadFlags::default(),
    });
    // Nobody's: its daemon died. Its numbers run out.
    let mut orphan = used(
        sa("198.51.100.99", local, 0xdead_0001, 4),
        4_200_000_000,
        1 << 42,
        2,
    );
    orphan.sa.limits.soft.bytes = Some(1 << 40);
    orphan.sa.other = vec![RawAttribute {
        kind: 99,
        value: vec![0, 1, 0xfe],
    }];
    orphan.usage.added = NOW - 86_400 * 3;
    // Asked for, and nobody has answered.
    let mut larval = SaEntry::new(Sa::new(
        address(local),
        address("198.51.100.9"),
        Protocol::Esp,
    ));
    larval.sa.reqid = Reqid(HELD);
    larval.sa.mode = Mode::Tunnel;
    larval.sa.limits.hard.seconds_since_added = Some(30);
    larval.usage.added = NOW - 4;
    vec![
        larval, routed, ours_in, ours_out, draining, nat_in, nat_out, v6, orphan,
    ]
}

fn protect(
    direction: PolicyDirection,
    inner: (&str, &str),
    priority: u32,
    index: u32,
    template: Template,
) -> PolicyEntry {
    let selector = selector(inner.0, inner.1);
    let mut entry = PolicyEntry::new(Policy::protect(direction, selector, priority, template));
    entry.policy.index = index;
    entry.usage.added = NOW - 86_400;
    entry.last_used = Some(NOW - 3);
    entry
}

/// The SPD.
pub(crate) fn policies() -> Vec<PolicyEntry> {
    use PolicyDirection::{Forward, In, Out, SocketOut};
    let (local, peer, nat) = ("203.0.113.9", "198.51.100.7", "192.0.2.33");
    let tunnel = |source: &str, destination: &str, reqid| {
        Template::esp_tunnel(address(source), address(destination), Reqid(reqid))
    };
    let (lan, remote) = ("10.1.0.0/16", "10.2.0.0/16");
    let mut v6 = protect(
        Out,
        (
            "2001:db8:17::1/128",
            "2001:db8:99:1234:5678:9abc:def0:2/128",
        ),
        5,
        57,
        Template::esp_transport(address("::"), Reqid(77)),
    );
    v6.last_used = None;
    let mut routed = protect(
        Out,
        ("0.0.0.0/0", "0.0.0.0/0"),
        0,
        65,
        tunnel(local, "198.51.100.44", 9),
    );
    routed.policy.if_id = NonZeroU32::new(9);
    let mut bypass = PolicyEntry::new(Policy::allow(
        In,
        selector("0.0.0.0/0", "203.0.113.9/32")
            .with_protocol(17)
            .with_ports(PortMatch::ANY, PortMatch::exactly(500)),
        1,
    ));
    bypass.policy.index = 72;
    bypass.usage.added = NOW - 86_400;
    let mut block = PolicyEntry::new(Policy::block(In, selector("10.66.0.0/16", lan), 1));
    block.policy.index = 80;
    block.usage.added = NOW - 60;
    block.policy.mark = Some(Mark {
        value: 0x10,
        mask: 0xff,
    });
    let refused = protect(
        Out,
        (lan, "10.7.0.0/16"),
        2_000,
        89,
        tunnel(local, nat, 2).pinned_to(spi(0xc1f4_e55b)),
    );
    let mut socket = PolicyEntry::new(Policy::allow(
        SocketOut,
        selector("0.0.0.0/0", "0.0.0.0/0"),
        0,
    ));
    socket.policy.index = 100;
    socket.usage.added = NOW - 86_400;
    vec![
        socket,
        block,
        bypass,
        refused,
        routed,
        v6,
        protect(
            In,
            ("172.16.5.0/24", lan),
            375_423,
            48,
            tunnel(nat, local, 1),
        ),
        protect(
            Forward,
            ("172.16.5.0/24", lan),
            375_423,
            42,
            tunnel(nat, local, 1),
        ),
        protect(
            Out,
            (lan, "172.16.5.0/24"),
            375_423,
            33,
            tunnel(local, nat, 1),
        ),
        protect(
            In,
            ("10.44.0.0/16", lan),
            375_423,
            29,
            tunnel("192.0.2.200", local, 12),
        ),
        protect(
            Out,
            (lan, "10.9.0.0/16"),
            1_000,
            25,
            tunnel(local, "198.51.100.9", HELD),
        ),
        protect(Forward, (remote, lan), 1_000, 18, tunnel(peer, local, OURS)),
        protect(In, (remote, lan), 1_000, 8, tunnel(peer, local, OURS)),
        protect(
            Out,
            (lan, remote),
            1_000,
            1,
            tunnel(local, peer, OURS).pinned_to(spi(0xc5f3_a001)),
        ),
    ]
}

/// The index of these SAs.
pub(crate) fn index_of_states(states: &[SaEntry]) -> StateIndex {
    let host = host();
    let mut index = StateIndex::default();
    for entry in states {
        index.add(entry, host.now, &host.addresses);
    }
    index.sorted()
}

/// The index of these policies.
pub(crate) fn index_of_policies(policies: &[PolicyEntry]) -> PolicyIndex {
    let mut index = PolicyIndex::default();
    for entry in policies {
        index.add(&entry.policy);
    }
    index.sorted()
}
