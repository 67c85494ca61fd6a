//! Who finds whom: each test is a case of `xfrm_state_find` or `xfrm_state_ok`.

use std::num::NonZeroU32;

use epochgate_xfrm::{
    Mark, Mode, Offload, OffloadFlags, Policy, PolicyDirection, Prefix, ReplayState, Reqid, Sa,
    SaDirection, SaEntry, SaFlags, Template,
};

use super::*;
use crate::xfrm::fixtures::{self, NOW, address, index_of_states, selector, spi};

const LOCAL: &str = "203.0.113.9";
const PEER: &str = "198.51.100.7";

fn out_sa(number: u32) -> SaEntry {
    fixtures::sa(LOCAL, PEER, number, 7)
}

fn in_sa(number: u32) -> SaEntry {
    fixtures::sa(PEER, LOCAL, number, 7)
}

fn tunnel(source: &str, destination: &str) -> Template {
    Template::esp_tunnel(address(source), address(destination), Reqid(7))
}

fn out_policy() -> Policy {
    Policy::protect(
        PolicyDirection::Out,
        selector("10.1.0.0/16", "10.2.0.0/16"),
        100,
        tunnel(LOCAL, PEER),
    )
}

fn in_policy() -> Policy {
    Policy::protect(
        PolicyDirection::In,
        selector("10.2.0.0/16", "10.1.0.0/16"),
        100,
        tunnel(PEER, LOCAL),
    )
}

fn outcome(policy: &Policy, sas: &[SaEntry]) -> Outcome {
    index_of_states(sas).outcomes(policy).swap_remove(0)
}

fn uses(spi: u32, others: u64) -> Outcome {
    Outcome::Uses {
        spi,
        others,
        dying: false,
    }
}

fn leads(entry: &SaEntry, policy: &Policy) -> Leads {
    let host = fixtures::host();
    let mut index = PolicyIndex::default();
    index.add(policy);
    index
        .sorted()
        .leads_to(&SaTraits::of(entry, host.now, &host.addresses))
}

