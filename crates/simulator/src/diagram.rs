//! Draws what happened as a ladder: a lane for each host, time downwards.
//!
//! ```text
//!     time s  client 0                                                    server
//!      1.204  |-- IKE_SA_INIT request 0 ------------------------------------>|
//!      1.224  |<- IKE_SA_INIT response 0 ------------------------------------|
//!      1.229  |-- ESP 3f00a1c2 ping --x lost: in the network                 |
//! ```
//!
//! Data packets of one stretch are one line, with their number.

use std::fmt::Write;

use epochgate_controller::Timestamp;
use epochgate_controller::event::EventKind;

use crate::kernel::Drop;
use crate::packet::Body;
use crate::trace::{Fate, Gate, Happened, Trace, Wire};
use crate::world::NodeId;

/// Columns of a line at most.
const WIDTH: usize = 118;

/// Where the first lane is.
const FIRST_LANE: usize = 13;

/// A line before it is drawn.
struct Line {
    at: Timestamp,
    what: Drawn,
    /// How many like it there were.
    count: u64,
}

#[derive(PartialEq)]
enum Drawn {
    Arrow {
        from: NodeId,
        to: Option<NodeId>,
        what: What,
        lost: Option<&'static str>,
    },
    /// A NAT passed it on, or dropped it.
    FromNat {
        what: What,
        to: Result<NodeId, &'static str>,
    },
    Dropped(NodeId, Drop),
    Note(Option<NodeId>, String),
}

/// What an arrow stands for.
#[derive(PartialEq)]
enum What {
    /// Data in ESP or in clear: what precedes "data".
    Data(String),
    Other(String),
}

impl What {
    fn text(&self, times: &str) -> String {
        match self {
            Self::Data(how) => format!("{how} data{times}"),
            Self::Other(text) => text.clone(),
        }
    }
}

impl Drawn {
    /// Whether several of it may be drawn as one.
    fn is_data(&self) -> bool {
        match self {
            Self::Arrow { what, .. } | Self::FromNat { what, .. } => {
                matches!(what, What::Data(_))
            }
            Self::Dropped(..) => true,
            Self::Note(..) => false,
        }
    }
}

/// The ladder. `lanes` names the hosts, from left to right.
#[must_use]
pub fn draw(trace: &Trace, lanes: &[(NodeId, String)]) -> String {
    let mut text = head(lanes);
    for line in lines(trace) {
        let row = Row::new(lanes).draw(&line);
        let at = line.at.since(Timestamp::ZERO).as_secs_f64();
        let row = format!("{at:10.3}{}", &row[10..]);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

fn head(lanes: &[(NodeId, String)]) -> String {
    let mut row = Row::new(&[]);
    for (index, (_, name)) in lanes.iter().enumerate() {
        let lane = lane(index, lanes.len());
        row.put(lane.saturating_sub(2), name);
    }
    let row: String = row.cells.into_iter().collect();
    format!("    time s{}\n", row[10..].trim_end())
}

/// The lines: data packets between two other things are one line for each way they went.
fn lines(trace: &Trace) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut stretch = 0;
    for record in trace.records() {
        let Some(what) = drawn(&record.what) else {
            continue;
        };
        if what.is_data() {
            let same = lines[stretch..].iter_mut().find(|line| line.what == what);
            if let Some(line) = same {
                line.count += 1;
                continue;
            }
        }
        let ends_stretch = !what.is_data();
        lines.push(Line {
            at: record.at,
            what,
            count: 1,
        });
        if ends_stretch {
            stretch = lines.len();
        }
    }
    lines
}

fn drawn(happened: &Happened) -> Option<Drawn> {
    Some(match happened {
        Happened::Sent {
            from,
            to,
            wire,
            fate,
        } => Drawn::Arrow {
            from: *from,
            to: *to,
            what: what(wire),
            lost: match fate {
                Fate::Arrives(_) => None,
                Fate::Lost(why) => Some(why),
            },
        },
        Happened::FromOutside { wire, verdict, .. } => Drawn::FromNat {
            what: what(wire),
            to: *verdict,
        },
        Happened::Dropped(node, _, why) => Drawn::Dropped(*node, *why),
        Happened::Kernel(node, event) => Drawn::Note(Some(*node), format!("kernel: {event:?}")),
        Happened::Gate(node, action) => {
            Drawn::Note(Some(*node), format!("gate: {}", Gate(*action)))
        }
        Happened::Told(node, event) => {
            // The ping itself is drawn.
            if let EventKind::PingSent { .. } = event.kind {
                return None;
            }
            let epoch = event.epoch.map(|epoch| format!("epoch {epoch}: "));
            let text = format!("{}{}", epoch.unwrap_or_default(), event.kind);
            Drawn::Note(Some(*node), text)
        }
        Happened::Done(node, what) => Drawn::Note(*node, format!("** {what}")),
    })
}

fn what(wire: &Wire) -> What {
    match wire {
        Wire::Esp(spi, Body::Data { .. }) => What::Data(format!("ESP {:08x}", spi.0)),
        Wire::Clear(Body::Data { .. }) => What::Data("CLEAR".into()),
        Wire::Esp(..) | Wire::Clear(_) | Wire::Ike { .. } | Wire::Keepalive | Wire::Datagram => {
            What::Other(wire.to_string())
        }
    }
}

/// The column of a lane: the first ones close together, the last (the server's) far to the right.
fn lane(index: usize, count: usize) -> usize {
    if index + 1 == count {
        WIDTH - 8
    } else {
        FIRST_LANE + index * 12
    }
}

/// A line on its way to text.
struct Row<'a> {
    cells: Vec<char>,
    lanes: &'a [(NodeId, String)],
}

