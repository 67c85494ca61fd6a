//! Both ends act at once (RFC 7296 §1.4.1, §2.8.1, §2.25).

use super::toy::{NonceOrder, Toy};
use super::*;
use crate::ike::Side;

impl Pair {
    /// Both ends rekey the same Child SA in the same moment.
    fn rekey_both(&mut self) {
        let now = self.now;
        for end in [End::Client, End::Server] {
            let host = self.host(end);
            let (sa, child) = (host.sa(), host.child().id);
            host.endpoint.rekey_child(sa, child, now);
        }
    }

    /// With the client's nonces in this order, all below the server's.
    fn with_nonces(order: NonceOrder) -> Self {
        let mut pair = Self::with_crypto(
            [
                Arc::new(Toy::new(1, order)),
                Arc::new(Toy::new(2, NonceOrder::Top)),
            ],
            Limits::default(),
            |_| (),
            |_| (),
        );
        pair.connect();
        pair.settle();
        pair
    }

    /// What tunnels do after a rekey: who started the one that stays deletes the old Child SA.
    fn delete_replaced(&mut self) {
        let now = self.now;
        for end in [End::Client, End::Server] {
            let host = self.host(end);
            let (sa, child) = (host.sa(), host.child());
            if let (Side::Us, Some(old)) = (child.started_by, child.replaces) {
                host.endpoint.delete_child(sa, old, now);
            }
        }
        self.settle();
    }

    /// Pairs of inbound and outbound SPIs, the client's view of both.
    pub(super) fn spis(&self) -> [Vec<(u32, u32)>; 2] {
        let sort = |mut pairs: Vec<_>| {
            pairs.sort_unstable();
            pairs
        };
        let client = self.client.children.values();
        let server = self.server.children.values();
        [
            sort(
                client
                    .map(|child| (child.inbound.0.get(), child.outbound.0.get()))
                    .collect(),
            ),
            sort(
                server
                    .map(|child| (child.outbound.0.get(), child.inbound.0.get()))
                    .collect(),
            ),
        ]
    }
}

fn redundant(host: &Host) -> Option<ChildId> {
    host.events.iter().find_map(|event| match event {
        IkeEvent::ChildRedundant(id) => Some(*id),
        _ => None,
    })
}

fn ends(host: &Host, wanted: ChildId) -> usize {
    host.events
        .iter()
        .filter(|event| {
            matches!(event, IkeEvent::ChildDeleted(id) | IkeEvent::ChildDeletedByPeer(id)
                if *id == wanted)
        })
        .count()
}

#[test]
fn of_two_crossing_rekeys_one_survives_at_both_ends() {
    let mut losers = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let mut pair = Pair::established();
        let old = [pair.client.child().id, pair.server.child().id];
        pair.rekey_both();
        pair.settle();
        let [ours, theirs] = pair.spis();
        assert_eq!(ours, theirs);
        // The old one, which the tunnels delete, and one of the two new ones.
        assert_eq!(ours.len(), 2);
        pair.assert_same_child();
        for (host, old) in [&pair.client, &pair.server].into_iter().zip(old) {
            let redundant = redundant(host).unwrap();
            assert_eq!(ends(host, redundant), 1);
            assert!(host.children.contains_key(&old));
        }
        // Who started the losing exchange deletes: one Delete, by one end.
        let loser = redundant(&pair.client).unwrap();
        losers.insert(
            pair.client
                .events
                .iter()
                .any(|event| matches!(event, IkeEvent::ChildDeleted(id) if *id == loser)),
        );
    }
    assert_eq!(losers.len(), 2, "either side loses now and then");
}

/// Both ends rekey the Child SA at once; `refusing` refuses the other's request, with what its
/// configuration has meanwhile become, and takes what the other answers to its own.
fn one_is_refused(order: NonceOrder, refusing: End, change: fn(&mut TunnelConfig)) -> Pair {
    let mut pair = Pair::with_nonces(order);
    pair.rekey_both();
    let mut changed = config(refusing);
    change(&mut changed);
    let configure = |pair: &mut Pair, config| {
        let tunnels = BTreeMap::from([(TUNNEL, Arc::new(config))]);
        pair.host(refusing).endpoint.configure(tunnels);
    };
    configure(&mut pair, changed);
    // Requests have arrived, responses have not.
    pair.run(Duration::from_millis(15));
    configure(&mut pair, config(refusing));
    pair.settle();
    pair.delete_replaced();
    pair
}

