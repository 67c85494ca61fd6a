//! A policy as a row of the table.

use epochgate_xfrm::{PolicyDirection, PortMatch, Selector, Template};

use super::{Effect, Rule};
use crate::terminal::Tone;
use crate::xfrm::table::{Align, Cell, Column, Row};
use crate::xfrm::{state, words};

/// The columns, in the order of [`row`].
pub(crate) static COLUMNS: [Column; 15] = [
    Column::new("DIR", "", 0, Align::Left, 6),
    Column::new("SOURCE", "from", 0, Align::Address, 43),
    Column::new("DESTINATION", "to", 0, Align::Address, 43),
    Column::new("ONLY", "only", 6, Align::Left, 24),
    Column::new("ACTION", "", 0, Align::Left, 7),
    Column::new("USES NOW", "uses", 1, Align::Left, 20),
    Column::new("PRIO", "priority", 2, Align::Right, 10),
    Column::new("REQID", "reqid", 5, Align::Left, 20),
    Column::new("IF", "if_id", 7, Align::Left, 16),
    Column::new("MARK", "mark", 7, Align::Left, 21),
    Column::new("USED", "used", 8, Align::Right, 9).or_nowhere(),
    Column::new("TABLE", "table", 9, Align::Left, 6),
    Column::new("FLAGS", "flags", 11, Align::Left, 12),
    Column::new("INDEX", "index", 12, Align::Right, 10).or_nowhere(),
    Column::new("TEMPLATE", "", 4, Align::Left, 62),
];

/// The row of a policy.
pub(crate) fn row(rule: &Rule<'_>) -> Row {
    let (entry, policy, host) = (rule.entry, &rule.entry.policy, rule.host);
    let notes = rule.notes();
    let tone = notes.first().map(|(tone, _)| *tone);
    let (action, action_tone) = match rule.effect() {
        Effect::Protect => ("protect", tone),
        Effect::Clear => ("clear", None),
        Effect::Block => ("block", Some(Tone::Bad)),
    };
    let used = entry.last_used.or(entry.usage.first_used);
    let reqids: Vec<String> = policy
        .templates
        .iter()
        .map(|t| state::owned_reqid(t.reqid.0))
        .collect();
    let cells = vec![
        Cell::new(direction(policy.direction)),
        Cell::new(policy.selector.source().to_string()),
        Cell::new(policy.selector.destination().to_string()),
        Cell::new(only(&policy.selector, &|index| host.interface(index))),
        Cell::new(action).toned(action_tone),
        Cell::new(rule.now()).toned(tone),
        Cell::new(policy.priority.to_string()),
        Cell::unless(reqids.join(" + "), "0"),
        Cell::new(
            policy
                .if_id
                .map_or_else(String::new, |id| host.if_id(id.get())),
        ),
        Cell::new(policy.mark.map_or_else(String::new, state::mark)),
        Cell::new(match used {
            Some(last) => words::roughly(host.ago(last)) + " ago",
            None => "never".to_owned(),
        }),
        Cell::new(if policy.sub_policy { "sub" } else { "" }),
        Cell::new(super::flag_names(policy.flags).join(",")),
        Cell::new(policy.index.to_string()),
        Cell::new(
            policy
                .templates
                .iter()
                .map(template)
                .collect::<Vec<_>>()
                .join(" + "),
        ),
    ];
    Row { cells, notes }
}

/// As short as `sk-out`, for a socket's own policy.
fn direction(direction: PolicyDirection) -> String {
    match direction {
        PolicyDirection::SocketIn => "sk-in".to_owned(),
        PolicyDirection::SocketOut => "sk-out".to_owned(),
        PolicyDirection::In | PolicyDirection::Out | PolicyDirection::Forward => {
            direction.to_string()
        }
    }
}

/// What a selector asks for beside addresses.
pub(crate) fn only(selector: &Selector, interface: &dyn Fn(i32) -> String) -> String {
    let mut parts = Vec::new();
    match selector.protocol {
        0 => {}
        number => parts.push(upper_protocol(number)),
    }
    let (source, destination) = match selector.protocol {
        // xfrm_selector keeps type and code of ICMP, and type of Mobility Headers, in the ports.
        1 | 58 => ("type", "code"),
        135 => ("type", "dport"),
        _ => ("sport", "dport"),
    };
    for (name, port) in [
        (source, selector.source_port),
        (destination, selector.destination_port),
    ] {
        match port {
            PortMatch { mask: 0, .. } => {}
            PortMatch {
                port,
                mask: u16::MAX,
            } => parts.push(format!("{name} {port}")),
            PortMatch { port, mask } => parts.push(format!("{name} {port}/{mask:#x}")),
        }
    }
    if selector.interface_index != 0 {
        parts.push(format!("dev {}", interface(selector.interface_index)));
    }
    if selector.user != 0 {
        parts.push(format!("uid {}", selector.user));
    }
    parts.join(" ")
}

/// The names that everybody knows (IANA protocol numbers).
fn upper_protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        4 => "ipip".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        41 => "ipv6".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        51 => "ah".to_owned(),
        58 => "icmpv6".to_owned(),
        89 => "ospf".to_owned(),
        115 => "l2tp".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("proto {other}"),
    }
}

/// `esp tunnel 203.0.113.9 -> 198.51.100.7`.
pub(crate) fn template(template: &Template) -> String {
    let mut text = format!("{} {}", template.protocol, template.mode);
    if !(template.source.is_unspecified() && template.destination.is_unspecified()) {
        text.push_str(&format!(" {} -> {}", template.source, template.destination));
    }
    if let Some(spi) = template.spi {
        text.push_str(&format!(" pinned {spi}"));
    }
    if template.optional {
        text.push_str(" optional");
    }
    text
}