impl<'a> Row<'a> {
    fn new(lanes: &'a [(NodeId, String)]) -> Self {
        let mut cells = vec![' '; WIDTH];
        for index in 0..lanes.len() {
            cells[lane(index, lanes.len())] = '|';
        }
        Self { cells, lanes }
    }

    fn draw(mut self, line: &Line) -> String {
        let times = match line.count {
            1 => String::new(),
            count => format!(" x {count}"),
        };
        match &line.what {
            Drawn::Arrow {
                from,
                to,
                what,
                lost,
            } => {
                self.arrow(*from, *to, &what.text(&times), *lost);
            }
            Drawn::FromNat { what, to: Ok(to) } => {
                self.note(Some(*to), &format!("<- NAT: {}", what.text(&times)));
            }
            Drawn::FromNat { what, to: Err(why) } => {
                self.note(None, &format!("NAT drops {}: {why}", what.text(&times)));
            }
            Drawn::Dropped(node, why) => self.note(Some(*node), &format!("drops{times}: {why:?}")),
            Drawn::Note(node, text) => self.note(*node, text),
        }
        self.cells.into_iter().collect()
    }

    fn lane_of(&self, node: NodeId) -> Option<usize> {
        let index = self.lanes.iter().position(|(id, _)| *id == node)?;
        Some(lane(index, self.lanes.len()))
    }

    /// Overwrites cells, as far as there are any.
    fn put(&mut self, column: usize, text: &str) {
        let cells = self.cells.iter_mut().skip(column);
        for (cell, letter) in cells.zip(text.chars()) {
            *cell = letter;
        }
    }

    fn arrow(&mut self, from: NodeId, to: Option<NodeId>, text: &str, lost: Option<&str>) {
        let (Some(from), to) = (self.lane_of(from), to.and_then(|to| self.lane_of(to))) else {
            return;
        };
        let to = to.unwrap_or(if from + 1 < WIDTH / 2 {
            WIDTH - 8
        } else {
            FIRST_LANE
        });
        let (left, right) = (from.min(to), from.max(to));
        let rightwards = from < to;
        if let Some(why) = lost {
            if rightwards {
                self.put(left + 1, &format!("-- {text} --x lost: {why}"));
            } else {
                let text = format!("lost: {why} x-- {text} --");
                self.put(right.saturating_sub(text.chars().count()), &text);
            }
            return;
        }
        let shaft = "-".repeat(right - left - 1);
        self.put(left + 1, &shaft);
        if rightwards {
            self.put(left + 3, &format!(" {text} "));
            self.put(right - 1, ">");
        } else {
            let text = format!(" {text} ");
            self.put(right.saturating_sub(2 + text.chars().count()), &text);
            self.put(left + 1, "<");
        }
    }

    /// A note stands right of its lane; the last lane's stands left of it.
    fn note(&mut self, node: Option<NodeId>, text: &str) {
        let text: String = text.chars().take(WIDTH - FIRST_LANE - 12).collect();
        let last = self.lanes.last().map(|(id, _)| *id);
        let Some(lane) = node.and_then(|node| self.lane_of(node)) else {
            self.put(FIRST_LANE + 2, &text);
            return;
        };
        if node == last {
            let length = text.chars().count();
            self.put(lane.saturating_sub(length + 1), &text);
        } else {
            self.put(lane + 2, &text);
        }
    }
}
