//! The controller's specifications as the kernel's SAs and policies.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use epochgate_controller::REQIDS;
use epochgate_controller::io::{
    self, PING_MARK, PolicyAction, PolicyDirection, PolicyKey, PolicyScope, PolicySpec,
    SaDirection, SaSpec, XfrmError,
};
use epochgate_host::esp;
use epochgate_xfrm::{
    Encap, EventThresholds, Key, Mark, Policy, PolicyId, PortMatch, Prefix, Protection,
    ReplayWindow, Reqid, Sa, SaFlags, SaId, Selector, Spi, SpiRequest, Template,
};

use super::interface::Interfaces;
use super::invalid;

/// The window of an outbound SA, which the kernel demands where sequence numbers are extended
/// (`xfrm_init_replay`) and has no other use for.
const OUTBOUND_WINDOW_PACKETS: u32 = 1;
/// ICMPv6 (RFC 4443 §1).
const PROTOCOL_ICMPV6: u8 = 58;

/// Outer addresses of a template that never has an SA. Documentation addresses (RFC 5737,
/// RFC 3849): the kernel looks for a route to the second one, and nobody is there.
const HOLD_V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
const HOLD_V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
);

pub(super) fn sa_id(id: io::SaId) -> SaId {
    SaId::esp(id.destination, Spi::from(id.spi.0))
}

pub(super) fn sa(spec: &SaSpec) -> Sa {
    let mut sa = Sa::esp_tunnel(
        spec.source,
        spec.id.destination,
        Spi::from(spec.id.spi.0),
        Reqid(spec.reqid),
        esp::protection(spec.cipher, spec.key.expose()),
    );
    // The inner family may differ from the outer one.
    sa.flags = SaFlags::AF_UNSPEC;
    sa.encap = spec
        .encapsulation
        .map(|ports| Encap::udp(ports.source_port, ports.destination_port));
    sa.limits.hard.seconds_since_added = Some(spec.hard_lifetime.as_secs());
    sa.if_id = spec.if_id.map(|if_id| if_id.0);
    sa.replay_window = match spec.direction {
        SaDirection::Inbound { .. } => ReplayWindow {
            packets: spec.sequence.window,
            extended: spec.sequence.extended,
        },
        SaDirection::Outbound if spec.sequence.extended => {
            ReplayWindow::extended(OUTBOUND_WINDOW_PACKETS)
        }
        SaDirection::Outbound => ReplayWindow::packets(0),
    };
    let thresholds = event_thresholds(spec.direction);
    sa.replay_threshold = thresholds.replay;
    sa.timer_threshold = thresholds.timer;
    sa
}

/// When an SA reports: all that carry packets every day are silent.
pub(super) fn event_thresholds(direction: SaDirection) -> EventThresholds {
    match direction {
        SaDirection::Inbound { report_first: true } => EventThresholds::NEXT_PACKET,
        SaDirection::Inbound {
            report_first: false,
        }
        | SaDirection::Outbound => EventThresholds::SILENT,
    }
}

/// An SA that shows whether the kernel has ESP and AES-GCM.
pub(super) fn probe() -> Sa {
    let (source, destination) = HOLD_V4;
    // Nobody negotiates an SPI with the highest number and a documentation address.
    let spi = Spi::from(std::num::NonZeroU32::MAX);
    let key = Key::new(vec![0; 20]);
    Sa::esp_tunnel(
        source.into(),
        destination.into(),
        spi,
        Reqid(*REQIDS.end()),
        Protection::aes_gcm_16(key),
    )
}

pub(super) fn policies(
    specs: &[PolicySpec],
    interfaces: &Interfaces,
) -> Result<Vec<Policy>, XfrmError> {
    specs.iter().map(|spec| policy(spec, interfaces)).collect()
}

pub(super) fn policy_id(key: &PolicyKey, interfaces: &Interfaces) -> Result<PolicyId, XfrmError> {
    let mut id = PolicyId::new(direction(key.direction), selector(key, interfaces)?);
    (id.if_id, id.mark) = scope(key);
    Ok(id)
}

