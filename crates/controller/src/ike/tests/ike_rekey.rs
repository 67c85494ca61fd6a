//! Rekeying an IKE SA, one side at a time (RFC 7296 §1.3.2, §2.8, §2.18).

use super::*;
use crate::ike::Side;
use crate::ike::payloads::notify_with;

/// Longer than any IKE SA lingers.
const ALL_OVER: Duration = Duration::from_secs(60);

impl Pair {
    pub(super) fn rekey_ike(&mut self, end: End) {
        let now = self.now;
        let host = self.host(end);
        let sa = host.sa();
        host.endpoint.rekey_ike(sa, now);
    }

    /// Waits until nothing lingers: each end has the one IKE SA, the same as the other, with the
    /// same Child SAs, and both can still use it.
    pub(super) fn assert_one_ike_sa(&mut self) {
        self.run(ALL_OVER);
        assert!(self.client.is_established() && self.server.is_established());
        assert_eq!(self.spis_of_ike(End::Client), self.spis_of_ike(End::Server));
        assert_eq!(self.client.endpoint.len(), 1, "IKE SAs of the client");
        assert_eq!(self.server.endpoint.len(), 1, "IKE SAs of the server");
        assert_eq!(self.children_of(End::Client), self.children_of(End::Server));
        for end in [End::Client, End::Server] {
            let (now, alive) = (self.now, self.host(end).alive);
            let sa = self.host(end).sa();
            self.host(end).endpoint.check_liveness(sa, now);
            self.run(Duration::from_secs(1));
            assert_eq!(self.host(end).alive, alive + 1);
        }
    }

    /// Both SPIs of the IKE SA that the tunnel knows.
    pub(super) fn spis_of_ike(&mut self, end: End) -> (String, String) {
        let now = self.now;
        let host = self.host(end);
        let status = host.endpoint.status(host.sa(), now).unwrap();
        (status.initiator_spi, status.responder_spi)
    }

    /// Client's and server's inbound SPI of each Child SA that this end's IKE SA has.
    fn children_of(&mut self, end: End) -> Vec<(u32, u32)> {
        let (now, sa) = (self.now, self.host(end).sa());
        let mut children = Vec::new();
        self.host(end).endpoint.step(sa, now, |sa, _| {
            if let IkeSa::Established(it) = &sa {
                let records = it.children.values();
                children.extend(records.map(|child| {
                    let (inbound, outbound) = (child.inbound.0.get(), child.outbound.0.get());
                    match end {
                        End::Client => (inbound, outbound),
                        End::Server => (outbound, inbound),
                    }
                }));
            }
            Some(sa)
        });
        children.sort_unstable();
        children
    }

    /// A Child SA can be rekeyed on the IKE SA as it is now.
    pub(super) fn assert_child_can_be_rekeyed(&mut self, end: End) {
        let now = self.now;
        let host = self.host(end);
        let (sa, old) = (host.sa(), host.child().id);
        host.endpoint.rekey_child(sa, old, now);
        self.settle();
        self.assert_same_child();
        let now = self.now;
        let host = self.host(end);
        assert_eq!(host.child().replaces, Some(old));
        host.endpoint.delete_child(sa, old, now);
        self.settle();
    }
}

/// Who rekeyed the IKE SA, in order.
pub(super) fn rekeys(host: &Host) -> Vec<Side> {
    host.events
        .iter()
        .filter_map(|event| match event {
            IkeEvent::Rekeyed(side) => Some(*side),
            _ => None,
        })
        .collect()
}

pub(super) fn ike_refusals(host: &Host) -> Vec<ChildError> {
    host.events
        .iter()
        .filter_map(|event| match event {
            IkeEvent::RekeyRefused(error) => Some(*error),
            _ => None,
        })
        .collect()
}

