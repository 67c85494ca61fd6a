//! Tables that fit a terminal and stream: rows come in one by one and go out as lines.
//!
//! The first rows decide which columns there are and how wide they get ([`Layout`]); all others only
//! have to be formatted, so that a table of 100,000 rows needs the memory of [`LOOK_AHEAD`] of them.
//! (Table crates keep every cell until the end; that is what rules them out here.) What has no column,
//! because it is rare or because the terminal is narrow, follows on an indented line of its own:
//! nothing that a row has to say is cut off or left out.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use crate::terminal::{Paint, Tone, columns, harmless, lines};

/// Rows that are looked at before the first one is written.
pub(crate) const LOOK_AHEAD: usize = 512;
/// Blanks between columns.
const GAP: usize = 2;
/// Indentation of what follows a row.
const INDENT: usize = 6;
/// On a terminal too narrow for everything, a column of addresses is made for so many of a hundred
/// rows: one long IPv6 address must not take the room of all other columns.
const ADDRESSES_FITTED_PERCENT: usize = 75;
/// A column of addresses is at least made for an IPv4 prefix: `255.255.255.255/32`.
const IPV4_PREFIX_LENGTH: usize = 18;
/// So far a cell may stand from its column before the rest of the row goes to a line of its own.
const SHIFT_MAX: usize = 4;
/// Narrowest that a column of addresses gets.
const NARROWEST_ADDRESS: usize = 9;
/// Narrowest terminal that lines are fitted to; a narrower one wraps them itself.
const NARROWEST: usize = 40;

/// A column that a table may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: &'static str,
    /// What comes before a value that has no column, on the line below.
    pub(crate) label: &'static str,
    /// Columns with low numbers stay on a narrow terminal; those with 0 always do.
    pub(crate) rank: u8,
    pub(crate) align: Align,
    /// Widest that it gets; longer values move what follows.
    pub(crate) widest: usize,
    /// Where there is no column for it, it goes on the line below; else only --wide and --json
    /// say it.
    pub(crate) below: bool,
}

impl Column {
    /// A column whose values go below where it has no room.
    pub(crate) const fn new(
        title: &'static str,
        label: &'static str,
        rank: u8,
        align: Align,
        widest: usize,
    ) -> Self {
        Self {
            title,
            label,
            rank,
            align,
            widest,
            below: true,
        }
    }

    /// The same, for what is left out where it has no room.
    pub(crate) const fn or_nowhere(self) -> Self {
        Self {
            below: false,
            ..self
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// Left, and made narrower when even the most important columns do not fit.
    Address,
}

/// One entry of a table. Its text is in one buffer, harmless to a terminal, which the next entry
/// takes over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// What is said in the columns, one behind the other.
    text: String,
    cells: Vec<Cell>,
    /// What stands out.
    notes: Vec<(Tone, String)>,
}

/// What a row has to say in a column.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Where its text ends in that of the row.
    end: usize,
    /// How many columns of the terminal it takes.
    length: usize,
    tone: Option<Tone>,
    /// It is the usual: a column with nothing else in it is left out, and so is this without one.
    usual: bool,
}

impl Row {
    /// What is to be said in the next column.
    pub(crate) fn put(&mut self, value: impl Display) {
        self.add(value, None, "");
    }

    /// The same, with a colour.
    pub(crate) fn put_toned(&mut self, value: impl Display, tone: Option<Tone>) {
        self.add(value, tone, "");
    }

    /// Something to say only where it is not `usual`.
    pub(crate) fn put_unless(&mut self, value: impl Display, usual: &str) {
        self.add(value, None, usual);
    }

    /// What there may be to say in the next column.
    pub(crate) fn put_optional(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.put(value),
            None => self.put(""),
        }
    }

    /// What stands out: it goes behind or below the columns.
    pub(crate) fn put_notes(&mut self, notes: Vec<(Tone, String)>) {
        self.notes = notes;
    }

    fn add(&mut self, value: impl Display, tone: Option<Tone>, usual: &str) {
        let start = self.text.len();
        // A string takes whatever is written to it.
        let _ = write!(self.text, "{value}");
        let written = self.text.get(start..).unwrap_or_default();
        if let Cow::Owned(harmless) = harmless(written) {
            self.text.truncate(start);
            self.text.push_str(&harmless);
        }
        let written = self.text.get(start..).unwrap_or_default();
        self.cells.push(Cell {
            end: self.text.len(),
            length: columns(written),
            tone,
            usual: written.is_empty() || written == usual,
        });
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
        self.notes.clear();
    }

    /// The cells and what they say.
    fn cells(&self) -> impl Iterator<Item = (&Cell, &str)> {
        let mut start = 0;
        self.cells.iter().map(move |cell| {
            let text = self.text.get(start..cell.end).unwrap_or_default();
            start = cell.end;
            (cell, text)
        })
    }
}

