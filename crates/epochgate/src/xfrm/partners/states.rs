//! A compact index of the SAD, to find the SAs that a policy would use now.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::ControlFlow;

use epochgate_xfrm::{Policy, SaEntry, Template};

use super::matching::{self, Ends, PolicyTraits, SaTraits};
use super::{Budget, SaWay, room_for};

/// SPIs of an [`Outcome::Accepts`] that are remembered; the others are counted.
const SPIS_KEPT: usize = 4;

/// What the kernel would now do for one template of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Send through this SA, the newest that fits; so many others fit too.
    Uses {
        /// Its SPI.
        spi: u32,
        /// Others that fit.
        others: u64,
        /// Its soft limit is reached.
        dying: bool,
    },
    /// Let in what came through these SAs.
    Accepts {
        /// The SPIs of the first ones.
        spis: Vec<u32>,
        /// How many there are.
        count: u64,
    },
    /// Wait: a key daemon has been asked.
    Acquiring,
    /// Refuse (XfrmOutPolError): an SA has the pinned SPI, but does not fit.
    Refuses {
        /// The pinned SPI.
        spi: u32,
        /// The reqid of that SA, where it is not the template's.
        other_reqid: Option<u32>,
    },
    /// Refuse (XfrmOutStateDirError): the SA that fits is for packets that come in.
    WrongWay {
        /// Its SPI.
        spi: u32,
    },
    /// There is none, and the template is optional: go on without.
    Skips,
    /// There is none.
    Nothing,
    /// Too many pairs to compare.
    NotLookedFor,
}

/// The SAD by reqid and destination, and by source.
#[derive(Debug, Default)]
pub(crate) struct StateIndex {
    sas: Vec<SaTraits>,
    /// Places in `sas` by source and reqid.
    by_source: Vec<u32>,
    /// Places in `sas` by destination and SPI.
    by_spi: Vec<u32>,
    pub(crate) budget: Budget,
}

impl StateIndex {
    /// An index with room for so many SAs.
    pub(crate) fn for_entries(count: u64) -> Self {
        Self {
            sas: Vec::with_capacity(room_for(count)),
            ..Self::default()
        }
    }

    /// Takes an SA in; [`StateIndex::sorted`] comes after the last one.
    pub(crate) fn add(&mut self, entry: &SaEntry, now: u64, ours: &HashSet<IpAddr>) {
        self.sas.push(SaTraits::of(entry, now, ours));
    }

    /// The index, ready to be asked.
    pub(crate) fn sorted(mut self) -> Self {
        // A stable sort would need as much memory again.
        self.sas
            .sort_unstable_by_key(|sa| (sa.reqid, sa.destination, sa.spi));
        let places = 0..u32::try_from(self.sas.len()).unwrap_or(u32::MAX);
        let sas = &self.sas;
        let sorted_by = |key: &dyn Fn(&SaTraits) -> (IpAddr, u32)| {
            let mut order: Vec<u32> = places.clone().collect();
            order.sort_unstable_by_key(|place| (sas.get(*place as usize).map(key), *place));
            order
        };
        self.by_source = sorted_by(&|sa| (sa.source, sa.reqid));
        self.by_spi = sorted_by(&|sa| (sa.destination, sa.spi));
        self
    }

    /// What the kernel would do for each template of a policy.
    pub(crate) fn outcomes(&self, policy: &Policy) -> Vec<Outcome> {
        let traits = PolicyTraits::from(policy);
        let mut outcomes = Vec::with_capacity(policy.templates.len());
        for (place, template) in policy.templates.iter().enumerate() {
            outcomes.push(if traits.looks_for_sas() {
                self.outbound(template, Ends::of(&policy.templates, place), &traits)
            } else {
                self.inbound(template, &traits)
            });
        }
        outcomes
    }

    /// `xfrm_state_find`, for any packet of the policy.
    fn outbound(&self, template: &Template, ends: Ends, policy: &PolicyTraits) -> Outcome {
        let mut best: Option<&SaTraits> = None;
        let (mut fitting, mut acquiring) = (0_u64, false);
        let reqid = template.reqid.0;
        let candidates = match ends {
            Ends::Fixed(_, destination) => self.range(reqid, Some(destination)),
            Ends::OfPacket => self.range(reqid, None),
        };
        let looked = self.each(candidates.iter(), |sa| {
            if !matching::fits_outbound(sa, template, ends, policy) {
                return;
            }
            if sa.is_larval() {
                acquiring = true;
                return;
            }
            fitting += 1;
            // One with a source is found before one for any source; then one that is not about to
            // end, then the newest.
            let worth = |sa: &SaTraits| (!sa.source.is_unspecified(), !sa.dying, sa.added);
            let better = |best: &SaTraits| worth(sa) > worth(best);
            if best.is_none_or(better) {
                best = Some(sa);
            }
        });
        match (looked, best) {
            (ControlFlow::Break(()), _) => Outcome::NotLookedFor,
            (ControlFlow::Continue(()), Some(sa)) => match sa.way {
                SaWay::In(super::Told::Kernel) => Outcome::WrongWay { spi: sa.spi },
                SaWay::In(super::Told::Addresses | super::Told::Policies)
                | SaWay::Out(_)
                | SaWay::Unknown => Outcome::Uses {
                    spi: sa.spi,
                    others: fitting - 1,
                    dying: sa.dying,
                },
            },
            (ControlFlow::Continue(()), None) if acquiring => Outcome::Acquiring,
            (ControlFlow::Continue(()), None) => self.without(template, ends, policy),
        }
    }

