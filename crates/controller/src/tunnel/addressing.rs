//! Virtual addresses (RFC 7296 §2.19): what a client's server assigned to it, what a server's pools
//! have leased to its client, and the policies that follow from that.
//!
//! A client knows its local side only once IKE_AUTH has ended. Until then, and for whatever else the
//! host sends, *guards* hold: `out` policies from any source to the remote networks, which are
//! never pinned to an epoch. What is assigned gets narrower policies, which come before them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::gate::Gate;
use super::policies::Policies;
use super::{Awaited, Context, Tunnel};
use crate::config::{Addressing, TunnelConfig};
use crate::event::EventKind;
use crate::ike::Assigned;
use crate::io::{AddressSpec, Output, PolicyKey, ResolverSpec, XfrmOp};
use crate::outbox::Owner;

/// A tunnel's configuration with these virtual addresses as the side that they belong to.
pub(super) fn with_addresses(
    configured: &Arc<TunnelConfig>,
    addresses: &[IpAddr],
) -> Arc<TunnelConfig> {
    let networks = || addresses.iter().copied().map(IpNet::from).collect();
    match configured.addressing {
        Addressing::Configured => Arc::clone(configured),
        Addressing::Request(_) => Arc::new(TunnelConfig {
            local_traffic: networks(),
            ..TunnelConfig::clone(configured)
        }),
        Addressing::Pools(_) => Arc::new(TunnelConfig {
            remote_traffic: networks(),
            ..TunnelConfig::clone(configured)
        }),
    }
}

impl Tunnel {
    /// What IKE negotiates by. A client's IKE_AUTH offers everything as its local side, whatever
    /// was assigned before, and lets the server narrow it.
    pub(crate) fn negotiated_by(&self) -> &Arc<TunnelConfig> {
        match self.configured.addressing {
            Addressing::Request(_) => &self.configured,
            Addressing::Configured | Addressing::Pools(_) => &self.config,
        }
    }

    /// The virtual addresses that the tunnel has now.
    pub(crate) fn virtual_addresses(&self) -> Vec<IpAddr> {
        let networks = match self.config.addressing {
            Addressing::Configured => return Vec::new(),
            Addressing::Request(_) => &self.config.local_traffic,
            Addressing::Pools(_) => &self.config.remote_traffic,
        };
        networks.iter().map(IpNet::addr).collect()
    }

    /// Addresses of its former configuration or an earlier run, which stay until the server has
    /// assigned others.
    pub(crate) fn inherit_addresses(&mut self, addresses: BTreeSet<AddressSpec>) {
        self.addresses = addresses;
    }

    /// Gives up the host's virtual addresses for whoever takes them over.
    pub(crate) fn take_addresses(&mut self) -> BTreeSet<AddressSpec> {
        std::mem::take(&mut self.addresses)
    }

    /// Asks for what it has had from now on.
    pub(super) fn remember_addresses(&self, cx: &mut Context<'_>) {
        if !self.addresses.is_empty() {
            let had = self.addresses.iter().map(|it| it.address).collect();
            cx.ike.set_addresses(self.id, had);
        }
    }

    /// The server assigned addresses, perhaps the same as before.
    pub(super) fn assigned(&mut self, assigned: Assigned, cx: &mut Context<'_>) {
        let Some(request) = self.configured.addressing.request() else {
            return;
        };
        if assigned.addresses.is_empty() || !matches!(self.gate, Gate::Present(_)) {
            return;
        }
        let interface: Arc<str> = request.interface.as_str().into();
        let spec = |&address: &IpAddr| AddressSpec {
            address,
            interface: Arc::clone(&interface),
        };
        let wanted: BTreeSet<AddressSpec> = assigned.addresses.iter().map(spec).collect();
        self.event(
            cx,
            None,
            EventKind::AddressesAssigned {
                addresses: assigned.addresses.clone(),
                dns: assigned.dns.clone(),
                domains: assigned.domains.clone(),
            },
        );
        if self.virtual_addresses() != assigned.addresses {
            let config = with_addresses(&self.configured, &assigned.addresses);
            self.retarget(config, &BTreeSet::new(), cx);
        }
        self.set_host_addresses(wanted, cx);
        self.remember_addresses(cx);
        self.tell_resolver(&assigned, cx);
        self.assigned = assigned;
        self.sync_routes(cx);
    }

    /// The host's addresses go with the tunnel's policies.
    pub(super) fn forget_addresses(&mut self, cx: &mut Context<'_>) {
        if self.configured.addressing.request().is_none() {
            return;
        }
        let config = with_addresses(&self.configured, &[]);
        self.replace_policies(config);
        self.set_host_addresses(BTreeSet::new(), cx);
        self.tell_resolver(&Assigned::default(), cx);
        self.assigned = Assigned::default();
    }

