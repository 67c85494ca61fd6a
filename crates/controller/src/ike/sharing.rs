//! Which tunnels use an IKE SA together (RFC 7296 §1.3.1: an IKE SA carries any number of Child
//! SAs). Tunnels of the configuration that have the same peer in the same way are siblings
//! ([`TunnelConfig::shares_peer_with`]); one of them makes the IKE SA and is its owner, the others
//! join it as guests, by a wish of this end or because the peer asks for a Child SA of theirs.
//!
//! [`TunnelConfig::shares_peer_with`]: crate::config::TunnelConfig::shares_peer_with

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Timestamp;
use crate::config::{Identity, TunnelConfig};

use super::endpoint::Endpoint;
use super::payloads::Payloads;
use super::sa::{IkeSa, Order};
use super::{CloseReason, IkeEvent, IkeOutput, IkeSaId, TunnelId, selectors};

/// The tunnels that use an IKE SA beside its owner. Bounded by the configuration: a tunnel is a
/// guest of an IKE SA once.
#[derive(Debug, Default)]
pub(super) struct Guests(BTreeMap<IkeSaId, Vec<TunnelId>>);

impl Guests {
    /// True when the tunnel was none yet.
    pub(super) fn add(&mut self, sa: IkeSaId, tunnel: TunnelId) -> bool {
        let guests = self.0.entry(sa).or_default();
        let is_new = !guests.contains(&tunnel);
        if is_new {
            guests.push(tunnel);
        }
        is_new
    }

    pub(super) fn of(&self, sa: IkeSaId) -> &[TunnelId] {
        self.0.get(&sa).map_or(&[], Vec::as_slice)
    }

    fn remove(&mut self, sa: IkeSaId, tunnel: TunnelId) {
        if let Some(guests) = self.0.get_mut(&sa) {
            guests.retain(|guest| *guest != tunnel);
            if guests.is_empty() {
                self.0.remove(&sa);
            }
        }
    }

    /// All of them: the IKE SA is over.
    pub(super) fn dismiss(&mut self, sa: IkeSaId) -> Vec<TunnelId> {
        self.0.remove(&sa).unwrap_or_default()
    }
}

/// The siblings of each tunnel that has some.
pub(super) fn siblings(
    tunnels: &BTreeMap<TunnelId, Arc<TunnelConfig>>,
) -> BTreeMap<TunnelId, Vec<TunnelId>> {
    let mut groups: BTreeMap<(&Identity, &Identity), Vec<(TunnelId, &TunnelConfig)>> =
        BTreeMap::new();
    for (id, config) in tunnels {
        let ids = (&config.local.id, &config.remote.id);
        groups.entry(ids).or_default().push((*id, config));
    }
    let mut siblings = BTreeMap::new();
    for group in groups.values().filter(|group| group.len() > 1) {
        for (id, config) in group {
            let others: Vec<TunnelId> = group
                .iter()
                .filter(|(other, with)| other != id && config.shares_peer_with(with))
                .map(|(other, _)| *other)
                .collect();
            if !others.is_empty() {
                siblings.insert(*id, others);
            }
        }
    }
    siblings
}

/// How well an offer's selectors fit a tunnel: not at all, in part, as configured.
pub(super) fn closeness(config: &TunnelConfig, payloads: &Payloads) -> u8 {
    let (Some(theirs), Some(ours)) = (&payloads.selectors_initiator, &payloads.selectors_responder)
    else {
        return 0;
    };
    let common_theirs = selectors::narrow(theirs, &config.remote_traffic);
    let common_ours = selectors::narrow(ours, &config.local_traffic);
    if common_theirs.is_empty() || common_ours.is_empty() {
        0
    } else if common_theirs == *theirs && common_ours == *ours {
        2
    } else {
        1
    }
}

