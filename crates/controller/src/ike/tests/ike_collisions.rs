//! A rekey of the IKE SA crosses something of the other end's (RFC 7296 §2.8.2, §2.25.1, §2.25.2).

use std::collections::BTreeSet;

use super::ike_rekey::{ike_refusals, rekeys};
use super::*;
use crate::ike::Side;

const BOTH: [End; 2] = [End::Client, End::Server];

impl Pair {
    fn rekey_ike_at_both_ends(&mut self) {
        for end in BOTH {
            self.rekey_ike(end);
        }
    }
}

#[test]
fn of_two_crossing_ike_rekeys_the_one_without_the_lowest_nonce_stays() {
    let mut winners = BTreeSet::new();
    for _ in 0..40 {
        let mut pair = Pair::established();
        pair.rekey_ike_at_both_ends();
        pair.settle();
        let (ours, theirs) = (rekeys(&pair.client), rekeys(&pair.server));
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        assert_ne!(ours, theirs);
        winners.insert(ours[0] == Side::Us);
        pair.assert_one_ike_sa();
        assert_eq!(pair.client.endpoint.counters().unknown_sa, 0);
        pair.assert_child_can_be_rekeyed(End::Client);
    }
    assert_eq!(winners.len(), 2, "either side wins now and then");
}

#[test]
fn an_end_that_had_finished_before_it_heard_of_the_other_rekey_prevails() {
    // The other's request comes when the IKE SA is being deleted: TEMPORARY_FAILURE (§2.8.2).
    for late in BOTH {
        for fate in [Fate::Lose, Fate::Delay(Duration::from_millis(45))] {
            let mut pair = Pair::established();
            pair.rule(late, ExchangeType::CreateChildSa, false, fate, 1);
            pair.rekey_ike_at_both_ends();
            pair.settle();
            assert_eq!(rekeys(pair.host(late)), [Side::Peer]);
            assert_eq!(rekeys(pair.host(late.other())), [Side::Us]);
            pair.assert_one_ike_sa();
        }
    }
}

#[test]
fn crossing_ike_rekeys_end_the_same_whatever_is_lost_or_late() {
    let exchanges = [ExchangeType::CreateChildSa, ExchangeType::Informational];
    let fates = [
        Fate::Lose,
        Fate::Double,
        Fate::Delay(Duration::from_millis(35)),
        Fate::Delay(Duration::from_millis(300)),
    ];
    for from in BOTH {
        for exchange in exchanges {
            for response in [false, true] {
                for fate in fates {
                    let mut pair = Pair::established();
                    pair.rule(from, exchange, response, fate, 1);
                    pair.rekey_ike_at_both_ends();
                    pair.assert_one_ike_sa();
                }
            }
        }
    }
}

#[test]
fn crossing_ike_rekeys_with_a_wrong_group_on_either_or_both_leave_one() {
    let wrong_guess = vec![Group::P384, Group::X25519];
    for wrong in [&BOTH[..1], &BOTH[1..], &BOTH[..]] {
        let mut pair = Pair::established();
        for end in wrong {
            // Only the other end's configuration refuses what this end begins with.
            let mut changed = config(*end);
            changed.ike.groups.clone_from(&wrong_guess);
            let mut other = config(end.other());
            other.ike.groups = vec![Group::X25519];
            if wrong.len() == 1 {
                let tunnels = BTreeMap::from([(TUNNEL, Arc::new(other))]);
                pair.host(end.other()).endpoint.configure(tunnels);
            }
            let tunnels = BTreeMap::from([(TUNNEL, Arc::new(changed))]);
            pair.host(*end).endpoint.configure(tunnels);
        }
        pair.rekey_ike_at_both_ends();
        pair.assert_one_ike_sa();
    }
}