    fn set_host_addresses(&mut self, wanted: BTreeSet<AddressSpec>, cx: &mut Context<'_>) {
        for address in wanted.difference(&self.addresses) {
            cx.out.push(Output::AddAddress(address.clone()));
        }
        for address in self.addresses.difference(&wanted) {
            cx.out.push(Output::RemoveAddress(address.clone()));
        }
        self.addresses = wanted;
    }

    fn tell_resolver(&self, assigned: &Assigned, cx: &mut Context<'_>) {
        let same = |it: &Assigned| (it.dns.clone(), it.domains.clone());
        if same(assigned) != same(&self.assigned) {
            cx.out.push(Output::Resolver(ResolverSpec {
                tunnel: self.config.name.clone(),
                dns: assigned.dns.clone(),
                domains: assigned.domains.clone(),
            }));
        }
    }

    /// An address of this tunnel could not be added or removed.
    pub(crate) fn address_failed(
        &mut self,
        address: &AddressSpec,
        error: &str,
        cx: &mut Context<'_>,
    ) {
        if self.addresses.contains(address) {
            let text = format!(
                "the virtual address {} cannot be put on {}: {error}",
                address.address, address.interface
            );
            self.attention(text, cx);
        }
    }

    /// Whether nobody uses it, so that its peer's address may be given to another.
    pub(crate) fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.epochs.is_empty() && self.wishes.is_empty()
    }

    /// Whether its policies are in the kernel, so that they can be changed.
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.gate, Gate::Present(_))
    }

    /// Whether its peer has been there in this run.
    pub(crate) fn was_contacted(&self) -> bool {
        self.contacted
    }

    /// Its peer loses an address. Its policies stay in the kernel for the heir: they are returned.
    pub(crate) fn surrender(
        &mut self,
        address: IpAddr,
        cx: &mut Context<'_>,
    ) -> BTreeSet<PolicyKey> {
        let mut left = self.virtual_addresses();
        left.retain(|own| *own != address);
        let own = self.own_policies();
        if let Gate::Refused { left, .. } = &mut self.gate {
            left.clear();
        }
        self.replace_policies(with_addresses(&self.configured, &left));
        let kept: BTreeSet<PolicyKey> = self.policies.keys().into_iter().collect();
        cx.ike.set_traffic(self.id, Arc::clone(&self.config));
        self.sync_routes(cx);
        own.difference(&kept).copied().collect()
    }

    /// Its peer gets an address. `ours` are policies that are in the kernel already.
    pub(crate) fn grant(
        &mut self,
        address: IpAddr,
        ours: &BTreeSet<PolicyKey>,
        cx: &mut Context<'_>,
    ) {
        let mut addresses = self.virtual_addresses();
        addresses.push(address);
        self.retarget(with_addresses(&self.configured, &addresses), ours, cx);
        cx.ike.set_traffic(self.id, Arc::clone(&self.config));
        self.sync_routes(cx);
    }

    /// Changes the networks of a tunnel whose policies are in the kernel: new ones hold before old
    /// ones go. `ours` are there already.
    fn retarget(
        &mut self,
        config: Arc<TunnelConfig>,
        ours: &BTreeSet<PolicyKey>,
        cx: &mut Context<'_>,
    ) {
        let before: BTreeSet<PolicyKey> = self.policies.keys().into_iter().collect();
        self.replace_policies(config);
        let (update, create): (Vec<_>, Vec<_>) = self
            .policies
            .all_holding()
            .into_iter()
            .filter(|policy| !before.contains(&policy.key))
            .partition(|policy| ours.contains(&policy.key));
        let mut gone = before;
        for key in self.policies.keys() {
            gone.remove(&key);
        }
        if !update.is_empty() {
            let op = XfrmOp::UpdatePolicies(update);
            cx.out.xfrm(Owner::Tunnel(self.id, Awaited::Upkeep), op);
        }
        if !create.is_empty() {
            self.amending = create.iter().map(|policy| policy.key).collect();
            let op = XfrmOp::CreatePolicies(create);
            cx.out.xfrm(Owner::Tunnel(self.id, Awaited::Amendment), op);
        }
        if !gone.is_empty() {
            let op = XfrmOp::RemovePolicies(gone.into_iter().collect());
            cx.out.xfrm(Owner::Tunnel(self.id, Awaited::Tidying), op);
        }
    }

    fn replace_policies(&mut self, config: Arc<TunnelConfig>) {
        self.policies = Policies::new(&config, self.reqids);
        self.config = config;
        self.policies_changed = true;
    }

    /// Whether the policies are others than when this was asked last.
    pub(crate) fn take_policies_changed(&mut self) -> bool {
        std::mem::take(&mut self.policies_changed)
    }
}
