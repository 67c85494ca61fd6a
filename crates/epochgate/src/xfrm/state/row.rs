//! An SA as a row of the table.

use epochgate_xfrm::{Encap, EncapKind, Mark, SaDirection};

use super::State;
use crate::terminal::Tone;
use crate::xfrm::partners::{Lead, Leads, SaWay, Told};
use crate::xfrm::table::{Align, Cell, Column, Row};
use crate::xfrm::{limits, ours, words};

/// The columns, in the order of [`row`].
pub(crate) static COLUMNS: [Column; 21] = [
    column("DIR", "", 0, Align::Left, 4),
    column("SPI", "", 0, Align::Left, 10),
    column("SOURCE", "from", 0, Align::Address, 39),
    column("DESTINATION", "to", 0, Align::Address, 39),
    column("PROTO", "", 9, Align::Left, 8),
    column("MODE", "mode", 9, Align::Left, 9),
    column("ALGORITHM", "", 1, Align::Left, 24),
    column("AGE", "age", 2, Align::Right, 5),
    column("IDLE", "idle", 4, Align::Right, 5),
    column("PACKETS", "packets", 10, Align::Right, 7),
    column("BYTES", "bytes", 3, Align::Right, 6),
    column("LEFT", "left", 6, Align::Left, 12),
    column("REQID", "reqid", 5, Align::Left, 10),
    column("OWNER", "of", 11, Align::Left, 9),
    column("IF", "if_id", 8, Align::Left, 16),
    column("MARK", "mark", 8, Align::Left, 21),
    column("ENCAP", "encap", 7, Align::Left, 18),
    column("REPLAY", "replay", 12, Align::Left, 8),
    column("DEVICE", "offload", 13, Align::Left, 15),
    column("CPU", "cpu", 14, Align::Right, 4),
    column("USED BY", "used by", 15, Align::Left, 70),
];

const fn column(
    title: &'static str,
    label: &'static str,
    rank: u8,
    align: Align,
    widest: usize,
) -> Column {
    Column {
        title,
        label,
        rank,
        align,
        widest,
    }
}

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
        reqid(sa.reqid.0),
        Cell::new(if ours(sa.reqid) { "epochgate" } else { "" }),
        optional(sa.if_id.map(|id| host.if_id(id.get()))),
        optional(sa.mark.map(|mark| self::mark(mark))),
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
        SaWay::In(Told::ByKernel) => "in",
        SaWay::Out(Told::ByKernel) => "out",
        SaWay::In(Told::ByAddresses | Told::ByPolicies) => "~in",
        SaWay::Out(Told::ByAddresses | Told::ByPolicies) => "~out",
        SaWay::Unknown => "-",
    }
}

/// A reqid: ours as everywhere else in hexadecimal, others' as their daemons print them.
pub(crate) fn reqid(number: u32) -> Cell {
    Cell::unless(reqid_text(number), "0")
}

pub(crate) fn reqid_text(number: u32) -> String {
    match ours(epochgate_xfrm::Reqid(number)) {
        true => format!("{number:#x}"),
        false => number.to_string(),
    }
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
    // Where the kernel says that an SA sends, a window has no meaning.
    let sends = state.entry.sa.direction == Some(SaDirection::Out);
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
