//! An SA as a row of the table.

use std::fmt::Display;

use epochgate_xfrm::{Encap, EncapKind, Mark, PolicyDirection, Reqid};

use super::State;
use crate::terminal::Tone;
use crate::xfrm::partners::{Leads, SaWay, Told};
use crate::xfrm::table::{Align, Column, Row};
use crate::xfrm::{limits, ours, words};

/// The columns, in the order of [`fill`].
pub(crate) static COLUMNS: [Column; 20] = [
    Column::new("DIR", "", 0, Align::Left, 4),
    Column::new("SPI", "", 0, Align::Left, 10),
    Column::new("SOURCE", "from", 0, Align::Address, 39),
    Column::new("DESTINATION", "to", 0, Align::Address, 39),
    Column::new("PROTO", "", 9, Align::Left, 8),
    Column::new("MODE", "mode", 10, Align::Left, 9),
    Column::new("ALGORITHM", "", 1, Align::Left, 24),
    Column::new("AGE", "age", 2, Align::Right, 5),
    Column::new("IDLE", "idle", 4, Align::Right, 5),
    Column::new("PACKETS", "packets", 12, Align::Right, 7).or_nowhere(),
    Column::new("BYTES", "bytes", 3, Align::Right, 6),
    Column::new("LEFT", "left", 6, Align::Left, 12),
    Column::new("REQID", "reqid", 5, Align::Left, 20),
    Column::new("IF", "if_id", 8, Align::Left, 16),
    Column::new("MARK", "mark", 8, Align::Left, 21),
    Column::new("ENCAP", "encap", 9, Align::Left, 18),
    Column::new("REPLAY", "replay", 13, Align::Left, 8),
    Column::new("DEVICE", "offload", 11, Align::Left, 15),
    Column::new("CPU", "cpu", 11, Align::Right, 4),
    Column::new("USED BY", "used by", 7, Align::Left, 48),
];

/// Puts an SA into its row.
pub(crate) fn fill(row: &mut Row, state: &State<'_>) {
    let (entry, sa, host) = (state.entry, &state.entry.sa, state.host);
    let notes = state.notes();
    let tone = notes.first().map(|(tone, _)| *tone).or(Some(Tone::Name));
    row.put(direction(state.way));
    match sa.spi {
        Some(spi) => row.put_toned(spi, tone),
        None => row.put_toned("larval", tone),
    }
    row.put(words::address(sa.source));
    row.put(words::address(sa.destination));
    row.put_unless(sa.protocol, "esp");
    row.put_unless(sa.mode, "tunnel");
    row.put(words::algorithms(&sa.protection));
    row.put(words::roughly(host.ago(entry.usage.added)));
    match entry.last_used.or(entry.usage.first_used) {
        Some(last) => row.put(words::roughly(host.ago(last))),
        None => row.put("never"),
    }
    row.put(words::count(entry.usage.packets));
    row.put(words::bytes(entry.usage.bytes));
    row.put_optional(limits::next(&sa.limits, &entry.usage, host.now));
    row.put_unless(owned_reqid(sa.reqid.0), "0");
    row.put_optional(sa.if_id.map(|id| host.if_id(id.get())));
    row.put_optional(sa.mark.map(mark));
    row.put_optional(sa.encap.as_ref().map(encap));
    row.put_unless(replay(state), "32");
    let device = sa.offload.map(|it| host.interface(it.interface_index));
    row.put_optional(device);
    row.put_optional(sa.cpu);
    row.put(used_by(state.leads));
    row.put_notes(notes);
}

/// `out`, or `~out` where the kernel does not say it.
pub(crate) fn direction(way: SaWay) -> &'static str {
    match way {
        SaWay::In(Told::Kernel) => "in",
        SaWay::Out(Told::Kernel) => "out",
        SaWay::In(Told::Addresses | Told::Policies) => "~in",
        SaWay::Out(Told::Addresses | Told::Policies) => "~out",
        SaWay::Unknown => "-",
    }
}

/// A reqid: ours in hexadecimal, others' as their daemons print them.
pub(crate) fn reqid_text(number: u32) -> impl Display {
    words::shown(move |f| match ours(Reqid(number)) {
        true => write!(f, "{number:#x}"),
        false => write!(f, "{number}"),
    })
}

/// A reqid and, if it is ours, whose it is: `epochgate 0x45470001`.
pub(crate) fn owned_reqid(number: u32) -> impl Display {
    words::shown(move |f| {
        if ours(Reqid(number)) {
            f.write_str("epochgate ")?;
        }
        reqid_text(number).fmt(f)
    })
}

/// A mark; without its mask if that is all.
pub(crate) fn mark(mark: Mark) -> String {
    match mark.mask {
        u32::MAX => format!("{:#x}", mark.value),
        _ => mark.to_string(),
    }
}

/// `udp 4500->4500`.
pub(crate) fn encap(encap: &Encap) -> String {
    let kind = match encap.kind {
        EncapKind::EspInUdp => "udp".to_owned(),
        EncapKind::EspInTcp => "tcp".to_owned(),
        EncapKind::Other(number) => format!("type {number}"),
    };
    format!("{kind} {}->{}", encap.source_port, encap.destination_port)
}

fn replay(state: &State<'_>) -> String {
    let window = state.entry.sa.replay_window;
    // Where packets go out a window has no meaning.
    let sends = matches!(state.way, SaWay::Out(_));
    match (window.extended, window.packets) {
        (true, _) if sends => "esn".to_owned(),
        (true, packets) => format!("esn {packets}"),
        (false, _) if sends || state.is_larval() => String::new(),
        (false, 0) => "off".to_owned(),
        (false, packets) => packets.to_string(),
    }
}

/// The policies that lead to an SA, those with one selector together: `in+fwd A -> B and 2 more`.
fn used_by(leads: &Leads) -> impl Display {
    words::shown(move |f| {
        let Some(first) = leads.first.first() else {
            return f.write_str(if leads.incomplete {
                "not looked for"
            } else {
                ""
            });
        };
        let same = leads
            .first
            .iter()
            .filter(|it| it.selector == first.selector);
        let mut directions: Vec<PolicyDirection> = Vec::new();
        for lead in same.clone() {
            if !directions.contains(&lead.direction) {
                directions.push(lead.direction);
            }
        }
        let directions = words::joined(directions.iter(), "+");
        write!(f, "{directions} {}", first.selector)?;
        let others = leads.count().saturating_sub(same.count() as u64);
        match (others, leads.incomplete) {
            (0, false) => Ok(()),
            (others, false) => write!(f, " and {} more", words::digits(others)),
            (_, true) => f.write_str(" and maybe more"),
        }
    })
}