#[test]
fn either_side_rekeys_the_ike_sa_and_deletes_the_old_one() {
    for end in [End::Client, End::Server] {
        let mut pair = Pair::established();
        let (old, child) = (pair.spis_of_ike(end), pair.client.child().clone());
        pair.sent.clear();
        pair.rekey_ike(end);
        pair.settle();
        let (to, fro, first) = match end {
            End::Client => ("-->", "<--", 2),
            End::Server => ("<--", "-->", 0),
        };
        assert_eq!(
            pair.ladder(),
            [
                format!("{to} CREATE_CHILD_SA request {first}"), // SA, Ni, KEi
                format!("{fro} CREATE_CHILD_SA response {first}"), // SA, Nr, KEr
                format!("{to} INFORMATIONAL request {}", first + 1), // D
                format!("{fro} INFORMATIONAL response {}", first + 1),
            ]
        );
        assert_ne!(pair.spis_of_ike(end), old);
        assert_eq!(rekeys(pair.host(end)), [Side::Us]);
        assert_eq!(rekeys(pair.host(end.other())), [Side::Peer]);
        // No Child SA notices.
        assert_eq!(pair.client.child().inbound, child.inbound);
        assert_eq!(pair.client.children.len(), 1);
        // Message IDs begin at 0 (RFC 7296 §2.2).
        pair.sent.clear();
        pair.assert_one_ike_sa();
        assert_eq!(pair.ladder()[0], "--> INFORMATIONAL request 0");
        assert_eq!(pair.ladder()[2], "<-- INFORMATIONAL request 0");
        pair.assert_child_can_be_rekeyed(End::Client);
        pair.assert_child_can_be_rekeyed(End::Server);
    }
}

