//! `epochgate xfrm state`: the SAs of the kernel, as a table, in full, or as JSON. Each is rendered
//! from its entry, the policies that lead to it and the [`Surroundings`] alone.

pub(crate) mod json;
mod row;
mod wide;

use epochgate_xfrm::{Mode, SaEntry};

use super::partners::matching;
use super::partners::{Leads, PolicyIndex, SaTraits, SaWay, Told};
use super::surroundings::Surroundings;
use super::{ours, words};
use crate::terminal::Tone;

pub(crate) use row::{COLUMNS, encap, fill, mark, owned_reqid, reqid_text};
pub(crate) use wide::{offload_flags, raw, wide};

/// Below this part of its sequence numbers an SA should have been replaced, in percent.
const SEQUENCE_LOW_PERCENT: u64 = 10;

/// An SA, with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State<'a> {
    pub(crate) entry: &'a SaEntry,
    pub(crate) way: SaWay,
    pub(crate) leads: &'a Leads,
    pub(crate) host: &'a Surroundings,
}

/// The policies that lead to an SA, and which way it goes.
pub(crate) fn partners(
    entry: &SaEntry,
    policies: &PolicyIndex,
    host: &Surroundings,
) -> (SaWay, Leads) {
    let traits = SaTraits::of(entry, host.now, &host.addresses);
    let leads = policies.leads_to(&traits);
    (traits.way.or_by(&leads), leads)
}

/// How an SA's sequence numbers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// The last number sent or the highest one received.
    pub(crate) last: u64,
    /// How many are left until they run out (RFC 4303 §3.3.3).
    pub(crate) left: u64,
    /// How many there are.
    pub(crate) all: u64,
}

impl State<'_> {
    /// Nobody has given it algorithms yet.
    pub(crate) fn is_larval(&self) -> bool {
        matching::is_larval(self.entry)
    }

    /// The kernel does not say which way it goes, but something else does.
    pub(crate) fn is_derived(&self) -> bool {
        match self.way {
            SaWay::In(told) | SaWay::Out(told) => told != Told::Kernel,
            SaWay::Unknown => false,
        }
    }

    /// The numbers of packets sent, and of those received.
    pub(crate) fn sequences(&self) -> Option<(Sequence, Sequence)> {
        let replay = self.entry.replay.as_ref()?;
        let all = match self.entry.sa.replay_window.extended {
            true => u64::MAX,
            false => u64::from(u32::MAX),
        };
        let sequence = |last: u64| Sequence {
            last,
            left: all.saturating_sub(last),
            all,
        };
        Some((sequence(replay.outbound), sequence(replay.inbound)))
    }

    /// What stands out, the worst first.
    pub(crate) fn notes(&self) -> Vec<(Tone, String)> {
        let mut notes = Vec::new();
        if let Some(refused) = self.refused() {
            notes.push((Tone::Bad, refused));
        }
        if self.is_larval() {
            let text = match self.entry.sa.spi {
                None => "larval: a packet waits for this SA; a key daemon is asked",
                Some(_) => "larval: its SPI is reserved; a key daemon must complete it",
            };
            notes.push((Tone::Waiting, text.to_owned()));
            return notes;
        }
        let sa = &self.entry.sa;
        if let Some(weakness) = words::weakness(&sa.protection) {
            notes.push((Tone::Bad, weakness.to_owned()));
        }
        if matching::is_reached(&sa.limits.hard, self.entry, self.host.now) {
            notes.push((
                Tone::Bad,
                "its hard limit is reached: the kernel ends it".to_owned(),
            ));
        } else if matching::is_reached(&sa.limits.soft, self.entry, self.host.now) {
            let text = "its soft limit is reached: its key daemon should have replaced it";
            notes.push((Tone::Waiting, text.to_owned()));
        }
        notes.extend(self.low_sequence());
        notes.extend(self.orphan());
        notes
    }

    /// What it has refused, if anything.
    pub(crate) fn refused(&self) -> Option<String> {
        let faults = &self.entry.faults;
        let mut parts = Vec::new();
        for (number, what) in [
            (faults.integrity, "failed the integrity check"),
            (faults.replayed, "came twice or too late (replay)"),
            (faults.outside_window, "were older than the replay window"),
        ] {
            if number > 0 {
                parts.push(format!("{} {what}", words::digits(u64::from(number))));
            }
        }
        (!parts.is_empty()).then(|| format!("of the packets received, {}", parts.join(", ")))
    }

    fn low_sequence(&self) -> Option<(Tone, String)> {
        let (outbound, inbound) = self.sequences()?;
        let lower = if outbound.left <= inbound.left {
            outbound
        } else {
            inbound
        };
        (lower.left / SEQUENCE_LOW_PERCENT < lower.all / 100).then(|| {
            let left = words::counted(lower.left, "sequence number is", "sequence numbers are");
            let text = format!("{left} left: at 0 it stops; its key daemon must replace it");
            (Tone::Bad, text)
        })
    }

    fn orphan(&self) -> Option<(Tone, String)> {
        if self.leads.count() > 0 || self.leads.incomplete {
            return None;
        }
        let text = match (self.way, self.entry.sa.mode) {
            _ if ours(self.entry.sa.reqid) => match self.way {
                SaWay::Out(_) => "no policy sends through it: an epoch that is proved or drained",
                SaWay::In(_) | SaWay::Unknown => "no policy leads to it",
            },
            (SaWay::Out(_), _) => "no policy leads to it: nothing is sent through it",
            (SaWay::In(_), Mode::Transport) => {
                "no policy asks for it: the same packets pass in clear, too"
            }
            (SaWay::In(_), _) => {
                "no policy leads to it: what comes through it is dropped (XfrmInNoPols)"
            }
            (SaWay::Unknown, _) => "no policy leads to it",
        };
        Some((Tone::Waiting, text.to_owned()))
    }
}
