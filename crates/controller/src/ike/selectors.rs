//! Traffic selectors: what is offered, and what of an offer is accepted (RFC 7296 §2.9).

use epochgate_ike_wire::{AddressRange, IpSelector, TrafficSelector, limits};
use ipnet::IpNet;

/// The selectors of configured networks: any protocol, any port.
pub(super) fn from_networks(networks: &[IpNet]) -> Vec<TrafficSelector> {
    networks
        .iter()
        .filter_map(|network| AddressRange::new(network.network(), network.broadcast()))
        .map(|addresses| TrafficSelector::Ip(IpSelector::any(addresses)))
        .take(limits::MAX_TRAFFIC_SELECTORS)
        .collect()
}

/// What of the peer's offer the configured networks allow: every intersection that no other one
/// contains. Empty: TS_UNACCEPTABLE.
pub(super) fn narrow(offer: &[TrafficSelector], networks: &[IpNet]) -> Vec<TrafficSelector> {
    let allowed = from_networks(networks);
    let mut narrowed: Vec<IpSelector> = Vec::new();
    for offered in offer.iter().filter_map(TrafficSelector::as_ip) {
        for common in allowed
            .iter()
            .filter_map(TrafficSelector::as_ip)
            .filter_map(|ours| ours.intersect(offered))
        {
            if narrowed.iter().any(|known| known.contains(&common)) {
                continue;
            }
            narrowed.retain(|known| !common.contains(known));
            narrowed.push(common);
        }
    }
    narrowed.truncate(limits::MAX_TRAFFIC_SELECTORS);
    narrowed.into_iter().map(TrafficSelector::Ip).collect()
}

/// Whether a responder stayed within our offer: at least one selector, each inside an offered one
/// (RFC 7296 §2.9: "a subset").
pub(super) fn within(answer: &[TrafficSelector], offer: &[TrafficSelector]) -> bool {
    !answer.is_empty()
        && answer.iter().all(|answered| {
            answered.as_ip().is_some_and(|answered| {
                offer
                    .iter()
                    .filter_map(TrafficSelector::as_ip)
                    .any(|offered| offered.contains(answered))
            })
        })
}

/// Whether one of the selectors covers the whole network, for every protocol and port.
pub(crate) fn contain(selectors: &[TrafficSelector], network: IpNet) -> bool {
    let wanted = AddressRange::new(network.network(), network.broadcast()).map(IpSelector::any);
    wanted.is_some_and(|wanted| {
        selectors
            .iter()
            .filter_map(TrafficSelector::as_ip)
            .any(|selector| selector.contains(&wanted))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    fn selectors(texts: &[&str]) -> Vec<TrafficSelector> {
        from_networks(&networks(texts))
    }

    #[test]
    fn a_wider_offer_is_narrowed_to_what_is_configured() {
        assert_eq!(
            narrow(&selectors(&["10.0.0.0/8"]), &networks(&["10.1.0.0/16"])),
            selectors(&["10.1.0.0/16"])
        );
    }

    #[test]
    fn a_narrower_offer_stays_as_it_is() {
        assert_eq!(
            narrow(&selectors(&["10.1.2.0/24"]), &networks(&["10.1.0.0/16"])),
            selectors(&["10.1.2.0/24"])
        );
    }

    #[test]
    fn a_packets_own_selector_is_swallowed_by_the_network_around_it() {
        // An initiator that starts because of a packet offers that packet first.
        assert_eq!(
            narrow(
                &selectors(&["10.1.2.3/32", "10.1.0.0/16"]),
                &networks(&["10.1.0.0/16"])
            ),
            selectors(&["10.1.0.0/16"])
        );
    }

    #[test]
    fn families_and_strangers_do_not_meet() {
        let configured = networks(&["10.1.0.0/16", "fd00:1::/64"]);
        assert_eq!(narrow(&selectors(&["192.0.2.0/24"]), &configured), []);
        assert_eq!(
            narrow(&selectors(&["::/0"]), &configured),
            selectors(&["fd00:1::/64"])
        );
    }

    #[test]
    fn an_answer_beyond_the_offer_is_recognised() {
        let offer = selectors(&["10.1.0.0/16", "10.3.0.0/16"]);
        assert!(within(&selectors(&["10.3.7.0/24"]), &offer));
        assert!(!within(&selectors(&["10.2.0.0/16"]), &offer));
        assert!(!within(&selectors(&["10.0.0.0/8"]), &offer));
        assert!(!within(&[], &offer));
    }
}