/// Which columns a table has, and how wide they are.
#[derive(Debug)]
pub(crate) struct Layout {
    columns: &'static [Column],
    /// Per column: its width if it is shown.
    widths: Vec<Option<usize>>,
    /// Columns of the terminal; `None`: nothing limits a line, and a row is one line.
    width: Option<usize>,
    paint: Paint,
}

impl Layout {
    /// The best layout for the first rows.
    pub(crate) fn of(
        columns: &'static [Column],
        first: &[Row],
        width: Option<usize>,
        paint: Paint,
    ) -> Self {
        let width = width.map(|width| width.max(NARROWEST));
        let wanted = |place: usize, column: &Column| {
            let cells = first.iter().filter_map(|row| row.cells.get(place));
            let is_said = column.rank == 0 || cells.clone().any(|cell| !cell.usual);
            let longest = cells.map(|cell| cell.length).max().unwrap_or(0);
            is_said.then(|| longest.min(column.widest).max(column.title.len()))
        };
        let wanted: Vec<Option<usize>> = columns
            .iter()
            .enumerate()
            .map(|(place, column)| wanted(place, column))
            .collect();
        let mut layout = Self {
            columns,
            widths: wanted.clone(),
            width,
            paint,
        };
        if let Some(width) = width
            && layout.total() > width
        {
            let mut wanted = wanted;
            for ((place, column), wanted) in columns.iter().enumerate().zip(&mut wanted) {
                if let Some(wanted) = wanted
                    && column.align == Align::Address
                {
                    *wanted = (*wanted)
                        .min(usual_length(first, place))
                        .max(column.title.len());
                }
            }
            layout.fit(&wanted, width);
        }
        layout
    }

    /// Leaves out columns, the least important first, until the others fit.
    fn fit(&mut self, wanted: &[Option<usize>], width: usize) {
        self.widths = self
            .columns
            .iter()
            .zip(wanted)
            .map(|(column, wanted)| wanted.filter(|_| column.rank == 0))
            .collect();
        self.narrow_addresses(width);
        let mut by_rank: Vec<(u8, usize)> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| (column.rank, place))
            .collect();
        by_rank.sort_unstable();
        for (rank, place) in by_rank {
            let Some(wanted) = wanted.get(place).copied().flatten().filter(|_| rank > 0) else {
                continue;
            };
            if self.total() + GAP + wanted <= width
                && let Some(slot) = self.widths.get_mut(place)
            {
                *slot = Some(wanted);
            }
        }
    }

    fn narrow_addresses(&mut self, width: usize) {
        while self.total() > width {
            let widest = self
                .columns
                .iter()
                .zip(&mut self.widths)
                .filter(|(column, _)| column.align == Align::Address)
                .filter_map(|(_, width)| width.as_mut())
                .max();
            match widest {
                Some(widest) if *widest > NARROWEST_ADDRESS => *widest -= 1,
                Some(_) | None => return,
            }
        }
    }

    fn total(&self) -> usize {
        let shown = self.widths.iter().flatten();
        shown
            .map(|width| width + GAP)
            .sum::<usize>()
            .saturating_sub(GAP)
    }

    /// Puts the line of headings behind `text`.
    fn put_heading(&self, text: &mut String) {
        let mut titles = Row::default();
        for column in self.columns {
            titles.put(column.title);
        }
        let mut line = String::new();
        self.put_cells(&mut line, &titles);
        self.paint.put(text, Tone::Name, line.trim_end());
        text.push('\n');
    }

    /// Puts the lines of a row behind `text`.
    fn put_row(&self, text: &mut String, row: &Row) {
        self.put_cells(text, row);
        let details = self.details(row);
        match self.width {
            None => {
                if !details.is_empty() {
                    text.push_str("  ");
                    text.push_str(&details);
                }
                for (tone, note) in &row.notes {
                    text.push_str("  ");
                    self.paint
                        .put(text, *tone, format_args!("! {}", harmless(note)));
                }
                text.push('\n');
            }
            Some(width) => {
                text.push('\n');
                for line in lines(&details, width - INDENT) {
                    put_blanks(text, INDENT);
                    text.push_str(line);
                    text.push('\n');
                }
                for (tone, note) in &row.notes {
                    let mut mark = "! ";
                    for line in lines(&harmless(note), width - INDENT - mark.len()) {
                        put_blanks(text, INDENT);
                        self.paint.put(text, *tone, format_args!("{mark}{line}"));
                        text.push('\n');
                        mark = "  ";
                    }
                }
            }
        }
    }

    /// What a row has to say beside its columns.
    fn details(&self, row: &Row) -> String {
        let mut details = String::new();
        for ((column, width), (cell, said)) in
            self.columns.iter().zip(&self.widths).zip(row.cells())
        {
            if width.is_none() && column.below && !cell.usual {
                if !details.is_empty() {
                    details.push_str(", ");
                }
                details.push_str(column.label);
                if !column.label.is_empty() {
                    details.push(' ');
                }
                details.push_str(said);
            }
        }
        details
    }

    /// Puts every shown cell at its column, or behind the one before it if that is too long; what
    /// does not fit into the line any more begins a new one, at its column. No line ends in blanks.
    fn put_cells(&self, text: &mut String, row: &Row) {
        let limit = self.width.unwrap_or(usize::MAX);
        let mut line_start = text.len();
        let mut at = 0;
        let mut column_start = 0;
        for ((column, width), (cell, said)) in
            self.columns.iter().zip(&self.widths).zip(row.cells())
        {
            let Some(width) = *width else { continue };
            let length = cell.length;
            let pad = match column.align {
                Align::Right => width.saturating_sub(length),
                Align::Left | Align::Address => 0,
            };
            let own_start = column_start + pad;
            column_start += width + GAP;
            if length == 0 {
                continue;
            }
            let mut start = if at == 0 {
                own_start
            } else {
                own_start.max(at + GAP)
            };
            let is_shifted = self.width.is_some() && start > own_start + SHIFT_MAX;
            if at > 0 && (start + length > limit || is_shifted) {
                trim_end(text, line_start);
                text.push('\n');
                line_start = text.len();
                at = 0;
                start = own_start.min(limit.saturating_sub(length));
            }
            put_blanks(text, start - at);
            match cell.tone {
                Some(tone) => self.paint.put(text, tone, said),
                None => text.push_str(said),
            }
            at = start + length;
        }
        trim_end(text, line_start);
    }
}

