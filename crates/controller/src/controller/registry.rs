//! The tunnels of a controller, and how each of them is found: by its timer, by what the kernel or a
//! ping reply names, by its name. No input is shown to a tunnel that it does not concern, so that a
//! host with thousands of tunnels works as much for one of them as a host with one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::config::{Addressing, TunnelName};
use crate::ike::TunnelId;
use crate::io::{Output, PingNonce, PolicyKey, SaId};
use crate::tunnel::Tunnel;
use crate::{REQIDS, Timestamp};

use crate::tunnel::policies::Reqids;

/// How long the reply to a ping may take to be recognised. Twice the longest `ping.interval`.
const PING_MEMORY: Duration = Duration::from_secs(120);

/// A tunnel, and what the indexes know of it.
struct Slot {
    tunnel: Tunnel,
    due: Option<Timestamp>,
    sas: Vec<SaId>,
    /// Keys in the index that the tunnel may have given up since (virtual addresses come and go).
    policies: Vec<PolicyKey>,
}

/// All tunnels.
#[derive(Default)]
pub(super) struct Registry {
    slots: BTreeMap<TunnelId, Slot>,
    names: BTreeMap<TunnelName, TunnelId>,
    timers: BTreeSet<(Timestamp, TunnelId)>,
    sas: BTreeMap<SaId, TunnelId>,
    /// By each tunnel's first reqid.
    reqids: BTreeMap<u32, TunnelId>,
    policies: BTreeMap<PolicyKey, TunnelId>,
    pings: BTreeMap<PingNonce, (Timestamp, TunnelId)>,
    /// The same, oldest first.
    pings_by_age: BTreeSet<(Timestamp, PingNonce)>,
    /// Who asked for the host's source address towards a destination, in the order of the answers.
    seeking_source: BTreeMap<IpAddr, VecDeque<TunnelId>>,
}

impl Registry {
    pub(super) fn insert(&mut self, id: TunnelId, tunnel: Tunnel) {
        self.names.insert(tunnel.config.name.clone(), id);
        self.reqids.insert(tunnel.reqids().child, id);
        let policies = tunnel.policy_keys();
        for key in &policies {
            self.policies.insert(*key, id);
        }
        let may_change = tunnel.config.addressing != Addressing::Configured;
        let slot = Slot {
            tunnel,
            due: None,
            sas: Vec::new(),
            policies: if may_change { policies } else { Vec::new() },
        };
        self.slots.insert(id, slot);
        self.refresh(id);
    }

    pub(super) fn remove(&mut self, id: TunnelId) {
        let Some(slot) = self.slots.remove(&id) else {
            return;
        };
        self.names.remove(&slot.tunnel.config.name);
        self.reqids.remove(&slot.tunnel.reqids().child);
        for key in slot.tunnel.policy_keys() {
            // A successor may have taken it over.
            if self.policies.get(&key) == Some(&id) {
                self.policies.remove(&key);
            }
        }
        disown(&mut self.sas, &slot.sas, id);
        if let Some(due) = slot.due {
            self.timers.remove(&(due, id));
        }
    }

