//! A policy as JSON: every attribute, and the SAs that it would use now.

use std::net::IpAddr;

use epochgate_xfrm::{PolicyAction, PolicyEntry, Template};
use serde::Serialize;

use super::wide::share;
use super::{Effect, Rule, flag_names};
use crate::xfrm::json::{
    self, LimitsJson, MarkJson, OffloadJson, RawJson, SecurityJson, SelectorJson,
};
use crate::xfrm::ours;
use crate::xfrm::partners::Outcome;
use crate::xfrm::state::json::UsageJson;
use crate::xfrm::surroundings::Surroundings;

/// A policy.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyJson {
    /// `in`, `out`, `fwd`, `socket in` or `socket out`.
    direction: String,
    selector: SelectorJson,
    /// `allow` or `block`.
    action: &'static str,
    /// What it comes to: `protect`, `clear` or `block`.
    effect: &'static str,
    priority: u32,
    index: u32,
    /// `epochgate`, or `null` for anybody else.
    owner: Option<&'static str>,
    mark: Option<MarkJson>,
    if_id: Option<u32>,
    /// The interface that has the if_id.
    interface: Option<String>,
    sub_policy: bool,
    templates: Vec<TemplateJson>,
    limits: LimitsJson,
    usage: UsageJson,
    flags: Vec<String>,
    share: String,
    offload: Option<OffloadJson>,
    security_context: Option<SecurityJson>,
    /// Attributes that this version does not know.
    attributes: Vec<RawJson>,
}

/// A template.
#[derive(Debug, Serialize)]
pub(crate) struct TemplateJson {
    /// `null` for any.
    source: Option<IpAddr>,
    /// `null` for any.
    destination: Option<IpAddr>,
    /// `ipv4` or `ipv6`.
    family: &'static str,
    protocol: String,
    mode: String,
    /// The pinned SPI; `null` takes any.
    spi: Option<String>,
    reqid: u32,
    optional: bool,
    share: String,
    algorithms: MasksJson,
    /// `null` where nobody looked, as in events.
    now: Option<NowJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MasksJson {
    encryption: String,
    integrity: String,
    compression: String,
}

/// What a template comes to now.
#[derive(Debug, Serialize)]
pub(crate) struct NowJson {
    /// `uses`, `accepts`, `acquiring`, `refuses`, `wrong-way`, `skips`, `nothing`, `not-looked-for`.
    outcome: &'static str,
    /// The SPIs of the SAs: of `accepts` the first ones.
    spis: Vec<String>,
    /// How many SAs fit.
    fitting: u64,
    /// Of `nothing` and `acquiring` on the way out: packets are `held` or `dropped`.
    packets: Option<&'static str>,
}

impl PolicyJson {
    /// Of a policy in a list.
    pub(crate) fn of(rule: &Rule<'_>) -> Self {
        let (entry, policy, host) = (rule.entry, &rule.entry.policy, rule.host);
        let is_ours = policy.templates.iter().any(|template| ours(template.reqid));
        let waiting = || {
            rule.sends().then_some(())?;
            rule.host
                .larval_drop
                .map(|drops| if drops { "dropped" } else { "held" })
        };
        let templates = policy
            .templates
            .iter()
            .enumerate()
            .map(|(place, template)| {
                let now = rule
                    .outcomes
                    .get(place)
                    .map(|outcome| now(outcome, &waiting));
                TemplateJson::of(template, now)
            });
        Self {
            direction: policy.direction.to_string(),
            selector: SelectorJson::from(&policy.selector),
            action: match policy.action {
                PolicyAction::Allow => "allow",
                PolicyAction::Block => "block",
            },
            effect: match rule.effect() {
                Effect::Protect => "protect",
                Effect::Clear => "clear",
                Effect::Block => "block",
            },
            priority: policy.priority,
            index: policy.index,
            owner: is_ours.then_some("epochgate"),
            mark: policy.mark.map(MarkJson::from),
            if_id: policy.if_id.map(|id| id.get()),
            interface: policy
                .if_id
                .and_then(|id| host.xfrm_interfaces.get(&id.get()).cloned()),
            sub_policy: policy.sub_policy,
            templates: templates.collect(),
            limits: LimitsJson::of(&policy.limits, &entry.usage, host.now),
            usage: UsageJson::of(&entry.usage, entry.last_used, host),
            flags: flag_names(policy.flags),
            share: share(policy.share),
            offload: policy.offload.map(|offload| OffloadJson::of(offload, host)),
            security_context: policy.security_context.as_ref().map(SecurityJson::from),
            attributes: json::raw(&policy.other),
        }
    }

    /// Of a policy whose SAs nobody looked for.
    pub(crate) fn of_event(entry: &PolicyEntry, host: &Surroundings) -> Self {
        Self::of(&Rule {
            entry,
            outcomes: &[],
            host,
        })
    }
}

impl TemplateJson {
    fn of(template: &Template, now: Option<NowJson>) -> Self {
        Self {
            source: json::specified(template.source),
            destination: json::specified(template.destination),
            family: if template.source.is_ipv4() {
                "ipv4"
            } else {
                "ipv6"
            },
            protocol: json::protocol(template.protocol),
            mode: template.mode.to_string(),
            spi: template.spi.map(|spi| spi.to_string()),
            reqid: template.reqid.0,
            optional: template.optional,
            share: share(template.share),
            algorithms: MasksJson {
                encryption: format!("{:#x}", template.algorithms.encryption),
                integrity: format!("{:#x}", template.algorithms.integrity),
                compression: format!("{:#x}", template.algorithms.compression),
            },
            now,
        }
    }
}

fn now(outcome: &Outcome, waiting: &dyn Fn() -> Option<&'static str>) -> NowJson {
    let (name, spis, fitting, packets) = match outcome {
        Outcome::Uses { spi, others, .. } => ("uses", vec![*spi], others.saturating_add(1), None),
        Outcome::Accepts { spis, count } => ("accepts", spis.clone(), *count, None),
        Outcome::Acquiring => ("acquiring", Vec::new(), 0, waiting()),
        Outcome::Refuses { spi, .. } => ("refuses", vec![*spi], 0, None),
        Outcome::WrongWay { spi } => ("wrong-way", vec![*spi], 0, None),
        Outcome::Skips => ("skips", Vec::new(), 0, None),
        Outcome::Nothing => ("nothing", Vec::new(), 0, waiting()),
        Outcome::NotLookedFor => ("not-looked-for", Vec::new(), 0, None),
    };
    NowJson {
        outcome: name,
        spis: spis.iter().map(|spi| format!("{spi:#010x}")).collect(),
        fitting,
        packets,
    }
}
