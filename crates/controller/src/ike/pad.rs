//! The peer authorization database (RFC 4301 §4.4.3): who may be a peer, how it proves it, and what
//! it may have. Indexed, since a gateway looks into it for each datagram of a stranger.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use epochgate_ike_wire::Identity as WireIdentity;

use crate::config::TunnelConfig;

use super::{TunnelId, identity, sharing};

/// Tunnels and the peers that they admit.
#[derive(Debug, Default)]
pub(super) struct Pad {
    tunnels: BTreeMap<TunnelId, Arc<TunnelConfig>>,
    /// The address that each tunnel's peer is told to ping.
    pub(super) announcements: BTreeMap<TunnelId, IpAddr>,
    /// The addresses that each tunnel's server assigned last.
    addresses: BTreeMap<TunnelId, Vec<IpAddr>>,
    /// The addresses of this host.
    host_addresses: Vec<IpAddr>,
    /// By the peer's address (`None`: any), of the tunnels for which IKE_SA_INIT is answered alike
    /// only the first.
    distinct: BTreeMap<Option<IpAddr>, Vec<TunnelId>>,
    /// By the peer's address and identity.
    peers: BTreeMap<(Option<IpAddr>, identity::Key), Vec<TunnelId>>,
    /// Tunnels to the same peer, which share IKE SAs: only where there are some.
    siblings: BTreeMap<TunnelId, Vec<TunnelId>>,
}

impl Pad {
    /// Replaces all tunnels. Announcements of those that are gone are forgotten.
    pub(super) fn configure(&mut self, tunnels: BTreeMap<TunnelId, Arc<TunnelConfig>>) {
        self.announcements
            .retain(|tunnel, _| tunnels.contains_key(tunnel));
        self.addresses
            .retain(|tunnel, _| tunnels.contains_key(tunnel));
        self.distinct.clear();
        self.peers.clear();
        for (id, config) in &tunnels {
            let remote = config.remote.address;
            self.peers
                .entry((remote, identity::key(&config.remote.id)))
                .or_default()
                .push(*id);
            let distinct = self.distinct.entry(remote).or_default();
            let is_known = distinct
                .iter()
                .filter_map(|known| tunnels.get(known))
                .any(|known| is_answered_alike(known, config));
            if !is_known {
                distinct.push(*id);
            }
        }
        self.siblings = sharing::siblings(&tunnels);
        self.tunnels = tunnels;
    }

    /// The addresses of this host are these now.
    pub(super) fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.host_addresses = addresses;
    }

    /// The addresses of this host.
    pub(super) fn host_addresses(&self) -> &[IpAddr] {
        &self.host_addresses
    }

    /// Gives one tunnel other networks; nothing else of it changes.
    pub(super) fn set_traffic(&mut self, id: TunnelId, config: Arc<TunnelConfig>) {
        if let Some(known) = self.tunnels.get_mut(&id) {
            *known = config;
        }
    }

    /// Remembers what a tunnel's server assigned.
    pub(super) fn set_addresses(&mut self, id: TunnelId, addresses: Vec<IpAddr>) {
        self.addresses.insert(id, addresses);
    }

    /// What the tunnel's server assigned last.
    pub(super) fn addresses(&self, id: TunnelId) -> &[IpAddr] {
        self.addresses.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn tunnel(&self, id: TunnelId) -> Option<&Arc<TunnelConfig>> {
        self.tunnels.get(&id)
    }

    /// The tunnels that share their IKE SAs with this one.
    pub(super) fn siblings(&self, id: TunnelId) -> &[TunnelId] {
        self.siblings.get(&id).map_or(&[], Vec::as_slice)
    }

    /// What IKE_SA_INIT of a peer at `remote` which reached us at `local` may agree to, tunnels that
    /// name the peer's address first.
    pub(super) fn distinct(
        &self,
        local: IpAddr,
        remote: IpAddr,
    ) -> impl Iterator<Item = (TunnelId, &Arc<TunnelConfig>)> {
        let at = move |remote| self.distinct.get(&remote).into_iter().flatten();
        self.configs(at(Some(remote)).chain(at(None)), local)
    }

    /// Tunnels whose peer has this identity, at `remote`, reaching us at `local`; those that name
    /// its address first.
    pub(super) fn peers(
        &self,
        local: IpAddr,
        remote: IpAddr,
        said: &WireIdentity,
    ) -> impl Iterator<Item = (TunnelId, &Arc<TunnelConfig>)> {
        let key = identity::wire_key(said);
        let at = |remote| {
            let key = key.clone()?;
            self.peers.get(&(remote, key))
        };
        let (named, any) = (at(Some(remote)), at(None));
        self.configs(named.into_iter().chain(any).flatten(), local)
    }

    fn configs<'a>(
        &'a self,
        ids: impl Iterator<Item = &'a TunnelId>,
        local: IpAddr,
    ) -> impl Iterator<Item = (TunnelId, &'a Arc<TunnelConfig>)> {
        ids.filter_map(|id| self.tunnels.get(id).map(|config| (*id, config)))
            .filter(move |(_, config)| config.local.address.is_none_or(|address| address == local))
    }
}

/// Whether two tunnels give the same answer to every IKE_SA_INIT request.
fn is_answered_alike(one: &TunnelConfig, other: &TunnelConfig) -> bool {
    one.local.address == other.local.address
        && one.ike == other.ike
        && one.nat_traversal == other.nat_traversal
}
