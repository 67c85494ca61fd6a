//! Virtual addresses: `[pool.NAME]`, and a tunnel's `virtual` section (RFC 7296 §2.19).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use epochgate_controller::config::{AddressRequest, Addressing, Pool, Role, Start};
use ipnet::IpNet;

use crate::diagnostic::{Sink, Span, listed, nearest, quoted};
use crate::keys::{
    DEFAULT_VIRTUAL_INTERFACE, INTERFACE_LEN_MAX, POOL_DNS_MAX, POOL_DOMAINS_MAX, POOL_NETWORKS_MAX,
};
use crate::reader::{At, Section};
use crate::values::{self, Words};

/// IP versions that a client may ask an address of.
pub(crate) const FAMILIES: Words<Family, 2> =
    Words([("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)]);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

/// All pools, by name.
pub(crate) type Pools = BTreeMap<String, Arc<Pool>>;

/// A tunnel's virtual addresses, and where they are asked for.
pub(crate) struct Virtual {
    pub(crate) addressing: Addressing,
    pub(crate) span: Span,
    /// Something was reported: what depends on it can't be judged.
    pub(crate) is_wrong: bool,
}

impl Virtual {
    /// The side of the traffic that they are: what the section may not name.
    pub(crate) fn side(&self) -> Option<&'static str> {
        match self.addressing {
            Addressing::Configured => None,
            Addressing::Request(_) => Some("local"),
            Addressing::Pools(_) => Some("remote"),
        }
    }

    /// Everything of the IP versions that this side may get addresses of.
    pub(crate) fn everything(&self) -> Vec<At<IpNet>> {
        let networks = match &self.addressing {
            Addressing::Configured => Vec::new(),
            Addressing::Request(request) => request.everything(),
            Addressing::Pools(pools) => {
                let networks = || pools.iter().flat_map(|pool| &pool.networks);
                let has = |ipv4| networks().any(|it| it.addr().is_ipv4() == ipv4);
                let all = AddressRequest {
                    ipv4: has(true),
                    ipv6: has(false),
                    interface: String::new(),
                };
                all.everything()
            }
        };
        let at = |value| At {
            value,
            span: self.span.clone(),
        };
        networks.into_iter().map(at).collect()
    }
}

/// Reads `[pool.NAME]`, all of them.
pub(crate) fn read_pools(section: &Section<'_>, sink: &mut Sink) -> Pools {
    let mut pools = Pools::new();
    let mut all: Vec<(At<IpNet>, String)> = Vec::new();
    for (name, section) in section.named(sink) {
        let networks = read_networks(&section, sink);
        for network in &networks {
            if let Some((other, of)) = all.iter().find(|(it, _)| overlap(it.value, network.value)) {
                let title = format!("{} is in two pools", network.value);
                sink.error(network.span.clone(), title, format!("pool {}", name.value))
                    .also(other.span.clone(), format!("pool {of}"))
                    .help("no address may be given to two peers: let the pools not overlap");
            }
        }
        all.extend(
            networks
                .iter()
                .map(|it| (it.clone(), name.value.to_owned())),
        );
        let pool = Pool {
            name: name.value.to_owned(),
            networks: networks.into_iter().map(|at| at.value).collect(),
            dns: read_dns(&section, sink),
            domains: read_domains(&section, sink),
        };
        pools.insert(name.value.to_owned(), Arc::new(pool));
    }
    pools
}

fn read_networks(section: &Section<'_>, sink: &mut Sink) -> Vec<At<IpNet>> {
    let Some(texts) = section.texts("networks", sink) else {
        if !section.has("networks") {
            section.missing("networks", "networks = [\"10.99.0.0/24\"]", sink);
        }
        return Vec::new();
    };
    if texts.value.is_empty() {
        sink.error(texts.span, "a pool without networks", "none")
            .help("for example [\"10.99.0.0/24\"]");
        return Vec::new();
    }
    if texts.value.len() > POOL_NETWORKS_MAX {
        let title = format!("more than {POOL_NETWORKS_MAX} networks in a pool");
        sink.error(texts.span, title, "name wider ones");
        return Vec::new();
    }
    let mut networks: Vec<At<IpNet>> = Vec::new();
    for text in &texts.value {
        let Some(value) = values::network(text, sink) else {
            continue;
        };
        if let Some(other) = networks.iter().find(|it| overlap(it.value, value)) {
            let title = format!("{value} is in the pool twice");
            sink.error(text.span.clone(), title, "here again")
                .also(other.span.clone(), "first here");
            continue;
        }
        let span = text.span.clone();
        networks.push(At { value, span });
    }
    networks
}

fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right.network()) || right.contains(&left.network())
}

fn read_dns(section: &Section<'_>, sink: &mut Sink) -> Vec<IpAddr> {
    let Some(texts) = section.texts("dns", sink) else {
        return Vec::new();
    };
    if texts.value.len() > POOL_DNS_MAX {
        let title = format!("more than {POOL_DNS_MAX} DNS servers");
        sink.error(texts.span, title, "clients keep no more");
        return Vec::new();
    }
    let read = |text| values::address(text, sink);
    texts.value.iter().filter_map(read).collect()
}

fn read_domains(section: &Section<'_>, sink: &mut Sink) -> Vec<String> {
    let Some(texts) = section.texts("domains", sink) else {
        return Vec::new();
    };
    if texts.value.len() > POOL_DOMAINS_MAX {
        let title = format!("more than {POOL_DOMAINS_MAX} domains");
        sink.error(texts.span, title, "clients keep no more");
        return Vec::new();
    }
    let mut domains = Vec::new();
    for text in texts.value {
        let name = text.value.strip_suffix('.').unwrap_or(text.value);
        let plain = |label: &str| {
            let mut octets = label.bytes();
            !label.is_empty() && octets.all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
        };
        if name.len() <= 253 && name.split('.').all(plain) {
            domains.push(name.to_ascii_lowercase());
        } else {
            let title = format!("{} is no domain name", quoted(text.value));
            sink.error(text.span, title, "letters, digits, -, _ and dots");
        }
    }
    domains
}