fn assert_the_one_not_refused_stays(change: fn(&mut TunnelConfig), expected: ChildError) {
    for order in [NonceOrder::Rising, NonceOrder::Falling] {
        for refusing in [End::Client, End::Server] {
            let mut pair = one_is_refused(order, refusing, change);
            let refused = pair.host(refusing.other()).events.iter();
            let errors: Vec<_> = refused
                .filter_map(|event| match event {
                    IkeEvent::ChildRefused { error, .. } => Some(*error),
                    _ => None,
                })
                .collect();
            assert_eq!(errors, [expected], "{order:?}, {refusing:?} refuses");
            let [ours, theirs] = pair.spis();
            assert_eq!(ours, theirs, "{order:?}, {refusing:?} refuses");
            assert_eq!(ours.len(), 1, "{order:?}, {refusing:?} refuses");
            assert_eq!(pair.host(refusing).child().started_by, Side::Us);
            pair.assert_same_child();
            pair.assert_one_ike_sa();
        }
    }
}

#[test]
fn of_two_crossing_rekeys_the_one_with_ts_unacceptable_leaves_the_other() {
    let elsewhere = |config: &mut TunnelConfig| {
        config.local_traffic = vec!["10.77.0.0/16".parse().unwrap()];
    };
    assert_the_one_not_refused_stays(elsewhere, ChildError::Selectors);
}

#[test]
fn of_two_crossing_rekeys_the_one_with_no_proposal_chosen_leaves_the_other() {
    let unlike = |config: &mut TunnelConfig| config.esp.ciphers = vec![Cipher::ChaCha20Poly1305];
    assert_the_one_not_refused_stays(unlike, ChildError::NoProposal);
}

#[test]
fn two_crossing_rekeys_that_are_both_refused_leave_the_old_child() {
    for order in [NonceOrder::Rising, NonceOrder::Falling] {
        let mut pair = Pair::with_nonces(order);
        let old = pair.spis();
        pair.rekey_both();
        for end in [End::Client, End::Server] {
            let mut changed = config(end);
            changed.local_traffic = vec!["10.77.0.0/16".parse().unwrap()];
            let tunnels = BTreeMap::from([(TUNNEL, Arc::new(changed))]);
            pair.host(end).endpoint.configure(tunnels);
        }
        pair.settle();
        assert_eq!(pair.spis(), old);
        pair.assert_one_ike_sa();
    }
}

#[test]
fn a_rekey_that_is_ordered_twice_is_made_once() {
    // Both orders while nothing is under way, while the first is, and while it waits for its turn.
    for (busy, between) in [(false, 0), (false, 5), (false, 15), (true, 5)] {
        for end in [End::Client, End::Server] {
            let mut pair = Pair::established();
            let (now, sa) = (pair.now, pair.host(end).sa());
            let child = pair.host(end).child().id;
            if busy {
                pair.host(end).endpoint.check_liveness(sa, now);
            }
            for _ in 0..2 {
                let now = pair.now;
                pair.host(end).endpoint.rekey_child(sa, child, now);
                pair.run(Duration::from_millis(between));
            }
            pair.settle();
            assert_eq!(pair.sent_by(end, ExchangeType::CreateChildSa), 1);
            assert_eq!(pair.client.children.len(), 2, "the old one and one new one");
            pair.delete_replaced();
            let [ours, theirs] = pair.spis();
            assert_eq!(ours, theirs);
            assert_eq!(ours.len(), 1);
            pair.assert_same_child();
        }
    }
}

#[test]
fn a_crossing_that_only_one_end_knows_of_ends_the_same() {
    for _ in 0..20 {
        let mut pair = Pair::established();
        // The client's request is lost; the server has finished its own when it comes again.
        pair.lose_requests(End::Client, ExchangeType::CreateChildSa, 1);
        pair.rekey_both();
        pair.settle();
        let [ours, theirs] = pair.spis();
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 2);
        assert!(redundant(&pair.client).is_some());
    }
}