/// The policy takes the SA, and the SA knows the policy: the two indexes agree.
fn is_partner(policy: &Policy, entry: &SaEntry) -> bool {
    let found = match outcome(policy, std::slice::from_ref(entry)) {
        Outcome::Uses { .. } | Outcome::Accepts { .. } => true,
        Outcome::Nothing | Outcome::Skips | Outcome::Refuses { .. } => false,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(
        leads(entry, policy).count() > 0,
        found,
        "the indexes differ"
    );
    found
}

#[test]
fn the_newest_sa_that_fits_is_used() {
    let mut newer = out_sa(2);
    newer.usage.added += 10;
    let mut unfit = out_sa(3);
    unfit.usage.added += 20;
    unfit.sa.reqid = Reqid(8);
    assert_eq!(
        outcome(&out_policy(), &[out_sa(1), newer, unfit]),
        uses(2, 1)
    );
}

#[test]
fn an_sa_at_its_soft_limit_is_used_only_for_want_of_another() {
    let mut dying = out_sa(2);
    dying.usage.added += 10;
    dying.sa.limits.soft.seconds_since_added = Some(5);
    assert_eq!(
        outcome(&out_policy(), &[out_sa(1), dying.clone()]),
        uses(1, 1)
    );
    let only = Outcome::Uses {
        spi: 2,
        others: 0,
        dying: true,
    };
    assert_eq!(outcome(&out_policy(), &[dying]), only);
}

#[test]
fn a_pinned_spi_takes_no_other() {
    let mut policy = out_policy();
    policy.templates = vec![tunnel(LOCAL, PEER).pinned_to(spi(1))];
    let mut newer = out_sa(2);
    newer.usage.added += 10;
    assert_eq!(outcome(&policy, &[out_sa(1), newer.clone()]), uses(1, 0));
    assert_eq!(outcome(&policy, &[newer]), Outcome::Nothing);
}

#[test]
fn a_pinned_sa_that_does_not_fit_refuses_packets() {
    let mut policy = out_policy();
    policy.templates = vec![tunnel(LOCAL, PEER).pinned_to(spi(1))];
    let mut other = out_sa(1);
    other.sa.reqid = Reqid(8);
    let refused = Outcome::Refuses {
        spi: 1,
        other_reqid: Some(8),
    };
    assert_eq!(outcome(&policy, &[other.clone()]), refused);
    // An SA that the policy's mark does not reach is not found at all.
    other.sa.mark = Some(Mark::exactly(5));
    assert_eq!(outcome(&policy, &[other]), Outcome::Nothing);
}

#[test]
fn outer_addresses_mode_protocol_and_interface_must_be_the_templates() {
    assert!(is_partner(&out_policy(), &out_sa(1)));
    type Change = fn(&mut SaEntry);
    let changes: [Change; 6] = [
        |entry| entry.sa.destination = address("198.51.100.8"),
        |entry| entry.sa.source = address("203.0.113.10"),
        |entry| entry.sa.mode = Mode::Transport,
        |entry| entry.sa.protocol = epochgate_xfrm::Protocol::Ah,
        |entry| entry.sa.if_id = NonZeroU32::new(3),
        |entry| entry.sa.flags = SaFlags::WILDCARD_RECEIVE,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut entry = out_sa(1);
        change(&mut entry);
        assert!(!is_partner(&out_policy(), &entry), "change {number}");
    }
}

#[test]
fn a_mark_of_the_sa_must_be_in_the_policys() {
    let mark = |value, mask| Some(Mark { value, mask });
    for (of_policy, of_sa, fits) in [
        (None, None, true),
        (None, mark(1, 1), false),
        (mark(0x11, 0xff), mark(0x10, 0xf0), true),
        (mark(0x11, 0xff), mark(0x20, 0xf0), false),
        (mark(0x11, 0xff), None, true),
    ] {
        let mut policy = out_policy();
        policy.mark = of_policy;
        let mut entry = out_sa(1);
        entry.sa.mark = of_sa;
        assert_eq!(is_partner(&policy, &entry), fits, "{of_policy:?} {of_sa:?}");
    }
}

#[test]
fn an_unspecified_outer_source_is_that_of_the_route() {
    let mut policy = out_policy();
    policy.templates = vec![tunnel("0.0.0.0", PEER)];
    assert!(is_partner(&policy, &out_sa(1)));
}

#[test]
fn the_selector_of_the_sa_must_meet_the_policys() {
    let with = |inner| {
        let mut entry = out_sa(1);
        entry.sa.selector = inner;
        is_partner(&out_policy(), &entry)
    };
    assert!(with(Some(selector("10.1.2.0/24", "0.0.0.0/0"))));
    assert!(with(Some(selector("0.0.0.0/0", "0.0.0.0/0"))));
    assert!(!with(Some(selector("10.3.0.0/16", "0.0.0.0/0"))));
    // Without af-unspec an SA is for the family of its outer addresses.
    assert!(!with(Some(selector("::/0", "::/0"))));
    assert!(with(None));
    let only_udp = selector("0.0.0.0/0", "0.0.0.0/0").with_protocol(17);
    assert!(with(Some(only_udp)));
    let mut tcp = out_policy();
    tcp.selector = tcp.selector.with_protocol(6);
    let mut entry = out_sa(1);
    entry.sa.selector = Some(only_udp);
    assert!(!is_partner(&tcp, &entry));
}

#[test]
fn transport_mode_takes_the_addresses_of_the_packet() {
    let (here, there) = ("203.0.113.9", "198.51.100.7");
    let mut policy = Policy::protect(
        PolicyDirection::Out,
        selector("203.0.113.9/32", "198.51.100.0/24"),
        100,
        Template::esp_transport(address("0.0.0.0"), Reqid(7)),
    );
    let mut entry = fixtures::sa(here, there, 1, 7);
    entry.sa.mode = Mode::Transport;
    assert!(is_partner(&policy, &entry));
    policy.selector = selector("203.0.113.9/32", "192.0.2.0/24");
    assert!(!is_partner(&policy, &entry));
}

#[test]
fn a_template_behind_a_tunnel_takes_the_addresses_of_the_tunnel() {
    let mut policy = out_policy();
    let mut inner_ah = Template::esp_transport(address("0.0.0.0"), Reqid(8));
    inner_ah.protocol = epochgate_xfrm::Protocol::Ah;
    policy.templates = vec![tunnel(LOCAL, PEER), inner_ah];
    let mut ah = fixtures::sa(LOCAL, PEER, 0x300, 8);
    ah.sa.protocol = epochgate_xfrm::Protocol::Ah;
    ah.sa.mode = Mode::Transport;
    let index = index_of_states(&[out_sa(1), ah]);
    assert_eq!(index.outcomes(&policy), [uses(1, 0), uses(0x300, 0)]);
}

#[test]
fn a_larval_sa_means_that_a_key_daemon_is_asked() {
    let mut larval = SaEntry::new(Sa::new(
        address(LOCAL),
        address(PEER),
        epochgate_xfrm::Protocol::Esp,
    ));
    larval.sa.mode = Mode::Tunnel;
    larval.sa.reqid = Reqid(7);
    assert_eq!(
        outcome(&out_policy(), &[larval.clone()]),
        Outcome::Acquiring
    );
    assert_eq!(outcome(&out_policy(), &[larval, out_sa(1)]), uses(1, 0));
}

#[test]
fn an_optional_template_is_skipped() {
    let mut policy = out_policy();
    policy.templates = vec![Template {
        optional: true,
        ..tunnel(LOCAL, PEER)
    }];
    assert_eq!(outcome(&policy, &[]), Outcome::Skips);
}

#[test]
fn an_sa_for_the_other_direction_is_refused() {
    let mut entry = out_sa(1);
    entry.sa.direction = Some(SaDirection::In);
    let wrong = Outcome::WrongWay { spi: 1 };
    assert_eq!(outcome(&out_policy(), &[entry]), wrong);
}

#[test]
fn packet_offload_is_for_policies_of_the_same_device() {
    let offload = |interface_index| Offload {
        interface_index,
        flags: OffloadFlags::PACKET,
    };
    let mut entry = out_sa(1);
    entry.sa.offload = Some(offload(2));
    assert!(!is_partner(&out_policy(), &entry));
    let mut policy = out_policy();
    policy.offload = Some(offload(2));
    assert!(is_partner(&policy, &entry));
    policy.offload = Some(offload(3));
    assert!(!is_partner(&policy, &entry));
}

#[test]
fn an_in_policy_accepts_all_sas_that_fit() {
    let accepts = Outcome::Accepts {
        spis: vec![1, 2],
        count: 2,
    };
    assert_eq!(outcome(&in_policy(), &[in_sa(1), in_sa(2)]), accepts);
    let mut marked = in_sa(1);
    marked.sa.mark = Some(Mark::exactly(9));
    assert!(is_partner(&in_policy(), &marked), "marks are not looked at");
    let mut foreign = in_sa(1);
    foreign.sa.reqid = Reqid(8);
    assert!(!is_partner(&in_policy(), &foreign));
    let mut elsewhere = in_sa(1);
    elsewhere.sa.source = address("198.51.100.99");
    assert!(!is_partner(&in_policy(), &elsewhere));
}

#[test]
fn an_in_template_with_reqid_0_accepts_anybodys_sa() {
    let mut policy = in_policy();
    policy.templates = vec![Template::esp_tunnel(
        address("0.0.0.0"),
        address(LOCAL),
        Reqid(0),
    )];
    for reqid in [7, 8, 0] {
        let entry = fixtures::sa(PEER, LOCAL, 1, reqid);
        assert!(is_partner(&policy, &entry), "reqid {reqid}");
    }
    assert!(!is_partner(&policy, &out_sa(1)), "an SA for sending");
}

#[test]
fn the_way_of_an_sa_is_told_by_the_kernel_or_its_addresses_or_its_policies() {
    let host = fixtures::host();
    let way = |entry: &SaEntry| SaWay::of(&entry.sa, &host.addresses);
    assert_eq!(way(&out_sa(1)), SaWay::Out(Told::Addresses));
    assert_eq!(way(&in_sa(1)), SaWay::In(Told::Addresses));
    let mut told = in_sa(1);
    told.sa.direction = Some(SaDirection::Out);
    assert_eq!(way(&told), SaWay::Out(Told::Kernel));
    let mut strange = out_sa(1);
    strange.sa.source = address("192.0.2.99");
    assert_eq!(way(&strange), SaWay::Unknown);
    let mut policy = out_policy();
    policy.templates = vec![tunnel("192.0.2.99", PEER)];
    let found = leads(&strange, &policy);
    assert_eq!(way(&strange).or_by(&found), SaWay::Out(Told::Policies));
}

#[test]
fn the_last_sequence_numbers_stand_out() {
    let host = fixtures::host();
    let mut entry = out_sa(1);
    let found = leads(&entry, &out_policy());
    let notes = |entry: &SaEntry| {
        let state = crate::xfrm::state::State {
            entry,
            way: SaWay::Out(Told::Addresses),
            leads: &found,
            host: &host,
        };
        state.notes().len()
    };
    entry.replay = Some(ReplayState {
        outbound: u64::from(u32::MAX) - 500_000_000,
        inbound: 0,
        bitmap: Vec::new(),
    });
    assert_eq!(notes(&entry), 0);
    entry.replay = Some(ReplayState {
        outbound: u64::from(u32::MAX) - 400_000_000,
        inbound: 0,
        bitmap: Vec::new(),
    });
    assert_eq!(notes(&entry), 1);
    entry.sa.replay_window.extended = true;
    assert_eq!(notes(&entry), 0);
}

/// Every pair of the gateway's tables: found from one side if and only if from the other.
#[test]
fn both_indexes_find_the_same_pairs() {
    let host = fixtures::host();
    let mut found = 0;
    for entry in fixtures::states() {
        for policy in fixtures::policies() {
            let policy = policy.policy;
            if policy.templates.is_empty() {
                continue;
            }
            let led = leads(&entry, &policy).count() > 0;
            let took = match outcome(&policy, std::slice::from_ref(&entry)) {
                Outcome::Uses { .. } | Outcome::Accepts { .. } | Outcome::Acquiring => true,
                Outcome::WrongWay { .. } => true,
                Outcome::Refuses { .. }
                | Outcome::Skips
                | Outcome::Nothing
                | Outcome::NotLookedFor => false,
            };
            assert_eq!(led, took, "{:?} and {policy:?}", entry.sa.id());
            found += u32::from(led);
        }
    }
    assert!(found > 8, "{found}");
    assert_eq!(host.now, NOW);
}

#[test]
fn prefixes_of_two_families_never_meet() {
    let mut policy = in_policy();
    policy.selector =
        epochgate_xfrm::Selector::new(Prefix::ANY_V6, Prefix::ANY_V6).expect("one family");
    let mut entry = in_sa(1);
    entry.sa.selector = Some(selector("10.0.0.0/8", "10.0.0.0/8"));
    assert!(!is_partner(&policy, &entry));
}
