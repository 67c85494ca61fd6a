//! An SA as a row of the table.

use epochgate_xfrm::{Encap, EncapKind, Mark, Reqid};

use super::State;
use crate::terminal::Tone;
use crate::xfrm::partners::{Lead, Leads, SaWay, Told};
use crate::xfrm::table::{Align, Cell, Column, Row};
use crate::xfrm::{limits, ours, words};

/// The columns, in the order of [`row`].
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

/// The row of an SA.
pub(crate) fn row(state: &State<'_>) -> Row {
    let (entry, sa, host) = (state.entry, &state.entry.sa, state.host);
    let notes = state.notes();
    let tone = notes.first().map(|(tone, _)| *tone);
    let spi = sa
        .spi
        .map_or_else(|| "larval".to_owned(), |spi| spi.to_string());
    let optional = |text: Option<String>| Cell::new(text.unwrap_or_default());
    let cells = vec![
        Cell::new(direction(state.way)),
        Cell::new(spi).toned(tone.or(Some(Tone::Name))),
        Cell::new(sa.source.to_string()),
        Cell::new(sa.destination.to_string()),
        Cell::unless(sa.protocol.to_string(), "esp"),
        Cell::unless(sa.mode.to_string(), "tunnel"),
        Cell::new(words::algorithms(&sa.protection)),
        Cell::new(words::roughly(host.ago(entry.usage.added))),
        Cell::new(match entry.last_used.or(entry.usage.first_used) {
            Some(last) => words::roughly(host.ago(last)),
            None => "never".to_owned(),
        }),
        Cell::new(words::count(entry.usage.packets)),
        Cell::new(words::bytes(entry.usage.bytes)),
        optional(limits::next(&sa.limits, &entry.usage, host.now)),
        Cell::unless(owned_reqid(sa.reqid.0), "0"),
        optional(sa.if_id.map(|id| host.if_id(id.get()))),
        optional(sa.mark.map(self::mark)),
        optional(sa.encap.as_ref().map(encap)),
        Cell::unless(replay(state), "32"),
        optional(
            sa.offload
                .map(|offload| host.interface(offload.interface_index)),
        ),
        optional(sa.cpu.map(|cpu| cpu.to_string())),
        Cell::new(used_by(state.leads)),
    ];
    Row { cells, notes }
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
pub(crate) fn reqid_text(number: u32) -> String {
    match ours(Reqid(number)) {
        true => format!("{number:#x}"),
        false => number.to_string(),
    }
}

/// A reqid and, if it is ours, whose it is: `epochgate 0x45470001`.
pub(crate) fn owned_reqid(number: u32) -> String {
    let owner = if ours(Reqid(number)) {
        "epochgate "
    } else {
        ""
    };
    owner.to_owned() + &reqid_text(number)
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
pub(crate) fn used_by(leads: &Leads) -> String {
    let Some(first) = leads.first.first() else {
        return if leads.incomplete {
            "not looked for".to_owned()
        } else {
            String::new()
        };
    };
    let same: Vec<&Lead> = leads
        .first
        .iter()
        .filter(|lead| lead.selector == first.selector)
        .collect();
    let mut directions: Vec<String> = Vec::new();
    for lead in &same {
        let direction = lead.direction.to_string();
        if !directions.contains(&direction) {
            directions.push(direction);
        }
    }
    let others = leads.count().saturating_sub(same.len() as u64);
    let more = match (others, leads.incomplete) {
        (0, false) => String::new(),
        (others, false) => format!(" and {} more", words::digits(others)),
        (_, true) => " and maybe more".to_owned(),
    };
    format!("{} {}{more}", directions.join("+"), first.selector)
}
