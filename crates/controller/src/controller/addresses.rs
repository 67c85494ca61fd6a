//! Virtual addresses between tunnels: a pool's address goes from a peer that is away to one that
//! wants it, and what an earlier run left on the host goes to the tunnel that it was for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Controller;
use crate::config::{Config, TunnelName};
use crate::ike::TunnelId;
use crate::io::{AddressSpec, PolicyKey, XfrmOp};
use crate::outbox::Owner;

impl Controller {
    /// A tunnel's peer was refused for want of an address: gives it one that is free by now, or that
    /// of a peer which is not there, so that it gets it when it comes again.
    pub(super) fn find_address(&mut self, wanting: TunnelId) {
        let Some(tunnel) = self.tunnels.get(wanting).filter(|it| it.is_present()) else {
            return;
        };
        let config = std::sync::Arc::clone(&tunnel.configured);
        let has = tunnel.virtual_addresses();
        for ipv4 in [true, false] {
            if has.iter().any(|address| address.is_ipv4() == ipv4) {
                continue;
            }
            if let Some(address) = self.leases.take_one(wanting, &config, ipv4, &self.host) {
                self.grant(wanting, address, &BTreeSet::new());
                continue;
            }
            let idle = self
                .leases
                .holders(&config, ipv4)
                .filter_map(|(address, holder)| Some((address, holder, self.tunnels.get(holder)?)))
                .filter(|(_, holder, tunnel)| *holder != wanting && tunnel.is_idle());
            // Rather that of a peer which never came.
            let spare = idle.min_by_key(|(_, holder, tunnel)| (tunnel.was_contacted(), *holder));
            if let Some((address, holder, _)) = spare {
                self.hand_over(holder, wanting, address);
            }
        }
    }

    /// Not for a moment is the address without a policy.
    fn hand_over(&mut self, from: TunnelId, to: TunnelId, address: IpAddr) {
        let surrendered = self.with_tunnel(from, |tunnel, cx| tunnel.surrender(address, cx));
        self.leases.hand_over(address, to);
        self.grant(to, address, &surrendered.unwrap_or_default());
    }

    fn grant(&mut self, to: TunnelId, address: IpAddr, ours: &BTreeSet<PolicyKey>) {
        let kept = self.with_tunnel(to, |tunnel, cx| {
            tunnel.grant(address, ours, cx);
            tunnel.policy_keys()
        });
        let kept: BTreeSet<PolicyKey> = kept.into_iter().flatten().collect();
        let stale: Vec<PolicyKey> = ours.difference(&kept).copied().collect();
        if !stale.is_empty() {
            self.out.xfrm(Owner::Nobody, XfrmOp::RemovePolicies(stale));
        }
    }

    /// Virtual addresses do not tell whose they were: where one tunnel alone asks for some, they are
    /// its, and it asks for the same again. Else they belong to none.
    pub(super) fn owner_of_left_addresses(
        &mut self,
        config: &Config,
    ) -> BTreeMap<TunnelName, BTreeSet<AddressSpec>> {
        let left = std::mem::take(&mut self.left_addresses);
        let mut asking = config
            .tunnels
            .iter()
            .filter(|tunnel| tunnel.addressing.request().is_some());
        let owner = match (asking.next(), asking.next()) {
            (Some(only), None) => only.name.clone(),
            (_, _) => TunnelName("".into()),
        };
        if left.is_empty() {
            return BTreeMap::new();
        }
        BTreeMap::from([(owner, left)])
    }
}
