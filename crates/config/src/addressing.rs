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

/// All pools.
pub(crate) struct Pools {
    by_name: BTreeMap<String, ReadPool>,
    /// There are no others: nothing was reported that may have been meant to be one.
    are_all: bool,
}

struct ReadPool {
    pool: Arc<Pool>,
    /// None of its networks was reported.
    is_whole: bool,
}

/// The side of a tunnel's traffic that is assigned: what `traffic` may not name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assigned {
    Neither,
    Local,
    Remote,
    /// It depends on what was reported.
    Unknown,
}

/// A tunnel's virtual addresses, and where they are asked for.
pub(crate) struct Virtual {
    pub(crate) addressing: Addressing,
    pub(crate) span: Span,
    assigned: Assigned,
    /// The IP versions of the addresses are known: nothing that says them was reported.
    knows_versions: bool,
}

impl Virtual {
    /// Whether this side of the traffic is assigned. `None`: it depends on what was reported.
    pub(crate) fn assigns(&self, side: &str) -> Option<bool> {
        match self.assigned {
            Assigned::Neither => Some(false),
            Assigned::Local => Some(side == "local"),
            Assigned::Remote => Some(side == "remote"),
            Assigned::Unknown => None,
        }
    }

    /// Everything of the IP versions that this side may get addresses of. `None`: that depends on
    /// what was reported.
    pub(crate) fn everything(&self) -> Option<Vec<At<IpNet>>> {
        if !self.knows_versions {
            return None;
        }
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
        Some(networks.into_iter().map(at).collect())
    }
}

/// Reads `[pool.NAME]`, all of them.
pub(crate) fn read_pools(root: &Section<'_>, sink: &mut Sink) -> Pools {
    let mut by_name = BTreeMap::new();
    let mut all: Vec<(At<IpNet>, String)> = Vec::new();
    let pools = root.section("pool", sink);
    for (name, section) in pools.named(sink) {
        let before = sink.count();
        let networks = read_networks(&section, sink);
        let is_whole = sink.count() == before && !networks.is_empty();
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
        let pool = Arc::new(pool);
        by_name.insert(name.value.to_owned(), ReadPool { pool, is_whole });
    }
    Pools {
        by_name,
        are_all: !pools.is_wrong() && !root.may_mean("pool"),
    }
}