fn put_blanks(text: &mut String, mut count: usize) {
    const BLANKS: &str = "                                ";
    while let Some(rest) = count.checked_sub(BLANKS.len()) {
        text.push_str(BLANKS);
        count = rest;
    }
    text.push_str(BLANKS.get(..count).unwrap_or_default());
}

/// Takes away the blanks at the end of the line that begins at `start`.
fn trim_end(text: &mut String, start: usize) {
    let line = text.get(start..).unwrap_or_default();
    text.truncate(start + line.trim_end().len());
}

/// The length that most rows need in a column.
fn usual_length(rows: &[Row], place: usize) -> usize {
    let cells = rows.iter().filter_map(|row| row.cells.get(place));
    let mut lengths: Vec<usize> = cells.map(|cell| cell.length).collect();
    lengths.sort_unstable();
    let most = lengths.len().saturating_sub(1) * ADDRESSES_FITTED_PERCENT / 100;
    let limit = lengths
        .get(most)
        .copied()
        .unwrap_or(0)
        .max(IPV4_PREFIX_LENGTH);
    lengths
        .into_iter()
        .rfind(|length| *length <= limit)
        .unwrap_or(limit)
}

/// A table under way: the first rows wait for the layout, all others go through.
#[derive(Debug)]
pub(crate) struct Table {
    columns: &'static [Column],
    width: Option<usize>,
    paint: Paint,
    waiting: Vec<Row>,
    layout: Option<Layout>,
    /// The row under way, once there is a layout.
    row: Row,
    /// What is to be written now.
    text: String,
}

impl Table {
    pub(crate) fn new(columns: &'static [Column], width: Option<usize>, paint: Paint) -> Self {
        Self {
            columns,
            width,
            paint,
            waiting: Vec::new(),
            layout: None,
            row: Row::default(),
            text: String::new(),
        }
    }

    /// Takes what `fill` puts into an empty row; gives the text to write now, if any.
    pub(crate) fn add(&mut self, fill: impl FnOnce(&mut Row)) -> &str {
        self.text.clear();
        self.row.clear();
        fill(&mut self.row);
        match &self.layout {
            Some(layout) => layout.put_row(&mut self.text, &self.row),
            None => {
                self.waiting.push(std::mem::take(&mut self.row));
                if self.waiting.len() == LOOK_AHEAD {
                    self.begin();
                }
            }
        }
        &self.text
    }

