//! A policy as a row of the table.

use std::fmt::Display;

use epochgate_xfrm::{PolicyDirection, PortMatch, Selector, Template};

use super::{Effect, Rule};
use crate::terminal::Tone;
use crate::xfrm::table::{Align, Column, Row};
use crate::xfrm::{state, words};

/// The columns, in the order of [`fill`].
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

/// Puts a policy into its row.
pub(crate) fn fill(row: &mut Row, rule: &Rule<'_>) {
    let (entry, policy, host) = (rule.entry, &rule.entry.policy, rule.host);
    let notes = rule.notes();
    let tone = notes.first().map(|(tone, _)| *tone);
    let (action, action_tone) = match rule.effect() {
        Effect::Protect => ("protect", tone),
        Effect::Clear => ("clear", None),
        Effect::Block => ("block", Some(Tone::Bad)),
    };
    let templates = policy.templates.iter();
    let reqids = templates.clone().map(|t| state::owned_reqid(t.reqid.0));
    row.put(direction(policy.direction));
    row.put(words::prefix(policy.selector.source()));
    row.put(words::prefix(policy.selector.destination()));
    row.put(only(&policy.selector, &|index| host.interface(index)));
    row.put_toned(action, action_tone);
    row.put_toned(rule.now(), tone);
    row.put(policy.priority);
    row.put_unless(words::joined(reqids, " + "), "0");
    row.put_optional(policy.if_id.map(|id| host.if_id(id.get())));
    row.put_optional(policy.mark.map(state::mark));
    match entry.last_used.or(entry.usage.first_used) {
        Some(last) => row.put(format_args!("{} ago", words::roughly(host.ago(last)))),
        None => row.put("never"),
    }
    row.put(if policy.sub_policy { "sub" } else { "" });
    row.put(super::flag_names(policy.flags).join(","));
    row.put(policy.index);
    row.put(words::joined(templates.map(template), " + "));
    row.put_notes(notes);
}

/// As short as `sk-out`, for a socket's own policy.
fn direction(direction: PolicyDirection) -> &'static str {
    match direction {
        PolicyDirection::In => "in",
        PolicyDirection::Out => "out",
        PolicyDirection::Forward => "fwd",
        PolicyDirection::SocketIn => "sk-in",
        PolicyDirection::SocketOut => "sk-out",
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
pub(crate) fn template(template: &Template) -> impl Display {
    words::shown(move |f| {
        write!(f, "{} {}", template.protocol, template.mode)?;
        if !(template.source.is_unspecified() && template.destination.is_unspecified()) {
            let (from, to) = (template.source, template.destination);
            write!(f, " {} -> {}", words::address(from), words::address(to))?;
        }
        if let Some(spi) = template.spi {
            write!(f, " pinned {spi}")?;
        }
        if template.optional {
            f.write_str(" optional")?;
        }
        Ok(())
    })
}