#[test]
fn twenty_rekeys_of_the_ike_sa_leave_one() {
    let mut pair = Pair::established();
    for number in 0..20 {
        let end = if number % 3 == 0 {
            End::Client
        } else {
            End::Server
        };
        pair.rekey_ike(end);
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(rekeys(&pair.client).len(), 20);
    pair.assert_one_ike_sa();
    pair.assert_child_can_be_rekeyed(End::Server);
}

#[test]
fn lost_doubled_and_late_messages_do_not_disturb_a_rekey() {
    let (create, inform) = (ExchangeType::CreateChildSa, ExchangeType::Informational);
    let fates = [
        Fate::Lose,
        Fate::Double,
        Fate::Delay(Duration::from_millis(700)),
    ];
    for end in [End::Client, End::Server] {
        for fate in fates {
            for (exchange, response) in [
                (create, false),
                (create, true),
                (inform, false),
                (inform, true),
            ] {
                let mut pair = Pair::established();
                let from = if response { end.other() } else { end };
                pair.rule(from, exchange, response, fate, 2);
                pair.rekey_ike(end);
                pair.settle();
                assert_eq!(rekeys(pair.host(end)), [Side::Us]);
                pair.assert_one_ike_sa();
            }
        }
    }
}

#[test]
fn an_old_ike_sa_that_nobody_deletes_ends_by_itself() {
    let mut pair = Pair::established();
    pair.lose_requests(End::Client, ExchangeType::Informational, 3);
    pair.rekey_ike(End::Client);
    pair.settle();
    assert_eq!(pair.client.endpoint.len(), 1);
    assert_eq!(pair.server.endpoint.len(), 2);
    pair.assert_one_ike_sa();
}

#[test]
fn what_waited_goes_on_over_the_new_ike_sa() {
    let mut pair = Pair::established();
    let (now, sa, child) = (pair.now, pair.client.sa(), pair.client.child().id);
    pair.client.endpoint.rekey_ike(sa, now);
    pair.client.endpoint.rekey_child(sa, child, now);
    pair.client.endpoint.delete_child(sa, child, now);
    pair.client.endpoint.new_child(sa, TUNNEL, now);
    pair.settle();
    pair.assert_same_child();
    assert_eq!(pair.client.children.len(), 1);
    pair.assert_one_ike_sa();
}

#[test]
fn another_key_exchange_method_is_agreed_on_by_either_side() {
    for end in [End::Client, End::Server] {
        for restricted in [End::Client, End::Server] {
            let mut pair = Pair::established();
            // Since IKE_SA_INIT one end has come to allow P-256 alone.
            let mut changed = config(restricted);
            changed.ike.groups = vec![Group::P256];
            pair.host(restricted)
                .endpoint
                .configure(BTreeMap::from([(TUNNEL, Arc::new(changed))]));
            pair.rekey_ike(end);
            pair.settle();
            assert_eq!(rekeys(pair.host(end)), [Side::Us]);
            pair.assert_one_ike_sa();
        }
    }
}

#[test]
fn a_successor_may_have_another_prf() {
    let mut pair = Pair::established();
    for end in [End::Client, End::Server] {
        let mut changed = config(end);
        changed.ike.prfs = vec![Prf::HmacSha512];
        changed.ike.ciphers = vec![Cipher::AesGcm128];
        let tunnels = BTreeMap::from([(TUNNEL, Arc::new(changed))]);
        pair.host(end).endpoint.configure(tunnels);
    }
    // SKEYSEED by the old PRF, what follows by the new one (RFC 7296 §2.18); then both are new.
    for end in [End::Client, End::Server] {
        pair.rekey_ike(end);
        pair.assert_one_ike_sa();
        pair.assert_child_can_be_rekeyed(end);
    }
}

#[test]
fn a_rekey_without_a_common_algorithm_is_refused_and_the_ike_sa_stays() {
    let mut pair = Pair::established();
    let mut changed = config(End::Server);
    changed.ike.groups = vec![Group::P384];
    changed.ike.prfs = vec![];
    let tunnels = BTreeMap::from([(TUNNEL, Arc::new(changed))]);
    pair.server.endpoint.configure(tunnels);
    pair.rekey_ike(End::Client);
    pair.settle();
    assert_eq!(ike_refusals(&pair.client), [ChildError::NoProposal]);
    let last = pair.server.events.last();
    assert!(matches!(
        last,
        Some(IkeEvent::OfferRefused(Refused::IkeRekey))
    ));
    pair.assert_one_ike_sa();
}

#[test]
fn a_proposal_without_an_spi_is_malformed() {
    use epochgate_ike_wire::{KeyExchange, KeyExchangeMethod, Nonce};

    let mut pair = Pair::established();
    let offer = crate::ike::proposal::offer_ike(&config(End::Client).ike, &[]);
    let answer = pair.ask(
        End::Client,
        ExchangeType::CreateChildSa,
        &[
            Payload::SecurityAssociation(offer),
            Payload::Nonce(Nonce::new(vec![1; 32]).unwrap()),
            Payload::KeyExchange(KeyExchange {
                method: KeyExchangeMethod::X25519,
                data: vec![9; 32],
            }),
        ],
    );
    assert_eq!(notifies(&answer), [NotifyType::INVALID_SYNTAX]);
    assert!(!pair.server.is_established());
}

#[test]
fn the_lifetime_rekeys_the_client_first_and_spreads_rekeys() {
    let hour = Duration::from_secs(3600);
    let mut ages = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let change = |config: &mut TunnelConfig| config.ike_sa.lifetime = hour;
        let mut pair = Pair::with(change, change);
        pair.connect();
        pair.settle();
        let begun = pair.now;
        while rekeys(&pair.client).is_empty() {
            pair.run(Duration::from_secs(10));
        }
        assert_eq!(rekeys(&pair.client), [Side::Us]);
        let age = pair.now.since(begun).as_secs();
        assert!((hour.as_secs() * 8 / 10 - 60..=hour.as_secs()).contains(&age));
        ages.insert(age);
        pair.assert_one_ike_sa();
    }
    assert!(ages.len() > 5, "{ages:?}");
}