#[test]
fn crossing_deletes_end_each_child_once() {
    let mut pair = Pair::established();
    let (now, ids) = (pair.now, [pair.client.child().id, pair.server.child().id]);
    for (end, id) in [End::Client, End::Server].into_iter().zip(ids) {
        let host = pair.host(end);
        let sa = host.sa();
        host.endpoint.delete_child(sa, id, now);
    }
    pair.settle();
    assert_eq!(ends(&pair.client, ids[0]), 1);
    assert_eq!(ends(&pair.server, ids[1]), 1);
    assert_eq!(pair.answer_to(End::Client), [], "without the other half");
    assert_eq!(pair.answer_to(End::Server), []);
}

#[test]
fn a_rekey_that_crosses_a_delete_is_refused_for_now() {
    let mut pair = Pair::established();
    let (now, ids) = (pair.now, [pair.client.child().id, pair.server.child().id]);
    let (client, server) = (pair.client.sa(), pair.server.sa());
    pair.client.endpoint.rekey_child(client, ids[0], now);
    pair.server.endpoint.delete_child(server, ids[1], now);
    pair.settle();
    assert!(pair.client.events.iter().any(|event| matches!(
        event,
        IkeEvent::ChildRefused {
            error: ChildError::Temporary,
            ..
        }
    )));
    assert_eq!(ends(&pair.client, ids[0]), 1);
    assert_eq!(pair.spis(), [vec![], vec![]]);
    assert!(pair.client.is_established() && pair.server.is_established());
}

#[test]
fn two_goodbyes_cross() {
    let mut pair = Pair::established();
    let (now, client, server) = (pair.now, pair.client.sa(), pair.server.sa());
    pair.client.endpoint.close(client, now);
    pair.server.endpoint.close(server, now);
    pair.settle();
    assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
    assert_eq!(pair.server.closed(), Some(&CloseReason::Asked));
}

#[test]
fn both_ends_start_an_ike_sa_at_once() {
    let mut pair = Pair::new();
    pair.connect();
    let (local, remote) = (address(SERVER, 500), address(CLIENT, 500));
    let now = pair.now;
    pair.server
        .endpoint
        .connect(TUNNEL, local, remote, false, now);
    pair.settle();
    assert_eq!(pair.client.children.len(), 2);
    assert_eq!(pair.server.children.len(), 2);
    let [ours, theirs] = pair.spis();
    assert_eq!(ours, theirs);
}

#[test]
fn a_delete_that_is_faster_than_the_answer_ends_the_child_before_it_begins() {
    for replaces in [true, false] {
        let mut pair = Pair::established();
        let late = Fate::Delay(Duration::from_millis(200));
        pair.rule(End::Server, ExchangeType::CreateChildSa, true, late, 1);
        let (now, sa, old) = (pair.now, pair.client.sa(), pair.client.child().id);
        if replaces {
            pair.client.endpoint.rekey_child(sa, old, now);
        } else {
            pair.client.endpoint.new_child(sa, TUNNEL, now);
        }
        pair.run(Duration::from_millis(15));
        let (now, sa, new) = (pair.now, pair.server.sa(), pair.server.child().id);
        pair.server.endpoint.delete_child(sa, new, now);
        pair.settle();
        let refused = pair.client.events.iter().any(|event| {
            matches!(
                event,
                IkeEvent::ChildRefused {
                    error: ChildError::Temporary,
                    ..
                }
            )
        });
        assert!(refused);
        let [ours, theirs] = pair.spis();
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 1, "the old one alone");
    }
}

#[test]
fn crossing_rekeys_with_a_wrong_group_on_either_or_both_agree() {
    let (many, one) = (vec![Group::P384, Group::X25519], vec![Group::X25519]);
    for (client, server) in [(&many, &one), (&one, &many), (&many, &many)] {
        for delay in [0, 12, 25, 45] {
            let mut pair = Pair::with(
                |config| config.esp.groups.clone_from(client),
                |config| config.esp.groups.clone_from(server),
            );
            pair.connect();
            pair.settle();
            pair.rule(
                End::Server,
                ExchangeType::CreateChildSa,
                false,
                Fate::Delay(Duration::from_millis(delay)),
                1,
            );
            pair.rekey_both();
            pair.settle();
            let [ours, theirs] = pair.spis();
            assert_eq!(ours, theirs, "{delay} ms");
            assert!((2..=3).contains(&ours.len()), "{delay} ms");
        }
    }
}
