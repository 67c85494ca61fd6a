//! Which networks a tunnel joins: what it names, or what its template gives.

use std::net::IpAddr;

use epochgate_controller::config::Role;
use ipnet::IpNet;

use crate::addressing::Virtual;
use crate::diagnostic::{Sink, Span, quoted};
use crate::keys::PAIRS_MAX;
use crate::reader::{At, Section};
use crate::template::{DefaultNetwork, Template};
use crate::values;

/// The networks of both sides, each with the place that names it.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) local: Vec<At<IpNet>>,
    pub(crate) remote: Vec<At<IpNet>>,
}

/// What the networks depend on besides the section itself.
pub(crate) struct Surroundings<'t> {
    pub(crate) role: Role,
    pub(crate) template: &'t Template,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) remote_address: Option<IpAddr>,
    /// Where the template is named.
    pub(crate) policy_span: Span,
    /// What one side gets its addresses from, if it gets any.
    pub(crate) addresses: &'t Virtual,
}

/// Reads `traffic` and fills it up from the template. `None`: reported.
pub(crate) fn read(
    section: &Section<'_>,
    around: &Surroundings<'_>,
    sink: &mut Sink,
) -> Option<Traffic> {
    let defaults = around.template.default_traffic(around.role);
    let mut side = |key| match around.addresses.side() {
        Some(side) if side == key => assigned(section, key, around.addresses, sink),
        Some(_) | None => named(section, key, sink),
    };
    let (local, remote) = (side("local"), side("remote"));
    let mut fill =
        |key: &str, side: Side, defaults: &[DefaultNetwork], address, other: &Side| match side {
            Side::Named(networks) => Some(networks),
            Side::Wrong => None,
            Side::Absent if defaults.is_empty() => {
                let example = format!("{key} = [\"10.1.0.0/16\"]");
                section.missing(key, &example, sink);
                None
            }
            Side::Absent => given(key, defaults, address, other, around, sink),
        };
    let other_of_local = remote.clone();
    let other_of_remote = local.clone();
    let local = fill(
        "local",
        local,
        &defaults.local,
        around.local_address,
        &other_of_local,
    );
    let remote = fill(
        "remote",
        remote,
        &defaults.remote,
        around.remote_address,
        &other_of_remote,
    );
    let traffic = Traffic {
        local: local?,
        remote: remote?,
    };
    check(&traffic, section.span(), sink).then_some(traffic)
}

/// One side as the tunnel names it.
#[derive(Clone)]
enum Side {
    Absent,
    Wrong,
    Named(Vec<At<IpNet>>),
}

/// A side that gets virtual addresses: everything of their IP versions.
fn assigned(section: &Section<'_>, key: &str, addresses: &Virtual, sink: &mut Sink) -> Side {
    if section.has(key) {
        let title = format!("the {key} traffic is what is assigned: it can't be named");
        sink.error(section.span(), title, format!("{} here", quoted(key)))
            .also(addresses.span.clone(), "virtual addresses")
            .help(format!(
                "remove {key} from traffic, or the section `virtual`"
            ));
        return Side::Wrong;
    }
    Side::Named(addresses.everything())
}

fn named(section: &Section<'_>, key: &str, sink: &mut Sink) -> Side {
    if !section.has(key) {
        return Side::Absent;
    }
    let Some(texts) = section.texts(key, sink) else {
        return Side::Wrong;
    };
    if texts.value.is_empty() {
        let title = format!("the {key} traffic is empty");
        sink.error(texts.span, title, "at least one network is wanted")
            .help("for example [\"10.1.0.0/16\"]");
        return Side::Wrong;
    }
    let mut networks: Vec<At<IpNet>> = Vec::with_capacity(texts.value.len());
    let mut whole = true;
    for text in &texts.value {
        let Some(value) = values::network(text, sink) else {
            whole = false;
            continue;
        };
        if let Some(first) = networks.iter().find(|known| known.value == value) {
            let title = format!("{value} is named twice");
            sink.error(text.span.clone(), title, "here again")
                .also(first.span.clone(), "first here");
            whole = false;
            continue;
        }
        networks.push(At {
            value,
            span: text.span.clone(),
        });
    }
    if whole {
        Side::Named(networks)
    } else {
        Side::Wrong
    }
}

/// One side as the template gives it: only families that the other side names, if it names any.
fn given(
    key: &str,
    defaults: &[DefaultNetwork],
    address: Option<IpAddr>,
    other: &Side,
    around: &Surroundings<'_>,
    sink: &mut Sink,
) -> Option<Vec<At<IpNet>>> {
    let wanted = |network: &IpNet| match other {
        Side::Named(others) => others.iter().any(|o| same_family(&o.value, network)),
        Side::Absent | Side::Wrong => true,
    };
    let mut networks = Vec::new();
    for default in defaults {
        let network = match (default, address) {
            (DefaultNetwork::Network(network), _) => *network,
            (DefaultNetwork::Outer, Some(address)) => address.into(),
            (DefaultNetwork::Outer, None) => {
                let template = quoted(&around.template.policy.name);
                let title = format!(
                    "{template} takes the {key} traffic from the outer address, which is %any"
                );
                sink.error(around.policy_span.clone(), title, "needs an address")
                    .help(format!("give {key}.address, or traffic.{key}"));
                return None;
            }
        };
        networks.push(network);
    }
    networks.retain(wanted);
    let at = |value| At {
        value,
        span: around.policy_span.clone(),
    };
    Some(networks.into_iter().map(at).collect())
}

fn same_family(left: &IpNet, right: &IpNet) -> bool {
    matches!(
        (left, right),
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
    )
}

/// Pairs of one local and one remote network of the same family: what policies are made for.
pub(crate) fn pairs(traffic: &Traffic) -> impl Iterator<Item = (&At<IpNet>, &At<IpNet>)> {
    traffic.local.iter().flat_map(|local| {
        let partners = traffic.remote.iter();
        partners
            .filter(|remote| same_family(&local.value, &remote.value))
            .map(move |remote| (local, remote))
    })
}

fn check(traffic: &Traffic, whole: Span, sink: &mut Sink) -> bool {
    let sides = [
        (&traffic.local, &traffic.remote, "remote"),
        (&traffic.remote, &traffic.local, "local"),
    ];
    let mut good = true;
    for (networks, others, other_side) in sides {
        let lonely = |at: &&At<IpNet>| !others.iter().any(|o| same_family(&o.value, &at.value));
        for at in networks.iter().filter(lonely) {
            let family = if at.value.addr().is_ipv4() {
                "IPv4"
            } else {
                "IPv6"
            };
            let title = format!(
                "{} has no {other_side} network of its own IP version",
                at.value
            );
            let label = format!("no {other_side} network is {family}");
            sink.error(at.span.clone(), title, label)
                .help("traffic is protected between networks of one IP version; what has no counterpart would leave unprotected");
            good = false;
        }
        if !good {
            return false;
        }
    }
    let count = pairs(traffic).count();
    if count > PAIRS_MAX {
        let title = format!("{count} pairs of networks in one tunnel");
        sink.error(whole, title, format!("{PAIRS_MAX} pairs at most"))
            .help("each local network makes a pair with each remote one; name wider networks, or use more than one tunnel");
        return false;
    }
    good
}