    pub(super) fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.slots.get(&id).map(|slot| &slot.tunnel)
    }

    /// The tunnel itself. [`Self::refresh`] must follow whatever is done to it.
    pub(super) fn get_mut(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        self.slots.get_mut(&id).map(|slot| &mut slot.tunnel)
    }

    pub(super) fn ids(&self) -> Vec<TunnelId> {
        self.slots.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.slots.iter().map(|(id, slot)| (*id, &slot.tunnel))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Tunnel> {
        self.slots.values().map(|slot| &slot.tunnel)
    }

    /// Brings the indexes up to date with a tunnel that something was done to.
    pub(super) fn refresh(&mut self, id: TunnelId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let due = slot.tunnel.next_timeout();
        if due != slot.due {
            if let Some(due) = slot.due {
                self.timers.remove(&(due, id));
            }
            if let Some(due) = due {
                self.timers.insert((due, id));
            }
            slot.due = due;
        }
        if slot.tunnel.take_policies_changed() {
            for key in std::mem::take(&mut slot.policies) {
                // An heir may have it already.
                if self.policies.get(&key) == Some(&id) {
                    self.policies.remove(&key);
                }
            }
            slot.policies = slot.tunnel.policy_keys();
            for key in &slot.policies {
                self.policies.insert(*key, id);
            }
        }
        if !slot.tunnel.sas().eq(slot.sas.iter().copied()) {
            disown(&mut self.sas, &slot.sas, id);
            slot.sas = slot.tunnel.sas().collect();
            for sa in &slot.sas {
                // The kernel refuses the second of two equal ones: the first stays its owner.
                self.sas.entry(*sa).or_insert(id);
            }
        }
    }

    /// Remembers who will want to hear of what these effects bring back.
    pub(super) fn note<'a>(
        &mut self,
        id: TunnelId,
        effects: impl Iterator<Item = &'a Output>,
        now: Timestamp,
    ) {
        for effect in effects {
            match effect {
                Output::Ping(ping) => {
                    self.pings.insert(ping.nonce, (now, id));
                    self.pings_by_age.insert((now, ping.nonce));
                }
                Output::FindSource(destination) => {
                    self.seeking_source
                        .entry(*destination)
                        .or_default()
                        .push_back(id);
                }
                Output::Datagram(_)
                | Output::Keepalive { .. }
                | Output::Xfrm(..)
                | Output::AddRoute(_)
                | Output::RemoveRoute(_)
                | Output::AddAddress(_)
                | Output::RemoveAddress(_)
                | Output::Resolver(_)
                | Output::Event(_)
                | Output::Answer(..)
                | Output::Wait(..) => {}
            }
        }
        while let Some(&(at, nonce)) = self.pings_by_age.first()
            && now.since(at) > PING_MEMORY
        {
            self.pings_by_age.pop_first();
            self.pings.remove(&nonce);
        }
    }

    /// Who sent this ping.
    pub(super) fn with_ping(&self, nonce: PingNonce) -> Option<TunnelId> {
        self.pings.get(&nonce).map(|(_, id)| *id)
    }

    /// It was answered.
    pub(super) fn forget_ping(&mut self, nonce: PingNonce) {
        if let Some((at, _)) = self.pings.remove(&nonce) {
            self.pings_by_age.remove(&(at, nonce));
        }
    }

    /// Who asked first for the source address towards `destination`: each question is answered.
    pub(super) fn take_seeker(&mut self, destination: IpAddr) -> Option<TunnelId> {
        let seekers = self.seeking_source.get_mut(&destination)?;
        let first = seekers.pop_front();
        if seekers.is_empty() {
            self.seeking_source.remove(&destination);
        }
        first
    }

    pub(super) fn named(&self, name: &TunnelName) -> Option<TunnelId> {
        self.names.get(name).copied()
    }

    pub(super) fn with_sa(&self, sa: SaId) -> Option<TunnelId> {
        self.sas.get(&sa).copied()
    }

    pub(super) fn with_policy(&self, key: PolicyKey) -> Option<TunnelId> {
        self.policies.get(&key).copied()
    }

    pub(super) fn with_hold_reqid(&self, reqid: u32) -> Option<TunnelId> {
        let id = *self.reqids.get(&reqid.checked_sub(1)?)?;
        let reqids = self.get(id)?.reqids();
        (reqids.hold == reqid).then_some(id)
    }

    /// Reqids that follow from the tunnel's name, so that a restarted daemon finds them again; the
    /// next free ones where two names meet.
    pub(super) fn free_reqids(&self, name: &TunnelName) -> Reqids {
        let pairs = (REQIDS.end() - REQIDS.start()) / 2;
        let first = fnv1a(name.0.as_bytes()) % pairs;
        let child = (0..pairs)
            .map(|step| REQIDS.start() + 2 * ((first + step) % pairs))
            .find(|reqid| !self.reqids.contains_key(reqid))
            .unwrap_or(*REQIDS.start());
        Reqids {
            child,
            hold: child + 1,
        }
    }

    /// When the earliest of them wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<TunnelId> {
        self.timers
            .iter()
            .take_while(|(due, _)| *due <= now)
            .map(|(_, id)| *id)
            .collect()
    }
}

/// Takes a tunnel's SAs out of the index, but for what is another's.
fn disown(index: &mut BTreeMap<SaId, TunnelId>, sas: &[SaId], owner: TunnelId) {
    for sa in sas {
        if index.get(sa) == Some(&owner) {
            index.remove(sa);
        }
    }
}

/// FNV-1a, 32 bits: spreads names over the reqids.
fn fnv1a(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |hash, octet| {
        (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
    })
}
