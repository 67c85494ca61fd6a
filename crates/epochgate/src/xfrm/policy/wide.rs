//! A policy in full: every attribute, in lines of a name and a value.

use epochgate_xfrm::{AlgorithmMasks, Template};

use super::row::{only, template};
use super::{Effect, Rule, flag_names};
use crate::terminal::{Paint, Tone};
use crate::xfrm::facts::Facts;
use crate::xfrm::partners::Outcome;
use crate::xfrm::{limits, ours, state, words};

/// The lines of a policy, with an empty one behind them.
pub(crate) fn wide(rule: &Rule<'_>, width: Option<usize>, paint: Paint) -> String {
    let (entry, policy, host) = (rule.entry, &rule.entry.policy, rule.host);
    let notes = rule.notes();
    let tone = notes.first().map_or(Tone::Name, |(tone, _)| *tone);
    let title = format!(
        "{}  {} -> {}",
        paint.paint(tone, &policy.direction.to_string()),
        policy.selector.source(),
        policy.selector.destination()
    );
    let mut facts = Facts::new(title, width, paint);
    for (tone, note) in &notes {
        facts.note(*tone, note);
    }
    let only = only(&policy.selector, &|index| host.interface(index));
    if !only.is_empty() {
        facts.add("only", &only);
    }
    facts.add(
        "action",
        match rule.effect() {
            Effect::Protect => "protect: packets go through the SAs of the templates",
            Effect::Clear => "clear: packets pass without IPsec",
            Effect::Block => "block: packets are dropped",
        },
    );
    let table = if policy.sub_policy {
        ", in the table of sub-policies"
    } else {
        ""
    };
    facts.add(
        "priority",
        &format!("{}, index {}{table}", policy.priority, policy.index),
    );
    if let Some(mark) = policy.mark {
        facts.add(
            "mark",
            &format!("{mark}: packets need it to meet the policy"),
        );
    }
    if let Some(if_id) = policy.if_id {
        facts.add("if_id", &host.if_id(if_id.get()));
    }
    for (place, template) in policy.templates.iter().enumerate() {
        templates(place, template, rule, &mut facts);
    }
    let moment = |then: u64| {
        format!(
            "{} ago ({})",
            words::seconds(host.ago(then)),
            host.time(then)
        )
    };
    facts.add("added", &moment(entry.usage.added));
    match entry.last_used.or(entry.usage.first_used) {
        Some(last) => facts.add("last used", &moment(last)),
        None => facts.add("last used", "never"),
    }
    for (name, limit) in [
        ("soft limit", &policy.limits.soft),
        ("hard limit", &policy.limits.hard),
    ] {
        if let Some(text) = limits::all(limit, &entry.usage, host.now) {
            facts.add(name, &text);
        }
    }
    let flags = flag_names(policy.flags);
    if !flags.is_empty() {
        facts.add("flags", &flags.join(", "));
    }
    if policy.share != 0 {
        facts.add("share", &share(policy.share));
    }
    if let Some(offload) = policy.offload {
        let device = host.interface(offload.interface_index);
        let flags = state::offload_flags(offload.flags).join(", ");
        facts.add("offload", &format!("{device}, {flags}"));
    }
    if let Some(label) = &policy.security_context {
        facts.add("label", &label.to_string());
    }
    state::raw(&policy.other, &mut facts);
    facts.finish()
}

fn templates(place: usize, wanted: &Template, rule: &Rule<'_>, facts: &mut Facts) {
    let owner = if ours(wanted.reqid) {
        ", epochgate's"
    } else {
        ""
    };
    let reqid = match wanted.reqid.0 {
        0 => "any reqid".to_owned(),
        number => format!("reqid {}", state::reqid_text(number)),
    };
    let mut text = format!("{}, {reqid}{owner}", template(wanted));
    if wanted.share != 0 {
        text.push_str(&format!(", share {}", share(wanted.share)));
    }
    let masks = wanted.algorithms;
    if masks != AlgorithmMasks::ALL
        && (masks.integrity, masks.encryption, masks.compression) != (0, 0, 0)
    {
        text.push_str(&format!(
            ", algorithms enc {:#x} auth {:#x} comp {:#x}",
            masks.encryption, masks.integrity, masks.compression
        ));
    }
    facts.add("template", &text);
    if let Some(outcome) = rule.outcomes.get(place) {
        facts.add("  uses now", &now(outcome));
    }
}

/// What a template comes to now.
fn now(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Uses { spi, others: 0, .. } => format!("SA {spi:#010x}"),
        Outcome::Uses { spi, others, .. } => format!(
            "SA {spi:#010x}, the newest; {} too",
            words::counted(*others, "other fits", "others fit")
        ),
        Outcome::Accepts { spis, count } => {
            let first: Vec<String> = spis.iter().map(|spi| format!("{spi:#010x}")).collect();
            let more = count.saturating_sub(spis.len() as u64);
            let more = match more {
                0 => String::new(),
                more => format!(" and {} more", words::digits(more)),
            };
            format!("accepts what came through SA {}{more}", first.join(", "))
        }
        Outcome::Acquiring => "none yet: a key daemon has been asked".to_owned(),
        Outcome::Refuses { .. } | Outcome::WrongWay { .. } => "none: refused, see above".to_owned(),
        Outcome::Skips => "none: it is optional".to_owned(),
        Outcome::Nothing => "none".to_owned(),
        Outcome::NotLookedFor => "not looked for: too many SAs share its reqid".to_owned(),
    }
}

/// `XFRM_SHARE_*`.
pub(crate) fn share(number: u8) -> String {
    match number {
        0 => "any".to_owned(),
        1 => "session".to_owned(),
        2 => "user".to_owned(),
        3 => "unique".to_owned(),
        other => other.to_string(),
    }
}