    /// The rest of the table.
    pub(crate) fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.waiting.is_empty() {
            self.begin();
        }
        &self.text
    }

    fn begin(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let layout = Layout::of(self.columns, &waiting, self.width, self.paint);
        layout.put_heading(&mut self.text);
        for row in &waiting {
            layout.put_row(&mut self.text, row);
        }
        self.layout = Some(layout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("ID", "", 0, Align::Left, 10),
        Column::new("SOURCE", "from", 0, Align::Address, 40),
        Column::new("SIZE", "size", 1, Align::Right, 10),
        Column::new("MARK", "mark", 2, Align::Left, 10),
    ];

    fn row(cells: [&str; 4], note: Option<&str>) -> Row {
        let mut row = Row::default();
        for cell in cells {
            row.put(cell);
        }
        row.put_notes(
            note.map(|note| (Tone::Bad, note.to_owned()))
                .into_iter()
                .collect(),
        );
        row
    }

    fn shown(rows: &[Row], width: Option<usize>) -> String {
        let mut table = Table::new(&COLUMNS, width, Paint::Plain);
        let mut text = String::new();
        for row in rows {
            text.push_str(table.add(|empty| *empty = row.clone()));
        }
        text.push_str(table.finish());
        text
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [
            row(["a", "192.0.2.1", "5", "m"], None),
            row(["bb", "192.0.2.255", "1234", ""], Some("look")),
        ];
        assert_eq!(
            shown(&rows, Some(80)),
            "ID  SOURCE       SIZE  MARK\n\
             a   192.0.2.1       5  m\n\
             bb  192.0.2.255  1234\n      ! look\n"
        );
    }

    #[test]
    fn without_a_width_a_row_is_one_line() {
        let rows = [row(["a", "192.0.2.1", "", ""], Some("look at it"))];
        assert_eq!(
            shown(&rows, None),
            "ID  SOURCE\na   192.0.2.1  ! look at it\n"
        );
    }

    #[test]
    fn a_column_with_nothing_in_it_is_left_out() {
        let rows = [row(["a", "192.0.2.1", "", ""], None)];
        assert_eq!(shown(&rows, Some(80)), "ID  SOURCE\na   192.0.2.1\n");
    }

    #[test]
    fn what_has_no_column_goes_below() {
        let source = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let rows = [row(["a", source, "17", "m"], None)];
        assert_eq!(
            shown(&rows, Some(42)),
            format!("ID  SOURCE\na   {source}\n      size 17, mark m\n")
        );
    }

    #[test]
    fn a_terminal_obeys_nothing_of_what_a_row_says() {
        let hostile = row(["\x1b[2J", "::1\r", "\u{9b}m", "\x07"], Some("a\x1b]0;b"));
        for width in [None, Some(40), Some(80)] {
            let text = shown(std::slice::from_ref(&hostile), width);
            let obeyed: Vec<char> = text
                .chars()
                .filter(|c| c.is_control() && *c != '\n')
                .collect();
            assert!(obeyed.is_empty(), "{width:?}: {text:?}");
            assert_eq!(text.matches('\u{fffd}').count(), 5, "{width:?}: {text:?}");
        }
    }

    #[test]
    fn columns_of_any_distance_are_reached() {
        let long = "x".repeat(100);
        let rows = [
            row(["a", &long, "", "m"], None),
            row(["a", "b", "", "m"], None),
        ];
        let text = shown(&rows, None);
        let starts: Vec<_> = text.lines().map(|line| line.rfind(['M', 'm'])).collect();
        assert_eq!(starts, [Some(46), Some(106), Some(46)], "{text}");
    }

    #[test]
    fn what_is_too_long_moves_the_rest_to_a_line_of_its_own() {
        let source = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let mut rows = vec![row(["a", "::1", "5", "m"], None); LOOK_AHEAD];
        rows.push(row(["b", source, "6", "n"], None));
        let text = shown(&rows, Some(42));
        let expected = format!("b   {source}\n               6  n\n");
        assert!(text.ends_with(&expected), "{:?}", text.lines().last());
    }

    #[test]
    fn every_line_fits() {
        let source = "2001:db8:1234:5678:9abc:def0:1234:5678";
        let rows = [row(
            ["name", source, "17", "mmmm"],
            Some("a note of several words here"),
        )];
        for width in 44..100 {
            for line in shown(&rows, Some(width)).lines() {
                assert!(line.len() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn a_long_table_streams() {
        let mut table = Table::new(&COLUMNS, Some(80), Paint::Plain);
        for number in 1..LOOK_AHEAD {
            let text = table.add(|empty| *empty = row(["a", "::1", &number.to_string(), ""], None));
            assert_eq!(text, "");
        }
        let text = table.add(|empty| *empty = row(["a", "::1", "0", ""], None));
        assert_eq!(text.lines().count(), LOOK_AHEAD + 1);
        let text = table.add(|empty| *empty = row(["a", "::1", "0", "late"], None));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("mark late\n"), "{text}");
        assert_eq!(table.finish(), "");
    }
}