/// The if_id and the mark of a policy.
fn scope(key: &PolicyKey) -> (Option<NonZeroU32>, Option<Mark>) {
    match key.scope {
        PolicyScope::Everything | PolicyScope::RoutedTo(_) => (None, None),
        PolicyScope::Of(if_id) => (Some(if_id.0), None),
        PolicyScope::PingsOf(if_id) => (Some(if_id.0), Some(Mark::exactly(PING_MARK))),
    }
}

pub(super) fn policy(spec: &PolicySpec, interfaces: &Interfaces) -> Result<Policy, XfrmError> {
    let mut policy = bare(spec, interfaces)?;
    (policy.if_id, policy.mark) = scope(&spec.key);
    Ok(policy)
}

fn bare(spec: &PolicySpec, interfaces: &Interfaces) -> Result<Policy, XfrmError> {
    let direction = direction(spec.key.direction);
    let selector = selector(&spec.key, interfaces)?;
    let template = match spec.action {
        PolicyAction::Exempt => {
            return Ok(Policy::allow(direction, selector, spec.priority));
        }
        PolicyAction::Hold { reqid } => {
            let (source, destination) = hold_addresses(&spec.key);
            Template::esp_tunnel(source, destination, Reqid(reqid))
        }
        PolicyAction::Pin { reqid, sa, source } => {
            Template::esp_tunnel(source, sa.destination, Reqid(reqid))
                .pinned_to(Spi::from(sa.spi.0))
        }
        PolicyAction::Accept { reqid } => {
            let any = match spec.key.source.addr() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            Template::esp_tunnel(any, any, Reqid(reqid))
        }
    };
    Ok(Policy::protect(
        direction,
        selector,
        spec.priority,
        template,
    ))
}

fn hold_addresses(key: &PolicyKey) -> (IpAddr, IpAddr) {
    match key.source.addr() {
        IpAddr::V4(_) => (HOLD_V4.0.into(), HOLD_V4.1.into()),
        IpAddr::V6(_) => (HOLD_V6.0.into(), HOLD_V6.1.into()),
    }
}

/// The larval SAs that packets which met these policies' holds may have left, each once.
pub(super) fn larval_sas(specs: &[PolicySpec]) -> Vec<SpiRequest> {
    let mut found = BTreeSet::new();
    for spec in specs {
        if let PolicyAction::Hold { reqid } = spec.action {
            let (source, destination) = hold_addresses(&spec.key);
            found.insert((reqid, source, destination));
        }
    }
    found
        .into_iter()
        .map(|(reqid, source, destination)| {
            SpiRequest::esp_tunnel(source, destination, Reqid(reqid))
        })
        .collect()
}

fn direction(direction: PolicyDirection) -> epochgate_xfrm::PolicyDirection {
    match direction {
        PolicyDirection::In => epochgate_xfrm::PolicyDirection::In,
        PolicyDirection::Out => epochgate_xfrm::PolicyDirection::Out,
        PolicyDirection::Fwd => epochgate_xfrm::PolicyDirection::Forward,
    }
}