    fn without(&self, template: &Template, ends: Ends, policy: &PolicyTraits) -> Outcome {
        if let (Some(spi), Ends::Fixed(_, destination)) = (template.spi, ends) {
            let spi = spi.get();
            let key = |place: &u32| self.at(*place).map(|sa| (sa.destination, sa.spi));
            let from = self
                .by_spi
                .partition_point(|place| key(place) < Some((destination, spi)));
            let holders = self.by_spi.get(from..).unwrap_or_default().iter();
            let holder = holders
                .map_while(|place| self.at(*place))
                .take_while(|sa| (sa.destination, sa.spi) == (destination, spi))
                .find(|sa| matching::occupies(sa, template, policy));
            if let Some(holder) = holder {
                let other_reqid = (holder.reqid != template.reqid.0).then_some(holder.reqid);
                return Outcome::Refuses { spi, other_reqid };
            }
        }
        match template.optional {
            true => Outcome::Skips,
            false => Outcome::Nothing,
        }
    }

    /// `xfrm_state_ok`, for any packet of the policy.
    fn inbound(&self, template: &Template, policy: &PolicyTraits) -> Outcome {
        let mut spis = Vec::new();
        let mut count = 0;
        let note = |sa: &SaTraits| {
            if matching::passes_inbound(sa, template, policy) {
                count += 1;
                if spis.len() < SPIS_KEPT {
                    spis.push(sa.spi);
                }
            }
        };
        let reqid = template.reqid.0;
        let has_source = !template.source.is_unspecified() && template.mode.number() != 0;
        let looked = match (has_source, reqid) {
            (true, _) => {
                let wanted = (reqid != 0).then_some(reqid);
                let places = self.source_range(template.source, wanted);
                self.each(places.iter().filter_map(|place| self.at(*place)), note)
            }
            (false, 0) => self.each(self.sas.iter(), note),
            (false, _) => self.each(self.range(reqid, None).iter(), note),
        };
        match (looked, count) {
            (ControlFlow::Break(()), _) => Outcome::NotLookedFor,
            (ControlFlow::Continue(()), 0) if template.optional => Outcome::Skips,
            (ControlFlow::Continue(()), 0) => Outcome::Nothing,
            (ControlFlow::Continue(()), _) => Outcome::Accepts { spis, count },
        }
    }

    fn each<'a>(
        &self,
        candidates: impl Iterator<Item = &'a SaTraits>,
        mut visit: impl FnMut(&'a SaTraits),
    ) -> ControlFlow<()> {
        for sa in candidates {
            if !self.budget.spend() {
                return ControlFlow::Break(());
            }
            visit(sa);
        }
        ControlFlow::Continue(())
    }

    fn at(&self, place: u32) -> Option<&SaTraits> {
        self.sas.get(place as usize)
    }

    /// The SAs with this reqid, to this destination if there is one.
    fn range(&self, reqid: u32, destination: Option<IpAddr>) -> &[SaTraits] {
        let (from, to) = match destination {
            Some(destination) => {
                let key = (reqid, destination);
                let key_of = |sa: &SaTraits| (sa.reqid, sa.destination);
                (
                    self.sas.partition_point(|sa| key_of(sa) < key),
                    self.sas.partition_point(|sa| key_of(sa) <= key),
                )
            }
            None => (
                self.sas.partition_point(|sa| sa.reqid < reqid),
                self.sas.partition_point(|sa| sa.reqid <= reqid),
            ),
        };
        self.sas.get(from..to).unwrap_or_default()
    }

    /// The places of the SAs from this source, with this reqid if there is one.
    fn source_range(&self, source: IpAddr, reqid: Option<u32>) -> &[u32] {
        let bound = |beyond: &dyn Fn(&SaTraits) -> bool| {
            self.by_source
                .partition_point(|place| self.at(*place).is_some_and(beyond))
        };
        let (from, to) = match reqid {
            Some(reqid) => (
                bound(&|sa| (sa.source, sa.reqid) < (source, reqid)),
                bound(&|sa| (sa.source, sa.reqid) <= (source, reqid)),
            ),
            None => (
                bound(&|sa| sa.source < source),
                bound(&|sa| sa.source <= source),
            ),
        };
        self.by_source.get(from..to).unwrap_or_default()
    }
}
