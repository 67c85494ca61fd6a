//! `epochgate xfrm policy`: the policies of the kernel, as a table, in full, or as JSON. Each is
//! rendered from its entry, the SAs that it would use now and the [`Surroundings`] alone.

pub(crate) mod json;
mod row;
mod wide;

use std::fmt::Display;

use epochgate_xfrm::{PolicyAction, PolicyDirection, PolicyEntry, PolicyFlags, Template};

use super::partners::{Outcome, PolicyTraits};
use super::surroundings::Surroundings;
use super::{state, words};
use crate::terminal::Tone;

pub(crate) use row::{COLUMNS, fill, only, template as template_text};
pub(crate) use wide::wide;

/// A policy, with all that is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) entry: &'a PolicyEntry,
    /// One for each template.
    pub(crate) outcomes: &'a [Outcome],
    pub(crate) host: &'a Surroundings,
}

/// What a policy does to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// They go or come through SAs.
    Protect,
    /// They pass in clear.
    Clear,
    /// They are dropped.
    Block,
}

impl Rule<'_> {
    pub(crate) fn effect(&self) -> Effect {
        let policy = &self.entry.policy;
        match policy.action {
            PolicyAction::Block => Effect::Block,
            PolicyAction::Allow if policy.templates.is_empty() => Effect::Clear,
            PolicyAction::Allow => Effect::Protect,
        }
    }

    /// A template that is not optional comes to nothing now.
    pub(crate) fn lacks_an_sa(&self) -> bool {
        self.effect() == Effect::Protect
            && self.outcomes.iter().any(|outcome| match outcome {
                Outcome::Acquiring
                | Outcome::Refuses { .. }
                | Outcome::WrongWay { .. }
                | Outcome::Nothing => true,
                Outcome::Uses { .. }
                | Outcome::Accepts { .. }
                | Outcome::Skips
                | Outcome::NotLookedFor => false,
            })
    }

    fn sends(&self) -> bool {
        PolicyTraits::from(&self.entry.policy).looks_for_sas()
    }

    /// What the templates come to now, in a few words: `0xc5f3a001`, `2 SAs`, `no SA`.
    pub(crate) fn now(&self) -> impl Display {
        words::joined(self.outcomes.iter().map(short), " + ")
    }

    /// What stands out, the worst first.
    pub(crate) fn notes(&self) -> Vec<(Tone, String)> {
        if self.effect() == Effect::Block {
            return Vec::new();
        }
        let templates = self.entry.policy.templates.iter();
        templates
            .zip(self.outcomes)
            .filter_map(|(t, outcome)| self.note(t, outcome))
            .collect()
    }

    fn note(&self, template: &Template, outcome: &Outcome) -> Option<(Tone, String)> {
        match outcome {
            Outcome::Uses { dying: false, .. }
            | Outcome::Accepts { .. }
            | Outcome::Skips
            | Outcome::NotLookedFor => None,
            Outcome::Uses {
                spi, dying: true, ..
            } => Some((
                Tone::Waiting,
                format!("the soft limit of {spi:#010x} is reached and no newer SA fits"),
            )),
            Outcome::Acquiring => Some((
                Tone::Waiting,
                format!(
                    "no SA yet: a key daemon has been asked, {}",
                    self.meanwhile()
                ),
            )),
            Outcome::Refuses { spi, other_reqid } => {
                let why = match other_reqid {
                    Some(reqid) => format!(
                        "its reqid is {}, the template's {}",
                        state::reqid_text(*reqid),
                        state::reqid_text(template.reqid.0)
                    ),
                    None => "its mode, mark, if_id or selector does not".to_owned(),
                };
                Some((
                    Tone::Bad,
                    format!(
                        "the pinned SA {spi:#010x} exists but does not fit ({why}): packets are \
                         refused (XfrmOutPolError)"
                    ),
                ))
            }
            Outcome::WrongWay { spi } => Some((
                Tone::Bad,
                format!(
                    "the SA that fits, {spi:#010x}, is for packets that come in: packets are \
                     refused (XfrmOutStateDirError)"
                ),
            )),
            Outcome::Nothing if self.sends() => {
                let pinned = match template.spi {
                    Some(spi) => format!(" with the pinned SPI {spi}"),
                    None => String::new(),
                };
                Some((
                    Tone::Waiting,
                    format!("no SA{pinned}: {}", self.meanwhile()),
                ))
            }
            Outcome::Nothing => Some((
                Tone::Waiting,
                "no SA: nothing can come through it, and packets that come in clear are dropped"
                    .to_owned(),
            )),
        }
    }

    /// What happens to packets that find no SA (`xfrm_lookup_with_ifid`).
    fn meanwhile(&self) -> &'static str {
        match (self.entry.policy.direction, self.host.larval_drop) {
            (PolicyDirection::SocketOut, _) => "the socket's packets are refused (EAGAIN)",
            (_, Some(false)) => "packets are held (net.core.xfrm_larval_drop is 0)",
            (_, Some(true)) => "packets are dropped (net.core.xfrm_larval_drop is 1)",
            (_, None) => "packets are held or dropped, as net.core.xfrm_larval_drop says",
        }
    }
}

/// What one template comes to, in a few words.
fn short(outcome: &Outcome) -> impl Display {
    words::shown(move |f| match outcome {
        Outcome::Uses { spi, others: 0, .. } => write!(f, "{spi:#010x}"),
        Outcome::Uses { spi, others, .. } => {
            write!(f, "{spi:#010x} of {}", others.saturating_add(1))
        }
        Outcome::Accepts { spis, count: 1 } => match spis.first() {
            Some(spi) => write!(f, "{spi:#010x}"),
            None => Ok(()),
        },
        Outcome::Accepts { count, .. } => write!(f, "any of {}", words::digits(*count)),
        Outcome::Acquiring => f.write_str("acquiring"),
        Outcome::Refuses { .. } | Outcome::WrongWay { .. } => f.write_str("refused"),
        Outcome::Skips => f.write_str("none needed"),
        Outcome::Nothing => f.write_str("no SA"),
        Outcome::NotLookedFor => f.write_str("?"),
    })
}

/// The names of flags, as `ip xfrm` has them; a number for the ones that this version does not know.
pub(crate) fn flag_names(flags: PolicyFlags) -> Vec<String> {
    let known = [
        (PolicyFlags::LOCAL_OK, "localok"),
        (PolicyFlags::ICMP, "icmp"),
        (PolicyFlags::CPU_ACQUIRE, "cpu-acquire"),
    ];
    let known = known.map(|(flag, name)| (flag.bits().into(), name));
    words::names_of_bits(flags.bits().into(), &known, "")
}