fn selector(key: &PolicyKey, interfaces: &Interfaces) -> Result<Selector, XfrmError> {
    let prefix = |network: ipnet::IpNet| Prefix::new(network.addr(), network.prefix_len());
    let source = prefix(key.source).map_err(invalid)?;
    let destination = prefix(key.destination).map_err(invalid)?;
    let mut selector = Selector::new(source, destination).map_err(invalid)?;
    if let PolicyScope::RoutedTo(if_id) = key.scope {
        let index = interfaces.index(if_id).map_err(XfrmError::Other)?;
        selector.interface_index =
            i32::try_from(index).map_err(|error| XfrmError::Other(error.to_string()))?;
    }
    Ok(match key.icmpv6_type {
        None => selector,
        // The kernel compares an ICMP message's type with the source port (xfrm_flowi_sport).
        Some(icmpv6_type) => selector
            .with_protocol(PROTOCOL_ICMPV6)
            .with_ports(PortMatch::exactly(icmpv6_type.into()), PortMatch::ANY),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use epochgate_controller::crypto::{AesKey, Cipher, Integrity};
    use epochgate_controller::io::{Encapsulation, SequenceNumbers};

    use super::super::read;
    use super::*;

    fn key(direction: PolicyDirection, icmpv6_type: Option<u8>) -> PolicyKey {
        PolicyKey {
            direction,
            source: "2001:db8:1::/48".parse().expect("network"),
            destination: "2001:db8:2::/48".parse().expect("network"),
            icmpv6_type,
            scope: PolicyScope::Everything,
        }
    }

    fn none() -> Interfaces {
        Interfaces::default()
    }

    #[test]
    fn the_policies_of_an_interface_read_back_as_they_were_written() {
        let if_id = io::IfId(NonZeroU32::new(*REQIDS.start()).expect("not 0"));
        let interfaces = Interfaces::one(if_id, 7);
        for scope in [
            PolicyScope::RoutedTo(if_id),
            PolicyScope::Of(if_id),
            PolicyScope::PingsOf(if_id),
        ] {
            let spec = PolicySpec {
                key: PolicyKey {
                    scope,
                    ..key(PolicyDirection::Out, None)
                },
                priority: 7,
                action: PolicyAction::Exempt,
            };
            let policy = policy(&spec, &interfaces).expect("a policy");
            assert_eq!(read::policy_key(&policy, &interfaces), Some(spec.key));
            let id = policy_id(&spec.key, &interfaces).expect("an id");
            assert_eq!(read::key_of_id(&id, &interfaces), Some(spec.key));
            // Ours without any template, by the number.
            assert_eq!(read::our_policies(&[&policy], &interfaces), [spec.key]);
        }
    }

    #[test]
    fn what_is_routed_to_an_interface_that_is_not_there_has_no_policy() {
        let if_id = io::IfId(NonZeroU32::new(*REQIDS.start()).expect("not 0"));
        let key = PolicyKey {
            scope: PolicyScope::RoutedTo(if_id),
            ..key(PolicyDirection::Out, None)
        };
        assert!(policy_id(&key, &none()).is_err());
    }

    fn spi() -> io::Spi {
        io::Spi(NonZeroU32::new(0xc000_0001).expect("not 0"))
    }

    #[test]
    fn a_policys_key_reads_back_as_it_was_written() {
        for direction in [
            PolicyDirection::In,
            PolicyDirection::Out,
            PolicyDirection::Fwd,
        ] {
            for icmpv6_type in [None, Some(135)] {
                let spec = PolicySpec {
                    key: key(direction, icmpv6_type),
                    priority: 7,
                    action: PolicyAction::Hold { reqid: 1 },
                };
                let policy = policy(&spec, &none()).expect("a policy");
                assert_eq!(read::policy_key(&policy, &none()), Some(spec.key));
                let id = policy_id(&spec.key, &none()).expect("an id");
                assert_eq!(read::key_of_id(&id, &none()), Some(spec.key));
            }
        }
    }

    #[test]
    fn a_pin_names_reqid_and_spi_and_acceptance_no_spi() {
        let sa = io::SaId {
            destination: [198, 51, 100, 1].into(),
            spi: spi(),
        };
        let pin = policy(
            &PolicySpec {
                key: key(PolicyDirection::Out, None),
                priority: 1,
                action: PolicyAction::Pin {
                    reqid: 5,
                    sa,
                    source: [198, 51, 100, 2].into(),
                },
            },
            &none(),
        )
        .expect("a policy");
        assert_eq!(pin.templates[0].spi, Some(Spi::from(spi().0)));
        assert_eq!(pin.templates[0].reqid, Reqid(5));
        let accept = policy(
            &PolicySpec {
                key: key(PolicyDirection::In, None),
                priority: 1,
                action: PolicyAction::Accept { reqid: 5 },
            },
            &none(),
        )
        .expect("a policy");
        assert_eq!(accept.templates[0].spi, None);
        assert!(accept.templates[0].source.is_unspecified());
        assert!(!accept.templates[0].optional);
    }

    #[test]
    fn two_policies_of_one_hold_share_a_larval_sa() {
        let hold = |source: &str, destination: &str| PolicySpec {
            key: PolicyKey {
                direction: PolicyDirection::Out,
                source: source.parse().expect("network"),
                destination: destination.parse().expect("network"),
                icmpv6_type: None,
                scope: PolicyScope::Everything,
            },
            priority: 1,
            action: PolicyAction::Hold { reqid: 5 },
        };
        let specs = [
            hold("10.1.0.0/16", "10.2.0.0/16"),
            hold("10.1.0.0/16", "10.3.0.0/16"),
            hold("2001:db8:1::/48", "2001:db8:2::/48"),
        ];
        assert_eq!(larval_sas(&specs).len(), 2);
    }

    #[test]
    fn only_an_exemption_has_no_template() {
        let exempt = policy(
            &PolicySpec {
                key: key(PolicyDirection::Out, Some(135)),
                priority: 1,
                action: PolicyAction::Exempt,
            },
            &none(),
        )
        .expect("a policy");
        assert!(exempt.templates.is_empty());
        assert_eq!(exempt.selector.protocol, 58);
    }

    #[test]
    fn only_an_awaited_sa_reports_its_first_packet() {
        let mut spec = SaSpec {
            id: io::SaId {
                destination: [192, 0, 2, 9].into(),
                spi: spi(),
            },
            source: [192, 0, 2, 8].into(),
            direction: SaDirection::Inbound { report_first: true },
            reqid: 5,
            if_id: None,
            cipher: Cipher::AesGcm256,
            key: vec![1; 36].into(),
            sequence: SequenceNumbers {
                extended: false,
                window: 64,
            },
            encapsulation: Some(Encapsulation {
                source_port: 4500,
                destination_port: 31000,
            }),
            hard_lifetime: Duration::from_secs(7200),
        };
        let awaited = sa(&spec);
        assert_eq!(awaited.replay_threshold, Some(1));
        assert_eq!(awaited.replay_window.packets, 64);
        assert_eq!(awaited.encap, Some(Encap::udp(4500, 31000)));
        spec.direction = SaDirection::Inbound {
            report_first: false,
        };
        assert_eq!(sa(&spec).replay_threshold, Some(0));
        spec.direction = SaDirection::Outbound;
        assert_eq!(sa(&spec).replay_threshold, Some(0));
        assert_eq!(sa(&spec).timer_threshold, Some(0));
    }
    fn spec_of(cipher: Cipher) -> SaSpec {
        SaSpec {
            id: io::SaId {
                destination: [192, 0, 2, 9].into(),
                spi: spi(),
            },
            source: [192, 0, 2, 8].into(),
            direction: SaDirection::Outbound,
            reqid: 5,
            if_id: None,
            cipher,
            key: (0..)
                .take(cipher.material_len())
                .collect::<Vec<u8>>()
                .into(),
            sequence: SequenceNumbers {
                extended: true,
                window: 256,
            },
            encapsulation: None,
            hard_lifetime: Duration::from_secs(7200),
        }
    }

    #[test]
    fn the_integrity_key_is_what_follows_the_encryption_key() {
        let cipher = Cipher::AesCbc(AesKey::Bits256, Integrity::HmacSha384);
        let Protection::Encryption { cipher, integrity } = sa(&spec_of(cipher)).protection else {
            panic!("no cipher with integrity");
        };
        let integrity = integrity.expect("integrity");
        assert_eq!(cipher.key, Key::new((0..32).collect()));
        assert_eq!(integrity.key, Key::new((32..80).collect()));
        assert_eq!(integrity.name, "hmac(sha384)");
        assert_eq!(integrity.truncation_bits, Some(192));
    }

    #[test]
    fn extended_sequence_numbers_are_asked_of_both_directions() {
        let mut spec = spec_of(Cipher::ChaCha20Poly1305);
        assert_eq!(sa(&spec).replay_window, ReplayWindow::extended(1));
        spec.direction = SaDirection::Inbound { report_first: true };
        assert_eq!(sa(&spec).replay_window, ReplayWindow::extended(256));
        spec.sequence.extended = false;
        assert_eq!(sa(&spec).replay_window, ReplayWindow::packets(256));
    }
}