impl Endpoint {
    /// Makes a tunnel a user of its siblings' newest IKE SA, if that is newer than `than`. The
    /// tunnel hears [`IkeEvent::Joined`] once both ends are authenticated, or `Closed`.
    pub(crate) fn join(&mut self, tunnel: TunnelId, than: Option<IkeSaId>) -> Option<IkeSaId> {
        let siblings = self.pad.siblings(tunnel);
        if siblings.is_empty() {
            return None;
        }
        let (sa, peer, until) = self
            .sas
            .iter()
            .rev()
            .take_while(|(id, _)| than.is_none_or(|than| **id > than))
            .find_map(|(id, slot)| {
                let name = slot.sa.name()?;
                let with_sibling = siblings.contains(&name.tunnel);
                with_sibling.then(|| (*id, slot.sa.peer(), slot.sa.authenticated_until()))
            })?;
        self.guests.add(sa, tunnel);
        if let Some(peer) = peer {
            let limited = until.map(IkeEvent::AuthenticatedUntil);
            let events = [IkeEvent::Joined(peer)].into_iter().chain(limited);
            let outputs = events.map(|event| IkeOutput::Event { sa, tunnel, event });
            self.outputs.extend(outputs);
        }
        Some(sa)
    }

    /// Whether other tunnels use the IKE SA as well.
    pub(crate) fn is_shared(&self, sa: IkeSaId) -> bool {
        !self.guests.of(sa).is_empty()
    }

    /// The tunnel has no more use for an IKE SA: its Child SAs there are deleted, and the IKE SA
    /// with them if nobody else uses it. Ends in `Closed`: `Asked`, or `Left`.
    pub(crate) fn leave(&mut self, sa: IkeSaId, tunnel: TunnelId, now: Timestamp) {
        let Some(owner) = self.sas.get(&sa).and_then(|slot| slot.sa.name()) else {
            return;
        };
        let heir = self.guests.of(sa).first().copied();
        let established = self.is_established(sa);
        let stays = if owner.tunnel == tunnel {
            // What is being negotiated is for the owner: its guests begin anew.
            heir.is_some() && established
        } else {
            true
        };
        if !stays {
            self.close(sa, now);
            return;
        }
        if owner.tunnel == tunnel
            && let Some(heir) = heir
        {
            self.guests.remove(sa, heir);
            let config = self.pad.tunnel(heir).map(Arc::clone);
            self.step(sa, now, |sa, _| match sa {
                IkeSa::Established(mut it) => {
                    it.name.tunnel = heir;
                    if let Some(config) = config {
                        it.config = config;
                    }
                    Some(IkeSa::Established(it))
                }
                other => Some(other),
            });
        } else {
            self.guests.remove(sa, tunnel);
        }
        let event = IkeEvent::Closed(CloseReason::Left);
        self.outputs
            .push_back(IkeOutput::Event { sa, tunnel, event });
        self.step(sa, now, |sa, ctx| sa.obey(ctx, Order::Leave(tunnel)));
    }

    /// Drops the IKE SA without a message: the peer has forgotten it. Its users but `by` hear that.
    pub(crate) fn forget(&mut self, sa: IkeSaId, by: TunnelId) {
        let owner = self.sas.get(&sa).and_then(|slot| slot.sa.name());
        self.take(sa);
        let users = owner.map(|name| name.tunnel).into_iter();
        for tunnel in users
            .chain(self.guests.dismiss(sa))
            .filter(|user| *user != by)
        {
            let reason = CloseReason::Failed("the peer started anew".to_owned());
            let event = IkeEvent::Closed(reason);
            self.outputs
                .push_back(IkeOutput::Event { sa, tunnel, event });
        }
    }

    /// The peer has no other IKE SA than this one (INITIAL_CONTACT, RFC 7296 §2.4): those of the
    /// tunnel's siblings are dead too.
    pub(crate) fn forget_siblings(&mut self, sa: IkeSaId, tunnel: TunnelId) {
        let siblings = self.pad.siblings(tunnel).iter();
        let theirs = siblings.flat_map(|sibling| self.established_of(*sibling));
        let dead: Vec<IkeSaId> = theirs.filter(|id| *id != sa).collect();
        for id in dead {
            self.forget(id, tunnel);
        }
    }

    /// Whether a sibling of the tunnel has an IKE SA with their peer, or is about to.
    pub(super) fn sibling_is_connected(&self, tunnel: TunnelId) -> bool {
        let siblings = self.pad.siblings(tunnel);
        let mut names = self.sas.values().filter_map(|slot| slot.sa.name());
        !siblings.is_empty() && names.any(|name| siblings.contains(&name.tunnel))
    }
}
