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

/// [`Traffic`] as far as it is known; the rest was reported, or depends on what was.
#[derive(Default)]
pub(crate) struct Sides {
    pub(crate) local: Option<Vec<At<IpNet>>>,
    pub(crate) remote: Option<Vec<At<IpNet>>>,
}

impl Sides {
    /// Both sides, if both are known.
    pub(crate) fn whole(self) -> Option<Traffic> {
        Some(Traffic {
            local: self.local?,
            remote: self.remote?,
        })
    }
}

/// The outer address of an end.
#[derive(Clone, Copy)]
pub(crate) enum Outer {
    Known(IpAddr),
    Any,
    /// It was reported.
    Wrong,
}

/// A template, and where it is named.
pub(crate) struct Named {
    pub(crate) template: Template,
    pub(crate) span: Span,
}

/// What the networks depend on besides the section itself.
pub(crate) struct Surroundings<'t> {
    /// `None`: reported.
    pub(crate) role: Option<Role>,
    /// `None`: reported.
    pub(crate) template: Option<&'t Named>,
    pub(crate) local_address: Outer,
    pub(crate) remote_address: Outer,
    /// What one side gets its addresses from, if it gets any.
    pub(crate) addresses: &'t Virtual,
}

/// Reads `traffic` and fills it up from the template.
pub(crate) fn read(section: &Section<'_>, around: &Surroundings<'_>, sink: &mut Sink) -> Sides {
    let mut side = |key| match around.addresses.assigns(key) {
        Some(true) => assigned(section, key, around.addresses, sink),
        Some(false) => named(section, key, sink),
        None => match named(section, key, sink) {
            Side::Absent => Side::Unknown,
            named => named,
        },
    };
    let (local, remote) = (side("local"), side("remote"));
    let sides = Sides {
        local: fill(section, "local", &local, &remote, around, sink),
        remote: fill(section, "remote", &remote, &local, around, sink),
    };
    if let (Some(local), Some(remote)) = (&sides.local, &sides.remote)
        && !check([local, remote], section.span(), sink)
    {
        return Sides::default();
    }
    sides
}

/// One side, from the template if the tunnel does not name it.
fn fill(
    section: &Section<'_>,
    key: &str,
    side: &Side,
    other: &Side,
    around: &Surroundings<'_>,
    sink: &mut Sink,
) -> Option<Vec<At<IpNet>>> {
    match side {
        Side::Named(networks) => Some(networks.clone()),
        Side::Unknown => None,
        Side::Absent => {
            let named = around.template?;
            let (defaults, address) = match key {
                "local" => (named.template.local(around.role)?, around.local_address),
                _ => (named.template.remote(around.role)?, around.remote_address),
            };
            if defaults.is_empty() {
                let example = format!("{key} = [\"10.1.0.0/16\"]");
                section.missing(key, &example, sink);
                return None;
            }
            given(key, defaults, address, other, named, sink)
        }
    }
}

/// One side as the tunnel names it.
#[derive(Clone)]
enum Side {
    Absent,
    /// It was reported, or depends on what was.
    Unknown,
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
        return Side::Unknown;
    }
    addresses.everything().map_or(Side::Unknown, Side::Named)
}

fn named(section: &Section<'_>, key: &str, sink: &mut Sink) -> Side {
    if !section.has(key) {
        return Side::Absent;
    }
    let Some(texts) = section.texts(key, sink) else {
        return Side::Unknown;
    };
    if texts.list.is_empty() && texts.is_whole {
        let title = format!("the {key} traffic is empty");
        sink.error(texts.span, title, "at least one network is wanted")
            .help("for example [\"10.1.0.0/16\"]");
        return Side::Unknown;
    }
    let mut networks: Vec<At<IpNet>> = Vec::with_capacity(texts.list.len());
    let mut whole = texts.is_whole;
    for text in &texts.list {
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
        Side::Unknown
    }
}

/// One side as the template gives it: only families that the other side names, if it names any.
fn given(
    key: &str,
    defaults: &[DefaultNetwork],
    address: Outer,
    other: &Side,
    named: &Named,
    sink: &mut Sink,
) -> Option<Vec<At<IpNet>>> {
    let wanted = |network: &IpNet| match other {
        Side::Named(others) => others.iter().any(|o| same_family(&o.value, network)),
        Side::Absent | Side::Unknown => true,
    };
    let mut networks = Vec::new();
    for default in defaults {
        let network = match (default, address) {
            (DefaultNetwork::Network(network), _) => *network,
            (DefaultNetwork::Outer, Outer::Known(address)) => address.into(),
            (DefaultNetwork::Outer, Outer::Wrong) => return None,
            (DefaultNetwork::Outer, Outer::Any) => {
                let template = quoted(&named.template.policy.name);
                let title = format!(
                    "{template} takes the {key} traffic from the outer address, which is %any"
                );
                sink.error(named.span.clone(), title, "needs an address")
                    .help(format!("give {key}.address, or traffic.{key}"));
                return None;
            }
        };
        networks.push(network);
    }
    networks.retain(wanted);
    let at = |value| At {
        value,
        span: named.span.clone(),
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
pub(crate) fn pairs<'n>(
    local: &'n [At<IpNet>],
    remote: &'n [At<IpNet>],
) -> impl Iterator<Item = (&'n At<IpNet>, &'n At<IpNet>)> {
    local.iter().flat_map(move |local| {
        let partners = remote.iter();
        partners
            .filter(|remote| same_family(&local.value, &remote.value))
            .map(move |remote| (local, remote))
    })
}

fn check([local, remote]: [&[At<IpNet>]; 2], whole: Span, sink: &mut Sink) -> bool {
    let sides = [(local, remote, "remote"), (remote, local, "local")];
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
        // Both sides say the same, if each lacks what the other has.
        if !good {
            break;
        }
    }
    let count = pairs(local, remote).count();
    if count > PAIRS_MAX {
        let title = format!("{count} pairs of networks in one tunnel");
        sink.error(whole, title, format!("{PAIRS_MAX} pairs at most"))
            .help("each local network makes a pair with each remote one; name wider networks, or use more than one tunnel");
        return false;
    }
    good
}
