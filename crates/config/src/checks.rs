//! What must fit between tunnels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use epochgate_controller::config::{Identity, TunnelConfig, TunnelName};
use ipnet::IpNet;

use crate::diagnostic::Sink;
use crate::traffic::pairs;
use crate::tunnel::Draft;

/// Compares every tunnel, as far as it is right, with those before it.
pub(crate) fn between_tunnels(drafts: &[Draft], sink: &mut Sink) {
    same_traffic(drafts, sink);
    same_peer(drafts, sink);
    same_interface(drafts, sink);
}

/// An interface has one number, and so one tunnel.
fn same_interface(drafts: &[Draft], sink: &mut Sink) {
    let mut owners: BTreeMap<&str, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(interface) = &draft.interface else {
            continue;
        };
        if let Some(owner) = owners.insert(&interface.name, draft) {
            let (first, second) = (&owner.name, &draft.name);
            let title = format!("tunnels {first} and {second} have the same interface");
            let label = format!("has {} too", interface.name);
            sink.error(draft.name_span.clone(), title, label)
                .also(owner.name_span.clone(), format!("has {}", interface.name))
                .help("give one of them an interface of its own");
        }
    }
}

/// The kernel has one policy for each direction and selector: two tunnels can't share one.
fn same_traffic(drafts: &[Draft], sink: &mut Sink) {
    let mut owners: BTreeMap<(IpNet, IpNet), &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(traffic) = &draft.traffic else {
            continue;
        };
        // One mistake says it for all pairs of two tunnels.
        let mut told: BTreeSet<&TunnelName> = BTreeSet::new();
        for (local, remote) in pairs(&traffic.local, &traffic.remote) {
            // What is routed to an interface is told apart by the route; IPv6 by its networks too.
            let by_networks = remote.value.addr().is_ipv6() && remote.value.prefix_len() > 0;
            if draft.is_routed && !by_networks {
                continue;
            }
            let Some(owner) = owners.get(&(local.value, remote.value)) else {
                owners.insert((local.value, remote.value), draft);
                continue;
            };
            if !told.insert(&owner.name) {
                continue;
            }
            let title = format!(
                "tunnels {} and {} have the same traffic: {} to {}",
                owner.name, draft.name, local.value, remote.value
            );
            let label = format!("also traffic of tunnel {}", draft.name);
            let mut theirs = owner.traffic.iter().flat_map(|traffic| &traffic.remote);
            let place = theirs
                .find(|at| at.value == remote.value)
                .map_or(&owner.name_span, |at| &at.span);
            sink.error(remote.span.clone(), title, label)
                .also(place.clone(), format!("traffic of tunnel {}", owner.name))
                .help("the kernel has one policy for it, and so one tunnel: change one of the two");
        }
    }
}

/// A responder finds the tunnel by the identities and the outer addresses, and among those that
/// share an IKE SA by the traffic.
fn same_peer(drafts: &[Draft], sink: &mut Sink) {
    let mut groups: BTreeMap<(&Identity, &Identity), Vec<(&Draft, &TunnelConfig)>> =
        BTreeMap::new();
    for draft in drafts {
        let Some(config) = &draft.config else {
            continue;
        };
        let earlier = groups
            .entry((&config.local.id, &config.remote.id))
            .or_default();
        let twin = earlier
            .iter()
            .find(|(_, other)| !other.shares_peer_with(config) && may_meet(other, config));
        if let Some((twin, _)) = twin {
            let title = format!(
                "tunnels {} and {} can't be told apart when their peer begins",
                twin.name, draft.name
            );
            let label = format!("the peer of tunnel {} too", draft.name);
            sink.error(draft.remote_id_span.clone(), title, label)
                .also(
                    twin.remote_id_span.clone(),
                    format!("the peer of tunnel {}", twin.name),
                )
                .help("give the ends of one tunnel an `id` of its own, or both tunnels the same role, addresses, authentication and IKE settings: then they share an IKE SA");
        }
        earlier.push((draft, config));
    }
}

/// Whether one IKE message could belong to both, as far as addresses go.
fn may_meet(left: &TunnelConfig, right: &TunnelConfig) -> bool {
    let overlap = |a: Option<IpAddr>, b: Option<IpAddr>| match (a, b) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    overlap(left.local.address, right.local.address)
        && overlap(left.remote.address, right.remote.address)
}
