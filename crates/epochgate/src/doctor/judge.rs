//! What the facts mean. Pure: the same facts give the same findings.

mod firewall;
mod host;
mod kernel;
mod path;
mod policies;
mod settings;

use std::collections::BTreeSet;
use std::net::IpAddr;

use epochgate_controller::config::TunnelConfig;
use ipnet::IpNet;

use super::facts::{Facts, Network, Route};
use super::finding::Finding;

/// What somebody does who is not root and wants to know.
const AS_ROOT: &str = "sudo epochgate doctor";

/// Everything that is to be said, by topic.
pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    host::configuration(facts, &mut findings);
    kernel::judge(facts, &mut findings);
    host::privileges(facts, &mut findings);
    host::ports(facts, &mut findings);
    settings::judge(facts, &mut findings);
    firewall::judge(facts, &mut findings);
    path::judge(facts, &mut findings);
    policies::judge(facts, &mut findings);
    host::daemon(facts, &mut findings);
    findings.sort_by_key(|finding| finding.topic);
    // A setting of all interfaces is met at each of them.
    let mut said = BTreeSet::new();
    findings.retain(|finding| {
        said.insert((
            finding.check,
            finding.tunnel.clone(),
            finding.summary.clone(),
        ))
    });
    findings
}

impl Facts {
    fn tunnels(&self) -> impl Iterator<Item = &TunnelConfig> {
        self.configuration.tunnels.iter().map(AsRef::as_ref)
    }

    /// Whether the checks are about configured tunnels and not about tunnels in general.
    fn is_about_tunnels(&self) -> bool {
        !self.configuration.tunnels.is_empty()
    }

    /// Outer families: IPv4 (false) and IPv6 (true).
    fn outer_families(&self) -> BTreeSet<bool> {
        if !self.is_about_tunnels() {
            return [false].into();
        }
        let families = self.tunnels().map(outer_ipv6);
        families.collect()
    }
}

/// Whether a tunnel's outer addresses are of IPv6.
fn outer_ipv6(tunnel: &TunnelConfig) -> bool {
    let address = tunnel.remote.address.or(tunnel.local.address);
    address.is_some_and(|address| address.is_ipv6())
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

impl Network {
    fn route_to(&self, address: IpAddr) -> Option<&Route> {
        self.routes.get(&address)?.as_ref().ok()
    }

    /// The route to a network, by its first address.
    fn route_into(&self, network: IpNet) -> Option<&Route> {
        self.route_to(host_in(network))
    }

    /// Whether all of a network is this one host.
    fn is_own(&self, network: IpNet) -> bool {
        network.prefix_len() == network.max_prefix_len()
            && (self.addresses.contains(&network.addr()) || network.addr().is_loopback())
    }

    /// The interface by which a tunnel's ESP leaves.
    fn outer_interface(&self, tunnel: &TunnelConfig) -> Option<&str> {
        let route = self.route_to(tunnel.remote.address?)?;
        Some(&route.interface)
    }

    /// Interfaces that decide about a tunnel's packets, or about those of tunnels in general.
    fn interfaces_of(&self, tunnel: Option<&TunnelConfig>) -> BTreeSet<&str> {
        let Some(tunnel) = tunnel else {
            return self
                .default_routes
                .iter()
                .map(|(_, name)| &**name)
                .collect();
        };
        let inner = tunnel
            .remote_traffic
            .iter()
            .filter_map(|network| self.route_into(*network));
        let mut found: BTreeSet<&str> = inner.map(|route| &*route.interface).collect();
        match self.outer_interface(tunnel) {
            Some(outer) => {
                found.insert(outer);
            }
            // Any client, by any way that leads out.
            None => found.extend(self.default_routes.iter().map(|(_, name)| &**name)),
        }
        // What the daemon's own routes lead to is not there for others to set.
        found.remove("lo");
        found
    }
}

/// The first address of a network that a host could have; `collect` asks for the same.
fn host_in(network: IpNet) -> IpAddr {
    network.hosts().next().unwrap_or(network.addr())
}

/// Names with commas between.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
