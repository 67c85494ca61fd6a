//! A compact index of the SPD, to find the policies that lead to an SA.

use std::net::IpAddr;

use epochgate_xfrm::{Policy, PolicyDirection, Selector, Template};

use super::matching::{self, Ends, PolicyTraits, SaTraits};
use super::{Budget, room_for};

/// Policies that lead to an SA and are remembered; the others are counted.
const LEADS_KEPT: usize = 8;

/// A policy that leads to an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) direction: PolicyDirection,
    pub(crate) selector: Selector,
    pub(crate) priority: u32,
    pub(crate) index: u32,
    /// A template pins the SA's SPI.
    pub(crate) pinned: bool,
}

/// The policies that lead to an SA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leads {
    /// The first ones.
    pub(crate) first: Vec<Lead>,
    /// How many let in what came through it.
    pub(crate) inbound: u64,
    /// How many may send through it.
    pub(crate) outbound: u64,
    /// Not all were looked at.
    pub(crate) incomplete: bool,
}

impl Leads {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.inbound + self.outbound
    }

    fn add(&mut self, entry: &Entry) {
        match entry.policy.looks_for_sas() {
            true => self.outbound += 1,
            false => self.inbound += 1,
        }
        if self.first.len() < LEADS_KEPT {
            let policy = &entry.policy;
            self.first.push(Lead {
                direction: policy.direction,
                selector: policy.selector,
                priority: policy.priority,
                index: policy.index,
                pinned: entry.template.spi.is_some(),
            });
        }
    }
}

/// A template of a policy.
#[derive(Debug)]
struct Entry {
    key: Key,
    policy: PolicyTraits,
    template: Template,
    ends: Ends,
}

/// What is compared for equality: whether it looks for SAs, its reqid, and the outbound
/// destination or inbound source where there is one.
type Key = (bool, u32, Option<IpAddr>);

/// The templates of the SPD.
#[derive(Debug, Default)]
pub(crate) struct PolicyIndex {
    entries: Vec<Entry>,
    pub(crate) budget: Budget,
}

impl PolicyIndex {
    /// An index with room for so many policies.
    pub(crate) fn for_entries(count: u64) -> Self {
        Self {
            entries: Vec::with_capacity(room_for(count)),
            ..Self::default()
        }
    }

    /// Takes a policy in; [`PolicyIndex::sorted`] comes after the last one.
    pub(crate) fn add(&mut self, policy: &Policy) {
        let traits = PolicyTraits::from(policy);
        for (place, template) in policy.templates.iter().enumerate() {
            let ends = Ends::of(&policy.templates, place);
            let has_source = !template.source.is_unspecified() && template.mode.number() != 0;
            let address = match (traits.looks_for_sas(), ends) {
                (true, Ends::Fixed(_, destination)) => Some(destination),
                (true, Ends::OfPacket) => None,
                (false, _) => has_source.then_some(template.source),
            };
            self.entries.push(Entry {
                key: (traits.looks_for_sas(), template.reqid.0, address),
                policy: traits,
                template: *template,
                ends,
            });
        }
    }

    /// The index, ready to be asked.
    pub(crate) fn sorted(mut self) -> Self {
        // A stable sort would need as much memory again.
        self.entries
            .sort_unstable_by_key(|entry| (entry.key, entry.policy.index));
        self
    }

    /// The policies that lead to an SA.
    pub(crate) fn leads_to(&self, sa: &SaTraits) -> Leads {
        let mut leads = Leads::default();
        if !sa.is_larval() {
            self.inbound(sa, &mut leads);
        }
        for address in [Some(sa.destination), None] {
            for entry in self.range((true, sa.reqid, address)) {
                if !self.budget.spend() {
                    leads.incomplete = true;
                    return leads;
                }
                if matching::fits_outbound(sa, &entry.template, entry.ends, &entry.policy) {
                    leads.add(entry);
                }
            }
        }
        leads
    }

    fn inbound(&self, sa: &SaTraits, leads: &mut Leads) {
        let reqids = if sa.reqid == 0 {
            &[0][..]
        } else {
            &[sa.reqid, 0]
        };
        for reqid in reqids {
            for address in [Some(sa.source), None] {
                for entry in self.range((false, *reqid, address)) {
                    if !self.budget.spend() {
                        leads.incomplete = true;
                        return;
                    }
                    if matching::passes_inbound(sa, &entry.template, &entry.policy) {
                        leads.add(entry);
                    }
                }
            }
        }
    }

    fn range(&self, key: Key) -> &[Entry] {
        let from = self.entries.partition_point(|entry| entry.key < key);
        let to = self.entries.partition_point(|entry| entry.key <= key);
        self.entries.get(from..to).unwrap_or_default()
    }
}