fn read_networks(section: &Section<'_>, sink: &mut Sink) -> Vec<At<IpNet>> {
    let Some(texts) = section.texts("networks", sink) else {
        if !section.has("networks") {
            section.missing("networks", "networks = [\"10.99.0.0/24\"]", sink);
        }
        return Vec::new();
    };
    if texts.list.is_empty() && texts.is_whole {
        sink.error(texts.span, "a pool without networks", "none")
            .help("for example [\"10.99.0.0/24\"]");
        return Vec::new();
    }
    if texts.list.len() > POOL_NETWORKS_MAX {
        let title = format!("more than {POOL_NETWORKS_MAX} networks in a pool");
        sink.error(texts.span, title, "name wider ones");
    }
    let mut networks: Vec<At<IpNet>> = Vec::new();
    for text in texts.list.iter().take(POOL_NETWORKS_MAX) {
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
    if texts.list.len() > POOL_DNS_MAX {
        let title = format!("more than {POOL_DNS_MAX} DNS servers");
        sink.error(texts.span, title, "clients keep no more");
    }
    let read = |text| values::address(text, sink);
    let first = texts.list.iter().take(POOL_DNS_MAX);
    first.filter_map(read).collect()
}

fn read_domains(section: &Section<'_>, sink: &mut Sink) -> Vec<String> {
    let Some(texts) = section.texts("domains", sink) else {
        return Vec::new();
    };
    if texts.list.len() > POOL_DOMAINS_MAX {
        let title = format!("more than {POOL_DOMAINS_MAX} domains");
        sink.error(texts.span, title, "clients keep no more");
    }
    let mut domains = Vec::new();
    for text in texts.list.into_iter().take(POOL_DOMAINS_MAX) {
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

/// Reads the section `virtual` of the tunnel whose other keys are in `tunnel`.
pub(crate) fn read(
    tunnel: &Section<'_>,
    role: Option<Role>,
    start: Option<&At<Start>>,
    pools: &Pools,
    sink: &mut Sink,
) -> Virtual {
    let section = tunnel.section("virtual", sink);
    let mut virtual_addresses = Virtual {
        addressing: Addressing::Configured,
        span: section.span(),
        assigned: Assigned::Unknown,
        knows_versions: false,
    };
    if !section.is_present() {
        if !section.is_wrong() && !tunnel.may_mean("virtual") {
            virtual_addresses.assigned = Assigned::Neither;
        }
        return virtual_addresses;
    }
    let is_of_role = check_keys(&section, role, sink);
    match role {
        Some(Role::Client) => {
            let (request, knows_versions) = read_request(&section, sink);
            if is_of_role {
                check_start(&section, start, sink);
                virtual_addresses.addressing = Addressing::Request(request);
                virtual_addresses.assigned = Assigned::Local;
                virtual_addresses.knows_versions = knows_versions;
            }
        }
        Some(Role::Server) => {
            let named = find_pools(&section, pools, sink);
            if is_of_role {
                virtual_addresses.addressing = Addressing::Pools(named.found);
                virtual_addresses.assigned = Assigned::Remote;
                virtual_addresses.knows_versions = named.are_all;
            }
        }
        None => {
            read_request(&section, sink);
            find_pools(&section, pools, sink);
        }
    }
    virtual_addresses
}

/// What a client asks for, and whether its IP versions are known.
fn read_request(section: &Section<'_>, sink: &mut Sink) -> (AddressRequest, bool) {
    let families = read_families(section, sink);
    let asks = |family| families.as_ref().is_some_and(|all| all.contains(&family));
    let request = AddressRequest {
        ipv4: asks(Family::Ipv4),
        ipv6: asks(Family::Ipv6),
        interface: read_interface(section, sink),
    };
    (request, families.is_some())
}

/// A client asks, a server gives. False: the section says what the other one does.
fn check_keys(section: &Section<'_>, role: Option<Role>, sink: &mut Sink) -> bool {
    let asks = ["request", "interface"]
        .into_iter()
        .find(|key| section.has(key));
    match role {
        Some(Role::Client) if section.has("pools") => {
            let title = "a client has no pools to give addresses from";
            sink.error(section.span(), title, "`pools` here")
                .help("write request = [\"ipv4\"] to ask the server for an address");
            false
        }
        Some(Role::Client) => {
            if !section.has("request") {
                section.missing("request", "request = [\"ipv4\", \"ipv6\"]", sink);
            }
            true
        }
        Some(Role::Server) => {
            if let Some(key) = asks {
                let title = "a server does not ask for virtual addresses";
                sink.error(section.span(), title, format!("{} here", quoted(key)))
                    .help("write pools = [\"NAME\"] to give some to the client");
            } else if !section.has("pools") {
                section.missing("pools", "pools = [\"NAME\"]", sink);
            }
            asks.is_none()
        }
        None => true,
    }
}

/// Who asks for addresses must start by itself.
fn check_start(section: &Section<'_>, start: Option<&At<Start>>, sink: &mut Sink) {
    if let Some(at) = start
        && at.value == Start::OnDemand
        && section.has("request")
    {
        let title = "a tunnel with virtual addresses can't start on demand";
        sink.error(at.span.clone(), title, "starts at the first packet")
            .also(section.span(), "asks for its address")
            .help(
                "before it has started there is no address to send the first packet from: write \
                 start = \"always\"",
            );
    }
}

/// `None`: absent, or something was reported.
fn read_families(section: &Section<'_>, sink: &mut Sink) -> Option<Vec<Family>> {
    let texts = section.texts("request", sink)?;
    if texts.list.is_empty() && texts.is_whole {
        sink.error(texts.span, "no IP version is asked for", "empty")
            .help("for example [\"ipv4\", \"ipv6\"]");
        return None;
    }
    let mut families = Vec::new();
    let mut is_whole = texts.is_whole;
    for text in texts.list {
        match FAMILIES.0.iter().find(|(word, _)| *word == text.value) {
            Some((_, family)) if families.contains(family) => {
                let title = format!("{} is named twice", text.value);
                sink.error(text.span, title, "here again");
            }
            Some((_, family)) => families.push(*family),
            None => {
                let title = format!("{} is no IP version", quoted(text.value));
                sink.error(text.span, title, "\"ipv4\" or \"ipv6\" is wanted");
                is_whole = false;
            }
        }
    }
    is_whole.then_some(families)
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

/// The pools that a list names.
struct NamedPools {
    found: Vec<Arc<Pool>>,
    /// Nothing of the list or of its pools was reported.
    are_all: bool,
}

fn find_pools(section: &Section<'_>, pools: &Pools, sink: &mut Sink) -> NamedPools {
    let mut all = NamedPools {
        found: Vec::new(),
        are_all: false,
    };
    let Some(named) = section.texts("pools", sink) else {
        return all;
    };
    all.are_all = named.is_whole && !named.list.is_empty();
    if named.list.is_empty() && named.is_whole {
        sink.error(named.span.clone(), "no pool is named", "empty");
    }
    for text in &named.list {
        if let Some(read) = pools.by_name.get(text.value) {
            all.found.push(Arc::clone(&read.pool));
            all.are_all &= read.is_whole;
            continue;
        }
        all.are_all = false;
        if pools.are_all {
            refuse_unknown_pool(text, pools, sink);
        }
    }
    all
}

fn refuse_unknown_pool(text: &At<&str>, pools: &Pools, sink: &mut Sink) {
    let names: Vec<String> = pools.by_name.keys().cloned().collect();
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
