//! Several tunnels, one a line, in the columns that there is room for.

use epochgate_controller::status::{EpochStatus, GateStatus, TunnelStatus};

use super::figures::{cut, milliseconds, short_time};
use crate::terminal::{Paint, Tone, harmless};

/// Columns between cells.
const GAP: usize = 2;

/// A longer name is cut.
const NAME_MAX: usize = 20;

/// Columns that the reason needs at least: the longest step of the ladder.
const WHY_MIN: usize = 22;

/// No figure.
const NONE: &str = "-";

/// A column, and what becomes of it where there is little room.
struct Column {
    title: &'static str,
    /// Columns with greater numbers go first; those with 0 stay.
    dispensable: u8,
    to_the_right: bool,
    cell: fn(&TunnelStatus) -> String,
}

const fn column(
    title: &'static str,
    dispensable: u8,
    to_the_right: bool,
    cell: fn(&TunnelStatus) -> String,
) -> Column {
    Column {
        title,
        dispensable,
        to_the_right,
        cell,
    }
}

const COLUMNS: [Column; 9] = [
    column("TUNNEL", 0, false, |it| cut(&harmless(&it.name), NAME_MAX)),
    column("GATE", 0, false, |it| gate(it.gate).to_owned()),
    column("FOR", 3, true, |it| {
        it.held_ms.map_or_else(none, short_time)
    }),
    column("EPOCH", 5, true, |it| {
        it.open_epoch.map_or_else(none, |number| number.to_string())
    }),
    column("AGE", 4, true, |it| {
        open_epoch(it).map_or_else(none, |epoch| short_time(epoch.age_ms))
    }),
    column("PROVEN", 1, true, |it| {
        it.last_proof_ms.map_or_else(none, short_time)
    }),
    column("RTT", 1, true, |it| {
        it.last_round_trip_us.map_or_else(none, milliseconds)
    }),
    column("LOSS", 2, true, loss),
    column("PEER", 6, false, |it| {
        it.peer.map_or_else(none, |peer| peer.ip().to_string())
    }),
];

/// The table, in lines of at most `width` columns.
pub(super) fn tunnels(tunnels: &[TunnelStatus], paint: Paint, width: Option<usize>) -> String {
    let mut columns: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .map(|column| (column, tunnels.iter().map(column.cell).collect()))
        .collect();
    let reasons: Vec<String> = tunnels.iter().map(why).collect();
    let natural = reasons.iter().map(|why| why.chars().count()).max();
    let wanted = natural.unwrap_or(0).min(WHY_MIN);
    let width = width.unwrap_or(usize::MAX);
    while taken(&columns) + wanted > width {
        let Some(most) = columns.iter().map(|(column, _)| column.dispensable).max() else {
            break;
        };
        if most == 0 {
            break;
        }
        columns.retain(|(column, _)| column.dispensable < most);
    }
    let room = width.saturating_sub(taken(&columns)).max(1);
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = (&str, &str, usize, bool)>, why: &str| {
        let mut line = String::new();
        for (plain, shown, width, to_the_right) in cells {
            let space = " ".repeat(width.saturating_sub(plain.chars().count()));
            if to_the_right {
                line.push_str(&space);
                line.push_str(shown);
            } else {
                line.push_str(shown);
                line.push_str(&space);
            }
            line.push_str(&" ".repeat(GAP));
        }
        line.push_str(why);
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let mut titles = columns.iter().map(|column| {
        let title = column.0.title;
        (title, title, width_of(column), column.0.to_the_right)
    });
    line(&mut titles, if wanted > 0 { "WHY" } else { "" });
    for (row, (tunnel, why)) in tunnels.iter().zip(&reasons).enumerate() {
        let coloured: Vec<String> = columns
            .iter()
            .map(|(column, cells)| match column.title {
                "TUNNEL" => paint.paint(Tone::Name, &cells[row]),
                "GATE" => paint.paint(tone(tunnel.gate), &cells[row]),
                _ => cells[row].clone(),
            })
            .collect();
        let mut cells = columns.iter().zip(&coloured).map(|(column, shown)| {
            let plain = column.1[row].as_str();
            let right = column.0.to_the_right;
            (plain, shown.as_str(), width_of(column), right)
        });
        line(&mut cells, &cut(why, room));
    }
    text
}

/// Columns that the cells and the gaps behind them take.
fn taken(columns: &[(&Column, Vec<String>)]) -> usize {
    columns.iter().map(|column| width_of(column) + GAP).sum()
}

fn width_of((column, cells): &(&Column, Vec<String>)) -> usize {
    let cells = cells.iter().map(|cell| cell.chars().count());
    cells.chain([column.title.len()]).max().unwrap_or(0)
}

fn none() -> String {
    NONE.to_owned()
}

fn gate(gate: GateStatus) -> &'static str {
    match gate {
        GateStatus::Open => "open",
        GateStatus::Held => "held",
        GateStatus::Down => "down",
    }
}

fn tone(gate: GateStatus) -> Tone {
    match gate {
        GateStatus::Open => Tone::Good,
        GateStatus::Held => Tone::Waiting,
        GateStatus::Down => Tone::Bad,
    }
}

fn open_epoch(status: &TunnelStatus) -> Option<&EpochStatus> {
    let number = status.open_epoch?;
    status.epochs.iter().find(|epoch| epoch.number == number)
}

/// Of the pings of late.
fn loss(status: &TunnelStatus) -> String {
    let recent = status.recent_pings;
    match (u64::from(recent.lost) * 100).checked_div(u64::from(recent.sent)) {
        Some(percent) => format!("{percent}%"),
        None => none(),
    }
}

/// What is being done, and why traffic does not pass.
fn why(status: &TunnelStatus) -> String {
    let step = step(status);
    let reason = match status.gate {
        GateStatus::Open => status.last_error.as_deref().unwrap_or_default(),
        GateStatus::Held => &status.reason,
        GateStatus::Down => status
            .reason
            .strip_prefix("down: ")
            .unwrap_or(&status.reason),
    };
    let text = match (step.is_empty(), reason.is_empty()) {
        (true, _) => reason.to_owned(),
        (false, true) => step,
        (false, false) => format!("{step}: {reason}"),
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    harmless(&words.join(" ")).into_owned()
}

/// The ladder's step with its attempt; nothing where nothing is tried.
pub(super) fn step(status: &TunnelStatus) -> String {
    match (status.ladder.as_str(), status.attempt, status.attempts) {
        ("idle" | "", _, _) => String::new(),
        (ladder, Some(attempt), None) if attempt > 1 => format!("{ladder}, attempt {attempt}"),
        (ladder, _, _) => ladder.to_owned(),
    }
}