/// Reads a tunnel's `virtual` section.
pub(crate) fn read(
    section: &Section<'_>,
    role: Option<Role>,
    start: Option<&At<Start>>,
    pools: &Pools,
    sink: &mut Sink,
) -> Virtual {
    let before = sink.count();
    let span = section.span();
    let addressing = match role {
        Some(_) | None if !section.is_present() => Addressing::Configured,
        Some(Role::Client) => read_request(section, start, sink),
        Some(Role::Server) => read_named_pools(section, pools, sink),
        None => Addressing::Configured,
    };
    let empty = |pools: &[Arc<Pool>]| pools.iter().all(|pool| pool.networks.is_empty());
    let is_wrong = sink.count() > before || addressing.pools().is_some_and(empty);
    Virtual {
        addressing,
        span,
        is_wrong,
    }
}

fn read_request(section: &Section<'_>, start: Option<&At<Start>>, sink: &mut Sink) -> Addressing {
    if section.has("pools") {
        let title = "a client has no pools to give addresses from";
        sink.error(section.span(), title, "`pools` here")
            .help("write request = [\"ipv4\"] to ask the server for an address");
        return Addressing::Configured;
    }
    if !section.has("request") {
        section.missing("request", "request = [\"ipv4\", \"ipv6\"]", sink);
        return Addressing::Configured;
    }
    if let Some(at) = start
        && at.value == Start::OnDemand
    {
        let title = "a tunnel with virtual addresses can't start on demand";
        sink.error(at.span.clone(), title, "starts at the first packet")
            .also(section.span(), "asks for its address")
            .help(
                "before it has started there is no address to send the first packet from: write \
                 start = \"always\"",
            );
    }
    let families = read_families(section, sink).unwrap_or_default();
    Addressing::Request(AddressRequest {
        ipv4: families.contains(&Family::Ipv4),
        ipv6: families.contains(&Family::Ipv6),
        interface: read_interface(section, sink),
    })
}

fn read_named_pools(section: &Section<'_>, pools: &Pools, sink: &mut Sink) -> Addressing {
    if let Some(key) = ["request", "interface"]
        .into_iter()
        .find(|key| section.has(key))
    {
        let title = "a server does not ask for virtual addresses";
        sink.error(section.span(), title, format!("{} here", quoted(key)))
            .help("write pools = [\"NAME\"] to give some to the client");
        return Addressing::Configured;
    }
    if !section.has("pools") {
        section.missing("pools", "pools = [\"NAME\"]", sink);
    }
    match section.texts("pools", sink) {
        Some(named) => Addressing::Pools(find_pools(&named, pools, sink)),
        None => Addressing::Configured,
    }
}

fn read_families(section: &Section<'_>, sink: &mut Sink) -> Option<Vec<Family>> {
    let texts = section.texts("request", sink)?;
    if texts.value.is_empty() {
        sink.error(texts.span, "no IP version is asked for", "empty")
            .help("for example [\"ipv4\", \"ipv6\"]");
        return None;
    }
    let mut families = Vec::new();
    for text in texts.value {
        match FAMILIES.0.iter().find(|(word, _)| *word == text.value) {
            Some((_, family)) if families.contains(family) => {
                let title = format!("{} is named twice", text.value);
                sink.error(text.span, title, "here again");
            }
            Some((_, family)) => families.push(*family),
            None => {
                let title = format!("{} is no IP version", quoted(text.value));
                sink.error(text.span, title, "\"ipv4\" or \"ipv6\" is wanted");
            }
        }
    }
    (!families.is_empty()).then_some(families)
}

fn read_interface(section: &Section<'_>, sink: &mut Sink) -> String {
    let Some(text) = section.text("interface", sink) else {
        return DEFAULT_VIRTUAL_INTERFACE.to_owned();
    };
    let bad = |it: char| it == '/' || it.is_whitespace() || it.is_control();
    let length = text.value.len();
    if length == 0 || length > INTERFACE_LEN_MAX || text.value.contains(bad) {
        let title = format!("{} can't be an interface", quoted(text.value));
        sink.error(text.span, title, "a name as `ip link` shows it is wanted");
    }
    text.value.to_owned()
}

fn find_pools(named: &At<Vec<At<&str>>>, pools: &Pools, sink: &mut Sink) -> Vec<Arc<Pool>> {
    if named.value.is_empty() {
        sink.error(named.span.clone(), "no pool is named", "empty");
    }
    let mut found = Vec::new();
    for text in &named.value {
        if let Some(pool) = pools.get(text.value) {
            found.push(Arc::clone(pool));
            continue;
        }
        let names: Vec<String> = pools.keys().cloned().collect();
        let title = format!("there is no pool {}", quoted(text.value));
        let label = match names.as_slice() {
            [] => "no pool is configured".to_owned(),
            names => format!("{} are there", listed(names).replace(" or ", " and ")),
        };
        let mistake = sink.error(text.span.clone(), title, label);
        match nearest(text.value, &names) {
            Some(meant) => mistake.help(format!("did you mean {}?", quoted(meant))),
            None => mistake.help(format!(
                "add [pool.{}] with networks = [\"10.99.0.0/24\"]",
                text.value.escape_debug()
            )),
        };
    }
    found
}