#[test]
fn an_ike_sa_that_the_peer_will_not_rekey_ends_when_its_time_is_over() {
    let mut pair = Pair::with(
        |config| config.ike_sa.lifetime = Duration::from_secs(100),
        |_| (),
    );
    pair.connect();
    pair.settle();
    let mut changed = config(End::Server);
    changed.ike.prfs = vec![];
    let tunnels = BTreeMap::from([(TUNNEL, Arc::new(changed))]);
    pair.server.endpoint.configure(tunnels);
    pair.run(Duration::from_secs(100));
    assert_eq!(ike_refusals(&pair.client), [ChildError::NoProposal]);
    assert!(pair.client.is_established());
    pair.run(Duration::from_secs(60));
    assert!(matches!(
        pair.client.closed(),
        Some(CloseReason::Failed(reason)) if reason.contains("lifetime")
    ));
    assert_eq!(pair.server.closed(), Some(&CloseReason::DeletedByPeer));
}

#[test]
fn closing_during_a_rekey_leaves_nothing_at_either_end() {
    let fates = [
        None,
        Some(Fate::Lose),
        Some(Fate::Delay(Duration::from_secs(2))),
    ];
    for fate in fates {
        for response in [false, true] {
            let mut pair = Pair::established();
            if let Some(fate) = fate {
                let from = if response { End::Server } else { End::Client };
                pair.rule(from, ExchangeType::CreateChildSa, response, fate, 1);
            }
            pair.rekey_ike(End::Client);
            let (now, sa) = (pair.now, pair.client.sa());
            pair.client.endpoint.close(sa, now);
            pair.run(ALL_OVER);
            assert_eq!(pair.client.closed(), Some(&CloseReason::Asked));
            assert_eq!(pair.server.closed(), Some(&CloseReason::DeletedByPeer));
            assert_eq!(pair.client.endpoint.len(), 0);
            assert_eq!(pair.server.endpoint.len(), 0);
        }
    }
}

fn limits(host: &Host) -> Vec<Timestamp> {
    let events = host.events.iter();
    let limits = events.filter_map(|event| match event {
        IkeEvent::AuthenticatedUntil(until) => Some(*until),
        _ => None,
    });
    limits.collect()
}

#[test]
fn an_auth_lifetime_in_the_ike_auth_response_is_heard_and_no_rekey_ends_it() {
    let mut pair = Pair::new();
    pair.server.installs = None;
    pair.connect();
    pair.run(Duration::from_millis(35));
    let (now, sa, child) = (pair.now, pair.server.sa(), pair.server.child().id);
    pair.server.endpoint.step(sa, now, |sa, _| {
        let IkeSa::Established(mut it) = sa else {
            panic!("not established")
        };
        let an_hour = notify_with(NotifyType::AUTH_LIFETIME, 3600_u32.to_be_bytes());
        it.kept.as_mut().unwrap().accepted.push(an_hour);
        Some(IkeSa::Established(it))
    });
    pair.server.endpoint.child_ready(sa, child, true, now);
    pair.settle();
    let [until] = limits(&pair.client)[..] else {
        panic!("{:?}", pair.client.events)
    };
    assert_eq!(until, now + LATENCY + Duration::from_secs(3600));
    pair.rekey_ike(End::Client);
    pair.settle();
    let (now, sa) = (pair.now, pair.client.sa());
    pair.client.endpoint.step(sa, now, |sa, _| {
        assert_eq!(sa.authenticated_until(), Some(until));
        Some(sa)
    });
}

#[test]
fn an_auth_lifetime_that_is_no_number_of_seconds_is_ignored() {
    let mut pair = Pair::established();
    for octets in [&[][..], &[1], &[0, 0, 0, 9, 9]] {
        let lifetime = notify_with(NotifyType::AUTH_LIFETIME, octets.to_vec());
        let answer = pair.ask(End::Server, ExchangeType::Informational, &[lifetime]);
        assert!(answer.is_empty());
    }
    assert_eq!(limits(&pair.client), []);
    assert!(pair.client.is_established());
}