#[test]
fn an_ike_rekey_that_crosses_a_child_rekey_comes_later() {
    for end in BOTH {
        let mut pair = Pair::established();
        let now = pair.now;
        let other = pair.host(end.other());
        let (sa, child) = (other.sa(), other.child().id);
        other.endpoint.rekey_child(sa, child, now);
        pair.rekey_ike(end);
        pair.settle();
        // Each refuses the other's with TEMPORARY_FAILURE (§2.25.1, §2.25.2); the IKE SA's rekey is
        // tried again by itself, the Child SA's is its tunnel's to repeat.
        let refused = pair.host(end.other()).events.iter().any(|event| {
            matches!(
                event,
                IkeEvent::ChildRefused {
                    error: ChildError::Temporary,
                    ..
                }
            )
        });
        assert!(refused);
        assert_eq!(rekeys(pair.host(end)), [Side::Us]);
        assert_eq!(pair.client.children.len(), 1);
        pair.assert_one_ike_sa();
        pair.assert_child_can_be_rekeyed(end.other());
    }
}

#[test]
fn an_ike_rekey_waits_for_a_child_that_the_kernel_is_still_taking() {
    let mut pair = Pair::established();
    pair.server.installs = None;
    let (now, sa, child) = (pair.now, pair.client.sa(), pair.client.child().id);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.run(Duration::from_millis(100));
    pair.rekey_ike(End::Server);
    pair.run(Duration::from_millis(100));
    assert!(rekeys(&pair.server).is_empty());
    let (now, sa, child) = (pair.now, pair.server.sa(), pair.server.child().id);
    pair.server.endpoint.child_ready(sa, child, true, now);
    pair.settle();
    assert_eq!(rekeys(&pair.server), [Side::Us]);
    pair.assert_same_child();
    pair.assert_one_ike_sa();
}

#[test]
fn an_ike_rekey_that_crosses_a_delete_of_a_child_comes_later() {
    for end in BOTH {
        let mut pair = Pair::established();
        let now = pair.now;
        let other = pair.host(end.other());
        let (sa, child) = (other.sa(), other.child().id);
        other.endpoint.delete_child(sa, child, now);
        pair.rekey_ike(end);
        pair.settle();
        assert!(pair.client.children.is_empty() && pair.server.children.is_empty());
        assert_eq!(rekeys(pair.host(end)), [Side::Us]);
        pair.assert_one_ike_sa();
    }
}

#[test]
fn an_ike_rekey_that_crosses_a_delete_of_the_ike_sa_is_forgotten() {
    for end in BOTH {
        for fate in [None, Some(Fate::Delay(Duration::from_millis(25)))] {
            for response in [false, true] {
                let mut pair = Pair::established();
                if let Some(fate) = fate {
                    pair.rule(end, ExchangeType::CreateChildSa, response, fate, 1);
                }
                let now = pair.now;
                let other = pair.host(end.other());
                let sa = other.sa();
                other.endpoint.close(sa, now);
                pair.rekey_ike(end);
                pair.run(Duration::from_secs(60));
                assert_eq!(pair.host(end).closed(), Some(&CloseReason::DeletedByPeer));
                assert_eq!(pair.host(end.other()).closed(), Some(&CloseReason::Asked));
                assert_eq!(pair.client.endpoint.len() + pair.server.endpoint.len(), 0);
            }
        }
    }
}

#[test]
fn a_close_right_after_the_peers_rekey_takes_the_successor_with_it() {
    for response in [false, true] {
        let mut pair = Pair::established();
        pair.rule(
            End::Server,
            ExchangeType::CreateChildSa,
            response,
            Fate::Delay(Duration::from_millis(200)),
            1,
        );
        pair.rekey_ike(End::Client);
        pair.run(Duration::from_millis(15));
        let (now, sa) = (pair.now, pair.server.sa());
        pair.server.endpoint.close(sa, now);
        pair.run(Duration::from_secs(90));
        assert_eq!(pair.client.endpoint.len() + pair.server.endpoint.len(), 0);
        assert_eq!(pair.client.closed(), Some(&CloseReason::DeletedByPeer));
    }
}

#[test]
fn a_peer_that_is_always_busy_has_refused() {
    let mut pair = Pair::established();
    // Its wish for a Child SA gets no answer: until it gives up, it has no time for a rekey.
    pair.lose_requests(End::Client, ExchangeType::CreateChildSa, u32::MAX);
    let (now, sa) = (pair.now, pair.client.sa());
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.rekey_ike(End::Server);
    pair.run(Duration::from_secs(31));
    assert!(pair.server.is_established());
    assert_eq!(ike_refusals(&pair.server), [ChildError::Temporary]);
}
